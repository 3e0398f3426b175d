"""An ELF file with a symbol table, made of a kernel that has none: for debuggers and profilers, not to boot.

    stripped ELF   headers, segments, sections   │ .symtab .strtab, a remark, .shstrtab   section headers
    flat image     ELF and program headers (new) │ the image │ .symtab .strtab, a remark, .shstrtab   section headers

What is loaded stays byte for byte what it is, at its addresses. Of the ELF file's own header, only the fields change
that tell where the section headers are. The sections of a flat image, and of an ELF file without section headers, are
those that were recovered.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from ftpatch.arrays import I64, U8, Rows
from ftpatch.container.envelope import open_file
from ftpatch.container.file_bytes import ELF_MAGIC, is_elf
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image, image_of
from ftpatch.elf.recovered import OF_KALLSYMS
from ftpatch.errors import ApplyError, FtpatchError, PolicyError, UnsupportedError
from ftpatch.inputs import Path
from ftpatch.recovered.symbol_list import SymbolList, symbols_of
from ftpatch.write import contents, files, paths
from ftpatch.write.bootimage import Pieces
from ftpatch.write.segments import PAGE, note_segments, segments_of
from ftpatch.write.system import Note

ABSOLUTE = b"aA"  # letters of symbols that are numbers, and no addresses
LISTED = ".symtab"  # the names of what is added
STRINGS, NAMES = ".strtab", ".shstrtab"
REMARK = b"the symbols are those of kallsyms; sizes and types follow from the code\0"
MOST = t.SHN_LORESERVE - 5  # sections that a file may have already


Reports = Callable[[SymbolList, Image], AbstractContextManager[object]]


def symbols(
    path: Path, out: Path | None = None, note: Note = lambda text: None, max_size: int | None = None,
    reports: Reports = lambda listed, after: nullcontext(),
) -> SymbolList:  # fmt: skip
    """The symbols of a file, in the order of their addresses; with `out`, an ELF file of the kernel that has them.

    note: told what else happens to files. max_size: bytes that the file may unpack to. reports(the symbols, the new
    file as it was read back) makes a context with reports in place, in which that file gets its name.
    """
    listed = symbols_of(os.fspath(path), max_size)
    if out is not None:
        write_with_symbols(listed.image, os.fspath(out), note, lambda after: reports(listed, after))
    return listed


def write_with_symbols(
    image: Image, out: str, note: Note, reports: Callable[[Image], AbstractContextManager[object]] = nullcontext
) -> int:
    """Write an ELF file that has what the image has, and its symbols; its size.

    reports: as in `symbols`. Raises PolicyError where the image has a symbol table, or where there are no symbols.
    """
    pieces = with_symbols(image)
    with files.whole_file(paths.output_path("", out, [image.path]), image.mode, (image.path,), note) as new:
        size = contents.write_pieces(new.fd, pieces)
        after = _read_back(image, new.readable, out)
        new.finish()
        with reports(after):
            new.publish()
    return size


def with_symbols(image: Image) -> Pieces:
    """The pieces of the ELF file."""
    if image.recovered is None and len(image.own_symbols.rows) > 1 and image.kind == "vmlinux" and not image.is_bare:
        return [(0, image.data[:])]  # as it is, out of what is around it
    if image.recovered is None or image.recovered.letters is None:
        raise _nothing_to_add(image)
    if len(image.shdr) > MOST:
        raise UnsupportedError("a symbol table cannot be added to so many sections", image.path,
                               found=str(len(image.shdr)), expected=f"at most {MOST}")  # fmt: skip
    return _added(image) if is_elf(image.data) else _made(image)


def _nothing_to_add(image: Image) -> PolicyError:
    """Why no file is written."""
    if image.recovered is None and (n := len(image.own_symbols.rows)):
        return PolicyError("the file has a symbol table, so that nothing is to be added", image.path,
                           found=f"{n} symbols", todo="give the file itself to other tools")  # fmt: skip
    return PolicyError("there are no symbols to write", image.path, found="no symbol table and no kallsyms")


# -- a stripped ELF file -----------------------------------------------------------------------------------------------


def _added(image: Image) -> Pieces:
    """The ELF file with the table behind it, and new section headers behind that."""
    head = np.array(image.data[:])
    tables = _Tables(image, image.shdr, len(head))
    ehdr = head[: t.EHDR.itemsize].view(t.EHDR)
    for field, value in tables.fields:
        ehdr[field] = value
    return [(0, head), *tables.pieces]


# -- a flat image ------------------------------------------------------------------------------------------------------


def _made(image: Image) -> Pieces:
    """A new ELF file with the image's bytes at their addresses."""
    shdr, segments = image.shdr.copy(), segments_of(image)
    n_rows = len(segments) + int((shdr["sh_type"] == t.SHT_NOTE).sum())
    start = t.EHDR.itemsize + n_rows * t.PHDR.itemsize
    # the place of a byte in the file and its address are equal within a page
    start += (int(segments["p_vaddr"][0]) - int(segments["p_offset"][0]) - start) % PAGE
    shdr["sh_offset"][image.has_bytes] += np.uint64(start)
    segments["p_offset"] += np.uint64(start)
    _place_empty(shdr, segments)
    phdr = np.concatenate([segments, note_segments(shdr)])
    tables = _Tables(image, shdr, start + len(image.data))
    ehdr = np.array([image.ehdr])  # of the machine
    ehdr["e_ident"][0, :7] = np.frombuffer(ELF_MAGIC + b"\2\1\1", np.uint8)  # 64 bits, little-endian, version 1
    for field, value in (
        ("e_version", 1), ("e_entry", int(segments["p_vaddr"][0])), ("e_phoff", t.EHDR.itemsize),
        ("e_ehsize", t.EHDR.itemsize), ("e_phentsize", t.PHDR.itemsize), ("e_phnum", len(phdr)), *tables.fields,
    ):  # fmt: skip
        ehdr[field] = value
    return [(0, np.concatenate([ehdr.view(np.uint8), phdr.view(np.uint8)])), (start, image.data[:]), *tables.pieces]


def _place_empty(shdr: Rows, segments: Rows) -> None:
    """Give sections without bytes the place in the file that their segment says."""
    for sec in np.flatnonzero((shdr["sh_type"] == t.SHT_NOBITS) & (shdr["sh_flags"] & t.SHF_ALLOC != 0)).tolist():
        off = shdr["sh_addr"][sec] - segments["p_vaddr"]
        for row in np.flatnonzero(off < segments["p_memsz"])[:1].tolist():
            shdr["sh_offset"][sec] = segments["p_offset"][row] + np.minimum(off[row], segments["p_filesz"][row])


# -- the table ---------------------------------------------------------------------------------------------------------


class _Tables:
    """What follows the bytes of a file: the table, its strings, the names of sections, and the section headers."""

    def __init__(self, image: Image, shdr: Rows, end: int) -> None:
        """shdr: the headers of the image's sections; end: where these bytes end."""
        self.pieces: Pieces = []
        self._end, self._shdr, self._names = end, shdr.copy(), list(image.names)
        table, strings = self._section(LISTED, t.SHT_SYMTAB), self._section(STRINGS, t.SHT_STRTAB)
        self._fill(self._section(OF_KALLSYMS, t.SHT_PROGBITS), np.frombuffer(REMARK, np.uint8), 1)
        names = self._section(NAMES, t.SHT_STRTAB)
        rows, n_local = symbol_rows(image)
        self._fill(table, rows.view(np.uint8), 8)
        for field, value in (("sh_link", strings), ("sh_info", n_local), ("sh_entsize", t.SYM.itemsize)):
            self._shdr[field][table] = value
        self._fill(strings, np.frombuffer(b"\0" + image.own_symbols.strtab, np.uint8), 1)
        texts = [name.encode("utf-8", "surrogateescape") + b"\0" for name in self._names]
        self._shdr["sh_name"] = np.cumsum([1, *map(len, texts)])[:-1]
        self._shdr["sh_name"][0] = 0
        self._fill(names, np.frombuffer(b"\0" + b"".join(texts), np.uint8), 1)
        start = self._append(np.ascontiguousarray(self._shdr).view(np.uint8), 8)
        self.fields = (  # of the ELF header
            ("e_shoff", start), ("e_shentsize", t.SHDR.itemsize), ("e_shnum", len(self._shdr)), ("e_shstrndx", names),
        )  # fmt: skip

    def _section(self, name: str, kind: int) -> int:
        """The number of a section that is no part of the loaded image: one of the file, or a new one."""
        for sec, other in enumerate(self._names):
            if other == name and self._shdr["sh_type"][sec] == kind and not self._shdr["sh_flags"][sec] & t.SHF_ALLOC:
                return sec
        self._shdr = np.concatenate([self._shdr, np.zeros(1, t.SHDR)])
        self._shdr["sh_type"][-1] = kind
        self._names.append(name)
        return len(self._names) - 1

    def _fill(self, sec: int, content: U8, align: int) -> None:
        """Give a section its content."""
        head = self._shdr[sec : sec + 1]
        head["sh_offset"], head["sh_size"], head["sh_addralign"] = self._append(content, align), len(content), align

    def _append(self, content: U8, align: int) -> int:
        """The position of a new piece."""
        start = -(-self._end // align) * align
        self.pieces.append((start, content))
        self._end = start + len(content)
        return start


def symbol_rows(image: Image) -> tuple[Rows, int]:
    """The rows of the symbol table for strings with a NUL in front, local ones first; and how many these are."""
    symbols = image.own_symbols
    rows = np.concatenate([np.zeros(1, t.SYM), symbols.rows])
    rows["st_name"][1:] += 1
    rows["st_shndx"][1:] = _sections_of(image)
    local = rows["st_info"] >> 4 == t.STB_LOCAL
    return np.concatenate([rows[local], rows[~local]]), int(local.sum())


def _sections_of(image: Image) -> I64:
    """The section of every symbol, as the index of a row: of one between two sections, which names the end of a part,
    that in front of it; SHN_ABS for one that is a number."""
    symbols, recovered = image.own_symbols, image.recovered
    sec = symbols.shndx.copy()
    loose = sec == t.NO_SECTION
    if recovered is not None and recovered.letters is not None:
        loose[: len(recovered.letters)] &= ~np.isin(recovered.letters, np.frombuffer(ABSOLUTE, np.uint8))
        parts = np.flatnonzero((image.shdr["sh_flags"] & t.SHF_ALLOC != 0) & (image.shdr["sh_size"] > 0))
        parts = parts[np.argsort(image.base[parts], kind="stable")]
        before = np.searchsorted(image.base[parts], symbols.rows["st_value"][loose], side="right") - 1
        sec[loose] = np.where(before >= 0, parts[before], t.NO_SECTION)
    return np.where(sec == t.NO_SECTION, t.SHN_ABS, sec)


def _read_back(image: Image, written: str, out: str) -> Image:
    """The new file. Raises ApplyError where it is not what was to be written."""
    try:
        after = image_of(out, open_file(written))
        fault = _fault(image, after)
    except FtpatchError as error:
        fault = error.what
    if fault:
        raise ApplyError("self-check failed: the new file does not hold what the image does", image.path, found=fault,
                         todo="it was not kept; please report this")  # fmt: skip
    return after


def _fault(image: Image, after: Image) -> str:
    """What is wrong with a file that was written; empty where nothing is."""
    if len(after.own_symbols.rows) != len(image.own_symbols.rows) + (image.recovered is not None):
        return f"{len(after.own_symbols.rows)} symbols"
    for sec in np.flatnonzero(image.has_bytes & (image.shdr["sh_flags"] & t.SHF_ALLOC != 0)).tolist():
        if after.base[sec] != image.base[sec] or not np.array_equal(after.content(sec), image.content(sec)):
            return f"section {image.names[sec]}"
    return ""
