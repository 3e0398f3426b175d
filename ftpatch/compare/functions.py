"""What became of the functions of a file: lost, gained, removed, added or renamed for a tracer.

Functions are matched by name and source file; one that is alone with its name on both sides, by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from ftpatch.compare.changes import change
from ftpatch.compare.digest import Digest, Key, Site
from ftpatch.explanation.untraceable import base_name, text_of
from ftpatch.finding import Finding


def function_changes(old: Digest, new: Digest) -> Iterator[Finding]:
    """What became of every function that a tracer could use on either side."""
    pairs, gone, come = _match(old.functions, new.functions)
    for before, after in pairs:
        yield from _pair(new.path, after, old.functions[before], new.functions[after])
    renamed: set[Key] = set()
    for before, after in _renamed(old.functions, new.functions, gone, come):
        renamed |= {before, after}
        n, site = _traceable(old.functions[before]), _first(new.functions[after])
        yield _site_change("diff-renamed", new.path, after, site, f"{before[0]} is {after[0]} now", n)
    for key in gone:
        if key not in renamed and (n := _traceable(old.functions[key])):
            yield change("diff-removed", new.path, f"{_named(key)} is gone{_times(n)}", function=key[0], count=n)
    for key in come:
        if key not in renamed and (n := _traceable(new.functions[key])):
            yield _site_change("diff-added", new.path, key, _first(new.functions[key]),
                                f"{_named(key)} is new and traceable{_times(n)}", n)  # fmt: skip


def _match(old: Mapping[Key, object], new: Mapping[Key, object]) -> tuple[list[tuple[Key, Key]], list[Key], list[Key]]:
    """Pairs of keys that mean the same function, and those of either side that are left over."""
    pairs = [(key, key) for key in old if key in new]
    gone, come = [key for key in old if key not in new], [key for key in new if key not in old]
    by_name: defaultdict[str, tuple[list[Key], list[Key]]] = defaultdict(lambda: ([], []))
    for side, keys in enumerate((gone, come)):
        for key in keys:
            by_name[key[0]][side].append(key)
    # one function of a name on each side is the same one, moved to another file
    moved = [(before[0], after[0]) for before, after in by_name.values() if len(before) == len(after) == 1]
    pairs += moved
    left, right = {before for before, _ in moved}, {after for _, after in moved}
    return pairs, [key for key in gone if key not in left], [key for key in come if key not in right]


def _renamed(
    old: Mapping[Key, tuple[Site, ...]], new: Mapping[Key, tuple[Site, ...]], gone: list[Key], come: list[Key]
) -> Iterator[tuple[Key, Key]]:
    """Pairs of what is left over that only the compiler's suffix tells apart, traceable on both sides."""
    waiting: defaultdict[Key, list[Key]] = defaultdict(list)
    for key in come:
        if _traceable(new[key]):
            waiting[base_name(key[0]), key[1]].append(key)
    for key in gone:
        same = waiting.get((base_name(key[0]), key[1]))
        if same and _traceable(old[key]):
            yield key, same.pop(0)


def _pair(path: str, key: Key, old: tuple[Site, ...], new: tuple[Site, ...]) -> Iterator[Finding]:
    """What became of the functions of one name and file that both builds have."""
    before, after = _traceable(old), _traceable(new)
    if after > before:
        site = _first(new)
        yield _site_change("diff-gained", path, key, site, f"{_named(key)} became traceable{_times(after - before)}",
                            after - before)  # fmt: skip
    elif after < before and len(new) > after:
        site = next(site for site in new if site.state != "traceable")
        n = before - after
        why = text_of(site.state, site.section)
        yield _site_change("diff-lost", path, key, site, f"{_named(key)} is no longer traceable{_times(n)}: {why}", n)
    elif after < before:
        n = before - after
        yield change("diff-removed", path, f"{n} of {len(old)} functions called {_named(key)} are gone",
                       function=key[0], count=n)  # fmt: skip


def _traceable(sites: tuple[Site, ...]) -> int:
    return sum(site.state == "traceable" for site in sites)


def _first(sites: tuple[Site, ...]) -> Site:
    return next(site for site in sites if site.state == "traceable")


def _named(key: Key) -> str:
    return f"{key[0]}@{key[1]}" if key[1] else key[0]


def _times(n: int) -> str:
    return f" ({n} functions)" if n > 1 else ""


def _site_change(rule: str, path: str, key: Key, site: Site, message: str, count: int) -> Finding:
    return change(rule, path, message, function=key[0], count=count, row=site.row, section=site.section,
                    offset=site.offset)  # fmt: skip
