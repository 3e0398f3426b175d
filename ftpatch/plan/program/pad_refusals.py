"""Why a chosen switch, or the pad in front of its function's entry, cannot be changed."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64
from ftpatch.errors import PolicyError
from ftpatch.plan import refusals
from ftpatch.plan.request import Draft
from ftpatch.sites.fronts import filled_pads
from ftpatch.sites.table import ARMED, UNEXPECTED, UNTOUCHED

RELOCATED = "the dynamic linker writes into its pad or its switch when the program starts (a text relocation)"
OTHER_RECORD = "another record names a place in its pad"
HALF_FILLED = "the NOPs in front of its entry are no NOPs any more, and no pad either"
WRONG_SWITCH = "its switch is neither a NOP nor a jump to its pad"


def refuse_states(draft: Draft, aimed: bool, arm: bool) -> None:
    """Sites that are on already, or that nobody knows. aimed: whether the user says what pads call.

    Raises PolicyError where pads are to be filled and nothing says with what.
    """
    sites, chosen = draft.scan.sites, draft.request.chosen
    for at in np.flatnonzero(chosen & ~np.isin(sites.status, (*UNTOUCHED, ARMED))).tolist():
        status = int(sites.status[at])
        other = refusals.WHY_NOT.get(status, refusals.OTHER)
        draft.reasons[at] = _why_unexpected(draft, at) if status == UNEXPECTED else other
    armed = chosen & (sites.status == ARMED)
    if not aimed and arm:
        draft.refuse(np.flatnonzero(armed), "already armed")
    empty = np.flatnonzero(chosen & np.isin(sites.status, UNTOUCHED))
    if not aimed and len(empty):
        raise PolicyError("nothing says what the pads call", draft.scan.image.path,
                          found=f"{len(empty)} of {int(chosen.sum())} chosen sites without a filled pad",
                          expected="--target or --hook", todo="without these only armed sites are turned on: "
                          "--status armed")  # fmt: skip


def _why_unexpected(draft: Draft, at: int) -> str:
    """What is wrong with a site."""
    sites, shape = draft.scan.sites, draft.shape
    if sites.func[at] == sites.func_end[at]:
        return refusals.OTHER
    pad = filled_pads(draft.scan.image, shape, sites.window[at : at + 1], sites.va[at : at + 1])
    return WRONG_SWITCH if pad.empty[0] or pad.form[0] >= 0 else HALF_FILLED


def refuse_pads(draft: Draft) -> None:
    """Sites whose pad is not theirs alone."""
    sites, shape, image, index = draft.scan.sites, draft.shape, draft.scan.image, draft.open()
    start, unit = sites.va[index], shape.unit
    size = sites.site[index] + shape.size  # from the pad's start to the switch's end
    for row, (at, n) in enumerate(zip(index.tolist(), size.tolist(), strict=True)):  # a look-up per pad
        if image.relocated(start[row : row + 1], n)[0]:
            draft.refuse(np.array([at]), RELOCATED)
    _refuse_shared(draft, index)
    steps = start[:, None] + (unit * np.arange(shape.front or 0)).view(np.uint64)
    holder = image.functions.containing(steps.reshape(-1)).reshape(steps.shape)
    for row in np.flatnonzero((holder >= 0).any(axis=1)).tolist():
        function = int(holder[row][holder[row] >= 0][0])
        name = image.symbols.name(int(image.functions.row[function]))
        draft.refuse(index[row : row + 1], f"its pad lies inside {name}, by the size of that")


def _refuse_shared(draft: Draft, index: I64) -> None:
    """Sites in whose pad another one's place is."""
    sites, shape = draft.scan.sites, draft.shape
    known = np.flatnonzero(sites.sec >= 0)
    start = sites.off[known]
    end = start + sites.site[known] + shape.size
    order = np.lexsort((start, sites.sec[known]))
    known, start, end = known[order], start[order], end[order]
    same = (sites.sec[known[1:]] == sites.sec[known[:-1]]) & (start[1:] < end[:-1])
    same &= sites.body_va[known[1:]] != sites.body_va[known[:-1]]  # identical functions, of which a linker made one
    touched = np.unique(np.concatenate([known[1:][same], known[:-1][same]]))
    draft.refuse(index[np.isin(index, touched)], OTHER_RECORD)
