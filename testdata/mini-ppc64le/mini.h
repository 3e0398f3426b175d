/*
 * Shared by the C and assembly sources of the ppc64le fixtures.
 *
 * One of these says how a traced function starts:
 *   MPROFILE   mflr r0; bl _mcount        PFE2    two NOPs at the local entry
 *   PG         bl _mcount in the prologue OOL     one NOP there, stubs elsewhere
 * and with them: CALL_OPS (ops pointer before each stub), CLANG, GCC12, NM (where the
 * compiler puts NOPs and record), FAR and ISLAND (where the linker script puts code).
 */
#ifndef MINI_H
#define MINI_H

#define LINK_BASE_HI		0xc000

/* In a real kernel these depend on the configuration: read them from the code. */
#ifdef ISLAND
#define PACA_TOC		8	/* as without CONFIG_PPC_PSERIES */
#else
#define PACA_TOC		16
#endif
#define PACA_FTRACE_ENABLED	0x234
#define OPS_FUNC		0
#define OPS_DIRECT_CALL		200
#define OPS_SIZE		224

#define OOL_RESERVE		4	/* slots of ftrace_ool_stub_text */
#ifdef CALL_OPS
#define OOL_SLOT		24
#else
#define OOL_SLOT		16
#endif

#ifndef __ASSEMBLER__
typedef unsigned long ulong;
typedef unsigned int u32;
typedef unsigned char u8;

#define NULL		((void *)0)
#define noinline	__attribute__((noinline))
#define __weak		__attribute__((weak))
#define __init		__attribute__((section(".init.text")))
#define __init_window	__attribute__((section(".init.text.window")))
#define __init_mid	__attribute__((section(".init.text.mid")))
#define __init_far	__attribute__((section(".init.text.far")))
#define __initdata	__attribute__((section(".init.data")))
#define __alias(x)	__attribute__((alias(#x)))
#ifdef __clang__
#define notrace		__attribute__((no_instrument_function))
#else
#define notrace		__attribute__((patchable_function_entry(0, 0), no_instrument_function))
#endif
#ifdef ISLAND
#define __island	__attribute__((section(".text.island")))
#else
#define __island
#endif

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
	ulong hash[22];
	ulong direct_call;
	ulong end[2];
};
_Static_assert(__builtin_offsetof(struct ftrace_ops, func) == OPS_FUNC, "func");
_Static_assert(__builtin_offsetof(struct ftrace_ops, direct_call) == OPS_DIRECT_CALL, "direct_call");
_Static_assert(sizeof(struct ftrace_ops) == OPS_SIZE, "size");

struct paca {
	char head[PACA_TOC];
	ulong kernel_toc;
	ulong data_offset;
	char body[PACA_FTRACE_ENABLED - PACA_TOC - 16];
	u8 ftrace_enabled;
};
_Static_assert(__builtin_offsetof(struct paca, kernel_toc) == PACA_TOC, "kernel_toc");
_Static_assert(__builtin_offsetof(struct paca, ftrace_enabled) == PACA_FTRACE_ENABLED, "ftrace_enabled");

register struct paca *local_paca asm("r13");
extern struct paca boot_paca;

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
void ftrace_init(void);
extern ulong ftrace_hits, ftrace_last_ip;

/* setup.c, paca.c */
void early_setup(ulong dt_ptr);
void initialise_paca(struct paca *p, int cpu);
void setup_paca(struct paca *p);
int early_init_devtree(ulong dt_ptr);

/* a.c, b.c, main.c, pcrel.c, asm.S */
long vfs_read(struct file *f, char *to, ulong n);
long vfs_write(struct file *f, const char *from, ulong n);
long sys_getppid(ulong regs);
int slot_probe(int x);
int a_setup(struct file *f);
int a_window(int x);
int b_setup(struct file *f);
int b_mid(int x);
int b_late(int x);
int island(int x);
int arch_hook_early(int x);
int arch_hook_late(int x);
int arch_hook_power(int x);
int arch_hook_near(int x);
int asm_toc(int x);
int pcrel_read(int x);
int pcrel_edge(int x);
void notrace_helper(struct file *f);
extern const char linux_banner[];
extern ctor_t a_ctor, b_ctor;
#endif
#endif
