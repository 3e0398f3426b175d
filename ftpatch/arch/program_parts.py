"""What patching a program of user space needs of a machine: a stub that keeps more than a kernel's, and imports.

A kernel uses no vector registers, and its functions have no static chain. In user space both may hold what a function
is called with, so a stub in front of a function keeps them too. Imported functions are called through the word (slot)
that the dynamic linker fills with their address.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from ftpatch.arch import Arch
from ftpatch.arch.contract import Read
from ftpatch.arch.shape import Word
from ftpatch.arrays import U8, U32, Mask


class HookCall(NamedTuple):
    """What the stub calls."""

    va: int  # of the function; of the slot that holds its address, where it is imported
    slot: bool = False
    # of pads: bytes from where the stub returns to, to the function's entry, which the hook gets in place of a call
    entry: int | None = None


class Programs(NamedTuple):
    """How programs of a machine are patched."""

    # stub(va of the stub, what it calls, whether arguments may be in wide vector registers) → its units of code
    stub: Callable[[int, HookCall, bool], U32]
    reach: int  # bytes from the stub, either way, within which the function must lie
    slot_reach: int  # the same of a slot
    jump_slot: int  # relocation type of a slot that may be filled late, when its function is first called
    glob_dat: int  # of one that is filled before the program starts
    ifunc: int  # of one whose value a function of the program itself returns
    contract: str  # what a target must do, for people
    # keeps_contract(read, va) → why the code is no trampoline for a site of a program; empty where it is
    keeps_contract: Callable[[Read, int], str]
    # kept_registers(read, va) → the registers that the code gives back as they were, as bits of the machine's REGISTERS
    kept_registers: Callable[[Read, int], int]
    # returns_plainly(read, va, whether the register that keeps a return address is kept, too) → why the code is no
    # function that a pad may call and that returns as any other; empty where it is
    returns_plainly: Callable[[Read, int, bool], str] | None = None
    # the same for a call behind a prologue, which finds the caller elsewhere; None: there is no such layout
    deep_stub: Callable[[int, HookCall, bool], U32] | None = None
    # a word behind such a call that loads what a stub of a .plt has saved, and no function does
    reload: Word | None = None
    no_plt: str = ""  # why no site may call a stub of a .plt directly; empty where it may
    # st_other → functions whose callers expect more registers to be kept than usual ones
    variant: Callable[[U8], Mask] | None = None
    # toc(units of a global entry, its va) → the TOC that it sets up; None where it sets up none
    toc: Callable[[U32, int], int | None] | None = None
    # ways_out(units of a function) → whether it may be left, where the machine's own fact of that name does not tell
    ways_out: Callable[[U32], bool] | None = None
    # wide(units of a function's code) → whether it uses registers wider than the stub keeps anyway
    wide: Callable[[U32], bool] | None = None


def programs_of(arch: Arch) -> Programs | None:
    """How programs of the machine are patched; None where that is not known."""
    if not arch.programs:
        return None
    programs: Programs = import_module(arch.programs).PROGRAMS
    return programs
