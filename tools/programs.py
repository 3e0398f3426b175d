"""The programs that corpus and boot tests need: cross compilers and QEMU, from the packages of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

from tools.apt import FetchError, say

TOOLS = {
    "qemu-system-aarch64": ("qemu-system-arm",),
    "aarch64-linux-gnu-gcc": ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
    "aarch64-linux-gnu-objcopy": ("binutils-aarch64-linux-gnu",),
    "qemu-system-ppc64": ("qemu-system-ppc",),
    "qemu-ppc64le": ("qemu-user",),
    "powerpc64le-linux-gnu-gcc": ("gcc-powerpc64le-linux-gnu", "libc6-dev-ppc64el-cross"),
    "powerpc64le-linux-gnu-objcopy": ("binutils-powerpc64le-linux-gnu",),
    "qemu-system-x86_64": ("qemu-system-x86",),
    "x86_64-linux-gnu-gcc": ("gcc", "libc6-dev"),
    "qemu-aarch64": ("qemu-user",),
    "aarch64-linux-gnu-g++": ("g++-aarch64-linux-gnu",),
    "powerpc64le-linux-gnu-g++": ("g++-powerpc64le-linux-gnu",),
    "x86_64-linux-gnu-g++": ("g++",),
    "clang++": ("clang",),
    "less": ("less",),
    "ld.lld": ("lld",),
    "dpkg-buildpackage": ("dpkg-dev",),
    "dh": ("debhelper",),
    "dh_python3": ("dh-python",),
    "fakeroot": ("fakeroot",),
    "lintian": ("lintian",),
    "chromium": ("chromium",),
    "zsh": ("zsh",),
    "fish": ("fish",),
    "dh_bash-completion": ("bash-completion",),
    "mandoc": ("mandoc",),
    "man": ("man-db",),
    "groff": ("groff",),
}


def ensure_tools() -> None:
    """Install the programs that corpus and boot tests need; without root, fail and say how it is done."""
    ensure(TOOLS)


def ensure(tools: Mapping[str, tuple[str, ...]]) -> None:
    """Install what is missing of these: program → packages of Debian. Without root, fail and say how it is done."""
    missing = sorted({package for tool, wanted in tools.items() if not shutil.which(tool) for package in wanted})
    if not missing:
        return
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        raise FetchError(f"programs are missing, as root run: {' '.join(install)}")
    for command in (["apt-get", "update"], install):
        say(" ".join(command))
        status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if status:
        raise FetchError(f"this failed: {' '.join(install)}")
