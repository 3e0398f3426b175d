/* Shared by the C and assembly sources of the mini fixtures. */
#ifndef MINI_H
#define MINI_H

/* Chosen unlike any released kernel, so that nothing can hard-code an offset. */
#define OPS_FUNC	0
#define OPS_DIRECT_CALL	80
#define OPS_SIZE	96

#define KIMAGE_VADDR	0xffff800080000000

#ifndef __ASSEMBLER__
typedef unsigned long ulong;
typedef unsigned int u32;

#define NULL		((void *)0)
#define noinline	__attribute__((noinline))
#define __weak		__attribute__((weak))
#define __init		__attribute__((section(".init.text")))
#define __initdata	__attribute__((section(".init.data")))
#define __used		__attribute__((used))
#define __alias(x)	__attribute__((alias(#x)))
#define notrace		__attribute__((patchable_function_entry(0, 0), no_instrument_function))

/* A place-relative export entry. */
#define EXPORT(sym)						\
	asm(".pushsection ___ksymtab, \"a\"\n\t.balign 4\n\t"	\
	    ".long " #sym " - .\n\t.popsection")

struct ftrace_ops;
typedef void (*ftrace_func_t)(ulong ip, ulong parent, const struct ftrace_ops *op, void *regs);

struct ftrace_ops {
	ftrace_func_t func;
	ulong flags;
	void *private;
	ulong pad[7];
	ulong direct_call;
	ulong end;
};
_Static_assert(__builtin_offsetof(struct ftrace_ops, func) == OPS_FUNC, "func");
_Static_assert(__builtin_offsetof(struct ftrace_ops, direct_call) == OPS_DIRECT_CALL, "direct_call");
_Static_assert(sizeof(struct ftrace_ops) == OPS_SIZE, "size");

struct file {
	const char *buf;
	ulong len;
	ulong pos;
};
typedef void (*ctor_t)(struct file *);
typedef long (*syscall_t)(ulong);

/* trace.c: built without any tracer option */
void early_puts(const char *s);
void early_putn(ulong n);
void early_poweroff(void);
void ftrace_init(void);
extern ulong ftrace_hits, ftrace_last_ip;

/* a.c, b.c, main.c */
long vfs_read(struct file *f, char *to, ulong n);
long vfs_write(struct file *f, const char *from, ulong n);
long __arm64_sys_getppid(ulong regs);
int slot_probe(int x);
int a_setup(struct file *f);
int b_setup(struct file *f);
int arch_hook_early(int x);
int arch_hook_late(int x);
int arch_hook_power(int x);
void notrace_helper(struct file *f);
extern const char linux_banner[];
extern ctor_t a_ctor, b_ctor;
#endif
#endif
