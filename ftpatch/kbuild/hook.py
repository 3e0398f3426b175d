"""The changes by which a tree's own build calls the hook: what each file would hold, decided before any is written."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ftpatch.arch.kernel_trees import TREE_NAMES
from ftpatch.errors import UnsupportedError
from ftpatch.kbuild.blocks import WHOLE, appended, block, without_blocks
from ftpatch.kbuild.tree import MODULES, KernelTree

INSTALLED = "scripts/Makefile.ftpatch"  # where the hook lies in a tree
INCLUDE = b"include $(srctree)/scripts/Makefile.ftpatch\n"
ALONE = b"ftpatch-reader := link\n" + INCLUDE
CALL = b"\t$(Q)$(MAKE) -f $(srctree)/scripts/Makefile.ftpatch $@\n"
MODFINAL = b"ftpatch-reader := modfinal\n" + INCLUDE
CONDITION = re.compile(rb"^\s*(ifn?def|ifn?eq|else|endif)\b")


@dataclass(frozen=True)
class FileChange:
    """What becomes of one file of a tree. None: it is not there."""

    name: str  # relative to the top of the tree
    old: bytes | None
    new: bytes | None


def hook_text() -> bytes:
    """The makefile that checks what a build links."""
    return Path(__file__).with_name("Makefile.ftpatch").read_bytes()


def changes(tree: KernelTree, install: bool) -> list[FileChange]:
    """What is to be written so that the hook is there, or is gone; files that stay as they are count, too.

    Raises PlanError for lines of ours that others changed, UnsupportedError for a makefile without the rule.
    """
    hooked = [INSTALLED, *map(tree.postlink, tree.machines), *([tree.modfinal] if tree.modfinal else [])]
    made = []
    # taken out of wherever they are: the tree may have been hooked for several machines
    for name in dict.fromkeys([*hooked, *map(tree.postlink, TREE_NAMES), *MODULES]):
        old = tree.read(name)
        bare = None if old is None else without_blocks(old, os.path.join(tree.top, name))
        if name in hooked or (not install and bare != old):
            made.append(FileChange(name, old, _with_hook(tree, name, bare) if install and name in hooked else bare))
    return made


def _with_hook(tree: KernelTree, name: str, bare: bytes | None) -> bytes:
    """A file of the tree with what it needs to have of the hook."""
    if name == INSTALLED:
        if bare is not None:
            raise UnsupportedError("is there already, and not by ftpatch", os.path.join(tree.top, name),
                                   todo="move it away")  # fmt: skip
        return block(hook_text(), WHOLE)
    if name == tree.modfinal:
        assert bare is not None
        return appended(bare, MODFINAL)
    if bare is None:
        return block(ALONE, WHOLE)
    where = os.path.join(tree.top, name)
    bare = _with_call(bare, tree.linked, where)
    return bare if tree.modfinal else _with_call(bare, "%.ko", where)


def _with_call(content: bytes, target: str, where: str) -> bytes:
    """A makefile with the call behind the last command of the rule of a target."""
    lines = content.splitlines(keepends=True)
    rule = re.compile(rb"^[^\t#=]*(?<![\w.%])" + re.escape(target.encode()) + rb"(?![\w.])[^=:]*:(?!=)")
    start = next((number for number, text in enumerate(lines) if rule.match(text)), None)
    if start is None:
        raise UnsupportedError("this makefile has no rule for what is linked", where, expected=f"{target}:",
                               todo="ftpatch kbuild --out FILE hooks the build without it")  # fmt: skip
    end, depth = start + 1, 0
    for number, text in enumerate(lines[start + 1 :], start + 1):
        if text.startswith(b"\t") or lines[number - 1].endswith(b"\\\n"):
            end = number + 1
        elif match := CONDITION.match(text):
            depth += {b"if": 1, b"en": -1}.get(match[1][:2], 0)
            if depth < 0:  # the rule itself is inside
                break
            end = number + 1 if depth == 0 else end
        elif text.strip() and not text.startswith(b"#"):
            break
    if end == len(lines) and not content.endswith(b"\n"):
        return appended(content, CALL)
    return b"".join([*lines[:end], block(CALL), *lines[end:]])


def as_patch(made: list[FileChange]) -> Iterator[str]:
    """The changes as a patch for `git apply` and `patch -p1`."""
    for change in made:
        old, new = (("" if content is None else content.decode("utf-8", "surrogateescape"))
                    for content in (change.old, change.new))  # fmt: skip
        before = "/dev/null" if change.old is None else f"a/{change.name}"
        after = "/dev/null" if change.new is None else f"b/{change.name}"
        for line in difflib.unified_diff(old.splitlines(True), new.splitlines(True), before, after):
            yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
