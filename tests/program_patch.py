"""Patches programs by hand, from the gABI alone: code in a segment of its own, and words of sites. Each step can be
damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ftpatch.proof.prove import Checks, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file

EHDR, PHDR, SHDR = 64, 56, 64


@dataclass
class Patch:
    """A file with code appended; fields may be changed before `build`."""

    before: Path
    code: bytes
    name: bytes = b".text.ftpatch\0"
    gap: int = 0  # bytes in front of the segment, beside what it needs
    segment: dict[str, int] = field(default_factory=dict)  # fields of the new program header that are others
    section: dict[str, int] = field(default_factory=dict)  # of the new section header
    filler: int = 0  # value of the bytes that should be zeros

    def __post_init__(self) -> None:
        self.data = self.before.read_bytes()
        image = open_image(str(self.before))
        self.phdr = [tuple(row) for row in image.phdr.tolist()]
        self.shdr = [tuple(row) for row in image.shdr.tolist()]
        self.strings = int(image.ehdr["e_shstrndx"])
        loads = [row for row in self.phdr if row[0] == 1]
        self.align = max(row[7] for row in loads)
        last = max(row[3] + row[6] for row in loads)
        delta = loads[0][3] - loads[0][2]
        start = -(-max(last, len(self.data) + delta) // self.align) * self.align + self.gap
        self.va, self.pos = start, start - delta
        self.table = PHDR * (len(self.phdr) + 1)
        self.code_va = start + -(-self.table // 16) * 16

    def build(self, change: Callable[[bytearray], None] = lambda content: None) -> bytes:
        size = self.code_va - self.va + len(self.code)
        row = {"p_type": 1, "p_flags": 5, "p_offset": self.pos, "p_vaddr": self.va, "p_paddr": self.va,
               "p_filesz": size, "p_memsz": size, "p_align": self.align} | self.segment  # fmt: skip
        at = max(number for number, head in enumerate(self.phdr) if head[0] == 1) + 1
        heads = [*self.phdr[:at], tuple(row.values()), *self.phdr[at:]]
        heads = [(kind, flags, self.pos, self.va, self.va, self.table, self.table, align) if kind == 6 else
                 (kind, flags, *rest, align) for kind, flags, *rest, align in heads]  # fmt: skip
        names_at = self.shdr[self.strings][4]
        names = self.data[names_at : names_at + self.shdr[self.strings][5]] + self.name
        fill = bytes([self.filler])
        content = bytearray(self.data)
        content += fill * (self.pos - len(content))
        content += b"".join(struct.pack("<IIQQQQQQ", *head) for head in heads)
        content += fill * (self.code_va - self.va - self.table) + self.code
        end = len(content)
        content += names + fill * (-(end + len(names)) % 8)
        section = {"sh_name": len(names) - len(self.name), "sh_type": 1, "sh_flags": 6, "sh_addr": self.code_va,
                   "sh_offset": self.pos + self.code_va - self.va, "sh_size": len(self.code), "sh_link": 0,
                   "sh_info": 0, "sh_addralign": 16, "sh_entsize": 0} | self.section  # fmt: skip
        rows = [*self.shdr, tuple(section.values())]
        was = rows[self.strings]
        rows[self.strings] = (*was[:4], end, len(names), *was[6:])
        shoff = len(content)
        content += b"".join(struct.pack("<IIQQQQIIQQ", *head) for head in rows)
        struct.pack_into("<QQ", content, 32, self.pos, shoff)
        struct.pack_into("<H", content, 56, len(heads))
        struct.pack_into("<H", content, 60, len(rows))
        change(content)
        return bytes(content)


def findings(before: Path, after: Path, execute: bool = False) -> list[tuple[str, str]]:
    """Rule and message of each finding, without a report around it."""
    proof = prove(scan_file(str(before)), open_image(str(after)), checks=Checks(execute=execute))
    return [(finding.rule, finding.message) for finding in proof.findings]


def symbol(path: Path, name: str) -> int:
    """va of a function."""
    va = open_image(str(path)).symbols.value(name)
    assert va is not None, name
    return va


def slot(path: Path, name: str) -> int:
    """va of the word that the loader fills with the address of an import."""
    from ftpatch.proof.program_imports import Imports

    return next(va for va, slot in Imports(open_image(str(path))).slots.items() if slot.name == name)


def with_calls(content: bytes, before: Path, to: Mapping[str, int]) -> bytes:
    """The file with the sites of some functions calling these addresses."""
    image, patched = open_image(str(before)), bytearray(content)
    for name, target in to.items():
        va = symbol(before, name)
        pos = image.pos_of_va(va)
        if image.arch.name == "arm64":
            struct.pack_into("<2I", patched, pos, 0xAA1E_03E9, 0x9400_0000 | target - va - 4 >> 2 & 0x3FF_FFFF)
        elif image.arch.name == "ppc64le":
            if bytes(patched[pos + 2 : pos + 4]) in (b"\x4c\x3c", b"\x40\x3c"):  # behind what computes the TOC
                va, pos = va + 8, pos + 8
            struct.pack_into("<2I", patched, pos, 0x7C08_02A6, 0x4800_0001 | target - va - 4 & 0x3FF_FFFC)
        else:
            if patched[pos : pos + 4] == bytes.fromhex("f30f1efa"):
                va, pos = va + 4, pos + 4
            struct.pack_into("<Bi", patched, pos, 0xE8, target - va - 5)
    return bytes(patched)
