// With second.cc: two units that both have `common` and `twice`; the linker keeps the first copy of each.
#include "shared.h"
int (*pick)(int) = common;
int lost(int x);
extern "C" void _start() { pick(lost(pick_too(1)) + twice(3)); }
