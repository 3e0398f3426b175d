"""The relocations of an object's sites: what each one's call may have, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch.shape import Shape, begins_with
from ftpatch.arrays import Rows
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.relocations import Relocations, relocations_of
from ftpatch.plan.request import Draft
from ftpatch.sites.table import OFF, READY, UNRECORDED

TYPE = np.uint64(0xFFFF_FFFF)


def refuse_unlike(draft: Draft) -> None:
    """Sites whose relocations are not those of the layout, or of a patch."""
    scan, shape, sites = draft.scan, draft.shape, draft.scan.sites
    arch, index = scan.arch, draft.open()
    field_at, size = shape.call_at + shape.branch.relocated_at, shape.size
    kinds = arch.direct_calls + (arch.indirect_calls if shape.through else ())
    for sec in np.unique(sites.sec[index]).tolist():
        mine, rows = index[sites.sec[index] == sec], relocations_of(scan.image, sec)
        does = Relocations(*(column[rows.kind != arch.none] for column in rows))
        marks = rows.off[rows.kind == arch.none]
        for site in mine.tolist():  # a search for each
            start = int(sites.off[site] + sites.site[site])
            low, high = (int(np.searchsorted(does.off, start + more)) for more in (-7, size))
            near = [at for at in range(low, high) if does.off[at] + does.size[at] > start]
            right = len(near) == 1 and does.off[near[0]] == start + field_at and does.kind[near[0]] in kinds
            there = np.flatnonzero((marks >= start) & (marks < start + size))
            status = int(sites.status[site])
            calls = status in (READY, UNRECORDED) and bool(shape.called) and not _is_nop(draft, site)
            if calls and right:
                named = np.isin(does.symbol[near[0]], scan.image.symbols.rows_named(shape.called))
                right = bool(named) and _addend(draft, does, near[0]) == shape.branch.relocated_by
            wanted = calls or status not in (OFF, READY, UNRECORDED)
            odd = len(there) > 1 or any(marks[at] != start + field_at for at in there.tolist())
            odd |= len(there) == 1 and not _is_mark(draft, rows, start + field_at)
            odd |= wanted and (
                not _is_empty(draft, site) or (right and _addend(draft, does, near[0]) != shape.branch.relocated_by)
            )
            odd |= int(sites.off[site]) % shape.unit != 0
            if odd or (not right if wanted else bool(near)):
                what = f" to {shape.called}" if calls else ""
                text = f"its call has no single relocation{what}" if wanted else "a relocation writes into its words"
                draft.refuse(np.array([site]), text)


def _is_mark(draft: Draft, rows: Relocations, place: int) -> bool:
    """Whether the relocation at a place that does nothing is one that a patch leaves, or a kernel's build."""
    arch, image, shape = draft.scan.arch, draft.scan.image, draft.shape
    at = next(iter(np.flatnonzero((rows.off == place) & (rows.kind == arch.none)).tolist()), None)
    if at is None:
        return False  # at another byte of the site
    symbol = int(rows.symbol[at])
    kinds = (0, shape.branch.relocated_by, *arch.direct_calls, *arch.indirect_calls)
    named = not symbol or (bool(shape.called) and symbol in image.symbols.rows_named(shape.called))
    return named and _addend(draft, rows, at) in kinds


def _is_empty(draft: Draft, site: int) -> bool:
    """Whether a call goes nowhere before a linker fills it in."""
    body, branch = draft.scan.sites.body()[site], draft.shape.branch
    aligned = int(draft.scan.sites.off[site]) % draft.shape.unit == 0
    return aligned and not (body[-4:].any() if branch.n_units > 1 else int(body[-1]) != branch.word.bits)


def _is_nop(draft: Draft, site: int) -> bool:
    """Whether a site of calls is a NOP."""
    return bool(begins_with(draft.scan.sites.body()[site : site + 1], (draft.shape.nops,))[0])


def _addend(draft: Draft, rows: Relocations, at: int) -> int:
    return int(draft.scan.image.rows(int(rows.table[at]), t.RELA)["r_addend"][rows.row[at]])


@dataclass
class SiteRows:
    """Changes the relocations of sites in an editor, table by table."""

    editor: Editor
    shape: Shape
    _of: dict[int, Relocations] = field(default_factory=dict)  # section → what it has
    _tables: dict[int, Rows] = field(default_factory=dict)  # table → its rows, some of them changed
    _gone: dict[int, set[int]] = field(default_factory=dict)  # table → rows that leave
    _new: list[tuple[int, int, int, int, int]] = field(default_factory=list)  # section, place, type, symbol, addend

    def call(self, sec: int, start: int, symbol: int, as_compiled: bool) -> None:
        """Let a site call a symbol. as_compiled: the one that the compiler let it call: no mark is needed."""
        arch, place = self.editor.image.arch, self._field(start)
        assert arch.modules is not None  # the kinds of its calls are known
        real, mark = self._at(sec, place)
        kind, addend = arch.modules.branch, self.shape.branch.relocated_by
        was = int(self._rows(mark[0])[mark[1]]["r_addend"]) if mark is not None else 0
        kind = was if was in arch.direct_calls else kind
        if as_compiled and mark is not None:
            known = was in (*arch.direct_calls, *arch.indirect_calls)
            self._set(*mark, was if known else arch.indirect_calls[-1] if self.shape.through else kind, symbol, addend)
            return
        old = same = 0
        if real is not None:
            row = self._rows(real[0])[real[1]]
            old = int(row["r_info"]) >> 32
            same = int(row["r_info"]) & 0xFFFF_FFFF
            self._set(*real, same if same in arch.direct_calls else kind, symbol, addend)
        else:
            self._new.append((sec, place, kind, symbol, addend))
        if mark is None:
            self._new.append((sec, place, arch.none, old, same))

    def nothing(self, sec: int, start: int) -> None:
        """Let a site call nothing; what the compiler let it call is still named, where it called something."""
        arch, place = self.editor.image.arch, self._field(start)
        real, mark = self._at(sec, place)
        if self.shape.called and mark is None and real is not None:
            info = int(self._rows(real[0])[real[1]]["r_info"])
            self._set(*real, arch.none, info >> 32, info & 0xFFFF_FFFF)
            return
        for row in (real, None if self.shape.called else mark):
            if row is not None:
                self._gone.setdefault(row[0], set()).add(row[1])

    def finish(self) -> None:
        """Make the changes in the editor."""
        for table in sorted({*self._tables, *self._gone}):
            rows = self._rows(table)
            stays = np.ones(len(rows), dtype=bool)
            stays[list(self._gone.get(table, ()))] = False
            self.editor.keep_rows(table, rows[stays])
        for sec, place, kind, symbol, addend in self._new:
            self.editor.relocate(sec, place, kind, symbol, addend)

    def _field(self, start: int) -> int:
        return start + self.shape.call_at + self.shape.branch.relocated_at

    def _at(self, sec: int, place: int) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """(table, row) of the relocation at a place that does something, and of the one that does nothing."""
        if sec not in self._of:
            self._of[sec] = relocations_of(self.editor.image, sec)
        rows, none = self._of[sec], self.editor.image.arch.none
        found: dict[bool, tuple[int, int]] = {}
        for at in range(int(np.searchsorted(rows.off, place)), int(np.searchsorted(rows.off, place + 1))):
            found.setdefault(int(rows.kind[at]) == none, (int(rows.table[at]), int(rows.row[at])))
        return found.get(False), found.get(True)

    def _rows(self, table: int) -> Rows:
        if table not in self._tables:
            self._tables[table] = self.editor.image.rows(table, t.RELA).copy()
        return self._tables[table]

    def _set(self, table: int, row: int, kind: int, symbol: int, addend: int) -> None:
        rows = self._rows(table)
        rows["r_info"][row], rows["r_addend"][row] = symbol << 32 | kind, addend
