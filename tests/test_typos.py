"""What was meant: refusals propose names that are like a wrong one, whatever it is the name of."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click
import pytest

from ftpatch.cli import SETUP, VERBS, group, run
from ftpatch.cli.usage import Choice
from ftpatch.near_names import MAX_LENGTH, did_you_mean, near_names

MINI = Path(__file__).parents[1] / "testdata/mini"
STATIC = MINI.parent / "static_calls/vmlinux"
Capture = pytest.CaptureFixture[str]
FORMATS = "text, json, csv, sarif, junit, ktap, markdown, github, html"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a vmlinux and some others, which is also the current directory."""
    shutil.copyfile(MINI / "vmlinux-callops", tmp_path / "vmlinux")
    shutil.copyfile(STATIC, tmp_path / "static")
    (tmp_path / "bad.toml").write_text('[check]\nfail-no = "error"\n')
    (tmp_path / "worse.toml").write_text('[check]\nfail-on = "eror"\n')
    (tmp_path / "rule.toml").write_text('[rules.dead-week]\nseverity = "note"\n')
    (tmp_path / "folder").mkdir()
    os.symlink("nowhere", tmp_path / "link")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CASES = [
    # commands
    ("scna", 2, "scna: no such command – did you mean scan?"),
    ("SCAN", 2, "SCAN: no such command – did you mean scan?"),
    ("statc-calls", 2, "statc-calls: no such command – did you mean static-calls?"),
    ("help", 2, "help: no such command – did you mean ftpatch --help?"),
    ("lint vmlinux", 2, "lint: no such command – did you mean ftpatch check?"),
    ("vmlinux", 2, "vmlinux: no such command – that is a file: a command comes first, as in ftpatch scan FILE"),
    ("frobnicate", 2, "frobnicate: no such command – ftpatch --help lists all"),
    # options
    ("--versoin", 2, "no such option: found --versoin – did you mean --version?"),
    ("scan --fucn x", 2, "scan: no such option: found --fucn – did you mean --func?"),
    ("enable --dryrun", 2, "enable: no such option: found --dryrun – did you mean --dry-run?"),
    ("scan --frobnicate", 2, "scan: no such option: found --frobnicate – ftpatch scan --help shows all"),
    # arguments
    ("diff a", 2, "diff: missing argument 'NEW' – ftpatch diff --help shows all"),
    # choices
    ("scan --format jsno", 2, f"--format: no such value: found jsno, expected {FORMATS} – did you mean json?"),
    ("scan --format xml", 2, f"--format: no such value: found xml, expected {FORMATS}"),
    ("scan --report jsno=x", 2, f"jsno: no such report format: expected {FORMATS} – did you mean json?"),
    ("scan --color allways", 2, "--color: no such value: found allways, expected auto, always, never – did you mean "
     "always?"),
    ("enable --func vfs_read --records nul", 2, "--records: no such value: found nul, expected auto, null, minus4, "
     "shrink, keep – did you mean null?"),
    ("check --select dead-week", 2, "--select: no such rule: found dead-week – did you mean dead-weak?"),
    ("check --ignore nothing-like-it", 2, "--ignore: no such rule: found nothing-like-it – ftpatch check --list-rules "
     "lists all"),
    ("scan --layout calops", 4, "arm64 has no layout of that name: found calops, expected callops, pfe2, mcount, "
     "pfe-front, pad-before, padding, pfe1 – did you mean callops?"),
    ("scan --section .txet", 5, "vmlinux: no section of that name: found .txet – did you mean .text?"),
    ("scan --section other", 5, "vmlinux: no section of that name: found other – ftpatch scan names those with sites"),
    # functions, symbols, keys
    ("enable --func vfs_raed", 5, "vfs_raed: nothing of that name: found no patch site, expected a function, see "
     "ftpatch scan --sites – did you mean vfs_read?"),
    ("scan --func VFS_READ", 5, "VFS_READ: nothing of that name: found no patch site, expected a function, see "
     "ftpatch scan --sites – did you mean vfs_read?"),
    ("redirect --func vfs_read --to vfs_wriet -o o", 5, "--to vfs_wriet: no such function: found nothing of that name "
     "in .symtab, expected a function of this kernel: name, name@file.c or 0xVA – did you mean vfs_write?"),
    ("enable --func vfs_read --target ftrace_caler", 5, "ftrace_caler: no such symbol: found nothing of that name in "
     ".symtab, expected a defined symbol – did you mean ftrace_caller?"),
    ("symbols --name vfs_raed", 5, "vfs_raed: no symbol of that name: found 66 symbols of other names, expected a "
     "name, glob or /regex/ – did you mean vfs_read?"),
    ("static-calls static --key clok", 5, "clok: no static call of that name: found 6 keys of other names, expected a "
     "key – did you mean clock?"),
    # files
    ("scan vmlinx", 3, "vmlinx: cannot be read: No such file or directory – did you mean vmlinux?"),
    ("scan ./vmlinx", 3, "./vmlinx: cannot be read: No such file or directory – did you mean ./vmlinux?"),
    ("scan folder/vmlinux", 3, "folder/vmlinux: cannot be read: No such file or directory"),
    ("scan floder/vmlinux", 3, "floder/vmlinux: cannot be read: No such file or directory – there is no directory "
     "floder"),
    ("scan link", 3, "link: cannot be read: No such file or directory – it is a symbolic link to nowhere, which does "
     "not exist"),
    ("scan --func @lnik", 3, "lnik: the list cannot be read: No such file or directory – did you mean link?"),
    # the configuration
    ("check --config bad.toml", 2, "bad.toml [check]: unknown key: found fail-no, expected fail-on, select, ignore – "
     "did you mean fail-on?"),
    ("check --config worse.toml", 2, "worse.toml [check] fail-on: no such severity: found eror, expected note, "
     "warning, error – did you mean error?"),
    ("check --config rule.toml", 2, "rule.toml [rules.dead-week]: no such rule: found dead-week – did you mean "
     "dead-weak?"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "said"), CASES, ids=[line for line, _, _ in CASES])
def test_a_typo_is_one_line_with_what_was_meant(line: str, code: int, said: str, here: Path, capsys: Capture) -> None:
    before = sorted(os.listdir(here))
    assert run(line.split()) == code
    assert capsys.readouterr() == ("", f"ftpatch: {said}\n")
    assert sorted(os.listdir(here)) == before


def test_every_choice_of_every_command_proposes() -> None:
    """One of click's own would answer in click's words."""
    context = click.Context(group)
    others = [
        (verb, param.name)
        for verb in (*VERBS, *SETUP)
        for param in getattr(group.get_command(context, verb), "params", [])
        if isinstance(param.type, click.Choice) and not isinstance(param.type, Choice)
    ]
    assert others == []


def test_names_of_hostile_files_are_proposed_as_escapes(here: Path, capsys: Capture) -> None:
    (here / "kernel\x1b[31m.ko").touch()
    assert run(["scan", "kernel[31m.ko"]) == 3
    assert capsys.readouterr().err == (
        "ftpatch: kernel[31m.ko: cannot be read: No such file or directory – did you mean kernel\\x1b[31m.ko?\n"
    )


# -- near names --------------------------------------------------------------------------------------------------------


def test_the_best_comes_first_and_names_far_worse_are_left_out() -> None:
    assert near_names("vfs_raed", ["vfs_write", "vfs_read", "vfs_reads", "nothing"]) == ["vfs_read", "vfs_reads"]
    assert near_names("x", []) == []
    assert near_names("", ["x"]) == []


def test_letters_of_another_case_are_alike() -> None:
    assert near_names("TRY_TO_WAKE_UP", ["try_to_wake_up", "wake_up"]) == ["try_to_wake_up"]


def test_names_too_long_for_a_typo_are_not_compared() -> None:
    """Comparing takes time that grows with the square of the length, and names of files may have any."""
    assert near_names("a" * (MAX_LENGTH + 1), ["a" * MAX_LENGTH]) == []
    assert near_names("ab", ["ab" * MAX_LENGTH, "abc"]) == ["abc"]


def test_of_a_kernels_names_those_are_compared_that_share_pieces() -> None:
    names = [f"some_function_{i}" for i in range(250_000)]
    assert near_names("vfs_raed", [*names, "vfs_read", *names]) == ["vfs_read"]


def test_without_a_near_name_something_else_is_said() -> None:
    assert did_you_mean("abc", ["xyz"], "look elsewhere") == "look elsewhere"
    assert did_you_mean("abcd", ["abce", "abcf"]) == "did you mean abce or abcf?"


# -- ftpatch alone -----------------------------------------------------------------------------------------------------


def test_ftpatch_alone_greets_with_what_is_there(here: Path, capsys: Capture) -> None:
    assert run([]) == 2
    assert capsys.readouterr() == ("", """\
ftpatch finds the ftrace patch sites of Linux kernels and modules, and rewrites chosen ones on disk.

  ftpatch scan vmlinux                           which patch sites it has
  ftpatch check vmlinux                          whether ftrace and a kernel can live with them
  ftpatch enable vmlinux --func vfs_read -o OUT  a copy that calls ftrace there from the start

All commands: ftpatch --help; the options of one: ftpatch COMMAND --help; what is installed: ftpatch doctor
""")  # fmt: skip


def test_a_module_is_greeted_with_where_there_is_no_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A name that a shell would take apart is quoted; one with control characters, or an option's, is left out."""
    for name in ("a b.ko", "\x1b[31m.ko", "-x.ko", "z.ko.xz"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert run([]) == 2
    err = capsys.readouterr().err
    assert "  ftpatch scan 'a b.ko'                       which " in err
    assert "  ftpatch enable 'a b.ko' --func FUNC -o OUT  a copy " in err


def test_without_any_file_the_greeting_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ftpatch.cli.greeting.KERNELS", ())
    assert run([]) == 2
    assert "  ftpatch enable FILE --func FUNC -o OUT  " in capsys.readouterr().err
