"""`ftpatch verify` on programs whose sites call a C function by a stub in a segment of its own: files are made by hand,
so that what plans and writes has no part in it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program_patch import Patch, findings, slot, symbol, with_calls
from test_program_proof import ARM64
from test_verify import verify

SITES = ("work", "numbers", "vectors", "structure")
ENTER = (
    0xA9BF_27FD,  # stp  x29, x9, [sp, #-16]!
    0x9100_03FD,  # mov  x29, sp
    0xA9B2_7BFD,  # stp  x29, x30, [sp, #-224]!
    0x9100_03FD,  # mov  x29, sp
    0xA901_07E0, 0xA902_0FE2, 0xA903_17E4, 0xA904_1FE6,  # stp  x0, x1, [sp, #16] … x6, x7
    0xA905_4BE8,  # stp  x8, x18, [sp, #80]
    0xAD03_07E0, 0xAD04_0FE2, 0xAD05_17E4, 0xAD06_1FE6,  # stp  q0, q1, [sp, #96] … q6, q7
    0xD100_13C0,  # sub  x0, x30, #4
    0xAA09_03E1,  # mov  x1, x9
)  # fmt: skip
LEAVE = (
    0xAD43_07E0, 0xAD44_0FE2, 0xAD45_17E4, 0xAD46_1FE6,  # ldp  q0, q1, [sp, #96] … q6, q7
    0xA941_07E0, 0xA942_0FE2, 0xA943_17E4, 0xA944_1FE6,  # ldp  x0, x1, [sp, #16] … x6, x7
    0xA945_4BE8,  # ldp  x8, x18, [sp, #80]
    0xA8CE_27FD,  # ldp  x29, x9, [sp], #224
    0xA8C1_7BFD,  # ldp  x29, x30, [sp], #16
    0xD65F_0120,  # ret  x9
)  # fmt: skip


def call(va: int, hook: int) -> tuple[int, ...]:
    return (0x9400_0000 | hook - va >> 2 & 0x3FF_FFFF,)


def call_slot(va: int, hook: int) -> tuple[int, ...]:
    """adrp x16; ldr x17, [x16]; add x16, x16; blr x17"""
    pages, low = (hook >> 12) - (va >> 12), hook & 0xFFF
    adrp = 0x9000_0010 | (pages & 3) << 29 | (pages >> 2 & 0x7_FFFF) << 5
    return adrp, 0xF940_0211 | low // 8 << 10, 0x9100_0210 | low << 10, 0xD63F_0220


def stub(va: int, hook: int, calls: Callable[[int, int], tuple[int, ...]] = call) -> list[int]:
    return [*ENTER, *calls(va + 4 * len(ENTER), hook), *LEAVE]


def code(words: list[int]) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def hooked(before: Path, words: list[int] | None = None, **fields: Any) -> Patch:
    """A patch with the stub that calls the program's own hook."""
    patch = Patch(before, b"", **fields)
    patch.code = code(words or stub(patch.code_va, symbol(before, "hook")))
    return patch


def written(patch: Patch, folder: Path, change: Callable[[bytearray], None] = lambda content: None) -> Path:
    (folder / "after").write_bytes(with_calls(patch.build(change), patch.before, dict.fromkeys(SITES, patch.code_va)))
    return folder / "after"


@pytest.mark.parametrize("before", ARM64, ids=lambda path: path.name)
@pytest.mark.parametrize("hook", ["hook", "outside"])
def test_sites_that_call_a_c_function_by_a_stub_are_found_sound(before: Path, hook: str, tmp_path: Path) -> None:
    patch = Patch(before, b"")
    if hook == "hook":
        patch.code = code(stub(patch.code_va, symbol(before, hook)))
    else:
        patch.code = code(stub(patch.code_va, slot(before, hook), call_slot))
    proof = verify(before, written(patch, tmp_path), "--require", "emulation")["proof"]
    assert proof["callees"] == {hook if hook == "hook" else "outside@plt": 4} and proof["emulated"] == 4
    assert proof["edits"] == {"ELF header": 4, "hook stub": 1, "new segment": 1, "site words": 4}


def test_a_second_patch_appends_to_the_first(tmp_path: Path) -> None:
    before = ARM64[0]
    first = written(hooked(before), tmp_path).rename(tmp_path / "first")
    patch = Patch(first, b"")
    patch.code = code(stub(patch.code_va, slot(first, "outside"), call_slot))
    second = tmp_path / "second"
    second.write_bytes(with_calls(patch.build(), first, {"nothing": patch.code_va}))
    assert verify(first, second)["proof"]["callees"] == {"hook": 4, "outside@plt": 1}
    image = verify(before, second, "--require", "emulation")
    assert image["proof"]["callees"] == {"hook": 4, "outside@plt": 1} and image["proof"]["edits"]["new segment"] == 2
    bad = bytearray(second.read_bytes())
    bad[hooked(before).pos + 8] ^= 1  # a program header that nothing names any more
    (tmp_path / "bad").write_bytes(bad)
    (finding,) = findings(before, tmp_path / "bad")
    assert finding[1].startswith("the program headers are not what a patch leaves at file position ")


PIE = ARM64[0]
PATCH = hooked(PIE)
SEGMENT = {
    "writable": ({"p_flags": 7}, "has flags 0x7, expected 0x5 (R E)"),
    "not executable": ({"p_flags": 4}, "has flags 0x4, expected 0x5 (R E)"),
    "longer in memory": (
        {"p_memsz": 0x1000}, f"has {PATCH.code_va - PATCH.va + len(PATCH.code):#x} bytes in the file and 0x1000 in "
        "memory, expected as many"),
    "another physical address": ({"p_paddr": 0}, f"has p_paddr 0x0, expected p_vaddr {PATCH.va:#x}"),
    "another alignment": ({"p_align": 16}, "has p_align 0x10, expected that of the others, 0x1000"),
    "on a page of another": (
        {"p_vaddr": PATCH.va - 0xF00, "p_paddr": PATCH.va - 0xF00},
        f"is at {PATCH.va - 0xF00:#x}, expected {PATCH.va:#x} at the least, behind the pages of all others"),
    "another distance": ({"p_vaddr": PATCH.va + 0x1000, "p_paddr": PATCH.va + 0x1000},
                         "is loaded 0x1000 from its place in the file, expected 0x0 as the first is: older kernels "
                         "find the program headers so"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEGMENT)
def test_a_segment_that_the_loader_must_not_see_is_found(name: str, tmp_path: Path) -> None:
    fields, text = SEGMENT[name]
    section = {"sh_addr": PATCH.code_va + fields["p_vaddr"] - PATCH.va} if "p_vaddr" in fields else {}
    (finding,) = findings(PIE, written(hooked(PIE, segment=fields, section=section), tmp_path))
    assert finding == ("verify-section", f"the new segment {text}")


SECTION = {"sh_flags": 3, "sh_type": 3, "sh_addralign": 4, "sh_info": 1, "sh_entsize": 4, "sh_link": 1}


@pytest.mark.parametrize("name", SECTION)
def test_a_section_header_of_another_kind_is_found(name: str, tmp_path: Path) -> None:
    found = findings(PIE, written(hooked(PIE, section={name: SECTION[name]}), tmp_path))
    text = "the header of .text.ftpatch is not that of all code in its segment: address "
    text += f"{PATCH.code_va:#x}, file position {PATCH.code_va:#x}, {len(PATCH.code):#x} bytes"
    assert found == [("verify-section", text)]


def test_zeros_that_are_none_are_found(tmp_path: Path) -> None:
    size = len(PIE.read_bytes())
    found = findings(PIE, written(hooked(PIE, filler=0xCC), tmp_path))
    text = f"file position {size:#x}: found cccccccccccccccc, expected 0000000000000000"
    assert found == [("verify-byte", f"the bytes in front of the new segment are not what a patch leaves at {text}")]


def test_another_name_of_the_section_is_found(tmp_path: Path) -> None:
    found = findings(PIE, written(hooked(PIE, name=b".text.other\0"), tmp_path))
    number = len(PATCH.shdr)
    assert found == [("verify-section", f"new section {number} is called .text.other, expected .text.ftpatch")]


def field(pos: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda content: struct.pack_into(form, content, pos, value)


def grown(content: bytearray) -> None:
    content += b"\0" * 3


ENTRY = struct.unpack_from("<Q", PIE.read_bytes(), 24)[0]
TABLES = {
    "bytes at the end": (
        grown, "verify-byte", f"3 bytes at the end, from {len(PATCH.build()):#x} on, belong to no patch"),
    "another program header": (
        field(PATCH.pos + 8, "<Q", 1), "verify-section", "the program headers are not what a patch leaves at file "
        f"position {PATCH.pos + 8:#x}: found 0100000000000000, expected {PATCH.pos.to_bytes(8, 'little').hex()}"),
    "entry point": (field(24, "<B", ENTRY & 255 ^ 4), "verify-section", f"file position 0x18: {ENTRY & 255:02x} became "
                    f"{ENTRY & 255 ^ 4:02x}, which is no edit of any kind"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_are_not_those_of_a_patch_are_found(name: str, tmp_path: Path) -> None:
    change, rule, text = TABLES[name]
    assert findings(PIE, written(PATCH, tmp_path, change)) == [(rule, text)]


def without(word: int) -> list[int]:
    """The stub with a nop for one of its instructions."""
    return [0xD503_201F if one == word else one for one in stub(PATCH.code_va, symbol(PIE, "hook"))]


def instead(old: int, new: int) -> list[int]:
    return [new if one == old else one for one in stub(PATCH.code_va, symbol(PIE, "hook"))]


HOOK = call(PATCH.code_va + 4 * len(ENTER), symbol(PIE, "hook"))[0]
OTHER = "it loads another register at {} than the one that was saved there"
STUBS = {
    "x2 and x3 not saved": (without(0xA902_0FE2), OTHER.format("{x2:#x}")),
    "no frame": (without(0x9100_03FD), "x29 does not lead to frame records of the function and its caller"),
    "x18 not loaded": (instead(0xA945_4BE8, 0xF940_2BE8), "it does not keep x18"),
    "q6 and q7 not loaded": (without(0xAD46_1FE6), "it does not keep q6, q7"),
    "q0 and q1 swapped": (instead(0xAD43_07E0, 0xAD43_03E1), OTHER.format("{q0:#x}")),
    "half of q0": (instead(0xAD03_07E0, 0x6D06_07E0), "it executes 0x6d0607e0 at {va:#x}, which no stub does"),
    "another site": (without(0xD100_13C0), "the first argument of its call is not the address of the site's call"),
    "another caller": (without(0xAA09_03E1), "the second argument of its call is not where the function returns to"),
    "no call": (without(HOOK), "it calls nothing"),
    "a jump": (instead(0xD65F_0120, 0xD61F_0120), "it executes 0xd61f0120 at {end:#x}, which no stub does"),
    "returns to the caller": (instead(0xD65F_0120, 0xD65F_03C0), "it does not return to where x30 pointed"),
    "unaligned": (
        instead(0xA9B2_7BFD, 0xA9B2_FBFD), "it calls with sp 232 bytes below where it was, which is no multiple of 16"),
    "a frame too small": (instead(0xAD06_1FE6, 0xAD07_1FE6), "it writes beside its own stack frame at {q6:#x}"),
}  # fmt: skip


@pytest.mark.parametrize("name", STUBS)
def test_a_stub_that_loses_something_is_found(name: str, tmp_path: Path) -> None:
    words, why = STUBS[name]
    at = {"va": PATCH.code_va + 36, "end": PATCH.code_va + 4 * len(words) - 4, "q6": PATCH.code_va + 48}
    at |= {"x2": PATCH.code_va + 4 * len(ENTER) + 24, "q0": PATCH.code_va + 4 * len(ENTER) + 4}
    found = findings(PIE, written(hooked(PIE, words), tmp_path))
    stubs = [text for rule, text in found if rule == "verify-stub"]
    assert stubs == [f"the new code at {PATCH.code_va:#x} is no stub that calls a C function: {why.format(**at)}"]


# What the stub calls → why not.
HOOKS = {
    "inside a function": (symbol(PIE, "hook") + 4, "by a stub that calls it where no function begins"),
    "data": (symbol(PIE, "hits"), "by a stub that calls it where no function begins"),
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_stub_that_calls_no_function_is_found(name: str, tmp_path: Path) -> None:
    to, why = HOOKS[name]
    found = findings(PIE, written(hooked(PIE, stub(PATCH.code_va, to)), tmp_path))
    assert found == [("verify-branch", f"{site}: its call goes to {PATCH.code_va:#x}, {why}") for site in
                               ("work", "numbers", "vectors", "structure")]  # fmt: skip


def test_a_word_that_no_import_fills_is_found(tmp_path: Path) -> None:
    words = stub(PATCH.code_va, symbol(PIE, "hits"), call_slot)
    found = findings(PIE, written(hooked(PIE, words), tmp_path))
    assert {text.partition(", ")[2] for _, text in found} == {
        "by a stub that calls through a word which no import fills"}  # fmt: skip


def test_a_hook_that_is_patched_itself_is_found(tmp_path: Path) -> None:
    """`nothing` has a site: as its own hook it would call itself for ever."""
    patch = hooked(PIE, stub(PATCH.code_va, symbol(PIE, "nothing")))
    after = tmp_path / "after"
    after.write_bytes(with_calls(patch.build(), PIE, {"nothing": patch.code_va}))
    assert findings(PIE, after) == [(
        "verify-branch",
        "nothing: what it calls is patched, and comes back to it: the two call each other for ever",
    )]  # fmt: skip


def test_a_site_may_not_enter_the_middle_of_a_stub(tmp_path: Path) -> None:
    after = tmp_path / "after"
    after.write_bytes(with_calls(PATCH.build(), PIE, {"work": PATCH.code_va + 4}))
    assert findings(PIE, after) == [
        ("verify-branch", f"work: its call goes to {PATCH.code_va + 4:#x}, where no function begins")]  # fmt: skip
