/* Built without tracer options: the record walk, the ops objects, a log. */
#include "mini.h"

/* What would be a console: read it in memory. */
char log_buf[512];
static ulong log_end;

void early_puts(const char *s)
{
	while (*s && log_end < sizeof(log_buf) - 1)
		log_buf[log_end++] = *s++;
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

ulong ftrace_hits, ftrace_last_ip;

extern const ulong __start_mcount_loc[], __stop_mcount_loc[];
extern const char _stext[], _etext[], _sinittext[], _einittext[];

#ifndef CALL_OPS
void ftrace_stub(ulong ip, ulong parent, const struct ftrace_ops *op, void *regs);
#endif

static noinline void ftrace_ops_list_func(ulong ip, ulong parent, const struct ftrace_ops *op, void *regs)
{
	asm volatile("" : : "r"(parent), "r"(op), "r"(regs));
	ftrace_hits++;
	ftrace_last_ip = ip;
}

#ifdef CALL_OPS
static noinline void ftrace_ops_nop_func(ulong ip, ulong parent, const struct ftrace_ops *op, void *regs)
{
	asm volatile("" : : "r"(ip), "r"(parent), "r"(op), "r"(regs));
}

const struct ftrace_ops ftrace_nop_ops = { .func = ftrace_ops_nop_func };
const struct ftrace_ops ftrace_list_ops = { .func = ftrace_ops_list_func };
struct ftrace_ops global_ops = { .func = ftrace_ops_list_func, .flags = 1 };
#else
struct ftrace_ops global_ops = { .func = ftrace_stub, .flags = 1 };
ftrace_func_t ftrace_trace_function = ftrace_ops_list_func;
#endif
const struct ftrace_ops *function_trace_op = &global_ops;

#ifdef UNSORTED_RELA
/* Stays undefined: a R_PPC64_ADDR64 among the RELATIVE entries. */
extern char mach_mini[] __attribute__((weak));
#endif

static int in_text(ulong a)
{
	return (a >= (ulong)_stext && a < (ulong)_etext) ||
	       (a >= (ulong)_sinittext && a < (ulong)_einittext);
}

/* Address of the word that becomes a branch. */
static ulong adjust(ulong a)
{
#if defined(CLANG)
	/* The record names the global entry. */
	if ((*(u32 *)a & 0xffff0000) == 0x3c4c0000)
		return a + 8;
	return a;
#elif defined(NM)
	return a + 12;
#elif defined(PFE2)
	return a + 4;
#else
	return a;
#endif
}

static int is_disabled_site(ulong ip)
{
#if defined(MPROFILE) || defined(PG)
	return (*(u32 *)ip & 0xfc000003) == 0x48000001;
#elif defined(OOL)
	return *(u32 *)ip == 0x60000000;
#else
	return *(u32 *)(ip - 4) == 0x60000000 && *(u32 *)ip == 0x60000000;
#endif
}

static noinline __init void ftrace_process_locs(const ulong *p, const ulong *end)
{
	ulong n = 0;

	for (; p < end; p++) {
		ulong ip;

		if (!*p)
			continue;
		ip = adjust(*p);
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
#ifdef UNSORTED_RELA
	if (mach_mini)
		early_puts(mach_mini);
#endif
	ftrace_process_locs(start, stop);
}
