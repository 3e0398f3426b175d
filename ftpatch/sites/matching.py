"""What the code of an image shows at places where sites may be: in which state each is, and whose entry it is at."""

from __future__ import annotations

import numpy as np

from ftpatch.arch.shape import MATCH_NEW, MATCH_NONE, MATCH_OLD, Shape, begins_with
from ftpatch.arrays import I64, U8, U32, U64, Mask, is_in
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.sites.callees import is_stub, relocated_calls, untouched_callees
from ftpatch.sites.fronts import match_fronts
from ftpatch.sites.layout import at_entry
from ftpatch.sites.object_marks import enabled_calls
from ftpatch.sites.profiler_calls import profiler_calls, slots_of

PROLOGUE = 64  # bytes from a function's entry to its site, at most, where a layout does not tell them
OURS = "ftpatch_"  # how the symbols begin that a patch adds to a module


def is_patched(image: Image) -> bool:
    """Whether a relocatable file has symbols of an earlier patch, or an object its marks."""
    return not image.linked and (OURS.encode() in image.symbols.strtab or len(enabled_calls(image)) > 0)


def match_sites(image: Image, shape: Shape, window: U32, va: U64) -> U8:
    """MATCH_* per site by its words; where words alone cannot tell, also by where its branch goes."""
    match = match_fronts(image, shape, window, va) if shape.front else shape.match(window)
    if shape.called and is_patched(image):
        match[(match == MATCH_OLD) & calls_ours(image, shape, window, va)] = MATCH_NEW
    if shape.called and not image.linked:
        match[(match == MATCH_OLD) & calls_another(image, shape, window, va)] = MATCH_NONE
    if image.linked and (shape.called or shape.stub):
        body = shape.body(window)
        site = va + (shape.site(window) + shape.call_at).view(np.uint64)
        if shape.called:
            if shape.through is not None:
                match[_goes_elsewhere(image, shape, body, va + shape.site(window).view(np.uint64), match)] = MATCH_NONE
            old = np.flatnonzero((match == MATCH_OLD) & shape.branch.ends(body))
            target = _targets(shape, site[old], body[old])
            untouched = np.array(untouched_callees(image, shape, target), dtype=np.uint64)
            match[old[~is_in(target, untouched)]] = MATCH_NEW
        if shape.stub:
            new = np.flatnonzero(match == MATCH_NEW)  # few: the words at their targets are spread over all of the text
            match[new[~is_stub(image, shape, _targets(shape, site[new], body[new]), site[new])]] = MATCH_NONE
    return match


def _goes_elsewhere(image: Image, shape: Shape, body: U32, site: U64, match: U8) -> Mask:
    """Which calls through a word in memory are not of the function that the layout calls."""
    assert shape.through is not None
    other = np.asarray((match == MATCH_OLD) & begins_with(body, (shape.old,)))
    word = (site[other].view(np.int64) + shape.through.decode(body[other])).view(np.uint64)
    other[other] = ~is_in(word, slots_of(image, shape.called))
    return other


def _targets(shape: Shape, site: U64, body: U32) -> U64:
    """Where the branch at each site goes."""
    return (site.view(np.int64) + shape.branch.distance(body)).view(np.uint64)


def calls_another(image: Image, shape: Shape, window: U32, va: U64) -> Mask:
    """Which sites of a relocatable file the loader will make call a function of another name (-mfentry-name=…)."""
    calls = np.asarray(shape.branch.ends(shape.body(window)))
    at = va + (shape.site(window) + shape.call_at).view(np.uint64)
    if calls.any():
        calls &= ~is_in(at, image.va(*profiler_calls(image, shape.called)))
    if calls.any():
        calls[calls] = is_in(at[calls], _named_calls(image))
    return calls


def _named_calls(image: Image) -> U64:
    """va of every call in a relocatable file that a relocation makes one of a symbol with a name."""
    starts, call = [np.zeros(0, np.uint64)], image.arch.call
    for sec in np.flatnonzero(image.executable).tolist():
        rows = relocations_of(image, sec)
        named = image.symbols.rows["st_name"][rows.symbol] > 0
        off = rows.off[named & is_in(rows.kind, image.arch.direct_calls)]
        starts.append(image.base[sec] + (off - call.relocated_at).view(np.uint64))
    return np.concatenate(starts)


def functions_at(image: Image, shape: Shape, window: U32, va: U64) -> tuple[I64, I64]:
    """Span in image.functions of the symbols at each site's entry; equal ends: none there."""
    if shape.anywhere:
        inside = image.functions.containing(va)
        at = image.functions.va[np.maximum(inside, 0)] if len(image.functions.va) else va
        if not image.functions.sized:
            inside[~_first_of_each(at, va)] = -1
        low, high = image.functions.at(at)
        return np.where(inside >= 0, low, 0), np.where(inside >= 0, high, 0)
    return at_entry(image, shape, window, va)


def _first_of_each(entry: U64, va: U64) -> Mask:
    """Which sites are the first behind their entries, and near: where sizes are guessed, others may be those of
    functions in between that have no symbol."""
    order = np.lexsort((va, entry))
    first = np.ones(len(va), dtype=bool)
    first[order[1:]] = entry[order[1:]] != entry[order[:-1]]
    return first & (va - entry <= np.uint64(PROLOGUE))


def calls_ours(image: Image, shape: Shape, window: U32, va: U64) -> Mask:
    """Whether the branch of each site of a relocatable file is relocated to a symbol that an earlier patch made; in an
    object, whether it is marked as a patch's."""
    ours = np.concatenate([relocated_calls(image, OURS), enabled_calls(image)])
    return is_in(va + (shape.site(window) + shape.call_at).view(np.uint64), ours)


def code_around(image: Image, shape: Shape, sec: I64, off: I64) -> U32:
    """Windows of places where records would be, and as many units more as the shape may have extra ones before them."""
    return image.words(sec, off, shape.first, shape.reads // shape.unit + _n_in_front(shape))


def behind_skip(shape: Shape, sec: I64, off: I64, code: U32) -> tuple[I64, U32]:
    """Places of records and their windows, from where they would be without the shape's extra units before them.

    code: of those places, as `code_around` gives it.
    """
    skip = _n_in_front(shape)
    if not skip:
        return off, code
    behind = shape.skipped(code[:, skip:]) & (sec >= 0)
    return off + np.where(behind, shape.unit * skip, 0), np.where(behind[:, None], code[:, skip:], code[:, :-skip])


def _n_in_front(shape: Shape) -> int:
    """How many extra units a function may have in front of where its record is."""
    return shape.skip_words if shape.skip_at < 0 else 0
