"""Selectors of static calls: from what a user writes after --key to a mask over the keys."""

from __future__ import annotations

from collections.abc import Sequence

from ftpatch.arrays import Mask
from ftpatch.errors import SelectionError
from ftpatch.near_names import did_you_mean
from ftpatch.sites.name_choice import choose_names
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_keys import KEY, TRAMPOLINE


def choose_keys(table: StaticCallTable, selectors: Sequence[str]) -> Mask:
    """The keys that names, globs and /regex/ choose, joined; `!` takes away, and only negative ones start from all.

    A name may have its prefix, __SCK__ or __SCT__. Raises SelectionError where a selector matches nothing.
    """
    chosen = choose_names(
        table.keys.name, selectors, lambda text: _nothing(table, text),
        lambda text: text.removeprefix(KEY).removeprefix(TRAMPOLINE),
    )  # fmt: skip
    if not chosen.any():
        raise SelectionError("the selection is empty", table.image.path, found="no key is left by --key")
    return chosen


def _nothing(table: StaticCallTable, text: str) -> SelectionError:
    """Why a selector matched nothing."""
    if not text:
        return SelectionError("an empty selector", table.image.path, expected="the name of a key")
    what = f"{len(table.keys)} keys of other names" if len(table.keys) else "a file without static calls"
    todo = did_you_mean(text, table.keys.name, "ftpatch static-calls --key '*' lists all")
    return SelectionError("no static call of that name", text, found=what, expected="a key", todo=todo)
