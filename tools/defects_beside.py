"""Planted defects of objects, reach, modules and of what stands beside a file, by rule; and the list of all."""

from __future__ import annotations

import struct

import numpy as np

from ftpatch.kernel.modinfo import section_of
from ftpatch.sites.table import READY
from tools import defects as d
from tools import defects_redirects as r
from tools import defects_static_calls as static_calls
from tools.defects import FAR, Make
from tools.planting import CONFIGS, PREL32, Plant, Subject, config, lost_record


def site_shared(subject: Subject) -> Plant | None:
    image, row = subject.scan.image, subject.plain[0]
    site = subject.site(row)
    if subject.linked:
        field = image.symbols.value("__start___jump_table")
        return Plant([(subject.pos(field), struct.pack("<i", site - field))]) if field else None
    sec = subject.section("__jump_table")
    at, rows = subject.relocations(sec) if sec is not None else (-1, ())
    symbol = subject.section_symbol(int(subject.scan.sites.sec[row]))
    first = [number for number, one in enumerate(rows) if int(one["r_offset"]) % 16 == 0]
    if at < 0 or symbol is None or not first:
        return None
    off = int(subject.scan.sites.off[row] + subject.scan.sites.site[row])
    return Plant([(at + 24 * first[0] + 8, struct.pack("<Qq", symbol << 32 | PREL32[subject.arch], off))])


def site_relocated(subject: Subject) -> Plant | None:
    row, table = subject.plain[0], subject.scan.sites
    if table.shape is None or table.shape.called:
        return None
    if subject.linked:
        free, kind = d.spare(subject), subject.scan.arch.relative
        return Plant([(free, struct.pack("<QQ", subject.site(row), kind))]) if free >= 0 else None
    at, rows = subject.relocations(int(table.sec[row]))
    off = int(table.off[row] + table.site[row])
    return Plant([(at + 24 * (len(rows) // 2), struct.pack("<Q", off))]) if len(rows) else None


def nops_without_record(subject: Subject) -> Plant | None:
    if subject.linked or subject.calls:
        return None
    image, records = subject.scan.image, subject.scan.records
    name = "__patchable_function_entries"
    sec = subject.section(name)
    if sec is None or len(image.sections_named(name)) != 1:
        return None
    table = int(np.flatnonzero((image.shdr["sh_type"] == 4) & (image.shdr["sh_info"] == sec))[0])
    shoff, n = int(image.ehdr["e_shoff"]), len(records)
    last = int(np.flatnonzero(records.rela >= 0)[-1])
    if last != n - 1 or int(records.rela[last]) != n - 1:
        return None
    return Plant([(shoff + 64 * sec + 32, struct.pack("<Q", 8 * (n - 1))),
                  (shoff + 64 * table + 32, struct.pack("<Q", 24 * (n - 1)))])  # fmt: skip


def link_order(subject: Subject) -> Plant | None:
    if subject.scan.image.kind != "object" or "clang" not in subject.stock:  # the others of gcc 12 have it by nature
        return None
    return Plant(subject.header("__patchable_function_entries", 8, 3))


def out_of_reach(subject: Subject) -> Plant | None:
    return _targets_at(subject, -FAR)


def headroom(subject: Subject) -> Plant | None:
    return _targets_at(subject, 1 << 20)


def _targets_at(subject: Subject, margin: int) -> Plant | None:
    """The kernel's own targets moved until the farthest call has just so much room left."""
    if not subject.vmlinux or subject.scan.image.symbols.value("ftrace_caller") is None:
        return None
    table, arch, names = subject.scan.sites, subject.scan.arch, ["ftrace_caller"]
    va = table.branch_va[table.status == READY]
    low = int(va.min())
    if subject.layout == "ool" and arch.site_stub:
        # its entry says how large a slot is, and stays; the stubs of init text, at its end, use the trampolines
        low = subject.scan.image.symbols.value(arch.site_stub.init) or 0
        if low - (subject.scan.image.symbols.value(names.pop()) or 0) <= -arch.call.low:
            return None
    names += [name for name in (arch.far.areas if arch.far else ())]
    to = low + arch.call.high - margin
    if to >> 64:
        return None  # no address is beyond
    return Plant([edit for name in names for edit in subject.value(name, to & -arch.unit)])


def stub_count(subject: Subject) -> Plant | None:
    count = subject.scan.image.symbols.value("ftrace_ool_stub_inittext_count")
    return Plant([(subject.pos(count), bytes(4))]) if subject.vmlinux and count else None


def ool_reserve(subject: Subject) -> Plant | None:
    if not subject.vmlinux or subject.layout != "ool":
        return None
    text = subject.scan.sites.va[subject.scan.sites.status == READY]
    far = int(text.max()) + subject.scan.arch.call.high + 64
    return Plant(subject.value("ftrace_ool_stub_text_end", far))


def kcfi_prefix(subject: Subject) -> Plant | None:
    if subject.layout == "callops":
        return Plant(kconfig={**config(subject), "CFI_CLANG": "y"})
    if "kcfi" not in subject.stock:
        return None
    row = subject.scan.image.symbols.rows_named("vfs_write")[0]
    va = int(subject.scan.image.symbols.rows["st_value"][row])
    return Plant(subject.words(va - 4, subject.scan.arch.nop))


def records_collapsed(subject: Subject) -> Plant | None:
    records = subject.scan.records
    if not subject.vmlinux:
        return Plant(before=3 * len(records))
    edits = [(int(records.slot[0]), bytes(8 * len(records)))]
    edits += [(at, bytes(24)) for row in range(len(records)) if (at := subject.rela_pos(row)) >= 0]
    return Plant(edits, also=("call-without-record",) if subject.calls else ())


def records_halved(subject: Subject) -> Plant | None:
    return Plant(before=3 * len(subject.scan.records)) if subject.vmlinux else None


def call_without_record(subject: Subject) -> Plant | None:
    if not subject.calls or not subject.linked:
        return None
    also = ("null-after-live",) if subject.vmlinux and subject.scan.records.zero[0] else ()
    return Plant(subject.emptied(subject.plain[0]), also=also)


def calls_without_records(subject: Subject) -> Plant | None:
    """A table without a slot: its end is where it starts."""
    start = subject.scan.records.start
    return Plant(subject.value("__stop_mcount_loc", start)) if subject.calls and subject.vmlinux else None


def foreign_calls(subject: Subject) -> Plant | None:
    """A function that others call gets the name of the profiling function."""
    image, name = subject.scan.image, b"\0early_putn\0"
    at = image.data.tobytes().find(name) if not subject.calls and subject.vmlinux else -1
    return Plant([(at + 1, b"_mcount\0\0\0")]) if at >= 0 else None


def profiled_program(subject: Subject) -> Plant | None:
    """No program among the fixtures can become one by a few bytes: tests have such programs as they are linked."""
    return None


def without_record(subject: Subject) -> Plant | None:
    """What an earlier patch leaves: the call, a filled pointer, no record."""
    records, table, dropped = subject.scan.records, subject.scan.sites, lost_record(subject)
    first = int(np.argmax(records.live)) if records.zero[0] else subject.plain[0]
    enabled = d.enabled(subject, first)
    if dropped is None or enabled is None:
        return None
    if subject.layout != "callops":
        return Plant([*dropped.edits, *enabled.edits])
    whole = d.literal_missing(subject)
    assert whole is not None
    return Plant([*whole.edits, (subject.pos(int(table.va[first])), b"\0" * 7 + b"\xff")])


def config_mismatch(subject: Subject) -> Plant | None:
    other = next(one for key, one in CONFIGS.items() if key[0] == subject.arch and key[1] != subject.layout)
    return Plant(kconfig={"DYNAMIC_FTRACE": "y", **other}) if subject.scan.image.kind in ("vmlinux", "module") else None


def config_without(subject: Subject) -> Plant | None:
    return Plant(kconfig={"MODULES": "y"}) if subject.scan.image.kind in ("vmlinux", "module") else None


def must_trace(subject: Subject) -> Plant | None:
    return Plant(must=("ftrace_caller",)) if subject.vmlinux else None


# -- modules -----------------------------------------------------------------------------------------------------------


def module(make: Make) -> Make:
    """A defect that only a module can have."""
    return lambda subject: make(subject) if subject.scan.image.kind == "module" else None


def machine(subject: Subject) -> Plant | None:
    return Plant(against="foreign")


def layout(subject: Subject) -> Plant | None:
    shapes = subject.scan.arch.shapes
    if sum(not (shape.refusal or shape.program or shape.anywhere) for shape in shapes) == 1:
        return None  # the modules of every kernel have the same
    also = ("module-vermagic", "module-versions", "module-symbols", "loader-section")
    return Plant(against="other", also=also)


def _found(subject: Subject, sec: int, text: bytes) -> int:
    """Position of a string in a section; −1 without."""
    if sec < 0:
        return -1
    at = subject.scan.image.content(sec).tobytes().find(text)
    return int(subject.scan.image.shdr["sh_offset"][sec]) + at if at >= 0 else -1


def vermagic(subject: Subject) -> Plant | None:
    at = _found(subject, section_of(subject.scan.image, ".modinfo"), b" SMP ")
    return Plant([(at, b" UMP ")]) if at >= 0 else None


def versions(subject: Subject) -> Plant | None:
    sec = subject.section("__versions")
    at = _found(subject, sec, b"module_layout\0") if sec is not None else -1
    return Plant([(at - 8, b"\x5a\xa5\x5a\xa5")]) if at >= 0 else None


def symbols(subject: Subject) -> Plant | None:
    row = next((int(row) for name in ("_printk", "printk", "kfree") for row in
                subject.scan.image.symbols.rows_named(name)), None)  # fmt: skip
    if row is None:
        return None
    image = subject.scan.image
    (tab,) = np.flatnonzero(image.shdr["sh_type"] == 2)[:1]
    low = int(image.shdr["sh_offset"][int(image.shdr["sh_link"][tab])])
    return Plant([(low + int(image.symbols.rows["st_name"][row]), b"Z")])


def loader_section(subject: Subject) -> Plant | None:
    name = ".text.ftrace_trampoline" if subject.arch == "arm64" else ".stubs"
    edits = subject.renamed(name, name[:-1] + "X")
    return Plant(edits) if edits else None


def init_trampoline(subject: Subject) -> Plant | None:
    edits = subject.renamed(".init.text.ftrace_trampoline", ".init.text.ftrace_trampolinX")
    return Plant(edits) if edits else None


def signature_missing(subject: Subject) -> Plant | None:
    trailer = len(subject.scan.image.trailer)
    return Plant(cut=trailer, kconfig={**config(subject), "MODULE_SIG": "y"}) if trailer else None


def signature_stale(subject: Subject) -> Plant | None:
    at = _found(subject, section_of(subject.scan.image, ".modinfo"), b"description=")
    return Plant([(at + 12, b"?")]) if subject.scan.image.trailer and at >= 0 else None


def signature_broken(subject: Subject) -> Plant | None:
    return Plant([(len(subject.scan.image.data), b"\0\0")]) if subject.scan.image.trailer else None


def live_patch_form(subject: Subject) -> Plant | None:
    """The objects of no fixture here are live patches: tests have one for each machine."""
    return None


DEFECTS: dict[str, Make] = {
    "dead-weak": d.dead_weak, "names-stripped": d.names_stripped, "outside-text": d.outside_text,
    "exit-text": d.exit_text,
    "notrace-section": d.notrace_section, "not-at-entry": d.not_at_entry, "mixed-layouts": d.mixed_layouts,
    "literal-misaligned": d.literal_misaligned, "alignment-lost": d.alignment_lost, "global-entry": d.global_entry,
    "toolchain-layout": d.toolchain_layout, "table-ends": d.table_ends, "slot-relocation": d.slot_relocation,
    "slot-relocation/none": d.slot_bare, "word-ignored": d.word_ignored, "duplicate": d.duplicate,
    "unsorted": d.unsorted, "null-after-live": d.null_after_live, "null-not-skipped": d.null_not_skipped,
    "record-lost": d.record_lost, "symbols-stripped": d.symbols_stripped, "only-init": d.only_init,
    "unexpected-words": d.unexpected_words,
    "record-without-nops": d.record_without_nops, "site-enabled": d.site_enabled, "site-half": d.site_half,
    "literal-missing": d.literal_missing, "without-record": without_record, "not-atomic": d.not_atomic,
    **r.DEFECTS, **static_calls.DEFECTS,
    "site-shared": site_shared, "site-relocated": site_relocated, "nops-without-record": nops_without_record,
    "recorded-elsewhere": d.recorded_elsewhere, "records-missing": d.records_missing,
    "link-order": link_order, "call-without-record": call_without_record, "foreign-calls": foreign_calls,
    "calls-without-records": calls_without_records, "profiled-program": profiled_program,
    "live-patch-form": live_patch_form,
    "out-of-reach": out_of_reach, "headroom": headroom, "stub-count": stub_count, "ool-reserve": ool_reserve,
    "kcfi-prefix": kcfi_prefix, "records-collapsed": records_collapsed, "records-collapsed/half": records_halved,
    "lost-record": lost_record, "config-mismatch": config_mismatch, "config-mismatch/off": config_without,
    "must-trace": must_trace, "module-machine": module(machine), "module-layout": module(layout),
    "module-vermagic": module(vermagic), "module-versions": module(versions), "module-symbols": module(symbols),
    "loader-section": module(loader_section), "loader-section/init": module(init_trampoline),
    "signature-missing": module(signature_missing), "signature-stale": module(signature_stale),
    "signature-stale/broken": module(signature_broken),
}  # fmt: skip
