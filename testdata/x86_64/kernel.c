#include "kernel.h"

const char linux_banner[] = "Linux version 0.0.0-x86 (ftpatch fixture) #1\n";
static ulong hits;

/* Only called directly: without an endbr64 where that is only made for what has its address taken. */
static noinline long direct_only(struct file *f, ulong n)
{
	ulong left = f->len - f->pos;

	asm volatile("");
	return n < left ? n : left;
}

long vfs_read(struct file *f, char *to, ulong n)
{
	long i, k = direct_only(f, n);

	for (i = 0; i < k; i++) {
		to[i] = f->buf[f->pos + i];
		asm volatile("");
	}
	f->pos += k;
	return k;
}
EXPORT(vfs_read);

long vfs_write(struct file *f, const char *from, ulong n)
{
	long k = direct_only(f, n);

	hits += k > 0 && *from;
	return k;
}
EXPORT(vfs_write);

noinline int slot_probe(int x)
{
	asm volatile("" : "+r"(x));
	return x * 3;
}
EXPORT(slot_probe);

/* Weak defaults that hooks.c overrides: the bodies stay, their names do not. */
__weak noinline int arch_hook_early(int x)
{
	return slot_probe(x) + 100;
}

__weak noinline int arch_hook_power(int x)
{
	return slot_probe(x) ^ 5;
}

notrace noinline int notrace_helper(int x)
{
	return slot_probe(x) - 1;
}

noinline int _printk(const char *fmt, ...)
{
	hits += *fmt;
	return 0;
}
EXPORT(_printk);

/* One body, three names. */
long __do_sys_getppid(ulong regs)
{
	return (long)regs + arch_hook_early(4);
}
long __ia32_sys_getppid(ulong regs) __alias(__do_sys_getppid);
long __x64_sys_getppid(ulong regs) __alias(__do_sys_getppid);

__init int setup_hooks(int x)
{
	return slot_probe(x) + arch_hook_power(x) + notrace_helper(x);
}

__init void start_kernel(void)
{
	static char line[32];
	static struct file files[2];

	vfs_read(&files[0], line, sizeof(line) - 2);
	vfs_write(&files[1], line, 1);
	_printk("%ld\n", __do_sys_getppid(setup_hooks(2)));
}
