"""The lines of a log that may belong to a message of ftrace, in the order in which the kernel printed them.

    dmesg  [    0.000000][    T0] ftrace failed to modify           journalctl  Aug 05 10:11:12 host kernel: ftrace …
    netconsole  6,1234,5678,-,caller=T1;ftrace …                    pstore      Panic#2 Part1, the last part first

What stands in front of a line is not taken off: the messages are looked for in it. Needed from there are only who
printed it (the caller), and what tells the order: a sequence number, a time, a part of a dump. Lines are moved where
these say so: lines of a network come in any order, and dumps, like `journalctl -r`, begin with what was last.
Source: Documentation/networking/netconsole.rst, fs/pstore/platform.c pstore_dump(), kernel/printk/printk.c.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ftpatch.document.json_input import NotJson, parse

MAX_LINE = 1024  # characters of a line that are looked at, from the first that may matter on
MAX_LINES = 50_000  # lines that may matter, of one log
MAX_TEXT = 8 << 20  # characters of all of them
SMALL = 1 << 20  # characters of a text that is searched whole
NEAR_BEFORE, NEAR_BEHIND = 1 << 14, 1 << 15  # characters around a line of ftrace in which its message's others are
MAX_START = 1 << 16  # characters in which the start of a line is looked for
BEFORE = 512  # characters in front of it: time, host, caller
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|#033\[[0-9;]*m|\^\[\[[0-9;]*m")
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
COUNT = re.compile(r"\(\d{1,9}\)")
CALLER = re.compile(r"[\[,(](?:caller=)?\s*([TC]\d{1,9})[\]),;]")
SEQUENCE = re.compile(r"^\D{0,64}?\d{1,3},(\d{1,18}),\d{1,18},[-c+]")  # level, sequence, microseconds, flag
TIME = re.compile(r"\[\s*(\d{1,9}\.\d{6})\]")
PART = re.compile(r"\b(?:Panic|Oops|Emergency|Restart|Reboot|Halt|Poweroff|Shutdown|Unknown|Oops\W*Panic)#(\d{1,6}) "
                  r"Part(\d{1,6})\b")  # fmt: skip
APART = {"sequence": 64.0, "time": 0.5}  # lines that are farther out of order are of another boot
JOURNAL = '"MESSAGE"'


@dataclass(frozen=True)
class LogLine:
    """One line that may matter."""

    text: str  # without escapes and control characters
    following: str  # the line behind it in the log: a terminal may have wrapped this one
    caller: str  # `T12`: a task, `C3`: a processor; "" where the line does not tell
    order: tuple[str, float] | None  # ("sequence" or "time", its number), where the line has one
    part: tuple[int, int] = (0, 0)  # of a dump: its number, and minus the part's: the greatest was printed first


def lines_of(text: str, wanted: Sequence[str], beside: Sequence[str]) -> tuple[list[LogLine], bool]:
    """The lines that have one of the texts, in the kernel's order, and whether there were more than MAX_LINES.

    beside: texts that matter near lines with a wanted one; so does a number in parentheses.
    """
    places: dict[int, int] = {}  # of each line: its start, and what was found first in it
    more = [_find(text, needle, places, 0, len(text)) for needle in wanted]
    for low, high in list(_around(sorted(places), len(text))):
        more += [_find(text, needle, places, low, high) for needle in beside]
        more.append(_find_counts(text, places, low, high))
    lines: list[LogLine] = []
    part, left = (0, 0), MAX_TEXT
    for start in sorted(places)[:MAX_LINES]:
        hit, end = places[start], text.find("\n", places[start])
        end = len(text) if end < 0 else end
        raw = text[max(start, hit - BEFORE) : min(end, hit + MAX_LINE)]
        left -= len(raw)
        if left < 0:
            more.append(True)
            break
        dump = PART.search(raw)
        if dump:
            part = int(dump[1]), -int(dump[2])
        after = text.find("\n", end + 1, end + 1 + MAX_LINE)
        following = text[end + 1 : after if after >= 0 else end + 1 + MAX_LINE]
        lines.append(replace(_line(raw, following), part=part))
    return _in_order(lines), any(more) or len(places) > MAX_LINES


def _around(starts: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """[first, end) of what is near these positions; all of a small text."""
    if size <= SMALL:
        yield 0, size
        return
    low, high = 0, 0
    for start in starts:
        if start - NEAR_BEFORE > high:
            if high:
                yield low, high
            low = max(0, start - NEAR_BEFORE)
        high = min(size, start + NEAR_BEHIND)
    if high:
        yield low, high


def _find(text: str, needle: str, places: dict[int, int], low: int, high: int) -> bool:
    """Put where lines with the needle start, and where in them it is, into `places`; whether there are too many."""
    at = text.find(needle, low, high)
    while at >= 0 and len(places) <= MAX_LINES:
        _add(text, at, places)
        at = text.find("\n", at, high)
        at = text.find(needle, at, high) if at >= 0 else -1
    return at >= 0


def _find_counts(text: str, places: dict[int, int], low: int, high: int) -> bool:
    """As `_find`, of lines with a number in parentheses: how many tracers a record has."""
    hit = COUNT.search(text, low, high)
    while hit and len(places) <= MAX_LINES:
        _add(text, hit.start(), places)
        end = text.find("\n", hit.end(), high)
        hit = COUNT.search(text, end, high) if end >= 0 else None
    return hit is not None


def _add(text: str, at: int, places: dict[int, int]) -> None:
    low = max(0, at - MAX_START)
    start = text.rfind("\n", low, at) + 1 or low
    places[start] = min(at, places.get(start, at))


def _line(raw: str, following: str) -> LogLine:
    """One line of the log; following: the next."""
    text = plain(raw)
    caller, sequence, time = CALLER.search(text), SEQUENCE.search(text), TIME.search(text)
    order = ("sequence", float(sequence[1])) if sequence else ("time", float(time[1])) if time else None
    return LogLine(text, plain(following), caller[1] if caller else "", order)


def plain(raw: str) -> str:
    """A line without colours, control characters, and what a journal or a web page made of it."""
    if not raw.isascii():
        raw = _decoded(raw)
    if JOURNAL in raw:
        raw = _journal_message(raw)
    if "\x1b" in raw or "#033[" in raw or "^[[" in raw:
        raw = ESCAPES.sub("", raw)
    if "&lt;" in raw or "&gt;" in raw:
        raw = html.unescape(raw)
    return CONTROLS.sub("", raw)


def _decoded(raw: str) -> str:
    """A line of UTF-8 that was read as if each byte were a character, which takes less memory; else as it is."""
    try:
        return raw.encode("latin-1").decode()
    except UnicodeError:
        return raw


def _journal_message(raw: str) -> str:
    """The message of `journalctl -o json`, where it is a string or, with control characters in it, bytes."""
    bytes_of = re.search(r'"MESSAGE"\s{0,9}:\s{0,9}\[([\d,\s]+)\]', raw)
    if bytes_of:
        numbers = [int(number) for number in re.findall(r"\d{1,3}", bytes_of[1])]
        return bytes(number & 0xFF for number in numbers).decode("utf-8", "replace")
    text = re.search(r'"MESSAGE"\s*:\s*("(?:[^"\\]|\\.)*")', raw)
    try:
        return str(parse(text[1].encode(), "the log")) if text else raw
    except NotJson:  # a string that no journal wrote is looked at as it is
        return raw


def _in_order(lines: list[LogLine]) -> list[LogLine]:
    """The lines as the kernel printed them. Lines that tell no order stay behind the one in front of them."""
    if any(line.part != (0, 0) for line in lines):
        lines.sort(key=lambda line: line.part)
    steps = [later - earlier for earlier, later in _steps(lines)]
    if sum(step < 0 for step in steps) > sum(step > 0 for step in steps) + 1 and not any(
        line.part[0] for line in lines
    ):
        lines.reverse()  # the newest first
    return [line for boot in _boots(lines) for line in _sorted(boot)]


def _steps(lines: Sequence[LogLine]) -> Iterator[tuple[float, float]]:
    """The numbers of lines that follow one another, where both tell the order in the same way."""
    before: tuple[str, float] | None = None
    for line in lines:
        if line.order and before and line.order[0] == before[0]:
            yield before[1], line.order[1]
        before = line.order or before


def _boots(lines: Sequence[LogLine]) -> Iterator[list[LogLine]]:
    """Runs of lines whose numbers are at most a little out of order: a new boot counts from 0 again, and each dump
    repeats what the one before had."""
    boot: list[LogLine] = []
    highest: tuple[str, float] | None = None
    for line in lines:
        early = line.order and highest and (
            line.order[0] != highest[0] or line.order[1] < highest[1] - APART[highest[0]]
        )  # fmt: skip
        if early or (boot and boot[-1].part[0] != line.part[0]):
            yield boot
            boot, highest = [], None
        boot.append(line)
        if line.order and (highest is None or line.order[1] > highest[1]):
            highest = line.order
    yield boot


def _sorted(boot: list[LogLine]) -> list[LogLine]:
    """Lines of one boot by their numbers."""
    number, keyed = float("-inf"), []
    for line in boot:
        number = line.order[1] if line.order else number
        keyed.append((number, line))
    return [line for _, line in sorted(keyed, key=lambda pair: pair[0])]
