/*
 * Steps: /steps has one a line, taken in this order once everything was traced, before modules leave.  Each of them is
 * answered by one "step=ANSWER":
 *
 *	call NUMBER [ARGUMENT]...	a system call; its result, -ERRNO where it fails
 *	read PATH			the first line of a file
 *	write PATH VALUE		0
 *
 * What cannot be read or written is answered by -ERRNO.
 */
#include "steps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report.h"

#define MAX_ARGUMENTS 6

static void call(char *words)
{
	long number, arguments[MAX_ARGUMENTS] = {0}, result;

	number = strtol(words, &words, 0);
	for (int i = 0; i < MAX_ARGUMENTS && *words; i++)
		arguments[i] = strtol(words, &words, 0);
	result = syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
	say("step=%ld", result == -1 ? -errno : result);
}

static void read_file(const char *path)
{
	FILE *file = fopen(path, "r");
	char *line = NULL;
	size_t size = 0;

	errno = file ? 0 : errno;
	if (file && next_line(file, &line, &size))
		say("step=%s", line);
	else
		say("step=%d", -errno);
	free(line);
	if (file)
		fclose(file);
}

static void write_file(char *words)
{
	char *path = strsep(&words, " ");

	say("step=%d", -put(path, words ? words : ""));
}

void take_steps(void)
{
	FILE *file = lines_of("/steps", "steps");
	char *line = NULL, *rest, *kind;
	size_t size = 0;

	if (!file)
		return;
	while (next_line(file, &line, &size)) {
		rest = line;
		kind = strsep(&rest, " ");
		if (rest && !strcmp(kind, "call"))
			call(rest);
		else if (rest && !strcmp(kind, "read"))
			read_file(rest);
		else if (rest && !strcmp(kind, "write"))
			write_file(rest);
		else
			failed("steps", EINVAL);
		publish();
	}
	close_lines(file, line, "steps");
}
