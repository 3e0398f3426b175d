/*
 * Static calls as x86_64's kernels have them, by hand: what DEFINE_STATIC_CALL, static_call and objtool make. With
 * MODULE, a module that has one key of its own and calls two of the kernel's.
 */
#define FUNCTION(name) .globl name; .type name, @function; name:
#define END(name) .size name, . - name
#define KEY(name, func) .pushsection .data; .balign 16; .globl __SCK__##name; .type __SCK__##name, @object; \
	.size __SCK__##name, 16; __SCK__##name: .quad func, 1; .popsection
#define TRAMPOLINE(name, ...) .pushsection .static_call.text, "ax"; .balign 4; .globl __SCT__##name; \
	.type __SCT__##name, @function; .size __SCT__##name, 8; __SCT__##name: __VA_ARGS__; .byte 0x0f, 0xb9, 0xcc; \
	.popsection
#define LISTED(key, flags) .pushsection .static_call_sites, "a"; .balign 4; .long 771f - ., key + flags - .; \
	.popsection; 771:
#define INT3(n) .fill n, 1, 0xcc

#ifndef MODULE
	.section .rodata
	.globl linux_banner
linux_banner: .asciz "Linux version 0.0.0-static (ftpatch fixture)\n"

	KEY(clock, clock_slow)
	TRAMPOLINE(clock, jmp clock_slow)
	KEY(idle, 0)
	TRAMPOLINE(idle, jmp __x86_return_thunk)
	KEY(steal, __static_call_return0)
	TRAMPOLINE(steal, jmp __static_call_return0)
	KEY(probe, 0)
	TRAMPOLINE(probe, ret; int3; .byte 0xcc, 0xcc, 0xcc)
	KEY(zero, __static_call_return0)
	TRAMPOLINE(zero, xor %eax, %eax; ret; .byte 0xcc, 0xcc)
	KEY(unused, clock_fast)
	TRAMPOLINE(unused, jmp clock_fast)

	.data
	.type table, @object
table:	.quad __SCK__probe, __SCT__probe
	.size table, . - table

	.text
FUNCTION(clock_slow) ret; END(clock_slow)
FUNCTION(clock_fast) ret; END(clock_fast)
FUNCTION(__x86_return_thunk) ret; int3; END(__x86_return_thunk)
FUNCTION(__static_call_return0) xor %eax, %eax; ret; END(__static_call_return0)
FUNCTION(__static_call_update) ret; END(__static_call_update)

	.balign 64
FUNCTION(lines)			/* destination words at 1, 60, 125 and 190 of the function */
	LISTED(__SCK__clock, 0) call __SCT__clock
	INT3(54)
	LISTED(__SCK__clock, 0) call __SCT__clock
	INT3(60)
	LISTED(__SCK__clock, 0) call __SCT__clock
	INT3(60)
	LISTED(__SCK__idle, 0) call __SCT__idle
	ret
	END(lines)

	.balign 64
FUNCTION(forms)
	LISTED(__SCK__clock, 1) je __SCT__clock
	LISTED(__SCK__clock, 0) call clock_slow
	LISTED(__SCK__idle, 0) .byte 0x0f, 0x1f, 0x44, 0, 0
	LISTED(__SCK__steal, 0) .byte 0x2e, 0x2e, 0x2e, 0x31, 0xc0
	LISTED(__SCK__probe, 1) ret; INT3(4)
	LISTED(__SCK__zero, 0) push %rbp; INT3(4)
	LISTED(__SCK__clock, 1) jmp __SCT__clock
	END(forms)

FUNCTION(set_clock) mov $__SCK__clock, %rdi; xor %esi, %esi; call __static_call_update; ret; END(set_clock)
FUNCTION(set_two)
	lea __SCK__idle(%rip), %rdi
	call __static_call_update
	mov table(%rip), %rdi
	jmp __static_call_update
	END(set_two)

	.section .init.text, "ax"
FUNCTION(start_kernel) LISTED(__SCK__clock, 2) call __SCT__clock; mov $__SCK__steal, %rdi; jmp __static_call_update
	END(start_kernel)
#else
	.section .modinfo, "a"
	.asciz "vermagic=0.0.0-static SMP mod_unload "
	.asciz "name=calls"
	KEY(own, own_slow)
	TRAMPOLINE(own, jmp own_slow)
	.text
	.balign 16
FUNCTION(own_slow) ret; INT3(15); END(own_slow)
	/* from the start of a page: 16 + 44 + 1 = 61, which crosses; its section alone is aligned to 16 */
FUNCTION(caller) INT3(44); LISTED(__SCK__own, 0) call __SCT__own; ret
	LISTED(__SCT__clock, 0) call __SCT__clock
	LISTED(__SCK__idle, 1) jmp __SCT__idle
	END(caller)
FUNCTION(set_own) mov $__SCK__own, %rdi; call __static_call_update; ret; END(set_own)
	.section .text.late, "ax"
	.balign 16
FUNCTION(late) LISTED(__SCK__own, 0) call __SCT__own; ret; END(late)
	.section .init.text, "ax"
FUNCTION(init_module) LISTED(__SCK__own, 0) call __SCT__own; ret; END(init_module)
#endif
