"""What the rules look at: one file with everything that is known of it and beside it, and what a rule says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import I64, Mask
from ftpatch.elf.image import Image
from ftpatch.errors import FtpatchError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.recovered.left_out import names_data
from ftpatch.sites.records import RecordTable
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED, UNTOUCHED, SiteTable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from ftpatch.document.summary import Reach
    from ftpatch.kernel.module import Kernel, Module
    from ftpatch.sites.static_calls import StaticCallTable
    from ftpatch.sites.units import UnitTable

SMALL = 1 << 18  # bytes of debug information that are read unasked, in some milliseconds
N_SHOWN = 3  # of many names or sites


@dataclass(frozen=True)
class Context:
    """What is beside the file."""

    kernel: Kernel | None = None  # that will load a module
    before: SiteTable | None = None  # of an earlier build of the same kernel
    live_before: int | None = None  # its live records, as that or a baseline says
    kconfig: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # options without CONFIG_
    must: tuple[str, ...] = ()  # functions that have to be traceable
    units: bool = False  # whether all debug information is read
    certificates: tuple[Certificate, ...] = ()  # built into the kernel


@dataclass(frozen=True)
class Hit:
    """What a rule found, at a site or elsewhere."""

    text: str  # one line, with the numbers
    index: int | None = None  # in the site table, which then gives the place
    function: str | None = None
    section: str | None = None
    offset: int | None = None  # bytes in `section`
    count: int = 1  # sites that it stands for


@dataclass(frozen=True)
class Case:
    """One file under check, with as much of it as can be read: what cannot is for the rules to say."""

    image: Image
    records: RecordTable
    table: SiteTable
    unread: tuple[str, ...] = ()  # which of `records` and `table` could not be read, and have no rows here
    trouble: FtpatchError | None = None  # why
    odd: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))  # rows of another layout: its name
    context: Context = field(default_factory=Context)

    @property
    def arch(self) -> Arch:
        return self.image.arch

    @property
    def kind(self) -> str:
        return self.image.kind

    @property
    def kconfig(self) -> Mapping[str, str]:
        return self.context.kconfig

    # -- what rules need besides records and table, by name ---------------------------------------------------------

    @property
    def kernel(self) -> Kernel | None:
        """The kernel that will load this module; None for other files, and for another machine's."""
        kernel = self.context.kernel
        return kernel if kernel and self.kind == "module" and kernel.arch is self.arch else None

    @cached_property
    def module(self) -> Module | None:
        """This file as the loader meets it; None where it is no module that can be read."""
        from ftpatch.kernel.module import Module

        readable = self.kind == "module" and not self.unread
        return Module(Scan(self.image, self.records, self.table)) if readable else None

    @cached_property
    def told(self) -> UnitTable | None:
        """What the compiler was told; None where the file does not tell, or has so much debug information that somebody
        has to ask for it."""
        from ftpatch.elf.compiler_units import debug_info_size
        from ftpatch.sites.units import UnitTable, why_no_units

        size = debug_info_size(self.image)
        if not size or (size > SMALL and not self.context.units) or "table" in self.unread:
            return None
        units = UnitTable(self.table)
        return None if why_no_units(units) else units

    @cached_property
    def static_calls(self) -> StaticCallTable | None:
        """The static calls of this file; None where its machine has none, or their table cannot be read."""
        return self._static_calls if not isinstance(self._static_calls, FtpatchError) else None

    @property
    def static_call_trouble(self) -> FtpatchError | None:
        """Why the table of static calls cannot be read."""
        return self._static_calls if isinstance(self._static_calls, FtpatchError) else None

    @cached_property
    def _static_calls(self) -> StaticCallTable | FtpatchError | None:
        stripped = not self.image.linked and len(self.image.symbols.rows) <= 1  # which a rule of its own says
        if self.arch.static_calls is None or stripped or not names_data(self.image):
            return None
        from ftpatch.sites.static_calls import read_static_calls

        try:
            return read_static_calls(self.image)
        except FtpatchError as error:
            return error

    # -- sites of the table -------------------------------------------------------------------------------------------

    @cached_property
    def live(self) -> Mask:
        """Live records in code, of the usual layout and with aligned words: those that site rules judge."""
        live = np.zeros(len(self.table), dtype=bool)
        live[: len(self.records)] = self.records.live
        live[list(self.odd)] = False
        return np.asarray(live & (self.table.sec >= 0) & (self.table.off % self.arch.unit == 0))

    @cached_property
    def unrecorded(self) -> tuple[tuple[str, str, int], ...]:
        """(function, section, offset of its symbol) of functions that are built to be traced and are not recorded."""
        from ftpatch.rules.lost import unrecorded

        return tuple(unrecorded(self.image, self.table))

    @cached_property
    def lost_units(self) -> Mapping[str, list[tuple[str, str, int]]]:
        """Source file → (function, section, offset of its symbol), of units of which no function is recorded."""
        from ftpatch.rules.lost_units import lost_units
        from ftpatch.sites.matching import is_patched

        shape = self.table.shape
        if shape is None or shape.called or not self.unrecorded or is_patched(self.image):
            return {}
        return lost_units(self.table, self.told, self.unrecorded)

    @cached_property
    def named(self) -> Mask:
        """Sites at the entry of a function."""
        return np.asarray(self.table.func < self.table.func_end)

    def live_with(self, *states: int) -> I64:
        """Rows of live records whose site is in one of the states."""
        return np.flatnonzero(self.live & np.isin(self.table.status, states))

    @cached_property
    def sound(self) -> I64:
        """Rows of live records at sites: as the compiler left them, or enabled."""
        return self.live_with(*UNTOUCHED, ENABLED)

    @cached_property
    def init(self) -> Mask:
        """Sites in init text."""
        return in_init_text(self.image, self.table.va)

    @cached_property
    def reach(self) -> Reach | None:
        """How far the calls of sound sites reach; None where there is nothing that they call."""
        from ftpatch.document.summary import reach_of

        return reach_of(Scan(self.image, self.records, self.table), self.sound)

    # -- texts --------------------------------------------------------------------------------------------------------

    def before_symbol(self, va: int) -> str:
        """Name of the last function symbol in front of an address, "" where none is."""
        functions = self.image.functions
        at = int(np.searchsorted(functions.va, np.uint64(va), side="right")) - 1
        return self.image.symbols.name(int(functions.row[at])) if at >= 0 else ""

    def words(self, index: int) -> str:
        """The words of a site, for people."""
        return " ".join(word[2:] for word in self.table.words_text(index)) or "nothing"

    def some(self, index: I64) -> str:
        """The first three of many sites."""
        shown = index[: N_SHOWN + 1].tolist()
        return first([self.table.name(site) or self.table.place_text(site) for site in shown])


def first(names: Sequence[str]) -> str:
    """The first three of many names."""
    return ", ".join(names[:N_SHOWN]) + (", …" if len(names) > N_SHOWN else "")
