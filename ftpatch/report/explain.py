"""What `explain` has to say as JSON objects: IMAGE objects with `explained` or `absent`, and `splats`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.document.rows import image_object
from ftpatch.explanation.diagnosis import Diagnosis
from ftpatch.explanation.function import Diagnoses, Explanation
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import STATUSES

if TYPE_CHECKING:
    from ftpatch.document.explained import SplatRow, SplatSite
    from ftpatch.document.types import ImageObject


def explanation_object(explanation: Explanation, hashed: bool) -> ImageObject:
    """The chosen sites, and beside each its explanation; or why there is no site of that name."""
    image = image_object(explanation.scan, explanation.chosen, explanation.scan.image.sha256 if hashed else None)
    image["asked"] = explanation.func
    if explanation.absence is not None:
        image["asked"], image["absent"] = explanation.absence["function"], explanation.absence
        return image
    for site, explained in zip(image["sites"], explanation.sites, strict=True):
        site["concurrency"] = explained["concurrency"] and explained["concurrency"]["class"]
    image["explained"], image["others"] = explanation.sites, explanation.others
    image["clones"], image["traceable_as"] = explanation.clones, list(explanation.traceable_as)
    return image


def splat_image(scan: Scan, diagnoses: Sequence[Diagnosis], hashed: bool) -> ImageObject:
    """The file that was given with a log, and the sites that its messages may mean."""
    chosen = np.zeros(len(scan.sites), dtype=bool)
    chosen[[index for diagnosis in diagnoses for index in diagnosis.index]] = True
    return image_object(scan, chosen, scan.image.sha256 if hashed else None)


def splat_rows(diagnoses: Diagnoses) -> list[SplatRow]:
    """One object per message."""
    return [_splat(diagnosis, diagnoses.scan) for diagnosis in diagnoses.told]


def _splat(diagnosis: Diagnosis, scan: Scan | None) -> SplatRow:
    splat = diagnosis.splat
    return {
        "what": splat.what or None,
        "machine": splat.machine or None,
        "release": splat.release or None,
        "function": splat.function,
        "offset": f"0x{splat.offset:x}" if splat.function else None,
        "module": splat.module,
        "ip": _hex(splat.ip, 16),
        "phase": splat.phase or None,
        "expected": _hex(diagnosis.expected, 8),
        "found": _hex(diagnosis.found, 8),
        "actual": _hex(splat.actual, 8),
        "remarks": [{"message": message, "text": text} for message, text in splat.remarks],
        "sites": [_site(scan, index) for index in diagnosis.index] if scan else [],
        "foretold": diagnosis.foretold,
        "cause": diagnosis.cause.text,
        "rule": diagnosis.cause.rule or None,
        "help": diagnosis.cause.todo,
        "notes": list(diagnosis.notes),
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
