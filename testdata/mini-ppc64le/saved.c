/*
 * Functions that gcc -Os begins with a call: `mflr r0; bl _savegpr0_N` (or _savefpr_N), which saves the registers and
 * the return address out of line. Traced ones have `mflr r0; bl _mcount` in front of that, untraced ones begin with it.
 */
#define noinline	__attribute__((noinline))
#define notrace		__attribute__((no_instrument_function))

long saved_ext(long, long, long);
double saved_fp(double);

noinline long saved_ext(long a, long b, long c)
{
	asm volatile("" : : : "memory");
	return a + b * c;
}

noinline long saved_traced(long a, long b, long c)
{
	long x = saved_ext(a, b, c), y = saved_ext(b, c, a), z = saved_ext(c, a, x);

	return saved_ext(x, y, z) + saved_ext(z, y, x) + a;
}

notrace noinline long saved_untraced(long a, long b, long c)
{
	long x = saved_ext(a, b, c), y = saved_ext(b, c, a), z = saved_ext(c, a, x);

	return saved_ext(x, y, z) + saved_ext(z, y, x) - a;
}

notrace noinline long saved_untraced_too(long a, long b, long c)
{
	long x = saved_ext(b, a, c), y = saved_ext(b, c, x);

	return saved_ext(x, y, c) + saved_ext(c, y, x) - b;
}
