"""`ftpatch image`: what a boot loader takes, made from a vmlinux.

arm64 boots a flat copy of the loaded sections, as `objcopy -O binary -R .note -R .note.gnu.build-id -R .comment -S`
makes it in arch/arm64/boot/Makefile: every section with contents at its load address, gaps zero, from the lowest.
"""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.tables import U64
from ftpatch.errors import ElfError, PolicyError

REMOVED = (".note", ".note.gnu.build-id", ".comment")
MAGIC_AT, MAGIC = 56, b"ARM\x64"  # Documentation/arch/arm64/booting.rst


def boot_image(image: Image) -> list[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]]:
    """The pieces of a flat boot image: (position in it, bytes), ascending. Gaps between them are zero.

    Raises PolicyError where the file is no kernel, ElfError where sections would overlap in the image or lie absurdly
    far apart.
    """
    head = image.shdr
    loaded = (head["sh_flags"] & t.SHF_ALLOC != 0) & image.has_bytes & (head["sh_size"] > 0)
    secs = [sec for sec in np.flatnonzero(loaded).tolist() if image.names[sec] not in REMOVED]
    if not secs or image.kind != "vmlinux":
        raise PolicyError(
            "no boot image can be made of this file", image.path, found=f"a {image.kind}", expected="a vmlinux"
        )
    lma = load_addresses(image)
    secs.sort(key=lambda sec: int(lma[sec]))
    first = int(lma[secs[0]])
    pieces = [(int(lma[sec]) - first, image.content(sec)) for sec in secs]
    for (pos, piece), (after, _) in pairwise(pieces):
        if pos + len(piece) > after:
            raise ElfError("sections overlap in the boot image", image.path, found=f"at {after:#x}")
    if pieces[-1][0] > 4 * len(image.data):
        raise ElfError("sections lie too far apart for a boot image", image.path, found=f"{pieces[-1][0]:#x} bytes")
    if pieces[0][1][MAGIC_AT : MAGIC_AT + 4].tobytes() != MAGIC:
        raise PolicyError("the first section is no arm64 boot header", image.path, found=image.names[secs[0]],
                          expected="the magic ARM\\x64 at byte 56")  # fmt: skip
    return pieces


def load_addresses(image: Image) -> U64:
    """Physical load address of every section: by the segment that holds it, else its own address."""
    lma = image.shdr["sh_addr"].copy()
    for row in image.phdr[image.phdr["p_type"] == t.PT_LOAD]:
        inside = (image.shdr["sh_addr"] >= row["p_vaddr"]) & (image.shdr["sh_addr"] - row["p_vaddr"] < row["p_memsz"])
        lma[inside] = image.shdr["sh_addr"][inside] - row["p_vaddr"] + row["p_paddr"]
    result: U64 = lma
    return result


def write_pieces(fd: int, pieces: list[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]]) -> int:
    """Write the pieces into an empty descriptor; the image's size."""
    for pos, piece in pieces:
        view = np.ascontiguousarray(piece).data
        while len(view):
            n = os.pwrite(fd, view, pos)
            view, pos = view[n:], pos + n
    return pieces[-1][0] + len(pieces[-1][1])
