"""Names for places in code: the function that begins there, or the one around it."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, is_in
from ftpatch.elf.image import Image
from ftpatch.sites.static_keys import Named


def names_around(image: Image, sec: I64, off: I64) -> list[str | None]:
    """The function that holds each place; None where none does."""
    functions, name = image.functions, image.symbols.name
    index = functions.containing(image.va(sec, off))
    index[sec < 0] = -1
    rows = functions.row[index].tolist() if len(functions.row) else []
    known: dict[int, str] = {}  # a function holds many places
    names: list[str | None] = []
    for i, at in enumerate(index.tolist()):
        if at >= 0 and at not in known:
            known[at] = name(rows[i])
        names.append(known[at] if at >= 0 else None)
    return names


def names_at(image: Image, sec: I64, off: I64) -> list[str | None]:
    """What begins at each place: a function, `NAME+0xOFF` inside one, else the address; None for no place."""
    functions, name = image.functions, image.symbols.name
    va = image.va(sec, off)
    low, high = functions.at(va)
    around = names_around(image, sec, off)
    inside = functions.containing(va)
    names: list[str | None] = []
    for i, (first, last) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        if sec[i] < 0:
            names.append(None)
        elif first < last:
            names.append(name(int(functions.row[first])))
        elif around[i] is not None:
            names.append(f"{around[i]}+{int(va[i]) - int(functions.va[inside[i]]):#x}")
        else:
            names.append("")
    bare = np.array([i for i, text in enumerate(names) if text == ""], dtype=np.int64)
    for i, text in zip(bare.tolist(), _bare(image, sec[bare], off[bare]), strict=True):
        names[i] = text
    return names


def names_of(image: Image, named: Named) -> list[str | None]:
    """What fields lead to, by name; None where they lead nowhere that is known."""
    names = names_at(image, named.sec, named.off)
    for i in np.flatnonzero((named.sec < 0) & (named.symbol >= 0)).tolist():  # of another file
        more = int(named.off[i])
        names[i] = image.symbols.name(int(named.symbol[i])) + (f"{more:+#x}" if more else "")
    return names


def _bare(image: Image, sec: I64, off: I64) -> list[str]:
    """Places that no function holds: the symbol of no type there, as assembly has them, else where it is."""
    symbols, value = image.symbols, image.va(sec, off) if image.linked else off.view(np.uint64)
    named: dict[tuple[int, int], str] = {}
    for row in np.flatnonzero(is_in(symbols.rows["st_value"], value)).tolist() if len(value) else ():
        place = int(symbols.shndx[row]), int(symbols.rows["st_value"][row])
        if place not in named and (text := symbols.name(row)):
            named[place] = text
    names: list[str] = []
    for i, place in enumerate(zip(sec.tolist(), value.tolist(), strict=True)):
        where = hex(place[1]) if image.linked else f"{image.names[place[0]]}{int(off[i]):+#x}"
        names.append(named.get(place) or where)
    return names
