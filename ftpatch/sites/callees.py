"""Where the calls of sites go: to a tracer's entry, to a stub that leads there, or to code that is none of both.

A compiler calls at a function's entry, too, before it has saved the return address: gcc -Os on ppc64le begins functions
with `mflr r0; bl _savegpr0_29`, and where it knows what a callee leaves alone (-fipa-ra) a return address may be parked
in any register. Such a call looks like an enabled site. Only its callee tells: what a site calls returns to where the
*caller* of the function is, and a helper or a function of C returns into the function itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import Shape, begins_with
from ftpatch.arrays import I64, U32, U64, Mask, is_in
from ftpatch.elf.identity import linker_stubs
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.elf.relocations import relocations_of
from ftpatch.sites.profiler_calls import calls_to, knows

# how the names of other code of the tracer begin; `ftrace_` alone, and `ftrace_graph_`, begin many functions of C
TRACERS = ("ftrace_stub", "ftrace_graph_caller", "ftrace_graph_regs_caller", "ftrace_graph_stub", "ftrace_tramp_")
ADDED = ".text.ftpatch"  # code that a patch adds to a program
READ = 8  # units of code that the longest stub of this program's has
MAX_CALLEES = 256  # that are looked at, the most called first
PAGE = 1 << 12  # bytes of code that are read at once
MAX_READS = 1 << 10  # of a callee's code; the longest trampoline of a kernel has 200 instructions
MAX_JUDGED = 64  # callees whose code is walked; a patch has one or two


class Callee(NamedTuple):
    """What the calls of enabled sites without a record lead to."""

    name: str  # of its symbol, else its address
    sure: bool  # a tracer's entry or a stub that only a patch makes; else its code alone speaks for it
    through: int = 0  # va of a veneer in between; 0 for none


def is_stub(image: Image, shape: Shape, va: U64, site: U64) -> Mask:
    """Whether at each va stands an out-of-line stub that leads back behind its site."""
    words = image.words(*image.place(va), 0, len(shape.stub))
    equal = np.logical_and.reduce([word.matches(words[:, i]) for i, word in enumerate(shape.stub)])
    last = va.view(np.int64) + shape.unit * len(shape.stub) - shape.branch.size
    return np.asarray(equal & (last + shape.branch.distance(words) == site.view(np.int64) + shape.branch.size))


def addresses_of(image: Image, name: str) -> list[int]:
    """Addresses of the function `name` and of a linker's branch stubs to it."""
    value = image.symbols.value(name)
    return [va for va in (value,) if va is not None] + [va for va, to in linker_stubs(image).items() if to == name]


def untouched_callees(image: Image, shape: Shape, called: U64) -> list[int]:
    """Addresses that sites call as compiled: the profiling function's; of a linked file that lost its name (strip
    -K …), the one that most sites call, unless its own name says that it is a tracer. called: by each site."""
    known = addresses_of(image, shape.called)
    if image.kind in PROGRAMS:  # many stubs may lead to what a program imports
        callees = np.unique(called)
        known += callees[calls_to(image, shape.called, callees)].tolist()
        if knows(image, shape.called):  # others of its sites call it through a slot, and these something else
            return known
    if known or not len(called):
        return known
    distinct, n_calls = np.unique(called, return_counts=True)
    most, own = int(distinct[n_calls.argmax()]), own_entries(image, shape)
    return [] if any(_is_tracer(name, own) for name in _names_of(image, [most]).get(most, ())) else [most]


def called_from(image: Image, shape: Shape, branch: U64, distance: I64) -> U64:
    """va that each enabled site of a linked file calls; out of line, what its stub calls.

    branch: va of each site's own branch; distance: bytes that it spans.
    """
    to = (branch.view(np.int64) + distance).view(np.uint64)
    stub = image.arch.site_stub
    if not shape.out_of_line or stub is None:
        return to
    call = (to.view(np.int64) + stub.call_at).view(np.uint64)
    ahead = image.arch.call.decode(image.words(*image.place(call), 0, 1)[:, 0])
    return (call.view(np.int64) + ahead).view(np.uint64)


def tracers(image: Image, shape: Shape, called: U64) -> dict[int, Callee]:
    """Those of the addresses called that lead to a tracer, and to which one."""
    distinct, n_calls = np.unique(called, return_counts=True)
    most_called = distinct[np.argsort(-n_calls, kind="stable")][:MAX_CALLEES].tolist()
    own, through = own_entries(image, shape), linker_stubs(image) if most_called else {}
    known: dict[int, Callee] = {}
    n_judged, page = 0, lru_cache(maxsize=64)(image.code)
    veneered = _behind_veneers(image, most_called)
    traced, named = set(_traced(image, shape, most_called)), _names_of(image, [*most_called, *veneered.values()])
    for va in most_called:
        name = next((name for name in (*named.get(va, ()), through.get(va, "")) if _is_tracer(name, own)), None)
        end = veneered.get(va, va)
        if name is None:
            name = _behind_stub(image, end) or next(
                (name for name in named.get(end, ()) if _is_tracer(name, own)), None
            )
        if name is not None:
            known[va] = Callee(name, sure=True, through=va if end != va else 0)
        elif n_judged < MAX_JUDGED and va not in traced:
            n_judged += 1
            if _is_idle(image, end):
                continue
            if not image.arch.keeps_contract(_reader(image, page), end, shape.out_of_line, library=shape.library):
                name = next(iter(named.get(end, ())), f"{end:#x}")
                known[va] = Callee(name, sure=False, through=va if end != va else 0)
    return known


def _behind_veneers(image: Image, called: list[int]) -> dict[int, int]:
    """Where those of the addresses called lead on where a veneer is. Linkers make veneers too, to anything."""
    veneer = image.arch.veneer
    ends = ((va, veneer.leads_to(image.code(va, READ), va)) for va in called) if veneer is not None else ()
    return {va: end for va, end in ends if end is not None}


def _is_idle(image: Image, va: int) -> bool:
    """Whether the function at `va` does nothing, and the arch says that a compiler's own call of it looks like ours."""
    code = image.words(*image.place(np.array([va], dtype=np.uint64)), 0, READ)  # zeros where there is no code
    return bool(begins_with(code, image.arch.idle)[0])


def _traced(image: Image, shape: Shape, called: list[int]) -> list[int]:
    """Those of the addresses called where a function begins with the call that compilers leave: no tracer is traced."""
    if not shape.called or shape.anywhere or (shape.skip_at >= 0 and shape.skips):
        return []
    va = np.array(called, dtype=np.uint64)
    sec, off = image.place(va)
    if shape.skips:  # where the site would be behind them
        off = np.where(shape.skipped(image.window(sec, off + shape.unit * shape.skip_words, shape.reads)),
                       off + shape.unit * shape.skip_words, off)  # fmt: skip
    body = shape.body(image.window(sec, off - shape.entry, shape.reads))
    to = image.va(sec, off - shape.entry + shape.unit * shape.start + shape.call_at).view(np.int64)
    fits = shape.is_left(body) & shape.branch.ends(body)
    own = np.array(addresses_of(image, shape.called), dtype=np.uint64)
    traced: list[int] = va[fits & is_in((to + shape.branch.distance(body)).view(np.uint64), own)].tolist()
    return traced


def _reader(image: Image, page: Callable[[int, int], U32]) -> Callable[[int, int], U32]:
    """A function that reads code as `Image.code` does, in many small pieces that lie together, and not for ever.

    page: `Image.code` that remembers.
    """
    unit, n_reads = image.arch.unit, count()

    def read(va: int, n: int) -> U32:
        if next(n_reads) >= MAX_READS:
            return np.zeros(0, dtype=np.uint32)
        start = va & -PAGE
        code = page(start, PAGE // unit)[(va - start) // unit :][:n]
        return code if len(code) == n and va % unit == 0 else image.code(va, n)

    return read


def own_entries(image: Image, shape: Shape) -> tuple[str, ...]:
    """Names of the kernel's own trampolines."""
    return (*image.arch.entries, *(image.arch.far.areas if image.arch.far else ()), *filter(None, [shape.called]))


def _is_tracer(name: str, own: tuple[str, ...]) -> bool:
    return name in own or name.startswith(TRACERS)


def _names_of(image: Image, addresses: list[int]) -> dict[int, list[str]]:
    """Names of the symbols at some addresses, by address."""
    value, names = image.symbols.rows["st_value"], dict[int, list[str]]()
    rows = np.flatnonzero(is_in(value, np.array(addresses, dtype=np.uint64)) & (image.symbols.shndx > 0))
    for row, va in zip(rows.tolist(), value[rows].tolist(), strict=True):
        if name := image.symbols.name(row):
            names.setdefault(va, []).append(name)
    return names


def _behind_stub(image: Image, va: int) -> str | None:
    """What a stub that a patch made at `va` leads to; None where none stands there.

    The words of such stubs are the kernel's own way to its tracer, which no compiler or linker makes.
    """
    if image.kind in PROGRAMS and va in image.base[image.sections_named(ADDED)].tolist():
        return ADDED  # a stub that calls a hook
    arch, words = image.arch, image.code(va, READ)
    if arch.ops_thunk is not None and (to := arch.ops_thunk.leads_to(words, va)) is not None:
        return _name_of(image, to)
    toc = image.symbols.value(arch.far.toc) if arch.far is not None else None
    if arch.far is not None and toc is not None and (to := arch.far.leads_to(words, toc)) is not None:
        return _name_of(image, to)
    return None


def _name_of(image: Image, va: int) -> str:
    """The symbol at an address, else the function around it, else the address."""
    name = next(iter(_names_of(image, [va]).get(va, ())), None)
    if name is None:
        inside = int(image.functions.containing(np.array([va], dtype=np.uint64))[0])
        name = image.symbols.name(int(image.functions.row[inside])) if inside >= 0 else None
    return name or f"{va:#x}"


def relocated_calls(image: Image, prefix: str) -> U64:
    """va of every branch in the code of a relocatable file that is relocated to a symbol whose name begins so, but for
    the code that a patch added: its stubs call each other, too."""
    found, inside = [np.zeros(0, np.uint64)], np.uint64(image.arch.call.relocated_at)
    for sec in np.flatnonzero(image.executable).tolist():
        if ".ftpatch" not in image.names[sec]:
            rows = relocations_of(image, sec)
            ours = np.array([image.symbols.name(row).startswith(prefix) for row in rows.symbol.tolist()], dtype=bool)
            found.append(image.base[sec] + rows.off[ours].view(np.uint64) - inside)
    return np.concatenate(found)


def leading_to(called: U64, known: dict[int, Callee]) -> Mask:
    """Which calls go to one of these."""
    return is_in(called, np.array(list(known), dtype=np.uint64))
