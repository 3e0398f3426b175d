"""What `explain` has to say as JSON objects: IMAGE objects with `explained` or `absent`, and `splats`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.document.rows import image_object
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import STATUSES

if TYPE_CHECKING:
    from ftpatch.document.explained import SplatRow, SplatSite
    from ftpatch.document.types import ImageObject
    from ftpatch.explanation.diagnosis import Diagnosis
    from ftpatch.explanation.function import Diagnoses, Explanation


def explanation_object(explanation: Explanation, hashed: bool) -> ImageObject:
    """The chosen sites, and beside each its explanation; or why there is no site of that name."""
    image = image_object(explanation.scan, explanation.chosen, explanation.scan.image.sha256 if hashed else None)
    image["asked"] = explanation.func
    if explanation.absence is not None:
        image["asked"], image["absent"] = explanation.absence["function"], explanation.absence
        return image
    for site, explained in zip(image["sites"], explanation.sites, strict=True):
        site["concurrency"] = explained["concurrency"] and explained["concurrency"]["class"]
        site["live"] = explained["live"]["answer"] if "live" in explained else None
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
    from ftpatch.explanation.evidence import flag_names  # loaded where there is a message

    splat, origin = diagnosis.splat, diagnosis.origin
    digits = 2 * len(splat.actual or b"1234")
    return {
        "what": splat.what or None,
        "machine": origin.name or None,
        "machine_by": origin.by or None,
        "release": splat.release or None,
        "function": splat.function,
        "offset": f"0x{splat.offset:x}" if splat.function else None,
        "module": splat.module,
        "ip": _hex(splat.ip, 16),
        "phase": splat.phase or None,
        "expected": _hex(diagnosis.expected, digits if origin.wanted_number == diagnosis.expected else 8),
        "found": _hex(diagnosis.found, 8),
        "actual": _hex(origin.number, digits),
        "actual_text": origin.actual.text or None,
        "actual_to": _hex(origin.actual.to, 16),
        "expected_text": origin.wanted.text or None,
        "flags": None if splat.flags is None else {
            "value": f"0x{splat.flags:x}", "names": flag_names(splat.flags), "users": splat.users,
        },
        "tramp": _hex(splat.tramp, 16),
        "tramps": list(splat.tramps),
        "remarks": [{"message": message, "text": text} for message, text in splat.remarks],
        "sites": [_site(scan, index) for index in diagnosis.index] if scan else [],
        "foretold": diagnosis.foretold,
        "cause": diagnosis.cause.text,
        "certainty": diagnosis.certainty,
        "rule": diagnosis.cause.rule or None,
        "help": diagnosis.cause.todo,
        "causes": [{"text": one.cause.text, "rule": one.cause.rule or None, "help": one.cause.todo,
                    "certainty": one.certainty} for one in diagnosis.causes],
        "notes": list(diagnosis.notes),
    }  # fmt: skip


def _site(scan: Scan, index: int) -> SplatSite:
    table = scan.sites
    return {
        "row": int(table.row[index]) if table.row[index] >= 0 else None, "function": table.name(index),
        "place": table.place_text(index), "status": STATUSES[table.status[index]], "words": table.words_text(index),
        "pos": int(table.pos[index]),
    }  # fmt: skip


def _hex(value: int | None, digits: int) -> str | None:
    return None if value is None else f"0x{value:0{digits}x}"
