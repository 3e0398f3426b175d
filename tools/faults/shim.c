/* What is loaded in front of libc (LD_PRELOAD): counts the system calls that write, and disturbs one of them.
 *
 * Built by `python -m tools.faults`. shim_arm() says which call, and what happens there; shim_count() how many there were, in a child, too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { NOTHING, KILL_BEFORE, KILL_BEHIND, FAIL, FAIL_FROM_HERE, HALF };
enum { NO_TMPFILE = 1, NO_LINK = 2 };

static int armed, action, error, lacks;
static long at, *counted; /* in memory that a child shares with its parent */
#define count (*counted)

__attribute__((constructor)) static void begin(void)
{
	counted = mmap(0, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void shim_arm(long call, int what, int number, int without)
{
	at = call, action = what, error = number, lacks = without, count = 0, armed = 1;
}

long shim_count(void)
{
	return count;
}

static int hit(int what)
{
	return armed && action == what && count == at;
}

static void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

/* Whether the call that begins here fails. */
static int fails(void)
{
	if (!armed)
		return 0;
	count++;
	if (hit(KILL_BEFORE))
		die();
	if (hit(FAIL) || (action == FAIL_FROM_HERE && count >= at)) {
		errno = error;
		return 1;
	}
	return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CALL(type, name, parameters, ...)                         \
	type name parameters                                      \
	{                                                         \
		if (fails())                                      \
			return -1;                                \
		type result = REAL(name)(__VA_ARGS__);            \
		if (hit(KILL_BEHIND))                             \
			die();                                    \
		return result;                                    \
	}
/* A write that is cut: half of it is on the disk, and what follows fails. */
#define WRITE(name, parameters, size, ...)                        \
	ssize_t name parameters                                   \
	{                                                         \
		int stream = fd == 1 || fd == 2;                  \
		if (!stream && fails())                           \
			return -1;                                \
		if (!stream && hit(HALF)) {                                  \
			size = (size + 1) / 2;                    \
			action = FAIL_FROM_HERE, at++;            \
		}                                                 \
		ssize_t result = REAL(name)(__VA_ARGS__);         \
		if (!stream && hit(KILL_BEHIND))                  \
			die();                                    \
		return result;                                    \
	}
#define OPEN(name, parameters, ...)                               \
	int name parameters                                       \
	{                                                         \
		int mode = 0, makes = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE; \
		if (makes) {                                      \
			va_list rest;                             \
			va_start(rest, flags);                    \
			mode = va_arg(rest, int);                 \
			va_end(rest);                             \
			if (fails())                              \
				return -1;                        \
			if (armed && lacks & NO_TMPFILE && (flags & O_TMPFILE) == O_TMPFILE) { \
				errno = EOPNOTSUPP;               \
				return -1;                        \
			}                                         \
		}                                                 \
		int result = REAL(name)(__VA_ARGS__, flags, mode); \
		if (makes && hit(KILL_BEHIND))                    \
			die();                                    \
		return result;                                    \
	}

OPEN(open, (const char *path, int flags, ...), path)
OPEN(open64, (const char *path, int flags, ...), path)
OPEN(openat, (int dir, const char *path, int flags, ...), dir, path)
OPEN(openat64, (int dir, const char *path, int flags, ...), dir, path)
WRITE(write, (int fd, const void *from, size_t size), size, fd, from, size)
WRITE(pwrite, (int fd, const void *from, size_t size, off_t pos), size, fd, from, size, pos)
WRITE(pwrite64, (int fd, const void *from, size_t size, off64_t pos), size, fd, from, size, pos)
CALL(ssize_t, copy_file_range, (int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags), in, from, out,
     to, size, flags)
CALL(int, ftruncate, (int fd, off_t size), fd, size)
CALL(int, fsync, (int fd), fd)
CALL(int, fdatasync, (int fd), fd)
CALL(int, fchmod, (int fd, mode_t mode), fd, mode)
CALL(int, fchown, (int fd, uid_t uid, gid_t gid), fd, uid, gid)
CALL(int, fsetxattr, (int fd, const char *name, const void *value, size_t size, int flags), fd, name, value, size, flags)
CALL(int, fremovexattr, (int fd, const char *name), fd, name)
CALL(int, rename, (const char *from, const char *to), from, to)
CALL(int, renameat, (int in, const char *from, int out, const char *to), in, from, out, to)
CALL(int, unlink, (const char *path), path)
CALL(int, unlinkat, (int dir, const char *path, int flags), dir, path, flags)

int linkat(int in, const char *from, int out, const char *to, int flags)
{
	if (fails())
		return -1;
	if (armed && lacks & NO_LINK) {
		errno = EPERM;
		return -1;
	}
	int result = REAL(linkat)(in, from, out, to, flags);
	if (hit(KILL_BEHIND))
		die();
	return result;
}
