# A caller that keeps r9 and f10 over the call of a function with a site. gcc 12 does not do that in code as small as
# this, so that it is written by hand.
	.abiversion 2
	.text
	.globl	leaf
	.type	leaf, @function
	.p2align 4
leaf:
0:	addis	2, 12, .TOC.-0b@ha
	addi	2, 2, .TOC.-0b@l
	.localentry leaf, .-leaf
1:	nop
	nop
	mulli	3, 3, 3
	addi	3, 3, 7
	blr
	.size	leaf, .-leaf

	.globl	big
	.type	big, @function
	.p2align 4
big:
2:	addis	2, 12, .TOC.-2b@ha
	addi	2, 2, .TOC.-2b@l
	.localentry big, .-big
	mflr	0
	std	0, 16(1)
	stdu	1, -32(1)
	ld	9, 8(3)
	lfd	10, 16(3)
	ld	3, 0(3)
	bl	leaf
	add	3, 3, 9
	fadd	1, 10, 10
	addi	1, 1, 32
	ld	0, 16(1)
	mtlr	0
	blr
	.size	big, .-big

	.section __patchable_function_entries, "awo", @progbits, .text
	.p2align 3
	.quad	1b
	.section .note.GNU-stack, "", @progbits
