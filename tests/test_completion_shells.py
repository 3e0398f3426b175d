"""Completion in real shells, typed on a terminal: what a program gets after TAB and Enter, whatever the names are."""

from __future__ import annotations

import contextlib
import os
import pty
import resource
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elfwriter import MINI

from ftpatch.completion import cache, shells
from tools.kernels import Kernel

pytestmark = pytest.mark.programs
SILENCE = 60  # seconds after which a shell that says nothing has a question
ROOT = Path(__file__).resolve().parents[1]
# The program as it is installed for these tests: it answers a shell's script, and else writes down what it was given.
PROGRAM = """#!/bin/sh
if [ "$1" = completion ]; then PYTHONPATH='{root}' exec '{python}' -m ftpatch "$@"; fi
printf '%s\\0' "$@" >>"$HOME/log"; printf '\\n\\0' >>"$HOME/log"
"""
HOSTILE = [
    "$(touch pwned)", "`touch pwned`", "a b", "it's", 'say"so', "x;touch pwned", "a&b", "a|b", "~root", "{a,b}", "#c",
    "back\\slash", "a:b", "%n", "é", "a!b", "<x", "(x)", "$HOME", "tail\\", "'", "c\\:d", "a=b",
]  # fmt: skip
LEFT = "\x02"  # Ctrl-B
# What is typed, TAB behind it, and what the program then gets.
TYPED = [
    ("enable --func vfs_r", ["enable", "--func", "vfs_read"]),
    ("enable --func=vfs_w", ["enable", "--func=vfs_write"]),
    ('enable --func "vfs_r', ["enable", "--func", "vfs_read"]),
    ("enable --func 'vfs_r", ["enable", "--func", "vfs_read"]),
    ("enable --func @no", ["enable", "--func", "@notes.txt"]),
    ("enable --func init_once@a", ["enable", "--func", "init_once@a.c"]),
    ("scan --format js", ["scan", "--format", "json"]),
    ("scan --report json=no", ["scan", "--report", "json=notes.txt"]),
    ("scan a\\ fol\tmini", ["scan", "a folder/mini.ko"]),
    ("enable --func @a\\ fol\tmini", ["enable", "--func", "@a folder/mini.ko"]),
    ("enable -onot", ["enable", "-onotes.txt"]),
    ("scan --report json=a\\ fol\tmini", ["scan", "--report", "json=a folder/mini.ko"]),
    ("scan ~/no", ["scan", "{home}/notes.txt"]),
    ("scan $HOME/no", ["scan", "{home}/notes.txt"]),
    ('scan "$HOME/no', ["scan", "{home}/notes.txt"]),
    ("check --select dead-weak,dup", ["check", "--select", "dead-weak,duplicate"]),
    ("sca\tvml", ["scan", "vmlinux"]),
    ("enable --func vfs_r vmlinux" + LEFT * 8, ["enable", "--func", "vfs_read", "vmlinux"]),
]
# The same where one shell wants it typed in its own way.
NEGATED = {"bash": "enable --func !vfs_r", "zsh": "enable --func \\!vfs_r", "fish": "enable --func !vfs_r"}
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--private", "-i"],
}
SETTINGS = {
    "bash": ["source {script}", "alias fp=ftpatch; complete -F _ftpatch fp"],
    "zsh": [
        "fpath+=({folder})",
        "autoload -U compinit; compinit -u -D",
        "alias fp=ftpatch; bindkey '^I' complete-word",
    ],
    "fish": ["alias fp=ftpatch"],  # it finds the script by itself
}
LAZY = ["source /usr/share/bash-completion/bash_completion", "alias fp=ftpatch"]


@pytest.fixture
def home(tmp_path: Path, programs: None) -> Path:
    """The home of a user, with a program in bin/, a kernel and some files."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/ftpatch"
    program.write_text(PROGRAM.format(root=ROOT, python=sys.executable))
    program.chmod(0o755)
    (tmp_path / "a folder").mkdir()
    shutil.copyfile(MINI / "vmlinux-callops", tmp_path / "vmlinux")
    shutil.copyfile(MINI / "mini.ko", tmp_path / "a folder/mini.ko")
    (tmp_path / "notes.txt").write_text("text\n")
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    return {
        "PATH": f"{home}/bin:/usr/bin:/bin", "HOME": str(home), "TERM": "xterm", "LC_ALL": "C.UTF-8",
        "INPUTRC": "/dev/null",
        "XDG_CACHE_HOME": f"{home}/cache", "XDG_DATA_HOME": f"{home}/data", "XDG_CONFIG_HOME": f"{home}/config",
        "ZDOTDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


def install(shell: str, home: Path) -> Path:
    """The script, where `completion --install` puts it."""
    command = [f"{home}/bin/ftpatch", "completion", shell, "--install"]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=True)
    return Path(done.stdout.partition(":")[0])


def given(shell: list[str], lines: list[str], home: Path) -> list[list[str]]:
    """Type lines into a shell on a terminal; what the program was given by each."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home)
        os.execvpe(shell[0], shell, environment(home))
    os.write(terminal, "".join(f"{line}\n" for line in [*lines, "exit"]).encode())
    shown = b""
    with contextlib.suppress(OSError):  # the shell has ended
        while select.select([terminal], [], [], SILENCE)[0]:
            shown += os.read(terminal, 1 << 16)
    os.close(terminal)  # hangs up on one that waits
    os.waitpid(pid, 0)
    assert b"Traceback" not in shown
    runs: list[list[str]] = [[]]
    for word in (home / "log").read_bytes().decode().split("\0")[:-1]:
        if word == "\n":
            runs.append([])
        else:
            runs[-1].append(word)
    return runs[:-1]


def typed(shell: str, home: Path) -> tuple[list[str], list[list[str]]]:
    """All that is typed into a shell, and what is to come of it."""
    words = [*TYPED, (NEGATED[shell], ["enable", "--func", "!vfs_read"])]
    if shell != "fish":  # which does not show what is behind the cursor
        behind = "enable --func mini_s a\\ folder/mini.ko" + LEFT * 18
        words.append((behind, ["enable", "--func", "mini_step", "a folder/mini.ko"]))
    lines = [f"ftpatch {text}\t" for text, _ in words]
    wanted = [[word.format(home=home) for word in arguments] for _, arguments in words]
    for line in (
        "fp enable --func vfs_r\t",
        "./bin/ftpatch enable --func vfs_r\t",
        "~/bin/ftpatch enable --func vfs_r\t",
    ):
        lines.append(line)
        wanted.append(["enable", "--func", "vfs_read"])
    return lines, wanted


@pytest.mark.parametrize("shell", shells.SHELLS)
def test_typed_lines(shell: str, home: Path) -> None:
    script = install(shell, home)
    settings = [line.format(script=script, folder=script.parent) for line in SETTINGS[shell]]
    lines, wanted = typed(shell, home)
    assert given(START[shell], [*settings, *lines], home) == wanted


def test_bash_completion_finds_the_script_by_itself(home: Path) -> None:
    install("bash", home)
    lines, wanted = typed("bash", home)
    kept = [i for i, line in enumerate(lines) if not line.startswith("fp")]
    assert given(START["bash"], [*LAZY, *(lines[i] for i in kept)], home) == [wanted[i] for i in kept]


@pytest.mark.parametrize("shell", shells.SHELLS)
def test_hostile_names_reach_the_program_as_they_are(shell: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a beginning of its own, so that it is the only candidate."""
    names = [f"h{i:02}{name}" for i, name in enumerate(HOSTILE)]
    monkeypatch.setenv("XDG_CACHE_HOME", f"{home}/cache")
    cache.store(cache.key_of(str(home / "vmlinux"), "sites"), b"".join(b"\n" + name.encode() for name in sorted(names)))
    script = install(shell, home)
    settings = [line.format(script=script, folder=script.parent) for line in SETTINGS[shell]]
    lines = [f"ftpatch enable --func h{i:02}\t" for i in range(len(names))]
    assert given(START[shell], [*settings, *lines], home) == [["enable", "--func", name] for name in names]
    assert not (home / "pwned").exists()


@pytest.mark.corpus
@pytest.mark.parametrize("shell", shells.SHELLS)
def test_functions_of_a_kernel_are_there_at_once(shell: str, home: Path, kernel: Callable[[str], Kernel]) -> None:
    """The first TAB reads the kernel; the next ones have 0.2 s of processor time, which others do not take."""
    vmlinux = str(kernel("x86_64-6.12").vmlinux)
    for text, limit in (("vfs_rea", 3.0), ("vfs_rea", 0.2), ("", 0.2)):
        words = {
            "bash": [f"ftpatch enable {vmlinux} --func {text}", str(23 + len(vmlinux) + len(text)), "="],
            "zsh": ["5", "", text, "ftpatch", "enable", vmlinux, "--func", text],
            "fish": [text, "ftpatch", "enable", vmlinux, "--func"],
        }[shell]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "ftpatch", "completion", shell, "--answer", "--", *words],
                              env={**os.environ, **environment(home), "PYTHONPATH": str(ROOT)},
                              capture_output=True, text=True, check=True)  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = done.stdout.splitlines()[shell != "fish" :]
        assert ("vfs_read" if text else "vfs_") in [line.split("\t")[0] for line in lines]
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < limit


@pytest.mark.parametrize("shell", shells.SHELLS)
def test_hostile_names_of_files_reach_the_program_as_they_are(shell: str, home: Path) -> None:
    files = [f"f{i:02}{name}" for i, name in enumerate(HOSTILE)]
    for name in [*files, "f99\nodd", "f98\x1b[31m"]:  # the last two are no candidates: they cannot be typed
        (home / name).write_bytes(b"\x7fELF")
    script = install(shell, home)
    settings = [line.format(script=script, folder=script.parent) for line in SETTINGS[shell]]
    lines = [f"ftpatch scan f{i:02}\t" for i in range(len(files))]
    lines += ["ftpatch scan --report json=f00\t", "ftpatch scan --report=json=f02\t", "ftpatch scan f99\t"]
    wanted = [["scan", name] for name in files]
    wanted += [["scan", "--report", f"json={files[0]}"], ["scan", f"--report=json={files[2]}"], ["scan", "f99"]]
    assert given(START[shell], [*settings, *lines], home) == wanted
    assert not (home / "pwned").exists()
