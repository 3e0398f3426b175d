"""Flat kernels without symbols, made of the small kernels in testdata: their boot image with kallsyms behind it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from kallsymswriter import BANNER, FORMS, Form, Symbol, tables

from ftpatch.elf import tables as t
from ftpatch.recovered.image import open_image
from ftpatch.write import bootimage

ROOM = 256  # bytes in front of the tables: the banner
STRINGS = 256


def flat_kernel(vmlinux: Path, form: Form = FORMS["6.4"], data: bool = True, built: Path | None = None) -> bytes:
    """The boot image of a kernel. data: whether its kallsyms have symbols of data, too (CONFIG_KALLSYMS_ALL);
    built: the kernel whose symbols they are, where it was patched since."""
    image = open_image(str(vmlinux))
    pieces = bootimage.boot_image(image)
    base = int(image.shdr["sh_addr"][np.flatnonzero(image.shdr["sh_flags"] & t.SHF_ALLOC)].min())
    size = pieces[-1][0] + len(pieces[-1][1])
    flat = bytearray(size + (-size % 4096))
    for pos, piece in pieces:
        flat[pos : pos + len(piece)] = piece.tobytes()
    # pointers to strings, as many as tell where a kernel is linked to
    texts = [f"text number {number}".encode() + b"\0" for number in range(STRINGS)]
    at = base + len(flat)
    starts = [at + sum(map(len, texts[:number])) for number in range(STRINGS)]
    flat += b"".join(texts).ljust(STRINGS * 24, b"\0")
    flat += struct.pack(f"<{STRINGS}Q", *starts)
    banner = base + len(flat)
    flat += BANNER.ljust(ROOM, b"\0")
    symbols = sorted(
        {*_symbols(built or vmlinux, data), ("R", "linux_banner", banner)}, key=lambda one: (one[2], one[1])
    )
    written = tables(symbols, form, base + len(flat))
    flat += written.octets
    flat += bytes(-len(flat) % 4096)
    flat[16:24] = len(flat).to_bytes(8, "little")  # image_size
    return bytes(flat)


def _symbols(vmlinux: Path, data: bool) -> list[Symbol]:
    """What kallsyms would have of a vmlinux."""
    image = open_image(str(vmlinux))
    symbols, found = image.own_symbols, []
    for row in np.flatnonzero(symbols.shndx > 0).tolist():
        name, sec = symbols.name(row), int(symbols.shndx[row])
        if not name or name.startswith("$") or symbols.type[row] in (t.STT_SECTION, t.STT_FILE):
            continue
        if not int(image.shdr["sh_flags"][sec]) & t.SHF_ALLOC:
            continue
        letter = "t" if image.executable[sec] else "d"
        if letter == "d" and not data:
            continue
        letter = "w" if symbols.bind[row] == t.STB_WEAK else letter
        local = symbols.bind[row] == t.STB_LOCAL
        found.append((letter if local else letter.upper(), name, int(symbols.rows["st_value"][row])))
    return found
