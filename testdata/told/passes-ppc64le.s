# A function that returns a structure of two words, the second of which is its second argument: its caller reads r4
# behind the call, and counts on nothing.
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
	neg	3, 3
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
	ld	4, 8(3)
	ld	3, 0(3)
	bl	leaf
	add	3, 3, 4
	addi	1, 1, 32
	ld	0, 16(1)
	mtlr	0
	blr
	.size	big, .-big

	.section __patchable_function_entries, "awo", @progbits, .text
	.p2align 3
	.quad	1b
	.section .note.GNU-stack, "", @progbits
