"""The keys and trampolines of static calls, and where code and pointers about them lead. See `static_calls.py`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from ftpatch.arch.static_call_forms import StaticCallForm
from ftpatch.arrays import I64, U32, Mask, Rows, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import Relocations, relocations_of
from ftpatch.errors import UnsupportedError

KEY, TRAMPOLINE = "__SCK__", "__SCT__"  # how the symbols of keys and trampolines begin
UNKNOWN = -1  # a row, section or form that is not known
MAX_KEYS = 1 << 17
MAX_NAMES = 64 << 20  # characters of all their names
_NO = np.zeros(0, dtype=np.int64)


class Named(NamedTuple):
    """What fields of the file name: places, or symbols of other files."""

    sec: I64  # −1: no section of this file
    off: I64
    symbol: I64  # row of the symbol that a relocation names; −1: no relocation


@dataclass(frozen=True, eq=False, repr=False)
class Keys:
    """One row per key: those that this file defines, and those that its sites name, in the order of the symbols."""

    name: list[str]  # without the prefix; an address where no symbol names it
    symbol: I64  # row of __SCK__NAME; −1: the trampoline alone is named
    sec: I64  # section of the key; −1: it is in another file
    off: I64
    func: Named  # what the key's pointer holds; section −1 without a symbol: NULL, where the key is in this file
    trampoline: I64  # row of __SCT__NAME; −1: none
    form: I64  # which of the machine's trampolines it is; −1: none of them, or in another file
    leads_to: Named  # where the trampoline's jump goes

    def __len__(self) -> int:
        return len(self.name)

    def subset(self, mask: Mask) -> Keys:
        """Those rows alone."""
        func, leads_to = (Named(*(column[mask] for column in named)) for named in (self.func, self.leads_to))
        names = [name for name, wanted in zip(self.name, mask.tolist(), strict=True) if wanted]
        return Keys(names, self.symbol[mask], self.sec[mask], self.off[mask], func, self.trampoline[mask],
                    self.form[mask], leads_to)  # fmt: skip


def read_keys(image: Image, named: Named) -> tuple[Keys, I64]:
    """The keys of an image, and the row among them of each that an entry names; −1 where it names nothing.

    Raises UnsupportedError for more keys than are read.
    """
    names, key, trampoline = _named_keys(image)
    sec, off = place_of(image, key)
    index = rows_of(image, named, (sec, off), key, trampoline)
    nameless = np.flatnonzero((index < 0) & ((named.sec >= 0) | (named.symbol >= 0)))
    if len(nameless):  # a table whose symbols are gone, or that is damaged
        symbol = np.where(named.sec[nameless] < 0, named.symbol[nameless], UNKNOWN)
        fields = np.stack([named.sec[nameless], np.where(symbol < 0, named.off[nameless], 0), symbol])
        found, row = np.unique(fields, axis=1, return_inverse=True)
        index[nameless] = len(names) + row.reshape(-1)
        names += [_nameless(image, *place) for place in found.T.tolist()]
        sec, off = np.concatenate([sec, found[0]]), np.concatenate([off, found[1]])
        key = np.concatenate([key, found[2]])
        trampoline = np.concatenate([trampoline, np.full(found.shape[1], UNKNOWN)])
    at = place_of(image, trampoline)
    static = image.arch.static_calls
    assert static is not None
    form = forms_of(image, static.trampolines, *at)
    leads_to = destinations(image, static.trampolines, form, *at)
    return Keys(names, key, sec, off, pointers(image, sec, off), trampoline, form, leads_to), index


def _named_keys(image: Image) -> tuple[list[str], I64, I64]:
    """Names, and the symbol rows of the keys and trampolines that have them: −1 where there is no such symbol."""
    symbols, n_chars = image.symbols, 0
    rows: tuple[dict[str, list[int]], dict[str, list[int]]] = {}, {}
    for prefix, by_name in zip((KEY, TRAMPOLINE), rows, strict=True):
        for row in symbols.rows_beginning(prefix).tolist():
            name = symbols.name(row)[len(prefix) :]
            by_name.setdefault(name, []).append(row)
            n_chars += len(name)
            if n_chars > MAX_NAMES:
                raise UnsupportedError("the names of static calls are too long", image.path,
                                       expected=f"at most {MAX_NAMES} characters together")  # fmt: skip
    keys, trampolines = rows
    names: list[str] = []
    pairs: list[tuple[int, int]] = []
    for name in dict.fromkeys([*keys, *trampolines]):
        own, jumps = keys.get(name, []), trampolines.get(name, [])
        together = [(own[0] if own else UNKNOWN, jumps[0] if jumps else UNKNOWN)]
        if len(own) > 1 or len(jumps) > 1:
            together = _namesakes(image, own, jumps)
        pairs += together
        names += [name] * len(together)
    if len(names) > MAX_KEYS:
        raise UnsupportedError("more keys of static calls than are read", image.path, found=f"{len(names)} keys",
                               expected=f"at most {MAX_KEYS}", todo="docs/limits.md has all limits")  # fmt: skip
    key, trampoline = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return names, key, trampoline


def _namesakes(image: Image, own: list[int], jumps: list[int]) -> list[tuple[int, int]]:
    """Keys and trampolines of one name, which several source files have each for itself: those of a file together."""
    by_file: dict[int | None, tuple[list[int], list[int]]] = {}
    for column, rows in enumerate((own, jumps)):
        for row in rows:
            by_file.setdefault(image.symbols.file_row(row), ([], []))[column].append(row)
    return [pair for columns in by_file.values() for pair in zip_longest(*columns, fillvalue=UNKNOWN)]


def _nameless(image: Image, sec: int, off: int, symbol: int) -> str:
    """What to call a key that no symbol names."""
    if symbol >= 0:
        return image.symbols.name(symbol)
    return hex(int(image.base[sec]) + off) if image.linked else f"{image.names[sec]}+{off:#x}"


def place_of(image: Image, symbol: I64) -> tuple[I64, I64]:
    """(section, offset) of what symbols name; −1 where they are of another file, or no symbol."""
    symbols = image.symbols
    if not len(symbols.rows):
        return np.full(len(symbol), UNKNOWN), np.zeros(len(symbol), dtype=np.int64)
    shndx = symbols.shndx[symbol]
    known = (symbol >= 0) & (shndx > t.SHN_UNDEF) & (shndx < len(image.shdr))
    sec = np.where(known, symbols.shndx[symbol], UNKNOWN)
    value = symbols.rows["st_value"][symbol]
    if image.linked:
        placed, off = image.place(value)
        return np.where(known, placed, UNKNOWN), off
    return sec, np.where(known, value.view(np.int64), 0)


def rows_of(image: Image, named: Named, places: tuple[I64, I64], key: I64, trampoline: I64) -> I64:
    """Row of the key that each field names, by its place or, in another file, by its symbol; −1 for none.

    Of keys at one place it is the first.
    """
    index = np.full(len(named.sec), UNKNOWN)
    for symbols in (trampoline, key):
        rows = np.flatnonzero(symbols >= 0)
        hit, at = _found(symbols[rows], named.symbol)
        index[hit] = rows[at[hit]]
    here = np.flatnonzero(places[0] >= 0)
    hit, at = _found(image.va(places[0][here], places[1][here]), image.va(named.sec, named.off))
    if len(here):
        near = here[at]
        hit &= (named.sec >= 0) & (places[0][near] == named.sec) & (places[1][near] == named.off)
        index[hit] = near[hit]
    return index


def _found(values: Rows, wanted: Rows) -> tuple[Mask, I64]:
    """Which of `wanted` are among the values, and where each is first."""
    if not len(values):
        return np.zeros(len(wanted), dtype=bool), np.zeros(len(wanted), dtype=np.int64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    at = np.minimum(np.searchsorted(ordered, wanted), len(values) - 1)
    return np.asarray(ordered[at] == wanted), order[at]


def forms_of(image: Image, forms: tuple[StaticCallForm, ...], sec: I64, off: I64) -> I64:
    """Which of the forms stands at each place, the first that does; −1 for none."""
    found = np.full(len(sec), UNKNOWN)
    longest = max((len(form.code) for form in forms), default=0)
    units: U32 = image.words(sec, off, 0, longest)
    for number in reversed(range(len(forms))):
        fits = sec >= 0
        for i, word in enumerate(forms[number].code):
            fits = fits & word.matches(units[:, i])
        found[fits] = number
    return found


def destinations(image: Image, forms: tuple[StaticCallForm, ...], form: I64, sec: I64, off: I64) -> Named:
    """Where the branch at each place goes; nowhere where the form there is no branch."""
    result = Named(np.full(len(sec), UNKNOWN), np.zeros(len(sec), dtype=np.int64), np.full(len(sec), UNKNOWN))
    for number, one in enumerate(forms):
        rows = np.flatnonzero(form == number)
        if one.literal is not None and len(rows):
            places = literals_of(image, one, sec[rows], off[rows])
            for column, values in zip(result, pointers(image, *places), strict=True):
                column[rows] = values
        if one.branch is None or not len(rows):
            continue
        units = image.words(sec[rows], off[rows], 0, one.branch.n_units)
        distance = one.branch.decode(units if one.branch.n_units > 1 else units[:, 0])
        if image.linked:
            with np.errstate(over="ignore"):
                to = (image.va(sec[rows], off[rows]).view(np.int64) + distance).view(np.uint64)
            result.sec[rows], result.off[rows] = image.place(to)
        else:
            field = one.branch.lsb // 8
            ends = one.branch.base - field
            for number_of in np.unique(sec[rows]).tolist():
                of = rows[sec[rows] == number_of]
                named = named_at(image, relocations_of(image, number_of), off[of] + field)
                result.sec[of], result.off[of], result.symbol[of] = named.sec, named.off + ends, named.symbol
                bare = of[named.symbol < 0]  # without a relocation it stays within its section
                near = distance[np.isin(rows, bare)]
                result.sec[bare], result.off[bare] = number_of, off[bare] + near
    return result


def literals_of(image: Image, form: StaticCallForm, sec: I64, off: I64) -> tuple[I64, I64]:
    """Where the codes at these places read what they go to."""
    assert form.literal is not None
    if image.linked:
        units = image.words(sec, off, 0, len(form.code))
        return image.place(form.literal.address(units, image.va(sec, off)))
    places = np.full(len(sec), UNKNOWN), np.zeros(len(sec), dtype=np.int64)
    for number in np.unique(sec).tolist():
        rows = np.flatnonzero(sec == number)
        named = named_at(image, relocations_of(image, number), off[rows] + form.literal.relocated_at)
        places[0][rows], places[1][rows] = named.sec, named.off
    return places


def pointers(image: Image, sec: I64, off: I64) -> Named:
    """What 8-byte pointers at these places hold."""
    result = Named(np.full(len(sec), UNKNOWN), np.zeros(len(sec), dtype=np.int64), np.full(len(sec), UNKNOWN))
    if image.linked:
        pos = image.pos(sec, off)
        rows = np.flatnonzero(pos >= 0)
        value = image.data.rows(pos[rows], 8).view("<u8").reshape(-1).astype(np.uint64)
        moved, _ = image.rela  # a kernel that can be moved may have its pointers there
        moved = moved[moved["r_info"] & np.uint64(0xFFFF_FFFF) == image.arch.relative]
        hit, row = _found(moved["r_offset"], image.va(sec, off)[rows])
        value[hit] = moved["r_addend"][row[hit]].view(np.uint64)
        placed, at = image.place(value)
        result.sec[rows] = np.where(value == 0, UNKNOWN, placed)
        result.off[rows] = np.where(placed >= 0, at, value.view(np.int64))  # NULL is 0, what leads nowhere is not
        return result
    for number in np.unique(sec[sec >= 0]).tolist():
        rows = np.flatnonzero(sec == number)
        named = named_at(image, relocations_of(image, number), off[rows])
        result.sec[rows], result.off[rows], result.symbol[rows] = named
    return result


def named_at(image: Image, relocations: Relocations, off: I64) -> Named:
    """What relocations at these offsets of their section name: the symbol's place and addend. None: −1."""
    nothing = relocations.kind == image.arch.none  # what a patch emptied
    if nothing.any():
        relocations = Relocations(*(column[~nothing] for column in relocations))
    n = len(relocations.off)
    at = np.searchsorted(relocations.off, off)
    there = np.minimum(at, n - 1)
    hit = (at < n) & (relocations.off[there] == off) if n else np.zeros(len(off), dtype=bool)
    symbol = np.where(hit, relocations.symbol[there] if n else UNKNOWN, UNKNOWN)
    sec, base = place_of(image, symbol)
    addend = np.zeros(len(off), dtype=np.int64)
    for table in np.unique(relocations.table[there[hit]]).tolist() if n else ():
        rows = np.flatnonzero(hit)[relocations.table[there[hit]] == table]
        addend[rows] = image.rows(table, t.RELA)["r_addend"][relocations.row[there[rows]]]
    with np.errstate(over="ignore"):
        return Named(sec, base + addend, symbol)


def is_symbol(image: Image, named: Named, name: str) -> Mask:
    """Which fields name the function of that name, of this file or another."""
    symbols = image.symbols
    rows = symbols.rows_named(name) if name else _NO
    sec, off = place_of(image, rows)
    found = (named.symbol >= 0) & is_in(named.symbol, rows) & (named.off == 0) & (named.sec < 0)
    for here, at in zip(sec.tolist(), off.tolist(), strict=True):
        found |= (named.sec >= 0) & (named.sec == here) & (named.off == at)
    return np.asarray(found)
