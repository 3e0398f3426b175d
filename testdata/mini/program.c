/*
 * A static PIE without libc. It prints two lines and exits with the number of times
 * hook_caller was entered: 0 as built, more when sites are patched to call it.
 */
#define noinline	__attribute__((noinline))
#define notrace		__attribute__((patchable_function_entry(0, 0)))

unsigned long hook_hits;

static noinline notrace long sys3(long nr, long a, long b, long c)
{
	register long x8 asm("x8") = nr;
	register long x0 asm("x0") = a;
	register long x1 asm("x1") = b;
	register long x2 asm("x2") = c;

	asm volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
}

static noinline unsigned long length(const char *s)
{
	unsigned long n = 0;

	while (s[n]) {
		n++;
		asm volatile("");
	}
	return n;
}

noinline void say(const char *s)
{
	sys3(64, 1, (long)s, length(s));
}

noinline int compute(int a, int b)
{
	asm volatile("");
	return a * b + 2;
}

int main(void)
{
	say("mini program\n");
	say(compute(8, 5) == 42 ? "42\n" : "wrong\n");
	return hook_hits;
}

notrace void _start(void)
{
	sys3(94, main(), 0, 0);
	__builtin_unreachable();
}

/* Contract of an entry hook: x9 = caller's LR, x30 = return point, the rest live. */
asm(
"	.text\n"
"	.balign 8\n"
"	.globl hook_caller\n"
"	.type hook_caller, %function\n"
"hook_caller:\n"
"	bti	c\n"
"	adrp	x10, hook_hits\n"
"	add	x10, x10, :lo12:hook_hits\n"
"	ldr	x11, [x10]\n"
"	add	x11, x11, #1\n"
"	str	x11, [x10]\n"
"	mov	x10, x30\n"
"	mov	x30, x9\n"
"	ret	x10\n"
"	.size hook_caller, . - hook_caller\n");
