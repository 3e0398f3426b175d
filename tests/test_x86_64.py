"""x86_64 in the verbs that read: sites of five bytes at any address, their records, and what looks like them."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from elfwriter import ALLOC, ET_EXEC, ET_REL, EXEC, MINI, NOTYPE, RELA, SECTION, WRITE, Elf, parsed, rela, written

from ftpatch import api
from ftpatch.cli import run
from ftpatch.rules.register import known_rules
from ftpatch.rules.run import Request, check_file

X86 = MINI.parent / "x86_64"
CALLS = MINI.parent / "calls"
ABS64, PC32 = 1, 2
ENDBR, NOP5, RET, PUSH = bytes.fromhex("f30f1efa"), bytes.fromhex("0f1f440000"), b"\xc3", b"\x55"
TEXT, TABLE = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8200_0000
FENTRY, CALLER, SIZE = 0x10, 0x20, 0x400
EACH = ("inner", "weakly", "outer", "starts", "ends")
TOGETHER = {"inner": 0, "weakly": 0x20, "outer": 0x30, "starts": 0x80, "ends": 0xA0}  # linked files have one .text

Function = tuple[str, int, bytes]  # name, offset in the text, code
Label = tuple[str, int]  # name, offset in the text


def scanned(path: Path | str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The image of a JSON report."""
    capsys.readouterr()
    assert run(["scan", str(path), "--format", "json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert isinstance(image, dict)
    return image


def findings(path: Path | str, *rules: str) -> list[tuple[str, str]]:
    found = check_file(Request(rules or known_rules()), str(path)).findings
    return [(one.finding.rule, one.finding.message) for one in found]


def jump(at: int, target: int, opcode: int = 0xE8) -> bytes:
    """A call in the text at one offset of another; 0xE9: a jump."""
    return bytes([opcode]) + struct.pack("<i", target - at - 5)


def entry(at: int, target: int = FENTRY, opcode: int = 0xE8) -> bytes:
    """A function's first bytes: an endbr64 and a call behind it."""
    return ENDBR + jump(at + 4, target, opcode)


def kernel(
    functions: Sequence[Function], records: Sequence[int], padding: Sequence[str] = (), labels: Sequence[Label] = ()
) -> bytes:
    """A small vmlinux. padding: names of symbols of the 16 bytes in front of the functions, in their order."""
    text = bytearray(b"\xcc" * SIZE)
    own: list[Function] = [("__fentry__", FENTRY, RET), ("ftrace_caller", CALLER, b"\x9c\x9d" + RET)]
    for _, at, code in (*own, *functions):
        text[at : at + len(code)] = code
    elf = Elf(ET_EXEC, 62)
    sec = elf.section(".text", bytes(text), flags=ALLOC | EXEC, addr=TEXT, align=16)
    slots = [TEXT + record if record else 0 for record in records]
    data = elf.section(".init.data", struct.pack(f"<{len(slots)}Q", *slots), flags=ALLOC | WRITE, addr=TABLE, align=8)
    for name, at, code in (*own, *functions):
        elf.symbol(name, sec, TEXT + at, len(code))
    for name, (_, at, _) in zip(padding, functions, strict=False):
        elf.symbol(name, sec, TEXT + at - 16, 16)
    for name, at in labels:
        elf.symbol(name, sec, TEXT + at, type=NOTYPE)
    elf.symbol("__start_mcount_loc", data, TABLE, type=NOTYPE)
    elf.symbol("__stop_mcount_loc", data, TABLE + 8 * len(slots), type=NOTYPE)
    return elf.build()


# -- records ---------------------------------------------------------------------------------------------------------


def slots_of(path: Path) -> list[tuple[str, int]]:
    """(section, offset) that each record of an object names: its relocation against a section's symbol."""
    elf: Any = parsed(path.read_bytes())
    table = elf.get_section_by_name(".rela__mcount_loc")
    symbols = elf.get_section(table["sh_link"])
    rows = sorted(table.iter_relocations(), key=lambda row: row["r_offset"])
    assert [row["r_info_type"] for row in rows] == [ABS64] * len(rows)
    named = [symbols.get_symbol(row["r_info_sym"]) for row in rows]
    return [(elf.get_section(symbol["st_shndx"]).name, symbol["st_value"] + row["r_addend"])
            for symbol, row in zip(named, rows, strict=True)]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "functions", "with_endbr", "left"),
    [
        (CALLS / "x86_64-cf-none.o", EACH, 0, "e8"),
        (CALLS / "x86_64-cf-branch.o", EACH, 4, "e8"),
        (CALLS / "x86_64-cf-full.o", EACH, 4, "e8"),
        (CALLS / "x86_64-nop.o", EACH, 4, "0f1f440000"),
        (CALLS / "x86_64-both.o", (*EACH, *(f"{name}2" for name in EACH)), 4, ""),
        (CALLS / "x86_64-comdat.o", ("_Z5twiceIiET_S0_", "_Z5twiceIlET_S0_", "_Z4usedi"), 0, "e8"),
        (X86 / "nop.o", ("direct_only", "vfs_read", "vfs_write", "slot_probe", "arch_hook_early", "arch_hook_power",
                         "_printk", "__do_sys_getppid", "setup_hooks", "start_kernel"), 0, "0f1f440000"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else None,
)  # fmt: skip
def test_every_record_of_an_object_is_a_site_of_five_bytes(
    path: Path, functions: tuple[str, ...], with_endbr: int, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image, file, elf = scanned(path, capsys), path.read_bytes(), parsed(path.read_bytes())
    summary, sites = image["summary"], image["sites"]
    assert (image["arch"], image["kind"], image["layout"], image["carrier"]) == (
        "x86_64", "object", "fentry", "section",
    )  # fmt: skip
    assert (summary["slots"], summary["live"], summary["with_skip"]) == (len(functions), len(functions), with_endbr)
    assert "unrecorded" not in summary and "padding" not in summary
    assert [(site["section"], int(site["record"], 16)) for site in sites] == slots_of(path)
    assert [site["function"] for site in sites] == list(functions)
    table: Any = elf.get_section_by_name(".symtab")
    for site in sites:
        (symbol,) = table.get_symbol_by_name(site["function"])
        behind = int(site["record"], 16) - symbol["st_value"]
        code = file[site["pos"] - behind : site["pos"] + 5]
        assert code[:-5] == (ENDBR if behind else b"")
        assert site["words"] == ["0x" + code[-5:].hex()] and code[-5:].hex().startswith(left)
        assert int(site["entry"], 16) == symbol["st_value"]
        assert site["site"] == site["branch"] == site["record"]
    assert [rule for rule, _ in findings(path) if rule != "exit-text"] == []


# -- calls without records -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layout", "at"),
    [
        ("x86_64.o", "fentry", {**TOGETHER, "starts": 0, "ends": 0}),
        ("x86_64-sections.o", "fentry", dict.fromkeys(EACH, 0)),
        ("x86_64-mcount.o", "mcount", {"inner": 4, "weakly": 0x24, "outer": 0x37, "starts": 4, "ends": 4}),
        ("x86_64-static", "fentry", TOGETHER),
        ("x86_64-static-pie", "fentry-got", TOGETHER),  # relaxed: addr32 call
        ("x86_64-plt", "fentry", TOGETHER),
        ("x86_64-ibtplt", "fentry", {"inner": 0, "weakly": 0x24, "outer": 0x34, "starts": 0x84, "ends": 0xA4}),
    ],
)
def test_every_call_without_a_record_is_a_row(
    name: str, layout: str, at: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    image, file = scanned(CALLS / name, capsys), (CALLS / name).read_bytes()
    assert (image["layout"], image["summary"]["slots"], image["summary"]["unrecorded"]) == (layout, 0, 5)
    assert {site["function"]: int(site["offset"], 16) for site in image["sites"]} == at
    assert [(site["row"], site["status"]) for site in image["sites"]] == [(None, "unrecorded")] * 5
    assert [file[site["pos"]] for site in image["sites"]] == [0x67 if layout == "fentry-got" else 0xE8] * 5


def test_where_names_are_stripped_the_calls_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    names = [site["function"] for site in scanned(CALLS / "x86_64-stripped.o", capsys)["sites"]]
    assert names == [None, "weakly", "outer", "starts", "ends"]


POINTER = "5 calls of __fentry__ through a pointer (-fpic, -mcmodel=large)"
SOME = "calls __fentry__ and has no record, one of 4 beside 5 records"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("x86_64.o", [("calls-without-records", "4 calls of __fentry__ and no record: inner, weakly, outer, …")]),
        ("x86_64-mcount.o", [("calls-without-records", "4 calls of mcount and no record: inner, weakly, outer, …")]),
        ("x86_64-got.o", [("calls-without-records", "4 calls of __fentry__ and no record: inner, weakly, outer, …")]),
        ("x86_64-large.o", [("calls-without-records", f"{POINTER}: no tracer can switch such a call")]),
        ("x86_64-some.o", [("call-without-record", f"{name} {SOME}")
                           for name in ("inner2", "weakly2", "outer2", "starts2")]),
        ("x86_64-plt", [("profiled-program", "5 functions call __fentry__: inner, weakly, outer, …")]),
        ("x86_64-padding.o", []),
    ],
)  # fmt: skip
def test_what_check_says_of_calls(name: str, found: list[tuple[str, str]]) -> None:
    """An object with a record for each call said that none had one: a relocation lies one byte behind the opcode."""
    assert [one for one in findings(CALLS / name) if one[0] != "exit-text"] == found


def test_records_of_calls_through_the_got_are_sites_of_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    image = scanned(CALLS / "x86_64-got-records.o", capsys)
    assert (image["layout"], image["summary"]["by_status"]) == ("fentry-got", {"ready": 5})
    assert {site["words"][0] for site in image["sites"]} == {"0xff1500000000"}


@pytest.mark.parametrize(("function", "why"), [("outer", "it calls the profiling function (-pg) through a pointer "
                                                "(-fpic, -mcmodel=large), which no tracer can switch"),
                                               ("untraced", "compiled without a patch site: notrace, assembly, or a "
                                                "file without the tracer's flags")])  # fmt: skip
def test_explain_knows_calls_through_a_pointer(
    function: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert run(["explain", function, str(CALLS / "x86_64-large.o"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["absent"]["text"] == why


def test_a_list_of_padding_is_no_list_of_records(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten modules of Debian's kernel have nothing else, and were refused as of an unknown layout."""
    path = CALLS / "x86_64-padding.o"
    image = scanned(path, capsys)
    assert (image["layout"], image["carrier"], image["sites"], image["summary"]["padding"]) == ("none", "none", [], 2)
    assert run(["scan", str(path)]) == 0
    said = "  padding    2 places in __patchable_function_entries, a list that ftrace of this machine ignores\n"
    assert said in capsys.readouterr().out


# -- kernels ---------------------------------------------------------------------------------------------------------

F, G, H = 0x100, 0x140, 0x180
BODY = bytes.fromhex("4154 4889fb 5b 415c c3".replace(" ", ""))  # push r12; mov rbx, rdi; pop rbx; pop r12; ret
PLAIN: tuple[Function, ...] = (("f", F, entry(F) + BODY), ("g", G, jump(G, FENTRY) + BODY))


def test_the_call_and_the_nop_may_be_in_one_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    functions = (*PLAIN, ("h", H, ENDBR + NOP5 + BODY))
    path = written(tmp_path / "vmlinux", kernel(functions, (0, F + 4, G, H + 4)))
    image = scanned(path, capsys)
    assert image["summary"]["by_status"] == {"ready": 3} and image["summary"]["with_skip"] == 2
    assert image["summary"]["boot"] == {"allocating": 3, "listed": 3}
    assert [(site["function"], site["status"], site["words"]) for site in image["sites"]] == [
        (None, "null", []), ("f", "ready", ["0x" + jump(F + 4, FENTRY).hex()]),
        ("g", "ready", ["0x" + jump(G, FENTRY).hex()]), ("h", "ready", ["0x" + NOP5.hex()]),
    ]  # fmt: skip
    assert findings(path) == []


def test_symbols_of_padding_are_no_functions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """objtool and kCFI name the bytes in front of every function; nobody means those by `*`."""
    path = written(tmp_path / "vmlinux", kernel(PLAIN, (F + 4, G), ("__pfx_f", "__cfi_g")))
    assert [site["function"] for site in scanned(path, capsys)["sites"]] == ["f", "g"]
    assert len(api.scan(path).image.functions.va) == 4
    assert run(["scan", path, "--func", "*_f", "--sites"]) == 5
    assert "*_f" in capsys.readouterr().err
    assert run(["explain", "__pfx_f", path]) == 0
    why = "padding in front of a function, which the symbol is named after: no function itself"
    assert f"  why        {why}\n" in capsys.readouterr().out
    assert findings(path) == []


NOINSTR: tuple[Label, ...] = (("__noinstr_text_start", H), ("__noinstr_text_end", H + 0x20))


@pytest.mark.parametrize(
    ("name", "labels", "why"),
    [
        ("h", (), "compiled without a patch site: notrace, assembly, or a file without the tracer's flags"),
        ("h", NOINSTR, "noinstr, which is never traced"),
        ("g.cold", (), "a part of g, which has the site at its own entry if it has one"),
        ("__SCT__k", (), "the trampoline of a static call, whose sites ftpatch static-calls --key k tells"),
    ],
)
def test_why_a_function_has_no_site(
    name: str, labels: tuple[Label, ...], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "vmlinux", kernel((*PLAIN, (name, H, BODY)), (0, F + 4, G), labels=labels))
    assert run(["explain", name, path, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["absent"]["text"] == why


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (entry(H, CALLER) + BODY, [("without-record", "1 sites call without a record, the first is h: an earlier patch "
                                    "(they call ftrace_caller)")]),
        (jump(H, CALLER) + BODY, [("without-record", "1 sites call without a record, the first is h: an earlier patch "
                                   "(they call ftrace_caller)")]),
        (entry(H) + BODY, [("call-without-record", "h calls __fentry__ and has no record, one of 1 beside 3 records")]),
        (entry(H, G, 0xE9) + BODY, [("redirected", "1 function is redirected (h): likely an earlier patch (to g)")]),
        (entry(H, G, 0xE9), []),  # a tail call is all of it
        (entry(H, G, 0xE9) + b"\xcc\xcc", []),  # a thunk
        (jump(H, G, 0xE9) + b"\x0f\xb9\xcc", []),  # the trampoline of a static call
        (jump(H, G, 0xE9) + b"SCT", []),  # of an older kernel
        (jump(H, H + 6, 0xE9) + BODY, []),  # a jump in the function
        # a call of C, which calls __fentry__ itself; the body takes its argument from where g may have left anything
        (entry(H, G) + BODY, [("ipa-ra", "its caller h keeps values in rdi over the call at .text+0x184 (IPA-RA)")]),
        (ENDBR + NOP5 + BODY, []),  # a NOP of its own: a static key
    ],
    ids=["enabled", "enabled-no-endbr", "dropped", "redirected", "tail-call", "thunk", "static-call", "older", "inside",
         "call", "nop"],
)  # fmt: skip
def test_what_an_entry_without_a_record_is(code: bytes, said: list[tuple[str, str]], tmp_path: Path) -> None:
    """3,858 trampolines of static calls and thunks of a stock kernel were told as redirected by a patch."""
    path = written(tmp_path / "vmlinux", kernel((*PLAIN, ("h", H, code)), (0, F + 4, G)))
    assert findings(path) == said


def test_the_unlikely_part_of_a_function_is_not_redirected(tmp_path: Path) -> None:
    path = written(
        tmp_path / "vmlinux", kernel((*PLAIN, ("h.cold", H, jump(H, G, 0xE9) + BODY)), (0, F + 4, G))
    )  # fmt: skip
    assert findings(path) == []


def test_the_code_of_overridden_weak_functions_has_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their records were emptied by the build: 622 in a stock kernel, as many calls that nothing names or calls."""
    file = bytearray(kernel((*PLAIN, ("weak", H, entry(H) + BODY)), (0, F + 4, G)))
    file = file.replace(b"\0weak\0", b"\0here\0")  # the name stays, its type does not
    elf: Any = parsed(bytes(file))
    table = elf.get_section_by_name(".symtab")
    row = next(n for n, one in enumerate(table.iter_symbols()) if one.name == "here")
    file[table["sh_offset"] + 24 * row + 4] &= 0xF0
    path = written(tmp_path / "vmlinux", bytes(file))
    image = scanned(path, capsys)
    assert len(image["sites"]) == 3 and "unrecorded" not in image["summary"]
    assert findings(path) == []


def test_leftovers_of_weak_functions_are_listed_as_invalid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """FTRACE_MCOUNT_MAX_OFFSET is 4, an endbr64: no symbol is so near in front of them. Older kernels have no word."""
    file, word = (X86 / "vmlinux-nop").read_bytes(), b"__ftrace_invalid_address__"
    banner = b"Linux version 0.0.0-x86 (ftpatch fixture)"
    newer = written(tmp_path / "vmlinux", file.replace(banner, word.ljust(len(banner))))
    for path, listed in ((X86 / "vmlinux-nop", "slot_probe"), (newer, "__ftrace_invalid_address__")):
        sites = [site for site in scanned(path, capsys)["sites"] if site["function"] is None]
        assert [(site["status"], site["listed_as"]) for site in sites] == [("weak-leftover", listed)] * 2


# -- who else writes there ---------------------------------------------------------------------------------------------


def module(front: bytes, key: int, alternatives: Sequence[tuple[int, int]], row: int) -> bytes:
    """An object with f at 0x20, code in front of it, a static key, and alternatives of `row` bytes: (place, length)."""
    text = bytearray(0x60)
    text[0x20 - len(front) : 0x20], text[0x20:0x26] = front, b"\xe8" + bytes(4) + RET
    elf = Elf(ET_REL, 62)
    sec = elf.section(".text", bytes(text), flags=ALLOC | EXEC, align=16)
    tables = {
        "__mcount_loc": (bytes(8), [rela(0, ABS64, 0x20, 1)]),
        "__jump_table": (bytes(16), [rela(0, PC32, key, 1), rela(4, PC32, key, 1)]),
        ".altinstructions": (
            b"".join(bytes(row - 2) + bytes([length, 0]) for _, length in alternatives),
            [rela(row * n, PC32, place, 1) for n, (place, _) in enumerate(alternatives)],
        ),
    }
    for name, (content, rows) in tables.items():
        number = elf.section(name, content, flags=ALLOC, align=8)
        elf.section(f".rela{name}", b"".join(rows), type=RELA, info=number, link=2 * len(tables) + 2, align=8,
                    entsize=24)  # fmt: skip
    elf.symbol("", sec, 0, type=SECTION, bind=0)
    elf.symbol("f", sec, 0x20, 6)
    elf.symbol("__fentry__", 0, 0, type=NOTYPE)
    return elf.build()


@pytest.mark.parametrize("row", [12, 14])
@pytest.mark.parametrize(
    ("front", "key", "alternative", "who"),
    [
        (b"\x66\x90\xeb\xf5", 0x1C, (0x50, 5), ""),  # ceph.ko of 6.1: two bytes, four in front of the function
        (b"\xeb\x10\x90\x90", 0x1C, (0x50, 5), ""),
        (NOP5[:4], 0x1C, (0x50, 5), "a static key"),  # five bytes reach into it
        (b"\x66\x90\xeb\xf5", 0x22, (0x50, 5), "a static key"),
        (b"\x66\x90\xeb\xf5", 0x1C, (0x1E, 3), "an alternative"),
        (b"\x66\x90\xeb\xf5", 0x1C, (0x1E, 2), ""),
    ],
)
def test_who_else_rewrites_a_site(
    front: bytes, key: int, alternative: tuple[int, int], who: str, row: int, tmp_path: Path
) -> None:
    rows = [(0x50, 5)] * 6 + [alternative]
    path = written(tmp_path / "m.o", module(front, key, rows, row))
    said = [message for rule, message in findings(path, "site-shared") if rule == "site-shared"]
    assert said == ([f"row 0: {who} rewrites words of this site too"] if who else [])


# -- two builds ------------------------------------------------------------------------------------------------------


def test_diff_of_two_builds_of_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    """The endbr64 and the NOP are other code at the same sites: nothing is lost."""
    old, new = CALLS / "x86_64-cf-none.o", CALLS / "x86_64-cf-branch.o"
    assert run(["diff", str(old), str(new), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)["images"][0]["findings"]
    assert [one["message"] for one in found] == ["with skip: 0 -> 4 (+4)"]
    assert run(["diff", str(new), str(CALLS / "x86_64.o")]) == 1
    assert "5 no longer traceable" in capsys.readouterr().out
