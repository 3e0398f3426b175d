/* The network interfaces that came with the modules. */
#ifndef NETWORK_H
#define NETWORK_H

#define FRAMES 20	/* sent through each interface when it is exercised */

void note_interfaces(void);
unsigned exercise_interfaces(void);

#endif
