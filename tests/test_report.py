"""Reports: JSON against the interface's field lists and the shipped schema, CSV columns, text as a whole."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from elfwriter import MINI, pos_of, symbol

import ftpatch.report
from ftpatch.cli import run

# The interface: what other programs may rely on.
IMAGE = ["file", "sha256", "build_id", "arch", "kind", "layout", "carrier", "summary", "sites"]
SUMMARY = ["slots", "null", "live", "by_section", "by_status", "boot"]
SITE = [
    "row", "record", "section", "shndx", "function", "aliases", "entry", "local_entry", "site", "branch", "offset",
    "pos", "words", "status", "listed_as",
]  # fmt: skip
WRITING = ["action", "reason", "target", "distance", "new_words", "record_fate", "literal", "stub", "concurrency",
           "live"]  # fmt: skip
EVERY = [
    "vmlinux-pfe2", "vmlinux-pfe2-bti", "vmlinux-exec", "vmlinux-kcfi", "vmlinux-callops", "vmlinux-callops-bti",
    "vmlinux-pg", "vmlinux-notrace", "pfe2.o", "callops.o", "clang-sections.o", "pg.o", "mini.ko", "program",
]  # fmt: skip
HEX16, HEX8, HEX = r"0x[0-9a-f]{16}", r"0x[0-9a-f]{8}", r"0x[0-9a-f]+"
SCHEMA = json.loads((Path(ftpatch.report.__file__).parent / "schema.json").read_text())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("vmlinux-callops", "vmlinux-pfe2", "vmlinux-exec"):
        shutil.copyfile(MINI / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def output(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert run(list(arguments)) == code
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    found = json.loads(output(capsys, *arguments, "--format", "json", code=code))
    jsonschema.validate(found, SCHEMA)
    return found


def check_site(site: dict[str, Any]) -> None:
    assert re.fullmatch(HEX16, site["record"])
    for key in ("entry", "local_entry", "site", "branch"):
        assert site[key] is None or re.fullmatch(HEX16, site[key])
    assert site["offset"] is None or re.fullmatch(HEX, site["offset"])
    assert all(re.fullmatch(HEX8, word) for word in site["words"])
    for key in ("row", "shndx", "pos"):
        assert site[key] is None or type(site[key]) is int


@pytest.mark.parametrize("name", EVERY)
def test_a_scan_has_the_fields_of_the_interface(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(MINI / name)
    found = document(capsys, "scan", path)
    assert (found["schema"], found["command"], list(found)) == (1, "scan", ["schema", "command", "images"])
    (image,) = found["images"]
    assert list(image)[: len(IMAGE)] == IMAGE
    assert set(SUMMARY) <= set(image["summary"])
    assert (image["file"], image["arch"]) == (path, "arm64")
    assert image["sha256"] == hashlib.sha256((MINI / name).read_bytes()).hexdigest()
    assert len(image["sites"]) == image["summary"]["slots"]
    for site in image["sites"]:
        assert list(site) == SITE
        check_site(site)


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        (
            "vmlinux-callops",
            {
                "slots": 19, "null": 3, "live": 16, "by_section": {".text": 12, ".init.text": 4},
                "by_status": {"ready": 16}, "boot": {"allocating": 16, "listed": 12},
            },
        ),
        (
            "vmlinux-pfe2",
            {
                "slots": 19, "null": 0, "live": 19, "by_section": {".text": 15, ".init.text": 4},
                "by_status": {"ready": 16, "weak-leftover": 3}, "boot": {"allocating": 19, "listed": 15},
            },
        ),
        (
            "mini.ko",
            {
                "slots": 6, "null": 0, "live": 6, "by_section": {".text": 3, ".init.text": 3},
                "by_status": {"ready": 6}, "boot": None,
            },
        ),
        (
            "vmlinux-notrace",
            {"slots": 0, "null": 0, "live": 0, "by_section": {}, "by_status": {}, "boot": None},
        ),
    ],
)  # fmt: skip
def test_the_summary_counts_what_the_sources_hold(
    name: str, summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, "scan", str(MINI / name))["images"][0]["summary"]
    assert {key: found[key] for key in SUMMARY} == summary


def test_selectors_filter_sites_and_never_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(MINI / "vmlinux-callops")
    (whole,) = document(capsys, "scan", path)["images"]
    (part,) = document(capsys, "scan", path, "--func", "vfs_*")["images"]
    assert part["summary"] == whole["summary"]
    assert part["sites"] == [site for site in whole["sites"] if (site["function"] or "").startswith("vfs_")]
    assert len(part["sites"]) == 2


def test_a_written_image_has_the_fields_of_a_journal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = document(capsys, "enable", "vmlinux-callops", "--func", "vfs_read", "-o", "out")["images"]
    assert [key for key in IMAGE if key not in image] == []
    old, new = (hashlib.sha256((here / one).read_bytes()).hexdigest() for one in ("vmlinux-callops", "out"))
    assert image["sha256"] == old
    assert image["output"] == {"file": "out", "sha256": new, "elf_sha256": new}
    (site,) = image["sites"]
    assert list(site) == [*SITE, *WRITING]
    check_site(site)
    file = (MINI / "vmlinux-callops").read_bytes()
    distance = symbol(file, "ftrace_caller") - symbol(file, "vfs_read") - 4
    call = 0x9400_0000 | distance >> 2 & 0x03FF_FFFF
    assert {key: site[key] for key in WRITING} == {
        "action": "call", "reason": None, "target": "ftrace_caller", "distance": distance,
        "new_words": ["0xaa1e03e9", f"0x{call:08x}"], "record_fate": "null", "literal": "ftrace_list_ops",
        "stub": None, "concurrency": "pair", "live": "no",
    }  # fmt: skip
    assert site["status"] == "ready"


def test_the_journals_edits_are_the_difference_of_the_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = document(capsys, "enable", "vmlinux-callops", "--func", "vfs_*", "-o", "out")["images"]
    before, after = (here / "vmlinux-callops").read_bytes(), (here / "out").read_bytes()
    positions = [edit["pos"] for edit in image["edits"]]
    assert positions == sorted(positions)
    assert all(list(edit) == ["pos", "old", "new", "owner", "concurrency"] for edit in image["edits"])
    mine = bytearray(before)
    for edit in image["edits"]:
        old, new = bytes.fromhex(edit["old"]), bytes.fromhex(edit["new"])
        assert mine[edit["pos"] : edit["pos"] + len(old)] == old
        mine[edit["pos"] : edit["pos"] + len(new)] = new
    assert bytes(mine) == after
    owners = {edit["owner"].split()[0] for edit in image["edits"]}
    assert owners == {"site", "literal", "relocation", "record"}
    (owner,) = [edit["owner"] for edit in image["edits"] if edit["pos"] == pos_of(before, symbol(before, "vfs_read"))]
    assert owner == "site row:12"


def test_a_thunk_shows_as_a_stub(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("vmlinux-callops", "--func", "vfs_read", "--ops-via", "thunk", "--dry-run")
    (image,) = document(capsys, "enable", *arguments)["images"]
    (site,) = image["sites"]
    assert (site["action"], site["target"], site["literal"]) == ("call_via_stub", "ftrace_caller", None)
    file = (MINI / "vmlinux-callops").read_bytes()
    assert symbol(file, "_etext") - 144 < int(site["stub"], 16) <= symbol(file, "_etext") - 16
    assert site["distance"] == int(site["stub"], 16) - int(site["branch"], 16)


def test_a_dry_run_has_edits_but_no_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("enable", "vmlinux-callops", "--func", "vfs_read")
    (dry,) = document(capsys, *arguments, "--dry-run")["images"]
    (real,) = document(capsys, *arguments, "-o", "out")["images"]
    assert (dry["output"], dry["packing"]) == (None, None)
    assert dry == {**real, "output": None, "packing": None}


def test_sites_left_out_are_kept_with_their_reason(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["enable", "vmlinux-callops", "--func", "vfs_read", "-o", "one"]) == 0
    (image,) = document(capsys, "enable", "one", "--func", "vfs_*", "--skip-unpatchable", "--dry-run")["images"]
    found = {site["function"]: (site["action"], site["reason"], site["record_fate"]) for site in image["sites"]}
    assert found["vfs_write"] == ("call", None, "null")
    assert found["vfs_read"][:2] == ("keep", "already enabled")


@pytest.mark.parametrize(
    ("name", "way", "fate"),
    [
        ("vmlinux-callops", "null", "null"),
        ("vmlinux-pfe2", "minus4", "minus4"),
        ("vmlinux-exec", "shrink", "cut"),
        ("vmlinux-exec", "keep", "kept"),
    ],
)
def test_the_fate_of_a_record_follows_its_way(
    name: str, way: str, fate: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (name, "--func", "vfs_read", "--records", way, "--dry-run")
    (image,) = document(capsys, "enable", *arguments)["images"]
    assert [site["record_fate"] for site in image["sites"]] == [fate]


def test_a_bad_file_is_an_error_object_beside_the_good_ones(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad").write_bytes(b"hello, world")
    found = document(capsys, "scan", "bad", "vmlinux-exec", code=3)
    assert [image["file"] for image in found["images"]] == ["vmlinux-exec"]
    assert found["errors"] == [
        {
            "file": "bad", "code": 3,
            "message": "bad: not an ELF file: found text that begins \"hello, world\", expected 7f 45 4c 46 – give "
            "the uncompressed ELF vmlinux of the same build (Debian: the -dbg package)",
        }
    ]  # fmt: skip


def test_json_has_one_site_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "scan", str(MINI / "vmlinux-callops"), "--format", "json").splitlines()
    assert sum(line.startswith('  {"row": ') for line in lines) == 19


@pytest.mark.parametrize("format_", ["text", "json", "csv"])
def test_the_same_input_gives_the_same_bytes(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("scan", str(MINI / "vmlinux-callops"), str(MINI / "pfe2.o"), "--sites", "--format", format_)
    assert output(capsys, *arguments) == output(capsys, *arguments)


def test_csv_has_the_columns_of_json_and_a_line_per_site(capsys: pytest.CaptureFixture[str]) -> None:
    paths = (str(MINI / "vmlinux-callops"), str(MINI / "pg.o"))
    rows = list(csv.reader(io.StringIO(output(capsys, "scan", *paths, "--format", "csv"))))
    assert rows[0] == ["file", *SITE]
    expected = []
    for image in document(capsys, "scan", *paths)["images"]:
        for site in image["sites"]:
            flat = {key: " ".join(value) if isinstance(value, list) else value for key, value in site.items()}
            expected.append([image["file"], *("" if flat[key] is None else str(flat[key]) for key in SITE)])
    assert rows[1:] == expected
    assert len(rows) == 1 + 19 + 8


def test_csv_of_a_writing_verb_appends_its_columns(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "enable", "vmlinux-callops", "--func", "vfs_*", "--dry-run", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["file", *SITE, *WRITING]
    assert [(row["function"], row["action"], row["literal"]) for row in rows] == [
        ("vfs_read", "call", "ftrace_list_ops"), ("vfs_write", "call", "ftrace_list_ops"),
    ]  # fmt: skip


def test_csv_of_nothing_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "scan", str(MINI / "vmlinux-notrace"), "--format", "csv")
    assert text == ",".join(["file", *SITE]) + "\n"


CALLOPS_TEXT = """\
vmlinux-callops: arm64 vmlinux, build-id 1a6c759f2a3cf1b81d2f30d8fe40211a057ec94d
  layout     callops: two NOPs behind the entry, an ops pointer in front of it (-fpatchable-function-entry=4,2)
  records    19 slots, 3 null, 16 live
  values in  words of the file, moved by packed relocations (.relr.dyn)
  sections   .text 12, .init.text 4
  status     ready 16
  reach      ftrace_caller at most 0.1 MiB away, a call spans 128.0 MiB; 0 sites beyond
             the text may grow by 127.9 MiB until a site reaches nothing
  at boot    ftrace: allocating 16 entries; 12 functions listed once init memory is freed
"""


def test_the_summary_as_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures: README.md of the fixtures; the build-id: readelf -n; 0x10260 bytes are 0.1 MiB."""
    assert output(capsys, "scan", "vmlinux-callops") == CALLOPS_TEXT


def test_chosen_sites_as_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = (MINI / "vmlinux-callops").read_bytes()
    one, two = (symbol(file, name) for name in ("vfs_read", "sys_getppid"))
    text = output(capsys, "scan", "vmlinux-callops", "--func", "vfs_read", "--func", "sys_getppid")
    assert text.removeprefix(CALLOPS_TEXT) == (
        "   row  record              status         place                            pos  function\n"
        f"     6  {two - 8:#018x}  ready          {'.text+0x238':<24}  {pos_of(file, two):>10}  "
        "sys_getppid = __arm64_sys_getppid = __se_sys_getppid\n"
        f"    12  {one - 8:#018x}  ready          {'.text+0x3b8':<24}  {pos_of(file, one):>10}  vfs_read\n"
    )


def test_an_enabled_site_as_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = (MINI / "vmlinux-exec").read_bytes()
    entry = symbol(file, "vfs_read")
    distance = symbol(file, "ftrace_caller") - entry - 4
    call = 0x9400_0000 | distance >> 2 & 0x03FF_FFFF
    text = output(capsys, "enable", "vmlinux-exec", "--func", "vfs_read", "--records", "keep", "-o", "out")
    assert text == (
        "vmlinux-exec: arm64 vmlinux, build-id 0ee1a2c1c81bc30cef2f99075a81739f478dfab1\n"
        "  sites      1 enabled, calling ftrace_caller\n"
        "  records    keep: asked for\n"
        f"    vfs_read (row 13, .text+0x3e4): d503201f d503201f -> aa1e03e9 {call:08x}, {distance:+#x} bytes; "
        "record kept\n"
        "  output     out written and checked; 1 edits, 8 bytes\n"
        "  live       no: nop -> mov x9, x30 may be changed only where nobody executes it. But for that, in this "
        "order:\n"
        "             1. the first word of each site, where nobody executes it: before other processors run or the "
        "code\n"
        "             does, or with all of them stopped; then every processor synchronises its instruction fetch\n"
        "             2. the call of each site, one aligned word\n"
        "  note       the records of the patched sites stay: at boot the kernel will print an ftrace bug at the first "
        "of them and switch ftrace off for good (no tracing, no kprobes on ftrace, no live patching)\n"
        "  note       this kernel's ftrace_caller has no per-site filter: a tracer that runs alone also sees the "
        "patched sites, whatever its filter\n"
        "  note       the build-id still names the original build, not these bytes\n"
        "  note       a Secure Boot signature over the image is void\n"
    )


def test_a_kernel_whose_table_was_emptied_still_has_its_tracer(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once a kernel whose records were all cut out was said to have no function tracer."""
    chosen = [f"--func=row:{row}" for row in range(19)]
    assert run(["enable", "vmlinux-exec", *chosen, "--records", "shrink", "-o", "out"]) == 0
    assert "no function tracer in this kernel" not in output(capsys, "scan", "out")


def test_several_reports_at_once_are_each_whole(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = "vmlinux-callops"
    texts = {name: output(capsys, "scan", path, "--sites", "--format", name) for name in ("text", "json", "csv")}
    reports = [f"--report={name}=r.{name}" for name in texts]
    assert output(capsys, "scan", path, "--sites", *reports) == texts["text"]
    assert {name: (here / f"r.{name}").read_text() for name in texts} == texts


def test_a_report_replaces_an_older_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "r").write_text("x" * 100_000)
    output(capsys, "scan", "vmlinux-exec", "--report", "json=r")
    assert json.loads((here / "r").read_text())["command"] == "scan"


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("json", "json: --report takes FORMAT=FILE – for example --report json=journal.json"),
        ("json=", "json=: --report takes FORMAT=FILE – for example --report json=journal.json"),
        (
            "json=-",
            "-: the report is written to a file – --format FORMAT writes a report to stdout; "
            "./- is a file of that name",
        ),
        ("xml=r", "xml: no such report format: expected " + ", ".join(ftpatch.report.FORMATS)),
    ],
)
def test_a_report_that_names_no_file_or_format_is_usage(
    report: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["scan", "vmlinux-exec", "--report", report]) == 2
    assert capsys.readouterr() == ("", f"ftpatch: {message}\n")
