"""A rule that is not of the package: added from here, it is asked, listed, chosen and reported like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftpatch.cli import run
from ftpatch.rules import Rule, register
from ftpatch.rules.case import Case, Hit

MINI = Path(__file__).resolve().parents[1] / "testdata" / "mini"


def named_vfs(case: Case) -> Iterator[Hit]:
    """Sites of functions whose names begin with vfs_read."""
    table = case.table
    for row in range(len(table)):
        if (table.name(row) or "").startswith("vfs_read"):
            yield Hit(f"row {row} is of the virtual file system", row)


TOY = Rule(
    "toy", "warning", "a function of the file system", "Somebody likes these.", "Nothing to do.", "this test",
    kinds=("vmlinux",), find=named_vfs,
)  # fmt: skip
HELP = "Somebody likes these. Nothing to do. Source: this test."
FILE = str(MINI / "vmlinux-callops")


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    register.add(TOY)
    yield
    register.remove(TOY)


def output(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert run(list(arguments)) == code
    return capsys.readouterr().out


def test_it_is_listed_behind_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, 0, "check", "--list-rules").splitlines()
    assert lines[-1] == "toy                  warning  a function of the file system"
    register.remove(TOY)
    shipped = output(capsys, 0, "check", "--list-rules").splitlines()
    register.add(TOY)
    assert lines[:-1] == shipped


def test_it_finds_and_names_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = json.loads(output(capsys, 0, "check", FILE, "--select", "toy", "--format", "json"))["images"]
    assert [(one["rule"], one["severity"], one["function"], one["help"]) for one in image["findings"]] == [
        ("toy", "warning", "vfs_read", HELP)
    ]
    (found,) = image["findings"]
    assert found["message"] == f"row {found['row']} is of the virtual file system"
    assert (found["section"], found["count"]) == (".text", 1)


def test_text_names_rule_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, 0, "check", FILE, "--select", "toy")
    assert "  warning toy: 1 finding\n" in text and HELP in text


def test_it_fails_the_check_where_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    output(capsys, 1, "check", FILE, "--select", "toy", "--fail-on", "warning")
    output(capsys, 0, "check", FILE, "--ignore", "toy", "--fail-on", "error")


def test_it_is_a_rule_of_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    sarif = json.loads(output(capsys, 0, "check", FILE, "--select", "toy", "--format", "sarif"))
    (rule,) = sarif["runs"][0]["tool"]["driver"]["rules"]
    assert (rule["id"], rule["help"]["text"], rule["defaultConfiguration"]) == ("toy", HELP, {"level": "warning"})
    assert [one["ruleId"] for one in sarif["runs"][0]["results"]] == ["toy"]
    assert '<testcase name="toy"' in output(capsys, 0, "check", FILE, "--select", "toy", "--format", "junit")
    assert "ok 1 toy # found 1" in output(capsys, 0, "check", FILE, "--select", "toy", "--format", "ktap")
    assert "`toy`" in output(capsys, 0, "check", FILE, "--select", "toy", "--format", "markdown")
    assert "title=ftpatch toy" in output(capsys, 0, "check", FILE, "--select", "toy", "--format", "github")
    assert ",toy,warning," in output(capsys, 0, "check", FILE, "--select", "toy", "--format", "csv")


def test_a_configuration_may_name_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "ftpatch.toml"
    config.write_text('[check]\nselect = ["toy"]\n[rules.toy]\nseverity = "error"\n')
    found = json.loads(output(capsys, 1, "check", FILE, "--config", str(config), "--format", "json"))
    assert [one["severity"] for one in found["images"][0]["findings"]] == ["error"]


def test_a_baseline_knows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = str(tmp_path / "known")
    output(capsys, 0, "check", FILE, "--select", "toy", "--write-baseline", known)
    output(capsys, 0, "check", FILE, "--select", "toy", "--baseline", known, "--fail-on", "warning")


def test_workers_ask_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(4):
        shutil.copy(MINI / "mini.ko", tmp_path / f"m{n}.ko")
    everywhere = Rule("toy-all", "note", "a module", find=lambda case: [Hit("a module")], needs=())
    register.add(everywhere)
    found = json.loads(output(capsys, 0, "check", str(tmp_path), "--jobs", "2", "--select", "toy-all", "--format",
                              "json"))  # fmt: skip
    register.remove(everywhere)
    assert [one["rule"] for image in found["images"] for one in image["findings"]] == ["toy-all"] * 4


def test_it_has_no_place_in_the_reports_of_other_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    same = json.loads(output(capsys, 0, "diff", FILE, FILE, "--format", "sarif"))
    assert "toy" not in [rule["id"] for rule in same["runs"][0]["tool"]["driver"]["rules"]]
