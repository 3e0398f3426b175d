"""U-Boot's uImage: a header of 64 bytes with two checksums, then the kernel. Source: U-Boot's include/image.h."""

from __future__ import annotations

import struct
import zlib

from ftpatch.container.fields import require, require_inside
from ftpatch.container.layers import NAMES, Layer, Opened, Source
from ftpatch.errors import InputError

KIND = "uimage"
MAGIC = b"\x27\x05\x19\x56"
HEADER = struct.Struct(">4s6I4B32s")  # magic, header's CRC32, time, size, load, entry, data's CRC32, os, arch, type, …
TYPE, CRC_AT = 9, 4
KERNELS = (2, 14)  # types: a kernel, and one that runs where it is loaded


def open_uimage(source: Source) -> Opened | None:
    """The layer, and the kernel in it; None where the data are no uImage."""
    head = source.data.peek(0, HEADER.size)
    if head[:4] != MAGIC:
        return None
    require_inside("a header", 0, HEADER.size, KIND, source)
    fields = list(HEADER.unpack(head))
    crc, size, data_crc = fields[1], fields[3], fields[6]
    found = zlib.crc32(head[:CRC_AT] + bytes(4) + head[CRC_AT + 4 :])
    require(found == crc, KIND, source, found=f"CRC32 {found:#010x} of the header", expected=f"{crc:#010x}")
    if fields[TYPE] not in KERNELS:
        raise InputError(f"{NAMES[KIND]} without a kernel alone in it", source.path, found=f"type {fields[TYPE]}",
                         expected="2 (kernel)", todo="take the kernel out (dumpimage)")  # fmt: skip
    require_inside("a kernel", HEADER.size, size, KIND, source)
    content, behind = source.data.part(HEADER.size, size), source.data[HEADER.size + size :].tobytes()
    found = zlib.crc32(content[:].data)
    require(found == data_crc, KIND, source, found=f"CRC32 {found:#010x} of the kernel", expected=f"{data_crc:#010x}")

    def repack(new: bytes) -> bytes:
        made = [*fields]
        made[1], made[3], made[6] = 0, len(new), zlib.crc32(new)
        made[1] = zlib.crc32(HEADER.pack(*made))
        return HEADER.pack(*made) + new + behind

    return (Layer(KIND, source.data, repack),), content
