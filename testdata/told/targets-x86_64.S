# Two targets for sites: both keep the contract of a site and count; `changes` uses r11 freely.
	.text
	.globl	changes, keeps
	.type	changes, @function
	.p2align 4
changes:
	movq	hits(%rip), %r11
	addq	$1, %r11
	movq	%r11, hits(%rip)
	ret
	.size	changes, . - changes

	.type	keeps, @function
	.p2align 4
keeps:
	pushq	%r11
	movq	hits(%rip), %r11
	addq	$1, %r11
	movq	%r11, hits(%rip)
	popq	%r11
	ret
	.size	keeps, . - keeps
	.section .note.GNU-stack,"",@progbits
