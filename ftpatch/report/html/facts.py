"""What is said of a file in words: the lines of the text reports, each with its key."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ftpatch.container.layers import NAMES
from ftpatch.report import Document, Render
from ftpatch.report.results import clean
from ftpatch.report.text.lines import Line

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject, TreeObject

WIDE = 1 << 20  # characters of a line: the page breaks lines itself


@dataclass(frozen=True)
class Fact:
    key: str
    lines: tuple[str, ...]
    about: str = "file"  # or what the run did with it: run


def facts_of(image: ImageObject, document: Document) -> tuple[Fact, ...]:
    """Everything that text says of one file, besides tables."""
    alone, text = _about(document, image), document.kind.text
    of_run = _lines(text, alone) if text not in ("scan", "explain", "symbols") else []
    of_file = [*_identity(image), *(_lines("scan", alone) if "summary" in image else [])]
    return (*grouped(of_run, "run"), *grouped(of_file))


def facts_of_tree(tree: TreeObject, document: Document) -> tuple[Fact, ...]:
    """Everything that text says of the modules of a tree together."""
    images, errors = document.of_tree(tree["tree"])
    of_tree = replace(_about(document), trees=[tree], errors=errors, images=[_without_units(image) for image in images])
    return grouped(_lines(document.kind.text, of_tree))


def plain_text(document: Document) -> str:
    """The text report as it is, of documents that are told in paragraphs."""
    render: Render = importlib.import_module(f"ftpatch.report.text.{document.kind.text}").render
    return "".join(render(replace(_about(document), images=document.images, splats=document.splats)))


def _about(document: Document, *images: ImageObject) -> Document:
    """A document of these images alone, whose text has no tables of sites and no colour."""
    alone = [image.copy() for image in images]
    for image in alone:
        image.pop("tree", None)
    return replace(document, images=alone, trees=[], errors=[], splats=[], show_sites=False, colored=False, width=WIDE)


def _without_units(image: ImageObject) -> ImageObject:
    if "units" in image:
        image = image.copy()
        del image["units"]
    return image


def _identity(image: ImageObject) -> Iterator[tuple[str, str]]:
    """What file it is."""
    inside = "".join(f" inside {NAMES[layer]}" for layer in reversed(image.get("layers", ())[:-1]))
    yield "file", f"{image['arch']} {image['kind']}{inside}"
    if image["build_id"]:
        yield "build-id", image["build_id"]
    if image["sha256"]:
        yield "sha256", image["sha256"]
    if image.get("symbols_from") == "kallsyms":
        yield "names", "from the kernel's own kallsyms: the file has no symbol table"
    if "moved" in image:
        yield "moved", f"a dump of a running kernel, moved by {image['moved']} bytes"


def _lines(module: str, document: Document) -> list[tuple[str, str]]:
    """The lines with a key of one kind of text report."""
    render: Render = importlib.import_module(f"ftpatch.report.text.{module}").render
    lines: list[tuple[str, str]] = []
    for text in render(document):
        if isinstance(text, Line) and text.cut and lines:
            lines[-1] = lines[-1][0], f"{lines[-1][1]} {text.value}"
        elif isinstance(text, Line):
            lines.append((text.key, text.value))
    return lines


def grouped(lines: Iterable[tuple[str, str]], about: str = "file") -> tuple[Fact, ...]:
    """Facts from lines, those without a key with the one in front; a key that comes again goes on, too."""
    facts: list[tuple[str, list[str]]] = []
    for key, text in lines:
        if facts and key in ("", facts[-1][0]):
            facts[-1][1].append(clean(text))
        else:
            facts.append((key, [clean(text)]))
    return tuple(Fact(key, tuple(texts), about) for key, texts in facts)
