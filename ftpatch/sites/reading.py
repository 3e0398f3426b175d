"""From records to the site table: each record's site, and behind them the sites known without a record.

Those are the sites that earlier patches took out of the table, and calls of the profiling function (-pg) that no record
names.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import MATCH_NEW, MATCH_NONE, MATCH_PADDED, Shape
from ftpatch.arrays import I64, U8, U32, U64, Mask, first_of_each, is_in
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.elf.tables import STB_LOCAL
from ftpatch.sites.callees import ADDED, addresses_of, called_from, leading_to, relocated_calls, tracers
from ftpatch.sites.enabled_anywhere import enabled_anywhere
from ftpatch.sites.jumps import Jumps, marks, may_begin_with_jump
from ftpatch.sites.layout import decide_shape, forced_shape, shape_of_calls, shapes_of
from ftpatch.sites.matching import OURS, behind_skip, calls_ours, code_around, functions_at, is_patched, match_sites
from ftpatch.sites.nameless import why_nameless
from ftpatch.sites.never_traced import BOUNDS, NEVER_TRACED, within
from ftpatch.sites.profiler_calls import knows
from ftpatch.sites.records import RecordTable
from ftpatch.sites.table import ENABLED, NAMELESS, NULL, OF_MATCH, OUTSIDE, READY, UNEXPECTED, SiteTable
from ftpatch.sites.unrecorded import Calls, around, unrecorded_calls, unrecorded_rows
from ftpatch.sites.unsized import may_be_functions


class _BareEntries(NamedTuple):
    """Entries of functions at which there is no sound site of a record."""

    first: I64  # index in image.functions of the first symbol of each
    sec: I64  # section of where its record would be; −1 where that is no code
    off: I64  # byte offset of that place, as if the function had none of the layout's extra units
    code: U32  # (n, …) units of code as in a window, and as many more as there are extra units


CALL_RECORDS = "__mcount_loc"  # the section that lists sites which are calls in the file


def read_sites(image: Image, records: RecordTable, forced: str | None = None) -> SiteTable:
    """The sites of an image. `forced` names a shape to take instead of deciding one.

    Raises ShapeError where no single shape explains the live records.
    """
    window = image.window(records.sec, records.off)
    va = image.va(records.sec, records.off)
    shape = forced_shape(image, records, forced) if forced else decide_shape(image, records, window, va)
    if shape is not None and shape.front:
        window = image.window(records.sec, records.off, shape.reads)
    if (
        shape is None
        and is_patched(image)
        and not (image.kind == "object" and unrecorded_calls(image, records, va, shape))
    ):
        return _all_without_records(image, records, window, va)
    # where instructions have any length, only a search of all code would find calls elsewhere
    # in a program all code is searched all the same: it is small, and may call through the linker's tables
    at_entries = shape is not None and not shape.anywhere and image.linked and image.arch.unit == 1
    at_entries &= image.kind not in PROGRAMS
    calls = None if at_entries else unrecorded_calls(image, records, va, shape)
    if shape is None and calls is not None:
        shape = shape_of_calls(image, *calls)
    known = _with_records(image, records, shape, forced, window, va)
    if shape is None:
        return _all_hooked(image, records, window, va, known)
    bare = _bare_entries(image, known, shape) if at_entries else None
    if bare is not None:
        calls = _calls_at_entries(image, shape, bare, va[records.live])
    known = _with_patched(image, known, shape, bare)
    return known if calls is None else _append(known, unrecorded_rows(image, known, shape, calls))


def _all_hooked(image: Image, records: RecordTable, window: U32, va: U64, known: SiteTable) -> SiteTable:
    """The sites of a program of which a patch hooked every call of the profiling function: by the layout that most of
    them have; `known` where there are none."""
    best = known
    if image.kind in PROGRAMS and image.sections_named(ADDED):
        for shape in (shape for shape in shapes_of(image) if shape.called and knows(image, shape.called)):
            whole = _with_patched(image, _with_records(image, records, shape, None, window, va), shape)
            best = whole if len(whole) > len(best) else best
    return best


def _calls_at_entries(image: Image, shape: Shape, bare: _BareEntries, recorded: U64) -> Calls | None:
    """Calls at the entries of functions that no record names, in a linked file with records; None where there are none.

    Elsewhere it is the code of overridden weak functions, whose records the build emptied.
    """
    if not shape.called:
        return None
    target = np.array(addresses_of(image, shape.called), dtype=np.uint64)
    sec, off = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for skip in (0, shape.skip_words) if shape.skips else (0,):
        code = bare.code[:, skip - shape.first :][:, : shape.branch.n_units]
        index = np.flatnonzero(shape.branch.word.matches(code[:, 0]) & (bare.sec >= 0))
        place = bare.off[index] + shape.unit * skip
        va = image.va(bare.sec[index], place)
        to = (va.view(np.int64) + shape.branch.decode(code[index])).view(np.uint64)
        mine = is_in(to, target) & ~is_in(va, recorded)
        sec.append(bare.sec[index[mine]])
        off.append(place[mine])
    calls = Calls(shape.called, np.concatenate(sec), np.concatenate(off))
    return calls if len(calls.sec) else None


def _with_patched(image: Image, known: SiteTable, shape: Shape, bare: _BareEntries | None = None) -> SiteTable:
    """The sites with records, and behind them those that an earlier patch took out of the table."""
    if shape.front:  # their records never leave
        return known
    known = _append(known, _without_records(image, known, shape, bare))
    known = _append(known, enabled_anywhere(image, known, shape))
    return _append(known, _patched_nameless(image, known, shape))


def _all_without_records(image: Image, records: RecordTable, window: U32, va: U64) -> SiteTable:
    """The sites of a module whose every record was taken out: by the shape that explains most calls of a patch,
    of equal ones the longest; one with an ops pointer needs its NOPs, too: hooks leave them alone."""
    best = _with_records(image, records, None, None, window, va)
    calls = bool(image.sections_named(CALL_RECORDS))
    for shape in (shape for shape in shapes_of(image) if bool(shape.called) == calls):
        known = _with_records(image, records, shape, None, window, va)
        whole = _with_patched(image, known, shape)
        patched = np.arange(len(whole)) >= len(known)
        if len(whole) == len(known) or len(whole) <= len(best):
            continue
        front = image.words(whole.sec[patched], whole.off[patched] + (shape.literal or 0), 0, 2)
        if shape.literal is None or shape.old[0].matches(front).all():
            best = whole
    return best


def _with_records(
    image: Image, records: RecordTable, shape: Shape | None, forced: str | None, window: U32, va: U64
) -> SiteTable:
    n = len(records)
    status = np.full(n, UNEXPECTED, dtype=np.uint8)
    func = func_end = site = np.zeros(n, dtype=np.int64)
    redirected = np.zeros(n, dtype=bool)
    if shape is not None:
        match = match_sites(image, shape, window, va)
        redirected = _redirected(image, records, shape, window, match)
        match[redirected] = MATCH_NEW
        func, func_end = functions_at(image, shape, window, va)
        named = func < func_end
        apart = image.functions.may_begin(va)
        if image.kind == "object" and shape.called:  # its relocation proves the call, as behind a push in a prologue
            func, func_end = around(image, func, func_end, va, (match != MATCH_NONE) & ~named & ~apart)
            named = func < func_end
        nowhere = (match == MATCH_PADDED) & (len(image.own_symbols.rows) > 1)  # padding of no function is none
        whole = named | apart & ~nowhere  # what lies inside a function, but not at its entry, is no site
        site = shape.site(window)
        room = image.shdr["sh_size"][np.maximum(records.sec, 0)].astype(np.int64) - records.off
        whole &= site + shape.size <= room  # behind the end of its section a window has zeros
        for matched, state in OF_MATCH.items():
            status[whole & (match == matched)] = state
        nameless = (status == READY) & ~named & (records.sec >= 0)
        if nameless.any():
            status[nameless] = _nameless(image, records, shape, window, va, nameless)
    status[(records.sec < 0) | ~image.executable[records.sec]] = OUTSIDE
    status[records.null] = NULL
    redirected &= status == ENABLED
    sec = np.where(records.null, -1, records.sec)
    func_end, site = np.where(sec < 0, func, func_end), np.where(sec < 0, 0, site)
    slots = np.arange(n)
    return SiteTable(
        image, shape, forced, slots, sec, records.off, window, func, func_end, status, site, redirected
    )  # fmt: skip


def _redirected(image: Image, records: RecordTable, shape: Shape, window: U32, match: U8) -> Mask:
    """Records whose site is a jump to another function: what is no other site, or the jump alone tells it."""
    redirected = np.asarray(match == MATCH_NONE)
    if not image.linked and shape.out_of_line:
        redirected |= match == MATCH_NEW
    if not redirected.any():
        return redirected
    redirected[redirected] = Jumps(image).redirected(
        shape, records.sec[redirected], records.off[redirected], window[redirected], recorded=True
    )
    return redirected


def _nameless(image: Image, records: RecordTable, shape: Shape, window: U32, va: U64, nameless: Mask) -> U8:
    """The status of each nameless site."""
    static = image.symbols.bind[image.functions.row] == STB_LOCAL  # of all functions: patches take records away
    n_static, n_live = int(static.sum()), int(records.live.sum())
    why = why_nameless(image, records, shape, va[nameless], window[nameless], n_static, n_live)
    return np.array(NAMELESS, dtype=np.uint8)[why]


def _bare_entries(image: Image, known: SiteTable, shape: Shape) -> _BareEntries:
    """The entries of functions at which there is no sound site of a record, and the code there, read once."""
    entry = image.functions.va if shape.at_global else image.functions.local
    first = first_of_each(entry)  # two names of one address may differ in their local entry
    sound = (known.status == READY) | (known.status == ENABLED)  # their entries show no other site than theirs
    first = first[~is_in(entry[first], (known.va + shape.to_entry(known.window).view(np.uint64))[sound])]
    sec, off = image.place(entry[first])
    sec, off = np.where((sec >= 0) & image.executable[sec], sec, -1), off - shape.entry
    return _BareEntries(first, sec, off, code_around(image, shape, sec, off))


def _without_records(
    image: Image, known: SiteTable, shape: Shape, bare: _BareEntries | None = None
) -> SiteTable | None:
    """Functions whose entry holds the words of an enabled or redirected site although no live record names them:
    earlier patches. bare: the entries, where they were looked for before."""
    functions, patched = image.functions, image.linked or is_patched(image)
    if (
        shape.refusal
        or shape.anywhere
        or not len(functions.va)
        or not (patched or may_begin_with_jump(image, shape, _bare(known)))
    ):
        return None
    first, sec, off, code = bare or _bare_entries(image, known, shape)
    off, window = behind_skip(shape, sec, off, code)
    va = image.va(sec, off)
    free = ~is_in(va + shape.site(window).view(np.uint64), known.body_va[known.func < known.func_end]) & (sec >= 0)
    if not functions.sized:
        entry, behind = functions.va[first], off + shape.site(window) + shape.size
        free[free] = may_be_functions(known, entry[free], sec[free], behind[free])
    redirected = free & Jumps(image).redirected(shape, sec, off, window, recorded=False)
    enabled = free & ~redirected & patched
    enabled[enabled] = _calls_a_tracer(image, shape, window[enabled], va[enabled])
    some = redirected | enabled
    if not some.any():
        return None
    low, high = functions.at(functions.va[first][some])
    status, row = np.full(len(low), ENABLED, dtype=np.uint8), np.full(len(low), -1, dtype=np.int64)
    sec, off, window = sec[some], off[some], window[some]
    site = shape.site(window)
    return SiteTable(image, shape, known.forced, row, sec, off, window, low, high, status, site, redirected[some])


def _bare(known: SiteTable) -> I64:
    """The functions that no record names, by their first symbol or another."""
    bare = np.ones(len(known.image.functions.va), dtype=bool)
    bare[known.func[known.func < known.func_end]] = False
    return np.flatnonzero(bare)


def _calls_a_tracer(image: Image, shape: Shape, window: U32, va: U64) -> Mask:
    """Which places hold the enabled words of a site that no record names."""
    patched = np.asarray(match_sites(image, shape, window, va) == MATCH_NEW)
    if not image.linked and patched.any():
        patched &= calls_ours(image, shape, window, va)
    elif patched.any():
        body = shape.body(window[patched])
        branch = (va + shape.site(window).view(np.uint64))[patched] + np.uint64(shape.call_at)
        called = called_from(image, shape, branch, shape.branch.distance(body))
        known = tracers(image, shape, called)
        sure = {va: callee for va, callee in known.items() if callee.sure}
        at, sec = va[patched], image.place(va[patched])[0]
        # code that has no sites may begin with any call
        patched[patched] = leading_to(called, sure) | (
            leading_to(called, known) & ~within(image, sec, at, NEVER_TRACED, BOUNDS)
        )
    return patched


def _patched_nameless(image: Image, known: SiteTable, shape: Shape) -> SiteTable | None:
    """As `_without_records`, for functions of a relocatable file that have no symbol: what a patch added shows them,
    the relocations of calls and the marks of redirected ones."""
    if shape.refusal or not is_patched(image):
        return None
    at, mark = relocated_calls(image, OURS), marks(image)
    at = at[~image.functions.inside(at) & ~is_in(at, known.branch_va) & ~is_in(at, mark)]
    sec, off = image.place(at)
    off = off - shape.call_at - shape.unit * shape.start
    if shape.skips and shape.skip_at >= 0:
        behind = shape.skipped(image.window(sec, off - shape.unit * shape.skip_words, shape.reads))
        off = off - np.where(behind, shape.unit * shape.skip_words, 0)
    window = image.window(sec, off, shape.reads)
    calls = match_sites(image, shape, window, image.va(sec, off)) == MATCH_NEW
    mark_sec, mark_off = image.place(mark[~image.functions.inside(mark) & ~is_in(mark, known.va)])
    mark_window = image.window(mark_sec, mark_off, shape.reads)
    jumps = Jumps(image).redirected(shape, mark_sec, mark_off, mark_window, recorded=True)
    sec, off = np.concatenate([sec[calls], mark_sec[jumps]]), np.concatenate([off[calls], mark_off[jumps]])
    window = np.concatenate([window[calls], mark_window[jumps]])
    none, n = np.zeros(len(sec), dtype=np.int64), len(sec)
    status, redirected, site = np.full(n, ENABLED, dtype=np.uint8), np.arange(n) >= calls.sum(), shape.site(window)
    return SiteTable(image, shape, known.forced, none - 1, sec, off, window, none, none, status, site, redirected)


def _append(table: SiteTable, more: SiteTable | None) -> SiteTable:
    if more is None:
        return table
    columns = ("row", "sec", "off", "window", "func", "func_end", "status", "site", "redirected")
    joined = {name: np.concatenate([getattr(table, name), getattr(more, name)]) for name in columns}
    return SiteTable(table.image, table.shape, table.forced, **joined)
