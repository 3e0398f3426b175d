/* A program without a C library, to be read and not run: functions that refer to each other, a constructor, and with
 * -DCHOOSES a function whose address a resolver gives. */
int volatile total;

void mcount(void);
void __fentry__(void);
#ifdef BRINGS_PROFILER
void __attribute__((no_instrument_function, patchable_function_entry(0))) mcount(void) {}
void __attribute__((no_instrument_function, patchable_function_entry(0))) __fentry__(void) {}
#endif

static __attribute__((noinline)) int inner(int x)
{
	total += x;
	return x + 1;
}

__attribute__((noinline)) int outer(int x)
{
	return inner(x) * 3;
}

#ifdef SHORT
__attribute__((noinline, patchable_function_entry(SHORT))) int brief(int x)
{
	return inner(x) - 3;
}
#endif

__attribute__((constructor)) void early(void)
{
	total = 1;
}

#ifdef CHOOSES
static int (*resolve(void))(int)
{
	return outer;
}

int chosen(int) __attribute__((ifunc("resolve")));
#endif

void _start(void)
{
#ifdef SHORT
	total += brief(3);
#endif
#ifdef CHOOSES
	total += chosen(4);
#endif
	total += outer(total);
	for (;;)
		;
}
