"""What the code of small kernels looks like, by machine."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What the code of a machine looks like."""

    e_machine: int
    link: int
    site: bytes
    plain: bytes  # how a function begins that has no site
    filling: bytes
    ret: bytes
    global_entry: bytes  # in front of the local one
    relative: int


def _words(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


NOP_ARM, NOP_PPC = 0xD503201F, 0x60000000
MACHINES = {
    "arm64": Machine(183, 0xFFFF_8000_8000_0000, _words(NOP_ARM, NOP_ARM), _words(0xD10043FF, 0xF90007E0),
                     _words(0x91000421), _words(0xD65F03C0), b"", 1027),
    "x86_64": Machine(62, 0xFFFF_FFFF_8100_0000, bytes.fromhex("0f1f440000"), bytes.fromhex("55534889fb"), b"\x90",
                      b"\xc3", b"", 8),
    "ppc64le": Machine(21, 0xC000_0000_0000_0000, _words(NOP_PPC, NOP_PPC), _words(0x7C0802A6, 0xF8010010),
                       _words(0x38630001), _words(0x4E800020), _words(0x3C4C0004, 0x38420000), 22),
}  # fmt: skip
