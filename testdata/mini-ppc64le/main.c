#include "mini.h"

const char linux_banner[] = "Linux version 0.0.0-mini (ftpatch fixture) #1\n";

static const syscall_t sys_call_table[] = {
	(syscall_t)sys_getppid,
	NULL,
};

static char boot_msg[] __initdata = "mini: starting\n";
static struct file files[2];

noinline int arch_hook_late(int x)
{
	return slot_probe(x) + 9;
}

noinline int arch_hook_near(int x)
{
	return x + 2;
}

static noinline long invoke_syscall(unsigned int nr, ulong regs)
{
	const syscall_t volatile *t = sys_call_table;

	return t[nr] ? t[nr](regs) : -38;
}

noinline void rest_init(void)
{
	early_puts("ftrace hits: ");
	early_putn(ftrace_hits);
	early_puts("\n");
	asm volatile("trap");
}

__init void start_kernel(void)
{
	static char line[32];
	long n;

	early_puts(linux_banner);
	early_puts(boot_msg);
	ftrace_init();
	n = a_setup(&files[0]) + b_setup(&files[1]) + b_late(5) + b_mid(1) + a_window(2);
	n += vfs_read(&files[0], line, sizeof(line) - 2);
	n += arch_hook_near(1) + asm_toc(2) + island(3);
#ifdef PCREL
	n += pcrel_read(1) + pcrel_edge(1);
#endif
	line[n & 0] = 'l';
	vfs_write(&files[1], line, 1);
	early_puts("\ngetppid: ");
	early_putn(invoke_syscall(0, n));
	early_puts("\n");
	rest_init();
}
