"""NOPs in front of a function's entry: -fpatchable-function-entry=N,M leaves M of them there, and N − M behind it.

Such a layout is the same for every M but for one distance, so a machine's tables have it once, as if M were 0, and
`with_front` moves it. What M is, each record tells: it names the first of all those NOPs.

    N − M at least a site    an ordinary site; the NOPs in front are not used
    N − M = 1                one NOP behind the entry: a switch, which a short branch turns on; the NOPs in front of it
                             take the code that it leads to, a pad
    N = M                    padding: nothing behind the entry could ever lead anywhere
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import WINDOW_SIZE, Branch, Shape, Word, begins_with
from ftpatch.arrays import I64, U32, U64, Mask

MAX_FRONT = 256  # bytes in front of an entry that are looked at
PADDING, PAD_BEFORE = "padding", "pad-before"


def with_front(shape: Shape, n_units: int) -> Shape:
    """The layout with that many NOPs in front of the entry. shape: of the machine's `fronts`."""
    moved = shape.unit * n_units
    return shape._replace(
        entry=moved, start=n_units, skip_at=n_units if shape.skips else 0, front=n_units, reads=WINDOW_SIZE + moved
    )


class PadForm(NamedTuple):
    """One way to call from a pad: where the return address stays meanwhile, and who brings it back."""

    save: str  # what keeps the return address: "register" or "stack"; empty where every call leaves it on the stack
    code: tuple[Word, ...]  # the instructions; the last is a jump back behind the site
    call_at: int  # units from the first of them to the call
    returns: bool  # whether the called code itself brings the return address back, as the kernel's trampolines do
    contract: str = ""  # what the called code must do, for people


class Pads(NamedTuple):
    """What the NOPs in front of an entry become. Where they are more than that, the last ones stay NOPs."""

    forms: tuple[PadForm, ...]
    back: Branch  # the jump at the end of each


class Filled(NamedTuple):
    """What is in front of entries. One element per site."""

    empty: Mask  # nothing but NOPs
    form: I64  # index in `Pads.forms`; −1 where the code is none of these
    at: I64  # units from the first NOP to the code
    target: U64  # va that it calls


def read_pads(pads: Pads, call: Branch, nop: int, words: U32, va: U64, back_to: U64) -> Filled:
    """What is in the NOPs in front of entries.

    words: (n, M) units of them, as they are now; va: of the first of them; back_to: where the jump back must lead.
    """
    is_nop = np.asarray(words == np.uint32(nop))
    n, room = words.shape
    filled = Filled(
        np.asarray(is_nop.all(axis=1)), np.full(n, -1, np.int64), np.zeros(n, np.int64), np.zeros(n, np.uint64)
    )
    rows = np.flatnonzero(~filled.empty)
    at = is_nop[rows].argmin(axis=1).astype(np.int64)
    for number, form in enumerate(pads.forms):
        size = len(form.code)
        near = at + size <= room
        some, start = rows[near], at[near]
        code = np.take_along_axis(words[some], start[:, None] + np.arange(size), axis=1)
        right = begins_with(code, (form.code,))
        right &= is_nop[some].sum(axis=1) == room - size
        unit = np.int64(call.unit)
        first = va[some].view(np.int64) + unit * start
        right &= first + unit * (size - 1) + pads.back.decode(code[:, -1]) == back_to[some].view(np.int64)
        filled.form[some[right]] = number
        filled.at[some[right]] = start[right]
        target = first + unit * form.call_at + call.decode(code[:, form.call_at])
        filled.target[some[right]] = target[right].view(np.uint64)
    return filled
