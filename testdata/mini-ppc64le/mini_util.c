/* Second object of mini.ko. */
#define __init		__attribute__((section(".init.text")))
#define __unlikely	__attribute__((section(".text.unlikely")))
#define noinline	__attribute__((noinline))

extern int _printk(const char *fmt, ...);

/* One entry: r2 is whatever the caller had. */
noinline int mini_util(int x)
{
	return x * 7 + 1;
}

__unlikely noinline int mini_complain(int x)
{
	_printk("mini: %d?\n", x);
	return x;
}

static __init noinline int mini_probe_one(int x)
{
	asm volatile("");
	return mini_util(x) - 3;
}

__init int mini_util_probe(int x)
{
	return mini_probe_one(x) + mini_complain(x + 1);
}
