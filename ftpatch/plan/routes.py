"""The way of a call from a site to its target: straight, or through a stub that several sites share.

    straight   the branch reaches
    thunk      arm64: all sites go through one stub that loads the ops, where per-site literals are not wanted or
               the free relocation entries do not suffice
    far        ppc64le: the branch does not reach. First the kernel's own trampolines, with the very words that the
               kernel will write there at boot; then a stub in the zero tail of the text, or in the zero gap
               before init text, which is mapped executable and never freed

A stub is only put where nothing can be: zero bytes that no symbol claims and no relocation touches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch import FarCalls
from ftpatch.arrays import I64, U32, U64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.plan.targets import READ, Ops, Target
from ftpatch.sites.scan import Scan

AREA = 32  # bytes of a trampoline of the kernel's; it writes no more than the first twenty
SEARCH = 1 << 16  # bytes of a gap that are searched for room


@dataclass(frozen=True)
class Slack:
    """Relocation rows that may be filled."""

    needed: bool  # whether the image moves at boot, so that every pointer wants a row
    rows: I64


def free_rows(image: Image) -> Slack:
    """All-zero rows of the dynamic relocation table, in file order: linkers reserve more than they fill."""
    rows, _ = image.rela
    relocatable = bool(len(rows)) or bool((image.shdr["sh_type"] == t.SHT_RELR).any())
    free = (rows["r_offset"] == 0) & (rows["r_info"] == 0) & (rows["r_addend"] == 0)
    return Slack(relocatable, np.flatnonzero(free))


@dataclass(frozen=True)
class SharedStub:
    """A stub that several sites call through."""

    va: int
    words: U32
    present: bool  # whether the file has it already
    name: str  # where it lies, for people
    why: str  # why it may lie there
    init_only: bool = False  # freed with init text, so that no other site may use it


@dataclass(frozen=True)
class Routes:
    """Where calls go, one row per call."""

    call_to: U64  # va that the call goes to: the target, or a shared stub
    through: I64  # index in `stubs` of that stub; −1 for none
    stubs: tuple[SharedStub, ...]
    tried: tuple[SharedStub, ...] = ()  # every stub that there was to choose from


def straight(target: Target, n: int) -> Routes:
    """Every call goes to the target itself."""
    return Routes(np.full(n, target.va, dtype=np.uint64), np.full(n, -1, dtype=np.int64), ())


def by_thunk(scan: Scan, target: Target, ops: Ops, n: int) -> Routes:
    """Every call goes through one thunk that loads the ops."""
    stub = place_thunk(scan, target, ops)
    return Routes(np.full(n, stub.va, dtype=np.uint64), np.zeros(n, dtype=np.int64), (stub,))


def by_reach(scan: Scan, target: Target, call_va: U64, init: Mask) -> Routes:
    """Straight where the branch reaches, else through the first far stub that does; else straight, out of reach.

    init: which of the calls stand in init text, where the trampoline that is freed with it may be used.
    """
    arch, routes = scan.arch, straight(target, len(call_va))
    beyond = ~arch.call.reaches(distances(call_va, routes.call_to))
    if arch.far is None or not beyond.any():
        return routes
    tried = far_stubs(scan, arch.far, target)
    for number, stub in enumerate(tried):
        fits = beyond & (routes.through < 0) & arch.call.reaches(distances(call_va, np.uint64(stub.va)))
        if stub.init_only:
            fits &= init
        routes.call_to[fits], routes.through[fits] = stub.va, number
    used = np.unique(routes.through[routes.through >= 0])
    renumber = np.searchsorted(used, np.maximum(routes.through, 0))
    through = np.where(routes.through >= 0, renumber, -1)
    return Routes(routes.call_to, through, tuple(tried[i] for i in used.tolist()), tuple(tried))


def distances(call_va: U64, call_to: U64 | np.uint64) -> I64:
    """Bytes from each call to where it goes, signed."""
    distance: I64 = np.asarray(call_to, dtype=np.uint64).view(np.int64) - call_va.view(np.int64)
    return distance


def place_thunk(scan: Scan, target: Target, ops: Ops) -> SharedStub:
    """The thunk for these ops: an earlier one of the same words, else in the free tail of the target's section.

    Raises PolicyError where there is no room.
    """
    image, arch, thunk = scan.image, scan.arch, scan.arch.ops_thunk
    if thunk is None:
        raise PolicyError("--ops-via thunk does not suit this machine", image.path, found=arch.name,
                          expected="a machine whose sites have the ops pointer in front of the function")  # fmt: skip
    start, end = _tail(scan, target.va)
    free = _first_zero(image, start, end)
    if abs(ops.va - end) >= thunk.reach:
        raise PolicyError("the ops are too far from the text for a thunk", image.path, found=f"{ops.name} {ops.va:#x}")
    for va in range(start, end - thunk.size + 1, 16):
        if va & 0xFFF in {(offset - 4) & 0xFFF for offset in thunk.avoids}:
            continue
        words = thunk.words(va, ops.va, target.va, target.entry)
        if va < free:
            if np.array_equal(image.code(va, thunk.size // 4), words):
                return SharedStub(va, words, True, "thunk", "an earlier patch put it there")
        elif not image.relocated(np.array([va], np.uint64), thunk.size)[0]:
            return SharedStub(va, words, False, "thunk", "zero padding at the end of the text")
    raise PolicyError("no room for a thunk", image.path, found=f"{max(end - free, 0)} zero bytes at the text's end",
                      expected=f"at least {thunk.size}", todo="--ops-via literal")  # fmt: skip


def far_stubs(scan: Scan, far: FarCalls, target: Target) -> list[SharedStub]:
    """Every place for a far stub that this image offers, best first."""
    image, arch = scan.image, scan.arch
    toc, own = image.symbols.value(far.toc), image.symbols.value(arch.entries[0])
    kernel_toc = arch.read_entry(image.code(own, READ)).kernel_toc if own is not None else None
    if toc is None or kernel_toc is None or abs(target.va - toc) >= far.reach:
        return []
    stubs = _kernel_stubs(scan, far, toc, kernel_toc) if target.own else []
    words = far.stub(target.va, toc, kernel_toc)
    for name, (start, end) in {"text tail": _tail(scan, target.va), "gap before init text": _gap(image)}.items():
        stub = _own_stub(image, name, start, end, words, from_end=name != "text tail")
        if stub:
            stubs.append(stub)
    return stubs


def _kernel_stubs(scan: Scan, far: FarCalls, toc: int, kernel_toc: int) -> list[SharedStub]:
    """The kernel's trampolines, with what it will write there itself: a jump to the last of its entries."""
    image, arch, stubs = scan.image, scan.arch, []
    last, entry = [(name, at) for name in arch.entries if (at := image.symbols.value(name)) is not None][-1]
    if abs(entry - toc) >= far.reach:
        return []
    words = far.stub(entry, toc, kernel_toc)
    for number, name in enumerate(far.areas):
        va = image.symbols.value(name)
        if va is None:
            continue
        there = image.code(va, far.size // 4)
        present = np.array_equal(there, words)
        if present or (
            len(there) == len(words) and not there.any() and not image.relocated(np.array([va], np.uint64), far.size)[0]
        ):
            why = f"the kernel's own, filled with the jump to {last} that it will write there itself"
            stubs.append(SharedStub(va, words, present, name, why, init_only=number == 1))
    return stubs


def _own_stub(image: Image, name: str, start: int, end: int, words: U32, from_end: bool) -> SharedStub | None:
    """A stub in a free range, or the same one that an earlier patch put there."""
    size = (4 * len(words) + 15) & ~15
    free = _first_zero(image, start, end)
    last = (end - size) & ~15
    backwards = range(last, max(start, last - SEARCH) - 1, -size)
    for va in backwards if from_end else [*range(start, free, 16), free]:  # an earlier stub of ours lies before `free`
        if va < start or va + size > end:
            continue
        pos = image.pos_of_va(va)
        there = image.data[pos : pos + size].view("<u4") if not pos & 3 else image.data[:0].view("<u4")
        present = np.array_equal(there[: len(words)], words)
        if present or (len(there) and not there.any() and not image.relocated(np.array([va], np.uint64), size)[0]):
            return SharedStub(va, words, present, name, "zero bytes that no symbol claims")
    return None


def _tail(scan: Scan, inside: int) -> tuple[int, int]:
    """[start, end) of what no symbol claims at the end of the text section that holds `inside`, 16-byte aligned."""
    image, arch = scan.image, scan.arch
    sec = int(image.place(np.array([inside], dtype=np.uint64))[0][0])
    symbols = image.symbols
    first = int(image.base[sec])
    end = first + int(image.shdr["sh_size"][sec])
    row = (symbols.shndx == sec) & (symbols.type != t.STT_SECTION)
    value, size = symbols.rows["st_value"][row], symbols.rows["st_size"][row]
    within = (value >= np.uint64(first)) & (value < np.uint64(end))
    last = int((value + np.maximum(size, np.uint64(4)))[within].max()) if within.any() else first
    for name in arch.far.areas if arch.far else ():  # sizeless symbols of what the kernel fills at boot
        area = image.symbols.value(name)
        last = max(last, area + AREA) if area is not None and first <= area < end else last
    limit, starts = image.symbols.value("_etext"), image.shdr["sh_addr"]
    following = starts[(image.shdr["sh_flags"] & t.SHF_ALLOC != 0) & (starts >= np.uint64(end))]
    free = limit is not None and first < limit and (not len(following) or limit <= int(following.min()))
    if limit is not None and free and image.pos_of_va(limit - 1) - image.pos_of_va(end - 1) == limit - end:
        end = limit  # the linker's padding between the section and the end of the text is text too, if the file has it
    return (last + 15) & ~15, end


def _gap(image: Image) -> tuple[int, int]:
    """[start, end) of the hole between the last section before `__init_begin` and that symbol; empty if none."""
    end = image.symbols.value("__init_begin")
    if end is None:
        return 0, 0
    flags = image.shdr["sh_flags"]
    stop = image.shdr["sh_addr"] + image.shdr["sh_size"]
    before = (flags & t.SHF_ALLOC != 0) & (image.shdr["sh_addr"] < np.uint64(end)) & (image.shdr["sh_size"] > 0)
    start = int(stop[before].max()) if before.any() else end
    claimed = image.symbols.rows["st_value"]
    claimed = claimed[(claimed >= np.uint64(start)) & (claimed < np.uint64(end))]
    start = max(start, int(claimed.max()) + 16 if len(claimed) else 0)
    return (start + 15) & ~15, end


def _first_zero(image: Image, start: int, end: int) -> int:
    """Where the run of zero bytes that ends at `end` begins, 16-byte aligned, not before `start`; `end` if none."""
    pos = image.pos_of_va(start) if start < end else -1
    if pos < 0 or image.pos_of_va(end - 1) != pos + end - 1 - start:
        return end
    used = np.flatnonzero(image.data[pos : pos + end - start])
    return start if not len(used) else (start + int(used[-1]) + 16) & ~15
