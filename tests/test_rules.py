"""Every rule finds its defect in a file that has it, names nothing else, and is silent on sound files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from elfwriter import TEXT, words_at
from elfwriter import Kernel as MiniKernel

from ftpatch.cli import run
from ftpatch.elf.kind import PROGRAMS
from ftpatch.finding import SEVERITIES
from ftpatch.kernel import module_load
from ftpatch.kernel.module_load import Check, Verdict
from ftpatch.rules import check, modules
from ftpatch.rules.case import Context
from ftpatch.rules.patchers import others
from ftpatch.rules.register import known_rules, rules_for
from ftpatch.rules.run import Request, check_file, open_case
from ftpatch.rules.signed import _last_sequence
from tools import defects_static_calls
from tools.defects_beside import DEFECTS
from tools.mutations import FIXTURES, Bench, fixture, verdict

MINI = Path(__file__).parent.parent / "testdata"
REAL_ONLY = {  # what no fixture can have: test_check_corpus plants it in the real ones
    "site-shared", "module-layout", "module-vermagic", "module-versions", "module-symbols", "signature-missing",
    "signature-stale", "signature-stale/broken", "loader-section/init",
    "profiled-program",  # test_profiler_calls has programs that were linked so
    "live-patch-form",  # test_live_patch has a live patch for each machine, and damages it
    *defects_static_calls.DEFECTS,  # test_static_call_rules makes files of a few bytes for each of them
}  # fmt: skip
STOCK = {  # what is true of the fixtures as they were built
    "mini/vmlinux-callops": {}, "mini/vmlinux-callops-bti": {}, "mini/vmlinux-kcfi": {}, "mini/vmlinux-notrace": {},
    "mini/vmlinux-pfe2": {"dead-weak": 3}, "mini/vmlinux-exec": {"dead-weak": 3}, "mini/vmlinux-pg": {"dead-weak": 3},
    "mini/mini.ko": {}, "mini/clang-sections.o": {}, "mini/pg.o": {}, "mini/callops.o": {"link-order": 1},
    "mini/pfe2.o": {"link-order": 1}, "mini/program": {"record-order": 1}, "mini-ppc64le/mini.ko": {},
    "mini-ppc64le/vmlinux-ool": {"dead-weak": 4}, "mini-ppc64le/vmlinux-pfe2": {"dead-weak": 4},
    "mini-ppc64le/vmlinux-mprofile": {"dead-weak": 4}, "mini-ppc64le/clang.o": {"global-entry": 1},
    "mini-ppc64le/vmlinux-clang": {"dead-weak": 4, "global-entry": 1},
    "mini-ppc64le/vmlinux-gcc12": {"dead-weak": 4, "toolchain-layout": 1},
    "mini-ppc64le/vmlinux-nm": {"dead-weak": 4, "toolchain-layout": 1},
    "mini-ppc64le/vmlinux-far": {"dead-weak": 4}, "mini-ppc64le/vmlinux-saved": {"dead-weak": 4},
    "mini-ppc64le/vmlinux-unreachable": {"dead-weak": 4, "out-of-reach": 1},
}  # fmt: skip


def found_in(path: Path | str) -> dict[str, int]:
    """Findings by rule."""
    counts: dict[str, int] = {}
    for one in check_file(Request(known_rules()), str(path)).findings:
        counts[one.finding.rule] = counts.get(one.finding.rule, 0) + 1
    return counts


@pytest.fixture(scope="session")
def benches(tmp_path_factory: pytest.TempPathFactory) -> list[Bench]:
    folder = tmp_path_factory.mktemp("mutations")
    return [fixture(name, folder) for name in FIXTURES]


@pytest.mark.parametrize("rule", [one for one in DEFECTS if one not in REAL_ONLY])
def test_a_planted_defect_is_found_and_nothing_else(rule: str, benches: list[Bench]) -> None:
    said = {bench.name: verdict(rule, bench, {}) for bench in benches}
    wrong = {name: one for name, one in said.items() if one not in ("found", "-")}
    assert wrong == {}
    assert "found" in said.values()


@pytest.mark.parametrize("name", STOCK)
def test_a_sound_file_has_no_findings_but_true_ones(name: str) -> None:
    assert found_in(MINI / name) == STOCK[name]


def test_every_rule_has_a_planted_defect_and_a_full_entry() -> None:
    rules = rules_for()
    ids = [rule.id for rule in rules]
    assert len(set(ids)) == len(ids) >= 25
    programs = {rule.id for rule in rules if tuple(rule.kinds) == PROGRAMS} - {"profiled-program"}
    told = {"ipa-ra", "unit-layout", "unit-alignment", "unit-without-sites", "unit-records-missing"}
    # test_program_rules, test_callers, test_units and test_lost_sections have theirs: no byte tells how compilers were
    # called, and which functions were one unit
    assert {name.partition("/")[0] for name in DEFECTS} == set(ids) - programs - told
    for rule in rules:
        assert rule.severity in SEVERITIES
        assert rule.title and rule.why.endswith(".") and rule.todo.endswith(".") and rule.source
        assert (rule.find and rule.find.__doc__) or rule.id.startswith("module-")


def test_messages_name_row_words_and_place() -> None:
    found = check_file(Request(known_rules()), str(MINI / "mini/vmlinux-pfe2")).findings
    assert next((one.finding.message, one.after) for one in found) == (
        "row 4 names the code of an overridden weak function; the kernel lists it as sys_getppid", "__se_sys_getppid",
    )  # fmt: skip
    assert {(one.finding.section, one.finding.row) for one in found} == {(".text", 4), (".text", 15), (".text", 18)}


def test_a_site_with_a_strange_word_says_what_was_expected(tmp_path: Path) -> None:
    functions = [("one", TEXT + 0x200), ("two", TEXT + 0x240), ("three", TEXT + 0x280)]
    file = bytearray(MiniKernel(functions).build())
    at = file.index(b"\x1f\x20\x03\xd5\x1f\x20\x03\xd5\xc0\x03\x5f\xd6")
    file[at : at + 4] = b"\xc0\x03\x5f\xd6"
    path = tmp_path / "vmlinux"
    path.write_bytes(file)
    (found,) = check_file(Request(("unexpected-words",)), str(path)).findings
    assert found.finding.message == "row 0 has d65f03c0 d503201f, not nop; nop"
    assert (found.finding.function, found.finding.section, found.finding.offset) == ("one", ".text", 0x200)
    assert words_at(bytes(file), TEXT + 0x200, 1) == [0xD65F03C0]


def test_a_damaged_second_nop_does_not_turn_the_image_into_another_layout(tmp_path: Path) -> None:
    """Two NOPs are also one: where all words but one said pfe2, the layout that fits them all was ool, and silent."""
    bench = fixture("mini-ppc64le/pfe2.o", tmp_path)
    plant = DEFECTS["mixed-layouts"](bench.subject)
    assert plant is not None
    file = bytearray(bench.path.read_bytes())
    for pos, new in plant.edits:
        file[pos : pos + len(new)] = new
    bench.path.write_bytes(file)
    (found,) = check_file(Request(("mixed-layouts", "unexpected-words")), str(bench.path)).findings
    assert found.finding.message.endswith("is a site of layout ool (60000000 38600000), the others are pfe2")


@pytest.mark.parametrize("name", ["enable", "drop"])
def test_what_ftpatch_writes_has_no_errors(name: str, mini: Path, tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    for kernel in ("vmlinux-callops", "vmlinux-pfe2", "vmlinux-kcfi"):
        out = tmp_path / f"{kernel}-{name}"
        ftpatch(name, mini / kernel, "--func", "vfs_read", "-o", out)
        expected = dict(STOCK[f"mini/{kernel}"]) | ({"without-record": 1} if name == "enable" else {})
        assert found_in(out) == expected


def test_the_earlier_build_tells_lost_records_and_a_collapse(mini: Path, tmp_path: Path) -> None:
    old = str(mini / "vmlinux-pfe2")
    checked = check_file(Request(("lost-record", "records-collapsed"), against=old), str(mini / "vmlinux-exec"))
    assert checked.findings == ()
    case = open_case(str(mini / "vmlinux-pfe2"))
    case = replace(case, context=Context(live_before=1000))
    found = check(case, [rule for rule in rules_for() if rule.id == "records-collapsed"])
    assert [one.finding.message for one in found] == ["19 live records in 19 slots, 1000 before"]


def test_the_config_decides_which_layout_is_expected(mini: Path) -> None:
    request = Request(("config-mismatch",), kconfig={"DYNAMIC_FTRACE": "y", "DYNAMIC_FTRACE_WITH_CALL_OPS": "y"})
    assert check_file(request, str(mini / "vmlinux-callops")).findings == ()
    (found,) = check_file(request, str(mini / "vmlinux-pfe2")).findings
    assert found.finding.message == "DYNAMIC_FTRACE_WITH_CALL_OPS=y wants layout callops, 19 sites have pfe2"
    (found,) = check_file(request, str(mini / "vmlinux-notrace")).findings
    assert found.finding.message.startswith("DYNAMIC_FTRACE=y, and none of ")


@pytest.mark.parametrize("value", ["9" * 30, "18446744073709551616", "²", "-8", "8x", "", "0", "1"])
def test_an_alignment_that_no_kernel_has_is_no_alignment(value: str, mini: Path) -> None:
    """Greater than 64 bits, it was an OverflowError; a digit that is none to int(), a ValueError. Found by fuzzing."""
    request = Request(("alignment-lost",), kconfig={"FUNCTION_ALIGNMENT": value})
    assert check_file(request, str(mini / "vmlinux-pfe2")).findings == ()


def test_must_be_traceable_says_why_not(mini: Path) -> None:
    request = Request(("must-trace",), must=("vfs_read", "ftrace_caller", "no_such"))
    found = check_file(request, str(mini / "vmlinux-pfe2")).findings
    assert [one.finding.message for one in found] == [
        "ftrace_caller must be traceable; it has no record", "no_such must be traceable; there is no such function",
    ]  # fmt: skip


@pytest.mark.parametrize("said, expected", [("refused", ["no"]), ("warning", []), ("unknown", []), ("ok", [])])
def test_a_check_of_a_load_is_passed_on_only_where_it_refuses(
    said: Verdict, expected: list[str], mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_load, "magic", lambda module, kernel: Check("vermagic", said, "no"))
    case = open_case(str(mini / "mini.ko"))
    assert [hit.text for hit in modules._asks("magic")(case)] == expected


def test_the_signature_value_is_the_last_octet_string() -> None:
    short, long = b"\x30\x06" + b"\x02\x01\x01\x02\x01\x02", b"\x30\x81\x80" + bytes(128)
    assert _last_sequence(b"\x30\x03abc\x04\x08" + short) == short
    assert _last_sequence(b"\x04\x81\x83" + long) == long
    assert _last_sequence(b"nothing of it") == b""


def test_tables_of_other_patchers_are_read_from_real_structures(mini: Path) -> None:
    assert [name for name, start, end in others(open_case(str(mini / "mini.ko")).image) if np.any(end <= start)] == []


def test_json_has_the_sites_only_where_they_are_asked_for(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, n in (((), 0), (("--sites",), 1)):
        run(["check", str(mini / "vmlinux-callops"), "--format", "json", *more])
        image = json.loads(capsys.readouterr().out)["images"][0]
        assert len(image["sites"]) == n * image["summary"]["slots"]
