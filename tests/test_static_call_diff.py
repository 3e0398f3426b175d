"""`diff` of static calls: keys and sites that came or went, and what keys hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from static_call_files import ENTRIES, FUNCTIONS, SITES, TEXT, TRAMPOLINES, branch, kernel, made

from ftpatch.cli import run

SECOND = {"entries": [*ENTRIES, (TEXT + 0x41, "a", 0)],
          "code": {TEXT + 0x41: branch("e8", TEXT + 0x41, TRAMPOLINES["a"])}}  # fmt: skip
CASES: list[tuple[str, dict[str, Any], list[tuple[str, str, str | None, int]]]] = [
    ("same", {}, []),
    ("key-gone", {"without": ["__SCK__b", "__SCT__b"], "entries": [ENTRIES[0], *ENTRIES[2:]]}, [
        ("diff-static-removed", "static call b is gone, with 1 site", None, 1)]),
    ("holds", {"pointers": {"a": FUNCTIONS["g"]}}, [
        ("diff-static-changed", "static call a holds g, f before", None, 1)]),
    ("holds-null", {"pointers": {"a": 0}}, [("diff-static-changed", "static call a holds NULL, f before", None, 1)]),
    ("holds-return0", {"pointers": {"a": FUNCTIONS["__static_call_return0"]}}, [
        ("diff-static-changed", "static call a holds return 0, f before", None, 1)]),
    ("site-more", SECOND, [("diff-static-sites", "f has 1 site of static call a, none before", "f", 1)]),
    ("site-less", {"entries": ENTRIES[1:]}, [
        ("diff-static-sites", "user has no site of static call a, 1 before", "user", 1)]),
]  # fmt: skip


def differences(old: Path, new: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str, str | None, int]]:
    code = run(["diff", str(old), str(new), "--format", "json"])
    findings = json.loads(capsys.readouterr().out)["images"][0]["findings"]
    assert code == bool(findings)
    return [(row["rule"], row["message"], row["function"], row["count"]) for row in findings]


@pytest.mark.parametrize(("changes", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_kernels(
    changes: dict[str, Any], expected: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(kernel())
    new.write_bytes(kernel(**changes))
    assert differences(old, new, capsys) == expected


def test_what_went_one_way_comes_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(kernel(without=["__SCK__b", "__SCT__b"], entries=[ENTRIES[0], *ENTRIES[2:]]))
    new.write_bytes(kernel())
    text = "static call b is new: it holds g, with 1 site"
    assert differences(old, new, capsys) == [("diff-static-added", text, None, 1)]


def test_objects_call_keys_of_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.o", tmp_path / "new.o"
    old.write_bytes(made())
    new.write_bytes(made(sites=[SITES[0], SITES[2]]))
    text = "code without a name has no site of static call closed, 1 before"
    assert differences(old, new, capsys) == [("diff-static-sites", text, None, 1)]


def test_fail_on_static_calls_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(kernel())
    new.write_bytes(kernel(pointers={"a": FUNCTIONS["g"]}))
    assert [run(["diff", str(old), str(new), "--fail-on", kind]) for kind in ("static", "lost")] == [1, 0]
    assert "static calls of another function: 1\n    static call a holds g, f before\n" in capsys.readouterr().out
