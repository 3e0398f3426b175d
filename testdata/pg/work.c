/* Functions of every kind, built with -pg; what they compute shows whether a call at their head kept what they need. */
#include <stdarg.h>

extern int outside(int);

struct nine {
	long v[9];
};

static int __attribute__((noinline)) inner(int a)
{
	return outside(a) + 1;
}

int __attribute__((weak)) weakly(int a)
{
	return a * 3;
}

int outer(int a)
{
	return inner(a) + weakly(a);
}

/* arguments on the stack, in floating-point and vector registers, and a place for the result */
long many(long a, long b, long c, long d, long e, long f, long g, long h, long i, long j)
{
	return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j;
}

double mixed(double a, float b, long c, long double d)
{
	return a * b + (double)c + (double)d;
}

struct nine made(int x, double d)
{
	struct nine made = { { x, (long)d } };

	return made;
}

long summed(int n, ...)
{
	va_list ap;
	long sum = 0;

	va_start(ap, n);
	while (n--)
		sum += va_arg(ap, long);
	va_end(ap);
	return sum;
}

#ifdef NESTED
/* the static chain register */
int nested(int a)
{
	int kept = a;

	int __attribute__((noinline)) within(int b)
	{
		kept += b;
		return kept;
	}

	return within(a) + within(kept);
}
#else
int nested(int a)
{
	return 5 * a;
}
#endif

int __attribute__((noinline, cold)) rarely(int a)
{
	return outside(a) * 7;
}

int tail(int a)
{
	return outside(a + 1);
}

int depth(int n)
{
	return n ? depth(n - 1) + 1 : 0;
}

int __attribute__((section(".init.text"))) starts(int a)
{
	return outside(a) + 2;
}
