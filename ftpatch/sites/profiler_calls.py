"""Calls of the profiling function that `-pg` makes, found where no record tells of them.

    object, module    the relocations of code against `_mcount`
    linked file       every call in the code that goes to `_mcount`, to a linker's stub to it, or to a stub that jumps
                      through the slot which the dynamic linker fills with its address (.plt)

A kernel's build makes records of them (scripts/recordmcount, objtool); a program that is profiled by gprof has none.
Nothing is searched in a file that does not know the name.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.shape import Branch, Shape, begins_with
from ftpatch.arrays import I64, U32, U64, Mask, distinct, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.identity import entries_and_stubs
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.sites.object_marks import marked

FEW = 4  # addresses up to which code is searched for each alone
STUB = 24  # bytes of a stub of a .plt that are read


def profiler_calls(image: Image, name: str) -> tuple[I64, I64]:
    """(section, offset) of every direct call of the function `name`, ascending."""
    if image.kind == "object":
        sec, off = _in_object(image, name)
    elif image.linked:
        sec, off = _in_linked(image, name)
    else:
        sec, off = _in_relocatable(image, name, image.arch.direct_calls, image.arch.call)
    return _ascending(sec, off)


def calls_by_relocation(image: Image, name: str) -> tuple[I64, I64]:
    """(section, offset) of every direct call of the function `name` in a relocatable file by its relocation alone, as
    the builds of kernels look for them, ascending."""
    return _ascending(*_in_relocatable(image, name, image.arch.direct_calls, image.arch.call))


def _ascending(sec: I64, off: I64) -> tuple[I64, I64]:
    key = sec << 40 | off
    if not (key[1:] > key[:-1]).all():  # tables of relocations need not be sorted, nor name a place once
        key = np.unique(key)
    return key >> 40, key & (1 << 40) - 1


def _nowhere() -> tuple[I64, I64]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64)


def _joined(parts: list[tuple[int, I64]]) -> tuple[I64, I64]:
    """Sections with offsets in them as two columns."""
    if not parts:
        return _nowhere()
    secs = np.repeat(np.array([sec for sec, _ in parts], np.int64), [len(off) for _, off in parts])
    return secs, np.concatenate([off for _, off in parts])


def _in_object(image: Image, name: str) -> tuple[I64, I64]:
    """(section, offset) of the calls in an object, of what a patch made of them, and of what it switched off.

    A jump to the function is no site: there is nothing to come back to.
    """
    shapes = [shape for shape in image.arch.shapes if shape.called == name]
    kinds = image.arch.direct_calls
    if any(shape.through for shape in shapes):
        kinds += image.arch.indirect_calls
    calls, marks = _in_relocatable(image, name, kinds), marked(image, name)
    sec, field = (np.concatenate(pair) for pair in zip(calls, marks[:2], strict=True))
    off = np.append(np.zeros(len(calls[0]), dtype=bool), ~marks[2])  # a mark alone is one of a NOP
    inside = field < len(image.data)  # a section may claim any size
    sec, field, off = sec[inside], field[inside], off[inside]
    start = np.full(len(sec), -1, dtype=np.int64)
    for shape in sorted(shapes, key=lambda shape: -len(shape.old)):
        at = field - shape.call_at - shape.branch.relocated_at
        open_ = np.flatnonzero((start < 0) & (at >= 0))
        code = image.words(sec[open_], at[open_], 0, len(shape.old))
        calls_it = begins_with(code, (shape.old, *shape.also)) & ~begins_with(code, (shape.nops,))
        left = np.where(off[open_], begins_with(code, (shape.nops,)), calls_it)
        start[open_[left]] = at[open_[left]]
    if image.arch.unit > 1 and image.arch.jump is not None:  # such a relocation is of a branch, whatever stands there
        odd = np.flatnonzero((start < 0) & ~off)
        jumps = image.arch.jump.word.matches(image.words(sec[odd], field[odd], 0, 1)[:, 0])
        start[odd[~jumps]] = field[odd[~jumps]]
    return sec[start >= 0], start[start >= 0]


def n_indirect(image: Image, name: str) -> int:
    """How many calls of the function in a relocatable file go through a pointer, which no tracer can switch."""
    return len(_by_pointer(image, name)[0])


def _by_pointer(image: Image, name: str) -> tuple[I64, I64]:
    """(section, offset) of what holds pointers to the function, but for calls of an object that a linker makes direct
    ones."""
    sec, off = _in_relocatable(image, name, image.arch.indirect_calls)
    if image.kind == "object":
        through = [shape for shape in image.arch.shapes if shape.through and shape.called == name]
        sites = image.va(*_in_object(image, name))
        for shape in through:
            front = shape.call_at + shape.branch.relocated_at
            other = ~is_in(image.va(sec, off - front), sites)
            sec, off = sec[other], off[other]
    return sec, off


def calls_of(image: Image, targets: U64) -> tuple[I64, I64]:
    """(section, offset) of every direct call of a linked file that goes to one of some addresses, ascending."""
    parts: list[tuple[int, I64]] = []
    for sec in np.flatnonzero(image.executable).tolist() if len(targets) else ():
        off, to = _calls_in(image, sec, image.arch.call)
        parts.append((sec, off[is_in(to, targets)]))
    return _joined(parts)


def calls_through_pointer(image: Image, name: str, function: int) -> bool:
    """Whether a function of `image.functions` in a relocatable file calls the function `name` through a pointer."""
    sec, off = _by_pointer(image, name) if not image.linked else _nowhere()
    return bool((image.functions.containing(image.va(sec, off)) == function).any())


def _in_relocatable(image: Image, name: str, kinds: tuple[int, ...], call: Branch | None = None) -> tuple[I64, I64]:
    """(section, offset) of what the loader will write into code by relocations of these types against the function;
    call: of the branches of this kind that it writes there."""
    symbols = image.symbols.rows_named(name)
    wanted = (symbols.astype(np.uint64)[:, None] << np.uint64(32) | np.array(kinds, np.uint64)).reshape(-1)
    parts: list[tuple[int, I64]] = []
    for sec in np.flatnonzero(image.executable).tolist() if len(wanted) else ():
        for table in image.rela_tables.get(sec, ()):
            rows = image.rows(table, t.RELA)
            hit = np.flatnonzero(is_in(rows["r_info"], wanted))
            if not len(hit):
                continue
            off = rows["r_offset"][hit]
            off = off[(off < image.shdr["sh_size"][sec]) & (off % np.uint64(image.arch.unit) == 0)].astype(np.int64)
            parts.append((sec, off if call is None else _branches_at(image, sec, off, call)))
    return _joined(parts)


def _branches_at(image: Image, sec: int, field: I64, call: Branch) -> I64:
    """The branches of a kind whose distances are at some offsets."""
    if not call.relocated_at:
        return field
    off = field[field >= call.relocated_at] - call.relocated_at
    return off[call.word.matches(image.content(sec)[off].astype(np.uint32))]


def knows(image: Image, name: str) -> bool:
    """Whether a linked file has the function, or imports it."""
    return image.symbols.value(name) is not None or (image.kind in PROGRAMS and len(_plt_slots(image, name)) > 0)


def calls_to(image: Image, name: str, callees: U64) -> Mask:
    """Which addresses that code of a linked file calls are those of the function, or of a stub that leads there."""
    slots = _plt_slots(image, name)
    goes_there = np.asarray(is_in(callees, _entries(image, name)))
    return np.asarray(goes_there | _through_slots(image, callees, slots)) if len(slots) else goes_there


def slots_of(image: Image, name: str) -> U64:
    """Addresses of the words that hold, once the file is loaded, the address of a function.

    The dynamic linker fills those of an imported one; in a static program a linker may leave the call as it is.
    """
    return _plt_slots(image, name)


def _in_linked(image: Image, name: str) -> tuple[I64, I64]:
    starts = _entries(image, name)
    slots = _plt_slots(image, name)
    if not len(starts) and not len(slots):
        return _nowhere()
    parts: list[tuple[int, I64]] = []
    call = image.arch.call
    relaxed = next((shape for shape in image.arch.shapes if shape.through and shape.called == name), None)
    for sec in np.flatnonzero(image.executable).tolist():
        if call.unit > 1 and not len(slots) and len(starts) <= FEW:  # as in a kernel, where nothing else is as long
            base = int(image.base[sec])
            found = [call.calls_of(_units(image, sec), base, va) for va in starts.tolist()]
            parts.append((sec, np.concatenate(found)))
            continue
        off, to = _calls_in(image, sec, call)
        goes_there = is_in(to, starts)
        if len(slots):
            goes_there |= _through_slots(image, to, slots)
        off = off[goes_there]
        if relaxed is not None and image.kind in PROGRAMS:
            off = np.union1d(_behind_prefix(image, sec, off, relaxed), _calls_of_slots(image, sec, relaxed, slots))
        parts.append((sec, off))
    return _joined(parts)


def _calls_of_slots(image: Image, sec: int, shape: Shape, slots: U64) -> I64:
    """Byte offsets of the calls in a section of code that go through one of these words."""
    code = _units(image, sec)
    if shape.through is None or not len(slots):
        return np.zeros(0, np.int64)
    off, distance = shape.through.find(code)
    with np.errstate(over="ignore"):
        off = off[is_in(np.uint64(int(image.base[sec])) + (off + distance).view(np.uint64), slots)]
    return off[begins_with(code[off[:, None] + np.arange(len(shape.old))], (shape.old,))]


def _behind_prefix(image: Image, sec: int, off: I64, shape: Shape) -> I64:
    """The calls of a section, with the prefix in front that a linker writes when it relaxes calls through a word.

    A byte may look so by chance; where it is none, hardly a call has it.
    """
    code, front = _units(image, sec), len(shape.new) - shape.branch.n_units
    in_front = off - front
    prefixed = (in_front >= 0) & begins_with(
        code[np.maximum(in_front, 0)[:, None] + np.arange(front)], (shape.new[:front],)
    )
    return np.where(prefixed, in_front, off) if 2 * int(prefixed.sum()) > len(off) else off


def _calls_in(image: Image, sec: int, call: Branch) -> tuple[I64, U64]:
    """(offset, va of the callee) of every call in a section of code."""
    off, distance = call.find(_units(image, sec))
    with np.errstate(over="ignore"):
        return off, np.uint64(int(image.base[sec])) + (off + distance).view(np.uint64)


def _units(image: Image, sec: int) -> U32:
    """The units of code of a section, without copying."""
    code = image.content(sec)
    return np.asarray(code if image.arch.unit == 1 else code[: len(code) & ~3].view("<u4"))


def _entries(image: Image, name: str) -> U64:
    """Addresses of the function, global and local, and of the stubs that linkers make to it."""
    va = image.symbols.rows["st_value"][entries_and_stubs(image, name)]
    if len(va) and image.arch.local_entry is not None:
        va = np.concatenate([va, image.functions.local[is_in(image.functions.va, va)]])
    return distinct(va)


def _plt_slots(image: Image, name: str) -> U64:
    """Addresses of the words that the dynamic linker fills with the address of an imported function."""
    slots = [np.zeros(0, np.uint64)]
    for table in np.flatnonzero((image.shdr["sh_type"] == t.SHT_RELA) & (image.shdr["sh_flags"] & t.SHF_ALLOC != 0)):
        link = int(image.shdr["sh_link"][table])
        if link >= len(image.shdr) or image.shdr["sh_type"][link] != t.SHT_DYNSYM:
            continue
        wanted = _named_in(image, link, name)
        if len(wanted):
            rows = image.rows(int(table), t.RELA)
            slots.append(rows["r_offset"][is_in(rows["r_info"] >> np.uint64(32), wanted)])
    return distinct(np.concatenate(slots))


def _named_in(image: Image, table: int, name: str) -> I64:
    """Rows of a dynamic symbol table that have a name."""
    link = int(image.shdr["sh_link"][table])
    if link >= len(image.shdr) or image.shdr["sh_type"][link] != t.SHT_STRTAB:
        return np.zeros(0, np.int64)
    strings, rows = image.content(link).tobytes(), image.rows(table, t.SYM)
    return np.flatnonzero(is_in(rows["st_name"], list(t.places_of(name.encode() + b"\0", strings))))


def _through_slots(image: Image, to: U64, slots: U64) -> Mask:
    """Which callees are stubs that jump to where one of the slots says."""
    if image.arch.plt_slot is None or not len(to):
        return np.zeros(len(to), dtype=bool)
    callees, which = np.unique(to, return_inverse=True)
    got = next((int(image.base[sec]) for sec in image.sections_named(".got")), 0)
    through = image.arch.plt_slot(image.words(*image.place(callees), 0, STUB // image.arch.unit), callees, got)
    return np.asarray(is_in(through, slots)[which])
