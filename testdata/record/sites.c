/* Functions of every section that matters to a record: see build.sh. */
#define SECTION(name) __attribute__((section(name)))

int elsewhere(int);
extern int number;

static __attribute__((noinline)) int local(int a) { return elsewhere(a) + number; }
int global(int a) { return local(a) + 1; }
__attribute__((weak)) int weak(int a) { return elsewhere(a) * 3; }
SECTION(".init.text") int starts(int a) { return elsewhere(a) * 5; }
SECTION(".exit.text") int leaves(int a) { return elsewhere(a) * 7; }
SECTION(".text.unlikely") int seldom(int a) { return elsewhere(a) * 9; }
SECTION(".noinstr.text") int bare(int a) { return elsewhere(a) * 13; }
__attribute__((no_instrument_function, patchable_function_entry(0, 0))) int notrace(int a) { return elsewhere(a) * 11; }
