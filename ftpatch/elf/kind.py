"""What a file is: a kernel, a module, an object, or a program or shared object that only looks like a kernel.

arm64 links a kernel that can be moved as ET_DYN, as every shared object is, so the ELF type tells nothing. A kernel
runs in the upper half of the addresses, where no program lies, and has sections and symbols of its own. One of these
alone proves nothing: a linker makes `__start_mcount_loc` for any section `mcount_loc`, and others than Linux have an
`.init.text`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

import numpy as np

from ftpatch.arrays import Mask, Rows
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t

UPPER_HALF = np.uint64(1 << 63)
# what only Linux has, and what is found in other kernels and loaders, too
SECTIONS = ("__ksymtab", "__ksymtab_gpl", "__ksymtab_strings", "__param", "__modver", "__bug_table", ".BTF_ids")
SYMBOLS = ("linux_banner", "start_kernel", "__start_mcount_loc", "init_task")
COMMON_SECTIONS = (".head.text", ".init.text", ".exit.text", ".init.data", ".data..percpu", ".altinstructions")
COMMON_SYMBOLS = ("_stext", "_sinittext")
PROGRAMS = ("program", "shared-object")  # kinds of files that the loader of programs takes
MANY = 3  # marks of Linux that make a kernel of a file at addresses of programs
PT_DYNAMIC, PT_INTERP = 2, 3
DT_NEEDED, DT_SONAME, DT_FLAGS_1, DF_1_PIE, DT_GNU_PRELINKED = 1, 14, (7 << 28) - 5, 1 << 27, (7 << 28) - 523
DYN = np.dtype([("d_tag", "<u8"), ("d_val", "<u8")])
MAX_DYNAMIC = 1 << 16  # rows of the dynamic table that are read


class File(Protocol):
    """What is needed of an image to tell; `elf.image.Image` is such."""

    @property
    def e_type(self) -> int: ...

    @property
    def data(self) -> FileBytes: ...

    @property
    def shdr(self) -> Rows: ...

    @property
    def phdr(self) -> Rows: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def executable(self) -> Mask: ...

    @property
    def own_symbols(self) -> t.Symbols: ...


def kind_of(file: File) -> str:
    """`vmlinux`, `module`, `object`, `program` or `shared-object`, by what the file contains."""
    if file.e_type == t.ET_REL:
        return "module" if {".modinfo", ".gnu.linkonce.this_module"} & set(file.names) else "object"
    dynamic = dynamic_of(file)
    shared = bool((dynamic["d_tag"] == DT_SONAME).any())
    loaded = bool((dynamic["d_tag"] == DT_NEEDED).any()) or bool((file.phdr["p_type"] == PT_INTERP).any())
    # a file with these is for the loader of programs
    if not (shared or loaded) and _is_kernel(file):
        return "vmlinux"
    flags = dynamic["d_val"][dynamic["d_tag"] == DT_FLAGS_1]
    pie = bool((file.phdr["p_type"] == PT_INTERP).any() or (flags & np.uint64(DF_1_PIE)).any())
    return "program" if file.e_type != t.ET_DYN or (pie and not shared) else "shared-object"


def _is_kernel(file: File) -> bool:
    """Whether enough marks speak for Linux: where its code is at addresses of a kernel, any one."""
    code = file.shdr["sh_addr"][file.executable]
    if not (code >= UPPER_HALF).any():
        return len(list(islice(_marks(file, SECTIONS, SYMBOLS), MANY))) == MANY
    return any(_marks(file, SECTIONS + COMMON_SECTIONS, SYMBOLS + COMMON_SYMBOLS))


def _marks(file: File, sections: Sequence[str], symbols: Sequence[str]) -> Iterator[str]:
    """Those of the names that the file has, sections first: symbols have to be searched."""
    names = set(file.names)
    yield from (name for name in sections if name in names)
    yield from (name for name in symbols if file.own_symbols.value(name) is not None)


def dynamic_of(file: File) -> Rows:
    """The table that tells the loader of programs what to do; no rows where there is none."""
    for row in file.phdr[file.phdr["p_type"] == PT_DYNAMIC]:
        start, n = int(row["p_offset"]), min(int(row["p_filesz"]) // DYN.itemsize, MAX_DYNAMIC)
        content = file.data[start : start + n * DYN.itemsize]
        rows = content[: len(content) - len(content) % DYN.itemsize].view(DYN)
        end = np.flatnonzero(rows["d_tag"] == 0)  # DT_NULL
        return rows[: int(end[0])] if len(end) else rows
    return np.zeros(0, DYN)
