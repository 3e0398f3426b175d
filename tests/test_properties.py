"""Statements that hold for every input, tried on many: encoders and decoders, packed tables, edits, selections, plans.

Where the program is compared with something, that something is written here in the plainest way (a loop per word, a
set of names, a bytearray) or is capstone or pyelftools.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import capstone
import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ftpatch.arch import ppc64le, ppc64le_walk
from ftpatch.arch.arm64 import BL, B
from ftpatch.arch.arm64_veneer import ADRP, adrp, adrp_target
from ftpatch.arch.shape import Branch
from ftpatch.arrays import I64, U32, U64
from ftpatch.cli import run
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables
from ftpatch.elf.tables import relr_places
from ftpatch.errors import ElfError
from ftpatch.plan.edits import Edits, Group, group
from ftpatch.sites.scan import Scan
from ftpatch.sites.scan import scan_file as scan
from ftpatch.sites.select import select

MINI = Path(__file__).parents[1] / "testdata" / "mini"
MINI_PPC = MINI.with_name("mini-ppc64le")
MAX64 = (1 << 64) - 1
RELATIVE = {"EM_AARCH64": 1027, "EM_PPC64": 22}

# Always the same examples, and none kept between runs: a failure is a failure everywhere.
quick = settings(deadline=None, max_examples=200, derandomize=True)
slow = settings(quick, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


# -- instructions ----------------------------------------------------------------------------------------------

MIB = 1 << 20
branches = pytest.mark.parametrize(
    "branch,reach",
    [
        pytest.param(BL, 128 * MIB, id="bl"),
        pytest.param(B, 128 * MIB, id="b"),
        pytest.param(ppc64le_walk.BL, 32 * MIB, id="ppc64le-bl"),
        pytest.param(ppc64le_walk.B, 32 * MIB, id="ppc64le-b"),
    ],
)
engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
engine_ppc = capstone.Cs(capstone.CS_ARCH_PPC, capstone.CS_MODE_64 | capstone.CS_MODE_LITTLE_ENDIAN)


def unpacked(words: U64, low: int, high: int, where: str) -> U64:
    """All slices of relr_places as one array."""
    return np.concatenate([np.zeros(0, dtype=np.uint64), *relr_places(words, low, high, where)])


def i64(*values: int) -> I64:
    return np.array(values, dtype=np.int64)


def u32(*values: int) -> U32:
    return np.array(values, dtype=np.uint32)


def disassembled(words: list[int], va: int, by: capstone.Cs = engine) -> list[str]:
    """By capstone, one text per word."""
    code = struct.pack(f"<{len(words)}I", *words)
    return [f"{mnemonic} {operands}".strip() for _, _, mnemonic, operands in by.disasm_lite(code, va)]


@branches
@quick
@given(data=st.data())
def test_branch_in_reach_comes_back_as_it_was_encoded(branch: Branch, reach: int, data: st.DataObject) -> None:
    in_reach = st.integers(-reach // 4, reach // 4 - 1).map(lambda n: 4 * n)
    distances = data.draw(st.lists(in_reach, max_size=20))
    words = branch.encode(i64(*distances))
    assert words.dtype == np.uint32
    assert branch.word.matches(words).all()
    assert branch.decode(words).tolist() == distances


@branches
def test_branch_at_the_ends_of_its_reach_is_encoded(branch: Branch, reach: int) -> None:
    assert (branch.low, branch.high) == (-reach, reach - 4)
    for distance in (-reach, -4, 0, 4, reach - 4):
        assert branch.reaches(i64(distance)).tolist() == [True]
        assert branch.decode(branch.encode(i64(distance))).tolist() == [distance]


@branches
def test_branch_one_step_out_of_reach_is_refused(branch: Branch, reach: int) -> None:
    for distance in (-reach - 4, reach, -(1 << 63), (1 << 63) - 1, (1 << 63) - 4, 2 * reach):
        assert branch.reaches(i64(distance)).tolist() == [False]
        with pytest.raises(AssertionError):
            branch.encode(i64(0, distance))


@branches
@quick
@given(distance=st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-160 * MIB, 160 * MIB)))
def test_branch_reaches_exactly_its_span_in_whole_words(branch: Branch, reach: int, distance: int) -> None:
    inside = -reach <= distance < reach and distance % 4 == 0
    assert branch.reaches(i64(distance)).tolist() == [inside]
    if not inside:
        with pytest.raises(AssertionError):
            branch.encode(i64(distance))


@branches
@quick
@given(n=st.integers(-(1 << 23), (1 << 23) - 1), odd=st.integers(1, 3))
def test_branch_into_the_middle_of_a_word_is_refused(branch: Branch, reach: int, n: int, odd: int) -> None:
    with pytest.raises(AssertionError):
        branch.encode(i64(4 * n + odd))


@pytest.mark.parametrize("linked", [1, 0])
@quick
@given(field=st.integers(0, (1 << 24) - 1), page=st.integers(1 << 16, 1 << 35))
def test_ppc64le_branch_is_decoded_as_capstone_does(linked: int, field: int, page: int) -> None:
    word, va = 0x4800_0000 | field << 2 | linked, page << 12
    branch = ppc64le_walk.BL if linked else ppc64le_walk.B
    target = va + int(branch.decode(u32(word))[0])
    assert disassembled([word], va, engine_ppc) == [f"{'bl' if linked else 'b'} {target & MAX64:#x}"]


@quick
@given(word=st.one_of(st.integers(0, 0xFFFF_FFFF), st.integers(0x4800_0000, 0x4BFF_FFFF)))
def test_ppc64le_word_is_a_branch_for_us_when_it_is_one_for_capstone(word: int) -> None:
    """Absolute ones, `ba` and `bla`, are none."""
    found = disassembled([word], 1 << 40, engine_ppc)
    mnemonic = found[0].split()[0] if found else ""
    assert bool(ppc64le_walk.BL.word.matches(u32(word))[0]) == (mnemonic == "bl")
    assert bool(ppc64le_walk.B.word.matches(u32(word))[0]) == (mnemonic == "b")


def far_goal(words: list[int], toc: int) -> tuple[int, int]:
    """(place in the paca, target) of the five words of a far stub, computed as the machine does."""
    load, high, low = words[:3]
    assert [load & 0xFFFF_0003, high >> 16, low >> 16, *words[3:]] == [
        0xE98D_0000, 0x3D8C, 0x398C, 0x7D89_03A6, 0x4E80_0420,
    ]  # fmt: skip
    upper = (high & 0xFFFF ^ 0x8000) - 0x8000
    return load & 0xFFFC, toc + (upper << 16) + ((low & 0xFFFF ^ 0x8000) - 0x8000)


@quick
@given(toc=st.integers(1 << 40, 1 << 50), distance=st.integers(-0x8000_8000, 0x7FFF_7FFF), paca=st.integers(0, 8191))
def test_far_stub_goes_where_it_was_made_for(toc: int, distance: int, paca: int) -> None:
    words = ppc64le.far_stub(toc + distance, toc, 4 * paca)
    assert words.dtype == np.uint32
    assert far_goal(words.tolist(), toc) == (4 * paca, toc + distance)
    texts = disassembled(words.tolist(), 0, engine_ppc)
    assert [text.split()[0] for text in texts] == ["ld", "addis", "addi", "mtctr", "bctr"]


@quick
@given(beyond=st.integers(0, 1 << 40), down=st.booleans())
def test_far_stub_out_of_the_reach_of_the_toc_is_refused(beyond: int, down: bool) -> None:
    toc = 1 << 50
    with pytest.raises(AssertionError):
        ppc64le.far_stub(toc - 0x8000_8001 - beyond if down else toc + 0x7FFF_8000 + beyond, toc, 16)


@quick
@given(field=st.integers(0, (1 << 26) - 1), page=st.integers(1 << 16, 1 << 35))
def test_call_is_decoded_as_capstone_does(field: int, page: int) -> None:
    word, va = 0x9400_0000 | field, page << 12
    target = va + int(BL.decode(u32(word))[0])
    assert disassembled([word], va) == [f"bl #{target & MAX64:#x}"]


@quick
@given(word=st.integers(0, 0xFFFF_FFFF))
def test_word_is_a_call_for_us_when_it_is_one_for_capstone(word: int) -> None:
    found = disassembled([word], 1 << 40)
    assert bool(BL.word.matches(u32(word))[0]) == bool(found and found[0].startswith("bl #"))


va_pages = st.integers(1 << 20, (1 << 52) - (1 << 21))


@quick
@given(page=va_pages, off=st.integers(0, 1023), pages=st.integers(-(1 << 20), (1 << 20) - 1),
       low=st.integers(0, 4095), register=st.integers(0, 30))  # fmt: skip
def test_adrp_comes_back_as_the_page_it_was_made_for(page: int, off: int, pages: int, low: int, register: int) -> None:
    va, target = (page << 12) + 4 * off, (page + pages << 12) + low
    word = adrp(va, target, register)
    assert bool(ADRP.matches(u32(word))[0])
    assert word & 31 == register
    assert adrp_target(word, va) == target & ~0xFFF
    assert disassembled([word], va) == [f"adrp x{register}, #{target & ~0xFFF:#x}"]


@quick
@given(page=va_pages, beyond=st.integers(0, 1 << 21), down=st.booleans())
def test_adrp_out_of_reach_is_refused(page: int, beyond: int, down: bool) -> None:
    pages = -(1 << 20) - 1 - beyond if down else (1 << 20) + beyond
    with pytest.raises(AssertionError):
        adrp(page << 12, page + pages << 12, 0)


# -- packed relocations ----------------------------------------------------------------------------------------


def plain_relr(words: list[int]) -> list[int]:
    """Addresses of a packed table, word by word, as the gABI's text decodes it."""
    found: list[int] = []
    base = 0
    for word in words:
        if word & 1 == 0:
            found.append(word)
            base = word + 8
        else:
            found += [base + 8 * (bit - 1) for bit in range(1, 64) if word >> bit & 1]
            base += 63 * 8
    return found


def packed_relr(places: list[int]) -> list[int]:
    """A packed table of ascending 8-aligned addresses, as linkers make it."""
    words: list[int] = []
    rest = sorted(set(places))
    while rest:
        words.append(rest[0])
        base, rest = rest[0] + 8, rest[1:]
        while True:
            inside = [place for place in rest if place - base < 63 * 8]
            if not inside:
                break
            words.append(sum(1 << (place - base) // 8 + 1 for place in inside) | 1)
            base, rest = base + 63 * 8, rest[len(inside) :]
    return words


def u64(values: list[int]) -> U64:
    return np.array(values, dtype=np.uint64)


@contextmanager
def slices(size: int) -> Iterator[None]:
    """Tables are unpacked so many words at a time."""
    with patch.object(tables, "RELR_SLICE", size):
        yield


KIMAGE = 0xFFFF_8000_8000_0000
groups = st.tuples(
    st.integers(0, 300), st.lists(st.integers(0, (1 << 63) - 1).map(lambda bits: bits << 1 | 1), max_size=5)
)


@st.composite
def sound_tables(draw: st.DrawFn) -> list[int]:
    """Ascending runs, each an address and some bitmaps, none into the next one's words."""
    words: list[int] = []
    at = draw(st.sampled_from([0, 0x1000, KIMAGE]))
    for gap, bitmaps in draw(st.lists(groups, max_size=6)):
        at += 8 * gap
        words += [at, *bitmaps]
        at += 8 + 63 * 8 * len(bitmaps)
    return words


@quick
@given(words=sound_tables(), data=st.data())
def test_packed_table_is_read_as_word_by_word(words: list[int], data: st.DataObject) -> None:
    places = plain_relr(words)
    first, last = (places[0], places[-1]) if places else (KIMAGE, KIMAGE)
    near = st.integers(max(first - 2000, 0) // 8, (last + 2000) // 8).map(lambda n: 8 * n)
    low, high = sorted((data.draw(near), data.draw(near)))
    with slices(data.draw(st.sampled_from([1, 2, 5, 1 << 14]))):
        found = unpacked(u64(words), low, high, "kernel")
    assert found.dtype == np.uint64
    assert found.tolist() == [place for place in places if low <= place < high]


@quick
@given(words=sound_tables())
def test_packed_table_is_read_whole_over_its_whole_range(words: list[int]) -> None:
    places = plain_relr(words)
    assume(places)
    assert unpacked(u64(words), places[0], places[-1] + 8, "kernel").tolist() == places


@quick
@given(start=st.sampled_from([0, 0x1000, KIMAGE, MAX64 - (1 << 20) + 1]),
       slots=st.sets(st.integers(0, 5000), min_size=1, max_size=200))  # fmt: skip
def test_packed_addresses_come_back_as_they_went_in(start: int, slots: set[int]) -> None:
    places = [start + 8 * slot for slot in sorted(slots)]
    words = packed_relr(places)
    assert len(words) <= len(places)
    assert plain_relr(words) == places
    for size in (3, 1 << 14):
        with slices(size):
            assert unpacked(u64(words), places[0], places[-1] + 8, "kernel").tolist() == places
            assert unpacked(u64(words), places[0] + 8, places[-1], "kernel").tolist() == places[1:-1]


@quick
@given(bitmap=st.integers(0, (1 << 63) - 1).map(lambda bits: bits << 1 | 1), words=sound_tables())
def test_packed_table_that_starts_with_a_bitmap_is_refused(bitmap: int, words: list[int]) -> None:
    with pytest.raises(ElfError) as refusal:
        unpacked(u64([bitmap, *words]), 0, 1 << 20, "kernel: .relr.dyn")
    assert str(refusal.value) == (
        f"kernel: .relr.dyn: RELR table starts with a bitmap: found {bitmap:#018x}, expected an address"
    )


# -- edits -----------------------------------------------------------------------------------------------------

SIZE = 4096


@st.composite
def disjoint(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """(position, new bytes) of edits in a file of SIZE bytes that do not touch each other."""
    found, at = [], 0
    for gap, width in draw(st.lists(st.tuples(st.integers(0, 300), st.sampled_from([4, 8, 16, 24])), max_size=25)):
        at += gap
        if at + width > SIZE:
            break
        found.append((at, draw(st.binary(min_size=width, max_size=width))))
        at += width
    return found


def as_edits(data: bytes, wanted: list[tuple[int, bytes]], order: list[int]) -> Edits:
    """One group per width, rows in any order."""
    rows, parts = FileBytes.of(data), []
    for width in (4, 8, 16, 24):
        chosen = [i for i in order if len(wanted[i][1]) == width]
        new = np.array([list(wanted[i][1]) for i in chosen], np.uint8).reshape(len(chosen), width)
        parts.append(group("site", rows, i64(*chosen), i64(*[wanted[i][0] for i in chosen]), new))
    return Edits(parts)


def rewritten(data: bytes, edits: Edits, gap: int) -> bytes:
    """The file as the writer makes it: run by run."""
    result = np.frombuffer(data, np.uint8).copy()
    for start, end in edits.runs(gap):
        chunk = result[start:end].copy()
        assert edits.patch(start, chunk)
        result[start:end] = chunk
    return result.tobytes()


files = st.integers(0, 255).map(lambda seed: bytes((seed * 7 + i * 31 + i // 256) % 256 for i in range(SIZE)))


@quick
@given(data=files, wanted=disjoint(), gap=st.integers(0, 500), shuffle=st.randoms(use_true_random=False))
def test_edits_by_runs_make_the_same_file_as_one_by_one(
    data: bytes, wanted: list[tuple[int, bytes]], gap: int, shuffle: Any
) -> None:
    order = list(range(len(wanted)))
    shuffle.shuffle(order)
    edits = as_edits(data, wanted, order)
    expected = bytearray(data)
    for pos, new in wanted:
        expected[pos : pos + len(new)] = new
    changes = [(pos, data[pos : pos + len(new)], new, "site", i)
               for i, (pos, new) in enumerate(wanted) if data[pos : pos + len(new)] != new]  # fmt: skip
    assert list(edits) == changes
    assert len(edits) == len(changes)
    assert edits.n_bytes() == sum(len(new) for _, _, new, _, _ in changes)
    assert rewritten(data, edits, gap) == expected
    swapped = Edits(Group(one.kind, one.ids, one.pos, one.new, one.old) for one in edits.groups)
    assert rewritten(bytes(expected), swapped, gap) == data


@quick
@given(data=files, wanted=disjoint(), gap=st.integers(0, 500))
def test_runs_hold_every_edit_once_and_are_apart(data: bytes, wanted: list[tuple[int, bytes]], gap: int) -> None:
    edits = as_edits(data, wanted, list(range(len(wanted))))
    runs = edits.runs(gap)
    spans = [(pos, pos + len(new)) for pos, _, new, _, _ in edits]
    assert all(sum(start <= first and last <= end for start, end in runs) == 1 for first, last in spans)
    assert all(later - end > gap for (_, end), (later, _) in pairwise(runs))
    assert {start for start, _ in runs} <= {first for first, _ in spans}
    assert {end for _, end in runs} <= {last for _, last in spans}


@quick
@given(data=files, wanted=disjoint(), which=st.integers(0, 1 << 16), other=st.integers(1, 255))
def test_edit_over_other_bytes_than_planned_is_noticed(
    data: bytes, wanted: list[tuple[int, bytes]], which: int, other: int
) -> None:
    edits = as_edits(data, wanted, list(range(len(wanted))))
    assume(len(edits))
    owned = [pos + i for pos, old, _, _, _ in edits for i in range(len(old))]
    changed = np.frombuffer(data, np.uint8).copy()
    changed[owned[which % len(owned)]] ^= other
    assert not edits.patch(0, changed)


@quick
@given(pos=st.integers(0, 100), width=st.sampled_from([4, 8]), off=st.integers(-7, 7), far=st.integers(200, 300))
def test_edits_raise_exactly_when_two_share_a_byte(pos: int, width: int, off: int, far: int) -> None:
    assume(pos + off >= 0)
    data = FileBytes.of(bytes(SIZE))
    one = group("site", data, i64(0, 1), i64(pos, far), np.ones((2, width), np.uint8))
    two = group("record", data, i64(0), i64(pos + off), np.ones((1, 8), np.uint8))
    if pos < pos + off + 8 and pos + off < pos + width:
        with pytest.raises(AssertionError, match="two edits overlap"):
            Edits([one, two])
    else:
        assert len(Edits([one, two])) == 3


# -- selections ------------------------------------------------------------------------------------------------


def source(fixture: str) -> Path:
    """The fixture's file: those of the second machine have its name in front."""
    machine, _, name = fixture.rpartition("/")
    return (MINI_PPC if machine else MINI) / name


@cache
def scanned(fixture: str) -> Scan:
    return scan(str(source(fixture)))


@cache
def functions_of(fixture: str) -> dict[str, frozenset[int]]:
    """Function name → indices of the sites at whose record it starts, by pyelftools and the report's columns."""
    table = scanned(fixture).sites
    entry = {int(va): index for index, va in enumerate(table.entry_va.tolist()) if table.sec[index] >= 0}
    twice: dict[int, set[int]] = {
        va: {i for i, other in enumerate(table.entry_va.tolist()) if other == va} for va in entry
    }
    found: dict[str, set[int]] = {}
    with open(source(fixture), "rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab")
        assert symbols is not None
        for symbol in symbols.iter_symbols():  # type: ignore[attr-defined]
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_value"] in twice:
                found.setdefault(symbol.name, set()).update(twice[symbol["st_value"]])
    return {name: frozenset(sites) for name, sites in found.items()}


@pytest.mark.parametrize(
    "fixture", ["vmlinux-callops", "vmlinux-pfe2-bti", "vmlinux-kcfi", "ppc64le/vmlinux-far", "ppc64le/vmlinux-clang"]
)
@settings(quick, max_examples=60)
@given(data=st.data())
def test_selection_is_set_algebra_on_names(fixture: str, data: st.DataObject) -> None:
    sites = functions_of(fixture)
    assert {"vfs_read", "init_once", "start_kernel", "__se_sys_getppid"} <= sites.keys() and len(
        sites["init_once"]
    ) == 2
    names = st.lists(st.sampled_from(sorted(sites)), max_size=8)
    plus, minus = data.draw(names), data.draw(names)
    assume(plus or minus)
    texts = data.draw(st.permutations([*plus, *("!" + name for name in minus)]))
    every = frozenset[int]().union(*sites.values())
    expected = frozenset[int]().union(*(sites[name] for name in plus)) if plus else every
    expected -= frozenset[int]().union(*(sites[name] for name in minus))
    assume(expected)
    chosen = select(scanned(fixture).sites, texts).mask
    assert frozenset(np.flatnonzero(chosen).tolist()) == expected


@settings(quick, max_examples=40)
@given(data=st.data())
def test_list_of_many_names_selects_what_the_names_one_by_one_do(data: st.DataObject) -> None:
    """More than a handful of plain names take another way through the symbol table."""
    sites = functions_of("vmlinux-pfe2")
    names = data.draw(st.lists(st.sampled_from(sorted(sites)), min_size=17, max_size=30))
    chosen = select(scanned("vmlinux-pfe2").sites, names).mask
    assert frozenset(np.flatnonzero(chosen).tolist()) == frozenset[int]().union(*(sites[name] for name in names))


# -- plans -----------------------------------------------------------------------------------------------------

WAYS = {
    "vmlinux-callops": ("auto", "null", "shrink", "keep"),
    "vmlinux-callops-bti": ("auto", "null", "shrink", "keep"),
    "vmlinux-pfe2": ("auto", "minus4", "shrink", "keep"),
    "vmlinux-pfe2-bti": ("auto", "minus4", "shrink", "keep"),
    "vmlinux-exec": ("auto", "minus4", "shrink", "keep"),
    "vmlinux-kcfi": ("auto", "null", "shrink", "keep"),
    "ppc64le/vmlinux-mprofile": ("auto", "null", "keep"),
    "ppc64le/vmlinux-pfe2": ("auto", "minus4", "keep"),
    "ppc64le/vmlinux-ool": ("auto", "null"),  # keep frees no relocation for the ops
    "ppc64le/vmlinux-ool-noops": ("auto", "null"),  # keep frees no stub slot
    "ppc64le/vmlinux-far": ("auto", "minus4", "keep"),
    "ppc64le/vmlinux-clang": ("auto", "null"),
}
MINUS4 = ("vmlinux-pfe2", "vmlinux-pfe2-bti", "ppc64le/vmlinux-pfe2", "ppc64le/vmlinux-far")
AUTO = {"vmlinux-exec": "shrink", **dict.fromkeys(MINUS4, "minus4")}  # the others: null
LEFTOVERS = {"vmlinux-pfe2": 3, "vmlinux-pfe2-bti": 3, "vmlinux-exec": 3}
FREE_RELOCATIONS = 8  # testdata/mini/README.md
LITERALS = {"ppc64le/vmlinux-ool": "ftrace_list_ops", "ppc64le/vmlinux-clang": "ftrace_list_ops"}
# These run before r13 leads to a paca, which ftrace_caller reads; setup_paca sets it, behind its own site.
EARLY = {"early_setup", "initialise_paca", "fixup_boot_paca", "paca_checksum", "setup_paca"}
kernels = pytest.mark.parametrize("fixture", sorted(WAYS))


@dataclass(frozen=True)
class Kernel:
    """What the tests read of a kernel by themselves."""

    records: tuple[int, ...]  # live ones, in table order
    n_slots: int
    symbols: dict[str, int]
    start: int  # va of slot 0
    words: tuple[int, ...]  # what stands in the slots
    rela: tuple[tuple[int, int, int], ...]  # offset, type, addend
    local: dict[int, int]  # va of a function → bytes to its local entry
    sections: tuple[tuple[int, int, int], ...]  # va, size, file position of those in the file and in memory

    def pos(self, va: int) -> int:
        return next(pos + va - first for first, size, pos in self.sections if first <= va < first + size)

    def is_init(self, va: int) -> bool:
        """As the kernel's is_kernel_inittext() decides."""
        first = self.symbols.get("_sinittext", self.symbols["__init_begin"])
        return first <= va < self.symbols.get("_einittext", self.symbols["__init_end"])


def kernel(path: Path) -> Kernel:
    """The record table by pyelftools: RELATIVE addends over words, zeros and −4 left out."""
    with open(path, "rb") as file:
        elf: Any = ELFFile(file)
        relative, symbols, local = RELATIVE[elf["e_machine"]], dict[str, int](), {}
        for symbol in elf.get_section_by_name(".symtab").iter_symbols():
            symbols[symbol.name] = int(symbol["st_value"])
            if symbol["st_info"]["type"] == "STT_FUNC":
                local[int(symbol["st_value"])] = (1 << (symbol.entry["st_other"]["local"] or 0)) >> 2 << 2
        start, stop = symbols["__start_mcount_loc"], symbols["__stop_mcount_loc"]
        data = elf.get_section_by_name(".init.data")
        content = data.data()[start - data["sh_addr"] : stop - data["sh_addr"]]
        values = list(words := struct.unpack(f"<{(stop - start) // 8}Q", content))
        table = elf.get_section_by_name(".rela.dyn")
        rows = struct.iter_unpack("<QQq", table.data()) if table else ()
        rela = tuple((offset, info & 0xFFFF_FFFF, addend & MAX64) for offset, info, addend in rows)
        for offset, kind, addend in rela:
            if kind == relative and start <= offset < stop:
                values[(offset - start) // 8] = addend
        sections = tuple(
            (one["sh_addr"], one["sh_size"], one["sh_offset"])
            for one in elf.iter_sections()
            if one["sh_flags"] & 2 and one["sh_type"] != "SHT_NOBITS"
        )
    live = tuple(value for value in values if value not in (0, MAX64 - 3))
    return Kernel(live, len(values), symbols, start, words, rela, local, sections)


@cache
def good(fixture: str) -> Kernel:
    return kernel(source(fixture))


@cache
def ready(fixture: str) -> dict[str, tuple[int, ...]]:
    """Function name → record values of its sites, for functions that can be enabled."""
    found: dict[str, tuple[int, ...]] = {}
    table = scanned(fixture).sites
    for name, sites in functions_of(fixture).items():
        found[name] = tuple(int(table.va[site]) for site in sorted(sites))
    return found


def early_records(fixture: str) -> set[int]:
    if not fixture.startswith("ppc64le/"):
        return set()
    return {record for name in EARLY for record in ready(fixture)[name]}


def drawn_names(data: st.DataObject, fixture: str, least: int = 1, most: int | None = None) -> list[str]:
    """Functions of a fixture: some; where no limit is given also all of ordinary text and some, or all but some."""
    every = sorted(ready(fixture))
    some = data.draw(st.lists(st.sampled_from(every), unique=True, min_size=least, max_size=most))
    if most is not None:
        return some
    start = data.draw(st.sampled_from(["none", "none", "none", "text", "all"]))
    text = [name for name in every if not any(good(fixture).is_init(record) for record in ready(fixture)[name])]
    if start == "text":
        return sorted({*text, *some})
    return [name for name in every if name not in some] or some if start == "all" else some


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ftpatch-test-") as name:
        yield Path(name)


def enable(source: Path, out: Path, names: list[str], way: str, via: str, *more: str) -> dict[str, Any]:
    """Patch by the command line; the only image of the journal."""
    journal = out.with_name(out.name + ".json")
    funcs = [word for name in names for word in ("--func", name)]
    line = ["enable", str(source), *funcs, "-o", str(out), "--records", way, "--ops-via", via, *more]
    assert run([*line, "--report", f"json={journal}"]) == 0, line
    document = json.loads(journal.read_text())
    image: dict[str, Any] = document["images"][0]
    return image


def check_edits(before: bytes, after: bytes, edits: list[dict[str, Any]]) -> None:
    """Every changed byte belongs to one edit, the old bytes are the input's, and putting them back gives the input."""
    assert len(before) == len(after)
    restored, owned = bytearray(after), set[int]()
    for edit in edits:
        old, new = bytes.fromhex(edit["old"]), bytes.fromhex(edit["new"])
        span = range(edit["pos"], edit["pos"] + len(new))
        assert owned.isdisjoint(span)
        owned.update(span)
        assert after[span.start : span.stop] == new and len(old) == len(new)
        restored[span.start : span.stop] = old
    assert bytes(restored) == before
    assert {i for i in range(len(before)) if before[i] != after[i]} <= owned


def check_sites(after: bytes, image: dict[str, Any], target: int) -> None:
    """Every patched site reads `mov x9, x30; bl` and the call goes to `target`."""
    for site in image["sites"]:
        words = list(struct.unpack_from("<2I", after, site["pos"]))
        assert disassembled(words, int(site["site"], 16)) == ["mov x9, x30", f"bl #{target:#x}"]
        assert [f"0x{word:08x}" for word in words] == site["new_words"]
        assert int(site["branch"], 16) == int(site["site"], 16) + 4


def check_thunk(path: Path, aim: int, symbols: dict[str, int]) -> None:
    """The stub loads the ops where the trampoline would have, and enters it behind its own load."""
    words = scan(str(path)).image.code(aim, 4).tolist()
    page, low = symbols["ftrace_list_ops"] & ~0xFFF, symbols["ftrace_list_ops"] & 0xFFF
    caller = scan(str(path)).image.code(symbols["ftrace_caller"], 3).tolist()
    load = next(i for i, text in enumerate(disassembled(caller, symbols["ftrace_caller"])) if "#-0x10" in text)
    register = caller[load] & 31
    assert disassembled(words, aim) == [
        "bti c", f"adrp x{register}, #{page:#x}", f"add x{register}, x{register}, #{low:#x}",
        f"b #{symbols['ftrace_caller'] + 4 * (load + 1):#x}",
    ]  # fmt: skip


def the_stub(image: dict[str, Any]) -> int | None:
    """va of the one stub that all patched sites go through; None where every site calls the target itself."""
    (found,) = {site["stub"] for site in image["sites"]}
    assert {site["action"] for site in image["sites"]} == {"call_via_stub" if found else "call"}
    return int(found, 16) if found else None


@pytest.mark.parametrize("fixture", sorted(WAYS))
@pytest.mark.parametrize("kept", [[], ["vfs_read"], ["vfs_read", "vfs_write"], ["vfs_read", "vfs_write", "rest_init"]])
def test_kernel_with_few_named_records_left_is_read_again(
    fixture: str, kept: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records of dead weak functions fit the layout too; that no symbol says so must not count against it."""
    out = tmp_path / "out"
    choice = ["!" + name for name in kept] or ["*"]
    enable(source(fixture), out, choice, "auto", "auto", "--force-early")
    capsys.readouterr()
    assert run(["scan", str(out)]) == 0
    layout = scanned(fixture).sites.shape
    leftover = LEFTOVERS.get(fixture, 4 if fixture.startswith("ppc64le/") else 0)
    parts = [f"ready {len(kept)}"] * bool(kept) + [f"weak-leftover {leftover}"] * bool(leftover)
    said = capsys.readouterr().out
    assert layout is not None and f"  layout     {layout.name}: " in said
    assert not parts or f"  status     {', '.join(parts)}\n" in said


def left_of(before: Kernel, gone: set[int], way: str) -> tuple[int, ...]:
    """The records that stay, in table order. Those of init text do not stay alone: the kernel frees their whole list
    with init memory, and reads through a null pointer afterwards."""
    if way == "keep":
        return before.records
    left = tuple(one for one in before.records if one not in gone)
    return () if all(before.is_init(one) for one in left) else left


@kernels
@slow
@given(data=st.data())
def test_patched_kernel_is_what_the_request_says_and_nothing_else(fixture: str, data: st.DataObject) -> None:
    names = drawn_names(data, fixture)
    way = data.draw(st.sampled_from(WAYS[fixture]))
    gone = {record for name in names for record in ready(fixture)[name]}
    ppc, callops = fixture.startswith("ppc64le/"), "callops" in fixture
    before = good(fixture)
    really = AUTO.get(fixture, "null") if way == "auto" else way
    left = left_of(before, gone, really)
    # On arm64 free relocations are there already; those that are lent by records are used as well.
    carried = any(kind == RELATIVE["EM_AARCH64"] and before.start <= at < before.start + 8 * before.n_slots
                  for at, kind, _ in before.rela)  # fmt: skip
    assert not (callops and carried)
    literal_fits = len(gone) <= FREE_RELOCATIONS or fixture in LITERALS
    vias = (
        ("auto",)
        if not callops
        else ("auto", "literal")
        if ppc
        else ("auto", "literal", "thunk")
        if literal_fits
        else ("auto", "thunk")
    )
    via = data.draw(st.sampled_from(vias))
    force = ["--force-early"] if gone & early_records(fixture) else []
    with folder() as at:
        out = at / "out"
        image = enable(source(fixture), out, names, way, via, *force)
        after = kernel(out)
        result = out.read_bytes()

        assert image["request"]["records"] == really
        assert after.records == left
        assert after.n_slots == before.n_slots - (len(before.records) - len(left) if really == "shrink" else 0)
        more = 0 if really == "keep" else len(before.records) - len(left) - len(gone)
        assert [note for note in image["notes"] if "records of init text leave the table too" in note] == [
            f"{more} records of init text leave the table too, their code unchanged: as the only ones left they would "
            "make the kernel read through a null pointer once init memory is freed"
        ] * bool(more)

        again = scan(str(out))
        assert again.records.value[again.records.live].tolist() == list(left)
        enabled = again.sites.va[again.sites.status == 1].tolist()
        assert sorted(enabled) == sorted(gone)

        assert {int(site["record"], 16) for site in image["sites"]} == gone
        check_edits(source(fixture).read_bytes(), result, image["edits"])
        if ppc:
            check_ppc64le(fixture, after, result, image, gone, left)
            return
        by_thunk = callops and (via == "thunk" or (via == "auto" and not literal_fits))
        stub = the_stub(image)
        assert (stub is not None) == by_thunk
        assert int(image["request"]["target_va"], 16) == before.symbols["ftrace_caller"]
        check_sites(result, image, before.symbols["ftrace_caller"] if stub is None else stub)
        if stub is not None:
            check_thunk(out, stub, before.symbols)
        assert image["request"]["ops_via"] == ("none" if not callops else "thunk" if by_thunk else "literal")
        if callops and not by_thunk:
            check_literals(out, gone, before.symbols["ftrace_list_ops"])


# -- the same on ppc64le, decoded word by word -----------------------------------------------------------------

PPC_NOP, PPC_MFLR, PPC_MTLR = 0x6000_0000, 0x7C08_02A6, 0x7C08_03A6
AREAS = ("ftrace_ool_stub_text", "ftrace_ool_stub_text_end", "ftrace_ool_stub_inittext")


def word_at(kernel: Kernel, raw: bytes, va: int) -> int:
    return int(struct.unpack_from("<I", raw, kernel.pos(va))[0])


def branch_goal(kernel: Kernel, raw: bytes, va: int, linked: bool) -> int:
    """Where the `b` or `bl` at va leads."""
    word = word_at(kernel, raw, va)
    assert word & 0xFC00_0003 == 0x4800_0000 | linked
    return va + ((word & 0x03FF_FFFC ^ 0x0200_0000) - 0x0200_0000)


def site_of(fixture: str, kernel: Kernel, raw: bytes, record: int) -> int:
    """va of the first word that is rewritten for a record. Only clang's stand in front of it: where the two words that
    set r2 begin the function."""
    two_entries = fixture.endswith("clang") and word_at(kernel, raw, record) >> 16 == 0x3C4C
    return record + 8 * two_entries


def check_ppc64le(
    fixture: str, kernel: Kernel, raw: bytes, image: dict[str, Any], gone: set[int], left: tuple[int, ...]
) -> None:
    """Sites, stubs, trampolines, slots and relocations; and that nothing but these has changed."""
    old, before = source(fixture).read_bytes(), good(fixture)
    ool, literal = "ool" in fixture or "clang" in fixture, 8 * (fixture in LITERALS)
    keep = image["request"]["records"] == "keep"
    owned, calls, slots = set[int](), dict[int, int](), dict[int, int]()  # call → site; site → slot

    def own(va: int, size: int) -> None:
        span = range(kernel.pos(va), kernel.pos(va) + size)
        assert owned.isdisjoint(span)
        owned.update(span)

    for record in sorted(gone):
        site = site_of(fixture, before, old, record)
        size = 8 if "pfe2" in fixture or "far" in fixture else 4
        own(site, size)
        if ool:
            stub = branch_goal(kernel, raw, site, linked=False)
            slots[site], calls[stub + 4] = stub - literal, site
            assert word_at(kernel, raw, stub) == PPC_MFLR
            assert word_at(kernel, raw, stub + 8) == PPC_MTLR
            assert branch_goal(kernel, raw, stub + 12, linked=False) == site + 4
            own(slots[site], literal + 16)
        elif size == 8:
            assert word_at(kernel, raw, site) == PPC_MFLR
            calls[site + 4] = site
        else:
            std = word_at(kernel, raw, site - 4) == 0xF801_0010  # gcc 5
            assert word_at(kernel, raw, site - 4 - 4 * std) == PPC_MFLR
            calls[site] = site
    through = {call: check_goal(kernel, raw, call) for call in calls}
    for area in set(through.values()) - {""}:
        own(kernel.symbols[area], 20)

    check_journal(before, image, calls, slots, through)
    if ool:
        check_slots(fixture, kernel, raw, left, slots)
    dropped = set() if keep else set(before.records) - set(left)
    rows = [n for n, (at, _, addend) in enumerate(before.rela) if before.start <= at < before.start + 8 * before.n_slots
            and addend in dropped]  # fmt: skip
    assert len(rows) == len(dropped)
    check_rows(fixture, before, kernel, rows, slots, None if keep else image["request"]["records"])
    for row in rows:
        own(before.rela[row][0], 8)
        own(kernel.symbols["__rela_dyn_start"] + 24 * row, 24)
    changed = {i for i in range(len(old)) if old[i] != raw[i]}
    assert changed <= owned


def check_goal(kernel: Kernel, raw: bytes, call: int) -> str:
    """A call leads to ftrace_caller where it can; else to a trampoline of the kernel's, which is filled as the kernel
    will fill it: the name of that trampoline."""
    goal, caller = branch_goal(kernel, raw, call, linked=True), kernel.symbols["ftrace_caller"]
    if -32 * MIB <= caller - call < 32 * MIB:
        assert goal == caller
        return ""
    (area,) = [name for name in ("ftrace_tramp_text", "ftrace_tramp_init") if kernel.symbols[name] == goal]
    assert area == "ftrace_tramp_text" or kernel.is_init(call)
    words = [word_at(kernel, raw, goal + 4 * n) for n in range(5)]
    loads = [word_at(kernel, raw, caller + 4 * n) for n in range(64)]
    paca = next(word & 0xFFFC for word in loads if word & 0xFFFF_0003 == 0xE84D_0000)  # ld r2,X(r13)
    assert far_goal(words, kernel.symbols[".TOC."]) == (paca, kernel.symbols["ftrace_regs_caller"])
    return area


def check_journal(
    before: Kernel, image: dict[str, Any], calls: dict[int, int], slots: dict[int, int], through: dict[int, str]
) -> None:
    for site in image["sites"]:
        va = int(site["site"], 16)
        call = next(call for call, of in calls.items() if of == va)
        shared = before.symbols[through[call]] if through[call] else None
        stub = slots.get(va, shared)
        assert site["stub"] == (None if stub is None else f"0x{stub:016x}")
        assert site["action"] == ("call" if stub is None else "call_via_stub")
        assert site["target"] == "ftrace_caller"
        assert int(site["branch"], 16) == (va if slots else call)
        entry = int(site["entry"], 16)
        assert int(site["local_entry"], 16) == entry + before.local[entry]
        assert site["pos"] == before.pos(va)


def handed_out(fixture: str, kernel: Kernel, raw: bytes) -> dict[int, int]:
    """The boot of a kernel with stubs out of line: site → slot.

    Records are sorted. One of init text gets the next slot of its area; one of text the next beside ftrace_caller while
    there is one in reach, else the next at the end of the text. At a site that is no NOP the kernel gives up.
    """
    size = 24 if fixture in LITERALS else 16
    left = {}
    for name in AREAS:
        n = word_at(kernel, raw, kernel.symbols[name + "_count"])
        left[name] = [kernel.symbols[name] + size * i for i in range(n)]
    found = {}
    for record in sorted(kernel.records):
        site = site_of(fixture, kernel, raw, record)
        if word_at(kernel, raw, site) != PPC_NOP:
            break
        near, end, init = (left[name] for name in AREAS)
        area = end
        if kernel.is_init(site):
            area = init
        elif near and -32 * MIB <= site - near[0] < 32 * MIB:
            area = near
        assert area, "the kernel runs out of stubs"
        found[site] = area.pop(0)
    return found


def check_slots(fixture: str, kernel: Kernel, raw: bytes, left: tuple[int, ...], slots: dict[int, int]) -> None:
    """No site's slot is one that the kernel will hand out, and those that it will are still empty."""
    size = 24 if fixture in LITERALS else 16
    theirs = handed_out(fixture, kernel, raw)
    if not {site_of(fixture, kernel, raw, record) for record in left} & set(slots):
        assert len(theirs) == len(left)
    for slot in theirs.values():
        assert not any(raw[kernel.pos(slot) : kernel.pos(slot) + size])
    assert len(set(slots.values())) == len(slots)
    assert set(slots.values()).isdisjoint(theirs.values())
    for site, slot in slots.items():
        (area,) = [name for name in AREAS if 0 <= slot - kernel.symbols[name]
                   < size * word_at(kernel, raw, kernel.symbols[name + "_count"])]  # fmt: skip
        assert (slot - kernel.symbols[area]) % size == 0
        assert (area == "ftrace_ool_stub_inittext") == kernel.is_init(site)


def check_rows(
    fixture: str, before: Kernel, after: Kernel, freed: list[int], slots: dict[int, int], way: str | None
) -> None:
    """Slots repeat their addends; freed rows become NONE or carry the ops of a stub, and all others stay."""
    assert after.start == before.start
    where = {at: n for n, (at, _, _) in enumerate(before.rela)}
    for n, value in enumerate(after.words):
        if where[after.start + 8 * n] in freed:
            assert value == {"null": 0, "minus4": MAX64 - 3}[str(way)]
        else:
            assert value == before.words[n]
    assert [row for n, row in enumerate(after.rela) if n not in freed] == [
        row for n, row in enumerate(before.rela) if n not in freed
    ]
    made = [after.rela[n] for n in freed if after.rela[n] != (0, 0, 0)]
    ops = before.symbols[LITERALS[fixture]] if fixture in LITERALS else 0
    wanted = [(slot, RELATIVE["EM_PPC64"], ops) for slot in slots.values()] if fixture in LITERALS else []
    assert sorted(made) == sorted(wanted)


@pytest.mark.parametrize("fixture", sorted(LITERALS))
def test_every_stub_out_of_line_holds_its_ops(fixture: str, tmp_path: Path) -> None:
    """In the file too, not only in the relocation: who reads the file sees what will be there."""
    enable(source(fixture), tmp_path / "out", ["vfs_read", "b_late", "asm_toc"], "auto", "auto")
    after, raw = kernel(tmp_path / "out"), (tmp_path / "out").read_bytes()
    for name in ("vfs_read", "b_late", "asm_toc"):
        for record in ready(fixture)[name]:
            stub = branch_goal(after, raw, site_of(fixture, after, raw, record), linked=False)
            assert struct.unpack_from("<Q", raw, after.pos(stub - 8)) == (after.symbols["ftrace_list_ops"],)


@pytest.mark.parametrize("fixture", [name for name in sorted(WAYS) if name.startswith("ppc64le/")])
@pytest.mark.parametrize("name", sorted(EARLY))
def test_function_that_runs_before_the_paca_is_refused(
    name: str, fixture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["enable", str(source(fixture)), "--func", name, "--func", "vfs_read", "-o", str(tmp_path / "out")]
    assert run(line) == 5
    out, err = capsys.readouterr()
    said = [text for text in err.splitlines() if text.startswith("ftpatch: ")]
    assert out == "" and len(said) == 1 and not list(tmp_path.iterdir())
    assert "1 of 2 chosen sites cannot be patched: found " + name in said[0]
    assert "it runs before setup_paca is done, when ftrace_caller finds no paca (--force-early overrides)" in said[0]
    assert run([*line, "--force-early"]) == 0


@pytest.mark.parametrize("fixture", sorted(LITERALS))
def test_keeping_records_leaves_no_relocation_for_the_ops(
    fixture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["enable", str(source(fixture)), "--func", "vfs_read", "--records", "keep", "-o", str(tmp_path / "out")]
    assert run(line) == 5
    assert "not enough free relocation entries for the ops literals: found 0, expected 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@kernels
def test_records_of_init_text_do_not_stay_alone(fixture: str, tmp_path: Path) -> None:
    """All of the ordinary text, dead weak bodies included, leaves: then init text must go too, its code untouched."""
    before, out = good(fixture), tmp_path / "out"
    choice = ["--section", ".text", "--status", "ready", "--status", "weak-leftover", "--force-early"]
    image = enable(source(fixture), out, [], "auto", "auto", *choice)
    after = kernel(out)
    text = {record for record in before.records if not before.is_init(record)}
    assert {int(site["record"], 16) for site in image["sites"]} == text
    assert after.records == ()
    assert f"{len(before.records) - len(text)} records of init text leave the table too" in "".join(image["notes"])
    check_edits(source(fixture).read_bytes(), out.read_bytes(), image["edits"])
    table = scan(str(out)).sites
    # Where only functions with one entry are left, clang's layout and gcc's are the same: only the words can be held.
    shape, stock = table.shape, scanned(fixture).sites.shape
    assert shape is not None and stock is not None
    assert (shape.old, shape.new, shape.stub) == (stock.old, stock.new, stock.stub)
    old, new = source(fixture).read_bytes(), out.read_bytes()
    for record in set(before.records) - text:
        first = before.pos(record) - 8
        assert old[first : first + 32] == new[first : first + 32]
    if fixture in LITERALS or fixture.endswith("noops"):
        assert handed_out(fixture, after, new) == {}


def check_literals(path: Path, records: set[int], ops: int) -> None:
    """In front of every patched function stands the ops pointer, and one relocation moves it with the kernel."""
    with open(path, "rb") as file:
        elf: Any = ELFFile(file)
        addends: dict[int, list[int]] = {}
        for rela in elf.get_section_by_name(".rela.dyn").iter_relocations():
            if rela["r_info_type"] == RELATIVE["EM_AARCH64"]:
                addends.setdefault(rela["r_offset"], []).append(rela["r_addend"] & MAX64)
        for record in records:
            sections = [
                one for one in elf.iter_sections() if one["sh_addr"] <= record < one["sh_addr"] + one["sh_size"]
            ]
            off = record - sections[0]["sh_addr"]
            assert struct.unpack_from("<Q", sections[0].data(), off) == (ops,)
            assert addends[record] == [ops]


@kernels
@settings(slow, max_examples=12)
@given(data=st.data())
def test_patching_one_after_the_other_leaves_the_records_of_patching_both(fixture: str, data: st.DataObject) -> None:
    names = drawn_names(data, fixture, 2, 6)
    cut = data.draw(st.integers(1, len(names) - 1))
    way = data.draw(st.sampled_from([way for way in WAYS[fixture] if way != "keep"]))
    one, two = names[:cut], names[cut:]
    records = [{record for name in part for record in ready(fixture)[name]} for part in (one, two)]
    assume(not records[0] & records[1])  # aliases
    with folder() as at:
        enable(source(fixture), at / "one", one, way, "auto", "--force-early")
        image = enable(at / "one", at / "both", two, way, "auto", "--force-early")
        enable(source(fixture), at / "once", names, way, "auto", "--force-early")
        assert kernel(at / "both").records == kernel(at / "once").records
        assert kernel(at / "both").n_slots == kernel(at / "once").n_slots
        check_edits((at / "one").read_bytes(), (at / "both").read_bytes(), image["edits"])
        found = [scan(str(at / name)).sites for name in ("both", "once")]
        enabled = [sorted(table.va[table.status == 1].tolist()) for table in found]
        assert enabled[0] == enabled[1] == sorted(records[0] | records[1])
        if "ool" in fixture or "clang" in fixture:
            after, raw = kernel(at / "both"), (at / "both").read_bytes()
            sites = [site_of(fixture, after, raw, record) for record in records[0] | records[1]]
            stubs = {site: branch_goal(after, raw, site, linked=False) for site in sites}
            literal = 8 * (fixture in LITERALS)
            check_slots(fixture, after, raw, after.records, {site: stub - literal for site, stub in stubs.items()})


@pytest.mark.parametrize("fixture", ["vmlinux-callops", "vmlinux-callops-bti"])
def test_thunks_of_different_ops_lie_side_by_side(fixture: str, tmp_path: Path) -> None:
    """The second one finds the first one's bytes in the padding; a third request finds its own thunk again."""
    steps = [("vfs_read", "list"), ("vfs_write", "nop"), ("rest_init", "list")]
    path, images = source(fixture), []
    for step, (name, ops) in enumerate(steps):
        out, journal = tmp_path / str(step), tmp_path / f"{step}.json"
        line = ["enable", str(path), "--func", name, "--ops", ops, "--ops-via", "thunk", "-o", str(out)]
        assert run([*line, "--report", f"json={journal}"]) == 0
        images.append(json.loads(journal.read_text())["images"][0])
        check_edits(path.read_bytes(), out.read_bytes(), images[-1]["edits"])
        path = out
    stubs = [int(images[n]["sites"][0]["stub"], 16) for n in range(3)]
    assert stubs[0] == stubs[2]
    assert abs(stubs[0] - stubs[1]) >= 16
    for image, stub in zip(images, stubs, strict=True):
        assert the_stub(image) == stub
        check_sites(path.read_bytes(), image, stub)
    check_thunk(path, stubs[0], good(fixture).symbols)


@kernels
@settings(slow, max_examples=5)
@given(data=st.data())
def test_the_same_request_gives_the_same_bytes(fixture: str, data: st.DataObject) -> None:
    names = drawn_names(data, fixture, 1, 6)
    with folder() as at:
        enable(source(fixture), at / "one", names, "auto", "auto", "--force-early")
        enable(source(fixture), at / "two", names[::-1], "auto", "auto", "--force-early")
        assert (at / "one").read_bytes() == (at / "two").read_bytes()


@kernels
def test_enabling_twice_is_refused(fixture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    enable(source(fixture), tmp_path / "once", ["vfs_read", "vfs_write"], "auto", "auto")
    capsys.readouterr()
    assert run(["enable", str(tmp_path / "once"), "--func", "vfs_write", "-o", str(tmp_path / "twice")]) == 5
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "vfs_write (no record, .text+0x" in err and "already enabled" in err
    assert not (tmp_path / "twice").exists()
