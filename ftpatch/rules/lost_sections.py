"""Rules about whole sections of records that are gone: of a file, or of one unit that was linked into it.

Functions that begin with the NOPs of a site had records once. Where all of a file or of a unit lack theirs, a section
was lost: by strip, objcopy --remove-section, --gc-sections. A few functions of many are the rules' of `objects`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ftpatch.elf.compiler_units import CompilerUnits, debug_info_size
from ftpatch.elf.image import Image
from ftpatch.rules.case import Case, Hit, first
from ftpatch.rules.lost import unrecorded
from ftpatch.rules.lost_units import Place, file_symbols, functions_at
from ftpatch.sites.elsewhere import records_elsewhere
from ftpatch.sites.layout import shapes_of
from ftpatch.sites.matching import is_patched
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import join

FEW = 4  # one function of so many has to begin like a site, where debug information does not tell


def records_missing(case: Case) -> Iterator[Hit]:
    """A file without any record whose functions begin with the NOPs of sites."""
    image = case.image
    if len(case.records) or (case.table.shape is not None and case.table.shape.called) or is_patched(image):
        return
    if records_elsewhere(image):  # another rule's
        return
    places: Sequence[Place] = ()
    for shape in shapes_of(image):
        if not (shape.called or shape.anywhere or shape.program or shape.refusal):
            places = max(places, tuple(unrecorded(image, read_sites(image, join([]), shape.name))), key=len)
    # a few that begin with NOPs of their own are no sites: assembly, or code that is patched in other ways
    if 1 < len(places) >= len(np.unique(image.functions.va)) // FEW or (places and _told(image, places)):
        n = "1 function starts" if len(places) == 1 else f"{len(places)} functions start"
        names = first([name for name, _, _ in places])
        yield Hit(f"no record at all, and {n} with the NOPs of a site: {names}{_built_from(image, places)}",
                  None, None, *places[0][1:], count=len(places))  # fmt: skip


def unit_records_missing(case: Case) -> Iterator[Hit]:
    """Units of which no function has a record, beside others that have theirs."""
    for file, places in case.lost_units.items():
        some = first([name for name, _, _ in places])
        text = f"{file}: {len(places)} functions start with the NOPs of a site and none has a record: {some}"
        yield Hit(text, None, places[0][0], *places[0][1:], count=len(places))


def _told(image: Image, places: Sequence[Place]) -> bool:
    """Whether debug information tells that functions were built to have sites."""
    if not debug_info_size(image):
        return False
    debug = CompilerUnits(image)
    units = [debug.units[n] for n in debug.of(image.functions.va[functions_at(image, places)]).tolist() if n >= 0]
    return any(unit.producer is not None and unit.producer.layout is not None for unit in units)


def _built_from(image: Image, places: Sequence[Place]) -> str:
    """The source files of functions, for people; "" where the file does not tell them."""
    index = functions_at(image, places)
    files: list[str] = []
    if debug_info_size(image):
        debug = CompilerUnits(image)
        units = debug.of(image.functions.va[index])
        files = [debug.units[unit].file for unit in np.unique(units[units >= 0]).tolist()]
    if not files:
        labels = file_symbols(image, image.functions.row[index])
        files = [image.symbols.name(row) for row in np.unique(labels[labels >= 0]).tolist()]
    return f" (built from {first(list(dict.fromkeys(files)))})" if files else ""
