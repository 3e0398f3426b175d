"""Restore: the file as it was, whatever was done to it; and journals that are none, or not of this file."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import lzma
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import limited
from test_signature import files as key_files
from test_signature import rsa_key

import ftpatch.report
from ftpatch.cli import run
from ftpatch.container import pack
from ftpatch.container.pack import encoders, wrap
from ftpatch.container.wrappings import WRAPPINGS
from ftpatch.document import json_input
from ftpatch.write import contents
from tools import kernels
from tools.kernels import Kernel

MINI = Path(__file__).parents[1] / "testdata" / "mini"
MINI_PPC = MINI.with_name("mini-ppc64le")
MODULE, VMLINUX = MINI / "mini.ko", MINI / "vmlinux-callops"
SCHEMA = json.loads((Path(ftpatch.report.__file__).parent / "schema.json").read_text())
PATCHABLE = [
    MINI / name
    for name in ("callops", "callops-bti", "exec", "kcfi", "pfe2", "pfe2-bti")
] + [
    MINI_PPC / name
    for name in ("clang", "far", "mprofile", "ool", "ool-noops", "pfe2", "unreachable")
]  # fmt: skip
PATCHABLE = [path.with_name(f"vmlinux-{path.name}") for path in PATCHABLE]
RECORDS = ("auto", "null", "minus4", "shrink", "keep")
OPS: tuple[tuple[str, ...], ...] = ((), ("--ops", "nop"), ("--ops-via", "literal"), ("--ops-via", "thunk"))
SIGNATURE = b"a message" + struct.pack(">BBBBB3xI", 0, 0, 2, 0, 0, 9) + b"~Module signature appended~\n"
NOT = "not a journal of a patch: found "
THEN = " – the JSON report of the run that patched the file is one\n"
quick = settings(
    deadline=None, max_examples=150, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


def enabled(source: object, out: object, journal: object, *options: object) -> int:
    more = options if "--func" in options else ("--func", "*", "--skip-unpatchable", *options)
    return run(["enable", *map(str, (source, "-o", out, "--report", f"json={journal}", *more))])


def restored(after: object, journal: object, *options: object) -> int:
    return run(["restore", *map(str, (after, "--journal", journal, *options))])


def comes_back(source: Path, folder: Path, *options: object) -> bool:
    """Whether a file can be patched that way, and was; then it came back as it was."""
    after, journal, back = (folder / name for name in ("after", "journal", "back"))
    if enabled(source, after, journal, *options):
        return False
    assert restored(after, journal, "-o", back) == 0
    assert back.read_bytes() == source.read_bytes()
    return after.read_bytes() != source.read_bytes()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a kernel, patched twice, and with a module, patched once."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(VMLINUX, "vmlinux")
    (tmp_path / "mini.ko.xz").write_bytes(wrap("xz", MODULE.read_bytes() + SIGNATURE))
    assert enabled("vmlinux", "one", "J1", "--func", "vfs_read") == 0
    assert enabled("one", "two", "J2", "--func", "vfs_write") == 0
    assert enabled("mini.ko.xz", "new.ko.xz", "J") == 0
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """The one line that a refusal gets; nothing was written."""
    before = sorted(os.listdir())
    capsys.readouterr()
    assert restored(*arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("ftpatch: ") and err.count("\n") == 1
    assert sorted(os.listdir()) == before
    return err.removeprefix("ftpatch: ")


def changed(name: str, change: Callable[[Any], None]) -> str:
    """A journal with a change in its image; its name."""
    found = json.loads(Path(name).read_text())
    change(found["images"][0])
    Path("changed").write_text(json.dumps(found))
    return "changed"


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# -- there and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", PATCHABLE, ids=[f"{path.parent.name}-{path.name}" for path in PATCHABLE])
def test_a_kernel_comes_back_whatever_was_done_to_its_records_and_ops(source: Path, tmp_path: Path) -> None:
    done = [comes_back(source, tmp_path, "--records", way, *ops) for way in RECORDS for ops in OPS]
    # In vmlinux-ool-noops a stub without a pointer in it would lie on a slot that the kernel gives a kept record.
    assert done[0] and sum(done) >= (2 if source.name == "vmlinux-ool-noops" else 3)


def packed(content: bytes) -> dict[str, bytes]:
    """The content in every packing that an encoder of ours makes, and in some that none makes."""
    ours = {
        name: wrap(wrapping, content, name)
        for wrapping in ("none", *WRAPPINGS) for name in encoders(wrapping)
    }  # fmt: skip
    padded = ours["xz-mt"] + bytes(8)
    joined = {
        f"joined-{wrapping}": wrap(wrapping, content[:999]) + wrap(wrapping, content[999:]) for wrapping in WRAPPINGS
    }
    return {**ours, "gzip with a name": gzip.compress(content, 9, mtime=1), "xz -0": lzma.compress(content, preset=0),
            "xz, padded": padded, **joined}  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--sign",)], ids=["", "signed anew"])
@pytest.mark.parametrize("trailer", [b"", SIGNATURE], ids=["unsigned", "signed"])
@pytest.mark.parametrize("encoder", list(packed(b"")))
def test_a_module_comes_back_with_its_packing_and_its_signature(
    encoder: str, trailer: bytes, options: tuple[str, ...], tmp_path: Path
) -> None:
    source = tmp_path / "mini"
    source.write_bytes(packed(MODULE.read_bytes() + trailer)[encoder])
    assert comes_back(source, tmp_path, *options, *(key_files(tmp_path, rsa_key()) if options else ()))
    (image,) = json.loads((tmp_path / "journal").read_text())["images"]
    jsonschema.validate(json.loads((tmp_path / "journal").read_text()), SCHEMA)
    ours = encoder in ("none", *(name for wrapping in WRAPPINGS for name in encoders(wrapping)))
    assert image["packing"]["encoder"] == (encoder if ours else None)
    assert ("original" in image["packing"]) == (not ours)
    assert image["size"] == MODULE.stat().st_size


def test_a_module_of_the_other_machine_comes_back(tmp_path: Path) -> None:
    source = tmp_path / "mini.ko.gz"
    source.write_bytes(gzip.compress((MINI_PPC / "mini.ko").read_bytes()))
    assert comes_back(source, tmp_path, "--hook", "_printk")


@given(
    source=st.sampled_from([*PATCHABLE, MODULE]),
    choice=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    way=st.sampled_from(RECORDS),
    ops=st.sampled_from(OPS),
)
@quick
def test_any_choice_of_sites_comes_back(source: Path, choice: list[int], way: str, ops: tuple[str, ...]) -> None:
    rows = [option for row in choice for option in ("--func", f"row:{row % 6}")]
    with tempfile.TemporaryDirectory() as folder:
        comes_back(source, Path(folder), *rows, "--records", way, *ops, "--skip-unpatchable")


@pytest.mark.parametrize("verb", [("drop", "--records", "auto"), ("disable",)], ids=["drop", "disable"])
def test_the_other_writing_verbs_have_journals_too(here: Path, verb: tuple[str, ...]) -> None:
    name, *more = verb
    assert run([name, "one", "--func", "vfs_write" if name == "drop" else "vfs_read", *more, "-o", "three",
                "--report", "json=J3"]) == 0  # fmt: skip
    assert restored("three", "J3", "-o", "back") == 0
    assert digest("back") == digest("one")


def test_a_file_patched_twice_goes_back_step_by_step(here: Path) -> None:
    assert restored("two", "J2", "-o", "back") == 0
    assert digest("back") == digest("one")
    assert restored("back", "J1", "--in-place") == 0
    assert digest("back") == digest("vmlinux")


def test_a_result_that_was_packed_in_another_way_since_is_the_same_result(here: Path) -> None:
    elf = lzma.decompress(Path("new.ko.xz").read_bytes())
    for name, encoder in (("a.ko", ("none", "none")), ("a.zst", ("zst", "zstd-19")), ("a.ko.gz", ("gz", "zlib"))):
        Path(name).write_bytes(wrap(encoder[0], elf, encoder[1]))
        assert restored(name, "J", "-o", "back") == 0
        assert digest("back") == digest("mini.ko.xz")


@pytest.mark.parametrize("name,unpack", [("b.ko", bytes), ("b.ko.gz", gzip.decompress), ("b.ko.xz", lzma.decompress)])
def test_the_suffix_of_the_output_picks_its_packing(here: Path, name: str, unpack: Callable[[bytes], bytes]) -> None:
    assert restored("new.ko.xz", "J", "-o", name) == 0
    assert unpack(Path(name).read_bytes()) == MODULE.read_bytes() + SIGNATURE
    assert (digest(name) == digest("mini.ko.xz")) == (name == "b.ko.xz")


def test_in_place_restores_the_packing_whatever_the_name_says(here: Path) -> None:
    """A compressed module with a plain name is written as that name says; it once came back so, too."""
    shutil.copyfile("mini.ko.xz", "plain.ko")
    assert run(["enable", "plain.ko", "--func", "*", "--skip-unpatchable", "--in-place"]) == 0
    assert Path("plain.ko").read_bytes()[:4] == b"\x7fELF"
    assert restored("plain.ko", "plain.ko.ftpatch.json", "--in-place") == 0
    assert digest("plain.ko") == digest("mini.ko.xz")
    assert os.path.exists("plain.ko.ftpatch.json")


def test_the_mode_stays(here: Path) -> None:
    os.chmod("one", 0o640)
    assert restored("one", "J1", "-o", "back") == 0
    assert os.stat("back").st_mode & 0o777 == 0o640


# -- what it says ----------------------------------------------------------------------------------------------


def test_the_text_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert restored("one", "J1", "-o", "back") == 0
    n = len(json.loads(Path("J1").read_text())["images"][0]["edits"])
    assert capsys.readouterr() == (
        f"one: arm64 vmlinux\n  journal    J1: enable, {n} edits\n"
        "  output     back written and checked; byte for byte the file that was patched\n"
        f"  sha256     {digest('vmlinux')}\n", "",
    )  # fmt: skip
    Path("a.ko").write_bytes(lzma.decompress(Path("new.ko.xz").read_bytes()))
    assert restored("a.ko", "J", "-o", "back.ko", "--dry-run") == 0
    n = len(json.loads(Path("J").read_text())["images"][0]["edits"])
    assert capsys.readouterr().out == (
        f"a.ko: arm64 module\n  journal    J: enable, {n} edits, since then packed in another way\n"
        "  output     nothing written (dry run); the content of the file that was patched\n"
        f"  sha256     {hashlib.sha256(MODULE.read_bytes() + SIGNATURE).hexdigest()}\n"
    )
    assert not os.path.exists("back.ko")


@pytest.mark.parametrize("dry", [False, True])
def test_the_json_report(here: Path, capsys: pytest.CaptureFixture[str], dry: bool) -> None:
    capsys.readouterr()
    assert restored("new.ko.xz", "J", "-o", "back.ko", "--format", "json", *(["--dry-run"] if dry else [])) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, SCHEMA)
    (image,), source = found["images"], json.loads(Path("J").read_text())["images"][0]
    content = MODULE.read_bytes() + SIGNATURE
    output = {"file": "back.ko", "sha256": hashlib.sha256(content).hexdigest(),
              "elf_sha256": hashlib.sha256(MODULE.read_bytes()).hexdigest()}  # fmt: skip
    assert (found["schema"], found["command"]) == (1, "restore")
    assert image == {
        "file": "new.ko.xz", "sha256": digest("new.ko.xz"), "build_id": source["build_id"], "arch": "arm64",
        "kind": "module", "output": None if dry else output,
        "restored": {"journal": "J", "command": "enable", "edits": len(source["edits"]), "repacked": False,
                     "same": False},
    }  # fmt: skip


def test_the_schema_wants_a_whole_image_of_every_other_command() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": 1, "command": "scan", "images": [{"file": "vmlinux"}]}, SCHEMA)


# -- where it goes ---------------------------------------------------------------------------------------------


def test_the_default_is_the_name_before_the_patch(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile("one", "vmlinux.patched")
    assert refused(capsys, 2, "vmlinux.patched", "J1") == (
        "vmlinux: the output would replace a file – -o OUT names the output\n"
    )
    os.rename("vmlinux", "vmlinux.old")
    assert restored("vmlinux.patched", "J1") == 0
    assert digest("vmlinux") == digest("vmlinux.old")
    todo = "-o OUT names the output, --in-place replaces the file"
    for name in ("one", ".patched"):
        assert refused(capsys, 2, name, "J1") == f"{name}: no name for the output – {todo}\n"


def test_an_output_that_is_an_input_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "the output is the input – name another output, or use --in-place\n"
    os.link("one", "link")
    for out in ("one", "link"):
        assert refused(capsys, 2, "one", "J1", "-o", out) == f"{out}: {line}"
    line = "J1: the output would replace another file of this run – name another output\n"
    assert refused(capsys, 2, "one", "J1", "-o", "J1") == line
    assert (
        refused(capsys, 2, "one", "J1", "-o", "x", "--in-place")
        == "--in-place and -o exclude each other – leave one of them out\n"
    )


# -- what does not fit -----------------------------------------------------------------------------------------


def test_the_wrong_order_is_refused_and_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(Path("J1").read_text())["images"][0]
    content = Path("two").read_bytes()
    n = sum(content[e["pos"] :].startswith(bytes.fromhex(e["new"])) for e in found["edits"])
    assert n >= 2
    assert refused(capsys, 5, "two", "J1", "-o", "back") == (
        f"two: not the file that the journal's patch wrote: found sha256 {digest('two')[:16]}…, with {n} of its "
        f"{len(found['edits'])} edits, expected sha256 {digest('one')[:16]}… – changed since; if by later patches, "
        "undo those first: journals undo in reverse order; or of an earlier run, if that of the journal was killed: "
        "patch again\n"
    )


def test_a_file_that_was_not_patched_has_nothing_to_undo(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "is what the journal's patch started from – there is nothing to undo\n"
    assert refused(capsys, 5, "vmlinux", "J1", "-o", "back") == f"vmlinux: {line}"
    Path("plain").write_bytes(MODULE.read_bytes() + SIGNATURE)
    for name in ("mini.ko.xz", "plain"):
        assert refused(capsys, 5, name, "J", "-o", "back") == f"{name}: {line}"


def test_another_file_is_refused_by_its_build_id(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [json.loads(Path(name).read_text())["images"][0]["build_id"] for name in ("J", "J1")]
    assert refused(capsys, 5, "new.ko.xz", "J1", "-o", "back") == (
        f"new.ko.xz: not the file that the journal's patch wrote: found build-id {ids[0]}, expected build-id {ids[1]}\n"
    )


def test_one_changed_byte_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(Path("one").read_bytes())
    content[-1] ^= 1
    Path("one").write_bytes(content)
    assert "changed since; if by later patches" in refused(capsys, 5, "one", "J1", "--in-place")


def test_a_result_that_was_signed_since_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("signed").write_bytes(lzma.decompress(Path("new.ko.xz").read_bytes()) + SIGNATURE)
    assert refused(capsys, 5, "signed", "J", "-o", "back") == (
        f"signed: signed or stripped since it was patched: found a signature of {len(SIGNATURE)} bytes, expected what "
        "the patch left – restore takes the file as the patch wrote it\n"
    )


def test_another_compressor_is_told_from_another_file(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library of another version makes other bytes of the same content."""
    monkeypatch.setitem(pack.ENCODERS["xz"], "xz-mt", lambda data: lzma.compress(data, preset=1))
    assert refused(capsys, 5, "new.ko.xz", "J", "-o", "back") == (
        "back: its xz data cannot be made again here: found other bytes from encoder xz-mt, expected sha256 "
        f"{digest('mini.ko.xz')[:16]}… – the library has another version; -o OUT.ko gives the content uncompressed\n"
    )
    assert restored("new.ko.xz", "J", "-o", "back.ko") == 0
    assert Path("back.ko").read_bytes() == MODULE.read_bytes() + SIGNATURE


def edit(number: int, **fields: object) -> Callable[[Any], None]:
    return lambda image: image["edits"][number].update(fields)


def member(name: str, value: object, where: str = "") -> Callable[[Any], None]:
    return lambda image: (image[where] if where else image).update({name: value})


@pytest.mark.parametrize(
    "change,found",
    [
        (edit(0, new="0" * 16), r"other bytes at 0x"),
        (edit(0, old="0" * 16), r"bytes of another file"),
        (lambda image: image["edits"].pop(0), r"bytes of another file"),
        (lambda image: image["edits"].pop(), r"other bytes behind 0x1380"),
        (member("sha256", "0" * 64), r"another file as its original"),
        (member("original", base64.b64encode(b"x").decode(), "packing"), r"another file as its original"),
    ],
)
def test_a_journal_that_was_changed_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Any], None], found: str
) -> None:
    Path("odd.ko.gz").write_bytes(gzip.compress(MODULE.read_bytes(), 1))
    assert enabled("odd.ko.gz", "new.ko", "J") == 0
    line = refused(capsys, 5, "new.ko", changed("J", change), "-o", "back")
    assert line.startswith(f"changed: the journal does not give back what was patched: found {found}")
    assert line.endswith(", expected what its sha256 say – the journal was changed since it was written\n")


def test_an_original_that_holds_something_else_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its hash may be right, and its content still not what the edits give."""
    forged = gzip.compress(VMLINUX.read_bytes())

    def change(image: Any) -> None:
        image["sha256"] = hashlib.sha256(forged).hexdigest()
        image["packing"].update(encoder=None, original=base64.b64encode(forged).decode())

    line = refused(capsys, 5, "new.ko.xz", changed("J", change), "-o", "back")
    assert "found an original with other bytes" in line


def test_a_result_that_is_written_badly_is_not_kept(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "write", lambda image, edits, fd: os.pwrite(fd, VMLINUX.read_bytes()[:-1], 0))
    assert refused(capsys, 70, "one", "J1", "-o", "back") == (
        "back: self-check failed: the result is not what was patched: found other bytes – the output was not kept; "
        "please report this\n"
    )


# -- what is no journal ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text,line",
    [
        ("", "Expecting value: line 1 column 1 (char 0), expected JSON"),
        ("\0", "Expecting value: line 1 column 1 (char 0), expected JSON"),
        ("[]", "a list as the report, expected an object"),
        ("1e5", "100000.0 as the report, expected an object"),
        ("true", "True as the report, expected an object"),
        ('{"schema": NaN}', "NaN, which is no number of JSON, expected JSON"),
        ('{"schema": -Infinity}', "-Infinity, which is no number of JSON, expected JSON"),
        ('{"schema": 1, "schema": 1}', "a member that is there twice, expected JSON"),
        ('{"x": {"y": 1, "y": 1}}', "a member that is there twice, expected JSON"),
        ("{}", "nothing as its schema, expected a whole number"),
        ('{"schema": true}', "True as its schema, expected a whole number"),
        ('{"schema": 1.0}', "1.0 as its schema, expected a whole number"),
        ('{"schema": 0}', "schema 0, expected schema 1"),
        ('{"schema": -9223372036854775808}', "schema -9223372036854775808, expected schema 1"),
        ('{"schema": 1}', "nothing as its command, expected a text"),
        ('{"schema": 1, "command": "scan"}',
         "the report of 'scan', expected that of enable, disable, drop, redirect, static-calls, record"),
        ('{"schema": 1, "command": "enable"}', "nothing as its images, expected a list"),
        ('{"schema": 1, "command": "enable", "images": []}', "0 images, expected one"),
        ('{"schema": 1, "command": "enable", "images": [{}, {}]}', "2 images, expected one"),
        ('{"schema": 1, "command": "enable", "images": [[]]}', "a list as an image, expected an object"),
        ('{"schema": 1, "command": "enable", "images": [{"output": null}]}',
         "the report of a dry run, expected that of a patch"),
        ('{"schema": 1, "command": "enable", "images": [{}]}', "nothing as its output, expected an object"),
    ],
)  # fmt: skip
def test_what_is_no_journal_gets_one_line(here: Path, capsys: pytest.CaptureFixture[str], text: str, line: str) -> None:
    Path("bad").write_text(text)
    assert refused(capsys, 3, "one", "bad", "-o", "back") == f"bad: {NOT}{line}{THEN}"


POSITIONS = ", expected edits side by side in file order, and pieces behind the file"


@pytest.mark.parametrize(
    "change,line",
    [
        (member("sha256", None), "nothing as its sha256, expected a text"),
        (member("sha256", "A" * 64), f"'{'A' * 64}' as its sha256, expected 64 hex digits"),
        (member("sha256", "0" * 64 + "\n", "output"), f"'{'0' * 64}\\n' as its sha256, expected 64 hex digits"),
        (member("elf_sha256", 1, "output"), "a whole number as its elf_sha256, expected a text"),
        (member("packing", None), "nothing as its packing, expected an object"),
        (member("wrapping", "lz4", "packing"), "wrapping 'lz4', expected none, xz, gz, zst"),
        (member("encoder", 1, "packing"), "a whole number as its encoder, expected a text"),
        (member("encoder", None, "packing"), "nothing as its original, expected a text"),
        (lambda image: image["packing"].update(encoder=None, original="?"),
         "something else as its original, expected base64"),
        (lambda image: image["packing"].update(encoder=None, original="é"),
         "something else as its original, expected base64"),
        (member("size", 0), "0 as its size, expected a size in bytes"),
        (member("size", "20792"), "a text as its size, expected a whole number"),
        (member("edits", {}), "an object as its edits, expected a list"),
        (lambda image: image["edits"].append(7), "a whole number as edit 13, expected an object"),
        (edit(0, pos=True), "something else as edit 0, expected a position, and bytes in hex"),
        (edit(0, pos=1e3), "something else as edit 0, expected a position, and bytes in hex"),
        (edit(0, old=None), "something else as edit 0, expected a position, and bytes in hex"),
        (edit(0, pos=-1, new="00", old="00"), "edit 0 at -1: 00 to 00, expected a position, and bytes in hex"),
        (edit(0, pos=8, new="0", old="00"), "edit 0 at 8: 00 to 0, expected a position, and bytes in hex"),
        (edit(0, pos=8, new="0 0", old="00"), "edit 0 at 8: 00 to 0 0, expected a position, and bytes in hex"),
        (edit(0, pos=8, new="AA", old="00"), "edit 0 at 8: 00 to AA, expected a position, and bytes in hex"),
        (edit(0, pos=8, new="", old=""), f"edit 0: 0 bytes to 0 at 8{POSITIONS}"),
        (edit(0, pos=8, new="0000", old="00"), f"edit 0: 1 bytes to 2 at 8{POSITIONS}"),
        (edit(0, pos=20792, new="00", old="00"), f"edit 0: 1 bytes to 1 at 20792{POSITIONS}"),
        (edit(0, pos=10**19, new="00", old="00"), f"edit 0: 1 bytes to 1 at 1{'0' * 19}{POSITIONS}"),
        (edit(0, pos=20793, new="00", old=""), f"edit 0: 0 bytes to 1 at 20793{POSITIONS}"),
        (edit(0, pos=8, new="", old="00"), f"edit 0: 1 bytes to 0 at 8{POSITIONS}"),
        (lambda image: image["edits"].insert(0, {"pos": 0, "old": "00" * 9999, "new": "00" * 9999}),
         "edit 1: "),
    ],
)  # fmt: skip
def test_a_member_that_cannot_be_gets_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Any], None], line: str
) -> None:
    found = refused(capsys, 3, "one", changed("J1", change), "-o", "back")
    assert found.startswith(f"changed: {NOT}{line}") and found.endswith(THEN)


def test_a_long_piece_is_read_within_little_memory(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As zeros in front of a program's new segment are: 64 MiB of them once took five gigabytes."""

    def longer(image: Any) -> None:
        image["edits"].append({"pos": image["size"], "old": "", "new": "00" * (8 << 20), "owner": "padding"})

    name = changed("J1", longer)
    with limited(60, 200 << 20):
        found = refused(capsys, 5, "one", name, "-o", "back")
    assert "other bytes behind" in found


def test_a_journal_of_a_later_schema_is_not_supported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("J9").write_text('{"schema": 2, "images": "?"}')
    assert refused(capsys, 4, "one", "J9", "-o", "back") == (
        "J9: a journal of a newer ftpatch: found schema 2, expected schema 1, which is what this one knows – use the "
        "ftpatch that wrote it\n"
    )


def test_an_encoder_that_is_not_known_is_not_supported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = changed("J", member("encoder", "xz-turbo", "packing"))
    assert refused(capsys, 4, "new.ko.xz", name, "-o", "back") == (
        "xz data: no such encoder: found xz-turbo, expected xz-mt, xz-st\n"
    )


def test_a_journal_that_cannot_be_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    Path("latin").write_bytes(b'{"a": "\xe9"}')
    assert refused(capsys, 3, "one", "gone", "-o", "back") == (
        "gone: cannot be read: No such file or directory – did you mean one?\n"
    )
    assert refused(capsys, 3, "one", ".", "-o", "back") == ".: is a directory, not a regular file – name a file\n"
    assert refused(capsys, 3, "one", "pipe", "-o", "back") == (
        "pipe: is not a regular file – copy its content to a file first\n"
    )
    assert "found a byte at 0x7 that is not UTF-8" in refused(capsys, 3, "one", "latin", "-o", "back")
    Path("long").write_text('{"schema": 1%s}' % ("0" * 5000))
    assert refused(capsys, 4, "one", "long", "-o", "back") == (
        "long: more than is read of JSON: found a number of 5001 digits, expected a number that 64 bits hold – "
        "docs/limits.md has all limits\n"
    )
    with open("huge", "wb") as file:
        file.truncate(json_input.MAX_SIZE + 1)
    assert refused(capsys, 3, "one", "huge", "-o", "back") == (
        f"huge: is too large: found {(512 << 20) + 1} bytes, expected at most {512 << 20} bytes\n"
    )


def test_a_journal_of_too_many_values_is_not_even_parsed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list takes twenty times the memory that its two characters take in the file."""
    Path("many").write_bytes(b"[" + b"[]," * json_input.FREE_VALUES + b"[]]")
    limit = json_input.FREE_VALUES + (3 * json_input.FREE_VALUES + 4) // json_input.BYTES_PER_VALUE
    assert refused(capsys, 4, "one", "many", "-o", "back") == (
        f"many: more than is read of JSON: found more values, expected at most {limit} – docs/limits.md has all "
        "limits\n"
    )


# -- any change ------------------------------------------------------------------------------------------------


@cache
def patched(kind: str) -> tuple[bytes, bytes, str]:
    """The file that was patched, the result, and its journal."""
    with tempfile.TemporaryDirectory() as folder:
        source, after, report = (Path(folder, name) for name in ("source", "after", "journal"))
        content = MODULE.read_bytes() + SIGNATURE
        source.write_bytes({"xz": wrap("xz", content), "gz": gzip.compress(content, 1, mtime=1),
                            "vmlinux": VMLINUX.read_bytes()}[kind])  # fmt: skip
        assert enabled(source, after, report, "--func", "row:2", "--func", "row:3", "--skip-unpatchable") == 0
        return source.read_bytes(), after.read_bytes(), report.read_text()


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 40000), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["", "00", "0" * 64, "enable", "none", "gz", "zlib", "\ud800", "~" * 99]),
    st.just([]), st.just({}), st.just([{}]), st.just({"pos": 0, "old": "00", "new": "01"}),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value below the report, sites and summary left out."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        if key not in ("sites", "summary"):
            found += places(below, (*path, key))
    return found


def mutated(text: str, data: st.DataObject) -> bytes:
    """A journal with one to three values changed, removed or doubled; or one with other bytes."""
    if data.draw(st.integers(0, 4)) == 0:
        raw = bytearray(text.encode())
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        return bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    found = json.loads(text)
    for _ in range(data.draw(st.integers(1, 3))):
        *way, key = data.draw(st.sampled_from(places(found)))
        parent = found
        for step in way:
            parent = parent[step]
        action = data.draw(st.sampled_from(["set", "set", "remove", "double"]))
        if action == "set":
            parent[key] = deepcopy(data.draw(JUNK))
        elif action == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, parent[key])
    return json.dumps(found).encode()


@given(kind=st.sampled_from(["xz", "gz", "vmlinux"]), data=st.data(), suffix=st.sampled_from(["", ".ko"]))
@settings(quick, max_examples=400)
def test_a_changed_journal_gives_the_file_that_was_patched_or_one_line(
    capfd: pytest.CaptureFixture[str], kind: str, data: st.DataObject, suffix: str
) -> None:
    before, result, text = patched(kind)
    with tempfile.TemporaryDirectory() as folder:
        after, report, back = (Path(folder, name) for name in ("after", "journal", f"back{suffix}"))
        after.write_bytes(result)
        report.write_bytes(mutated(text, data))
        capfd.readouterr()
        code = restored(after, report, "-o", back)
        err = capfd.readouterr().err
        assert code in (0, 3, 4, 5), err
        assert err.count("\n") == (code != 0) and "Traceback" not in err
        assert back.exists() == (code == 0)
        if code == 0:
            plain = MODULE.read_bytes() + SIGNATURE
            assert back.read_bytes() in ((before,) if not suffix or kind == "vmlinux" else (plain,))


# -- real kernels ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid"])
def debian(request: pytest.FixtureRequest, kernel: Callable[[str], Kernel]) -> Kernel:
    return kernel(request.param)


@pytest.mark.corpus
def test_a_kernel_of_debian_comes_back(debian: Kernel, tmp_path: Path) -> None:
    assert comes_back(debian.vmlinux, tmp_path)


@pytest.mark.corpus
def test_modules_of_debian_come_back_with_their_compression(debian: Kernel, tmp_path: Path) -> None:
    everything = sorted(path for path in kernels.modules(debian.name).rglob("*.ko*") if path.is_file())
    sample = everything[:: len(everything) // 60][:60]
    done = [comes_back(path, tmp_path, "--against", debian.vmlinux) for path in sample]
    assert len(done) == 60 and sum(done) >= 50
