"""`static-calls --set` for modules: the relocations of a key of their own and of its trampoline.

    .data               key.func    R_X86_64_64 function           nothing: NULL
    .static_call.text   jmp         R_X86_64_PC32 function − 4     to the return thunk, or a return without one: NULL

The function is one of the module, or one that it imports. Keys of other files are set there.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.elf.relocations import relocations_of
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.kernel.module import Module
from ftpatch.plan.module.addition import Addition
from ftpatch.plan.module.loadable import require_loadable
from ftpatch.plan.module.records import edits_of, section_symbol
from ftpatch.plan.plan import Plan
from ftpatch.plan.redirect.in_module import Finder
from ftpatch.plan.static_calls.judge import refuse_wrong_functions
from ftpatch.plan.static_calls.kernel import jump_of
from ftpatch.plan.static_calls.literals import by_literals, literal_at
from ftpatch.plan.static_calls.lookup import find_key
from ftpatch.plan.static_calls.made import plan_of
from ftpatch.plan.static_calls.request import NULL, RETURN0, Goal, SetDraft, SetRequest, Setting
from ftpatch.plan.static_calls.state import refuse_what_is_so, refuse_wrong_states
from ftpatch.plan.static_calls.updates import warn_of_updates
from ftpatch.sites.scan import Scan
from ftpatch.sites.static_calls import read_static_calls
from ftpatch.sites.static_keys import named_at


def plan_module_settings(scan: Scan, request: SetRequest) -> Plan:
    """Decide everything. Raises a PlanError where some key cannot be set."""
    image, table, module = scan.image, read_static_calls(scan.image), Module(scan)
    assert image.arch.modules is not None  # other machines were refused
    checked = require_loadable(module, request.against)
    kernel = request.against.kernel
    types = FunctionTypes(image, kernel.image if kernel else None)
    finder = Finder(module, request.against, types)
    rows = {find_key(table, setting): setting for setting in request.settings}
    elsewhere = {key for key in rows if table.keys.sec[key] < 0}  # refused, whatever they are to call
    goals = {key: Goal("function", setting.to) if key in elsewhere else _goal(finder, setting)
             for key, setting in rows.items()}  # fmt: skip
    draft = SetDraft(scan, table, request, goals)
    refuse_wrong_states(draft)
    refuse_what_is_so(draft)
    refuse_wrong_functions(draft, types)
    draft.require_all()

    # From here on nothing is refused for a single key.
    warn_of_updates(draft)
    pointing = KeyWriter(Addition(Editor(image), module, image.arch.modules), draft)
    for key in draft.open():
        pointing.set(key)
    return plan_of(draft, edits_of(pointing.addition.editor), [*pointing.addition.notes, *checked])


def _goal(finder: Finder, setting: Setting) -> Goal:
    """What a setting's key is to call. Raises SelectionError or PolicyError for what a module cannot call."""
    image, static = finder.module.image, finder.module.image.arch.static_calls
    assert static is not None  # the table was read
    if setting.to == NULL:
        return Goal(NULL, NULL)
    is_return0 = setting.to in (RETURN0, static.return0)
    used = image.symbols.rows_named(static.return0)
    if is_return0 and len(used):
        return Goal(RETURN0, RETURN0, own_row=int(used[0]))
    try:
        found = finder.find(static.return0 if is_return0 else setting.to)
    except (SelectionError, PolicyError) as error:
        where = f"{setting.option}{setting.to}"
        raise type(error)(error.what, where, found=error.found, expected=error.expected, todo=error.todo) from None
    types, row, own = found.substitute.types, found.substitute.row, -1 if found.row is None else found.row
    low, high = image.functions.at(np.array([max(found.va, 0)], dtype=np.uint64))
    # Of several names of a function, reports have the first.
    name = (
        found.name if found.outside or low[0] == high[0] else image.symbols.name(int(image.functions.row[int(low[0])]))
    )
    if is_return0:
        return Goal(RETURN0, RETURN0, types, row, own, found.wanted, found.substitute.why)
    return Goal("function", name, types, row, own, found.wanted, found.substitute.why)


class KeyWriter:
    """Keys that are set, one by one, in an editor."""

    def __init__(self, addition: Addition, draft: SetDraft) -> None:
        static = draft.table.image.arch.static_calls
        assert static is not None
        self.addition, self.draft, self.static = addition, draft, static

    def set(self, key: int) -> None:
        """Change both relocations of a key, and the trampoline's code where that is another."""
        draft, image, static = self.draft, self.draft.table.image, self.static
        keys, (sec, off), goal = draft.table.keys, draft.table.trampolines, draft.goals[key]
        symbol, value = self._symbol(key, goal) if goal.kind != NULL else (0, 0)
        self._point(int(keys.sec[key]), int(keys.off[key]), image.arch.abs64, symbol, value)
        if by_literals(image):
            place = literal_at(draft, key)
            self._point(*place, image.arch.abs64, *((symbol, value) if symbol else (self._return0(), 0)))
            return
        branch = jump_of(static).branch
        assert branch is not None
        field, ends = branch.lsb // 8, branch.base - branch.lsb // 8
        at, jumps = int(sec[key]), goal.kind != NULL
        if goal.kind == NULL and (thunk := self._thunk(at, int(off[key]))) is not None:
            symbol, value, jumps = thunk, 0, True
        self._point(at, int(off[key]) + field, self.static.distance, symbol, value - ends if jumps else 0)
        code = branch.encode(np.array([branch.base], dtype=np.int64))[0].astype(np.uint8).tobytes()
        self.addition.editor.patch(at, int(off[key]), code if jumps else static.null, "trampoline", key)

    def _symbol(self, key: int, goal: Goal) -> tuple[int, int]:
        """(symbol, addend) by which compilers name a function: static ones by their section."""
        image = self.draft.table.image
        if goal.own_row < 0:
            assert goal.wanted is not None
            known = self.addition.editor.imported(goal.wanted.name)
            return (self.addition.imported(goal.wanted) if known is None else known), 0
        sec, row = int(image.symbols.shndx[goal.own_row]), goal.own_row
        start = section_symbol(image, sec) if image.symbols.bind[row] == t.STB_LOCAL and sec > 0 else None
        return (row, 0) if start is None else (start, int(image.symbols.rows["st_value"][row]))

    def _return0(self) -> int:
        """Row of the symbol to which the trampoline of a NULL key leads, where code does not change."""
        rows = self.draft.table.image.symbols.rows_named(self.static.return0)
        if not len(rows):
            raise PolicyError("the module does not use what the trampoline of a NULL key leads to",
                              self.draft.table.image.path, found=f"no {self.static.return0}",
                              todo="--set KEY=return0 brings it in")  # fmt: skip
        return int(rows[0])

    def _thunk(self, sec: int, off: int) -> int | None:
        """Row of the symbol of the return thunk, where a trampoline is one of the returns that the loader rewrites."""
        image = self.draft.table.image
        rows = image.symbols.rows_named(self.static.thunk) if self.static.thunk else np.zeros(0, np.int64)
        for table in image.sections_named(self.static.return_sites[2]) if len(rows) else ():
            at = relocations_of(image, table)
            named = named_at(image, at, at.off)
            if ((named.sec == sec) & (named.off == off)).any():
                return int(rows[0])
        return None

    def _point(self, sec: int, off: int, kind: int, symbol: int, addend: int) -> None:
        """Let what the loader writes at a place be a symbol, or nothing where that is 0."""
        image, editor = self.draft.table.image, self.addition.editor
        known = relocations_of(image, sec)
        rows: I64 = np.flatnonzero(known.off == off)
        if not len(rows):
            if symbol:
                editor.relocate(sec, off, kind, symbol, addend)
            return
        table, number, there = (int(column[rows[0]]) for column in (known.table, known.row, known.kind))
        if there not in (image.arch.none, *((kind,) if kind == image.arch.abs64 else image.arch.direct_calls)):
            raise PolicyError("a relocation of a static call is of another type", f"{image.path}: {image.names[sec]}+"
                              f"{off:#x}", found=f"type {there}", expected=f"type {kind}")  # fmt: skip
        row = image.rows(table, t.RELA)[number].copy()
        kind = image.arch.none if not symbol else kind if there == image.arch.none else there
        row["r_info"], row["r_addend"] = symbol << 32 | kind, addend if symbol else 0
        editor.patch(table, number * t.RELA.itemsize, row.tobytes(), "relocation", number)
