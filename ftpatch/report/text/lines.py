"""What all text reports are made of: a key in front, a value behind it; how a file is named; how numbers are said."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ftpatch.errors import printable

if TYPE_CHECKING:
    from ftpatch.document.types import ErrorRow, ImageObject
    from ftpatch.report import Document

WIDTH = 100
Style = tuple[str, str]  # what is written in front of and behind a name
BOLD, PLAIN = ("\x1b[1m", "\x1b[0m"), ("", "")


def style_of(document: Document) -> Style:
    """How the names of files are set off: bold on a terminal."""
    return BOLD if document.colored else PLAIN


def head(image: ImageObject, style: Style) -> Iterator[str]:
    """The first line of one file."""
    yield f"{style[0]}{printable(image['file'])}{style[1]}: {image['arch']} {image['kind']}"
    yield f", build-id {image['build_id']}\n" if image["build_id"] else "\n"


def line(key: str, text: str) -> str:
    return f"  {key:<10} {text}\n"


def wrapped(key: str, text: str) -> Iterator[str]:
    """A long text behind its key."""
    for i, part in enumerate(textwrap.wrap(printable(text), WIDTH)):
        yield line("" if i else key, part)


def bad_file(error: ErrorRow) -> str:
    return line("bad file", error["message"])


def number(n: int, what: str) -> str:
    """`1 finding`, `2 findings`."""
    return f"{n} {what}{'s' * (n != 1)}"


def mib(n: int) -> str:
    return f"{n / (1 << 20):.1f} MiB"


def or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def below(top: str, file: str) -> str:
    """The name of a file in its tree."""
    return file.removeprefix(os.path.join(top, "")) or file


def each_file(document: Document, body: Callable[[ImageObject], Iterator[str]]) -> Iterator[str]:
    """The files that were named one by one, each under its head."""
    for i, image in enumerate(document.alone()):
        yield "\n" if i else ""
        yield from head(image, style_of(document))
        yield from body(image)
