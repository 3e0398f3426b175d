"""A selector explained: every site that it names, or why there is none of that name; and a log of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ftpatch import trees
from ftpatch.arrays import Mask
from ftpatch.document.request import Request
from ftpatch.errors import SelectionError
from ftpatch.explanation.site import explain_sites
from ftpatch.explanation.untraceable import NOTHING, WITH_SITE, absence, renamed, symbols_named
from ftpatch.sites.clones import Clone, clones_of
from ftpatch.sites.scan import Scan, scan_file
from ftpatch.sites.select import select

if TYPE_CHECKING:
    from ftpatch.document.explained import AbsentObject, ExplainedRow, RenamedRow, SymbolRow
    from ftpatch.explanation.diagnosis import Diagnosis

N_SITES = 32  # that one run explains
MAX_ROWS = 1 << 22  # of the site tables that are gone through for these: once for each; a kernel has 60,000 rows


@dataclass(frozen=True)
class Explanation:
    """What there is to say of a selector in one file."""

    scan: Scan
    func: str  # the selector
    chosen: Mask  # over the site table: the sites that are explained
    sites: list[ExplainedRow] = field(default_factory=list)  # one per chosen site
    others: list[SymbolRow] = field(default_factory=list)  # symbols of the same name without a site
    clones: list[RenamedRow] = field(default_factory=list)  # what the compiler made of the function
    traceable_as: tuple[str, ...] = ()  # clones whose sites are explained, because no site has the name itself
    absence: AbsentObject | None = None  # why nothing is chosen
    error: SelectionError | None = None  # what choosing said, where nothing knows the name


@dataclass(frozen=True)
class Diagnoses:
    """The messages of a log, and the file that printed them, if it was given."""

    told: list[Diagnosis]
    scan: Scan | None = None
    notes: tuple[str, ...] = ()  # on the log as a whole


def explain_function(
    scan: Scan,
    func: str,
    against: Sequence[str] = (),
    modules: str | None = None,
    watch: trees.Watch = trees.SILENT,
    max_size: int | None = None,
) -> Explanation:
    """Everything about the sites that a selector names, or about the name that has none.

    against: what a module is loaded by; modules: a tree to look in for what the file does not have; max_size: bytes
    that packed ones of these may unpack to. Raises
    SelectionError where the selector is no plain name and matches nothing.
    """
    name = _name_of(func)
    clones = [] if name is None else clones_of(scan.sites, name)
    try:
        selection = select(scan.sites, [func])
    except SelectionError as error:
        if name is None or (name != func and scan.image.recovered is not None):  # it tells no source files
            raise
        taken_for = _standing_for(scan, func, name, clones)
        if not taken_for:
            asked = Request(func=(name,), max_size=max_size)
            having = _having(modules, asked, watch) if modules else None
            return _explain_absence(scan, func, name, having, error)
        selection = select(scan.sites, [other + func.removeprefix(name) for other in taken_for])
    else:
        taken_for = ()
    for text in selection.notes:
        watch.note(text.replace("are taken", "are explained"))
    index = np.flatnonzero(selection.mask)
    n_sites = max(1, min(N_SITES, MAX_ROWS // max(len(scan.sites), 1)))
    if len(index) > n_sites:
        watch.note(f"{len(index)} sites; the first {n_sites} are explained")
        selection.mask[index[n_sites:]] = False
    sites = explain_sites(scan, index[:n_sites].tolist(), against, max_size)
    symbols = [] if name is None else symbols_named(scan.image, scan.sites, func)
    others = [symbol for symbol in symbols if symbol["state"] not in WITH_SITE]
    return Explanation(scan, func, selection.mask, sites, others, renamed(scan.sites, clones), taken_for)


def _standing_for(scan: Scan, func: str, name: str, clones: list[Clone]) -> tuple[str, ...]:
    """The clones that are traced in place of a function that the file does not have under its own name.

    func: the name, and perhaps its source file.
    """
    if len(scan.image.symbols.rows_named(name)):
        return ()
    whole = [clone.name for clone in clones if clone.whole and clone.sites]
    missing: set[str] = set()
    select(scan.sites, [other + func.removeprefix(name) for other in whole], missing=missing)
    return tuple(other for other in whole if other + func.removeprefix(name) not in missing)


def _having(modules: str, asked: Request, watch: trees.Watch) -> list[str]:
    """The modules of a tree that have a site of the name that is asked for."""
    return [module.path for module in trees.scan_tree(modules, asked, watch=watch) if module.n_chosen]


def _explain_absence(scan: Scan, func: str, name: str, having: list[str] | None, error: SelectionError) -> Explanation:
    """Why no site has that name. having: modules that have it, if any were searched; error: what choosing it said."""
    absent = absence(scan.image, scan.sites, name, having)
    nothing = np.zeros(len(scan.sites), dtype=bool)
    return Explanation(scan, func, nothing, absence=absent, error=error if absent["text"].startswith(NOTHING) else None)


def _name_of(func: str) -> str | None:
    """The function that a selector names; None where it is no plain name."""
    name = func.partition("@")[0]
    return None if not name or any(char in func for char in "*?[/:+!") or func.startswith(("0x", "0X")) else name


def explain_log(
    text: str, path: str | None = None, layout: str | None = None, max_size: int | None = None
) -> Diagnoses:
    """Every ftrace message in a log, taken apart; path: the kernel or module that printed it.

    Raises InputError where there is none, and what reading the file raises.
    """
    from ftpatch.explanation.diagnosis import bugs_by_site, diagnose, diagnose_in
    from ftpatch.explanation.splat import parse_log

    splats, notes = parse_log(text)
    if path is None:
        return Diagnoses([diagnose(splat) for splat in splats], notes=notes)
    scan = scan_file(path, layout, max_size)
    bugs = bugs_by_site(scan)
    return Diagnoses([diagnose_in(splat, scan, bugs) for splat in splats], scan, notes)
