"""A report format that is not of the package: added from here, every verb that reports takes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftpatch import report
from ftpatch.cli import run
from ftpatch.report import Document

MINI = Path(__file__).resolve().parents[1] / "testdata" / "mini"
FILE = str(MINI / "vmlinux-callops")


def render(document: Document) -> Iterator[str]:
    """One line per image: what there is of each kind of row."""
    yield f"toy {document.command}\n"
    for image in document.images:
        counts = {"sites": len(image["sites"]), "findings": len(image.get("findings", ()))}
        rows = " ".join(f"{name}={n}" for name, n in counts.items() if n)
        yield f"{Path(image['file']).name} {image['arch']} {rows}".rstrip() + f" hashed={image['sha256'] is not None}\n"


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    report.add_format("toy", render)
    yield
    report.remove_format("toy")


def output(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert run(list(arguments)) == code
    return capsys.readouterr().out


@pytest.fixture
def patched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = str(tmp_path / "patched")
    output(capsys, 0, "enable", FILE, "--func", "vfs_read", "-o", path)
    return path


def test_every_verb_that_reports_takes_it(capsys: pytest.CaptureFixture[str], patched: str) -> None:
    line = "vmlinux-callops arm64 {} hashed=True\n"
    assert output(capsys, 0, "scan", FILE, "--format", "toy") == "toy scan\n" + line.format("sites=19")
    assert output(capsys, 0, "check", FILE, "--format", "toy") == "toy check\n" + "vmlinux-callops arm64 hashed=True\n"
    assert output(capsys, 0, "explain", "vfs_read", FILE, "--format", "toy") == "toy explain\n" + line.format("sites=1")
    assert output(capsys, 1, "diff", FILE, patched, "--format", "toy").startswith("toy diff\npatched arm64 findings=")
    assert output(capsys, 0, "verify", FILE, patched, "--format", "toy").startswith("toy verify\nvmlinux-callops arm64")
    enable = ("enable", FILE, "--func", "vfs_read", "--dry-run", "--format", "toy")
    assert output(capsys, 0, *enable).startswith("toy enable\nvmlinux-callops arm64 sites=1")


@pytest.mark.parametrize("verb", ["scan", "check"])
def test_it_goes_to_a_file(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output(capsys, 0, verb, FILE, "--report", f"toy={tmp_path / 'out'}")
    assert (tmp_path / "out").read_text().startswith(f"toy {verb}\nvmlinux-callops arm64 ")


def test_a_tree_is_shown_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(MINI / "mini.ko", tmp_path / "one.ko")
    shutil.copy(MINI / "mini.ko", tmp_path / "two.ko")
    lines = output(capsys, 0, "scan", str(tmp_path), "--format", "toy").splitlines()
    assert [line.split()[0] for line in lines] == ["toy", "one.ko", "two.ko"]


def test_without_it_the_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    report.remove_format("toy")
    assert run(["scan", FILE, "--format", "toy"]) == 2
    assert "--format: no such value: found toy, expected text, json, csv" in capsys.readouterr().err
    assert run(["scan", FILE, "--report", "toy=x"]) == 2
    assert capsys.readouterr().err == (
        "ftpatch: toy: no such report format: expected text, json, csv, sarif, junit, ktap, markdown, github, html\n"
    )
    report.add_format("toy", render)
