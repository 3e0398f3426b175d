"""Out-of-line stubs: which slots the kernel will hand out at boot, and which are left for sites enabled on disk.

The kernel sorts its records and gives each one the next slot of an area: init text from one area; text from the area
beside ftrace_caller while that is in reach, then from the one at the text's end. A record that is dropped moves every
later one a slot forward, so what drops free are the slots at the end of each area. A stub anywhere else would be
overwritten at boot, and its site would then jump into another function.
Source: arch/powerpc/kernel/trace/ftrace.c ftrace_init_ool_stub() (Linux 7.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ftpatch.arch import Arch, SiteStub
from ftpatch.arrays import I64, U64, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan.targets import READ
from ftpatch.sites.scan import Scan


@dataclass(frozen=True)
class Area:
    """One array of slots."""

    name: str
    va: int  # of the first slot
    n: int  # slots
    slot: int  # bytes of one
    zero: Mask  # (n,) slots that are all zero in the file


@dataclass(frozen=True)
class Slots:
    """A slot for each of the sites to be patched."""

    va: U64  # (n,) 0 where none is left in reach
    literal: int  # bytes of ops pointer at the start of each


def assign_slots(scan: Scan, stub: SiteStub, index: I64, gone: Mask) -> Slots:
    """Slots for the sites `index`, behind those that the records which stay will take at boot.

    gone: slots of the record table that leave. Raises PolicyError where the areas do not fit the kernel's code, or
    where moving the survivors forward would put one of them out of its stub's reach.
    """
    image, arch, sites = scan.image, scan.arch, scan.sites
    literal = stub_literal(scan.image)
    text = [_area(image, name, stub.size + literal) for name in stub.text]
    init = [_area(image, stub.init, stub.size + literal)]
    inside = in_init_text(image, sites.va)
    stays = _served(scan, scan.records.live & ~gone, index[:0])
    slot_va = np.zeros(len(index), dtype=np.uint64)
    for areas, region in ((text, ~inside), (init, inside)):  # what is freed with init text serves no other
        used = _taken_at_boot(
            scan, stub, areas, sites.body_va[stays & region], literal, "another tool patched this image"
        )
        mine = index[region[index]]
        order = np.argsort(sites.body_va[mine], kind="stable")
        ascending = sites.body_va[mine][order]
        _, slots = _hand_out(arch, areas, ascending, used, over_full=True)
        slots[~_in_reach(arch, stub, ascending, slots, literal)] = 0
        slot_va[np.flatnonzero(region[index])[order]] = slots
    return Slots(slot_va, literal)


def require_free(scan: Scan, stub: SiteStub, returned: I64, emptied: U64) -> None:
    """Refuse the return of the records of the sites `returned` where the kernel would then hand out, at boot, the slot
    of a site that stays enabled: its stub would be overwritten.

    emptied: va of the slots that are cleared in the same step. Raises PolicyError.
    """
    image, sites, literal = scan.image, scan.sites, stub_literal(scan.image)
    inside = in_init_text(image, sites.va)
    stays = _served(scan, scan.records.live, returned)
    for names, region in ((stub.text, ~inside), ((stub.init,), inside)):
        areas = [_emptied(_area(image, name, stub.size + literal), emptied) for name in names]
        todo = "disable the later patched sites as well, or undo the patches in reverse order by their journals"
        _taken_at_boot(scan, stub, areas, sites.body_va[stays & region], literal, todo)


def _served(scan: Scan, slots: Mask, more: I64) -> Mask:
    """The sites that the kernel gives a stub at boot: those of the record slots, and `more`, without exit text's."""
    sites = scan.sites
    served = np.zeros(len(sites), dtype=bool)
    served[: len(slots)] = slots
    served[more] = True
    # The kernel does not trace exit text, and gives it no stub.
    served &= (sites.sec >= 0) & ~is_in(sites.sec, scan.image.sections_named(".exit.text"))
    return served


def _emptied(area: Area, slots: U64) -> Area:
    """The area with the given slots empty."""
    zero = area.zero.copy()
    mine = slots[(slots >= np.uint64(area.va)) & (slots < np.uint64(area.va + area.n * area.slot))]
    zero[(mine - np.uint64(area.va)).view(np.int64) // area.slot] = True
    return replace(area, zero=zero)


def _taken_at_boot(scan: Scan, stub: SiteStub, areas: list[Area], sites: U64, literal: int, todo: str) -> list[int]:
    """How many slots of each area the kernel will take for these sites.

    Raises PolicyError where one of them is not empty, or where a site would get a slot out of its reach, or none.
    """
    kept, path = np.sort(sites), scan.image.path
    used, slots = _hand_out(scan.arch, areas, kept, [0] * len(areas), over_full=False)
    taken = [bool(np.any(~area.zero[: min(n, area.n)])) for area, n in zip(areas, used, strict=True)]
    if any(taken):
        raise PolicyError("a stub slot that the kernel will hand out is not empty", path,
                          found=areas[taken.index(True)].name, todo=todo)  # fmt: skip
    lost = np.flatnonzero((slots == 0) | ~_in_reach(scan.arch, stub, kept, slots, literal))
    if len(lost):
        raise PolicyError("a record that stays would lose its stub", path, found=f"site {int(kept[lost[0]]):#x}",
                          todo="choose fewer sites")  # fmt: skip
    return used


def boot_calls(image: Image, stub: SiteStub, n_text: int, n_init: int) -> tuple[U64, Mask]:
    """Where the stubs that the kernel hands out at boot call from, and which of them serve init text.

    The areas are filled from their starts; that a near one may be out of a site's reach is left out of account.
    Raises PolicyError where the areas do not fit the kernel's code.
    """
    literal = stub_literal(image)
    calls = [np.zeros(0, dtype=np.uint64)]
    for names, n in ((stub.text, n_text), ((stub.init,), n_init)):
        for name in names:
            area = _area(image, name, stub.size + literal)
            used = min(n, area.n)
            first = np.uint64(area.va + literal + stub.call_at)
            calls.append(first + np.arange(used, dtype=np.uint64) * np.uint64(area.slot))
            n -= used
    serves_init = np.arange(sum(map(len, calls))) >= sum(map(len, calls)) - len(calls[-1])
    return np.concatenate(calls), serves_init


def stub_literal(image: Image) -> int:
    """Bytes of ops pointer at the start of a slot: none where the kernel's trampoline reads none."""
    arch, own = image.arch, image.symbols.value(image.arch.entries[0])
    reads = own is not None and arch.read_entry(image.code(own, READ)).literal
    return arch.site_stub.literal if reads and arch.site_stub is not None else 0


def _area(image: Image, name: str, slot: int) -> Area:
    count, row = image.symbols.value(f"{name}_count"), image.symbols.defined(name)
    if row is None or count is None or (pos := image.pos_of_va(count)) < 0:
        raise PolicyError("an area of out-of-line stubs is missing", image.path, found=f"no {name} with its count")
    va, size = int(image.symbols.rows["st_value"][row]), int(image.symbols.rows["st_size"][row])
    n = int(image.word_at(np.array([pos]))[0])
    first = image.pos_of_va(va) if n else 0
    if n * slot != size or first < 0 or (n and not _in_one_section(image, va, size)):
        raise PolicyError("an area of out-of-line stubs does not fit the kernel's code", f"{image.path}: {name}",
                          found=f"{size} bytes for {n} stubs", expected=f"{slot} bytes each")  # fmt: skip
    zero: Mask = np.logical_not(image.data[first : first + size].reshape(n, slot).any(axis=1))
    moved = image.rela[0]["r_offset"]
    moved = moved[(moved >= np.uint64(va)) & (moved < np.uint64(va + size))]
    # A slot that a relocation fills at boot is not empty, whatever the file has there.
    zero[(moved - np.uint64(va)).view(np.int64) // slot] = False
    return Area(name, va, n, slot, zero)


def _in_one_section(image: Image, va: int, size: int) -> bool:
    """Whether one section holds the `size` bytes from va."""
    sec = image.place(np.array([va, min(va + size - 1, t.LAST_VA)], dtype=np.uint64))[0]
    return bool(sec[0] >= 0 and sec[0] == sec[1])


def _hand_out(arch: Arch, areas: list[Area], sites: U64, used: list[int], over_full: bool) -> tuple[list[int], U64]:
    """The kernel's rule over ascending sites, from the `used`-th slot of each area on: (slots used, slot per site).

    over_full: pass over slots that hold something, earlier stubs of ours behind the kernel's; the kernel does not look.
    """
    at, slot_va = list(used), np.zeros(len(sites), dtype=np.uint64)
    low, high = arch.call.low, arch.call.high
    free = [_first_free(area, n) if over_full else n for area, n in zip(areas, at, strict=True)]
    for i, site in enumerate(sites.tolist()):  # each slot depends on all before it
        for number, area in enumerate(areas):
            slot = area.va + free[number] * area.slot
            last = number == len(areas) - 1
            if free[number] < area.n and (last or low <= site - slot <= high):
                slot_va[i] = slot
                at[number] = free[number] + 1
                free[number] = _first_free(area, at[number]) if over_full else at[number]
                break
    return at, slot_va


def _first_free(area: Area, start: int) -> int:
    while start < area.n and not area.zero[start]:
        start += 1
    return start


def _in_reach(arch: Arch, stub: SiteStub, sites: U64, slots: U64, literal: int) -> Mask:
    """Whether the branches from site to stub and from stub behind the site can be written."""
    there = slots.view(np.int64) + literal - sites.view(np.int64)
    back = 4 - there - stub.back_at
    return np.asarray((slots != 0) & arch.call.reaches(there) & arch.call.reaches(back))
