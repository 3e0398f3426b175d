/* The modules that the host sent along: loaded, kept busy while functions are traced, and unloaded. */
#ifndef MODULES_H
#define MODULES_H

void load_modules(void);
int any_modules(void);
void exercise_modules(void);
void unload_modules(void);

#endif
