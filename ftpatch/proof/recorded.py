"""Is the second file the first one with records in it, and nothing else?

A file that `record` wrote differs from its input in its record sections alone: the slots and their relocations, the
groups that these belong to, the names of new sections, and calls of the profiling function that became NOPs. Every byte
of code, every symbol and every other header is as it was. What the records say is read here from the relocations, apart
from the reader of all verbs; that reader only tells whether a site is there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.proof_tables import tables_of
from ftpatch.arrays import I64, Mask, Rows, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.proof.case import Case
from ftpatch.proof.changes import Runs
from ftpatch.proof.recorded_sections import check_new_sections, check_old_sections, check_tail, record_secs
from ftpatch.proof.sections import check_header
from ftpatch.sites.object_marks import enabled_calls
from ftpatch.sites.profiler_calls import calls_by_relocation
from ftpatch.sites.table import UNTOUCHED

SLOT = 8
TYPE = np.uint64(0xFFFF_FFFF)
NO_PLACE = -1


class Slots(NamedTuple):
    """The slots of all record sections of a file, one row each."""

    home: I64  # the record section
    slot: I64  # number in it
    key: I64  # section and offset of the place that it names, as one number; −1 where it names none
    symbol: I64  # row of the symbol by which it names it; 0 for none


def is_recording(before: Image, after: Image) -> bool:
    """Whether the second file is the first with other records, and not what another verb makes of it."""
    n = len(before.shdr)
    if before.linked or len(after.shdr) < n or not _same_code(before, after) or _calls_another(before, after):
        return False
    if len(enabled_calls(after)) > len(enabled_calls(before)):
        return False
    if any(name in _names(before) for name in after.names[n:]):
        return True
    secs = record_secs(before)
    fields = [name for name in t.SHDR.names or () if name not in ("sh_offset", "sh_size")]
    if any(bool((before.shdr[name][secs] != after.shdr[name][secs]).any()) for name in fields):
        return True
    old, new = read_slots(before), read_slots(after)
    tab = before.shdr["sh_type"] == t.SHT_SYMTAB
    if not np.array_equal(before.shdr["sh_size"][tab], after.shdr["sh_size"][:n][tab]):
        return False  # what other verbs write brings symbols along
    if bool((~is_in(old.key[old.key != NO_PLACE], new.key)).any()):
        return False  # a record of code left, as those of sites do that are enabled, disabled or dropped
    came = bool((~is_in(new.key, old.key)).any())
    doubled = len(np.unique(old.key)) < len(old.key)
    lost = int((old.key == NO_PLACE).sum()) > int((new.key == NO_PLACE).sum())
    moved = _moved(old, new)
    # `disable` makes NOPs, too, and takes their records away; in an object it leaves what makes records of calls
    only_calls = before.kind != "object" and bool(is_in(old.key, new.key).all()) and _calls_gone(before, after)
    return came or lost or moved or (doubled and len(new.key) < len(old.key)) or only_calls


def _calls_another(before: Image, after: Image) -> bool:
    """Whether a relocation of code names another symbol: where the code is the same for each, as on x86_64, a site
    that is enabled or disabled differs in nothing else."""
    for sec in _code(before):
        for table in before.rela_tables.get(sec, []):
            old, new = before.rows(table, t.RELA), after.rows(table, t.RELA)
            if len(old) != len(new):
                continue
            differs = (old["r_info"] != new["r_info"]) & ((new["r_info"] & TYPE) != after.arch.none)
            if differs.any():
                return True
    return False


def _moved(old: Slots, new: Slots) -> bool:
    """Whether a record is in another section of records than it was."""
    (one, first), (two, second) = (np.unique(slots.key, return_index=True) for slots in (old, new))
    both = np.intersect1d(one, two)
    was, is_ = (slots.home[at[np.searchsorted(keys, both)]]
                for slots, keys, at in ((old, one, first), (new, two, second)))  # fmt: skip
    return not np.array_equal(was, is_)


def _names(image: Image) -> set[str]:
    return {image.names[sec] for sec in record_secs(image)} | {"__mcount_loc"} | (
        set() if image.arch.padded else {"__patchable_function_entries"})  # fmt: skip


def _code(image: Image) -> list[int]:
    """The sections of code, by number; names and groups are none, whatever their flags say."""
    code: list[int] = np.flatnonzero(image.executable & (image.shdr["sh_type"] == t.SHT_PROGBITS)).tolist()
    return code


def _same_code(before: Image, after: Image) -> bool:
    """Whether the code of both is the same, but for calls that are NOPs in the second."""
    calls: dict[int, I64] | None = None
    for sec in _code(before):
        old, new = before.content(sec), after.content(sec)
        if len(old) != len(new):
            return False
        if not np.array_equal(old, new):
            calls = _calls(before) if calls is None else calls
            starts = np.sort(calls.get(sec, np.zeros(0, np.int64)))
            changed = np.flatnonzero(old != new)
            call = starts[np.maximum(np.searchsorted(starts, changed, side="right") - 1, 0)] if len(starts) else changed
            if not len(starts) or bool(((changed < call) | (changed >= call + before.arch.call.size)).any()):
                return False
    return True


def _calls(image: Image) -> dict[int, I64]:
    """Section of code → offsets of its calls of the profiling function."""
    calls: dict[int, I64] = {}
    for called in dict.fromkeys(shape.called for shape in image.arch.shapes if shape.called):
        secs, off = calls_by_relocation(image, called)
        numbers, first = np.unique(secs, return_index=True)
        for sec, part in zip(numbers.tolist(), np.split(off, first[1:]) if len(numbers) else [], strict=True):
            calls[sec] = np.concatenate([calls.get(sec, part[:0]), part])
    return calls


def _calls_gone(before: Image, after: Image) -> bool:
    """Whether some code differs, which then is calls that became NOPs."""
    return any(not np.array_equal(before.content(sec), after.content(sec))
               for sec in _code(before))  # fmt: skip


def read_slots(image: Image) -> Slots:
    """Every slot of the record sections, with the place that its relocation names."""
    secs = record_secs(image)
    n = image.shdr["sh_size"][secs].astype(np.int64) // SLOT if secs else np.zeros(0, np.int64)
    first = np.cumsum(n) - n
    home = np.repeat(np.array(secs, dtype=np.int64), n)
    slot = np.arange(int(n.sum())) - np.repeat(first, n)
    key, symbol = np.full(len(home), NO_PLACE, dtype=np.int64), np.zeros(len(home), dtype=np.int64)
    parts, at = [np.zeros(0, t.RELA)], [np.zeros(0, np.int64)]
    for number, sec in enumerate(secs):
        for table in image.rela_tables.get(sec, []):
            rows = image.rows(table, t.RELA)
            rows = rows[
                ((rows["r_info"] & TYPE) == image.arch.abs64) & (rows["r_offset"] < np.uint64(SLOT * n[number]))
            ]
            parts.append(rows)
            at.append(first[number] + rows["r_offset"].astype(np.int64) // SLOT)
    all_rows, where = np.concatenate(parts), np.concatenate(at)
    key[where], symbol[where] = _places(image, all_rows)
    return Slots(home, slot, key, symbol)


def _places(image: Image, rows: Rows) -> tuple[I64, I64]:
    """The place that each relocation names, as one number, and its symbol."""
    if not len(rows) or not len(image.symbols.rows):
        return np.full(len(rows), NO_PLACE, dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    names = np.minimum((rows["r_info"] >> np.uint64(32)).astype(np.int64), len(image.symbols.rows) - 1)
    code = image.symbols.shndx[names]
    with np.errstate(over="ignore"):
        off = (image.symbols.rows["st_value"][names] + rows["r_addend"].view(np.uint64)).view(np.int64)
    inside = np.maximum(code, 0)
    size = np.minimum(image.shdr["sh_size"][inside], np.uint64(1 << 40)).astype(np.int64)
    known = (code > 0) & image.executable[inside] & (off >= 0) & (off < size)
    return np.where(known, code << 40 | off, NO_PLACE), names


# -- the checks --------------------------------------------------------------------------------------------------------


def check_recording(case: Case, runs: Runs) -> None:
    """Findings for all that is not records, or is wrong in them."""
    before, after = case.before.image, case.after.image
    check_header(case)
    if len(after.shdr) < len(before.shdr):
        case.say("verify-section", f"{len(after.shdr)} sections, there were {len(before.shdr)}")
        return
    nops = _check_nops(case, runs)
    check_old_sections(case, nops)
    old, new = read_slots(before), read_slots(after)
    codes = _codes(new)
    check_new_sections(case, codes)
    check_tail(case)
    _check_slots(case, old, new)
    _check_added(case, old, new)
    _check_nops_recorded(case, nops, new)


def _codes(slots: Slots) -> dict[int, list[int]]:
    """Section of records → the sections of code that they name, ascending."""
    codes: dict[int, list[int]] = {sec: [] for sec in np.unique(slots.home).tolist()}
    live = slots.key >= 0
    pairs = np.unique(slots.home[live] << 32 | slots.key[live] >> 40)
    for home, code in zip((pairs >> 32).tolist(), (pairs & 0xFFFF_FFFF).tolist(), strict=True):
        codes[home].append(code)
    return codes


def _check_slots(case: Case, old: Slots, new: Slots) -> None:
    """No record is lost, none stands twice, and each names a place in code."""
    names = case.after.image.names
    for row in np.flatnonzero(new.key == NO_PLACE).tolist():
        case.say("verify-record", f"{names[new.home[row]]} slot {new.slot[row]} names no place in code, and the loader "
                 "reads every slot", sec=int(new.home[row]), off=SLOT * int(new.slot[row]))  # fmt: skip
    live = new.key[new.key >= 0]
    order = np.sort(live)
    for key in np.unique(order[1:][order[1:] == order[:-1]]).tolist():
        case.say("verify-record", f"two records name {_text(case, key)}: ftrace stops at the second")
    kept = np.unique(old.key[old.key >= 0])
    for key in kept[~is_in(kept, live)].tolist():
        case.say("verify-record", f"the record of {_text(case, key)} is not there any more")
    case.kinds["record taken out"] += len(old.key) - len(kept)


def _check_added(case: Case, old: Slots, new: Slots) -> None:
    """Every new record names a site as a compiler leaves it, by a symbol that no other file can override."""
    image, sites = case.after.image, case.after.sites
    added = (new.key >= 0) & ~is_in(new.key, old.key)
    key = new.key[added]
    case.returned = (key >> 40, key & ((1 << 40) - 1))
    case.kinds["record added"] += len(key)
    ready = is_in(sites.status, UNTOUCHED) & (sites.row >= 0)
    sound = sites.sec[ready] << 40 | sites.off[ready]
    for place in key[~is_in(key, sound)].tolist():
        case.say("verify-record", f"the new record of {_text(case, place)} is at no site as it was compiled",
                 sec=place >> 40, off=place & ((1 << 40) - 1))  # fmt: skip
    symbol = new.symbol[added]
    weak = image.symbols.bind[symbol] > t.STB_GLOBAL
    for row in symbol[weak].tolist():
        case.say("verify-record", f"a new record counts from {image.symbols.name(row)}, which is weak: where another "
                 "file overrides it, the record names that file's code")  # fmt: skip


def _text(case: Case, key: int) -> str:
    """`function (.text+0x10)` of a place."""
    image, sec, off = case.after.image, key >> 40, key & ((1 << 40) - 1)
    return f"{image.names[sec]}+{off:#x}"


# -- calls that became NOPs --------------------------------------------------------------------------------------------


def _check_nops(case: Case, runs: Runs) -> I64:
    """Places of calls of the profiling function that are NOPs in the second file; each lost its relocation."""
    before, after, call = case.before.image, case.after.image, case.arch.call
    gone = [np.zeros(0, np.int64)]
    for sec, calls in _calls(before).items():
        code = after.content(sec)
        if not np.array_equal(before.content(sec), code):
            where = calls[_is_nop(case, code, calls)]
            start = int(before.shdr["sh_offset"][sec])
            case.account_for("call made a NOP", start + where, call.size)
            gone.append(sec << 40 | where)
        _check_rows(case, sec, gone[-1][gone[-1] >> 40 == sec])
    return np.concatenate(gone)


def _is_nop(case: Case, code: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], off: I64) -> Mask:
    """Which places of a section hold the NOP that takes a call's place."""
    tables, size = tables_of(case.arch), case.arch.call.size
    nop = bytes(tables.left[0]) if tables.left else int(tables.nop).to_bytes(size, "little")
    bytes_there = code[off[:, None] + np.arange(size)]
    return np.asarray((bytes_there == np.frombuffer(nop, np.uint8)).all(axis=1))


def _check_rows(case: Case, sec: int, gone: I64) -> None:
    """The relocations of a section of code: those of its NOPs left, and no other changed."""
    before, after = case.before.image, case.after.image
    field = (gone & ((1 << 40) - 1)) + tables_of(case.arch).branch_field[0]
    for table in before.rela_tables.get(sec, []):
        old, new = before.rows(table, t.RELA), after.rows(table, t.RELA)
        leaves = is_in(old["r_offset"].astype(np.int64), field) & is_in(old["r_info"] & TYPE, case.arch.direct_calls)
        if not leaves.any() and len(old) == len(new):
            continue  # every byte of it is compared
        kept = old[~leaves]
        if not np.array_equal(kept, new):
            case.say("verify-relocation", f"{before.names[table]}: {len(kept)} of its rows are to stay as they were, "
                     f"it has {len(new)}, or others", sec=table)  # fmt: skip
            continue
        start = int(before.shdr["sh_offset"][table])
        case.account_for("relocation", start + t.RELA.itemsize * np.arange(len(new)), t.RELA.itemsize)


def _check_nops_recorded(case: Case, nops: I64, new: Slots) -> None:
    """A NOP may have a record only where build tools of the machine leave one there."""
    recorded = nops[is_in(nops, new.key)] if len(nops) else nops
    if tables_of(case.arch).left:
        return
    for key in recorded.tolist():
        case.say("verify-record", f"{_text(case, key)} is a NOP now and has a record: a kernel expects the call there, "
                 "and switches ftrace off")  # fmt: skip
