/*
 * The report: "key=value" lines in a window of memory shared with the host, BAR 2 of an ivshmem-plain device,
 * reached through sysfs.  Kernel messages own the console, so they can never end up in the middle of an answer.
 */
#include "report.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PCI_DEVICES "/sys/bus/pci/devices/"

static char report[8 << 20];		/* as large as the host's window */
static size_t used, sent;
static volatile uint64_t *window;

/* Appends one line to the report.  What no longer fits is dropped, "end=1" included. */
void say(const char *format, ...)
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
void publish(void)
{
	for (size_t i = sent / 8; i < (used + 7) / 8; i++) {
		uint64_t word;

		memcpy(&word, report + 8 * i, 8);
		window[i] = word;
	}
	sent = used;
}

void failed(const char *step, int error)
{
	say("error.%s=%d", step, error);
}

/* Returns 0 or the errno of writing `value` to `path`, which is truncated. */
int put(const char *path, const char *value)
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
FILE *lines_of(const char *path, const char *step)
{
	FILE *file = fopen(path, "r");

	if (!file)
		failed(step, errno);
	return file;
}

/* Returns the next line without its newline, NULL at the end; `*line` is a getline buffer. */
char *next_line(FILE *file, char **line, size_t *size)
{
	ssize_t length = getline(line, size, file);

	if (length < 0)
		return NULL;
	if (length && (*line)[length - 1] == '\n')
		(*line)[length - 1] = 0;
	return *line;
}

/* Closes `file`, after putting a read error on the report. */
void close_lines(FILE *file, char *line, const char *step)
{
	if (ferror(file))
		failed(step, errno);
	free(line);
	fclose(file);
}

/* Puts each line of `path` on the report under `key`, then their number: no lines is an answer, too. */
void report_lines(const char *path, const char *key)
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

int find_window(void)
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
