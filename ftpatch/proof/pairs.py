"""The patch sites of both files side by side: every place that one of them knows, with its words before and after."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ftpatch.arch.proof_tables import JUMP, tables_of
from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64, U8, U32, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.identity import linker_stubs
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.elf.relocations import relocations_of
from ftpatch.proof.case import NEW, OLD, OTHER, REDIRECTED, RETIRED, Case, Pairs
from ftpatch.proof.decoders import branch_targets, branches
from ftpatch.proof.kernel_stubs import in_slots
from ftpatch.sites.profiler_calls import calls_to, slots_of
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import NULL, OUTSIDE, UNRECORDED, SiteTable

SITE_STUBS = "ftpatch_stubs"  # how the symbols of stubs of sites begin
NO_SITES = (NULL, OUTSIDE, UNRECORDED)


def side_by_side(case: Case, choose: Callable[[SiteTable], I64]) -> tuple[I64, I64]:
    """Every place that has a chosen site in one of the files: (2, n) its index in the site tables of both, −1 for none,
    and (3, n) its section, the offsets of its first rewritten byte and of its record. choose: from a site table to
    indices."""
    tables = (case.before.sites, case.after.sites)
    known = [choose(table) for table in tables]
    known[1] = known[1][tables[1].sec[known[1]] < len(case.before.image.shdr)]  # others came along in an object
    places = np.concatenate([np.stack([table.sec[i], table.off[i] + table.site[i], table.off[i]], axis=1)
                             for table, i in zip(tables, known, strict=True)])  # fmt: skip
    _, first, pair = np.unique(places[:, 0] << 40 | places[:, 1], return_index=True, return_inverse=True)
    rows = np.full((2, len(first)), -1, dtype=np.int64)
    rows[0, pair[: len(known[0])]], rows[1, pair[len(known[0]) :]] = known
    return rows, places[first].T


def pair_up(case: Case) -> Pairs | None:
    """The sites of both files; None where neither has any."""
    shape = case.before.sites.shape or case.after.sites.shape
    if shape is None or shape.refusal:
        return None
    rows, (sec, off, record) = side_by_side(case, _known)
    n, image = len(shape.new), case.after.image
    old, new = (side.image.words(sec, off, 0, n) for side in (case.before, case.after))
    states = [_states(side, shape, sec, off, words) for side, words in ((case.before, old), (case.after, new))]
    differs = (old != new).any(axis=1)
    if not image.linked and shape.called:  # there the words are the same, and the relocation says what is called
        differs |= states[0] != states[1]
    if shape.switch and shape.front:
        pads = [side.image.words(sec, record, 0, shape.front) for side in (case.before, case.after)]
        differs |= (pads[0] != pads[1]).any(axis=1)
    twice = (states[0] == REDIRECTED) & (states[1] == REDIRECTED)
    if not image.linked and twice.any():  # so it is of jumps
        where = [_jump_of(side.image, sec[twice], off[twice]) for side in (case.before, case.after)]
        differs[twice] |= np.array([one != other for one, other in zip(*where, strict=True)], dtype=bool)
    return Pairs(case, shape, sec, off, record, rows[0], rows[1], states[0], states[1], new, differs)


def _known(table: SiteTable) -> I64:
    """The rows that are places in code, and sites that a patch may concern: not calls that no record names."""
    size = table.image.shdr["sh_size"][np.maximum(table.sec, 0)].astype(np.int64)
    inside = (table.off >= 0) & (table.off < np.minimum(size, 1 << 40))
    lone = table.image.linked & (table.status == UNRECORDED)  # calls that no record names may be asked for, too
    nowhere = is_in(table.status, NO_SITES) & ~lone
    rows: I64 = np.flatnonzero((table.sec >= 0) & inside & ~nowhere)
    return rows


def _states(side: Scan, shape: Shape, sec: I64, off: I64, words: U32) -> U8:
    image = side.image
    states = np.full(len(words), OTHER, dtype=np.uint8)
    new = np.logical_and.reduce([word.matches(words[:, i]) for i, word in enumerate(shape.new)])
    old = np.logical_and.reduce([word.matches(words[:, i]) for i, word in enumerate(shape.old)])
    states[old], states[new] = OLD, NEW
    if shape.called:
        as_compiled = _calls_as_compiled(image, shape, sec, off, words)
        states[old | new] = np.where(as_compiled, OLD, np.where(new, NEW, OTHER))[old | new]
        tables = tables_of(image.arch)
        for code in tables.left if len(shape.new) == shape.branch.n_units else ():
            states[(words == code).all(axis=1)] = OLD
        if not tables.left:
            states[(words == tables.nop).all(axis=1)] = RETIRED
    may = np.flatnonzero(states == (NEW if shape.out_of_line else OTHER))
    states[may[_redirected(image, shape, sec[may], off[may], words[may])]] = REDIRECTED
    return states


def _redirected(image: Image, shape: Shape, sec: I64, off: I64, words: U32) -> Mask:
    """Which sites begin with a jump, and are as compiled but for that: where calls are out of line, and are jumps as
    well, one that leads to no stub of a site's, and to no slot for one."""
    n = shape.branch.n_units
    kind, distance = branches(image.arch, words[:, 0] if n == 1 else words[:, :n])
    jumps: Mask = kind == JUMP
    for number, word in enumerate(shape.old[n:], n):
        jumps &= word.matches(words[:, number])
    if not shape.out_of_line or not jumps.any():
        return jumps
    if image.linked:
        jumps &= ~in_slots(image, image.va(sec, off).view(np.int64) + distance)
        return jumps
    names = [{image.symbols.name(row) for row, _, _ in rows} for rows in _jump_of(image, sec, off)]
    jumps &= np.array([not any(name.startswith(SITE_STUBS) for name in some) for some in names], dtype=bool)
    return jumps


def _jump_of(image: Image, sec: I64, off: I64) -> list[list[tuple[int, int, int]]]:
    """(symbol, addend, type) of the relocations at each place of a relocatable file."""
    tables = {number: relocations_of(image, number) for number in np.unique(sec).tolist()}
    jumps = []
    for number, place in zip(sec.tolist(), off.tolist(), strict=True):  # patched sites, a search for each
        rows = tables[number]
        here = range(int(np.searchsorted(rows.off, place)), int(np.searchsorted(rows.off, place + 1)))
        jumps.append([(int(rows.symbol[at]), int(image.rows(int(rows.table[at]), t.RELA)["r_addend"][rows.row[at]]),
                       int(rows.kind[at])) for at in here])  # fmt: skip
    return jumps


def _through_slot(image: Image, shape: Shape, sec: I64, off: I64, words: U32) -> Mask:
    """Which sites are still calls through a word that the dynamic linker fills with the function's address."""
    assert shape.through is not None
    word = (image.va(sec, off).view(np.int64) + shape.through.decode(words)).view(np.uint64)
    still = np.logical_and.reduce([code.matches(words[:, i]) for i, code in enumerate(shape.old)])
    return np.asarray(still & np.isin(word, slots_of(image, shape.called)))


def _calls_as_compiled(image: Image, shape: Shape, sec: I64, off: I64, words: U32) -> Mask:
    """Whether each site's call goes where the compiler let it go."""
    if image.linked:
        stubs = [va for va, name in linker_stubs(image).items() if name == shape.called]
        value = image.symbols.value(shape.called)
        goes_to = branch_targets(image, image.va(sec, off).view(np.int64) + shape.call_at).view(np.uint64)
        right = np.isin(goes_to, np.array([*stubs, *([] if value is None else [value])], dtype=np.uint64))
        if image.kind not in PROGRAMS:
            return right
        right |= calls_to(image, shape.called, goes_to)
        return right if shape.through is None else right | _through_slot(image, shape, sec, off, words)
    as_compiled = np.zeros(len(sec), dtype=bool)
    for number in np.unique(sec).tolist():
        rows = relocations_of(image, number)
        right = np.isin(rows.symbol, image.symbols.rows_named(shape.called))
        if tables_of(image.arch).left:  # a build tool leaves one that does nothing where it makes a NOP of a call
            right &= rows.kind != image.arch.none
        field = off + shape.call_at + tables_of(image.arch).branch_field[0]
        as_compiled |= (sec == number) & np.isin(field, rows.off[right])
    return as_compiled
