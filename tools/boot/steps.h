/* What the host has /init do once everything was traced, each step answered. */
#ifndef STEPS_H
#define STEPS_H

void take_steps(void);

#endif
