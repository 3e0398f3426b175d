// What pads can call. Each counts its calls in hits, and keeps what arguments may be in.
	.bss
	.balign 8
	.globl	hits
	.hidden	hits
hits:	.zero	8
	.text
.macro	target name, counter
	.balign 16
	.globl	\name
	.hidden	\name
	.type	\name, %function
\name:
	bti	c
	stp	x0, x1, [sp, #-16]!
	adrp	\counter, hits
	add	\counter, \counter, :lo12:hits
	ldr	x1, [\counter]
	add	x1, x1, #1
	str	x1, [\counter]
	ldp	x0, x1, [sp], #16
.endm
	target	trampoline, x0	// returns to x30, with the caller's return address in it
	mov	x10, x30
	mov	x30, x9
	ret	x10
	.size	trampoline, . - trampoline
	target	plain, x0	// returns as a function does
	ret
	.size	plain, . - plain
	target	uses_x9, x9
	ret
	.size	uses_x9, . - uses_x9
	.globl	uses_v3
	.type	uses_v3, %function
uses_v3: movi	v3.2d, #0
	ret
	.size	uses_v3, . - uses_v3
