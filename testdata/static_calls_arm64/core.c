/* What the kernel has for all static calls. */
#include "static_call.h"

long __static_call_return0(void)
{
	return 0;
}
EXPORT_SYMBOL(__static_call_return0);
EXPORT_SYMBOL(early_putn);

/* Writes the literal that the second and third instruction of a trampoline load. */
noinline void arch_static_call_transform(void *site, void *tramp, void *func, int tail)
{
	u32 adrp = ((u32 *)tramp)[1], ldr = ((u32 *)tramp)[2];
	long pages = ((long)((ulong)adrp << 40) >> 43 & ~3l) | (adrp >> 29 & 3);
	ulong literal = (((ulong)tramp + 4) & ~0xffful) + pages * 4096 + (ldr >> 10 & 0xfff) * 8;

	*(volatile ulong *)literal = func ? (ulong)func : (ulong)__static_call_return0;
}
EXPORT_SYMBOL(arch_static_call_transform);
