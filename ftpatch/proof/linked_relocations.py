"""The relocations of what came along in an object: of types that the loader applies, and of nothing that is freed."""

from __future__ import annotations

import numpy as np

from ftpatch.arch.proof_tables import CALL, NONE, KeptEntry
from ftpatch.arrays import Rows
from ftpatch.elf import tables as t
from ftpatch.proof.case import REDIRECTED, Case, Pairs
from ftpatch.proof.linked import ORIGINALS

TABLES_OF_INIT = ("__ex_table", "__jump_table", ".altinstructions", "__bug_table")  # the loader minds what is freed


def check_table(case: Case, sec: int, target: int, rows: Rows) -> None:
    """Findings for the relocations of one section that came along, or of a table of the module that is longer now."""
    old = case.before.image
    kept = old.rows(sec, t.RELA) if sec < len(old.shdr) else rows[:0]
    if not np.array_equal(rows[: len(kept)], kept):
        row = int(np.argmax(rows[: len(kept)] != kept[: len(rows)])) if len(rows) else 0
        _say(case, sec, row, "is not what it was")
        return
    case.kinds["relocation added"] += len(rows) - len(kept)
    for row in range(len(kept), len(rows)):
        if why := _wrong(case, target, rows[row]):
            _say(case, sec, row, why)


def _wrong(case: Case, target: int, row: Rows) -> str:
    """Why a relocation is none that an object's may have become; empty where it may."""
    image, tables = case.after.image, case.tables
    off, kind, symbol = int(row["r_offset"]), int(row["r_info"]) & 0xFFFF_FFFF, int(row["r_info"]) >> 32
    size = 8 if kind in case.arch.wide else 4
    if kind not in (*tables.apply, *tables.also_applied):
        return f"has type {kind}, which the loader does not apply"
    if off < case.linked.grown.get(target, 0) or off + size > int(image.shdr["sh_size"][target]):
        return f"writes at {off:#x}, which is not in what came along"
    sec, name, there = int(image.symbols.shndx[symbol]), image.names[target], ""
    if sec > 0:
        there = image.names[sec]
    if there.startswith(".init") and not name.startswith(".init") and name not in TABLES_OF_INIT:
        return f"names {image.symbols.name(symbol)} in {there}, which is freed with init memory, and {name} stays"
    if not tables.module_toc or image.symbols.name(symbol) in {shape.called for shape in case.arch.shapes}:
        return ""  # a patch site's own call keeps the TOC pointer, as the loader knows
    return _wrong_call(case, target, off, sec, kind)


def _wrong_call(case: Case, target: int, off: int, to: int, kind: int) -> str:
    """Why a branch to another file loses the TOC pointer of its caller; empty where it keeps it."""
    image, tables = case.after.image, case.tables
    if to != t.SHN_UNDEF or kind not in (case.modules.branch, *case.arch.loader.calls):
        return ""
    words = image.words(np.array([target]), np.array([off]), 0, 2)
    (called,) = tables.branches(words[0, :1])[0].tolist()
    if called == NONE:
        return "is on no branch"
    if called != CALL:
        return "is a jump to another file, which leaves the caller with another TOC pointer"
    return "" if int(words[0, 1]) == tables.nop else "is a call of another file without a nop behind it"


def check_originals(case: Case, pairs: Pairs | None) -> None:
    """Findings for entries to old functions that are none, or that lead to a function which is not redirected."""
    image = case.after.image
    for sec in sorted(case.linked.sections):
        if not ORIGINALS.fullmatch(image.names[sec]):
            continue
        symbols = image.symbols
        here = np.flatnonzero(symbols.shndx == sec).tolist()
        rows = sorted((int(symbols.rows["st_value"][row]), row) for row in here)
        end = 0
        for value, row in rows:
            why, begin = _wrong_entry(case, pairs, sec, row)
            if why or begin != end + 7 & ~7:
                text = why or f"begins at {begin:#x}, behind bytes that belong to nothing"
                case.say("verify-stub", f"{image.names[sec]}: {symbols.name(row)} {text}", sec=sec, off=value)
                return
            end = value + int(symbols.rows["st_size"][row])
        if end != int(image.shdr["sh_size"][sec]):
            case.say("verify-stub", f"{image.names[sec]}: bytes at the end belong to no entry", sec=sec, off=end)


def _wrong_entry(case: Case, pairs: Pairs | None, sec: int, row: int) -> tuple[str, int]:
    """(why a symbol is no entry to an old function, first byte of what belongs to it)."""
    image, symbols, tables = case.after.image, case.after.image.symbols, case.tables
    value, size = (int(symbols.rows[field][row]) for field in ("st_value", "st_size"))
    words = image.words(np.array([sec]), np.array([value]), 0, size // 4)[0].tolist()
    local = case.arch.local_entry
    two = local is not None and bool(local(symbols.rows["st_other"][row : row + 1])[0])
    entry = tables.kept_entries[two] if two < len(tables.kept_entries) else KeptEntry(())
    front = words[len(entry.words) : -1]
    if size % 4 or not words or tuple(words[: len(entry.words)]) != entry.words or words[-1] != tables.jump:
        return "is not the code of an entry", value
    if tuple(front) != entry.front[: len(front)]:
        return f"has {front[0]:#010x} in front of its jump", value
    begin = value + (entry.toc[1] if entry.toc else 0)
    wanted = [(begin, entry.toc[0])] if entry.toc else []
    jump = value + size - 4
    there = _named(case, sec, begin, value + size)
    if [(off, kind) for off, kind, *_ in there] != [*wanted, (jump, tables.jump_type)]:
        return "has other relocations than an entry", begin
    if entry.toc and (symbols.name(there[0][2]) != case.modules.toc or there[0][3] != entry.toc[2]
                      or image.content(sec)[begin:value].any()):  # fmt: skip
        return "does not find the module's TOC pointer", begin
    symbol, addend = there[-1][2:]
    place = int(symbols.shndx[symbol]), int(symbols.rows["st_value"][symbol]) + addend - 4
    return (
        "" if place in _sites(case, pairs, row) else "leads to no place behind the site of a redirected function"
    ), begin


def _sites(case: Case, pairs: Pairs | None, row: int) -> set[tuple[int, int]]:
    """(section, offset) of the sites that an entry may lead behind: redirected ones; what an earlier patch left may be
    of any, as its function may have been given back."""
    if pairs is None:
        return set()
    may = (pairs.new == REDIRECTED) | (row < case.last_symbol)
    return set(zip(pairs.sec[may].tolist(), pairs.off[may].tolist(), strict=True))


def _named(case: Case, sec: int, low: int, high: int) -> list[tuple[int, int, int, int]]:
    """(offset, type, symbol, addend) of the relocations between two offsets of a section."""
    image = case.after.image
    found = []
    for table in image.rela_tables.get(sec, []):
        for row in image.rows(table, t.RELA):
            if low <= int(row["r_offset"]) < high:
                info = int(row["r_info"])
                found.append((int(row["r_offset"]), info & 0xFFFF_FFFF, info >> 32, int(row["r_addend"])))
    return sorted(found)


def _say(case: Case, sec: int, row: int, what: str) -> None:
    case.say("verify-relocation", f"{case.after.image.names[sec]} row {row} {what}", row=row, sec=sec,
             off=row * t.RELA.itemsize)  # fmt: skip
