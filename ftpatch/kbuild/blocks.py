"""Blocks of lines that are ours in a makefile of others: put in, found again, and taken out byte for byte.

    # >>> ftpatch kbuild 8f2a61c09b3d
    …
    # <<< ftpatch kbuild

The number is the begin of the lines' SHA-256: a block that somebody changed is told from one that an earlier release
wrote. A word behind it says what taking the block out leaves: `file`, that the whole file is ours; `open`, that the
line in front of it had no end.
"""

from __future__ import annotations

import hashlib
import re

from ftpatch.errors import PlanError

BEGIN, END = b"# >>> ftpatch kbuild", b"# <<< ftpatch kbuild"
WHOLE, OPEN = b"file", b"open"
DIGITS = 12  # hex digits of the checksum
BLOCK = re.compile(
    rb"^# >>> ftpatch kbuild ([0-9a-f]{12})(?: (file|open))?\n((?s:.*?))^# <<< ftpatch kbuild\n", re.MULTILINE
)


def block(lines: bytes, word: bytes = b"") -> bytes:
    """A block of lines, each with its end."""
    head = BEGIN + b" " + _checksum(lines) + (b" " + word if word else b"")
    return head + b"\n" + lines + END + b"\n"


def _checksum(lines: bytes) -> bytes:
    return hashlib.sha256(lines).hexdigest()[:DIGITS].encode()


def appended(content: bytes, lines: bytes) -> bytes:
    """The content with a block at its end."""
    is_open = bool(content) and not content.endswith(b"\n")
    return content + (b"\n" if is_open else b"") + block(lines, OPEN if is_open else b"")


def without_blocks(content: bytes, where: str) -> bytes | None:
    """The content as it was before any block was put in; None: there was no file.

    Raises PlanError where a block was changed since, or has lost one of its ends.
    """
    kept, at = b"", 0
    for match in BLOCK.finditer(content):
        checksum, word, lines = match.groups()
        if checksum != _checksum(lines):
            raise PlanError(
                "the lines of ftpatch were changed by hand", where, found=f"a block at byte {match.start()}",
                todo=f"undo that, or take all from {BEGIN.decode()!r} to {END.decode()!r} out by hand",
            )  # fmt: skip
        if word == WHOLE and match.span() == (0, len(content)):
            return None
        before = content[at : match.start()]
        kept += before.removesuffix(b"\n") if word == OPEN else before
        at = match.end()
    kept += content[at:]
    if word := next((mark for mark in (BEGIN, END) if re.search(b"^" + re.escape(mark), kept, re.MULTILINE)), b""):
        raise PlanError("the lines of ftpatch have lost one of their ends", where, found=word.decode(),
                        todo="take them out by hand")  # fmt: skip
    return kept
