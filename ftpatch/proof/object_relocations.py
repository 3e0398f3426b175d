"""The relocations of an object: those that are about no patched site as they were, and those of records."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ftpatch.arrays import Mask, Rows
from ftpatch.elf import tables as t
from ftpatch.proof.case import Case, Pairs
from ftpatch.sites.records import SLOT, record_names

ROW = t.RELA.itemsize


def check_rows(case: Case, pairs: Pairs | None) -> None:
    """Findings for every row that is lost, changed or added without a reason. What the rows of sites say was looked at
    with these."""
    old, new = case.before.image, case.after.image
    for sec in np.flatnonzero(new.shdr["sh_type"] == t.SHT_RELA).tolist():
        target = int(new.shdr["sh_info"][sec])
        before = old.rows(sec, t.RELA) if sec < len(old.shdr) else np.zeros(0, t.RELA)
        rows = new.rows(sec, t.RELA)
        if 0 < target < len(old.shdr) and old.names[target] in record_names(old):
            _check_records(case, pairs, sec, before, rows)
        else:
            kept, stay = before[~_of_sites(pairs, target, before)], rows[~_of_sites(pairs, target, rows)]
            if len(kept) != len(stay) or (kept != stay).any():
                n = int((kept[: len(stay)] != stay[: len(kept)]).sum()) + abs(len(kept) - len(stay))
                case.say("verify-relocation", f"{new.names[sec]}: {n} rows that are about no patched site are not what "
                         "they were", sec=sec)  # fmt: skip
        _account_for(case, sec, min(len(before), len(rows)))
        case.kinds["relocation changed"] += int((before[: len(rows)] != rows[: len(before)]).sum())


def _account_for(case: Case, sec: int, n: int) -> None:
    """The rows of a table that did not move may differ: all of them were looked at."""
    old, new = case.before.image.shdr, case.after.image.shdr
    if sec < len(old) and old["sh_offset"][sec] == new["sh_offset"][sec]:
        case.account_for("relocation", int(old["sh_offset"][sec]) + ROW * np.arange(n, dtype=np.int64), ROW)


def _of_sites(pairs: Pairs | None, target: int, rows: Rows) -> Mask:
    """Which rows fill the call of a site of section `target` that differs."""
    if pairs is None:
        return np.zeros(len(rows), dtype=bool)
    mine = (pairs.sec == target) & pairs.differs
    return np.asarray(np.isin(rows["r_offset"], (pairs.off[mine] + pairs.shape.size - 4).view(np.uint64)))


def _check_records(case: Case, pairs: Pairs | None, sec: int, old: Rows, new: Rows) -> None:
    """The relocations of records: each as it was but for its place; one that came back is for a site."""
    image = case.after.image
    was = Counter(zip(old["r_info"].tolist(), old["r_addend"].tolist(), strict=True))
    places = set(zip(pairs.sec.tolist(), pairs.record.tolist(), strict=True)) if pairs is not None else set()
    for row, (info, addend) in enumerate(zip(new["r_info"].tolist(), new["r_addend"].tolist(), strict=True)):
        was[info, addend] -= 1
        symbol = info >> 32
        known = symbol < len(image.symbols.rows) and info & 0xFFFF_FFFF == case.arch.abs64
        at = (int(image.symbols.shndx[symbol]), int(image.symbols.rows["st_value"][symbol]) + addend) if known else None
        if was[info, addend] < 0 and not (case.kinds["record returned"] and at in places):
            case.say("verify-relocation", f"{image.names[sec]} row {row} is none that was there", row=row, sec=sec,
                     off=row * ROW)  # fmt: skip
        elif int(new["r_offset"][row]) % SLOT and int(new["r_offset"][row]) not in old["r_offset"]:
            case.say("verify-relocation", f"{image.names[sec]} row {row} fills no slot", row=row, sec=sec,
                     off=row * ROW)  # fmt: skip


def account_for_old_rows(case: Case, pairs: Pairs | None) -> None:
    """What earlier patches left of tables that moved on since: rows that were there, and rows of sites."""
    heads = case.before.image.shdr
    for step in case.steps if len(case.steps) > 1 else ():
        for sec in step.moved:
            if sec < len(heads) and int(case.after.image.shdr["sh_offset"][sec]) != int(step.shdr["sh_offset"][sec]):
                _check_copy(case, pairs, sec, int(step.shdr["sh_offset"][sec]), int(step.shdr["sh_size"][sec]))
    for sec in np.flatnonzero(heads["sh_type"] == t.SHT_RELA).tolist() if len(case.steps) > 1 else ():
        start, size = int(heads["sh_offset"][sec]), int(heads["sh_size"][sec])
        legal = _legal(case, pairs, sec, case.after.image.data[start : start + size // ROW * ROW].view(t.RELA))
        case.account_for("earlier patch", start + ROW * np.flatnonzero(legal), ROW)
    for sec in case.before.image.sections_named(*record_names(case.before.image)) if len(case.steps) > 1 else ():
        start, size = int(heads["sh_offset"][sec]), int(heads["sh_size"][sec]) // SLOT * SLOT
        words = [side.image.data[start : start + size].view("<u8") for side in (case.before, case.after)]
        case.account_for("earlier patch", start + SLOT * np.flatnonzero(np.isin(words[1], words[0])), SLOT)


def _legal(case: Case, pairs: Pairs | None, sec: int, rows: Rows) -> Mask:
    """Which rows were there, but for their place, or fill the call of some site."""
    old, target = case.before.image.rows(sec, t.RELA), int(case.before.image.shdr["sh_info"][sec])
    known = set(zip(old["r_info"].tolist(), old["r_addend"].tolist(), strict=True))
    legal = [row in known for row in zip(rows["r_info"].tolist(), rows["r_addend"].tolist(), strict=True)]
    of_site = np.zeros(len(rows), dtype=bool)
    if pairs is not None:
        fields = (pairs.off[pairs.sec == target] + pairs.shape.size - 4).view(np.uint64)
        of_site = np.isin(rows["r_offset"], fields)
    return np.array(legal, dtype=bool) | of_site


def _check_copy(case: Case, pairs: Pairs | None, sec: int, start: int, size: int) -> None:
    """A table as an earlier patch left it at the end of the file."""
    image, content = case.after.image, case.after.image.data[start : start + size]
    if image.shdr["sh_type"][sec] == t.SHT_RELA:
        right = size % ROW == 0 and bool(_legal(case, pairs, sec, content[: size // ROW * ROW].view(t.RELA)).all())
    elif image.names[sec] in record_names(image):
        words = image.content(sec)[: image.content(sec).size // SLOT * SLOT].view("<u8")
        right = size % SLOT == 0 and bool(np.isin(content.view("<u8"), np.append(words, np.uint64(0))).all())
    else:
        right = len(image.content(sec)) >= size and bool(np.array_equal(image.content(sec)[:size], content))
    if not right:
        text = f"{size} bytes at file position {start:#x} are no {image.names[sec]} that an earlier patch can have left"
        case.say("verify-byte", text, pos=start)
