"""What a kernel's module loader asks of a module, and what it adds: stubs for calls out of reach.

The loader sizes the sections of those stubs itself, from the relocations of the file that it is given, and throws their
contents away. A call that is added with its relocation is therefore counted.

Source: include/linux/vermagic.h; kernel/module/signing.c; arch/arm64/kernel/module-plts.c count_plts(), module.c
module_init_ftrace_plt(); arch/powerpc/kernel/module_64.c module_frob_arch_sections(), get_stubs_size()
(Linux 6.1, 6.12, 7.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import U8, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image


def stub_demand(image: Image) -> tuple[int, int]:
    """(text, init text) stubs that the loader reserves for calls: it counts relocations, so new calls add themselves.

    Per relocated section, not over all of them.
    """
    loader, n_stubs = image.arch.loader, [0, 0]
    for table in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA):
        sec = int(image.shdr["sh_info"][table])
        if sec >= len(image.shdr) or (loader.from_code_only and not image.shdr["sh_flags"][sec] & t.SHF_EXECINSTR):
            continue
        rows = image.rows(int(table), t.RELA)
        rows = rows[is_in(rows["r_info"] & 0xFFFF_FFFF, loader.calls)]
        rows = rows[rows["r_info"] >> 32 < len(image.symbols.rows)]
        inside = image.symbols.shndx[rows["r_info"] >> 32] == sec
        init = loader.init_apart and image.names[sec].startswith(".init")
        n_stubs[init] += loader.stubs_for(rows["r_info"], rows["r_addend"], inside)
    return n_stubs[0], n_stubs[1]


def stub_bytes(image: Image, n_records: int, out_of_line: bool) -> int:
    """How much room the loader's stubs take at least, those of the function tracer included."""
    loader = image.arch.loader
    n = sum(stub_demand(image)) + loader.ftrace
    return n * loader.stub + (loader.slot * n_records if out_of_line else 0)


def wanted_sections(kernel: Image) -> tuple[str, ...]:
    """The sections that this kernel's loader looks for in every module, by name.

    Those of the function tracer came and went; a kernel that wants one has its name among its strings.
    """
    loader = kernel.arch.loader
    data = [content.tobytes() for content in _data(kernel)] if loader.traced else []
    return (*loader.always, *(name for name in loader.traced if any(name.encode() + b"\0" in part for part in data)))


def _data(image: Image) -> Iterator[U8]:
    """The contents of every loaded section that is not code."""
    loaded = image.shdr["sh_flags"] & t.SHF_ALLOC != 0
    return (image.content(sec) for sec in np.flatnonzero(image.has_bytes & ~image.executable & loaded).tolist())


@dataclass(frozen=True)
class Vermagic:
    """The string that a kernel compares with a module's `vermagic=`."""

    text: str

    @property
    def release(self) -> str:
        """What `uname -r` prints."""
        return self.text.partition(" ")[0]

    @property
    def rest(self) -> str:
        """All from the first space on: what is compared where symbols have CRCs."""
        return self.text[len(self.release) :]

    @property
    def modversions(self) -> bool:
        """Whether the kernel compares CRCs."""
        return "modversions" in self.text.split(" ")


# Release, then words of which one at least is always there. Source: include/linux/vermagic.h.
LOOKS_LIKE_MAGIC = re.compile(rb"(?<![ -~])\d+\.\d+[!-~]* (?:[!-~]+ )*?(?:SMP|mod_unload|preempt)(?: [ -~]*)?(?=\0)")
LONGEST_MAGIC = 512


def vermagic(image: Image) -> Vermagic | None:
    """The vermagic of a kernel: the string at its symbol, else the only string of that form; None if unknown."""
    va = image.symbols.value("vermagic")
    pos = -1 if va is None else image.pos_of_va(va)
    if pos >= 0:
        return Vermagic(image.data[pos : pos + LONGEST_MAGIC].tobytes().partition(b"\0")[0].decode("utf-8", "replace"))
    strings = {string for content in _data(image) for string in LOOKS_LIKE_MAGIC.findall(content.data)}
    return Vermagic(strings.pop().decode()) if len(strings) == 1 else None


def signatures_enforced(image: Image) -> bool | None:
    """Whether a kernel refuses unsigned modules by itself (sig_enforce); None where no symbol says.

    A boot parameter or lockdown may enforce them all the same.
    Source: kernel/module/signing.c.
    """
    row = image.symbols.defined("sig_enforce")
    if row is None or int(image.symbols.rows["st_size"][row]) != 1:
        return None
    pos = image.pos_of_va(int(image.symbols.rows["st_value"][row]))
    return bool(image.data[pos : pos + 1].any()) if pos >= 0 else False
