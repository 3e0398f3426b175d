/* Traced functions whose exact place or words matter. */
#include "asm.h"

	.text
	/*
	 * tiny_notrace and, without a name because main.c overrides it, a weak body. The
	 * word that ftrace takes for the call is 16 bytes past tiny_notrace.
	 */
	.balign	64
	.globl	tiny_notrace
	.type	tiny_notrace, @function
tiny_notrace:
	blr
	.size	tiny_notrace, . - tiny_notrace
#if defined(OOL)
	nops	3
#elif !defined(NM) && !defined(PG)
	nops	2
#endif
	.weak	arch_hook_near
	traced	arch_hook_near, 1
	addi	3, 3, 1
	blr
	endfunc	arch_hook_near

	.balign	16
#ifdef MPROFILE
	/* As gcc 5 wrote it: the saved LR between mflr and bl. */
	.globl	asm_toc
	.type	asm_toc, @function
asm_toc:
998:	addis	2, 12, .TOC.-998b@ha
	addi	2, 2, .TOC.-998b@l
	.localentry asm_toc, .-asm_toc
	mflr	0
	std	0, 16(1)
	bl	_mcount
#else
	traced	asm_toc, 2
#endif
	addis	9, 2, asm_value@toc@ha
	lwz	9, asm_value@toc@l(9)
	add	3, 3, 9
	blr
	endfunc	asm_toc

	/* Starts like an unpatched site, but is none. */
	.balign	16
	.globl	asm_nops
	.type	asm_nops, @function
asm_nops:
	nop
	nop
	nop
	nop
	blr
	endfunc	asm_nops

#ifdef PCREL
	.machine power10
	/* The site ends at 60 modulo 64: the assembler puts a third NOP before pld. */
	.balign	64
	nops	13
	traced	pcrel_edge, 1
	.localentry pcrel_edge, 1
	plwz	9, asm_value@pcrel(0), 1
	add	3, 3, 9
	blr
	endfunc	pcrel_edge
#endif

	.data
	.balign	8
	.type	asm_value, @object
	.globl	asm_value
asm_value:
	.long	11
	.size	asm_value, . - asm_value
