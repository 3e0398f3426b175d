"""Text as roff: the macros of man(7), with every character that roff would obey escaped."""

from __future__ import annotations

import re
import textwrap

# What is not ASCII has a name in roff, and so have characters that typesetting would replace.
CHARACTERS = {
    "\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq",
    "–": r"\(en", "—": r"\(em", "…": r"...", "×": r"\(mu", "−": r"\-", "µ": r"\(mc", "±": r"\(+-", "→": r"\(->",
}  # fmt: skip
VALUE = re.compile(r"(?<![\w-])[A-Z][A-Z0-9]+(?:_[A-Z]+)*(?![\w-])")  # FILE, as help texts call a value
REFERENCE = re.compile(r"\b([a-z][\w.+-]*)\((\d)\)")  # ftpatch.toml(5)
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
CODE = re.compile(r"`([^`]+)`")
MARKS = re.compile("|".join(f"(?:{pattern.pattern})" for pattern in (CODE, VALUE, REFERENCE, OPTION)))


def escaped(text: str) -> str:
    """Characters as they are."""
    for char in text:
        assert char in CHARACTERS or char.isascii(), f"tools/manpages/roff.py: no name of roff's for {char!r}"
    return "".join(CHARACTERS.get(char, char) for char in text)


def bold(text: str) -> str:
    return rf"\fB{escaped(text)}\fP"


def marked(text: str) -> str:
    """A text of one line: options and other pages bold, values in italics."""
    pieces, at = [], 0
    for match in MARKS.finditer(text):
        pieces.append(escaped(text[at : match.start()]))
        word, at = match[0], match.end()
        if reference := REFERENCE.fullmatch(word):
            pieces.append(rf"{bold(reference[1])}({reference[2]})")
        elif code := CODE.fullmatch(word):
            pieces.append(bold(code[1]))
        else:
            pieces.append(bold(word) if word.startswith("-") else rf"\fI{escaped(word)}\fP")
    return "".join([*pieces, escaped(text[at:])])


def wrapped(text: str) -> str:
    """A text as lines of at most 80 characters, none of which begins with a request. A sentence begins a line: so roff
    sees where one ends, and sets the same space behind each."""
    sentences = re.split(r"(?<=[.!?]) (?=[A-Z-])", " ".join(text.split()))
    lines = [line for sentence in sentences for line in
             textwrap.wrap(marked(sentence), 78, break_long_words=False, break_on_hyphens=False)]  # fmt: skip
    return "".join(f"{guarded(line)}\n" for line in lines)


def section(title: str) -> str:
    return f".SH {escaped(title)}\n"


def paragraphs(text: str) -> str:
    """Text with empty lines between its paragraphs."""
    return ".PP\n".join(wrapped(part) for part in re.split(r"\n\s*\n", text.strip()))


def entry(tag: str, text: str) -> str:
    """One of a list of things with their meanings. tag: roff."""
    return f".TP\n{tag}\n{wrapped(text)}"


def commands(lines: list[str]) -> str:
    """Lines as they are typed."""
    return ".PP\n.RS 4\n.nf\n" + "".join(f"{guarded(escaped(line))}\n" for line in lines) + ".fi\n.RE\n"


def guarded(line: str) -> str:
    """A line of roff that does not begin with a request."""
    return rf"\&{line}" if line.startswith((".", "'")) else line
