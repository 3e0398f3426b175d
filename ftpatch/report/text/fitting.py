"""Text that keeps to the columns of a terminal: what is too long is put on as many lines as it needs.

In tables a name that is longer than a line loses its middle; figures are never cut, and elsewhere nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ftpatch.report import Document

MIN_ROOM = 8  # characters that a text gets on the narrowest terminal
CUT = "…"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # our own: names have none
HANGING = re.compile(r"  (?! ).{10} (?! )| *")  # the key of a line, or what it is indented by


def fitted(text: str, used: int, document: Document) -> str:
    """A text behind `used` characters of a row: more lines are indented by as many. As it is where nothing is cut."""
    room = max(document.width - used, MIN_ROOM)
    if not document.fitted or (text.isascii() and len(text) <= room):
        return text
    return f"\n{'':<{used}}".join(_lines([cut(word, room) for word in text.split(" ")], room))


def kept_to(width: int, pieces: Iterator[str]) -> Iterator[str]:
    """The pieces of a report, whole lines each, with no line wider than the terminal where it has spaces."""
    for piece in pieces:
        if len(piece) <= width:
            yield piece
        else:
            yield "\n".join(_wrapped(line, width) for line in piece.split("\n"))


def _wrapped(line: str, width: int) -> str:
    """One line, or several, those behind the first indented as its text is."""
    if cells(line) <= width:
        return line
    start = HANGING.match(line)
    used = min(start.end() if start else 0, width // 2)
    words = line[used:].split(" ")
    return line[:used] + f"\n{'':<{used}}".join(_lines(words, max(width - used, MIN_ROOM)))


def cut(name: str, room: int) -> str:
    """A name without its middle, where it is wider than `room`: beginnings and endings tell names apart."""
    if cells(name) <= room:
        return name
    name = f"{name[:room]}{name[-room:]}" if len(name) > 2 * room else name  # names can have any length
    head, tail = (len(name) + 1) // 2, len(name) // 2
    while cells(name[:head]) + cells(name[len(name) - tail :]) >= room and head + tail > 1:
        head, tail = (head - 1, tail) if head > tail else (head, tail - 1)
    return name[:head] + CUT + name[len(name) - tail :]


def cells(text: str) -> int:
    """How many columns of a terminal a text takes: some characters take two, or none."""
    text = ESCAPES.sub("", text) if "\x1b" in text else text
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # no text of a kernel's own needs it

    return cell_len(text)


def _lines(words: list[str], room: int) -> Iterator[str]:
    """The words in lines of at most `room` columns, as far as each fits into one."""
    line = ""
    for i, word in enumerate(words):
        if i and cells(line) + 1 + cells(word) > room:
            yield line.rstrip()
            line = word
        else:
            line = f"{line} {word}" if i else word
    yield line
