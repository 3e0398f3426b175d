"""What the kernel will call an address: the nearest symbol before it, as kallsyms has them.

Only for sites that have no name of their own: the code of a dead weak function stays in the image under the name of
whatever stands before it. Newer kernels give up when that symbol is too far away and list an invalid address.
Source: kernel/trace/ftrace.c test_for_valid_rec(), FTRACE_MCOUNT_MAX_OFFSET; scripts/kallsyms.c.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U64, distinct, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

INVALID = "__ftrace_invalid_address__"


def listed_as(image: Image, va: U64) -> list[str]:
    """The name under which available_filter_functions shows a record whose call is at each va; "" where that is not
    known.

    Decided by what is in the file: a kernel that marks far records as invalid holds the word it prints for them.
    """
    return [INVALID if far else name for name, _, far in _nearest(image, va)]


def printed_as(image: Image, va: U64) -> list[str]:
    """As `listed_as`, to the letter: behind the word for an invalid record stands how far it is from its symbol."""
    return [f"{INVALID}_{off}" if far else name for name, off, far in _nearest(image, va)]


def _nearest(image: Image, va: U64) -> list[tuple[str, int, bool]]:
    """Per va: the symbol before it ("" if none), how far behind that it is, and whether the kernel gives up there."""
    if not len(va):
        return []
    symbols = image.symbols
    kept = (symbols.shndx > 0) & is_in(symbols.type, (0, t.STT_OBJECT, t.STT_FUNC))
    kept[kept] = image.executable[symbols.shndx[kept]]
    row = np.flatnonzero(kept)
    value = symbols.rows["st_value"][row]
    if not image.linked:
        value = value + image.base[symbols.shndx[row]]
    order = np.argsort(value, kind="stable")
    row, value = row[order], value[order]
    limit, marks = image.arch.max_offset, image.linked and _holds(image, INVALID)
    last = np.searchsorted(value, va, side="right") - 1
    kept_at = _kept(symbols, row, distinct(last).tolist())
    best = {at: _best(symbols, row, value, at) for at in set(kept_at.values()) if at >= 0}
    found = []
    for site, sec, end in zip(va.tolist(), image.place(va)[0].tolist(), last.tolist(), strict=True):
        at = kept_at[end]
        off = site - int(value[at]) if at >= 0 else 0
        beyond = limit is not None and (at < 0 or off > limit)
        known = at >= 0 and (image.linked or (symbols.shndx[row[at]] == sec and not beyond))
        found.append((best[at] if known else "", off, beyond and marks))
    return found


def _kept(symbols: t.Symbols, row: I64, places: list[int]) -> dict[int, int]:
    """Per place in the table, in ascending order, the last symbol up to there that kallsyms keeps; −1 without any."""
    kept_at, before = {-1: -1}, -1
    for place in places:
        at = place
        while at > before and _ignored(symbols.name(int(row[at]))):
            at -= 1
        kept_at[place] = kept_at[before] if at == before else at
        before = place
    return kept_at


def _best(symbols: t.Symbols, row: I64, value: U64, at: int) -> str:
    """Of the symbols at one address, the one that kallsyms keeps first."""
    first = int(np.searchsorted(value, value[at], side="left"))
    names = [(bool(symbols.bind[r] == t.STB_WEAK), symbols.name(r)) for r in row[first : at + 1].tolist()]
    return min((weak, len(name) - len(name.lstrip("_")), name) for weak, name in names if not _ignored(name))[2]


def _ignored(name: str) -> bool:
    """Mapping symbols, local labels and linker stubs, which kallsyms leaves out."""
    return name.startswith(("$", ".L", "L0")) or "_branch." in name or not name


def _holds(image: Image, text: str) -> bool:
    """Whether the read-only data of the kernel holds a string."""
    return any(text.encode() in image.content(sec).tobytes() for sec in image.sections_named(".rodata"))
