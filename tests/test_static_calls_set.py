"""static-calls --set on a kernel of a few bytes: what is written, what is refused, and what the proof sees."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from elfedit import Elf as EditedElf
from static_call_files import FUNCTIONS, KEYS, RODATA, SIGNATURE, TEXT, TRAMPOLINES, branch, kernel

from ftpatch import api
from ftpatch.cli import run
from ftpatch.errors import FtpatchError

RETURNS = {
    va: b"\xc3" for name, va in FUNCTIONS.items() if name in ("f", "g", "user", "__static_call_return0", "start")
}
RET = bytes.fromhex("c3cccccccc")
THUNK = FUNCTIONS["__x86_return_thunk"]


def made(tmp_path: Path, **options: Any) -> Path:
    path = tmp_path / "vmlinux"
    code = {**RETURNS, **options.pop("code", {})}
    path.write_bytes(kernel(code=code, **options))
    return path


def set_calls(path: Path, *settings: str, out: str = "patched", **options: Any) -> api.Written:
    pairs = [tuple(text.split("=")) for text in settings]
    target = path.with_name(out)
    delivery = api.Delivery(str(target), (f"json={target}.json",))
    return api.set_static_calls(str(path), delivery, pairs, **options)  # type: ignore[arg-type]


def key_and_trampoline(path: Path, key: str) -> tuple[int, bytes]:
    """What a key holds, and its trampoline, by the sections of the file."""
    image = api.scan(str(path)).image
    pos = [image.pos_of_va(va) for va in (KEYS[key], TRAMPOLINES[key])]
    data = path.read_bytes()
    return struct.unpack_from("<Q", data, pos[0])[0], data[pos[1] : pos[1] + 8]


SET = [
    ("a", "g", FUNCTIONS["g"], branch("e9", TRAMPOLINES["a"], FUNCTIONS["g"])),
    ("a", "NULL", 0, RET),
    ("a", "return0", FUNCTIONS["__static_call_return0"],
     branch("e9", TRAMPOLINES["a"], FUNCTIONS["__static_call_return0"])),
    ("a", "__static_call_return0", FUNCTIONS["__static_call_return0"],
     branch("e9", TRAMPOLINES["a"], FUNCTIONS["__static_call_return0"])),
    ("a", hex(FUNCTIONS["g"]), FUNCTIONS["g"], branch("e9", TRAMPOLINES["a"], FUNCTIONS["g"])),
    ("n", "f", FUNCTIONS["f"], branch("e9", TRAMPOLINES["n"], FUNCTIONS["f"])),
    ("r", "f", FUNCTIONS["f"], branch("e9", TRAMPOLINES["r"], FUNCTIONS["f"])),
    ("r", "NULL", 0, RET),
    ("n", "return0", FUNCTIONS["__static_call_return0"],
     branch("e9", TRAMPOLINES["n"], FUNCTIONS["__static_call_return0"])),
]  # fmt: skip


@pytest.mark.parametrize(("key", "to", "pointer", "code"), SET, ids=[f"{row[0]}={row[1]}" for row in SET])
def test_key_and_trampoline_change_together_and_nothing_else(
    tmp_path: Path, key: str, to: str, pointer: int, code: bytes
) -> None:
    path = made(tmp_path)
    set_calls(path, f"{key}={to}")
    patched = tmp_path / "patched"
    assert key_and_trampoline(patched, key) == (pointer, code + SIGNATURE)
    before, after = path.read_bytes(), patched.read_bytes()
    assert len(before) == len(after)
    image = api.scan(str(path)).image
    mine = {image.pos_of_va(KEYS[key]) + i for i in range(8)} | {
        image.pos_of_va(TRAMPOLINES[key]) + i for i in range(5)
    }
    assert {at for at, (one, two) in enumerate(zip(before, after, strict=True)) if one != two} <= mine
    proof = api.verify(str(path), str(patched), f"{patched}.json")
    assert [finding.message for finding in proof.findings] == []
    assert list(proof.set_calls) == [key]


@pytest.mark.parametrize(("key", "back"), [("a", "f"), ("b", "g"), ("r", "return0")])
def test_setting_the_old_function_again_gives_the_file_that_was(tmp_path: Path, key: str, back: str) -> None:
    path = made(tmp_path)
    for to in ("NULL", "user"):
        set_calls(path, f"{key}={to}")
        set_calls(tmp_path / "patched", f"{key}={back}", out="back")
        assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_null_key_that_the_kernel_lists_as_a_return_goes_back_to_its_thunk(tmp_path: Path) -> None:
    """apply_returns() rewrites what .return_sites names; a jump to the thunk that it does not name is warned of."""
    place = RODATA + 0x28  # the table of pairs ends there
    listed = {"symbols": {"__return_sites": place, "__return_sites_end": place + 4}, "pairs": [("a", "a")] * 2}
    path = made(tmp_path, **listed)
    image = api.scan(str(path)).image
    data = bytearray(path.read_bytes())
    struct.pack_into("<i", data, image.pos_of_va(place), TRAMPOLINES["n"] - place)
    path.write_bytes(data)
    set_calls(path, "n=f")
    set_calls(tmp_path / "patched", "n=NULL", out="back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    set_calls(path, "a=NULL")  # which is not on the list
    assert key_and_trampoline(tmp_path / "patched", "a") == (0, RET + SIGNATURE)


def test_a_jump_to_the_thunk_that_the_kernel_does_not_list_is_found(tmp_path: Path) -> None:
    place = RODATA + 0x28
    listed = {"symbols": {"__return_sites": place, "__return_sites_end": place + 4}, "pairs": [("a", "a"), ("b", "b")]}
    path = made(tmp_path, **listed)
    set_calls(path, "a=NULL")
    patched = tmp_path / "patched"
    image, data = api.scan(str(path)).image, bytearray(patched.read_bytes())
    pos = image.pos_of_va(TRAMPOLINES["a"])
    data[pos : pos + 5] = branch("e9", TRAMPOLINES["a"], THUNK)
    patched.write_bytes(data)
    assert [finding.message for finding in api.verify(str(path), str(patched)).findings] == [
        "a: its trampoline jumps to __x86_return_thunk, and is not in __return_sites: the kernel warns of it"
    ]


def test_every_damaged_byte_of_what_was_set_is_found(tmp_path: Path) -> None:
    path = made(tmp_path)
    set_calls(path, "a=g", "n=f")
    patched = tmp_path / "patched"
    sound, image = patched.read_bytes(), api.scan(str(path)).image
    for key in ("a", "n"):
        for va, width in ((KEYS[key], 16), (TRAMPOLINES[key], 8), (TEXT + 0x11, 5)):
            for at in range(image.pos_of_va(va), image.pos_of_va(va) + width):
                data = bytearray(sound)
                data[at] ^= 0x11
                patched.write_bytes(data)
                proof = api.verify(str(path), str(patched))
                assert {finding.rule for finding in proof.findings} & {"verify-static-call", "verify-byte"}, hex(at)


LIES = [
    ("key alone", {KEYS["a"]: struct.pack("<Q", FUNCTIONS["g"])},
     "a: its key holds 0xffffffff81000050, its trampoline goes to 0xffffffff81000040"),
    ("trampoline alone", {TRAMPOLINES["a"]: branch("e9", TRAMPOLINES["a"], FUNCTIONS["g"])},
     "a: its key holds 0xffffffff81000040, its trampoline goes to 0xffffffff81000050"),
    ("NULL alone", {KEYS["a"]: bytes(8)}, "a: its key holds 0x0, its trampoline goes to 0xffffffff81000040"),
    ("return alone", {TRAMPOLINES["a"]: RET}, "a: its key holds 0xffffffff81000040, its trampoline returns"),
    ("no trampoline", {TRAMPOLINES["a"]: b"\xeb"}, "a: its trampoline is none that the kernel knows"),
    ("inside", {KEYS["a"]: struct.pack("<Q", FUNCTIONS["g"] + 1),
                TRAMPOLINES["a"]: branch("e9", TRAMPOLINES["a"], FUNCTIONS["g"] + 1)},
     "a: it calls 0xffffffff81000051, 0x1 bytes into g"),
    ("init", {KEYS["a"]: struct.pack("<Q", FUNCTIONS["start"]),
              TRAMPOLINES["a"]: branch("e9", TRAMPOLINES["a"], FUNCTIONS["start"])},
     "a: it calls start, which is freed with init memory"),
    ("trampoline of another", {KEYS["a"]: struct.pack("<Q", TRAMPOLINES["b"]),
                               TRAMPOLINES["a"]: branch("e9", TRAMPOLINES["a"], TRAMPOLINES["b"])},
     "a: it calls __SCT__b, which is a trampoline"),
]  # fmt: skip


@pytest.mark.parametrize(("bytes_at", "message"), [row[1:] for row in LIES], ids=[row[0] for row in LIES])
def test_the_proof_says_what_is_wrong(tmp_path: Path, bytes_at: dict[int, bytes], message: str) -> None:
    path = made(tmp_path)
    image, data = api.scan(str(path)).image, bytearray(path.read_bytes())
    for va, new in bytes_at.items():
        pos = image.pos_of_va(va)
        data[pos : pos + len(new)] = new
    after = tmp_path / "after"
    after.write_bytes(data)
    found = api.verify(str(path), str(after)).findings
    assert [(finding.rule, finding.message) for finding in found] == [("verify-static-call", message)]


ALL, SKIP = "expected all of them, or nothing is written", "--skip-unpatchable sets the others"
REFUSED: list[tuple[dict[str, Any], list[str], str]] = [
    ({}, ["a=f"], f"1 of 1 static calls cannot be set: found a: it calls f already, {ALL} – {SKIP}"),
    ({}, ["n=NULL"], f"1 of 1 static calls cannot be set: found n: it is NULL already, {ALL} – {SKIP}"),
    ({}, ["r=return0"], f"1 of 1 static calls cannot be set: found r: it is return0 already, {ALL} – {SKIP}"),
    ({}, [f"r={FUNCTIONS['__static_call_return0']:#x}"], "1 of 1 static calls cannot be set: found r: it is return0 "
     f"already, {ALL} – {SKIP}"),
    ({}, ["a=g", "b=g"], f"1 of 2 static calls cannot be set: found b: it calls g already, {ALL} – {SKIP}"),
    ({}, ["a=start"], "1 of 1 static calls cannot be set: found a: start is init text, which is freed after boot, and "
     f"not all of its sites are, {ALL} – {SKIP}"),
    ({}, ["a=__SCT__b"], "1 of 1 static calls cannot be set: found a: __SCT__b is a static call's trampoline, and no "
     f"function, {ALL} – {SKIP}"),
    ({}, ["a=__x86_return_thunk"], "1 of 1 static calls cannot be set: found a: __x86_return_thunk does nothing "
     f"but return: NULL is what a static call without effect is set to, {ALL} – {SKIP}"),
    ({"code": {TRAMPOLINES["a"] + 7: b"\xcd"}}, ["a=g"], "1 of 1 static calls cannot be set: found a: its trampoline "
     f"is not the code of one: the kernel stops at it (BUG), {ALL} – {SKIP}"),
    ({"without": ["__SCT__a"]}, ["a=g"], "1 of 1 static calls cannot be set: found a: its trampoline is not in this "
     f"file, {ALL} – {SKIP}"),
    ({"pointers": {"a": FUNCTIONS["g"]}}, ["a=user"], "1 of 1 static calls cannot be set: found a: its trampoline does "
     f"not lead where its key does: one of them was changed alone, {ALL} – {SKIP}"),
    ({"symbols": {"__SCK__b": KEYS["a"]}}, ["a=g"], "1 of 1 static calls cannot be set: found a: its key or trampoline "
     f"is that of b, too: both would be set, {ALL} – {SKIP}"),
    ({"symbols": {"__SCT__b": TRAMPOLINES["a"]}}, ["a=g"], "1 of 1 static calls cannot be set: found a: its key or "
     f"trampoline is that of b, too: both would be set, {ALL} – {SKIP}"),
    ({"code": {TEXT + 0x11: b"\x90"}}, ["a=g"], "1 of 1 static calls cannot be set: found a: its call at .text+0x11 is "
     f"no code that is known: the kernel stops there (BUG), {ALL} – {SKIP}"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "settings", "message"), REFUSED, ids=["+".join(row[1]) + str(n) for n, row in
                                                                           enumerate(REFUSED)])  # fmt: skip
def test_what_cannot_be_set_is_refused(
    tmp_path: Path, options: dict[str, Any], settings: list[str], message: str
) -> None:
    path = made(tmp_path, **options)
    with pytest.raises(FtpatchError) as refusal:
        set_calls(path, *settings)
    assert (str(refusal.value), refusal.value.exit_code) == (f"{path}: {message}", 5)
    assert not (tmp_path / "patched").exists()


LINES = [
    (["--set", "c=f"], "--set c: no static call of that name: found 4 keys of other names, expected a key of this "
     "file – ftpatch static-calls lists all", 5),
    (["--set", "a=h"], "--set a=h: no such function: found nothing of that name in .symtab, expected a function of "
     "this kernel: name, name@file.c or 0xVA", 5),
    (["--set", "a=init_task"], "--set a=init_task: the replacement is no function: found data in .data, expected the "
     "beginning of a function", 5),
    (["--set", "a*=f"], "--set a*=f: --set takes one static call: found a pattern: a*, expected the name of a key – "
     "ftpatch static-calls --key lists names", 2),
    (["--set", "a"], "--set a: not a setting: expected KEY=FUNC, a static call and what it calls", 2),
    (["--set", "a=g", "--set", "__SCK__a=f"], "a: a static call is set twice: found g and f, expected one function", 2),
    (["--set", "a=g", "--key", "a"], "--key, --sites and --line-size show a file, --set changes one – ftpatch "
     "static-calls shows the result", 2),
    (["--dry-run"], "--dry-run is for --set: expected --set KEY=FUNC, or no such option", 2),
    (["-o", "x"], "-o is for --set: expected --set KEY=FUNC, or no such option", 2),
    (["--force-signature"], "--force-signature is for --set: expected --set KEY=FUNC, or no such option", 2),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message", "code"), LINES, ids=[" ".join(row[0]) for row in LINES])
def test_command_lines_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, code: int
) -> None:
    path = made(tmp_path)
    assert run(["static-calls", str(path), *arguments]) == code
    assert capsys.readouterr().err == f"ftpatch: {message}\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["vmlinux"]


def test_what_cannot_be_set_is_left_out_where_that_is_wanted(tmp_path: Path) -> None:
    path = made(tmp_path)
    written = set_calls(path, "a=g", "b=g", skip_unpatchable=True)
    image = written.document.images[0]
    assert [(call["key"], call["was"], call["to"], call["left"]) for call in image["set_calls"]] == [
        ("a", "f", "g", None), ("b", "g", "g", "it calls g already"),
    ]  # fmt: skip
    assert (image["done"]["patched"], image["done"]["left"], image["done"]["edits"]) == (1, 1, 2)


def test_the_journal_names_what_owns_each_byte_and_brings_the_file_back(tmp_path: Path) -> None:
    path = made(tmp_path)
    before = path.read_bytes()
    assert run(["static-calls", str(path), "--set", "a=g", "--set", "n=f", "--in-place"]) == 0
    journal = tmp_path / "vmlinux.ftpatch.json"
    edits = json.loads(journal.read_text())["images"][0]["edits"]
    assert [edit["owner"] for edit in edits] == ["trampoline a", "trampoline n", "key a", "key n"]
    assert run(["restore", str(path), "--journal", str(journal), "--in-place"]) == 0
    assert path.read_bytes() == before


def test_a_journal_of_another_setting_is_held_against_the_file(tmp_path: Path) -> None:
    path = made(tmp_path)
    set_calls(path, "a=g")
    journal = tmp_path / "patched.json"
    journal.write_text(journal.read_text().replace('"to": "g"', '"to": "user"'))
    assert [finding.message for finding in api.verify(str(path), str(tmp_path / "patched"), str(journal)).findings] == [
        "the static call a: user in the journal, g in the file"
    ]


def test_a_function_that_comes_back_to_its_own_static_call_is_told(tmp_path: Path) -> None:
    """`user` has a site of `a`; `last` jumps to it by the trampoline of `b`."""
    path = made(tmp_path, code={TEXT + 0x16: b"\xc3"})
    warnings = set_calls(path, "a=user").plan.warnings
    assert (
        "user calls the static call a, which is user from now on: it never returns, unless a condition ends that"
        in (warnings)
    )
    assert [text for text in set_calls(path, "a=g").plan.warnings if "static call a" in text] == []


def test_verify_names_what_was_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made(tmp_path)
    set_calls(path, "a=NULL", "r=f")
    assert run(["verify", str(path), str(tmp_path / "patched")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  static     2 static calls set: a -> NULL, r -> f" in lines
    assert "  edits      static call's key 2, static call's trampoline 2" in lines


def test_the_report_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made(tmp_path)
    assert run(["static-calls", str(path), "--set", "a=g", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "  keys       1 set\n    a: f -> g, 2 sites; type " in text
    assert "  output     nothing written (dry run); 2 edits, 13 bytes\n" in text
    assert run(["static-calls", str(path), "--set", "a=g", "--dry-run", "--format", "csv"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "file,key,was,to,to_va,sites,signature,left"
    assert second.startswith(f"{path},a,f,g,0xffffffff81000050,2,")


@pytest.mark.parametrize(("table", "place"), [(".rela.data", ".data+0x0"),
                                              (".rela.static_call.text", ".static_call.text+0x1")])  # fmt: skip
def test_a_modules_relocation_of_another_type_is_refused(
    table: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "calls.ko"
    elf = EditedElf(Path(__file__).parents[1] / "testdata/static_calls/calls.ko")
    path.write_bytes(elf.rela(table, 0, r_info=elf.relocation(table, 0, "r_info") >> 32 << 32 | 10).raw)
    assert run(["static-calls", str(path), "--set", "own=late", "-o", str(tmp_path / "out.ko")]) == 5
    expected = "type 1" if table == ".rela.data" else "type 2"
    line = f"{path}: {place}: a relocation of a static call is of another type: found type 10, expected {expected}"
    assert f"ftpatch: {line}\n" in capsys.readouterr().err
    assert not (tmp_path / "out.ko").exists()
