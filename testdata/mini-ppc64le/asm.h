/* How an assembly function gets its entries, its site and its record. */
#ifndef ASM_H
#define ASM_H
#include "mini.h"

	/* record LABEL, FUNCTION: an entry of __patchable_function_entries */
	.macro	record label, name
	.pushsection __patchable_function_entries,"awo",@progbits,\name
	.balign	8
	.8byte	\label
	.popsection
	.endm

	.macro	nops n
	.rept	\n
	nop
	.endr
	.endm

	/* traced NAME, ENTRIES: a function up to the end of its site */
	.macro	traced name, entries
	.globl	\name
#if defined(NM)
	.if	\entries == 1
997:	nops	2
	record	997b, \name
	.endif
#endif
	.type	\name, @function
\name:
#if defined(GCC12)
997:	nops	2
	record	997b, \name
#elif defined(CLANG)
999:	record	999b, \name
#endif
	.if	\entries == 2
998:	addis	2, 12, .TOC.-998b@ha
	addi	2, 2, .TOC.-998b@l
#ifdef NM
997:	nops	2
	record	997b, \name
#endif
	.localentry \name, .-\name
	.endif
#if defined(MPROFILE)
	mflr	0
	bl	_mcount
#elif defined(PG)
	mflr	0
	std	0, 16(1)
	stdu	1, -32(1)
	bl	_mcount
	nop
	addi	1, 1, 32
	ld	0, 16(1)
	mtlr	0
#elif defined(CLANG)
	nop
#elif defined(NM)
	nops	2
#elif defined(PFE2) && !defined(GCC12)
999:	nops	2
	record	999b, \name
#elif defined(OOL)
999:	nop
	record	999b, \name
#endif
	.endm

	.macro	endfunc name
	.size	\name, . - \name
	.endm
#endif
