"""What a file tells of its functions' types: the prototype of each, and where the compiler put inlined copies.

    symbol ─ DWARF: the subprogram at its address ──┐
           └ BTF: the function of its name ─────────┴─> Prototype, else why it is not known

DWARF is asked first, because it goes by address. BTF goes by name, so that it is believed only where the file has one
function of that name. That of a module goes on from its kernel's, or brings what it needs in `.BTF.base`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ftpatch.elf.c_types import NotKnown, Prototype
from ftpatch.elf.image import Image


class InlinedCopies(NamedTuple):
    """Where a function's code stands a second time, without a call."""

    functions: tuple[str, ...] = ()  # names of the functions that hold copies, ascending
    n_copies: int = 0
    why_not_known: str = ""  # empty where the file tells


@dataclass(frozen=True, eq=False, repr=False)
class FunctionTypes:
    """The types of the functions of one file. Made once for a file: what it has read is kept."""

    image: Image
    kernel: Image | None = None  # the vmlinux of a module, from whose .BTF that of the module goes on

    def prototype(self, row: int) -> Prototype | NotKnown:
        """The prototype of the function of a row of `image.symbols`."""
        return NotKnown("neither DWARF nor BTF is read yet")

    def inlined(self, row: int) -> InlinedCopies:
        """The functions into which the compiler inlined the function of a row of `image.symbols`."""
        return InlinedCopies(why_not_known="DWARF is not read yet")
