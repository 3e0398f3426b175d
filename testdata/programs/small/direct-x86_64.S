	# Keeps what a patch site that is a call asks for.
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
direct:	incq	hits(%rip)
	ret
	.size	direct, . - direct
	.globl	spoils
	.hidden	spoils
	.type	spoils, @function
spoils:	xorl	%r10d, %r10d
	ret
	.size	spoils, . - spoils
