/*
 * The guest's /init of the boot tests.
 *
 * It asks the running kernel how its function tracing fares and writes the answers as "key=value" lines into
 * a window of memory shared with the host: BAR 2 of an ivshmem-plain device, reached through sysfs.  Kernel
 * messages own the console, so they can never end up in the middle of an answer.  The window starts out zero,
 * and no answer contains a NUL, hence the report is what precedes the first NUL; "end=1" is its last line.
 * A step that fails writes "error.STEP=ERRNO" and the next step runs all the same.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRACING "/sys/kernel/tracing/"
#define PCI_DEVICES "/sys/bus/pci/devices/"
#define OTHER "vfs_open"		/* the function that is traced to see whether tracing works at all */
#define CALLS 20
#define MAX_NAMES 65536
#define MAX_FOREIGN 100

static char report[8 << 20];		/* as large as the host's window */
static size_t used, sent;
static volatile uint64_t *window;
static char *names[MAX_NAMES];
static size_t name_count;
static unsigned long hits[MAX_NAMES];

/* Appends one line to the report.  What no longer fits is dropped, "end=1" included. */
static void say(const char *format, ...)
{
	size_t room = sizeof(report) - used;
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(report + used, room, format, arguments);
	va_end(arguments);
	if (length < 0 || (size_t)length + 1 >= room) {
		memset(report + used, 0, room);
		used = sizeof(report);
		return;
	}
	used += length;
	report[used++] = '\n';
}

/* Copies what is new to the window, in aligned words: it may be mapped as device memory. */
static void publish(void)
{
	for (size_t i = sent / 8; i < (used + 7) / 8; i++) {
		uint64_t word;

		memcpy(&word, report + 8 * i, 8);
		window[i] = word;
	}
	sent = used;
}

static void failed(const char *step, int error)
{
	say("error.%s=%d", step, error);
}

/* Returns 0 or the errno of writing `value` to `path`, which is truncated. */
static int put(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_TRUNC), error = 0;

	if (fd < 0)
		return errno;
	if (*value && write(fd, value, strlen(value)) < 0)
		error = errno;
	if (close(fd) < 0 && !error)
		error = errno;
	return error;
}

/* Opens `path` to read lines; a failure is put on the report under `step`. */
static FILE *lines_of(const char *path, const char *step)
{
	FILE *file = fopen(path, "r");

	if (!file)
		failed(step, errno);
	return file;
}

/* Returns the next line without its newline, NULL at the end; `*line` is a getline buffer. */
static char *next_line(FILE *file, char **line, size_t *size)
{
	ssize_t length = getline(line, size, file);

	if (length < 0)
		return NULL;
	if (length && (*line)[length - 1] == '\n')
		(*line)[length - 1] = 0;
	return *line;
}

/* Closes `file`, after putting a read error on the report. */
static void close_lines(FILE *file, char *line, const char *step)
{
	if (ferror(file))
		failed(step, errno);
	free(line);
	fclose(file);
}

/* Puts each line of `path` on the report under `key`, then their number: no lines is an answer, too. */
static void report_lines(const char *path, const char *key)
{
	FILE *file = lines_of(path, key);
	char *line = NULL;
	size_t size = 0, count;

	if (!file)
		return;
	for (count = 0; next_line(file, &line, &size); count++)
		say("%s=%s", key, line);
	say("lines.%s=%zu", key, count);
	close_lines(file, line, key);
}

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

/* Returns the function of a line of the function tracer ("... name <-caller"), NULL for any other line. */
static char *traced_function(char *line)
{
	char *arrow = *line == '#' ? NULL : strstr(line, " <-"), *space;

	if (!arrow)
		return NULL;
	*arrow = 0;
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

/* Traces while files are opened and getppid is called, which is done even if tracing fails. */
static int record(const char *filter)
{
	int error = start_tracing(filter);

	for (int i = 0; i < CALLS; i++) {
		close(open("/names", O_RDONLY));
		syscall(SYS_getppid);
	}
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

/* Is the PCI device called `entry` the shared memory (1af4:1110)? */
static int is_window(const char *entry)
{
	char path[PATH_MAX], id[16] = "";
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "%s/device", entry);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return 0;
	if (read(fd, id, sizeof(id) - 1) < 0)
		id[0] = 0;
	close(fd);
	return !strncmp(id, "0x1110", 6);
}

/* Returns 0 once the device's BAR 2 is mapped at `window`, an errno otherwise. */
static int map_window(const char *entry)
{
	char path[PATH_MAX];
	void *memory;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "%s/enable", entry);
	if (put(path, "1"))
		return EIO;
	snprintf(path, sizeof(path), PCI_DEVICES "%s/resource2", entry);
	fd = open(path, O_RDWR);
	if (fd < 0)
		return errno;
	memory = mmap(NULL, sizeof(report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return errno;
	window = memory;
	return 0;
}

static int find_window(void)
{
	DIR *devices = opendir(PCI_DEVICES);
	struct dirent *entry;

	if (!devices)
		return errno;
	while ((entry = readdir(devices)))
		if (is_window(entry->d_name))
			return map_window(entry->d_name);
	return ENODEV;
}

static void answer(void)
{
	say("begin=1");
	publish();
	report_text();
	report_lines(TRACING "available_filter_functions", "function");
	report_lines(TRACING "dyn_ftrace_total_info", "total_info");
	publish();
	load_names();
	trace_other();
	publish();
	if (name_count)
		trace_all();
	publish();
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
	reboot(RB_POWER_OFF);
	return 1;
}
