"""Runs the commands that a page of README.md or docs/ shows, and compares what they print.

A page says in comments which files a reader has; each comment begins a section with a folder of its own:

    <!-- run: vmlinux=testdata/mini/vmlinux-callops dummy.ko=arm64-6.12/dummy.ko.xz
    $ mkdir new
    -->

NAME=PATH is a file or folder of this repository, NAME=KERNEL/… one of a Debian kernel; lines with `$` prepare the
folder. Then every block ```console is run, in order. CONTRIBUTING.md has the form in full.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ftpatch.cli import run
from tools import kernels

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
TESTED = ROOT / "docs" / "reference" / "tested.md"
FENCE = re.compile(r"^( *)(`{3,})\s*(\w*)")
NOT_RUN = re.compile(r"^\*Not run by the tests: (.+)\.\*$")
SHELL = re.compile(r"[|<>&;$`*?~{}()\[\]]|^(?!ftpatch )")  # what bash has to do something about
LEFT_OUT = re.compile(r"^(\\ )*…\\\n", re.MULTILINE)
FIGURE = re.compile(r"\b(?:0x)?(?=[0-9a-f]*[0-9])[0-9a-f]{3,}\b|\b[0-9]+\\\.[0-9]+\b")  # in an escaped text
TIMEOUT = 300
OUTSIDE = ".outside"  # below it is what has an absolute name


@dataclass(frozen=True)
class Step:
    """A command and what the page shows of its output and exit code."""

    line: int
    command: str
    shown: str
    code: int = 0


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. An indented one has the language `indented`."""

    line: int
    language: str
    text: str
    not_run: str = ""  # the reason, as the page says it

    @property
    def steps(self) -> list[Step]:
        """The commands of it; `echo $?` behind one is its exit code."""
        steps: list[Step] = []
        for number, command, shown in _commands(self):
            if command == "echo $?" and steps:
                last = steps.pop()
                steps.append(Step(last.line, last.command, last.shown, int(shown)))
            else:
                steps.append(Step(number, command, shown))
        return steps


@dataclass(frozen=True)
class Section:
    """Blocks that run in one folder, one after the other."""

    page: str
    line: int
    files: tuple[tuple[str, str], ...] = ()
    prepare: tuple[str, ...] = ()
    blocks: list[Block] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def kernel(self) -> bool:
        """Whether it needs a file of a Debian kernel."""
        return any(source.partition("/")[0] in kernels.known() for _, source in self.files)

    @property
    def run(self) -> list[Block]:
        return [block for block in self.blocks if block.language == "console" and not block.not_run]


def _commands(block: Block) -> Iterator[tuple[int, str, str]]:
    """(line, command, what is shown below it) of a block."""
    lines = block.text.split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        last = start
        while lines[last].endswith("\\"):
            last += 1
        command = "\n".join(lines[start : last + 1])[2:]
        yield block.line + 1 + start, command, "\n".join(lines[last + 1 : end]).rstrip("\n")


def sections(path: Path, text: str | None = None) -> list[Section]:
    """The sections of a page; the first has what stands in front of any comment."""
    page = str(path.relative_to(ROOT))
    found = [Section(page, 1)]
    lines = (path.read_text() if text is None else text).split("\n")
    number, reason = 0, ""
    while number < len(lines):
        line, first = lines[number], number + 1
        if line.startswith("<!-- run:"):
            last = next(end for end in range(number, len(lines)) if "-->" in lines[end])
            found.append(_set_up(page, first, "\n".join(lines[number : last + 1])))
            number = last
        elif fence := FENCE.match(line):
            last = next((end for end in range(number + 1, len(lines)) if lines[end].strip() == fence[2]), len(lines))
            text = "\n".join(part.removeprefix(fence[1]) for part in lines[number + 1 : last])
            found[-1].blocks.append(Block(first, fence[3], text, reason))
            number = last
        elif line.startswith("    ") and not lines[number - 1].strip():
            last = next((end for end in range(number, len(lines)) if not lines[end].startswith("    ")), len(lines))
            found[-1].blocks.append(Block(first, "indented", "\n".join(part[4:] for part in lines[number:last])))
            number = last - 1
        if said := NOT_RUN.match(line.strip()):
            reason = said[1]
        elif line.strip():
            reason = ""
        number += 1
    return found


def _set_up(page: str, line: int, comment: str) -> Section:
    head, *rest = comment.removeprefix("<!-- run:").removesuffix("-->").strip().split("\n")
    files = [(name, source or name) for name, _, source in (word.partition("=") for word in head.split())]
    return Section(page, line, tuple(files), tuple(part[2:] for part in rest if part.startswith("$ ")))


def lay_out(section: Section, folder: Path) -> None:
    """Make the folder as the page says it is, with `ftpatch` in a `bin` of its own beside it."""
    program = folder / ".bin" / "ftpatch"
    program.parent.mkdir()
    (folder / OUTSIDE / "tmp").mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ftpatch "$@"\n')
    program.chmod(0o755)
    for name, source in section.files:
        place = folder / (OUTSIDE + name if name.startswith("/") else name)
        place.parent.mkdir(parents=True, exist_ok=True)
        of, _, inside = source.partition("/")
        if of in kernels.known():
            place.symlink_to(_in_kernel(of, inside))
        elif name == source:
            place.symlink_to(ROOT / source)
        elif (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place)
        else:
            shutil.copyfile(ROOT / source, place)
    for command in section.prepare:
        code, output = in_bash(command, folder)
        assert code == 0, f"{section.name}: the preparation fails: {command}\n{output}"


def _in_kernel(name: str, inside: str) -> Path:
    """A file of a Debian kernel: its vmlinux, what is installed to boot it, its folder of modules, or one of them."""
    if inside == "vmlinux":
        return kernels.ensure(name).vmlinux
    if inside == "vmlinuz":
        return kernels.boot_file(name)
    tree = kernels.modules(name)
    return tree if inside == "modules" else next(iter(sorted(tree.rglob(inside))))


def in_bash(command: str, folder: Path) -> tuple[int, str]:
    """Exit code, and stdout and stderr together, of a line of bash."""
    path = f"{folder / '.bin'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TMPDIR": str(folder)}
    ran = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    return ran.returncode, ran.stdout


def in_process(command: str, folder: Path) -> tuple[int, str]:
    """The same of a plain command of ftpatch, without the start of a Python."""
    words = shlex.split(command.replace("\\\n", " "), comments=True)[1:]
    with open(folder / ".bin" / "output", "w+") as file, contextlib.chdir(folder):
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            code = run(words)
        file.seek(0)
        return code, file.read()


def run_command(command: str, section: Section, folder: Path) -> tuple[int, str]:
    """Run one, where it can be in this process; /tmp and files with absolute names are below the test's own "
    "folder."""
    command = re.sub(r"^\.venv/bin/ftpatch\b", "ftpatch", command)
    for name in ("/tmp/", *(name for name, _ in section.files if name.startswith("/"))):
        command = command.replace(name, f"{folder}/{OUTSIDE}{name}")
    bare = re.sub(r"'[^']*'", "", command.partition(" #")[0]).replace("\\\n", "")
    code, output = (in_bash if SHELL.search(bare) else in_process)(command, folder)
    return code, output.replace(f"{folder}/{OUTSIDE}/", "/")


def fits(shown: str, output: str, any_figures: bool = False) -> bool:
    """Whether an output is what is shown of it. A line `…` stands for lines left out, `…` in a line for any text.

    any_figures: numbers of three digits and more are whatever they are now, as Debian builds its kernels anew.
    """
    lines = re.escape(shown + "\n")
    if any_figures:
        lines = FIGURE.sub("(?:0x)?[0-9a-f.]+", lines)
    pattern = LEFT_OUT.sub(lambda _: "(?:.*\n)*", lines).replace("…", ".*")
    return re.fullmatch(pattern, output.rstrip("\n") + "\n") is not None


def run_section(section: Section, folder: Path) -> None:
    """Run the blocks of a section; an assertion says which command of which line prints something else."""
    for block in section.run:
        compared = any(step.shown for step in block.steps)
        for step in block.steps:
            where = f"{section.page}:{step.line}: $ {step.command}"
            assert not (section.kernel and "--in-place" in step.command), f"{where}\nchanges the cached kernel"
            code, output = run_command(step.command, section, folder)
            assert code == step.code, f"{where}\nexit code {code}, the page says {step.code}\n{output}"
            same = not compared or fits(step.shown, output, section.kernel)
            assert same, f"{where}\n{_difference(step.shown, output)}"


def _difference(shown: str, output: str) -> str:
    lines = output.rstrip("\n").split("\n")
    return "\n".join(difflib.unified_diff(shown.split("\n"), lines, "page", "run", n=99, lineterm=""))


def what_is_tested() -> str:
    """docs/reference/tested.md: the blocks that are not run, with their reasons, and the links that lead outside."""
    rows, links = [], set()
    for page in PAGES:
        name = str(page.relative_to(ROOT)).removeprefix("docs/")
        links |= {(link, name) for link in re.findall(r"\]\((https?://[^)\s]+)\)", page.read_text())}
        for block in (block for section in sections(page) for block in section.blocks if block.not_run):
            if block.language == "console":
                command = block.steps[0].command.split("\n")[0].replace("|", "\\|")
                rows.append(f"| {name} | `{command}` | {block.not_run} |\n")
    return (
        "<!-- Made by `python tests/pages.py`; do not edit. -->\n\n# What the tests run\n\n"
        "Every command of these pages is run by a test, and what it prints, with its exit code, is compared "
        "with what is shown. "
        "Where a Debian kernel is read, its figures are taken for any, as Debian builds its kernels anew.\n\n"
        "## Not run\n\n| page | command | reason |\n|---|---|---|\n" + "".join(rows) +
        "\n## Links to elsewhere\n\nNobody follows them in a test: their form alone is checked.\n\n| link | "
        "page |\n|---|---|\n"
        + "".join(f"| <{link}> | {page} |\n" for link, page in sorted(links))
    )  # fmt: skip


if __name__ == "__main__":
    TESTED.write_text(what_is_tested())
