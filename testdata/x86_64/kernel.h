/* Shared by the C sources of the x86_64 fixtures. */
typedef unsigned long ulong;

#define noinline	__attribute__((noinline))
#define notrace		__attribute__((no_instrument_function))
#define __weak		__attribute__((weak))
#define __init		__attribute__((section(".init.text")))
#define __alias(x)	__attribute__((alias(#x)))

/* An export: distances to the symbol, to its name, and to the name of its namespace. */
#define EXPORT(sym)									\
	asm(".pushsection __ksymtab_strings, \"aMS\", @progbits, 1\n"			\
	    ".Lname_" #sym ":\t.asciz \"" #sym "\"\n.Lspace_" #sym ":\t.asciz \"\"\n"	\
	    "\t.popsection\n\t.pushsection ___ksymtab, \"a\"\n\t.balign 4\n"		\
	    "\t.long " #sym " - ., .Lname_" #sym " - ., .Lspace_" #sym " - .\n\t.popsection")

struct file {
	const char *buf;
	ulong len;
	ulong pos;
};

long vfs_read(struct file *f, char *to, ulong n);
long vfs_write(struct file *f, const char *from, ulong n);
long __do_sys_getppid(ulong regs);
int slot_probe(int x);
int arch_hook_early(int x);
int arch_hook_power(int x);
int _printk(const char *fmt, ...);
