"""Rules about objects and modules as compilers and linkers leave them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ftpatch.elf.tables import SHF_LINK_ORDER
from ftpatch.rules.case import Case, Hit, first
from ftpatch.rules.lost_units import can_leave_out
from ftpatch.sites.elsewhere import records_elsewhere
from ftpatch.sites.matching import is_patched
from ftpatch.sites.reading import CALL_RECORDS
from ftpatch.sites.records import record_sections

# functions without a record that are no accident: at least so many, and one for so many that have theirs
MANY, AMONG = 8, 100


def nops_without_record(case: Case) -> Iterator[Hit]:
    """Functions that are built to be traced and are not recorded."""
    lost = _lost(case)
    if _meant(case, len(lost)) or (case.image.linked and not _surely_lost(case, len(lost))):
        return
    for name, section, offset in lost:
        yield Hit(f"{name} starts with the NOPs of a site and has no record", None, name, section, offset)


def recorded_elsewhere(case: Case) -> Iterator[Hit]:
    """Functions with a site that are not to be traced: their records are, or were, where no kernel looks."""
    for section, va in records_elsewhere(case.image).items():
        text = f"{len(va)} records of functions that are not to be traced: no kernel reads this section"
        yield Hit(text, section=section, count=len(va))
    lost = _lost(case)
    if _meant(case, len(lost)):
        text = (
            f"{len(lost)} functions start with the NOPs of a site and have no record, {int(case.live.sum())} have one"
        )
        yield Hit(f"{text}: likely not to be traced, their records left out of the link", count=len(lost))


def _lost(case: Case) -> Sequence[tuple[str, str, int]]:
    """Functions with the NOPs of a site and without a record; none where those are calls, or a patch took records.

    Those of units that lost all records are told unit by unit.
    """
    shape = case.table.shape
    if shape is None or shape.called or is_patched(case.image) or not case.unrecorded:
        return ()
    of_units = {place for places in case.lost_units.values() for place in places}
    return [place for place in case.unrecorded if place not in of_units]


def _surely_lost(case: Case, n: int) -> bool:
    """Whether n functions of a kernel without a record had one: NOPs at an entry may be a function's own, but not those
    in front of it; and each empty slot may be that of a function whose record was dropped."""
    shape = case.table.shape
    return shape is not None and shape.literal is not None and n > int(case.records.null.sum())


def _meant(case: Case, n: int) -> bool:
    """Whether n functions without a record are likely meant not to have one."""
    if not n or n > int(case.live.sum()):
        return False
    return (n >= MANY and n * AMONG >= int(case.live.sum())) or (not case.image.linked and can_leave_out(case.image))


def link_order(case: Case) -> Iterator[Hit]:
    """Record sections that a linker may drop or order apart from the code they name."""
    image, records = case.image, case.records
    for sec in record_sections(image):
        if image.names[sec] == CALL_RECORDS:
            continue
        low, size = int(image.shdr["sh_offset"][sec]), int(image.shdr["sh_size"][sec])
        mine = (records.slot >= low) & (records.slot < low + size) & (records.sec >= 0)
        named, n = np.unique(records.sec[mine]).tolist(), int(mine.sum())
        link, flags = int(image.shdr["sh_link"][sec]), int(image.shdr["sh_flags"][sec])
        where = first([image.names[target] for target in named])
        if not flags & SHF_LINK_ORDER or not link:
            text = f"section {sec} with {n} records of {where} has no SHF_LINK_ORDER"
        elif named and named != [link] and link < len(image.names):
            text = f"section {sec} is linked to {image.names[link]}, its {n} records name {where}"
        else:
            continue
        yield Hit(text, section=image.names[sec], count=n)
