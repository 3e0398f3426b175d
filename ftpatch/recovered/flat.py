"""A flat kernel, which has neither headers nor sections: all of it from kallsyms, relocations and structure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.arch import Arch, architectures
from ftpatch.arch.parts import FlatImage
from ftpatch.arrays import Rows
from ftpatch.container.envelope import Contents
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.recovered import Recovered
from ftpatch.errors import ElfError
from ftpatch.recovered import symbols
from ftpatch.recovered.kallsyms import kallsyms_of
from ftpatch.recovered.layout import sections_of
from ftpatch.recovered.layout_base import link_base
from ftpatch.recovered.memory import Memory
from ftpatch.recovered.records import with_records
from ftpatch.recovered.relocations import find_rela
from ftpatch.recovered.stripped import addends_of


def flat_image(path: str, file: Contents) -> Image:
    """The image of a flat kernel. Raises ElfError where it does not tell where it is linked to."""
    arch, boot = _machine(file.data)
    size = len(file.data)
    base = link_base(file.data, arch, int(file.data[boot.size_at : boot.size_at + 8].view("<u8")[0]))
    if base is None:
        raise ElfError("the kernel does not tell at which address it is linked", path,
                       expected="relocation tables, or pointers to its own strings",
                       todo="the file is damaged, or give the vmlinux of the same build")  # fmt: skip
    memory = Memory(file.data, np.array([base.link], np.uint64), np.zeros(1, np.int64), np.array([size]))
    rela = find_rela(memory, arch)
    rows = np.zeros(0, t.RELA) if rela is None else file.data[rela.start : rela.end].view(t.RELA)
    kallsyms = kallsyms_of(memory, addends_of(rows, arch), base.runtime - base.link)
    if kallsyms is None:
        raise ElfError("no kallsyms in the kernel", path, todo="give the vmlinux of the same build")
    unplaced = symbols.unplaced(kallsyms)
    shdr, names = sections_of(memory, unplaced, arch)
    made = Image(path, file.data, file.raw, file.mode, file.wrapping, file.trailer, _ehdr(arch), shdr,
                 np.zeros(0, t.PHDR), names, file.layers, Recovered(unplaced, "kallsyms", True))  # fmt: skip
    placed = symbols.placed(unplaced, made)
    return with_records(replace(made, recovered=Recovered(placed, "kallsyms", True, kallsyms.letter)))


def _machine(data: FileBytes) -> tuple[Arch, FlatImage]:
    """The machine whose flat kernels begin so, and what it says of them."""
    boots = ((arch, arch.boot) for arch in architectures())
    return next(
        (arch, boot) for arch, boot in boots
        if isinstance(boot, FlatImage) and data.peek(boot.at, boot.at + len(boot.magic)) == boot.magic
    )  # fmt: skip


def _ehdr(arch: Arch) -> Rows:
    """The ELF header that the vmlinux of such a kernel has."""
    ehdr = np.zeros((), t.EHDR)
    ehdr["e_type"], ehdr["e_machine"] = t.ET_DYN, arch.e_machine
    return ehdr
