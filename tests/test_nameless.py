"""Sites without a name: left of a weak function, or their symbols stripped, and what every verb does with them.

`strip --strip-unneeded`, as embedded distributions run it over modules, takes every local symbol that no relocation
needs. All static functions then looked like code of overridden weak functions, and the advice was to drop them.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import elfwriter
import pytest
from elfedit import MINI, MINI_PPC, Elf, without_symbols
from elfwriter import parsed

from ftpatch.cli import run

Gone = Callable[[str, int, int, bool], bool]
LOCAL, OBJECT, FUNC, SECTION, FILE = 0, 1, 2, 3, 4  # bind 0; types


def unneeded(name: str, info: int, shndx: int, needed: bool) -> bool:
    """strip --strip-unneeded of a relocatable file."""
    return info >> 4 == LOCAL and info & 15 != SECTION and not needed


def discarded(name: str, info: int, shndx: int, needed: bool) -> bool:
    """strip -x: names of files stay; in a linked file no relocation needs a symbol."""
    return info >> 4 == LOCAL and info & 15 not in (SECTION, FILE) and not needed and not name.startswith("$")


def but(*kept: str) -> Gone:
    """strip --strip-unneeded -K NAME …"""
    return lambda name, *rest: unneeded(name, *rest) and name not in kept


def only(*taken: str) -> Gone:
    """objcopy -N NAME …"""
    return lambda name, *rest: name in taken


def written(path: Path, file: Path, gone: Gone) -> str:
    path.write_bytes(without_symbols(file.read_bytes(), gone))
    return str(path)


def statuses(path: str, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    capsys.readouterr()
    assert run(["scan", path, "--format", "json"]) == 0
    return dict(Counter(site["status"] for site in json.loads(capsys.readouterr().out)["images"][0]["sites"]))


CASES = [  # file, what is taken, what its sites then are
    (MINI / "mini.ko", unneeded, {"ready": 4, "stripped": 2}),
    (MINI / "mini.ko", discarded, {"ready": 4, "stripped": 2}),
    (MINI / "mini.ko", but("mini_step"), {"ready": 5, "stripped": 1}),
    (MINI / "mini.ko", only("mini_step"), {"ready": 5, "stripped": 1}),
    (MINI / "pfe2.o", unneeded, {"ready": 6, "stripped": 2}),
    (MINI / "callops.o", unneeded, {"ready": 6, "stripped": 2}),
    # nobody calls it, and the names of static functions are there: what a linker leaves of a weak function
    (MINI / "pfe2.o", only("arch_hook_power"), {"ready": 7, "weak-leftover": 1}),
    (MINI / "callops.o", only("arch_hook_power"), {"ready": 7, "weak-leftover": 1}),
    (MINI_PPC / "pfe2.o", only("arch_hook_power"), {"ready": 8, "weak-leftover": 1}),
    (MINI / "pfe2.o", lambda *symbol: only("arch_hook_power")(*symbol) or unneeded(*symbol),
     {"ready": 5, "stripped": 2, "unnamed": 1}),
    (MINI / "vmlinux-pfe2", discarded, {"ready": 12, "stripped": 4, "unnamed": 3}),
    (MINI / "vmlinux-exec", discarded, {"ready": 12, "stripped": 4, "unnamed": 3}),
    (MINI / "vmlinux-pg", discarded, {"ready": 12, "stripped": 4, "unnamed": 3}),
    (MINI / "vmlinux-pfe2", only("direct_only"), {"ready": 15, "weak-leftover": 3, "stripped": 1}),
    # a table that the build sorted has no slot for a weak function: whatever has no name there had one
    (MINI / "vmlinux-callops", discarded, {"null": 3, "ready": 12, "stripped": 4}),
    (MINI / "vmlinux-callops-bti", discarded, {"null": 3, "ready": 12, "stripped": 4}),
    (MINI_PPC / "mini.ko", unneeded, {"ready": 8}),
    (MINI_PPC / "vmlinux-pfe2", discarded, {"ready": 24, "stripped": 6, "unnamed": 4}),
    (MINI_PPC / "vmlinux-ool", discarded, {"ready": 22, "stripped": 6, "unnamed": 4}),
    (MINI_PPC / "vmlinux-mprofile", discarded, {"ready": 22, "stripped": 6, "unnamed": 4}),
    (MINI_PPC / "pfe2.o", unneeded, {"ready": 7, "stripped": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("file", "gone", "expected"), CASES)
def test_a_stripped_name_is_no_weak_leftover(
    file: Path, gone: Gone, expected: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert statuses(written(tmp_path / file.name, file, gone), capsys) == expected


HELP = "--strip-debug alone (INSTALL_MOD_STRIP=1)"
STRIPPED = "2 of 6 sites have no name: the symbols of their functions are stripped"


@pytest.fixture
def stripped(tmp_path: Path) -> str:
    return written(tmp_path / "s.ko", MINI / "mini.ko", unneeded)


def said(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    capsys.readouterr()
    assert run(arguments) == code
    out, err = capsys.readouterr()
    return str(err if code > 1 else out)


def findings(path: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> list[tuple[str, str, int]]:
    image = json.loads(said(["check", path, "--format", "json"], capsys, code))["images"][0]
    assert all(HELP in row["help"] for row in image["findings"])
    return [(row["rule"], row["message"], row["count"]) for row in image["findings"]]


def test_one_finding_of_a_module_says_that_names_are_stripped(
    stripped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert findings(stripped, capsys) == [("names-stripped", STRIPPED, 2)]
    assert "__ftrace_invalid_address__" in said(["check", stripped], capsys)


DOUBT = "stripped or left of weak functions, which the file does not tell"


@pytest.mark.parametrize(
    ("file", "gone", "messages"),
    [
        (MINI / "vmlinux-exec", discarded, {
            "names-stripped": "4 of 19 sites have no name: the symbols of their functions are "
            f"stripped; 3 more are {DOUBT}"
        }),
        (MINI / "pfe2.o", lambda name, *rest: unneeded(name, *rest) or name == "arch_hook_power", {
            "names-stripped": "2 of 8 sites have no name: the symbols of their functions are "
            f"stripped; 1 more are {DOUBT}"
        }),
        (MINI / "pfe2.o", only("arch_hook_power"), {
            "dead-weak": "row 7 names the code of an overridden weak function; no symbol names it"
        }),
    ],
)  # fmt: skip
def test_what_the_file_does_not_tell_is_not_claimed(
    file: Path, gone: Gone, messages: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / file.name, file, gone)
    image = json.loads(said(["check", path, "--format", "json"], capsys))["images"][0]
    assert {row["rule"]: row["message"] for row in image["findings"] if row["rule"] != "link-order"} == messages


def test_a_module_without_any_symbol_is_named_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """strip -s takes the relocations along: every slot then looked empty, and every function gone."""
    elf = Elf("mini.ko")
    for name in [".symtab", *(name for name in elf.names() if name.startswith(".rela"))]:
        elf.sh(name, sh_type=0)
    path = tmp_path / "s.ko"
    path.write_bytes(elf.raw)
    assert said(["scan", str(path)], capsys, 3) == (
        f"ftpatch: {path}: its records name nothing: found no symbol table: all symbols and relocations are stripped, "
        "expected .symtab – strip with --strip-debug alone (INSTALL_MOD_STRIP=1); no kernel loads the module\n"
    )
    text = "its records name nothing: no symbol table: all symbols and relocations are stripped"
    assert findings(str(path), capsys, 1) == [("symbols-stripped", text, 1)]


def test_drop_never_takes_stripped_functions_as_leftovers(stripped: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(["drop", stripped, "--status", "weak-leftover", "--dry-run"], capsys, 5) == (
        f"ftpatch: {stripped}: the selection is empty: found no site matches all of --func, --status and --section\n"
    )


@pytest.mark.parametrize(
    ("selectors", "rows"),
    [
        (["--func", "row:0"], [0]), (["--func", ".text+0x8"], [0]), (["--func", ".init.text+0x58"], [4]),
        (["--status", "stripped"], [0, 4]), (["--func", "mini_work", "--status", "stripped"], [0, 1, 4]),
        (["--func", "*"], [1, 2, 3, 5]), (["--section", ".text", "--status", "stripped"], [0]),
    ],
)  # fmt: skip
def test_nameless_sites_are_chosen_by_place_and_status(
    selectors: list[str], rows: list[int], stripped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = json.loads(said(["scan", stripped, *selectors, "--format", "json"], capsys))["images"][0]["sites"]
    assert [site["row"] for site in sites] == rows


def test_a_stripped_name_matches_nothing_and_the_refusal_says_why(
    stripped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(["drop", stripped, "--func", "mini_step"], capsys, 5)
    assert text.endswith(
        "2 functions of this file have no name, which may be stripped: row:N or .section+0xOFF choose them\n"
    )
    assert run(["explain", "mini_step", stripped]) == 5
    why = "nothing of that name, but 2 functions here have none any more: it may be one whose name is stripped"
    assert f"  why        {why}\n" in capsys.readouterr().out
    text = said(["explain", "row:0", stripped], capsys)
    assert text.startswith("(no name): traceable, but not by a name: the symbol of its function is stripped\n")


def test_stripped_sites_are_enabled_found_again_disabled_and_restored(
    stripped: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a patch had enabled was looked for at symbols only: without one, nothing could disable it."""
    out, back, journal, restored = (str(tmp_path / name) for name in ("out.ko", "back.ko", "j.json", "r.ko"))
    said(["enable", stripped, "--status", "stripped", "--hook", "mini_util", "-o", out, "--report", f"json={journal}"],
         capsys)  # fmt: skip
    assert statuses(out, capsys) == {"ready": 4, "enabled": 2}
    assert "every change is accounted for" in said(["verify", stripped, out, "--journal", journal], capsys)
    shown = said(["explain", ".text+0x8", out], capsys)
    assert shown.startswith("(no name): enabled on disk, without a record")
    text = "2 sites call without a record, the first is .text+0x8: an earlier patch"
    assert text in said(["check", out], capsys)
    said(["disable", out, "--status", "enabled", "-o", back], capsys)
    assert statuses(back, capsys) == {"ready": 4, "stripped": 2}
    said(["restore", out, "--journal", journal, "-o", restored], capsys)
    assert Path(restored).read_bytes() == Path(stripped).read_bytes()


def test_all_sites_of_a_stripped_module_are_found_when_no_record_is_left(
    stripped: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.ko")
    said(["enable", stripped, "--func", "*", "--status", "stripped", "--hook", "_printk", "-o", out], capsys)
    assert statuses(out, capsys) == {"enabled": 6}


def test_a_diff_with_a_stripped_file_does_not_say_that_functions_are_gone(
    stripped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = str(MINI / "mini.ko")
    for pair, rule, when in (((whole, stripped), "diff-removed", "now"), ((stripped, whole), "diff-added", "before")):
        image = json.loads(said(["diff", *pair, "--format", "json"], capsys, 1))["images"][0]
        assert [row["message"] for row in image["findings"] if row["rule"] in ("diff-removed", "diff-added")] == [
            f"3 functions are known by name on one side only, and 2 sites have no name {when}: "
            "which of them are the same the files do not tell"
        ]
        assert {row["rule"] for row in image["findings"]} == {rule, "diff-count"}


def test_a_module_does_not_tell_what_a_kernel_calls_a_site_far_behind_a_symbol(
    stripped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A site of .init.text was listed under a function of .text: symbols of a module begin at 0 in each section."""
    sites = json.loads(said(["scan", stripped, "--status", "stripped", "--format", "json"], capsys))["images"][0][
        "sites"
    ]
    assert [site["listed_as"] for site in sites] == [None, "init_module"]


@pytest.mark.parametrize("file", [MINI / "vmlinux-pfe2", MINI / "vmlinux-callops", MINI_PPC / "vmlinux-ool"])
def test_what_is_enabled_without_a_name_in_a_kernel_needs_its_journal(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, journal, back = (str(tmp_path / name) for name in ("v", "out", "j.json", "back"))
    written(tmp_path / "v", file, discarded)
    chosen = ["--status", "stripped", "--section", ".text"]
    text = said(["enable", path, *chosen, "-o", out, "--report", f"json={journal}"], capsys)
    n = statuses(path, capsys)["stripped"] - statuses(out, capsys).get("stripped", 0)
    assert f"  note       {n} of the sites have no name: no symbol shows them later, so that the journal alone" in text
    assert "every change is accounted for" in said(["verify", path, out, "--journal", journal], capsys)
    said(["restore", out, "--journal", journal, "-o", back], capsys)
    assert Path(back).read_bytes() == Path(path).read_bytes()


def with_kallsyms(content: bytes, kind: str, lost: tuple[str, ...] = ()) -> bytes:
    """A kernel with the addresses of its functions in kallsyms_offsets, as Linux before or since 7 or x86 has them; or
    a table of another file. lost: functions whose symbols are then taken out."""
    symbols = parsed(content).get_section_by_name(".symtab").iter_symbols()
    functions = [one for one in symbols if one["st_info"]["type"] == "STT_FUNC" and one["st_shndx"] != "SHN_UNDEF"]
    elf = Elf.__new__(Elf)
    elf.raw = bytearray(content)
    at = {one["st_value"] for one in functions}
    base, place = elf.of_sec(".head.text", "sh_addr"), elf.of_sec(".bss", "sh_addr") + 0x10_0000
    rows = sorted({base, *at})
    offsets = {
        "first": [va - base for va in rows], "own": [va - place - 8 - 4 * n for n, va in enumerate(rows)],
        "other": [va - base + 4 for va in rows], "below": [base - va - 1 for va in rows],
    }[kind]  # fmt: skip
    data = struct.pack(f"<II{len(rows)}i", len(rows), 0, *offsets)
    number = elf.add(data, sh_name=elf.name_at(".rodata"), sh_type=1, sh_flags=2, sh_addr=place)
    elf.rename(".strtab", {"early_puts": "kallsyms_offsets", "linux_banner": "kallsyms_num_syms"})
    elf.sym("kallsyms_offsets", st_value=place + 8, st_shndx=number, st_info=0x11)
    elf.sym("kallsyms_num_syms", st_value=place, st_shndx=number, st_info=0x11)
    return without_symbols(bytes(elf.raw), lambda name, *rest: name in lost or (not lost and discarded(name, *rest)))


@pytest.mark.parametrize(
    ("file", "kind", "lost", "expected"),
    [
        ("vmlinux-pfe2", "first", (), {"ready": 12, "stripped": 4, "weak-leftover": 3}),
        ("vmlinux-pfe2", "own", (), {"ready": 12, "stripped": 4, "weak-leftover": 3}),
        ("vmlinux-exec", "first", (), {"ready": 12, "stripped": 4, "weak-leftover": 3}),
        ("vmlinux-pfe2", "other", (), {"ready": 12, "stripped": 4, "unnamed": 3}),
        ("vmlinux-exec", "below", (), {"ready": 12, "stripped": 4, "weak-leftover": 3}),  # as x86's before 6.15
        # nobody calls it in this file, and a tracer's user lost its name alone
        ("vmlinux-pfe2", "first", ("vfs_write",), {"ready": 15, "stripped": 1, "weak-leftover": 3}),
        ("vmlinux-exec", "own", ("vfs_write",), {"ready": 15, "stripped": 1, "weak-leftover": 3}),
    ],
)
def test_a_kernels_own_kallsyms_tell_what_had_a_name(
    file: str, kind: str, lost: tuple[str, ...], expected: dict[str, int], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """One name taken out of a real kernel was a leftover: whoever calls the function is megabytes away."""
    path = tmp_path / "vmlinux"
    path.write_bytes(with_kallsyms((MINI / file).read_bytes(), kind, lost))
    assert statuses(str(path), capsys) == expected


def test_nops_in_front_of_a_function_are_no_weak_leftover(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-fpatchable-function-entry=2,2: each record names the NOPs in front of a function that has its name."""
    elf = elfwriter.Elf(elfwriter.ET_REL)
    code = elfwriter.as_code([elfwriter.NOP, elfwriter.NOP, elfwriter.RET, elfwriter.RET] * 3)
    text = elf.section(".text", code, flags=elfwriter.ALLOC | elfwriter.EXEC, align=8)
    rows = b"".join(elfwriter.rela(8 * i, elfwriter.R_ABS64, 16 * i, 1) for i in range(3))
    sites = elf.section("__patchable_function_entries", bytes(24), flags=elfwriter.ALLOC | 1 | 0x80, link=text)
    elf.section(".rela__patchable_function_entries", rows, type=elfwriter.RELA, info=sites, link=4, entsize=24)
    elf.symbol("here", text, 0, 0, type=elfwriter.NOTYPE, bind=elfwriter.LOCAL)
    for i in range(3):
        elf.symbol(f"f{i}", text, 16 * i + 8, 8, type=elfwriter.FUNC)
    path = elfwriter.written(tmp_path / "front.o", elf.build())
    assert statuses(path, capsys) == {"padding": 3}
    assert run(["check", path, "--format", "json"]) == 1
    rows = json.loads(capsys.readouterr().out)["images"][0]["findings"]
    told = [(row["rule"], row["message"], row["count"]) for row in rows]
    assert told == [
        ("toolchain-layout", "3 sites of layout padding: there are no NOPs behind the entry, so that nothing can "
         "lead to those in front of it", 3),
    ]  # fmt: skip
