"""JSON, schema 1: the interface for other programs. One site and one edit per line, so that `diff` and `grep` work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ftpatch.document import SCHEMA
from ftpatch.report import Document

LONG = ("sites", "edits", "findings")  # arrays of one short object per line


def render(document: Document) -> Iterator[str]:
    """The whole document, byte-identical for identical input."""
    encode = json.JSONEncoder().encode
    yield f'{{"schema": {SCHEMA}, "command": {encode(document.command)}, "images": ['
    for i, image in enumerate(document.images):
        yield ("," if i else "") + "\n{"
        for j, (key, value) in enumerate(image.items()):
            yield (",\n " if j else "") + encode(key) + ": "
            if key not in LONG:
                yield encode(value)
                continue
            assert isinstance(value, Sequence)
            # a tree's sites were read for their figures alone
            hidden = key == "sites" and "tree" in image and not document.show_sites
            yield "["
            for k, row in enumerate(() if hidden else value):
                yield (",\n  " if k else "\n  ") + encode(row)
            yield "]"
        yield "}"
    yield "]"
    for name, rows in (("trees", document.trees), ("splats", document.splats), ("errors", document.errors)):
        if rows:
            yield f',\n"{name}": {encode(rows)}'
    yield "}\n"
