"""Signatures for Secure Boot: a table of certificates behind a kernel that is a PE file, too.

    PE file as it was built │ up to 7 zeros │ certificates          its header has their place, and a checksum

The content is the file before it was signed: the fields that signing tools fill in are zero, as in kernel builds.
Source: Microsoft's PE Format, The Attribute Certificate Table; sbsigntool 0.9.4.
"""

from __future__ import annotations

from typing import NamedTuple

from ftpatch.container.fields import le32, put32, require, require_inside
from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.layers import Layer, Opened, Source

KIND = "pe-signature"
PE_AT = 0x3C  # where a DOS header has the position of the PE header
SIGNATURE = b"PE\0\0"
OPTIONAL = 24  # the optional header's place in the PE header
CHECKSUM = 64  # in the optional header, as the next
DIRECTORIES = {b"\x0b\x02": 112, b"\x0b\x01": 96}  # by its magic: PE32+, PE32
CERTIFICATES = 4  # number of the directory
ENTRY = 8  # bytes of a directory's entry: position in the file, size
HEADERS = 4096  # bytes of a file that are looked at


class Fields(NamedTuple):
    """Positions of what signing changes."""

    checksum: int
    certificates: int  # the directory's entry


def fields_of(head: bytes) -> Fields | None:
    """Where a PE file with these first bytes has its fields; None where it is none, or has no such directory."""
    if head[:2] != b"MZ" or len(head) < PE_AT + 4:
        return None
    start = le32(head, PE_AT)
    optional = start + OPTIONAL
    first = DIRECTORIES.get(head[optional : optional + 2])
    if head[start : start + 4] != SIGNATURE or first is None:
        return None
    entry = optional + first + CERTIFICATES * ENTRY
    if entry + ENTRY > len(head) or le32(head, optional + first - 4) <= CERTIFICATES:
        return None
    return Fields(optional + CHECKSUM, entry)


VOID = "its signature for Secure Boot, which is left out"


def open_signed(source: Source) -> Opened | None:
    """The layer of a signed file, and the file as it was before; None where it is not signed."""
    head = source.data.peek(0, HEADERS)
    fields = fields_of(head)
    if fields is None:
        return None
    start, size = le32(head, fields.certificates), le32(head, fields.certificates + 4)
    if not start and not size:
        return None
    require_inside("certificates", start, size, KIND, source)
    require(start > fields.certificates and start + size == len(source.data), KIND, source,
            found=f"certificates up to {start + size:#x}", expected=f"{len(source.data):#x}, the end")  # fmt: skip
    plain = bytearray(source.data[:start].tobytes())
    put32(plain, fields.checksum, 0)
    plain[fields.certificates : fields.certificates + ENTRY] = bytes(ENTRY)
    layer = Layer(KIND, source.data, lambda content: content, void=VOID, leaves=True)
    return (layer,), FileBytes.of(plain)
