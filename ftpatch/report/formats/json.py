"""JSON, schema 1: the interface for other programs. One site and one edit per line, so that `diff` and `grep` work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from ftpatch.document import SCHEMA
from ftpatch.report import Document

LONG = ("sites", "edits", "findings", "entries", "calls", "units", "symbols")  # arrays of one short object per line
NESTED = ("static_calls", "units")  # objects that hold such arrays


def render(document: Document) -> Iterator[str]:
    """The whole document, byte-identical for identical input."""
    encode = json.JSONEncoder().encode
    yield f'{{"schema": {SCHEMA}, "command": {encode(document.command)}, "images": ['
    for i, image in enumerate(document.images):
        yield ("," if i else "") + "\n{"
        # a tree's sites were read for their figures alone, those of a check perhaps for another format
        hidden = "sites" in image and not document.show_sites and ("tree" in image or document.kind.checks)
        shown = [pair for pair in image.items() if not (hidden and pair[0] == "text_sections")]
        for j, (key, value) in enumerate(shown):
            yield (",\n " if j else "") + encode(key) + ": "
            if key in NESTED:
                assert isinstance(value, Mapping)
                yield "{"
                for k, (name, part) in enumerate(value.items()):
                    yield (", " if k else "") + encode(name) + ": "
                    yield from _value(encode, name, part)
                yield "}"
            else:
                yield from _value(encode, key, () if hidden and key == "sites" else value)
        yield "}"
    yield "]"
    for name, rows in (("trees", document.trees), ("splats", document.splats), ("errors", document.errors)):
        if rows:
            yield f',\n"{name}": {encode(rows)}'
    yield "}\n"


def _value(encode: Callable[[object], str], key: str, value: object) -> Iterator[str]:
    """One value; a long array has a line for each row."""
    if key not in LONG or not isinstance(value, Sequence):  # a count may have the name of what it counts
        yield encode(value)
        return
    yield "["
    for k, row in enumerate(value):
        yield (",\n  " if k else "\n  ") + encode(row)
    yield "]"
