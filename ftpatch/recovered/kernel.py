"""A kernel without sections: all of it from what is loaded where, kallsyms, relocations and structure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.arrays import Rows
from ftpatch.container.envelope import Contents
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.recovered import Recovered
from ftpatch.errors import ElfError
from ftpatch.recovered import symbols
from ftpatch.recovered.complete import complete
from ftpatch.recovered.kallsyms import kallsyms_of
from ftpatch.recovered.layout import sections_of
from ftpatch.recovered.memory import Memory
from ftpatch.recovered.relocations import find_rela
from ftpatch.recovered.stripped import addends_of
from ftpatch.recovered.without_names import with_addresses

# of the linker's script since Linux 2.6, and always in kallsyms, which takes its code to lie between them
ENDS_OF_CODE = ("_stext", "_etext", "_sinittext", "_einittext")


def kernel_image(path: str, file: Contents, memory: Memory, headers: tuple[Rows, Rows]) -> Image:
    """The image of a kernel that is loaded so. headers: its ELF header and program headers.

    Raises ElfError where it has neither symbols nor records.
    """
    ehdr, phdr = headers
    bare = Image(path, file.data, file.raw, file.mode, file.wrapping, file.trailer, ehdr, np.zeros(1, t.SHDR), phdr,
                 ("",), file.layers)  # fmt: skip
    rela = find_rela(memory, bare.arch)
    rows = np.zeros(0, t.RELA) if rela is None else file.data[rela.start : rela.end].view(t.RELA)
    kallsyms = kallsyms_of(memory, addends_of(rows, bare.arch))
    if kallsyms is None:
        if (nameless := with_addresses(bare, memory)) is None:
            raise ElfError("neither kallsyms nor records in the kernel", path,
                           todo="give the vmlinux of the same build")  # fmt: skip
        return nameless
    unplaced = symbols.unplaced(kallsyms)
    if missing := [name for name in ENDS_OF_CODE if unplaced.value(name) is None]:
        raise ElfError("kallsyms does not have names that every kernel has", path, found=f"no {', '.join(missing)}",
                       todo="the file is damaged")  # fmt: skip
    shdr, names = sections_of(memory, unplaced, bare.arch)
    made = replace(bare, shdr=shdr, names=names, recovered=Recovered(unplaced, "kallsyms", True))
    placed = symbols.placed(unplaced, made)
    return complete(replace(made, recovered=Recovered(placed, "kallsyms", True, kallsyms.letter)))
