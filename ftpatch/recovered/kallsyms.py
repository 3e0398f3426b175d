"""A kernel's own table of symbols, kallsyms, out of its image: right, or refused.

    find_tables   where the tables are, found and proven by their structure     kallsyms_tokens, _names, _values
    read          their content, with addresses as far as the tables tell them  kallsyms_texts
    decode        the same with addresses, from an anchor that the caller has

What the addresses are from, the anchor, is not always in the tables. Kind BASE and PERCPU have it in a word of the
file, kallsyms_relative_base; in an image whose relocations have addends of their own (RELA) that word may be 0 in the
file, and in a dump of a kernel that runs it has moved. Kind OWN needs the address of the table itself. Kind ABSOLUTE
needs none, but its words may be 0 as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8, U64, Mask
from ftpatch.container.file_bytes import FileBytes
from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms_names import Names, find_names
from ftpatch.recovered.kallsyms_texts import texts_of
from ftpatch.recovered.kallsyms_tokens import Tokens, find_tokens
from ftpatch.recovered.kallsyms_values import ABSOLUTE, BASE, NONE, OWN, PERCPU, Values, find_values, own

__all__ = [
    "ABSOLUTE",
    "BASE",
    "NONE",
    "OWN",
    "PERCPU",
    "Kallsyms",
    "Listing",
    "Tables",
    "decode",
    "find_tables",
    "read",
]


@dataclass(frozen=True, eq=False)
class Tables:
    """Where the tables of one kallsyms are in a file."""

    tokens: Tokens
    names: Names
    values: Values

    @property
    def n(self) -> int:
        """How many symbols there are."""
        return self.names.n

    @property
    def kind(self) -> str:
        """What addresses are from: ABSOLUTE, BASE, PERCPU or OWN."""
        return self.values.kind


@dataclass(frozen=True, eq=False)
class Listing:
    """What the tables say, in their order: ascending addresses."""

    kind: str
    value: I64  # the address, or where `relative` the distance from the anchor
    relative: Mask
    letter: U8  # nm's type
    starts: I64  # of each name in `strings`
    strings: U8  # names, each with a NUL behind it

    def name(self, row: int) -> bytes:
        """The name of a symbol."""
        start = int(self.starts[row])
        return bytes(self.strings[start : start + 1024]).split(b"\0", 1)[0]

    def rows_of(self, name: bytes) -> I64:
        """The rows of the symbols that have a name."""
        wanted = np.frombuffer(b"\0" + name + b"\0", np.uint8)[1:]
        rows = np.arange(len(self.starts))
        for off, octet in enumerate(wanted.tolist()):
            rows = rows[self.strings[np.minimum(self.starts[rows] + off, len(self.strings) - 1)] == octet]
        return rows


@dataclass(frozen=True, eq=False)
class Kallsyms:
    """Symbols with addresses, in ascending order."""

    va: U64
    letter: U8  # nm's type
    starts: I64  # of each name in `strings`
    strings: bytes  # names, each with a NUL behind it; nm's letter stands before each


def find_tables(data: FileBytes) -> Tables | None:
    """The tables of a file; None where it has none. ElfError where parts of them contradict each other."""
    tokens = find_tokens(data)
    tables = [Tables(table, names, values) for table in tokens for names in find_names(data, table)
              for values in find_values(data, table, names)]  # fmt: skip
    if not tables and tokens:
        where = f"position {tokens[0].pos:#x}"
        raise ElfError("names and addresses of kallsyms are not where its token table is", where,
                       expected="kallsyms_names and kallsyms_markers before it, and addresses beside these",
                       todo="the file is damaged, or a kernel of a form that is not known")  # fmt: skip
    if len(tables) > 1:
        raise ElfError("more than one kallsyms in a file", found=", ".join(f"{one.names.pos:#x}" for one in tables))
    return tables[0] if tables else None


def read(data: FileBytes, tables: Tables) -> Listing:
    """All symbols. ElfError where names are none."""
    values, n = tables.values, tables.n
    letter, starts, strings = texts_of(data, tables.tokens, tables.names)
    relative = np.full(n, values.kind != ABSOLUTE)
    if values.kind == ABSOLUTE:
        value = data[values.pos : values.pos + 8 * n].view("<i8").astype(np.int64)
    else:
        words = data[values.pos : values.pos + 4 * n]
        value = words.view("<u4").astype(np.int64) if values.kind == BASE else words.view("<i4").astype(np.int64)
        if values.kind == OWN:
            value = own(words.view("<i4"))
        if values.kind == PERCPU:
            relative = value < 0
            value = np.where(relative, -1 - value, value)
    return Listing(values.kind, value, relative, letter, starts, strings)


def decode(listing: Listing, anchor: int) -> Kallsyms:
    """The symbols at addresses.

    anchor: what kallsyms_relative_base has at run time (BASE, PERCPU), or the address of kallsyms_offsets (OWN); not
    used where addresses are ABSOLUTE.
    """
    va = listing.value.view(np.uint64) + np.where(listing.relative, np.uint64(anchor), np.uint64(0))
    return Kallsyms(va, listing.letter, listing.starts, listing.strings.tobytes())
