"""What a kernel tree has, told by the files in it and never by a version: where its build calls a hook."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ftpatch.arch.kernel_trees import TREE_NAMES, TreeNames
from ftpatch.errors import InputError, UnsupportedError, UsageError
from ftpatch.inputs import read_file

MAX_MAKEFILE = 4 << 20  # bytes; the largest of Linux 6.12 has 80 KB
MAX_CONFIG = 16 << 20  # bytes of a .config
MARKS = ("scripts/Kbuild.include", "Kconfig", "arch")  # what only the top of a source tree has
CALLERS = ("scripts/Makefile.vmlinux", "Makefile", "scripts/link-vmlinux.sh")  # which of them links has changed
MODULES = ("scripts/Makefile.modfinal", "scripts/Makefile.modpost")  # link the modules, the second before Linux 5.6
HOOK = "ARCH_POSTLINK"  # the variable by which they call a machine's Makefile.postlink


@dataclass(frozen=True)
class KernelTree:
    """One source tree, and what was told of its build."""

    top: str  # of the sources
    build: str  # where objects go: the same, or the folder that O= names
    machines: tuple[TreeNames, ...]  # that it may be built for: one, where somebody or its configuration says so
    linked: str  # the file that the final link makes
    modfinal: str | None  # the makefile that links modules and calls no hook; None: it calls that of the machine

    def postlink(self, machine: TreeNames) -> str:
        """The machine's hook, whether it is there or not; relative to `top`."""
        return f"arch/{machine.folder}/Makefile.postlink"

    def read(self, name: str) -> bytes | None:
        """The bytes of one of its makefiles; None where there is none."""
        path = os.path.join(self.top, name)
        return read_file(path, MAX_MAKEFILE) if os.path.lexists(path) else None


def read_tree(folder: str, build: str | None = None, arch: str | None = None) -> KernelTree:
    """What is told of the tree at `folder`: its top, or a folder that it is built in (O=).

    build: where objects go, if elsewhere. arch: a machine, by any of its names; None: as the configuration says.
    Raises InputError where no kernel tree is, UnsupportedError for one without hooks, UsageError for no such machine.
    """
    top, own_build = _top_of(folder)
    build = build or own_build
    if not os.path.isdir(build):
        raise UsageError("not a directory", build, todo="--build names the folder that O= names")
    texts = {name: _text(top, name) for name in (*CALLERS, *MODULES)}
    if not any(HOOK in texts[name] for name in CALLERS):
        raise UnsupportedError("this kernel's build calls no hook behind the link", top, expected=HOOK,
                               todo="call `ftpatch check vmlinux` where the build ends")  # fmt: skip
    linked = "vmlinux.unstripped" if "vmlinux.unstripped" in texts[CALLERS[0]] else "vmlinux"
    return KernelTree(top, build, _machines(top, build, arch), linked, _modfinal(texts))


def _modfinal(texts: dict[str, str]) -> str | None:
    """The makefile that links modules and calls no hook. Linux had the call from 4.9 on, and has it no more."""
    if any(HOOK in texts[name] for name in MODULES):
        return None
    return next((name for name in MODULES if re.search(r"^__modfinal:", texts[name], re.MULTILINE)), None)


def _top_of(folder: str) -> tuple[str, str]:
    """The top of the sources, and where objects go, of either of the two."""
    if not os.path.isdir(folder):
        raise InputError("is no directory" if os.path.lexists(folder) else "does not exist", folder,
                         expected="the top of a kernel source tree", todo="--tree names it")  # fmt: skip
    source = os.path.join(folder, "source")  # a link that the build makes in the folder of O=
    for top in (folder, source):
        if all(os.path.exists(os.path.join(top, mark)) for mark in MARKS):
            return os.path.realpath(top), os.path.realpath(folder)
    missing = next(mark for mark in MARKS if not os.path.exists(os.path.join(folder, mark)))
    raise InputError("not a kernel source tree", os.path.realpath(folder), found=f"no {missing}",
                     expected="the top of one, or the folder that O= names", todo="--tree names it")  # fmt: skip


def _text(top: str, name: str) -> str:
    path = os.path.join(top, name)
    return read_file(path, MAX_MAKEFILE).decode("utf-8", "replace") if os.path.lexists(path) else ""


def _machines(top: str, build: str, arch: str | None) -> tuple[TreeNames, ...]:
    """The machine that is asked for, else that of the configuration, else all that the tree has."""
    known = [names for names in TREE_NAMES if os.path.isdir(os.path.join(top, "arch", names.folder))]
    if not known:
        raise UnsupportedError("this tree is for none of the machines that ftpatch knows", top,
                               expected=", ".join(f"arch/{names.folder}" for names in TREE_NAMES))  # fmt: skip
    if arch is not None:
        asked = [names for names in known if arch in (names.arch, names.folder, *names.others)]
        if not asked:
            raise UsageError("no such machine in this tree", f"--arch {arch}",
                             expected=", ".join(names.folder for names in known))  # fmt: skip
        return tuple(asked)
    for folder in dict.fromkeys((build, top)):
        path = os.path.join(folder, ".config")
        if os.path.isfile(path):
            options = set(re.findall(rb"^CONFIG_(\w+)=y$", read_file(path, MAX_CONFIG), re.MULTILINE))
            configured = tuple(names for names in known if names.option.encode() in options)
            if not configured:
                raise UnsupportedError("configured for a machine that ftpatch does not know", path,
                                       expected=" or ".join(f"CONFIG_{names.option}=y" for names in known),
                                       todo="--arch names another")  # fmt: skip
            return configured
    return tuple(known)
