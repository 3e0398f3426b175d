"""Runs QEMU's user mode on a program of which parts come from a file that nobody vouches for.

User mode passes the system calls of the guest on to this machine. So the process may do no more than QEMU itself needs:
read files, map memory, and write to its own output. Every other call fails as if this kernel did not have it. Where
that cannot be had, nothing is run.
Source: linux/seccomp.h, linux/filter.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import signal
import struct
import subprocess
import threading
from dataclasses import dataclass

from ftpatch.arch.hosts import HOSTS, Host

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 1, 38, 22, 2
ALLOW, NO_SUCH_CALL = 0x7FFF << 16, 0x0005 << 16 | 38  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | ENOSYS
LOAD, EQUAL, AND, RETURN = 0x20, 0x15, 0x54, 0x06  # BPF: ld abs; jeq k; and k; ret k
NUMBER, MACHINE, ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
CLONE_THREAD, WRITES = 0x1_0000, 0o3 | 0o100 | 0o1000 | 0o20000000  # O_ACCMODE, O_CREAT, O_TRUNC, O_TMPFILE
PIPE = 1 << 20  # bytes that wait in the pipe: each wake-up of the reader costs as much as copying as many


@dataclass(frozen=True)
class Ran:
    """What became of a program."""

    output: bytearray  # what it wrote
    stopped: str  # why it did not end by itself; empty where it did


def why_not(qemu: str) -> str:
    """Why QEMU cannot be run here; empty where it can."""
    if shutil.which(qemu) is None:
        return f"no {qemu} (Debian package qemu-user)"
    if platform.system() != "Linux" or platform.machine() not in HOSTS:
        return f"{qemu} cannot be confined on {platform.system()} {platform.machine()}"
    return ""


def run(qemu: str, program: bytes, seconds: float) -> Ran:
    """Run an ELF file, for so long at most. OSError or SubprocessError where it cannot be started confined."""
    fd = os.memfd_create("sites", 0)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(program)
        with subprocess.Popen(
            [str(shutil.which(qemu)), f"/proc/self/fd/{fd}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, pass_fds=(fd,), env={}, cwd="/", preexec_fn=_limits(seconds), pipesize=PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            output = bytearray()  # of a kernel some 65 MB, so that there is one copy of it
            reader = threading.Thread(target=_collect, args=(process.stdout.fileno(), output), daemon=True)
            reader.start()
            try:
                reader.join(seconds)
                code = process.wait(0 if reader.is_alive() else seconds)
            except subprocess.TimeoutExpired:
                return Ran(output, f"no end within {seconds:.0f} s")
            finally:
                process.kill()
                reader.join()
    finally:
        os.close(fd)
    return Ran(output, f"exit code {code}" if code else "")


def _collect(fd: int, output: bytearray) -> None:
    """Add all that is written to a pipe."""
    while piece := os.read(fd, PIPE):
        output += piece


class _limits:
    """What the child does before it becomes QEMU; everything is made ready in the parent."""

    def __init__(self, seconds: float) -> None:
        self.cpu = int(seconds) + 1
        self.filter = ctypes.create_string_buffer(_filter(HOSTS[platform.machine()]))
        n = len(self.filter.raw) // 8
        self.program = ctypes.create_string_buffer(struct.pack("@HxxxxxxQ", n, ctypes.addressof(self.filter)))
        self.prctl = ctypes.CDLL(None, use_errno=True).prctl
        self.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

    def __call__(self) -> None:
        for what, limit in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CPU, self.cpu)):
            resource.setrlimit(what, (limit, limit))
        for option, value, address in (
            (PR_SET_PDEATHSIG, signal.SIGKILL, 0),  # it does not outlive this program
            (PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(self.program)),
        ):  # fmt: skip
            if self.prctl(option, value, address, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")


def _filter(host: Host) -> bytes:
    """The BPF program: every call that is not named does not exist."""
    lines = [(LOAD, 0, 0, MACHINE), (EQUAL, 1, 0, host.audit), (RETURN, 0, 0, NO_SUCH_CALL), (LOAD, 0, 0, NUMBER)]
    for number in host.free:
        lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    # Of the argument's lower half: `mask` of it must be one of the values.
    for number, argument, mask, values in (
        (host.write, 0, 0xFFFF_FFFF, (1, 2)),
        (host.openat, 2, WRITES, (0,)),
        (host.clone, 0, CLONE_THREAD, (CLONE_THREAD,)),
        (host.prlimit, 2, 0xFFFF_FFFF, (0,)),
    ):
        checks = [line for value in values for line in ((EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW))]
        body = [(LOAD, 0, 0, ARGUMENT + 8 * argument), (AND, 0, 0, mask), *checks, (RETURN, 0, 0, NO_SUCH_CALL)]
        lines += [(EQUAL, 0, len(body), number), *body]
    lines.append((RETURN, 0, 0, NO_SUCH_CALL))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
