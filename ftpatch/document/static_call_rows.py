"""From tables of static calls to the objects of a report."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.elf.image import Image
from ftpatch.kernel.init_text import in_init_code
from ftpatch.kernel.static_call_lines import CROSSES, NOT_KNOWN, line_crossings
from ftpatch.sites.place_names import names_around, names_of
from ftpatch.sites.static_calls import INIT, StaticCallTable
from ftpatch.sites.static_functions import functions_of
from ftpatch.sites.static_keys import Named

if TYPE_CHECKING:
    from ftpatch.document.static_calls import OtherUpdateRow, StaticCallRow, StaticCallsObject, StaticKeyRow

ALWAYS = ("call", "tail", "conditional")  # kinds of sites that are counted even where there are none
NOWHERE, ELSEWHERE = "(nowhere)", "elsewhere"
FEW = 20  # keys that a brief report lists: those with the most sites


class Asked(NamedTuple):
    """What is to be shown of a file."""

    keys: Mask | None = None  # which keys; None: all
    line: int | None = None  # bytes of a cache line; None: the machine's
    calls: bool = False  # the sites of these keys
    against: tuple[StaticCallTable, ...] = ()  # files that may have the keys of others
    brief: bool = False  # FEW of all keys, and nothing that has to be looked for in code and data


def static_calls_object(table: StaticCallTable, asked: Asked) -> StaticCallsObject:
    """The static calls of a file: the counts of all, and the rows that are asked for."""
    calls, names = table.calls, table.image.names
    line = asked.line or table.image.arch.cache_line
    crossings = line_crossings(table, line)
    by_kind = Counter(table.kinds())
    sections = Counter((calls.sec + 1).tolist())
    per_key = np.bincount(calls.key[calls.key >= 0], minlength=len(table.keys))
    kinds = Counter(kind or ELSEWHERE for kind in table.trampoline_kinds())
    made: StaticCallsObject = {
        "sites": len(calls),
        "keys": len(table.keys),
        "cross_line": int((crossings == CROSSES).sum()),
        "by_kind": {kind: by_kind[kind] for kind in (*ALWAYS, *sorted(set(by_kind) - set(ALWAYS)))},
        "line_size": line,
        "not_known": int(((crossings == NOT_KNOWN) & (table.words_at() >= 0)).sum()),
        "by_section": _named_sections(sections, names),
        "with_sites": int((per_key > 0).sum()),
        "by_trampoline": dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0]))),
        "inline": table.inline,
        "pointers": table.n_pointers,
        "entries": [],
    }
    chosen = np.arange(len(table.keys)) if asked.keys is None else np.flatnonzero(asked.keys)
    if asked.brief and asked.keys is None:
        chosen = np.argsort(-per_key, kind="stable")[:FEW]
    rows = key_rows(table, chosen, crossings)
    if asked.against:
        add_keys_elsewhere(table, asked.against, chosen, rows)
    if not asked.brief:
        made["other_updates"] = add_what_code_tells(table, chosen, rows)
    made["entries"] = rows
    if asked.calls:
        wanted = np.ones(len(calls), dtype=bool)
        if asked.keys is not None:
            wanted = (calls.key >= 0) & np.append(asked.keys, False)[calls.key]
        made["calls"] = call_rows(table, wanted, crossings)
    return made


def key_rows(table: StaticCallTable, chosen: I64, crossings: I64) -> list[StaticKeyRow]:
    """One object per chosen key, without what only code and other tables tell. chosen: rows."""
    image, keys, calls = table.image, table.keys, table.calls
    function, leads_to = functions_of(table, chosen), names_of(image, _subset(keys.leads_to, chosen))
    sections = _sections(table, chosen)
    crossing = np.bincount(calls.key[(calls.key >= 0) & (crossings == CROSSES)], minlength=len(keys)).tolist()
    kinds, trampoline = table.trampoline_kinds(), table.trampolines
    rows: list[StaticKeyRow] = []
    for at, i in enumerate(chosen.tolist()):  # a report is one Python object per key
        here, row = bool(keys.sec[i] >= 0), int(keys.trampoline[i])
        rows.append(
            {
                "key": keys.name[i],
                "function": function[at],
                "trampoline": image.symbols.name(row) if row >= 0 else None,
                "trampoline_kind": kinds[i],
                "sites": sum(sections[at].values()),
                "exported": None,
                "in_module": here and image.kind == "module",
                "defined": here,
                "address": _address(image, int(keys.sec[i]), int(keys.off[i])),
                "trampoline_address": _address(image, int(trampoline[0][i]), int(trampoline[1][i])),
                "leads_to": leads_to[at],
                "cross_line": crossing[i],
                "sections": sections[at],
                "tramp_key": False,
                "found_in": None,
                "usable": None,
                "updated_by": None,
                "pointed_to_by": [],
            }
        )
    return rows


def add_what_code_tells(
    table: StaticCallTable, chosen: I64, rows: list[StaticKeyRow]
) -> list[OtherUpdateRow] | None:  # fmt: skip
    """Put into rows what exports, code and data tell of their keys; the updates that name no key."""
    from ftpatch.kernel.static_call_exports import exported, paired
    from ftpatch.kernel.static_call_pointers import pointers_to
    from ftpatch.kernel.static_call_updates import updates_of

    exports, pairs, pointers, updates = exported(table), paired(table), pointers_to(table), updates_of(table)
    for i, row in zip(chosen.tolist(), rows, strict=True):
        row["exported"], row["tramp_key"] = exports[i], bool(pairs[i])
        row["pointed_to_by"] = pointers.get(i, [])
        if updates is not None:
            row["updated_by"] = [{"function": name, "init": init} for name, init in updates.by_key.get(i, ())]
    if updates is None:
        return None
    return [{"function": name, "init": init, "calls": n} for (name, init), n in updates.others.items()]


def add_keys_elsewhere(
    table: StaticCallTable, others: tuple[StaticCallTable, ...], chosen: I64, rows: list[StaticKeyRow]
) -> None:  # fmt: skip
    """Put into rows which other file has their keys."""
    from ftpatch.kernel.static_call_loading import keys_elsewhere

    found = keys_elsewhere(table, others)
    for i, row in zip(chosen.tolist(), rows, strict=True):
        if i in found:
            row["found_in"], row["function"], row["usable"] = found[i]


def call_rows(table: StaticCallTable, wanted: Mask, crossings: I64) -> list[StaticCallRow]:
    """One object per wanted site, in the order of the table."""
    image, calls, kinds, tail = table.image, table.calls, table.kinds(), table.calls.tail
    index = np.flatnonzero(wanted)
    sec, off = calls.sec[index], calls.off[index]
    function = names_around(image, sec, off)
    destination = names_of(image, _subset(calls.destination, index))
    init = (calls.flags[index] & INIT != 0) | in_init_code(image, sec, off)
    codes = table.codes(index)
    rows: list[StaticCallRow] = []
    for i, call in enumerate(index.tolist()):
        place, key, crosses = int(sec[i]), int(calls.key[call]), int(crossings[call])
        known = None if crosses == NOT_KNOWN else crosses == CROSSES
        rows.append(
            {
                "key": table.keys.name[key] if key >= 0 else None,
                "function": function[i],
                "section": image.names[place] if place >= 0 else None,
                "address": _address(image, place, int(off[i])),
                "kind": kinds[call],
                "destination": destination[i],
                "crosses_line": known,
                "concurrency": None if known is None else "cross-line" if known else "single",
                "tail": bool(tail[call]),
                "init": bool(init[i]),
                "code": codes[i],
            }
        )
    return rows


def _subset(named: Named, rows: I64) -> Named:
    return Named(*(column[rows] for column in named))


def _sections(table: StaticCallTable, chosen: I64) -> list[dict[str, int]]:
    """For each of these keys, its sites by section."""
    at = np.full(len(table.keys) + 1, -1)
    at[chosen] = np.arange(len(chosen))
    index = at[table.calls.key]
    hit = index >= 0
    counts: list[Counter[int]] = [Counter() for _ in range(len(chosen))]
    for row, sec in zip(index[hit].tolist(), (table.calls.sec[hit] + 1).tolist(), strict=True):
        counts[row][sec] += 1
    return [_named_sections(count, table.image.names) for count in counts]


def _named_sections(counts: Counter[int], names: tuple[str, ...]) -> dict[str, int]:
    """Counts by section name, which several sections may share. counts: by number + 1."""
    named: dict[str, int] = {}
    for number, n in sorted(counts.items(), key=lambda item: -item[1]):
        name = names[number - 1] if number else NOWHERE
        named[name] = named.get(name, 0) + n
    return named


def _address(image: Image, sec: int, off: int) -> str | None:
    if sec < 0:
        return None
    return hex((int(image.base[sec]) if image.linked else 0) + off & 0xFFFF_FFFF_FFFF_FFFF)
