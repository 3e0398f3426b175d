"""What became of the functions of a file: lost, gained, removed, added or renamed for a tracer.

Functions are matched by name and source file; one that is alone with its name on both sides, by name, and all where
one of the files does not tell source files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ftpatch.compare.changes import change
from ftpatch.compare.digest import Digest, Key, Site
from ftpatch.elf.clone_names import base_name
from ftpatch.explanation.untraceable import text_of
from ftpatch.finding import Finding

Functions = Mapping[Key, Sequence[Site]]
Change = tuple[str, Key, str, int, Site | None]  # rule, function, message, how many functions, the first of them


def function_changes(old: Digest, new: Digest) -> Iterator[Finding]:
    """What became of every function that a tracer could use on either side."""
    files = old.with_files and new.with_files
    before, after = (side.functions if files else _by_name(side.functions) for side in (old, new))
    changes = list(_changes(before, after))
    for rule, n_nameless, where in (("diff-removed", new.n_nameless, "now"), ("diff-added", old.n_nameless, "before")):
        changes = _without_names(changes, rule, n_nameless, where) if n_nameless else changes
    for rule, key, text, n, site in changes:
        finding = change(rule, new.path, text, function=key[0] or None, count=n)
        if site is not None:
            finding = replace(finding, row=site.row, section=site.section, offset=site.offset)
        yield finding


def _by_name(functions: Functions) -> Functions:
    """The same functions, whatever source files they are from."""
    named: dict[Key, list[Site]] = {}
    for (name, _), sites in functions.items():
        named.setdefault((name, ""), []).extend(sites)
    return named


def _without_names(changes: Sequence[Change], rule: str, n_nameless: int, where: str) -> list[Change]:
    """The changes with all of a rule in one: names that one side has and the other, whose names are stripped, lacks."""
    n = sum(change[3] for change in changes if change[0] == rule)
    others = [change for change in changes if change[0] != rule]
    known = "their names are stripped" if n == n_nameless else "which of them are the same the files do not tell"
    text = f"{n} functions are known by name on one side only, and {n_nameless} sites have no name {where}: {known}"
    return [*others, (rule, ("", ""), text, n, None)] if n else others


def _changes(old: Functions, new: Functions) -> Iterator[Change]:
    pairs, gone, come = _match(old, new)
    for before, after in pairs:
        yield from _pair(after, old[before], new[after])
    renamed: set[Key] = set()
    for before, after in _renamed(old, new, gone, come):
        renamed |= {before, after}
        text = f"{before[0]} is {after[0]} now"
        yield "diff-renamed", after, text, _traceable(old[before]), _first(new[after])
    for key in gone:
        if key not in renamed and (n := _traceable(old[key])):
            yield "diff-removed", key, f"{_named(key)} is gone{_times(n)}", n, None
    for key in come:
        if key not in renamed and (n := _traceable(new[key])):
            yield "diff-added", key, f"{_named(key)} is new and traceable{_times(n)}", n, _first(new[key])


def _match(old: Functions, new: Functions) -> tuple[list[tuple[Key, Key]], list[Key], list[Key]]:
    """Pairs of keys that mean the same function, and those of either side that are left over."""
    gone, come = [key for key in old if key not in new], [key for key in new if key not in old]
    n_gone, n_come = Counter(name for name, _ in gone), Counter(name for name, _ in come)
    alone = {key[0]: key for key in come if n_come[key[0]] == 1}
    # one function of a name on each side is the same one, moved to another file
    moved = {key: alone[key[0]] for key in gone if n_gone[key[0]] == 1 and key[0] in alone}
    pairs = [*((key, key) for key in old if key in new), *moved.items()]
    taken = set(moved.values())
    return pairs, [key for key in gone if key not in moved], [key for key in come if key not in taken]


def _renamed(old: Functions, new: Functions, gone: list[Key], come: list[Key]) -> Iterator[tuple[Key, Key]]:
    """Pairs of what is left over that differ in the compiler's suffix alone, traceable on both sides."""
    waiting: defaultdict[Key, list[Key]] = defaultdict(list)
    for key in come:
        if _traceable(new[key]):
            waiting[base_name(key[0]), key[1]].append(key)
    for key in gone:
        same = waiting.get((base_name(key[0]), key[1]))
        if same and _traceable(old[key]):
            yield key, same.pop(0)


def _pair(key: Key, old: Sequence[Site], new: Sequence[Site]) -> Iterator[Change]:
    """What became of the functions of one name and file that both builds have."""
    n = _traceable(new) - _traceable(old)
    before, after = _redirected(old), _redirected(new)
    if n > 0:
        was = f": it was redirected to {before[0]}" if before and not after else ""
        yield "diff-gained", key, f"{_named(key)} became traceable{_times(n)}{was}", n, _first(new)
    elif n < 0 and len(new) > _traceable(new):
        site = max((site for site in new if site.state != "traceable"), key=lambda site: bool(site.to))
        why = f"it is redirected to {site.to}" if site.to else text_of(site.state, site.section)
        text = f"{_named(key)} is no longer traceable{_times(-n)}: {why}"
        yield "diff-lost", key, text, -n, site
    elif n < 0:
        yield "diff-removed", key, f"{-n} of {len(old)} functions called {_named(key)} are gone", -n, None
    elif before != after:
        now = f"is redirected to {', '.join(after)} now" if after else "is redirected no more"
        was = f", to {', '.join(before)} before" if before else ""
        yield "diff-redirected", key, f"{_named(key)} {now}{was}", 1, next((site for site in new if site.to), None)


def _redirected(sites: Sequence[Site]) -> list[str]:
    """Where those of some functions lead that are redirected."""
    return sorted(site.to for site in sites if site.to)


def _traceable(sites: Sequence[Site]) -> int:
    return sum(site.state == "traceable" for site in sites)


def _first(sites: Sequence[Site]) -> Site:
    return next(site for site in sites if site.state == "traceable")


def _named(key: Key) -> str:
    return f"{key[0]}@{key[1]}" if key[1] else key[0]


def _times(n: int) -> str:
    return f" ({n} functions)" if n > 1 else ""
