/*
 * The 64-byte arm64 Image header at _text, and just enough start-up to relocate
 * the image with the MMU off and call start_kernel.
 */
#include "mini.h"

	.section .head.text, "ax"
	ccmp	x18, #0, #0xd, pl		// the two low bytes read "MZ"
	b	primary_entry
	.quad	0				// text_offset
	.long	_kernel_size_lo32		// image_size = _end - _text
	.long	_kernel_size_hi32
	.quad	0xa				// little endian, 4K pages, placed anywhere
	.quad	0
	.quad	0
	.quad	0
	.ascii	"ARM\x64"
	.long	0				// no PE header

	.type	primary_entry, %function
primary_entry:
	adrp	x20, init_stack_top
	add	x20, x20, :lo12:init_stack_top
	mov	sp, x20
	mov	x29, xzr

	adrp	x0, __bss_start
	add	x0, x0, :lo12:__bss_start
	adrp	x1, _end
	add	x1, x1, :lo12:_end
1:	cmp	x0, x1
	b.hs	2f
	str	xzr, [x0], #8
	b	1b
2:
	adrp	x19, _text
	add	x19, x19, :lo12:_text
	mov	x1, #(KIMAGE_VADDR & 0xffff0000)
	movk	x1, #(KIMAGE_VADDR >> 32 & 0xffff), lsl #32
	movk	x1, #(KIMAGE_VADDR >> 48 & 0xffff), lsl #48
	sub	x19, x19, x1			// displacement
#ifdef RELOCATABLE
	adrp	x2, __rela_start
	add	x2, x2, :lo12:__rela_start
	adrp	x3, __rela_end
	add	x3, x3, :lo12:__rela_end
3:	cmp	x2, x3
	b.hs	4f
	ldp	x4, x5, [x2], #24
	ldur	x6, [x2, #-8]
	cmp	w5, #1027			// R_AARCH64_RELATIVE; others are ignored
	b.ne	3b
	add	x6, x6, x19
	str	x6, [x4, x19]
	b	3b
4:
#endif
#ifdef RELR
	cbz	x19, 9f
	adrp	x2, __relr_start
	add	x2, x2, :lo12:__relr_start
	adrp	x3, __relr_end
	add	x3, x3, :lo12:__relr_end
5:	cmp	x2, x3
	b.hs	9f
	ldr	x4, [x2], #8
	tbnz	x4, #0, 6f
	add	x5, x4, x19			// an address: one place
	ldr	x6, [x5]
	add	x6, x6, x19
	str	x6, [x5], #8
	b	5b
6:	mov	x7, x5				// a bitmap over the next 63 places
7:	lsr	x4, x4, #1
	cbz	x4, 8f
	tbz	x4, #0, 10f
	ldr	x6, [x7]
	add	x6, x6, x19
	str	x6, [x7]
10:	add	x7, x7, #8
	b	7b
8:	add	x5, x5, #(63 * 8)
	b	5b
9:
#endif
	bl	start_kernel
11:	wfi
	b	11b
	.size	primary_entry, . - primary_entry

	.bss
	.balign	16
	.type	init_stack, %object
init_stack:
	.space	4096
	.size	init_stack, . - init_stack
init_stack_top:

#ifdef RELR
	/*
	 * Pointers in a section of alignment 1: they cannot be packed, so they stay
	 * ordinary RELATIVE entries (the linker script places them 8-aligned).
	 */
	.section .data.unpacked, "aw"
	.type	unpacked_ptrs, %object
	.globl	unpacked_ptrs
unpacked_ptrs:
	.8byte	linux_banner
	.8byte	start_kernel
	.size	unpacked_ptrs, . - unpacked_ptrs
#endif
