/* A program, or a shared object, of the few kinds of functions that a patch site can stand in front of. */

struct big { long value[4]; };
typedef long vector __attribute__((vector_size(16)));

extern void outside(unsigned long site, unsigned long caller);
extern unsigned long hits;
void (*volatile keep)(unsigned long, unsigned long) = outside; /* an import, so that it has a slot */

#define PLAIN __attribute__((patchable_function_entry(0)))

__attribute__((noipa)) int work(int a) { return 3 * a + 1; }
__attribute__((noipa)) double numbers(double a, double b) { return a * b + 1; }
__attribute__((noipa)) vector vectors(vector a, vector b) { return a + b; }
__attribute__((noipa)) struct big structure(long a) { return (struct big){{a, a + 1, a + 2, a + 3}}; }
__attribute__((noipa)) void nothing(void) {}
PLAIN void hook(unsigned long site, unsigned long caller) { hits += site && caller; }
PLAIN void through_plt(void) { outside(0, 0); }
PLAIN int start(void) { nothing(); return work(1) + (int)numbers(1, 2) + (int)structure(3).value[0]; }
