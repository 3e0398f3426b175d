"""A vmlinux with any number of patch sites, to see what a site costs: `tools.bench sites` measures with it.

    .text       ftrace_caller, then n functions of six words each: two NOPs, a return, traps
    .init.data  the record table: some null slots, as the build leaves them, then a record for each function
    .symtab     a symbol for each function

It is a linked file whose records are plain words. One million functions still lie within reach of ftrace_caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftpatch.arrays import U8
from ftpatch.elf import tables as t

WORDS = 6  # of a function
FIRST = 0x1000  # where the functions start in .text; ftrace_caller is at its start
N_NULL = 8  # null slots in front of the records
NAME = len("f0000000") + 1  # bytes of the name of a function
TEXT, SYMTAB, STRTAB = ".text", ".symtab", ".strtab"


@dataclass(frozen=True)
class Machine:
    """What differs from machine to machine."""

    number: int  # e_machine
    base: int  # va of .text
    caller: tuple[int, ...]  # words of a ftrace_caller that returns at once
    nop: int
    returns: int
    trap: int


MACHINES = {
    "arm64": Machine(
        183, 0xFFFF_8000_8000_0000,
        (0xAA1E_03EA, 0xAA09_03FE, 0xD65F_0140),  # mov x10, x30; mov x30, x9; ret x10
        nop=0xD503_201F, returns=0xD65F_03C0, trap=0xD420_0000,
    ),
    "ppc64le": Machine(
        21, 0xC000_0000_0000_0000,
        (0x7D88_02A6, 0x7D89_03A6, 0x7C08_03A6, 0x4E80_0420),  # mflr r12; mtctr r12; mtlr r0; bctr
        nop=0x6000_0000, returns=0x4E80_0020, trap=0x7FE0_0008,
    ),
}  # fmt: skip


def vmlinux(path: Path, machine: Machine, n: int) -> None:
    """Write a vmlinux of n sites."""
    va = np.uint64(machine.base + FIRST) + np.arange(n, dtype=np.uint64) * np.uint64(4 * WORDS)
    text = np.full(FIRST // 4 + WORDS * n, machine.trap, dtype="<u4")
    text[: len(machine.caller)] = machine.caller
    functions = text[FIRST // 4 :].reshape(n, WORDS)
    functions[:, :2], functions[:, 2] = machine.nop, machine.returns
    records = np.concatenate([np.zeros(N_NULL, np.uint64), va]).astype("<u8")
    table = (machine.base + text.nbytes + 0xFFFF) & ~0xFFFF
    symbols, strings = _symbols(machine, va, table, len(records))
    sections = (
        (TEXT, t.SHT_PROGBITS, t.SHF_ALLOC | t.SHF_EXECINSTR, machine.base, text.view(np.uint8)),
        (".init.data", t.SHT_PROGBITS, t.SHF_ALLOC | t.SHF_WRITE, table, records.view(np.uint8)),
        (SYMTAB, t.SHT_SYMTAB, 0, 0, symbols.view(np.uint8)),
        (STRTAB, t.SHT_STRTAB, 0, 0, strings),
    )  # fmt: skip
    _write(path, machine, sections)


def _symbols(machine: Machine, va: np.ndarray, table: int, n_slots: int) -> tuple[np.ndarray, U8]:
    """The symbol table, and its strings."""
    n = len(va)
    names = ("ftrace_caller", "start_kernel", "__start_mcount_loc", "__stop_mcount_loc")
    places = (machine.base, int(va[0]), table, table + 8 * n_slots)
    digits = np.arange(n)[:, None] // 10 ** np.arange(NAME - 3, -1, -1) % 10
    plain = np.zeros((n, NAME), np.uint8)
    plain[:, 0], plain[:, 1:-1] = ord("f"), digits + ord("0")
    head = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    rows = np.zeros(1 + len(names) + n, t.SYM)
    named, functions = rows[1 : 1 + len(names)], rows[1 + len(names) :]
    named["st_name"] = np.cumsum([1, *(len(name) + 1 for name in names[:-1])])
    named["st_value"], named["st_shndx"] = places, (1, 1, 2, 2)
    named["st_info"] = [t.STB_GLOBAL << 4 | kind for kind in (t.STT_FUNC, t.STT_FUNC, 0, 0)]
    named["st_size"] = (4 * len(machine.caller), 12, 0, 0)
    functions["st_name"] = len(head) + NAME * np.arange(n)
    functions["st_value"], functions["st_shndx"], functions["st_size"] = va, 1, 12
    functions["st_info"] = t.STB_GLOBAL << 4 | t.STT_FUNC
    return rows, np.concatenate([np.frombuffer(head, np.uint8), plain.reshape(-1)])


def _write(path: Path, machine: Machine, sections: tuple[tuple[str, int, int, int, U8], ...]) -> None:
    """The ELF file of these sections: (name, type, flags, va, bytes)."""
    names = ["", *(name for name, *_ in sections), ".shstrtab"]
    strings = b"".join(name.encode() + b"\0" for name in names)
    head = np.zeros(len(names), t.SHDR)
    head["sh_name"] = np.cumsum([0, *(len(name) + 1 for name in names[:-1])])
    pos = 0x1000
    with path.open("wb") as file:
        content = [*sections, (".shstrtab", t.SHT_STRTAB, 0, 0, np.frombuffer(strings, np.uint8))]
        for row, (name, kind, flags, va, octets) in zip(head[1:], content, strict=True):
            row["sh_type"], row["sh_flags"], row["sh_addr"] = kind, flags, va
            row["sh_offset"], row["sh_size"], row["sh_addralign"] = pos, len(octets), 8
            if name == SYMTAB:
                row["sh_link"], row["sh_info"], row["sh_entsize"] = names.index(STRTAB), 1, t.SYM.itemsize
            file.seek(pos)
            file.write(octets.data)
            pos = (pos + len(octets) + 0xFFF) & ~0xFFF
        file.seek(pos)
        file.write(head.tobytes())
        ehdr = np.zeros(1, t.EHDR)
        ehdr["e_ident"][0, :7] = np.frombuffer(b"\x7fELF\2\1\1", np.uint8)
        ehdr["e_type"], ehdr["e_machine"], ehdr["e_version"] = t.ET_EXEC, machine.number, 1
        ehdr["e_shoff"], ehdr["e_shnum"], ehdr["e_shstrndx"] = pos, len(head), len(head) - 1
        ehdr["e_ehsize"], ehdr["e_shentsize"], ehdr["e_phentsize"] = t.EHDR.itemsize, t.SHDR.itemsize, t.PHDR.itemsize
        ehdr["e_flags"] = 2 if machine.number == 21 else 0  # ELFv2
        file.seek(0)
        file.write(ehdr.tobytes())
