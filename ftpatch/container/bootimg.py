"""Android's boot.img: a header page, the kernel, and what boots with it, each padded to pages.

    header │ kernel │ ramdisk │ second │ recovery DTBO │ DTB          versions 0 to 2; an older one has a DTB third
    header │ kernel │ ramdisk │ signature                             versions 3 and 4
    … zeros … vbmeta … zeros │ AVB footer                             up to the size of the partition

A new kernel moves what is behind it; the file keeps its size where it is as large as its partition.
Source: Android's system/tools/mkbootimg (bootimg.h, mkbootimg.py) and external/avb (libavb/avb_footer.h).
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from ftpatch.container.fields import le32, put32, require, require_inside
from ftpatch.container.layers import NAMES, Layer, Opened, Source
from ftpatch.errors import InputError, PolicyError

KIND = "boot-img"
MAGIC, VENDOR_MAGIC = b"ANDROID!", b"VNDRBOOT"
VERSION_AT, NEW_VERSIONS = 40, (3, 4)
HEADER = 1660  # of version 2, the longest
# where the headers of versions up to 2 have the sizes of their parts, and what else is needed of them
KERNEL, RAMDISK, SECOND, PAGE, ID, DTBO, DTBO_OFFSET, DTB = 8, 16, 24, 36, 576, 1632, 1636, 1648
NEW_KERNEL, NEW_RAMDISK, NEW_SIGNATURE, NEW_PAGE = 8, 12, 1580, 4096  # of versions 3 and 4
PAGES = range(9, 18)  # logarithms of page sizes
FOOTER, FOOTER_MAGIC = 64, b"AVBf"
FOOTER_SIZE, FOOTER_VBMETA = 12, 20  # where a footer has the image's size and the position of vbmeta, big-endian
VOID = "the signature of Android Verified Boot"


class Parts(NamedTuple):
    """What lies where in a boot image."""

    version: int
    page: int  # bytes
    sizes: tuple[int, ...]  # of the parts behind the header, in their order; the kernel is the first
    fields: tuple[int, ...]  # where the header has the sizes

    @property
    def starts(self) -> list[int]:
        """Position of each part, and where the padding of the last ends."""
        starts = [self.page]
        for size in self.sizes:
            starts.append(starts[-1] + size + -size % self.page)
        return starts


def open_boot_image(source: Source) -> Opened | None:
    """The layer, and the kernel in it; None where the data are no boot image."""
    head = source.data.peek(0, HEADER)
    if head.startswith(VENDOR_MAGIC):
        raise InputError("a vendor_boot image has no kernel", source.path, found="device trees and a ramdisk",
                         expected="boot.img", todo="give the boot.img of the same build")  # fmt: skip
    if not head.startswith(MAGIC):
        return None
    require_inside("a header", 0, HEADER, KIND, source)
    parts = _parts(head, source)
    starts, kernel = parts.starts, parts.sizes[0]
    if not kernel:
        raise InputError(f"{NAMES[KIND]} without a kernel", source.path, found="kernel_size 0", expected="boot.img",
                         todo="init_boot.img has a ramdisk alone: give the boot.img of the same build")  # fmt: skip
    for start, size in zip(starts, parts.sizes, strict=False):
        require_inside("a part", start, size, KIND, source)
    layer = Layer(KIND, source.data, lambda content: _remade(source, parts, content), void=VOID)
    return (layer,), source.data.part(starts[0], kernel)


def _parts(head: bytes, source: Source) -> Parts:
    version, old = le32(head, VERSION_AT), 0
    if version in NEW_VERSIONS:
        fields = (NEW_KERNEL, NEW_RAMDISK, NEW_SIGNATURE)[: version - 1]
        return Parts(version, NEW_PAGE, tuple(le32(head, field) for field in fields), fields)
    if version > max(NEW_VERSIONS):  # before there were versions, the size of a DTB stood there
        version, old = 0, VERSION_AT
    page = le32(head, PAGE)
    require(page.bit_count() == 1 and page.bit_length() - 1 in PAGES, KIND, source, found=f"page_size {page}",
            expected="a power of two, 2048 in most")  # fmt: skip
    fields = (KERNEL, RAMDISK, SECOND, *([old] if old else ()), *(DTBO, DTB)[:version])
    return Parts(version, page, tuple(le32(head, field) for field in fields), fields)


def _remade(source: Source, parts: Parts, kernel: bytes) -> bytes:
    """The image around another kernel."""
    raw, starts = source.data.tobytes(), parts.starts
    moved = Parts(parts.version, parts.page, (len(kernel), *parts.sizes[1:]), parts.fields)
    head = bytearray(raw[: parts.page])
    put32(head, parts.fields[0], len(kernel))
    if parts.version not in NEW_VERSIONS:
        if DTBO in parts.fields and int.from_bytes(head[DTBO_OFFSET : DTBO_OFFSET + 8], "little") == starts[3]:
            head[DTBO_OFFSET : DTBO_OFFSET + 8] = moved.starts[3].to_bytes(8, "little")
        contents = [raw[start : start + size] for start, size in zip(starts, parts.sizes, strict=False)]
        if head[ID : ID + 20] == _id(contents):  # what other tools wrote there is left
            head[ID : ID + 20] = _id([kernel, *contents[1:]])
    image = bytes(head) + kernel + bytes(-len(kernel) % parts.page) + raw[starts[1] : starts[-1]]
    return image + _tail(raw[starts[-1] :], len(raw), image, source)


def _id(contents: list[bytes]) -> bytes:
    digest = hashlib.sha1(usedforsecurity=False)
    for content in contents:
        digest.update(content)
        digest.update(len(content).to_bytes(4, "little"))
    return digest.digest()


def _tail(tail: bytes, size: int, image: bytes, source: Source) -> bytes:
    """What stands behind an image in its file, which had `size` bytes with the tail."""
    padding = not tail.strip(b"\0")
    footer = tail[-FOOTER:]
    if not tail or not (padding or footer.startswith(FOOTER_MAGIC)):
        return tail
    vbmeta = size
    if not padding:
        vbmeta = int.from_bytes(footer[FOOTER_VBMETA : FOOTER_VBMETA + 8], "big")
        require(size - len(tail) <= vbmeta <= size - FOOTER, KIND, source, found=f"vbmeta at {vbmeta:#x}",
                expected="a place behind the parts")  # fmt: skip
    if len(image) > vbmeta:
        raise PolicyError(f"{NAMES[KIND]} has no room for the patched kernel", source.path,
                          found=f"{len(image)} bytes", expected=f"at most {vbmeta} in its partition",
                          todo="patch the kernel alone, and make the image anew (mkbootimg)")  # fmt: skip
    if padding:
        return bytes(size - len(image))
    footer = footer[:FOOTER_SIZE] + len(image).to_bytes(8, "big") + footer[FOOTER_SIZE + 8 :]
    return bytes(vbmeta - len(image)) + tail[vbmeta - size : -FOOTER] + footer
