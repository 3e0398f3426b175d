"""Damage to what a patch has no business with: headers, symbols, strings, other sections, the end of the file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ftpatch.elf import tables as t
from tools.sabotage.victim import Damage, Mutation, Victim

BYTE, SECTION, SYMBOL = (frozenset({f"verify-{name}"}) for name in ("byte", "section", "symbol"))
TABLES = (t.SHT_NULL, t.SHT_NOBITS, t.SHT_SYMTAB, t.SHT_STRTAB, t.SHT_RELA, t.SHT_RELR)


def _content(wanted: Callable[[str, int], bool]) -> Callable[[Victim], Damage | None]:
    """A byte in the middle of the largest section that suits by name and flags; not one that the patch owns."""

    def make(victim: Victim) -> Damage | None:
        heads = victim.before.shdr
        fits = [sec for sec, name in enumerate(victim.before.names) if heads["sh_type"][sec] not in TABLES
                and heads["sh_size"][sec] > 8 and wanted(name, int(heads["sh_flags"][sec]))]  # fmt: skip
        if not fits:
            return None
        sec = max(fits, key=lambda one: int(heads["sh_size"][one]))
        start, size = int(heads["sh_offset"][sec]), int(heads["sh_size"][sec])
        slots = [int(pos) for pos in victim.records.slot[[0, -1]]] if len(victim.records) else [0, 0]
        owned = [(slots[0], slots[1] + 8)]
        owned += [(int(one["pos"]), int(one["pos"]) + len(one["old"]) // 2) for one in victim.journal["edits"]]
        for pos in range(start + size // 2, start + size):
            if not any(low <= pos < high for low, high in owned):
                return victim.flip(pos, 0x40)
        return None

    return make


def _code(name: str, flags: int) -> bool:
    return bool(flags & t.SHF_EXECINSTR) and "trampoline" not in name


def _data(name: str, flags: int) -> bool:
    return flags & (t.SHF_ALLOC | t.SHF_WRITE) == t.SHF_ALLOC | t.SHF_WRITE and not name.startswith("__")


def _constants(name: str, flags: int) -> bool:
    return flags & (t.SHF_ALLOC | t.SHF_WRITE | t.SHF_EXECINSTR) == t.SHF_ALLOC and ".mod" not in name


def _unloaded(name: str, flags: int) -> bool:
    return not flags & t.SHF_ALLOC


def _header_field(field: str) -> Callable[[Victim], Damage | None]:
    def make(victim: Victim) -> Damage | None:
        fields = t.EHDR.fields
        assert fields is not None
        return victim.flip(int(fields[field][1]), 0x10)

    return make


def section_field(field: str, name: str = ".text", mask: int = 1) -> Callable[[Victim], Damage | None]:
    def make(victim: Victim) -> Damage | None:
        sec = victim.section(name)
        return victim.flip(victim.header(sec, field), mask) if sec >= 0 else None

    return make


def _symbol_field(field: str, mask: int) -> Callable[[Victim], Damage | None]:
    def make(victim: Victim) -> Damage | None:
        symbols = victim.before.symbols
        rows = np.flatnonzero((symbols.type == t.STT_FUNC) & (symbols.rows["st_size"] > 0))
        return victim.flip(victim.symbol(int(rows[len(rows) // 2]), field), mask) if len(rows) else None

    return make


def symbol_renamed(victim: Victim) -> Damage | None:
    symbols = victim.before.symbols
    rows = np.flatnonzero(symbols.type == t.STT_FUNC)
    tab = int(np.flatnonzero(victim.after.shdr["sh_type"] == t.SHT_SYMTAB)[0])
    start = victim.start(int(victim.after.shdr["sh_link"][tab]))
    return victim.flip(start + int(symbols.rows["st_name"][rows[len(rows) // 2]]), 1)


def section_renamed(victim: Victim) -> Damage | None:
    sec, strings = victim.section(".data", ".rodata"), int(victim.after.ehdr["e_shstrndx"])
    return victim.flip(victim.start(strings) + int(victim.after.shdr["sh_name"][sec]) + 2, 1) if sec >= 0 else None


def segment(victim: Victim) -> Damage | None:
    return victim.flip(int(victim.after.ehdr["e_phoff"]) + 24, 0x10) if len(victim.after.phdr) else None


def appended(victim: Victim) -> Damage | None:
    return Damage(appended=b"\0junk\0\0\0")


def appended_zeros(victim: Victim) -> Damage | None:
    return Damage(appended=bytes(16))


def old_signature(victim: Victim) -> Damage | None:
    """What looks like a signature, with sizes that fit the file and nothing else."""
    marker = b"~Module signature appended~\n"
    return Damage(appended=b"0" * 64 + bytes([0, 0, 2, 0, 0, 0, 0, 0]) + (64).to_bytes(4, "big") + marker)


KINDS = (
    Mutation("byte of code", BYTE | {"verify-site"}, _content(_code)),
    Mutation("byte of data", BYTE, _content(_data)),
    Mutation("byte of constants", BYTE, _content(_constants)),
    Mutation("byte of debug information or comments", BYTE, _content(_unloaded)),
    Mutation("e_entry", SECTION, _header_field("e_entry")),
    Mutation("e_flags", SECTION, _header_field("e_flags")),
    Mutation("section flag", SECTION, section_field("sh_flags")),
    Mutation("section alignment", SECTION, section_field("sh_addralign", mask=0x40)),
    Mutation("section renamed", SYMBOL | SECTION, section_renamed),
    Mutation("program header", SECTION | BYTE, segment),
    Mutation("symbol renamed", SYMBOL, symbol_renamed),
    Mutation("st_size", SYMBOL, _symbol_field("st_size", 4)),
    Mutation("st_value", SYMBOL, _symbol_field("st_value", 8)),
    Mutation("symbol's binding", SYMBOL, _symbol_field("st_info", 0x20)),
    Mutation("appended junk", BYTE, appended),
    Mutation("appended zeros", BYTE, appended_zeros),
    Mutation("something like a signature", frozenset({"verify-signature"}), old_signature),
)
