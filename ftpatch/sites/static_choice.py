"""Selectors of static calls: from what a user writes after --key to a mask over the keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.errors import SelectionError
from ftpatch.sites.patterns import Patterns
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_keys import KEY, TRAMPOLINE


def choose_keys(table: StaticCallTable, selectors: Sequence[str]) -> Mask:
    """The keys that names, globs and /regex/ choose, joined; `!` takes away, and only negative ones start from all.

    A name may have its prefix, __SCK__ or __SCT__. Raises SelectionError where a selector matches nothing.
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(table.keys.name):
        rows.setdefault(name, []).append(row)
    patterns = Patterns()
    chosen = np.zeros(len(table.keys), dtype=bool)
    if all(selector.startswith("!") for selector in selectors):
        chosen[:] = True
    for selector in sorted(selectors, key=lambda text: text.startswith("!")):  # what is taken away comes last
        text = selector.removeprefix("!")
        hits = [row for name in _names(patterns, text, rows) for row in rows[name]]
        if not hits:
            raise _nothing(table, text)
        chosen[hits] = text == selector
    if not chosen.any():
        raise SelectionError("the selection is empty", table.image.path, found="no key is left by --key")
    return chosen


def _names(patterns: Patterns, text: str, rows: dict[str, list[int]]) -> list[str]:
    """The names that a selector means."""
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        return patterns.regex(text[1:-1], rows)
    plain = text.removeprefix(KEY).removeprefix(TRAMPOLINE)
    if any(char in plain for char in "*?["):
        return patterns.glob(plain, rows)
    return [plain] if plain in rows else []


def _nothing(table: StaticCallTable, text: str) -> SelectionError:
    """Why a selector matched nothing."""
    if not text:
        return SelectionError("an empty selector", table.image.path, expected="the name of a key")
    what = f"{len(table.keys)} keys of other names" if len(table.keys) else "a file without static calls"
    return SelectionError("no static call of that name", text, found=what, expected="a key",
                          todo="ftpatch static-calls --key '*' lists all")  # fmt: skip
