"""Out-of-line stubs: which slots the kernel will hand out at boot, and which are left for sites enabled on disk.

The kernel sorts its records and gives each one the next slot of an area: init text from one area; text from the area
beside ftrace_caller while that is in reach, then from the one at the text's end. A record that is dropped moves every
later one a slot forward, so what drops free are the slots at the end of each area. A stub anywhere else would be
overwritten at boot, and its site would then jump into another function.
Source: arch/powerpc/kernel/trace/ftrace.c ftrace_init_ool_stub() (Linux 7.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arch.parts import SiteStub
from ftpatch.arrays import I64, U64, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan.targets import READ
from ftpatch.sites.scan import Scan

NONE_EMPTIED: U64 = np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True)
class Area:
    """One array of slots."""

    name: str
    va: int  # of the first slot
    n: int  # slots
    slot: int  # bytes of one
    zero: Mask  # (n,) slots that are all zero in the file


def assign_slots(scan: Scan, stub: SiteStub, index: I64, gone: Mask) -> U64:
    """va of a slot for each of the sites `index`, behind those that the records which stay will take at boot; 0 where
    none is left in reach.

    gone: slots of the record table that leave. Raises PolicyError where the areas do not fit the kernel's code, or
    where moving the survivors forward would put one of them out of its stub's reach.
    """
    image, sites = scan.image, scan.sites
    stays = _served(scan, scan.records.live & ~gone, index[:0])
    slot_va = np.zeros(len(index), dtype=np.uint64)
    for areas, region in _regions(scan, stub):  # what is freed with init text serves no other
        used = _taken_at_boot(scan, stub, areas, sites.body_va[stays & region], "another tool patched this image")
        chosen = np.flatnonzero(region[index])
        chosen = chosen[np.argsort(sites.body_va[index[chosen]], kind="stable")]
        ascending = sites.body_va[index[chosen]]
        _, slots = _hand_out(scan.arch, areas, ascending, used, over_full=True)
        slots[~_in_reach(image, stub, ascending, slots)] = 0
        slot_va[chosen] = slots
    return slot_va


def require_free(scan: Scan, stub: SiteStub, returned: I64, emptied: U64) -> None:
    """Refuse the return of the records of the sites `returned` where the kernel would then hand out, at boot, the slot
    of a site that stays enabled: its stub would be overwritten.

    emptied: va of the slots that are cleared in the same step. Raises PolicyError.
    """
    todo = "disable the later patched sites as well, or undo the patches in reverse order by their journals"
    stays = _served(scan, scan.records.live, returned)
    for areas, region in _regions(scan, stub, emptied):
        _taken_at_boot(scan, stub, areas, scan.sites.body_va[stays & region], todo)


def _regions(scan: Scan, stub: SiteStub, emptied: U64 = NONE_EMPTIED) -> list[tuple[list[Area], Mask]]:
    """The areas that serve text which stays, and those that serve init text; each with its sites in the site table."""
    inside, size = in_init_text(scan.image, scan.sites.va), stub.size + stub_literal(scan.image)
    regions = ((stub.text, ~inside), ((stub.init,), inside))
    return [([_area(scan.image, name, size, emptied) for name in names], region) for names, region in regions]


def _served(scan: Scan, slots: Mask, more: I64) -> Mask:
    """The sites that the kernel gives a stub at boot: those of the record slots, and `more`, without exit text's."""
    sites = scan.sites
    served = np.zeros(len(sites), dtype=bool)
    served[: len(slots)] = slots
    served[more] = True
    # The kernel does not trace exit text, and gives it no stub.
    served &= (sites.sec >= 0) & ~is_in(sites.sec, scan.image.sections_named(".exit.text"))
    return served


def _taken_at_boot(scan: Scan, stub: SiteStub, areas: list[Area], sites: U64, todo: str) -> list[int]:
    """How many slots of each area the kernel will take for these sites.

    Raises PolicyError where one of them is not empty, or where a site would get a slot out of its reach, or none.
    """
    kept, path = np.sort(sites), scan.image.path
    used, slots = _hand_out(scan.arch, areas, kept, [0] * len(areas), over_full=False)
    for area, n in zip(areas, used, strict=True):
        if not area.zero[:n].all():
            raise PolicyError("a stub slot that the kernel will hand out is not empty", path, found=area.name,
                              todo=todo)  # fmt: skip
    lost = np.flatnonzero((slots == 0) | ~_in_reach(scan.image, stub, kept, slots))
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
            slots = np.arange(min(n, area.n), dtype=np.uint64) * np.uint64(area.slot)
            calls.append(slots + np.uint64(area.va + literal + stub.call_at))
            n -= len(slots)
    call_va = np.concatenate(calls)
    return call_va, np.arange(len(call_va)) >= len(call_va) - len(calls[-1])


def stub_literal(image: Image) -> int:
    """Bytes of ops pointer at the start of a slot: none where the kernel's trampoline reads none."""
    arch, own = image.arch, image.symbols.value(image.arch.entries[0])
    reads = own is not None and arch.read_entry(image.code(own, READ)).literal
    return arch.site_stub.literal if reads and arch.site_stub is not None else 0


def _area(image: Image, name: str, slot: int, emptied: U64 = NONE_EMPTIED) -> Area:
    """The area of a symbol. slot: bytes of one; emptied: va of slots that are cleared in the same step."""
    count, row = image.symbols.value(f"{name}_count"), image.symbols.defined(name)
    if row is None or count is None or (pos := image.pos_of_va(count)) < 0:
        raise PolicyError("an area of out-of-line stubs is missing", image.path, found=f"no {name} with its count")
    va, size = int(image.symbols.rows["st_value"][row]), int(image.symbols.rows["st_size"][row])
    n = int(image.word_at(np.array([pos]))[0])
    if not image.functions.sized:
        size = min(size, n * slot)  # as far as the next symbol is only the most that it can be
    first = image.pos_of_va(va) if n else 0
    sec = image.place(np.array([va, min(va + size - 1, t.LAST_VA)], dtype=np.uint64))[0] if n else np.zeros(2, np.int64)
    if n * slot != size or first < 0 or sec[0] < 0 or sec[0] != sec[1]:  # all slots lie in one section
        raise PolicyError("an area of out-of-line stubs does not fit the kernel's code", f"{image.path}: {name}",
                          found=f"{size} bytes for {n} stubs", expected=f"{slot} bytes each")  # fmt: skip
    zero: Mask = np.logical_not(image.data[first : first + size].reshape(n, slot).any(axis=1))
    # A slot that a relocation fills at boot is not empty, whatever the file has there.
    for places, is_zero in ((image.rela[0]["r_offset"], False), (emptied, True)):
        inside = places[(places >= np.uint64(va)) & (places < np.uint64(va + size))]
        zero[(inside - np.uint64(va)).view(np.int64) // slot] = is_zero
    return Area(name, va, n, slot, zero)


def _hand_out(arch: Arch, areas: list[Area], sites: U64, used: list[int], over_full: bool) -> tuple[list[int], U64]:
    """The kernel's rule over ascending sites, from the `used`-th slot of each area on: (slots used, slot per site).

    over_full: pass over slots that hold an earlier patch's stub, behind the kernel's own; the kernel does not look.
    """
    used, slot_va = list(used), np.zeros(len(sites), dtype=np.uint64)
    for i, site in enumerate(sites.tolist()):  # each slot depends on all before it
        for number, area in enumerate(areas):
            while over_full and used[number] < area.n and not area.zero[used[number]]:
                used[number] += 1
            slot = area.va + used[number] * area.slot
            near = arch.call.low <= site - slot <= arch.call.high
            if used[number] < area.n and (near or number == len(areas) - 1):
                slot_va[i] = slot
                used[number] += 1
                break
    return used, slot_va


def _in_reach(image: Image, stub: SiteStub, sites: U64, slots: U64) -> Mask:
    """Whether the branches from site to stub and from stub behind the site can be written."""
    call = image.arch.call
    there = slots.view(np.int64) + stub_literal(image) - sites.view(np.int64)
    back = call.size - there - stub.back_at
    return np.asarray((slots != 0) & call.reaches(there) & call.reaches(back))
