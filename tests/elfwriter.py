"""Builds small ELF64 little-endian files in memory, and edits the mini fixtures: only what no fixture shows.

Written from the gABI, with `struct`; it shares no line with the reader under test.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

MINI = Path(__file__).resolve().parent.parent / "testdata" / "mini"

ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
PROGBITS, SYMTAB, STRTAB, RELA, NOBITS, SYMTAB_SHNDX = 1, 2, 3, 4, 8, 18
WRITE, ALLOC, EXEC = 1, 2, 4
NOTYPE, OBJECT, FUNC, SECTION, FILE = 0, 1, 2, 3, 4
LOCAL, GLOBAL, WEAK = 0, 1, 2
ABS, XINDEX, LORESERVE = 0xFFF1, 0xFFFF, 0xFF00
R_RELATIVE, R_ABS64 = 1027, 257

NOP = 0xD503201F  # nop
BTI_C = 0xD503245F  # bti c
RET = 0xD65F03C0  # ret
MOV_X9_X30 = 0xAA1E03E9  # mov x9, x30
TRAMP = (  # a direct trampoline that does nothing
    0xAA1E03EA,  # mov x10, x30
    0xAA0903FE,  # mov x30, x9
    0xD65F0140,  # ret x10
)
OPS_CALLER = (  # ftrace_caller of a CALL_OPS kernel, as far as a reader looks
    BTI_C,
    0x927DF3CB,  # and x11, x30, #~7
    0xF85F016B,  # ldur x11, [x11, #-16]
    0xF9402971,  # ldr x17, [x11, #80]
    *TRAMP,
)
BASE = 0xFFFF_8000_8000_0000
TEXT = BASE + 0x1_0000


def bl(site: int, target: int) -> int:
    """The word `bl target` at va `site`, by the Arm ARM (C6.2, BL)."""
    return 0x9400_0000 | (target - site >> 2) & 0x03FF_FFFF


def adrp(rd: int, site: int, target: int) -> int:
    """The word `adrp Xrd, target` at va `site`, by the Arm ARM (C6.2, ADRP)."""
    pages = (target >> 12) - (site >> 12)
    return 0x9000_0000 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5 | rd


def add(rd: int, rn: int, imm: int) -> int:
    """The word `add Xrd, Xrn, #imm`."""
    return 0x9100_0000 | (imm & 0xFFF) << 10 | rn << 5 | rd


def as_code(words: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


@dataclass
class Section:
    name: str
    data: bytes = b""
    type: int = PROGBITS
    flags: int = 0
    addr: int = 0
    link: int = 0
    info: int = 0
    align: int = 1
    entsize: int = 0
    size: int | None = None  # of a NOBITS section


@dataclass
class Elf:
    """Sections and symbols to bytes. `order`: section numbers in the order in which they lie in the file."""

    e_type: int = ET_DYN
    machine: int = 183
    sections: list[Section] = field(default_factory=lambda: [Section("", type=0)])
    symbols: list[tuple[str, int, int, int, int, int]] = field(default_factory=list)
    order: Sequence[int] | None = None
    other: Mapping[str, int] = field(default_factory=dict)  # st_other of some symbols, by name

    def section(self, name: str, data: bytes = b"", **rest: Any) -> int:
        """Add a section; its number."""
        self.sections.append(Section(name, data, **rest))
        return len(self.sections) - 1

    def symbol(self, name: str, shndx: int, value: int, size: int = 0, type: int = FUNC, bind: int = GLOBAL) -> int:
        """Add a symbol; its row, counted behind the null symbol. Local ones first, as the gABI wants."""
        self.symbols.append((name, shndx, value, size, type, bind))
        return len(self.symbols)

    def build(self) -> bytes:
        first_shndx = len(self.sections)
        self._symbol_sections()
        names = _strings([one.name for one in self.sections] + [".shstrtab"])
        shstrndx = self.section(".shstrtab", names[0], type=STRTAB)
        order = [*(self.order or range(1, first_shndx)), *range(first_shndx, len(self.sections))]
        body, where = bytearray(64), dict.fromkeys(range(len(self.sections)), 0)
        for sec in order:
            body += bytes(-len(body) % max(self.sections[sec].align, 1))
            where[sec] = len(body)
            body += self.sections[sec].data
        body += bytes(-len(body) % 8)
        n, shoff = len(self.sections), len(body)
        for sec, one in enumerate(self.sections):
            size, link = len(one.data) if one.size is None else one.size, one.link
            if sec == 0:  # the real counts, where 16 bits do not hold them
                size, link = (n if n >= LORESERVE else 0), (shstrndx if shstrndx >= LORESERVE else 0)
            body += struct.pack(
                "<IIQQQQIIQQ", names[1][sec], one.type, one.flags, one.addr, where[sec], size, link, one.info,
                one.align, one.entsize,
            )  # fmt: skip
        body[:64] = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
            "<HHIQQQIHHHHHH", self.e_type, self.machine, 1, 0, 0, shoff, 0, 64, 56, 0, 64,
            n if n < LORESERVE else 0, shstrndx if shstrndx < LORESERVE else XINDEX,
        )  # fmt: skip
        return bytes(body)

    def _symbol_sections(self) -> None:
        if not self.symbols:
            return
        strtab, starts = _strings([one[0] for one in self.symbols])
        rows, wide = bytearray(24), [0]
        for start, (name, shndx, value, size, kind, bind) in zip(starts, self.symbols, strict=True):
            big = shndx >= LORESERVE and shndx < len(self.sections)
            wide.append(shndx if big else 0)
            rows += struct.pack("<IBBHQQ", start, bind << 4 | kind, self.other.get(name, 0), XINDEX if big else shndx,
                                value, size)  # fmt: skip
        n_local = 1 + sum(one[5] == LOCAL for one in self.symbols)
        tab = len(self.sections)
        self.section(".symtab", bytes(rows), type=SYMTAB, link=tab + 1, info=n_local, align=8, entsize=24)
        self.section(".strtab", strtab, type=STRTAB)
        if any(wide):
            data = struct.pack(f"<{len(wide)}I", *wide)
            self.section(".symtab_shndx", data, type=SYMTAB_SHNDX, link=tab, align=4, entsize=4)


def _strings(names: Sequence[str]) -> tuple[bytes, list[int]]:
    table, starts = bytearray(1), []
    for name in names:
        starts.append(len(table) if name else 0)
        table += name.encode() + b"\0" if name else b""
    return bytes(table), starts


def rela(offset: int, kind: int, addend: int, symbol: int = 0) -> bytes:
    return struct.pack("<QQq", offset, symbol << 32 | kind, addend - (1 << 64) if addend >= 1 << 63 else addend)


@dataclass
class Kernel:
    """A vmlinux of few functions. `functions`: (name, va of the symbol); each outside the first page of the text
    gets a section of its own, so that distances of any size cost no bytes. `init`: words of ftrace_init, at INIT."""

    functions: Sequence[tuple[str, int]]
    layout: str = "pfe2"
    relocatable: bool = False
    spare: int = 0  # all-zero rows in .rela.dyn
    zeros: int = 0  # leading null slots
    table: int = BASE + 0x20_0000
    init: Sequence[int] | None = None
    caller: Sequence[int] | None = None
    padding: int = 64  # zero bytes at the end of .text
    marks: Sequence[tuple[str, int, int]] = ()  # symbols without a type: name, va, bytes
    replaced: Sequence[tuple[int, int, int]] = ()  # alternatives: va of the old code, of the new, bytes of each
    far_padding: int = 0  # zero bytes behind each function outside the first page
    full: bool = False  # between the functions of .text stand instructions, not zeros

    INIT = TEXT + 0x100
    CALLER = TEXT

    def records(self) -> list[int]:
        return [0] * self.zeros + [va - (8 if self.layout == "callops" else 0) for _, va in self.functions]

    def build(self) -> bytes:
        elf = Elf(ET_DYN if self.relocatable else ET_EXEC)
        callops, records = self.layout == "callops", self.records()
        stop = self.table + 8 * len(records)
        lead, body = (8, (NOP, NOP, NOP, NOP, RET)) if callops else (0, (NOP, NOP, RET))
        init = self.init
        if init is None:
            init = (adrp(1, self.INIT, stop), add(1, 1, stop), RET)
        caller = tuple(self.caller if self.caller is not None else OPS_CALLER if callops else TRAMP)
        text, end = bytearray(as_code((0xD420_0000 if self.full else 0,)) * 0x400), 0x180  # brk #0
        text[: 4 * len(caller)] = as_code(caller)
        text[0x100 : 0x100 + 4 * len(init)] = as_code(init)
        for _, va in self.functions:
            if TEXT + 0x180 <= va < TEXT + 0x1000:
                at = va - lead - TEXT
                text[at : at + 4 * len(body)] = as_code(body)
                end = max(end, va + 12 - TEXT)
        size = (end + 15 & ~15) + self.padding
        text[end:] = bytes(0x1000 - end)
        sec = elf.section(".text", bytes(text[:size]), flags=ALLOC | EXEC, addr=TEXT, align=16)
        far = {}
        for name, va in self.functions:
            if not TEXT + 0x180 <= va < TEXT + 0x1000:
                code = as_code(body) + bytes(self.far_padding)
                far[name] = elf.section(f".text.{name}", code, flags=ALLOC | EXEC, addr=va - lead, align=4)
        ops = elf.section(".rodata", bytes(96), flags=ALLOC, addr=BASE + 0x10_0000, align=16)
        content = struct.pack(f"<{len(records)}Q", *([0] * len(records) if self.relocatable else records))
        data = elf.section(".init.data", content, flags=ALLOC | WRITE, addr=self.table, align=8)
        if self.relocatable:
            rows = [rela(self.table + 8 * i, R_RELATIVE, value) for i, value in enumerate(records) if value]
            dyn = b"".join(rows) + bytes(24 * self.spare)
            elf.section(".rela.dyn", dyn, type=RELA, flags=ALLOC, addr=BASE + 0x40_0000, align=8, entsize=24)
        if self.replaced:
            start = BASE + 0x60_0000
            rows = [struct.pack("<iiHBB", old - start - 12 * i, new - start - 12 * i - 4, 0, size, size)
                    for i, (old, new, size) in enumerate(self.replaced)]  # fmt: skip
            elf.section(".altinstructions", b"".join(rows), flags=ALLOC, addr=start)
        elf.section(".init.text", as_code((RET,)), flags=ALLOC | EXEC, addr=BASE + 0x50_0000, align=4)
        elf.symbol("ftrace_caller", sec, self.CALLER, 4 * len(caller))
        elf.symbol("ftrace_init", sec, self.INIT, 4 * len(init))
        for name, va in self.functions:
            elf.symbol(name, far.get(name, sec), va, 12)
        for name, va, size in self.marks:
            inside = (one.addr and one.addr <= va <= one.addr + len(one.data) for one in elf.sections)
            elf.symbol(name, [*inside].index(True), va, size, type=NOTYPE)
        elf.symbol("__start_mcount_loc", data, self.table, type=NOTYPE)
        elf.symbol("__stop_mcount_loc", data, stop, type=NOTYPE)
        if callops:
            elf.symbol("ftrace_list_ops", ops, BASE + 0x10_0000, 96, type=OBJECT)
        return elf.build()


def extended(file: bytes, more: Sequence[Section]) -> bytes:
    """A relocatable file with sections more, behind those that it has; their names in a copy of the name table."""
    shoff, n, index = struct.unpack_from("<Q", file, 40)[0], *struct.unpack_from("<HH", file, 60)
    heads = [bytearray(file[shoff + 64 * sec : shoff + 64 * sec + 64]) for sec in range(n)]
    pos, size = struct.unpack_from("<QQ", heads[index], 24)
    names, body = bytearray(file[pos : pos + size]), bytearray(file)
    for one in more:
        body += bytes(-len(body) % max(one.align, 1))
        size = len(one.data) if one.size is None else one.size
        heads.append(bytearray(struct.pack(
            "<IIQQQQIIQQ", len(names), one.type, one.flags, one.addr, len(body), size, one.link, one.info, one.align,
            one.entsize,
        )))  # fmt: skip
        names += one.name.encode() + b"\0"
        body += one.data
    struct.pack_into("<QQ", heads[index], 24, len(body), len(names))
    body += names
    body += bytes(-len(body) % 8)
    struct.pack_into("<Q", body, 40, len(body))
    struct.pack_into("<H", body, 60, len(heads))
    return bytes(body + b"".join(heads))


@dataclass(frozen=True)
class Relocation:
    """One relocation of a relocatable file, as a reader names it: the section's own name for a section's symbol."""

    section: int
    offset: int
    type: int
    symbol: str
    addend: int


def relocations_by_table(file: bytes) -> list[tuple[str, list[Relocation]]]:
    """(name of the table, its rows) of every relocation table, in their order (pyelftools)."""
    elf, found = parsed(file), []
    symbols = elf.get_section_by_name(".symtab")
    for table in elf.iter_sections("SHT_RELA"):
        rows = []
        for row in table.iter_relocations():
            symbol = symbols.get_symbol(row["r_info_sym"])
            text = symbol.name
            if symbol["st_info"]["type"] == "STT_SECTION":
                text = elf.get_section(symbol["st_shndx"]).name
            rows.append(Relocation(table["sh_info"], row["r_offset"], row["r_info_type"], text, row["r_addend"]))
        found.append((table.name, rows))
    return found


def relocated(file: bytes, table: str = "") -> list[Relocation]:
    """Every relocation in the order of tables and rows, or those of the tables of one name."""
    return [row for name, rows in relocations_by_table(file) if table in ("", name) for row in rows]


def parsed(file: bytes) -> Any:
    """The file as pyelftools reads it; its types are too coarse to help."""
    return ELFFile(io.BytesIO(file))


def pos_of(file: bytes, va: int) -> int:
    """File position of a va, by the section that holds it (pyelftools)."""
    for section in parsed(file).iter_sections():
        low, size = section["sh_addr"], section["sh_size"]
        if section["sh_flags"] & ALLOC and section["sh_type"] != "SHT_NOBITS" and low <= va < low + size:
            return int(section["sh_offset"] + va - low)
    raise LookupError(hex(va))


def symbol(file: bytes, name: str) -> int:
    """Value of the only symbol of that name (pyelftools)."""
    (found,) = parsed(file).get_section_by_name(".symtab").get_symbol_by_name(name)
    return int(found["st_value"])


def words_at(file: bytes, va: int, n: int) -> list[int]:
    """n little-endian words at a va."""
    return list(struct.unpack_from(f"<{n}I", file, pos_of(file, va)))


def edited(source: Path, target: Path, changes: Mapping[int, bytes]) -> Path:
    """A copy of `source` at `target` with other bytes at some vas."""
    file = bytearray(source.read_bytes())
    for va, new in changes.items():
        pos = pos_of(bytes(file), va)
        file[pos : pos + len(new)] = new
    target.write_bytes(file)
    return target


def written(path: Path, content: bytes | bytearray) -> str:
    path.write_bytes(content)
    return str(path)
