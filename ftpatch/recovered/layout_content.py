"""Tables that tell themselves by what is in them, where no symbol bounds them: notes, and type information.

notes   each has a length of its name, one of its content and a type in front; the kernel's begin with the build-id, or
        are around it
BTF     begins with a magic and the lengths of its two parts
Source: include/uapi/linux/btf.h struct btf_header; include/linux/elfnote.h.
"""

from __future__ import annotations

import struct

from ftpatch.container.file_bytes import ELF_MAGIC
from ftpatch.elf import tables as t
from ftpatch.recovered.memory import Memory

NOTE, NOTE_SIZE = struct.Struct("<3I"), 12
BUILD_ID = NOTE.pack(4, 20, 3) + b"GNU\0"
FILES, MAX_FILE = 4, 1 << 20  # ELF files in a kernel that are looked at, and their bytes
# EI_CLASS → e_shoff, e_ehsize, e_shentsize, e_shnum of its header
ELF_FORMS = {1: struct.Struct("<32xI4xH4x2H2x"), 2: struct.Struct("<40xQ4xH4x2H2x")}
MAX_HEADER = 64
MAX_NAME, MAX_CONTENT, MAX_NOTES = 32, 4096, 64
BTF = struct.Struct("<HBBI4I")  # magic, version, flags, length of the header, offset and length of types and of strings
BTF_START = struct.pack("<HBBI", 0xEB9F, 1, 0, 24)


def table_of(memory: Memory, name: str) -> tuple[int, int] | None:
    """File positions [start, end) of a table of that name; None where there is none, or it is not the only one."""
    start, length = KNOWN[name]
    tables = []
    for pos, size in zip(memory.pos.tolist(), memory.size.tolist(), strict=True):
        octets = memory.data.peek(pos, pos + size)
        for at in t.places_of(start, octets):
            n = length(octets, at)
            if n and not _in_elf(octets, at):  # a vDSO has notes of its own
                tables.append((pos + at, pos + at + n))
    return tables[0] if len(tables) == 1 else None


def _in_elf(octets: bytes, at: int) -> bool:
    """Whether a place is within an ELF file that the kernel carries, by where its section headers are."""
    for _ in range(FILES):
        start = octets.rfind(ELF_MAGIC, max(at - MAX_FILE, 0), at)
        if start < 0 or start + MAX_HEADER > len(octets):
            return False
        form = ELF_FORMS.get(octets[start + len(ELF_MAGIC)])
        if form is not None:
            shoff, ehsize, shentsize, shnum = form.unpack_from(octets, start)
            if ehsize == form.size and at < start + shoff + shentsize * shnum:
                return True
        at = start
    return False


def _notes(octets: bytes, at: int) -> int:
    """Bytes of the notes from a place on."""
    start = at
    for _ in range(MAX_NOTES):
        if at + NOTE_SIZE > len(octets):
            break
        namesz, descsz, _ = NOTE.unpack_from(octets, at)
        name = octets[at + NOTE_SIZE : at + NOTE_SIZE + namesz]
        if not 1 < namesz <= MAX_NAME or descsz > MAX_CONTENT or name[-1:] != b"\0" or not name[:-1].isalnum():
            break
        at += NOTE_SIZE + (namesz + 3 & ~3) + (descsz + 3 & ~3)
    return min(at, len(octets)) - start


def _btf(octets: bytes, at: int) -> int:
    """Bytes of type information from a place on; 0 where its parts contradict each other or the file."""
    if at + BTF.size > len(octets):
        return 0
    *_, header, type_off, type_len, str_off, str_len = BTF.unpack_from(octets, at)
    strings = at + header + str_off
    sound = type_len > 0 and str_off >= type_off + type_len and strings + str_len <= len(octets)
    return strings + str_len - at if sound and octets[strings : strings + 1] == b"\0" else 0


KNOWN = {".notes": (BUILD_ID, _notes), ".BTF": (BTF_START, _btf)}
