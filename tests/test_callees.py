"""A call at a function's entry is a patch only where it leads to a tracer: what compilers call there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elfedit import Elf
from elfwriter import MINI, MOV_X9_X30, TRAMP, adrp, as_code, edited, parsed, pos_of, symbol
from elfwriter import bl as bl_arm64

from ftpatch import api
from ftpatch.cli import run
from ftpatch.sites.evidence import callees_of

PPC = MINI.parent / "mini-ppc64le"
SAVED = PPC / "vmlinux-saved"
MFLR_R0, MTLR_R0, NOP, BCTR, BLR = 0x7C0802A6, 0x7C0803A6, 0x60000000, 0x4E800420, 0x4E800020
SAVEGPR = (0xFBA1FFE8, 0xFBC1FFF0, 0xFBE1FFF8, 0xF8010010, BLR)  # std r29..r31; std r0,16(r1); blr
RESTGPR = (0xEBA1FFE8, 0xEBC1FFF0, 0xEBE1FFF8, 0xE8010010, MTLR_R0, BLR)
SAVEFPR = (0xDB81FFE0, 0xDBA1FFE8, 0xF8010010, BLR)  # stfd f28, f29; std r0,16(r1); blr
LEAF = (0x1C630003, 0x38630007, BLR)  # mulli r3,r3,3; addi r3,r3,7; blr
C_FUNCTION = (MFLR_R0, 0xF8010010, 0xF821FFE1, 0x38210020, 0xE8010010, MTLR_R0, BLR)
# mflr r11; mtctr r11; mtlr r0; bctr: back to the site with the caller's return address in LR
TRAMP_PPC = (0x7D6802A6, 0x7D6903A6, MTLR_R0, BCTR)
LEAF_ARM64 = (0x8B000400, 0xD65F03C0)  # add x0, x0, x0, lsl #1; ret
C_ARM64 = (0xA9BF7BFD, 0x910003FD, 0xA8C17BFD, 0xD65F03C0)  # stp x29, x30; mov; ldp; ret
PAC_ARM64 = (0xD503233F, 0xA9BF7BFD, 0xA8C17BFD, 0xD50323BF, 0xD65F03C0)  # the same, signed
OUTLINED_ARM64 = (0xF81F0FF3, 0xD65F03C0)  # str x19, [sp, #-16]!; ret: part of a prologue (OUTLINED_FUNCTION_0)


def bl_ppc(at: int, to: int) -> int:
    return 0x48000001 | (to - at) & 0x03FFFFFC


def far(file: bytes, target: str) -> tuple[int, ...]:
    """The five words by which a stub finds a target by the kernel's TOC."""
    distance = symbol(file, target) - symbol(file, ".TOC.")
    high = (distance + 0x8000) >> 16 & 0xFFFF
    return 0xE98D0010, 0x3D8C0000 | high, 0x398C0000 | distance & 0xFFFF, 0x7D8903A6, BCTR


def far_caller(file: bytes, at: int) -> tuple[int, ...]:
    return far(file, "ftrace_caller")


def far_forced(file: bytes, at: int) -> tuple[int, ...]:
    return far(file, "early_putn")


def thunk(file: bytes, at: int) -> tuple[int, ...]:
    """bti c; adrp x11, ops; add x11, x11, #lo12; b ftrace_caller + 12."""
    ops = symbol(file, "ftrace_list_ops")
    add = 0x91000000 | (ops & 0xFFF) << 10 | 11 << 5 | 11
    b = 0x14000000 | (symbol(file, "ftrace_caller") + 12 - (at + 12) >> 2) & 0x03FFFFFF
    return 0xD503245F, adrp(11, at + 4, ops), add, b


def calling(
    path: Path, out: Path, callee: str | tuple[int, ...] | Callable[[bytes, int], tuple[int, ...]] | int
) -> str:
    """A kernel at `out` whose untraced function `notrace_helper` begins as an enabled site does, and calls `callee`: a
    symbol, an address, or code that is put into the padding at the end of the text."""
    file = path.read_bytes()
    ppc = path.parent == PPC
    at, tail = symbol(file, "notrace_helper"), _tail(file)
    edits = {}
    if callable(callee):
        callee = callee(file, tail)
    to = callee if isinstance(callee, int) else symbol(file, callee) if isinstance(callee, str) else tail
    if isinstance(callee, tuple):
        edits[tail] = as_code(callee)
    first, call = (MFLR_R0, bl_ppc(at + 4, to)) if ppc else (MOV_X9_X30, bl_arm64(at + 4, to))
    edits[at] = as_code([first, call])
    return str(edited(path, out, edits))


def _tail(file: bytes) -> int:
    """The start of sixty-four zero bytes at the end of .text, 16-byte aligned."""
    text: Any = parsed(file).get_section_by_name(".text")
    end = (text["sh_addr"] + text["sh_size"]) & ~15
    assert not any(file[pos_of(file, end - 64) :][:64])
    return int(end - 64)


NO_PATCH: list[Any] = []
SURE, LIKELY = True, False
CASES: list[tuple[str, Path, Any, list[Any]]] = [
    ("ppc-caller", PPC / "vmlinux-mprofile", "ftrace_caller", [("ftrace_caller", SURE)]),
    ("ppc-regs-caller", PPC / "vmlinux-pfe2", "ftrace_regs_caller", [("ftrace_regs_caller", SURE)]),
    ("ppc-stub", PPC / "vmlinux-pfe2", "ftrace_stub", [("ftrace_stub", SURE)]),
    ("ppc-kernel-trampoline", PPC / "vmlinux-pfe2", "ftrace_tramp_text", [("ftrace_tramp_text", SURE)]),
    ("ppc-own-far-stub", PPC / "vmlinux-mprofile", far_caller, [("ftrace_caller", SURE)]),
    ("ppc-far-stub-of-forced-target", PPC / "vmlinux-pfe2", far_forced, [("early_putn", SURE)]),
    ("ppc-own-trampoline", PPC / "vmlinux-pfe2", TRAMP_PPC, [(None, LIKELY)]),
    ("ppc-savegpr", PPC / "vmlinux-mprofile", SAVEGPR, NO_PATCH),
    ("ppc-savegpr-pfe2", PPC / "vmlinux-pfe2", SAVEGPR, NO_PATCH),
    ("ppc-restgpr", PPC / "vmlinux-pfe2", RESTGPR, NO_PATCH),
    ("ppc-savefpr", PPC / "vmlinux-pfe2", SAVEFPR, NO_PATCH),
    ("ppc-ipa-ra-leaf", PPC / "vmlinux-pfe2", LEAF, NO_PATCH),
    ("ppc-function-of-c", PPC / "vmlinux-mprofile", C_FUNCTION, NO_PATCH),
    ("ppc-named-function", PPC / "vmlinux-pfe2", "early_putn", NO_PATCH),
    ("ppc-function-of-ftrace", PPC / "vmlinux-pfe2", "ftrace_init", NO_PATCH),
    ("ppc-zeros", PPC / "vmlinux-pfe2", (), NO_PATCH),
    ("ppc-nowhere", PPC / "vmlinux-pfe2", 0xC000_0000_0100_0000, NO_PATCH),
    ("arm64-caller", MINI / "vmlinux-pfe2", "ftrace_caller", [("ftrace_caller", SURE)]),
    ("arm64-regs-caller", MINI / "vmlinux-pfe2", "ftrace_regs_caller", [("ftrace_regs_caller", SURE)]),
    ("arm64-callops-caller", MINI / "vmlinux-callops", "ftrace_caller", [("ftrace_caller", SURE)]),
    ("arm64-thunk", MINI / "vmlinux-callops", thunk, [("ftrace_caller", SURE)]),
    ("arm64-own-trampoline", MINI / "vmlinux-pfe2", TRAMP, [(None, LIKELY)]),
    ("arm64-ipa-ra-leaf", MINI / "vmlinux-pfe2", LEAF_ARM64, NO_PATCH),
    ("arm64-function-of-c", MINI / "vmlinux-callops", C_ARM64, NO_PATCH),
    ("arm64-signed-function", MINI / "vmlinux-pfe2", PAC_ARM64, NO_PATCH),
    ("arm64-outlined", MINI / "vmlinux-pfe2", OUTLINED_ARM64, NO_PATCH),
    ("arm64-named-function", MINI / "vmlinux-pfe2", "early_putn", NO_PATCH),
    ("arm64-nowhere", MINI / "vmlinux-pfe2", 0xFFFF_8000_0010_0000, NO_PATCH),
]  # fmt: skip


@pytest.mark.parametrize(("path", "callee", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_callee_decides_whether_a_call_at_an_entry_is_a_patch(
    path: Path, callee: Any, expected: list[tuple[str | None, bool]], tmp_path: Path
) -> None:
    file = calling(path, tmp_path / "file", callee)
    table = api.scan(file).sites
    assert table.row[table.row < 0].tolist() == [-1] * len(expected)
    tail = f"{_tail(path.read_bytes()):#x}"
    found = [(callee.name, callee.sure) for callee in callees_of(table).values()]
    assert found == [(name or tail, sure) for name, sure in expected]
    names = [table.name(int(index)) for index in callees_of(table)]
    assert names == ["notrace_helper"] * len(expected)


def test_the_prologue_of_gcc_os_is_no_patch(capsys: pytest.CaptureFixture[str]) -> None:
    """A kernel of tinyconfig with -Os has `mflr r0; bl _savegpr0_29` at the entries of its untraced functions: 803 of
    them were called enabled on disk by an earlier patch, and `enable` refused them so."""
    assert run(["scan", str(SAVED), "--format", "json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["summary"]["without_record"] == 0 and "patched" not in image["summary"]
    assert [site for site in image["sites"] if site["row"] is None] == []
    by_name = {site["function"]: site["words"] for site in image["sites"]}
    assert [word[:4] for word in by_name["saved_traced"]] == ["0x4b"] and "saved_untraced" not in by_name


@pytest.mark.parametrize("name", ["saved_untraced", "saved_untraced_too"])
def test_untraced_functions_of_gcc_os_are_explained_as_such(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", name, str(SAVED)]) == 0
    assert "compiled without a patch site" in capsys.readouterr().out
    assert run(["enable", str(SAVED), "--func", name, "--dry-run"]) == 5
    assert "the function has no patch site" in capsys.readouterr().err


def test_enable_and_restore_work_beside_prologues_of_gcc_os(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, journal, back = tmp_path / "out", tmp_path / "journal", tmp_path / "back"
    enable = ["enable", str(SAVED), "--func", "saved_traced", "-o", str(out), "--report", f"json={journal}"]
    assert run(enable) == 0
    assert run(["verify", str(SAVED), str(out)]) == 0
    capsys.readouterr()
    assert run(["scan", str(out)]) == 0
    text = capsys.readouterr().out
    assert "  patched    1 enabled without a record, by an earlier patch\n" in text
    assert "             sure: they call ftrace_caller 1\n" in text
    assert run(["scan", str(out), "--format", "json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["summary"]["patched"] == [{"calls": "ftrace_caller", "sites": 1, "sure": True}]
    (site,) = [site for site in image["sites"] if site["row"] is None]
    assert (site["function"], site["calls"], site["sure"]) == ("saved_traced", "ftrace_caller", True)
    assert run(["restore", str(out), "--journal", str(journal), "-o", str(back)]) == 0
    assert back.read_bytes() == SAVED.read_bytes()


def test_a_likely_patch_is_said_to_be_likely(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = calling(MINI / "vmlinux-pfe2", tmp_path / "file", TRAMP)
    tail = f"{_tail((MINI / 'vmlinux-pfe2').read_bytes()):#x}"
    assert run(["scan", path]) == 0
    text = capsys.readouterr().out
    assert "  patched    1 enabled without a record, likely by an earlier patch\n" in text
    assert f"             likely: they call {tail} 1, whose code keeps the contract of a patch site\n" in text
    run(["check", path, "--select", "without-record"])
    message = f"1 sites call without a record, the first is notrace_helper: likely an earlier patch (they call {tail})"
    assert message in capsys.readouterr().out


def test_code_that_is_never_traced_may_begin_with_any_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """irqentry_nmi_enter of x86_64 5.10 begins with a call of printk_nmi_enter, which keeps all that a tracer keeps."""
    path = Path(calling(MINI / "vmlinux-pfe2", tmp_path / "file", TRAMP))
    file = Elf(path)
    at = file.value("notrace_helper")
    file.rename(".strtab", {"b_ctor": "__noinstr_text_start", "a_ctor": "__noinstr_text_end"})
    file.sym("__noinstr_text_start", st_value=at).sym("__noinstr_text_end", st_value=at + 8)
    path.write_bytes(file.raw)
    assert run(["scan", str(path)]) == 0
    assert "patched" not in capsys.readouterr().out
