"""Kernels without symbols in QEMU: patched as boot loaders take them, they boot, and ftrace is alive."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from test_boot import CALLS, EARLY, SYSCALL, Debian

from ftpatch.cli import run
from tools.kernels import Kernel

pytestmark = pytest.mark.boot
STRIP = {"ppc64le": "powerpc64le-linux-gnu-strip", "x86_64": "x86_64-linux-gnu-strip"}


def flat(one: Debian) -> Path:
    return one.image(one.kernel.vmlinux)


def in_gzip(one: Debian) -> Path:
    packed = one.folder / "Image.gz"
    packed.write_bytes(gzip.compress(flat(one).read_bytes(), 6, mtime=0))
    return packed


def stripped(one: Debian) -> Path:
    path = one.folder / "vmlinux.stripped"
    subprocess.run([STRIP[one.kernel.arch], one.kernel.vmlinux, "-o", path], check=True)
    return path


# kernel, how it is made of its vmlinux, and how often the tracer of another function saw the site: where a kernel's
# ftrace_caller has no ops for each site, as often as it is called
CASES = {
    "flat": ("arm64-6.12", flat, 0),
    "gzip": ("arm64-6.12", in_gzip, 0),
    "ppc64le": ("ppc64le-6.12", stripped, CALLS),
    "x86_64": ("x86_64-6.12", stripped, CALLS),
}


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_without_symbols_boots_with_two_sites_enabled(
    kernel: Callable[[str], Kernel], tmp_path: Path, case: str
) -> None:
    name, make, leaked = CASES[case]
    one = Debian(kernel(name), tmp_path)
    image, patched = make(one), tmp_path / "patched"
    assert run(["enable", str(image), "-o", str(patched), "--func", EARLY, "--func", one.syscall]) == 0
    assert run(["verify", str(image), str(patched), "--require-emulation"]) == 0
    verdict = one.boot(patched, names=[SYSCALL[one.kernel.arch]])
    assert (verdict.problems, verdict.hits) == ((), {one.syscall: CALLS})
    stock = one.scan["summary"]["boot"]
    assert verdict.functions is not None
    assert (verdict.allocating, len(verdict.functions)) == (stock["allocating"] - 2, stock["listed"] - 2)
    assert not {EARLY, one.syscall} & set(verdict.functions)
    assert verdict.leaked == leaked
