// A replacement for dummy_xmit() of Debian's dummy.ko with a row for each table that an arm64 kernel's module loader
// walks: what the loader does with it is printed once per call.
	.text
	.balign 8
	.globl	counted_xmit
	.type	counted_xmit, %function
counted_xmit:
	paciasp
	stp	x29, x30, [sp, #-48]!
	mov	x29, sp
	stp	x0, x1, [sp, #16]
	stp	x19, x20, [sp, #32]
	adrp	x1, count			// per-cpu: counts from 1 on
	add	x1, x1, :lo12:count
	mrs	x2, tpidr_el1
	ldr	w19, [x1, x2]
	add	w3, w19, #1
	str	w3, [x1, x2]
1:	mov	w20, #1				// becomes 2: capability 0 is always there
	.pushsection .altinstructions, "a"
	.long	1b - ., 2f - .
	.short	0
	.byte	4, 4
	.popsection
	.pushsection .altinstr_replacement, "ax"
2:	mov	w20, #2
	.popsection
	mov	x4, #0x5555			// no memory is there: w5 becomes -EFAULT
	movk	x4, #0xffff, lsl #48
	mov	w5, #0
3:	ldr	x6, [x4]
4:	.pushsection __ex_table, "a"
	.balign	4
	.long	3b - ., 4b - .
	.short	KACCESS, 5 | 31 << 5
	.popsection
	mov	w6, #7
5:	nop					// becomes a jump, as the key is on
	mov	w6, #8
	.pushsection __jump_table, "aw"
	.balign	8
	.long	5b - ., 6f - .
	.quad	key - .
	.popsection
6:	mov	w1, w19
	mov	w2, w20
	mov	w3, w5
	mov	w4, w6
	adrp	x0, format
	add	x0, x0, :lo12:format
	bl	_printk
	ldp	x0, x1, [sp, #16]
	ldp	x19, x20, [sp, #32]
	ldp	x29, x30, [sp], #48
	autiasp
	b	old_xmit
	.size	counted_xmit, . - counted_xmit
	.section .rodata.str1.8, "aMS", %progbits, 1
format:	.asciz	"tables: count %d, alternative %d, fault %d, label %d\n"
	.section .data..percpu, "aw"
	.balign	4
count:	.long	1
	.data
	.balign	8
key:	.long	1, 0
	.quad	0
