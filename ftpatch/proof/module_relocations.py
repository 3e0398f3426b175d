"""The relocations of a module: the old ones as they were, new ones only where a site was patched."""

from __future__ import annotations

import numpy as np

from ftpatch.arch.parts import Modules
from ftpatch.arrays import Mask, Rows
from ftpatch.elf import tables as t
from ftpatch.proof.case import Case
from ftpatch.proof.pairs import Pairs
from ftpatch.proof.sections import DATA, INIT_TEXT, TEXT
from ftpatch.sites.records import SECTIONS as RECORD_SECTIONS

TYPE = np.uint64(0xFFFF_FFFF)


def check_relocations(case: Case, pairs: Pairs | None) -> None:
    """Findings for every row that is lost, changed or added without a reason."""
    old, new = case.before.image, case.after.image
    n = len(old.shdr)
    for sec in np.flatnonzero(new.shdr["sh_type"] == t.SHT_RELA).tolist():
        target = int(new.shdr["sh_info"][sec])
        rows = new.rows(sec, t.RELA)
        if len(rows) and int((rows["r_info"] >> np.uint64(32)).max()) >= len(new.symbols.rows):
            case.say("verify-relocation", f"{new.names[sec]} names a symbol that is not there", sec=sec)
        elif target >= len(new.shdr):
            case.say("verify-section", f"{new.names[sec]} is about no section of the file", sec=sec)
        elif target >= n:
            _check_own(case, sec, target, rows)
        elif target < n and old.names[target] in RECORD_SECTIONS:
            _check_records(case, sec, old.rows(sec, t.RELA) if sec < n else rows[:0], rows)
        else:
            _check_table(case, pairs, sec, target, old.rows(sec, t.RELA) if sec < n else rows[:0], rows)


def _account_for_rows(case: Case, sec: int, n: int) -> None:
    """The rows of a table that did not move may differ: every one of them was looked at."""
    old, new = case.before.image.shdr, case.after.image.shdr
    if sec < len(old) and old["sh_offset"][sec] == new["sh_offset"][sec]:
        start = int(old["sh_offset"][sec])
        case.account_for("relocation", start + t.RELA.itemsize * np.arange(n, dtype=np.int64), t.RELA.itemsize)


def _check_table(case: Case, pairs: Pairs | None, sec: int, target: int, old: Rows, new: Rows) -> None:
    modules = case.arch.modules
    assert modules is not None
    kind = old["r_info"] & TYPE
    gone = np.zeros(len(old), dtype=bool)
    if pairs is not None:
        gone = _hits(pairs, pairs.disabled & (pairs.sec == target), case, modules, old["r_offset"], kind)
    kept = old[~gone]
    if len(new) < len(kept):
        case.say("verify-relocation", f"{case.after.image.names[sec]} has {len(new)} rows, at least {len(kept)} stay",
                 sec=sec)  # fmt: skip
        return
    may = np.zeros(len(new), dtype=bool)
    if pairs is not None:
        mine = pairs.enabled & (pairs.sec == target)
        may = _hits(pairs, mine, case, modules, new["r_offset"], new["r_info"] & TYPE)
    stay = new[: len(kept)]
    called = pairs is not None and bool(pairs.shape.called)
    same_place = (stay["r_offset"] == kept["r_offset"]) & ((stay["r_info"] & TYPE) == (kept["r_info"] & TYPE))
    redirected = same_place & may[: len(kept)] & called
    for row in np.flatnonzero((stay != kept) & ~redirected).tolist():
        _say(case, sec, row, f"{_text(case, kept[row])} became {_text(case, stay[row])}")
    for row in (len(kept) + np.flatnonzero(~may[len(kept) :] | called)).tolist():
        _say(case, sec, row, f"{_text(case, new[row])} is new, and no patched site is there")
    case.kinds["relocation changed"] += int(((stay != kept) & redirected).sum())
    case.kinds["relocation added"] += len(new) - len(kept)
    case.kinds["relocation taken out"] += len(old) - len(kept)
    _account_for_rows(case, sec, min(len(old), len(new)))


def _hits(pairs: Pairs, which: Mask, case: Case, modules: Modules, offset: Rows, kind: Rows) -> Mask:
    """Which rows are the call or the ops pointer of a marked site."""
    branch = pairs.branch_off[which].view(np.uint64)
    found = np.isin(offset, branch) & (kind == modules.branch)
    if pairs.shape.literal is not None:
        literal = (pairs.record[which] + pairs.shape.literal).view(np.uint64)
        found |= np.isin(offset, literal) & (kind == case.arch.abs64)
    return np.asarray(found)


def _check_records(case: Case, sec: int, old: Rows, new: Rows) -> None:
    """The relocations of records: each as it was but for its place; a record that returns names a section's symbol."""
    symbols = case.after.image.symbols
    before = set(zip(old["r_info"].tolist(), old["r_addend"].tolist(), strict=True))
    kinds = symbols.type[(new["r_info"] >> np.uint64(32)).astype(np.int64)]
    for row, (info, addend) in enumerate(zip(new["r_info"].tolist(), new["r_addend"].tolist(), strict=True)):
        back = case.kinds["record returned"] and info & 0xFFFF_FFFF == case.arch.abs64 and kinds[row] == t.STT_SECTION
        if (info, addend) not in before and not back:
            _say(case, sec, row, f"{_text(case, new[row])} is none that was there")
    _account_for_rows(case, sec, min(len(old), len(new)))


def account_for_record_slots(case: Case) -> None:
    """The words of record sections: what stood in some slot before, as slots close up."""
    old, new = case.before.image, case.after.image
    for sec in old.sections_named(*RECORD_SECTIONS):
        if not old.has_bytes[sec] or old.shdr["sh_offset"][sec] != new.shdr["sh_offset"][sec]:
            continue
        words = [image.content(sec).tobytes() for image in (old, new)]
        known = {words[0][at : at + 8] for at in range(0, len(words[0]), 8)}
        right = [at for at in range(0, len(words[1]), 8) if words[1][at : at + 8] in known]
        case.account_for("record", int(old.shdr["sh_offset"][sec]) + np.array(right, dtype=np.int64), 8)


def _check_own(case: Case, sec: int, target: int, rows: Rows) -> None:
    """Relocations of what the patch brings along: of known types, inside their section."""
    image, modules = case.after.image, case.arch.modules
    assert modules is not None
    code = {modules.branch, *case.arch.loader.calls, case.arch.abs64, case.tables.distance64}
    known = {TEXT: code, INIT_TEXT: code, DATA: {case.arch.abs64}}.get(image.names[target], set())
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


def addend_of(case: Case, table: int, row: int) -> int:
    return int(case.after.image.rows(table, t.RELA)["r_addend"][row])
