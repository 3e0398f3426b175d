"""A patched module that is taken apart and laid out again: what grows, comes or goes leaves a file without a seam.

first file's bytes │ sections that lie behind them, in order of their numbers │ section headers
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arrays import Rows
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

E_SHOFF, E_SHNUM = 40, 60  # where the ELF header keeps them


@dataclass
class Layout:
    """Sections of a module that may be changed; `assembled` gives the file."""

    start: int  # bytes of the first file, which stay where they are
    data: bytearray  # those bytes, as they are in the patched file
    shdr: list[Rows]  # section headers
    content: dict[int, bytearray]  # of the sections behind them
    between: dict[int, bytes] = field(default_factory=dict)  # bytes put in front of a section
    order: list[int] = field(default_factory=list)  # sections as they lie; the rest by number
    behind: bytes = b""  # what follows the section headers
    symtab: int = 0
    shstrtab: int = 0

    @property
    def strtab(self) -> int:
        return int(self.shdr[self.symtab]["sh_link"])

    def grow(self, sec: int) -> bytearray:
        """A section's bytes, which move behind the first file if they are not there yet."""
        if sec not in self.content:
            pos, size = (int(self.shdr[sec][name]) for name in ("sh_offset", "sh_size"))
            self.content[sec] = bytearray(self.data[pos : pos + size])
        return self.content[sec]

    def string(self, sec: int, text: str) -> int:
        """Offset of a new string in a string table."""
        table = self.grow(sec)
        table += text.encode() + b"\0"
        return len(table) - len(text.encode()) - 1

    def section(self, name: str, fields: dict[str, int], content: bytes) -> int:
        """Number of a new section."""
        row = np.zeros((), t.SHDR)
        row["sh_name"] = self.string(self.shstrtab, name)
        for key, value in fields.items():
            row[key] = value
        self.shdr.append(row)
        self.content[len(self.shdr) - 1] = bytearray(content)
        return len(self.shdr) - 1

    def symbol(self, name: str, sec: int, value: int = 0, size: int = 0, info: int = 0x10) -> int:
        """Row of a new symbol."""
        row = np.zeros((), t.SYM)
        row["st_name"], row["st_info"], row["st_shndx"] = self.string(self.strtab, name), info, sec
        row["st_value"], row["st_size"] = value, size
        table = self.grow(self.symtab)
        table += row.tobytes()
        return len(table) // t.SYM.itemsize - 1

    def assembled(self) -> bytes:
        """The file."""
        data = bytearray(self.data)
        rest = [sec for sec in sorted(self.content) if sec not in self.order]
        for sec in [*self.order, *rest]:
            data += self.between.get(sec, b"")
            align = max(min(int(self.shdr[sec]["sh_addralign"]), 1 << 16), 1)
            data += bytes(-len(data) % align)
            self.shdr[sec]["sh_offset"], self.shdr[sec]["sh_size"] = len(data), len(self.content[sec])
            data += self.content[sec]
        data += bytes(-len(data) % 8)
        data[E_SHOFF : E_SHOFF + 8] = len(data).to_bytes(8, "little")
        data[E_SHNUM : E_SHNUM + 2] = len(self.shdr).to_bytes(2, "little")
        return bytes(data + np.array(self.shdr, dtype=t.SHDR).tobytes() + self.behind)


def layout_of(before: Image, after: Image) -> Layout:
    """A patched module, taken apart."""
    start = len(before.data)
    behind = {sec: bytearray(after.content(sec).tobytes()) for sec in range(len(after.shdr))
              if after.has_bytes[sec] and int(after.shdr["sh_offset"][sec]) >= start}  # fmt: skip
    symtab = int(np.flatnonzero(after.shdr["sh_type"] == t.SHT_SYMTAB)[0])
    return Layout(start, bytearray(after.data[:start].tobytes()), [row.copy() for row in after.shdr], behind,
                  symtab=symtab, shstrtab=int(after.ehdr["e_shstrndx"]))  # fmt: skip
