/* The profiling function itself, for files in which it is defined: MCOUNT_IN names a section far away. */
#ifndef MCOUNT_IN
#define MCOUNT_IN ".text"
#endif
int calls_counted;

__attribute__((no_instrument_function, section(MCOUNT_IN))) void _mcount(void)
{
	calls_counted++;
}

__attribute__((no_instrument_function)) int outside(int a)
{
	return a + calls_counted;
}
