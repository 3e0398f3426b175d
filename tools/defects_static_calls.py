"""Planted defects of static calls, by rule: entries, keys, trampolines and the instructions that they name.

A static call for them is a plain call in .text, of a key that holds a function, with another key beside it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.relocations import relocations_of
from ftpatch.sites.static_calls import SECTION, START, STOP, StaticCallTable, read_static_calls
from ftpatch.sites.static_pairs import read_pairs
from tools.planting import Edits, Plant, Subject

Make = Callable[[Subject], Plant | None]
NOP5 = bytes.fromhex("0f1f440000")
CALL, JMP = b"\xe8", b"\xe9"


@lru_cache(maxsize=2)
def table_of(subject: Subject) -> StaticCallTable | None:
    """The static calls of a file, where it has sites of them."""
    if subject.scan.arch.static_calls is None:
        return None
    table = read_static_calls(subject.scan.image)
    return table if len(table.calls) else None


def _rows(subject: Subject, kind: str = "call", own: bool | None = None) -> list[int]:
    """Entries of .text of that kind, from the middle on; own: whether the key is in this file."""
    table = table_of(subject)
    if table is None:
        return []
    calls, keys, image = table.calls, table.keys, table.image
    fits = np.array([one == kind for one in table.kinds()]) & np.isin(calls.sec, image.sections_named(".text"))
    if own is not None:
        fits &= (keys.sec[calls.key] >= 0) == own
    rows = np.flatnonzero(fits).tolist()
    return [*rows[len(rows) // 2 :], *rows[: len(rows) // 2]]


def with_site(plant: Callable[[Subject, int], Plant | None], kind: str = "call", own: bool | None = None) -> Make:
    """A defect of one entry, the first of that kind for which it can be."""

    def make(subject: Subject) -> Plant | None:
        found = (plant(subject, row) for row in _rows(subject, kind, own))
        return next((one for one in found if one is not None), None)

    return make


def _table(subject: Subject) -> StaticCallTable:
    table = table_of(subject)
    assert table is not None
    return table


def _rela(subject: Subject, sec: int, off: int) -> int:
    """Position of the relocation of a place of a relocatable file; −1 where there is none."""
    rows = relocations_of(subject.scan.image, sec)
    at = np.flatnonzero(rows.off == off)
    if not len(at):
        return -1
    return int(subject.scan.image.shdr["sh_offset"][int(rows.table[at[0]])]) + 24 * int(rows.row[at[0]])


def _entry_rela(subject: Subject, row: int, field: int) -> int:
    """Position of the relocation of an entry's field: 0 the site, 4 the key."""
    image = subject.scan.image
    (sec,) = image.sections_named(SECTION)
    return _rela(subject, sec, int(_table(subject).calls.entry[row]) - int(image.shdr["sh_offset"][sec]) + field)


def _moved(subject: Subject, row: int, field: int, by: int) -> Edits:
    """An entry's field that names a place so many bytes further on; flags are such bytes."""
    data, entry = subject.scan.image.data, int(_table(subject).calls.entry[row]) + field
    if subject.linked:
        (distance,) = struct.unpack("<i", data[entry : entry + 4].tobytes())
        return [(entry, struct.pack("<i", distance + by))]
    at = _entry_rela(subject, row, field)
    (addend,) = struct.unpack("<q", data[at + 16 : at + 24].tobytes())
    return [(at + 16, struct.pack("<q", addend + by))]


def _same_as(subject: Subject, row: int, other: int, *fields: int) -> Edits:
    """An entry's fields that name what another entry's do."""
    data, calls = subject.scan.image.data, _table(subject).calls
    edits: Edits = []
    for field in fields:
        if subject.linked:
            start = int(calls.entry[other]) + field
            (distance,) = struct.unpack("<i", data[start : start + 4].tobytes())
            distance += int(calls.entry[other] - calls.entry[row])
            edits.append((int(calls.entry[row]) + field, struct.pack("<i", distance)))
        else:
            start, at = _entry_rela(subject, other, field), _entry_rela(subject, row, field)
            edits.append((at + 8, data[start + 8 : start + 24].tobytes()))
    return edits


def _to(subject: Subject, row: int, field: int, sec: int, off: int) -> Edits:
    """An entry's field that names a place of the file."""
    image, calls = subject.scan.image, _table(subject).calls
    if subject.linked:
        here = int(subject.scan.image.symbols.value(START) or 0) + 8 * row + field
        return [(int(calls.entry[row]) + field, struct.pack("<i", int(image.base[sec]) + off - here))]
    symbol = subject.section_symbol(sec)
    at = _entry_rela(subject, row, field)
    info = int.from_bytes(image.data[at + 8 : at + 12].tobytes(), "little") | (symbol or 0) << 32
    return [(at + 8, struct.pack("<Qq", info, off))] if symbol is not None else []


def _site(subject: Subject, row: int) -> int:
    """File position of a site."""
    calls = _table(subject).calls
    return int(subject.scan.image.pos(calls.sec[row : row + 1], calls.off[row : row + 1])[0])


def _other(subject: Subject, row: int) -> int | None:
    """A call of another key."""
    calls = _table(subject).calls
    return next((one for one in _rows(subject) if calls.key[one] != calls.key[row]), None)


# -- the table and its entries -----------------------------------------------------------------------------------------


def table_ends(subject: Subject) -> Plant | None:
    if table_of(subject) is None:
        return None
    if subject.linked:
        return Plant(subject.value(STOP, (subject.scan.image.symbols.value(STOP) or 0) - 4))
    size = int(subject.scan.image.shdr["sh_size"][subject.scan.image.sections_named(SECTION)[0]])
    return Plant(subject.header(SECTION, 32, size - 4))


def place(subject: Subject, row: int) -> Plant | None:
    secs = subject.scan.image.sections_named(".rodata", ".data", ".rodata.str1.8")
    edits = next((edits for sec in secs if (edits := _to(subject, row, 0, sec, 0))), None)
    return Plant(edits) if edits else None


def place_end(subject: Subject, row: int) -> Plant | None:
    """The last three bytes of its section."""
    sec = int(_table(subject).calls.sec[row])
    edits = _to(subject, row, 0, sec, int(subject.scan.image.shdr["sh_size"][sec]) - 3)
    return Plant(edits) if edits else None


def place_none(subject: Subject, row: int) -> Plant | None:
    """A relocation that names no symbol."""
    return None if subject.linked else Plant([(_entry_rela(subject, row, 0) + 12, bytes(4))])


def twice(subject: Subject, row: int) -> Plant | None:
    other = _other(subject, row)
    return Plant(_same_as(subject, row, other, 0, 4)) if other is not None else None


def twice_apart(subject: Subject, row: int) -> Plant | None:
    """Two bytes behind another's instruction."""
    other = _other(subject, row)
    if other is None:
        return None
    calls = _table(subject).calls
    edits = _to(subject, row, 0, int(calls.sec[other]), int(calls.off[other]) + 2)
    return Plant(edits, also=("static-call-form",)) if edits else None


def key_behind(subject: Subject, row: int) -> Plant | None:
    return Plant(_moved(subject, row, 4, 8))


def key_readonly(subject: Subject, row: int) -> Plant | None:
    secs = subject.scan.image.sections_named(".rodata", ".rodata.str1.8")
    edits = next((edits for sec in secs if (edits := _to(subject, row, 4, sec, 0))), None)
    return Plant(edits) if edits else None


def key_trampoline(subject: Subject, row: int) -> Plant | None:
    table = _table(subject)
    sec, off = (int(column[table.calls.key[row]]) for column in table.trampolines)
    edits = _to(subject, row, 4, sec, off) if sec >= 0 else []
    return Plant(edits) if edits else None


def flag_tail(subject: Subject, row: int) -> Plant | None:
    return Plant(_moved(subject, row, 4, 1))


def flag_lost(subject: Subject, row: int) -> Plant | None:
    return Plant(_moved(subject, row, 4, -1))


def flag_init(subject: Subject, row: int) -> Plant | None:
    return Plant(_moved(subject, row, 4, 2))


# -- the instructions --------------------------------------------------------------------------------------------------


def opcode(subject: Subject, row: int) -> Plant | None:
    return Plant([(_site(subject, row), JMP)])


def form(subject: Subject, row: int) -> Plant | None:
    return Plant([(_site(subject, row), b"\x90")])


def form_beside(subject: Subject, row: int) -> Plant | None:
    return Plant(_moved(subject, row, 0, 1))


def nop(subject: Subject, row: int) -> Plant | None:
    return Plant([(_site(subject, row), NOP5)]) if subject.linked and _holds_function(subject, row) else None


def _holds_function(subject: Subject, row: int) -> bool:
    keys = _table(subject).keys
    return bool(keys.func.sec[_table(subject).calls.key[row]] >= 0)


def destination(subject: Subject, row: int) -> Plant | None:
    other = _other(subject, row)
    if other is None:
        return None
    data, here, there = subject.scan.image.data, _site(subject, row) + 1, _site(subject, other) + 1
    if subject.linked:
        (distance,) = struct.unpack("<i", data[there : there + 4].tobytes())
        return Plant([(here, struct.pack("<i", distance + there - here))])
    calls = _table(subject).calls
    at, source = (_rela(subject, int(calls.sec[one]), int(calls.off[one]) + 1) for one in (row, other))
    return Plant([(at + 8, data[source + 8 : source + 24].tobytes())])


def destination_key(subject: Subject, row: int) -> Plant | None:
    """The entry names the key of another call."""
    other = _other(subject, row)
    return Plant(_same_as(subject, row, other, 4)) if other is not None else None


def shared(subject: Subject, row: int) -> Plant | None:
    """The entry names a site of the function tracer."""
    site, sites = subject.plain[0], subject.scan.sites
    edits = _to(subject, row, 0, int(sites.sec[site]), int(sites.off[site] + sites.site[site]))
    return Plant(edits, also=("static-call-destination", "static-call-form")) if edits else None


# -- keys and trampolines ----------------------------------------------------------------------------------------------


def with_key(plant: Callable[[Subject, int], Plant | None]) -> Make:
    """A defect of a key of the file that holds a function, the first for which it can be."""

    def make(subject: Subject) -> Plant | None:
        table = table_of(subject)
        if table is None:
            return None
        rows = np.flatnonzero((table.keys.func.sec >= 0) & (table.trampolines[0] >= 0)).tolist()
        return next((found for row in rows if (found := plant(subject, row)) is not None), None)

    return make


def _trampoline(subject: Subject, row: int) -> int:
    """File position of a key's trampoline."""
    sec, off = (column[row : row + 1] for column in _table(subject).trampolines)
    return int(subject.scan.image.pos(sec, off)[0])


def _name(subject: Subject, symbol: int) -> Edits:
    """A symbol of another name, by one letter of its prefix."""
    image = subject.scan.image
    (tab,) = np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB)[:1]
    low = int(image.shdr["sh_offset"][int(image.shdr["sh_link"][tab])])
    return [(low + int(image.symbols.rows["st_name"][symbol]) + 4, b"X")]


def trampoline(subject: Subject, row: int) -> Plant | None:
    return Plant(_name(subject, int(_table(subject).keys.trampoline[row])))


def trampoline_key(subject: Subject, row: int) -> Plant | None:
    also = ("static-call-key", "static-call-pair") if subject.vmlinux else ("static-call-key",)
    return Plant(_name(subject, int(_table(subject).keys.symbol[row])), also=also)


def signature(subject: Subject, row: int) -> Plant | None:
    forms = subject.scan.arch.static_calls
    assert forms is not None
    return Plant([(_trampoline(subject, row) + forms.signature_at, b"\x90")], also=("redirected",))


def signature_jump(subject: Subject, row: int) -> Plant | None:
    return Plant([(_trampoline(subject, row), CALL)])


def _another(subject: Subject, row: int) -> int | None:
    """A key with another function."""
    keys = _table(subject).keys
    rows = np.flatnonzero((keys.func.sec >= 0) & (keys.func.off != keys.func.off[row])).tolist()
    return next((one for one in rows if _table(subject).trampolines[0][one] >= 0), None)


def function(subject: Subject, row: int) -> Plant | None:
    """The key holds the function of another."""
    other, keys, data = _another(subject, row), _table(subject).keys, subject.scan.image.data
    if other is None:
        return None
    here, there = (int(subject.scan.image.pos(keys.sec[[one]], keys.off[[one]])[0]) for one in (row, other))
    if subject.linked:
        return Plant([(here, data[there : there + 8].tobytes())])
    at, source = (_rela(subject, int(keys.sec[one]), int(keys.off[one])) for one in (row, other))
    return Plant([(at + 8, data[source + 8 : source + 24].tobytes())])


def function_null(subject: Subject, row: int) -> Plant | None:
    keys = _table(subject).keys
    if subject.linked:
        return Plant([(int(subject.scan.image.pos(keys.sec[[row]], keys.off[[row]])[0]), bytes(8))])
    return None


def function_nowhere(subject: Subject, row: int) -> Plant | None:
    """The key holds what is no address."""
    keys = _table(subject).keys
    return Plant([(int(subject.scan.image.pos(keys.sec[[row]], keys.off[[row]])[0]) + 7, b"\x12")]) \
        if subject.linked else None  # fmt: skip


def function_trampoline(subject: Subject, row: int) -> Plant | None:
    """The trampoline jumps to the function of another."""
    other, data = _another(subject, row), subject.scan.image.data
    if other is None:
        return None
    here, there = _trampoline(subject, row) + 1, _trampoline(subject, other) + 1
    if subject.linked:
        (distance,) = struct.unpack("<i", data[there : there + 4].tobytes())
        return Plant([(here, struct.pack("<i", distance + there - here))])
    sec, off = (column.tolist() for column in _table(subject).trampolines)
    at, source = (_rela(subject, sec[one], off[one] + 1) for one in (row, other))
    return Plant([(at + 8, data[source + 8 : source + 24].tobytes())])


def pair_key(subject: Subject) -> Plant | None:
    return _pair(subject, 4, 16)


def pair_trampoline(subject: Subject) -> Plant | None:
    return _pair(subject, 0, 4)


def _pair(subject: Subject, field: int, by: int) -> Plant | None:
    """A pair of trampoline and key with one of them elsewhere."""
    start = subject.scan.image.symbols.value("__start_static_call_tramp_key") if subject.vmlinux else None
    if start is None or not len(read_pairs(subject.scan.image).key):
        return None
    at = subject.pos(start) + field
    (distance,) = struct.unpack("<i", subject.scan.image.data[at : at + 4].tobytes())
    return Plant([(at, struct.pack("<i", distance + by))])


def pair_missing(subject: Subject) -> Plant | None:
    """A module's entry names a trampoline that the kernel has no pair of."""
    table = table_of(subject)
    if table is None or subject.scan.image.kind != "module":
        return None
    keys, calls = table.keys, table.calls
    away = (keys.sec < 0) & (keys.symbol >= 0) & (keys.trampoline >= 0)
    row = next((row for row in _rows(subject, own=False) if away[calls.key[row]]), None)
    if row is None:
        return None
    at, symbol = _entry_rela(subject, row, 4), int(keys.trampoline[calls.key[row]])
    return Plant([(at + 12, struct.pack("<I", symbol))])


DEFECTS: dict[str, Make] = {
    "static-call-table": table_ends,
    "static-call-place": with_site(place), "static-call-place/end": with_site(place_end),
    "static-call-place/none": with_site(place_none),
    "static-call-key": with_site(key_behind), "static-call-key/readonly": with_site(key_readonly),
    "static-call-key/trampoline": with_site(key_trampoline),
    "static-call-form": with_site(form), "static-call-form/beside": with_site(form_beside),
    "static-call-flag": with_site(flag_tail), "static-call-flag/jump": with_site(flag_lost, "tail"),
    "static-call-flag/opcode": with_site(opcode), "static-call-flag/init": with_site(flag_init),
    "static-call-destination": with_site(destination), "static-call-destination/key": with_site(destination_key),
    "static-call-destination/nop": with_site(nop, own=True),
    "static-call-twice": with_site(twice), "static-call-twice/apart": with_site(twice_apart),
    "site-shared/static-call": with_site(shared),
    "static-call-trampoline": with_key(trampoline), "static-call-trampoline/key": with_key(trampoline_key),
    "static-call-signature": with_key(signature), "static-call-signature/jump": with_key(signature_jump),
    "static-call-function": with_key(function), "static-call-function/null": with_key(function_null),
    "static-call-function/nowhere": with_key(function_nowhere),
    "static-call-function/trampoline": with_key(function_trampoline),
    "static-call-pair": pair_key, "static-call-pair/trampoline": pair_trampoline,
    "static-call-pair/missing": pair_missing,
}  # fmt: skip
