"""From tables of static calls to the objects of a report."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.elf.identity import build_id
from ftpatch.elf.image import Image
from ftpatch.kernel.init_text import in_init_text
from ftpatch.kernel.static_call_exports import exported
from ftpatch.kernel.static_call_lines import CROSSES, NOT_KNOWN, line_crossings
from ftpatch.sites.place_names import names_around, names_of
from ftpatch.sites.static_calls import INIT, StaticCallTable
from ftpatch.sites.static_keys import Named

if TYPE_CHECKING:
    from ftpatch.document.static_calls import StaticCallRow, StaticCallsObject, StaticKeyRow
    from ftpatch.document.types import FileObject

ALWAYS = ("call", "tail", "conditional")  # kinds of sites that are counted even where there are none
NULL, RETURN0 = "NULL", "return0"  # what a key may hold instead of a function


def file_object(image: Image, sha256: str | None) -> FileObject:
    """What every report says of a file."""
    return {
        "file": image.path, "sha256": sha256, "build_id": build_id(image), "arch": image.arch.name, "kind": image.kind,
    }  # fmt: skip


def static_calls_object(
    table: StaticCallTable, chosen: Mask | None = None, line_size: int | None = None, with_calls: bool = False
) -> StaticCallsObject:
    """The static calls of a file. chosen: of its keys, None for all; the counts are those of all."""
    keys = np.ones(len(table.keys), dtype=bool) if chosen is None else chosen
    line = line_size or table.image.arch.cache_line
    crossings = line_crossings(table, line)
    by_kind = Counter(table.kinds())
    made: StaticCallsObject = {
        "sites": len(table.calls),
        "keys": len(table.keys),
        "cross_line": int((crossings == CROSSES).sum()),
        "by_kind": {kind: by_kind[kind] for kind in (*ALWAYS, *sorted(set(by_kind) - set(ALWAYS)))},
        "line_size": line,
        "entries": key_rows(table, keys, crossings),
    }
    if with_calls:
        known = table.calls.key >= 0
        wanted = np.where(known, keys[table.calls.key], False) if len(keys) else known
        made["calls"] = call_rows(table, wanted if chosen is not None else np.ones(len(known), bool), crossings)
    return made


def key_rows(table: StaticCallTable, chosen: Mask, crossings: I64) -> list[StaticKeyRow]:
    """One object per chosen key."""
    image, keys, calls = table.image, table.keys, table.calls
    function, leads_to = (names_of(image, named) for named in (keys.func, keys.leads_to))
    sections = _sections(table)
    n_crossing = np.bincount(calls.key[(calls.key >= 0) & (crossings == CROSSES)], minlength=len(keys)).tolist()
    exports, kinds, return0 = exported(table), table.trampoline_kinds(), table.is_return0()
    trampoline = table.trampolines
    rows: list[StaticKeyRow] = []
    for i in np.flatnonzero(chosen).tolist():  # a report is one Python object per key
        here, row = keys.sec[i] >= 0, int(keys.trampoline[i])
        target = function[i] or (NULL if here and keys.func.symbol[i] < 0 else None)
        rows.append(
            {
                "key": keys.name[i],
                "function": RETURN0 if return0[i] else target,
                "trampoline": image.symbols.name(row) if row >= 0 else None,
                "trampoline_kind": kinds[i],
                "sites": sum(sections[i].values()),
                "exported": exports[i],
                "in_module": bool(here and image.kind == "module"),
                "defined": bool(here),
                "address": _address(image, int(keys.sec[i]), int(keys.off[i])),
                "trampoline_address": _address(image, int(trampoline[0][i]), int(trampoline[1][i])),
                "leads_to": leads_to[i],
                "cross_line": n_crossing[i],
                "sections": dict(sections[i]),
            }
        )
    return rows


def call_rows(table: StaticCallTable, wanted: Mask, crossings: I64) -> list[StaticCallRow]:
    """One object per wanted site, in the order of the table."""
    image, calls, kinds = table.image, table.calls, table.kinds()
    index = np.flatnonzero(wanted)
    sec, off = calls.sec[index], calls.off[index]
    function = names_around(image, sec, off)
    destination = names_of(image, Named(*(column[index] for column in calls.destination)))
    init = (calls.flags[index] & INIT != 0) | in_init(image, sec, off)
    codes = table.codes(index)
    rows: list[StaticCallRow] = []
    for i, call in enumerate(index.tolist()):
        place, key, crosses = int(sec[i]), int(calls.key[call]), int(crossings[call])
        known = None if crosses == NOT_KNOWN else crosses == CROSSES
        rows.append(
            {
                "key": table.keys.name[key] if key >= 0 else "?",
                "function": function[i],
                "section": image.names[place] if place >= 0 else None,
                "address": _address(image, place, int(off[i])),
                "kind": kinds[call],
                "destination": destination[i],
                "crosses_line": known,
                "concurrency": None if known is None else "cross-line" if known else "single",
                "tail": bool(calls.tail[call]),
                "init": bool(init[i]),
                "code": codes[i],
            }
        )
    return rows


def in_init(image: Image, sec: I64, off: I64) -> Mask:
    """Which places lie in code that is freed once it ran."""
    if image.linked:
        return in_init_text(image, image.va(sec, off))
    starts = np.array([name.startswith(".init") for name in image.names], dtype=bool)
    return np.asarray((sec >= 0) & starts[sec])


def _sections(table: StaticCallTable) -> list[Counter[str]]:
    """For each key, its sites by section."""
    counts: list[Counter[str]] = [Counter() for _ in range(len(table.keys))]
    names = table.image.names
    for key, sec in zip(table.calls.key.tolist(), table.calls.sec.tolist(), strict=True):
        if key >= 0:
            counts[key][names[sec] if sec >= 0 else "(nowhere)"] += 1
    return counts


def _address(image: Image, sec: int, off: int) -> str | None:
    if sec < 0:
        return None
    va = (int(image.base[sec]) if image.linked else 0) + off
    return hex(va & 0xFFFF_FFFF_FFFF_FFFF)
