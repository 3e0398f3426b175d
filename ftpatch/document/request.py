"""What a scan is asked for, of one file or of every module of a tree."""

from __future__ import annotations

from typing import NamedTuple


class Request(NamedTuple):
    """What is asked of every file."""

    layout: str | None = None  # the layout to take; None: decide by evidence
    func: tuple[str, ...] = ()  # selectors of functions; with none of these four, all sites are meant
    status: tuple[str, ...] = ()  # names of statuses
    section: tuple[str, ...] = ()  # names of sections
    unrecorded: bool = False  # sites alone that no record names
    hashed: bool = False  # the report has the file's SHA-256
    with_sites: bool = False  # it has an object for each site
    units: bool = False  # it has what the compiler was told, unit by unit
    max_size: int | None = None  # bytes that a packed file may unpack to

    @property
    def selects(self) -> bool:
        return bool(self.func or self.status or self.section or self.unrecorded)
