"""Whether a function may become another, whatever the way from one to the other: for kernels and modules alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from ftpatch.kernel.noreturn import NORETURN
from ftpatch.proof.case import Case, Pairs

Key = TypeVar("Key")


class OwnFunction(NamedTuple):
    """The function of a site."""

    row: int  # of its symbol in the first file; −1 where it has none
    va: int  # of its symbol; of its entry as the layout has it, where it has none
    local: int  # va of its local entry

    @property
    def two_entries(self) -> bool:
        return self.local != self.va


def function_of(pairs: Pairs, at: int) -> OwnFunction:
    """The function that a site belongs to."""
    case = pairs.case
    side, row = (case.before, pairs.before[at]) if pairs.before[at] >= 0 else (case.after, pairs.after[at])
    sites = side.sites
    if sites.func[row] == sites.func_end[row]:
        entry = int(side.image.base[int(pairs.sec[at])]) + pairs.entry_off(at)
        return OwnFunction(-1, entry, entry)
    at_first = int(sites.func[row])
    return OwnFunction(int(side.image.functions.row[at_first]), int(sites.entry_va[row]), int(sites.local_va[row]))


def check_replacement(case: Case, pairs: Pairs, at: int, row: int, freed: bool) -> None:
    """A finding where the function of a symbol of the second file must not take the place of a site's.

    freed: it is init text, and the site's is not.
    """
    from ftpatch.kernel import callee

    image = case.after.image
    name, own = image.symbols.name(row), function_of(pairs, at)
    if name in (*case.arch.entries, pairs.shape.called):
        why = "which is called from patch sites alone"
    elif freed:
        why = "which is freed with init memory"
    elif name in NORETURN or callee.why_never_returns(case.types, row):
        why = "which never returns"
    else:
        why = callee.why_no_function(image, row)
        if not why and own.row >= 0:
            why = callee.why_no_substitute(image, row, case.before.image, own.row)
    if why:
        pairs.say("verify-redirect", at, f"it leads to {name}, {why}")
    elif pairs.name(at) in NORETURN:
        case.notes.append(f"{pairs.name(at)} never returns, and {name}, to which it leads, is not known to do so")


def check_circles(
    pairs: Pairs, starts: Mapping[Key, int], leads: Mapping[int, Key], name: Callable[[int], str]
) -> None:
    """Findings for sites from which the way comes back. starts: function → its pair; leads: pair → function."""
    for at in leads:
        number, seen = starts.get(leads[at]), set[int]()
        if number == at:
            pairs.say("verify-redirect", at, "it leads to itself")
            continue
        while number is not None and number != at and number not in seen and number in leads:
            seen.add(number)
            number = starts.get(leads[number])
        if number == at:
            pairs.say("verify-redirect", at, f"it leads to {name(at)}, from where the way comes back")
