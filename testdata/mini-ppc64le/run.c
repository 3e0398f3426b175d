/*
 * Runs a vmlinux-* fixture in user mode (qemu-ppc64le): maps its PT_LOADs at some address,
 * changes words if told so, enters it, and prints its log when it executes `trap`.
 *
 *   run FILE LOGOFF [OFF=WORD | OFF@OFF2]...
 *
 * OFF is an address minus 0xc000000000000000; OFF=WORD stores 32 bits, OFF@OFF2 a pointer.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static unsigned long saved_r13;
static char *log_at;

static void done(int sig)
{
	asm volatile("mr 13,%0" : : "r"(saved_r13) : "memory");
	if (sig != SIGTRAP)
		write(1, "fault\n", 6);
	write(1, log_at, strnlen(log_at, 512));
	_exit(sig != SIGTRAP);
}

int main(int argc, char **argv)
{
	FILE *f = fopen(argv[1], "rb");
	static char file[1 << 17];
	Elf64_Ehdr *e = (void *)file;
	Elf64_Phdr *p;
	unsigned long span = 0;
	char *at, *end;
	int i, sigs[] = { SIGTRAP, SIGSEGV, SIGILL, SIGBUS };

	if (!f || !fread(file, 1, sizeof(file), f))
		return 2;
	p = (void *)(file + e->e_phoff);
	for (i = 0; i < e->e_phnum; i++)
		if (p[i].p_type == PT_LOAD)
			span = p[i].p_paddr + p[i].p_memsz;
	at = mmap(NULL, span, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return 2;
	for (i = 0; i < e->e_phnum; i++)
		if (p[i].p_type == PT_LOAD)
			memcpy(at + p[i].p_paddr, file + p[i].p_offset, p[i].p_filesz);
	log_at = at + strtoul(argv[2], NULL, 16);
	for (i = 3; i < argc; i++) {
		unsigned long off = strtoul(argv[i], &end, 16), v = strtoul(end + 1, NULL, 16);

		if (*end == '=')
			*(unsigned int *)(at + off) = v;
		else
			*(char **)(at + off) = at + v;
	}
	for (i = 0; i < 4; i++)
		signal(sigs[i], done);
	asm volatile("mr %0,13" : "=r"(saved_r13));
	asm volatile("mtctr %0\n\tmr 3,%1\n\tbctr" : : "r"(at), "r"(0) : "3", "ctr", "memory");
	return 2;
}
