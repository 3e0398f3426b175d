/* Start-up. Up to the end of setup_paca r13 points at nothing. */
#include "mini.h"

struct paca boot_paca = { .data_offset = 1 };

static noinline __init_far void fixup_boot_paca(struct paca *p)
{
	p->data_offset = 0;
	asm volatile("" : : : "memory");
}

static noinline __init void enable_ftrace(void)
{
	local_paca->ftrace_enabled = 1;
}

__init void early_setup(ulong dt_ptr)
{
	initialise_paca(&boot_paca, 0);
	fixup_boot_paca(&boot_paca);
	setup_paca(&boot_paca);
	if (early_init_devtree(dt_ptr))
		enable_ftrace();
}
