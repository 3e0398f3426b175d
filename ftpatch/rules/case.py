"""What the rules look at: one file with everything that is known of it and beside it, and what a rule says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import I64, Mask
from ftpatch.elf.image import Image
from ftpatch.errors import FtpatchError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.sites.records import RecordTable
from ftpatch.sites.table import ENABLED, LEFTOVER, READY, SiteTable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from ftpatch.kernel.module import Kernel, Module

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What is beside the file."""

    kernel: Kernel | None = None  # that will load a module
    before: SiteTable | None = None  # of an earlier build of the same kernel
    live_before: int | None = None  # its live records, as that or a baseline tells
    kconfig: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # options without CONFIG_
    must: tuple[str, ...] = ()  # functions that have to be traceable
    certificates: tuple[Certificate, ...] = ()  # built into the kernel


@dataclass(frozen=True)
class Hit:
    """What a rule found, at a site or elsewhere."""

    text: str  # one line, with the numbers
    index: int | None = None  # in the site table, which then tells the place
    function: str | None = None
    section: str | None = None
    offset: int | None = None  # bytes in `section`
    count: int = 1  # sites that it stands for


@dataclass(frozen=True)
class Case:
    """One file under check, with as much of it as can be read: what cannot is for the rules to tell."""

    image: Image
    records: RecordTable | None  # None: `trouble` says why
    table: SiteTable | None  # None likewise, and without a layout
    trouble: FtpatchError | None = None
    odd: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))  # rows of another layout: its name
    context: Context = field(default_factory=Context)

    memo: dict[str, object] = field(default_factory=dict, compare=False, repr=False)

    def once(self, name: str, make: Callable[[Case], T]) -> T:
        """What `make` gives for this case, made once for all rules that ask."""
        if name not in self.memo:
            self.memo[name] = make(self)
        return cast(T, self.memo[name])

    @property
    def arch(self) -> Arch:
        return self.image.arch

    # -- what rules ask for by name, as `needs` ---------------------------------------------------------------------

    @property
    def kind(self) -> str:
        return self.image.kind

    @property
    def kernel(self) -> Kernel | None:
        """The kernel that will load this module; None for other files, and for another machine's."""
        kernel = self.context.kernel
        return kernel if kernel and self.kind == "module" and kernel.arch is self.arch else None

    @cached_property
    def module(self) -> Module | None:
        """This file as the loader meets it."""
        if self.records is None or self.sites is None or self.kind != "module":
            return None
        from ftpatch.kernel.module import Module
        from ftpatch.sites.scan import Scan

        return Module(Scan(self.image, self.records, self.sites))

    @property
    def kconfig(self) -> Mapping[str, str]:
        return self.context.kconfig

    @cached_property
    def sites(self) -> SiteTable | None:
        """The site table, layout or not."""
        if self.table is not None or self.records is None or self.trouble is not None:
            return self.table
        from ftpatch.sites.table import read_sites

        return read_sites(self.image, self.records)

    # -- masks over the site table -----------------------------------------------------------------------------------

    def the(self) -> SiteTable:
        """The site table of a case that has one."""
        assert self.table is not None
        return self.table

    def slots(self) -> RecordTable:
        """The record table of a case that has one."""
        assert self.records is not None
        return self.records

    @cached_property
    def live(self) -> Mask:
        """Live records in code, of the usual layout and with aligned words: those that site rules judge."""
        table, found = self.the(), np.zeros(len(self.the()), dtype=bool)
        found[: len(self.slots())] = self.slots().live
        found[list(self.odd)] = False
        return np.asarray(found & (table.sec >= 0) & (table.off % self.arch.unit == 0))

    @cached_property
    def named(self) -> Mask:
        """Sites at the entry of a function."""
        return np.asarray(self.the().func < self.the().func_end)

    def live_with(self, *states: int) -> I64:
        """Rows of live records whose site is in one of the states."""
        return np.flatnonzero(self.live & np.isin(self.the().status, states))

    @cached_property
    def sound(self) -> I64:
        """Rows of live records at sites: ready, enabled, or of a dead function."""
        return self.live_with(READY, ENABLED, LEFTOVER)

    @cached_property
    def init(self) -> Mask:
        """Sites in init text."""
        return in_init_text(self.image, self.the().va)

    def before_symbol(self, va: int) -> str:
        """Name of the last function symbol in front of an address, "" where none is."""
        at = int(np.searchsorted(self.image.functions.va, np.uint64(va), side="right")) - 1
        return self.image.symbols.name(int(self.image.functions.row[at])) if at >= 0 else ""

    def words(self, index: int) -> str:
        """The words of a site, for people."""
        return " ".join(word[2:] for word in self.the().words_text(index)) or "nothing"
