"""Names that stand in a file: of its functions, symbols, static calls and sections.

They are read by the code that reads the file for every verb, within its limits. Only names that can be typed as they
are become candidates: others hold characters that a terminal would obey, or that mean something in a selector.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence

from ftpatch.completion import cache
from ftpatch.errors import FtpatchError

MANY = 1000  # names; more than these are offered by their beginnings
MAX_NAME = 255  # characters of one that is offered
IN_SELECTORS = re.compile(r"[*?\[@]|^!|^/.*/$|^0[xX]|^row:")  # what a selector takes for something else than a name
CODE = b"tTwW"  # nm's letters of symbols of code
MARKS = ("$", ".L")  # what symbols begin with that name no function: of kinds of code, and a compiler's own


def names_of(path: str, kind: str) -> bytes:
    """The names of one kind in a file, ascending, each with a line feed in front; none where it cannot be read."""
    try:
        key = cache.key_of(path, kind)
    except (OSError, ValueError):
        return b""
    names = cache.load(key)
    if names is None:
        names = b"".join(b"\n" + name for name in sorted({name.encode() for name in _read(path, kind)}))
        cache.store(key, names)
    return names


def beginning(names: bytes, text: str) -> list[str]:
    """The names of a list that begin with a text."""
    wanted = b"\n" + text.encode("utf-8", "surrogateescape")
    first = names.find(wanted)
    if first < 0:
        return []
    end = names.find(b"\n", names.rfind(wanted) + 1)  # they are in order: all between the first and the last are some
    lines = names[first + 1 : end if end >= 0 else None].decode("utf-8", "replace").split("\n")
    return [name for name in lines if name.startswith(text) and name.isprintable()]


def stems(names: Sequence[str], text: str) -> list[tuple[str, bool]]:
    """The names, and whether each is only the beginning of several: up to its next underscore, where there are many."""
    if len(names) <= MANY:
        return [(name, False) for name in names]
    kin: dict[str, list[str]] = {}
    for name in names:
        start = len(text)
        while name[start : start + 1] == "_":
            start += 1
        at = name.find("_", start)
        kin.setdefault(name if at < 0 else name[: at + 1], []).append(name)
    if len(kin) == 1 and [*kin] != names[:1]:
        return stems(names, next(iter(kin)))
    return [(same[0], False) if len(same) == 1 else (stem, True) for stem, same in kin.items()]


def _read(path: str, kind: str) -> Iterator[str]:
    """The names of one kind in a file, in any order."""
    try:
        for name in READERS[kind](path):
            if 0 < len(name) <= MAX_NAME and name.isprintable():
                yield name
    except FtpatchError:  # whatever it is, it has no names
        return


def _sites(path: str) -> Iterator[str]:
    """Functions with a patch site."""
    from ftpatch.sites.scan import scan_file

    table = scan_file(path).sites
    functions, _ = table.entries.first_sites()
    return selectable(map(table.image.symbols.name, table.image.functions.row[functions].tolist()))


def _enabled(path: str) -> Iterator[str]:
    """Functions whose site is enabled."""
    from ftpatch.sites.scan import scan_file
    from ftpatch.sites.table import ENABLED

    table = scan_file(path).sites
    functions, site = table.entries.first_sites()
    rows = table.image.functions.row[functions[table.status[site] == ENABLED]]
    return selectable(map(table.image.symbols.name, rows.tolist()))


def _sources(path: str) -> Iterator[str]:
    """Functions with a patch site, and behind each the source file that tells it from others of its name."""
    from ftpatch.sites.scan import scan_file

    table = scan_file(path).sites
    functions, _ = table.entries.first_sites()
    symbols = table.image.symbols
    for row in table.image.functions.row[functions].tolist():
        file = symbols.file_of(row)
        if file:
            yield f"{symbols.name(row)}@{os.path.basename(file)}"


def _functions(path: str) -> Iterator[str]:
    """Symbols of code, with or without a patch site."""
    from ftpatch.recovered.symbol_list import symbols_of

    symbols = symbols_of(path)
    code = (letter in CODE for letter in symbols.letter.tolist())
    names = (name for name, is_code in zip(symbols.names(), code, strict=True) if is_code)
    return selectable(name for name in names if not name.startswith(MARKS))


def _symbols(path: str) -> Iterator[str]:
    """All symbols."""
    from ftpatch.recovered.symbol_list import symbols_of

    return selectable(iter(symbols_of(path).names()))


def _keys(path: str) -> Iterator[str]:
    """Keys of static calls."""
    from ftpatch.sites.static_calls import static_calls_of

    return selectable(iter(static_calls_of(path).keys.name))


def _sections(path: str) -> Iterator[str]:
    """Sections with patch sites."""
    from ftpatch.sites.scan import scan_file

    table = scan_file(path).sites
    return (table.image.names[sec] for sec in sorted(set(table.sec.tolist())) if sec >= 0)


def selectable(names: Iterator[str]) -> Iterator[str]:
    """Those that a selector takes for names."""
    return (name for name in names if not IN_SELECTORS.search(name))


READERS: dict[str, Callable[[str], Iterator[str]]] = {
    "sites": _sites, "enabled": _enabled, "sources": _sources, "functions": _functions, "symbols": _symbols,
    "keys": _keys, "sections": _sections,
}  # fmt: skip
