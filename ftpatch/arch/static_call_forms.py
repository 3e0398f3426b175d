"""The forms of a machine's static calls: sites, trampolines, and how keys are passed to the function that sets them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ftpatch.arch.shape import Branch, Word
from ftpatch.arrays import U32, U64


class LiteralLoad(NamedTuple):
    """Code that reads where it goes from eight bytes of memory."""

    address: Callable[[U32, U64], U64]  # units of such codes, their addresses → address of what each reads
    relocated_at: int  # byte offset of the instruction whose relocation names the memory


class StaticCallForm(NamedTuple):
    """One instruction that may stand at a site of a static call, or one body that a trampoline may have."""

    # of a site: call, tail (a jump), conditional (a jump), nop (a call of NULL), return0, return (a jump to NULL);
    # of a trampoline: jump, null, return0
    kind: str
    code: tuple[Word, ...]  # all its units
    branch: Branch | None = None  # the branch that begins it; None where it goes nowhere
    literal: LiteralLoad | None = None  # where it goes instead: to what a pointer in memory holds


class AddressLoad(NamedTuple):
    """An instruction that loads a constant address into the register of a function's first argument."""

    code: bytes  # its first bytes; the last four hold the address
    size: int  # bytes of the instruction
    relative: bool  # the address counts from the instruction's end; else it is the field itself, sign-extended


class StaticCalls(NamedTuple):
    """How a machine's static calls are encoded.

    Entry of a site: {s32 site, s32 key}, each relative to its own field; the key's low bits are flags.
    Source: include/linux/static_call_types.h, include/linux/static_call.h.
    """

    sites: tuple[StaticCallForm, ...]
    trampolines: tuple[StaticCallForm, ...]
    size: int  # bytes of a trampoline's code
    signature: tuple[Word, ...] = ()  # the units by which the kernel knows a trampoline
    signature_at: int = 0  # byte offset of those
    # symbols of the functions that trampolines without a function go to
    return0: str = "__static_call_return0"
    thunk: str = ""
    # whether kernels list their sites and rewrite them; else sites are plain branches to the trampoline
    inline: bool = True
    direct_branches: tuple[int, ...] = ()  # relocation types of those branches, where nobody lists them
    distance: int = 0  # relocation type of a 32-bit distance, as entries have it
    first_argument: tuple[AddressLoad, ...] = ()  # what may pass a key to the function that sets it
    register_jumps: str = ""  # how the symbols of code begin that goes on to where a register says, and is no function
    null: bytes = b""  # the code of a trampoline that returns at once, as the kernel writes it
    # symbols around the table of code that goes to `thunk` and that the kernel rewrites at boot; its section in modules
    return_sites: tuple[str, str, str] = ("", "", "")
