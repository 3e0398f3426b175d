#include "mini.h"

/* Called before setup_paca (from initialise_paca) and after it. */
noinline ulong paca_checksum(const struct paca *p)
{
	ulong i, sum = 0;

	for (i = 0; i < sizeof(p->head); i++)
		sum += (u8)p->head[i];
	return sum;
}

__init void initialise_paca(struct paca *p, int cpu)
{
	ulong toc;

	asm("mr %0,2" : "=r"(toc));
	p->kernel_toc = toc;
	p->head[0] = cpu;
	p->head[1] = paca_checksum(p);
}

noinline void setup_paca(struct paca *p)
{
	local_paca = p;
	asm volatile("" : : "r"(p) : "memory");
}

__init int early_init_devtree(ulong dt_ptr)
{
	return paca_checksum(local_paca) + !dt_ptr + 1;
}
