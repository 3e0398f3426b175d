"""What the tables of a module that list code say of the code that a patch brought along.

    .return_sites, .call_sites      every such instruction of the stub, and no other
    .orc_unwind_ip, .orc_unwind     from each instruction on, where a stack walk finds the caller: what is said must be
                                    true of every instruction, which is found out by walking through the code

What was in a table is in front, as it was. Nothing is asked of modules whose kernel was built without such tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ftpatch.arch.proof_tables import CodeTables, Walked
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.kernel.modinfo import section_of
from ftpatch.proof.case import Case
from ftpatch.proof.decoders import starts
from ftpatch.proof.module_code import Calls, Place
from ftpatch.proof.module_symbols import INIT_TEXT, TEXT, code_table_sections, plain

ROW = 4  # bytes of a distance
Spot = tuple[int, int]  # section, offset


@dataclass(frozen=True)
class Piece:
    """Code that calls a hook, with the padding in front of it."""

    sec: int
    start: int  # of the padding
    entry: int
    end: int
    sites: list[Spot]  # that call it; of one that nothing calls any more, any other


def check_code_tables(calls: Calls) -> None:
    """Findings for what the tables do not say of the patch's code, or say and is not so."""
    case, tables = calls.case, calls.case.tables.code_tables
    if tables is None or not (sections := code_table_sections(case)):
        return
    pieces = list(_pieces(calls))
    for name in tables.lists:
        if section_of(case.before.image, name) in sections:
            _check_list(calls, tables, name, pieces)
    if section_of(case.before.image, tables.places) in sections:
        _check_walks(calls, tables, pieces)


def _pieces(calls: Calls) -> Iterator[Piece]:
    """Every stub that calls a hook, also of earlier patches."""
    image, before = calls.image, calls.case.before.image
    pairs, sites = calls.pairs, dict[Spot, list[Spot]]()
    for site, to in calls.entered.items():
        sites.setdefault(to, []).append(site)
    other = list(zip(pairs.sec[:1].tolist(), pairs.off[:1].tolist(), strict=True))
    for row in range(len(before.symbols.rows), len(image.symbols.rows)):
        sec, entry = int(image.symbols.shndx[row]), int(image.symbols.rows["st_value"][row])
        ours = sec >= len(before.shdr) and plain(image.names[sec]) in (TEXT, INIT_TEXT)
        if ours and calls.kind_of(Place(row, sec, entry)) == "hook":
            size = calls.hook.unit * len(calls.hook_code)
            yield Piece(sec, entry - calls.hook.entry, entry, entry + size, sites.get((sec, entry), other))


def _new_places(case: Case, sec: int) -> tuple[list[Spot], bool]:
    """What the new rows of a table name, row by row, and whether each row has its one relocation and nothing else."""
    image, old = case.after.image, int(case.before.image.shdr["sh_size"][sec])
    rows, symbols, tables = relocations_of(image, sec), image.symbols, case.tables.code_tables
    assert tables is not None
    new = rows.off >= old
    n, rest = divmod(int(image.shdr["sh_size"][sec]) - old, ROW)
    right = not rest and np.array_equal(rows.off[new], old + ROW * np.arange(n))
    right &= bool((rows.kind[new] == tables.kind).all()) and not image.content(sec)[old:].any()
    places = []
    columns = (column[new].tolist() for column in (rows.table, rows.row, rows.symbol))
    for table, row, symbol in zip(*columns, strict=True):
        off = int(symbols.rows["st_value"][symbol]) + int(image.rows(table, t.RELA)["r_addend"][row])
        places.append((int(symbols.shndx[symbol]), off))
    return places, right


def _check_list(calls: Calls, tables: CodeTables, name: str, pieces: Iterable[Piece]) -> None:
    """Rows for the instructions that must be listed."""
    case, image = calls.case, calls.image
    sec = section_of(case.before.image, name)
    places, right = _new_places(case, sec)
    wanted = []
    for piece in pieces:
        code = calls.words(piece.sec, piece.entry, piece.end - piece.entry)
        for off in (piece.entry + starts(case.arch, code)).tolist():
            named = calls.named_at(piece.sec, off, case.arch.call.size)
            symbol = image.symbols.name(named[0][2].symbol) if named else ""
            if tables.lists[name](int(code[off - piece.entry]), symbol):
                wanted.append((piece.sec, off))
    if not right or sorted(places) != sorted(wanted):
        lost, more = (sorted(set(one) - set(other)) for one, other in ((wanted, places), (places, wanted)))
        shown = [f"{image.names[sec]}+{off:#x}" for sec, off in (*lost, *more)][:3]
        what = "does not name" if lost else "names" if more else "has rows that are not one distance each"
        case.say("verify-section", f"{name} {what} {', '.join(shown)}".strip(), sec=sec,
                 off=int(case.before.image.shdr["sh_size"][sec]))  # fmt: skip


def _check_walks(calls: Calls, tables: CodeTables, pieces: list[Piece]) -> None:
    """Rows for stack walks."""
    case = calls.case
    places, right = _new_places(case, section_of(case.before.image, tables.places))
    sec = section_of(case.before.image, tables.rows)
    old, content = (side.image.content(sec).tobytes() if sec >= 0 else b"" for side in (case.before, case.after))
    added = [content[at : at + tables.size] for at in range(len(old), len(content), tables.size)]
    if not right or len(added) != len(places) or (added and len(added[-1]) != tables.size):
        case.say("verify-section", f"{tables.rows} gained {len(content) - len(old)} bytes for {len(places)} rows of "
                 f"{tables.places}", sec=sec, off=len(old))  # fmt: skip
        return
    rows = dict(zip(places, added, strict=True))
    explained = set[Spot]()
    for piece in pieces:
        kinds = _kinds(case.before.image, tables, piece.sites)
        here = range(piece.start, piece.end + 1)
        mine = {(at, off): row for (at, off), row in rows.items() if at == piece.sec and off in here}
        explained |= set(mine)
        unknown = b"" in kinds and not mine
        why = "" if unknown else _wrong_walk(calls, tables, piece, dict(mine), kinds)
        if not unknown and (why := why or _other_rows(calls, tables, piece, mine, kinds)):
            case.say("verify-section", f"{tables.places}: {calls.image.names[piece.sec]}+{piece.entry:#x} {why}",
                     sec=sec, off=len(old))  # fmt: skip
    for place in sorted(set(rows) - explained):
        case.say("verify-section", f"{tables.places} names {calls.image.names[place[0]]}+{place[1]:#x}, where no code "
                 "of the patch is", sec=sec, off=len(old))  # fmt: skip
    if len(rows) != len(places):
        case.say("verify-section", f"{tables.places} names a place twice", sec=sec, off=len(old))


def _wrong_walk(calls: Calls, tables: CodeTables, piece: Piece, rows: dict[Spot, bytes], kinds: set[bytes]) -> str:
    """Why rows do not tell the truth of a piece of code; empty where they do."""
    content = calls.image.content(piece.sec)[piece.start : piece.end].tobytes()
    walked = tables.walk(content)
    if walked is None:
        return "has code that no stack walk was followed through"
    row: bytes | None = None
    for is_true in walked:
        row = rows.pop((piece.sec, piece.start + is_true.off), row)
        why = _untrue(tables, row, is_true, kinds)
        if why:
            return f"{why} at {piece.start + is_true.off:#x}"
    last = rows.pop((piece.sec, piece.end), None)
    if last is None or any(last):
        return "has no row that ends it"
    return f"has a row inside an instruction, at {min(rows)[1]:#x}" if rows else ""


def _other_rows(calls: Calls, tables: CodeTables, piece: Piece, rows: dict[Spot, bytes], kinds: set[bytes]) -> str:
    """Whether true rows are others than those that the stub is known to bring along."""
    unwind = calls.modules.unwind
    assert unwind is not None
    for kind in kinds:
        known = {
            (piece.sec, piece.start + frame.off): unwind.row(frame, tables.first + kind) for frame in calls.hook.frames
        }
        if known == rows:
            return ""
    return "has other rows than such a stub brings along"


def _untrue(tables: CodeTables, row: bytes | None, is_true: Walked, kinds: set[bytes]) -> str:
    if row is None:
        return "has no row"
    if row[len(tables.first) :] not in kinds:
        return "has a row of another kind than functions have"
    return "" if tables.tells(row, is_true) else "has a row that is not true"


def _kinds(image: Image, tables: CodeTables, sites: list[Spot]) -> set[bytes]:
    """The kinds of the rows that are true of some sites; one is empty where the tables are not understood."""
    places, rows = section_of(image, tables.places), section_of(image, tables.rows)
    content = image.content(rows) if rows >= 0 else np.zeros(0, np.uint8)
    n = int(image.shdr["sh_size"][places]) // ROW
    relocations, symbols = relocations_of(image, places), image.symbols
    table = np.unique(relocations.table)
    in_order = np.array_equal(relocations.off, ROW * np.arange(n))
    if len(content) != n * tables.size or len(table) != 1 or not in_order:
        return {b""}
    off = symbols.rows["st_value"][relocations.symbol].astype(np.int64)
    off += image.rows(int(table[0]), t.RELA)["r_addend"][relocations.row]
    key = symbols.shndx[relocations.symbol].astype(np.int64) << 40 | off
    order = np.argsort(key, kind="stable")
    wanted = np.array([sec << 40 | off for sec, off in sites], dtype=np.int64)
    at = order[np.maximum(np.searchsorted(key[order], wanted, side="right") - 1, 0)]
    known = (key[at] <= wanted) & (key[at] >> 40 == wanted >> 40)
    found = {row.tobytes() for row in content.reshape(n, tables.size)[at[known]]}
    first = len(tables.first)
    return {row[first:] if row.startswith(tables.first) else b"" for row in found} | (set() if known.all() else {b""})
