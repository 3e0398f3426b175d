"""Damage to a module: its relocations, what the patch brought along, its versions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.sites.records import record_names
from tools.sabotage.victim import Damage, Mutation, Victim

RELOCATION = frozenset({"verify-relocation", "verify-branch", "verify-literal", "verify-stub"})
OURS = (".text.ftpatch", ".init.text.ftpatch", ".data.ftpatch")


def _call_row(victim: Victim) -> int:
    """File position of the relocation of a patched site's call; −1 where there is none."""
    modules = victim.arch.modules
    if victim.linked or modules is None or not victim.patched or victim.patched[0]["action"] == "redirect":
        return -1
    site = victim.patched[0]
    rows, start = victim.relocations(site["section"])
    calls = rows["r_info"] & 0xFFFF_FFFF == modules.branch
    hit = np.flatnonzero(calls & (rows["r_offset"] == int(site["branch"], 16) + victim.arch.call.relocated_at))
    return start + 24 * int(hit[0]) if len(hit) else -1


def _call(off: int, step: int, size: int) -> Callable[[Victim], Damage | None]:
    def make(victim: Victim) -> Damage | None:
        row = _call_row(victim)
        return Damage([victim.put(row + off, int.from_bytes(victim.read(row + off, size), "little") + step, size)]) if (
            row >= 0) else None  # fmt: skip

    return make


def call_to_another(victim: Victim) -> Damage | None:
    """The call's relocation names another function of the module."""
    row = _call_row(victim)
    symbols = victim.before.symbols
    rows = np.flatnonzero((symbols.type == t.STT_FUNC) & (symbols.bind == t.STB_GLOBAL))
    return Damage([victim.put(row + 12, int(rows[0]))]) if row >= 0 and len(rows) else None


def call_twice(victim: Victim) -> Damage | None:
    """Another new relocation of the section becomes the call's a second time."""
    row = _call_row(victim)
    if row < 0:
        return None
    site = victim.patched[0]
    rows, start = victim.relocations(site["section"])
    last = start + 24 * (len(rows) - 1)
    return Damage([(last if last != row else row - 24, victim.read(row, 24))]) if len(rows) > 1 else None


def _old_row(off: int, step: int, size: int) -> Callable[[Victim], Damage | None]:
    """A relocation that the module had, away from the patched sites."""

    def make(victim: Victim) -> Damage | None:
        if victim.linked or not victim.patched:
            return None
        rows, start = victim.relocations(victim.patched[0]["section"])
        called = _call_row(victim)
        at = next((start + 24 * i for i in range(len(rows)) if start + 24 * i != called), None)
        if at is None:
            return None
        return Damage([victim.put(at + off, int.from_bytes(victim.read(at + off, size), "little") + step, size)])

    return make


def _record_row(off: int, step: int, size: int) -> Callable[[Victim], Damage | None]:
    def make(victim: Victim) -> Damage | None:
        for name in () if victim.linked else record_names(victim.before):
            rows, start = victim.relocations(name)
            if len(rows):
                return Damage([victim.put(start + off, int.from_bytes(victim.read(start + off, size), "little") + step,
                                          size)])  # fmt: skip
        return None

    return make


def records_swapped(victim: Victim) -> Damage | None:
    """Two records that stay change places: their relocations change addend and symbol."""
    for name in () if victim.linked else record_names(victim.before):
        rows, start = victim.relocations(name)
        if len(rows) > 1:
            one, two = victim.read(start + 8, 16), victim.read(start + 32, 16)
            return Damage([(start + 8, two), (start + 32, one)])
    return None


def record_cut(victim: Victim) -> Damage | None:
    """The last record that stays is cut off too, with its relocation."""
    for name in () if victim.linked else record_names(victim.before):
        sec = victim.section(name)
        rows = next((i for i in range(len(victim.after.shdr)) if victim.after.names[i] == ".rela" + name), -1)
        if sec >= 0 and rows >= 0:
            sizes = [(one, int(victim.after.shdr["sh_size"][one]) - less) for one, less in ((sec, 8), (rows, 24))]
            return Damage([victim.put(victim.header(one, "sh_size"), size, 8) for one, size in sizes])
    return None


def ops_function_redirected(victim: Victim) -> Damage | None:
    rows, start = victim.relocations(".data.ftpatch")
    return Damage([victim.put(start + 12, 1)]) if len(rows) else None


def ops_object_filled(victim: Victim) -> Damage | None:
    sec = victim.section(".data.ftpatch")
    return victim.flip(victim.start(sec) + 200) if sec >= 0 else None


def ops_function_goes_on(victim: Victim) -> Damage | None:
    sec = victim.section(".text.ftpatch.ops")
    end = victim.start(sec) + int(victim.after.shdr["sh_size"][sec]) - 4 if sec >= 0 else 0
    return Damage([victim.put(end, 0xD503201F if victim.arch.name == "arm64" else 0x60000000)]) if sec >= 0 else None


def _stub_word(index: int) -> Callable[[Victim], Damage | None]:
    """A word of the code that the patch brings along becomes a NOP. Not one that sets up a frame for backtraces alone:
    what is left then is a stub of another kind that keeps the contract, and verify says so."""

    def make(victim: Victim) -> Damage | None:
        sec = victim.section(*OURS[:2])
        if victim.arch.unit == 1 or victim.linked or sec < 0 or int(victim.after.shdr["sh_size"][sec]) < 4 * index + 4:
            return None
        pos, nop = victim.start(sec) + 4 * index, 0xD503201F if victim.arch.name == "arm64" else 0x60000000
        return Damage([victim.put(pos, nop)]) if victim.word(pos) not in (0, nop, 0xD503245F) else None

    return make


def new_section_flag(victim: Victim) -> Damage | None:
    sec = victim.section(*OURS)
    return victim.flip(victim.header(sec, "sh_flags"), 1 if "data" not in victim.after.names[sec] else 4) if (
        sec >= 0) else None  # fmt: skip


def new_symbol_local(victim: Victim) -> Damage | None:
    n = len(victim.before.symbols.rows)
    if victim.linked or len(victim.after.symbols.rows) <= n:
        return None
    return victim.flip(victim.symbol(n, "st_info"), 0x10)


def new_symbol_foreign(victim: Victim) -> Damage | None:
    """The patch's own symbol gets another name."""
    n, symbols = len(victim.before.symbols.rows), victim.after.symbols
    tab = int(np.flatnonzero(victim.after.shdr["sh_type"] == t.SHT_SYMTAB)[0])
    for row in range(n, len(symbols.rows)) if not victim.linked else ():
        if symbols.shndx[row]:
            strings = victim.start(int(victim.after.shdr["sh_link"][tab]))
            return victim.flip(strings + int(symbols.rows["st_name"][row]), 1)
    return None


def version_cut(victim: Victim) -> Damage | None:
    """The version of the symbol that the patch imports is no CRC."""
    sec = victim.section("__versions")
    if victim.linked or sec < 0 or victim.after.shdr["sh_size"][sec] == victim.before.shdr["sh_size"][sec]:
        return None
    return Damage([(victim.start(sec) + int(victim.after.shdr["sh_size"][sec]) - 64, bytes(8))])


def version_missing(victim: Victim) -> Damage | None:
    sec = victim.section("__versions")
    if version_cut(victim) is None:
        return None
    return Damage([victim.put(victim.header(sec, "sh_size"), int(victim.after.shdr["sh_size"][sec]) - 64, 8)])


def modinfo(victim: Victim) -> Damage | None:
    sec = victim.section(".modinfo")
    return victim.flip(victim.start(sec) + 1) if sec >= 0 else None


def padding(victim: Victim) -> Damage | None:
    """A byte that no section has, between the grown tables."""
    image, end = victim.after, len(victim.before.data)
    spans = sorted((int(h["sh_offset"]), int(h["sh_offset"] + h["sh_size"])) for h in image.shdr[image.has_bytes])
    for (_, stop), (start, _) in zip(spans, [*spans[1:], (int(image.ehdr["e_shoff"]), 0)], strict=True):
        if stop >= end and start > stop and not victim.linked:
            return victim.flip(stop)
    return None


KINDS = (
    Mutation("call's relocation type by one", RELOCATION, _call(8, 1, 4)),
    Mutation("call's relocation addend by 4", RELOCATION, _call(16, 4, 8)),
    Mutation("call's relocation offset by 4", RELOCATION, _call(0, 4, 8)),
    Mutation("call to another function", RELOCATION, call_to_another),
    Mutation("call relocated twice", RELOCATION, call_twice),
    Mutation("old relocation's type by one", RELOCATION, _old_row(8, 1, 4)),
    Mutation("old relocation's addend by one", RELOCATION, _old_row(16, 1, 8)),
    Mutation("old relocation's offset by 4", RELOCATION, _old_row(0, 4, 8)),
    Mutation("old relocation's symbol by one", RELOCATION, _old_row(12, 1, 4)),
    Mutation("record's relocation addend by 8", frozenset({"verify-record"}), _record_row(16, 8, 8)),
    Mutation("record's relocation type by one", frozenset({"verify-record"}), _record_row(8, 1, 4)),
    Mutation("record's relocation offset by one", frozenset({"verify-record"}), _record_row(0, 1, 8)),
    Mutation("records of a module swapped", frozenset({"verify-order"}), records_swapped),
    Mutation("record of a module cut", frozenset({"verify-record"}), record_cut),
    Mutation("ops object's function redirected", frozenset({"verify-literal"}), ops_function_redirected),
    Mutation("ops object filled", frozenset({"verify-literal"}), ops_object_filled),
    Mutation("ops function does not return", frozenset({"verify-literal"}), ops_function_goes_on),
    *(Mutation(f"code of the patch, word {i}", frozenset({"verify-stub", "verify-branch", "verify-literal",
               "verify-emulation"}), _stub_word(i)) for i in (1, 3, 5, 8, 13, 20)),
    Mutation("new section's flag", frozenset({"verify-section"}), new_section_flag),
    Mutation("new symbol local", frozenset({"verify-symbol"}), new_symbol_local),
    Mutation("new symbol renamed", frozenset({"verify-symbol"}), new_symbol_foreign),
    Mutation("CRC cut", frozenset({"verify-section"}), version_cut),
    Mutation("version row missing", frozenset({"verify-symbol", "verify-byte"}), version_missing),
    Mutation("byte of .modinfo", frozenset({"verify-section", "verify-byte"}), modinfo),
    Mutation("padding", frozenset({"verify-byte"}), padding),
)  # fmt: skip
