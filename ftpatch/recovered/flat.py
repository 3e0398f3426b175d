"""A flat kernel, which has neither headers nor sections: all of it from kallsyms, relocations and structure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import Rows
from ftpatch.container.envelope import Contents
from ftpatch.container.peel import flat_machine
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError
from ftpatch.recovered.kernel import kernel_image
from ftpatch.recovered.layout_base import link_base
from ftpatch.recovered.memory import Memory

EXECUTE, WRITE, READ = 1, 2, 4  # PF_*


def flat_image(path: str, file: Contents) -> Image:
    """The image of a flat kernel. Raises ElfError where it does not tell where it is linked to."""
    machine = flat_machine(file.data)
    assert machine is not None  # that is what the file was opened as
    arch, boot = machine
    size = len(file.data)
    base = link_base(file.data, arch, int(file.data[boot.size_at : boot.size_at + 8].view("<u8")[0]))
    if base is None:
        raise ElfError("the kernel does not tell at which address it is linked", path,
                       expected="relocation tables, or pointers to its own strings",
                       todo="the file is damaged, or give the vmlinux of the same build")  # fmt: skip
    memory = Memory(file.data, np.array([base.runtime], np.uint64), np.zeros(1, np.int64), np.array([size]))
    kernel = kernel_image(path, file, memory, (_ehdr(arch), _phdr(memory)))
    if base.runtime == base.link or kernel.recovered is None:
        return kernel
    return replace(kernel, recovered=kernel.recovered._replace(moved=base.runtime - base.link & t.LAST_VA))


def _ehdr(arch: Arch) -> Rows:
    """The ELF header that the vmlinux of such a kernel has."""
    ehdr = np.zeros((), t.EHDR)
    ehdr["e_type"], ehdr["e_machine"] = t.ET_DYN, arch.e_machine
    return ehdr


def _phdr(memory: Memory) -> Rows:
    """A program header for all of it: a boot loader copies it as it is."""
    phdr = np.zeros(1, t.PHDR)
    phdr["p_type"], phdr["p_flags"] = t.PT_LOAD, READ | WRITE | EXECUTE
    phdr["p_vaddr"], phdr["p_paddr"], phdr["p_filesz"], phdr["p_memsz"] = memory.va, memory.va, memory.size, memory.size
    return phdr
