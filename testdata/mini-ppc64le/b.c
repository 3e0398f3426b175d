#include "mini.h"

static ulong opens;

static void init_once(struct file *f)
{
	f->pos = opens++;
	f->len = 20;
}

ctor_t b_ctor = init_once;

__init int b_setup(struct file *f)
{
	f->buf = linux_banner;
	b_ctor(f);
	return arch_hook_late(2) + arch_hook_power(3);
}

noinline int arch_hook_early(int x)
{
	return slot_probe(x + 1);
}

noinline int arch_hook_power(int x)
{
	return x + (int)opens;
}

noinline notrace void notrace_helper(struct file *f)
{
	asm volatile("nop\n\tnop\n\tnop" : : "r"(f) : "memory");
}

/* One body, two names. */
long sys_getppid(ulong regs)
{
	return (long)regs + arch_hook_early(4);
}
long __se_sys_getppid(ulong regs) __alias(sys_getppid);
EXPORT(sys_getppid);

__weak noinline int arch_hook_late(int x)
{
	return slot_probe(x) - 7;
}

/* vmlinux-far: reaches ftrace_tramp_text, but not ftrace_caller. */
__init_mid int b_mid(int x)
{
	return x ^ (int)opens;
}

/* vmlinux-far: reaches nothing but ftrace_tramp_init. */
__init_far int b_late(int x)
{
	return slot_probe(x) + 1;
}

/* vmlinux-unreachable: out of reach of every trampoline; elsewhere a plain function. */
__island noinline int island(int x)
{
	return x - (int)opens;
}
