// Two targets for sites: both keep the contract of a site and count; `changes` uses x10 to x13 freely.
	.text
	.globl	changes, keeps
	.type	changes, %function
	.p2align 3
changes:
	stp	x29, x9, [sp, #-16]!
	adrp	x10, hits
	add	x10, x10, :lo12:hits
	ldr	x11, [x10]
	add	x11, x11, #1
	str	x11, [x10]
	mov	x12, #-1
	mov	x13, #-2
	mov	x10, x30
	ldp	x29, x30, [sp], #16
	ret	x10
	.size	changes, . - changes

	.type	keeps, %function
	.p2align 3
keeps:
	stp	x10, x11, [sp, #-16]!
	adrp	x10, hits
	add	x10, x10, :lo12:hits
	ldr	x11, [x10]
	add	x11, x11, #1
	str	x11, [x10]
	ldp	x10, x11, [sp], #16
	mov	x16, x30
	mov	x30, x9
	ret	x16
	.size	keeps, . - keeps
	.section .note.GNU-stack,"",%progbits
