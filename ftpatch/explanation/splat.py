"""What a kernel says when ftrace gives up, taken apart: a pasted `ftrace bug`, and the lines of the machine's own code.

    ftrace-powerpc: 0xc000000000167e98: expected (60000000) != found (7c0802a6)        the machine's code
    ------------[ ftrace bug ]------------                                             kernel/trace/ftrace.c
    ftrace failed to modify
    [<c000000000167e9c>] sys_getppid+0xc/0x50                                          the call's place
     actual:   4d:6b:f0:4b                                                             its bytes
     expected: 00:00:00:60                                                             on some machines
    Initializing ftrace call sites                                                     what ftrace was about to do
    ftrace record flags: 80000001                                                      and the record at that time
     (1)    tramp: ftrace_regs_caller+0x0/0x98 (klp_ftrace_handler+0x0/0x1d0)
     expected tramp: c00000000006e9e8

Lines are searched, not matched: time stamps, log levels and the marks of a quotation stand in front of them. Addresses
are the running kernel's, moved by KASLR or hashed; a function and an offset in it are not. Lines of two messages at
once are told apart by their callers; without these, what a message has already belongs to the other, and that is noted.
Source: kernel/trace/ftrace.c ftrace_bug(), print_bug_type(), print_ip_ins() (Linux 2.6.32 to 7.2); kernels before 4.4
tell neither what ftrace was about to do nor the record, and print the warning's registers first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ftpatch.errors import InputError
from ftpatch.explanation.log_lines import LogLine, lines_of
from ftpatch.explanation.message import WANTED, Patterns, Splat, patterns
from ftpatch.explanation.message_lines import RELEASE, OpenMessage, add_line, sign_of

MAX_SPLAT = 64 << 20  # bytes of a log that are read
N_PARTS = 6  # of a whole message that `_parts` counts
MAX_MESSAGES = 256  # of one log that are taken apart


def parse(text: str) -> list[Splat]:
    """Every message in a log, in its order. Raises InputError where there is none."""
    messages, _ = parse_log(text)
    return messages


def parse_log(text: str) -> tuple[list[Splat], tuple[str, ...]]:
    """As `parse`, and what is to be said of the log as a whole."""
    known = patterns()
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "=\n" in text and ("=20" in text or "=3D" in text):  # a mail that is quoted-printable: lines end in `=`
        text = text.replace("=\n", "").replace("=20", " ").replace("=3D", "=")
    lines, more = lines_of(text[:MAX_SPLAT], WANTED, known.beside)
    splats = _messages(lines, known)
    if not splats and "\\n" in text:  # a log in one string, as JSON and programs write it
        lines, more = lines_of(text[:MAX_SPLAT].replace("\\n", "\n").replace("\\t", " "), WANTED, known.beside)
        splats = _messages(lines, known)
    if splats and _parts(splats) < N_PARTS and (backwards := _messages(lines[::-1], known)) and (
        _parts(backwards) > _parts(splats)
    ):  # fmt: skip
        splats = backwards  # the newest line first, and no time in them
    if not splats:
        n = text.count("\n") + bool(text and not text.endswith("\n"))
        raise InputError("no ftrace message in this text", found=f"{n} lines",
                         expected="`ftrace bug` or another message of ftrace",
                         todo="give the whole log: dmesg > LOG")  # fmt: skip
    notes = [f"{len(splats)} messages; the first {MAX_MESSAGES} are taken apart"] if len(splats) > MAX_MESSAGES else []
    notes += ["the log has more lines that may matter than are read"] if more else []
    # machine and release stand in other lines of the log, too
    machine = next((splat.machine for splat in splats if splat.machine), "") or _machine(lines, known)
    release = next((hit[1] for line in lines if (hit := RELEASE.search(line.text))), "")
    told = [replace(splat, machine=splat.machine or machine, release=splat.release or release)
            for splat in splats[:MAX_MESSAGES]]  # fmt: skip
    return told, tuple(notes)


def _parts(splats: Sequence[Splat]) -> int:
    """How many parts the fullest message has."""
    return max((sum(bool(part) for part in (splat.what, splat.function or splat.ip, splat.actual, splat.phase,
                                            splat.flags is not None, splat.tramp)) for splat in splats),
               default=0)  # fmt: skip


def _machine(lines: Sequence[LogLine], known: Patterns) -> str:
    """The machine by the first line that only its logs have."""
    return next((name for line in lines if (name := sign_of(line.text, known))), "")


def _messages(lines: Sequence[LogLine], known: Patterns) -> list[Splat]:
    """The messages of lines in the kernel's order."""
    contexts: dict[str, list[OpenMessage]] = {}
    order: list[OpenMessage] = []
    for line in lines:
        messages = contexts.setdefault(line.caller, [])
        before = len(messages)
        add_line(line, messages, known)
        order += messages[before:]
        if len(order) > MAX_MESSAGES + 1:
            order = order[: MAX_MESSAGES + 1]
            break
    return [message.splat for message in order
            if message.splat.remarks or message.splat.found is not None or message.splat.warned
            or message.seen - {"actual", "expected", "users"}]  # fmt: skip
