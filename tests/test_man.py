"""The manual pages: what they say is what the program does, and man(1) shows them without complaint."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from test_kbuild import tree

from ftpatch.cli import VERBS, group, run
from ftpatch.errors import ApplyError, FtpatchError, InputError, PlanError, UnsupportedError, UsageError
from ftpatch.rules.gate import parse_config
from ftpatch.rules.register import known_rules
from tools import registers
from tools.manpages import config, roff
from tools.manpages.examples import EXAMPLES
from tools.manpages.pages import FOLDER, pages

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "testdata"
# The folder in which the examples of a page are run.
FILES = {"vmlinux": "mini/vmlinux-callops", "mini.ko": "mini/mini.ko", "modules/mini.ko": "mini/mini.ko",
         "vmlinux.new": "mini/vmlinux-callops"}  # fmt: skip
OTHER_FILES = {
    "static-calls": {"vmlinux": "static_calls/vmlinux"},
    "record": {"pg.o": "record/arm64-pg.o", "lost.ko": "mini/mini.ko", "mini.ko": "mini/mini.ko"},
}


def written() -> dict[str, str]:
    return {str(path.relative_to(FOLDER)): path.read_text("ascii") for path in FOLDER.glob("*/*")}


def test_the_pages_are_made_from_the_commands() -> None:
    """After a change of options, help, examples or version: python -m tools.manpages."""
    assert written() == pages()


def test_every_command_has_a_page_and_every_option_stands_in_it() -> None:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        text = written()[f"man1/ftpatch-{name}.1"]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(roff.bold(spelled) in text for spelled in option.opts)
        assert roff.bold(f"ftpatch-{name}") in written()["man1/ftpatch.1"]


def test_cross_references_lead_to_pages() -> None:
    for name, text in written().items():
        named = {
            f"man{number}/{page.replace(chr(92), '')}.{number}"
            for page, number in re.findall(r"\\fB([\w.\\-]+)\\fP\((\d)\)", text)
        }
        assert named
        assert sorted(named - set(written())) == [], name


def test_every_verb_has_examples() -> None:
    assert sorted({"", *VERBS, "completion"} - set(EXAMPLES)) == []


@pytest.mark.parametrize("page", EXAMPLES)
def test_examples_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if page == "kbuild":
        tree(tmp_path / "linux")
    for name, source in (OTHER_FILES.get(page) or FILES).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(DATA / source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for example in EXAMPLES[page]:
        for line in example.line.replace("\\\n", "").split("\n"):
            if line.startswith("cd "):
                monkeypatch.chdir(line[3:])
                continue
            if any(char in line for char in "<>|"):
                environment = {**os.environ, "PYTHONPATH": str(ROOT)}
                line = line.replace("ftpatch ", f"{shlex.quote(sys.executable)} -m ftpatch ", 1)
                done = subprocess.run(
                    ["bash", "-c", line], env=environment, capture_output=True, text=True, check=False
                )
                code, said = done.returncode, done.stderr
            else:
                code, said = run(shlex.split(line)[1:]), capsys.readouterr().err
            assert code == 0, (line, said)
            assert [text for text in said.splitlines() if not text.startswith("ftpatch: warning: ")] == []


def test_exit_codes_are_those_of_the_errors() -> None:
    codes = {error.exit_code for error in (InputError, PlanError, UnsupportedError, UsageError, ApplyError)}
    assert codes == {3, 5, 4, 2, 70}
    assert {code for code, _ in registers.EXIT_CODES} == {"0", "1", *map(str, codes), "128+N"}
    assert issubclass(InputError, FtpatchError)


def test_environment_variables_are_those_that_the_package_reads() -> None:
    """Names that stand where the environment is asked are known, and known ones stand in the code."""
    code = "".join(path.read_text() for path in sorted((ROOT / "ftpatch").rglob("*.py")))
    known = {variable for names, _ in registers.ENVIRONMENT for variable in names.split(", ")}
    assert set(re.findall(r"""environ(?:ment)?(?:\.get\(|\[)["'](\w+)["']""", code)) - known == set()
    assert [name for name in known if f'"{name}"' not in code] == []


def test_the_example_of_settings_is_understood() -> None:
    rules = list(known_rules())
    settings = parse_config(config.EXAMPLE.encode(), "ftpatch.toml", rules)
    assert (settings.fail_on, settings.ignore, settings.must) == (
        "warning", ("dead-weak",), ("vfs_read", "do_sys_openat2"),
    )  # fmt: skip


def test_the_keys_of_settings_are_those_that_the_example_has() -> None:
    tree = tomllib.loads(config.EXAMPLE)
    rows = {"must-be-traceable", "check.select"}  # and the other list of rules
    rows |= {f"check.{key}" for key in tree["check"]} | {f"ignore.{key}" for key in tree["ignore"][0]}
    rows |= {f"rules.RULE.{key}" for rule in tree["rules"].values() for key in rule}
    assert rows == {key for key, _ in config.KEYS}


@pytest.mark.parametrize(
    ("text", "roff_text"),
    [
        ("a - b", r"a \- b"), ("it's", r"it\(aqs"), ("a\\b", r"a\eb"), ("--func FILE", r"\fB\-\-func\fP \fIFILE\fP"),
        ("see ftpatch.toml(5)", r"see \fBftpatch.toml\fP(5)"), ("`ls -l`", r"\fBls \-l\fP"), ("ELF", r"\fIELF\fP"),
        ("±32 – …", r"\(+-32 \(en ..."),
    ],
)  # fmt: skip
def test_text_as_roff(text: str, roff_text: str) -> None:
    assert roff.marked(text) == roff_text


def test_no_line_is_taken_for_a_request() -> None:
    assert roff.commands([".init", "'quoted'", "\\back"]).splitlines()[3:6] == [
        r"\&.init",
        r"\(aqquoted\(aq",
        r"\eback",
    ]
    assert roff.wrapped("x " * 39 + ".init") == roff.wrapped("x " * 39) + "\\&.init\n"


def test_wheels_bring_the_pages_and_the_scripts_along() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert settings["shared-data"] == {
        "packaging/share/man": "share/man",
        "ftpatch/completion/scripts/ftpatch.bash": "share/bash-completion/completions/ftpatch",
        "ftpatch/completion/scripts/ftpatch.zsh": "share/zsh/site-functions/_ftpatch",
        "ftpatch/completion/scripts/ftpatch.fish": "share/fish/vendor_completions.d/ftpatch.fish",
    }
    assert [path for path in settings["shared-data"] if not (ROOT / path).exists()] == []


@pytest.mark.programs
def test_man_shows_them_without_complaint(programs: None) -> None:
    files = sorted(str(path) for path in FOLDER.glob("*/*"))
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "style", *files], capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
    for file in files:
        done = subprocess.run(
            ["groff", "-man", "-ww", "-Tutf8", "-z", file], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    environment = {**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"}
    command = ["man", "--warnings=w", "-P", "cat", *files]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert max(len(re.sub(".\b", "", line)) for line in shown.stdout.splitlines()) <= 80
    for title in ("NAME", "SYNOPSIS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"):
        assert title in shown.stdout
