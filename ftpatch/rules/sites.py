"""Rules about what stands at a site, and who else writes there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.elf.relocations import relocations_of, touched
from ftpatch.plan.targets import READ
from ftpatch.rules import LINKED, Rule
from ftpatch.rules.case import Case, Hit
from ftpatch.rules.patchers import others
from ftpatch.sites.table import ENABLED, HALF, LEFTOVER, READY, UNEXPECTED


def unexpected_words(case: Case) -> Iterator[Hit]:
    """Sites of functions that hold neither the NOPs nor the call."""
    table = case.the()
    odd = case.live_with(UNEXPECTED)
    for one in odd[case.named[odd]].tolist():
        yield Hit(f"row {table.row[one]} has {case.words(one)}, not {_wanted(case)}", one)


def record_without_nops(case: Case) -> Iterator[Hit]:
    """Records of code that is neither a site nor in a function."""
    table = case.the()
    odd = case.live_with(UNEXPECTED)
    odd = odd[~case.named[odd]]
    for one in odd[~case.image.functions.inside(table.va[odd])].tolist():
        yield Hit(f"row {table.row[one]} names {table.place_text(one)}: {case.words(one)}, in no function", one)


def _wanted(case: Case) -> str:
    shape = case.the().shape
    return "; ".join(word.text for word in shape.old) if shape else "a site"


def site_enabled(case: Case) -> Iterator[Hit]:
    """Sites that are calls already although their record is live."""
    for one in case.live_with(ENABLED).tolist():
        yield Hit(f"row {case.the().row[one]} is a call in the file ({case.words(one)}) and still has its record", one)


def site_half(case: Case) -> Iterator[Hit]:
    """Sites of which only the first word was rewritten."""
    for one in case.live_with(HALF).tolist():
        yield Hit(f"row {case.the().row[one]} is half rewritten: {case.words(one)}", one)


def without_record(case: Case) -> Iterator[Hit]:
    """Sites that an earlier patch enabled."""
    table = case.the()
    n = int((table.row < 0).sum())
    if n:
        first = int(np.argmax(table.row < 0))
        yield Hit(f"{n} sites call without a record, the first is {table.name(first)}: an earlier patch", count=n)


def literal_missing(case: Case) -> Iterator[Hit]:
    """Calls of an entry that loads an ops pointer which is not there."""
    image, table, shape = case.image, case.the(), case.the().shape
    if shape is None or shape.literal is None or not (table.row < 0).any():
        return
    index = np.flatnonzero((table.row < 0) & (table.sec >= 0))
    target = table.branch_va[index].view(np.int64) + shape.branch.decode(table.body()[index, -1])
    entries = [image.symbols.value(name) for name in case.arch.entries]
    reads = [va for va in entries if va is not None and case.arch.read_entry(image.code(va, READ)).literal]
    index = index[np.isin(target.view(np.uint64), np.array(reads, dtype=np.uint64))]
    va = table.va[index] + np.uint64(shape.literal)
    nops = image.words(table.sec[index], table.off[index] + shape.literal, 0, 2) == np.uint32(case.arch.nop)
    for one in index[nops.all(axis=1) & ~image.relocated(va, 8)].tolist():
        yield Hit(f"{table.name(one)} calls an entry that loads the pointer in front of it: two NOPs", one)


def not_atomic(case: Case) -> Iterator[Hit]:
    """Records whose words no single store replaces."""
    table, records = case.the(), case.slots()
    odd = records.live & (table.sec[: len(records)] >= 0) & (table.off[: len(records)] % 4 != 0)
    for one in np.flatnonzero(odd).tolist():
        yield Hit(f"row {one} lies at {int(table.off[one]) % 4} mod 4: no store replaces its word at once", one)


def site_shared(case: Case) -> Iterator[Hit]:
    """Sites with words that another part of the kernel rewrites."""
    table, index = case.the(), case.live_with(READY, LEFTOVER)
    if not len(index):
        return
    low, high = table.body_va[index], table.branch_va[index] + np.uint64(4)
    for name, start, end in others(case.image):
        order = np.argsort(start, kind="stable")
        start, end = start[order], np.maximum.accumulate(end[order]) if len(end) else end
        last = np.searchsorted(start, high) - 1
        hit = (last >= 0) & (end[np.maximum(last, 0)] > low) if len(start) else np.zeros(len(low), dtype=bool)
        for one in index[hit].tolist():
            yield Hit(f"row {table.row[one]}: {name} rewrites words of this site too", one)


def site_relocated(case: Case) -> Iterator[Hit]:
    """Sites with words that a loader writes."""
    image, table, shape = case.image, case.the(), case.the().shape
    index = case.live_with(READY, LEFTOVER)
    if shape is None or shape.called or not len(index):
        return
    size = 4 * len(shape.old)
    if image.linked:
        hit = image.relocated(table.body_va[index], size)
    else:
        hit = np.zeros(len(index), dtype=bool)
        for sec in np.unique(table.sec[index]).tolist():
            mine = table.sec[index] == sec
            hit[mine] = touched(relocations_of(image, sec), (table.off + table.site)[index[mine]], size)
    for one in index[hit].tolist():
        yield Hit(f"row {table.row[one]}: a relocation writes into the words of this site", one)


RULES = (
    Rule("unexpected-words", "error", "a site holds neither NOPs nor a call", unexpected_words,
         "The kernel compares the words before it writes; one site that differs prints an ftrace bug and switches all "
         "tracing off.", "Look at what wrote there; rebuild the object.",
         "arch/arm64/kernel/ftrace.c ftrace_init_nop(), arch/powerpc/kernel/trace/ftrace.c"),
    Rule("record-without-nops", "error", "a record of code without a site", record_without_nops,
         "The function that the record belonged to is gone or elsewhere: what --gc-sections and a lost SHF_LINK_ORDER "
         "leave (binutils 25381, GCC 93195, 93197, 110729).", "Rebuild with the link order intact, or drop the record.",
         "binutils PR 25381; arch/powerpc/Kconfig LD_DEAD_CODE_DATA_ELIMINATION"),
    Rule("site-enabled", "error", "a site is enabled and its record is live", site_enabled,
         "At boot or load the kernel expects NOPs, finds the call, and switches tracing off for the whole system.",
         "Drop the record (ftpatch enable does), or restore the NOPs (ftpatch disable).",
         "kernel/trace/ftrace.c ftrace_bug(), ftrace_kill()"),
    Rule("site-half", "error", "a site is half rewritten", site_half,
         "The form that a running kernel gives to a disabled site is no form for the disk: initialisation fails on it.",
         "Restore the NOPs (ftpatch disable), or finish the patch.", "arch/arm64/kernel/ftrace.c ftrace_init_nop()"),
    Rule("without-record", "note", "sites are enabled without a record", without_record,
         "An earlier patch enabled them: they run the trampoline from the first instruction on and cannot be traced by "
         "name.", "Nothing, if that was meant.", "ftpatch enable"),
    Rule("literal-missing", "error", "an enabled site has no ops pointer", literal_missing,
         "ftrace_caller loads the pointer and follows it without a test: the first call ends in an oops.",
         "Fill the pointer, with its relocation (ftpatch enable does).",
         "arch/arm64/kernel/entry-ftrace.S ftrace_caller", kinds=LINKED),
    Rule("not-atomic", "error", "a site that cannot be patched atomically", not_atomic,
         "Instructions are four bytes on four; a record between them names none, and a store there changes two.",
         "Look at what made the record.", "Arm ARM B2.2.5; Power ISA book II 1.4"),
    Rule("site-shared", "error", "two mechanisms rewrite one site", site_shared,
         "Static keys and alternatives change words without asking ftrace: whoever comes second finds the other's.",
         "Keep the NOPs of the entry apart from the first statement.", "kernel/jump_label.c, "
         "arch/arm64/kernel/alternative.c"),
    Rule("site-relocated", "error", "a relocation writes into a site", site_relocated,
         "The loader runs first, so the kernel finds other words than the file shows.",
         "Take the relocation away; see what it was for.", "kernel/module/main.c apply_relocations()"),
)  # fmt: skip
