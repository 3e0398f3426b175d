"""Redirected functions, read: which sites they are, where they lead, what is said of them, and how they go back."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elfwriter import MINI, TEXT, Kernel, pos_of, symbol, words_at, written
from test_redirect import PPC, b_a64, b_ppc, far_kernel, planned, result

from ftpatch import api
from ftpatch.cli import run
from ftpatch.elf.relocations import relocations_of
from ftpatch.kernel.boot import oracle
from ftpatch.report.text.patch import _redirects
from ftpatch.rules.run import Request, check_file
from ftpatch.sites.table import STATUSES

ARM64 = ["vmlinux-pfe2", "vmlinux-pfe2-bti", "vmlinux-exec", "vmlinux-kcfi", "vmlinux-callops", "vmlinux-callops-bti"]
PPC64LE = ["vmlinux-mprofile", "vmlinux-pfe2", "vmlinux-ool"]
KERNELS = [*(MINI / name for name in ARM64), *(PPC / name for name in PPC64LE)]
MODULES = [MINI / "mini.ko", PPC / "mini.ko"]
Row = tuple[str | None, bool, str, str, bool]  # function, whether a record names it, where it leads, by what, sure


def of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def redirected(path: str | Path, *pairs: tuple[str, str], to: Path) -> str:
    plan = planned(path, *pairs, force_signature=True)
    return written(to / "vmlinux", result(path, plan) + plan.edits.grown)


def rows(path: str | Path) -> list[Row]:
    """What is read of every redirected site."""
    sites = api.scan(str(path)).sites
    assert {STATUSES[sites.status[site]] for site in sites.redirects} <= {"enabled"}
    return [(sites.name(site), bool(sites.row[site] >= 0), to.name, to.by, to.sure)
            for site, to in sites.redirects.items()]  # fmt: skip


def with_word(file: bytes, va: int, word: int) -> bytes:
    """A kernel with another word at an address."""
    pos = pos_of(file, va)
    return file[:pos] + word.to_bytes(4, "little") + file[pos + 4 :]


def with_record(path: str | Path, function: str, word: int, off: int) -> bytes:
    """The kernel with one word changed behind a function's symbol, its record in place."""
    file = bytearray(Path(path).read_bytes())
    pos = pos_of(bytes(file), symbol(bytes(file), function) + off)
    file[pos : pos + 4] = word.to_bytes(4, "little")
    return bytes(file)


# -- which sites -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*KERNELS, *MODULES], ids=of)
def test_a_file_as_it_was_built_has_no_redirected_function(path: Path) -> None:
    assert rows(path) == []


@pytest.mark.parametrize("path", KERNELS, ids=of)
def test_a_jump_to_another_functions_entry_is_seen_without_a_record(path: Path, tmp_path: Path) -> None:
    after = redirected(path, ("vfs_read", "vfs_write"), to=tmp_path)
    assert rows(after) == [("vfs_read", False, "vfs_write", "", False)]


@pytest.mark.parametrize("name", PPC64LE)
def test_a_jump_through_the_stub_that_sets_r12_is_sure(name: str, tmp_path: Path) -> None:
    after = redirected(PPC / name, ("direct_only", "vfs_read"), to=tmp_path)
    assert rows(after) == [("direct_only", False, "vfs_read", "far", True)]


def test_a_veneer_is_seen_through(tmp_path: Path) -> None:
    path = far_kernel(tmp_path / "before")
    assert rows(redirected(path, ("near", "far"), to=tmp_path)) == [("near", False, "far", "veneer", True)]


@pytest.mark.parametrize("path", KERNELS, ids=of)
def test_a_record_that_was_kept_changes_nothing(path: Path, tmp_path: Path) -> None:
    file = path.read_bytes()
    words = words_at(Path(redirected(path, ("vfs_read", "vfs_write"), to=tmp_path)).read_bytes(),
                     symbol(file, "vfs_read"), 4)  # fmt: skip
    at = next(at for at, (old, new) in enumerate(zip(words_at(file, symbol(file, "vfs_read"), 4), words, strict=True))
              if old != new)  # fmt: skip
    kept = written(tmp_path / "kept", with_record(path, "vfs_read", words[at], 4 * at))
    assert rows(kept) == [("vfs_read", True, "vfs_write", "", False)]


NO_REDIRECT = [  # what stands at vfs_read, by (its va, vfs_write's, ftrace_caller's)
    ("a jump to itself", MINI / "vmlinux-callops", lambda foo, bar, tracer: [b_a64(foo, foo)]),
    ("a jump within the function", MINI / "vmlinux-callops", lambda foo, bar, tracer: [b_a64(foo, foo + 8)]),
    ("other code behind the jump", MINI / "vmlinux-callops", lambda foo, bar, tracer: [b_a64(foo, bar), 0xD65F03C0]),
    ("a jump out of the file", MINI / "vmlinux-callops", lambda foo, bar, tracer: [b_a64(foo, foo + (1 << 26))]),
    ("a call", MINI / "vmlinux-callops", lambda foo, bar, tracer: [b_a64(foo, bar) | 1 << 31]),
    ("a return", PPC / "vmlinux-pfe2", lambda foo, bar, tracer: [0x4E800020]),
    ("an absolute branch", PPC / "vmlinux-pfe2", lambda foo, bar, tracer: [b_ppc(foo, bar) | 2]),
    ("a jump to what sites call", PPC / "vmlinux-ool", lambda foo, bar, tracer: [b_ppc(foo, tracer)]),
    ("a jump to what sites call, in line", MINI / "vmlinux-pfe2", lambda foo, bar, tracer: [b_a64(foo, tracer)]),
]


@pytest.mark.parametrize(("path", "words"), [case[1:] for case in NO_REDIRECT], ids=[case[0] for case in NO_REDIRECT])
def test_what_only_looks_like_a_redirect_stays_unexpected(
    path: Path, words: Callable[[int, int, int], list[int]], tmp_path: Path
) -> None:
    file = path.read_bytes()
    lead = 8 if path.parent == PPC else 0
    foo, bar = (symbol(file, name) + lead for name in ("vfs_read", "vfs_write"))
    changed = file
    for at, word in enumerate(words(foo, bar, symbol(file, "ftrace_caller"))):
        changed = with_word(changed, foo + 4 * at, word)
    name = written(tmp_path / "changed", changed)
    sites = api.scan(name).sites
    assert rows(name) == []
    assert [sites.name(site) for site in range(len(sites)) if STATUSES[sites.status[site]] == "unexpected"] == [
        "vfs_read"
    ]


def test_a_filled_ops_pointer_is_no_place_of_a_redirect(tmp_path: Path) -> None:
    """Whoever redirects leaves it as it is: this is half of something else."""
    file = (MINI / "vmlinux-callops").read_bytes()
    foo = symbol(file, "vfs_read")
    changed = with_word(with_word(file, foo, b_a64(foo, symbol(file, "vfs_write"))), foo - 8, 1)
    assert rows(written(tmp_path / "changed", changed)) == []


@pytest.mark.parametrize(("size", "found"), [(8, []), (12, [("thunk", False, "vfs_write", "", False)])])
def test_a_function_that_ends_with_its_jump_is_a_thunk(size: int, found: list[Row], tmp_path: Path) -> None:
    """`b vfs_write` and the NOP that aligns what follows: only code behind the site tells what it was for."""
    thunk, bar = TEXT + 0x280, TEXT + 0x240
    kernel = Kernel([("near", TEXT + 0x200), ("vfs_write", bar), ("thunk", thunk)])
    file = with_word(kernel.build(), thunk, b_a64(thunk, bar))
    file = file.replace(struct.pack("<QQ", thunk, 12), struct.pack("<QQ", thunk, size))
    slot = pos_of(file, kernel.table + 16)
    path = written(tmp_path / "vmlinux", file[:slot] + bytes(8) + file[slot + 8 :])
    assert rows(path) == found


# -- and back ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in KERNELS if path.name != "vmlinux-exec"], ids=of)
def test_disable_gives_a_kernels_function_its_words_and_its_record_back(path: Path, tmp_path: Path) -> None:
    after = redirected(path, ("vfs_read", "vfs_write"), ("invoke_syscall", "sys_getppid"), to=tmp_path)
    assert run(["disable", after, "--func", "vfs_read", "--func", "invoke_syscall", "-o", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_table_that_was_cut_shorter_takes_no_record_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = redirected(MINI / "vmlinux-exec", ("vfs_read", "vfs_write"), to=tmp_path)
    assert run(["disable", after, "--func", "vfs_read", "-o", str(tmp_path / "back")]) == 5
    assert capsys.readouterr().err == (
        f"ftpatch: {after}: the record table has no free slot for a record to return to: found 0 null slots, expected "
        "1 – ftpatch restore with the patch's journal undoes it\n"
    )


@pytest.mark.parametrize("name", PPC64LE)
def test_disable_clears_the_stub_with_the_last_function_that_goes_through_it(name: str, tmp_path: Path) -> None:
    after = redirected(PPC / name, ("direct_only", "vfs_read"), ("slot_probe", "vfs_read"), to=tmp_path)
    stub = next(to.through for to in api.scan(after).sites.redirects.values())
    assert stub is not None
    for function, left in (("direct_only", True), ("slot_probe", False)):
        before, after = after, str(tmp_path / function)
        assert run(["disable", before, "--func", function, "-o", after]) == 0
        assert any(words_at(Path(after).read_bytes(), stub, 5)) == left
    assert Path(after).read_bytes() == (PPC / name).read_bytes()


def test_disable_takes_calls_and_redirects_of_mprofile_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after = redirected(PPC / "vmlinux-mprofile", ("vfs_read", "vfs_write"), to=tmp_path)
    assert run(["disable", after, "--func", "vfs_*", "-o", str(tmp_path / "back")]) == 5
    assert capsys.readouterr().err == (
        f"ftpatch: {after}: 1 of 2 chosen sites cannot be patched: found vfs_read (no record, .text+0x83c): it is "
        "redirected and gets its call and its record back, others lose theirs: disable the two sorts apart, expected "
        "all of them, or nothing is written – --skip-unpatchable patches the others\n"
    )


# -- modules -----------------------------------------------------------------------------------------------------------


def module(path: Path, *pairs: tuple[str, str], to: Path) -> str:
    plan = planned(path, *pairs, force_signature=True, assume_register_args=True)
    return written(to / path.name, result(path, plan) + plan.edits.grown)


@pytest.mark.parametrize(
    ("path", "pair", "by"),
    [
        (MINI / "mini.ko", ("mini_step", "mini_work"), ""),
        (PPC / "mini.ko", ("mini_step", "mini_work"), ""),
        (PPC / "mini.ko", ("mini_util", "mini_work"), "code"),
        (MINI / "mini.ko", ("mini_step", "_printk"), ""),
        (PPC / "mini.ko", ("mini_step", "_printk"), "code"),
    ],
    ids=lambda value: of(value) if isinstance(value, Path) else str(value),
)
def test_a_modules_redirect_is_told_by_its_relocation(
    path: Path, pair: tuple[str, str], by: str, tmp_path: Path
) -> None:
    assert rows(module(path, pair, to=tmp_path)) == [(pair[0], False, pair[1], by, True)]


@pytest.mark.parametrize("path", MODULES, ids=of)
def test_without_a_mark_the_jump_alone_speaks(path: Path, tmp_path: Path) -> None:
    """Another tool's redirect: nothing else says that no compiler wrote the jump."""
    marked = Path(module(path, ("mini_step", "mini_work"), to=tmp_path)).read_bytes()
    unmarked = written(tmp_path / "unmarked.ko", marked.replace(b"ftpatch_redirected_", b"somebody_elses_was_"))
    assert rows(unmarked) == [("mini_step", False, "mini_work", "", False)]


@pytest.mark.parametrize("path", MODULES, ids=of)
def test_a_module_that_has_no_record_left_shows_its_layout_by_its_jumps(path: Path, tmp_path: Path) -> None:
    """Every traced function became one that is not traced."""
    sites = api.scan(str(path)).sites
    names = [name for site in range(len(sites)) if (name := sites.name(site)) is not None]
    after = api.scan(module(path, *((name, "mini_untraced") for name in names), to=tmp_path))
    assert len(after.records) == 0 and after.sites.shape == sites.shape
    assert sorted(row[0] or "" for row in rows(after.image.path)) == sorted(names)


@pytest.mark.parametrize("path", MODULES, ids=of)
def test_a_nameless_function_is_found_by_its_mark(path: Path, tmp_path: Path) -> None:
    """Its record is gone, its symbol was never there: the mark stands where the record pointed."""
    file = bytearray(path.read_bytes())
    rows_of = api.scan(str(path)).image.symbols
    row = int(rows_of.rows_named("mini_util")[0])
    at = file.index(rows_of.rows[row : row + 1].tobytes())
    file[at + 4] &= 0xF0  # STT_NOTYPE
    stripped = written(tmp_path / "stripped.ko", file)
    sites = api.scan(stripped).sites
    site = next(site for site in range(len(sites)) if sites.name(site) is None)
    after = module(Path(stripped), (f"row:{sites.row[site]}", "mini_work"), to=tmp_path / "..")
    assert rows(after) == [(None, False, "mini_work", rows(after)[0][3], True)]


# -- what is said of them ----------------------------------------------------------------------------------------------


def test_the_summary_counts_them_and_the_table_names_where_they_lead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = redirected(PPC / "vmlinux-pfe2", ("direct_only", "vfs_read"), ("invoke_syscall", "sys_getppid"), to=tmp_path)
    assert run(["scan", name, "--sites"]) == 0
    text = capsys.readouterr().out
    assert (
        "  patched    2 enabled without a record, by an earlier patch\n"
        "             1 redirected to sys_getppid, likely\n"
        "             1 redirected to vfs_read\n"
    ) in text
    ends = [line.split("  ")[-1] for line in text.splitlines() if line.endswith(")") and "  enabled  " in line]
    assert ends == ["invoke_syscall (redirected to sys_getppid)", "direct_only (redirected to vfs_read)"]


def test_json_has_action_and_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = redirected(PPC / "vmlinux-pfe2", ("direct_only", "vfs_read"), ("invoke_syscall", "sys_getppid"), to=tmp_path)
    assert run(["scan", name, "--format", "json"]) == 0
    image = json.loads(capsys.readouterr().out)["images"][0]
    assert image["summary"]["redirected"] == [
        {"to": "sys_getppid", "sites": 1, "sure": False}, {"to": "vfs_read", "sites": 1, "sure": True},
    ]  # fmt: skip
    assert "patched" not in image["summary"] and image["summary"]["without_record"] == 2
    keys = ("function", "status", "row", "action", "target", "sure")
    assert [tuple(site[key] for key in keys) for site in image["sites"] if "action" in site] == [
        ("invoke_syscall", "enabled", None, "redirect", "sys_getppid", False),
        ("direct_only", "enabled", None, "redirect", "vfs_read", True),
    ]
    stub = next(to.through for to in api.scan(name).sites.redirects.values() if to.through)
    assert image["sites"][-1]["stub"] == f"0x{stub:016x}"


def test_csv_has_two_more_columns_where_some_site_is_redirected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = redirected(MINI / "vmlinux-pfe2", ("vfs_read", "vfs_write"), to=tmp_path)
    assert run(["scan", name, "--format", "csv", "--func", "vfs_*"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["function"], row["action"], row["target"]) for row in table] == [
        ("vfs_write", "", ""), ("vfs_read", "redirect", "vfs_write"),
    ]  # fmt: skip


VERDICTS = [
    (MINI / "vmlinux-callops", ("vfs_read", "vfs_write"), "redirected to vfs_write, directly: it cannot be traced; "
     "vfs_write can"),
    (PPC / "vmlinux-ool", ("direct_only", "vfs_read"), "redirected to vfs_read, through a stub that sets r12 at "
     "0x{stub:016x}: it cannot be traced; vfs_read can"),
    (MINI / "mini.ko", ("mini_step", "mini_untraced"), "redirected to mini_untraced, directly: it cannot be traced; "
     "mini_untraced cannot either"),
    (PPC / "mini.ko", ("mini_step", "_printk"), "redirected to _printk, through code that the patch brought along at "
     ".text.ftpatch+0x0: it cannot be traced; this file does not tell of _printk"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "pair", "verdict"), VERDICTS, ids=lambda value: of(value) if isinstance(value, Path) else None
)
def test_explain_says_where_a_function_leads_and_what_can_be_traced(
    path: Path, pair: tuple[str, str], verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = module(path, pair, to=tmp_path) if path.suffix == ".ko" else redirected(path, pair, to=tmp_path)
    stub = next(to.through for to in api.scan(name).sites.redirects.values())
    assert run(["explain", pair[0], name]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].partition(": ")[2] == verdict.format(stub=stub or 0)
    assert (
        "  live       single: yes: one aligned word, legal to change while others execute it; a call's two words are "
        "not\n"
    ) in text
    assert run(["explain", pair[1], name]) in (0, 1, 5)
    assert f"  for        {pair[0]} is redirected here\n" in capsys.readouterr().out


def test_explain_shows_a_chain_link_by_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = redirected(MINI / "vmlinux-pfe2", ("vfs_read", "vfs_write"), ("vfs_write", "sys_getppid"), to=tmp_path)
    assert run(["explain", "vfs_read", name]) == 0
    assert capsys.readouterr().out.startswith(
        "vfs_read: redirected to vfs_write, directly: it cannot be traced; vfs_write is redirected to sys_getppid in "
        "turn\n"
    )


def test_explain_foretells_the_bug_of_a_kept_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = MINI / "vmlinux-callops"
    file = path.read_bytes()
    foo, bar = symbol(file, "vfs_read"), symbol(file, "vfs_write")
    kept = written(tmp_path / "kept", with_record(path, "vfs_read", b_a64(foo, bar), 0))
    assert run(["explain", "vfs_read", kept]) == 0
    assert capsys.readouterr().out.startswith(
        "vfs_read: redirected to vfs_write, directly: its record is live: the kernel will raise an ftrace bug there\n"
    )
    log = written(tmp_path / "log", b"""\
[    0.000000] ------------[ ftrace bug ]------------
[    0.000000] ftrace failed to modify
[    0.000000] [<ffff800080010434>] vfs_read+0x4/0x20
[    0.000000]  actual:   1f:20:03:d5
[    0.000000] Initializing ftrace call sites
[    0.000000] ftrace record flags: 0
""")  # fmt: skip
    assert run(["explain", "--splat", log, kept]) == 0
    cause = "certain: the function is redirected on disk: its site is a jump to another one, and its record is"
    assert f"  cause      {cause}\n             still in the table (site-enabled)\n" in capsys.readouterr().out


# -- rules -------------------------------------------------------------------------------------------------------------


def found(path: str) -> list[tuple[str, str]]:
    return [(one.finding.rule, one.finding.message) for one in check_file(Request(REDIRECT_RULES), path).findings]


REDIRECT_RULES = ("site-enabled", "redirected", "redirect-loop", "redirect-target", "redirect-entry", "without-record")


def test_a_redirect_is_a_note_of_its_own(tmp_path: Path) -> None:
    name = redirected(PPC / "vmlinux-pfe2", ("direct_only", "vfs_read"), ("invoke_syscall", "sys_getppid"), to=tmp_path)
    assert found(name) == [
        ("redirected", "2 functions are redirected (invoke_syscall, direct_only): likely an earlier patch (to "
         "sys_getppid, vfs_read)"),
    ]  # fmt: skip


def planted(path: Path, jumps: dict[str, tuple[str, int]], to: Path) -> str:
    """A kernel in which functions begin with jumps to (function, bytes behind its symbol), their records in place."""
    file = path.read_bytes()
    after, lead = bytearray(file), {"mini-ppc64le": 8}.get(path.parent.name, 0)
    for function, (other, off) in jumps.items():
        two = function not in ("direct_only", "slot_probe")
        site, target = symbol(file, function) + lead * two, symbol(file, other) + off
        word = b_ppc(site, target) if lead else b_a64(site, target)
        pos = pos_of(file, site)
        after[pos : pos + 4] = word.to_bytes(4, "little")
    return written(to / "planted", after)


@pytest.mark.parametrize(
    ("path", "jumps", "rule", "messages"),
    [
        (MINI / "vmlinux-pfe2", {"vfs_read": ("vfs_write", 0), "vfs_write": ("vfs_read", 0)}, "redirect-loop", [
            "vfs_read is redirected to vfs_write, and that to vfs_read: whoever calls it never comes back",
            "vfs_write is redirected to vfs_read, and that to vfs_write: whoever calls it never comes back",
        ]),
        (MINI / "vmlinux-pfe2", {"vfs_read": ("vfs_write", 4)}, "redirect-target",
         ["vfs_read is redirected to vfs_write+0x4, which is the middle of a function"]),
        (MINI / "vmlinux-pfe2", {"vfs_read": ("a_setup", 0)}, "redirect-target",
         ["vfs_read is redirected to a_setup: a_setup is init text, which is freed after boot"]),
        (MINI / "vmlinux-pfe2", {"vfs_read": ("rest_init", 0)}, "redirect-target",
         ["vfs_read is redirected to rest_init, which never returns (rest_init)"]),
        (PPC / "vmlinux-pfe2", {"vfs_read": ("vfs_write", 0)}, "redirect-entry",
         ["vfs_read is redirected to vfs_write, at its global entry, which computes the TOC pointer from r12: nothing "
          "sets that"]),
        (PPC / "vmlinux-pfe2", {"direct_only": ("vfs_write", 8)}, "redirect-entry",
         ["direct_only is redirected to vfs_write, at its local entry, which takes the TOC pointer as set: callers of "
          "a function with one entry need not"]),
        (PPC / "vmlinux-pfe2", {"vfs_read": ("vfs_write", 8)}, "redirect-entry", []),
    ],
)  # fmt: skip
def test_a_redirect_that_leads_nowhere_good_is_an_error(
    path: Path, jumps: dict[str, tuple[str, int]], rule: str, messages: list[str], tmp_path: Path
) -> None:
    name = planted(path, jumps, tmp_path)
    assert [message for other, message in found(name) if other == rule] == messages
    kept = [message for other, message in found(name) if other == "site-enabled"]
    assert len(kept) == len(jumps) and all("is a jump to" in message for message in kept)


def test_a_call_of_another_file_by_a_jump_loses_the_callers_toc(tmp_path: Path) -> None:
    """The form that a compiler would use for a tail call: the loader takes it, and its stub saves r2 in 24(r1)."""
    marked = Path(module(PPC / "mini.ko", ("mini_step", "mini_work"), to=tmp_path))
    image = api.scan(str(marked)).image
    site = next(iter(api.scan(str(marked)).sites.redirects))
    sites = api.scan(str(marked)).sites
    rows_of = relocations_of(image, int(sites.sec[site]))
    at = int(np.flatnonzero(rows_of.off == int(sites.off[site] + sites.site[site]))[0])
    pos = int(image.shdr["sh_offset"][int(rows_of.table[at])]) + 24 * int(rows_of.row[at])
    file = bytearray(marked.read_bytes())
    printk = int(image.symbols.rows_named("_printk")[0])
    file[pos + 12 : pos + 16] = printk.to_bytes(4, "little")
    name = written(tmp_path / "sibling.ko", file)
    assert rows(name) == [("mini_step", False, "_printk", "", True)]
    assert [one for one in found(name) if one[0] == "redirect-entry"] == [
        ("redirect-entry", "mini_step is redirected to _printk, in another file, by a jump: the stub that the loader "
         "makes for it saves the TOC pointer in the frame of the function's caller"),
    ]  # fmt: skip


# -- two builds --------------------------------------------------------------------------------------------------------


def changes(old: str | Path, new: str | Path) -> list[tuple[str, str]]:
    return [(one.rule, one.message) for pair in api.diff(str(old), str(new)).compared for one in pair.findings
            if one.function == "vfs_read"]  # fmt: skip


def test_diff_says_where_a_function_leads_now_and_led_before(tmp_path: Path) -> None:
    plain = MINI / "vmlinux-pfe2"
    first = redirected(plain, ("vfs_read", "vfs_write"), to=tmp_path)
    (tmp_path / "other").mkdir()
    second = redirected(plain, ("vfs_read", "sys_getppid"), to=tmp_path / "other")
    enabled = str(tmp_path / "enabled")
    assert run(["enable", str(plain), "--func", "vfs_read", "-o", enabled]) == 0
    assert changes(plain, first) == [
        ("diff-lost", "vfs_read is no longer traceable: it is redirected to vfs_write"),
    ]  # fmt: skip
    assert changes(first, plain) == [("diff-gained", "vfs_read became traceable: it was redirected to vfs_write")]
    assert changes(first, second) == [
        ("diff-redirected", "vfs_read is redirected to sys_getppid now, to vfs_write before"),
    ]  # fmt: skip
    assert changes(enabled, first) == [("diff-redirected", "vfs_read is redirected to vfs_write now")]
    assert changes(first, enabled) == [("diff-redirected", "vfs_read is redirected no more, to vfs_write before")]
    assert changes(first, first) == []


# -- what redirect itself reports --------------------------------------------------------------------------------------


def test_the_report_of_redirect_names_every_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, journal = str(PPC / "vmlinux-pfe2"), tmp_path / "journal"
    pairs = ["--map", "invoke_syscall=sys_getppid", "--map", "direct_only=vfs_read"]
    assert run(["redirect", path, *pairs, "--force-signature", "-o", str(tmp_path / "out"), "--report",
                f"json={journal}"]) == 0  # fmt: skip
    text = capsys.readouterr().out
    image = json.loads(journal.read_text())["images"][0]
    assert [(row["function"], row["to"]) for row in image["request"]["redirects"]] == [
        ("invoke_syscall", "sys_getppid"), ("direct_only", "vfs_read"),
    ]  # fmt: skip
    assert image["request"]["with"] is image["request"]["keep_original"] is None
    assert image["request"]["forced_signature"] is True and "assumed_register_args" not in image["request"]
    assert {site["concurrency"] for site in image["sites"]} == {"single"}
    assert "  sites      2 redirected to sys_getppid, vfs_read\n" in text
    stub = image["sites"][1]["stub"]
    assert f"-> {image['sites'][1]['new_words'][0][2:]} 60000000, redirected to vfs_read through {stub}, " in text
    assert run(["verify", path, str(tmp_path / "out"), "--journal", str(journal)]) == 0
    assert run(["restore", str(tmp_path / "out"), "--journal", str(journal), "-o", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back").read_bytes() == Path(path).read_bytes()


@pytest.mark.parametrize(
    ("signatures", "lines"),
    [
        (["equal (DWARF)", "equal (DWARF)"], ["  signature  equal (DWARF)\n"]),
        (["equal (DWARF)", "equal (BTF)"], ["  signature  equal (DWARF)\n", "  signature  equal (BTF)\n"]),
        (["equal (DWARF)", "1 parameter, but 4"], []),  # a note says that
        ([], []),
    ],
)
def test_the_report_says_where_signatures_are_equal(signatures: list[str], lines: list[str]) -> None:
    request: Any = {"redirects": [{"function": "f", "to": "g", "signature": text} for text in signatures]}
    assert list(_redirects(request)) == lines
    came: Any = {**request, "with": "patch.o", "keep_original": "old_f"}
    assert list(_redirects(came)) == [
        *lines, "  with       patch.o\n", "  original   can still be called as old_f\n",
    ]  # fmt: skip


# -- what a boot will say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", KERNELS, ids=of)
def test_a_boot_lists_all_but_the_redirected_function(path: Path, tmp_path: Path) -> None:
    before, after = (oracle(api.scan(str(name))) for name in
                     (path, redirected(path, ("vfs_read", "vfs_write"), to=tmp_path)))  # fmt: skip
    assert before is not None and after is not None
    assert set(before.listed_after) - set(after.listed_after) == {"vfs_read"}
    assert len(after.listed_after) == len(before.listed_after) - 1 and not after.bugs


def test_a_boot_stumbles_over_a_kept_record(tmp_path: Path) -> None:
    path = MINI / "vmlinux-callops"
    file = path.read_bytes()
    foo, jump = symbol(file, "vfs_read"), b_a64(symbol(file, "vfs_read"), symbol(file, "vfs_write"))
    told = oracle(api.scan(written(tmp_path / "kept", with_word(file, foo, jump))))
    assert told is not None
    assert [(bug.function, bug.offset, bug.ip, bug.va, bug.found, bug.actual) for bug in told.bugs] == [
        ("vfs_read", 4, foo + 4, foo, jump, 0xD503201F),
    ]  # fmt: skip


# -- trees -------------------------------------------------------------------------------------------------------------


def test_a_tree_says_which_modules_have_redirects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tree").mkdir()
    changed = Path(module(MINI / "mini.ko", ("mini_step", "mini_work"), ("mini_util", "_printk"), to=tmp_path))
    changed.rename(tmp_path / "tree" / "changed.ko")
    written(tmp_path / "tree" / "plain.ko", (MINI / "mini.ko").read_bytes())
    assert run(["scan", str(tmp_path / "tree"), "--jobs", "1"]) == 0
    text = capsys.readouterr().out
    assert "  patched    2 redirected, in 1 module\n" in text
    assert "     4     0  callops      changed.ko  ! redirected 2\n" in text
    assert "     6     0  callops      plain.ko\n" in text
    assert run(["check", str(tmp_path / "tree"), "--jobs", "1"]) == 0
    assert (
        "changed.ko: 2 functions are redirected (mini_step, mini_util): an earlier patch (to mini_work, _printk)"
        in capsys.readouterr().out
    )
    assert run(["diff", str(MINI / "mini.ko"), str(tmp_path / "tree" / "changed.ko")]) == 1
    assert "mini_step@mini_mod.c is no longer traceable: it is redirected to mini_work" in capsys.readouterr().out


@pytest.mark.parametrize("path", [path for path in KERNELS if path.name not in ("vmlinux-exec", "vmlinux-mprofile")],
                         ids=of)  # fmt: skip
@pytest.mark.parametrize("first", ["enable", "redirect"])
def test_enabled_and_redirected_functions_are_told_apart_and_go_back_together(
    path: Path, first: str, tmp_path: Path
) -> None:
    steps = {
        "enable": ["enable", "{}", "--func", "vfs_write", "-o"],
        "redirect": ["redirect", "{}", "--func", "vfs_read", "--to", "sys_getppid", "--force-signature", "-o"],
    }
    one, two, back = (str(tmp_path / name) for name in ("one", "two", "back"))
    second = {"enable": "redirect", "redirect": "enable"}[first]
    for step, source, to in ((first, str(path), one), (second, one, two)):
        assert run([*(word.format(source) for word in steps[step]), to]) == 0
    sites = api.scan(two).sites
    enabled = {sites.name(site) for site in range(len(sites)) if STATUSES[sites.status[site]] == "enabled"}
    assert enabled == {"vfs_read", "vfs_write"} and [row[0] for row in rows(two)] == ["vfs_read"]
    assert run(["disable", two, "--status", "enabled", "-o", back]) == 0
    assert Path(back).read_bytes() == path.read_bytes()
    taken = path.name == "vmlinux-ool" and first == "redirect"  # with one record more the kernel would hand out the
    assert run(["disable", two, "--func", "vfs_read", "-o", back]) == (5 if taken else 0)  # slot of vfs_write's stub
    if not taken:
        assert run(["disable", back, "--func", "vfs_write", "-o", one]) == 0
        assert Path(one).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("verb", [["scan", "--sites"], ["explain", "direct_only"], ["check"]])
def test_a_replacements_name_is_printed_as_it_is_safe(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names come from a file that anybody may have made: an escape sequence is no text."""
    name = redirected(PPC / "vmlinux-pfe2", ("direct_only", "vfs_read"), to=tmp_path)
    hostile = written(tmp_path / "hostile", Path(name).read_bytes().replace(b"\0vfs_read\0", b"\0\x1b[31m\n_d\0"))
    assert run([*verb, hostile]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b[31m\\x0a_d" in out
