"""Planted defects of record tables and sites, by rule: subject → Plant, or None where the defect cannot be."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from ftpatch.sites.named_at_build import named_at_build
from ftpatch.sites.table import READY
from tools.planting import Plant, Subject, config

Make = Callable[[Subject], Plant | None]
NOP = {"arm64": 0xD503201F, "ppc64le": 0x60000000}
RETURN = {"arm64": 0xD65F03C0, "ppc64le": 0x4E800020, "x86_64": 0xC3}
SAVED = {"arm64": 0xAA1E03E9, "ppc64le": 0x7C0802A6}  # mov x9, x30; mflr r0
LI = 0x38600000  # li r3, 0
FAR = 40 << 20
UNRECORDED = ("nops-without-record",)  # in modules: the function that lost its record


def lost(subject: Subject) -> tuple[str, ...]:
    """What cannot but fire where a record leaves its function: its call is found, or in modules its NOPs."""
    if subject.calls:
        return ("call-without-record",)
    return () if subject.vmlinux else UNRECORDED


def dead_weak(subject: Subject) -> Plant | None:
    """A function that nothing refers to loses its symbol. A table that the build sorted has no such records, and a
    kernel's own kallsyms still tell that it had one."""
    scan = subject.scan
    known = scan.image.linked and named_at_build(scan.image, scan.image.functions.va[:1]) is not None
    sites = [] if known or (subject.arch != "ppc64le" and scan.records.zeros_lead) else subject.unused
    return Plant(subject.no_function(sites[0])) if sites else None


def recorded_elsewhere(subject: Subject) -> Plant | None:
    """The section of an object's records has a name that no kernel knows."""
    edits = [] if subject.linked else subject.renamed("__patchable_function_entries", ".discard.pfe_notrace")
    return Plant(edits) if edits else None


def records_missing(subject: Subject) -> Plant | None:
    """The section of an object's records is none any more, nor is the table of its relocations."""
    names, image = [f"{kind}__patchable_function_entries" for kind in ("", ".rela")], subject.scan.image
    # beside the other section it lists where padding is
    if subject.linked or len(image.sections_named(names[0])) != 1 or image.sections_named("__mcount_loc"):
        return None
    return Plant([edit for name in names for edit in subject.header(name, 4, 0, 4)])


def symbols_stripped(subject: Subject) -> Plant | None:
    """The symbol table of a module is none any more, nor are the tables of relocations."""
    image = subject.scan.image
    gone = [".symtab", *(name for name in image.names if name.startswith(".rela"))]
    return None if subject.linked else Plant([edit for name in gone for edit in subject.header(name, 4, 0, 4)])


def names_stripped(subject: Subject) -> Plant | None:
    """A function that is called loses its symbol; of one in a table that the build sorted nobody has to call it."""
    used = [site for site in subject.plain if site not in subject.unused]
    return Plant(subject.no_function(used[0])) if used and subject.layout != "mcount" else None


def outside_text(subject: Subject) -> Plant | None:
    image, records = subject.scan.image, subject.scan.records
    if not subject.linked:
        at = subject.rela_pos(subject.plain[0])
        data = [subject.section_symbol(sec) for sec in image.sections_named(".rodata", ".data", ".rodata.str1.8")]
        symbol = next((one for one in data if one), None)
        info = int.from_bytes(image.data[at + 8 : at + 12].tobytes(), "little") | (symbol or 0) << 32
        return Plant([(at + 8, struct.pack("<Q", info))], also=lost(subject)) if symbol else None
    row = int(np.argmax(np.where(records.live, records.value, 0)))
    also = ("call-without-record",) if subject.calls else ()
    return Plant(subject.record(row, records.start - int(records.value[row])), also=also)


def exit_text(subject: Subject) -> Plant | None:
    if subject.vmlinux:
        return _between(subject, "__exittext_begin", "__exittext_end")
    edits = subject.renamed(".text.unlikely", ".exit.text")
    return Plant(edits) if edits and _recorded_in(subject, ".text.unlikely") else None


def _between(subject: Subject, low: str, high: str) -> Plant | None:
    """Two bounds moved around a site."""
    site = subject.site(subject.plain[0])
    edits = [*subject.value(low, site - 16), *subject.value(high, site + 16)]
    return Plant(edits) if len(edits) == 2 else None


def _recorded_in(subject: Subject, name: str) -> bool:
    return bool(np.isin(subject.scan.sites.sec, subject.scan.image.sections_named(name)).any())


def notrace_section(subject: Subject) -> Plant | None:
    if subject.vmlinux:
        return _between(subject, "__noinstr_text_start", "__noinstr_text_end")
    edits = subject.renamed(".text.unlikely", ".noinstr.text")
    return Plant(edits) if edits and _recorded_in(subject, ".text.unlikely") else None


def not_at_entry(subject: Subject) -> Plant | None:
    site = next(one for one in subject.plain if subject.strange(one, 16))
    return Plant(subject.record(site, 16), also=lost(subject))


def mixed_layouts(subject: Subject) -> Plant | None:
    image, table, site = subject.scan.image, subject.scan.sites, subject.plain[0]
    if subject.layout == "callops":
        return Plant(subject.record(site, 8), also=())
    if subject.layout == "mprofile":
        return Plant(subject.words(subject.site(site) - 4, NOP["ppc64le"]))
    if subject.arch == "ppc64le" and subject.layout == "pfe2":
        return Plant(subject.words(subject.site(site) + 4, LI))
    for one in subject.plain:
        va, local = int(table.entry_va[one]), int(table.local_va[one])
        if subject.layout == "ool" and local - va == 8:
            return Plant(subject.record(one, -8), also=lost(subject))
        aligned = va % 8 == 0 and int(table.off[one]) % 8 == 0 and subject.layout == "pfe2"
        if aligned and not image.functions.inside(np.array([va - 8, va - 4], np.uint64)).any() and table.off[one] >= 8:
            return Plant([*subject.words(va - 8, NOP["arm64"], NOP["arm64"]), *subject.record(one, -8)])
    return None


def literal_misaligned(subject: Subject) -> Plant | None:
    return _moved(subject, 4) if subject.layout == "callops" else None


def _moved(subject: Subject, by: int) -> Plant | None:
    """A function that starts some bytes further on, its site and record with it."""
    table, shape = subject.scan.sites, subject.scan.sites.shape
    assert shape is not None
    for site in subject.plain:
        if table.entry_va[site] != table.local_va[site]:
            continue
        at, va = subject.function_symbol(site), subject.site(site)
        nops = (NOP[subject.arch],) * (len(shape.old) + by // 4)
        moved = (
            int(table.entry_va[site]) - (0 if subject.linked else int(subject.scan.image.base[table.sec[site]])) + by
        )
        return Plant([*subject.record(site, by), (at + 8, struct.pack("<Q", moved)), *subject.words(va, *nops)])
    return None


def alignment_lost(subject: Subject) -> Plant | None:
    if not subject.linked:
        return Plant(subject.header(".text", 48, 4)) if subject.layout == "callops" else None
    if subject.layout == "callops" or subject.calls:
        return None  # a misaligned pointer; sites that are calls are no NOPs to move
    plant = _moved(subject, 4)
    return plant and Plant(plant.edits, kconfig={"FUNCTION_ALIGNMENT": "8", **config(subject)})


def global_entry(subject: Subject) -> Plant | None:
    if subject.layout != "ool":
        return None
    table = subject.scan.sites
    rows = np.flatnonzero((table.status == READY) & (table.local_va - table.entry_va == 8))
    return Plant([edit for row in rows.tolist() for edit in subject.record(row, -8)], also=("module-layout",))


def toolchain_layout(subject: Subject) -> Plant | None:
    if (subject.arch, subject.layout) != ("ppc64le", "pfe2"):
        return None
    table, nop, edits = subject.scan.sites, NOP["ppc64le"], []
    for row in np.flatnonzero((table.status == READY) & (table.local_va - table.entry_va == 8)).tolist():
        va = int(table.entry_va[row])
        first, second = table.window[row, :2].tolist()  # the words in front of the record set up r2
        edits += [*subject.record(row, -8), *subject.words(va, nop, nop, first, second)]
    return Plant(
        edits, also=() if subject.linked else ("site-relocated", "module-layout")
    )  # those of the set-up of r2 stay


def table_ends(subject: Subject) -> Plant | None:
    if subject.linked:
        stop = subject.scan.image.symbols.value("__stop_mcount_loc") or 0
        return Plant(subject.value("__stop_mcount_loc", stop - 4))
    for name in subject.tables:
        if (sec := subject.section(name)) is not None:
            return Plant(subject.header(name, 32, int(subject.scan.image.shdr["sh_size"][sec]) - 4))
    return None


def slot_relocation(subject: Subject) -> Plant | None:
    image, records, row = subject.scan.image, subject.scan.records, subject.plain[0]
    if not subject.linked:
        first, second = subject.rela_pos(row), subject.rela_pos(row + 1 if row + 1 < len(records) else row - 1)
        one = len({int(number) for number in records.rela[:2]}) == 2  # clang makes a table for each
        return Plant([(second, image.data[first : first + 8].tobytes())]) if one else None
    slot = struct.pack("<Q", records.start + 8 * row)
    free = spare(subject)
    return Plant([(free, slot + struct.pack("<Qq", subject.scan.arch.relative, 0))]) if free >= 0 else None


def slot_bare(subject: Subject) -> Plant | None:
    if not subject.linked or (at := subject.rela_pos(subject.plain[0])) < 0:
        return None
    row, records = subject.plain[0], subject.scan.records
    return Plant([(at, bytes(24)), (int(records.slot[row]), struct.pack("<Q", int(records.value[row])))])


def spare(subject: Subject) -> int:
    """Position of a dynamic relocation that fills no slot, a NONE before others."""
    image, records = subject.scan.image, subject.scan.records
    rows, pos = image.rela
    free = np.flatnonzero((rows["r_info"] & 0xFFFF_FFFF) == subject.scan.arch.none)
    used = np.isin(np.arange(len(rows)), records.rela)
    others = np.flatnonzero(((rows["r_info"] & 0xFFFF_FFFF) == subject.scan.arch.relative) & ~used)
    found = free if len(free) else others
    return int(pos[found[len(found) // 2]]) if len(found) else -1


def word_ignored(subject: Subject) -> Plant | None:
    if not subject.linked or subject.rela_pos(subject.plain[0]) < 0:
        return None
    return Plant([(int(subject.scan.records.slot[subject.plain[0]]), struct.pack("<Q", 0x1234_5678))])


def duplicate(subject: Subject) -> Plant | None:
    records, table = subject.scan.records, subject.scan.sites
    for row in range(len(records) // 2, len(records) - 1):
        one, two = records.value[row : row + 2].tolist()
        if records.sec[row] == records.sec[row + 1] and table.status[row] == table.status[row + 1] == READY:
            return Plant(subject.record(row, two - one), also=lost(subject))
    return None


def unsorted(subject: Subject) -> Plant | None:
    records, row = subject.scan.records, len(subject.scan.records) // 2
    if not subject.vmlinux or not records.zero[0]:
        return None
    return Plant([(int(records.slot[row]), struct.pack("<QQ", *records.value[[row + 1, row]].tolist()))])


def null_after_live(subject: Subject) -> Plant | None:
    records = subject.scan.records
    if not subject.vmlinux or not records.zero[0]:
        return None
    return Plant([(int(records.slot[len(records) // 2]), bytes(8))], also=lost(subject))


def null_not_skipped(subject: Subject) -> Plant | None:
    fatal = subject.vmlinux and (subject.arch, subject.layout) == ("arm64", "pfe2") and subject.rela_pos(1) >= 0
    return Plant(subject.emptied(len(subject.scan.records) // 2)) if fatal else None


def record_lost(subject: Subject) -> Plant | None:
    if subject.linked:
        return None
    at = subject.rela_pos(subject.plain[0])
    return Plant([(at + 8, bytes(16))], also=lost(subject))


def only_init(subject: Subject) -> Plant | None:
    if not subject.vmlinux:
        return None
    low = int(subject.scan.sites.va[subject.scan.records.live].min())
    return Plant(subject.value("_sinittext", low - 64), also=("stub-count",) if subject.layout == "ool" else ())


def unexpected_words(subject: Subject) -> Plant | None:
    return Plant(subject.words(subject.site(subject.plain[0]), RETURN[subject.arch]))


def record_without_nops(subject: Subject) -> Plant | None:
    found = subject.gap(40)
    if found is None:
        return None
    site, va = found
    table = subject.scan.sites
    zeros = subject.words(va - 8, *(0,) * 8)
    return Plant([*subject.record(site, va - int(table.va[site])), *zeros], also=lost(subject))


def site_enabled(subject: Subject) -> Plant | None:
    return enabled(subject, subject.plain[0])


def enabled(subject: Subject, row: int) -> Plant | None:
    """A site as a patch on disk leaves it, but for its record."""
    table, image = subject.scan.sites, subject.scan.image
    shape, site = table.shape, subject.site(row)
    assert shape is not None
    if shape.called and not subject.linked:
        return None
    if shape.stub and subject.linked:
        end, count = (image.symbols.value(f"ftrace_ool_stub_text_end{more}") or 0 for more in ("", "_count"))
        n = int(image.word_at(np.array([subject.pos(count)]))[0])
        stub = end + 24 * (n - 1) + 8
        ahead = (image.symbols.value("ftrace_caller") or 0) - stub - 4
        words = subject.scan.arch.site_stub.code(np.array([ahead]), np.array([site + 4 - stub - 12]))[0]  # type: ignore[union-attr]
        call = shape.branch.encode(np.array([stub - site]))[0]
        return Plant([*subject.words(stub, *words.tolist()), *subject.words(site, int(call))])
    target = image.symbols.value("ftrace_caller") if subject.linked else site
    front = shape.new[: -shape.branch.n_units]
    distance = np.array([(target or 0) - site - subject.scan.arch.unit * len(front)])
    words = [word.bits for word in front] + np.ravel(shape.branch.encode(distance)).tolist()
    return Plant(subject.words(site, *words))


def site_half(subject: Subject) -> Plant | None:
    shape = subject.scan.sites.shape
    halves = shape is not None and len(shape.old) > shape.branch.n_units
    return Plant(subject.words(subject.site(subject.plain[0]), SAVED[subject.arch])) if halves else None


def literal_missing(subject: Subject) -> Plant | None:
    if not subject.vmlinux or subject.layout != "callops":
        return None
    records = subject.scan.records
    first = int(np.argmax(records.live))
    site, target = subject.site(first), subject.scan.image.symbols.value("ftrace_caller") or 0
    call = subject.scan.arch.call.encode(np.array([target - site - 4]))[0]
    null = [(int(records.slot[first]), bytes(8))]
    return Plant([*subject.words(site, SAVED["arm64"], int(call)), *null], also=("without-record",))


def not_atomic(subject: Subject) -> Plant | None:
    if subject.scan.arch.unit == 1:
        return None  # any address is one of an instruction
    return Plant(subject.record(subject.plain[0], 2), also=lost(subject))
