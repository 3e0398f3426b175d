"""Writing is whole or nothing: whatever goes wrong, OUT is the old file or the new one, and nothing else stays."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elfwriter import MINI, pos_of, symbol, words_at

from ftpatch.cli import run
from ftpatch.container import file_bytes
from ftpatch.elf.image import Image
from ftpatch.plan.edits import Edits
from ftpatch.plan.plan import Plan
from ftpatch.proof import decoders
from ftpatch.write import comparison, contents

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = MINI / "vmlinux-callops"
BANNER = pos_of(FIXTURE.read_bytes(), symbol(FIXTURE.read_bytes(), "linux_banner"))  # a byte of no interest


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a vmlinux in it, which is also the current directory; it is read as large files are."""
    monkeypatch.setattr(file_bytes, "WHOLE", 0)
    shutil.copyfile(FIXTURE, tmp_path / "vmlinux")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def enable(*more: str) -> int:
    return run(["enable", "vmlinux", "--func", "vfs_read", *more])


def is_patched(path: Path) -> bool:
    file = path.read_bytes()
    first = words_at(file, symbol(file, "vfs_read"), 1)
    assert len(file) == FIXTURE.stat().st_size
    return first == [0xAA1E03E9]  # mov x9, x30


def files(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def untouched(folder: Path) -> bool:
    return (folder / "vmlinux").read_bytes() == FIXTURE.read_bytes()


def test_the_output_is_written_beside_the_input_by_default(here: Path) -> None:
    assert enable() == 0
    assert files(here) == ["vmlinux", "vmlinux.patched"]
    assert is_patched(here / "vmlinux.patched")
    assert untouched(here)


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o444])
def test_the_mode_of_the_input_is_kept(mode: int, here: Path) -> None:
    (here / "vmlinux").chmod(mode)
    assert enable("-o", "out") == 0
    assert stat.S_IMODE((here / "out").stat().st_mode) == mode


def test_an_existing_output_is_replaced_and_its_other_names_keep_the_old_bytes(here: Path) -> None:
    (here / "out").write_bytes(b"old")
    os.link(here / "out", here / "other")
    assert enable("-o", "out") == 0
    assert is_patched(here / "out")
    assert (here / "other").read_bytes() == b"old"


def test_a_symlinked_output_is_followed(here: Path) -> None:
    (here / "real").mkdir()
    (here / "real/kernel").write_bytes(b"old")
    (here / "out").symlink_to("real/kernel")
    assert enable("-o", "out") == 0
    assert (here / "out").is_symlink()
    assert is_patched(here / "real/kernel")
    assert files(here / "real") == ["kernel"]


def test_a_dangling_symlink_is_filled(here: Path) -> None:
    (here / "out").symlink_to("new")
    assert enable("-o", "out") == 0
    assert (here / "out").is_symlink()
    assert is_patched(here / "new")


def by_path(here: Path) -> str:
    return "vmlinux"


def by_detour(here: Path) -> str:
    return f"../{here.name}/vmlinux"


def by_hard_link(here: Path) -> str:
    os.link(here / "vmlinux", here / "link")
    return "link"


def by_symlink(here: Path) -> str:
    (here / "link").symlink_to("vmlinux")
    return "link"


SAME = [by_path, by_detour, by_hard_link, by_symlink]


@pytest.mark.parametrize("name", SAME)
def test_the_input_is_no_output(name: Callable[[Path], str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = name(here)
    before = files(here)
    assert enable("-o", out) == 2
    assert capsys.readouterr() == (
        "",
        f"ftpatch: {out}: the output is the input – name another output, or use --in-place\n",
    )
    assert untouched(here)
    assert files(here) == before


def test_a_directory_is_no_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "out").mkdir()
    assert enable("-o", "out") == 2
    assert capsys.readouterr() == ("", "ftpatch: out: the output is not a regular file – name a file\n")
    assert files(here) == ["out", "vmlinux"]


def test_a_fifo_is_no_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(here / "out")
    assert enable("-o", "out") == 2
    assert capsys.readouterr() == ("", "ftpatch: out: the output is not a regular file – name a file\n")
    assert stat.S_ISFIFO((here / "out").stat().st_mode)


def test_a_device_is_no_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enable("-o", "/dev/null") == 2
    assert capsys.readouterr() == ("", "ftpatch: /dev/null: the output is not a regular file – name a file\n")


def test_a_file_without_a_name_is_no_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-o /proc/self/fd/7`, where 7 is a file that was removed, made one of the name `old (deleted)`."""
    with open("old", "wb") as old:
        os.unlink("old")
        name = f"/proc/self/fd/{old.fileno()}"
        assert enable("-o", name) == 2
        assert capsys.readouterr() == ("", f"ftpatch: {name}: the output is a file that has no name any more\n")
        assert enable("--report", f"json={name}") == 2
        assert capsys.readouterr() == ("", f"ftpatch: {name}: the report is a file that has no name any more\n")
    assert files(here) == ["vmlinux"]


def test_a_missing_directory_is_no_place(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enable("-o", "no/out") == 2
    assert capsys.readouterr() == (
        "",
        "ftpatch: no/out: the output's directory does not exist – make it first, or name another\n",
    )


@pytest.mark.parametrize("out", ["vmlinux", ".", "/dev/null", "no/out"])
def test_a_dry_run_refuses_the_outputs_that_the_real_run_refuses(out: str, here: Path) -> None:
    """Once --dry-run did not look at the output, and exited 0 where the run exits 2."""
    assert enable("-o", out) == 2
    assert enable("-o", out, "--dry-run") == 2


def test_a_dry_run_writes_nothing(here: Path) -> None:
    assert enable("--dry-run") == 0
    assert files(here) == ["vmlinux"]
    assert untouched(here)


def test_a_dry_run_in_place_writes_no_journal(here: Path) -> None:
    """Once it wrote the journal of edits that were never made."""
    assert enable("--dry-run", "--in-place") == 0
    assert files(here) == ["vmlinux"]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root; run as another user")
def test_a_read_only_directory_is_exit_3(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "ro").mkdir(mode=0o555)
    assert enable("-o", "ro/out") == 3
    assert capsys.readouterr() == ("", f"ftpatch: {here}/ro/out: cannot be written: Permission denied\n")


def test_a_directory_that_takes_no_files_is_exit_3(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a read-only file system answers; root meets it too."""

    real = os.open

    def refuse(path: str, flags: int, *args: Any) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *args)

    monkeypatch.setattr(os, "open", refuse)
    assert enable("-o", "out") == 3
    assert capsys.readouterr() == ("", f"ftpatch: {here}/out: cannot be written: Read-only file system\n")
    assert files(here) == ["vmlinux"]


@pytest.mark.parametrize("call", ["pwrite", "fsync", "replace", "fchmod"])
def test_a_full_disk_leaves_the_old_output_and_no_temporary(
    call: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (here / "out").write_bytes(b"old")
    monkeypatch.setattr(os, call, full)
    assert enable("-o", "out") == 3
    assert capsys.readouterr() == ("", f"ftpatch: {here}/out: cannot be written: No space left on device\n")
    assert files(here) == ["out", "vmlinux"]
    assert (here / "out").read_bytes() == b"old"


@pytest.mark.parametrize("limit", [0, 1000, 20_000])
def test_a_file_size_limit_in_the_middle_of_the_output_leaves_nothing(limit: int, here: Path) -> None:
    """A real write that fails half-way: copy_file_range and pwrite both end with EFBIG."""
    assert limit < FIXTURE.stat().st_size

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-B", "-m", "ftpatch", "enable", "vmlinux", "--func", "vfs_read", "-o", "out"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"ftpatch: {here}/out: cannot be written: File too large\n"
    assert files(here) == ["vmlinux"]


def test_short_writes_are_completed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def no_kernel_copy(*args: Any) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", no_kernel_copy)
    monkeypatch.setattr(os, "pwrite", lambda fd, piece, pos: real(fd, piece[:999], pos))
    assert enable("-o", "out") == 0
    assert is_patched(here / "out")


def test_a_copy_by_the_kernel_and_by_hand_are_the_same_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert enable("-o", "one") == 0
    monkeypatch.setattr(os, "copy_file_range", lambda *args: 0)
    assert enable("-o", "two") == 0
    assert (here / "one").read_bytes() == (here / "two").read_bytes()


def test_an_input_that_changes_between_plan_and_write_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody writes into the very site, in place, after the plan was made."""
    real = contents.write

    def late(image: Image, edits: Edits, fd: int) -> None:
        with (here / "vmlinux").open("r+b") as file:
            file.seek(int(edits.pos[0]))
            file.write(b"\xaa")
        os.utime(here / "vmlinux", ns=(1, 1))  # two writes in one tick of the clock have the same time
        real(image, edits, fd)

    monkeypatch.setattr(contents, "write", late)
    assert enable("-o", "out") != 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "ftpatch: vmlinux: the file changed while it was read: found a write in between – run again when no other "
        "program writes it\n"
    )
    assert files(here) == ["vmlinux"]


def test_an_input_that_is_replaced_between_plan_and_write_is_read_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A build puts another vmlinux under the name: the copy is of the one that was opened, and never of both."""
    real = contents.write

    def late(image: Image, edits: Edits, fd: int) -> None:
        shutil.copyfile(MINI / "vmlinux-pfe2", here / "new")
        os.replace(here / "new", here / "vmlinux")
        real(image, edits, fd)

    monkeypatch.setattr(contents, "write", late)
    assert enable("-o", "out") == 0
    assert files(here) == ["out", "vmlinux"]
    assert is_patched(here / "out")


def flip(here: Path, monkeypatch: pytest.MonkeyPatch, at: Callable[[Edits], int], times: int = 1) -> None:
    """Sabotage the writer: one bit of the output is other than planned."""
    real = contents.write

    def sabotaged(image: Image, edits: Edits, fd: int) -> None:
        real(image, edits, fd)
        pos = at(edits)
        (byte,) = os.pread(fd, 1, pos)
        os.pwrite(fd, bytes([byte ^ 4]), pos)

    monkeypatch.setattr(contents, "write", sabotaged)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (
            lambda edits: BANNER,
            f"self-check failed on a byte that no edit owns: found a change at file position {BANNER:#x}",
        ),
        (
            lambda edits: next(pos for pos, _, _, kind, _ in edits if kind == "site"),
            "self-check failed on the site edits: found other bytes than planned",
        ),
        (
            lambda edits: next(pos for pos, _, _, kind, _ in edits if kind == "literal"),
            "self-check failed on the literal edits: found other bytes than planned",
        ),
        (
            lambda edits: next(pos for pos, _, _, kind, _ in edits if kind == "relocation"),
            "self-check failed on the relocation edits: found other bytes than planned",
        ),
        (
            lambda edits: next(pos for pos, _, _, kind, _ in edits if kind == "record"),
            "self-check failed on the record edits: found other bytes than planned",
        ),
    ],
    ids=["elsewhere", "site", "literal", "relocation", "record"],
)
def test_the_self_check_catches_a_sabotaged_writer(
    at: Callable[[Edits], int], message: str, here: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    flip(here, monkeypatch, at)
    assert enable("-o", "out", "--report", "json=journal") == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ftpatch: out: ")
    assert err.endswith(f": {message}, expected what the plan says – the output was not kept; please report this\n")
    assert files(here) == ["vmlinux"]


@pytest.mark.parametrize("at", [0, 4, 5, 16, 0x3F], ids=["magic", "class", "data", "type", "shstrndx"])
def test_a_sabotaged_header_of_the_result_is_our_bug_not_the_users(
    at: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that is no sound ELF file any more: once exit 3 about the temporary."""
    flip(here, monkeypatch, lambda edits: at)
    code = enable("-o", "out")
    assert files(here) == ["vmlinux"]
    assert code == 70


def test_the_self_check_catches_an_output_of_another_size(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = contents.write

    def longer(image: Image, edits: Edits, fd: int) -> None:
        real(image, edits, fd)
        os.ftruncate(fd, len(image.data) + 1)

    monkeypatch.setattr(contents, "write", longer)
    assert enable("-o", "out") == 70
    assert files(here) == ["vmlinux"]


def test_the_second_decoder_objects_to_a_wrong_branch(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words agree with the plan and our own decoder, but capstone reads another target."""
    real = decoders._capstone
    monkeypatch.setattr(decoders, "_capstone", lambda *args: [(name, more, far + 4) for name, more, far in real(*args)])
    call = symbol(FIXTURE.read_bytes(), "vfs_read") + 4
    planned = symbol(FIXTURE.read_bytes(), "ftrace_caller") - call
    assert enable("-o", "out") == 70
    check_failed_branch(here, capsys.readouterr(), seen=planned + 4, own=planned)


def test_our_own_decoder_objects_to_a_wrong_branch(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words agree with the plan and capstone, but our own decoder reads another target."""
    real = decoders.branches

    def other(*args: Any) -> Any:
        kind, distance = real(*args)
        return kind, distance - 4

    monkeypatch.setattr(decoders, "branches", other)
    call = symbol(FIXTURE.read_bytes(), "vfs_read") + 4
    planned = symbol(FIXTURE.read_bytes(), "ftrace_caller") - call
    assert enable("-o", "out") == 70
    check_failed_branch(here, capsys.readouterr(), seen=planned, own=planned - 4)


def check_failed_branch(here: Path, streams: tuple[str, str], *, seen: int, own: int) -> None:
    """Nothing was written, and the message names the only site with what both decoders read."""
    out, err = streams
    assert out == ""
    target = symbol(FIXTURE.read_bytes(), "vfs_read") + 4 + own
    assert err == (
        f"ftpatch: out: self-check failed on verify-branch: found vfs_read: its call goes to {target:#x}, a branch by "
        f"{seen:+#x} (capstone), {own:+#x} (own decoder), expected nothing that verify finds – the output was not "
        "kept; please report this\n"
    )
    assert files(here) == ["vmlinux"]


@pytest.mark.parametrize(("attribute", "message"), [
    ("summary", "the calls: found 1 sites that call {caller:#x} with ops at {ops:#x}, planned ftrace_caller, "),
    ("ops_va", "the calls: found 1 sites that call {caller:#x} with ops at {ops:#x}, planned ftrace_caller, "),
    ("index", "the sites: found 1 that changed, planned 0, or others, "),
    ("gone", "the records: found 1 that left, planned 0, or others, "),
    ("returned", "the records: found 0 that came back, planned 1, or others, "),
])  # fmt: skip
def test_a_sound_file_that_is_not_what_was_planned_is_not_published(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], attribute: str, message: str
) -> None:
    """The proof alone accepts such a file: only the plan can say that it is another one."""
    real = comparison.require_planned
    data = FIXTURE.read_bytes()
    caller, ops = symbol(data, "ftrace_caller"), symbol(data, "ftrace_list_ops")

    def other(plan: Plan, proof: Any) -> None:
        wrong: dict[str, Any] = {
            "summary": replace(plan.summary, target_va=caller + 4), "ops_va": ops + 8, "index": plan.index[:0],
            "gone": np.zeros_like(plan.gone), "returned": plan.index[:1],
        }  # fmt: skip
        real(replace(plan, **{attribute: wrong[attribute]}), proof)

    monkeypatch.setattr(comparison, "require_planned", other)
    assert enable("-o", "out") == 70
    assert f"self-check failed on {message}".format(caller=caller, ops=ops) in capsys.readouterr().err
    assert files(here) == ["vmlinux"]


def test_an_unexpected_exception_is_exit_70_and_leaves_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("made up")

    monkeypatch.setattr(comparison, "check_result", broken)
    assert enable("-o", "out") == 70
    err = capsys.readouterr().err
    assert "ZeroDivisionError: made up" in err
    assert err.endswith("ftpatch: this is a bug in ftpatch; please report the lines above\n")
    assert files(here) == ["vmlinux"]


def test_an_interrupt_leaves_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "check_result", interrupted)
    assert enable("-o", "out") == 130
    assert capsys.readouterr().err == "\nftpatch: interrupted; every file is whole, old or new\n"
    assert files(here) == ["vmlinux"]


def test_a_termination_while_writing_leaves_nothing(here: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from ftpatch import cli\nfrom ftpatch.write import contents\n"
        "contents.write = lambda *a: (os.kill(os.getpid(), signal.SIGTERM), signal.pause())\n"
        "sys.argv = ['ftpatch', 'enable', 'vmlinux', '--func', 'vfs_read', '-o', 'out']\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program], capture_output=True, check=False, timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (143, b"")
    assert files(here) == ["vmlinux"]


# -- in place ------------------------------------------------------------------------------------------------------


def test_in_place_replaces_the_file_and_writes_its_journal(here: Path) -> None:
    os.link(here / "vmlinux", here / "other")
    assert enable("--in-place") == 0
    assert files(here) == ["other", "vmlinux", "vmlinux.ftpatch.json"]
    assert is_patched(here / "vmlinux")
    assert (here / "other").read_bytes() == FIXTURE.read_bytes()


@pytest.mark.parametrize(("text", "code", "line"), [
    ("[" * 200000, 4, "more than is read of JSON: found values nested deeper, expected at most 1000"),
    ('{"schema": 1%s}' % ("0" * 5000), 4, "more than is read of JSON: found a number of 5001 digits, expected "),
    ('{"schema": 1%s}' % ("0" * 19), 4, "a journal of a newer ftpatch: found schema 1" + "0" * 19),
    ("what somebody noted", 3, "not a journal of a patch: found Expecting value: line 1 column 1 (char 0), "),
])  # fmt: skip
def test_what_has_the_journals_name_and_is_none_is_not_replaced(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, line: str
) -> None:
    """A list of 200,000 lists was a RecursionError: exit code 70."""
    (here / "vmlinux.ftpatch.json").write_text(text)
    assert enable("--in-place") == code
    err = capsys.readouterr().err
    assert err.startswith(f"ftpatch: vmlinux.ftpatch.json: {line}") and err.count("\n") == 1
    assert (here / "vmlinux.ftpatch.json").read_text() == text and untouched(here)


def test_the_journal_undoes_the_edits(here: Path) -> None:
    assert enable("--in-place") == 0
    file = bytearray((here / "vmlinux").read_bytes())
    (image,) = json.loads((here / "vmlinux.ftpatch.json").read_text())["images"]
    assert image["edits"]
    for edit in image["edits"]:
        old, new = bytes.fromhex(edit["old"]), bytes.fromhex(edit["new"])
        assert file[edit["pos"] : edit["pos"] + len(new)] == new
        file[edit["pos"] : edit["pos"] + len(new)] = old
    assert bytes(file) == FIXTURE.read_bytes()


def test_in_place_with_a_journal_of_its_own_name_writes_that_one(here: Path) -> None:
    assert enable("--in-place", "--report", "json=journal") == 0
    assert files(here) == ["journal", "vmlinux"]


def test_in_place_through_a_symlink_replaces_what_it_leads_to(here: Path) -> None:
    (here / "link").symlink_to("vmlinux")
    assert run(["enable", "link", "--func", "vfs_read", "--in-place"]) == 0
    assert (here / "link").is_symlink()
    assert is_patched(here / "vmlinux")


def test_in_place_that_fails_its_check_keeps_the_file_and_writes_no_journal(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(here, monkeypatch, lambda edits: BANNER)
    assert enable("--in-place") == 70
    assert untouched(here)
    assert files(here) == ["vmlinux"]


def test_a_journal_that_cannot_be_written_leaves_no_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enable("-o", "out", "--report", "json=no/journal") == 3
    assert capsys.readouterr() == (
        "", f"ftpatch: {here}/no/journal: cannot be written: No such file or directory\n",
    )  # fmt: skip
    assert files(here) == ["vmlinux"]


@pytest.mark.parametrize(
    "more", [("-o", "out", "--report", "json=journal"), ("--in-place",)], ids=["output", "in place"]
)
def test_an_output_that_cannot_be_renamed_leaves_no_journal(
    more: tuple[str, ...], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An immutable OUT (chattr +i) takes no rename. The journal has its name by then, and would speak of edits that
    nobody made: it is taken back. Once it stayed.
    """
    if "--in-place" not in more:
        (here / "out").write_bytes(b"old")
    before = files(here)
    real = os.replace

    def refuse(source: str, target: str) -> None:
        if os.path.basename(target) in ("out", "vmlinux"):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    assert enable(*more) == 3
    assert untouched(here)
    assert files(here) == before


def test_in_place_and_an_output_exclude_each_other(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enable("--in-place", "-o", "out") == 2
    assert capsys.readouterr() == ("", "ftpatch: --in-place and -o exclude each other – leave one of them out\n")
    assert files(here) == ["vmlinux"]


# -- reports -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("verb", ["scan", "enable"])
def test_a_report_never_replaces_the_input(
    verb: str, name: Callable[[Path], str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = name(here)
    assert run([verb, "vmlinux", "--func", "vfs_read", "--report", f"json={report}"]) == 2
    assert capsys.readouterr() == (
        "", f"ftpatch: {report}: the report would replace another file of this run – name another report file\n",
    )  # fmt: skip
    assert untouched(here)


def test_a_report_is_never_the_output(here: Path) -> None:
    assert enable("-o", "out", "--report", "json=out") == 2
    assert files(here) == ["vmlinux"]


def test_two_reports_never_share_a_file(here: Path) -> None:
    assert enable("-o", "out", "--report", "json=r", "--report", "csv=./r") == 2
    assert files(here) == ["vmlinux"]


def test_a_report_may_be_no_fifo(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(here / "r")
    assert run(["scan", "vmlinux", "--report", "json=r"]) == 2
    assert capsys.readouterr().err == "ftpatch: r: the report is not a regular file – name a file\n"
