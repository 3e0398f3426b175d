"""An editor of ELF files for the tests: it knows ELF by offsets of its own and shares nothing with the program."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

MINI = Path(__file__).parents[1] / "testdata" / "mini"
MINI_PPC = Path(__file__).parents[1] / "testdata" / "mini-ppc64le"
MASK64 = (1 << 64) - 1

CALLOPS, PFE2, EXEC, MODULE, OBJECT, PROGRAM = (
    "vmlinux-callops", "vmlinux-pfe2", "vmlinux-exec", "mini.ko", "pfe2.o", "program",
)  # fmt: skip
OOL, FAR = "vmlinux-ool", "vmlinux-far"  # of ppc64le
KERNELS = (CALLOPS, PFE2, EXEC, OOL, FAR)

Layout = dict[str, tuple[int, str]]
EHDR: Layout = {
    "ei_mag0": (0, "B"), "ei_mag3": (3, "B"), "ei_class": (4, "B"), "ei_data": (5, "B"), "ei_version": (6, "B"),
    "ei_osabi": (7, "B"), "ei_pad": (15, "B"), "e_type": (16, "H"), "e_machine": (18, "H"), "e_version": (20, "I"),
    "e_entry": (24, "Q"), "e_phoff": (32, "Q"), "e_shoff": (40, "Q"), "e_flags": (48, "I"), "e_ehsize": (52, "H"),
    "e_phentsize": (54, "H"), "e_phnum": (56, "H"), "e_shentsize": (58, "H"), "e_shnum": (60, "H"),
    "e_shstrndx": (62, "H"),
}  # fmt: skip
SHDR: Layout = {
    "sh_name": (0, "I"), "sh_type": (4, "I"), "sh_flags": (8, "Q"), "sh_addr": (16, "Q"), "sh_offset": (24, "Q"),
    "sh_size": (32, "Q"), "sh_link": (40, "I"), "sh_info": (44, "I"), "sh_addralign": (48, "Q"),
    "sh_entsize": (56, "Q"),
}  # fmt: skip
PHDR: Layout = {
    "p_type": (0, "I"), "p_flags": (4, "I"), "p_offset": (8, "Q"), "p_vaddr": (16, "Q"), "p_paddr": (24, "Q"),
    "p_filesz": (32, "Q"), "p_memsz": (40, "Q"), "p_align": (48, "Q"),
}  # fmt: skip
SYM: Layout = {
    "st_name": (0, "I"), "st_info": (4, "B"), "st_other": (5, "B"), "st_shndx": (6, "H"), "st_value": (8, "Q"),
    "st_size": (16, "Q"),
}  # fmt: skip
RELA: Layout = {
    "r_offset": (0, "Q"), "r_info": (8, "Q"), "r_type": (8, "I"), "r_sym": (12, "I"), "r_addend": (16, "Q"),
}  # fmt: skip
WORD: Layout = {"word": (0, "Q")}
SHDR_SIZE, PHDR_SIZE, SYM_SIZE, RELA_SIZE = 64, 56, 24, 24
SHT_RELA, SHT_NOBITS, SHT_RELR, ALLOC = 4, 8, 19, 2
ABS64 = 257  # R_AARCH64_ABS64


class Elf:
    """The bytes of a fixture or another file, and where its tables are; every change is one field."""

    def __init__(self, name: str | Path) -> None:
        self.raw: bytearray = bytearray(original(name) if isinstance(name, str) else name.read_bytes())

    # -- one field ---------------------------------------------------------------------------------------------

    def get(self, layout: Layout, at: int, field: str) -> int:
        offset, kind = layout[field]
        return int(struct.unpack_from("<" + kind, self.raw, at + offset)[0])

    def put(self, layout: Layout, at: int, field: str, value: int) -> Elf:
        offset, kind = layout[field]
        struct.pack_into("<" + kind, self.raw, at + offset, value & ((1 << 8 * struct.calcsize(kind)) - 1))
        return self

    def ehdr(self, **fields: int) -> Elf:
        for field, value in fields.items():
            self.put(EHDR, 0, field, value)
        return self

    # -- where things are --------------------------------------------------------------------------------------

    def n_sections(self) -> int:
        return self.get(EHDR, 0, "e_shnum")

    def header(self, index: int) -> int:
        return self.get(EHDR, 0, "e_shoff") + SHDR_SIZE * index

    def names(self) -> list[str]:
        table = self.get(SHDR, self.header(self.get(EHDR, 0, "e_shstrndx")), "sh_offset")
        starts = [table + self.get(SHDR, self.header(index), "sh_name") for index in range(self.n_sections())]
        return [self.raw[start : self.raw.index(0, start)].decode() for start in starts]

    def sec(self, name: str) -> int:
        return self.names().index(name)

    def of_sec(self, name: str, field: str) -> int:
        return self.get(SHDR, self.header(self.sec(name)), field)

    def sh(self, section: str, **fields: int) -> Elf:
        at = self.header(self.sec(section))
        for field, value in fields.items():
            self.put(SHDR, at, field, value)
        return self

    def symbols(self) -> range:
        """File positions of the symbols' rows."""
        first, size = self.of_sec(".symtab", "sh_offset"), self.of_sec(".symtab", "sh_size")
        return range(first, first + size, SYM_SIZE)

    def symbol(self, name: str) -> int:
        """File position of the symbol's row."""
        strings = self.of_sec(".strtab", "sh_offset")
        for at in self.symbols():
            start = strings + self.get(SYM, at, "st_name")
            if self.raw[start : start + len(name) + 1] == name.encode() + b"\0":
                return at
        raise KeyError(name)

    def sym(self, symbol: str, **fields: int) -> Elf:
        at = self.symbol(symbol)
        for field, value in fields.items():
            self.put(SYM, at, field, value)
        return self

    def value(self, symbol: str) -> int:
        return self.get(SYM, self.symbol(symbol), "st_value")

    def pos(self, va: int) -> int:
        for index in range(self.n_sections()):
            at = self.header(index)
            first, size = self.get(SHDR, at, "sh_addr"), self.get(SHDR, at, "sh_size")
            if self.get(SHDR, at, "sh_flags") & ALLOC and first <= va < first + size:
                return self.get(SHDR, at, "sh_offset") + va - first
        raise KeyError(hex(va))

    def slot(self, n: int) -> int:
        """File position of slot n of a kernel's record table."""
        return self.pos(self.value("__start_mcount_loc")) + 8 * n

    def rela(self, section: str, n: int, **fields: int) -> Elf:
        for field, value in fields.items():
            self.put(RELA, self.of_sec(section, "sh_offset") + RELA_SIZE * n, field, value)
        return self

    def relocation(self, section: str, n: int, field: str) -> int:
        return self.get(RELA, self.of_sec(section, "sh_offset") + RELA_SIZE * n, field)

    def words(self, pos: int, *values: int) -> Elf:
        struct.pack_into(f"<{len(values)}Q", self.raw, pos, *values)
        return self

    def poke(self, section: str, off: int, content: bytes) -> Elf:
        pos = self.of_sec(section, "sh_offset") + off
        self.raw[pos : pos + len(content)] = content
        return self

    def fill(self, section: str, byte: bytes) -> Elf:
        first, size = self.of_sec(section, "sh_offset"), self.of_sec(section, "sh_size")
        self.raw[first : first + size] = byte * size
        return self

    # -- more of something -------------------------------------------------------------------------------------

    def add(self, content: bytes, repeat: int = 1, **fields: int) -> int:
        """Append bytes and `repeat` section headers over them; the header table moves to the end. First new index."""
        n, old = self.n_sections(), self.get(EHDR, 0, "e_shoff")
        table = bytes(self.raw[old : old + SHDR_SIZE * n])
        pos = self.append(content)
        one = bytearray(SHDR_SIZE)
        for field, value in ({"sh_offset": pos, "sh_size": len(content), "sh_addralign": 8} | fields).items():
            offset, kind = SHDR[field]
            struct.pack_into("<" + kind, one, offset, value)
        shoff = self.append(table + bytes(one) * repeat)
        total = n + repeat
        self.ehdr(e_shoff=shoff, e_shnum=total if total < 0xFF00 else 0)
        if total >= 0xFF00:
            self.put(SHDR, shoff, "sh_size", total)
        return n

    def append(self, content: bytes) -> int:
        self.raw += bytes(-len(self.raw) % 16)
        pos = len(self.raw)
        self.raw += content
        return pos

    def rename(self, table: str, names: dict[str, str]) -> Elf:
        """Other names, of any length, for symbols (`.strtab`) or sections (`.shstrtab`): in a longer string table."""
        first, size = self.of_sec(table, "sh_offset"), self.of_sec(table, "sh_size")
        strings, where = bytes(self.raw[first : first + size]), {}
        for old, new in names.items():
            where[old] = len(strings)
            strings += new.encode() + b"\0"
        rows = [(SYM, self.symbol(old), "st_name", old) for old in names] if table == ".strtab" else []
        heads = [] if rows else [(SHDR, self.header(self.sec(old)), "sh_name", old) for old in names]
        head, pos = self.header(self.sec(table)), self.append(strings)
        for layout, at, field, old in rows + heads:
            self.put(layout, at, field, where[old])
        return self.put(SHDR, head, "sh_offset", pos).put(SHDR, head, "sh_size", len(strings))

    def name_at(self, name: str) -> int:
        """sh_name of a section of that name."""
        return self.of_sec(name, "sh_name")


@cache
def original(name: str) -> bytes:
    return ((MINI_PPC if name in (OOL, FAR) else MINI) / name).read_bytes()


def without_symbols(content: bytes, gone: Callable[[str, int, int, bool], bool]) -> bytes:
    """The file without the symbols that `gone` tells by name, st_info, section and whether a relocation needs them;
    relocations name those that stay by their new numbers, as strip and objcopy do it. The first symbol stays."""
    elf = Elf.__new__(Elf)
    elf.raw = bytearray(content)
    first, strings = elf.of_sec(".symtab", "sh_offset"), elf.of_sec(".strtab", "sh_offset")
    tables: list[int] = []
    for index in range(elf.n_sections()):
        head = elf.header(index)
        if elf.get(SHDR, head, "sh_type") == SHT_RELA and elf.get(SHDR, head, "sh_link") == elf.sec(".symtab"):
            start = elf.get(SHDR, head, "sh_offset")
            tables += range(start, start + elf.get(SHDR, head, "sh_size"), RELA_SIZE)
    needed = {elf.get(RELA, at, "r_sym") for at in tables}
    kept: list[bytes] = []
    number: dict[int, int] = {}
    for old, at in enumerate(elf.symbols()):
        start = strings + elf.get(SYM, at, "st_name")
        name = elf.raw[start : elf.raw.index(0, start)].decode()
        if old and gone(name, elf.get(SYM, at, "st_info"), elf.get(SYM, at, "st_shndx"), old in needed):
            continue
        number[old] = len(kept)
        kept.append(bytes(elf.raw[at : at + SYM_SIZE]))
    for at in tables:
        elf.put(RELA, at, "r_sym", number[elf.get(RELA, at, "r_sym")])
    elf.raw[first : first + SYM_SIZE * len(kept)] = b"".join(kept)
    n_local = sum(row[4] >> 4 == 0 for row in kept)
    return bytes(elf.sh(".symtab", sh_size=SYM_SIZE * len(kept), sh_info=n_local).raw)
