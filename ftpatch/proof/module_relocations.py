"""The relocations of a module: the old ones as they were, new ones only where a site was patched."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ftpatch.arrays import Mask, Rows, is_in
from ftpatch.elf import tables as t
from ftpatch.proof import linked_relocations
from ftpatch.proof.case import NEW, OLD, REDIRECTED, RETIRED, Case, Pairs
from ftpatch.proof.module_symbols import DATA, INIT_TEXT, TEXT, code_table_sections, plain
from ftpatch.sites.records import record_names

TYPE = np.uint64(0xFFFF_FFFF)


def check_relocations(case: Case, pairs: Pairs | None) -> None:
    """Findings for every row that is lost, changed or added without a reason."""
    old, new = case.before.image, case.after.image
    n = len(old.shdr)
    for sec in np.flatnonzero(new.shdr["sh_type"] == t.SHT_RELA).tolist():
        target = int(new.shdr["sh_info"][sec])
        rows = new.rows(sec, t.RELA)
        before = old.rows(sec, t.RELA) if sec < n and old.shdr["sh_type"][sec] == t.SHT_RELA else rows[:0]
        if len(rows) and int((rows["r_info"] >> np.uint64(32)).max()) >= len(new.symbols.rows):
            case.say("verify-relocation", f"{new.names[sec]} names a symbol that is not there", sec=sec)
        elif target >= len(new.shdr):
            case.say("verify-section", f"{new.names[sec]} is about no section of the file", sec=sec)
        elif target in case.linked.sections or target in case.linked.grown:
            linked_relocations.check_table(case, sec, target, rows)
        elif target >= n:
            _check_own(case, sec, target, rows)
        elif target < n and old.names[target] in record_names(old):
            _check_records(case, sec, before, rows)
        else:
            _check_table(case, pairs, sec, target, before, rows)


def _account_for_rows(case: Case, sec: int, n: int) -> None:
    """The rows of a table that did not move may differ: every one of them was looked at."""
    old, new = case.before.image.shdr, case.after.image.shdr
    if sec < len(old) and old["sh_offset"][sec] == new["sh_offset"][sec]:
        start = int(old["sh_offset"][sec])
        case.account_for("relocation", start + t.RELA.itemsize * np.arange(n, dtype=np.int64), t.RELA.itemsize)


def _check_table(case: Case, pairs: Pairs | None, sec: int, target: int, old: Rows, new: Rows) -> None:
    kept = old[~_of_sites(pairs, "left", target, old)]
    if len(new) < len(kept):
        case.say("verify-relocation", f"{case.after.image.names[sec]} has {len(new)} rows, at least {len(kept)} stay",
                 sec=sec)  # fmt: skip
        return
    may = _of_sites(pairs, "patched", target, new)
    stay = new[: len(kept)]
    called = pairs is not None and bool(pairs.shape.called)
    kind = kept["r_info"] & TYPE
    same_place = stay["r_offset"] == kept["r_offset"]
    same_place &= ((stay["r_info"] & TYPE) == kind) | is_in(kind, case.modules.calls)
    static = of_static_calls(case, target, new)
    retargeted = same_place & (may | _given_back(pairs, target, new))[: len(kept)] & called
    retargeted |= static[: len(kept)] & (stay["r_offset"] == kept["r_offset"])
    for row in np.flatnonzero((stay != kept) & ~retargeted).tolist():
        _say(case, sec, row, f"{_text(case, kept[row])} became {_text(case, stay[row])}")
    again = called & np.isin(new["r_offset"][len(kept) :], kept["r_offset"][kind != case.arch.none])
    may_come = (may[len(kept) :] & ~again) | (target in code_table_sections(case)) | static[len(kept) :]
    for row in (len(kept) + np.flatnonzero(~may_come)).tolist():
        _say(case, sec, row, f"{_text(case, new[row])} is new, and no patched site is there")
    case.kinds["relocation changed"] += int(((stay != kept) & retargeted).sum())
    case.kinds["relocation added"] += len(new) - len(kept)
    case.kinds["relocation taken out"] += len(old) - len(kept)
    _account_for_rows(case, sec, min(len(old), len(new)))


def of_static_calls(case: Case, target: int, rows: Rows) -> Mask:
    """Which rows are about static calls' keys or trampolines in section `target`: `module_static_calls` reads them."""
    places = [off for sec, off in case.static_places if sec == target]
    return np.asarray(np.isin(rows["r_offset"], np.array(places, dtype=np.int64).view(np.uint64)))


def _of_sites(pairs: Pairs | None, change: Literal["left", "patched"], target: int, rows: Rows) -> Mask:
    """Which rows are the call, the jump or the ops pointer of a site in section `target` that changed: left what it
    was, or is patched now."""
    if pairs is None:
        return np.zeros(len(rows), dtype=bool)
    here, case, shape = (pairs.sec == target) & pairs.differs, pairs.case, pairs.shape
    state = pairs.old if change == "left" else pairs.new
    calls = here & (state == NEW)
    if change == "left" and shape.called:  # the one row of a site stays, but where nothing is called any more
        here &= (pairs.new == RETIRED) | ((pairs.old == NEW) & pairs.nop)
        calls = here
    offset, kind = rows["r_offset"], rows["r_info"] & TYPE
    hit = np.isin(offset, pairs.field_off[calls].view(np.uint64)) & (kind == case.modules.branch)
    jumps = pairs.off[here & (state == REDIRECTED)].view(np.uint64)
    hit |= np.isin(offset, jumps) & (kind == case.tables.jump_type)
    if shape.literal is not None:
        literal = (pairs.record[calls] + shape.literal).view(np.uint64)
        hit |= np.isin(offset, literal) & (kind == case.arch.abs64)
    return np.asarray(hit)


def _given_back(pairs: Pairs | None, target: int, rows: Rows) -> Mask:
    """Which rows are the call of a site in section `target` that names again what the compiler named."""
    if pairs is None or not pairs.shape.called:
        return np.zeros(len(rows), dtype=bool)
    case = pairs.case
    field = pairs.field_off[(pairs.sec == target) & pairs.differs & (pairs.new == OLD) & ~pairs.nop]
    symbols = case.after.image.symbols.rows_named(pairs.shape.called)
    hit = np.isin(rows["r_offset"], field.view(np.uint64)) & (rows["r_info"] & TYPE == case.modules.branch)
    hit &= np.isin((rows["r_info"] >> np.uint64(32)).astype(np.int64), symbols)
    return np.asarray(hit & (rows["r_addend"] == -case.tables.branch_field[1]))


def _check_records(case: Case, sec: int, old: Rows, new: Rows) -> None:
    """The relocations of records: each as it was but for its place; a record that returns names a section's symbol."""
    symbols = case.after.image.symbols
    before = set(zip(old["r_info"].tolist(), old["r_addend"].tolist(), strict=True))
    kinds = symbols.type[(new["r_info"] >> np.uint64(32)).astype(np.int64)]
    for row, (info, addend) in enumerate(zip(new["r_info"].tolist(), new["r_addend"].tolist(), strict=True)):
        back = case.kinds["record returned"] and info & 0xFFFF_FFFF == case.arch.abs64 and kinds[row] == t.STT_SECTION
        back |= info & 0xFFFF_FFFF == case.arch.abs64 and int(symbols.shndx[info >> 32]) in case.linked.sections
        if (info, addend) not in before and not back:
            _say(case, sec, row, f"{_text(case, new[row])} is none that was there")
    _account_for_rows(case, sec, min(len(old), len(new)))


def _check_own(case: Case, sec: int, target: int, rows: Rows) -> None:
    """Relocations of what the patch brings along: of known types, inside their section."""
    image = case.after.image
    code = {case.modules.branch, *case.arch.loader.calls, case.arch.abs64, case.tables.distance64,
            *(kind for kind in case.tables.halves if kind)}  # fmt: skip
    known = {TEXT: code, INIT_TEXT: code, DATA: {case.arch.abs64}}.get(plain(image.names[target]), set())
    size = int(image.shdr["sh_size"][target])
    for row, (info, off) in enumerate(zip(rows["r_info"].tolist(), rows["r_offset"].tolist(), strict=True)):
        if info & 0xFFFF_FFFF not in known or off + 4 > size:
            _say(case, sec, row, f"{_text(case, rows[row])} is none that a patch makes")


def _say(case: Case, sec: int, row: int, what: str) -> None:
    case.say("verify-relocation", f"{case.after.image.names[sec]} row {row}: {what}", row=row, sec=sec,
             off=row * t.RELA.itemsize)  # fmt: skip


def _text(case: Case, row: Rows) -> str:
    symbol, symbols = int(row["r_info"]) >> 32, case.after.image.symbols
    name = symbols.name(symbol) if symbol < len(symbols.rows) else "?"
    return (f"offset {int(row['r_offset']):#x}, type {int(row['r_info']) & 0xFFFF_FFFF}, symbol {symbol} {name} "
            f"{int(row['r_addend']):+#x}")  # fmt: skip
