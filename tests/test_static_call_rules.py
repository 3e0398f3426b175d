"""Rules about static calls, on a kernel and an object of a few bytes each: every one has one thing wrong."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from elfwriter import EXEC, RELA, SYMTAB
from static_call_files import (
    DATA,
    ENTRIES,
    FUNCTIONS,
    INIT,
    KEYS,
    NOP5,
    RET,
    RODATA,
    SIGNATURE,
    SITES,
    TEXT,
    TRAMPOLINES,
    XOR,
    branch,
    kernel,
    made,
)

from ftpatch.rules.register import known_rules
from ftpatch.rules.run import Request, check_file


def changed(row: int, *entry: Any) -> dict[str, Any]:
    """The entries with another one in a row."""
    return {"entries": [*ENTRIES[:row], entry, *ENTRIES[row + 1 :]]}


KERNELS: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
    ("sound", {}, []),
    ("set-inline", {"code": {TEXT + 0x11: branch("e8", TEXT + 0x11, FUNCTIONS["f"])}}, []),
    ("null-jump", {"code": {TEXT + 0x30: branch("e9", TEXT + 0x30, FUNCTIONS["__x86_return_thunk"])}}, []),
    ("null-return", {"code": {TEXT + 0x30: RET}}, []),
    ("null-call", {"code": {TEXT + 0x11: NOP5}, **changed(0, TEXT + 0x11, "n", 0)}, []),
    ("return0-call", {"code": {TEXT + 0x11: XOR}, **changed(0, TEXT + 0x11, "r", 0)}, []),
    ("null-trampolines", {"code": {TRAMPOLINES["n"]: RET + SIGNATURE}}, []),
    ("return0-trampoline", {"code": {TRAMPOLINES["r"]: bytes.fromhex("31c0c3cccc") + SIGNATURE}}, []),
    ("no-names", {"without": [f"__SC{kind}__{name}" for kind in "KT" for name in KEYS], "pairs": ()}, []),
    ("one-bound", {"without": ["__stop_static_call_sites"]}, [
        ("static-call-table",
         "only one end of the table of static calls is named: no symbol __stop_static_call_sites")]),
    ("odd-size", {"symbols": {"__stop_static_call_sites": RODATA + 28}}, [
        ("static-call-table", "the table of static calls holds no whole number of entries: 28 bytes")]),
    ("in-data", changed(0, DATA, "a", 0), [("static-call-place", "entry 0 names .data+0x0, which is no code")]),
    ("nowhere", changed(0, 0xFFFFFFFF90000000, "a", 0), [("static-call-place", "entry 0 names no place")]),
    ("end", changed(0, TEXT + 0xFC, "a", 0), [
        ("static-call-place", "entry 0 names .text+0xfc: its 5 bytes run over the end of the section")]),
    ("behind-etext", {"symbols": {"_etext": TEXT + 0x30}}, [
        ("static-call-place", "entry 2 names .text+0x30, which is outside the kernel's text")]),
    ("key-behind", changed(0, TEXT + 0x11, DATA + 8, 0), [
        ("static-call-key", "entry 0 (.text+0x11) names no key: no symbol __SCK__… has that address")]),
    ("key-trampoline", changed(0, TEXT + 0x11, TRAMPOLINES["a"], 0), [
        ("static-call-key", "entry 0 (.text+0x11) names no key: no symbol __SCK__… has that address")]),
    ("key-nowhere", changed(0, TEXT + 0x11, 0xFFFFFFFF90000000, 0), [
        ("static-call-key", "entry 0 (.text+0x11) names no key: no symbol __SCK__… has that address")]),
    ("read-only", {"read_only": True, **{"entries": ENTRIES[:1]}}, [
        ("static-call-key",
         "entry 0 (.text+0x11) names a key in memory that is never written: the kernel writes into it")]),
    ("form", {"code": {TEXT + 0x11: b"\x90"}}, [
        ("static-call-form", "entry 0 (.text+0x11) has 906a000000, no call or jump of a static call")]),
    ("tail-call", changed(0, TEXT + 0x11, "a", 1), [
        ("static-call-flag", "entry 0 (.text+0x11) is flagged as a tail call, its instruction is a call")]),
    ("no-tail", changed(1, TEXT + 0x20, "b", 0), [
        ("static-call-flag", "entry 1 (.text+0x20) has no flag of a tail call, its instruction is a jump")]),
    ("no-tail-conditional", changed(2, TEXT + 0x30, "n", 0), [
        ("static-call-flag",
         "entry 2 (.text+0x30) has no flag of a tail call, its instruction is a conditional jump")]),
    ("init-flag", changed(0, TEXT + 0x11, "a", 2), [
        ("static-call-flag", "entry 0 (.text+0x11) is flagged as init text, and stays: updates pass it by")]),
    ("init-flag-in-init", changed(3, INIT + 4, "a", 2), []),
    ("other-trampoline", {"code": {TEXT + 0x11: branch("e8", TEXT + 0x11, TRAMPOLINES["b"])}}, [
        ("static-call-destination", "entry 0 (.text+0x11) is a call to __SCT__b, its key is __SCK__a")]),
    ("other-function", {"code": {TEXT + 0x11: branch("e8", TEXT + 0x11, FUNCTIONS["g"])}}, [
        ("static-call-destination", "entry 0 (.text+0x11) is a call to g, its key is __SCK__a")]),
    ("into-a-function", {"code": {TEXT + 0x11: branch("e8", TEXT + 0x11, FUNCTIONS["f"] + 4)}}, [
        ("static-call-destination", "entry 0 (.text+0x11) is a call to f+0x4, its key is __SCK__a")]),
    ("nop-of-a-function", {"code": {TEXT + 0x11: NOP5}}, [
        ("static-call-destination", "entry 0 (.text+0x11) is a NOP, its key is __SCK__a")]),
    ("xor-of-a-function", {"code": {TEXT + 0x11: XOR}}, [
        ("static-call-destination", "entry 0 (.text+0x11) is xor %eax, %eax, its key is __SCK__a")]),
    ("return-of-a-function", {"code": {TEXT + 0x20: RET}}, [
        ("static-call-destination", "entry 1 (.text+0x20) is a return, its key is __SCK__b")]),
    ("twice", {"entries": [*ENTRIES, ENTRIES[0]]}, [
        ("static-call-twice", "entries 0 and 4 name the same instruction, .text+0x11")]),
    ("overlap", {"entries": [*ENTRIES, (TEXT + 0x22, "b", 1)], "code": {TEXT + 0x22: RET}}, [
        ("static-call-destination", "entry 1 (.text+0x20) is a jump, its key is __SCK__b"),
        ("static-call-destination", "entry 4 (.text+0x22) is a return, its key is __SCK__b"),
        ("static-call-twice", "entries 1 and 4 name instructions 2 bytes apart, .text+0x22")]),
    ("no-trampoline", {"without": ["__SCT__b"]}, [("static-call-trampoline", "__SCK__b has no trampoline")]),
    ("no-key", {"without": ["__SCK__r"]}, [("static-call-trampoline", "__SCT__r has no key")]),
    ("signature", {"code": {TRAMPOLINES["a"] + 7: b"\xcd"}}, [
        ("static-call-signature", "__SCT__a has no signature behind its jump: e9 bb ff ff ff 0f b9 cd")]),
    ("no-signatures", {"code": {va + 5: b"\xcc\xcc\xcc" for va in TRAMPOLINES.values()}}, []),  # before Linux 5.16
    ("no-jump", {"code": {TRAMPOLINES["a"]: b"\xeb"}}, [
        ("static-call-signature", "__SCT__a has no code of a trampoline: eb bb ff ff ff 0f b9 cc")]),
    ("key-alone", {"pointers": {"a": FUNCTIONS["g"]}}, [
        ("static-call-function", "__SCK__a holds g, its trampoline leads to f")]),
    ("key-null", {"pointers": {"a": 0}}, [("static-call-function", "__SCK__a holds NULL, its trampoline leads to f")]),
    ("key-no-address", {"pointers": {"a": 0x1200000081000040}}, [
        ("static-call-function", "__SCK__a holds no place of this file, its trampoline leads to f")]),
    ("null-with-function", {"pointers": {"n": FUNCTIONS["g"]}}, [
        ("static-call-function", "__SCK__n holds g, its trampoline leads to __x86_return_thunk")]),
    ("null-is-not-return0", {"pointers": {"r": 0}}, [
        ("static-call-function", "__SCK__r holds NULL, its trampoline leads to __static_call_return0")]),
    ("pair", {"pairs": (("a", "a"), ("b", "a"))}, [
        ("static-call-pair", "pair 1 of trampoline and key has __SCT__b and __SCK__a")]),
    ("pair-nowhere", {"pairs": (("", "a"),)}, [
        ("static-call-pair", "pair 0 of trampoline and key has 0xffffffff81000000 and __SCK__a")]),
]  # fmt: skip


def findings(path: Path) -> list[tuple[str, str]]:
    rules = tuple(rule for rule in known_rules() if rule.startswith("static-call"))
    return [(one.finding.rule, one.finding.message) for one in check_file(Request(rules), str(path)).findings]


@pytest.mark.parametrize(("changes", "expected"), [case[1:] for case in KERNELS], ids=[case[0] for case in KERNELS])
def test_a_kernel(changes: dict[str, Any], expected: list[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(kernel(**changes))
    assert findings(tmp_path / "vmlinux") == expected


def other(row: int, *site: Any) -> dict[str, Any]:
    return {"sites": [*SITES[:row], site, *SITES[row + 1 :]]}


OBJECTS: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
    ("sound", {}, []),
    ("cut", {"cut": 4}, [
        ("static-call-table", "the table of static calls holds no whole number of entries: 20 bytes")]),
    ("no-place", other(0, None, "__SCK__away", 0), [("static-call-place", "entry 0 names no place")]),
    ("left-out", {"section": ".discard.text"}, [
        ("static-call-place", f"entry {row} names .discard.text+{at:#x}, in a section that the kernel leaves out")
        for row, (at, _, _) in enumerate(SITES)]),
    ("not-loaded", {"flags": EXEC}, [
        ("static-call-place", f"entry {row} names .text+{at:#x}, which is no code")
        for row, (at, _, _) in enumerate(SITES)]),
    ("no-key", other(0, 1, None, 0), [("static-call-key", "entry 0 (.text+0x1) names no key")]),
    ("function-as-key", other(0, 1, "f", 0), [("static-call-key", "entry 0 (.text+0x1) names no key")]),
    ("behind-own-key", other(2, 0x21, "__SCK__own", 9), [("static-call-key", "entry 2 (.text+0x21) names no key")]),
    ("behind-away-key", other(0, 1, "__SCK__away", 8), [("static-call-key", "entry 0 (.text+0x1) names no key")]),
    ("own-trampoline", other(2, 0x21, "__SCT__own", 1), [
        ("static-call-key", "entry 2 (.text+0x21) names a trampoline of its own file, not a key")]),
    ("relocated-nop", {"code": {1: NOP5}}, [
        ("static-call-form", "entry 0 (.text+0x1): a relocation writes into bytes that are no branch")]),
    ("nop-of-another-file", {"code": {1: NOP5}, "calls": {1: ""}}, []),
    ("nop-of-own-function", {"code": {0x21: RET}, "calls": {0x21: ""}}, [
        ("static-call-destination", "entry 2 (.text+0x21) is a return, its key is __SCK__own")]),
    ("tail-call", other(1, 0x11, "__SCT__closed", 1), [
        ("static-call-flag", "entry 1 (.text+0x11) is flagged as a tail call, its instruction is a call")]),
    ("init-flag", other(1, 0x11, "__SCT__closed", 2), [
        ("static-call-flag", "entry 1 (.text+0x11) is flagged as init text, and stays: updates pass it by")]),
    ("another-call", {"calls": {1: "__SCT__closed"}}, [
        ("static-call-destination", "entry 0 (.text+0x1) is a call to __SCT__closed, its key is __SCK__away")]),
    ("function-inline", {"calls": {0x21: "f"}}, []),
    ("key-alone", {"pointer": "g"}, [("static-call-function", "__SCK__own holds g, its trampoline leads to f")]),
    ("key-null", {"pointer": ""}, [("static-call-function", "__SCK__own holds NULL, its trampoline leads to f")]),
    ("key-away", {"pointer": "__static_call_return0"}, [
        ("static-call-function", "__SCK__own holds __static_call_return0, its trampoline leads to f")]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), [case[1:] for case in OBJECTS], ids=[case[0] for case in OBJECTS])
def test_an_object(changes: dict[str, Any], expected: list[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "made.o").write_bytes(made(**changes))
    assert findings(tmp_path / "made.o") == expected


def test_a_stripped_module_is_said_to_be_stripped(tmp_path: Path) -> None:
    """Without symbols no relocation names anything: the reader looked for a symbol in an empty table."""
    whole = bytearray(made())
    shoff, n = struct.unpack_from("<Q", whole, 40)[0], struct.unpack_from("<H", whole, 60)[0]
    for sec in range(n):
        (kind,) = struct.unpack_from("<I", whole, shoff + 64 * sec + 4)
        if kind in (RELA, SYMTAB):
            struct.pack_into("<I", whole, shoff + 64 * sec + 4, 0)
    (tmp_path / "made.o").write_bytes(whole)
    assert findings(tmp_path / "made.o") == []
