/*
 * .head.text and just enough start-up to relocate the image and call early_setup and
 * start_kernel. It runs in user mode too, at any address.
 */
#include "mini.h"

	.section .head.text, "ax"
	.globl	__start
__start:
	/*
	 * Entered in either byte order: in the wrong one, the first word is a branch to
	 * the words after it, which switch over.
	 */
	tdi	0, 0, 0x48
	b	1f
	.long	0xa600607d		/* mfmsr  r11      big endian from here */
	.long	0x01006b69		/* xori   r11,r11,1 */
	.long	0x00004039		/* li     r10,0 */
	.long	0x6401417d		/* mtmsrd r10,1 */
	.long	0x05009f42		/* bcl    20,31,$+4 */
	.long	0xa602487d		/* mflr   r10 */
	.long	0x14004a39		/* addi   r10,r10,20 */
	.long	0xa6035a7d		/* mtsrr0 r10 */
	.long	0xa6037b7d		/* mtsrr1 r11 */
	.long	0x2400004c		/* rfid */
1:	b	start_here

	. = 0x5c
	.globl	__run_at_load
__run_at_load:
	.long	0x72756e30		/* "run0" */

	. = 0x100
start_here:
	mr	31, 3
	bcl	20, 31, 0f
0:	mflr	30
	addi	30, 30, __start - 0b	/* r30 = where __start is */
	lis	9, LINK_BASE_HI - 0x10000
	sldi	9, 9, 32
	subf	29, 9, 30		/* r29 = displacement */

	/* DT_RELA, DT_RELASZ, DT_RELAENT of .dynamic; other tags are skipped */
	addis	11, 30, (_DYNAMIC - __start)@ha
	addi	11, 11, (_DYNAMIC - __start)@l
	li	7, 0
	li	8, 0
1:	ld	5, 0(11)
	cmpdi	5, 0
	beq	4f
	cmpdi	5, 7
	bne	2f
	ld	7, 8(11)
2:	cmpdi	5, 8
	bne	3f
	ld	8, 8(11)
3:	cmpdi	5, 9
	bne	5f
	ld	10, 8(11)
5:	addi	11, 11, 16
	b	1b
4:	add	7, 7, 29
	divdu	8, 8, 10
	cmpdi	8, 0
	beq	8f
	mtctr	8
6:	ld	5, 8(7)
	cmpdi	5, 22			/* R_PPC64_RELATIVE */
	bne	7f
	ld	6, 0(7)
	ld	5, 16(7)
	add	5, 5, 29
	stdx	5, 6, 29
7:	add	7, 7, 10
	bdnz	6b
8:
	addis	2, 30, (.TOC. - __start)@ha
	addi	2, 2, (.TOC. - __start)@l
	addis	1, 2, init_stack_top@toc@ha
	addi	1, 1, init_stack_top@toc@l
	li	0, 0
	stdu	0, -112(1)
	mr	3, 31
	addis	12, 2, early_setup@toc@ha
	addi	12, 12, early_setup@toc@l
	mtctr	12
	bctrl				/* sets r13 */
	addis	12, 2, start_kernel@toc@ha
	addi	12, 12, start_kernel@toc@l
	mtctr	12
	bctrl
	trap

	.text
	/* Two pointers inside .text, as kernels have them: no code may replace these. */
	.balign	8
	.type	text_literals, @object
text_literals:
	.8byte	__start
	.8byte	_end
	.size	text_literals, . - text_literals

	.section __spec_barrier_fixup, "a"
	.4byte	0

	.bss
	.balign	16
	.type	init_stack, @object
init_stack:
	.space	4096
	.size	init_stack, . - init_stack
init_stack_top:
