"""What the compiler was told, unit by unit, as reports have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypedDict

from ftpatch.document.fields import Count

if TYPE_CHECKING:
    from ftpatch.sites.table import SiteTable


class UnitRow(TypedDict):
    """One unit of debug information: a source file, compiled once."""

    name: Annotated[str, "the source file, relative to where the compiler ran"]
    directory: Annotated[str, "where the compiler ran; empty where the unit does not tell"]
    producer: Annotated[str, "compiler and version, or why they are not known"]
    language: str
    switches: Annotated[
        list[str] | None, "those that decide on sites and on how functions may be hooked, the last of each kind; null "
        "where they are not recorded",
    ]  # fmt: skip
    gives_sites: Annotated[
        bool | None, "whether the switches give every function a site as this file has them; null: not known"
    ]
    functions: Annotated[Count, "with code in the unit; those with several names count once"]
    sites: Count


class UnitsObject(TypedDict):
    """The units of a file."""

    unknown: Annotated[str, "why nothing is known of them; empty where something is"]
    option: Annotated[str, "the option by which functions get sites as this file has them"]
    outside: Annotated[Count, "functions that are in no unit"]
    unread: Annotated[Count, "units that cannot be read"]
    units: list[UnitRow]


def units_object(table: SiteTable) -> UnitsObject:
    """The units of a file, in the order of its debug information."""
    from ftpatch.sites.units import UnitTable, why_no_units

    units = UnitTable(table)
    counts = zip(units.units, units.n_functions.tolist(), units.n_sites.tolist(), strict=True)
    rows: list[UnitRow] = [
        {
            "name": unit.file, "directory": unit.directory, "producer": unit.made_by, "language": unit.language,
            "switches": list(unit.producer.shown) if unit.producer and unit.switches_known else None,
            "gives_sites": units.gives_sites(unit), "functions": n_functions, "sites": n_sites,
        }
        for unit, n_functions, n_sites in counts
        if not unit.partial  # what others import has no code
    ]  # fmt: skip
    return {
        "unknown": why_no_units(units), "option": units.option, "outside": units.n_outside, "unread": units.n_unread,
        "units": rows,
    }  # fmt: skip
