"""Debian's kernels without symbols: what a patch makes of one is what it makes of its vmlinux, byte for byte."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ftpatch.arrays import U8
from ftpatch.cli import run
from ftpatch.elf import tables as t
from ftpatch.recovered.image import open_image
from tools.kernels import Kernel

pytestmark = pytest.mark.corpus
STRIP = {"ppc64le": "powerpc64le-linux-gnu-strip", "x86_64": "x86_64-linux-gnu-strip"}
ALL_BUT_ONE = ("--func", "*", "--func", "!vfs_open", "--status", "ready", "--skip-unpatchable")
REQUESTS = (
    ("arm64-6.1", "enable", ALL_BUT_ONE),
    ("arm64-6.1", "drop", ("--func", "vfs_*", "--records", "shrink")),
    ("arm64-6.12", "enable", ("--func", "vfs_read", "--func", "_printk")),
    ("arm64-6.12", "enable", ALL_BUT_ONE),
    ("arm64-6.12", "enable", ("--func", "tcp_*", "--records", "shrink", "--ops-via", "thunk")),
    ("arm64-6.12", "redirect", ("--func", "vfs_read", "--to", "vfs_write")),
    ("ppc64le-6.1", "enable", ALL_BUT_ONE),
    ("ppc64le-6.12", "enable", ALL_BUT_ONE),
    ("ppc64le-sid", "enable", ALL_BUT_ONE),
    ("x86_64-6.12", "enable", ALL_BUT_ONE),
)


def loaded(path: Path) -> dict[int, U8]:
    """What a boot loader takes from an ELF file, by address."""
    image = open_image(str(path))
    rows = [row for row in image.phdr if row["p_type"] == t.PT_LOAD]
    return {
        int(row["p_vaddr"]): image.data[int(row["p_offset"]) : int(row["p_offset"] + row["p_filesz"])] for row in rows
    }


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kernel], Path]:
    """A kernel as it boots: flat where its machine boots it so, else stripped."""
    folder, known = tmp_path_factory.mktemp("bare"), dict[str, Path]()

    def get(kernel: Kernel) -> Path:
        if kernel.name not in known:
            known[kernel.name] = path = folder / kernel.name
            if kernel.arch in STRIP:
                subprocess.run([STRIP[kernel.arch], kernel.vmlinux, "-o", path], check=True)
            else:
                assert run(["image", str(kernel.vmlinux), "-o", str(path)]) == 0
        return known[kernel.name]

    return get


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that goes with its test: patched kernels have 350 MB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(("name", "verb", "options"), REQUESTS)
def test_a_patch_of_a_bare_kernel_is_that_of_its_vmlinux(
    kernel: Callable[[str], Kernel], bare: Callable[[Kernel], Path], folder: Path,
    name: str, verb: str, options: tuple[str, ...],
) -> None:  # fmt: skip
    one, with_symbols, without, boot = kernel(name), folder / "vmlinux", folder / "bare", folder / "boot"
    assert run([verb, str(one.vmlinux), "-o", str(with_symbols), *options]) == 0
    assert run([verb, str(bare(one)), "-o", str(without), *options]) == 0
    if one.arch not in STRIP:
        assert run(["image", str(with_symbols), "-o", str(boot)]) == 0
        assert without.read_bytes() == boot.read_bytes()
        return
    expected, found = loaded(with_symbols), loaded(without)
    assert expected.keys() == found.keys()
    assert [hex(va) for va in expected if not np.array_equal(expected[va], found[va])] == []
