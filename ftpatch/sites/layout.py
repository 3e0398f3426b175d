"""Which layout the patch sites of an image have, decided once for the whole image, by evidence.

A record votes for a shape when its words fit it *and* a function symbol starts where that shape puts the function. A
single site cannot tell: a function may happen to begin with four NOPs. Where several shapes explain some records, the
one that explains all of them wins; where none does, that is an error with counts and samples.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.arch.shape import WINDOW_BEFORE, Shape, begins_with
from ftpatch.arrays import I64, U32, U64, Mask
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.errors import PolicyError, ShapeError
from ftpatch.near_names import did_you_mean
from ftpatch.sites import fronts
from ftpatch.sites.profiler_calls import knows, n_indirect, profiler_calls
from ftpatch.sites.records import PADDING, RecordTable

N_SAMPLES = 3
READ = 64  # units of the kernel's trampoline that are read
SHOWN = 16  # bytes of a sample


def shapes_of(image: Image) -> tuple[Shape, ...]:
    """The layouts that sites of this kind of file can have, those first that its records speak for."""
    shapes = image.arch.shapes
    if image.kind == "object":  # of a kernel or of a program
        return tuple(shape for shape in shapes if not shape.program or _is_named(image, shape))
    if image.kind not in PROGRAMS:
        return tuple(shape for shape in shapes if not shape.program)
    known = [shape for shape in shapes if not shape.called or knows(image, shape.called)]
    if any(shape.called for shape in known):  # else the names of profiling functions are stripped
        shapes = tuple(known)
    if not image.sections_named(PADDING):
        return shapes
    return tuple(sorted(shapes, key=lambda shape: bool(shape.called)))  # the section lists NOPs


def _is_named(image: Image, shape: Shape) -> bool:
    """Whether an object names the function that sites of a layout call."""
    return bool(shape.called) and len(image.symbols.rows_named(shape.called)) > 0


def _is_called(image: Image, shape: Shape) -> bool:
    """Whether a relocatable file names the function that sites of a layout call; an object, in some call."""
    return _is_named(image, shape) and (image.kind != "object" or len(profiler_calls(image, shape.called)[0]) > 0)


def forced_shape(image: Image, records: RecordTable, name: str) -> Shape:
    """The shape of that name; ShapeError where this machine has none."""
    arch = image.arch
    shape = arch.shape(name)
    if shape is None:
        names = [shape.name for shape in (*arch.shapes, *arch.fronts)]
        raise ShapeError(f"{arch.name} has no layout of that name", found=name, expected=", ".join(names),
                         todo=did_you_mean(name, names))  # fmt: skip
    return shape if shape in arch.shapes else fronts.of_records(image, records).forced(shape)


def decide_shape(image: Image, records: RecordTable, window: U32, va: U64) -> Shape | None:
    """The one shape that the image's records show; None where there is no record and no trace of one."""
    code = records.sec >= 0  # a null slot names no place
    code[code] = image.executable[records.sec[code]]
    if not code.any():
        return _shape_of_entry(image) if len(records) or image.kind == "vmlinux" else None
    shapes, index = shapes_of(image), np.flatnonzero(code)
    fits = np.zeros((len(shapes), len(index)), dtype=bool)
    votes = np.zeros_like(fits)
    for vote, fit, shape in zip(votes, fits, shapes, strict=True):
        if shape.anywhere and not _tells_anywhere(image, shape, votes):
            continue
        fit[:] = shape.match(window)[index] > 0
        if fit.all():  # of most kernels one or two shapes fit all: nothing is copied
            vote[:] = _starts(image, shape, window, va)[index]
        elif fit.any():
            vote[fit] = _starts(image, shape, window[index[fit]], va[index[fit]])
        if vote.all() and not (shape.program and shape.refusal) and (shape.entry <= 0 or image.kind not in PROGRAMS):
            return shape  # no other can do better, and of equal ones the first is taken
    words, va = window[index], va[index]
    if (in_front := fronts.decide(image, records, bool(votes.any()))) is not None:
        return in_front
    if not votes.any() and image.kind == "object" and (deep := _all_inside(image, words, va)) is not None:
        return deep
    if not votes.any():
        fronts.require_told(image, records)
        return _shape_without_symbols(image, fits, records, code, words)
    if (usual := _of_most(shapes, votes)) is not None:
        return usual
    counts = list(zip(votes.sum(axis=1).tolist(), fits.sum(axis=1).tolist(), strict=True))
    best = counts.index(max(counts))  # of equal votes the one that fits more, and of those the first: the longer shape
    nameless = fits[best] & image.functions.may_begin(va)  # leftovers of dead weak functions speak for no shape
    against = ~votes[best] & ~nameless
    # A few records that nothing explains are broken sites, for `check` to name; half of them are another layout. One
    # record that speaks for another layout alone is enough: such an image is patched in two ways, or half patched.
    if int(against.sum()) * 2 < len(words) and not (votes.any(axis=0) & ~votes[best]).any():
        return shapes[best]
    raise _no_single_shape(image, votes, records, code, words)


def _tells_anywhere(image: Image, shape: Shape, votes: Mask) -> bool:
    """Whether calls inside functions can show a shape: any such call looks like it. votes: for the shapes before it."""
    if not (knows(image, shape.called) if image.linked else _is_called(image, shape)):
        return False  # nobody can have called what is not there
    # where sizes are guessed, what is left of weak functions seems to be inside others
    return image.functions.sized or 2 * int(votes.sum(axis=1).max()) <= votes.shape[1]


def _of_most(shapes: tuple[Shape, ...], votes: Mask) -> Shape | None:
    """The layout of most sites of a program of which some functions have too few NOPs; None where that is not so."""
    short = np.array([shape.program and bool(shape.refusal) and not shape.called for shape in shapes])
    if not votes[short].any():
        return None
    n_votes = np.where(short, 0, votes.sum(axis=1))
    best = int(n_votes.argmax())
    others = votes[~short].any(axis=0) & ~votes[best]
    explained = votes[best] | votes[short].any(axis=0)
    most = 2 * int(n_votes[best]) >= votes.shape[1]
    return shapes[best] if most and explained.all() and not others.any() else None


def require_still_shown(image: Image, records: RecordTable, window: U32, va: U64, gone: Mask, shape: Shape) -> None:
    """Refuse a choice after which the records that stay would not show the layout any more.

    gone: slots that leave; the other arguments as for `decide_shape`. Raises PolicyError.
    """
    try:
        left = decide_shape(image, replace(records, sec=np.where(gone, -1, records.sec)), window, va)
        shown = left.name if left else "none"
    except ShapeError as error:
        left, shown = None, error.what
    if left is None or (left.old, left.new) != (shape.old, shape.new):
        raise PolicyError("the records that stay would not show the layout of the sites", image.path, found=shown,
                          expected=shape.name, todo="choose fewer sites, or --layout NAME forces it")  # fmt: skip


def shape_of_calls(image: Image, called: str, sec: I64, off: I64) -> Shape:
    """The layout of calls of a function that no record names: the one that fits most, of equal ones the first."""
    window = image.window(sec, off)
    shapes = [shape for shape in shapes_of(image) if shape.called == called]
    return max(shapes, key=lambda shape: int(_fits(shape, window).sum()))


def _fits(shape: Shape, window: U32) -> Mask:
    """Which calls are as the layout has them, or what is left of such a call that was made a NOP."""
    off = begins_with(shape.body(window), (shape.nops,)) & shape.led(window) if shape.nops else False
    return np.asarray((shape.match(window) > 0) | off)


def _all_inside(image: Image, words: U32, va: U64) -> Shape | None:
    """The shape of an object's records behind prologues where calls were made NOPs by the compiler (-mnop-mcount), so
    that nothing names the function; None where another place than the inside of functions is among them."""
    deep = [shape for shape in shapes_of(image) if shape.anywhere and (shape.match(words) > 0).all()]
    return deep[0] if deep and image.functions.inside(va).all() else None


def _shape_without_symbols(image: Image, fits: Mask, records: RecordTable, code: Mask, words: U32) -> Shape:
    """Where no symbol helps: the shape that ftrace_caller shows, else the longest, that fits every record."""
    whole = [shape for shape, fit in zip(shapes_of(image), fits, strict=True) if fit.all()]
    if image.kind in PROGRAMS:  # ops pointers are the kernel's
        whole = [shape for shape in whole if shape.entry <= 0] or whole
    shown = _shape_of_entry(image)
    if whole:
        return shown if shown in whole else whole[0]
    raise _no_single_shape(image, fits & False, records, code, words)


def _starts(image: Image, shape: Shape, words: U32, va: U64) -> Mask:
    """Where a function symbol starts at the distance from the record that the shape demands."""
    if shape.anywhere:
        return image.functions.inside(va)
    low, high = at_entry(image, shape, words, va)
    starts = np.asarray(high > low)
    if shape.site_local:
        site = va + shape.site(words).view(np.uint64)
        starts[starts] = image.functions.local[low[starts]] == site[starts]
    return starts


def at_entry(image: Image, shape: Shape, window: U32, va: U64) -> tuple[I64, I64]:
    """Span of the functions whose entry is where the shape puts it, per record."""
    at = image.functions.at if shape.at_global else image.functions.at_local
    return at(va + shape.to_entry(window).view(np.uint64))


def _no_single_shape(image: Image, votes: Mask, records: RecordTable, code: Mask, words: U32) -> ShapeError:
    arch, rows = image.arch, np.flatnonzero(code)
    counts = ", ".join(f"{shape.name} {int(n)}" for shape, n in zip(shapes_of(image), votes.sum(axis=1), strict=True))
    other = int((~votes.any(axis=0)).sum())
    front = WINDOW_BEFORE // arch.unit
    one_of_each = np.concatenate([np.flatnonzero(vote)[:1] for vote in votes])
    odd = np.flatnonzero(~votes.any(axis=0)) if other else one_of_each
    samples = "; ".join(
        f"row {rows[i]} at {int(image.va(records.sec[rows[i : i + 1]], records.off[rows[i : i + 1]])[0]):#x}: "
        + arch.code_text(words[i, front : front + SHOWN // arch.unit])
        for i in np.sort(odd)[:N_SAMPLES]
    )
    none = f"{other}{_through_pointers(image)} ({samples})"
    return ShapeError(
        "no single site layout explains the records", image.path, found=f"{counts}, none of them {none}",
        expected="one layout in the whole image", todo="--layout NAME forces one",
    )  # fmt: skip


def _through_pointers(image: Image) -> str:
    """How many calls of the profiling function in a relocatable file are no sites as they go through a pointer."""
    called = dict.fromkeys(shape.called for shape in shapes_of(image) if shape.called)
    counts = [(name, n_indirect(image, name)) for name in called] if not image.linked else []
    return "".join(f", {n} calls of {name} through a pointer ({image.arch.pointer_options})" for name, n in counts if n)


def _shape_of_entry(image: Image) -> Shape | None:
    """The shape of an image whose records are all gone, as its own trampoline and symbols tell it; None without."""
    arch = image.arch
    va = image.symbols.value(arch.entries[0])
    if va is None:
        return None
    literal = arch.read_entry(image.code(va, READ)).literal
    areas = arch.site_stub is not None and image.symbols.value(arch.site_stub.text[0]) is not None
    for shape in arch.shapes:
        called = not shape.called or image.symbols.value(shape.called) is not None
        fits = shape.out_of_line or (shape.literal is not None) == literal
        if not shape.refusal and shape.out_of_line == areas and called and fits:
            return shape
    return None
