"""Stubs in a linked kernel: those of sites out of line, and where a stub of any kind may stand at all.

The kernel hands out the slots of its stub areas at boot, to its records in ascending order, without looking at what is
in them. So a stub may only be in a slot that no record will get.
Source: arch/powerpc/kernel/trace/ftrace.c ftrace_init_ool_stub() (Linux 7.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch.parts import SiteStub
from ftpatch.arch.proof_tables import CALL, JUMP
from ftpatch.arrays import I64, U32, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.init_text import init_text
from ftpatch.proof.call_targets import READ
from ftpatch.proof.case import Case
from ftpatch.proof.decoders import both, branches
from ftpatch.proof.pairs import NEW, Pairs

REACH = 1 << 25  # bytes of a ppc64 branch, either way


@dataclass(frozen=True)
class Area:
    """One array of slots for stubs."""

    name: str  # symbol
    va: int  # of the first slot
    n: int  # slots
    init: bool  # for sites of init text, with which it is freed
    taken: int = 0  # slots from the start that the kernel hands out at boot


@dataclass(frozen=True)
class Slots:
    """All the slots of a kernel."""

    areas: tuple[Area, ...]
    size: int  # bytes of a slot
    literal: int  # bytes of the ops pointer at its start; 0 where the kernel reads none


@dataclass(frozen=True)
class Stubs:
    """The stub of each pair, as it is found; 0 where it has none."""

    slot: I64  # va of its slot; −1 where the site branches to no place for a stub
    call: I64  # va of the call in it
    distance: I64  # bytes that this call branches


def slots_of(case: Case) -> Slots | None:
    """The stub areas of the second file and how far the kernel will fill them; None where it has none."""
    image, stub = case.after.image, case.arch.site_stub
    first = image.symbols.value(case.arch.entries[0])
    if stub is None or first is None:
        return None
    literal = 8 if case.arch.read_entry(image.code(first, READ)).literal else 0
    size, areas = 16 + literal, []
    for name in (*stub.text, stub.init):
        va, count = image.symbols.value(name), image.symbols.value(f"{name}_count")
        pos = image.pos_of_va(count) if count is not None else -1
        if va is not None and pos >= 0:
            n = int.from_bytes(image.data[pos : pos + 4].tobytes(), "little")
            areas.append(Area(name, va, n, name == stub.init))
    return Slots(tuple(_taken(case, stub, areas, size)), size, literal)


def _taken(case: Case, stub: SiteStub, areas: list[Area], size: int) -> list[Area]:
    """The areas with what the kernel takes of each: records in order, the near area first while it reaches."""
    sites, image = case.after.sites, case.after.image
    low, high = init_text(image)
    known = (sites.row >= 0) & (sites.sec >= 0) & ~np.isin(sites.sec, image.sections_named(".exit.text"))
    taken = dict.fromkeys((area.name for area in areas), 0)
    near, far = (next((area for area in areas if area.name == name), None) for name in (stub.text[0], stub.text[-1]))
    for site in np.sort(sites.body_va[known]).tolist():  # each slot depends on all before it
        if low <= site < high:
            taken[stub.init] = taken.get(stub.init, 0) + 1
        elif near and taken[near.name] < near.n and abs(site - near.va - taken[near.name] * size) < REACH:
            taken[near.name] += 1
        elif far:
            taken[far.name] += 1
    return [Area(area.name, area.va, area.n, area.init, taken[area.name]) for area in areas]


def check_stubs(case: Case, pairs: Pairs, slots: Slots) -> Stubs:
    """The stubs of all sites that are enabled now, as they are found; findings for those that are none."""
    image, n = case.after.image, len(pairs)
    found = Stubs(*(np.zeros(n, dtype=np.int64) for _ in range(3)))
    at = np.flatnonzero(pairs.new == NEW)
    seen = both(case.arch, pairs.words[at])
    site = pairs.va(pairs.branch_off)[at].view(np.int64)
    stub_va = site + seen.distance
    words = image.words(*image.place(stub_va.view(np.uint64)), 0, 4)
    low, high = init_text(image)
    for row, (i, va) in enumerate(zip(at.tolist(), site.view(np.uint64).tolist(), strict=True)):
        slot = int(stub_va[row]) - slots.literal & (1 << 64) - 1
        why = seen.why[row] or _misplaced(slots, slot, low <= va < high)
        if why:
            pairs.say("verify-stub", i, f"its branch to {int(stub_va[row]) & (1 << 64) - 1:#x} {why}")
            found.slot[i] = -1
    own = stub_va - slots.literal
    good = found.slot[at] == 0
    _check_words(case, pairs, at[good], words[good], stub_va[good], site[good], found)
    found.slot[at[good]] = own[good]
    pos = image.pos(*image.place(own[good].view(np.uint64)))
    case.account_for("stub", pos + slots.literal, 16)
    return found


def _misplaced(slots: Slots, slot: int, init: bool) -> str:
    """Why no stub of a site may be in the slot at that va; empty where one may. init: whether the site is init text."""
    area = next((one for one in slots.areas if one.va <= slot < one.va + one.n * slots.size), None)
    if area is None or (slot - area.va) % slots.size:
        return "goes to no slot for stubs"
    if init != area.init:
        return f"goes to {area.name}, which is for other text"
    number = (slot - area.va) // slots.size
    if number < area.taken:
        return f"goes to slot {number} of {area.name}, and the kernel hands out {area.taken} of them at boot"
    return ""


def _check_words(case: Case, pairs: Pairs, at: I64, words: U32, stub_va: I64, site: I64, found: Stubs) -> None:
    """The four words: keep the return address, call, put it back, go on behind the site."""
    save, restore, text = case.tables.site_stub or (0, 0, "")
    first, last = both(case.arch, words[:, :2]), both(case.arch, words[:, 2:])
    right = (words[:, 0] == save) & (words[:, 2] == restore) & (first.kind == CALL) & (last.kind == JUMP)
    back = stub_va + 12 + last.distance
    for row, i in enumerate(at.tolist()):
        why = first.why[row] or last.why[row]
        if why or not right[row]:
            shown = " ".join(f"{word:08x}" for word in words[row].tolist())
            pairs.say("verify-stub", i, f"its stub is {shown}, not {text}" + (f": {why}" * bool(why)))
        elif back[row] != site[row] + 4:
            pairs.say("verify-stub", i, f"its stub goes on {int(back[row] - site[row]):+#x} bytes from the site, "
                      "expected +0x4")  # fmt: skip
        else:
            found.call[i], found.distance[i] = stub_va[row] + 4, first.distance[row]


def old_slots(case: Case, pairs: Pairs, slots: Slots) -> I64:
    """va of the slots that the sites had in the first file; 0 where they had none."""
    words = case.before.image.words(pairs.sec, pairs.branch_off, 0, 1)
    stub = pairs.va(pairs.branch_off).view(np.int64) + branches(case.arch, words[:, 0])[1]
    return np.where(pairs.old == NEW, stub - slots.literal, 0)


def check_empty(case: Case, pairs: Pairs, slots: Slots, stubs: Stubs, old: I64) -> None:
    """The slots of sites that were enabled and are not any more, or elsewhere: empty again."""
    image = case.after.image
    left = old[(pairs.old == NEW) & pairs.differs]
    pos = image.pos(*image.place(left[~np.isin(left, stubs.slot)].view(np.uint64)))
    pos = pos[pos >= 0]
    empty = ~image.data[pos[:, None] + np.arange(slots.size)].any(axis=1)
    case.account_for("stub taken away", pos[empty], slots.size)


def free_before(image: Image, va: int, size: int) -> str:
    """Why bytes that a shared stub now takes were not free in the first file; empty where they were."""
    pos, last = image.pos_of_va(va), image.pos_of_va(va + size - 1)
    if pos < 0 or last != pos + size - 1:
        return "which is no place in the file"
    if image.data[pos : pos + size].any():
        return "where something else stood"
    if image.relocated(np.array([va], dtype=np.uint64), size)[0]:
        return "which the kernel relocates"
    rows = image.symbols.rows
    kind = image.symbols.type
    start, end = rows["st_value"], rows["st_value"] + rows["st_size"]
    symbols_there: Mask = (image.symbols.shndx > 0) & (kind != t.STT_SECTION) & (start < np.uint64(va + size))
    symbols_there &= end > np.uint64(va)
    if symbols_there.any():
        return f"which belongs to {image.symbols.name(int(np.argmax(symbols_there)))}"
    sec = image.place(np.array([va], dtype=np.uint64))[0][0]
    gap = image.symbols.value("__init_begin")
    if (sec >= 0 and not image.executable[sec]) or (sec < 0 and (gap is None or not _text_gap(image, va, gap))):
        return "which is no text"
    return ""


def _text_gap(image: Image, va: int, init_begin: int) -> bool:
    """Whether a place between sections is text to the kernel: before init text, or before the end of the text."""
    etext = image.symbols.value("_etext")
    low = int(image.base[image.executable].min())
    return low <= va < init_begin or (etext is not None and low <= va < etext)
