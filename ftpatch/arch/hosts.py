"""The machines on which QEMU's user mode can be confined: system call numbers, by what `uname -m` says.

Source: asm/unistd_64.h, asm-generic/unistd.h; AUDIT_ARCH_*: linux/audit.h.
"""

from __future__ import annotations

from dataclasses import dataclass

QEMU_PPC64LE = "qemu-ppc64le"  # QEMU's user mode, which runs what Unicorn cannot


@dataclass(frozen=True)
class Host:
    """System call numbers of one kind of host."""

    audit: int  # AUDIT_ARCH_*, which a filter sees
    free: tuple[int, ...]  # calls that are allowed as they are
    write: int  # these four are allowed with some arguments
    openat: int
    clone: int
    prlimit: int


# read close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64 sched_yield mremap
# madvise getpid execve exit uname fcntl readlink gettimeofday getuid getgid geteuid getegid sigaltstack gettid futex
# sched_getaffinity set_tid_address clock_gettime exit_group newfstatat readlinkat faccessat set_robust_list getrandom
# membarrier statx rseq sysinfo; x86-64 also: access getcwd arch_prctl getrlimit clock_nanosleep
HOSTS = {
    "x86_64": Host(
        0xC000_003E,
        (0, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 17, 24, 25, 28, 39, 59, 60, 63, 72, 89, 96, 102, 104, 107, 108, 131,
         186, 202, 204, 218, 228, 231, 262, 267, 269, 273, 318, 324, 332, 334, 99, 21, 79, 158, 97, 230),
        write=1, openat=257, clone=56, prlimit=302,
    ),
    "aarch64": Host(
        0xC000_00B7,
        (63, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 67, 124, 216, 233, 172, 221, 93, 160, 25, 169, 174, 176,
         175, 177, 132, 178, 98, 123, 96, 113, 94, 79, 78, 48, 99, 278, 283, 291, 293, 179, 17, 163, 115),
        write=64, openat=56, clone=220, prlimit=261,
    ),
}  # fmt: skip
