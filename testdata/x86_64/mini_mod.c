/* First object of mini.ko. */
#include "kernel.h"
#define __exit	__attribute__((section(".exit.text")))

int mini_util(int x);
int mini_util_probe(int x);

static int state;

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
	_printk("mini: %d\n", mini_work(3) + mini_util_probe(1));
	return 0;
}

static __exit notrace void mini_exit(void)
{
	_printk("mini: bye %d\n", state);
}

int init_module(void) __alias(mini_init);
void cleanup_module(void) __alias(mini_exit);
