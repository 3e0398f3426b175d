"""Runs QEMU and collects what comes out of it: the console, and how often watched addresses were executed."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

_CONSOLE_LIMIT = 16 << 20  # what a guest prints beyond this is dropped
_EXECUTED = re.compile(rb"^Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/", re.MULTILINE)
_STOPPED = re.compile(rb"^Stopped execution of TB chain before \S+ \[([0-9a-f]+)\]", re.MULTILINE)


class BootError(RuntimeError):
    """The boot could not be carried out or observed, which says nothing about the kernel."""


@dataclass
class Observation:
    """What came out of QEMU so far: the console, and how often each logged address was executed."""

    console: bytearray = field(default_factory=bytearray)
    executed: Counter[int] = field(default_factory=Counter)
    pending: bytes = b""  # the begun last line of the execution log

    def print(self, chunk: bytes) -> None:
        """Add console output, up to the limit."""
        self.console += chunk[: _CONSOLE_LIMIT - len(self.console)]

    def execute(self, chunk: bytes) -> None:
        """Count the complete lines of the execution log, which takes back what an interrupt prevented."""
        lines, newline, rest = (self.pending + chunk).rpartition(b"\n")
        self.pending = rest
        self.executed.update(int(address, 16) for address in _EXECUTED.findall(lines + newline))
        self.executed.subtract(int(address, 16) for address in _STOPPED.findall(lines + newline))


def observe(command: list[str], ranges: Collection[tuple[int, int]], timeout: float) -> tuple[Observation, bool]:
    """Run QEMU and return what came out of it, and whether it had to be killed at the timeout.

    The execution log goes through a pipe, so that a busy range costs time but no space.
    """
    log, log_end = os.pipe()
    with os.fdopen(log, "rb", buffering=0) as executions:
        try:
            qemu = _start(command, ranges, log_end)
        finally:
            os.close(log_end)
        with qemu:
            assert qemu.stdout is not None
            seen = Observation()
            sinks = {qemu.stdout.fileno(): seen.print, executions.fileno(): seen.execute}
            try:
                timed_out = not _drain(sinks, time.monotonic() + timeout)
            except BaseException:
                qemu.kill()
                raise
            if timed_out:
                qemu.kill()
    if qemu.returncode and not timed_out:
        raise BootError(f"{command[0]} failed: {seen.console[-500:].decode(errors='replace').strip()}")
    return seen, timed_out


def _start(command: list[str], ranges: Collection[tuple[int, int]], log: int) -> subprocess.Popen[bytes]:
    """Return the started QEMU, which logs to the descriptor `log` when it executes code in one of `ranges`."""
    if ranges:
        wanted = ",".join(f"{start:#x}+{size}" for start, size in ranges)
        command = [*command, "-d", "exec,nochain", "-dfilter", wanted, "-D", f"/proc/self/fd/{log}"]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[log],
        )
    except FileNotFoundError:
        raise BootError(f"{command[0]} is missing, see python -m tools.kernels --tools") from None


def _drain(sinks: Mapping[int, Callable[[bytes], None]], deadline: float) -> bool:
    """Pass what arrives on each descriptor to its sink; return whether all ended before the deadline."""
    with selectors.DefaultSelector() as selector:
        for descriptor in sinks:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            for key, _ in selector.select(remaining):
                chunk = os.read(key.fd, 1 << 16)
                if chunk:
                    sinks[key.fd](chunk)
                else:
                    selector.unregister(key.fd)
    return True
