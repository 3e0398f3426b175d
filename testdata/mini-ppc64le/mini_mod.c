/* First object of mini.ko. */
#define __init		__attribute__((section(".init.text")))
#define __exit		__attribute__((section(".exit.text")))
#define noinline	__attribute__((noinline))
#define notrace		__attribute__((patchable_function_entry(0, 0)))
#define __alias(x)	__attribute__((alias(#x)))

/* The loader replaces this by room for its call stubs. */
asm(".section .stubs,\"ax\",@nobits\n\t.balign 8\n\t.previous");

extern int _printk(const char *fmt, ...);
int mini_util(int x);
int mini_util_probe(int x);

static int state;

static __init noinline int mini_first(int x)
{
	asm volatile("");
	return x + state;
}

static noinline int mini_step(int x)
{
	state += mini_util(x);
	return state;
}

noinline notrace int mini_untraced(int x)
{
	return x ^ state;
}

noinline int mini_work(int x)
{
	int i;

	for (i = 0; i < x; i++)
		mini_step(i);
	return mini_untraced(state);
}

static __init int mini_init(void)
{
	_printk("mini: %d\n", mini_work(3) + mini_util_probe(1) + mini_first(2));
	return 0;
}

static __exit notrace void mini_exit(void)
{
	_printk("mini: bye %d\n", state);
}

int init_module(void) __alias(mini_init);
void cleanup_module(void) __alias(mini_exit);
