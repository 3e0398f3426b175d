"""Section groups (COMDAT): a linker keeps or drops all members of one together, so that records belong to that of their
code."""

from __future__ import annotations

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError

WORD = 4  # bytes of the flags, and of each member's section number behind them


def read_groups(image: Image) -> dict[int, int]:
    """Section of each member → the section that is its group. Raises ElfError where groups contradict the file."""
    groups: dict[int, int] = {}
    n, flags = len(image.shdr), image.shdr["sh_flags"]
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_GROUP).tolist():
        where = f"{image.path}: section {sec} {image.names[sec]}"
        content = image.content(sec)
        if len(content) % WORD or len(content) < WORD:
            raise ElfError("the group is no list of section numbers", where, found=f"{len(content)} bytes",
                           expected="the flags and 4 bytes a member")  # fmt: skip
        for member in content[WORD:].view("<u4").tolist():
            if not 0 < member < n or member == sec:
                raise ElfError("the group names no section of the file", where, found=f"section {member}",
                               expected=f"one below {n}")  # fmt: skip
            if member in groups:
                raise ElfError("a section is in two groups", where, found=f"section {member} {image.names[member]}",
                               expected="one group at most")  # fmt: skip
            groups[member] = sec
    lost = np.flatnonzero(flags & np.uint64(t.SHF_GROUP) != 0)
    for sec in [sec for sec in lost.tolist() if sec not in groups][:1]:
        raise ElfError("a section is of a group that no group section lists", image.path,
                       found=f"section {sec} {image.names[sec]} with SHF_GROUP",
                       expected="a group with it")  # fmt: skip
    return groups
