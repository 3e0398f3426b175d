"""The sites of an object before and after a patch: in which state each is, and whether it may have come to that."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.proof_tables import ObjectSite
from ftpatch.arrays import I64, U8, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.proof.case import NEW, OLD, OTHER, RETIRED, Case, Pairs
from ftpatch.proof.pairs import side_by_side
from ftpatch.sites.table import NULL, OUTSIDE, SiteTable

WAYS = {
    (OLD, NEW): "site enabled",
    (RETIRED, NEW): "site enabled",  # a call that was a NOP in between
    (NEW, NEW): "site redirected",
    (NEW, RETIRED): "site disabled",
    (OLD, RETIRED): "site disabled",
    (NEW, OLD): "site disabled",
    (RETIRED, OLD): "call given back",
}


class Row(NamedTuple):
    """One relocation."""

    kind: int
    symbol: int
    addend: int


def form_of(pairs_shape_size: int, forms: tuple[ObjectSite, ...]) -> ObjectSite | None:
    """What sites of that many bytes may be."""
    return next((form for form in forms if len(form.nop) == pairs_shape_size), None)


def site_pairs(case: Case) -> Pairs | None:
    """The sites of both files, those that no record names included; None where neither has any."""
    shape = case.before.sites.shape or case.after.sites.shape
    if shape is None or shape.refusal or shape.out_of_line:
        return None
    rows, (sec, off, record) = side_by_side(case, _known)
    form = form_of(shape.size, case.tables.object_sites)
    looks = [_Look(side.image, case, shape.called, form) for side in (case.before, case.after)]
    states = [look.states(sec, off, shape.size) for look in looks]
    n = len(shape.new)
    old, new = (side.image.words(sec, off, 0, n) for side in (case.before, case.after))
    same = np.array([_calls_same(looks, *place) for place in zip(sec.tolist(), (off + shape.size - 4).tolist(),
                                                                  strict=True)], dtype=bool)  # fmt: skip
    differs = (old != new).any(axis=1) | (states[0] != states[1]) | ~same
    return Pairs(case, shape, sec, off, record, rows[0], rows[1], states[0], states[1], new, differs)


def _known(table: SiteTable) -> I64:
    size = table.image.shdr["sh_size"][np.maximum(table.sec, 0)].astype(np.int64)
    inside = (table.off >= 0) & (table.off < np.minimum(size, 1 << 40))
    rows: I64 = np.flatnonzero((table.sec >= 0) & inside & ~is_in(table.status, (NULL, OUTSIDE)))
    return rows


def _calls_same(looks: list[_Look], sec: int, place: int) -> bool:
    """Whether a place names the same symbols in both files."""
    return looks[0].at(sec, place) == looks[1].at(sec, place)


class _Look:
    """One of the two files."""

    def __init__(self, image: Image, case: Case, called: str, form: ObjectSite | None) -> None:
        self.image, self.none, self.form, self.called = image, case.arch.none, form, called
        self.addend = -case.tables.branch_field[1]
        self.kinds = {0, self.addend, *(kind for _, kinds in (form.calls if form else ()) for kind in kinds)}
        self._names = set(image.symbols.rows_named(called).tolist()) if called else {0}
        self._rows: dict[int, dict[int, list[Row]]] = {}

    def at(self, sec: int, place: int) -> list[Row]:
        """The relocations of a place."""
        if sec not in self._rows:
            self._rows[sec] = rows_by_place(self.image, sec)
        return self._rows[sec].get(place, [])

    def states(self, sec: I64, off: I64, size: int) -> U8:
        """The state of each site."""
        content = [self.image.content(number)[start : start + size].tobytes()
                   for number, start in zip(sec.tolist(), off.tolist(), strict=True)]  # fmt: skip
        rows = [self.at(number, start + size - 4) for number, start in zip(sec.tolist(), off.tolist(), strict=True)]
        return np.array([self._state(*site) for site in zip(content, rows, strict=True)], dtype=np.uint8)

    def _state(self, code: bytes, rows: list[Row]) -> int:
        marks = [row for row in rows if row.kind == self.none]
        calls = [row for row in rows if row.kind != self.none]
        if self.form is None or len(marks) > 1 or len(calls) > 1:
            return OTHER
        if marks and marks[0].addend not in self.kinds:  # the type of the relocation that it was
            return OTHER
        if code == self.form.nop and not calls:
            return OLD if not marks else RETIRED
        kinds = next((kinds for form, kinds in self.form.calls if form == code), ())
        if not calls or calls[0].kind not in kinds or calls[0].addend != self.addend:
            return OTHER
        if self.called and calls[0].symbol in self._names and not marks:
            return OLD
        return NEW if marks and (marks[0].symbol in self._names or not marks[0].symbol) else OTHER


def rows_by_place(image: Image, sec: int) -> dict[int, list[Row]]:
    """The relocations of a section, by the place that they fill, in order."""
    rows, found = relocations_of(image, sec), dict[int, list[Row]]()
    addends = {table: image.rows(table, t.RELA)["r_addend"] for table in np.unique(rows.table).tolist()}
    columns = (rows.off.tolist(), rows.kind.tolist(), rows.symbol.tolist(), rows.table.tolist(), rows.row.tolist())
    for off, kind, symbol, table, row in zip(*columns, strict=True):
        found.setdefault(off, []).append(Row(kind, symbol, int(addends[table][row])))
    return {off: sorted(some) for off, some in found.items()}


def check_sites(pairs: Pairs) -> None:
    """Own the bytes of sites that came to a state that a patch gives; findings for the others."""
    case = pairs.case
    for at in np.flatnonzero(pairs.differs).tolist():
        way = (int(pairs.old[at]), int(pairs.new[at]))
        if way not in WAYS:
            before = case.before.image.words(pairs.sec[at : at + 1], pairs.off[at : at + 1], 0, pairs.words.shape[1])
            old, new = (case.arch.code_text(words) for words in (before[0], pairs.words[at]))
            pairs.say("verify-site", at, f"{old} became {new}, with other relocations than a patch makes")
        case.account_for("site words", pairs.pos[at : at + 1], pairs.shape.size)
        case.kinds[WAYS.get(way, "site changed")] += 1
