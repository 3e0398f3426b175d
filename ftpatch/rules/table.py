"""Rules about the record table itself: its ends, its slots, their relocations and their order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arrays import I64
from ftpatch.errors import RecordError
from ftpatch.plan.records_out import LOOP, MAX_CODE
from ftpatch.rules import LINKED, RELOCATABLE, Rule
from ftpatch.rules.case import Case, Hit
from ftpatch.rules.words import some

LOST = ("names no symbol", "not defined here")  # of RecordErrors: records whose function is gone
FEW = 3  # records out of order that are no order of a linker
MOVED = ("two relocations", "across two slots", "another type", "outside the section's slots")


def table_ends(case: Case) -> Iterator[Hit]:
    """The table cannot be read at all."""
    error = case.trouble
    if isinstance(error, RecordError) and not any(part in error.what for part in (*LOST, *MOVED)):
        yield Hit(_sentence(error))


def slot_relocation(case: Case) -> Iterator[Hit]:
    """Slots that the loader would fill twice, or not although it fills the others."""
    if isinstance(case.trouble, RecordError):
        if any(part in case.trouble.what for part in MOVED):
            yield Hit(_sentence(case.trouble))
        return
    records = case.records
    if records is None or not case.image.linked:
        return
    covered = (records.rela >= 0) | records.relr
    bare = np.flatnonzero(records.live & ~covered)
    if covered.any():
        for row in bare.tolist():
            value, others = int(records.value[row]), int(covered.sum())
            text = (
                f"row {row} ({value:#x}) has no relocation, {others} other slots have one: wrong once the kernel moves"
            )
            yield Hit(text, row)


def word_ignored(case: Case) -> Iterator[Hit]:
    """Slots whose word differs from the addend that replaces it."""
    records = case.slots()
    wanted = records.value if case.arch.echoes else np.zeros(len(records), dtype=np.uint64)
    odd = (records.rela >= 0) & (records.word != wanted) & (records.word != records.value)
    for row in np.flatnonzero(odd).tolist():
        text = (
            f"row {row} holds {int(records.word[row]):#x}, its relocation writes {int(records.value[row]):#x} over it"
        )
        yield Hit(text, row)


def duplicate(case: Case) -> Iterator[Hit]:
    """Live records that name a place which an earlier row names."""
    records = case.slots()
    rows = np.flatnonzero(records.live & (records.sec >= 0))
    va = case.image.va(records.sec[rows], records.off[rows])
    order = np.argsort(va, kind="stable")
    again = np.flatnonzero(va[order][1:] == va[order][:-1])
    for one in again.tolist():
        first, second = int(rows[order[one]]), int(rows[order[one + 1]])
        yield Hit(f"rows {first} and {second} name the same place {int(va[order[one]]):#x}", second)


def _sorted_at_build(case: Case) -> bool:
    """Whether the table was sorted by the build and will not be by the kernel: its configuration says so, or zeros
    lead it and hardly a record is out of order (one in forty descends where the order is the linker's)."""
    known = case.kconfig.get("BUILDTIME_MCOUNT_SORT")
    records = case.slots()
    if known or "DYNAMIC_FTRACE" in case.kconfig:
        return known == "y"
    if case.arch.max_offset is not None or not len(records) or not records.zero[0]:
        return False  # ppc64 always sorts at boot
    return len(_descents(case)) <= max(FEW, int(records.live.sum()) // 100)


def _descents(case: Case) -> I64:
    """Rows of live records that are less than the live one in front of them."""
    records = case.slots()
    rows = np.flatnonzero(records.live)
    value = records.value[rows]
    return rows[1:][value[1:] < value[:-1]]


def unsorted(case: Case) -> Iterator[Hit]:
    """Records out of order in a table that the kernel takes as sorted."""
    if _sorted_at_build(case):
        records = case.slots()
        for row in _descents(case).tolist():
            last = int(records.value[:row][records.live[:row]][-1])
            yield Hit(
                f"row {row} ({int(records.value[row]):#x}) is less than the record in front of it ({last:#x})", row
            )


def null_after_live(case: Case) -> Iterator[Hit]:
    """Null slots between the live ones of a table whose zeros lead."""
    records = case.slots()
    if records.live.any() and _sorted_at_build(case):
        first = int(np.argmax(records.live))
        for row in (first + np.flatnonzero(records.null[first:])).tolist():
            yield Hit(f"row {row} is null behind {int(records.live[:row].sum())} live records", row)


def null_not_skipped(case: Case) -> Iterator[Hit]:
    """Zeros that the kernel adjusts before it tests them."""
    records, shape = case.slots(), case.the().shape
    if shape is None or shape.adjust == 0 or shape.called or not records.zero.any():
        return
    if records.zero[0] or _tests_first(case):
        return
    for row in np.flatnonzero(records.zero).tolist():
        yield Hit(f"row {row} is 0; this kernel adds {shape.adjust or 4} before it tests for 0", row)


def _tests_first(case: Case) -> bool:
    row = case.image.symbols.defined(LOOP)
    if case.arch.skips_zero is None or row is None:
        return False
    va, size = (int(case.image.symbols.rows[name][row]) for name in ("st_value", "st_size"))
    return case.arch.skips_zero(case.image.code(va, min(size, MAX_CODE) // 4))


def record_lost(case: Case) -> Iterator[Hit]:
    """Slots of a relocatable file that no relocation fills any more."""
    if isinstance(case.trouble, RecordError):
        if any(part in case.trouble.what for part in LOST):
            yield Hit(_sentence(case.trouble))
    elif case.records is not None and not case.image.linked:
        for row in np.flatnonzero(case.records.null).tolist():
            yield Hit(f"row {row} has no relocation: its function is gone, the loader reads 0", row)


def _sentence(error: RecordError) -> str:
    return error.what + (f": {error.found}" if error.found else "")


def only_init(case: Case) -> Iterator[Hit]:
    """Every record is init text."""
    index = np.flatnonzero(case.live)
    if len(index) and case.init[index].all():
        yield Hit(f"all {len(index)} live records are init text: {some(case, index)}", count=len(index))


RULES = (
    Rule("table-ends", "error", "the record table cannot be read", table_ends,
         "The kernel walks from one end of the table to the other; ends that do not fit make it read other things.",
         "Look at the linker script's MCOUNT_REC and at what changed the file since.",
         "include/asm-generic/vmlinux.lds.h; kernel/trace/ftrace.c ftrace_init()", needs=()),
    Rule("slot-relocation", "error", "a slot is relocated twice, or alone is not", slot_relocation,
         "A slot that RELR and RELATIVE both move is moved twice, and one that neither moves keeps its link address: "
         "the kernel patches some other word.", "Rebuild .rela.dyn and .relr.dyn, or restore the slot's own entry.",
         "arch/arm64/kernel/pi/relocate.c; arch/powerpc/kernel/reloc_64.S", needs=()),
    Rule("word-ignored", "error", "a slot's word is not what its relocation writes", word_ignored,
         "The relocation runs at every boot and wins; whoever changed only the word changed nothing.",
         "Change the addend, or make the relocation NONE and zero the word.",
         "arch/powerpc/kernel/reloc_64.S relocate()", kinds=LINKED, needs=("records",)),
    Rule("duplicate", "error", "two records name one place", duplicate,
         "The second record finds the site as the first one left it: an ftrace bug at boot, and tracing is off.",
         "Drop one of the two.", "kernel/trace/ftrace.c ftrace_update_code()", needs=("records",)),
    Rule("unsorted", "error", "a record is out of order in a table that is not sorted again", unsorted,
         "With BUILDTIME_MCOUNT_SORT the kernel searches the table by bisection as it stands: functions behind the gap "
         "are not found.", "Run sorttable again, or sort the slots.",
         "kernel/trace/ftrace.c lookup_rec(), scripts/sorttable.c", kinds=("vmlinux",), needs=("records",)),
    Rule("null-after-live", "warning", "a null slot stands between live ones", null_after_live,
         "Zeros lead a table that was sorted at build; one behind live records is skipped, but "
         "FTRACE_SORT_STARTUP_TEST complains, and the slot was emptied after the build.",
         "Move the zeros to the front (ftpatch drop does).", "kernel/trace/ftrace.c test_is_sorted()",
         kinds=("vmlinux",), needs=("records",)),
    Rule("null-not-skipped", "error", "a slot is 0 and this kernel does not skip it", null_not_skipped,
         "Kernels that adjust a record before they test it take 0 for a site at address 4, fault on it and switch "
         "tracing off.", "Write −4 with the relocation NONE, or cut the slot out (ftpatch drop does).",
         "kernel/trace/ftrace.c ftrace_process_locs() before Linux commit 6eeca746fa5f", kinds=("vmlinux",)),
    Rule("record-lost", "error", "a record's function is gone", record_lost,
         "--gc-sections or a COMDAT group took the function and left its record, or objcopy left the slot without its "
         "relocation; ppc64's loader refuses relocations of type NONE besides.",
         "Link with SHF_LINK_ORDER intact (binutils 25381, GCC 93195, 93197, 110729), or cut the slot out.",
         "kernel/module/main.c; scripts/module.lds.S", kinds=RELOCATABLE, needs=()),
    Rule("only-init", "error", "every record is init text", only_init,
         "When init memory is freed the kernel takes its records out, and reads a null pointer where none is left.",
         "Leave one record outside init text, or none at all.", "kernel/trace/ftrace.c ftrace_free_mem()",
         kinds=("vmlinux",)),
)  # fmt: skip
