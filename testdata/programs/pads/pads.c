/* A program, or a shared object, whose functions have one NOP behind their entries and others in front. */

struct big { long value[4]; };

extern unsigned long hits;

#define PLAIN __attribute__((patchable_function_entry(0)))

__attribute__((noipa)) int work(int a) { return 3 * a + 1; }
__attribute__((noipa)) double numbers(double a, double b) { return a * b + 1; }
__attribute__((noipa)) struct big structure(long a) { return (struct big){{a, a + 1, a + 2, a + 3}}; }
__attribute__((noipa)) static int inside(int a) { return a - 7; }
__attribute__((noipa)) void nothing(void) {}
extern int also(int) __attribute__((alias("work")));
PLAIN void hook(unsigned long site, unsigned long caller) { hits += site && caller; }
PLAIN int start(void) { nothing(); return work(1) + inside(2) + (int)numbers(1, 2) + (int)structure(3).value[0]; }
