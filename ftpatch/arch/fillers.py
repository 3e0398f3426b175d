"""What assemblers and linkers put between functions, where the next one has to begin at a multiple of something.

A symbol table has the sizes of functions, without it. Where only their beginnings are known, each seems to reach to the
next.
Source: GNU as tc-i386.c, tc-ppc.c, tc-aarch64.c; LLVM's X86AsmBackend.cpp; arch/powerpc/kernel/vmlinux.lds.S.
"""

from __future__ import annotations

from typing import NamedTuple


class Fillers(NamedTuple):
    """What a machine's assemblers and linkers put there."""

    pieces: tuple[bytes, ...] = ()  # one behind the other; longer ones first
    # the NOP that compilers put behind calls, also where a call ends a function, and this does not return
    behind_call: int | None = None


_LONG_NOP = bytes.fromhex("2e0f1f840000000000")
_ZERO = bytes(4)
ARM64 = Fillers((bytes.fromhex("1f2003d5"), _ZERO))  # nop
PPC64LE = Fillers(
    (bytes.fromhex("00000060"), bytes.fromhex("00004260"), _ZERO),  # nop, and ori r2,r2,0, which ends a group
    behind_call=0x60000000,  # the linker makes an ld of it, where the callee has another TOC
)
X86_64 = Fillers((
    *(b"\x66" * n + _LONG_NOP for n in range(7, -1, -1)),
    *map(bytes.fromhex, ("660f1f840000000000", "0f1f840000000000", "0f1f8000000000", "660f1f440000", "0f1f440000",
                         "0f1f4000", "0f1f00", "6690", "90")),
    *(b"\xcc" * n for n in (16, 8, 4, 2)),  # one alone, behind a jump or return, is the function's
))  # fmt: skip
