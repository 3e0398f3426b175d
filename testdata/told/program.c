/* A program whose output changes when leaf() is hooked by something that changes registers: leaf() has its site by an
 * attribute alone, so that the compiler lets more() keep its values in registers that belong to leaf(). */
#include <stdio.h>

static long __attribute__((noinline, patchable_function_entry(NOPS))) leaf(long a)
{
	return a * 3 + 7;
}

/* it has no site, and leaves as much alone as leaf() does */
static long __attribute__((noinline)) between(long a)
{
	return leaf(a) + 1;
}

long __attribute__((noinline)) more(const long *p)
{
	long a = p[0], b = p[1], c = p[2], d = p[3], e = p[4], f = p[5], h = p[6], i = p[7], j = p[8], k = p[9], l = p[10];
	long m = p[11];
	long r = leaf(a + 1);

	return r + a * b + c * d + e * f + h * i + j * k + l * m;
}

long __attribute__((noinline)) farther(const long *p)
{
	long a = p[0], b = p[1], c = p[2], d = p[3], e = p[4], f = p[5], h = p[6], i = p[7], j = p[8], k = p[9], l = p[10];
	long m = p[11];
	long r = between(a + 1);

	return r + a * b + c * d + e * f + h * i + j * k + l * m;
}

/* its site, and a caller that keeps only what every target gives back */
static long __attribute__((noinline, patchable_function_entry(NOPS))) tiny(long a)
{
	return a * 5 + 9;
}

long __attribute__((noinline)) few(const long *p)
{
	long a = p[0], b = p[1], c = p[2], d = p[3];
	long r = tiny(a + 1);

	return r + a * b + c * d;
}

/* what the sites may call: in assembly, since both have a contract that no C function keeps */
extern void changes(void), keeps(void);

unsigned long hits;

/* the same by a stub: it changes all that a function may change */
void hook(unsigned long site, unsigned long caller)
{
	hits += site != caller;
}

int main(void)
{
	static const long values[12] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};

	long (*volatile calls[])(const long *) = {more, farther, few}; /* main() itself knows nothing of them */

	printf("%ld %ld %ld\n", calls[0](values), calls[1](values), calls[2](values));
	printf("hits %lu\n", hits);
	return (void *)changes == (void *)keeps;
}
