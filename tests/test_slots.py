"""Out-of-line slots: the kernel's hand-out, simulated here on its own, against the slots that enabled sites take.

The simulation follows arch/powerpc/kernel/trace/ftrace.c ftrace_init_ool_stub(): records ascending; init text takes the
slots of its area in order; text those of the area beside ftrace_caller while &area[index] is in reach, then the other.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from elfwriter import written
from test_ppc64le import (
    MFLR_R0,
    MINI,
    MTLR_R0,
    Oracle,
    b,
    bl,
    changed,
    planned,
    quad,
    records,
    relocations,
    renamed,
    result,
    rows,
    symbol,
    words_at,
)

from ftpatch.arch.ppc64le import ARCH
from ftpatch.errors import PlanError, ReachError
from ftpatch.plan import ool_slots

TEXT, TEXT_END, INIT = "ftrace_ool_stub_text", "ftrace_ool_stub_text_end", "ftrace_ool_stub_inittext"
IMAGES = {"vmlinux-ool": 24, "vmlinux-ool-noops": 16, "vmlinux-clang": 24}


def in_reach(distance: int) -> bool:
    return -0x200_0000 <= distance <= 0x1FF_FFFC


def is_init(file: bytes, va: int) -> bool:
    return symbol(file, "_sinittext") <= va < symbol(file, "_einittext")


def site_of(file: bytes, record: int) -> int:
    """ftrace_call_adjust(): clang's records of two-entry functions are 8 in front of the NOP."""
    return record + 8 if words_at(file, record, 1)[0] >> 16 == 0x3C4C else record


def boot(file: bytes, size: int) -> dict[int, int]:
    """What the kernel does with the records that are left: slot → site. Each must be empty, in reach, and exist."""
    index = dict.fromkeys((TEXT, TEXT_END, INIT), 0)
    found = {}
    for ip in sorted(site_of(file, record) for record in records(file)):
        name = INIT
        if not is_init(file, ip):
            at = symbol(file, TEXT) + size * index[TEXT]
            (count,) = words_at(file, symbol(file, f"{TEXT}_count"), 1)
            name = TEXT if index[TEXT] < count and in_reach(ip - at) else TEXT_END
        slot = symbol(file, name) + size * index[name]
        index[name] += 1
        (count,) = words_at(file, symbol(file, f"{name}_count"), 1)
        assert index[name] <= count, f"no slot for {ip:#x}"
        stub = slot + size - 16
        assert in_reach(ip - stub)
        assert in_reach(ip + 4 - (stub + 12))
        assert words_at(file, ip, 1) == [0x60000000]
        found[slot] = ip
    return found


def ours(file: bytes, before: bytes, size: int) -> dict[int, int]:
    """The sites that are branches now, by the slot that each goes to; every stub's words are checked."""
    caller, found = symbol(before, "ftrace_caller"), {}
    relative = {place: addend for place, info, addend in relocations(file) if info == 22}
    for record in records(before):
        site = site_of(before, record)
        (word,) = words_at(file, site, 1)
        if word == 0x60000000:
            continue
        assert word & 0xFC000003 == 0x48000000
        stub = site + (word & 0x3FFFFFC) - (0x4000000 if word & 0x2000000 else 0)
        slot = stub - (size - 16)
        assert words_at(file, stub, 4) == [MFLR_R0, bl(stub + 4, caller), MTLR_R0, b(stub + 12, site + 4)]
        if size == 24:
            assert quad(file, slot) == relative[slot] == symbol(before, "ftrace_list_ops")
        assert slot not in found
        found[slot] = site
    return found


def slot_vas(file: bytes, size: int) -> set[int]:
    """Every slot there is."""
    found: set[int] = set()
    for name in (TEXT, TEXT_END, INIT):
        (count,) = words_at(file, symbol(file, f"{name}_count"), 1)
        found |= {symbol(file, name) + size * i for i in range(count)}
    return found


def check(file: bytes, before: bytes, size: int, n: int) -> None:
    """n sites are enabled, and the kernel's hand-out over the others touches none of their slots."""
    mine, kernels = ours(file, before, size), boot(file, size)
    assert len(mine) == n
    assert set(mine) <= slot_vas(before, size)
    assert set(mine).isdisjoint(kernels)
    assert all(is_init(before, slot) == is_init(before, site) for slot, site in mine.items())


def chosen(image: str, where: str) -> list[int]:
    """Row numbers, in an order that mixes early and late ones."""
    found = [row["row"] for row in rows(MINI / image) if (row["section"] == ".init.text") == (where == "init")]
    return found[::2] + found[1::2][::-1]


def enabled(path: str | Path, picked: list[int]) -> bytes:
    return result(path, planned(path, *(f"row:{i}" for i in picked), force_early=True))


@pytest.mark.parametrize("image", IMAGES)
def test_a_stock_image_has_a_slot_for_every_record_and_none_to_spare(image: str) -> None:
    file = (MINI / image).read_bytes()
    assert set(boot(file, IMAGES[image])) == slot_vas(file, IMAGES[image])
    assert len(boot(file, IMAGES[image])) == 32


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(
    ("where", "k"),
    [*(("text", k) for k in (1, 2, 3, 5, 16, 17, 18, 20)), *(("init", k) for k in (1, 2, 10, 11))],
)
def test_survivors_never_get_a_slot_of_ours(image: str, where: str, k: int) -> None:
    before = (MINI / image).read_bytes()
    check(enabled(MINI / image, chosen(image, where)[:k]), before, IMAGES[image], k)


@pytest.mark.parametrize("image", IMAGES)
def test_all_sites_take_all_slots(image: str) -> None:
    before = (MINI / image).read_bytes()
    after = enabled(MINI / image, list(range(32)))
    check(after, before, IMAGES[image], 32)
    assert set(ours(after, before, IMAGES[image])) == slot_vas(before, IMAGES[image])


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("more", [1, 4])
def test_a_second_and_a_third_patch_keep_clear_of_the_first(image: str, k: int, more: int, tmp_path: Path) -> None:
    size, before = IMAGES[image], (MINI / image).read_bytes()
    picked = chosen(image, "text")
    path: str | Path = MINI / image
    done = 0
    for n in (k, more, 2):
        names = picked[done : done + n]
        stands = ours(Path(path).read_bytes(), before, size)
        after = enabled(path, names)
        done += n
        check(after, before, size, done)
        assert stands.items() <= ours(after, before, size).items()
        path = written(tmp_path / f"after{done}", after)
    init = chosen(image, "init")[:3]
    check(enabled(path, init), before, size, done + 3)


def refused(path: str | Path, *func: str) -> PlanError:
    with pytest.raises(PlanError) as caught:
        planned(path, *(func or ("vfs_read",)))
    return caught.value


@pytest.mark.parametrize(
    ("area", "slots_of", "count"), [(TEXT, 4, 3), (TEXT, 4, 5), (TEXT_END, 17, 16), (INIT, 11, 12), (INIT, 11, 0)]
)
def test_a_count_that_does_not_fit_the_areas_size_is_refused(
    area: str, slots_of: int, count: int, tmp_path: Path
) -> None:
    file = (MINI / "vmlinux-ool").read_bytes()
    path = written(tmp_path / "v", changed(file, {symbol(file, f"{area}_count"): struct.pack("<I", count)}))
    assert str(refused(path)) == (
        f"{path}: {area}: an area of out-of-line stubs does not fit the kernel's code: "
        f"found {24 * slots_of} bytes for {count} stubs, expected 24 bytes each"
    )


def test_slots_of_another_size_than_ftrace_caller_reads_are_refused(tmp_path: Path) -> None:
    """The loads of the ops pointer become NOPs: slots of 24 bytes do not suit such a kernel."""
    file = (MINI / "vmlinux-ool").read_bytes()
    start = symbol(file, "ftrace_caller")
    nops = {
        start + 4 * i: b"\0\0\0\x60"
        for i, word in enumerate(words_at(file, start, 56))
        if word & 0xFC1FFFFF == 0xE80BFFF0  # ld rX,-16(r11)
    }
    assert len(nops) == 2
    path = written(tmp_path / "v", changed(file, nops))
    assert str(refused(path)) == (
        f"{path}: {TEXT}: an area of out-of-line stubs does not fit the kernel's code: "
        "found 96 bytes for 4 stubs, expected 16 bytes each"
    )


@pytest.mark.parametrize(
    ("lost", "area"), [(TEXT_END, TEXT_END), (INIT, INIT), (f"{TEXT}_count", TEXT), (f"{INIT}_count", INIT)]
)
def test_a_missing_area_is_refused(lost: str, area: str, tmp_path: Path) -> None:
    path = written(tmp_path / "v", renamed((MINI / "vmlinux-ool").read_bytes(), lost))
    assert str(refused(path)) == (f"{path}: an area of out-of-line stubs is missing: found no {area} with its count")


def spoiled(area: str, slot: int, by: str, tmp_path: Path) -> str:
    """The fixture with something in one slot, or a relocation that will write there."""
    file = (MINI / "vmlinux-ool").read_bytes()
    va = symbol(file, area) + 24 * slot
    if by == "bytes":
        return written(tmp_path / "v", changed(file, {va + 23: b"\1"}))
    head = Oracle("vmlinux-ool").elf.get_section_by_name(".rela.dyn")
    row = [place for place, _, _ in relocations(file)].index(symbol(file, "a_ctor"))
    return written(tmp_path / "v", changed(file, {}, {head["sh_offset"] + 24 * row: struct.pack("<Q", va + 8)}))


NOT_EMPTY = "a stub slot that the kernel will hand out is not empty: found {} – another tool patched this image"


@pytest.mark.parametrize(
    ("area", "slot"),
    [
        (TEXT, 0),
        (TEXT_END, 0),
        (TEXT_END, 15),
        (INIT, 0),
        (TEXT, 3),
        (INIT, 10),
    ],
)
@pytest.mark.parametrize("by", ["bytes", "relocation"])
def test_a_slot_that_the_kernel_will_hand_out_must_be_empty(area: str, slot: int, by: str, tmp_path: Path) -> None:
    path = spoiled(area, slot, by, tmp_path)
    assert str(refused(path)) == f"{path}: {NOT_EMPTY.format(area)}"


@pytest.mark.parametrize("by", ["bytes", "relocation"])
def test_the_last_slot_beside_ftrace_caller_must_be_empty_too(by: str, tmp_path: Path) -> None:
    """With two records less the kernel still hands out all four of them."""
    path = spoiled(TEXT, 3, by, tmp_path)
    assert str(refused(path, "vfs_read", "vfs_write")) == f"{path}: {NOT_EMPTY.format(TEXT)}"


def test_without_a_free_slot_the_site_is_out_of_reach(tmp_path: Path) -> None:
    """The slot that one record less sets free holds something."""
    path = spoiled(TEXT_END, 16, "bytes", tmp_path)
    (detail,) = refused(path).details
    assert detail.endswith("): out of reach: no free stub slot that its branch reaches")


@pytest.mark.parametrize(("slot", "n"), [(15, 2), (15, 3), (14, 4)])
def test_a_site_that_falls_out_takes_the_slots_of_the_others_with_it(slot: int, n: int, tmp_path: Path) -> None:
    """The record of a site that falls out stays, so that the kernel takes one more slot at boot and the next site falls
    out, too, until it comes to the full slot itself. Where the rounds are too few, the plan would fill that slot."""
    path = spoiled(TEXT_END, slot, "bytes", tmp_path)
    with pytest.raises(PlanError) as caught:
        planned(path, *(f"row:{i}" for i in chosen("vmlinux-ool", "text")[:n]), force_early=True, skip_unpatchable=True)
    assert str(caught.value) == f"{path}: {NOT_EMPTY.format(TEXT_END)}"


def test_sites_fall_out_one_after_the_other_until_none_is_left(tmp_path: Path) -> None:
    picked = sorted(chosen("vmlinux-ool", "text")[:3])
    path = spoiled(TEXT_END, 16, "bytes", tmp_path)
    plan = planned(path, *(f"row:{i}" for i in picked), force_early=True, skip_unpatchable=True)
    assert plan.reasons == dict.fromkeys(picked, "out of reach: no free stub slot that its branch reaches")
    assert (len(plan.index), len(plan.edits), len(plan.calls.slot)) == (0, 0, 0)


def test_a_record_that_is_kept_frees_no_slot() -> None:
    """Once it was taken for gone: the stub went to the last slot, which the kernel then gave to the last record."""
    path = MINI / "vmlinux-ool-noops"
    with pytest.raises(ReachError) as caught:
        planned(path, "sys_getppid", records="keep")
    assert str(caught.value) == (
        f"{path}: 1 of 1 chosen sites cannot be patched: found sys_getppid (row 5, .text+0x118): out of reach: "
        "no free stub slot that its branch reaches, expected all of them, or nothing is written – "
        "--skip-unpatchable patches the others"
    )


def areas(low: int, high: int, n_low: int, n_high: int) -> list[ool_slots.Area]:
    return [
        ool_slots.Area(TEXT, low, n_low, 24, np.ones(n_low, dtype=bool)),
        ool_slots.Area(TEXT_END, high, n_high, 24, np.ones(n_high, dtype=bool)),
    ]


LOW = 0xC000_0000_0800_0000


@pytest.mark.parametrize(
    ("site", "near"),
    [
        (LOW + 0x1FFFFFC, True),
        (LOW + 0x2000000, False),
        (LOW - 0x2000000, True),
        (LOW - 0x2000004, False),
    ],
)
def test_reach_counts_from_the_start_of_the_slot_ops_word_included(site: int, near: bool) -> None:
    """&ftrace_ool_stub_text[index] is the struct, 8 bytes in front of the stub's code."""
    end = LOW + 0x3000000
    used, found = ool_slots._hand_out(ARCH, areas(LOW, end, 4, 4), np.array([site], dtype=np.uint64), [0, 0], False)
    assert (used, found.tolist()) == (([1, 0], [LOW]) if near else ([0, 1], [end]))


def test_a_site_beyond_reach_leaves_the_near_slot_to_the_next() -> None:
    """Three sites too far below, then two near, then one too far above: as the kernel's static counters do it."""
    end = LOW + 0x1000000
    sites = [LOW - 0x2000010, LOW - 0x200000C, LOW - 0x2000008, LOW, LOW + 16, LOW + 0x2000080]
    used, found = ool_slots._hand_out(ARCH, areas(LOW, end, 4, 8), np.array(sites, dtype=np.uint64), [0, 0], False)
    assert used == [2, 4]
    assert found.tolist() == [end, end + 24, end + 48, LOW, LOW + 24, end + 72]


def test_a_full_area_hands_out_nothing_more() -> None:
    sites = np.array([LOW, LOW + 4, LOW + 8], dtype=np.uint64)
    used, found = ool_slots._hand_out(ARCH, areas(LOW, LOW + 0x100, 1, 1), sites, [0, 0], False)
    assert (used, found.tolist()) == ([1, 1], [LOW, LOW + 0x100, 0])
