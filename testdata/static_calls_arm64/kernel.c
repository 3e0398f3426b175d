/* A kernel with four static calls: one of each kind, and one that it sets itself when it starts. */
#include "static_call.h"

const char linux_banner[] = "Linux version 0.0.0-mini (ftpatch fixture) #1\n";
static ulong ticks = 7;

noinline ulong clock_slow(ulong last)
{
	return last + ticks;
}

/* May take the place of clock_slow. */
noinline ulong clock_fast(ulong last)
{
	return last + 1000;
}

/* Is of another type. */
noinline void clock_stop(struct file *f)
{
	f->pos = ticks;
}

DEFINE_STATIC_CALL(clock_read, clock_slow);
EXPORT_STATIC_CALL(clock_read);

/* Comes back to the static call whose function it would be. */
noinline ulong clock_again(ulong last)
{
	return static_call(clock_read)(last) + ticks;
}

noinline void idle_wait(ulong state)
{
	ticks += state;
}
DEFINE_STATIC_CALL_NULL(idle_hook, idle_wait);

noinline long steal_real(ulong cpu)
{
	return cpu * 3 + ticks;
}
DEFINE_STATIC_CALL_RET0(steal_time, steal_real);

noinline int level_low(void)
{
	return 1;
}

noinline int level_high(void)
{
	return 9;
}
DEFINE_STATIC_CALL(report_level, level_low);
EXPORT_STATIC_CALL_TRAMP(report_level);

noinline ulong ktime_get(ulong last)
{
	ulong now = static_call(clock_read)(last);

	static_call(idle_hook)(now);
	return now + static_call(steal_time)(2);
}

/* Nothing is left to do behind these calls: they are jumps. */
noinline ulong ktime_raw(ulong last)
{
	return static_call(clock_read)(last + 1);
}

noinline void do_idle(ulong state)
{
	static_call(idle_hook)(state);
}

__init noinline int early_level(void)
{
	return static_call(report_level)() + 1;
}

__init noinline void level_setup(void)
{
	static_call_update(report_level, level_high);
}

__init void start_kernel(void)
{
	early_puts(linux_banner);
	ftrace_init();
	early_puts("level ");
	early_putn(early_level());
	level_setup();
	early_puts(" then ");
	early_putn(early_level());
	early_puts("\nclock ");
	early_putn(ktime_get(1));
	early_puts(" raw ");
	early_putn(ktime_raw(1));
	do_idle(1);
	early_puts(" ticks ");
	early_putn(ticks);
	early_puts("\n");
	early_poweroff();
}
