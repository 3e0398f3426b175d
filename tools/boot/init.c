/*
 * The guest's /init of the boot tests.
 *
 * It asks the running kernel, and the modules that it is to load, how their function tracing fares and writes the
 * answers as "key=value" lines into a window of memory shared with the host.  The window starts out zero, and no
 * answer contains a NUL, hence the report is what precedes the first NUL; "end=1" is its last line.
 * A step that fails writes "error.STEP=ERRNO" and the next step runs all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "modules.h"
#include "report.h"
#include "steps.h"

#define TRACING "/sys/kernel/tracing/"
#define OTHER "vfs_open"		/* the function that is traced to see whether tracing works at all */
#define CALLS 20
#define MAX_NAMES 65536
#define MAX_FOREIGN 100

static char *names[MAX_NAMES];
static size_t name_count;
static unsigned long hits[MAX_NAMES];

/* Reports where the kernel's text begins, which shows by how much KASLR has moved it. */
static void report_text(void)
{
	FILE *file = lines_of("/proc/kallsyms", "text");
	char *line = NULL, *symbol;
	size_t size = 0;

	if (!file)
		return;
	while (next_line(file, &line, &size)) {
		symbol = strrchr(line, ' ');
		if (symbol && !strcmp(symbol, " _stext")) {
			say("text=%.*s", (int)strcspn(line, " "), line);
			break;
		}
	}
	close_lines(file, line, "text");
}

static int by_text(const void *left, const void *right)
{
	return strcmp(*(char *const *)left, *(char *const *)right);
}

static void load_names(void)
{
	FILE *file = lines_of("/names", "names");
	char *line = NULL;
	size_t size = 0;

	if (!file)
		return;
	while (name_count < MAX_NAMES && next_line(file, &line, &size))
		names[name_count++] = strdup(line);
	close_lines(file, line, "names");
	qsort(names, name_count, sizeof(*names), by_text);
}

/*
 * Returns the function of a line of the function tracer ("... name <-caller"), NULL for any other line.  Some kernels
 * put the module of a function behind it ("... name [module] <-caller").
 */
static char *traced_function(char *line)
{
	char *arrow = *line == '#' ? NULL : strstr(line, " <-"), *space;

	if (!arrow)
		return NULL;
	*arrow = 0;
	if (arrow[-1] == ']' && (space = strrchr(line, ' ')) && space[1] == '[')
		*space = 0;
	space = strrchr(line, ' ');
	return space ? space + 1 : line;
}

/* Starts the function tracer on `filter` ("" is all functions) with an empty buffer; returns 0 or an errno. */
static int start_tracing(const char *filter)
{
	int error = put(TRACING "tracing_on", "0");

	if (!error)
		error = put(TRACING "set_ftrace_filter", filter);
	if (!error)
		error = put(TRACING "current_tracer", "function");
	if (!error)
		error = put(TRACING "trace", "");
	if (!error)
		error = put(TRACING "tracing_on", "1");
	return error;
}

/* If the line says that the buffer has lost entries, puts that on the report: counts would be too low. */
static void check_complete(const char *line, const char *step)
{
	unsigned long long kept, written;

	if (sscanf(line, "# entries-in-buffer/entries-written: %llu/%llu", &kept, &written) == 2 && kept != written)
		failed(step, EOVERFLOW);
}

/* Traces while files are opened, getppid is called and the modules are busy, which is done even if tracing fails. */
static int record(const char *filter)
{
	int error = start_tracing(filter);

	for (int i = 0; i < CALLS; i++) {
		close(open("/names", O_RDONLY));
		syscall(SYS_getppid);
	}
	exercise_modules();
	return error ? error : put(TRACING "tracing_on", "0");
}

static void stop_tracing(void)
{
	put(TRACING "current_tracer", "nop");
	put(TRACING "set_ftrace_filter", "");
}

/* Does a filter on one function show that function, and nothing else? */
static void trace_other(void)
{
	int error = record(OTHER);
	unsigned long seen = 0, foreign = 0;
	char *line = NULL, *function;
	size_t size = 0;
	FILE *file;

	if (error)
		failed("other", error);
	else if ((file = lines_of(TRACING "trace", "other"))) {
		while (next_line(file, &line, &size)) {
			check_complete(line, "other");
			function = traced_function(line);
			if (function && !strcmp(function, OTHER))
				seen++;
			else if (function && foreign++ < MAX_FOREIGN)
				say("foreign=%s", function);
		}
		say("other=%lu", seen);
		say("leaked=%lu", foreign);
		close_lines(file, line, "other");
	}
	stop_tracing();
}

/*
 * How often does tracing everything show each of the names?  This makes every function return from the tracer,
 * so it is left out where the host watches for such returns: it then hands over no names.
 */
static void trace_all(void)
{
	int error = record("");
	unsigned long seen = 0;
	char *line = NULL, *function, **name;
	size_t size = 0;
	FILE *file;

	if (error)
		failed("all", error);
	else if ((file = lines_of(TRACING "trace", "all"))) {
		while (next_line(file, &line, &size)) {
			check_complete(line, "all");
			function = traced_function(line);
			if (!function)
				continue;
			seen++;
			name = bsearch(&function, names, name_count, sizeof(*names), by_text);
			if (name)
				hits[name - names]++;
		}
		say("all=%lu", seen);
		for (size_t i = 0; i < name_count; i++)
			say("hit.%s=%lu", names[i], hits[i]);
		close_lines(file, line, "all");
	}
	stop_tracing();
}

static void answer(void)
{
	int error;

	say("begin=1");
	publish();
	report_text();
	load_modules();
	report_lines(TRACING "available_filter_functions", "function");
	report_lines(TRACING "dyn_ftrace_total_info", "total_info");
	publish();
	load_names();
	if (any_modules() && (error = put(TRACING "buffer_size_kb", "16384")))
		failed("buffer", error);
	trace_other();
	publish();
	if (name_count)
		trace_all();
	take_steps();
	publish();
	unload_modules();
	report_lines("/proc/sys/kernel/tainted", "taint");
	say("end=1");
	publish();
}

int main(void)
{
	int error;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("tracefs", TRACING, "tracefs", 0, NULL);
	error = find_window();
	printf("ftpatch-init: running, report channel: %s\n", error ? strerror(error) : "ready");
	fflush(stdout);
	if (!error)
		answer();
	reboot(RB_AUTOBOOT);	/* ends QEMU (-no-reboot); to power off, a kernel may need ACPI, which small ones lack */
	return 1;
}
