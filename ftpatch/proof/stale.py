"""What earlier patches left in a module: tables that moved on since, and the ends of those that became shorter.

Nobody reads these bytes any more; but each must be one that a patch can have written, so that nothing else hides there.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import U8, Mask, Rows
from ftpatch.elf import tables as t
from ftpatch.elf.relocations import relocations_of
from ftpatch.proof.case import Case, Pairs
from ftpatch.proof.module_metadata import CRCS, DEPENDS, MODINFO, NAMES, VERSIONS, with_depends
from ftpatch.proof.module_relocations import of_static_calls
from ftpatch.proof.module_symbols import STUB, code_table_sections
from ftpatch.proof.redirects import function_at
from ftpatch.proof.steps import Step
from ftpatch.sites.records import SLOT, record_names

TYPE = np.uint64(0xFFFF_FFFF)
GROW_BEHIND = (VERSIONS, CRCS, NAMES)  # tables that only gain rows behind those that they have


def check_stale(case: Case, pairs: Pairs | None) -> None:
    """Findings for what no patch can have left; the rest may differ from the first file."""
    heads = case.before.image.shdr
    for sec in range(len(heads)) if len(case.steps) > 1 else ():
        width = _row_size(case, sec)
        if width is None:
            continue
        start, n = int(heads["sh_offset"][sec]), int(heads["sh_size"][sec]) // width
        content = case.after.image.data[start : start + n * width]
        legal = _legal_rows(case, pairs, sec, content)
        case.account_for("earlier patch", start + width * np.flatnonzero(legal), width)
    for step in case.steps:
        for sec in step.moved:
            if sec < len(case.after.image.shdr):  # else no step goes on from there, which is told
                _check_copy(case, pairs, step, sec)


def _row_size(case: Case, sec: int) -> int | None:
    """Bytes of a row of a table that a patch may shorten; None where it is none."""
    image = case.before.image
    if image.shdr["sh_type"][sec] == t.SHT_RELA:
        return t.RELA.itemsize
    return SLOT if image.names[sec] in record_names(image) and image.has_bytes[sec] else None


def _check_copy(case: Case, pairs: Pairs | None, step: Step, sec: int) -> None:
    """A section as an earlier patch left it."""
    image = case.after.image
    pos, size = (int(step.shdr[field][sec]) for field in ("sh_offset", "sh_size"))
    if pos == int(image.shdr["sh_offset"][sec]):  # it is in use, but for what it lost since
        pos, size = pos + int(image.shdr["sh_size"][sec]), size - int(image.shdr["sh_size"][sec])
    if size <= 0:
        return
    content, right = image.data[pos : pos + size], False
    kind = int(image.shdr["sh_type"][sec])
    width = _row_size(case, sec) if sec < len(case.before.image.shdr) else None
    if _came_along(case, sec):
        right = _begins(image.content(sec), content)
    elif width is not None:
        right = size % width == 0 and bool(_legal_rows(case, pairs, sec, content).all())
    elif kind in (t.SHT_SYMTAB, t.SHT_SYMTAB_SHNDX) or sec in case.strings or _gains_rows(case, sec):
        right = _begins(image.content(sec), content)
    elif image.names[sec] == MODINFO:
        right = _is_modinfo(case, sec, content.tobytes())
    if not right:
        text = f"{size} bytes at file position {pos:#x} are no {image.names[sec]} that an earlier patch can have left"
        case.say("verify-byte", text, pos=pos)


def _gains_rows(case: Case, sec: int) -> bool:
    """Whether it is a table that only gains rows behind those that it has."""
    return case.after.image.names[sec] in GROW_BEHIND or sec in code_table_sections(case)


def _came_along(case: Case, sec: int) -> bool:
    """Whether a section came along in an object, or grew by it; or is the table of relocations of one that did, or of
    one that lists code."""
    image = case.after.image
    of = int(image.shdr["sh_info"][sec]) if image.shdr["sh_type"][sec] == t.SHT_RELA else sec
    mine = of != sec and of in code_table_sections(case)
    return mine or of in case.linked.sections or of in case.linked.grown


def _begins(whole: U8, part: U8) -> bool:
    return len(part) <= len(whole) and bool(np.array_equal(whole[: len(part)], part))


def _is_modinfo(case: Case, sec: int, content: bytes) -> bool:
    """Whether it is the first file's with some of the names in `depends=` that there are now."""
    text = next((text for text in content.split(b"\0") if text.startswith(DEPENDS)), DEPENDS)
    now = next((text for text in case.after.image.content(sec).tobytes().split(b"\0") if text.startswith(DEPENDS)), b"")
    return content == with_depends(case.before.image.content(sec).tobytes(), text) and f"{now.decode()},".startswith(
        f"{text.decode(errors='replace')}," if text != DEPENDS else DEPENDS.decode()
    )


def _legal_rows(case: Case, pairs: Pairs | None, sec: int, content: U8) -> Mask:
    """Which rows of a table of relocations, or of records, a patch can have written there."""
    image = case.before.image
    if image.names[sec] in record_names(image):
        words = image.content(sec)[: image.content(sec).size // SLOT * SLOT].view("<u8")
        return np.asarray(np.isin(content[: len(content) // SLOT * SLOT].view("<u8"), np.append(words, np.uint64(0))))
    rows, old = content[: len(content) // t.RELA.itemsize * t.RELA.itemsize].view(t.RELA), image.rows(sec, t.RELA)
    target = int(image.shdr["sh_info"][sec])
    check = _of_records if target < len(image.names) and image.names[target] in record_names(image) else _of_sites
    raw = np.dtype((np.void, t.RELA.itemsize))
    known = np.isin(np.ascontiguousarray(rows).view(raw), np.ascontiguousarray(old).view(raw))
    return np.asarray(known | check(case, pairs, target, rows, old) | of_static_calls(case, target, rows))


def _of_records(case: Case, pairs: Pairs | None, target: int, rows: Rows, old: Rows) -> Mask:
    """Relocations of records: one that was there at another slot, or one that came back."""
    symbols = case.after.image.symbols
    symbol = (rows["r_info"] >> np.uint64(32)).astype(np.int64)
    inside = symbol < len(symbols.rows)
    sec = np.where(inside, symbols.shndx[np.where(inside, symbol, 0)], -1)
    known = set(zip(old["r_info"].tolist(), old["r_addend"].tolist(), strict=True))
    said = zip(rows["r_info"].tolist(), rows["r_addend"].tolist(), strict=True)
    was = np.array([row in known for row in said], dtype=bool)
    was |= np.isin(sec, sorted(case.linked.sections)) & inside & ((rows["r_info"] & TYPE) == case.arch.abs64)
    if pairs is not None:
        place = pairs.sec << 40 | pairs.record
        back = np.isin(sec << 40 | rows["r_addend"], place) & ((rows["r_info"] & TYPE) == case.arch.abs64)
        was |= back & inside & (symbols.type[np.where(inside, symbol, 0)] == t.STT_SECTION)
    size = max(int(heads["sh_size"][target]) for heads in (case.before.image.shdr, *(step.shdr for step in case.steps)))
    return np.asarray(was & (rows["r_offset"] % np.uint64(SLOT) == 0) & (rows["r_offset"] < np.uint64(size)))


def _of_sites(case: Case, pairs: Pairs | None, target: int, rows: Rows, old: Rows) -> Mask:
    """Relocations of sites' calls and ops pointers, to symbols that a patch added."""
    if pairs is None:
        return np.zeros(len(rows), dtype=bool)
    here, kind = pairs.sec == target, rows["r_info"] & TYPE
    hit = np.isin(rows["r_offset"], pairs.field_off[here].view(np.uint64)) & (kind == case.modules.branch)
    if pairs.shape.literal is not None:
        literal = (pairs.record[here] + pairs.shape.literal).view(np.uint64)
        hit |= np.isin(rows["r_offset"], literal) & (kind == case.arch.abs64)
    image, symbol = case.after.image, (rows["r_info"] >> np.uint64(32)).astype(np.int64)
    hit &= (symbol >= len(case.before.image.symbols.rows)) & (symbol < len(image.symbols.rows))
    jumps = np.isin(rows["r_offset"], pairs.off[here].view(np.uint64)) & (kind == case.tables.jump_type)
    jumps &= symbol < len(image.symbols.rows)
    for row in np.flatnonzero(hit | jumps).tolist():
        place = target, int(rows["r_offset"][row]) + 4
        to = int(symbol[row]), int(rows["r_addend"][row]) + case.tables.branch_field[1]
        call = hit[row] and (
            _leads_back(case, to, place) if pairs.shape.out_of_line else 0 <= to[1] < 1 << 32 and not to[1] % 8
        )
        hit[row] = call or (jumps[row] and _leads_to_function(case, to))
    return np.asarray(hit)


def _leads_to_function(case: Case, to: tuple[int, int]) -> bool:
    """Whether the jump of a redirected function may have gone to a symbol and addend."""
    image, symbols, name = case.after.image, case.after.image.symbols, case.after.image.symbols.name(to[0])
    sec, value = int(symbols.shndx[to[0]]), int(symbols.rows["st_value"][to[0]])
    if to[1] or not name or sec < 0 or symbols.type[to[0]] == t.STT_SECTION:
        return False
    stub = name.startswith(STUB) and sec >= len(case.before.image.shdr)
    return not sec or stub or function_at(image, int(image.base[sec]) + value) is not None


def _leads_back(case: Case, to: tuple[int, int], place: tuple[int, int]) -> bool:
    """Whether the stub at a symbol and addend is that of the site in front of a place: its last branch goes there."""
    image, symbols = case.after.image, case.after.image.symbols
    sec, off = int(symbols.shndx[to[0]]), int(symbols.rows["st_value"][to[0]]) + to[1] + 12
    if sec <= 0:
        return False
    rows = relocations_of(image, sec)
    low, high = np.searchsorted(rows.off, [off, off + 1])
    if high - low != 1:
        return False
    symbol, table, row = (int(column[low]) for column in (rows.symbol, rows.table, rows.row))
    addend = int(image.rows(table, t.RELA)["r_addend"][row])
    return (int(symbols.shndx[symbol]), int(symbols.rows["st_value"][symbol]) + addend) == place
