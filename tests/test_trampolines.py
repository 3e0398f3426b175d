"""What sites call, and how the call gets its ops: literals with a relocation, or one thunk in the padding."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import capstone
import numpy as np
import pytest
from elfwriter import (
    BASE,
    MINI,
    MOV_X9_X30,
    NOP,
    TEXT,
    TRAMP,
    Kernel,
    as_code,
    bl,
    edited,
    parsed,
    pos_of,
    rela,
    symbol,
    words_at,
    written,
)

from ftpatch import api
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.plan.decide import make_plan
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import EnableRequest
from ftpatch.plan.stub_room import SharedStub
from ftpatch.plan.targets import resolve_target
from ftpatch.sites.select import select

CALLOPS = MINI / "vmlinux-callops"
FILE = CALLOPS.read_bytes()
LIST, NOP_OPS = symbol(FILE, "ftrace_list_ops"), symbol(FILE, "ftrace_nop_ops")
CALLER = symbol(FILE, "ftrace_caller")
NINE = [f"row:{row}" for row in range(3, 12)]
CONTRACT = "x0-x8, x18-x29 and sp kept, x30 := x9, return to the old x30"
NO_X9 = "it does not return with the old x9 in x30, so the traced function would never return"


def planned(path: str | Path, *func: str, **request: Any) -> Plan:
    scan = api.scan(str(path))
    asked = replace(EnableRequest(select(scan.sites, func).mask), **request)
    return make_plan(scan, asked)


def result(path: str | Path, plan: Plan) -> bytes:
    file = bytearray(Path(path).read_bytes())
    for pos, old, new, _, _ in plan.edits:
        assert file[pos : pos + len(old)] == old
        file[pos : pos + len(new)] = new
    return bytes(file)


def thunk_of(plan: Plan) -> SharedStub:
    """The one shared stub, which every site of the plan goes through."""
    (stub,) = plan.calls.shared
    assert set(plan.calls.through.tolist()) == {0}
    assert set(plan.calls.branch_to.tolist()) == set(plan.calls.call_to.tolist()) == {stub.va}
    return stub


def is_own(path: Path, target: str) -> bool:
    """Whether a target is one of the kernel's own entries."""
    scan = api.scan(str(path))
    return resolve_target(scan, np.zeros(len(scan.sites), dtype=bool), target, False).own


def kinds(plan: Plan) -> set[str]:
    return {kind for _, _, _, kind, _ in plan.edits}


def relocations(file: bytes) -> list[tuple[int, int, int]]:
    rows = parsed(file).get_section_by_name(".rela.dyn").iter_relocations()
    return [(one["r_offset"], one["r_info"], one["r_addend"] % (1 << 64)) for one in rows]


def quad(file: bytes, va: int) -> int:
    return int(struct.unpack_from("<Q", file, pos_of(file, va))[0])


def disassembled(words: Sequence[int], va: int) -> list[str]:
    engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    return [f"{one.mnemonic} {one.op_str}".strip() for one in engine.disasm(as_code(words), va)]


# -- literal and thunk ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ops", "va"), [("list", LIST), ("nop", NOP_OPS), ("ftrace_nop_ops", NOP_OPS)], ids=["list", "nop", "symbol"]
)
def test_a_literal_gets_the_ops_and_a_relocation_of_its_own(ops: str, va: int) -> None:
    after = result(CALLOPS, planned(CALLOPS, "vfs_read", ops=ops))
    literal = symbol(FILE, "vfs_read") - 8
    assert quad(after, literal) == va
    expected = relocations(FILE)
    expected[expected.index((0, 0, 0))] = (literal, 1027, va)
    assert relocations(after) == expected
    assert words_at(after, literal + 8, 2) == [MOV_X9_X30, bl(literal + 12, CALLER)]


def test_behind_a_bti_the_literal_is_still_in_front_of_the_label() -> None:
    source = MINI / "vmlinux-callops-bti"
    after = result(source, planned(source, "vfs_read"))
    assert quad(after, symbol(after, "vfs_read") - 8) == symbol(after, "ftrace_list_ops")


def test_as_many_sites_as_free_relocations_get_literals() -> None:
    assert relocations(FILE).count((0, 0, 0)) == 8
    plan = planned(CALLOPS, *NINE[:8])
    assert (plan.summary.ops_via, kinds(plan)) == ("literal", {"site", "literal", "record", "relocation"})
    assert relocations(result(CALLOPS, plan)).count((0, 0, 0)) == 0


def test_one_site_more_than_free_relocations_takes_a_thunk_and_says_why() -> None:
    plan = planned(CALLOPS, *NINE)
    assert (plan.summary.ops_via, kinds(plan)) == ("thunk", {"site", "thunk", "record"})
    assert plan.notes[-1] == "a shared thunk carries the ops: 9 sites, but 8 free relocation entries"


def test_literals_asked_for_without_room_are_refused() -> None:
    with pytest.raises(PolicyError) as caught:
        planned(CALLOPS, *NINE, ops_via="literal")
    assert str(caught.value) == (
        f"{CALLOPS}: not enough free relocation entries for the ops literals: found 8, expected 9 – --ops-via thunk"
    )


def test_the_thunk_lies_in_the_padding_and_enters_ftrace_caller_behind_its_load() -> None:
    plan = planned(CALLOPS, "vfs_read", ops_via="thunk")
    after, va = result(CALLOPS, plan), thunk_of(plan).va
    assert symbol(FILE, "_etext") - 128 - 15 <= va <= symbol(FILE, "_etext") - 16
    assert va % 16 == 0
    assert words_at(FILE, va, 4) == [0] * 4
    assert disassembled(words_at(after, va, 4), va) == [
        "bti c", f"adrp x11, #{LIST & ~0xFFF:#x}", f"add x11, x11, #{LIST & 0xFFF:#x}", f"b #{CALLER + 12:#x}",
    ]  # fmt: skip
    entry = symbol(FILE, "vfs_read")
    assert words_at(after, entry - 8, 4) == [NOP, NOP, MOV_X9_X30, bl(entry + 4, va)]
    assert relocations(after) == relocations(FILE)


def test_a_second_patch_uses_the_thunk_of_the_first(tmp_path: Path) -> None:
    first = planned(CALLOPS, "vfs_read", ops_via="thunk")
    path = written(tmp_path / "one", result(CALLOPS, first))
    second = planned(path, "vfs_write", ops_via="thunk")
    assert (thunk_of(second).va, thunk_of(second).present) == (thunk_of(first).va, True)
    assert "thunk" not in kinds(second)
    entry = symbol(FILE, "vfs_write")
    assert words_at(result(path, second), entry, 2) == [MOV_X9_X30, bl(entry + 4, thunk_of(first).va)]


def test_other_ops_get_a_thunk_behind_the_first(tmp_path: Path) -> None:
    first = planned(CALLOPS, "vfs_read", ops_via="thunk")
    path = written(tmp_path / "one", result(CALLOPS, first))
    second = planned(path, "vfs_write", ops_via="thunk", ops="nop")
    assert (thunk_of(second).va, thunk_of(second).present) == (thunk_of(first).va + 16, False)


def test_padding_that_is_not_free_has_no_room_for_a_thunk(tmp_path: Path) -> None:
    path = edited(CALLOPS, tmp_path / "v", {symbol(FILE, "_etext") - 4: b"\1\0\0\0"})
    with pytest.raises(PolicyError) as caught:
        planned(path, "vfs_read", ops_via="thunk")
    assert str(caught.value) == (
        f"{path}: no room for a thunk: found 0 zero bytes at the text's end, expected at least 16 – --ops-via literal"
    )


def test_a_relocation_into_the_padding_keeps_the_thunk_away(tmp_path: Path) -> None:
    plan = planned(CALLOPS, "vfs_read", ops_via="thunk")
    file = bytearray(FILE)
    head = parsed(FILE).get_section_by_name(".rela.dyn")
    row = head["sh_offset"] + 24 * relocations(FILE).index((0, 0, 0))
    file[row : row + 24] = rela(thunk_of(plan).va + 8, 1027, LIST)
    second = planned(written(tmp_path / "v", file), "vfs_read", ops_via="thunk")
    assert thunk_of(second).va == thunk_of(plan).va + 16


def test_code_without_a_symbol_in_the_padding_is_not_overwritten(tmp_path: Path) -> None:
    last = symbol(FILE, "_etext") - 64
    plan = planned(edited(CALLOPS, tmp_path / "v", {last: as_code([0xD65F03C0])}), "vfs_read", ops_via="thunk")
    assert thunk_of(plan).va > last


# -- literals that cannot take a pointer ---------------------------------------------------------------------------

F, G, H = TEXT + 0x200, TEXT + 0x220, TEXT + 0x240


def refused(path: str | Path, *func: str) -> tuple[str, ...]:
    with pytest.raises(PolicyError) as caught:
        planned(path, *func, ops_via="literal")
    return caught.value.details


def test_in_an_image_that_does_not_move_a_literal_needs_no_relocation(tmp_path: Path) -> None:
    path = written(tmp_path / "v", Kernel([("f", F), ("g", G)], layout="callops", zeros=1).build())
    plan = planned(path, "f")
    assert kinds(plan) == {"site", "literal", "record"}
    assert quad(result(path, plan), F - 8) == BASE + 0x10_0000


def test_a_literal_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    at = symbol(FILE, "vfs_read") - 8
    path = edited(CALLOPS, tmp_path / "v", {at: bytes(8)})
    assert refused(path, "vfs_*") == (f"vfs_read (row 12, .text+0x3b8): its ops literal at {at:#x} is not empty",)


def test_a_literal_with_a_relocation_already_is_refused(tmp_path: Path) -> None:
    at = symbol(FILE, "vfs_read") - 8
    file = bytearray(FILE)
    head = parsed(FILE).get_section_by_name(".rela.dyn")
    row = head["sh_offset"] + 24 * relocations(FILE).index((0, 0, 0))
    file[row : row + 24] = rela(at, 1027, LIST)
    assert refused(written(tmp_path / "v", file), "vfs_*") == (
        f"vfs_read (row 12, .text+0x3b8): its ops literal at {at:#x} has a relocation",
    )


def test_a_literal_off_its_alignment_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "v", Kernel([("f", F), ("g", G + 4), ("h", H)], layout="callops", zeros=1).build())
    assert refused(path, "*") == (f"g (row 2, .text+0x224): its ops literal at {G - 4:#x} is not 8-byte aligned",)


def test_a_thunk_does_not_mind_the_literals_alignment(tmp_path: Path) -> None:
    path = written(tmp_path / "v", Kernel([("f", F), ("g", G + 4), ("h", H)], layout="callops", zeros=1).build())
    assert planned(path, "*", ops_via="thunk").index.tolist() == [1, 2, 3]


# -- targets -------------------------------------------------------------------------------------------------------


def test_the_kernels_own_stub_is_accepted_without_ops() -> None:
    plan = planned(CALLOPS, "vfs_read", target="ftrace_stub_direct_tramp")
    assert (plan.summary.ops, plan.summary.ops_via, is_own(CALLOPS, "ftrace_stub_direct_tramp"), kinds(plan)) == (
        None,
        "none",
        False,
        {"site", "record"},
    )
    after, entry = result(CALLOPS, plan), symbol(FILE, "vfs_read")
    stub = symbol(FILE, "ftrace_stub_direct_tramp")
    assert words_at(after, entry - 8, 4) == [NOP, NOP, MOV_X9_X30, bl(entry + 4, stub)]


def test_a_target_may_be_an_address() -> None:
    stub = symbol(FILE, "ftrace_stub_direct_tramp")
    plan = planned(CALLOPS, "vfs_read", target=f"{stub:#x}")
    assert (plan.calls.branch_to.tolist(), plan.summary.target) == ([stub], f"{stub:#x}")


def test_the_kernels_own_entry_by_its_address_is_its_own() -> None:
    """Once only its name made it so, and its address was refused as no trampoline."""
    plan = planned(CALLOPS, "vfs_read", target=f"{CALLER:#x}")
    assert (is_own(CALLOPS, f"{CALLER:#x}"), plan.summary.ops is not None, plan.summary.ops_via) == (
        True,
        True,
        "literal",
    )


def test_the_second_entry_of_the_older_kernels_is_their_own_too() -> None:
    plan = planned(MINI / "vmlinux-pfe2", "vfs_read", target="ftrace_regs_caller")
    assert (is_own(MINI / "vmlinux-pfe2", "ftrace_regs_caller"), plan.warnings) == (True, ())


@pytest.mark.parametrize("name", ["ftrace_stub", "asm_nops", "notrace_helper"])
def test_a_function_that_returns_as_c_does_is_refused(name: str) -> None:
    with pytest.raises(PolicyError) as caught:
        planned(CALLOPS, "vfs_read", target=name)
    assert str(caught.value) == (
        f"--target {name}: the target does not behave as a trampoline for patch sites: found {NO_X9}, "
        f"expected {CONTRACT} – --force-target takes it nevertheless"
    )


def test_a_c_function_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"^--target early_putn: the target does not behave as a trampoline"):
        planned(CALLOPS, "vfs_read", target="early_putn")


def test_force_target_takes_it_with_a_warning() -> None:
    plan = planned(CALLOPS, "vfs_read", target="ftrace_stub", force_target=True)
    assert plan.warnings == (
        f"target ftrace_stub was not shown to keep the contract of a patch site ({NO_X9}); forced",
    )
    assert plan.calls.branch_to == symbol(FILE, "ftrace_stub")


@pytest.mark.parametrize("force", [False, True])
def test_a_traceable_function_is_no_target_even_when_forced(force: bool) -> None:
    with pytest.raises(PolicyError) as caught:
        planned(CALLOPS, "vfs_read", target="vfs_write", force_target=force)
    assert str(caught.value) == (
        "--target vfs_write: the target is itself a traceable function: found record in row 14, expected code "
        "without a patch site – ftrace would rewrite it, and a traced target would call itself"
    )


ONCE = sorted(one["st_value"] for one in parsed(FILE).get_section_by_name(".symtab").get_symbol_by_name("init_once"))


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        (
            "linux_banner",
            PolicyError,
            "--target linux_banner: the target is no function: found symbol type 1 in section 3, expected code",
        ),
        ("0x10", PolicyError, "--target 0x10: the target is no code of this file: found 0x10"),
        (
            f"{CALLER + 2:#x}",
            PolicyError,
            f"--target {CALLER + 2:#x}: the target is no code of this file: found {CALLER + 2:#x}",
        ),
        (
            "nope",
            SelectionError,
            "nope: no such symbol: found nothing of that name in .symtab, expected a defined symbol",
        ),
        ("0xzz", SelectionError, "0xzz: not an address: expected 0x and up to 16 hexadecimal digits"),
        (
            "init_once",
            SelectionError,
            f"init_once: several symbols of that name: found {ONCE[0]:#x}, {ONCE[1]:#x} – give 0xVA",
        ),
    ],
)
def test_what_is_no_code_of_one_place_is_no_target(target: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        planned(CALLOPS, "vfs_read", target=target)
    assert str(caught.value) == message


def test_ftrace_caller_of_another_kind_of_kernel_is_refused(tmp_path: Path) -> None:
    kernel = Kernel([("f", F), ("g", G)], layout="callops", zeros=1, caller=TRAMP)
    path = written(tmp_path / "v", kernel.build())
    with pytest.raises(PolicyError) as caught:
        planned(path, "f")
    assert str(caught.value) == (
        f"{path}: ftrace_caller does not fit the layout of the sites: found no load of an ops pointer in "
        "ftrace_caller, expected a load of one in layout callops – is --layout forced wrongly, or is this another "
        "kernel's vmlinux?"
    )


def size_of(name: str) -> int:
    (found,) = parsed(FILE).get_section_by_name(".symtab").get_symbol_by_name(name)
    return int(found["st_size"])


@pytest.mark.parametrize(("name", "kind"), [("vfs_read", 2), ("linux_banner", 1), ("sys_call_table", 1)])
def test_what_is_too_small_or_no_object_is_no_ops(name: str, kind: int) -> None:
    """88 = 80 + 8: direct_call lies at 80 in the fixtures (mini.h)."""
    with pytest.raises(PolicyError) as caught:
        planned(CALLOPS, "vfs_read", ops=name)
    assert str(caught.value) == (
        f"--ops {name}: not an ftrace_ops: found symbol type {kind}, {size_of(name)} bytes, "
        "expected an object of at least 88 bytes: direct_call is read at 80"
    )


def test_ops_of_no_name_are_refused() -> None:
    with pytest.raises(SelectionError) as caught:
        planned(CALLOPS, "vfs_read", ops="my_ops")
    assert str(caught.value) == (
        "my_ops: no such symbol: found nothing of that name in .symtab, expected a defined symbol"
    )


@pytest.mark.parametrize("options", [{"ops": "nop"}, {"ops_via": "literal"}, {"ops_via": "thunk"}])
def test_a_kernel_without_ops_per_site_refuses_to_be_asked_for_them(options: dict[str, str]) -> None:
    path = MINI / "vmlinux-pfe2"
    with pytest.raises(PolicyError) as caught:
        planned(path, "vfs_read", **options)
    assert str(caught.value) == (
        f"{path}: ftrace_caller reads no ops pointer: found --ops or --ops-via, "
        "expected a kernel with one ftrace_ops per site – leave the option out"
    )


def test_the_default_ops_mean_nothing_without_ops_per_site() -> None:
    plan = planned(MINI / "vmlinux-pfe2", "vfs_read", ops="list")
    assert (plan.summary.ops, plan.summary.ops_via) == (None, "none")
    assert plan.index.tolist() == [13]
