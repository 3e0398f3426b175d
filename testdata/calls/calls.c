/* Functions built with -pg: each calls the profiling function, and nothing makes records of that. */
#define noinline	__attribute__((noinline))
#ifdef PROGRAM
#define section(x)
#else
#define section(x)	__attribute__((section(x)))
#endif

int outside(int);

static noinline int inner(int a)
{
	return outside(a) + 1;
}

__attribute__((weak)) int weakly(int a)
{
	return a * 3;
}

int outer(int a)
{
	return inner(a) + weakly(a);
}

__attribute__((no_instrument_function)) int untraced(int a)
{
	return outside(a) - 1;
}

section(".init.text") int starts(int a)
{
	return outside(a) + 2;
}

section(".exit.text") int ends(int a)
{
	return outside(a) + 3;
}
