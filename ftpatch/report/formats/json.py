"""JSON, schema 1: the interface for other programs. One site and one edit per line, so that `diff` and `grep` work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ftpatch.document import SCHEMA
from ftpatch.report import Document

LONG = ("sites", "edits", "findings")  # arrays of one short object per line


def render(document: Document) -> Iterator[str]:
    """The whole document, byte-identical for identical input."""
    yield f'{{"schema": {SCHEMA}, "command": {json.dumps(document.command)}, "images": ['
    for i, image in enumerate(document.images):
        yield ("," if i else "") + "\n{"
        for j, (key, value) in enumerate(image.items()):
            yield (",\n " if j else "") + json.dumps(key) + ": "
            if key not in LONG:
                yield json.dumps(value)
                continue
            assert isinstance(value, Sequence)
            hidden = key == "sites" and "tree" in image and not document.show_sites
            yield from _array(() if hidden else value)
        yield "}"
    yield "]"
    for name, rows in (("trees", document.trees), ("splats", document.splats), ("errors", document.errors)):
        if rows:
            yield f',\n"{name}": {json.dumps(rows)}'
    yield "}\n"


def _array(items: Sequence[object]) -> Iterator[str]:
    encode = json.JSONEncoder().encode
    yield "["
    for i, item in enumerate(items):
        yield (",\n  " if i else "\n  ") + encode(item)
    yield "]"
