/*
 * What sites call. ftrace_caller keeps every register that a function is called with, and returns behind the call; a
 * caller's return address lies on the stack above its own. Nothing in this file has a record.
 */
	.macro	func name
	.globl	\name
	.type	\name, @function
	.balign	16, 0x90
\name:
#ifdef IBT
	endbr64
#endif
	.endm
	.macro	endfunc name
	.size	\name, . - \name
	.endm
	.macro	leave_function
#ifdef THUNK
	jmp	__x86_return_thunk
#else
	ret
	int3
#endif
	.endm

	.text
func startup_64
	call	start_kernel
1:	hlt
	jmp	1b
endfunc startup_64

func ftrace_stub
	leave_function
endfunc ftrace_stub

func __fentry__
	leave_function
endfunc __fentry__

	.macro	trampoline name
func \name
	sub	$72, %rsp
	mov	%rax, (%rsp)
	mov	%rcx, 8(%rsp)
	mov	%rdx, 16(%rsp)
	mov	%rsi, 24(%rsp)
	mov	%rdi, 32(%rsp)
	mov	%r8, 40(%rsp)
	mov	%r9, 48(%rsp)
	mov	80(%rsp), %rsi
	mov	72(%rsp), %rdi
	sub	$5, %rdi
	mov	function_trace_op(%rip), %rdx
	call	ftrace_stub
	mov	48(%rsp), %r9
	mov	40(%rsp), %r8
	mov	32(%rsp), %rdi
	mov	24(%rsp), %rsi
	mov	16(%rsp), %rdx
	mov	8(%rsp), %rcx
	mov	(%rsp), %rax
	add	$72, %rsp
	leave_function
endfunc \name
	.endm

	trampoline ftrace_caller
	trampoline ftrace_regs_caller

	.type	__x86_return_thunk, @function
	.globl	__x86_return_thunk
	.balign	16, 0xcc
__x86_return_thunk:
	ret
	int3
	.size	__x86_return_thunk, . - __x86_return_thunk

	.data
	.balign	8
	.type	function_trace_op, @object
	.globl	function_trace_op
function_trace_op:
	.quad	0
	.size	function_trace_op, 8
