"""Changes to what people write: settings, selectors, logs, assembly. Each language has words of its own.

A changed byte of a text is a misspelt word nine times of ten. Here a change puts a word of the language where another
was, repeats a piece until it nests deeper than a parser likes, makes a number longer than 64 bits, or puts in a
character that a terminal or a decoder minds.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from tools.fuzz.mutate import MAX_SIZE, plain

HOSTILE = (b"\0", b"\x1b[31m", b"\r", b"\x08", "\u202e".encode(), "\u2028".encode(), "\u2066".encode(), b"\xff\xfe",
           b"\xed\xa0\x80", "\U000e0041".encode(), b"\xc2\x85", b"\t", b"\n")  # fmt: skip
NUMBERS = (b"0", b"-1", b"1e999", b"9" * 25, b"0x" + b"f" * 40, b"18446744073709551616", b"9" * 5000, b"-0", b"1.5")
TIMES = (2, 3, 30, 300, 3000)
WORD = re.compile(rb"[\w.$@]+")
NUMBER = re.compile(rb"\d[\da-fA-Fx]*")


def language(*words: bytes) -> Callable[[bytes, random.Random], bytes]:
    """A function that changes texts of a language with these words."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        raw = bytearray(data or b"\n")
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            rng.choice(_CHANGES)(rng, raw, words)
        return bytes(raw[:MAX_SIZE])

    return mutate


def _spot(rng: random.Random, raw: bytearray, kind: re.Pattern[bytes]) -> tuple[int, int]:
    """Where something of that kind stands; or an empty place anywhere."""
    hits = [match.span() for match in kind.finditer(raw)]
    at = rng.randrange(len(raw) + 1)
    return rng.choice(hits) if hits else (at, at)


def _word(rng: random.Random, raw: bytearray, words: tuple[bytes, ...]) -> None:
    start, end = _spot(rng, raw, WORD)
    raw[start : start if rng.random() < 0.3 else end] = rng.choice(words)


def _number(rng: random.Random, raw: bytearray, words: tuple[bytes, ...]) -> None:
    start, end = _spot(rng, raw, NUMBER)
    raw[start:end] = rng.choice(NUMBERS)


def _hostile(rng: random.Random, raw: bytearray, words: tuple[bytes, ...]) -> None:
    at = rng.randrange(len(raw) + 1)
    raw[at:at] = rng.choice(HOSTILE)


def _line(rng: random.Random, raw: bytearray, words: tuple[bytes, ...]) -> None:
    """A line doubled, left out, cut, joined with the next, or moved."""
    lines = raw.split(b"\n")
    at, what = rng.randrange(len(lines)), rng.randrange(5)
    if what == 0:
        lines.insert(rng.randrange(len(lines)), lines[at])
    elif what == 1:
        del lines[at]
    elif what == 2:
        lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
    elif what == 3:
        lines[at : at + 2] = [bytearray().join(lines[at : at + 2])]
    else:
        lines.insert(rng.randrange(len(lines)), lines.pop(at))
    raw[:] = b"\n".join(lines)


def _repeated(rng: random.Random, raw: bytearray, words: tuple[bytes, ...]) -> None:
    """A word or a piece again and again: nesting, long lines, long lists."""
    at = rng.randrange(len(raw) + 1)
    piece = rng.choice(words) if rng.random() < 0.7 else bytes(raw[at : at + rng.randrange(1, 24)])
    raw[at:at] = piece * rng.choice(TIMES)


def _bytes(rng: random.Random, raw: bytearray, words: tuple[bytes, ...]) -> None:
    raw[:] = plain(bytes(raw), rng)


_CHANGES = (_word, _word, _word, _number, _hostile, _line, _line, _repeated, _bytes)
