"""What assemblers and linkers put between functions, where the next one has to begin at a multiple of something.

A symbol table has the sizes of functions, without it. Where only their beginnings are known, each seems to reach to the
next.
Source: GNU as tc-i386.c, tc-ppc.c, tc-aarch64.c; LLVM's X86AsmBackend.cpp; arch/powerpc/kernel/vmlinux.lds.S.
"""

from __future__ import annotations

from collections.abc import Mapping

from ftpatch.arch import Arch

_LONG_NOP = bytes.fromhex("2e0f1f840000000000")
_X86_64 = (
    *(b"\x66" * n + _LONG_NOP for n in range(7, -1, -1)),
    *map(bytes.fromhex, ("660f1f840000000000", "0f1f840000000000", "0f1f8000000000", "660f1f440000", "0f1f440000",
                         "0f1f4000", "0f1f00", "6690", "90")),
    *(b"\xcc" * n for n in (16, 8, 4, 2)),  # one alone, behind a jump or return, is the function's
)  # fmt: skip
_ZERO = bytes(4)
_OF: Mapping[str, tuple[bytes, ...]] = {
    "arm64": (bytes.fromhex("1f2003d5"), _ZERO),  # nop
    "ppc64le": (
        bytes.fromhex("00000060"),
        bytes.fromhex("00004260"),
        _ZERO,
    ),  # nop, and ori r2,r2,0, which ends a group
    "x86_64": _X86_64,
}
_BEHIND_CALLS = {"ppc64le": 0x60000000}  # the linker makes an ld of it, where the callee has another TOC


def nop_behind_call(arch: Arch) -> int | None:
    """The NOP that compilers put behind calls, also where a call ends a function, and this does not return."""
    return _BEHIND_CALLS.get(arch.name)


def fillers_of(arch: Arch) -> tuple[bytes, ...]:
    """The pieces of code that such a space is filled with, one behind the other; longer ones first."""
    return _OF.get(arch.name, ())
