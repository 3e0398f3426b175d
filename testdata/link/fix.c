/* A replacement for mini_step() and mini_work() of mini.ko: what `redirect --with` links into the module. */
#define noinline	__attribute__((noinline))

extern int _printk(const char *fmt, ...);	/* the module imports it already */
extern unsigned long ktime_get(void);		/* it does not import that one */
extern int maybe(int x) __attribute__((weak));	/* nobody defines it */
extern int mini_util(int x);			/* a function of the module, for every file of it */
extern int state __asm__("\"state@mini_mod.c\"");	/* static there */
extern int old_step(int x);			/* --keep-original */

static int calls;				/* .bss */
int shared_count;				/* a common symbol (-fcommon) */
static volatile int limit = 1000;		/* .data */
int (*const possibly)(int) = maybe;
static const char *const words[] = { "one", "two", "three", "four" };

static noinline int weigh(int x)
{
	switch (x & 7) {			/* a jump table */
	case 0:
		return 17;
	case 1:
		return calls;
	case 2:
		return 99 + limit;
	case 3:
		return 5 * x;
	case 4:
		return 71 - shared_count;
	case 5:
		return mini_util(x);
	default:
		return x / 7;
	}
}

static noinline int count(int x)
{
	calls += x;
	return calls;
}

int fixed_step(int x)
{
	state += weigh(x);
	if (state > limit)
		_printk("step %d: %s\n", count(1), words[x & 3]);
	if (*(int (*const volatile *)(int))&possibly)
		return maybe(x);
	return old_step(x) + 1;
}

/* a pointer to a function, and one to the original */
int (*const steps[])(int) = { fixed_step, count, old_step };

int fixed_work(int x)
{
	return steps[x % 3](x) + (int)ktime_get();
}
