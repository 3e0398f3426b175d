"""What a kernel source tree calls each machine: the folder below arch/, the option of its configuration, ARCH=."""

from __future__ import annotations

from typing import NamedTuple


class TreeNames(NamedTuple):
    """The names of one machine in a kernel tree."""

    arch: str  # the name here
    folder: str  # below arch/, which the makefiles call SRCARCH
    option: str  # set in .config, without CONFIG_
    others: tuple[str, ...] = ()  # what else ARCH= and distributions call it


# Source: the top Makefile of Linux 6.12 (SRCARCH), and arch/*/Kconfig.
TREE_NAMES = (
    TreeNames("arm64", "arm64", "ARM64", ("aarch64",)),
    TreeNames("ppc64le", "powerpc", "PPC64", ("ppc64", "ppc64el")),
    TreeNames("x86_64", "x86", "X86_64", ("amd64",)),
)
