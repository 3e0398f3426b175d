/*
 * What a patched site calls. On entry: r0 = the caller's LR, LR = the word after the
 * call, r1 = the caller's frame, r2 = anyone's TOC. Nothing in this file has a record.
 */
#include "mini.h"

#define FRAME_MIN	32
#define FRAME		432
#define GPR0		48
#define GPR(n)		(GPR0 + 8 * (n))
#define _NIP		304
#define _MSR		312
#define _CTR		328
#define _LINK		336
#define _XER		344
#define _CCR		352

	.macro	global name
	.balign	4
	.type	\name, @function
	.globl	\name
\name:
	.endm

	.macro	gprs op, first, last
	.set	.Lreg, \first
	.rept	\last - \first + 1
	\op	.Lreg, GPR0 + 8 * .Lreg(1)
	.set	.Lreg, .Lreg + 1
	.endr
	.endm

	.macro	enter allregs
	stdu	1, -FRAME_MIN(1)	/* a frame for the traced function */
	stdu	1, -FRAME(1)		/* and one with the registers */
	.if	\allregs
	gprs	std, 11, 12
	.endif
	mflr	11
#ifdef CALL_OPS
	ld	12, -16(11)		/* the ops pointer of the slot */
	ld	12, OPS_DIRECT_CALL(12)
	cmpdi	12, 0
	.if	\allregs
	bne	.Ldirect_call_regs
	.else
	bne	.Ldirect_call
	.endif
#endif
	std	0, _LINK(1)
	std	0, FRAME + FRAME_MIN + 16(1)
	gprs	std, 0, 0
	gprs	std, 3, 10
	lbz	3, PACA_FTRACE_ENABLED(13)
	cmpdi	3, 0
	beq	ftrace_no_trace
	.if	\allregs
	gprs	std, 2, 2
	gprs	std, 13, 31
	.else
	gprs	std, 14, 14
	.endif
	addi	8, 1, FRAME + FRAME_MIN
	std	8, GPR(1)(1)
	.if	\allregs
	mfmsr	8
	mfctr	9
	mfxer	10
	mfcr	7
	std	9, _CTR(1)
	std	10, _XER(1)
	std	7, _CCR(1)
	.else
	li	8, 0			/* no MSR: these are not all registers */
	.endif
	std	8, _MSR(1)
#ifdef OOL
	/* LR + 4 holds the branch back to the function: its target follows the site. */
	lwz	7, 4(11)
	sldi	7, 7, 38
	sradi	7, 7, 38
	add	7, 7, 11
	addi	7, 7, 4
	mr	14, 11
#else
	mr	7, 11
#endif
	std	7, _NIP(1)
	std	2, 24(1)
	ld	2, PACA_TOC(13)
	addi	3, 7, -4
	mr	4, 0
	addi	6, 1, GPR0
#ifdef CALL_OPS
	ld	5, -16(11)
	ld	12, OPS_FUNC(5)
	mtctr	12
	bctrl
#else
	addis	5, 2, function_trace_op@toc@ha
	ld	5, function_trace_op@toc@l(5)
#endif
	.endm

	.macro	leave allregs
#ifdef OOL
	mtlr	14			/* the rest of the slot */
#else
	ld	3, _NIP(1)
	mtctr	3
#endif
	.if	\allregs
	gprs	ld, 2, 12
	gprs	ld, 14, 31
	.else
	gprs	ld, 3, 10
	gprs	ld, 14, 14
	.endif
	ld	0, _LINK(1)
#ifndef OOL
	mtlr	0
#endif
	ld	2, 24(1)
	addi	1, 1, FRAME + FRAME_MIN
#ifdef OOL
	blr
#else
	bctr
#endif
	.endm

	.text
#ifndef PG
global ftrace_regs_caller
	enter	1
	.globl	ftrace_regs_call
ftrace_regs_call:
#ifndef CALL_OPS
	bl	ftrace_stub
	nop
#endif
	leave	1

global ftrace_caller
	enter	0
	.globl	ftrace_call
ftrace_call:
#ifndef CALL_OPS
	bl	ftrace_stub
	nop
#endif
	leave	0

global ftrace_stub
	blr

ftrace_no_trace:
#ifdef OOL
	ld	3, GPR(3)(1)
	addi	1, 1, FRAME + FRAME_MIN
	blr
#else
	mflr	3
	mtctr	3
	ld	3, GPR(3)(1)
	addi	1, 1, FRAME + FRAME_MIN
	mtlr	0
	bctr
#endif

#ifdef CALL_OPS
.Ldirect_call_regs:
	mtctr	12
	gprs	ld, 11, 12
	addi	1, 1, FRAME + FRAME_MIN
	bctr
.Ldirect_call:
	mtctr	12
	addi	1, 1, FRAME + FRAME_MIN
	bctr

global ftrace_stub_direct_tramp
	blr
#endif

#else	/* PG: called in the middle of the prologue, in the function's own frame */
global ftrace_caller
	mflr	3
	ld	11, 0(1)
	stdu	1, -112(1)
	std	3, 128(1)
	ld	4, 16(11)
	addi	3, 3, -4
	.globl	ftrace_call
ftrace_call:
	bl	ftrace_stub
	nop
	ld	0, 128(1)
	mtlr	0
	addi	1, 1, 112
global ftrace_stub
	blr
#endif

#if defined(MPROFILE) || defined(PG)
global _mcount
	mflr	12
	mtctr	12
	mtlr	0
	bctr
	.pushsection ___ksymtab, "a"
	.balign	4
	.long	_mcount - .
	.popsection
#endif

#ifdef OOL
	.type	ftrace_ool_stub_text_count, @object
	.globl	ftrace_ool_stub_text_count
ftrace_ool_stub_text_count:
	.long	OOL_RESERVE
	.size	ftrace_ool_stub_text_count, 4
	.balign	8
	.globl	ftrace_ool_stub_text
ftrace_ool_stub_text:
	.space	OOL_RESERVE * OOL_SLOT
	.size	ftrace_ool_stub_text, . - ftrace_ool_stub_text
#endif

#ifndef PG
	/* Filled at boot with a jump to ftrace_regs_caller. */
	.pushsection .tramp.ftrace.text, "aw", @progbits
	.globl	ftrace_tramp_text
ftrace_tramp_text:
	.space	32
	.popsection
	.pushsection .tramp.ftrace.init, "aw", @progbits
	.globl	ftrace_tramp_init
ftrace_tramp_init:
	.space	32
	.popsection
#endif
