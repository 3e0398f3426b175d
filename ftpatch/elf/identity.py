"""What linkers leave in a file beside code and data: its build-id, and the branch stubs they make."""

from __future__ import annotations

import re
import struct
from itertools import islice

import numpy as np

from ftpatch.arrays import I64, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

MAX_NOTES = 1 << 16  # bytes of one note section that are searched for the build-id
# what GNU ld, gold and lld call the stubs through which calls reach a function: text before and behind its name
STUBS = (
    r"(?:.*\.(?:long_branch|plt_branch|plt_call)\.|__AArch64(?:ADRP|AbsLong)Thunk_|__(?:long_branch_|plt_)?)?{}"
    r"(?:_veneer|[@+].*)?"
)
BRANCH_STUB, MAX_STUBS = b"_branch.", 1 << 16
REACHES_ALL = (1 << 31) - (1 << 20)  # bytes that a branch spans forwards beyond which linkers make no stubs
MAX_ENTRIES = 1 << 13  # places of one function's name among the names of symbols


def build_id(image: Image) -> str | None:
    """The GNU build-id in hex, from the first note that has one."""
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_NOTE):
        notes = image.content(int(sec))[:MAX_NOTES].tobytes()
        at = 0
        while at + 12 <= len(notes):
            namesz, descsz, kind = struct.unpack_from("<3I", notes, at)
            name, desc = at + 12, at + 12 + (namesz + 3 & ~3)
            if kind == 3 and notes[name : name + namesz] == b"GNU\0" and 0 < descsz <= len(notes) - desc:
                return notes[desc : desc + descsz].hex()
            at = desc + (descsz + 3 & ~3)
    return None


def linker_stubs(image: Image) -> dict[int, str]:
    """Linker-made branch stubs: their va, and the name of what they lead to ("long_branch" and "plt_branch")."""
    symbols = image.symbols
    if image.arch.call.high >= REACHES_ALL:
        return {}
    marks = islice(t.places_of(BRANCH_STUB, symbols.strtab), MAX_STUBS)
    starts = [symbols.strtab.rfind(b"\0", max(at - t.MAX_NAME, 0), at) + 1 for at in marks]
    rows = np.flatnonzero(is_in(symbols.rows["st_name"], starts)).tolist()
    names = [symbols.name(row).partition("_branch.")[2].partition("+")[0] for row in rows]
    return dict(zip(symbols.rows["st_value"][rows].tolist(), names, strict=True))


def entries_and_stubs(image: Image, name: str) -> I64:
    """Symbol rows of the function and of every stub that a linker made to it, by what linkers call those."""
    symbols, wanted = image.symbols, name.encode()
    starts: set[int] = set()
    for at in islice(t.places_of(wanted, symbols.strtab), MAX_ENTRIES):  # linkers merge the tails of strings
        starts |= {at, symbols.strtab.rfind(b"\0", max(at - t.MAX_NAME, 0), at) + 1}
    form = re.compile(STUBS.format(re.escape(name)).encode())  # asked once for each name, not for each symbol
    ends = {start: symbols.strtab.find(b"\0", start, start + t.MAX_NAME) for start in starts}
    named = [start for start, end in sorted(ends.items()) if end >= 0 and form.fullmatch(symbols.strtab, start, end)]
    rows = np.flatnonzero(is_in(symbols.rows["st_name"], named))
    return np.asarray(rows[symbols.shndx[rows] > 0])
