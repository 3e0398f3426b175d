"""`ftpatch doctor`: what is installed, said without starting or, unless asked, loading anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ftpatch.arch.tools import TOOLS
from ftpatch.cli import parts, run
from ftpatch.cli.parts import LIBRARIES, Library
from ftpatch.document.schema import schema

Capture = pytest.CaptureFixture[str]


def told(capsys: Capture, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The JSON of one run, by name of the part."""
    assert run(["doctor", "--format", "json", *arguments]) == code
    document = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert (document["schema"], document["command"], document["images"]) == (1, "doctor", [])
    return {row["name"]: row for row in document["doctor"]["parts"]}


def test_every_part_says_what_it_adds_and_how_it_is_installed(capsys: Capture) -> None:
    rows = told(capsys)
    named = [library.distribution for library in LIBRARIES] + [tool.program for tool in TOOLS]
    assert list(rows) == [*named, "pager", "man-pages", "completion"]
    assert all(row["adds"] and row["install"] for row in rows.values())


def test_libraries_have_the_versions_that_pip_tells(capsys: Capture) -> None:
    import numpy

    row = told(capsys)["numpy"]
    assert (row["state"], row["need"], row["version"]) == ("found", "required", numpy.__version__)


def test_required_libraries_are_those_of_the_package() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    listed = text.split("dependencies = [")[1].split("\n]")[0]
    required = [library.distribution for library in LIBRARIES if library.need == "required"]
    assert sorted(required) == sorted(
        name for name in (part.split(">=")[0].strip(' "\n') for part in listed.split("#")[0].split(","))
        if name
    )  # fmt: skip


def test_programs_are_looked_for_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    program = tmp_path / TOOLS[0].program
    program.write_text("#!/bin/sh\ntouch started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PAGER", raising=False)
    rows = told(capsys)
    assert rows[TOOLS[0].program]["place"] == str(program)
    assert [rows[tool.program]["state"] for tool in TOOLS[1:]] == ["missing"] * (len(TOOLS) - 1)
    assert (rows["pager"]["state"], rows["pager"]["install"]) == ("missing", "apt install less")
    assert not Path("started").exists()


@pytest.fixture
def some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that works, one that fails as a wheel of another machine does, and one that is not there."""
    (tmp_path / "sound_one.py").touch()
    (tmp_path / "broken_one.py").write_text("raise OSError('wrong ELF class:\\n\\x1b[31mELFCLASS32')\n")
    monkeypatch.syspath_prepend(tmp_path)
    libraries = tuple(Library(f"{name}-one", f"{name}_one", "optional", "x") for name in ("sound", "broken", "no"))
    monkeypatch.setattr(parts, "LIBRARIES", libraries)


@pytest.mark.parametrize("tried", [False, True])
def test_a_broken_library_is_told_only_where_it_is_tried(tried: bool, some: None, capsys: Capture) -> None:
    rows = told(capsys, *(["--try"] if tried else []))
    states = [rows[f"{name}-one"]["state"] for name in ("sound", "broken", "no")]
    assert states == ["found", "broken" if tried else "found", "missing"]
    why = "OSError: wrong ELF class: \x1b[31mELFCLASS32" if tried else None
    assert rows["broken-one"]["why"] == why


def test_the_text_says_whether_found_was_tried(some: None, capsys: Capture) -> None:
    assert run(["doctor", "--try"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "optional libraries"
    assert [line.split() for line in lines[2:7]] == [
        ["sound-one", "works", "x"],
        ["broken-one", "broken", "x"],
        ["OSError:", "wrong", "ELF", "class:", "\\x1b[31mELFCLASS32"],
        ["install:", "pip", "install", "broken-one"],
        ["no-one", "missing", "x"],
    ]
    assert lines[-1].endswith("libraries were loaded, programs not started")
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("found is not tried (--try loads libraries)\n")


def test_a_part_that_is_required_and_missing_is_exit_1(some: None, capsys: Capture) -> None:
    assert run(["doctor", "--require", "sound-one"]) == 0
    assert run(["doctor", "--require", "broken-one"]) == 0
    assert "required" not in capsys.readouterr().out.splitlines()[-1]
    assert run(["doctor", "--try", "--require", "broken-one", "--require", "no-one", "--require", "no-one"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "required, and not there: broken-one, no-one"
    told(capsys, "--require", "no-one", code=1)


def test_a_part_that_is_none_is_usage(capsys: Capture) -> None:
    assert run(["doctor", "--require", "unicron"]) == 2
    assert capsys.readouterr() == ("", "ftpatch: --require: no such part: found unicron – did you mean unicorn?\n")
    assert run(["doctor", "--require", ""]) == 2
    assert capsys.readouterr().err.startswith("ftpatch: ")


def test_nothing_heavy_is_loaded_to_look_for_it() -> None:
    program = (
        "import sys\nfrom ftpatch.cli import run\ncode = run(['doctor'])\n"
        "sys.exit(code or bool({'unicorn', 'keystone', 'lief', 'pyarrow', 'capstone'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0
