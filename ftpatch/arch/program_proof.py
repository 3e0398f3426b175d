"""How the proof reads the stub by which sites of a program call a C function: what every machine's reader answers.

A stub is straight code, from its first instruction to the one that returns to the patched function. It is followed with
symbols for values, by tables that are the proof's own, and must leave every register as it found it that a function may
be called with or has to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import NamedTuple

from ftpatch.arch import Arch

Value = tuple[str, int]  # what a register or a word of the stack holds, as each machine's reader spells it
UNKNOWN: Value = ("?", 0)
MOST, LONGEST = 256, 4096  # instructions of a stub, and bytes


class StubCall(NamedTuple):
    """What a stub calls."""

    va: int  # of the function; of the slot from which its address is loaded, where it is imported
    slot: bool


class StubRead(NamedTuple):
    """What a reader makes of the code at an address."""

    size: int = 0  # bytes up to the end of the instruction that returns
    call: StubCall | None = None
    why: str = ""  # why it is no such stub, or does not keep what it must; empty where it is one
    wide: int = 0  # bytes of each vector register that it keeps
    deep: bool = False  # whether it is for calls behind the prologue of a function, which -pg makes
    # bytes from where it returns to, to the first argument of what it calls; None for the address of the site's call
    first: int | None = None


class NoStub(Exception):
    """Why code is no stub of a program's."""


class ProgramProof(NamedTuple):
    """What the proof knows of the programs of a machine."""

    # read(code from the stub's first byte on, its va) → what it is
    read: Callable[[bytes, int], StubRead]
    slots: tuple[int, ...]  # relocation types that fill a slot with the address of an imported function
    # st_other of a function → why its sites may not call a C function, and it must not be called as one; or nothing
    other_calls: Callable[[int], str]


READERS: Mapping[str, str] = {
    "arm64": "arm64_program_proof", "ppc64le": "ppc64le_program_proof", "x86_64": "x86_64_program_proof",
}  # fmt: skip


def program_proof(arch: Arch) -> ProgramProof | None:
    """That of a machine; None where programs of it are not patched."""
    if arch.name not in READERS:
        return None
    proof: ProgramProof = import_module(f"ftpatch.arch.{READERS[arch.name]}").PROGRAMS
    return proof
