/*
 * Three threads call a function all the time, a fourth changes what stands at its patch site, in the running code.
 *
 *   switch FLIPS SITE OFF ON
 *
 * SITE: address of the patch site; OFF, ON: the words there when the hook is off and on, in hex, separated by commas.
 * Words are written one by one, as any program would have to do it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define THREADS 3
#define PAGE 4096

struct counts {
	uint64_t hooked;	/* by the hook, which finds this in x0 */
	uint64_t calls, wrong;
	char padding[104];	/* threads do not share a cache line */
};

/* a page of its own: what is translated beside it need not be translated again */
__attribute__((noipa, section(".text.work"), aligned(4096), patchable_function_entry(NOPS)))
uint64_t work(struct counts *counts, uint64_t a, uint64_t b)
{
	return a * 3 + b;
}

/* keeps all but x10 and x11, and returns either way: as a function does, or as a trampoline with x30 := x9 */
asm(".text\n"
    ".balign 16\n"
    ".globl hook\n"
    ".type hook, %function\n"
    "hook:	ldr x10, [x0]\n"
    "	add x10, x10, #1\n"
    "	str x10, [x0]\n"
    "	mov x11, x30\n"
    "	mov x30, x9\n"
    "	ret x11\n"
    ".size hook, . - hook\n");

static struct counts counts[THREADS] __attribute__((aligned(128)));
static atomic_int ready, stop;

static void *call(void *argument)
{
	struct counts *own = argument;
	uint64_t at = (uintptr_t)own;

	if (nice(19) == -1)	/* of this thread: who writes need not wait long */
		abort();
	atomic_fetch_add(&ready, 1);
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		uint64_t before = own->hooked, result;

		asm volatile("mov x9, #0" ::: "x9");	/* nothing is left there of the last call */
		result = work(own, at, own->calls);
		own->wrong += result != at * 3 + own->calls || own->hooked - before > 1;
		own->calls++;
	}
	return NULL;
}

static int words(char *text, uint32_t *out)
{
	int n = 0;

	for (char *end = text; n < 4 && *text; text = *end ? end + 1 : end)
		out[n++] = strtoul(text, &end, 16);
	return n;
}

int main(int argc, char **argv)
{
	uint32_t off[4], on[4];
	long flips = atol(argv[1]);
	uint32_t *site = (uint32_t *)strtoull(argv[2], NULL, 16);
	int n = words(argv[3], off);
	pthread_t threads[THREADS];
	uint64_t calls = 0, hooked = 0, wrong = 0;

	if (argc != 5 || words(argv[4], on) != n)
		return 2;
	if (mprotect((void *)((uintptr_t)work & -PAGE), PAGE, PROT_READ | PROT_WRITE | PROT_EXEC))
		return 3;
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, call, &counts[i]);
	while (ready < THREADS)
		;
	for (long i = 0; i < flips; i++)
		for (int word = n - 1; word >= 0; word--) {	/* the call first, as a careless program would */
			__atomic_store_n(site + word, (i & 1 ? off : on)[word], __ATOMIC_RELAXED);
			__builtin___clear_cache((char *)(site + word), (char *)(site + word + 1));
		}
	stop = 1;
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		calls += counts[i].calls;
		hooked += counts[i].hooked;
		wrong += counts[i].wrong;
	}
	printf("%lu calls, %lu hooked, %lu wrong\n", calls, hooked, wrong);
	return wrong ? 1 : 0;
}
