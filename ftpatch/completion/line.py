"""The words of a command line, and which of them is completed.

zsh and fish hand over words. bash hands over the line itself: its own words are cut at `=`, `:` and `@`, which stand in
selectors, reports and pairs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SPACE, QUOTES = " \t\n", "'\""
IN_DOUBLE = '$`"\\\n'  # what a backslash takes its meaning from between double quotes
BEGINNINGS = "@$"  # at these a word of bash's begins, at other breaks it begins behind them
REDIRECTION = re.compile(r"\d*(?:[<>]|&>)[<>&|]*")


@dataclass(frozen=True)
class Line:
    """A command line without its first word, the program."""

    before: tuple[str, ...]  # whole words in front of the completed one, without quotes
    current: str  # the completed word, up to the cursor
    after: tuple[str, ...] = ()  # whole words behind it
    quote: str = ""  # the quote in which the cursor is: ', " or none
    kept: int = 0  # characters of `current` in front of what the shell replaces


@dataclass
class _Word:
    """One word, while it is read."""

    text: str = ""  # without quotes
    kept: int = 0  # characters of it up to the last break or quote
    quote: str = ""  # the one that is open
    start: int = 0  # in the line


def read_line(line: str, point: int, breaks: str) -> Line:
    """The words of a line of bash. point: the cursor; breaks: characters at which bash cuts words."""
    before = _words(line[:point], breaks, None)
    is_open = bool(before) and (bool(before[-1].quote) or line[:point][-1:] not in SPACE or _is_escaped(line[:point]))
    current = before.pop() if is_open else _Word(start=point)
    after = _words(line[point:], breaks, _Word(quote=current.quote))[1:]  # without the rest of the completed word
    lead, rest = _commanded(line, before), _commanded(line[point:], after)
    return Line(tuple(lead[1:]), current.text, tuple(rest), current.quote, current.kept)


def _is_escaped(text: str) -> bool:
    """Whether the last character, a space, stands behind a backslash."""
    slashes = len(text) - 1 - len(text[:-1].rstrip("\\"))
    return slashes % 2 == 1


def _words(line: str, breaks: str, word: _Word | None) -> list[_Word]:
    """All words of a line; in the last, a quote may be open. word: the one in which the line begins."""
    words = [word] if word else []
    at = 0
    while at < len(line):
        char = line[at]
        at += 1
        if word is None:
            if char in SPACE:
                continue
            word = _Word(start=at - 1)
            words.append(word)
        if word.quote:
            at = _quoted(word, line, at - 1)
        elif char in QUOTES:
            word.quote, word.kept = char, len(word.text)
        elif char == "\\":
            word.text += line[at : at + 1]
            at += 1
        elif char in SPACE:
            word = None
        else:
            if char in breaks:
                word.kept = len(word.text) + (char not in BEGINNINGS)
            word.text += char
    return words


def _quoted(word: _Word, line: str, at: int) -> int:
    """Read the character at `at`, between quotes; where the next one is."""
    char = line[at]
    if char == word.quote:
        word.quote = ""
    elif char == "\\" and word.quote == '"' and line[at + 1 : at + 2] and line[at + 1] in IN_DOUBLE:
        word.text += line[at + 1]
        return at + 2
    else:
        word.text += char
    return at + 1


def _commanded(line: str, words: list[_Word]) -> list[str]:
    """The words that the program gets: without those that send its output elsewhere."""
    texts, file_follows = [], False
    for word in words:
        redirection = REDIRECTION.match(line, word.start)
        if file_follows:
            file_follows = False
        elif redirection is None:
            texts.append(word.text)
        else:
            file_follows = redirection.end() - word.start == len(word.text)
    return texts
