"""Which registers a function changes, with all that it calls: told by walking its code, from its entry on.

All that is reached is looked at; what cannot be followed, such as a call through a register, may change all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.sites.direct_calls import DirectCalls
from ftpatch.sites.register_reader import RegisterReader
from ftpatch.sites.table import NULL, OUTSIDE, SiteTable

MAX_BODY = 1 << 12  # instructions of a function that are looked at
MAX_DEPTH = 6  # functions that call each other, on the way to one


def with_name(table: SiteTable) -> I64:
    """The sites that are of functions."""
    usual = (table.sec >= 0) & ~np.isin(table.status, (NULL, OUTSIDE)) & (table.func < table.func_end)
    return np.flatnonzero(usual)


@dataclass(eq=False)
class RegisterChanges:
    """What the functions of a file change."""

    table: SiteTable
    reader: RegisterReader
    calls: DirectCalls
    _changed: dict[int, int] = field(default_factory=dict)

    def of(self, function: int) -> int:
        """The registers that a function of `image.functions` may change, with all that it calls."""
        return self._changes(function, ())

    def _changes(self, function: int, above: tuple[int, ...]) -> int:
        """The registers that a function may change, with all that it calls; all where that is not known."""
        if function in above or len(above) > MAX_DEPTH:
            return -1
        if function not in self._changed:
            self._changed[function] = self._changes_of(function, (*above, function))
        return self._changed[function]

    def _changes_of(self, function: int, above: tuple[int, ...]) -> int:
        low, high = self.table.image.functions.bounds(function)
        site = self._site_of.get(low, (0, 0))  # NOPs, or the call of who enabled it
        todo, known, changed, returns = [low], set[int](), 0, False
        while todo:
            at = todo.pop()
            while at not in known:
                known.add(at)
                use = self.reader.at(at) if low <= at < high and len(known) < MAX_BODY else None
                if site[0] <= at < site[1]:
                    at = site[1]
                    continue
                if use is None or use.flow == "end":
                    return -1
                changed |= use.writes
                leaves = use.to is not None and not low <= use.to < high
                if use.flow == "call" or (use.flow in ("jump", "branch") and leaves):
                    to = self._callee_of(at)
                    changed |= -1 if to < 0 else self._changes(to, above)
                elif use.flow == "branch" and use.to is not None:
                    todo.append(use.to)
                returns |= use.flow == "return" or (use.flow == "jump" and leaves)
                if changed == -1:
                    return -1
                if use.flow == "return" or (use.flow == "jump" and leaves):
                    break
                at = use.to if use.flow == "jump" and use.to is not None else at + use.size
        return changed if returns else -1  # one that never returns tells nothing of what is behind its calls

    def _callee_of(self, va: int) -> int:
        """The function that a direct call or jump goes to; −1 where that is not known."""
        order, places = self._by_place
        at = int(np.searchsorted(places, np.uint64(va), side="right")) - 1
        return int(self.calls.to[order[at]]) if at >= 0 and int(places[at]) == va else -1

    @cached_property
    def _by_place(self) -> tuple[I64, U64]:
        """The calls in the order of their places, and these. The relocation of one counts, not its distance: that comes
        first."""
        order = np.argsort(self.calls.va, kind="stable")
        return order, self.calls.va[order]

    @cached_property
    def _site_of(self) -> dict[int, tuple[int, int]]:
        """By function's address: [first byte of its site, behind it)."""
        table, index = self.table, with_name(self.table)
        if table.shape is None or table.shape.called:  # -pg, which keeps compilers from counting on anything
            return {}
        size = table.shape.size
        entries, bodies = table.entry_va[index].tolist(), table.body_va[index].tolist()
        return {entry: (body, body + size) for entry, body in zip(entries, bodies, strict=True)}
