"""Which layout the records of an image show, condition by condition: small kernels whose code is placed by hand."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from elfwriter import (
    ALLOC,
    BASE,
    ET_EXEC,
    EXEC,
    NOP,
    NOTYPE,
    OPS_CALLER,
    RET,
    TEXT,
    TRAMP,
    WRITE,
    Elf,
    as_code,
    written,
)

from ftpatch.arch import Arch, architectures
from ftpatch.arch.shape import WINDOW_SIZE
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError, ShapeError
from ftpatch.recovered.image import open_image
from ftpatch.sites.layout import decide_shape, require_still_shown
from ftpatch.sites.records import RecordTable, read_records

ARM64, PPC64LE = 183, 21
TABLE = BASE + 0x20_0000
TWO, FOUR = (NOP, NOP, RET), (NOP, NOP, NOP, NOP, RET)
BLR, P_NOP = 0x4E80_0020, 0x6000_0000  # blr; nop (ppc64le)
P_ONE, P_TWO = (P_NOP, BLR), (P_NOP, P_NOP, BLR)
GARBAGE = (RET, RET, RET)
P_GARBAGE = (BLR, BLR, BLR)

Code = Mapping[int, Sequence[int]]  # offset in the text → words
Symbols = Mapping[str, tuple[int, int]]  # function → offset and size


def kernel(
    path: Path, code: Code, records: Sequence[int], symbols: Symbols, machine: int = ARM64, named: bool = True
) -> Image:
    """A vmlinux with these records, as offsets in the text; `named`: its table has ends, else it has none at all."""
    text = bytearray(0x400)
    for at, words in code.items():
        text[at : at + 4 * len(words)] = as_code(words)
    elf = Elf(ET_EXEC, machine)
    sec = elf.section(".text", bytes(text), flags=ALLOC | EXEC, addr=TEXT, align=16)
    slots = struct.pack(f"<{len(records)}Q", *(TEXT + at for at in records))
    data = elf.section(".data", slots or bytes(8), flags=ALLOC | WRITE, addr=TABLE, align=8)
    for name, (at, size) in symbols.items():
        elf.symbol(name, sec, TEXT + at, size)
    if named:
        elf.symbol("__start_mcount_loc", data, TABLE, type=NOTYPE)
        elf.symbol("__stop_mcount_loc", data, TABLE + len(slots), type=NOTYPE)
    return open_image(written(path / "v", elf.build()))


def shown(image: Image) -> str:
    """The name of the layout, `none`, or the counts of the refusal."""
    records = read_records(image)
    try:
        shape = decide_shape(image, records, *around(image, records))
    except ShapeError as error:
        return error.found.partition(" (")[0]
    return shape.name if shape else "none"


def around(image: Image, records: RecordTable) -> tuple[np.ndarray, np.ndarray]:
    return image.window(records.sec, records.off), image.va(records.sec, records.off)


# -- votes -----------------------------------------------------------------------------------------------------------

F, G, H, K, L = 0x100, 0x120, 0x140, 0x160, 0x180


@pytest.mark.parametrize(
    ("code", "records", "symbols", "layout"),
    [
        pytest.param({F: TWO}, [F], {"f": (F, 12)}, "pfe2", id="one-site"),
        pytest.param({F: FOUR}, [F], {"f": (F + 8, 12)}, "callops", id="one-site-with-a-pointer"),
        pytest.param({F: FOUR}, [F], {"f": (F, 20)}, "pfe2", id="four-nops-at-the-entry"),
        pytest.param({F: TWO, G: TWO}, [F, G], {"f": (F, 12)}, "pfe2", id="a-leftover-has-no-say"),
        pytest.param({F: TWO, G: TWO, H: TWO, K: TWO}, [F, G, H, K], {"f": (F, 12)}, "pfe2", id="nor-have-many"),
        pytest.param({F: (NOP, NOP, NOP, NOP)}, [F, F + 8], {"f": (F, 16)},
                     "callops 0, pfe2 1, mcount 0, none of them 1", id="half-inside-a-function"),
        pytest.param({F: (NOP, NOP, NOP, NOP), G: TWO}, [F, F + 8, G], {"f": (F, 16), "g": (G, 12)}, "pfe2",
                     id="less-than-half-inside-a-function"),
        pytest.param({F: TWO, G: GARBAGE}, [F, G], {"f": (F, 12)}, "callops 0, pfe2 1, mcount 0, none of them 1",
                     id="half-are-no-sites"),
        pytest.param({F: TWO, G: GARBAGE, H: TWO}, [F, G, H], {"f": (F, 12), "h": (H, 12)}, "pfe2",
                     id="less-than-half-are-no-sites"),
        pytest.param({F: TWO, G: GARBAGE, H: TWO}, [F, G, H], {"f": (F, 12), "g": (G, 12), "h": (H, 12)}, "pfe2",
                     id="less-than-half-are-broken-sites"),
        pytest.param({F: TWO, G: FOUR, H: TWO}, [F, G, H], {"f": (F, 12), "g": (G + 8, 12), "h": (H, 12)},
                     "callops 1, pfe2 2, mcount 0, none of them 0", id="one-speaks-for-another-layout"),
        pytest.param({F: FOUR, G: FOUR, H: FOUR, K: TWO, L: TWO}, [F, G, H, K, L],
                     {"f": (F + 8, 12), "f_too": (F, 8), "g": (G + 8, 12)}, "callops",
                     id="votes-count-before-words-that-fit"),
        pytest.param({F: GARBAGE, G: GARBAGE}, [F, G], {"f": (F, 12)}, "callops 0, pfe2 0, mcount 0, none of them 2",
                     id="nothing-fits"),
    ],
)  # fmt: skip
def test_votes_of_arm64_records(code: Code, records: list[int], symbols: Symbols, layout: str, tmp_path: Path) -> None:
    assert shown(kernel(tmp_path, code, records, symbols)) == layout


@pytest.mark.parametrize(
    ("code", "records", "symbols", "layout"),
    [
        pytest.param({F: P_TWO}, [F], {"f": (F, 12)}, "pfe2", id="two-nops-are-the-longer-layout"),
        pytest.param({F: P_ONE}, [F], {"f": (F, 8)}, "ool", id="one-nop"),
        pytest.param({F: P_TWO, G: P_ONE}, [F, G], {"f": (F, 12)}, "ool", id="of-equal-votes-what-fits-more"),
        pytest.param({F: P_TWO, G: P_GARBAGE, H: P_TWO}, [F, G, H], {"f": (F, 12), "h": (H, 12)}, "pfe2",
                     id="of-equal-ones-the-first"),
    ],
)  # fmt: skip
def test_votes_of_ppc64le_records(
    code: Code, records: list[int], symbols: Symbols, layout: str, tmp_path: Path
) -> None:
    assert shown(kernel(tmp_path, code, records, symbols, PPC64LE)) == layout


def test_the_samples_are_of_records_that_no_layout_explains(tmp_path: Path) -> None:
    image = kernel(tmp_path, {F: TWO, G: GARBAGE}, [F, G], {"f": (F, 12)})
    records = read_records(image)
    with pytest.raises(ShapeError) as caught:
        decide_shape(image, records, *around(image, records))
    assert caught.value.found == (
        f"callops 0, pfe2 1, mcount 0, none of them 1 (row 1 at {TEXT + G:#x}: d65f03c0 d65f03c0 d65f03c0 00000000)"
    )


# -- without function symbols ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "code", "records", "layout"),
    [
        pytest.param(TRAMP, {F: FOUR}, [F], "pfe2", id="a-trampoline-that-loads-no-pointer"),
        pytest.param(OPS_CALLER, {F: FOUR}, [F], "callops", id="one-that-does"),
        pytest.param((), {F: FOUR}, [F], "callops", id="no-trampoline-the-longest"),
        pytest.param(OPS_CALLER, {F: TWO}, [F], "pfe2", id="only-what-fits"),
        pytest.param(TRAMP, {F: FOUR, G: GARBAGE}, [F, G], "callops 0, pfe2 0, mcount 0, none of them 2",
                     id="every-record-must-fit"),
    ],
)  # fmt: skip
def test_without_function_symbols_the_trampoline_decides(
    caller: Sequence[int], code: Code, records: list[int], layout: str, tmp_path: Path
) -> None:
    symbols = {"ftrace_caller": (0, 4 * len(caller))} if caller else {}
    assert shown(kernel(tmp_path, {0: caller, **code}, records, symbols)) == layout


def test_without_any_record_a_kernel_shows_the_layout_of_its_trampoline(tmp_path: Path) -> None:
    assert shown(kernel(tmp_path, {0: OPS_CALLER}, [], {"ftrace_caller": (0, 20)})) == "callops"
    assert shown(kernel(tmp_path, {0: OPS_CALLER}, [], {"start_kernel": (0, 20)})) == "none"


LOADS_OPS = (0xE80B_FFF0, BLR)  # ld r0,-16(r11)


@pytest.mark.parametrize(
    ("caller", "others", "layout"),
    [
        ((BLR,), (), "pfe2"), ((BLR,), ("_mcount",), "mprofile"), ((BLR,), ("ftrace_ool_stub_text",), "ool"),
        (LOADS_OPS, ("ftrace_ool_stub_text",), "ool"), (LOADS_OPS, (), "none"),
        ((BLR,), ("ftrace_ool_stub_text_end",), "pfe2"),
    ],
)  # fmt: skip
def test_without_any_record_a_ppc64le_kernel_shows_it_by_its_symbols(
    caller: Sequence[int], others: Sequence[str], layout: str, tmp_path: Path
) -> None:
    symbols = {"ftrace_caller": (0, 8), **{name: (0x80, 4) for name in others}}
    assert shown(kernel(tmp_path, {0: caller}, [], symbols, PPC64LE)) == layout


def test_another_program_has_no_layout_without_a_record(tmp_path: Path) -> None:
    program = kernel(tmp_path, {0: OPS_CALLER}, [], {"ftrace_caller": (0, 20)}, named=False)
    assert (program.kind, shown(program)) == ("program", "none")


def test_a_table_of_nothing_but_null_slots_is_a_trace_of_a_layout(tmp_path: Path) -> None:
    """What records a tool left of a program that is no whole kernel."""
    elf = Elf(ET_EXEC, ARM64)
    text = elf.section(".text", as_code(OPS_CALLER), flags=ALLOC | EXEC, addr=TEXT, align=16)
    elf.section("__mcount_loc", bytes(16), flags=ALLOC | WRITE, addr=TABLE, align=8)
    elf.symbol("ftrace_caller", text, TEXT, 20)
    image = open_image(written(tmp_path / "v", elf.build()))
    assert (image.kind, len(read_records(image)), shown(image)) == ("program", 2, "callops")


def test_records_outside_all_code_are_no_evidence(tmp_path: Path) -> None:
    """The table's own place is no code: the trampoline is all that is left to tell."""
    image = kernel(tmp_path, {0: TRAMP}, [TABLE - TEXT], {"ftrace_caller": (0, 12)})
    assert shown(image) == "pfe2"


# -- after a choice --------------------------------------------------------------------------------------------------


def test_records_that_stay_and_show_the_same_sites_are_no_reason_to_refuse(tmp_path: Path) -> None:
    image = kernel(tmp_path, {F: TWO, G: TWO}, [F, G], {"f": (F, 12), "g": (G, 12)})
    still(image, [True, False])


@pytest.mark.parametrize(
    ("machine", "code", "records", "symbols", "gone", "found", "expected"),
    [
        pytest.param(PPC64LE, {F: P_TWO, G: P_TWO, H: P_ONE}, [F, G, H], {"f": (F, 12), "g": (G, 12), "h": (H, 8)},
                     [True, True, False], "ool", "pfe2", id="another-layout"),
        pytest.param(ARM64, {F: TWO, G: TWO, H: GARBAGE}, [F, G, H], {"f": (F, 12), "g": (G, 12)},
                     [False, True, False], "no single site layout explains the records", "pfe2", id="no-layout"),
        pytest.param(ARM64, {F: TWO}, [F], {"f": (F, 12)}, [True], "none", "pfe2", id="nothing-that-shows-one"),
    ],
)  # fmt: skip
def test_a_choice_is_refused_after_which_the_layout_would_not_be_shown(
    machine: int, code: Code, records: list[int], symbols: Symbols, gone: list[bool], found: str, expected: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    image = kernel(tmp_path, code, records, symbols, machine)
    with pytest.raises(PolicyError) as caught:
        still(image, gone, expected)
    assert str(caught.value) == (
        f"{image.path}: the records that stay would not show the layout of the sites: found {found}, expected "
        f"{expected} – choose fewer sites, or --layout NAME forces it"
    )


def still(image: Image, gone: list[bool], layout: str = "pfe2") -> None:
    shape = image.arch.shape(layout)
    assert shape is not None
    records = read_records(image)
    require_still_shown(image, records, *around(image, records), np.array(gone), shape)


@pytest.mark.parametrize("machine", architectures(), ids=lambda machine: machine.name)
def test_a_window_has_what_a_machine_looks_at_behind_a_site(machine: Arch) -> None:
    n_units = WINDOW_SIZE // machine.unit
    longest = max(map(len, machine.ends), default=0)
    window = np.arange(n_units, dtype=np.uint32)[None]
    for shape in machine.shapes:
        skip = shape.skip_words if shape.skip_at >= 0 else 0
        assert shape.start - shape.first + skip + len(shape.new) + longest <= n_units
        behind = shape.behind(window, longest)[0].tolist()
        start = (shape.site(window)[0] + shape.size) // machine.unit - shape.first
        assert behind == list(range(start, start + longest))
