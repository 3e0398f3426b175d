"""The columns of a table, written compactly: a kernel has 48,000 sites, and the page is to stay under four megabytes.

How a column is written is told by its keys, whatever it shows:

    {"text": "a\\nb\\n\\nc"}                      a line for each value; an empty one is null
    {"values": ["ready", …], "codes": [0, 0, …]}   values that repeat, and which of them each row has; null is null
    {"base": "0x0", "deltas": [16, …]}             addresses: each is the one before plus a step, modulo 2^64
    {"deltas": [7, 1, …]}                          numbers: the same without a base, signed

A step that JavaScript's numbers cannot hold is a string of decimal digits. A null keeps what the next step starts from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ftpatch.report.results import clean

SAFE = (1 << 53) - 1  # the greatest number that JavaScript holds exactly
FULL = 1 << 64  # where addresses begin anew
FEW = 256  # values that may be listed apart from the rows, however short the table is
LONGEST, SHORT = 2000, 400  # characters of a cell, and of a name that stands in many places: some files' have 100,000
SHARE = 4  # rows for each value, from which on values are listed apart in longer tables

Encoded = dict[str, object]


class Column(NamedTuple):
    """One column, and how it is shown."""

    key: str  # the name of the field in JSON, where it is one
    title: str
    kind: str  # text, enum, code, words, hex, int or bytes
    values: Sequence[object]  # text; numbers for hex, int and bytes; None for what is not known
    filter: bool = False  # whether its values are offered as a filter
    hidden: bool = False  # whether it is searched and drawn by, but not shown

    def encoded(self) -> Encoded:
        """The values as JSON."""
        if self.kind == "hex":
            return {"base": "0x0", "deltas": steps(self.values, FULL)}
        if self.kind in ("int", "bytes"):
            return {"deltas": steps(self.values, None)}
        texts = [None if value is None else cut(value, LONGEST) for value in self.values]
        return listed(texts, always=self.kind == "enum")

    def described(self) -> Encoded:
        """What the page is told of the column besides its values."""
        made: Encoded = {"key": self.key, "title": self.title, "kind": self.kind}
        made |= {name: True for name, value in (("filter", self.filter), ("hidden", self.hidden)) if value}
        return made


def steps(values: Iterable[object], modulus: int | None) -> list[int | str | None]:
    """The difference of each value from the one before; the first from 0."""
    last, found = 0, list[int | str | None]()
    for value in values:
        if not isinstance(value, int):
            found.append(None)
            continue
        step = value - last
        if modulus is not None:  # the shorter way round
            step = (step + modulus // 2) % modulus - modulus // 2
        found.append(step if -SAFE <= step <= SAFE else str(step))
        last = value
    return found


def listed(texts: Sequence[str | None], always: bool) -> Encoded:
    """Texts as lines; where they repeat, or always, as a list of values and a number for each row."""
    values = list(dict.fromkeys(text for text in texts if text is not None))
    if not always and len(values) > max(FEW, len(texts) // SHARE):
        return {"text": "\n".join(text or "" for text in texts)}
    code: dict[str | None, int | None] = {text: at for at, text in enumerate(values)}
    return {"values": values, "codes": [code.get(text) for text in texts]}


def cut(value: object, longest: int = SHORT) -> str:
    """The value as text on one line, its end left out where that is too long."""
    text = clean(value)
    return text if len(text) <= longest else text[:longest] + "…"


def number(text: str | None) -> int | None:
    """The number of a 0x string of the interface."""
    return None if text is None else int(text, 16)


def script_json(value: object) -> str:
    """JSON that ends no element of a page, whatever is in it."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
