"""Is the record table of the second file that of the first, less what left it and more what came back?

Kernels and modules alike: the records that stay must stay in their order, a slot that became empty must be one that
the kernel skips, and no record may leave but for a site that is a call of ours now.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, Mask, is_in
from ftpatch.kernel.boot import tests_zero_first
from ftpatch.kernel.init_text import in_init_text
from ftpatch.proof.case import OLD, PATCHED, RETIRED, Case, Pairs
from ftpatch.sites.records import MINUS4, SLOT, RecordTable, record_names
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import READY, UNTOUCHED


def check_records(case: Case, pairs: Pairs | None) -> None:
    """Findings for every record that should be where it is not, or the other way round."""
    one, two = case.before, case.after
    old, new = _keys(one), _keys(two)
    rows_old, rows_new = np.flatnonzero(one.records.live), np.flatnonzero(two.records.live)
    gone, added = ~np.isin(old, new), ~np.isin(new, old)
    stays, there = old[~gone], new[~added]
    if len(stays) != len(there):
        case.say("verify-record", f"{len(there)} live records stay, of which there were {len(stays)}: one stands twice")
    elif not np.array_equal(stays, there) and not case.kinds["earlier patch"]:
        at = int(np.argmax(stays != there))
        row = int(rows_new[~added][at])
        case.say("verify-order", f"the records that stay are in another order from slot {row} on", row=row)
    came = added & is_in(two.records.sec[rows_new], sorted(case.linked.sections))  # of functions of an object
    for row in rows_new[came & (two.sites.status[rows_new] != READY)].tolist():
        case.say("verify-record", f"slot {row} has a record of what came along that is no site as it was compiled",
                 row=row)  # fmt: skip
    added &= ~came
    back = rows_new[added]
    case.gone, case.returned = rows_old[gone], (two.records.sec[back], two.records.off[back])
    case.kinds["record taken out"] += int(gone.sum())
    case.kinds["record returned"] += int(added.sum())
    _check_gone(case, pairs, rows_old[gone])
    _check_added(case, pairs, rows_new[added])
    case.kinds["record of an object"] += int(came.sum())
    _check_kept(case, pairs)
    _check_init_only(case)
    _check_carriers(case)


def _keys(side: Scan) -> I64:
    """One number per live record that both files have for the same place."""
    records = side.records
    if records.in_sections:
        size = side.image.shdr["sh_size"][np.maximum(records.sec, 0)].astype(np.int64)
        inside = (records.sec >= 0) & (records.off >= 0) & (records.off < np.minimum(size, 1 << 40))
        outside = -1 - (
            (records.sec & 0xFFFF) << 46 | records.off & (1 << 46) - 1
        )  # a place in no code: never one inside
        return np.where(inside, records.sec << 40 | records.off, outside)[records.live]
    return records.value[records.live].view(np.int64)


def _pair_of(pairs: Pairs, table: I64, rows: I64) -> I64:
    """Index in the pairs of rows of one site table; −1 where a record is no place in code."""
    back = {row: at for at, row in enumerate(table.tolist()) if row >= 0}
    return np.array([back.get(row, -1) for row in rows.tolist()], dtype=np.int64)


def _check_gone(case: Case, pairs: Pairs | None, rows: I64) -> None:
    """A record may leave with its site enabled; or alone, where `drop` took it, or with the last of all others."""
    if pairs is None:
        for row in rows.tolist():
            case.say("verify-record", f"the record of slot {row} is not in the table any more", row=row)
        return
    at = _pair_of(pairs, pairs.before, rows)
    as_compiled = np.append((pairs.old == OLD) & (pairs.new == OLD), True)  # −1, no patch site, takes the last
    alone = np.flatnonzero(as_compiled[at])
    may = _may_leave(case, pairs, rows[alone], at[alone])
    for i in alone[~may].tolist():
        row, pair = int(rows[i]), int(at[i])
        if pair < 0:
            case.say("verify-record", f"the record of slot {row}, which is no patch site, left the table", row=row)
        else:
            pairs.say("verify-record", pair, "its record left the table, and nothing calls from it")
    case.kinds["record dropped alone"] += int(may.sum())


def _may_leave(case: Case, pairs: Pairs, rows: I64, at: I64) -> Mask:
    """Whether each record may leave though nothing calls from there. at: its pair, −1 where it is no patch site."""
    image = case.after.image
    if case.intent is not None:
        may = is_in(case.before.sites.pos[rows], case.intent.dropped)
    else:
        may = np.full(len(rows), not (pairs.enabled | pairs.redirected).any())
    if image.linked and not case.after.records.live.any():
        known = np.flatnonzero(at >= 0)  # those of init text may not be the only ones to stay
        may[known] |= in_init_text(image, pairs.va(pairs.off)[at[known]])
    return may


def _check_added(case: Case, pairs: Pairs | None, rows: I64) -> None:
    """A record may come back for a site that the first file has enabled, and that is as the compiler left it."""
    status = case.after.sites.status
    at = _pair_of(pairs, pairs.after, rows) if pairs is not None else np.full(len(rows), -1)
    for row, pair in zip(rows.tolist(), at.tolist(), strict=True):
        value = f"{int(case.after.records.value[row]):#x}"
        known = pairs is not None and pair >= 0 and (pairs.before[pair] >= 0 or pairs.old[pair] in PATCHED)
        if pairs is None or not known or status[row] not in UNTOUCHED:
            case.say("verify-record", f"slot {row} has a record for {value}, which is no patch site", row=row)
        elif beside := _beside(case, pairs, row, pair):
            pairs.say(
                "verify-record", pair, f"slot {row} has {value} for it, {beside:+#x} bytes from its record before"
            )
        elif pairs.new[pair] != OLD:
            pairs.say("verify-record", pair, f"slot {row} has a record for it, and it is no site as it was compiled")


def _beside(case: Case, pairs: Pairs, row: int, pair: int) -> int:
    """Bytes from where a site's record was to where that of slot `row` is; 0 where it had none."""
    before = int(pairs.before[pair])
    return int(case.after.sites.off[row] - case.before.sites.off[before]) if before >= 0 else 0


def _check_kept(case: Case, pairs: Pairs | None) -> None:
    """Where the record of a patched site stays, the kernel finds a call or a jump instead of a NOP, and gives up."""
    if pairs is None:
        return
    row = np.append(case.after.sites.row, -1)[pairs.after]  # −1 in `after`, no site of that file, takes the last
    changed = pairs.enabled | pairs.redirected | (pairs.differs & (pairs.new == RETIRED))
    kept = np.flatnonzero(changed & (row >= 0))
    if case.intent is not None and case.intent.keeps_records and len(kept):
        case.notes.append(f"the records of {len(kept)} patched sites were kept on purpose, as the journal says")
        return
    for at in kept.tolist():
        pairs.say("verify-record", at, f"its record stays in slot {int(row[at])}: the kernel will switch ftrace off")


def _check_init_only(case: Case) -> None:
    """A kernel reads through a null pointer once init memory is freed, where no other records are left."""
    stay = []
    for side in (case.before, case.after):
        va = side.sites.va[: len(side.records)][side.records.live]
        stay.append(len(va) - int(in_init_text(side.image, va).sum()))
    n = int(case.after.records.live.sum())
    if not case.after.image.linked or not stay[0] or stay[1]:
        return
    if n:
        case.say("verify-record", f"only records of init text are left, {n} of them: the kernel reads through a null "
                 "pointer once init memory is freed")  # fmt: skip
    elif case.arch.core_record:
        case.say("verify-record", "no record is left: the kernel reads in front of its list once init memory is freed")


def _carriers(records: RecordTable, which: Mask) -> I64:
    """How each slot is filled: 0 by its word alone, 1 by a RELATIVE relocation, 2 by a packed one."""
    return np.where(records.rela >= 0, 1, np.where(records.relr, 2, 0))[which]


def _check_carriers(case: Case) -> None:
    """What fills the slots: every live one in the way it was, every null one in a way that the kernel skips."""
    old, new = case.before.records, case.after.records
    if old.in_sections:
        if int(new.null.sum()) > int(old.null.sum()):
            row = int(np.argmax(new.null))
            case.say("verify-record", f"slot {row} has no relocation, and the loader reads every slot", row=row)
        return
    if not len(new):
        return
    kinds, live = _carriers(old, old.live), np.flatnonzero(new.live)
    if len(np.unique(kinds)) == 1:
        for row in live[_carriers(new, new.live) != kinds[0]].tolist():
            way = ("is not relocated", "has a relocation of its own", "is moved by packed relocations")
            case.say("verify-record", f"slot {row} {way[int(_carriers(new, np.arange(len(new)) == row)[0])]}, other "
                     "than those of the first file", row=row)  # fmt: skip
    if old.live.any() and (old.word == old.value)[old.live].all():
        for row in live[(new.word != new.value)[live]].tolist():
            case.say("verify-record", f"slot {row} does not repeat the addend of its relocation", row=row)
    _check_nulls(case)


def _check_nulls(case: Case) -> None:
    old, new = case.before.records, case.after.records
    n_zero = int(old.zero.sum())
    if n_zero and old.uniform and old.zero[:n_zero].all() and not new.zero[: int(new.zero.sum())].all():
        behind = int(np.argmax(~new.zero))
        row = behind + int(np.argmax(new.zero[behind:]))
        case.say("verify-order", f"the null slot {row} stands behind live ones, and the zeros led before", row=row)
    moved = np.flatnonzero(new.zero & ((new.rela >= 0) | new.relr))
    if len(moved) and not (old.zero & ((old.rela >= 0) | old.relr)).any():
        case.say("verify-record", f"the null slot {int(moved[0])} is moved with the kernel, so it is not 0 when it is "
                 "read", row=int(moved[0]))  # fmt: skip
    if new.zero.any() and not old.zero.any() and not _skips_zero(case):
        case.say("verify-record", f"slot {int(np.argmax(new.zero))} is 0, and nothing shows that this kernel skips it",
                 row=int(np.argmax(new.zero)))  # fmt: skip
    minus4 = new.null & (new.value == MINUS4)
    shape = case.before.sites.shape
    if minus4.any() and not (old.null & (old.value == MINUS4)).any() and (shape is None or shape.adjust != 4):
        case.say("verify-record", f"slot {int(np.argmax(minus4))} is −4, and this layout's records are not moved by 4",
                 row=int(np.argmax(minus4)))  # fmt: skip


def _skips_zero(case: Case) -> bool:
    """Whether a kernel whose table had no zero skips one: a value that is not adjusted, or code that tests first."""
    shape = case.before.sites.shape
    return (shape is not None and shape.adjust == 0) or tests_zero_first(case.before.image)


def account_for_slots(case: Case) -> None:
    """The words of a record table may differ: where they are what the slot is worth, or cleared; in a relocatable file
    what stood in some slot before, as slots close up."""
    old, new, images = case.before.records, case.after.records, (case.before.image, case.after.image)
    for sec in images[0].sections_named(*record_names(images[0])) if not images[0].linked else ():
        start = images[0].shdr["sh_offset"][sec]
        if images[0].has_bytes[sec] and start == images[1].shdr["sh_offset"][sec]:
            words = [content[: len(content) // SLOT * SLOT].view("<u8") for content in (
                     image.content(sec) for image in images)]  # fmt: skip
            right = np.flatnonzero(np.isin(words[1], words[0]))
            case.account_for("record", int(start) + SLOT * right, SLOT)
    if not old.start or old.start != new.start:
        return
    slots = (old if len(old) >= len(new) else new).slot
    word = images[1].data.rows(slots, SLOT).view("<u8").reshape(-1)
    empty = np.ones(len(slots), dtype=bool)  # slots whose word may be 0: behind the table's end, too
    empty[: len(new)] = new.null | (new.rela >= 0)
    right = empty & (word == 0)
    right[: len(new)] |= word[: len(new)] == new.value
    case.account_for("record", slots[right], SLOT)
    left = len(new) + np.flatnonzero((word[len(new) :] != 0) & (old.carrier == "word"))
    for row in left.tolist():
        case.say("verify-record", f"slot {row}, behind the table's end, is {int(word[row]):#x}, expected 0", row=row)
