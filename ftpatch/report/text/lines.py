"""What all text reports are made of: a key in front, a value behind it; how a file is named; how numbers are said."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.arch import shape_named
from ftpatch.errors import printable

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject, TreeObject
    from ftpatch.report import Document

WIDTH = 100  # characters of a text behind its key
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


def title(name: str, document: Document) -> str:
    """A name at the head of a paragraph: bold on a terminal."""
    return f"{BOLD}{printable(name)}{PLAIN}" if document.colored else printable(name)


def head(image: ImageObject, document: Document) -> str:
    """The first line of one file."""
    build = f", build-id {image['build_id']}" if image["build_id"] else ""
    return f"{title(image['file'], document)}: {image['arch']} {image['kind']}{build}\n"


def line(key: str, text: str) -> str:
    return f"  {key:<10} {text}\n"


def wrapped(key: str, text: str) -> Iterator[str]:
    """A long text behind its key."""
    for i, part in enumerate(textwrap.wrap(printable(text), WIDTH)):
        yield line("" if i else key, part)


def first_of(
    texts: Sequence[str], n_shown: int, indent: str, more: str = "more", n: int | None = None
) -> Iterator[str]:
    """The first texts, a line each, and how many more there are. n: of all, where `texts` does not have them all."""
    yield from (f"{indent}{text}\n" for text in texts[:n_shown])
    rest = (len(texts) if n is None else n) - n_shown
    if rest > 0:
        yield f"{indent}… and {rest} {more}\n"


def layout_text(image: ImageObject) -> str:
    """The layout of the sites, in words where it is registered."""
    shape = shape_named(image["arch"], image["layout"])
    return f"{image['layout']}: {shape.text}" if shape else image["layout"]


def number(n: int, what: str) -> str:
    """`1 finding`, `2 findings`."""
    return f"{n} {what}{'s' * (n != 1)}"


def mib(n: int) -> str:
    return f"{n / (1 << 20):.1f} MiB"


def or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def below(top: str, file: str) -> str:
    """The name of a file in its tree."""
    return file.removeprefix(os.path.join(top, "")) or file  # a folder that cannot be read may be the top itself


def each_file(document: Document, body: Callable[[ImageObject], Iterator[str]]) -> Iterator[str]:
    """The files that were named one by one, each under its head."""
    for i, image in enumerate(document.alone()):
        yield ("\n" if i else "") + head(image, document)
        yield from body(image)


def files_and_trees(
    document: Document, file: Callable[[ImageObject], Iterator[str]], tree: Callable[[TreeObject], Iterator[str]]
) -> Iterator[str]:
    """Files that were named one by one, then trees."""
    yield from each_file(document, file)
    for i, top in enumerate(document.trees):
        yield "\n" if i or document.alone() else ""
        yield from tree(top)
