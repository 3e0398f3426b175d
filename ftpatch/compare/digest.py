"""What two builds are compared by: the functions of a file with what a tracer could do with each, and its figures.

A function is known by its name and the source file of its symbol, never by an address: a rebuild moves everything. Many
share both (there are a dozen core.c), so functions are counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ftpatch.arrays import is_in
from ftpatch.compare.static_calls import NO_STATIC_CALLS, StaticCalls, static_calls
from ftpatch.document.request import Request
from ftpatch.document.rows import image_object
from ftpatch.elf import tables as t
from ftpatch.elf.kind import PROGRAMS
from ftpatch.errors import FtpatchError, UnsupportedError
from ftpatch.explanation.untraceable import NO_RECORD, STATES, TRACEABLE, states
from ftpatch.sites.scan import Scan, scan_file
from ftpatch.sites.table import STRIPPED, UNNAMED

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject

MAX_FUNCTIONS = 1 << 20  # of one file: each takes some hundred bytes; an allyesconfig kernel has half as many
SUFFIX = re.compile(r"\.ko(\.(xz|gz|zst))?$")
Key = tuple[str, str]  # name, source file of its symbol or ""


class Site(NamedTuple):
    """One function, as a tracer sees it."""

    state: str  # of untraceable.STATES
    row: int | None  # slot of its record; None without one
    section: str  # of the function
    offset: int | None  # of its site in that; None without one
    to: str = ""  # the function that it is redirected to


@dataclass(frozen=True)
class Digest:
    """One file, as far as it is compared."""

    path: str
    image: ImageObject | None  # without sites; None where it could not be read
    functions: dict[Key, tuple[Site, ...]]  # those of one name and file in the order of their addresses
    error: FtpatchError | None = None  # why it could not be read
    n_nameless: int = 0  # sites whose names are stripped, or may be
    static_calls: StaticCalls = NO_STATIC_CALLS
    with_files: bool = True  # its symbols tell the source files of static functions; a kernel's own kallsyms do not

    @property
    def module(self) -> str:
        """The module's name, as the kernel writes it."""
        return SUFFIX.sub("", os.path.basename(self.path)).replace("-", "_")


def digest_files(request: Request, paths: Sequence[str]) -> list[Digest]:
    """The digests of some files, in their order; a file that cannot be read has an error."""
    return [digest_file(request, path) for path in paths]


def digest_file(request: Request, path: str) -> Digest:
    """The digest of one file, with the error where it cannot be read."""
    try:
        scan = scan_file(path, request.layout, request.max_size)
        if (n := len(scan.image.functions.row)) > MAX_FUNCTIONS:
            raise UnsupportedError("too many functions to compare", path, found=str(n), todo="docs/limits.md has all",
                                   expected=f"at most {MAX_FUNCTIONS}")  # fmt: skip
        image = image_object(scan, None, scan.image.sha256 if request.hashed else None, with_sites=False)
        calls = static_calls(scan.image)
    except FtpatchError as error:
        return Digest(path, None, {}, error)
    n_nameless = int(is_in(scan.sites.status, (STRIPPED, UNNAMED)).sum())
    return Digest(path, image, functions(scan), None, n_nameless, calls, scan.image.recovered is None)


def functions(scan: Scan) -> dict[Key, tuple[Site, ...]]:
    """Every function symbol of a file; those of one name and file in the order of their addresses."""
    image, table = scan.image, scan.sites
    symbols, rows = image.symbols, image.functions.row
    state, site = (column.tolist() for column in states(image, table))
    files = np.flatnonzero(symbols.type == t.STT_FILE)
    before = np.searchsorted(files, rows) - 1
    local = (symbols.bind[rows] == t.STB_LOCAL) & (before >= 0)
    of_file = np.where(local, before, -1).tolist()
    names = [symbols.name(int(row)) for row in files.tolist()]
    secs = symbols.shndx[rows].tolist()
    table_rows, offsets = table.row.tolist(), (table.off + table.site).tolist()
    leads = {index: target.name for index, target in table.redirects.items()}
    # a program needs no record of a call of the profiling function: it is a site without
    program = {NO_RECORD: STATES[TRACEABLE]} if image.kind in PROGRAMS else {}
    known: dict[Key, list[Site]] = {}
    for i, row in enumerate(rows.tolist()):  # a function is a Python object from here on: 60,000 in a kernel
        key = (symbols.name(row), names[of_file[i]] if of_file[i] >= 0 else "")
        at = site[i]
        listed = table_rows[at] if at >= 0 and table_rows[at] >= 0 else None
        offset, to = (offsets[at], leads.get(at, "")) if at >= 0 else (None, "")
        function = Site(program.get(state[i], STATES[state[i]]), listed, image.names[secs[i]], offset, to)
        known.setdefault(key, []).append(function)
    return {key: tuple(sites) for key, sites in known.items()}
