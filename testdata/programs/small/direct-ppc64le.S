	# Keeps what a patch site at `mflr r0; bl` asks for.
	.abiversion 2
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
direct:	addis	2, 12, .TOC. - direct@ha
	addi	2, 2, .TOC. - direct@l
	.localentry direct, . - direct
	mflr	12
	mtctr	12
	mtlr	0
	addis	12, 2, hits@toc@ha
	ld	0, hits@toc@l(12)
	addi	0, 0, 1
	std	0, hits@toc@l(12)
	bctr
	.size	direct, . - direct
	# Keeps what a kernel's trampoline must, and changes the static chain of a nested function.
	.globl	spoils
	.hidden	spoils
	.type	spoils, @function
spoils:	mflr	11
	mtctr	11
	mtlr	0
	bctr
	.size	spoils, . - spoils
