/* Built without tracer options: the record walk, the ops objects, a console. */
#include "mini.h"

static noinline void uart_putc(char c)
{
	*(volatile u32 *)0x09000000ul = c;
}

void early_puts(const char *s)
{
	while (*s)
		uart_putc(*s++);
}

void early_putn(ulong n)
{
	char d[24];
	int i = sizeof(d) - 1;

	d[i] = 0;
	do {
		d[--i] = '0' + n % 10;
		n /= 10;
	} while (n);
	early_puts(d + i);
}

void early_poweroff(void)
{
	register ulong x0 asm("x0") = 0x84000008;

	asm volatile("hvc #0" : "+r"(x0) : : "x1", "x2", "x3", "memory");
}

ulong ftrace_hits, ftrace_last_ip;

#ifndef NOTRACE
extern const ulong __start_mcount_loc[], __stop_mcount_loc[];
extern const char _stext[], _etext[], _sinittext[], _einittext[];

static noinline void ftrace_ops_nop_func(ulong ip, ulong parent, const struct ftrace_ops *op, void *regs)
{
	asm volatile("" : : "r"(ip), "r"(parent), "r"(op), "r"(regs));
}

static noinline void ftrace_ops_list_func(ulong ip, ulong parent, const struct ftrace_ops *op, void *regs)
{
	asm volatile("" : : "r"(parent), "r"(op), "r"(regs));
	ftrace_hits++;
	ftrace_last_ip = ip;
}

const struct ftrace_ops ftrace_nop_ops = { .func = ftrace_ops_nop_func };
const struct ftrace_ops ftrace_list_ops = { .func = ftrace_ops_list_func };
const struct ftrace_ops *function_trace_op = &ftrace_list_ops;

static int in_text(ulong a)
{
	return (a >= (ulong)_stext && a < (ulong)_etext) ||
	       (a >= (ulong)_sinittext && a < (ulong)_einittext);
}

/* Address of the word that becomes BL, 0 for "no such record". */
static ulong adjust(ulong a)
{
#if defined(CALLOPS)
	if (a & 7)
		return 0;
	a += 8;
# ifdef BTI
	if ((*(u32 *)a & 0xffffff3f) == 0xd503241f)
		a += 4;
# endif
	return a + 4;
#elif defined(PFE2)
	return a + 4;
#else
	return a;
#endif
}

static int is_disabled_site(ulong ip)
{
#if defined(PG)
	return (*(u32 *)ip & 0xfc000000) == 0x94000000;
#else
	return *(u32 *)(ip - 4) == 0xd503201f;
#endif
}

static noinline __init void ftrace_process_locs(const ulong *p, const ulong *end)
{
	ulong n = 0;

	for (; p < end; p++) {
		ulong ip;

#ifdef ZERO_OK
		if (!*p || !in_text(*p))
			continue;
#endif
		ip = adjust(*p);
		if (!ip)
			continue;
		if (!in_text(ip) || !is_disabled_site(ip)) {
			early_puts("ftrace bug\n");
			return;
		}
		n++;
	}
	early_puts("ftrace: ");
	early_putn(n);
	early_puts(" entries\n");
}

__init void ftrace_init(void)
{
	const ulong *start = __start_mcount_loc, *stop = __stop_mcount_loc;

	/* Keep the addresses of the bounds in this function. */
	asm("" : "+r"(start), "+r"(stop));
	ftrace_process_locs(start, stop);
}
#else
__init void ftrace_init(void)
{
}
#endif
