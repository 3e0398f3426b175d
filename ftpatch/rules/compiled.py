"""Rules about how functions were compiled: what callers count on, and what the compiler was told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from ftpatch.elf.compiler_units import CompilerUnit
from ftpatch.rules.case import Case, Hit, first
from ftpatch.sites.callers import Callers

N_CALLERS = 3  # of one function, that are told


def ipa_ra(case: Case) -> Iterator[Hit]:
    """Functions with a site whose callers keep values in registers over the call."""
    callers = Callers(case.table)
    texts: dict[int, list[str]] = defaultdict(list)
    for reliance in callers.relied_on(np.arange(len(case.table))):
        texts[reliance.site].append(callers.text(reliance, reliance.registers))
    for site, lines in texts.items():
        more = f"; and {len(lines) - N_CALLERS} more" if len(lines) > N_CALLERS else ""
        yield Hit("; ".join(lines[:N_CALLERS]) + more, site)


def unit_layout(case: Case) -> Iterator[Hit]:
    """Units that were told another N,M than most."""
    units = case.told
    if units is None or not units.takes_layout:
        return
    layouts = [(unit.producer.layout if unit.producer else None, unit) for unit in units.units]
    counts = Counter(layout for layout, _ in layouts if layout is not None)
    usual = max(counts.items(), key=lambda item: (item[1], item[0]))[0] if counts else None
    for layout in sorted(counts):
        if layout != usual and usual is not None:
            named = [unit.file for other, unit in layouts if other == layout]
            text = f"{_option(layout)}, {counts[usual]} others have {_option(usual)}"
            yield Hit(f"{_some(named)} {'was' if len(named) == 1 else 'were'} built with {text}", count=len(named))


def _option(layout: tuple[int, int]) -> str:
    n, m = layout
    return f"-fpatchable-function-entry={n}" + (f",{m}" if m else "")


def unit_alignment(case: Case) -> Iterator[Hit]:
    """Units whose functions may not be aligned as the pointer in front of their sites has to be."""
    units, shape = case.told, case.table.shape
    if units is None or shape is None or shape.literal is None:
        return
    bad = [unit.file for unit, n in zip(units.units, units.n_sites.tolist(), strict=True) if n and _unaligned(unit)]
    if bad:
        text = f"{_some(bad)}: sites with a pointer in front, and no switch that aligns functions to {POINTER} bytes"
        yield Hit(text, count=len(bad))


POINTER = 8  # bytes, which the kernel writes in one store
SMALL = ("-Os", "-Oz")  # levels at which functions are not aligned


def _unaligned(unit: CompilerUnit) -> bool:
    """Whether the switches of a unit that has sites leave its functions where they fall."""
    producer = unit.producer
    if producer is None or producer.switches is None or producer.alignment >= POINTER:
        return False
    return producer.matter.get("optimize") in SMALL and not producer.matter.get("align", "").startswith("-falign")


def unit_without_sites(case: Case) -> Iterator[Hit]:
    """Directories in which some units were built to have sites, and others not."""
    units = case.told
    if units is None:
        return
    with_sites: dict[str, list[str]] = defaultdict(list)
    without: dict[str, list[str]] = defaultdict(list)
    for unit, n in zip(units.units, units.n_functions.tolist(), strict=True):
        if n and not unit.assembly:
            gives = units.gives_sites(unit)
            if gives is not None:
                (with_sites if gives else without)[unit.file.rpartition("/")[0]].append(unit.file)
    mixed = {name: files for name, files in without.items() if name in with_sites}
    files = [file for name in sorted(mixed) for file in mixed[name]]
    if files:
        yield Hit(
            f"{len(files)} units in {len(mixed)} directories were built without {units.option}, beside others with it: "
            f"{_some(files)}", count=len(files),
        )  # fmt: skip


def _some(names: list[str]) -> str:
    return first(names)
