"""Files built with -pg whose calls of _mcount no record names: found, counted, explained, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import capstone
import numpy as np
import pytest
from elfwriter import ALLOC, ET_REL, EXEC, FUNC, MINI, NOTYPE, RELA, Elf, parsed, written

from ftpatch import api
from ftpatch.arch.arm64 import BL as BL_ARM64
from ftpatch.arch.ppc64le_walk import BL as BL_PPC
from ftpatch.arch.shape import Branch
from ftpatch.cli import run
from ftpatch.rules.register import known_rules
from ftpatch.rules.run import Request, check_file

CALLS = MINI.parent / "calls"
PPC = MINI.parent / "mini-ppc64le"
ARM64_AT = {"inner": 0x18, "weakly": 0x4C, "outer": 0x78, "starts": 0x18, "ends": 0x18}
PPC_AT = {"inner": 0x1C, "weakly": 0x7C, "outer": 0xCC, "starts": 0x1C, "ends": 0x1C}
ARM64_LINKED = {**ARM64_AT, "starts": 0xD8, "ends": 0x10C}  # linked files have them all in .text
PPC_LINKED = {**PPC_AT, "starts": 0x17C, "ends": 0x1DC}
MPROFILE_LARGE = {"inner": 0x14, "weakly": 0x54, "outer": 0x94, "starts": 0x14, "ends": 0x14}
ONE_EACH = dict.fromkeys(ARM64_AT, 0x18)
SECTION = {"starts": ".init.text", "ends": ".exit.text"}
# file → layout, and where in its section each function calls
CASES: dict[str, tuple[str, dict[str, int]]] = {
    "arm64.o": ("mcount", ARM64_AT),
    "arm64-sections.o": ("mcount", ONE_EACH),
    "arm64.so": ("mcount", ARM64_LINKED),
    "arm64-static-pie": ("mcount", ARM64_LINKED),
    "arm64-far": ("mcount", ARM64_LINKED),
    "ppc64le.o": ("mcount", PPC_AT),
    "ppc64le-sections.o": ("mcount", dict.fromkeys(PPC_AT, 0x1C)),
    "ppc64le.so": ("mcount", {"inner": 0x7C, "weakly": 0xDC, "outer": 0x12C, "starts": 0x1DC, "ends": 0x23C}),
    "ppc64le-static-pie": ("mcount", PPC_LINKED),
    "ppc64le-far": ("mcount", {"inner": 0x3C, "weakly": 0x9C, "outer": 0xEC, "starts": 0x19C, "ends": 0x1FC}),
    "ppc64le-pcrel.o": ("mcount", {"inner": 0x14, "weakly": 0x64, "outer": 0xA4, "starts": 0x14, "ends": 0x14}),
    "ppc64le-pcrel.so": ("mcount", {"inner": 0x74, "weakly": 0xC4, "outer": 0x104, "starts": 0x1A4, "ends": 0x1F4}),
    "ppc64le-mprofile.o": ("mprofile", {"inner": 0xC, "weakly": 0x54, "outer": 0x8C, "starts": 0xC, "ends": 0xC}),
    "ppc64le-mprofile-large.o": ("mprofile", MPROFILE_LARGE),
}  # fmt: skip
EXPORTED = ("weakly", "outer", "starts", "ends")  # .dynsym has them
STRIPPED = {
    "arm64-stripped.o": ([0x18, 0x4C, 0x78, 0x18, 0x18], [None, "weakly", "outer", "starts", "ends"]),
    "ppc64le-stripped.o": ([0x1C, 0x7C, 0xCC, 0x1C, 0x1C], ["inner", "weakly", "outer", "starts", "ends"]),
    "arm64-stripped.so": ([0x18, 0x4C, 0x78, 0xD8, 0x10C], [None, *EXPORTED]),
    "ppc64le-stripped.so": ([0x7C, 0xDC, 0x12C, 0x1DC, 0x23C], [None, *EXPORTED]),
}


def scanned(path: Path | str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The image of a JSON report."""
    assert run(["scan", str(path), "--format", "json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert isinstance(image, dict)
    return image


def findings(path: Path | str, *rules: str) -> list[tuple[str, str, int]]:
    """(rule, message, count) of what is found."""
    found = check_file(Request(rules or known_rules()), str(path)).findings
    return [(one.finding.rule, one.finding.message, one.finding.count) for one in found]


@pytest.mark.parametrize("name", CASES)
def test_every_call_without_a_record_is_a_row(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    layout, places = CASES[name]
    image = scanned(CALLS / name, capsys)
    assert (image["layout"], image["carrier"]) == (layout, "none")
    assert (image["summary"]["slots"], image["summary"]["unrecorded"], image["summary"]["without_record"]) == (0, 5, 0)
    assert [site["function"] for site in image["sites"]] == list(places)
    elf: Any = parsed((CALLS / name).read_bytes())
    addresses = {section.name: section["sh_addr"] for section in elf.iter_sections()}
    table = elf.get_section_by_name(".symtab")
    for site in image["sites"]:
        function = site["function"]
        own = f".text.{function}" if "sections" in name else ".text"
        section = SECTION.get(function, own) if name.endswith(".o") else ".text"
        assert (site["row"], site["status"], site["section"]) == (None, "unrecorded", section)
        assert int(site["offset"], 16) == places[function]
        call = addresses[site["section"]] + places[function]
        assert [int(site[key], 16) for key in ("site", "branch", "record")] == [call] * 3
        (row,) = table.get_symbol_by_name(function)
        assert int(site["entry"], 16) == row["st_value"]
        local = row["st_other"]["local"] if name.startswith("ppc") else 0
        assert int(site["local_entry"], 16) == row["st_value"] + (1 << local >> 2 << 2)


@pytest.mark.parametrize("name", CASES)
def test_the_row_is_the_call_that_a_disassembler_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ppc = name.startswith("ppc")
    machine = (capstone.CS_ARCH_PPC, capstone.CS_MODE_64) if ppc else (capstone.CS_ARCH_ARM64, 0)
    decoder = capstone.Cs(machine[0], machine[1] | capstone.CS_MODE_LITTLE_ENDIAN)
    file = (CALLS / name).read_bytes()
    for site in scanned(CALLS / name, capsys)["sites"]:
        (shown,) = decoder.disasm(file[site["pos"] : site["pos"] + 4], 0)
        assert shown.mnemonic == "bl"
        assert [int(word, 16) for word in site["words"]] == [
            int.from_bytes(file[site["pos"] : site["pos"] + 4], "little")
        ]


@pytest.mark.parametrize("name", STRIPPED)
def test_calls_are_found_where_names_are_stripped(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    offsets, names = STRIPPED[name]
    image = scanned(CALLS / name, capsys)
    assert [int(site["offset"], 16) for site in image["sites"]] == offsets
    assert [site["function"] for site in image["sites"]] == names
    assert image["layout"] == "mcount"


@pytest.mark.parametrize(
    ("name", "first"),
    [("arm64.o", "inner, weakly, outer, …"), ("arm64-sections.o", "inner, weakly, outer, …"),
     ("ppc64le.o", "inner, weakly, outer, …"), ("ppc64le-mprofile.o", "inner, weakly, outer, …"),
     ("ppc64le-pcrel.o", "inner, weakly, outer, …"), ("arm64-stripped.o", ".text+0x18, weakly, outer, …")],
)  # fmt: skip
def test_a_file_without_any_record_is_an_error(name: str, first: str) -> None:
    """`scan` said "no patch sites", `check` "nothing found", of an object that recordmcount had not seen. The call of
    the exit function does not count: no kernel's build makes a record of that."""
    assert findings(CALLS / name) == [("calls-without-records", f"4 calls of _mcount and no record: {first}", 4)]
    assert run(["check", str(CALLS / name)]) == 1


@pytest.mark.parametrize("name", ["arm64-some.o", "ppc64le-some.o"])
def test_each_function_that_missed_its_record_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    image = scanned(CALLS / name, capsys)
    assert (image["summary"]["live"], image["summary"]["unrecorded"]) == (5, 5)
    rows = {site["function"]: (site["row"], site["status"]) for site in image["sites"]}
    recorded = ("inner", "weakly", "outer", "starts", "ends")
    assert rows == {
        **{function: (row, "ready") for row, function in enumerate(recorded)},
        **{f"{function}2": (None, "unrecorded") for function in recorded},
    }
    said = "calls _mcount and has no record, one of 4 beside 5 records"
    assert findings(CALLS / name, "call-without-record", "calls-without-records") == [
        ("call-without-record", f"{function} {said}", 1) for function in ("inner2", "weakly2", "outer2", "starts2")
    ]


@pytest.mark.parametrize("path", [MINI / "vmlinux-pg", PPC / "vmlinux-pg", PPC / "vmlinux-mprofile", MINI / "pg.o",
                                  PPC / "mprofile.o"], ids=lambda path: f"{path.parent.name}/{path.name}")  # fmt: skip
def test_files_with_all_their_records_have_no_such_rows(path: Path) -> None:
    scan = api.scan(str(path))
    assert len(scan.sites) == len(scan.records)
    assert findings(path, "call-without-record", "calls-without-records", "foreign-calls") == []


@pytest.mark.parametrize("machine", ["arm64", "ppc64le"])
def test_a_program_for_gprof_is_no_fault(machine: str) -> None:
    found = findings(CALLS / f"{machine}-static-pie", "profiled-program", "calls-without-records")
    assert found == [("profiled-program", "5 functions call _mcount: inner, weakly, outer, …", 5)]
    assert run(["check", str(CALLS / f"{machine}-static-pie")]) == 0


def test_calls_through_a_pointer_are_no_sites_and_said() -> None:
    text = "5 calls of _mcount through a pointer (-fno-plt, -mlongcall): no tracer can switch such a call"
    assert findings(CALLS / "ppc64le-noplt.o") == [("calls-without-records", text, 5)]


def test_explain_says_that_a_call_goes_through_a_pointer(capsys: pytest.CaptureFixture[str]) -> None:
    for name, why in (("outer", "it calls the profiling function (-pg) through a pointer"), ("untraced", "compiled")):
        assert run(["explain", name, str(CALLS / "ppc64le-noplt.o")]) == 0
        assert f"why        {why}" in capsys.readouterr().out


@pytest.mark.parametrize("machine", ["arm64", "ppc64le"])
def test_explain_says_that_no_record_names_the_call(machine: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It said "compiled without a patch site"."""
    why = "not traceable: it calls the profiling function (-pg), and no record names the call: recordmcount or objtool"
    assert run(["explain", "outer", str(CALLS / f"{machine}.o")]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"outer: {why} did not run, or left it out\n")
    assert "  record     none names it\n" in text
    assert run(["explain", "untraced", str(CALLS / f"{machine}.o")]) == 0
    assert "compiled without a patch site" in capsys.readouterr().out


# -- choosing and refusing ---------------------------------------------------------------------------------------------


def mprofile_without(tmp_path: Path, function: str) -> str:
    """The mprofile kernel without the record of one function: as ftpatch drop leaves it."""
    out = tmp_path / "dropped"
    assert run(["drop", str(PPC / "vmlinux-mprofile"), "--func", function, "-o", str(out)]) == 0
    return str(out)


def test_enable_refuses_a_call_without_a_record_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mprofile_without(tmp_path, "vfs_read")
    capsys.readouterr()
    assert run(["enable", path, "--func", "vfs_read", "-o", str(tmp_path / "out")]) == 5
    place = api.scan(path).sites.place_text(len(api.scan(path).records))
    assert capsys.readouterr().err == (
        f"ftpatch: {path}: 1 of 1 chosen sites cannot be patched: found vfs_read (no record, {place}): no record names "
        "its call, so that the kernel does not know the site (--unrecorded takes it), expected all of them, or nothing "
        "is written – --skip-unpatchable patches the others\n"
    )
    assert not (tmp_path / "out").exists()


def test_patterns_leave_out_what_has_no_record_where_others_have_one(tmp_path: Path) -> None:
    from ftpatch.sites.select import select

    table = api.scan(mprofile_without(tmp_path, "vfs_read")).sites
    names = {table.name(int(index)) for index in np.flatnonzero(select(table, ["vfs_*"]).mask)}
    assert "vfs_write" in names and "vfs_read" not in names
    alone = select(table, ["!vfs_write"]).mask
    assert "vfs_read" not in {table.name(int(index)) for index in np.flatnonzero(alone)}
    asked = np.flatnonzero(select(table, ["vfs_*"], ["unrecorded"]).mask).tolist()
    assert [table.name(index) for index in asked] == ["vfs_read"]
    everything = api.scan(str(CALLS / "arm64.o")).sites
    assert select(everything, ["*"]).mask.sum() == 5


def test_a_dropped_record_is_a_warning_and_not_a_missing_build_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = mprofile_without(tmp_path, "vfs_read")
    rules = ("call-without-record", "calls-without-records")
    text = "vfs_read calls _mcount and has no record, one of 1 beside 32 records"
    assert findings(path, *rules) == [("call-without-record", text, 1)]


def test_dropped_leftovers_of_weak_functions_are_no_finding(tmp_path: Path) -> None:
    """Nothing calls the code that the linker kept of an overridden function: its record may go."""
    out = tmp_path / "out"
    assert run(["drop", str(PPC / "vmlinux-mprofile"), "--status", "weak-leftover", "-o", str(out)]) == 0
    assert findings(out, "call-without-record", "calls-without-records") == []


def test_calls_of_the_profiler_beside_other_sites_are_an_object_of_other_flags(tmp_path: Path) -> None:
    path = MINI / "vmlinux-pfe2"
    file = path.read_bytes()
    renamed = file.replace(b"\0early_putn\0", b"\0_mcount\0\0\0\0")
    assert renamed != file
    text = "2 calls of _mcount beside pfe2 sites, the first at .text+0x390"
    assert findings(written(tmp_path / "file", renamed), "foreign-calls") == [("foreign-calls", text, 2)]


# -- the search itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("branch", "base"), [(BL_ARM64, 0xFFFF_8000_0000_0000), (BL_PPC, 0xC000_0000_0000_0000)])
def test_the_quick_search_finds_what_decoding_every_word_finds(branch: Branch, base: int) -> None:
    """Words that would go to the target from four times as far, or that only look alike, are no calls of it."""
    target = base + 0x7000
    code = np.random.default_rng(1).integers(0, 1 << 32, 100_000, dtype=np.uint32)
    for at in (0, 1, 32767, 32768, 99_999):  # the ends of the blocks that are compared at once
        code[at] = branch.encode(np.array([target - base - 4 * at]))[0]
    code[500] = branch.encode(np.array([target - base - 4 * 500 + 4]))[0]
    off, distance = branch.find(code)
    wanted = off[off + distance == target - base]
    assert wanted.tolist()[-1] == 4 * 99_999 and len(wanted) >= 5
    assert branch.calls_of(code, base, target).tolist() == wanted.tolist()


def test_a_call_that_wraps_around_is_none_of_this_target() -> None:
    """A target a multiple of 64 MB further has the same word: its distance does not fit into the branch."""
    code = BL_PPC.encode(np.array([0x1000]))
    assert BL_PPC.calls_of(code, 0, 0x1000).tolist() == [0]
    assert BL_PPC.calls_of(code, 0, 0x1000 + (1 << 26)).tolist() == []


def test_four_thousand_sections_are_read_once(tmp_path: Path) -> None:
    """-ffunction-sections gives a table of relocations to each function."""
    elf = Elf(ET_REL)
    n = 4_000
    names = [elf.section(f".text.f{i}", b"\0\0\0\x94\xc0\x03\x5f\xd6", flags=ALLOC | EXEC, align=4) for i in range(n)]
    for i in range(n):
        row = (0).to_bytes(8, "little") + (1 << 32 | 283).to_bytes(8, "little") + bytes(8)
        elf.section(f".rela.text.f{i}", row, type=RELA, info=names[i], link=2 * n + 1, entsize=24)
    elf.symbol("_mcount", 0, 0, type=NOTYPE)
    for i in range(n):
        elf.symbol(f"f{i}", names[i], 0, 8, type=FUNC)
    table = api.scan(written(tmp_path / "big.o", elf.build())).sites
    assert len(table) == n and table.name(n - 1) == f"f{n - 1}"


@pytest.mark.parametrize("damage", ["type-none", "beyond", "misaligned", "data"])
def test_relocations_that_are_no_calls_of_code_are_no_sites(damage: str, tmp_path: Path) -> None:
    """recordmcount itself makes NOPs of calls that are not to be traced, and their relocations NONE."""
    elf = Elf(ET_REL)
    flags = ALLOC if damage == "data" else ALLOC | EXEC
    text = elf.section(".text", b"\0\0\0\x94\xc0\x03\x5f\xd6", flags=flags, align=4)
    kind, place = {"type-none": (0, 0), "beyond": (283, 8), "misaligned": (283, 2), "data": (283, 0)}[damage]
    row = place.to_bytes(8, "little") + (1 << 32 | kind).to_bytes(8, "little") + bytes(8)
    elf.section(".rela.text", row, type=RELA, info=text, link=3, entsize=24)
    elf.symbol("_mcount", 0, 0, type=NOTYPE)
    elf.symbol("f", text, 0, 8, type=FUNC)
    assert len(api.scan(written(tmp_path / "file.o", elf.build())).sites) == 0


def test_many_symbols_of_the_profilers_name_are_asked_once(tmp_path: Path) -> None:
    """Each name is looked at once, whatever the number of symbols that have it."""
    file = bytearray((CALLS / "arm64-static-pie").read_bytes())
    elf: Any = parsed(bytes(file))
    symtab = elf.get_section_by_name(".symtab")
    (row,) = [row for row, one in enumerate(symtab.iter_symbols()) if one.name == "_mcount"]
    rows = bytes(file[symtab["sh_offset"] : symtab["sh_offset"] + symtab["sh_size"]])
    rows += 60_000 * rows[24 * row : 24 * row + 24]
    header = elf["e_shoff"] + 64 * [one.name for one in elf.iter_sections()].index(".symtab")
    file += bytes(-len(file) % 8)
    file[header + 24 : header + 40] = len(file).to_bytes(8, "little") + len(rows).to_bytes(8, "little")
    scan = api.scan(written(tmp_path / "file", file + rows))
    assert len(scan.sites) == 5 and len(scan.image.symbols.rows) > 60_000
