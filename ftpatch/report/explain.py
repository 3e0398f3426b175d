"""What `explain` has to say as JSON objects: IMAGE objects with `explained` or `absent`, and `splats`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.document.rows import image_object
from ftpatch.explain.diagnosis import Diagnosis
from ftpatch.explain.untraceable import Absence, Named
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import STATUSES

if TYPE_CHECKING:
    from ftpatch.document.explained import AbsentObject, ExplainedRow, SplatRow, SplatSite, SymbolRow
    from ftpatch.document.types import ImageObject


def explain_object(
    scan: Scan, chosen: Mask, told: list[ExplainedRow], func: str, others: Sequence[Named], hashed: bool
) -> ImageObject:
    """The chosen sites, and beside each its explanation. func: the selector; others: same names without a site."""
    image = image_object(scan, chosen, scan.image.sha256 if hashed else None)
    for site, more in zip(image["sites"], told, strict=True):
        concurrency = more["concurrency"]
        site["concurrency"] = concurrency and concurrency["class"]
    image["asked"], image["explained"], image["others"] = func, told, _symbols(others)
    return image


def absence_object(scan: Scan, absence: Absence, hashed: bool) -> ImageObject:
    """Why there is no site of that name."""
    nothing = np.zeros(len(scan.sites), dtype=bool)
    image = image_object(scan, nothing, scan.image.sha256 if hashed else None)
    inlined = [one for one in absence.debug.functions if one.inlined]
    absent: AbsentObject = {
        "function": absence.name,
        "text": absence.text,
        "symbols": _symbols(absence.symbols),
        "renamed": [{"name": name, "text": text} for name, text in absence.clones],
        "inlined": {
            "units": len(inlined), "copies": sum(one.copies for one in inlined),
            "unreadable": absence.debug.unreadable or None,
        },
        "imported": absence.imported,
        "modules": None if absence.modules is None else list(absence.modules),
        "near": list(absence.near),
    }  # fmt: skip
    image["asked"], image["absent"] = absence.name, absent
    return image


def _symbols(named: Sequence[Named]) -> list[SymbolRow]:
    return [
        {
            "name": one.name, "file": one.file, "section": one.section, "va": f"0x{one.va:016x}", "state": one.state,
            "text": one.text,
        }
        for one in named
    ]  # fmt: skip


def splat_image(scan: Scan, told: Sequence[Diagnosis], hashed: bool) -> ImageObject:
    """The file that was given with a log, and the sites that its messages may mean."""
    chosen = np.zeros(len(scan.sites), dtype=bool)
    chosen[[index for one in told for index in one.index]] = True
    return image_object(scan, chosen, scan.image.sha256 if hashed else None)


def splat_rows(told: Sequence[Diagnosis], scan: Scan | None = None) -> list[SplatRow]:
    """One object per message."""
    return [_splat(one, scan) for one in told]


def _splat(one: Diagnosis, scan: Scan | None) -> SplatRow:
    splat = one.splat
    return {
        "what": splat.what or None,
        "machine": splat.machine or None,
        "release": splat.release or None,
        "function": splat.function,
        "offset": f"0x{splat.offset:x}" if splat.function else None,
        "module": splat.module,
        "ip": _hex(splat.ip, 16),
        "phase": splat.phase or None,
        "expected": _hex(one.expected, 8),
        "found": _hex(one.found, 8),
        "actual": _hex(splat.actual, 8),
        "remarks": [{"message": message, "text": text} for message, text in splat.remarks],
        "sites": [_site(scan, index) for index in one.index] if scan else [],
        "foretold": one.foretold,
        "cause": one.cause.text,
        "rule": one.cause.rule or None,
        "help": one.cause.todo,
        "notes": list(one.notes),
    }


def _site(scan: Scan, index: int) -> SplatSite:
    table = scan.sites
    return {
        "row": int(table.row[index]) if table.row[index] >= 0 else None, "function": table.name(index),
        "place": table.place_text(index), "status": STATUSES[table.status[index]], "words": table.words_text(index),
        "pos": int(table.pos[index]),
    }  # fmt: skip


def _hex(value: int | None, digits: int) -> str | None:
    return None if value is None else f"0x{value:0{digits}x}"
