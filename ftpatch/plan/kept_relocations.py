"""What becomes of relocations that the link left in a kernel (--emit-relocs), where its build makes a list of them.

slot of a record    an emptied one must not be on the list, else it is moved with the kernel and no null any more:
                    its relocation becomes NONE, and nothing else of it; when a record returns it is what it was
call of a site      the list has no distances; the relocation names what is called, so that it agrees with the code
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U64, is_in
from ftpatch.elf.kept_relocations import TYPE, KeptRelocations, kept_at
from ftpatch.plan.edits import Group, as_bytes, group
from ftpatch.plan.request import Draft
from ftpatch.sites.records import SLOT
from ftpatch.sites.scan import Scan

INFO = 8  # byte offset of r_info in a relocation


def of_slots(scan: Scan, values: U64) -> Group:
    """The edits for slots that become empty, or take a record again. values: what every slot of the table is worth."""
    arch, records = scan.arch, scan.records
    changed = np.flatnonzero((values == 0) != (records.value == 0))
    changed = changed if arch.listed and records.start else changed[:0]
    kept = kept_at(scan.image, np.uint64(records.start) + (SLOT * changed).astype(np.uint64))
    empty = values[changed[kept.place]] == 0
    right = np.where(empty, kept.kind == arch.abs64, kept.kind == arch.none)
    kinds = np.where(empty[right], arch.none, arch.abs64)
    return _group(scan, kept.where(right), kept.row["r_info"][right] & ~TYPE | kinds.astype(np.uint64))


def own_slots(scan: Scan) -> dict[int, int]:
    """Which slot each record had that may return, by its value: where the relocations of all slots say what is in
    those that have a record, they say it of empty ones, too. None where a build sorted the table, or has none of them.
    """
    arch, records, symbols = scan.arch, scan.records, scan.image.symbols
    if not arch.listed or not records.start:
        return {}
    kept = kept_at(scan.image, np.uint64(records.start) + (SLOT * np.arange(len(records))).astype(np.uint64))
    number = (kept.row["r_info"] >> np.uint64(32)).astype(np.int64)
    kept, number = kept.where(number < len(symbols.rows)), number[number < len(symbols.rows)]
    with np.errstate(over="ignore"):
        value = symbols.rows["st_value"][number] + kept.row["r_addend"].view(np.uint64)
    if len(kept.place) < len(records) or bool((records.live & (records.value != value[np.argsort(kept.place)])).any()):
        return {}
    empty = records.null[kept.place]
    return dict(zip(value[empty].tolist(), kept.place[empty].tolist(), strict=True))


def of_calls(scan: Scan, index: I64, name: str) -> Group:
    """The edits for sites whose calls go to another place. name: symbol of that; one without has no relocation."""
    arch, symbols, branch = scan.arch, scan.image.symbols, scan.arch.call
    index = index if arch.listed else index[:0]
    kept = kept_at(scan.image, scan.sites.branch_va[index] + np.uint64(branch.relocated_at))
    symbol = symbols.defined(name)
    back = (
        (kept.kind == arch.none)
        & (kept.row["r_info"] >> np.uint64(32) == np.uint64(symbol or 0))
        & (symbol is not None)
    )
    kept = kept.where((is_in(kept.kind, arch.direct_calls) | back) & (kept.row["r_addend"] == branch.relocated_by))
    if symbol is None:
        return _group(scan, kept, kept.row["r_info"] & ~TYPE | np.uint64(arch.none))
    kinds = np.where(kept.kind == arch.none, np.uint64(arch.direct_calls[-1] if arch.direct_calls else 0), kept.kind)
    return _group(scan, kept, np.uint64(symbol) << np.uint64(32) | kinds)


def refuse_other_relocations(draft: Draft) -> None:
    """Sites of a kernel whose calls have relocations that are none of a call: they would no longer agree with it."""
    scan, index, arch = draft.scan, draft.open(), draft.scan.arch
    if arch.listed and len(index):
        kept = kept_at(scan.image, scan.sites.branch_va[index] + np.uint64(arch.call.relocated_at))
        call = is_in(kept.kind, arch.direct_calls) & (kept.row["r_addend"] == arch.call.relocated_by)
        other = np.unique(kept.place[~call & (kept.kind != arch.none)])
        draft.refuse(index[other], "the relocation that the link kept of its call is none of a call")


def _group(scan: Scan, kept: KeptRelocations, info: U64) -> Group:
    return group("relocation", scan.image.data, kept.number, kept.pos + INFO, as_bytes(info))
