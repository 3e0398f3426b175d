"""What the tables of a kernel's kallsyms say, before it is known what their addresses are from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8, Mask
from ftpatch.container.file_bytes import FileBytes
from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms_names import Names, find_names
from ftpatch.recovered.kallsyms_order import require_sorted
from ftpatch.recovered.kallsyms_texts import texts_of
from ftpatch.recovered.kallsyms_tokens import LONGEST, Tokens, find_tokens
from ftpatch.recovered.kallsyms_values import ABSOLUTE, BASE, OWN, PERCPU, Values, find_values, own, ranks_of


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
        return bytes(self.strings[start : start + LONGEST]).split(b"\0", 1)[0]

    def rows_of(self, name: bytes) -> I64:
        """The rows of the symbols that have a name."""
        wanted = np.frombuffer(b"\0" + name + b"\0", np.uint8)[1:]
        rows = np.arange(len(self.starts))
        for off, octet in enumerate(wanted.tolist()):
            rows = rows[self.strings[np.minimum(self.starts[rows] + off, len(self.strings) - 1)] == octet]
        return rows


def find_tables(data: FileBytes) -> list[Tables]:
    """The tables of each kallsyms in a file, mostly one. ElfError where there are only parts that belong together."""
    tokens = find_tokens(data)
    found: dict[tuple[int, int, int, Values], Tables] = {}
    for table in tokens:
        for names in find_names(data, table):
            for values in find_values(data, table, names):
                found.setdefault((table.pos, names.pos, names.n, values), Tables(table, names, values))
    tables = list(found.values())
    if not tables and tokens:
        where = f"position {tokens[0].pos:#x}"
        raise ElfError("names and addresses of kallsyms are not where its token table is", where,
                       expected="kallsyms_names and kallsyms_markers before it, and addresses beside these",
                       todo="the file is damaged, or a kernel of a form that is not known")  # fmt: skip
    return tables


def read(data: FileBytes, tables: Tables) -> Listing:
    """All symbols. ElfError where names are none, or are not in the order of their ranks."""
    values, n = tables.values, tables.n
    letter, starts, strings = texts_of(data, tables.tokens, tables.names)
    ranks = ranks_of(data, values, n)
    if ranks is not None:
        require_sorted(ranks, starts, strings)
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
