"""A kernel in an ELF file whose section headers were cut off: its segments say what is loaded where."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Rows
from ftpatch.container.envelope import Contents
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.elf.headers import kernel_segments
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError
from ftpatch.recovered.kernel import kernel_image
from ftpatch.recovered.memory import Memory


def headerless_image(path: str, file: Contents) -> Image | None:
    """The image of such a kernel; None where the file has section headers, or is no kernel.

    Raises ElfError where its segments contradict the file, ArchError for machines that are not known.
    """
    headers = kernel_segments(file.data)
    if headers is None:
        return None
    _, phdr = headers
    loads = phdr[(phdr["p_type"] == t.PT_LOAD) & (phdr["p_filesz"] > 0)]
    loads = loads[np.argsort(loads["p_vaddr"], kind="stable")]
    _require_sound(path, file.data, loads)
    va, pos, size = (loads[field] for field in ("p_vaddr", "p_offset", "p_filesz"))
    memory = Memory(file.data, va.astype(np.uint64), pos.astype(np.int64), size.astype(np.int64))
    return kernel_image(path, file, memory, headers)


def _require_sound(path: str, data: FileBytes, loads: Rows) -> None:
    """ElfError where segments lie outside the file, or over each other."""
    for load in loads:
        t.require_inside(data, int(load["p_offset"]), int(load["p_filesz"]), f"{path}: a segment")
    ends = loads["p_vaddr"] + loads["p_filesz"]
    over = (ends[:-1] > loads["p_vaddr"][1:]) | (ends < loads["p_vaddr"])[:-1]
    if over.any():
        at = int(np.argmax(over))
        raise ElfError("segments overlap in memory", path, found=f"{int(loads['p_vaddr'][at]):#x} + "
                       f"{int(loads['p_filesz'][at]):#x} and {int(loads['p_vaddr'][at + 1]):#x}")  # fmt: skip
