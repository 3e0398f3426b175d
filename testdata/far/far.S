/*
 * A kernel whose text spans 450 MB: functions with CALL_OPS sites (-fpatchable-function-entry=4,2) in three sections that
 * a call does not cross, and ftrace_caller in the first. What may serve as room for a veneer differs by section:
 *
 *	.text.near	zeros and NOPs behind returns
 *	.text.mid	NOPs alone, as `.balign` makes them
 *	.text.far	zeros alone, behind others that look like padding and are not
 */
#ifdef BTI
#define BTI_C	bti	c
#define SKIP	4
#else
#define BTI_C
#define SKIP	0
#endif

	.macro	traced name, init=0
	.balign	8
	nop
	nop
	.globl	\name
	.type	\name, %function
\name:
	BTI_C
	nop
	nop
	add	x0, x0, #1
	ret
	.size	\name, . - \name
	.pushsection __patchable_function_entries, "aw"
	.balign	8
	.quad	\name - 8
	.popsection
	.endm

	.section .head.text, "ax"
	.globl	_text
_text:	b	primary
	.word	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
	.ascii	"ARM\x64"
	.word	0

	.section .text.near, "ax"
	.type	primary, %function
primary:
	b	primary
	.size	primary, . - primary

	.balign	16
	.globl	ftrace_caller
	.type	ftrace_caller, %function
ftrace_caller:
	bti	c
	and	x11, x30, #~7
	ldur	x11, [x11, #-16]
	mov	x10, x30
	mov	x30, x9
	ret	x10
	.size	ftrace_caller, . - ftrace_caller

	.balign	16
	.globl	ftrace_init
	.type	ftrace_init, %function
ftrace_init:
	adrp	x0, __start_mcount_loc
	add	x0, x0, :lo12:__start_mcount_loc
	adrp	x1, __stop_mcount_loc
	add	x1, x1, :lo12:__stop_mcount_loc
1:	cmp	x0, x1
	b.eq	2f
	ldr	x2, [x0], #8
	cbz	x2, 1b
	b	1b
2:	ret
	.size	ftrace_init, . - ftrace_init
	traced	near_a
	traced	near_b
	.skip	64

	.section .text.mid, "ax"
	traced	mid_a
	.balign	64
	traced	mid_b
	.balign	64

	.section .text.far, "ax"
	traced	far_a
	/* a table without a name, which code reads */
	.balign	16
	.skip	16
	.globl	reads_it
	.type	reads_it, %function
reads_it:
	adr	x0, reads_it - 16
	ldr	x0, [x0]
	ret
	.size	reads_it, . - reads_it
	/* behind a call that may return */
	.balign	8
	.type	goes_on, %function
goes_on:
	bl	far_a
	.size	goes_on, . - goes_on
	.skip	20
	/* a label without a size */
	.globl	unsized
unsized:
	ret
	.skip	28
	.globl	__kprobes_text_start
__kprobes_text_start:
	.type	probed, %function
probed:	ret
	.size	probed, . - probed
	.skip	28
	.globl	__kprobes_text_end
__kprobes_text_end:
	.type	replaced, %function
replaced:
	ret
	.size	replaced, . - replaced
	/* what an alternative copies over other code */
	.skip	24
	.pushsection .altinstructions, "a"
	.word	far_a + 8 - .
	.word	replaced + 4 - .
	.hword	1
	.byte	24, 24
	.popsection
	traced	far_b
	/* this is free */
	.skip	44
	traced	far_c

	.section .init.text, "ax"
	traced	init_a

	.section .rodata, "a"
	.balign	16
	.globl	ftrace_list_ops
	.type	ftrace_list_ops, %object
ftrace_list_ops:
	.quad	ftrace_caller
	.skip	200
	.size	ftrace_list_ops, . - ftrace_list_ops
