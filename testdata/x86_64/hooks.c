#include "kernel.h"

static ulong opens;

static int init_once(struct file *f)
{
	f->pos = opens++;
	f->len = 20;
	return 0;
}

int (*ctor)(struct file *) = init_once;

noinline int arch_hook_early(int x)
{
	return slot_probe(x + 1);
}

noinline int arch_hook_power(int x)
{
	return x + (int)opens;
}
