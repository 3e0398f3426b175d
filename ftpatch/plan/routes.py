"""The way of a call from a site to its target: straight, or through a stub that several sites share.

    straight   the branch reaches
    thunk      arm64: all sites go through one stub that loads the ops, where per-site literals are not wanted or
               the free relocation entries do not suffice
    far        ppc64le: the branch does not reach. First the kernel's own trampolines, with the very words that the
               kernel will write there at boot; then a stub in the zero tail of the text, or in the zero gap
               before init text, which is mapped executable and never freed
    veneer     arm64: the branch does not reach the target, or the thunk. In padding of the text, see `stub_room.py`

A stub is only put where nothing can be: zero bytes that no symbol claims and no relocation touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from ftpatch.arch.parts import FarCalls
from ftpatch.arrays import I64, U32, U64, Mask
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.plan.edits import Group, as_bytes, group
from ftpatch.plan.free_text import bytes_at, first_zero, gap_before_init, is_claimed, is_present, text_tail
from ftpatch.plan.padding import Padding
from ftpatch.plan.stub_room import PADDING, PLACES, TAIL, SharedStub, StubRoom, earlier_stubs, tocs, why_guarded
from ftpatch.plan.targets import Ops, Target
from ftpatch.sites.scan import Scan

SEARCH = 1 << 16  # bytes of a gap that are searched for room
THUNKS = {TAIL: "zero padding at the end of the text", PADDING: PLACES[PADDING]}


@dataclass(frozen=True)
class Calls:
    """The calls of a linked kernel's sites, in columns; all zero in a module, and where no call is made.

    site ── branch_to ──► [slot: the site's stub ── call_to ──►] [shared stub ──►] target
    """

    branch_to: U64  # va that the site's own branch goes to
    call_va: U64  # va of the call that leads to the target: the site's branch, or the call in its stub
    call_to: U64  # va that this call goes to: the target or a shared stub
    slot: U64  # va of the slot of the site's own stub, its ops pointer included; 0 for none
    through: I64  # index in `shared` of the stub that the call goes through; −1 for none
    shared: tuple[SharedStub, ...] = ()  # stubs that several sites share
    tried: tuple[SharedStub, ...] = ()  # every shared stub that there was to choose from


def stub_groups(image: Image, shared: Sequence[SharedStub]) -> list[Group]:
    """Edits of the stubs that are not there yet."""
    groups = []
    for number, stub in enumerate(shared):
        if not stub.present:
            pos = np.array([image.pos_of_va(stub.va)], dtype=np.int64)  # it may lie between sections
            groups.append(group("thunk", image.data, np.array([number]), pos, as_bytes(stub.words[None, :])))
    return groups


def no_calls(n: int) -> Calls:
    """The columns of n sites without a call that is known before loading."""
    nothing = np.zeros(n, dtype=np.uint64)
    return Calls(nothing, nothing, nothing, nothing, np.full(n, -1, dtype=np.int64))


def distances(call_va: U64, call_to: U64 | np.uint64) -> I64:
    """Bytes from each call to where it goes, signed."""
    distance: I64 = np.asarray(call_to, dtype=np.uint64).view(np.int64) - call_va.view(np.int64)
    return distance


def by_thunk(scan: Scan, target: Target, ops: Ops, call_va: U64) -> Calls:
    """Every site's call goes through one thunk that loads the ops."""
    stub, n = _place_thunk(scan, target, ops), len(call_va)
    calls = _by_veneers(scan, stub.va, "the thunk", call_va, taken=stub)
    if calls is None:
        call_to = np.full(n, stub.va, dtype=np.uint64)
        return Calls(call_to, call_va, call_to, np.zeros(n, np.uint64), np.zeros(n, np.int64), (stub,))
    through = np.where(calls.through >= 0, calls.through + 1, 0)  # the others call the thunk itself
    return replace(calls, through=through, shared=(stub, *calls.shared), tried=(stub, *calls.tried))


def by_reach(scan: Scan, target: Target, call_va: U64, init: Mask) -> Calls:
    """Straight where the branch reaches, else through the first far stub that does; else straight, out of reach.

    init: which of the calls stand in init text, where the trampoline that is freed with it may be used.
    """
    arch, n = scan.arch, len(call_va)
    if arch.far is None and (calls := _by_veneers(scan, target.va, target.name, call_va)) is not None:
        return calls
    call_to, through = np.full(n, target.va, dtype=np.uint64), np.full(n, -1, dtype=np.int64)
    beyond = ~arch.call.reaches(distances(call_va, call_to))
    tried = far_stubs(scan, arch.far, target) if arch.far is not None and beyond.any() else []
    for number, stub in enumerate(tried):
        fits = beyond & (through < 0) & arch.call.reaches(distances(call_va, np.uint64(stub.va)))
        if stub.init_only:
            fits &= init
        call_to[fits], through[fits] = stub.va, number
    used = np.unique(through[through >= 0])
    through = np.where(through >= 0, np.searchsorted(used, through), -1)
    shared = tuple(tried[number] for number in used.tolist())
    return Calls(call_to, call_va, call_to, np.zeros(n, np.uint64), through, shared, tuple(tried))


def _by_veneers(
    scan: Scan, target: int, name: str, call_va: U64, taken: SharedStub | None = None
) -> Calls | None:  # fmt: skip
    """The calls with a veneer for each that does not reach; None where all do, or the machine has no veneers.

    taken: the stub that is the target, where it is not in the file yet; it begins with a landing pad.
    """
    branch, n = scan.arch.call, len(call_va)
    beyond = ~branch.reaches(distances(call_va, np.uint64(target)))
    if scan.arch.veneer is None or not beyond.any():
        return None
    room, through = StubRoom(scan, branch), np.full(n, -1, dtype=np.int64)
    if taken is not None:
        room.take(taken.va, 4 * len(taken.words))
    if taken is not None or not why_guarded(scan, target, name, "call"):
        through[beyond] = room.numbers_for(call_va[beyond], target, name)
    to = np.where(through >= 0, np.array([*(stub.va for stub in room.stubs), 0], dtype=np.uint64)[through], target)
    tried = (*room.stubs, *room.tried.values())
    return Calls(to, call_va, to, np.zeros(n, np.uint64), through, tuple(room.stubs), tried)


def _place_thunk(scan: Scan, target: Target, ops: Ops) -> SharedStub:
    """The thunk for these ops: an earlier one of the same words, else in padding within reach of the target, best in
    the tail of its section.

    Raises PolicyError where there is no room.
    """
    image, arch, thunk, veneer = scan.image, scan.arch, scan.arch.ops_thunk, scan.arch.veneer
    if thunk is None or veneer is None:
        raise PolicyError("--ops-via thunk does not suit this machine", image.path, found=arch.name,
                          expected="a machine whose sites have the ops pointer in front of the function")  # fmt: skip
    start, end = text_tail(scan, target.va)
    free = first_zero(image, start, end)
    if abs(ops.va - end) >= thunk.reach:
        raise PolicyError("the ops are too far from the text for a thunk", image.path, found=f"{ops.name} {ops.va:#x}")
    padding = Padding(scan, veneer, thunk.size, tuple((at - 4) & 0xFFF for at in thunk.avoids))
    tail = ((va, TAIL) for va in range(free, end - thunk.size + 1, 16) if padding.is_free(va, False))
    others = ((va, PADDING) for va in padding.near(target.va, False))
    for va, place in chain(((va, "") for va in earlier_stubs(scan)), tail, others):
        if va & 0xFFF in padding.avoids or abs(ops.va - va) >= thunk.reach:
            continue
        if not arch.call.spans(va + 12, target.va + target.entry.resume):
            break
        words = thunk.words(va, ops.va, target.va, target.entry)
        if place:
            return SharedStub(va, words, False, "thunk", THUNKS[place])
        if np.array_equal(image.code(va, len(words)), words):
            return SharedStub(va, words, True, "thunk", "an earlier patch put it there")
    raise PolicyError("no room for a thunk", image.path, found=f"{max(end - free, 0)} zero bytes at the text's end",
                      expected=f"at least {thunk.size}", todo="--ops-via literal")  # fmt: skip


def far_stubs(scan: Scan, far: FarCalls, target: Target) -> list[SharedStub]:
    """Every place for a far stub that this image offers, best first."""
    image = scan.image
    toc, kernel_toc = tocs(image, far)
    if toc is None or kernel_toc is None or abs(target.va - toc) >= far.reach:
        return []
    stubs = _kernel_stubs(scan, far, toc, kernel_toc) if target.own else []
    words = far.stub(target.va, toc, kernel_toc)
    tail = _own_stub(image, "text tail", text_tail(scan, target.va), words, from_end=False)
    gap = _own_stub(image, "gap before init text", gap_before_init(image), words, from_end=True)
    return [*stubs, *(stub for stub in (tail, gap) if stub)]


def _kernel_stubs(scan: Scan, far: FarCalls, toc: int, kernel_toc: int) -> list[SharedStub]:
    """The kernel's trampolines, with what it will write there itself: a jump to the last of its entries."""
    image, arch, stubs = scan.image, scan.arch, []
    last, entry = [(name, va) for name in arch.entries if (va := image.symbols.value(name)) is not None][-1]
    if abs(entry - toc) >= far.reach:
        return []
    words = far.stub(entry, toc, kernel_toc)
    why = f"the kernel's own, filled with the jump to {last} that it will write there itself"
    for number, name in enumerate(far.areas):
        va = image.symbols.value(name)
        if va is None:
            continue
        present = is_present(image, va, image.code(va, len(words)).view(np.uint8), words)
        if present is not None and (present or not is_claimed(image, va, 4 * len(words), name)):
            stubs.append(SharedStub(va, words, present, name, why, init_only=number == 1))
    return stubs


def _own_stub(image: Image, name: str, free_range: tuple[int, int], words: U32, from_end: bool) -> SharedStub | None:
    """A stub in a free range, or the same one that an earlier patch put there."""
    size, (start, end) = (4 * len(words) + 15) & ~15, free_range
    free, last = first_zero(image, start, end), (end - size) & ~15
    backwards = range(last, max(start, last - SEARCH) - 1, -size)
    for va in backwards if from_end else [*range(start, free, 16), free]:  # an earlier patch's stub lies before `free`
        if start <= va <= end - size and not is_claimed(image, va, size):
            present = is_present(image, va, bytes_at(image, va, size), words)
            if present is not None:
                return SharedStub(va, words, present, name, "zero bytes that no symbol claims")
    return None
