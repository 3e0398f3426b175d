/* told.ko: what objtool adds to a module of a kernel with return thunks, call thunks and ORC, written by hand. */

	.macro	traced name
	.skip	16, 0x90
	.globl	\name
	.type	\name, @function
\name:	endbr64
1:	call	__fentry__
	.pushsection __mcount_loc, "a"
	.quad	1b
	.popsection
	.pushsection .call_sites, "a"
	.long	1b - .
	.popsection
	.endm

	.macro	returns name
2:	jmp	__x86_return_thunk
	.size	\name, . - \name
	.pushsection .return_sites, "a"
	.long	2b - .
	.popsection
	.endm

	/* From here on: bytes to the caller's stack pointer, to its rbp, the registers, the kind of frame. */
	.macro	orc size saved registers kind
3:	.pushsection .orc_unwind_ip, "a"
	.long	3b - .
	.popsection
	.pushsection .orc_unwind, "a"
	.short	\size, \saved
	.byte	\registers, \kind
	.popsection
	.endm

	.text
	.balign	16
	orc	8 0 0x05 2
	traced	told_work
	push	%rbp
	orc	16 -16 0x15 2
	call	_printk
	pop	%rbp
	orc	8 0 0x05 2
	returns	told_work
	.balign	16
	traced	told_hook
	returns	told_hook
	orc	0 0 0 0

	.section .init.text, "ax"
	.balign	16
	orc	8 0 0x05 2
	traced	init_module
	xor	%eax, %eax
	returns	init_module
	orc	0 0 0 0

	.section .exit.text, "ax"
	.balign	16
	orc	8 0 0x05 2
	.globl	cleanup_module
	.type	cleanup_module, @function
cleanup_module:
	endbr64
	returns	cleanup_module
	orc	0 0 0 0

	.section .note.GNU-stack, "", @progbits
