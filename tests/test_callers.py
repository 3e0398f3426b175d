"""Callers that keep values over the call of a function with a site in registers that it leaves alone (IPA-RA)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_module import arm64_module

from ftpatch import api
from ftpatch.arch.register_use import bits
from ftpatch.cli import run
from ftpatch.errors import PolicyError
from ftpatch.finding import Finding
from ftpatch.proof.prove import Checks, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.callers import Callers
from ftpatch.sites.register_reader import RegisterReader
from ftpatch.sites.scan import scan_file

DATA = Path(__file__).parents[1] / "testdata/told"
PROGRAMS = ("program-arm64", "program-x86_64")
Capture = pytest.CaptureFixture[str]


def relied(path: Path) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """(function with a site, caller, registers, functions between) of a file, as they are told."""
    scan = scan_file(str(path))
    callers = Callers(scan.sites)
    assert callers.registers is not None
    return [
        (scan.sites.name(row.site) or "", row.caller, callers.registers.text(row.registers), row.through)
        for row in callers.relied_on(np.arange(len(scan.sites)))
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # not: the rest of a result that is an argument, a callee that calls another unit, one that never returns
        ("relies-arm64.o", [("leaf", "big", "x1-x6", ()), ("leaf", "either", "x1-x2", ()),
                              ("leaf", "wide", "x1-x12", ())]),
        ("relies-not-arm64.o", []),
        ("relies-option-arm64.o", []),
        ("relies-ppc64le.o", [("leaf", "big", "r9, f10", ())]),
        # by the types of functions: one that returns nothing leaves even v0 alone
        ("relies-debug-arm64.o", [("leaf", "big", "x1-x6", ()), ("leaf", "either", "x1-x2", ()),
                                  ("leaf", "wide", "x1-x12", ()), ("store", "floats", "v0-v1", ())]),
        ("program-x86_64", [("leaf", "more", "rcx, rdx, rsi, r8-r11", ()), ("tiny", "few", "rcx, rdx, rsi, r8", ()),
                            ("leaf", "farther", "rcx, rdx, rsi, r8-r11", ("between",))]),
        ("program-arm64", [("leaf", "more", "x1-x12", ()), ("tiny", "few", "x1-x4", ()),
                           ("leaf", "farther", "x1-x12", ("between",))]),
    ],
)  # fmt: skip
def test_what_callers_count_on(name: str, expected: list[tuple[str, str, str, tuple[str, ...]]]) -> None:
    assert relied(DATA / name) == expected


def test_what_a_function_passes_on_is_part_of_its_result(tmp_path: Path) -> None:
    """A kernel has one that changes r3, and returns a structure of two words whose second is its second argument."""
    path = tmp_path / "file"
    path.write_bytes((DATA / "passes-ppc64le.o").read_bytes())
    assert relied(path) == []


@pytest.mark.parametrize(("name", "n"), [("relies-arm64.o", 1), ("program-x86_64", 2)])
def test_check_says_so_once_for_each_function(name: str, n: int, capsys: Capture) -> None:
    assert run(["check", "--select", "ipa-ra", "--fail-on", "warning", str(DATA / name)]) == 1
    out = capsys.readouterr().out
    assert f"warning ipa-ra: {n} finding{'s' * (n > 1)}\n" in out
    assert out.count(", .text+") == n


def test_a_kernel_whose_functions_mostly_have_sites_is_not_looked_at(tmp_path: Path) -> None:
    callers = Callers(scan_file(str(DATA.parent / "mini/vmlinux-callops")).sites)
    assert list(callers.relied_on(np.arange(len(callers.table)))) == []


# -- enable ------------------------------------------------------------------------------------------------------------


def refused(name: str, target: str, tmp_path: Path) -> str:
    with pytest.raises(PolicyError) as error:
        api.enable(str(DATA / name), api.Delivery(str(tmp_path / "out")), api.by_selectors(["leaf"]), target=target)
    assert not (tmp_path / "out").exists()
    return str(error.value)


WHAT_TO_DO = (
    "{function} (row 0, {place}): its caller more keeps values in {registers} over the call at {call} (IPA-RA), which "
    "{who}: rebuild with -fno-ipa-ra{other} (--force-target overrides), expected all of them"
)


def test_a_target_that_changes_what_a_caller_counts_on_is_refused(tmp_path: Path) -> None:
    text = WHAT_TO_DO.format(
        function="leaf", place=".text+0x1b0", registers="r11", call=".text+0x213", who="changes may change",
        other=", or call what gives them back",
    )  # fmt: skip
    assert text in refused("program-x86_64", "changes", tmp_path)


@pytest.mark.parametrize("target", ["changes", "keeps"])
def test_what_the_words_of_a_site_change_themselves_no_target_gives_back(target: str, tmp_path: Path) -> None:
    text = WHAT_TO_DO.format(
        function="leaf", place=".text+0x1e0", registers="x9", call=".text+0x234",
        who="the words of the site change", other="",
    )  # fmt: skip
    assert text in refused("program-arm64", target, tmp_path)


def test_a_target_that_gives_all_back_is_taken(tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = api.enable(
        str(DATA / "program-x86_64"), api.Delivery(str(out)), api.by_selectors(["leaf"]), target="keeps"
    )
    assert written.plan.warnings == ()
    assert proven("program-x86_64", out) == ()


@pytest.mark.parametrize("name", PROGRAMS)
def test_by_force_it_is_taken_with_a_warning_and_verify_finds_it(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = api.enable(
        str(DATA / name), api.Delivery(str(out)), api.by_selectors(["leaf"]), target="changes", force_target=True
    )
    assert all("(IPA-RA), which" in text and text.endswith("; forced") for text in written.plan.warnings)
    assert {finding.rule for finding in proven(name, out)} == {"verify-callers"}
    assert [finding.message.split()[3] for finding in proven(name, out)] == ["more", "farther"]


def proven(name: str, out: Path) -> tuple[Finding, ...]:
    return prove(scan_file(str(DATA / name)), open_image(str(out)), checks=Checks(execute=False)).findings


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("options", [{"target": "changes"}, {"target": "keeps"}, {"hook": "hook"}])
def test_what_every_target_gives_back_refuses_nothing(name: str, options: dict[str, str], tmp_path: Path) -> None:
    out, path = tmp_path / "out", str(DATA / name)
    written = api.enable(path, api.Delivery(str(out)), api.by_selectors(["tiny"]), **options)  # type: ignore[arg-type]
    assert written.plan.warnings == ()
    assert proven(name, out) == ()


def test_a_stub_around_a_hook_gives_back_more_than_a_target_need(tmp_path: Path) -> None:
    out = tmp_path / "out"
    api.enable(str(DATA / "program-x86_64"), api.Delivery(str(out)), api.by_selectors(["leaf"]), hook="hook")
    assert proven("program-x86_64", out) == ()


RUN = {"program-arm64": ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"), "program-x86_64": ()}
KEPT = {"program-arm64": ("tiny", "changes", 1), "program-x86_64": ("leaf", "keeps", 2)}  # function, target, its calls


@pytest.mark.corpus
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_output_changes_only_where_registers_are_not_given_back(name: str, tmp_path: Path) -> None:
    def output(path: Path) -> str:
        return subprocess.run([*RUN[name], str(path)], capture_output=True, text=True, check=True, timeout=60).stdout

    def enabled(function: str, target: str, force: bool) -> str:
        out = tmp_path / function
        api.enable(str(DATA / name), api.Delivery(str(out)), api.by_selectors([function]), target=target,
                   force_target=force)  # fmt: skip
        return output(out)

    before = output(DATA / name)
    assert before == "138 139 36\nhits 0\n"
    assert enabled("leaf", "changes", force=True) != before.replace("hits 0", "hits 2")
    function, target, n_calls = KEPT[name]
    assert enabled(function, target, force=False) == before.replace("hits 0", f"hits {n_calls}")


OF_MODULE = (
    "1 of 1 chosen sites cannot be patched: found leaf (row 0, .text+0x0): its caller {} (IPA-RA), which {}: rebuild "
    "with -fno-ipa-ra ({} overrides), expected all of them, or nothing is written"
)


@pytest.mark.parametrize(
    ("arguments", "caller", "who", "option"),
    [
        (("enable", "--func", "leaf"), "wide keeps values in x9 over the call at .text+0x184",
         "the words of the site change", "--force-target"),
        (("enable", "--func", "leaf", "--hook", "other"), "wide keeps values in x9 over the call at .text+0x184",
         "the words of the site change", "--force-target"),
        (("redirect", "--func", "leaf", "--to", "calls"), "big keeps values in x1-x6 over the call at .text+0x98",
         "its replacement may change", "--force-signature"),
    ],
)  # fmt: skip
def test_a_modules_sites_are_refused_likewise(
    arguments: tuple[str, ...], caller: str, who: str, option: str, tmp_path: Path, capsys: Capture
) -> None:
    module = arm64_module(tmp_path, "../told/relies-arm64.o")
    verb, *more = arguments
    assert run([verb, str(module), *more, "-o", str(tmp_path / "out.ko")]) == 5
    assert OF_MODULE.format(caller, who, option) in capsys.readouterr().err
    assert run([verb, str(module), *more, "-o", str(tmp_path / "out.ko"), option]) == 0
    assert run(["enable", str(module), "--func", "same", "--hook", "other", "-o", str(tmp_path / "out.ko")]) == 0


# -- what instructions do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "reads", "writes", "flow"),
    [
        ("program-arm64", "4100028b", (2,), (1,), "on"),  # add x1, x2, x2
        ("program-arm64", "037c4093", (0,), (3,), "on"),  # sxtw x3, w0, which capstone says reads x3
        ("program-arm64", "030c54d3", (0,), (3,), "on"),  # ubfiz x3, x0: likewise
        ("program-arm64", "430080f2", (3,), (3,), "on"),  # movk x3, #2: keeps the rest
        ("program-arm64", "e10b42a9", (), (1, 2), "on"),  # ldp x1, x2, [sp, #32]
        ("program-arm64", "200040b9", (1,), (0,), "on"),  # ldr w0, [x1]
        ("program-arm64", "2028621e", (33, 34), (32,), "on"),  # fadd d0, d1, d2
        ("program-arm64", "c0035fd6", (30,), (), "return"),
        ("program-arm64", "000020d4", (), (), "end"),  # brk
        ("program-x86_64", "31c0", (), (0,), "on"),  # xor eax, eax needs no eax
        ("program-x86_64", "83c8ff", (), (0,), "on"),  # or eax, -1
        ("program-x86_64", "4d01d3", (10, 11), (11,), "on"),  # add r11, r10
        ("program-x86_64", "50", (), (4,), "on"),  # push rax, as compilers align the stack
        ("program-x86_64", "0f1f4000", (), (), "on"),  # nop dword [rax]
        ("program-x86_64", "f20f2ac1", (1,), (16,), "on"),  # cvtsi2sd xmm0, ecx keeps the rest of xmm0
        ("program-x86_64", "f20f59c1", (16, 17), (16,), "on"),  # mulsd xmm0, xmm1
        ("program-x86_64", "ffd0", (0,), (4,), "call"),
        ("program-x86_64", "0fa2", (), (), "end"),  # cpuid reads ecx only for some questions
        ("relies-ppc64le.o", "1422637c", (3, 4), (3,), "on"),  # add r3, r3, r4
        ("relies-ppc64le.o", "781b697c", (3,), (9,), "on"),  # mr r9, r3
        ("relies-ppc64le.o", "00000060", (), (), "on"),
        ("relies-ppc64le.o", "fc07007c", None, None, ""),  # an extended opcode of no instruction
        ("relies-ppc64le.o", "2a10430c", None, None, ""),  # twi: nothing is known behind a trap
        ("relies-ppc64le.o", "2000804e", (), (), "return"),
    ],
)  # fmt: skip
def test_what_an_instruction_reads_and_writes(
    name: str, code: str, reads: tuple[int, ...] | None, writes: tuple[int, ...] | None, flow: str, tmp_path: Path
) -> None:
    image = open_image(str(DATA / name))
    sec = image.sections_named(".text")[0]
    content = bytearray((DATA / name).read_bytes())
    at = int(image.shdr["sh_offset"][sec])
    content[at : at + len(code) // 2] = bytes.fromhex(code)
    (tmp_path / "file").write_bytes(content)
    use = RegisterReader(open_image(str(tmp_path / "file"))).at(int(image.base[sec]))
    if reads is None or writes is None:
        assert use is None
        return
    assert use is not None
    counted = ~bits((4, 30)) if name != "relies-ppc64le.o" else -1  # stack and link registers are nobody's values
    assert (use.reads & counted, use.writes & counted, use.flow) == (
        bits(reads) & counted, bits(writes) & counted, flow)  # fmt: skip
