"""Rules about where records point, and how sites and their pointers lie."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ftpatch.arrays import I64
from ftpatch.elf import tables as t
from ftpatch.errors import ShapeError
from ftpatch.kernel.kallsyms import listed_as
from ftpatch.rules import RELOCATABLE
from ftpatch.rules.case import Case, Hit
from ftpatch.sites.nameless import in_front_of
from ftpatch.sites.never_traced import BOUNDS, NEVER_TRACED, Bounds, within
from ftpatch.sites.table import LEFTOVER, OUTSIDE, STRIPPED, UNEXPECTED, UNNAMED

EXIT = (".exit.text",)
EXIT_BOUNDS = (("__exittext_begin", "__exittext_end"), ("_sexittext", "_eexittext"))


def dead_weak(case: Case) -> Iterator[Hit]:
    """Records of code that no symbol names any more."""
    table, index = case.table, case.live_with(LEFTOVER)
    names = listed_as(case.image, table.branch_va[index])
    for site, name in zip(index.tolist(), names, strict=True):
        shown = f"the kernel lists it as {name}" if case.image.linked and name else "no symbol names it"
        yield Hit(f"row {table.row[site]} names the code of an overridden weak function; {shown}", site)


def names_stripped(case: Case) -> Iterator[Hit]:
    """Sites of functions whose symbols were taken out of the file, all in one."""
    front = len(_in_front(case)[0])
    stripped, unnamed = len(case.live_with(STRIPPED)), len(case.live_with(UNNAMED)) - front
    head = f"{stripped or unnamed} of {int(case.live.sum())} sites have no name"
    doubt = "stripped or left of weak functions, which the file does not tell"
    if stripped:
        more = f"; {unnamed} more are {doubt}" if unnamed else ""
        yield Hit(f"{head}: the symbols of their functions are stripped{more}", count=stripped + unnamed)
    elif unnamed:
        yield Hit(f"{head}: {doubt}", count=unnamed)


def outside_text(case: Case) -> Iterator[Hit]:
    """Live records that name no code."""
    records = case.records
    for row in np.flatnonzero(records.live & (case.table.status[: len(records)] == OUTSIDE)).tolist():
        sec = int(records.sec[row])
        where = f"in {case.image.names[sec]}" if sec >= 0 else "in no section"
        yield Hit(f"row {row} names {int(records.value[row]):#x} {where}, which is no code", row)


def _within(case: Case, names: tuple[str, ...], bounds: Bounds, what: str) -> Iterator[Hit]:
    """Records of code in sections of these names or between these symbols."""
    table = case.table
    inside = within(case.image, table.sec, table.va, names, bounds)
    for site in np.flatnonzero(inside & case.live).tolist():
        yield Hit(f"row {table.row[site]} names {what}", site)


def exit_text(case: Case) -> Iterator[Hit]:
    """Records in text that only runs at exit."""
    return _within(case, EXIT, EXIT_BOUNDS, "exit text, which the kernel does not trace")


def notrace_section(case: Case) -> Iterator[Hit]:
    """Records in text where tracing must not happen."""
    return _within(case, NEVER_TRACED, BOUNDS, "code in a section that must not be traced")


def not_at_entry(case: Case) -> Iterator[Hit]:
    """Records inside a function, but not where its site is."""
    table, functions, odd = case.table, case.image.functions, case.live_with(UNEXPECTED)
    odd = odd[~case.named[odd] & functions.inside(table.va[odd])]
    for site, at in zip(odd.tolist(), functions.containing(table.va[odd]).tolist(), strict=True):
        name = case.image.symbols.name(int(functions.row[at])) if at >= 0 else "a function"
        far = int(table.va[site]) - int(functions.va[at])
        yield Hit(f"row {table.row[site]} names {name}+{far:#x}, which is not its entry", site, name)
    front, before = _in_front(case)
    if len(front):
        names = [case.image.symbols.name(int(functions.row[at])) for at in before[:3].tolist()]
        shown = ", ".join(names) + (", …" if len(front) > len(names) else "")
        yield Hit(f"{len(front)} records name NOPs in front of a function (-fpatchable-function-entry=N,M): {shown}",
                  count=len(front))  # fmt: skip


def _in_front(case: Case) -> tuple[I64, I64]:
    """(sites, functions) of the records that name NOPs in front of a function, where this layout has none."""
    site = case.live_with(UNNAMED)
    if not len(site):  # as in all modules that are whole
        return site, site
    before = in_front_of(case.image, case.table.va[site])
    return site[before >= 0], before[before >= 0]


def mixed_layouts(case: Case) -> Iterator[Hit]:
    """Sites that another layout explains."""
    shape, trouble = case.table.shape, case.trouble
    if case.unread and isinstance(trouble, ShapeError):
        yield Hit(f"{trouble.what}: {trouble.found}")
    usual = shape.name if shape else ""
    for site, name in sorted(case.odd.items()):
        yield Hit(f"row {site} is a site of layout {name} ({case.words(site)}), the others are {usual}", site)


def literal_misaligned(case: Case) -> Iterator[Hit]:
    """Ops pointers that do not lie on eight bytes."""
    table, shape = case.table, case.table.shape
    if shape is None or shape.literal is None:
        return
    for site in np.flatnonzero(case.live & ((table.off + shape.literal) % 8 != 0)).tolist():
        yield Hit(f"the ops pointer of row {table.row[site]} lies at {int(table.va[site]) % 8} mod 8", site)


def alignment_lost(case: Case) -> Iterator[Hit]:
    """Sections and functions with less alignment than the kernel was built for."""
    table, shape, image = case.table, case.table.shape, case.image
    wanted = case.kconfig.get("FUNCTION_ALIGNMENT", "")
    n = 8 if shape is not None and shape.literal is not None else 0
    if re.fullmatch("[0-9]{1,4}", wanted):
        n = int(wanted)
    if n < 2:
        return
    align = image.shdr["sh_addralign"]
    weak: list[int] = []
    if case.kind in RELOCATABLE:
        secs = np.unique(table.sec[case.live])
        weak = secs[align[secs] < n].tolist()
    for sec in weak:
        text = f"section {image.names[sec]} is aligned to {align[sec]}, its sites want {n}"
        yield Hit(text, section=image.names[sec], count=int((table.sec == sec).sum()))
    if wanted:
        odd = case.live & case.named & ~np.isin(table.sec, weak) & (table.entry_va % np.uint64(n) != 0)
        if shape is not None and shape.literal is not None:
            odd &= (table.off + shape.literal) % 8 == 0  # the others are misaligned pointers
        for site in np.flatnonzero(odd).tolist():
            text = f"{table.name(site)} starts {int(table.entry_va[site]) % n} bytes behind a multiple of {n}"
            yield Hit(f"{text} (CONFIG_FUNCTION_ALIGNMENT)", site)


def global_entry(case: Case) -> Iterator[Hit]:
    """Records at the global entry of a toolchain that puts them there."""
    shape, index = case.table.shape, np.flatnonzero(case.live)
    if shape is not None and shape.at_global and not shape.refusal:
        n = int(shape.skipped(case.table.window[index]).sum())
        yield Hit(f"{n} of {len(index)} records name the global entry, their sites are at the local one", count=n)


def toolchain_layout(case: Case) -> Iterator[Hit]:
    """Layouts that a compiler makes by mistake and no kernel can patch."""
    shape, index = case.table.shape, np.flatnonzero(case.live)
    if shape is not None and shape.refusal and not shape.called:
        yield Hit(f"{len(index)} sites of layout {shape.name}: {shape.refusal}", count=len(index))


def kcfi_prefix(case: Case) -> Iterator[Hit]:
    """Functions without a type hash where kCFI expects one."""
    image, table, shape = case.image, case.table, case.table.shape
    if case.arch.unit == 1:  # the hash is in an instruction in front of the function's padding, however much that is
        return
    cfi = "y" in (case.kconfig.get("CFI_CLANG"), case.kconfig.get("CFI"))
    if shape is None or not (cfi or image.sections_named(".kcfi_traps") or b"\0__kcfi_typeid_" in image.symbols.strtab):
        return
    index = np.flatnonzero(case.live & case.named)
    if shape.literal is not None:
        if cfi and len(index):
            text = f"{len(index)} sites have an ops pointer where kCFI has its hash: {case.some(index)}"
            yield Hit(text, count=len(index))
        return
    outer = image.symbols.bind[image.functions.row[table.func[index]]] == t.STB_GLOBAL
    index = index[outer]  # static functions have a hash only where their address is taken
    words = image.words(*image.place(table.entry_va[index]), -1, 1)[:, 0]
    for site, word in zip(index.tolist(), words.tolist(), strict=True):
        if word in (0, case.arch.nop):
            yield Hit(f"{table.name(site)} has {word:#010x} in front of its entry, not a type hash", site)
