"""Live patch modules: what they patch is said, what is special in them stays, and damaged names are findings."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elfwriter import MINI, parsed, written

from ftpatch import api
from ftpatch.cli import run
from ftpatch.kernel.live_patch import live_patch_of
from ftpatch.rules.run import Request, check_file

LIVE = MINI.parent / "live"
MACHINES = ["arm64", "ppc64le"]
SHN_LIVEPATCH, SHF_RELA_LIVEPATCH = 0xFF20, 0x00100000
NAME, SECTION = ".klp.sym.vmlinux.hidden_counter,1", ".klp.rela.vmlinux..text"
SECTIONS = {"arm64": SECTION, "ppc64le": ".klp.rela.vmlinux..toc"}
EXPECTED = {
    "objects": ["vmlinux", "dummy"],
    "functions": [
        {"object": "vmlinux", "function": "uptime_proc_show", "replacement": "live_uptime", "position": 0},
        {"object": "vmlinux", "function": "cmdline_proc_show", "replacement": "live_cmdline", "position": 2},
        {"object": "dummy", "function": "dummy_xmit", "replacement": "live_xmit", "position": 0},
    ],
    "symbols": [{"object": "vmlinux", "name": "hidden_counter", "position": 1}],
    "sections": [SECTION],
    "declared": True,
}


def scanned(path: Path | str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["scan", str(path), "--format", "json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert isinstance(image, dict)
    return image


def special(file: bytes) -> tuple[Any, ...]:
    """By pyelftools: the raw rows of the live patch symbols, and header fields and content of the tables for them."""
    elf: Any = parsed(file)
    symtab = elf.get_section_by_name(".symtab")
    symbols = [
        (symbol.name, file[symtab["sh_offset"] + 24 * row + 4 :][:20])
        for row, symbol in enumerate(symtab.iter_symbols()) if symbol.name.startswith(".klp.")
    ]  # fmt: skip
    tables = [
        (one.name, one["sh_flags"], one["sh_type"], elf.get_section(one["sh_info"]).name, one.data())
        for one in elf.iter_sections() if one.name.startswith(".klp.")
    ]  # fmt: skip
    return symbols, tables


@pytest.mark.parametrize("machine", MACHINES)
def test_scan_says_what_a_live_patch_is_for(machine: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = LIVE / f"{machine}.ko"
    assert scanned(path, capsys)["live_patch"] == {**EXPECTED, "sections": [SECTIONS[machine]]}
    assert run(["scan", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[1:5] == [
        "  live patch for vmlinux, dummy: 3 functions replaced, 1 symbol resolved when it is applied",
        "             vmlinux:uptime_proc_show by live_uptime",
        "             vmlinux:cmdline_proc_show by live_cmdline",
        "             dummy:dummy_xmit by live_xmit",
    ]
    assert run(["check", str(path)]) == 0


@pytest.mark.parametrize("path", [MINI / "mini.ko", MINI / "pfe2.o", MINI / "vmlinux-pfe2"], ids=lambda path: path.name)
def test_other_files_are_no_live_patches(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "live_patch" not in scanned(path, capsys)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_special_stays_byte_for_byte(machine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out, back, off = LIVE / f"{machine}.ko", tmp_path / "out.ko", tmp_path / "back.ko", tmp_path / "off.ko"
    journal = tmp_path / "journal"
    before = special(path.read_bytes())
    assert [name for name, _ in before[0]] == [NAME] and before[1][0][1] & SHF_RELA_LIVEPATCH
    hook = ["--func", "live_cmdline", "--hook", "_printk", "--report", f"json={journal}"]
    assert run(["enable", str(path), *hook, "-o", str(out)]) == 0
    assert special(out.read_bytes()) == before
    assert scanned(out, capsys)["live_patch"] == {**EXPECTED, "sections": [SECTIONS[machine]]}
    assert run(["verify", str(path), str(out), "--journal", str(journal)]) == 0
    assert run(["diff", str(path), str(out)]) == 1
    assert run(["disable", str(out), "--func", "live_cmdline", "-o", str(off)]) == 0
    assert special(off.read_bytes()) == before
    assert run(["restore", str(out), "--journal", str(journal), "-o", str(back)]) == 0
    assert back.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("machine", ["arm64"])
def test_a_site_that_a_live_patch_relocation_writes_into_is_refused(
    machine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The live patching core writes there later than the loader does: as every relocation, it is in the way."""
    file = bytearray((LIVE / f"{machine}.ko").read_bytes())
    elf: Any = parsed(bytes(file))
    scan = api.scan(str(LIVE / f"{machine}.ko"))
    (site,) = [index for index in range(len(scan.sites)) if scan.sites.name(index) == "live_cmdline"]
    at = elf.get_section_by_name(SECTION)["sh_offset"]
    struct.pack_into("<Q", file, at, int(scan.sites.off[site] + scan.sites.site[site]))
    path = written(tmp_path / "file.ko", file)
    assert run(["enable", path, "--func", "live_cmdline", "--hook", "_printk", "-o", str(tmp_path / "out.ko")]) == 5
    assert "live_cmdline" in capsys.readouterr().err


@pytest.mark.parametrize("machine", ["arm64"])
def test_the_first_function_of_a_module_may_lead_into_the_kernel(
    machine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A function of another file has no place in this one, and 0 is the place of this module's first function."""
    path, out = str(LIVE / f"{machine}.ko"), str(tmp_path / "out.ko")
    (live,) = [site for site in scanned(path, capsys)["sites"] if site["function"] == "live_uptime"]
    assert live["entry"] == "0x0000000000000000"
    assert run(["redirect", path, "--func", "live_uptime", "--to", "klp_enable_patch", "-o", out]) == 0
    assert run(["verify", path, out]) == 0
    assert "redirects  klp_enable_patch 1" in capsys.readouterr().out


@pytest.mark.parametrize("others", [[], ["live_xmit", "live_uptime"]])  # which lose their records, too
def test_a_replacement_with_a_call_of_the_profiler_comes_along(
    others: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loader does not ask for a nop behind a call of _mcount, which it turns into one itself."""
    path, out = str(LIVE / "ppc64le.ko"), str(tmp_path / "out.ko")
    options = [f"--map={func}=printed_cmdline" for func in ("live_cmdline", *others)]
    assert run(["redirect", path, *options, "--with", str(LIVE / "print-ppc64le.o"), "-o", out]) == 0
    assert run(["verify", path, out, "--require-emulation"]) == 0
    sites = {site["function"]: site["status"] for site in scanned(out, capsys)["sites"]}
    assert (sites["live_cmdline"], sites["printed_cmdline"]) == ("enabled", "ready")


# -- damaged -----------------------------------------------------------------------------------------------------------


def renamed(old: bytes, new: bytes) -> Callable[[bytearray], None]:
    """Other bytes of the same length in place of a name."""
    assert len(old) == len(new)

    def change(file: bytearray) -> None:
        at = file.index(old)
        file[at : at + len(old)] = new

    return change


def symbol_section(number: int) -> Callable[[bytearray], None]:
    def change(file: bytearray) -> None:
        symtab: Any = parsed(bytes(file)).get_section_by_name(".symtab")
        (row,) = [row for row, symbol in enumerate(symtab.iter_symbols()) if symbol.name == NAME]
        struct.pack_into("<H", file, symtab["sh_offset"] + 24 * row + 6, number)

    return change


def header(field: int, kind: str, value: int) -> Callable[[bytearray], None]:
    """A field of the header of the live patch relocations."""

    def change(file: bytearray) -> None:
        elf: Any = parsed(bytes(file))
        number = [section.name for section in elf.iter_sections()].index(SECTION)
        struct.pack_into("<" + kind, file, elf["e_shoff"] + 64 * number + field, value)

    return change


FLAGS = 0x42  # SHF_ALLOC, SHF_INFO_LINK
WRONG_NAME = "not .klp.sym.OBJECT.NAME,POSITION"
# what is damaged → the messages, where N stands for the number of the symbol or section
DAMAGES: list[tuple[str, Callable[[bytearray], None], list[str]]] = [
    ("no-position", renamed(b"hidden_counter,1\0", b"hidden_counter_1\0"),
     [f"symbol N is named '.klp.sym.vmlinux.hidden_counter_1', {WRONG_NAME}"]),
    ("position-no-number", renamed(b"hidden_counter,1\0", b"hidden_counter,x\0"),
     [f"symbol N is named '.klp.sym.vmlinux.hidden_counter,x', {WRONG_NAME}"]),
    ("no-object", renamed(b".klp.sym.vmlinux.hidden", b".klp.sym..vmlinuxhidden"),
     [f"symbol N is named '.klp.sym..vmlinuxhidden_counter,1', {WRONG_NAME}"]),
    ("control-characters", renamed(b"hidden_counter,1\0", b"hidden\x1b\x07ounter;1\0"),
     [f"symbol N is named '.klp.sym.vmlinux.hidden\\x1b\\x07ounter;1', {WRONG_NAME}"]),
    ("not-marked", symbol_section(0),
     [f"symbol N {NAME} is not marked: its section number is not SHN_LIVEPATCH",
      f"section N {SECTION} has 2 relocations against symbols that are not SHN_LIVEPATCH"]),
    ("section-without-object", renamed(b".klp.rela.vmlinux..text", b".klp.rela..vmlinux.text"),
     ["section N is named '.klp.rela..vmlinux.text', not .klp.rela.OBJECT.SECTION"]),
    ("section-of-another", renamed(b".klp.rela.vmlinux..text", b".klp.rela.vmlinux..data"),
     ["section N .klp.rela.vmlinux..data is for .text, as its sh_info has it"]),
    ("no-flag", header(8, "Q", FLAGS),
     [f"section N {SECTION} has no SHF_RELA_LIVEPATCH: the loader applies it at once"]),
    ("sh-info-beyond", header(44, "I", 9999),
     [f"section N {SECTION} is no table of relocations of a section of this file"]),
    ("not-declared", renamed(b"livepatch=Y", b"livepitch=Y"),
     ["it has live patch symbols or sections, and its .modinfo does not say livepatch=Y"]),
]  # fmt: skip


@pytest.mark.parametrize("machine", ["arm64"])
@pytest.mark.parametrize(("damage", "messages"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_what_the_kernel_refuses_in_a_live_patch_is_found(
    machine: str, damage: Callable[[bytearray], None], messages: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = bytearray((LIVE / f"{machine}.ko").read_bytes())
    damage(file)
    path = written(tmp_path / "file.ko", file)
    found = [one.finding.message for one in check_file(Request(("live-patch-form",)), path).findings]
    anonymous = [
        " ".join("N" if word.isdigit() and i == 1 else word for i, word in enumerate(text.split(" "))) for text in found
    ]
    assert anonymous == messages
    assert run(["scan", path]) == 0 and run(["check", path]) == 1
    assert scanned(path, capsys)["live_patch"]["functions"] == EXPECTED["functions"]


def test_pointers_that_lead_nowhere_end_the_walk(tmp_path: Path) -> None:
    """Every relocation of the data points at the first struct: objects of objects, and no function of any."""
    file = bytearray((LIVE / "arm64.ko").read_bytes())
    elf: Any = parsed(bytes(file))
    table = elf.get_section_by_name(".rela.data")
    first = file[table["sh_offset"] + 24 + 8 : table["sh_offset"] + 48]
    for row in range(1, table.num_relocations()):
        file[table["sh_offset"] + 24 * row + 8 : table["sh_offset"] + 24 * row + 24] = first
    patch = live_patch_of(api.scan(written(tmp_path / "file.ko", file)).image)
    assert patch is not None and patch.functions == () and patch.objects == ("vmlinux",)
