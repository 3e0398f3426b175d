"""What the compiler was told, unit by unit, beside the functions and the sites that are there.

A unit is one source file, compiled once. Its switches stand in debug information (`elf.producers`); what a file lacks
of that is not known, and nothing is concluded from it.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ftpatch.arrays import I64, is_in
from ftpatch.elf.compiler_units import CompilerUnit, CompilerUnits, debug_info_size
from ftpatch.elf.debug_paths import in_another_file
from ftpatch.sites.table import NULL, OUTSIDE, SiteTable

NO_OPTION = {True: "-pg", False: "-fpatchable-function-entry"}  # by whether the sites are calls as compiled


class UnitTable:
    """The units of a file, with what belongs to each. Columns have a row for each unit."""

    def __init__(self, table: SiteTable) -> None:
        self.table, self.image = table, table.image
        self._debug = CompilerUnits(table.image)

    @property
    def units(self) -> tuple[CompilerUnit, ...]:
        return self._debug.units

    @property
    def n_unread(self) -> int:
        """Units that cannot be read."""
        return self._debug.n_unread

    @property
    def option(self) -> str:
        """The option by which functions get sites as this file has them."""
        called = bool(self.table.shape.called) if self.table.shape is not None else self.image.arch.padded
        return NO_OPTION[called]

    @property
    def takes_layout(self) -> bool:
        """Whether the sites of this file come from the option with N,M."""
        return self.table.shape is not None and self.option == NO_OPTION[False]

    def gives_sites(self, unit: CompilerUnit) -> bool | None:
        """Whether a unit's switches give each of its functions a site; None: they are not known."""
        if unit.assembly:
            return False
        if unit.producer is None or unit.producer.switches is None or unit.producer.linked:
            return None
        if self.option == NO_OPTION[True]:
            return unit.producer.profiles
        layout = unit.producer.layout
        return layout is not None and layout[0] > layout[1]

    @cached_property
    def of_functions(self) -> I64:
        """Index of the unit of each of `image.functions`; −1: none is known."""
        return self._debug.of(self.image.functions.va)

    @cached_property
    def of_sites(self) -> I64:
        """Index of the unit of each site that is one of a function; −1: none is known."""
        sites = (self.table.sec >= 0) & ~is_in(self.table.status, (NULL, OUTSIDE))
        unit = np.full(len(self.table), -1, dtype=np.int64)
        unit[sites] = self._debug.of(self.table.entry_va[sites])
        return unit

    @cached_property
    def n_functions(self) -> I64:
        """Functions of each unit; those with several names count once."""
        va = self.image.functions.va
        first = np.append(True, va[1:] != va[:-1]) if len(va) else np.zeros(0, bool)
        return self._counted(self.of_functions[first])

    @property
    def n_outside(self) -> int:
        """Functions that are in no known unit."""
        va = self.image.functions.va
        return len(np.unique(va[self.of_functions < 0]))

    @cached_property
    def n_sites(self) -> I64:
        """Sites of each unit."""
        return self._counted(self.of_sites)

    def _counted(self, unit: I64) -> I64:
        return np.bincount(unit[unit >= 0], minlength=len(self.units)).astype(np.int64)

    def index_at(self, va: int) -> int:
        """Index of the unit of the code at an address; −1: none is known."""
        return int(self._debug.of(np.array([va], dtype=np.uint64))[0])


def why_no_units(table: UnitTable) -> str:
    """Why a file does not tell what the compiler was told; empty where it does."""
    if not debug_info_size(table.image):
        return in_another_file(table.image) or "this file has no debug information"
    if table.units:
        return ""
    return "its debug information cannot be read" if table.n_unread else "its debug information has no units"
