"""Code added to a linked program: a segment of its own behind everything that is loaded, and a section that names it.

Nothing that exists moves. What must become longer (program headers, section names, section headers) is written anew at
the end of the file; the old copies stay behind as bytes that nothing names:

    original bytes │ zeros │ program headers, new code │ section names │ section headers
                             └ the new PT_LOAD, R E ─┘

A kernel before Linux 5.18 tells a program where its program headers are (AT_PHDR) by the first segment: address minus
file position. So the new segment keeps that distance, which also suits the loader of shared objects, and a file whose
memory reaches far beyond its bytes (.bss) gets as many zeros. Rows of PT_LOAD stay ascending by address.
Source: Linux fs/binfmt_elf.c load_elf_binary(), create_elf_tables(); commit 0da1d5002745 ("fs/binfmt_elf: Fix AT_PHDR
for unusual ELF files"); glibc elf/dl-load.c _dl_map_object_from_fd(); gABI, chapters 4 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import Rows
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Placed
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError, UnsupportedError

PT_PHDR, PF_X, PF_R = 6, 1, 4
SECTION = ".text.ftpatch"
ALIGN = 16  # of the code
PAGE = 1 << 12  # the smallest page of any machine
MAX_ZEROS = 64 << 20  # bytes between the original ones and the new segment
MAX_HEADERS = PAGE  # bytes of program headers that a kernel with small pages accepts
HEADER = 64  # bytes of an ELF header
E_PHOFF, E_SHOFF, E_PHNUM, E_SHNUM, E_SHSTRNDX = 32, 40, 56, 60, 62  # where it keeps them


@dataclass(frozen=True)
class NewSegment:
    """Where new code will lie in a file, decided before the code is made."""

    image: Image
    pos: int  # file position of the segment, at which its program headers begin
    distance: int  # what an address in it is more than its file position
    align: int  # bytes

    @property
    def code_pos(self) -> int:
        """File position of the code."""
        return _aligned(self.pos + (len(self.image.phdr) + 1) * t.PHDR.itemsize, ALIGN)

    @property
    def code_va(self) -> int:
        return self.code_pos + self.distance

    def finish(self, code: bytes) -> tuple[list[Placed], list[Placed]]:
        """(fields of the ELF header, what follows the original bytes) of a file with this code."""
        image, end = self.image, len(self.image.data)
        headers = self._program_headers(self.code_pos + len(code) - self.pos).tobytes()
        segment = headers + bytes(self.code_pos - self.pos - len(headers)) + code
        names_pos = self.code_pos + len(code)
        strings = _section_names(image)
        names = image.content(strings).tobytes()
        names += b"\0" * (names[-1:] != b"\0")
        shdr_pos = _aligned(names_pos + len(names) + len(SECTION) + 1, 8)
        tail = [
            Placed(self.pos, segment, f"section {len(image.shdr)} {SECTION}"),
            Placed(names_pos, names + SECTION.encode() + b"\0", f"section {strings} {image.names[strings]}"),
        ]
        shdr = self._section_headers(strings, names_pos, len(names), len(code))
        at = names_pos + len(tail[-1].new)
        tail.append(Placed(at, bytes(shdr_pos - at) + shdr.tobytes(), "section headers"))
        if self.pos > end:
            tail.insert(0, Placed(end, bytes(self.pos - end), "padding"))
        values = (
            (E_PHOFF, self.pos, 8, "e_phoff"), (E_PHNUM, len(image.phdr) + 1, 2, "e_phnum"),
            (E_SHOFF, shdr_pos, 8, "e_shoff"), (E_SHNUM, len(shdr), 2, "e_shnum"),
        )  # fmt: skip
        return [Placed(pos, value.to_bytes(size, "little"), name) for pos, value, size, name in values], tail

    def _program_headers(self, size: int) -> Rows:
        """The program headers, with one for the new segment behind the last PT_LOAD. size: bytes of it."""
        rows, va = self.image.phdr, self.pos + self.distance
        segment = np.zeros(1, t.PHDR)
        values = (t.PT_LOAD, PF_R | PF_X, self.pos, va, va, size, size, self.align)
        for name, value in zip(t.PHDR.names or (), values, strict=True):
            segment[name] = value
        behind = int(np.flatnonzero(rows["p_type"] == t.PT_LOAD)[-1]) + 1
        table = np.concatenate([rows[:behind], segment, rows[behind:]])
        own = table["p_type"] == PT_PHDR
        for name, value in (("p_offset", self.pos), ("p_vaddr", va), ("p_paddr", va), ("p_filesz", table.nbytes),
                            ("p_memsz", table.nbytes)):  # fmt: skip
            table[name][own] = value
        return table

    def _section_headers(self, strings: int, names_pos: int, name: int, size: int) -> Rows:
        """The section headers, with one for the code. strings: number of the section of names; name: where in it."""
        table = np.concatenate([self.image.shdr, np.zeros(1, t.SHDR)])
        for field, value in (("sh_name", name), ("sh_type", t.SHT_PROGBITS), ("sh_addr", self.code_va),
                             ("sh_flags", t.SHF_ALLOC | t.SHF_EXECINSTR), ("sh_offset", self.code_pos),
                             ("sh_size", size), ("sh_addralign", ALIGN)):  # fmt: skip
            table[field][-1] = value
        table["sh_offset"][strings], table["sh_size"][strings] = names_pos, name + len(SECTION) + 1
        return table


def new_segment(image: Image) -> NewSegment:
    """Where a file takes new code. Raises UnsupportedError or PolicyError where it takes none."""
    _require_growable(image)
    loads = image.phdr[image.phdr["p_type"] == t.PT_LOAD]
    align = max(PAGE, *loads["p_align"].tolist())
    if align & (align - 1) or align > MAX_ZEROS:
        raise UnsupportedError("the program's segments have no usual alignment", image.path, found=f"{align:#x}",
                               expected=f"a power of two up to {MAX_ZEROS:#x}")  # fmt: skip
    ends = [int(row["p_vaddr"]) + int(row["p_memsz"]) for row in loads]
    distance = int(loads["p_vaddr"][0]) - int(loads["p_offset"][0])
    if distance % align:
        raise UnsupportedError("the program's first segment is not aligned", image.path, found=f"{distance:#x}",
                               expected=f"address and file position equal modulo {align:#x}")  # fmt: skip
    if ends != sorted(ends) or distance < 0:
        raise UnsupportedError("the program's segments are not in order", image.path, found="PT_LOAD rows that descend",
                               expected="ascending addresses, the first at the start of the file")  # fmt: skip
    held = image.shdr[image.has_bytes & (image.shdr["sh_flags"] & t.SHF_ALLOC != 0)]
    if (held["sh_addr"] + held["sh_size"] > ends[-1]).any():  # new code would take the addresses of such a section
        raise UnsupportedError("sections lie behind the program's last segment", image.path,
                               found=f"{int((held['sh_addr'] + held['sh_size']).max()):#x} as the end of one",
                               expected=f"at most {ends[-1]:#x}, where the last PT_LOAD ends")  # fmt: skip
    pos = max(_aligned(len(image.data), PAGE), _aligned(ends[-1], align) - distance)
    if pos - len(image.data) > MAX_ZEROS:
        raise PolicyError("the program's memory reaches too far beyond its bytes for code to be added", image.path,
                          found=f"{pos - len(image.data):#x} bytes of zeros (.bss)", expected=f"at most {MAX_ZEROS:#x}",
                          todo="--target takes a function that keeps all registers and needs no new code")  # fmt: skip
    return NewSegment(image, pos, distance, align)


def _require_growable(image: Image) -> None:
    """UnsupportedError where headers cannot become longer."""
    n, strings = len(image.phdr), _section_names(image)
    if n_more := overlay(image):
        raise UnsupportedError("the file goes on behind its ELF part, and what is there may count from the file's end",
                               image.path, found=f"{n_more} bytes of an archive or the like",
                               expected="nothing behind the last section",
                               todo="patch the program before the archive is appended")  # fmt: skip
    if not (image.phdr["p_type"] == t.PT_LOAD).any():
        raise UnsupportedError("the program has no segment that is loaded", image.path, found=f"{n} program headers",
                               expected="a PT_LOAD")  # fmt: skip
    if (n + 1) * t.PHDR.itemsize > MAX_HEADERS:
        raise UnsupportedError("no room for one more program header", image.path, found=f"{n} of them",
                               expected=f"less than {MAX_HEADERS // t.PHDR.itemsize}, as kernels want it")  # fmt: skip
    if len(image.shdr) + 1 >= t.SHN_LORESERVE:
        raise UnsupportedError("no room for one more section", image.path, found=f"{len(image.shdr)} of them",
                               expected=f"less than {t.SHN_LORESERVE - 1}")  # fmt: skip
    if int(image.shdr["sh_flags"][strings]) & t.SHF_ALLOC:
        raise UnsupportedError("the names of sections are loaded with the program", image.path,
                               found=f"section {strings} {image.names[strings]}",
                               expected="a table of its own, which may become longer")  # fmt: skip


def overlay(image: Image) -> int:
    """Bytes from the end of what the ELF headers name to the last byte of the file that is not zero."""
    shdr, phdr, ehdr = image.shdr, image.phdr, image.ehdr
    ends = [
        HEADER, int(ehdr["e_phoff"]) + phdr.nbytes, int(ehdr["e_shoff"]) + shdr.nbytes,
        *(shdr["sh_offset"] + shdr["sh_size"])[image.has_bytes].tolist(),
        *(phdr["p_offset"] + phdr["p_filesz"]).tolist(),
    ]  # fmt: skip
    used = np.flatnonzero(image.data[min(max(ends), len(image.data)) :])
    return int(used[-1]) + 1 if len(used) else 0


def _section_names(image: Image) -> int:
    """Number of the section with the names of sections."""
    index = int(image.ehdr["e_shstrndx"])
    return index if index != t.SHN_XINDEX else int(image.shdr["sh_link"][0])


def _aligned(pos: int, align: int) -> int:
    return -(-pos // align) * align
