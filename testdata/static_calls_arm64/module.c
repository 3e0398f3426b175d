/* A module with a static call of its own, and calls of two of the kernel's. */
#include "static_call.h"

static int worn = 3;

noinline int wear_plain(int by)
{
	return worn + by;
}

noinline int wear_double(int by)
{
	return worn + 2 * by;
}
DEFINE_STATIC_CALL(wear, wear_plain);

noinline void wear_log(ulong n)
{
	worn += n;
}
DEFINE_STATIC_CALL_NULL(wear_hook, wear_log);

noinline int wear_once(int by)
{
	static_call(wear_hook)(by);
	return static_call(wear)(by) + static_call(report_level)();
}

noinline int wear_last(int by)
{
	return static_call(wear)(by);
}

noinline void wear_set(int twice)
{
	static_call_update(wear, twice ? wear_double : wear_plain);
}

static __init int wear_init(void)
{
	early_putn(static_call(clock_read)(wear_once(1)));
	wear_set(1);
	return wear_last(2);
}

static __attribute__((section(".exit.text"), patchable_function_entry(0, 0))) void wear_exit(void)
{
	worn = 0;
}

int init_module(void) __alias(wear_init);
void cleanup_module(void) __alias(wear_exit);
