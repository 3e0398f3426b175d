"""Whether one function may take another's place: their signatures, and where their arguments travel."""

from __future__ import annotations

from typing import NamedTuple

from ftpatch.elf.c_types import NotKnown
from ftpatch.elf.function_types import FunctionTypes


class Comparison(NamedTuple):
    """Of the signatures of two functions; both empty where they agree."""

    different: str = ""  # how they differ, as an error says it: "parameter 2: struct sk_buff *, but int"
    warning: str = ""  # why they could not be compared, or in what they differ that calls do not depend on
    source: str = ""  # what told: "DWARF", "BTF", "DWARF and BTF", "kCFI"; empty where nothing did


def compare_signatures(foo: FunctionTypes, foo_row: int, bar: FunctionTypes, bar_row: int) -> Comparison:
    """How the signature of BAR, which takes the place of FOO, differs from FOO's; two rows of their images' symbols.

    foo and bar may be the same file, a module and its kernel, or a module and an object that is linked to it.
    """
    return Comparison(warning=f"the signatures of {foo.image.symbols.name(foo_row)} and "
                              f"{bar.image.symbols.name(bar_row)} could not be compared: not read yet")  # fmt: skip


def why_not_in_registers(types: FunctionTypes, row: int) -> str | None:
    """Which argument of the function does not travel in a register, or that it is variadic; empty where all do, and on
    machines where that makes no difference (arch.register_arguments is None); None where it is not known."""
    prototype = types.prototype(row)
    return None if isinstance(prototype, NotKnown) else ""
