"""Rules about programs and shared objects, whose records no kernel reads and whose loader is ld.so.

What is wrong there is another matter than in a kernel: nothing crashes by a bad record, but what goes by the records
(this program, a tracer that patches itself) does not know a function, or writes where none is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.shape import MATCH_OLD
from ftpatch.elf.kind import DT_GNU_PRELINKED, dynamic_of
from ftpatch.elf.tables import ET_DYN, SHF_LINK_ORDER
from ftpatch.errors import RecordError, ShapeError
from ftpatch.rules.case import Case, Hit, first
from ftpatch.sites.evidence import called_by
from ftpatch.sites.layout import shapes_of
from ftpatch.sites.profiler_calls import profiler_calls
from ftpatch.sites.records import record_sections
from ftpatch.sites.table import ENABLED, HALF, LEFTOVER, OUTSIDE, STRIPPED, UNEXPECTED, UNNAMED

SURE = 2  # functions that begin with the NOPs of a site where no record shows that the file has any
SHARE = 50  # one function in so many is what linkers make begin with NOPs, see `Arch.relaxes_to_nops`


def program_records(case: Case) -> Iterator[Hit]:
    """A list of records that cannot be read."""
    if isinstance(case.trouble, RecordError):
        yield Hit(case.trouble.what + (f": {case.trouble.found}" if case.trouble.found else ""))


def program_layout(case: Case) -> Iterator[Hit]:
    """Sites that nothing can patch, all of them or those of some units."""
    shape, trouble, index = case.table.shape, case.trouble, np.flatnonzero(case.live)
    if isinstance(trouble, ShapeError):
        yield Hit(f"{trouble.what}: {trouble.found}")
    elif shape is not None and shape.refusal and not shape.called and len(index):
        yield Hit(f"{len(index)} sites of layout {shape.name}: {shape.refusal}", count=len(index))


def mixed_sizes(case: Case) -> Iterator[Hit]:
    """Sites of functions that were built with another N or M than most."""
    usual = case.table.shape.name if case.table.shape else ""
    for name in sorted(set(case.odd.values())):
        sites = np.array(sorted(site for site, other in case.odd.items() if other == name), dtype=np.int64)
        are = "site is" if len(sites) == 1 else "sites are"
        text = f"{len(sites)} {are} of layout {name}, the others of {usual}: {case.some(sites)}"
        yield Hit(text, count=len(sites))


def record_unrelocated(case: Case) -> Iterator[Hit]:
    """Records of a file that is loaded anywhere, which nothing moves with it."""
    records = case.records
    covered = (records.rela >= 0) | records.relr
    rows = np.flatnonzero(records.live & ~covered)
    if case.image.e_type != ET_DYN or not len(rows):
        return
    prelinked = bool((dynamic_of(case.image)["d_tag"] == DT_GNU_PRELINKED).any())
    why = "; the file was prelinked" if prelinked else ""
    if not covered.any():
        yield Hit(f"none of {len(rows)} records has a relocation{why}", count=len(rows))
        return
    for row in rows.tolist():
        slot = f"row {row} ({int(records.value[row]):#x})"
        yield Hit(f"{slot} has no relocation, {int(covered.sum())} others have one{why}", row)


def record_discarded(case: Case) -> Iterator[Hit]:
    """Records of functions that the linker left out, or of which it kept the code alone."""
    records, table = case.records, case.table
    rows = np.flatnonzero(records.null)
    if len(rows):
        yield Hit(f"{len(rows)} of {len(records)} records are 0, the first is row {rows[0]}", count=len(rows))
    for row in np.flatnonzero(records.live & (records.sec < 0)).tolist():
        yield Hit(f"row {row} names {int(records.value[row]):#x}, where the file has nothing", row)
    for site in case.live_with(LEFTOVER).tolist():
        yield Hit(f"row {table.row[site]} names code that has no symbol and that nothing in the file refers to", site)


def record_elsewhere(case: Case) -> Iterator[Hit]:
    """Records that name something else than a site."""
    records, table, functions = case.records, case.table, case.image.functions
    outside = records.live & (table.status[: len(records)] == OUTSIDE) & (records.sec >= 0)
    for row in np.flatnonzero(outside).tolist():
        yield Hit(f"row {row} names {table.place_text(row)}, which is no code", row)
    over = table.off[: len(records)] % case.arch.unit
    for row in np.flatnonzero(records.live & ~outside & (records.sec >= 0) & (over != 0)).tolist():
        yield Hit(f"row {row} lies at {over[row]} mod {case.arch.unit}, between two instructions", row)
    odd = case.live_with(UNEXPECTED, HALF)
    inside = functions.containing(table.va[odd])
    usual = table.shape.code_text if table.shape else "a site"
    for site, around in zip(odd.tolist(), inside.tolist(), strict=True):
        name = table.name(site)
        if name is None and around >= 0:
            far = int(table.va[site]) - int(functions.va[around])
            name = case.image.symbols.name(int(functions.row[around]))
            yield Hit(f"row {table.row[site]} names {name}+{far:#x}, where no site of it is", site, name)
        else:
            where = name or f"{table.place_text(site)}, in no function"
            yield Hit(f"row {table.row[site]} ({where}) has {case.words(site)}, not {usual}", site)


def record_twice(case: Case) -> Iterator[Hit]:
    """Records that name a place which an earlier row names."""
    records = case.records
    rows = np.flatnonzero(records.live & (records.sec >= 0))
    order = np.argsort(records.value[rows], kind="stable")
    rows, value = rows[order], records.value[rows[order]]
    for at in np.flatnonzero(value[1:] == value[:-1]).tolist():
        yield Hit(f"rows {rows[at]} and {rows[at + 1]} name the same place {int(value[at]):#x}", int(rows[at + 1]))


def record_order(case: Case) -> Iterator[Hit]:
    """Records that do not ascend although their section says that they follow the code."""
    image, records = case.image, case.records
    for sec in record_sections(image):
        low, size = int(image.shdr["sh_offset"][sec]), int(image.shdr["sh_size"][sec])
        mine = (records.slot >= low) & (records.slot < low + size)
        down = records.descents[mine[records.descents]]
        if int(image.shdr["sh_flags"][sec]) & SHF_LINK_ORDER and len(down):
            text = f"{len(down)} of {int(mine.sum())} records are less than the one in front of them: {case.some(down)}"
            yield Hit(text, section=image.names[sec], count=len(down))


def program_unrecorded(case: Case) -> Iterator[Hit]:
    """Functions that begin with the NOPs of a site and have no record."""
    table = case.table
    lost = [] if table.shape is None or table.shape.called else [name for name, _, _ in case.unrecorded]
    sized = case.image.symbols.rows["st_size"] > 0  # as in `_all_lost`
    lost = [name for name in lost if sized[case.image.symbols.rows_named(name)].any()]
    if lost and _likely(case, len(lost)):
        functions = "function begins" if len(lost) == 1 else "functions begin"
        text = f"{len(lost)} {functions} with the NOPs of a site and without a record, {int(case.live.sum())} have one"
        yield Hit(f"{text}: {first(lost)}", count=len(lost))
    elif table.shape is None and not len(case.records):
        yield from _all_lost(case)


def _likely(case: Case, n: int) -> bool:
    """Whether n functions with NOPs and without a record are more than a linker makes by itself."""
    functions = case.image.functions
    return not case.arch.relaxes_to_nops or n * SHARE >= int((functions.end > functions.va).sum())


def _all_lost(case: Case) -> Iterator[Hit]:
    """The same where the link lost the whole section: nothing tells the layout then but the code."""
    functions, image = case.image.functions, case.image
    sec, off = image.place(functions.local)
    code = (sec >= 0) & image.executable[np.maximum(sec, 0)]
    code &= functions.end > functions.va  # those of the compiler's own start-up code have no size, and NOPs
    for shape in shapes_of(image):
        if shape.called or shape.at_global or shape.refusal or shape.size <= 4:
            continue
        at = off - shape.entry
        skip = shape.unit * shape.skip_words if shape.skips and shape.skip_at < 0 else 0
        window = image.window(np.where(code, sec, -1), at)
        behind = image.window(np.where(code, sec, -1), at + skip)
        bare = (shape.match(window) == MATCH_OLD) & code
        if skip:
            bare |= shape.skipped(behind) & (shape.match(behind) == MATCH_OLD) & code
        if int(bare.sum()) >= SURE and _likely(case, int(bare.sum())):
            names = first([image.symbols.name(int(row)) for row in functions.row[bare].tolist()[:4]])
            text = f"{int(bare.sum())} functions begin with the NOPs of a site ({shape.name})"
            yield Hit(f"{text} and there is no record at all: {names}", count=int(bare.sum()))
            return


def program_names(case: Case) -> Iterator[Hit]:
    """Sites of functions without a name."""
    n, total = len(case.live_with(STRIPPED, UNNAMED)), int(case.live.sum())
    if n and not len(case.image.functions.va):
        yield Hit(f"none of {n} sites has a name: the symbols are stripped", count=n)
    elif n:
        left = "what is left are the names that the dynamic linker needs"
        more = f", {left}" if len(case.image.own_symbols.rows) <= 1 else ""
        yield Hit(f"{n} of {total} sites have no name: the symbols of their functions are stripped{more}", count=n)


def enabled_sites(case: Case) -> Iterator[Hit]:
    """Sites that call something, as an earlier patch left them."""
    table, index = case.table, case.live_with(ENABLED)
    if not len(index) or table.shape is None:
        return
    symbols = case.image.symbols
    called = set(called_by(table, index).tolist())
    rows = np.flatnonzero(
        np.isin(symbols.rows["st_value"], np.array(sorted(called), dtype=np.uint64)) & (symbols.shndx > 0)
    )
    names = sorted({symbols.name(row) for row in rows.tolist()} - {""})
    goes = f"they call {first(names)}" if names else f"they call {first([hex(va) for va in sorted(called)])}"
    yield Hit(f"{len(index)} of {int(case.live.sum())} sites are enabled: {goes}", count=len(index))


def two_kinds(case: Case) -> Iterator[Hit]:
    """Calls of the profiling function in a program whose records are of other sites."""
    shape = case.table.shape
    if shape is None or shape.called:
        return
    for called in dict.fromkeys(other.called for other in case.arch.shapes if other.called):
        n = len(profiler_calls(case.image, called)[0])
        if n:
            yield Hit(f"{n} calls of {called} (-pg) beside {shape.name} sites", count=n)
