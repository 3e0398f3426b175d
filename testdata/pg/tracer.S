/* tracer and the profiling functions of the three machines: each counts, and keeps what its kind of call needs. */
#if defined(__aarch64__)
	.macro	counting name, counter
	.globl	\name
	.type	\name, %function
\name:
	adrp	x11, \counter
	ldr	x12, [x11, :lo12:\counter]
	add	x12, x12, #1
	str	x12, [x11, :lo12:\counter]
#ifdef ENTRY
	mov	x10, x30
	mov	x30, x9
	ret	x10
#else
	mov	x0, #77
	ret
#endif
	.size	\name, . - \name
	.endm
	.text
	counting tracer, traced
	counting _mcount, profiled
	.globl	spoiler
	.type	spoiler, %function
spoiler:				// a register that its caller keeps something in
	mov	x19, #1
	ret
	.size	spoiler, . - spoiler
#elif defined(__powerpc64__)
	.abiversion 2
	.macro	counting name, counter
	.globl	\name
	.type	\name, @function
\name:
0:	addis	2,12,.TOC.-0b@ha
	addi	2,2,.TOC.-0b@l
	.localentry \name, .-\name
	addis	11,2,\counter@toc@ha
	ld	12,\counter@toc@l(11)
	addi	12,12,1
	std	12,\counter@toc@l(11)
#ifdef MPROFILE
	mflr	12
	mtctr	12
	mtlr	0
	bctr
#else
	li	3,77
	blr
#endif
	.size	\name, . - \name
	.endm
	.text
	counting tracer, traced
	counting _mcount, profiled
	.globl	spoiler
	.type	spoiler, @function
spoiler:				# a register that its caller keeps something in
	li	31,1
#ifdef MPROFILE
	mflr	12
	mtctr	12
	mtlr	0
	bctr
#else
	blr
#endif
	.size	spoiler, . - spoiler
#else
	.macro	counting name, counter
	.globl	\name
	.type	\name, @function
\name:
	incq	\counter(%rip)
	ret
	.size	\name, . - \name
	.endm
	.text
	counting tracer, traced
	counting mcount, profiled
	counting __fentry__, profiled
	.globl	spoiler
	.type	spoiler, @function
spoiler:				# an argument
	xorl	%edi, %edi
	ret
	.size	spoiler, . - spoiler
#endif
	.section .note.GNU-stack, "", %progbits
