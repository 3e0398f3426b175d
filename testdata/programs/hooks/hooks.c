/* Functions that a hook comes back to, or whose arguments are wide, and hooks of several kinds. */

#define PLAIN __attribute__((patchable_function_entry(0)))
#define ALONE __attribute__((noipa))

extern void absent(unsigned long, unsigned long) __attribute__((weak));
extern void outside(unsigned long, unsigned long);
extern void _exit(int) __attribute__((noreturn));
unsigned long hits;
void (*volatile weak_slot)(unsigned long, unsigned long) = absent;
void (*volatile exit_slot)(int) = _exit;

ALONE int inner(int a) { return 3 * a + 1; }
ALONE int outer(int a) { return inner(a) - 1; }
ALONE PLAIN int between(int a) { return outer(a) + 2; }
ALONE PLAIN void hook(unsigned long site, unsigned long caller) { hits += site && caller; }
ALONE PLAIN void other_hook(unsigned long site, unsigned long caller) { hits += 2; }
ALONE PLAIN void circle(unsigned long site, unsigned long caller) { hits += between(1); }
ALONE PLAIN void stops(unsigned long site, unsigned long caller) { for (;;) hits++; }
ALONE void traced_hook(unsigned long site, unsigned long caller) { hits++; }
#ifdef IFUNC
ALONE void *chooses(void) { return inner; }
int chosen(int a) __attribute__((ifunc("chooses")));
#endif
#ifdef WIDE
typedef float wide __attribute__((vector_size(32)));
ALONE wide vectors(wide a, wide b) { return a + b; }
#endif
PLAIN void uses(void) { outside(0, 0); outside(1, 1); }
PLAIN int start(void) { return outer(1) + (absent != 0); }
