	// Keeps what a patch site at `mov x9, x30; bl` asks for.
	.section .note.GNU-stack, "", @progbits
	.data
	.globl	hits
	.hidden	hits
	.type	hits, @object
	.size	hits, 8
	.balign	8
hits:	.quad	0
	.text
	.globl	direct
	.hidden	direct
	.type	direct, @function
direct:	adrp	x10, hits
	ldr	x11, [x10, #:lo12:hits]
	add	x11, x11, #1
	str	x11, [x10, #:lo12:hits]
	mov	x10, x30
	mov	x30, x9
	ret	x10
	.size	direct, . - direct
	// Keeps x0-x30, and changes a register that a function keeps for its caller.
	.globl	spoils
	.hidden	spoils
	.type	spoils, @function
spoils:	mov	x10, x30
	mov	x30, x9
	movi	v9.16b, #0
	ret	x10
	.size	spoils, . - spoils
