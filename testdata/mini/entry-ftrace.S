/*
 * Trampolines. On entry from a patched function: x9 = the caller's LR, x30 = the
 * return point in the function, x0-x8 and x18-x29 live. On leaving: x30 = x9 and
 * a branch to the old x30. Nothing in this file has a record.
 */
#include "mini.h"

	.macro	func name
	.globl	\name
	.type	\name, %function
	.balign	8
\name:
	.endm
	.macro	endfunc name
	.size	\name, . - \name
	.endm

#ifdef BTI
#define BTI_C	bti	c
#else
#define BTI_C
#endif

/* The frame: x0-x8, x18, then x9 (caller's LR), x30, and a frame record. */
	.macro	save_args
	stp	x29, x30, [sp, #-128]!
	mov	x29, sp
	stp	x0, x1, [sp, #16]
	stp	x2, x3, [sp, #32]
	stp	x4, x5, [sp, #48]
	stp	x6, x7, [sp, #64]
	stp	x8, x18, [sp, #80]
	str	x9, [sp, #96]
	.endm
	.macro	restore_args_and_leave
	ldp	x0, x1, [sp, #16]
	ldp	x2, x3, [sp, #32]
	ldp	x4, x5, [sp, #48]
	ldp	x6, x7, [sp, #64]
	ldp	x8, x18, [sp, #80]
	ldr	x9, [sp, #96]
	ldp	x29, x10, [sp], #128
	mov	x30, x9
	ret	x10
	.endm

	.text

#if defined(CALLOPS)
func ftrace_caller
	bti	c
	and	x11, x30, #~0x7			// the literal of this function lies
	ldur	x11, [x11, #-16]		// 16 bytes below, BTI or not
	ldr	x17, [x11, #OPS_DIRECT_CALL]
	cbnz	x17, 1f
	save_args
	sub	x0, x30, #4
	mov	x1, x9
	mov	x2, x11
	mov	x3, sp
	ldr	x4, [x2, #OPS_FUNC]
	blr	x4
	restore_args_and_leave
1:	br	x17				// x9 and x30 as on entry
endfunc ftrace_caller

#elif defined(PFE2)
func ftrace_caller
	bti	c
	save_args
	sub	x0, x30, #4
	mov	x1, x9
	adrp	x2, function_trace_op
	ldr	x2, [x2, :lo12:function_trace_op]
	mov	x3, xzr
	.globl	ftrace_call
ftrace_call:
	bl	ftrace_stub
	restore_args_and_leave
endfunc ftrace_caller

func ftrace_regs_caller
	bti	c
	save_args
	stp	x19, x20, [sp, #-96]!		// the callee-saved registers below
	stp	x21, x22, [sp, #16]
	stp	x23, x24, [sp, #32]
	stp	x25, x26, [sp, #48]
	stp	x27, x28, [sp, #64]
	stp	x29, x30, [sp, #80]
	sub	x0, x30, #4
	mov	x1, x9
	adrp	x2, function_trace_op
	ldr	x2, [x2, :lo12:function_trace_op]
	mov	x3, sp
	.globl	ftrace_regs_call
ftrace_regs_call:
	bl	ftrace_stub
	ldp	x21, x22, [sp, #16]
	ldp	x23, x24, [sp, #32]
	ldp	x25, x26, [sp, #48]
	ldp	x27, x28, [sp, #64]
	ldp	x29, x30, [sp, #80]
	ldp	x19, x20, [sp], #96
	restore_args_and_leave
endfunc ftrace_regs_caller

#elif defined(PG)
/* Called mid-prologue by `bl`, so x30 is the return point and x0 the caller's LR. */
func _mcount
	ret
endfunc _mcount

func ftrace_caller
	stp	x29, x30, [sp, #-16]!
	mov	x29, sp
	mov	x1, x0
	sub	x0, x30, #4
	.globl	ftrace_call
ftrace_call:
	nop
	ldp	x29, x30, [sp], #16
	ret
endfunc ftrace_caller
#endif

#ifndef NOTRACE
func ftrace_stub
	BTI_C
	ret
endfunc ftrace_stub
#endif

#if defined(CALLOPS) || defined(PFE2)
func ftrace_stub_direct_tramp
	bti	c
	mov	x10, x30
	mov	x30, x9
	ret	x10
endfunc ftrace_stub_direct_tramp
#endif

/* Starts like an unpatched site, but is none. */
func asm_nops
	nop
	nop
	nop
	nop
	ret
endfunc asm_nops
