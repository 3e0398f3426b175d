"""What one line of a log adds to the messages that are being read: the parts of a message, wherever they stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ftpatch.explanation.log_lines import LogLine, plain
from ftpatch.explanation.message import Patterns, Splat

HEX = "[0-9a-fA-F]"
HEAD = re.compile(r"-\[ ftrace bug \]-")
CASE = re.compile(r"ftrace (failed to modify|faulted on modifying|faulted on writing|faulted on unknown error)")
SYMBOL = rf"([\w.$]+)\+0x({HEX}+)/0x({HEX}+)(?: \[([\w-]+)[^\]]*\])?|0x({HEX}+)"
PLACE = re.compile(rf"\[<\(?(\w+)\)?>\] (?:{SYMBOL})")
# the kernel puts `(suspected corrupt symbol)` in place of a name that it cannot tell
BARE = re.compile(r"\[<\(?(\w+)\)?>\]\s*(?:\([a-z ]{1,64}\)\s*)?$")
NAMED = re.compile(rf"(?:^|[\s:])(?:{SYMBOL})\s*$")
BYTES = re.compile(rf"\b(actual|expected):\s+(\[FAULT\]|(?:{HEX}{{2,8}}:)+(?:{HEX}{{2,8}}\b)?)")
REST = re.compile(rf"({HEX}{{1,15}})\s*")
MORE = re.compile(rf"(?:^|[\s>])(:?(?:{HEX}{{2}}:)*{HEX}{{2}})\s*$")
PAIRS = re.compile(rf"expected \(({HEX}{{8}}) ({HEX}{{8}})\) but got \(({HEX}{{8}}) ({HEX}{{8}})\)")
FLAGS = re.compile(rf"ftrace record flags: ({HEX}+)")
COUNT = re.compile(r"\((\d{1,9})\)")
MAX_COUNT = (1 << 19) - 1  # of tracers, in the lowest bits of the flags
TRAMP = re.compile(rf"expected tramp: ({HEX}+)")
TRAMPS = re.compile(r"(?<!expected )tramp: (ERROR!|[^\s(]+(?: \[\w+\])? \([^\s()]+(?: \[\w+\])?\))")
WARNING = re.compile(r"WARNING:.{0,256} (ftrace_bug\+0x|at \S*kernel/trace/ftrace\.c:)")
TRACE = re.compile(r"Call [Tt]race:|\[ cut here \]|end trace ")
PHASES = {
    "Initializing ftrace call sites": "init",
    "Setting ftrace call site to NOP": "off",
    "Setting ftrace call site to call": "on",
    "Updating ftrace call site": "update",
}
DOING = re.compile("|".join(PHASES))
RELEASE = re.compile(r"\b(?:Not tainted|Tainted:[ A-Z]{1,64}?\(?)\s{0,9}(\d+\.\d+\S*)")
OWN = ("ftrace", "patch-site", "magic for stub")  # one of these is in every line of the machine's code
# The parts of a message in the order in which a kernel prints them.
STAGES = ("head", "what", "place", "actual", "expected", "phase", "flags", "users", "tramp")


@dataclass
class OpenMessage:
    """A message that is still being read."""

    splat: Splat
    seen: set[str]  # of STAGES
    traced: bool = False  # its warning or call trace has begun: what has the form of a place is none


def add_line(line: LogLine, messages: list[OpenMessage], known: Patterns) -> None:
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
        _set("flags", messages, flags=_whole(hit, line))
    _read_tracers(text, messages)
    if hit := TRAMP.search(text):
        _set("tramp", messages, tramp=_whole(hit, line))
    _read_surroundings(text, messages, known)


def _whole(hit: re.Match[str], line: LogLine) -> int:
    """A number at the end of a line, of which a terminal may have put some digits in the next line."""
    rest = REST.fullmatch(line.following) if not line.text[hit.end() :].strip() else None
    return int((hit[1] + (rest[1] if rest else ""))[-16:], 16)


def _read_tracers(text: str, messages: list[OpenMessage]) -> None:
    """How many tracers a record has, which its flags say as well, and their trampolines."""
    for message in messages[-2:]:
        flags = message.splat.flags
        if flags is None or "users" in message.seen or message.traced:
            continue
        if any(int(count) == flags & MAX_COUNT for count in COUNT.findall(text)):
            message.seen.add("users")
            tramps = tuple(hit[1] for hit in TRAMPS.finditer(text))[:8]
            message.splat = replace(message.splat, users=flags & MAX_COUNT, tramps=tramps)
            return


def _read_surroundings(text: str, messages: list[OpenMessage], known: Patterns) -> None:
    """The warning, the registers and the call trace around a message."""
    if "ftrace_bug" in text and WARNING.search(text):
        if not messages or messages[-1].splat.warned:
            messages.append(OpenMessage(Splat(), set()))
        messages[-1].splat = replace(messages[-1].splat, warned=True)
        messages[-1].traced = True
    if not messages:
        return
    last = messages[-1]
    last.traced = last.traced or bool(TRACE.search(text) and last.seen)
    if (hit := RELEASE.search(text)) and not last.splat.release:
        last.splat = replace(last.splat, release=hit[1])
    if not last.splat.machine and (machine := sign_of(text, known)):
        last.splat = replace(last.splat, machine=machine)


def _for_stage(stage: str, messages: list[OpenMessage]) -> OpenMessage:
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
        newest = OpenMessage(Splat(), set())
        messages.append(newest)
    newest.seen.add(stage)
    return newest


def _set(stage: str, messages: list[OpenMessage], **values: object) -> None:
    message = _for_stage(stage, messages)
    if stage == "what":
        message.traced = False  # old kernels print the warning first
    message.splat = replace(message.splat, **values)  # type: ignore[arg-type]


def _comparison(text: str, known: Patterns) -> re.Match[str] | None:
    """Where the line compares two words, if it does."""
    if "!=" not in text:
        return None
    return next((hit for pattern in known.compared if (hit := pattern.search(text))), None)


def _add_machine_line(
    comparison: re.Match[str] | None, remarks: list[tuple[str, str]], messages: list[OpenMessage]
) -> None:
    """What the machine's code says, which stands in front of the message: behind a whole one it begins another."""
    if not messages or "what" in messages[-1].seen:
        messages.append(OpenMessage(Splat(), set()))
    splat = messages[-1].splat
    if comparison:
        splat = _compared(comparison, splat)
    if pairs := next((hit for text, _ in remarks if (hit := PAIRS.search(text))), None):
        expected, behind, found, next_found = (int(word, 16) for word in pairs.groups())
        splat = replace(splat, pairs=(expected, behind, found, next_found))
    messages[-1].splat = replace(splat, remarks=(*splat.remarks, *remarks)[:16])


def _read_place(line: LogLine, messages: list[OpenMessage]) -> None:
    """The site's address and name, of the line behind the case, or behind it in the same line."""
    waiting = [one for one in messages[-3:] if "what" in one.seen and "place" not in one.seen and not one.traced]
    if not waiting:
        return
    hit = PLACE.search(line.text)
    if hit is None and "[<" in line.text:  # a terminal may have put the rest of the name in the next line
        hit = PLACE.search(line.text.rstrip() + line.following)
        hit = hit if hit and hit.start() < len(line.text) else None
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


def _add_bytes(hit: re.Match[str], line: LogLine, messages: list[OpenMessage]) -> None:
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


def sign_of(text: str, known: Patterns) -> str:
    """The machine that a line is a sign of; "" where it is none."""
    return next((name for needle, sign, name in known.signs if needle in text and sign.search(text)), "")
