"""Functions that come back to the static call that calls them: they run until the stack is full.

Direct calls and jumps are followed, from function to function and through the trampolines of static calls, the nearest
first. Calls through pointers are not, so that finding no way back does not show that there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.elf.image import Image
from ftpatch.plan.static_calls.request import SetDraft

MANY = 64  # keys up to which ways back are looked for
MAX_FUNCTIONS = 20_000  # that are looked at for one key
MAX_UNITS = 1 << 16  # of a function's code that are looked at
SHOWN = 5  # functions of a way that a message names
NOT_KNOWN = "calls through pointers were not followed: whether {names} leads back by one is not known"
ENDLESS = (
    "{name} calls the static call {key}, which is {name} from now on: it never returns, unless a condition ends that"
)
MAY = "{name} may come back to the static call {key}, which is {name} from now on: {way} calls it"


def warn_of_ways_back(draft: SetDraft) -> None:
    """Say which functions lead back to the key that is to call them."""
    keys = [key for key in draft.open() if draft.goals[key].kind == "function"]
    keys = [key for key in keys if draft.goals[key].own_row >= 0 and draft.table.image.linked]
    if len(keys) > MANY:
        draft.warnings.append(f"ways back to the static calls were not looked for: {len(keys)} are more than {MANY}")
        return
    ways = Ways(draft)
    for key in keys:
        goal, way = draft.goals[key], ways.back(key)
        if way:
            names = [draft.table.image.symbols.name(row) for row in way]
            shown = names if len(names) <= SHOWN else [*names[:3], "…", names[-1]]
            text = ENDLESS if len(names) == 1 else MAY
            draft.warnings.append(text.format(name=goal.name, key=draft.name(key), way=" → ".join(shown)))
    if keys:
        some = ", ".join(dict.fromkeys(draft.goals[key].name for key in keys[:3]))
        draft.remarks.append(NOT_KNOWN.format(names=some + (" and others" if len(keys) > 3 else "")))


@dataclass
class Ways:
    """What functions of one linked kernel call, each looked at once."""

    draft: SetDraft
    _called: dict[int, list[int]] = field(default_factory=dict)  # index of a function → those that it calls

    @property
    def image(self) -> Image:
        return self.draft.table.image

    def __post_init__(self) -> None:
        table, functions = self.draft.table, self.image.functions
        sec, off = table.trampolines
        known = np.flatnonzero(sec >= 0)
        self._key_of = dict(zip(self.image.va(sec[known], off[known]).tolist(), known.tolist(), strict=True))
        inside = functions.containing(self.image.va(table.calls.sec, table.calls.off))
        self._sites: dict[int, set[int]] = {}  # index of a function → the keys that its sites name
        for index, key in zip(inside.tolist(), table.calls.key.tolist(), strict=True):
            if index >= 0:
                self._sites.setdefault(index, set()).add(key)
        func = table.keys.func
        self._leads: U64 = self.image.va(func.sec, func.off)
        for key in self.draft.open():
            goal = self.draft.goals[key]
            self._leads[key] = self.image.symbols.rows["st_value"][goal.own_row] if goal.own_row >= 0 else 0

    def back(self, key: int) -> list[int]:
        """Rows of the symbols of the functions on the shortest way from what a key is to call to one with a site of it;
        empty where none is found."""
        start = self._index(int(self._leads[key]))
        came: dict[int, int] = {start: -1} if start >= 0 else {}
        todo = list(came)
        for index in todo:
            if key in self._sites.get(index, ()):
                return self._way(came, index)
            if len(came) < MAX_FUNCTIONS:
                for other in self._calls(index):
                    if other not in came:
                        came[other] = index
                        todo.append(other)
        return []

    def _way(self, came: dict[int, int], index: int) -> list[int]:
        way: list[int] = []
        while index >= 0:
            way.append(int(self.image.functions.row[index]))
            index = came[index]
        return way[::-1]

    def _index(self, va: int) -> int:
        """Index of the function that begins at a va; −1 for none."""
        low, high = self.image.functions.at(np.array([va], dtype=np.uint64))
        return int(low[0]) if va and low[0] < high[0] else -1

    def _calls(self, index: int) -> list[int]:
        if index not in self._called:
            called = dict.fromkeys(self._leads_to(index))
            self._called[index] = [other for va in called if (other := self._index(va)) >= 0]
        return self._called[index]

    def _leads_to(self, index: int) -> Iterator[int]:
        """va of what a function calls or jumps to, those of its static calls included."""
        arch, functions = self.image.arch, self.image.functions
        start = int(functions.va[index])
        size = int(self.image.symbols.rows["st_size"][functions.row[index]])
        code = self.image.code(start, min(size // arch.unit, MAX_UNITS))
        for branch in (arch.call, arch.jump):
            if branch is None:
                continue
            at, distance = branch.find(code)
            to: I64 = np.uint64(start).view(np.int64) + at + distance
            for va in to.view(np.uint64).tolist():
                yield int(self._leads[self._key_of[va]]) if va in self._key_of else va
