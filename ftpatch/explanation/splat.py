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

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ftpatch.arch import architectures
from ftpatch.arch.site_bytes import MACHINES
from ftpatch.errors import InputError
from ftpatch.explanation.log_lines import LogLine, lines_of, plain

MAX_SPLAT = 64 << 20  # bytes of a log that are read
MAX_MESSAGES = 256  # of one log that are taken apart
HEX = "[0-9a-fA-F]"
HEAD = re.compile(r"-\[ ftrace bug \]-")
CASE = re.compile(r"ftrace (failed to modify|faulted on modifying|faulted on writing|faulted on unknown error)")
SYMBOL = rf"([\w.$]+)\+0x({HEX}+)/0x({HEX}+)(?: \[([\w-]+)[^\]]*\])?|0x({HEX}+)"
PLACE = re.compile(rf"\[<\(?(\w+)\)?>\] (?:{SYMBOL})")
BARE, NAMED = re.compile(r"\[<\(?(\w+)\)?>\]\s*$"), re.compile(rf"(?:^|[\s:])(?:{SYMBOL})\s*$")
BYTES = re.compile(rf"\b(actual|expected):\s+(\[FAULT\]|(?:{HEX}{{2,8}}:)+(?:{HEX}{{2,8}}\b)?)")
MORE = re.compile(rf"(?:^|[\s>])(:?(?:{HEX}{{2}}:)*{HEX}{{2}})\s*$")
FLAGS = re.compile(rf"ftrace record flags: ({HEX}+)")
COUNT = re.compile(r"(?:^|[\s>:])\((\d{1,18})\)(?:\s|$)")
TRAMP = re.compile(rf"expected tramp: ({HEX}+)")
TRAMPS = re.compile(r"tramp: (ERROR!|[^\s(]+(?: \[\w+\])? \([^\s()]+(?: \[\w+\])?\))")
WARNING = re.compile(r"WARNING:.* (ftrace_bug\+0x|at \S*kernel/trace/ftrace\.c:)")
TRACE = re.compile(r"Call [Tt]race:|\[ cut here \]|end trace ")
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
# Lines of machines whose files are not read. Source: arch/riscv/kernel/ftrace.c ftrace_check_current_call(),
# arch/loongarch/kernel/ftrace_dyn.c ftrace_modify_code(), arch/powerpc/kernel/trace/ftrace.c (5.11).
OTHERS = (
    (r"expected \([0-9a-f]{8} [0-9a-f]{8}\) but got \([0-9a-f]{8} [0-9a-f]{8}\)", "the two words of the site are not "
     "those that ftrace left there"),
    (r"ftrace_modify_code:\d+ Error patching instruction", "the text could not be written"),
)  # fmt: skip
# The parts of a message in the order in which a kernel prints them.
STAGES = ("head", "what", "place", "actual", "expected", "phase", "flags", "users", "tramp")


@dataclass(frozen=True)
class Patterns:
    """What to look for in a line, of all machines together, as the register has them now."""

    wanted: re.Pattern[str]  # what a line has that may matter
    signs: tuple[tuple[re.Pattern[str], str], ...]  # (what only logs of a machine have, its name)
    compared: tuple[re.Pattern[str], ...]  # lines that compare two words; groups place, expected, found
    remarks: tuple[tuple[str, str], ...]  # (pattern, what it means)


def patterns() -> Patterns:
    """The patterns of every machine, in the register's order."""
    logs = [(arch.name, arch.log) for arch in architectures()]
    signs = [(sign, machine.name) for machine in MACHINES for sign in machine.signs]
    signs += [(re.escape(sign), name) for name, log in logs for sign in log.signs]
    wanted = [r"ftrace", r"actual:", r"expected", r"\[<", r"patch-site", r"for stub", r"replaced", r"Part\d",
              r"(?:Not t|T)ainted", r"Call [Tt]race", r"cut here", r"tramp:", r"\(\d+\)\s*$"]  # fmt: skip
    return Patterns(
        re.compile("|".join([*wanted, *(sign for sign, _ in signs)]), re.MULTILINE),
        tuple((re.compile(sign), name) for sign, name in signs),
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
    remarks: tuple[tuple[str, str], ...] = ()  # (what the machine's code said, what that means)
    users: int | None = None  # how many tracers the record says it has
    tramp: int | None = None  # where the kernel wanted the call to lead
    tramps: tuple[str, ...] = ()  # trampolines of these tracers: `ftrace_regs_caller+0x0/0x98 (handler+0x0/0x1d0)`
    unreadable: bool = False  # the kernel could not even read the bytes
    warned: bool = False  # the kernel's warning of it is in the log
    mixed: bool = False  # its lines and those of another message could not be told apart for certain


@dataclass
class _Open:
    """A message that is still being read."""

    splat: Splat
    seen: set[str]  # of STAGES
    traced: bool = False  # its warning or call trace has begun: what has the form of a place is none


def parse(text: str) -> list[Splat]:
    """Every message in a log, in its order. Raises InputError where there is none."""
    messages, _ = parse_log(text)
    return messages


def parse_log(text: str) -> tuple[list[Splat], tuple[str, ...]]:
    """As `parse`, and what is to be said of the log as a whole."""
    known = patterns()
    lines, more = lines_of(text[:MAX_SPLAT], known.wanted)
    splats = _messages(lines, known)
    if _parts(splats) < len(STAGES) and (backwards := _messages(lines[::-1], known)) and (
        _parts(backwards) > _parts(splats)
    ):  # fmt: skip
        splats = backwards  # the newest line first, and no time in them
    if not splats:
        n = text.count("\n") + bool(text and not text.endswith("\n"))
        raise InputError("no ftrace message in this text", found=f"{n} lines",
                         expected="`ftrace bug` or another message of ftrace")  # fmt: skip
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
    return next((name for line in lines for sign, name in known.signs if sign.search(line.text)), "")


def _messages(lines: Sequence[LogLine], known: Patterns) -> list[Splat]:
    """The messages of lines in the kernel's order."""
    contexts: dict[str, list[_Open]] = {}
    order: list[_Open] = []
    for line in lines:
        messages = contexts.setdefault(line.caller, [])
        before = len(messages)
        _read(line, messages, known)
        order += messages[before:]
        if len(order) > MAX_MESSAGES + 1:
            order = order[: MAX_MESSAGES + 1]
            break
    return [message.splat for message in order
            if message.splat.remarks or message.splat.found is not None or message.splat.warned
            or message.seen - {"actual", "expected", "users"}]  # fmt: skip


# -- one line ------------------------------------------------------------------------------------------------------


def _read(line: LogLine, messages: list[_Open], known: Patterns) -> None:
    """Add what a line says to the message that it belongs to."""
    text = line.text
    own = any(sign in text for sign in OWN)
    comparison = _comparison(text, known) if own else None
    remarks = [(hit[0].strip(), meaning) for pattern, meaning in (known.remarks if own or "but got" in text else ())
               if (hit := re.search(pattern, text))]  # fmt: skip
    if comparison or remarks:  # the machine's line comes before its bug's head
        _add_machine_line(comparison, remarks, messages)
    if HEAD.search(text):
        _for_stage("head", messages)
    if hit := CASE.search(text):
        _set("what", messages, what=hit[1])
    _read_place(line, messages)
    for hit in BYTES.finditer(text) if not messages or not messages[-1].traced else ():
        _add_bytes(hit, line, messages)
    if hit := DOING.search(text):
        _set("phase", messages, phase=PHASES[hit[0]])
    if hit := FLAGS.search(text):
        _set("flags", messages, flags=int(hit[1][-16:], 16))
    if messages and not messages[-1].traced:
        if "flags" in messages[-1].seen and (hit := COUNT.search(text)):
            _set("users", messages, users=int(hit[1]))
        if "expected tramp" not in text and (tramps := tuple(hit[1] for hit in TRAMPS.finditer(text))):
            messages[-1].splat = replace(messages[-1].splat, tramps=(*messages[-1].splat.tramps, *tramps)[:8])
    if hit := TRAMP.search(text):
        _set("tramp", messages, tramp=int(hit[1][-16:], 16))
    _read_surroundings(text, messages, known)


def _read_surroundings(text: str, messages: list[_Open], known: Patterns) -> None:
    """The warning, the registers and the call trace around a message."""
    if (hit := WARNING.search(text)) and "ftrace_bug" in text:
        if not messages or messages[-1].splat.warned:
            messages.append(_Open(Splat(), set()))
        messages[-1].splat = replace(messages[-1].splat, warned=True)
        messages[-1].traced = True
    if not messages:
        return
    last = messages[-1]
    last.traced = last.traced or bool(TRACE.search(text) and last.seen)
    if (hit := RELEASE.search(text)) and not last.splat.release:
        last.splat = replace(last.splat, release=hit[1])
    if not last.splat.machine and (machine := next((name for sign, name in known.signs if sign.search(text)), "")):
        last.splat = replace(last.splat, machine=machine)


def _for_stage(stage: str, messages: list[_Open]) -> _Open:
    """The message that a line of this stage belongs to: the newest, an older one that still waits for it, or a new."""
    newest, older = messages[-1] if messages else None, messages[-2] if len(messages) > 1 else None
    lacks = newest is not None and stage not in newest.seen
    begins = stage in ("head", "what")
    if lacks and begins and newest is not None:  # what has a later part begins with nothing any more
        lacks = not newest.seen.intersection(STAGES[STAGES.index(stage) + 1 :])
    waits_for = "head" if begins else "what"
    waits = older is not None and waits_for in older.seen and stage not in older.seen and not older.traced
    if older is not None and newest is not None and waits and stage != "head" and (
        not lacks or waits_for not in newest.seen
    ):  # fmt: skip
        for message in (older, newest):
            message.splat = replace(message.splat, mixed=True)
        older.seen.add(stage)
        return older
    if newest is None or not lacks:
        newest = _Open(Splat(), set())
        messages.append(newest)
    newest.seen.add(stage)
    return newest


def _set(stage: str, messages: list[_Open], **values: object) -> None:
    message = _for_stage(stage, messages)
    if stage == "what":
        message.traced = False  # old kernels print the warning first
    message.splat = replace(message.splat, **values)  # type: ignore[arg-type]


def _comparison(text: str, known: Patterns) -> re.Match[str] | None:
    """Where the line compares two words, if it does."""
    return next((hit for pattern in known.compared if (hit := pattern.search(text))), None)


def _add_machine_line(comparison: re.Match[str] | None, remarks: list[tuple[str, str]], messages: list[_Open]) -> None:
    """What the machine's code says, which stands in front of the message: behind a whole one it begins another."""
    if not messages or "what" in messages[-1].seen:
        messages.append(_Open(Splat(), set()))
    splat = messages[-1].splat
    if comparison:
        splat = _compared(comparison, splat)
    messages[-1].splat = replace(splat, remarks=(*splat.remarks, *remarks)[:16])


def _read_place(line: LogLine, messages: list[_Open]) -> None:
    """The site's address and name, of the line behind the case, or behind it in the same line."""
    waiting = [one for one in messages[-3:] if "what" in one.seen and "place" not in one.seen and not one.traced]
    if not waiting:
        return
    hit = PLACE.search(line.text)
    if hit:
        message = _for_stage("place", messages)
        message.splat = _placed(hit[1], hit.groups()[1:], message.splat)
    elif hit := BARE.search(line.text):
        name = NAMED.search(line.following)
        message = _for_stage("place", messages)
        message.splat = _placed(hit[1], name.groups() if name else (None,) * 5, message.splat)


def _placed(address: str, symbol: Sequence[str | None], splat: Splat) -> Splat:
    """symbol: name, offset, size, module, or an address in place of all of them."""
    name, offset, size, module, bare = symbol
    number = bare or address
    ip = int(number[-16:], 16) if re.fullmatch(f"{HEX}+", number) else None  # "____ptrval____" is no address
    if name is None or offset is None or size is None:
        return replace(splat, ip=ip)
    return replace(splat, ip=ip, function=name, offset=int(offset[-16:], 16), size=int(size[-16:], 16), module=module)


def _add_bytes(hit: re.Match[str], line: LogLine, messages: list[_Open]) -> None:
    """` actual:` or ` expected:` and the bytes behind it, of which a terminal may have put some in the next line."""
    message = _for_stage(hit[1], messages)
    if hit[2] == "[FAULT]":
        message.splat = replace(message.splat, unreadable=True)
        return
    text = hit[2]
    if (not line.text[hit.end() :].strip() and len(text.strip(":").split(":")) < 4) or text.endswith(":"):
        more = MORE.search(plain(line.following))
        text += more[1] if more else ""
    # older kernels extend the sign of each byte: `ffffffe9:7b`
    code = bytes(int(part[-2:], 16) for part in text.split(":") if part)[:16]
    message.splat = replace(message.splat, **{"actual" if hit[1] == "actual" else "wanted": code})  # type: ignore[arg-type]


def _compared(hit: re.Match[str], splat: Splat) -> Splat:
    """A line that compares: what the kernel wanted and what it found; the address is hashed in older kernels."""
    expected, found = hit["expected"], hit["found"]
    place = hit["place"] if re.fullmatch(f"0x{HEX}+", hit["place"]) else ""
    return replace(splat, word_va=int(place, 16) if place else None, found=int(found[-16:], 16),
                   expected=int(expected[-16:], 16) if re.fullmatch(f"{HEX}+", expected) else None)  # fmt: skip
