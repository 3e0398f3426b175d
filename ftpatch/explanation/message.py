"""A message of ftrace as a value, and what tells its lines among the others of a log."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ftpatch.arch import architectures
from ftpatch.arch.site_bytes import MACHINES

WANTED = ("ftrace", "patch-site", "magic for stub", " but got (", " Part", '"MESSAGE":[', '"MESSAGE" : [')
BESIDE = ("actual:", "expected", "[<", "[&lt;", "ainted", "Call Trace", "Call trace", "cut here", "tramp:")

# What common code says beside or instead of that message, and what it means; each machine's own code: `Arch.log`.
REMARKS = ((r"FAILED to allocate memory for functions", "there was no memory for the list of functions"),)
# Lines of machines whose files are not read. Source: arch/riscv/kernel/ftrace.c ftrace_check_current_call(),
# arch/loongarch/kernel/ftrace_dyn.c ftrace_modify_code(), arch/powerpc/kernel/trace/ftrace.c (5.11).
OTHERS = (
    (r"expected \([0-9a-f]{8} [0-9a-f]{8}\) but got \([0-9a-f]{8} [0-9a-f]{8}\)", "the two words of a site are not "
     "those that ftrace looked for"),
    (r"ftrace_modify_code:\d+ Error patching instruction", "the text could not be written"),
)  # fmt: skip


@dataclass(frozen=True)
class Patterns:
    """What to look for in a line, of all machines together, as the register has them now."""

    beside: tuple[str, ...]  # texts that matter in lines near one of WANTED
    # (text, pattern in a line that has it: what only logs of a machine have, its name)
    signs: tuple[tuple[str, re.Pattern[str], str], ...]
    compared: tuple[re.Pattern[str], ...]  # lines that compare two words; groups place, expected, found
    remarks: tuple[tuple[str, str], ...]  # (pattern, what it means)


def patterns() -> Patterns:
    """The patterns of every machine, in the register's order."""
    logs = [(arch.name, arch.log) for arch in architectures()]
    signs = [(text, sign, machine.name) for machine in MACHINES for text, sign in machine.signs]
    signs += [(sign, re.escape(sign), name) for name, log in logs for sign in log.signs]
    return Patterns(
        (*BESIDE, *dict.fromkeys(text for text, _, _ in signs)),
        tuple((text, re.compile(sign), name) for text, sign, name in signs),
        tuple(re.compile(pattern) for _, log in logs for pattern in log.compared),
        (*(remark for _, log in logs for remark in log.remarks), *REMARKS, *OTHERS),
    )


@dataclass(frozen=True)
class Splat:
    """One message."""

    what: str = ""  # the cause that the kernel itself names
    machine: str = ""  # by other lines of the log
    release: str = ""  # of the kernel
    function: str | None = None
    offset: int = 0  # bytes from the function's entry to the call
    size: int = 0  # bytes of the function
    module: str | None = None
    ip: int | None = None  # address of the call in the running kernel
    phase: str = ""  # what ftrace was about to do: `init`, `off`, `on`, `update`; "" if it is not told
    flags: int | None = None  # of the record
    actual: bytes | None = None  # at the call
    wanted: bytes | None = None  # what the kernel wanted there, where it says so
    expected: int | None = None  # of a line that compares words: what was wanted
    found: int | None = None  # and what was there
    word_va: int | None = None  # where `found` stands, if the kernel says so
    pairs: tuple[int, int, int, int] | None = None  # two words that were wanted, and the two that were there
    remarks: tuple[tuple[str, str], ...] = ()  # (what the machine's code said, what that means)
    users: int | None = None  # how many tracers the record says it has
    tramp: int | None = None  # where the kernel wanted the call to lead
    tramps: tuple[str, ...] = ()  # trampolines of these tracers: `ftrace_regs_caller+0x0/0x98 (handler+0x0/0x1d0)`
    unreadable: bool = False  # the kernel could not even read the bytes
    warned: bool = False  # the kernel's warning of it is in the log
    mixed: bool = False  # its lines and those of another message could not be told apart for certain
