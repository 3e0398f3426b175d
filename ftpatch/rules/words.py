"""Small pieces of sentences that several rules share."""

from __future__ import annotations

from collections.abc import Sequence

from ftpatch.arrays import I64
from ftpatch.rules.case import Case

N_SHOWN = 3


def some(case: Case, index: I64) -> str:
    """The first three of many sites."""
    table = case.the()
    return first(tuple(table.name(one) or table.place_text(one) for one in index[: N_SHOWN + 1].tolist()))


def first(names: Sequence[str]) -> str:
    """The first three of many names."""
    return ", ".join(names[:N_SHOWN]) + (", …" if len(names) > N_SHOWN else "")
