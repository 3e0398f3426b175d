/* Built with -mcpu=power10 -mpcrel: one entry, r2 is scratch, prefixed instructions. */
#include "mini.h"

static volatile int pcrel_state = 3;

__attribute__((aligned(64))) int pcrel_read(int x)
{
	return pcrel_state + x;
}
