#include "mini.h"

static noinline long direct_only(struct file *f, ulong n)
{
	ulong left = f->len - f->pos;

	asm volatile("");
	return n < left ? n : left;
}

__init int a_setup(struct file *f)
{
	f->buf = linux_banner;
	a_ctor(f);
	return arch_hook_early(1);
}

long vfs_read(struct file *f, char *to, ulong n)
{
	long i, k = direct_only(f, n);

	for (i = 0; i < k; i++) {
		to[i] = f->buf[f->pos + i];
		asm volatile("");
	}
	f->pos += k;
	notrace_helper(f);
	return k;
}
EXPORT(vfs_read);

/* A weak default that b.c overrides: the body stays, its name does not. */
__weak noinline int arch_hook_early(int x)
{
	return slot_probe(x) + 100;
}

static void init_once(struct file *f)
{
	f->pos = 0;
	f->len = 13;
}

ctor_t a_ctor = init_once;

/* Starts with two NOPs of its own, which follow those of the site. */
noinline int slot_probe(int x)
{
	asm volatile("nop\n\tnop" : "+r"(x));
	return x * 3;
}
EXPORT(slot_probe);

long vfs_write(struct file *f, const char *from, ulong n)
{
	long k = direct_only(f, n);

	if (k > 0)
		early_puts(from);
	return k;
}
EXPORT(vfs_write);

__weak noinline int arch_hook_power(int x)
{
	return slot_probe(x) ^ 5;
}

/* vmlinux-far: reaches ftrace_caller, but not ftrace_regs_caller. */
__init_window int a_window(int x)
{
	return x + 40;
}
