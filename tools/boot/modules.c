/*
 * Modules: /modules.list names them in the order of loading, /modules/NAME.ko is each one's file.
 *
 * Each of them is answered by "loaded.NAME=ERRNO" and, if that is 0, in the end by "unloaded.NAME=ERRNO".
 */
#include "modules.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "network.h"
#include "report.h"

#define MAX_MODULES 256
#define PATIENCE 100	/* how many times 10 ms a module may stay in use */

static char *modules[MAX_MODULES];	/* the loaded ones, in that order */
static int module_count;

static int load(const char *name)
{
	char path[PATH_MAX];
	int fd, error;

	snprintf(path, sizeof(path), "/modules/%s.ko", name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return errno;
	error = syscall(SYS_finit_module, fd, "", 0) ? errno : 0;
	close(fd);
	return error;
}

static int is_loaded(const char *name)
{
	for (int i = 0; i < module_count; i++)
		if (!strcmp(modules[i], name))
			return 1;
	return 0;
}

/* Reports where the symbols of the loaded modules are; a line of theirs is "address type symbol\t[module]". */
static void report_symbols(void)
{
	FILE *file = lines_of("/proc/kallsyms", "symbols");
	char *line = NULL, symbol[512], module[128];
	unsigned long long address;
	size_t size = 0;

	if (!file)
		return;
	while (next_line(file, &line, &size))
		if (sscanf(line, "%llx %*c %511s [%127[^]]]", &address, symbol, module) == 3 && is_loaded(module))
			say("symbol.%s:%s=%llx", module, symbol, address);
	close_lines(file, line, "symbols");
}

void load_modules(void)
{
	FILE *file = lines_of("/modules.list", "modules");
	char *line = NULL;
	size_t size = 0;
	int error;

	if (!file)
		return;
	note_interfaces();
	while (module_count < MAX_MODULES && next_line(file, &line, &size)) {
		error = load(line);
		say("loaded.%s=%d", line, error);
		publish();
		if (!error)
			modules[module_count++] = strdup(line);
	}
	close_lines(file, line, "modules");
	if (module_count)
		report_symbols();
}

int any_modules(void)
{
	return module_count > 0;
}

/* "sent" is how many frames drivers took in the last recording. */
void exercise_modules(void)
{
	if (module_count)
		say("sent=%u", exercise_interfaces());
}

/* In reverse order; what is still in use gets a moment. */
void unload_modules(void)
{
	while (module_count--) {
		char *name = modules[module_count];
		int error, patience = PATIENCE;

		do {
			error = syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0;
		} while (error == EWOULDBLOCK && patience-- && !usleep(10000));
		say("unloaded.%s=%d", name, error);
		publish();
	}
}
