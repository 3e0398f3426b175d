"""What a file tells of its functions' types: the prototype of each, and where the compiler put inlined copies.

    symbol ─ DWARF: the subprogram at its address ──┐
           └ BTF: the function of its name ─────────┴─> Prototype, else why it is not known

DWARF is asked first, because it goes by address. BTF goes by name, so that it is believed only where the file has one
function of that name. That of a module goes on from its kernel's, or brings what it needs in `.BTF.base`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.btf import FUNC, Btf, read_btf
from ftpatch.elf.btf_prototypes import btf_prototype, rows_by_name
from ftpatch.elf.c_types import NotKnown, Prototype
from ftpatch.elf.clone_names import other_parameters
from ftpatch.elf.debug_entries import DAMAGE, DebugSections
from ftpatch.elf.debug_names import MAX_REFERENCES, references_to, strings_at
from ftpatch.elf.debug_prototypes import DebugFunctions
from ftpatch.elf.image import Image
from ftpatch.errors import ChangedError, ElfError

MAX_ALIASES = 64  # names of one function that are looked at; sys_ni_syscall has 48
MAX_ASKED = 16  # functions of a module that are looked for to tell whose types it goes on from
FEW = 64  # functions whose names are searched for one by one
SHORTEST = 4  # bytes that a function without a size has at least
STRINGS = (".debug_str", ".zdebug_str")
DWARF, BTF, BASE = (".debug_info", ".debug_abbrev"), ".BTF", ".BTF.base"
THIN_LTO = b".llvm."  # in names of static functions that clang's link-time optimisation took to other files
OTHER_FILES = "link-time optimisation may have put more of them into other files"
NO_KERNEL = "its BTF goes on from that of a kernel that is not given (--against)"
OTHER_KERNEL = "its BTF goes on from that of another kernel than the one given (--against)"


class InlinedCopies(NamedTuple):
    """Where a function's code stands a second time, without a call."""

    functions: tuple[str, ...] = ()  # names of the functions that hold copies, ascending
    n_copies: int = 0
    why_not_known: str = ""  # why there may be others; empty where the file tells


@dataclass(frozen=True, eq=False, repr=False)
class FunctionTypes:
    """The types of the functions of one file. Made once for a file: what it has read is kept."""

    image: Image
    kernel: Image | None = None  # the vmlinux of a module, from whose .BTF that of the module goes on

    def prototype(self, row: int) -> Prototype | NotKnown:
        """The prototype of the function of a row of `image.symbols`, as callers of it were compiled."""
        if row not in self._prototypes:
            self._prototypes[row] = self._ask(row)
        return self._prototypes[row]

    @cached_property
    def _prototypes(self) -> dict[int, Prototype | NotKnown]:
        """Those that were asked for, by row."""
        return {}

    def _ask(self, row: int) -> Prototype | NotKnown:
        name = self.image.symbols.name(row)
        if made := other_parameters(name):
            return NotKnown(f"the compiler made it {made}")
        told = self._by_dwarf(name, row)
        if isinstance(told, Prototype) or told.sure or not self._btf_section:
            return told
        by_name = self._by_btf(name, row)
        return by_name if isinstance(by_name, Prototype) or not self._has_dwarf else told

    def inlined(self, row: int) -> InlinedCopies:
        """The functions into which the compiler inlined the function of a row of `image.symbols`."""
        if not self._has_dwarf:
            return InlinedCopies(why_not_known="the file has no DWARF")
        try:
            found = self._dwarf.find(self.image.symbols.name(row), *self._extent(row))
            if isinstance(found, NotKnown):
                return InlinedCopies(why_not_known=found.why)
            other = OTHER_FILES if THIN_LTO in self.image.symbols.strtab else ""
            return InlinedCopies(*self._dwarf.inlined(found), other)
        except ChangedError:
            raise
        except DAMAGE as error:
            return InlinedCopies(why_not_known=f"its DWARF cannot be read ({error})")

    def aliases(self, row: int) -> list[str]:
        """Other names of a function, which are functions at its address: a system call has several."""
        functions = self.image.functions
        low, high = functions.at(np.array([self._extent(row)[0]], dtype=np.uint64))
        rows = functions.row[int(low[0]) : int(high[0])][:MAX_ALIASES].tolist()
        return [self.image.symbols.name(other) for other in rows if other != row]

    def _extent(self, row: int) -> tuple[int, int]:
        """[va, end) of a symbol."""
        image, rows = self.image, self.image.symbols.rows
        sec = int(image.symbols.shndx[row])
        base = 0 if image.linked or not 0 < sec < len(image.base) else int(image.base[sec])
        va = base + int(rows["st_value"][row])
        return va, va + max(int(rows["st_size"][row]), SHORTEST)

    # -- DWARF -------------------------------------------------------------------------------------------------------

    @cached_property
    def _has_dwarf(self) -> bool:
        return all(self.image.sections_named(name, f".z{name[1:]}") for name in DWARF)

    @cached_property
    def _dwarf(self) -> DebugFunctions:
        return DebugFunctions(DebugSections(self.image))

    def _by_dwarf(self, name: str, row: int) -> Prototype | NotKnown:
        if not self._has_dwarf:
            return NotKnown("the file has neither DWARF nor BTF")
        try:
            return self._dwarf.prototype(name, *self._extent(row))
        except ChangedError:  # says nothing of the debug information
            raise
        except DAMAGE as error:
            return NotKnown(f"its DWARF cannot be read ({error})")

    def declared(self, names: Sequence[str]) -> dict[str, Prototype]:
        """The prototypes of functions by how source files declare them, of those names that DWARF has with one: also
        of functions that are no functions in C, such as the trampolines of static calls. One search serves all."""
        if not self._has_dwarf or not self.image.sections_named(*STRINGS):
            return {}
        try:
            return _declared(self._dwarf, names)
        except ChangedError:
            raise
        except DAMAGE:
            return {}

    # -- BTF ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _btf_section(self) -> bool:
        return bool(self.image.sections_named(BTF))

    @cached_property
    def _btf(self) -> Btf | NotKnown:
        try:
            return _read(self.image, self.kernel)
        except ElfError as error:
            return NotKnown(f"its BTF cannot be read ({error})")

    def _by_btf(self, name: str, row: int) -> Prototype | NotKnown:
        """By the name of the function, else by the other names that it has at its address."""
        if isinstance(self._btf, NotKnown):
            return self._btf
        try:
            answers = [self._named(self._btf, other) for other in (name, *self.aliases(row))]
        except ElfError as error:
            return NotKnown(f"its BTF cannot be read ({error})")
        return next((answer for answer in answers if isinstance(answer, Prototype)), answers[0])

    def _named(self, types: Btf, name: str) -> Prototype | NotKnown:
        symbols = self.image.symbols
        rows = symbols.rows_named(name)
        rows = rows[(symbols.shndx[rows] > 0) & (symbols.type[rows] != t.STT_FILE)]
        places = set(zip(symbols.shndx[rows].tolist(), symbols.rows["st_value"][rows].tolist(), strict=True))
        if len(places) > 1:
            return NotKnown(f"{len(places)} functions of the file have that name, and BTF goes by names")
        return btf_prototype(types, name, self._btf_names if len(self._prototypes) > FEW else None)

    @cached_property
    def _btf_names(self) -> dict[str, list[int]]:
        return {} if isinstance(self._btf, NotKnown) else rows_by_name(self._btf)


def _declared(dwarf: DebugFunctions, names: Sequence[str]) -> dict[str, Prototype]:
    info, strings = dwarf.debug.section(".debug_info"), dwarf.debug.section(".debug_str")
    found: dict[str, Prototype] = {}
    wanted = strings_at(strings, names)
    hits = {pos: wanted[int.from_bytes(info.peek(pos, pos + 4), "little")]
            for pos in sorted(islice(references_to(info, list(wanted)), MAX_REFERENCES))}  # fmt: skip
    end = 0
    for pos, name in hits.items():
        if pos < end or name in found:
            continue
        unit = dwarf.unit_at(pos)
        end = unit.end
        found |= dict(dwarf.declared(unit, hits))
    return found


def _read(image: Image, kernel: Image | None) -> Btf | NotKnown:
    """The types of a file; ElfError where they contradict themselves."""
    base = None
    if image.sections_named(BASE):
        base = read_btf(image, section=BASE)
    elif image.kind == "module":
        base = read_btf(kernel) if kernel is not None else None
        if base is None:
            return NotKnown(NO_KERNEL if kernel is None else "the kernel that is given (--against) has no BTF")
    types = read_btf(image, base)
    if types is None:
        return NotKnown("the file has no BTF")
    return types if base is None or _goes_on(image, types) else NotKnown(OTHER_KERNEL)


def _goes_on(image: Image, types: Btf) -> bool:
    """Whether a file's types go on from the base that they were given: names begin where strings begin, and functions
    have the names of the file's. With another kernel's types and strings in front they would not."""
    names = types.words[types.start].astype(np.int64)
    low = types.base.all_strings if types.base else 0
    own = names[names >= low] - low
    strings = np.frombuffer(types.strings, np.uint8)
    if (own >= len(strings)).any() or strings[own[own > 0] - 1].any():
        return False
    functions = [types.string(name) for name in names[types.kinds == FUNC].tolist()[:MAX_ASKED]]
    return not functions or any(name and image.symbols.defined(name) is not None for name in functions)
