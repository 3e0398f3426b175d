"""What all text reports are made of: a key in front, a value behind it; how a file is named; how numbers are said."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ftpatch.arch import shape_named
from ftpatch.container.layers import NAMES
from ftpatch.errors import printable

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject, TreeObject
    from ftpatch.document.written import LiveObject
    from ftpatch.report import Document

WIDTH = 100  # characters of a text behind its key
# how the names of many sections begin: what a function's name, or a number, stands behind
FAMILY = re.compile(r"\.\w+\.(?:(?:unlikely|hot|startup|exit|unknown|split|text)\.)?(?=.)", re.ASCII)
# Colours of the terminal's own palette, bold where they would be too light on white: as compilers show theirs.
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"
ALARM, WARNING, REMARK, DONE = "\x1b[1;31m", "\x1b[1;35m", "\x1b[1;36m", "\x1b[32m"


def title(name: str, document: Document) -> str:
    """A name at the head of a paragraph: bold on a terminal."""
    return tinted(printable(name), BOLD, document)


def tinted(text: str, tint: str, document: Document) -> str:
    """A text in a colour, where the report has any; tint: one of these above, or "" for none."""
    return f"{tint}{text}{PLAIN}" if tint and document.colored else text


def head(image: ImageObject, document: Document) -> str:
    """The first line of one file."""
    build = f", build-id {image['build_id']}" if image["build_id"] else ""
    made = "".join(f" inside {NAMES[layer]}" for layer in reversed(image.get("layers", ())[:-1]))
    symbols = {"": "", "none": ", without symbols"}.get(image.get("symbols_from", ""), ", symbols from kallsyms")
    moved = f", a dump of a running kernel, moved by {image['moved']} bytes" if "moved" in image else ""
    return f"{title(image['file'], document)}: {image['arch']} {image['kind']}{made}{build}{symbols}{moved}\n"


class Line(str):
    """A line of text that says one thing of a file; other reports ask for what it is made of."""

    key: str  # empty where it goes on with what the line before is about
    value: str
    cut = False  # whether a sentence goes on that was too long for the line before


def line(key: str, text: str) -> Line:
    """A key and its value, whatever names stand in that."""
    value = printable(text)
    made = Line(f"  {key:<10} {value}\n")
    made.key, made.value = key, value
    return made


def counts_line(key: str, counts: Mapping[str, int], width: int) -> str:
    """How many there are of each name, cut to `width` characters: sections of one beginning are put together first, and
    then the names of few are left out."""
    room = width - len(line(key, "")) + 1
    for shown in (counts, _grouped(counts)):
        text = ", ".join(f"{printable(name)} {n}" for name, n in shown.items())
        if len(text) <= room:
            return line(key, text)
    most = sorted(shown.items(), key=lambda pair: -pair[1])
    texts = [f"{_cut(printable(name), room // 2)} {n}" for name, n in most]
    n_shown = len(texts)
    while n_shown > 1 and len(_first_texts(texts, n_shown)) > room:
        n_shown -= 1
    return line(key, _first_texts(texts, n_shown))


def _first_texts(texts: Sequence[str], n: int) -> str:
    more = [f"and {len(texts) - n} more"] if n < len(texts) else []
    return ", ".join([*texts[:n], *more])


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else name[: max(width - 1, 1)] + "…"


def _grouped(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts with those together that compilers and linkers number or name alike: `.text.*` for .text.first and
    .text.second. What is alone with its beginning keeps its name."""
    families: dict[str, list[str]] = {}
    for name in counts:
        match = FAMILY.match(name)
        families.setdefault(f"{match[0]}*" if match else name, []).append(name)
    return {
        family if len(names) > 1 else names[0]: sum(counts[name] for name in names)
        for family, names in families.items()
    }


def wrapped(key: str, text: str) -> Iterator[str]:
    """A long text behind its key."""
    for i, part in enumerate(textwrap.wrap(printable(text), WIDTH)):
        made = line("" if i else key, part)
        made.cut = i > 0
        yield made


def live_lines(key: str, live: LiveObject) -> Iterator[str]:
    """Whether a running system could be changed so; the steps, where there is more than one."""
    steps = live["steps"] if len(live["steps"]) > 1 else []
    yield from wrapped(key, live["text"] + (":" if steps else ""))
    for number_of_step, step in enumerate(steps, 1):
        yield from wrapped("", f"{number_of_step}. {step}")


def first_of(
    texts: Sequence[str], n_shown: int, indent: str, more: str = "more", n: int | None = None
) -> Iterator[str]:
    """The first texts, a line each, and how many more there are. n: of all, where `texts` does not have them all."""
    yield from (f"{indent}{printable(text)}\n" for text in texts[:n_shown])
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
