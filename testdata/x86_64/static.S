/*
 * Static calls, as DEFINE_STATIC_CALL and objtool make them: a trampoline and a key for each, and a table of the sites.
 * At a site the destination of the second call lies in two cache lines.
 */
	.text
	.macro	trampoline name, code:vararg
	.globl	__SCT__\name
	.type	__SCT__\name, @function
	.balign	4, 0xcc
__SCT__\name:
	\code
	.org	__SCT__\name + 5, 0xcc
	.byte	0x0f, 0xb9, 0xcc
	.size	__SCT__\name, . - __SCT__\name
	.endm

	trampoline reader, {disp32} jmp vfs_read
	trampoline prober, {disp32} jmp slot_probe
	trampoline zero, {disp32} jmp __static_call_return0
	trampoline nothing, ret

	.globl	__static_call_return0
	.type	__static_call_return0, @function
	.balign	16, 0xcc
__static_call_return0:
	endbr64
	xor	%eax, %eax
	ret
	int3
	.size	__static_call_return0, . - __static_call_return0

	.globl	use_static_calls
	.type	use_static_calls, @function
	.balign	64, 0xcc
use_static_calls:
	endbr64
.L1:	call	__SCT__reader
	.fill	51, 1, 0x90
.L2:	call	__SCT__reader
.L3:	call	__SCT__zero
.L4:	call	__SCT__nothing
.L5:	{disp32} jmp __SCT__prober
	.size	use_static_calls, . - use_static_calls

	.macro	key name, function
	.globl	__SCK__\name
	.type	__SCK__\name, @object
__SCK__\name:
	.quad	\function, 1
	.size	__SCK__\name, 16
	.endm

	.data
	.balign	16
	key reader, vfs_read
	key prober, slot_probe
	key zero, __static_call_return0
	key nothing, 0

	.macro	site place, name, flag=0
	.long	\place - ., __SCK__\name + \flag - .
	.endm

	.section .rodata, "a"
	.balign	8
	.globl	__start_static_call_sites, __stop_static_call_sites
__start_static_call_sites:
	site .L1, reader
	site .L2, reader
	site .L3, zero
	site .L4, nothing
	site .L5, prober, 1
__stop_static_call_sites:
	.globl	__start_static_call_tramp_key, __stop_static_call_tramp_key
__start_static_call_tramp_key:
	.long	__SCT__prober - ., __SCK__prober - .
__stop_static_call_tramp_key:
