"""Why a function was compiled without a patch site, from what the compiler was told of its unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftpatch.elf.compiler_units import CompilerUnit
from ftpatch.sites.units import UnitTable, why_no_units

if TYPE_CHECKING:
    from ftpatch.document.explained import UnitMention


def unit_of(units: UnitTable, va: int) -> UnitMention:
    """What is known of the unit that has the code at an address."""
    unknown = why_no_units(units)
    index = -1 if unknown else units.index_at(va)
    if index < 0:
        why = unknown or "debug information has no unit with its code"
        return {"file": None, "producer": None, "switches": None, "gives_sites": None, "unknown": why, "text": ""}
    unit = units.units[index]
    known = unit.switches_known and unit.producer is not None
    switches = list(unit.producer.shown) if known and unit.producer is not None else None
    return {
        "file": unit.file, "producer": unit.made_by if unit.producer is not None else None, "switches": switches,
        "gives_sites": units.gives_sites(unit), "unknown": _unknown(unit), "text": _why(units, index),
    }  # fmt: skip


def _unknown(unit: CompilerUnit) -> str:
    """What is not known of the switches of a unit, and why."""
    if unit.producer is not None and unit.producer.linked:
        return "its functions have the switches of the units that they come from (LTO)"
    if unit.switches_known or unit.assembly:
        return ""
    if unit.producer is None:
        return f"what the compiler was told stands in {unit.elsewhere}" if unit.elsewhere else "it names no compiler"
    return "what the compiler was told is not recorded"


def _why(units: UnitTable, index: int) -> str:
    """Why a function without a site has none, as far as its unit tells; empty where that does not."""
    unit, gives = units.units[index], units.gives_sites(units.units[index])
    made_by = f"{unit.file} ({unit.made_by})"
    if unit.assembly:
        return f"written in assembly, {made_by}: no option of the compiler gives it a site"
    if gives is None:
        return ""
    n_sites, n_functions = int(units.n_sites[index]), int(units.n_functions[index])
    if not gives:
        some = f", where {n_sites} of {n_functions} functions have one by an attribute" if n_sites else ""
        return f"its unit {made_by} was built without {units.option}{some}"
    if not n_sites:
        return f"its unit {made_by} was built with {units.option}, and yet none of its functions has a site"
    others = f"{n_sites} of its {n_functions} functions have sites"
    return f"notrace by an attribute, or assembly in its unit {made_by}, which was built with {units.option}: {others}"
