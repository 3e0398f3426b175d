/* What every part of the guest's /init answers with. */
#ifndef REPORT_H
#define REPORT_H

#include <stdio.h>

int find_window(void);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void publish(void);
void failed(const char *step, int error);

int put(const char *path, const char *value);
FILE *lines_of(const char *path, const char *step);
char *next_line(FILE *file, char **line, size_t *size);
void close_lines(FILE *file, char *line, const char *step);
void report_lines(const char *path, const char *key);

#endif
