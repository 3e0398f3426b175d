"""Whether an edit could be made while the code runs: a class for each edit, an answer for each plan, and its steps."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from elfwriter import MINI

from ftpatch.arch import Arch, architectures
from ftpatch.document.fields import ANSWERS, CLASSES
from ftpatch.plan import liveness
from ftpatch.plan.edits import LEGAL
from tools.sabotage.__main__ import quietly

DATA = MINI.parent
TEXT = (DATA.parent / "docs/live.md").read_text()
NOP, MOV, BL, B = "1f2003d5", "e9031eaa", "00000094", "00000014"
PNOP, MFLR, PBL, PB = "00000060", "a602087c", "01000048", "00000048"


def arch(name: str) -> Arch:
    return next(machine for machine in architectures() if machine.name == name)


@pytest.mark.parametrize(
    ("machine", "kind", "va", "old", "new", "kind_of_edit"),
    [
        # Arm ARM B2.2.5: {B, BL, NOP, BRK, SVC, HVC, SMC}
        ("arm64", "site", 0x1000, NOP, B, "single"),
        ("arm64", "site", 0x1000, BL, NOP, "single"),
        ("arm64", "site", 0x1000, NOP, "000020d4", "single"),
        ("arm64", "site", 0x1000, NOP, MOV, "boot-only"),
        ("arm64", "site", 0x1000, NOP, "c0035fd6", "boot-only"),
        ("arm64", "site", 0x1002, NOP, B, "boot-only"),
        ("arm64", "site", 0x1000, NOP + NOP, MOV + BL, "pair"),
        ("arm64", "site", 0x103C, NOP + NOP, MOV + BL, "cross-line"),
        ("arm64", "site", 0x1000, MOV + BL, MOV + NOP, "single"),  # the second word alone
        ("arm64", "site", 0x103C, MOV + BL, MOV + NOP, "single"),
        ("arm64", "site", 0x1000, NOP + NOP, MOV + NOP, "boot-only"),
        # Power ISA 3.1 book II 1.8; cache lines of 128 bytes
        ("ppc64le", "site", 0x1000, PNOP, PB, "single"),
        ("ppc64le", "site", 0x1000, PBL, PNOP, "single"),
        ("ppc64le", "site", 0x1000, PNOP, MFLR, "boot-only"),
        ("ppc64le", "site", 0x1000, PNOP + PNOP, MFLR + PBL, "pair"),
        ("ppc64le", "site", 0x103C, PNOP + PNOP, MFLR + PBL, "pair"),
        ("ppc64le", "site", 0x107C, PNOP + PNOP, MFLR + PBL, "cross-line"),
        # Intel SDM 3, 9.1.3: which bytes change, and in how many lines they are
        ("x86_64", "site", 0x1000, "0f1f440000", "e800000000", "single"),
        ("x86_64", "site", 0x103E, "0f1f440000", "e800000000", "cross-line"),
        ("x86_64", "site", 0x103B, "e800000000", "e801000001", "single"),
        ("x86_64", "site", 0x103D, "e800000000", "e801000001", "cross-line"),
        ("x86_64", "site", 0x103F, "e800000000", "e801000001", "single"),  # all but the first byte
        ("x86_64", "trampoline", 0x1000, "e900000000", "e901000000", "single"),
        ("x86_64", "trampoline", 0x103D, "e900000000", "e901010101", "cross-line"),
        # data, and what is no code that runs
        ("arm64", "literal", 0x1008, NOP * 2, "00" * 8, "literal"),
        ("arm64", "literal", 0x1004, NOP * 2, "00" * 8, "unsafe"),
        ("ppc64le", "literal", 0x1008, "00" * 8, "11" * 8, "literal"),
        ("arm64", "trampoline", 0x1008, "00" * 8, "11" * 8, "literal"),
        ("x86_64", "key", 0x1008, "00" * 8, "11" * 8, "data"),
        ("x86_64", "key", 0x1004, "00" * 8, "11" * 8, "unsafe"),
        ("arm64", "thunk", 0x1000, "00" * 12, NOP * 3, "unreached"),
        ("ppc64le", "stub", 0x1000, "00" * 16, PNOP * 4, "unreached"),
        ("arm64", "pad", 0x1000, NOP * 3, MOV + BL + B, "unreached"),
        *(("arm64", kind, 0x1000, "00" * 8, "11" * 8, "load-only")
          for kind in ("record", "relocation", "bound", "symbol", "header", "call")),
    ],
)  # fmt: skip
def test_the_class_of_an_edit(machine: str, kind: str, va: int, old: str, new: str, kind_of_edit: str) -> None:
    assert liveness.of_edit(arch(machine), kind, va, bytes.fromhex(old), bytes.fromhex(new)) == kind_of_edit


def test_every_kind_of_edit_has_a_class() -> None:
    for kind in LEGAL:
        assert liveness.of_edit(arch("arm64"), kind, 0x1000, bytes(8), bytes([1] * 8)) in CLASSES
    assert {kind for kind, _ in liveness.LIVE.items()} == set(CLASSES)


STUBS, POINTERS, INT3 = liveness.NEW_CODE, liveness.POINTERS, list(liveness.INT3)
IDLE, CALLS, JUMPS = (liveness.FIRST.format(how=liveness.WHERE_IDLE),
                      *(liveness.CALLS.format(branch=branch) for branch in ("call", "jump")))  # fmt: skip
FORCED = ("--to", "vfs_write", "--force-signature")
PLANS = {
    "mini/vmlinux-pfe2 enable": ("no", [IDLE, CALLS], ["load-only", "pair"]),
    "mini/vmlinux-callops enable": ("no", [POINTERS, IDLE, CALLS], ["literal", "load-only", "pair"]),
    "mini/vmlinux-callops enable --ops-via thunk": ("no", [STUBS, IDLE, CALLS], ["load-only", "pair", "unreached"]),
    "mini-ppc64le/vmlinux-pfe2 enable": ("no", [IDLE, CALLS], ["load-only", "pair"]),
    "mini-ppc64le/vmlinux-mprofile enable": ("yes", [CALLS], ["load-only", "single"]),
    "mini-ppc64le/vmlinux-ool enable": (
        "in-order", [STUBS, POINTERS, JUMPS], ["literal", "load-only", "single", "unreached"]
    ),
    "x86_64/vmlinux-fentry enable": ("in-order", INT3, ["load-only", "single"]),
    "x86_64/vmlinux-nop enable": ("in-order", INT3, ["load-only", "single"]),
    "mini/vmlinux-pfe2 redirect": ("yes", [JUMPS], ["load-only", "single"]),
    "mini-ppc64le/vmlinux-pfe2 redirect": ("yes", [JUMPS], ["load-only", "single"]),
    "mini/vmlinux-callops drop": ("no", [], ["load-only"]),
    "mini/vmlinux-pg enable": ("yes", [CALLS], ["load-only", "single"]),
    # five NOPs of one byte, or one of five: between the former a thread may be
    "programs/small/x86_64-pie enable --hook hook": ("no", [STUBS, liveness.PIECES], ["boot-only", "load-only"]),
    "programs/small/arm64-pie enable --hook hook": ("no", [STUBS, IDLE, CALLS], ["load-only", "pair"]),
    "programs/pads/arm64-pie enable --target trampoline --arm": ("yes", [STUBS], ["unreached"]),
    "programs/pads/arm64-pie enable --target trampoline": ("in-order", [STUBS, JUMPS], ["single", "unreached"]),
    "mini-ppc64le/mini.ko enable --hook _printk": ("in-order", [STUBS, JUMPS], ["load-only", "single"]),
    "x86_64/mini.ko enable --hook _printk": ("in-order", [STUBS, *INT3], ["load-only"]),
    "mini/mini.ko enable --hook _printk": ("no", [STUBS, IDLE, CALLS], ["load-only", "pair"]),
}  # fmt: skip


def made(case: str, out: Path) -> dict[str, Any]:
    """The IMAGE object of a case: a file, a verb, and options."""
    name, verb, *options = case.split()
    more = FORCED if verb == "redirect" else ()
    func = "numbers" if name.startswith("programs") else "mini_work" if name.endswith(".ko") else "vfs_read"
    code, text = quietly([verb, str(DATA / name), "--func", func, *more, *options, "-o", str(out),
                          "--format", "json"])  # fmt: skip
    assert code == 0, text
    image: dict[str, Any] = json.loads(text)["images"][0]
    return image


@pytest.mark.parametrize("case", PLANS)
def test_the_answer_of_a_plan(case: str, tmp_path: Path) -> None:
    answer, steps, classes = PLANS[case]
    image = made(case, tmp_path / "out")
    assert (image["live"]["answer"], image["live"]["steps"]) == (answer, steps)
    assert sorted({edit["concurrency"] for edit in image["edits"]}) == classes
    assert [site["live"] for site in image["sites"]] == [answer]


def test_back_the_calls_go_first_and_the_stubs_last(tmp_path: Path) -> None:
    enabled, disabled = tmp_path / "enabled", tmp_path / "disabled"
    made("mini/vmlinux-callops enable", enabled)
    code, text = quietly(["disable", str(enabled), "--func", "vfs_read", "-o", str(disabled), "--format", "json"])
    live = json.loads(text)["images"][0]["live"]
    assert code == 0 and live["steps"] == [CALLS, IDLE, liveness.OLD_POINTERS]
    assert live["text"] == (
        "no: mov x9, x30 -> nop may be changed only where nobody executes it, and may stay as it is where the call is "
        "gone. But for that, in this order"
    )


def test_a_filled_pad_is_not_filled_anew_while_a_thread_may_be_in_it(tmp_path: Path) -> None:
    armed, again = tmp_path / "armed", tmp_path / "again"
    made("programs/pads/arm64-pie enable --target trampoline --arm", armed)
    code, text = quietly(["enable", str(armed), "--func", "numbers", "--target", "plain", "--arm", "-o", str(again),
                          "--format", "json"])  # fmt: skip
    image = json.loads(text)["images"][0]
    assert code == 0 and image["live"] == {
        "answer": "no", "text": f"no: {liveness.PAD_IN_USE}. But for that, in this order",
        "steps": [liveness.CHANGED_PADS],
    }  # fmt: skip
    assert {edit["concurrency"] for edit in image["edits"] if edit["owner"].startswith("pad")} == {"boot-only"}


def test_a_veneer_comes_first(tmp_path: Path) -> None:
    code, text = quietly(["enable", str(DATA / "far/vmlinux"), "--func", "far_a", "-o", str(tmp_path / "o")])
    live = text[text.index("  live ") : text.index("  note ")].split("\n")
    assert code == 0 and [row[13:25] for row in live if re.match(r" {13}\d\.", row)] == [
        "1. stubs and", "2. ops point", "3. the first", "4. the call ",
    ]  # fmt: skip


def test_a_static_call_has_its_key_first(tmp_path: Path) -> None:
    x86 = ("static_calls/vmlinux", "static_calls_arm64/vmlinux-rela")
    answers = {}
    for name in x86:
        table = json.loads(quietly(["static-calls", str(DATA / name), "--format", "json"])[1])["images"][0]
        keys = [entry["key"] for entry in table["static_calls"]["entries"] if entry["function"]]
        for key in keys:
            code, text = quietly(["static-calls", str(DATA / name), "--set", f"{key}=NULL", "-o", str(tmp_path / "o"),
                                  "--format", "json", "--force-signature"])  # fmt: skip
            image = json.loads(text)["images"][0] if code == 0 else {"edits": []}
            if image["edits"]:
                classes = sorted({edit["concurrency"] for edit in image["edits"]})
                answers[name] = (image["live"]["answer"], image["live"]["steps"][0], classes)
                break
    assert answers == {
        "static_calls/vmlinux": ("in-order", liveness.KEYS, ["data", "single"]),
        "static_calls_arm64/vmlinux-rela": ("in-order", liveness.KEYS, ["load-only"]),
    }


def test_explain_says_what_enabling_would_be() -> None:
    code, text = quietly(["explain", "vfs_read", str(MINI / "vmlinux-callops"), "--format", "json"])
    (row,) = json.loads(text)["images"][0]["explained"]
    assert code == 0 and row["concurrency"]["class"] == "pair" and row["live"]["answer"] == "no"
    assert [edit["class"] for edit in row["edits"]] == ["literal", "boot-only", "single"]
    assert (
        "  in all     no: nop -> mov x9, x30 may be"
        in quietly(["explain", "vfs_read", str(MINI / "vmlinux-callops")])[1]
    )


def test_csv_has_class_and_answer(tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "csv"
    code, _ = quietly(["redirect", str(MINI / "vmlinux-pfe2"), "--func", "vfs_read", *FORCED, "-o", str(out),
                       "--report", f"csv={table}"])  # fmt: skip
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert code == 0 and (row["concurrency"], row["live"]) == ("single", "yes")


def test_the_page_has_every_class_and_answer() -> None:
    assert re.findall(r"^\| `([\w-]+)` \|", TEXT, re.MULTILINE) == [
        "single", "boot-only", "pair", "cross-line", "unreached", "literal", "data", "unsafe", "load-only",
    ]  # fmt: skip
    assert set(re.findall(r"^\| `([\w-]+)` \|", TEXT, re.MULTILINE)) == set(CLASSES)
    assert all(f"`{answer}`" in TEXT for answer in ANSWERS)


@pytest.mark.parametrize("machine", ["arm64", "ppc64le"])
def test_the_page_names_the_instructions_that_may_be_exchanged(machine: str) -> None:
    names = {name for word in arch(machine).exchangeable for name in word.text.split(", ")}
    (shown,) = re.findall(rf"{machine} ((?:`\w+`,? ?)+)\(", TEXT)
    assert set(re.findall(r"`(\w+)`", shown)) == names
