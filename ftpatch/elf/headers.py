"""The headers of an ELF file, checked against the file before anything else believes them."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Rows, is_in
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.errors import ArchError, ElfError

ELFCLASS64, ELFDATA2LSB = 2, 1
TABLES = (t.SHT_SYMTAB, t.SHT_STRTAB, t.SHT_RELA, t.SHT_SYMTAB_SHNDX)
PT_DYNAMIC, PT_INTERP = 2, 3
MAX_SEGMENTS = 256  # that are looked at; a kernel has four
MAX_NAMES = 1 << 24  # bytes of section names, beyond what the name table can account for


def read_headers(path: str, data: FileBytes) -> tuple[Rows, Rows, Rows, tuple[str, ...]]:
    """ELF header, section headers, program headers and section names of the file `data`; `path` is for messages.

    Raises ArchError for 32-bit and big-endian files, ElfError for headers that contradict the file.
    """
    ident = t.cut(data, 0, 16, f"{path}: ELF header")
    if ident[4] != ELFCLASS64:
        raise ArchError("not a 64-bit ELF file", path, found=f"EI_CLASS {ident[4]}", expected="2 (ELFCLASS64)",
                        todo="give the vmlinux of a 64-bit kernel")  # fmt: skip
    if ident[5] != ELFDATA2LSB:
        raise ArchError("not a little-endian ELF file", path, found=f"EI_DATA {ident[5]}", expected="1 (ELFDATA2LSB)",
                        todo="give the vmlinux of a little-endian kernel")  # fmt: skip
    ehdr = t.rows_of(data, 0, t.EHDR.itemsize, t.EHDR, f"{path}: ELF header")[0]
    if ehdr["e_type"] not in (t.ET_REL, t.ET_EXEC, t.ET_DYN):
        core = ehdr["e_type"] == t.ET_CORE
        raise ElfError("not a kernel, module, object or program", path,
                       found=f"e_type {ehdr['e_type']}{' (a core or crash dump)' * bool(core)}",
                       expected="ET_REL, ET_EXEC or ET_DYN",
                       todo="give the vmlinux of the kernel that crashed" if core else "")  # fmt: skip
    shdr = _section_headers(path, data, ehdr)
    names = _section_names(path, data, ehdr, shdr)
    _check_sections(path, shdr, names, len(data))
    phdr = _program_headers(path, data, ehdr, shdr)
    _check_tables(path, ehdr, shdr, phdr, names)
    _check_segments(path, shdr, phdr, names)
    return ehdr, shdr, phdr, names


def has_no_sections(data: FileBytes) -> bool:
    """Whether a 64-bit little-endian file says that it has no section headers: cut off, as sstrip does it."""
    head = data[: t.EHDR.itemsize]
    if len(head) < t.EHDR.itemsize or head[4] != ELFCLASS64 or head[5] != ELFDATA2LSB:
        return False
    return int(head.view(t.EHDR)[0]["e_shoff"]) == 0


def kernel_segments(data: FileBytes) -> tuple[Rows, Rows] | None:
    """ELF header and program headers of a kernel without section headers; None for other files.

    A kernel's code is loaded to the upper half of the addresses, where no program's is.
    """
    ehdr = data[: t.EHDR.itemsize].view(t.EHDR)[0]
    start, n = int(ehdr["e_phoff"]), int(ehdr["e_phnum"])
    sound = 0 < n <= MAX_SEGMENTS and int(ehdr["e_phentsize"]) == t.PHDR.itemsize
    if not sound or start + n * t.PHDR.itemsize > len(data) or ehdr["e_type"] not in (t.ET_EXEC, t.ET_DYN):
        return None
    phdr = data[start : start + n * t.PHDR.itemsize].view(t.PHDR)
    upper = (phdr["p_type"] == t.PT_LOAD) & (phdr["p_vaddr"] >= np.uint64(1 << 63)) & (phdr["p_filesz"] > 0)
    return (ehdr, phdr) if upper.any() else None


def _section_headers(path: str, data: FileBytes, ehdr: Rows) -> Rows:
    shoff, n = int(ehdr["e_shoff"]), int(ehdr["e_shnum"])
    if shoff == 0:
        what = "program" if _is_for_loader(data, ehdr) else "vmlinux"
        raise ElfError("no section headers", path, todo=f"give the {what} that the build produced, sections kept")
    if int(ehdr["e_shentsize"]) != t.SHDR.itemsize:
        raise ElfError("wrong e_shentsize", path, found=str(ehdr["e_shentsize"]), expected=str(t.SHDR.itemsize))
    if n == 0:  # more than 65,279 sections: the count stands in section 0
        n = int(t.rows_of(data, shoff, t.SHDR.itemsize, t.SHDR, f"{path}: first section header")[0]["sh_size"])
    return t.rows_of(data, shoff, n * t.SHDR.itemsize, t.SHDR, f"{path}: section header table")


def _is_for_loader(data: FileBytes, ehdr: Rows) -> bool:
    """Whether a file has a program header that only the loader of programs reads."""
    n, start = min(int(ehdr["e_phnum"]), MAX_SEGMENTS), int(ehdr["e_phoff"])
    room = max(len(data) - start, 0) // t.PHDR.itemsize
    rows = data[start : start + min(n, room) * t.PHDR.itemsize].view(t.PHDR) if min(n, room) else ()
    return any(int(row["p_type"]) in (PT_DYNAMIC, PT_INTERP) for row in rows)


def _program_headers(path: str, data: FileBytes, ehdr: Rows, shdr: Rows) -> Rows:
    n = int(ehdr["e_phnum"])
    if n == 0xFFFF and len(shdr):
        n = int(shdr["sh_info"][0])
    if n and int(ehdr["e_phentsize"]) != t.PHDR.itemsize:
        raise ElfError("wrong e_phentsize", path, found=str(ehdr["e_phentsize"]), expected=str(t.PHDR.itemsize))
    return t.rows_of(data, int(ehdr["e_phoff"]), n * t.PHDR.itemsize, t.PHDR, f"{path}: program header table")


def _section_names(path: str, data: FileBytes, ehdr: Rows, shdr: Rows) -> tuple[str, ...]:
    index = int(ehdr["e_shstrndx"])
    if index == t.SHN_XINDEX and len(shdr):
        index = int(shdr["sh_link"][0])
    if index >= len(shdr) or shdr["sh_type"][index] != t.SHT_STRTAB:
        raise ElfError("e_shstrndx names no string table", path, found=f"section {index} of {len(shdr)}")
    table = t.cut(data, int(shdr["sh_offset"][index]), int(shdr["sh_size"][index]), f"{path}: section names").tobytes()
    starts: list[int] = shdr["sh_name"].tolist()
    if max(starts) >= len(table):
        raise ElfError("a section's name lies outside the name table", path, found=f"{max(starts):#x}")
    names: dict[int, str] = {}
    total = 0
    for start in set(starts):
        end = table.find(b"\0", start, start + t.MAX_NAME)
        names[start] = table[start : end if end >= 0 else start + t.MAX_NAME].decode("utf-8", "backslashreplace")
        total += len(names[start])
        if total > MAX_NAMES + 4 * len(table):
            raise ElfError("section names overlap", path, found=f"{len(table)} bytes for {len(starts)} names")
    return tuple(names[start] for start in starts)


def _check_sections(path: str, head: Rows, names: tuple[str, ...], n_bytes: int) -> None:
    """Every section that claims bytes has them, for itself, at addresses that exist; a truncated file is found here."""
    size = np.uint64(n_bytes)
    has_bytes = (head["sh_type"] != t.SHT_NOBITS) & (head["sh_type"] != t.SHT_NULL)
    with np.errstate(over="ignore"):
        end, end_va = head["sh_offset"] + head["sh_size"], head["sh_addr"] + head["sh_size"]
    bad = np.flatnonzero(has_bytes & ((end > size) | (end < head["sh_offset"])))
    for sec in bad[:1].tolist():
        raise ElfError(f"section {names[sec] or sec} lies outside the file", path,
                       found=f"bytes {int(head['sh_offset'][sec]):#x} + {int(head['sh_size'][sec]):#x}",
                       expected=f"at most {n_bytes:#x}", todo="the file is truncated or corrupt")  # fmt: skip
    order = np.flatnonzero(has_bytes & (head["sh_size"] > 0))
    order = order[np.argsort(head["sh_offset"][order], kind="stable")]
    shared = np.flatnonzero(end[order][:-1] > head["sh_offset"][order][1:])
    if len(shared):
        first, second = (names[sec] or str(sec) for sec in order[shared[0] : shared[0] + 2])
        raise ElfError("sections overlap in the file", path, found=f"{first} and {second} share bytes")
    wraps = np.flatnonzero((head["sh_flags"] & t.SHF_ALLOC != 0) & (end_va < head["sh_addr"]))
    for sec in wraps[:1].tolist():
        raise ElfError(f"section {names[sec] or sec} ends behind the last address", path,
                       found=f"{int(head['sh_addr'][sec]):#x} + {int(head['sh_size'][sec]):#x}")  # fmt: skip


def _check_tables(path: str, ehdr: Rows, head: Rows, phdr: Rows, names: tuple[str, ...]) -> None:
    """No table and nothing that is loaded lies over the headers, which change when a table grows."""
    loaded = (head["sh_flags"] & t.SHF_ALLOC != 0) & (head["sh_type"] != t.SHT_NOBITS) & (head["sh_type"] != t.SHT_NULL)
    used = (loaded | is_in(head["sh_type"], TABLES)) & (head["sh_size"] > 0)
    for what, start, size in (
        ("the ELF header", 0, t.EHDR.itemsize),
        ("the section headers", int(ehdr["e_shoff"]), head.nbytes),
        ("the program headers", int(ehdr["e_phoff"]), phdr.nbytes),
    ):
        over = used & (head["sh_offset"] < start + size) & (head["sh_offset"] + head["sh_size"] > start)
        if size and over.any():
            sec = int(np.argmax(over))
            raise ElfError("sections overlap in the file", path, found=f"{names[sec] or sec} and {what} share bytes")


def _check_segments(path: str, head: Rows, phdr: Rows, names: tuple[str, ...]) -> None:
    """What a boot loader copies to an address is what the section there holds: it goes by segments, we by sections."""
    loaded = (head["sh_flags"] & t.SHF_ALLOC != 0) & (head["sh_type"] != t.SHT_NOBITS) & (head["sh_size"] > 0)
    for segment in phdr[phdr["p_type"] == t.PT_LOAD][:MAX_SEGMENTS]:
        off = head["sh_addr"] - segment["p_vaddr"]  # wraps for sections in front of the segment, and is huge then
        other = loaded & (off < segment["p_filesz"]) & (head["sh_offset"] != segment["p_offset"] + off)
        if other.any():
            sec = int(np.argmax(other))
            place = int(segment["p_offset"]) + int(off[sec])
            raise ElfError("a section and its segment lie at different places in the file", path,
                           found=f"{names[sec] or sec} at {int(head['sh_offset'][sec]):#x}",
                           expected=f"{place:#x}, from where it is loaded")  # fmt: skip
