/*
 * Static calls without inline patching, laid out as arm64's kernels do where they are built with CFI:
 *
 *   __SCK__NAME   the key, 8 bytes: the function pointer alone
 *   __SCT__NAME   the trampoline, 16 bytes of .static_call.text: loads a literal of .rodata and jumps there
 *
 * Callers branch to the trampoline, nothing records them. NULL and "return 0" keys both have a trampoline that leads to
 * __static_call_return0; the key's pointer is what differs.
 */
#ifndef STATIC_CALL_H
#define STATIC_CALL_H
#include "../mini/mini.h"

#define TRAMPOLINE(name, target)				\
	asm(".pushsection .static_call.text, \"ax\"\n\t"	\
	    ".balign 16\n\t"					\
	    ".globl __SCT__" #name "\n"				\
	    "__SCT__" #name ":\n\t"				\
	    "bti c\n\t"						\
	    "adrp x16, 9f\n\t"					\
	    "ldr x16, [x16, :lo12:9f]\n\t"			\
	    "br x16\n\t"					\
	    ".type __SCT__" #name ", %function\n\t"		\
	    ".size __SCT__" #name ", . - __SCT__" #name "\n\t"	\
	    ".popsection\n\t"					\
	    ".pushsection .rodata, \"a\"\n\t"			\
	    ".balign 8\n"					\
	    "9:\t.quad " #target "\n\t"				\
	    ".popsection")

struct static_call_key {
	void *func;
};

#define DECLARE_STATIC_CALL(name, function)		\
	extern struct static_call_key __SCK__##name;	\
	extern __typeof__(function) __SCT__##name

#define DEFINE_STATIC_CALL(name, function)				\
	DECLARE_STATIC_CALL(name, function);				\
	struct static_call_key __SCK__##name = { .func = function };	\
	TRAMPOLINE(name, function)

#define DEFINE_STATIC_CALL_NULL(name, function)			\
	DECLARE_STATIC_CALL(name, function);			\
	struct static_call_key __SCK__##name = { .func = NULL };\
	TRAMPOLINE(name, __static_call_return0)

#define DEFINE_STATIC_CALL_RET0(name, function)					\
	DECLARE_STATIC_CALL(name, function);					\
	struct static_call_key __SCK__##name = { .func = __static_call_return0 };\
	TRAMPOLINE(name, __static_call_return0)

#define static_call(name)	__SCT__##name

#define static_call_update(name, function)						\
	do {										\
		__SCK__##name.func = function;						\
		arch_static_call_transform(NULL, __SCT__##name, function, 0);		\
	} while (0)

/* A row of the table of exports: symbol, its name, its namespace, each relative to its field. */
#define EXPORT_SYMBOL(sym)						\
	asm(".pushsection .rodata, \"a\"\n"				\
	    "__kstrtab_" #sym ":\t.asciz \"" #sym "\"\n"		\
	    "__kstrtabns_" #sym ":\t.asciz \"\"\n\t"			\
	    ".popsection\n\t"						\
	    ".pushsection ___ksymtab, \"a\"\n\t"			\
	    ".balign 4\n"						\
	    "__ksymtab_" #sym ":\t.long " #sym " - .\n\t"		\
	    ".long __kstrtab_" #sym " - .\n\t"				\
	    ".long __kstrtabns_" #sym " - .\n\t"			\
	    ".popsection")

#define EXPORT_STATIC_CALL(name)	EXPORT_SYMBOL(__SCK__##name); EXPORT_SYMBOL(__SCT__##name)
#define EXPORT_STATIC_CALL_TRAMP(name)	EXPORT_SYMBOL(__SCT__##name)

void arch_static_call_transform(void *site, void *tramp, void *func, int tail);
long __static_call_return0(void);

ulong clock_slow(ulong last);
DECLARE_STATIC_CALL(clock_read, clock_slow);
int level_low(void);
DECLARE_STATIC_CALL(report_level, level_low);
#endif
