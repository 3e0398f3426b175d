"""The types of a kernel or module, as section `.BTF` tells them: names, sizes, members, variables, function prototypes.

    header │ types: 12 bytes and what its kind adds, for each │ strings

Types have numbers from 1 on, in the order of the file; 0 is void. A module's types go on from those of its kernel, and
so do its strings: `base` is the kernel's. One pass finds where each type begins, the rest is columns; what is asked for
is read then. Nothing is believed: a number beyond the table, or a string beyond its end, is an ElfError; a chain of
types ends after MAX_CHAIN steps.

Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h (Linux 7.2).
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, U8, U32, Mask
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError

HEADER = struct.Struct("<HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
MAGIC, VERSION = 0xEB9F, 1
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC = range(
    1, 16
)
FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(16, 20)
# Bytes that a kind adds to its 12: always, and for each of its members.
ADDED = {INT: (4, 0), PTR: (0, 0), ARRAY: (12, 0), STRUCT: (0, 12), UNION: (0, 12), ENUM: (0, 8), FWD: (0, 0),
         TYPEDEF: (0, 0), VOLATILE: (0, 0), CONST: (0, 0), RESTRICT: (0, 0), FUNC: (0, 0), FUNC_PROTO: (0, 8),
         VAR: (4, 0), DATASEC: (0, 12), FLOAT: (0, 0), DECL_TAG: (4, 0), TYPE_TAG: (0, 0), ENUM64: (0, 12)}  # fmt: skip
SAME = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)  # kinds that only qualify another type
SIZED = (INT, STRUCT, UNION, ENUM, DATASEC, FLOAT, ENUM64)  # kinds whose third word is a size and no type
POINTER = 8  # bytes
SIGNED, BOOL = 1, 4  # how an integer is encoded
PIECE = 1 << 20  # words that are looked at together
MAX_SECTION, MAX_CHAIN, MAX_NAME = 1 << 28, 32, 512


class Member(NamedTuple):
    """A member of a struct or union, or a parameter of a function."""

    name: str
    type: int
    bit: int = 0  # of a struct: where it begins


class Variable(NamedTuple):
    """A variable in a section."""

    name: str
    type: int
    offset: int  # bytes in the section, in a relocatable file; in a linked one of no meaning to who has symbols
    size: int


@dataclass(frozen=True, eq=False, repr=False)
class Btf:
    """The types of one file, one row each; the first is number `first`."""

    where: str  # file and section, for messages
    words: U32  # of the types
    start: I64  # index in `words` of each type
    strings: bytes
    base: Btf | None = None

    @property
    def first(self) -> int:
        return self.base.end if self.base else 1

    @property
    def end(self) -> int:
        """The number behind the last type."""
        return self.first + len(self.start)

    @cached_property
    def kinds(self) -> U8:
        return ((self.words[self.start + 1] >> 24) & 31).astype(np.uint8)

    # -- one type ------------------------------------------------------------------------------------------------------

    def _row(self, number: int) -> tuple[Btf, int]:
        """(the file that has a type, the index of its first word)."""
        if self.base is not None and number < self.first:
            return self.base._row(number)
        if not self.first <= number < self.end:
            raise ElfError("a type that is not there is named", self.where, found=f"type {number}",
                           expected=f"less than {self.end}")  # fmt: skip
        return self, int(self.start[number - self.first])

    def kind(self, number: int) -> int:
        """The kind of a type; 0 for void."""
        if number == 0:
            return 0
        owner, at = self._row(number)
        return int(owner.words[at + 1]) >> 24 & 31

    def name(self, number: int) -> str:
        """The name of a type; empty where it has none."""
        if number == 0:
            return "void"
        owner, at = self._row(number)
        return owner.string(int(owner.words[at]))

    def string(self, offset: int) -> str:
        """The string at an offset, which goes on from the base's."""
        if self.base is not None:
            if offset < self.base.all_strings:
                return self.base.string(offset)
            offset -= self.base.all_strings
        if offset >= len(self.strings):
            raise ElfError("a name lies outside the strings", self.where, found=f"{offset:#x}",
                           expected=f"less than {len(self.strings):#x}")  # fmt: skip
        end = self.strings.find(b"\0", offset, offset + MAX_NAME)
        return self.strings[offset : end if end >= 0 else offset + MAX_NAME].decode("utf-8", "backslashreplace")

    @property
    def all_strings(self) -> int:
        """Bytes of the strings, those of the base included."""
        return len(self.strings) + (self.base.all_strings if self.base else 0)

    def _third(self, number: int) -> int:
        owner, at = self._row(number)
        return int(owner.words[at + 2])

    def target(self, number: int) -> int:
        """The type that a pointer, qualifier, function or variable is of; of a prototype what it returns."""
        if self.kind(number) in (0, *SIZED, ARRAY, FWD):
            raise ElfError("a type refers to none", self.where, found=f"type {number} of kind {self.kind(number)}")
        return self._third(number)

    def encoding(self, number: int) -> int:
        """Of an integer: whether it is SIGNED, and BOOL."""
        owner, at = self._row(number)
        return int(owner.words[at + 3]) >> 24 & 15 if self.kind(number) == INT else 0

    def flag(self, number: int) -> bool:
        """The flag of a type: of an enum, that it is signed; of a declaration, that it is one of a union."""
        owner, at = self._row(number)
        return bool(int(owner.words[at + 1]) >> 31)

    def array(self, number: int) -> tuple[int, int]:
        """(the type of an array's elements, how many it has)."""
        owner, at = self._row(number)
        if self.kind(number) != ARRAY:
            raise ElfError("a type is no array", self.where, found=f"type {number} of kind {self.kind(number)}")
        return int(owner.words[at + 3]), int(owner.words[at + 5])

    def plain(self, number: int) -> int:
        """The type under all typedefs and qualifiers."""
        for _ in range(MAX_CHAIN):
            if self.kind(number) not in SAME:
                return number
            number = self._third(number)
        raise ElfError("a chain of types has no end", self.where, found=f"type {number}")

    def size(self, number: int) -> int | None:
        """Bytes of a type; None for those that have none: void, functions, what is only declared."""
        number, times = self.plain(number), 1
        for _ in range(MAX_CHAIN):
            kind = self.kind(number)
            if kind == PTR:
                return POINTER * times
            if kind != ARRAY:
                return self._third(number) * times if kind in SIZED else None
            owner, at = self._row(number)
            times *= int(owner.words[at + 5])
            number = self.plain(int(owner.words[at + 3]))
        raise ElfError("an array of arrays has no end", self.where, found=f"type {number}")

    def _members(self, number: int, width: int, kinds: tuple[int, ...]) -> tuple[Btf, U32, int]:
        """(the file that has a type, its members as rows of words, its flag)."""
        owner, at = self._row(number)
        if self.kind(number) not in kinds:
            raise ElfError("a type has no members", self.where, found=f"type {number} of kind {self.kind(number)}")
        info = int(owner.words[at + 1])
        n = info & 0xFFFF
        return owner, owner.words[at + 3 : at + 3 + n * width].reshape(n, width), info >> 31

    def members(self, number: int) -> list[Member]:
        """The members of a struct or union."""
        owner, rows, flag = self._members(self.plain(number), 3, (STRUCT, UNION))
        mask = 0xFF_FFFF if flag else 0xFFFF_FFFF  # with the flag, the upper bits are the size of a bit-field
        return [Member(owner.string(name), kind, bit & mask) for name, kind, bit in rows.tolist()]

    def parameters(self, number: int) -> list[Member]:
        """The parameters of a prototype, or of the function that has it; type 0 and no name at the end is `...`."""
        if self.kind(number) == FUNC:
            number = self._third(number)
        owner, rows, _ = self._members(number, 2, (FUNC_PROTO,))
        return [Member(owner.string(name), kind) for name, kind in rows.tolist()]

    # -- all of a kind -------------------------------------------------------------------------------------------------

    def find(self, kind: int, name: str) -> int | None:
        """The first type of that kind and name, the base's before the file's own; None where there is none."""
        if self.base is not None and (number := self.base.find(kind, name)) is not None:
            return number
        rows = np.flatnonzero(self.kinds == kind)
        offsets = self.words[self.start[rows]]
        hit = rows[self.named(offsets, name)]
        return self.first + int(hit[0]) if len(hit) else None

    def named(self, offsets: U32, name: str) -> Mask:
        """Which of the offsets are those of the name: it stands in the strings once, or a few times."""
        wanted, low = name.encode() + b"\0", self.base.all_strings if self.base else 0
        places: list[int] = []
        at = self.strings.find(wanted)
        while at >= 0 and len(places) < MAX_NAME:
            places.append(at + low)
            at = self.strings.find(wanted, at + 1)
        inherited = np.array([self.string(offset) == name for offset in offsets[offsets < low].tolist()], dtype=bool)
        hit = np.isin(offsets, np.array(places, dtype=np.uint32))
        hit[offsets < low] = inherited
        return np.asarray(hit)

    def variables(self, section: str) -> list[Variable]:
        """The variables that the file lists of a section."""
        number = self.find(DATASEC, section)
        if number is None:
            return []
        _, rows, _ = self._members(number, 3, (DATASEC,))
        return [Variable(self.name(var), self.target(var), offset, size) for var, offset, size in rows.tolist()]

    def variable(self, name: str) -> int | None:
        """The type of the variable of a name; None where the file lists none. Most kernels list those of .data..percpu
        alone."""
        number = self.find(VAR, name)
        return None if number is None else self.target(number)


def read_btf(image: Image, base: Btf | None = None, section: str = ".BTF") -> Btf | None:
    """The types of a file; None where it has no such section. base: those of the kernel that a module is built for.

    Raises ElfError for a section that contradicts itself.
    """
    sec = next((sec for sec in image.sections_named(section) if image.has_bytes[sec]), None)
    if sec is None:
        return None
    where, content = f"{image.path}: {section}", image.content(sec)
    if not HEADER.size <= len(content) <= MAX_SECTION:
        raise ElfError("the types cannot be read", where, found=f"{len(content)} bytes",
                       expected=f"{HEADER.size} to {MAX_SECTION}")  # fmt: skip
    magic, version, _, header, type_off, type_len, str_off, str_len = HEADER.unpack(content[: HEADER.size].tobytes())
    if (magic, version) != (MAGIC, VERSION):
        raise ElfError("the types are of an unknown form", where, found=f"magic {magic:#x}, version {version}",
                       expected=f"{MAGIC:#x}, {VERSION}")  # fmt: skip
    ends = header + type_off + type_len, header + str_off + str_len
    if type_len % 4 or (header + type_off) % 4 or max(ends) > len(content):
        raise ElfError("the types' header contradicts the section", where, expected=f"at most {len(content):#x} bytes",
                       found=f"parts that end at {ends[0]:#x} and {ends[1]:#x}")  # fmt: skip
    words = content[header + type_off : ends[0]].view("<u4")
    return Btf(where, words, _starts(words, where), content[header + str_off : ends[1]].tobytes(), base)


def _starts(words: U32, where: str) -> I64:
    """Index of the first word of each type."""
    info = words[1:]
    always, each = (np.full(32, -1, dtype=np.int64) for _ in range(2))
    for kind, (some, more) in ADDED.items():
        always[kind], each[kind] = 3 + some // 4, more // 4
    starts, at = array("q"), 0
    for base in range(0, len(info), PIECE):
        piece = info[base : base + PIECE]
        kinds = (piece >> 24) & 31
        # How far the next type would be from each word; the walk goes by those where a type begins.
        steps = np.where(always[kinds] < 0, 0, always[kinds] + each[kinds] * (piece & 0xFFFF)).tolist()
        end = base + len(steps)
        while at < end:
            step = steps[at - base]
            if not step:
                raise ElfError("a type is of an unknown kind", where, expected=f"1 to {ENUM64}",
                               found=f"kind {int(kinds[at - base])} at {4 * at:#x}")  # fmt: skip
            starts.append(at)
            at += step
    if at != len(words):
        raise ElfError("the last type is cut off", where, found=f"it ends at {4 * at:#x}",
                       expected=f"{4 * len(words):#x}")  # fmt: skip
    return np.frombuffer(starts, dtype=np.int64)
