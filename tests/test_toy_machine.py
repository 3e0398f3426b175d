"""A new machine is one value: the toy of `toy_machine.py` in every verb, without a change in the package."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import toy_machine as toy
from elfwriter import ALLOC, ET_EXEC, ET_REL, EXEC, LOCAL, NOTYPE, RELA, SECTION, WRITE, Elf, rela, written

from ftpatch import api
from ftpatch.arch import arch_of, architectures, arm64, register, registered, support_table
from ftpatch.cli import run
from ftpatch.document.schema import schema
from ftpatch.errors import ArchError
from ftpatch.kernel.boot import bugs_of
from ftpatch.sites.table import ENABLED, READY, UNEXPECTED

BASE = 0xFFFF_9000_0000_0000
TEXT, TABLE = BASE + 0x1000, BASE + 0x8000
ENTRY = 0x18

Function = tuple[str, int, bytes]  # name, offset in the text, code
FUNCTIONS: tuple[Function, ...] = (
    ("f", 0x21, toy.NOP + b"\xaa\xbb"), ("g", 0x33, toy.PAD + toy.NOP + b"\xcc"), ("plain", 0x45, b"\xdd\xee"),
    ("h", 0x57, toy.NOP + b"\x11"),
)  # fmt: skip
RECORDS = (0x21, 0x36, 0x57)  # behind the landing pad of g
KERNEL: tuple[Function, ...] = (("toy_caller", 0x10, b"\x01\x02"), ("__entry__", ENTRY, b"\x02"))


def call(at: int, target: int) -> bytes:
    """A call in the text at one offset of another: the distance counts from behind the instruction."""
    return b"\xc5" + struct.pack("<i", target - at - 5)


def text_of(functions: tuple[Function, ...]) -> bytes:
    text = bytearray(0x80)
    for _, at, code in functions:
        text[at : at + len(code)] = code
    return bytes(text)


def kernel_file(functions: tuple[Function, ...] = FUNCTIONS, records: tuple[int, ...] = RECORDS) -> bytes:
    elf = Elf(ET_EXEC, toy.E_MACHINE)
    text = elf.section(".text", text_of(KERNEL + functions), flags=ALLOC | EXEC, addr=TEXT, align=16)
    slots = [0, *(TEXT + record for record in records)]
    content = struct.pack(f"<{len(slots)}Q", *slots)
    data = elf.section(".init.data", content, flags=ALLOC | WRITE, addr=TABLE, align=8)
    for name, at, code in KERNEL + functions:
        elf.symbol(name, text, TEXT + at, len(code))
    elf.symbol("__start_mcount_loc", data, TABLE, type=NOTYPE)
    elf.symbol("__stop_mcount_loc", data, TABLE + 8 * len(slots), type=NOTYPE)
    return elf.build()


def relocatable_file(modinfo: bytes = b"") -> bytes:
    """An object; a module where it has a .modinfo."""
    elf = Elf(ET_REL, toy.E_MACHINE)
    text = elf.section(".text", text_of(FUNCTIONS), flags=ALLOC | EXEC, align=16)
    slots = elf.section("__patchable_function_entries", bytes(8 * len(RECORDS)), flags=ALLOC | WRITE, align=8)
    rows = b"".join(rela(8 * i, toy.R_ABS64, record, 1) for i, record in enumerate(RECORDS))
    if modinfo:
        elf.section(".modinfo", modinfo, flags=ALLOC)
    elf.section(".rela__patchable_function_entries", rows, type=RELA, info=slots, link=len(elf.sections) + 1, align=8,
                entsize=24)  # fmt: skip
    elf.symbol("", text, 0, type=SECTION, bind=LOCAL)
    for name, at, code in FUNCTIONS:
        elf.symbol(name, text, at, len(code))
    return elf.build()


@pytest.fixture(autouse=True)
def machine() -> Iterator[None]:
    with registered(toy.ARCH):
        yield


@pytest.fixture
def vmlinux(tmp_path: Path) -> str:
    return written(tmp_path / "vmlinux", kernel_file())


@pytest.fixture
def module(tmp_path: Path) -> str:
    return written(tmp_path / "m.ko", relocatable_file(b"license=GPL\0name=m\0vermagic=1.2 SMP mod_unload\0"))


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """A kernel with one wrong byte in the NOP of f."""
    odd = tuple((name, at, b"\x90\x77\x92\x93\x94" if name == "f" else code) for name, at, code in FUNCTIONS)
    return written(tmp_path / "broken", kernel_file(odd))


Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Ran:
    """Run one command line: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


def document(ran: Ran, *arguments: object, code: int = 0) -> Any:
    """The JSON of one command line, which fits the schema of a program that knows the toy."""
    found, out, err = ran(*arguments, "--format", "json")
    assert found == code, err
    parsed = json.loads(out)
    jsonschema.validate(parsed, schema())
    return parsed["images"][0]


# -- the register ----------------------------------------------------------------------------------------------------


def test_a_machine_is_known_for_as_long_as_it_is_registered() -> None:
    assert arch_of(toy.E_MACHINE, "x") is toy.ARCH
    assert [row for row in support_table() if "toy" in row] == [
        "| toy | `toy5` | five bytes, a NOP or a call of __entry__ | yes | refused |  | scan |",
        "| toy | `toy-late` | a call of __entry__ somewhere in the prologue | yes | refused |  | scan |",
    ]


def test_a_name_or_number_is_taken_once() -> None:
    with pytest.raises(AssertionError, match="toy is registered already"):
        register(toy.ARCH)
    assert [arch.name for arch in architectures()].count("toy") == 1


def test_without_it_the_file_is_of_no_machine(tmp_path: Path) -> None:
    elf = Elf(ET_EXEC, 0x7A7B)
    elf.section(".text", bytes(16), flags=ALLOC | EXEC, addr=TEXT)
    with pytest.raises(ArchError, match=r"found e_machine 31355 \(unknown\), expected .*31354 \(toy\)"):
        api.scan(written(tmp_path / "v", elf.build()))


# -- sites -----------------------------------------------------------------------------------------------------------


def test_sites_at_odd_addresses_are_told_by_their_bytes(vmlinux: str) -> None:
    scan = api.scan(vmlinux)
    assert scan.sites.shape is not None and scan.sites.shape.name == "toy5"
    live = scan.records.live
    assert [scan.sites.name(i) for i in np.flatnonzero(live).tolist()] == ["f", "g", "h"]
    assert scan.sites.va[live].tolist() == [TEXT + record for record in RECORDS]
    assert scan.sites.entry_va[live].tolist() == [TEXT + 0x21, TEXT + 0x33, TEXT + 0x57]
    assert scan.sites.status[live].tolist() == [READY] * 3


def test_of_a_site_that_differs_in_one_byte_the_status_is_unexpected(broken: str) -> None:
    scan = api.scan(broken)
    assert scan.sites.status.tolist()[1:] == [UNEXPECTED, READY, READY]


def test_nops_and_calls_of_the_entry_are_ready_and_any_other_call_is_enabled(tmp_path: Path) -> None:
    """One layout for both: where a call goes is worked out from its end."""
    functions = (("f", 0x21, call(0x21, ENTRY)), ("g", 0x33, toy.PAD + call(0x36, 0x10)), ("h", 0x57, toy.NOP))
    scan = api.scan(written(tmp_path / "v", kernel_file(functions)))
    assert scan.sites.shape is not None and scan.sites.shape.name == "toy5"
    assert scan.sites.status.tolist()[1:] == [READY, ENABLED, READY]
    (bug,) = bugs_of(scan)
    assert (bug.function, f"{bug.expected:010x}") == ("g", call(0x36, ENTRY).hex())


def test_a_site_without_a_record_is_found_behind_the_landing_pad(tmp_path: Path) -> None:
    functions = (*FUNCTIONS[:1], ("g", 0x33, toy.PAD + call(0x36, 0x10)), *FUNCTIONS[2:])
    scan = api.scan(written(tmp_path / "v", kernel_file(functions, (0x21, 0x57))))
    assert (scan.sites.row.tolist(), scan.sites.va.tolist()[3:]) == ([0, 1, 2, -1], [TEXT + 0x36])
    assert scan.sites.name(3) == "g"


def test_code_at_the_ends_of_a_section_is_read_as_far_as_it_goes(vmlinux: str) -> None:
    image = api.scan(vmlinux).image
    sec = np.array([1, 1, 1, -1])
    window = image.window(sec, np.array([2, 0x21, 0x7E, 4]))
    assert window.shape == (4, 32)
    assert window[1, 8:13].tolist() == list(toy.NOP)
    assert window[0, :14].tolist() == [0] * 14 and not window[2:].any()
    assert image.code(TEXT + 0x57, 100).tolist() == [*toy.NOP, 0x11, *[0] * (0x80 - 0x5D)]


@pytest.mark.parametrize("distance", [5, 4, 0, -1, (1 << 31) + 4, 5 - (1 << 31)])
def test_a_call_counts_from_its_end(distance: int) -> None:
    made = toy.CALL.encode(np.array([distance]))
    assert bytes(made[0].astype(np.uint8)) == b"\xc5" + struct.pack("<i", distance - 5)
    assert toy.CALL.decode(made).tolist() == [distance]


@pytest.mark.parametrize("distance", [(1 << 31) + 5, 4 - (1 << 31)])
def test_a_distance_that_32_bits_do_not_hold_is_out_of_reach(distance: int) -> None:
    assert not toy.CALL.reaches(np.array([distance]))[0]
    with pytest.raises(AssertionError):
        toy.CALL.encode(np.array([distance]))


def test_calls_are_found_at_any_byte_and_words_only_whole() -> None:
    code = np.frombuffer(b"\x01" + b"\xc5" + struct.pack("<i", 7) + b"\x00\xc5\x01", np.uint8).astype(np.uint32)
    at, distance = toy.CALL.find(code)
    assert (at.tolist(), distance.tolist()) == ([1], [12])
    assert [found.tolist() for found in toy.CALL.find(code[:3])] == [[], []]
    at, distance = arm64.BL.find(np.array([0, 0x9400_0002], dtype=np.uint32))
    assert (at.tolist(), distance.tolist()) == ([4], [8])


# -- the reading verbs -----------------------------------------------------------------------------------------------


def test_scan_as_text(ran: Ran, vmlinux: str) -> None:
    code, out, _ = ran("scan", vmlinux)
    assert code == 0
    assert (
        out
        == f"""{vmlinux}: toy vmlinux
  layout     toy5: five bytes, a NOP or a call of __entry__
             1 of the functions have a landing pad in front of them
  records    4 slots, 1 null, 3 live
  values in  words of the file itself
  sections   .text 3
  status     ready 3
  reach      toy_caller at most 0.0 MiB away, a call spans 2048.0 MiB; 0 sites beyond
             the text may grow by 2048.0 MiB until a site reaches nothing
  at boot    ftrace: allocating 3 entries; 3 functions listed once init memory is freed
"""
    )


def test_scan_as_json(ran: Ran, vmlinux: str) -> None:
    """The code of a site is one string: its bytes in the file's order."""
    image = document(ran, "scan", "--sites", vmlinux)
    assert (image["arch"], image["layout"], image["kind"]) == ("toy", "toy5", "vmlinux")
    assert [site["words"] for site in image["sites"]] == [[], *[["0x9091929394"]] * 3]
    assert image["sites"][2] == {
        "row": 2, "record": f"{TEXT + 0x36:#x}", "section": ".text", "shndx": 1, "function": "g", "aliases": [],
        "entry": f"{TEXT + 0x33:#x}", "local_entry": f"{TEXT + 0x33:#x}", "site": f"{TEXT + 0x36:#x}",
        "branch": f"{TEXT + 0x36:#x}", "offset": "0x36", "pos": 64 + 0x36, "words": ["0x9091929394"], "status": "ready",
        "listed_as": None,
    }  # fmt: skip


def test_scan_as_csv(ran: Ran, module: str) -> None:
    code, out, _ = ran("scan", "--sites", "--format", "csv", module)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [(row["function"], row["offset"], row["words"], row["status"]) for row in rows] == [
        ("f", "0x21", "0x9091929394", "ready"), ("g", "0x36", "0x9091929394", "ready"),
        ("h", "0x57", "0x9091929394", "ready"),
    ]  # fmt: skip


def test_scan_of_an_object_and_of_a_tree(ran: Ran, module: str, tmp_path: Path) -> None:
    image = document(ran, "scan", written(tmp_path / "o.o", relocatable_file()))
    assert (image["kind"], image["layout"], image["carrier"]) == ("object", "toy5", "section")
    tree = tmp_path / "tree"
    tree.mkdir()
    Path(module).rename(tree / "m.ko")
    assert document(ran, "scan", tree)["summary"]["live"] == 3


def test_check_finds_nothing_in_sound_files(ran: Ran, vmlinux: str, module: str) -> None:
    assert document(ran, "check", vmlinux)["findings"] == []
    assert document(ran, "check", module, "--against", vmlinux)["findings"] == []


def test_check_names_the_bytes_that_differ(ran: Ran, broken: str) -> None:
    (finding,) = document(ran, "check", broken, code=1)["findings"]
    assert (finding["rule"], finding["function"], finding["offset"]) == ("unexpected-words", "f", "0x21")
    assert finding["message"] == "row 1 has 9077929394, not 90 91 92 93 94 or c5 ?? ?? ?? ??"


def test_check_predicts_the_boot(ran: Ran, broken: str) -> None:
    (bug,) = document(ran, "check", "--predict", broken, code=1)["oracle"]["bugs"]
    assert (bug["expected"], bug["found"], bug["actual"]) == ("0x9091929394", "0x9077929394", "0x9077929394")
    _, out, _ = ran("check", "--predict", broken)
    assert "ftrace bug: ftrace failed to modify f+0x0, actual: 90:77:92:93:94\n" in out


@pytest.mark.parametrize("form", ["sarif", "junit", "ktap", "markdown", "github"])
def test_every_format_of_check(ran: Ran, broken: str, tmp_path: Path, form: str) -> None:
    code, _, err = ran("check", broken, "--report", f"{form}={tmp_path / 'out'}")
    assert code == 1, err
    assert "9077929394" in (tmp_path / "out").read_text()


def test_explain_shows_bytes_from_the_entry_on(ran: Ran, vmlinux: str) -> None:
    code, out, _ = ran("explain", "g", vmlinux)
    assert code == 0
    shown = [line.rstrip() for line in out.splitlines() if line.startswith("    ffff")]
    assert shown == [
        "    ffff900000001033  b0b1b2            .byte b0 b1 b2                  <- entry",
        "    ffff900000001036  9091929394        .byte 90 91 92 93 94            <- record, call",
        "    ffff90000000103b  cc00000000000000  .byte cc 00 00 00 00 00 00 00",
    ]
    assert "patching toy is not supported: expected arm64, ppc64le, x86_64" in " ".join(out.split())
    (told,) = document(ran, "explain", "g", vmlinux)["explained"]
    assert [row["word"] for row in told["code"][0]["words"]] == ["0xb0b1b2", "0x9091929394", "0xcc00000000000000"]


def test_explain_tells_why_a_function_has_no_site(ran: Ran, vmlinux: str, module: str) -> None:
    assert document(ran, "explain", "plain", vmlinux)["absent"]["symbols"][0]["state"] == "siteless"
    assert document(ran, "explain", "h", module)["explained"][0]["function"] == "h"


def test_diff_tells_the_function_that_is_lost(ran: Ran, vmlinux: str, broken: str) -> None:
    code, out, _ = ran("diff", vmlinux, broken)
    assert code == 1 and "f is no longer traceable" in out
    assert document(ran, "diff", vmlinux, vmlinux)["file"] == vmlinux


def test_list_rules_does_not_depend_on_machines(ran: Ran) -> None:
    code, out, _ = ran("check", "--list-rules")
    assert code == 0 and "unexpected-words" in out


def test_a_shape_can_be_forced(ran: Ran, vmlinux: str) -> None:
    assert document(ran, "scan", "--layout", "toy-late", vmlinux)["summary"]["by_status"] == {"unexpected": 3}
    code, _, err = ran("scan", "--layout", "pfe2", vmlinux)
    assert (code, err) == (4, "ftpatch: toy has no layout of that name: found pfe2, expected toy5, toy-late\n")


def test_where_no_layout_fits_samples_are_bytes(ran: Ran, tmp_path: Path) -> None:
    path = written(tmp_path / "v", kernel_file((("f", 0x21, bytes(range(1, 17))),), (0x21,)))
    code, _, err = ran("scan", path)
    assert code == 4
    assert f"(row 1 at {TEXT + 0x21:#x}: 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10)" in err


# -- tiers that it does not reach ------------------------------------------------------------------------------------

ELSEWHERE = "expected arm64, ppc64le, x86_64"
ASSEMBLED = "expected arm64, ppc64le"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("enable", "{file}", "--func", "f", "-o", "{out}"), "patching toy is not supported"),
        (("enable", "{file}", "--func", "f", "--dry-run"), "patching toy is not supported"),
        (("disable", "{file}", "--func", "f", "-o", "{out}"), "patching toy is not supported"),
        (("drop", "{file}", "--func", "f", "-o", "{out}"), "patching toy is not supported"),
        (("verify", "{file}", "{file}"), "verifying toy is not supported"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["vmlinux", "module"])
def test_writing_and_proving_are_refused_in_words(
    ran: Ran, request: pytest.FixtureRequest, tmp_path: Path, kind: str, arguments: tuple[str, ...], said: str
) -> None:
    file, out = request.getfixturevalue(kind), tmp_path / "out"
    code, _, err = ran(*(one.format(file=file, out=out) for one in arguments))
    assert code == 4
    assert err.startswith(f"ftpatch: {file}: {said}: {ELSEWHERE}") and err.count("\n") == 1
    assert not out.exists()


def test_a_boot_image_is_refused_in_words(ran: Ran, vmlinux: str, tmp_path: Path) -> None:
    code, _, err = ran("image", vmlinux, "-o", tmp_path / "out")
    assert (code, err) == (4, f"ftpatch: {vmlinux}: making a boot image for toy is not supported: {ELSEWHERE}\n")
    assert not (tmp_path / "out").exists()


def test_a_stub_in_assembly_is_refused_in_words(ran: Ran, module: str, tmp_path: Path) -> None:
    stub = written(tmp_path / "stub.s", b"nop\n")
    code, _, err = ran("enable", module, "--func", "f", "--stub-asm", stub, "-o", tmp_path / "out")
    assert (code, err) == (4, f"ftpatch: {stub}: assembling stubs for toy is not supported: {ASSEMBLED}\n")


def test_a_log_of_a_machine_without_signs_is_explained(ran: Ran, broken: str, tmp_path: Path) -> None:
    lines = (
        "------------[ ftrace bug ]------------", "ftrace failed to modify", "[<ffff900000001021>] f+0x0/0x7",
        " actual:   90:77:92:93:94", "Initializing ftrace call sites",
    )  # fmt: skip
    log = written(tmp_path / "log", "\n".join(lines).encode())
    code, out, err = ran("explain", "--splat", log, broken)
    assert code == 0, err
    assert "unexpected-words" in out
