"""The gate: what a configuration may say, what a baseline knows, and the same exit code in every format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftpatch.cli import run
from ftpatch.errors import InputError, UsageError
from ftpatch.finding import SEVERITIES, Finding
from ftpatch.report import FORMATS
from ftpatch.rules import gate
from ftpatch.rules.register import known_rules

ROOT = Path(__file__).parent.parent
MINI = ROOT / "testdata" / "mini"
RULES = known_rules()


def parsed(text: str) -> gate.Config:
    return gate.parse_config(text.encode(), "ftpatch.toml", RULES)


def finding(rule: str = "dead-weak", severity: str = "warning", function: str | None = None) -> Finding:
    return Finding(rule, severity, "…", "vmlinux", function)


def test_a_whole_configuration() -> None:
    config = parsed("""
        must-be-traceable = ["vfs_read"]
        [check]
        fail-on = "warning"
        select = ["dead-weak", "duplicate"]
        ignore = ["unsorted"]
        [rules.dead-weak]
        severity = "note"
        [[ignore]]
        rule = "dead-weak"
        function = "arch_*"
        object = "vmlinux*"
        reason = "upstream knows"
    """)
    assert config == gate.Config(
        "warning", ("dead-weak", "duplicate"), ("unsorted",), {"dead-weak": "note"},
        (gate.Ignore("dead-weak", "upstream knows", "arch_*", "vmlinux*"),), ("vfs_read",),
    )  # fmt: skip


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1", "unknown key: found x"),
        ("[check]\nfail_on = 'error'", "unknown key: found fail_on"),
        ("[check]\nfail-on = 'fatal'", "no such severity: found fatal"),
        ("[check]\nselect = ['nope']", "no such rule: found nope"),
        ("[check]\nselect = 'dead-weak'", "not a list of strings"),
        ("[rules.nope]\nseverity = 'note'", "no such rule: found nope"),
        ("[rules.dead-weak]\nlevel = 'note'", "unknown key: found level"),
        ("[rules.dead-weak]", "no such severity: found None"),
        ("[[ignore]]\nrule = 'dead-weak'\nfunction = 'x'", "an ignore needs a reason"),
        ("[[ignore]]\nrule = 'dead-weak'\nfunction = 'x'\nreason = ' '", "an ignore needs a reason"),
        ("[[ignore]]\nrule = 'dead-weak'\nreason = 'r'", "an ignore needs a function or an object"),
        ("[[ignore]]\nrule = 'nope'\nfunction = 'x'\nreason = 'r'", "no such rule: found nope"),
        ("[[ignore]]\nfunction = 'x'\nreason = 'r'", "no such rule: found nothing"),
        ("ignore = 'dead-weak'", "ignore is a list of tables"),
        ("rules = 1", "not a table"),
        ("must-be-traceable = 'x'", "not a list of strings"),
        ("[", "not a configuration in TOML"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parsed(text)


def test_select_on_the_command_line_wins_and_ignores_add_up() -> None:
    config = parsed("[check]\nselect = ['dead-weak']\nignore = ['duplicate']")
    assert gate.asked(RULES, config, (), ()) == ("dead-weak",)
    assert gate.asked(RULES, config, ("duplicate", "unsorted"), ()) == ("unsorted",)
    assert gate.asked(RULES, config, (), ("dead-weak",)) == ()
    with pytest.raises(UsageError, match="no such rule"):
        gate.asked(RULES, config, ("nope",), ())


def test_keys_outlive_a_rebuild_and_count_what_has_the_same_name(tmp_path: Path) -> None:
    found = [(finding(), "do_one"), (finding(), "do_one"), (finding(function="init_once"), None)]
    judged = gate.judge(found, "vmlinux", gate.Config(), gate.Baseline())
    assert judged.keys == (
        ("dead-weak", "vmlinux", "", "do_one", 1), ("dead-weak", "vmlinux", "", "do_one", 2),
        ("dead-weak", "vmlinux", "init_once", "", 1),
    )  # fmt: skip
    data = gate.render_baseline(judged.keys, {"vmlinux": 7})
    (tmp_path / "base").write_bytes(data)
    baseline = gate.read_baseline(str(tmp_path / "base"))
    assert baseline == gate.Baseline(frozenset(judged.keys), {"vmlinux": 7})
    again = gate.judge([*found, (finding(), "do_one")], "vmlinux", gate.Config(), baseline)
    assert (again.known, len(again.left)) == (3, 1)
    assert b"0x" not in data


NO_COUNT = "records that are no count"
NO_KEY = "a finding that is no key of strings and a number"


@pytest.mark.parametrize(("data", "found"), [
    (b"", "Expecting value: line 1 column 1 (char 0)"),
    (b"[]", "no object"),
    (b'{"baseline": 1}', "no findings, or no records"),
    (b"\xff", "a byte at 0x0 that is not UTF-8"),
    (b'{"baseline": 1, "records": {}, "findings": [{"rule": 3}]}', NO_KEY),
    (b'{"baseline": 1, "records": {}, "findings": [7]}', NO_KEY),
    (b'{"baseline": 1, "records": {}, "findings": [{"ordinal": 1.0}]}', NO_KEY),
    (b'{"baseline": 1, "records": {}, "findings": [{"ordinal": true}]}', NO_KEY),
    (b'{"baseline": 1, "records": {"a": 1.0}, "findings": []}', NO_COUNT),
    (b'{"baseline": 1, "records": {"a": true}, "findings": []}', NO_COUNT),
    (b'{"baseline": 1, "records": {"a": -1}, "findings": []}', NO_COUNT),
    (b'{"baseline": 1, "records": {"a": NaN}, "findings": []}', "NaN, which is no number of JSON"),
    (b'{"baseline": 1, "baseline": 1}', "a member that is there twice"),
])  # fmt: skip
def test_what_is_no_baseline_is_refused(data: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(data)
    with pytest.raises(UsageError) as error:
        gate.read_baseline(str(tmp_path / "base"))
    assert (
        str(error.value)
        == f"{tmp_path / 'base'}: not a baseline: found {found}, expected what --write-baseline wrote – "
        "ftpatch check --write-baseline FILE makes one"
    )


def test_a_baseline_of_another_version_is_refused(tmp_path: Path) -> None:
    """True and 1.0 were taken for 1."""
    for text, found in (("2", "2"), ("true", "True"), ("1.0", "1.0"), ("null", "None"), ("-1", "-1")):
        (tmp_path / "base").write_text(f'{{"baseline": {text}, "findings": [], "records": {{}}}}')
        with pytest.raises(UsageError, match=f"a baseline of another version: found {found}, expected 1"):
            gate.read_baseline(str(tmp_path / "base"))


def test_a_baseline_that_nobody_writes_to_is_refused(tmp_path: Path) -> None:
    """A FIFO: the run waited for ever."""
    os.mkfifo(tmp_path / "base")
    with pytest.raises(InputError, match="is not a regular file"):
        gate.read_baseline(str(tmp_path / "base"))


def test_an_object_is_named_by_its_place_and_without_its_packing() -> None:
    assert gate.object_name("/a/b/vmlinux") == "vmlinux"
    assert gate.object_name("/lib/modules/x/kernel/a.ko.xz", "/lib/modules/x") == "kernel/a.ko"


def test_a_kernel_configuration_is_read_and_something_else_refused() -> None:
    text = b'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x y"\n'
    assert gate.parse_kconfig(text, ".config") == {"A": "y", "C": "x y"}
    with pytest.raises(UsageError, match="no kernel configuration"):
        gate.parse_kconfig(b"\x7fELF", "vmlinux")


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_journey_from_findings_to_a_quiet_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel, base = str(MINI / "vmlinux-pfe2"), str(tmp_path / "base.json")
    assert run(["check", kernel]) == 0
    assert run(["check", kernel, "--fail-on", "warning"]) == 1
    assert run(["check", kernel, "--fail-on", "warning", "--exit-zero"]) == 0
    assert run(["check", kernel, "--fail-on", "warning", "--write-baseline", base]) == 0
    capsys.readouterr()
    assert run(["check", kernel, "--fail-on", "note", "--baseline", base]) == 0
    assert "nothing found (3 known)" in capsys.readouterr().out
    assert run(["check", str(MINI / "vmlinux-exec"), "--fail-on", "note", "--baseline", base]) == 1


def test_severity_and_ignores_of_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "ftpatch.toml"
    config.write_text('[rules.dead-weak]\nseverity = "error"\n')
    kernel = str(MINI / "vmlinux-pfe2")
    assert run(["check", kernel, "--config", str(config)]) == 1
    config.write_text('[[ignore]]\nrule = "dead-weak"\nobject = "vmlinux-*"\nreason = "known"\n')
    capsys.readouterr()
    assert run(["check", kernel, "--config", str(config), "--fail-on", "note"]) == 0
    assert "nothing found (3 ignored)" in capsys.readouterr().out
    config.write_text('must-be-traceable = ["vfs_read"]\n')
    assert run(["check", kernel, "--config", str(config)]) == 0
    config.write_text('must-be-traceable = ["ftrace_caller"]\n')
    assert run(["check", kernel, "--config", str(config)]) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["vmlinux-pfe2", "vmlinux-callops", "callops.o", "mini.ko", "vmlinux-notrace", "main.c"]),
    fail_on=st.sampled_from(SEVERITIES), zero=st.booleans(), rules=st.sets(st.sampled_from(RULES), max_size=3),
    severity=st.sampled_from(SEVERITIES), tree=st.booleans(),
)  # fmt: skip
def test_the_exit_code_is_the_same_in_every_format(
    name: str, fail_on: str, zero: bool, rules: set[str], severity: str, tree: bool, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = tmp_path / "ftpatch.toml"
    config.write_text(f'[rules.dead-weak]\nseverity = "{severity}"\n')
    arguments = ["check", str(MINI / name), "--fail-on", fail_on, "--config", str(config)]
    arguments += ["--exit-zero"] * zero + [f"--select={rule}" for rule in sorted(rules)] + [str(MINI)] * tree
    codes = {one: run([*arguments, "--format", one]) for one in FORMATS}
    codes["files"] = run([*arguments, *(f"--report={one}={tmp_path / one}" for one in FORMATS)])
    capsys.readouterr()
    assert len(set(codes.values())) == 1, codes


def test_json_follows_the_schema_and_text_names_rule_place_and_help(ftpatch: Callable[..., str]) -> None:
    import jsonschema

    schema = json.loads((ROOT / "ftpatch/report/schema.json").read_text())
    for name in ("vmlinux-pfe2", "callops.o", "mini.ko", "vmlinux-notrace"):
        document = json.loads(ftpatch("check", MINI / name, "--format", "json"))
        jsonschema.validate(document, schema)
    text = ftpatch("check", MINI / "vmlinux-pfe2")
    assert "  warning dead-weak: 3 findings\n" in text
    assert "      .text+0x" in text and "Source: scripts/sorttable.c" in text


def test_a_file_whose_table_cannot_be_read_is_a_finding_in_every_format(
    tmp_path: Path, ftpatch: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    from tools.defects_beside import DEFECTS
    from tools.mutations import fixture

    bench = fixture("mini/vmlinux-pfe2", tmp_path)
    plant = DEFECTS["table-ends"](bench.subject)
    assert plant is not None
    file = bytearray(bench.path.read_bytes())
    for pos, new in plant.edits:
        file[pos : pos + len(new)] = new
    bench.path.write_bytes(file)
    for name in FORMATS:
        assert run(["check", str(bench.path), "--format", name]) == 1
        assert "table-ends" in capsys.readouterr().out


def test_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = str(MINI / "vmlinux-pfe2")
    assert run(["check", kernel, "--select", "nope"]) == 2
    assert run(["check", kernel, "--against", str(MINI / "mini.ko")]) == 2
    assert run(["check", kernel, "--write-baseline", kernel]) == 2
    assert run(["check", kernel, "--baseline", str(tmp_path / "none")]) == 3
    assert run(["check", str(tmp_path / "none"), kernel]) == 3
    capsys.readouterr()


def test_the_list_of_rules_names_each(ftpatch: Callable[..., str]) -> None:
    assert [line.split()[0] for line in ftpatch("check", "--list-rules").splitlines()] == list(RULES)


def _process(*arguments: str, **rest: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "ftpatch", "check", *arguments]
    return subprocess.run(command, env=environment, capture_output="stdout" not in rest, check=False, **rest)  # type: ignore[call-overload, no-any-return]


def test_names_that_are_no_text_a_closed_stdout_and_a_reader_that_leaves(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xffodd\n.ko"
    with open(odd, "wb") as file:
        file.write((MINI / "mini.ko").read_bytes())
    done = _process(os.fsdecode(odd), str(tmp_path))
    assert done.returncode == 0 and b"\x1b" not in done.stdout, done.stderr
    kernel = str(MINI / "vmlinux-pfe2")
    command = f"{sys.executable} -m ftpatch check {kernel} --fail-on warning"
    for tail, expected in (("| head -1 >/dev/null; exit ${PIPESTATUS[0]}", 1), (">&-", 1)):
        done = subprocess.run(["bash", "-c", f"{command} {tail}"], check=False, capture_output=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
        assert done.returncode == expected, done.stderr


def test_a_tree_is_checked_the_same_by_one_worker_and_by_three(ftpatch: Callable[..., str]) -> None:
    top = ROOT / "testdata" / "mini"
    assert ftpatch("check", top, "--jobs", "1") == ftpatch("check", top, "--jobs", "3")
