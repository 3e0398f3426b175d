"""Why a function must not take another's place: redirects that lead nowhere good, and those that only seem to fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ftpatch.elf.function_types import FunctionTypes
from ftpatch.errors import PolicyError
from ftpatch.kernel.callee import why_never_returns, why_no_function, why_no_substitute
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.kernel.signatures import Comparison, compare_signatures
from ftpatch.plan.request import Draft, RedirectRequest

EQUAL = "equal"  # how the text about two signatures begins, where they agree
SHOWN = 3  # functions that a warning names
MANY = 256  # functions up to which inlined copies are looked for: each is a search through the debug information


class Substitute(NamedTuple):
    """A function that takes another's place, wherever it lives."""

    name: str
    types: FunctionTypes | None  # of its file; None where nothing is known of it there
    row: int  # of its symbol there
    why: str = "no file with it was given (--against)"  # why nothing is known


def refuse_wrong_substitutes(
    draft: Draft, request: RedirectRequest, types: FunctionTypes, goals: Mapping[int, Substitute]
) -> dict[int, str]:
    """Sites whose substitute cannot be one; what is known of the two signatures, by site, for reports.

    types: of the file with the sites. Raises PolicyError for a substitute that is none for any function.
    """
    for goal in _distinct(goals.values()):
        _require_function(draft, goal)
    symbols = types.image.symbols
    symbols.look_up([symbols.name(row) for site in goals if (row := symbol_of(draft, site)) is not None])
    signatures: dict[int, str] = {}
    doubts: list[str] = []
    for site, goal in goals.items():
        signatures[site], doubt = _signatures(draft, request, types, site, goal)
        doubts += [doubt] if doubt else []
    draft.warnings += doubts[:SHOWN]
    if len(doubts) > SHOWN:
        draft.warnings.append(f"{len(doubts) - SHOWN} more signatures could not be compared, or differ in little")
    _warn_of_aliases(draft, types, goals)
    _warn_of_copies(draft, types, goals)
    return signatures


def _require_function(draft: Draft, goal: Substitute) -> None:
    """Refuse what can take no function's place. Raises PolicyError."""
    where, no_function = f"--to {goal.name}", "the replacement is no function"
    why = why_no_function(goal.types.image, goal.row) if goal.types is not None else ""
    if why:
        raise PolicyError(no_function, where, found=why, expected="the beginning of a function")
    if _is_entry(draft, goal):
        found = "what patch sites call, which finds the return addresses in other registers"
        raise PolicyError(no_function, where, found=found, expected="a function")


def _is_entry(draft: Draft, goal: Substitute) -> bool:
    """Whether patch sites call the substitute, under any name that it has in a kernel."""
    names, image = (*draft.scan.arch.entries, draft.shape.called), draft.scan.image
    if goal.name in names or goal.types is None or goal.types.image is not image or not image.linked:
        return goal.name in names
    return int(image.symbols.rows["st_value"][goal.row]) in {image.symbols.value(name) for name in names}


def _never_returns(goal: Substitute) -> str:
    """What tells that a substitute never returns; empty where nothing does."""
    if goal.types is None:
        return "its name" if goal.name in NORETURN else ""
    return why_never_returns(goal.types, goal.row)


def _signatures(
    draft: Draft, request: RedirectRequest, types: FunctionTypes, site: int, goal: Substitute
) -> tuple[str, str]:
    """(what reports say of the signatures of a site's function and its substitute, what is in doubt about them)."""
    row, index = symbol_of(draft, site), np.array([site])
    if row is None:
        doubt = f"a function without a name becomes {goal.name}, and nothing tells its signature"
        return "not compared: the function has no name", doubt
    needed, never = why_never_returns(types, row), _never_returns(goal)
    if needed and not never and not request.force_signature:  # compilers put no code behind a call of such a function
        draft.refuse(index, f"it never returns, and {goal.name} does: {needed} (--force-signature overrides)")
    if never and not needed:
        draft.refuse(index, f"{goal.name} never returns{f': {never}' if never != goal.name else ''}")
    if goal.types is None:
        doubt = f"the signature of {goal.name} is not known: {goal.why}"
        return f"not compared: {goal.name}: {goal.why}", doubt
    if why := why_no_substitute(goal.types.image, goal.row, draft.scan.image, row):
        draft.refuse(index, why)
    compared = compare_signatures(types, row, goal.types, goal.row, goal.types is types and _has_site(draft, goal.row))
    return _judged(draft, request, site, goal, compared), compared.warning


def _has_site(draft: Draft, row: int) -> bool:
    """Whether the function of a symbol has a patch site, as only compilers make them."""
    sites, functions = draft.scan.sites, draft.scan.image.functions
    starts = functions.va[functions.row == row]  # none for a symbol that is no function
    return bool(len(starts) and (sites.entry_va == starts[0]).any())


def _judged(draft: Draft, request: RedirectRequest, site: int, goal: Substitute, compared: Comparison) -> str:
    """What reports say of two signatures; a site whose function has another one than its substitute is refused."""
    if compared.different and not request.force_signature:
        draft.refuse(np.array([site]), f"its signature is not that of {goal.name}: {compared.different} "
                     "(--force-signature overrides)")  # fmt: skip
    elif compared.different:
        name = draft.scan.sites.name(site)
        draft.warnings.append(f"the signatures of {name} and {goal.name} differ: {compared.different}; forced")
    return compared.different or compared.warning or f"{EQUAL} ({compared.source})"


def symbol_of(draft: Draft, site: int) -> int | None:
    """Row of the symbol of a site's function; None where it has none."""
    sites = draft.scan.sites
    named = sites.func[site] < sites.func_end[site]
    return int(sites.image.functions.row[sites.func[site]]) if named else None


def _distinct(goals: Iterable[Substitute]) -> list[Substitute]:
    return list({(id(goal.types), goal.row): goal for goal in goals}.values())


def _warn_of_aliases(draft: Draft, types: FunctionTypes, goals: Mapping[int, Substitute]) -> None:
    """Say which functions are one with a redirected one: compilers merge functions of equal code (-fipa-icf)."""
    for site in goals:
        row = symbol_of(draft, site)
        names = types.aliases(row) if row is not None else []
        if row is not None and names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            draft.warnings.append(f"{draft.scan.sites.name(site)} is redirected under its other names, too: "
                                  f"{', '.join(names[:SHOWN])}{more}")  # fmt: skip


def _warn_of_copies(draft: Draft, types: FunctionTypes, goals: Mapping[int, Substitute]) -> None:
    """Say which functions run the old code all the same, because the compiler put it into them."""
    if len(goals) > MANY:
        draft.warnings.append(f"inlined copies were not looked for: {len(goals)} functions are more than {MANY}")
        return
    for site in goals:
        row = symbol_of(draft, site)
        copies = types.inlined(row) if row is not None else None
        if copies is not None and copies.why_not_known:
            draft.remarks.append(f"whether other functions hold inlined copies, which run the old code, is not known: "
                                 f"{copies.why_not_known}")  # fmt: skip
        if copies is None or not copies.functions:
            continue
        n, shown = len(copies.functions), ", ".join(copies.functions[:SHOWN])
        more = f" and {n - SHOWN} more" if n > SHOWN else ""
        where = f"{n} function{'s' * (n != 1)}, which run the old code: {shown}{more}"
        draft.warnings.append(f"{draft.scan.sites.name(site)} is inlined in {where}")


def refuse_loops(draft: Draft, goals: Mapping[int, int]) -> None:
    """Sites from which the way of redirects comes back to them. goals: va of each site's replacement; one that is the
    va of no function stands for those of other files, which lead back to none of this one."""
    sites = draft.scan.sites
    starts = {site: int(sites.entry_va[site]) for site in goals}
    leads = {int(sites.entry_va[site]): to.start for site, to in sites.redirects.items() if to.start is not None}
    itself = [site for site, goal in goals.items() if starts[site] == goal]
    draft.refuse(np.array(itself, dtype=np.int64), "its replacement is the function itself")
    # Such a one stays as it is, so that the way of others ends there.
    leads |= {starts[site]: goal for site, goal in goals.items() if starts[site] != goal}
    ends, comes_back = set[int](), set[int]()  # functions whose way is known
    for site, start in starts.items():
        function, seen = leads.get(start), set[int]()
        while function in leads and function not in seen and function not in ends and function not in comes_back:
            seen.add(function)
            function = leads[function]
        loops = function in seen or function in comes_back
        (comes_back if loops else ends).update(seen)
        if loops:
            draft.refuse(np.array([site]), "its replacement is redirected in turn, and the way comes back")


def refuse_lost_toc(draft: Draft, goals: Mapping[int, Substitute]) -> None:
    """Sites whose callers rely on the TOC pointer, where a substitute of the same file does not keep it."""
    image, loses_toc = draft.scan.image, draft.scan.arch.loses_toc
    own = {site: goal for site, goal in goals.items() if goal.types is not None and goal.types.image is image}
    if loses_toc is None or not own:
        return
    other = image.symbols.rows["st_other"]
    lost = loses_toc(other[[goal.row for goal in own.values()]])
    for at in np.flatnonzero(lost).tolist():
        site, goal = list(own.items())[at]
        row = symbol_of(draft, site) or 0
        if not loses_toc(other[row : row + 1])[0]:
            draft.refuse(np.array([site]), f"{goal.name} does not keep the TOC pointer, which its callers rely on")
