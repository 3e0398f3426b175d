"""What a kernel says when ftrace gives up, taken apart: a pasted `ftrace bug`, and the lines of the machine's own code.

    ftrace-powerpc: 0xc000000000167e98: expected (60000000) != found (7c0802a6)        the machine's code
    ------------[ ftrace bug ]------------                                             kernel/trace/ftrace.c
    ftrace failed to modify
    [<c000000000167e9c>] sys_getppid+0xc/0x50                                          the call's place
     actual:   4d:6b:f0:4b                                                             its word, byte by byte
    Initializing ftrace call sites                                                     what ftrace was about to do

Lines are searched, not matched: time stamps, log levels and the marks of a quotation stand in front of them. Addresses
are the running kernel's, moved by KASLR or hashed; a function and an offset in it are not.
Source: kernel/trace/ftrace.c ftrace_bug(), print_bug_type(); arch/arm64/kernel/ftrace.c; arch/powerpc/kernel/trace/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ftpatch.arch import architectures
from ftpatch.errors import InputError

MAX_SPLAT = 16 << 20  # bytes of a log that are read
HEX = "[0-9a-fA-F]"
HEAD = re.compile(r"-\[ ftrace bug \]-")
CASE = re.compile(r"ftrace (failed to modify|faulted on modifying|faulted on writing|faulted on unknown error)")
PLACE = re.compile(rf"\[<\(?(\w+)\)?>\] (?:([\w.$]+)\+0x({HEX}+)/0x({HEX}+)(?: \[([\w-]+)\])?|0x({HEX}+))")
BYTES = re.compile(rf"\b(actual|expected):\s+((?:{HEX}{{2,8}}:){{3,}}{HEX}{{2,8}})")
FLAGS = re.compile(rf"ftrace record flags: ({HEX}+)")
RELEASE = re.compile(r"\b(?:Not tainted|Tainted:[ A-Z]+?\(?)\s*(\d+\.\d+\S*)")
PHASES = {
    "Initializing ftrace call sites": "init",
    "Setting ftrace call site to NOP": "off",
    "Setting ftrace call site to call ftrace function": "on",
    "Updating ftrace call site to call a different ftrace function": "update",
}
DOING = re.compile("|".join(PHASES))
OWN = ("ftrace", "patch-site", "magic for stub")  # one of these is in every line of the machine's code

# What common code says beside or instead of that message, and what it means; each machine's own code: `Arch.log`.
REMARKS = ((r"FAILED to allocate memory for functions", "there was no memory for the list of functions"),)


@dataclass(frozen=True)
class Patterns:
    """What to look for in a line, of all machines together, as the register has them now."""

    signs: tuple[tuple[str, str], ...]  # (text that only logs of a machine have, its name)
    compared: tuple[re.Pattern[str], ...]  # lines that compare two words; groups place, expected, found
    remarks: tuple[tuple[str, str], ...]  # (pattern, what it means)


def patterns() -> Patterns:
    """The patterns of every machine, in the register's order."""
    logs = [(arch.name, arch.log) for arch in architectures()]
    return Patterns(
        tuple((sign, name) for name, log in logs for sign in log.signs),
        tuple(re.compile(pattern) for _, log in logs for pattern in log.compared),
        (*(remark for _, log in logs for remark in log.remarks), *REMARKS),
    )


@dataclass(frozen=True)
class Splat:
    """One message. Words are numbers as the machine has them."""

    what: str = ""  # the cause that the kernel itself names
    machine: str = ""
    release: str = ""  # of the kernel
    function: str | None = None
    offset: int = 0  # bytes from the function's entry to the call
    size: int = 0  # bytes of the function
    module: str | None = None
    ip: int | None = None  # address of the call in the running kernel
    phase: str = ""  # what ftrace was about to do: `init`, `off`, `on`, `update`; "" if it is not told
    flags: int | None = None  # of the record
    actual: int | None = None  # the word at the call
    expected: int | None = None
    found: int | None = None
    word_va: int | None = None  # where `found` stands, if the kernel says so
    remarks: tuple[tuple[str, str], ...] = ()  # (what the machine's code said, what that means)


def parse(text: str) -> list[Splat]:
    """Every message in a log, in its order. Raises InputError where there is none."""
    splats: list[Splat] = []
    now, headed, known = Splat(), False, patterns()
    for line in text[:MAX_SPLAT].splitlines():
        # the machine's line comes before its bug's head
        if headed and (HEAD.search(line) or (now.what and "ftrace-" in line and _comparison(line, known))):
            splats.append(now)
            now, headed = Splat(), False
        headed = headed or bool(HEAD.search(line)) or bool(CASE.search(line))
        now = _read(line, now, known)
    splats.append(now)
    # machine and release stand in other lines of the log, too
    machine = next((splat.machine for splat in splats if splat.machine), "")
    release = next((splat.release for splat in splats if splat.release), "")
    messages = [replace(splat, machine=splat.machine or machine, release=splat.release or release)
                for splat in splats if replace(splat, machine="", release="") != Splat()]  # fmt: skip
    if not messages:
        raise InputError("no ftrace message in this text", found=f"{len(text.splitlines())} lines",
                         expected="`ftrace bug` or another message of ftrace")  # fmt: skip
    return messages


def _comparison(line: str, known: Patterns) -> re.Match[str] | None:
    """Where the line compares two words, if it does."""
    return next((hit for pattern in known.compared if (hit := pattern.search(line))), None)


def _read(line: str, now: Splat, known: Patterns) -> Splat:
    """What one line adds."""
    machine = next((name for sign, name in known.signs if sign in line), "")
    now = replace(now, machine=now.machine or machine)
    if hit := RELEASE.search(line):
        now = replace(now, release=now.release or hit[1])
    if hit := CASE.search(line):
        now = replace(now, what=hit[1])
    if (hit := PLACE.search(line)) and now.what and now.function is None and now.ip is None:
        now = _placed(hit, now)
    for hit in BYTES.finditer(line):
        word = _word(hit[2])
        now = replace(now, actual=word) if hit[1] == "actual" else replace(now, expected=word)
    if hit := DOING.search(line):
        now = replace(now, phase=PHASES[hit[0]])
    if hit := FLAGS.search(line):
        now = replace(now, flags=int(hit[1], 16))
    own = any(sign in line for sign in OWN)
    if own and (hit := _comparison(line, known)):
        now = _compared(hit, now)
    for pattern, meaning in known.remarks if own else ():
        if hit := re.search(pattern, line):
            now = replace(now, remarks=(*now.remarks, (hit[0], meaning)))
    return now


def _placed(hit: re.Match[str], now: Splat) -> Splat:
    address = hit[6] or hit[1]
    ip = int(address, 16) if re.fullmatch(f"{HEX}+", address) else None  # "____ptrval____" is no address
    if hit[2] is None:
        return replace(now, ip=ip)
    return replace(now, ip=ip, function=hit[2], offset=int(hit[3], 16), size=int(hit[4], 16), module=hit[5])


def _compared(hit: re.Match[str], now: Splat) -> Splat:
    """A line that compares: what the kernel wanted and what it found; the address is hashed in older kernels."""
    expected, found = hit["expected"], hit["found"]
    place = hit["place"] if re.fullmatch(f"0x{HEX}+", hit["place"]) else ""
    return replace(now, word_va=int(place, 16) if place else None, found=int(found, 16),
                   expected=int(expected, 16) if re.fullmatch(f"{HEX}+", expected) else None)  # fmt: skip


def _word(text: str) -> int:
    """A word printed byte by byte, where older kernels extend the sign of each: `ffffffe9:7b`."""
    return int.from_bytes(bytes(int(part[-2:], 16) for part in text.split(":")[:4]), "little")
