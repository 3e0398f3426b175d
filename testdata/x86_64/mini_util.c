/* Second object of mini.ko. */
#include "kernel.h"

noinline int mini_util(int x)
{
	return x * 7 + 1;
}

static __init noinline int mini_probe_one(int x)
{
	asm volatile("");
	return mini_util(x) - 3;
}

__init int mini_util_probe(int x)
{
	return mini_probe_one(x) + mini_probe_one(x + 1);
}
