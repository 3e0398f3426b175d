"""Selectors: from what a user writes after --func to a mask over the site table.

    name   glob (vfs_*)   /regex/   !SEL   @file   0xVA   .section+0xOFF   row:N   name@file.c

Selectors are joined; `!` takes away, and only negative ones start from all named sites. Names never match sites without
one, left of dead weak functions or stripped: `--status weak-leftover`, `stripped` or `unnamed` adds those. Every other
status, and every section, narrows what the names chose. Calls of the profiling function that no record names
are matched by their own names; by globs, regexes and `!` alone only in a file without records, or with
`--status unrecorded`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, Mask, distinct, is_in
from ftpatch.elf.recovered import is_nameless
from ftpatch.errors import SelectionError, UnsupportedError
from ftpatch.inputs import read_input
from ftpatch.near_names import did_you_mean
from ftpatch.sites.patterns import Patterns
from ftpatch.sites.places import Places
from ftpatch.sites.table import NAMELESS, STATUSES, STRIPPED, UNLISTED, UNNAMED, SiteTable

FEW = 16  # plain names up to here are looked up one by one; more, through a dictionary of all names
INVALID = "__ftrace_invalid_address__"
MAX_LIST = 64 << 20  # bytes of an @file
BOM = "\ufeff"  # that some editors put in front of a text
MAX_LINES = 1 << 20  # in it


class Selection(NamedTuple):
    """The chosen sites, and what the user should be told about the choice."""

    mask: Mask  # per row of the site table
    notes: tuple[str, ...] = ()  # lines for the user


@dataclass
class _Names:
    """Names of the sites, decoded at most once."""

    table: SiteTable
    many: bool  # so many plain names are asked for that all are decoded
    patterned: Mask  # sites that a pattern may match
    notes: list[str] = field(default_factory=list)  # lines for the user
    patterns: Patterns = field(default_factory=Patterns)  # the time for regular expressions and globs

    @cached_property
    def places(self) -> Places:
        """The sites by address and offset."""
        return Places(self.table)

    @cached_property
    def all(self) -> dict[str, list[int]]:
        """Entries by function name, aliases included."""
        entries: dict[str, list[int]] = {}
        rows, name = self.table.image.functions.row, self.table.image.symbols.name
        for entry, (start, end) in enumerate(self.table.entries.spans()):  # one name is one Python string
            for row in rows[start:end].tolist():
                entries.setdefault(name(row), []).append(entry)
        return entries

    def of_row(self, row: int) -> I64:
        """The site of a slot: slots are the first sites, in their order."""
        has_slot = row < len(self.table) and self.table.row[row] == row
        return np.array([row] if has_slot else [], dtype=np.int64)

    def exact(self, name: str) -> I64:
        if self.many:
            return self.of_names([name])
        return self.of_symbols(self.table.image.symbols.rows_named(name))

    def of_names(self, names: Sequence[str]) -> I64:
        """Sites whose function has one of these names."""
        entries = [entry for name in names for entry in self.all.get(name, ())]
        return self.table.entries.sites_of(distinct(np.array(entries, dtype=np.int64)))

    def matching(self, names: Sequence[str]) -> I64:
        """As `of_names`, for names that a pattern matched."""
        sites = self.of_names(names)
        return np.asarray(sites[self.patterned[sites]])

    def of_symbols(self, rows: I64) -> I64:
        """Sites at whose entry one of these symbol rows stands."""
        entries = self.table.entries
        return entries.sites_of(entries.of_functions(entries.functions_of(rows)))


def select(
    table: SiteTable,
    func: Sequence[str],
    status: Sequence[str] = (),
    section: Sequence[str] = (),
    named: bool = False,
    missing: set[str] | None = None,
    unrecorded: bool = False,
) -> Selection:
    """The sites that the selectors choose. Without any name or status: all sites, or with `named` all that have a name.

    Raises SelectionError where a selector matches nothing; with `missing`, such selectors are put there instead, and
    nothing at all may be chosen: one file of many need not have what the others have. unrecorded: those alone that no
    record names.
    """
    for name in status:
        if name not in STATUSES:
            raise SelectionError("no such status", found=name, expected=", ".join(STATUSES))
    texts = expanded(func)
    wanted = [STATUSES.index(name) for name in status]
    lone = unrecorded or _unrecorded_too(table, wanted)
    patterned = (table.func < table.func_end) & (lone | ~is_in(table.status, UNLISTED))
    names = _Names(table, many=sum(_is_plain(text.lstrip("!")) for text in texts) > FEW, patterned=patterned)
    of_files = [text.lstrip("!").partition("@")[0] for text in texts if "@" in text]
    if len(of_files) > FEW:
        table.image.symbols.look_up(of_files)
    chosen = _named(table, names, texts, missing)
    if not texts and not status:
        chosen = patterned if named else ~chosen
    if wanted and not texts:
        chosen = is_in(table.status, wanted)
    elif set(wanted) - set(NAMELESS):
        chosen &= is_in(table.status, wanted)
    if nameless := set(wanted) & set(NAMELESS):
        chosen = chosen | is_in(table.status, sorted(nameless))
    if unrecorded:
        chosen = chosen & (table.row < 0)
    if section:
        chosen = chosen & _in_sections(table, section, missing)
    if missing is None and not chosen.any():
        raise SelectionError("the selection is empty", table.image.path,
                             found="no site matches all of --func, --status, --section and --unrecorded" if unrecorded
                             else "no site matches all of --func, --status and --section")  # fmt: skip
    return Selection(chosen, tuple(names.notes))


def _unrecorded_too(table: SiteTable, wanted: Sequence[int]) -> bool:
    """Whether a pattern means calls without a record, too: they are asked for, or the file has nothing else."""
    return bool(set(wanted) & set(UNLISTED)) or not bool((table.row >= 0).any())


def expanded(func: Sequence[str]) -> list[str]:
    """The selectors one by one, each once: every @file read, and replaced by its lines."""
    return list(dict.fromkeys(text for entry in func for text in _expand(entry)))


def _named(table: SiteTable, names: _Names, texts: Sequence[str], missing: set[str] | None) -> Mask:
    chosen = np.zeros(len(table), dtype=bool)
    if texts and all(text.startswith("!") for text in texts):
        chosen[:] = names.patterned
    for text in sorted(texts, key=lambda text: text.startswith("!")):  # what is taken away comes last
        selector = text.removeprefix("!")
        hits = _matches(table, names, selector)
        chosen[hits] = selector == text
        if not len(hits):
            if missing is None:
                raise _nothing(table, selector)
            missing.add(selector)
    return chosen


def _expand(text: str) -> list[str]:
    """One --func value as selectors: an @file becomes its lines."""
    negative, body = (text[:1] == "!"), text.removeprefix("!")
    if not body.startswith("@"):
        return [text]
    names = []
    for line in _read_list(body[1:]):
        words = line.split("#", 1)[0].split()
        if len(words) > 1 and re.fullmatch("[0-9a-f]{16}", words[0]):
            words = words[1:]  # available_filter_functions_addrs: the address is the running kernel's
        if len(words) > 1 and words[1].startswith("[") and words[1].endswith("]"):
            continue  # a module's function in a list that a running kernel printed
        if words and not words[0].startswith(INVALID):
            names.append(("!" if negative else "") + words[0])
    if not names:
        raise SelectionError("the list names no function of this file", body, expected="one function a line")
    return names


def _read_list(name: str) -> list[str]:
    content = read_input(name, MAX_LIST, "the list")
    if content.count(b"\n") > MAX_LINES:
        raise UnsupportedError("the list is too long", name, found=f"more than {MAX_LINES} lines",
                               todo="globs and regular expressions name many functions at once")  # fmt: skip
    return content.decode("utf-8", "surrogateescape").removeprefix(BOM).split("\n")


def _is_plain(text: str) -> bool:
    return not any(char in text for char in "*?[/@:+") and not text.startswith("0x")


def _matches(table: SiteTable, names: _Names, text: str) -> I64:
    """Site indices of one positive selector."""
    if not text:
        raise SelectionError("an empty selector", table.image.path, expected="a name, see ftpatch scan --sites")
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        hits = names.matching(names.patterns.regex(text[1:-1], names.all))
    elif re.fullmatch(r"row:\d{1,18}", text):
        hits = names.of_row(int(text[4:]))
    elif re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text):
        hits = names.places.at(int(text, 16))
    elif place := re.fullmatch(r"(.+)\+(0[xX][0-9a-fA-F]{1,16})", text):
        hits = names.places.within(place[1], int(place[2], 16))
    elif any(char in text for char in "*?["):
        hits = names.matching(names.patterns.glob(text, names.all))
    elif "@" in text[1:]:
        hits = _by_file(names, *text.split("@", 1))
    else:
        hits = names.exact(text)
        if len(hits) > 1:
            apart = "name@file.c" if names.table.image.recovered is None else "row:N or 0xVA"
            which = f"all of them are taken ({apart} tells them apart)"
            names.notes.append(f"{text} names {len(hits)} functions, {which}")
    return hits


def _by_file(names: _Names, name: str, file: str) -> I64:
    return names.of_symbols(names.table.image.symbols.rows_of_file(name, file))


def _in_sections(table: SiteTable, wanted: Sequence[str], missing: set[str] | None) -> Mask:
    for name in wanted:
        if not table.image.sections_named(name):
            if missing is not None:
                missing.add(name)
                continue
            used = [table.image.names[sec] for sec in distinct(table.sec[table.sec >= 0]).tolist()]
            todo = did_you_mean(name, used, "ftpatch scan names those with sites")
            raise SelectionError("no section of that name", table.image.path, found=name, todo=todo)
    return is_in(table.sec, table.image.sections_named(*wanted))


def _names(table: SiteTable) -> Iterator[str]:
    """The names of all functions that have a site, aliases included."""
    rows, name = table.image.functions.row, table.image.symbols.name
    for start, end in table.entries.spans():
        yield from map(name, rows[start:end].tolist())


def _nothing(table: SiteTable, text: str) -> SelectionError:
    """Why a selector matched nothing, as far as the symbol table can tell."""
    from ftpatch.sites.clones import proposal

    symbols = table.image.symbols
    plain = _is_plain(text)
    if "@" in text[1:] and table.image.recovered is not None:
        return SelectionError(
            "no source file is known", text, found="the kernel's own kallsyms, which has names alone",
            expected="a name without @", todo="row:N or 0xVA tell functions of one name apart",
        )  # fmt: skip
    instead, todo = proposal(table, text) if plain or "@" in text[1:] else ("", "")
    if instead:
        return SelectionError("no patch site of that name", text, found=instead, todo=todo)
    name = text.rpartition("@")[0]
    if name and not plain and _is_plain(name) and len(symbols.rows_named(name)):
        files = sorted({symbols.file_of(row) or "a global symbol without a file" for row in symbols.rows_named(name)})
        return SelectionError(
            "no function of that name in that source file", text, found=", ".join(files[:4]),
            expected="a file that the symbol table names, as it does for local symbols",
            todo="without @FILE, all of that name are taken",
        )  # fmt: skip
    if plain and len(symbols.rows_named(text)):
        return SelectionError(
            "the function has no patch site", text, found="a symbol without record", expected="a traceable function",
            todo="it is notrace, assembly, or was dropped from the table",
        )  # fmt: skip
    if re.fullmatch(r"row:\d+", text):
        return SelectionError("no such row", text, found=f"{int((table.row >= 0).sum())} rows, from 0 on",
                              expected="the row of a site", todo="ftpatch scan --sites lists all")  # fmt: skip
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", text) or re.fullmatch(r".+\+0[xX][0-9a-fA-F]+", text):
        return SelectionError("no patch site at this place", text, found="none", expected="the address of a site, a "
                              "record or an entry", todo="ftpatch scan --sites lists all")  # fmt: skip
    todo = "it may be inlined, renamed by the compiler (.isra, .constprop), or in a module"
    todo = did_you_mean(text, _names(table), todo) if plain else todo
    if n := int(is_in(table.status, (STRIPPED, UNNAMED)).sum()):
        todo = f"{n} functions of this file have no name, which may be stripped: row:N or .section+0xOFF choose them"
    if is_nameless(table.image.recovered):
        todo = "the kernel has no names at all, its functions are called by their addresses"
    return SelectionError("nothing of that name", text, found="no patch site",
                          expected="a function, see ftpatch scan --sites", todo=todo)  # fmt: skip
