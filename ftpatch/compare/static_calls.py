"""What became of the static calls of a file: keys that came or went, what they hold, and who calls them.

Keys and functions are known by their names, without what the compiler adds to them; a rebuild moves everything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.compare.changes import change
from ftpatch.elf.clone_names import base_name
from ftpatch.elf.image import Image
from ftpatch.finding import Finding
from ftpatch.sites.place_names import names_around, names_of
from ftpatch.sites.static_calls import StaticCallTable, read_static_calls


class StaticCalls(NamedTuple):
    """The static calls of a file, as far as they are compared."""

    keys: Mapping[str, tuple[str, ...]]  # key of this file → what it holds; of several of one name each
    sites: Mapping[tuple[str, str], int]  # (key, function) → how many sites of that key it has; "": code of no name


NO_STATIC_CALLS = StaticCalls({}, {})


def static_calls(image: Image) -> StaticCalls:
    """The static calls of a file; nothing where it has none. Raises what reading them raises."""
    if image.arch.static_calls is None or (not image.linked and len(image.symbols.rows) <= 1):
        return NO_STATIC_CALLS
    table = read_static_calls(image)
    calls, names = table.calls, table.keys.name
    around = names_around(image, calls.sec, calls.off) if len(calls) else []
    sites = Counter((names[key], base_name(function or ""))
                    for key, function in zip(calls.key.tolist(), around, strict=True) if key >= 0)  # fmt: skip
    return StaticCalls(_held(table, table.keys.sec >= 0), sites)


def _held(table: StaticCallTable, own: Mask) -> dict[str, tuple[str, ...]]:
    """What each key of the file holds."""
    keys, return0 = table.keys, table.is_return0()
    functions, held = names_of(table.image, keys.func), dict[str, list[str]]()
    for row in np.flatnonzero(own).tolist():
        null = keys.func.sec[row] < 0 and keys.func.symbol[row] < 0 and not keys.func.off[row]
        function = (
            "return 0" if return0[row] else "NULL" if null else base_name(functions[row] or "what is no function")
        )
        held.setdefault(keys.name[row], []).append(function)
    return {name: tuple(sorted(functions)) for name, functions in held.items()}


def static_call_changes(old: StaticCalls, new: StaticCalls, path: str) -> Iterator[Finding]:
    """What became of every key that one of the files has, and of the sites of keys that both know."""
    n_old, n_new = (Counter[str]() for _ in range(2))
    for counts, side in ((n_old, old), (n_new, new)):
        for (key, _), n in side.sites.items():
            counts[key] += n
    for key in old.keys.keys() - new.keys.keys():
        yield change("diff-static-removed", path, f"static call {key} is gone{_sites(n_old[key])}")
    for key, held in new.keys.items():
        before = old.keys.get(key)
        if before is None:
            text = f"static call {key} is new: it holds {', '.join(held)}{_sites(n_new[key])}"
            yield change("diff-static-added", path, text)
        elif held != before:
            text = f"static call {key} holds {', '.join(held)}, {', '.join(before)} before"
            yield change("diff-static-changed", path, text)
    apart = old.keys.keys() ^ new.keys.keys()  # all of their sites came or went with them
    for key, function in old.sites.keys() | new.sites.keys():
        was, now = old.sites.get((key, function), 0), new.sites.get((key, function), 0)
        if was != now and key not in apart:
            sites = f"{now or 'no'} {_plural(now)}"
            text = f"{function or 'code without a name'} has {sites} of static call {key}, {was or 'none'} before"
            yield change("diff-static-sites", path, text, function=function or None, count=abs(now - was))


def _sites(n: int) -> str:
    return f", with {n} {_plural(n)}" if n else ", with no site"


def _plural(n: int) -> str:
    return "site" if n in (0, 1) else "sites"
