"""Units of a file that lost all their records, as one does whose record section is gone; where functions are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ftpatch.arrays import I64
from ftpatch.elf.compiler_units import debug_info_size
from ftpatch.elf.image import Image
from ftpatch.elf.tables import STB_LOCAL, STT_FILE
from ftpatch.sites.table import UNLISTED, SiteTable
from ftpatch.sites.units import UnitTable

Place = tuple[str, str, int]  # function, section, offset of its symbol
SINCE = 21  # of clang: where -fpatchable-function-entry=N,M,SECTION came


def lost_units(table: SiteTable, told: UnitTable | None, places: Sequence[Place]) -> Mapping[str, list[Place]]:
    """Source file → its functions, of units that were built to have records and have none, beside others with some.

    places: all functions with the NOPs of a site and without a record. told: what the compiler was told, where the file
    tells that; else a relocatable file tells by its symbols which functions were one unit.
    """
    image = table.image
    if not places or not len(table) or can_leave_out(image):
        return {}
    index = functions_at(image, places)
    if told is not None:
        unit, files = told.of_functions[index], [each.file for each in told.units]
        lost = np.array([told.n_sites[n] == 0 and told.gives_sites(told.units[n]) is True for n in unit.tolist()])
    elif image.linked or debug_info_size(image):
        return {}
    else:
        recorded = (table.func < table.func_end) & ~np.isin(table.status, UNLISTED)
        with_records = file_symbols(image, image.functions.row[table.func[recorded]])
        unit, files = file_symbols(image, image.functions.row[index]), []
        lost = ~np.isin(unit, with_records)
    units: dict[str, list[Place]] = {}
    for place, number, is_lost in zip(places, unit.tolist(), lost.tolist(), strict=True):
        if is_lost and number >= 0:
            units.setdefault(files[number] if files else image.symbols.name(number), []).append(place)
    return units if told is not None else {file: each for file, each in units.items() if len(each) > 1}


def can_leave_out(image: Image) -> bool:
    """Whether a compiler made the file that can record functions elsewhere, and no other did."""
    comment = b"".join(image.content(sec).tobytes() for sec in image.sections_named(".comment"))
    versions = [int(version) for version in re.findall(rb"clang version (\d{1,4})", comment)]
    return b"GCC:" not in comment and (min(versions, default=0) >= SINCE or (not versions and b"rustc" in comment))


def functions_at(image: Image, places: Sequence[Place]) -> I64:
    """Index of the first function at each place."""
    sections = {name: image.sections_named(name)[0] for _, name, _ in places}
    va = np.array([int(image.base[sections[name]]) + off for _, name, off in places], dtype=np.uint64)
    return np.asarray(np.searchsorted(image.functions.va, va))


def file_symbols(image: Image, rows: I64) -> I64:
    """Row of the STT_FILE symbol that each local symbol belongs to; −1 for globals, and where there is none."""
    files = np.flatnonzero(image.symbols.type == STT_FILE)
    before = np.searchsorted(files, rows) - 1
    known = (image.symbols.bind[rows] == STB_LOCAL) & (before >= 0)
    return np.where(known, np.append(files, -1)[before], -1)
