"""`ftpatch kbuild`: the hook by which a kernel's own build checks what it links."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import click

from ftpatch.cli import Verb, emit
from ftpatch.cli.options import gathered, note
from ftpatch.errors import UsageError, printable
from ftpatch.kbuild import hook
from ftpatch.kbuild.install import write_changes
from ftpatch.kbuild.tree import KernelTree, read_tree

ACTIONS = ("out", "install", "remove", "patch")
PLAIN = re.compile(r"[\w/.,+@%^~-]*", re.ASCII)  # what make takes in the name of a makefile


@dataclass(frozen=True)
class KbuildRun:
    """What is asked of a tree."""

    tree: str
    build: str | None
    arch: str | None
    out: str | None
    install: bool
    remove: bool
    patch: bool
    dry_run: bool


@click.command("kbuild", cls=Verb)
@gathered(KbuildRun)
@click.option("--tree", default=".", metavar="DIR", help="The kernel's source tree, or a folder that it is built in.")
@click.option("--build", metavar="DIR", help="The folder that O= names, where the tree is built elsewhere.")
@click.option("--arch", metavar="ARCH", help="The machine (default: that of the .config, or all).")
@click.option("--out", metavar="FILE", help="Write the hook there, for make MAKEFILES=FILE: the tree stays as it is.")
@click.option("--install", is_flag=True, help="Put the hook into the tree.")
@click.option("--remove", is_flag=True, help="Take it out again, byte for byte.")
@click.option("--patch", is_flag=True, help="Print what --install would change, as a patch.")
@click.option("--dry-run", is_flag=True, help="Say what --install or --remove would do, and write nothing.")
def command(run: KbuildRun) -> int:
    """Let a kernel's own build check vmlinux and every module as soon as each is linked, and stop where one fails.

    Without an option that says where it goes, the hook is printed: a makefile, the same for every tree.
    """
    asked = [name for name in ACTIONS if getattr(run, name)]
    if len(asked) > 1:
        raise UsageError("exclude each other", " and ".join(f"--{name}" for name in asked))
    if run.dry_run and not (run.install or run.remove):
        raise UsageError("--dry-run is for --install and --remove", "--dry-run")
    tree = read_tree(run.tree, run.build, run.arch)
    if run.out is not None:
        return _write_out(run.out, tree)
    if not asked:
        emit(hook.hook_text().decode())
        return 0
    made = hook.changes(tree, install=not run.remove)
    if run.patch:
        for line in hook.as_patch(made):
            emit(line)
        return 0
    if not run.dry_run:
        write_changes(tree.top, made, note)
    _tell(tree, made, run)
    return 0


def _write_out(out: str, tree: KernelTree) -> int:
    """Write the hook to a file outside of the build's own, and say how the build gets it."""
    path = os.path.abspath(out)
    if not PLAIN.fullmatch(path):
        odd = next(char for char in path if not PLAIN.fullmatch(char))
        raise UsageError("make takes no makefile of such a name", out, found=repr(odd), todo="choose another name")
    change = hook.FileChange(os.path.basename(path), None, hook.hook_text())
    write_changes(os.path.dirname(path), [change], note)
    emit(f"wrote {path}\n")
    emit(f"{_make(tree)} MAKEFILES={path}\n")
    return 0


def _make(tree: KernelTree) -> str:
    """How the tree is built, as a command line."""
    build = [f"O={tree.build}"] if tree.build != tree.top else []
    arch = [f"ARCH={tree.machines[0].folder}"] if len(tree.machines) == 1 else []
    return printable(shlex.join(["make", "-C", tree.top, *build, *arch]))


def _tell(tree: KernelTree, made: Sequence[hook.FileChange], run: KbuildRun) -> None:
    """What was done, file by file, and what the tree then does."""
    would = "would have " if run.dry_run else ""
    for change in made:
        if change.new == change.old:
            done = "unchanged" if change.new is not None else "not there"
        elif change.new is None:
            done = "would be removed" if run.dry_run else "removed"
        elif change.old is None:
            done = "would be written" if run.dry_run else "written"
        else:
            done = f"{would}lines of ftpatch" + (" taken out" if run.remove else " put in")
        emit(f"{change.name:<32} {done}\n")
    if run.install:
        modules = f"through {tree.modfinal}" if tree.modfinal else "through the same file"
        machines = ", ".join(tree.postlink(machine) for machine in tree.machines)
        emit(f"\n{tree.linked} is checked through {machines}, modules {modules}.\n")
        emit(f"build as ever: {_make(tree)}; without the check: … FTPATCH=\n")
