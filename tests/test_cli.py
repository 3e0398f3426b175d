"""The command line: exit codes, streams, defaults, colours and help."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from elfwriter import MINI

from ftpatch import __version__
from ftpatch.cli import SETUP, VERBS, group, run

ROOT = Path(__file__).resolve().parents[1]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
ESCAPE = "\x1b["


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a vmlinux, which is also the current directory."""
    shutil.copyfile(MINI / "vmlinux-callops", tmp_path / "vmlinux")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return tmp_path


def command(*arguments: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-B", "-m", "ftpatch", *arguments]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr() == (f"ftpatch, version {__version__}\n", "")


@pytest.mark.parametrize("verb", [*VERBS, *SETUP])
def test_help_of_every_verb_names_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    out, err = capsys.readouterr()
    shown = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", out))
    subcommand = group.get_command(click.Context(group), verb)
    assert subcommand is not None
    options = {name for param in subcommand.params if isinstance(param, click.Option)
               and not param.hidden for name in param.opts}  # fmt: skip
    assert options
    assert options - shown == set()
    assert all(param.help for param in subcommand.params if isinstance(param, click.Option))
    assert err == ""


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        (
            "scan",
            {"--func", "--status", "--section", "--format", "--report", "--color", "--layout", "--sites", "--jobs"},
        ),
        (
            "enable",
            {
                "--func", "--status", "--section", "--format", "--report", "--color", "--output", "-o", "--in-place",
                "--dry-run", "--target", "--force-target", "--records", "--ops", "--ops-via", "--skip-unpatchable",
            },
        ),
        ("image", {"-o", "--output"}),
    ],
)  # fmt: skip
def test_the_options_of_the_interface_are_there(verb: str, options: set[str]) -> None:
    subcommand = group.get_command(click.Context(group), verb)
    assert subcommand is not None
    assert options - {name for param in subcommand.params for name in param.opts} == set()


def test_help_of_the_program_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert [verb for verb in (*VERBS, *SETUP) if not re.search(rf"^  {verb} ", out, re.M)] == []
    assert "..." not in out.partition("Commands:")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--frobnicate"],
        ["frobnicate"],
        ["scan", "--frobnicate"],
        ["enable", "--frobnicate"],
        ["enable", "vmlinux", "--func", "vfs_read", "--records", "zero"],
        ["enable", "vmlinux", "--func", "vfs_read", "--ops-via", "magic"],
        ["enable", "vmlinux", "another", "--func", "vfs_read"],
        ["enable", "vmlinux", "--func"],
        ["scan", "--format", "xml"],
        ["scan", "--color", "pink"],
        ["scan", "--jobs", "0"],
        ["image"],
        ["image", "vmlinux"],
    ],
)
def test_usage_errors_are_exit_2_and_leave_stdout_alone(
    arguments: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"ftpatch: .+(, expected | – ).+\n", err)
    assert [one.name for one in here.iterdir()] == ["vmlinux"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["enable", "vmlinux", "--func", "vfs_read", "--target", ""],
        ["enable", "vmlinux", "--func", "vfs_read", "--hook", ""],
        ["enable", "vmlinux", "--func", "vfs_read", "--layout", ""],
        ["enable", "vmlinux", "--func", "vfs_read", "--ops", ""],
        ["disable", "vmlinux", "--func", "vfs_read", "--layout", ""],
        ["scan", "vmlinux", "--layout", ""],
        ["check", "vmlinux", "--config", ""],
        ["check", "vmlinux", "--baseline", ""],
        ["check", "vmlinux", "--kconfig", ""],
    ],
)
def test_an_empty_option_is_usage(arguments: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--config "$CONFIG"` of a pipeline that does not set it checked without any, and found nothing."""
    assert run(arguments) == 2
    line = f"ftpatch: {arguments[-2]}: an empty value – leave the option out, or give it one\n"
    assert capsys.readouterr() == ("", line)
    assert [one.name for one in here.iterdir()] == ["vmlinux"]


def test_an_enable_that_chooses_nothing_is_usage(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["enable"]) == 2
    assert capsys.readouterr() == (
        "", "ftpatch: nothing is chosen – --func NAME chooses functions, --func '*' all of them\n",
    )  # fmt: skip


def test_file_defaults_to_vmlinux(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan"]) == 0
    assert capsys.readouterr().out.startswith("vmlinux: arm64 vmlinux, ")
    assert run(["enable", "--func", "vfs_read"]) == 0
    assert (here / "vmlinux.patched").is_file()


def test_a_missing_default_is_exit_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["scan"], ["enable", "--func", "x"]):
        assert run(arguments) == 3
        assert capsys.readouterr() == (
            "",
            "ftpatch: vmlinux: cannot be read: No such file or directory – name the file to read\n",
        )


@pytest.mark.parametrize("verb", [["enable", "--func", "x"], ["image"]])
def test_a_missing_input_is_exit_3_where_the_output_exists(
    verb: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*verb, "absent", "-o", "vmlinux"]) == 3
    assert capsys.readouterr() == ("", "ftpatch: absent: cannot be read: No such file or directory\n")
    assert (here / "vmlinux").read_bytes() == (MINI / "vmlinux-callops").read_bytes()


def test_of_several_files_the_greatest_code_counts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = bytearray((MINI / "pfe2.o").read_bytes())
    foreign[18] = 22
    (here / "s390").write_bytes(foreign)
    (here / "text").write_text("no ELF file")
    assert run(["scan", "s390", "vmlinux", "text"]) == 4
    out, err = capsys.readouterr()
    assert out.count("arm64 vmlinux") == 1
    assert len(err.splitlines()) == 2


REFUSALS = [
    (["--func", "nope"], 5),
    (["--func", "vfs_read", "--target", "nope"], 5),
    (["--func", "vfs_read", "--target", "ftrace_stub"], 5),
    (["--func", "vfs_read", "--records", "minus4"], 5),
    (["--func", "*", "--ops-via", "literal"], 5),
    (["--status", "null"], 5),
    (["--func", "vfs_read", "--layout", "pfe3"], 4),
    (["--func", "@absent"], 3),
    (["--func", "vfs_read", "--report", "json"], 2),
    (["--func", "vfs_read"], 0),
]


@pytest.mark.parametrize(("arguments", "code"), REFUSALS)
def test_a_dry_run_exits_as_the_real_run_does_and_writes_nothing(
    arguments: list[str], code: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enable", *arguments, "--dry-run"]) == code
    dry = capsys.readouterr()
    assert [one.name for one in here.iterdir()] == ["vmlinux"]
    assert run(["enable", *arguments]) == code
    assert capsys.readouterr().err == dry.err
    assert (here / "vmlinux.patched").exists() == (code == 0)


@pytest.mark.parametrize(("arguments", "code"), [one for one in REFUSALS if one[1]])
def test_a_refusal_leaves_stdout_empty(
    arguments: list[str], code: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enable", *arguments, "--format", "json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("ftpatch: ")


def test_notes_and_warnings_go_to_stderr(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["enable", "--func", "init_once", "--records", "keep", "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("file,row,")
    assert len(out.splitlines()) == 3
    assert err == (
        "ftpatch: init_once names 2 functions, all of them are taken (name@file.c tells them apart)\n"
        "ftpatch: warning: the records of the patched sites stay: at boot the kernel will print an ftrace bug at the "
        "first of them and switch ftrace off for good (no tracing, no kprobes on ftrace, no live patching)\n"
    )


@pytest.mark.parametrize(
    ("option", "tty", "no_color", "colored"),
    [
        ("auto", False, None, False),
        ("auto", True, None, True),
        ("auto", True, "1", False),
        ("auto", True, "", True),
        ("always", False, None, True),
        ("always", False, "1", True),
        ("never", True, None, False),
    ],
)
def test_colour(
    option: str, tty: bool, no_color: str | None, colored: bool, here: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: tty, raising=False)
    assert run(["scan", "--color", option]) == 0
    assert (ESCAPE in capsys.readouterr().out) == colored


@pytest.mark.parametrize("format_", ["json", "csv"])
def test_formats_for_programs_are_never_coloured(format_: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", "--color", "always", "--format", format_]) == 0
    assert ESCAPE not in capsys.readouterr().out


def test_colour_on_stdout_leaves_report_files_plain(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", "--color", "always", "--report", "text=r"]) == 0
    assert ESCAPE in capsys.readouterr().out
    assert ESCAPE not in (here / "r").read_text()


def test_a_reader_that_goes_away_ends_the_run_silently(here: Path) -> None:
    """`ftpatch scan … | head -1`, with far more output than a pipe holds."""
    arguments = command("scan", "--sites", *["vmlinux"] * 100)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"vmlinux: arm64 vmlinux")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE


def without_stdout() -> None:
    os.close(1)


@pytest.mark.parametrize("arguments", [["scan"], ["enable", "--func", "vfs_read"]])
def test_a_closed_stdout_is_no_bug_of_ours(arguments: list[str], here: Path) -> None:
    """With >&- sys.stdout is None, which once was a traceback."""
    done = subprocess.run(command(*arguments), stderr=subprocess.PIPE, env=ENV, preexec_fn=without_stdout, check=False)
    assert b"Traceback" not in done.stderr
    assert done.returncode != 70


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_no_file_gets_the_number_of_a_closed_stream(closed: tuple[int, ...], here: Path) -> None:
    """With 2>&- the output could be number 2: what a library writes to stderr would be in it."""
    program = (
        "import os, sys\nfrom ftpatch import cli\nfrom ftpatch.write import contents\nreal = contents.write\n"
        "def write(image, edits, fd):\n"
        "    assert fd > 2\n"
        "    real(image, edits, fd)\n"
        "contents.write = write\nsys.argv = ['ftpatch', 'enable', '--func', 'vfs_read', '-o', 'out']\ncli.main()\n"
    )

    def close() -> None:
        for fd in closed:
            os.close(fd)

    done = subprocess.run([sys.executable, "-B", "-c", program], env=ENV, preexec_fn=close, check=False)
    assert done.returncode == 0
    assert run(["verify", "vmlinux", "out"]) == 0


@pytest.mark.parametrize("arguments", [["scan"], ["enable", "--func", "vfs_read"]])
def test_a_full_stdout_is_no_bug_of_ours(arguments: list[str], here: Path) -> None:
    """/dev/full: once a traceback."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command(*arguments), stdout=full, stderr=subprocess.PIPE, env=ENV, check=False)
    assert b"Traceback" not in done.stderr
    assert done.returncode not in (0, 70)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict", "latin-1:strict"])
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["scan", b"caf\xff"], id="scan"),
        pytest.param(["enable", b"caf\xff", "--func", "*"], id="enable"),
        pytest.param(["scan", b"no\xff"], id="missing"),
    ],
)
def test_names_that_stdout_cannot_show_are_escaped(encoding: str, arguments: list[Any], here: Path) -> None:
    """A file name that stdout's encoding cannot show: once a traceback."""
    shutil.copyfile(here / "vmlinux", os.fsencode(here) + b"/caf\xff")
    done = subprocess.run(
        command(*arguments), capture_output=True, env={**ENV, "PYTHONIOENCODING": encoding}, check=False
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode == (3 if arguments[1] == b"no\xff" else 0)


def test_control_characters_of_a_file_name_do_not_break_the_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["scan", "no\nsuch\x1b[1mfile"]) == 3
    assert capsys.readouterr() == (
        "", "ftpatch: no\\x0asuch\\x1b[1mfile: cannot be read: No such file or directory\n",
    )  # fmt: skip


def test_a_list_on_stdin_chooses_functions(here: Path) -> None:
    done = subprocess.run(
        command("scan", "--func", "@-"), input=b"vfs_read\nopen [ext4]\n", capture_output=True, env=ENV, check=True
    )
    assert [line.split()[-1] for line in done.stdout.splitlines()[-2:]] == [b"function", b"vfs_read"]


# -- image ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-objcopy") is None,
    reason="the oracle is aarch64-linux-gnu-objcopy (binutils-aarch64-linux-gnu)",
)
@pytest.mark.parametrize("name", ["vmlinux-pfe2", "vmlinux-callops", "vmlinux-exec", "vmlinux-notrace"])
def test_the_boot_image_is_objcopys(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Small kernels whose sections lie 64 KiB apart, too, which a limit of 4 × file size once refused."""
    removed = ["-R", ".note", "-R", ".note.gnu.build-id", "-R", ".comment", "-S"]
    oracle = ["aarch64-linux-gnu-objcopy", "-O", "binary", *removed, str(MINI / name), "oracle"]
    subprocess.run(oracle, check=True)
    assert run(["image", str(MINI / name), "-o", "Image"]) == 0
    assert (here / "Image").read_bytes() == (here / "oracle").read_bytes()
    assert capsys.readouterr() == (
        f"Image: {(here / 'oracle').stat().st_size} bytes, arm64: a flat boot image\n",
        "",
    )


def test_the_boot_image_of_a_module_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = MINI / "mini.ko"
    assert run(["image", str(path), "-o", "Image"]) == 5
    assert capsys.readouterr() == (
        "", f"ftpatch: {path}: no boot image can be made of this file: found kind module, expected a vmlinux – "
        "name the vmlinux of the build tree\n",
    )  # fmt: skip
    assert [one.name for one in here.iterdir()] == ["vmlinux"]


def test_the_boot_image_never_replaces_its_vmlinux(here: Path) -> None:
    assert run(["image", "vmlinux", "-o", "vmlinux"]) == 2
    assert (here / "vmlinux").read_bytes() == (MINI / "vmlinux-callops").read_bytes()
