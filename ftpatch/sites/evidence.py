"""How sure it is that a patch made an enabled site without a record: by what its call leads to."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U64, distinct
from ftpatch.elf.relocations import relocations_of
from ftpatch.sites.callees import Callee, called_from, tracers
from ftpatch.sites.table import ENABLED, SiteTable


def callees_of(table: SiteTable) -> dict[int, Callee]:
    """What each site that calls without a record leads to, by its index in the table."""
    index = np.flatnonzero((table.row < 0) & (table.status == ENABLED) & ~table.redirected)
    image, shape = table.image, table.shape
    if shape is None or not len(index):
        return {}
    if not image.linked:
        return _relocated_to(table, index)
    called = called_by(table, index)
    known = tracers(image, shape, called)
    return {site: known[va] for site, va in zip(index.tolist(), called.tolist(), strict=True) if va in known}


def called_by(table: SiteTable, index: I64) -> U64:
    """va that each of these enabled sites of a linked file calls; out of line, what its stub calls."""
    assert table.shape is not None  # no site is enabled without a layout
    distance = table.shape.branch.distance(table.body()[index])
    return called_from(table.image, table.shape, table.branch_va[index], distance)


def _relocated_to(table: SiteTable, index: I64) -> dict[int, Callee]:
    """The symbols that the calls of a relocatable file's sites are relocated to, which only this program makes."""
    image, names = table.image, {}
    for sec in distinct(table.sec[index]).tolist():
        rows = relocations_of(image, sec)
        does = rows.kind != image.arch.none  # others are an object's marks
        of_place = dict(zip(rows.off[does].tolist(), rows.symbol[does].tolist(), strict=True))
        for site in index[table.sec[index] == sec].tolist():
            row = of_place.get(int(table.branch_va[site]) - int(image.base[sec]) + image.arch.call.relocated_at)
            names[site] = Callee(image.symbols.name(row) if row is not None else "", sure=True)
    return names
