"""Taking away and back in a module: `drop` cuts records, `disable` gives sites their words, relocations and records.

A record returns at the end of its section: the loader sorts them. What a patch brought along stays in the file, unused;
only the patch's journal can take that back too.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Arch, Shape
from ftpatch.arrays import I64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of, touching
from ftpatch.errors import PolicyError
from ftpatch.plan.change import Change, Undoing
from ftpatch.plan.module.plan import CUT, cut_records, edits_of
from ftpatch.plan.outcome import Settled
from ftpatch.plan.records_back import BY_JOURNAL
from ftpatch.plan.request import patchable_shape, slots_of
from ftpatch.plan.undo import (
    fates_of,
    no_record,
    not_enabled,
    of_disable,
    of_drop,
    open_sites,
    original_words,
    refuse_unless_skipped,
)
from ftpatch.sites.records import SECTIONS, SLOT, RecordTable
from ftpatch.sites.table import OURS, SiteTable

RETURNED = "sites get their records back, behind those that the section has"
STAYS = "symbols and sections of the patch stay in the file, unused: ftpatch restore with its journal removes them"


def make_module_drop(image: Image, arch: Arch, records: RecordTable, table: SiteTable, request: Undoing) -> Change:
    """Records are cut out, code stays. Raises a PlanError where that cannot be."""
    shape = patchable_shape(image, table)
    require_way(request, image.path)
    reasons = no_record(table, request.chosen)
    refuse_unless_skipped(table, request, reasons)
    index = open_sites(request, reasons)
    gone = slots_of(records, table, index)
    editor = Editor(image)
    cut_records(editor, records, gone)
    n, stays = len(index), records.live & ~gone
    return Change(
        "drop", table, records, request.chosen, reasons, index, np.zeros((n, 0), np.uint32), ("cut",) * n, gone,
        records.sec[stays], records.off[stays], Settled("", None, None, "none", "shrink", CUT), edits_of(image, editor),
        of_drop(shape, n, 0),
    )  # fmt: skip


def make_module_disable(image: Image, arch: Arch, records: RecordTable, table: SiteTable, request: Undoing) -> Change:
    """Sites get their old words and records back. Raises a PlanError where that cannot be."""
    shape = patchable_shape(image, table)
    require_way(request, image.path)
    reasons = {**_relocated(image, shape, table, request.chosen), **not_enabled(table, shape, request.chosen)}
    refuse_unless_skipped(table, request, reasons)
    index = open_sites(request, reasons)
    words = original_words(arch, shape, len(index))
    editor = Editor(image)
    for site, row in zip(index.tolist(), words, strict=True):
        start = int(table.off[site] + table.site[site])
        editor.patch(int(table.sec[site]), start, row.astype("<u4").tobytes(), "site", site)
    _forget_calls(editor, shape, table, index)
    gone, added = np.zeros(len(records), dtype=bool), index[table.row[index] < 0]
    if shape.called:
        gone, added = slots_of(records, table, index), added[:0]
        cut_records(editor, records, gone)
    for site in added.tolist():
        _return_record(editor, arch, table, site)
    way, why = ("shrink", CUT) if shape.called else ("return", RETURNED)
    told = (*of_disable(shape, len(index)), *((STAYS,) if len(index) else ()))
    stays = records.live & ~gone
    return Change(
        "disable", table, records, request.chosen, reasons, index, words, fates_of(table, shape, index, way), gone,
        np.concatenate([records.sec[stays], table.sec[added]]),
        np.concatenate([records.off[stays], table.off[added]]),
        Settled("", None, None, "none", way, why), edits_of(image, editor), told,
    )  # fmt: skip


def _relocated(image: Image, shape: Shape, table: SiteTable, chosen: Mask) -> dict[int, str]:
    """Reasons against chosen sites into which more relocations write than that of the call."""
    found: dict[int, str] = {}
    for sec in np.unique(table.sec[chosen & (table.sec >= 0)]).tolist():
        mine = np.flatnonzero(chosen & (table.sec == sec))
        rows, start = relocations_of(image, sec), table.off[mine] + table.site[mine]
        branch = start + 4 * (len(shape.new) - 1)
        calls = np.searchsorted(rows.off, branch, side="right") - np.searchsorted(rows.off, branch)
        odd = mine[touching(rows, start, 4 * len(shape.old)) > calls]
        found |= dict.fromkeys(odd.tolist(), "a relocation beside that of its call writes into its words")
    return found


def require_way(request: Undoing, path: str) -> None:
    """Refuse ways that only a vmlinux has."""
    if request.records not in ("auto", "shrink"):
        raise PolicyError(f"--records {request.records} does not work in a module", path,
                          found="a loader that reads every slot",
                          expected="shrink: slot and relocation leave")  # fmt: skip


def _forget_calls(editor: Editor, shape: Shape, table: SiteTable, index: I64) -> None:
    """Cut the relocations of the sites' calls and ops pointers; a pointer's own bytes were never changed."""
    image = editor.image
    for sec in np.unique(table.sec[index]).tolist():
        mine = index[table.sec[index] == sec]
        found = relocations_of(image, sec)
        branch = (table.branch_va[mine] - image.base[sec]).view(np.int64)
        hit = np.isin(found.off, branch)
        if shape.literal is not None:
            ours = np.array([image.symbols.name(one).startswith(OURS) for one in found.symbol.tolist()], dtype=bool)
            hit |= ours & np.isin(found.off, table.off[mine] + shape.literal)
        for one in np.unique(found.table[hit]).tolist():
            gone = np.zeros(len(image.rows(one, t.RELA)), dtype=bool)
            gone[found.row[hit & (found.table == one)]] = True
            editor.cut_relocations(one, gone)


def _return_record(editor: Editor, arch: Arch, table: SiteTable, site: int) -> None:
    """A slot and its relocation behind the others of the first record section."""
    image, sec = editor.image, int(table.sec[site])
    home = next((one for one in image.sections_named(*SECTIONS) if image.has_bytes[one]), -1)
    rows = np.flatnonzero(
        (image.symbols.type == t.STT_SECTION) & (image.symbols.shndx == sec) & (image.symbols.rows["st_value"] == 0)
    )
    if home < 0 or not len(rows):
        raise PolicyError("a record cannot return to this module", image.path,
                          found="no record section" if home < 0 else f"no section symbol of {image.names[sec]}",
                          todo=BY_JOURNAL)  # fmt: skip
    slot = editor.append(home, bytes(SLOT))
    editor.relocate(home, slot, arch.abs64, int(rows[0]), int(table.off[site]))
