"""Sites at the entries of functions that somebody names: by their words, and never of functions that nobody asked for.

A table of all entries is made as if each had a record, and the selectors of every verb choose from it. NOPs alone do
not tell what a compiler was asked for where they are also what pads functions: then the file has to show it, another
file of the same kernel, or the user.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import MATCH_HALF, MATCH_NEW, MATCH_OLD, Shape, begins_with
from ftpatch.arrays import I64, U32, Mask, first_of_each, is_in
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError, ShapeError
from ftpatch.kernel.recorded import is_never_traced, is_recorded
from ftpatch.plan.record.places import Places, as_records, joined
from ftpatch.sites.layout import decide_shape
from ftpatch.sites.table import ENABLED, READY, UNRECORDED, SiteTable

ENOUGH = 8  # functions with NOPs in front that no padding makes by chance
SHOWN = 16  # bytes of code in a refusal


class Entries(NamedTuple):
    """One row per function entry, as far as one layout goes."""

    first: I64  # index in image.functions of the first symbol of each
    places: Places  # where the record of each would be; section −1 where that is no code
    window: U32  # code around that place
    ready: Mask  # whether the site is there, as a compiler leaves it


def forms(image: Image) -> tuple[Shape, ...]:
    """The layouts of which a site can be told by its words at an entry: with NOPs, and a kernel that patches them."""
    shapes = [shape for shape in image.arch.shapes if not shape.called or shape.also]
    return tuple(shape for shape in shapes if not (shape.refusal or shape.program or shape.at_global or shape.anywhere))


def entries_of(image: Image, shape: Shape) -> Entries:
    """Every entry of a function, and whether a site of that layout is there."""
    functions = image.functions
    first = first_of_each(functions.local)
    sec, off = image.place(functions.local[first])
    sec, off = np.where((sec >= 0) & image.executable[sec], sec, -1), off - shape.entry
    if shape.skips and shape.skip_at < 0:  # the record names what is behind them
        off = off + shape.unit * shape.skip_words * begins_with(image.words(sec, off, 0, shape.skip_words), shape.skips)
    window = image.window(sec, off)
    ready = (shape.match(window) == MATCH_OLD) & (sec >= 0) & (off >= 0)
    if shape.called:  # its calls are told by their relocations
        ready &= begins_with(shape.body(window), shape.also)
    if shape.literal is not None:
        front = window[:, shape.literal // shape.unit - shape.first :][:, :2]
        ready &= (front == np.uint32(image.arch.nop)).all(axis=1) & (off % 8 == 0)
    room = image.shdr["sh_size"][np.maximum(sec, 0)].astype(np.int64)
    ready &= off + shape.site(window) + shape.size <= room
    return Entries(first, Places(sec, off), window, ready)


def layout_of(image: Image, forced: str | None, recorded: Places, against: Shape | None) -> Shape | None:
    """The layout of the file's NOP sites; None where nothing looks like one. recorded: sound records of the file.

    Raises PolicyError where padding looks the same, ShapeError for a layout that this machine does not have.
    """
    known = {shape.name: shape for shape in forms(image)}
    if forced is not None and forced not in known:
        raise ShapeError("no layout of that name is told by the words at an entry", image.path, found=forced,
                         expected=" or ".join(known))  # fmt: skip
    shown = _shown_by(image, recorded) if len(recorded.sec) else None
    if forced is not None and shown not in (None, known[forced]):
        raise PolicyError("--layout contradicts the records of the file", image.path, found=str(shown and shown.name),
                          expected=forced, todo="one file has one layout")  # fmt: skip
    if forced is not None or shown is not None:
        return shown if forced is None else known[forced]
    if against is not None:
        return against
    tables = [(shape, entries_of(image, shape)) for shape in forms(image)]
    counts = [int(entries.ready.sum()) for _, entries in tables]
    most = max(counts, default=0)
    for (shape, entries), n in zip(tables, counts, strict=True):  # the longest first
        if n and shape.literal is not None:
            if n < most:  # the others have none in front, so that these are padding
                continue
            if n < ENOUGH and not _in_front_of_all(entries):
                raise _ambiguous(image, n, [form.name for form, _ in tables])
            return shape
        if n and 2 * n >= most:
            return shape
    return None


def _ambiguous(image: Image, n: int, names: list[str]) -> PolicyError:
    return PolicyError("the NOPs do not tell the layout", image.path,
                       found=f"{n} functions with NOPs at the entry and in front, as padding has them, too",
                       todo=f"--layout NAME tells it ({' or '.join(names)}), or --against a file of the same "
                       "kernel")  # fmt: skip


def _shown_by(image: Image, recorded: Places) -> Shape | None:
    """The layout that the records of the file show; None where they show none."""
    records = as_records(recorded)
    window, va = image.window(*recorded), image.va(*recorded)
    try:
        return decide_shape(image, records, window, va)
    except ShapeError:
        return None


def _in_front_of_all(entries: Entries) -> bool:
    """Whether a site is the very first thing of its section: nothing pads there."""
    return bool((entries.places.off[entries.ready] == 0).any())


def table_of(image: Image, shape: Shape | None, calls: Places) -> SiteTable:
    """Every entry of a function, as a site table from which selectors choose: ready where a site is. Functions without
    one have the status of what has no record, so that patterns pass them by and names find them.

    calls: of the profiling function, each the site of the function around it.
    """
    form = shape if shape is not None and not (shape.called and not shape.also) else None
    entries = entries_of(image, form if form is not None else image.arch.shapes[0])
    functions = image.functions
    around = functions.containing(image.va(*calls))
    calls, around = calls.where(around >= 0), around[around >= 0]
    low, high = functions.at(functions.va[around])
    bare = ~is_in(functions.va[entries.first], functions.va[around])
    ready = entries.ready & bare & (form is not None)
    keep = np.flatnonzero(bare)
    begin, end = functions.at(functions.va[entries.first[keep]])
    n_calls = len(calls.sec)
    status = np.concatenate([np.full(n_calls, READY), np.where(ready[keep], READY, UNRECORDED)]).astype(np.uint8)
    if form is not None and not form.called:
        taken = np.zeros(len(entries.first), dtype=bool)
        taken[keep] = is_in(form.match(entries.window[keep]), (MATCH_NEW, MATCH_HALF))
        status[n_calls:][taken[keep]] = ENABLED
    places = joined(calls, entries.places.where(keep))
    called = (np.arange(len(status)) < n_calls) | (form is not None and bool(form.called))
    status[never_traced(image, places, called)] = UNRECORDED  # no pattern means these
    n = len(status)
    return SiteTable(
        image, form if form is not None else shape, None, np.where(status == READY, np.arange(n), -1), places.sec,
        places.off, np.concatenate([image.window(*calls), entries.window[keep]]),
        np.concatenate([low, begin]), np.concatenate([high, end]), status, np.zeros(n, np.int64), np.zeros(n, bool),
    )  # fmt: skip


def why_not(table: SiteTable, chosen: Mask, calls: Places) -> dict[int, str]:
    """Why chosen functions cannot have a record, by their row in the table. calls: as for `table_of`."""
    image, reasons = table.image, dict[int, str]()
    places = Places(table.sec, table.off)
    called = is_in(places.key, calls.key) | bool(table.shape is not None and table.shape.called)
    never = never_traced(image, places, called)
    for row in np.flatnonzero(chosen).tolist():
        sec = int(table.sec[row])
        if sec < 0:
            reasons[row] = f"its section {_section_of(table, row)} is no code that is loaded"
            continue
        if never[row]:
            reasons[row] = f"no kernel traces what is in {image.names[sec]}"
        elif table.status[row] == ENABLED:
            reasons[row] = "its site is patched already, by an earlier patch: ftpatch disable gives it its NOPs back"
        elif table.status[row] == UNRECORDED:
            reasons[row] = _refused(table, row) or f"no site at its entry, found {_code_at(table, row)}"
    return reasons


def _refused(table: SiteTable, row: int) -> str:
    """Why no kernel patches the NOPs that a compiler left for a function; empty where there are none of that kind."""
    image, functions = table.image, table.image.functions
    for shape in image.arch.shapes:
        if not shape.refusal or shape.called or shape.program:
            continue
        entry = functions.va if shape.at_global else functions.local
        sec, off = image.place(entry[table.func[row : row + 1]])
        off = off - shape.entry
        if shape.match(image.window(sec, off))[0] == MATCH_OLD:
            return shape.refusal
    return ""


def never_traced(image: Image, places: Places, called: Mask) -> Mask:
    """Which places lie where no kernel traces anything: for calls, wherever its build records none.

    called: which of them are calls of the profiling function.
    """
    never = np.array([is_never_traced(name) for name in image.names], dtype=bool)
    recorded = np.array([is_recorded(name) for name in image.names], dtype=bool)
    sec = np.maximum(places.sec, 0)
    return np.asarray((places.sec >= 0) & np.where(called, ~recorded[sec], never[sec]))


def _section_of(table: SiteTable, row: int) -> str:
    functions = table.image.functions
    if table.func[row] >= table.func_end[row]:
        return "?"
    symbol = int(functions.row[table.func[row]])
    sec = int(table.image.symbols.shndx[symbol])
    return table.image.names[sec] if 0 <= sec < len(table.image.names) else "?"


def _code_at(table: SiteTable, row: int) -> str:
    """The code at a function's entry, for people."""
    image, functions = table.image, table.image.functions
    sec, off = image.place(functions.local[table.func[row : row + 1]])
    return image.arch.code_text(image.words(sec, off, 0, SHOWN // image.arch.unit)[0])
