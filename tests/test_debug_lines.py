"""Source lines: every kind of debug information that compilers make, damaged ones, and addr2line on a real kernel."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftpatch import api
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf.debug_lines import source_lines
from ftpatch.elf.debug_paths import relative
from ftpatch.elf.image import Image
from ftpatch.recovered.image import open_image
from tools import kernels

DWARF = Path(__file__).parent.parent / "testdata" / "dwarf"
FILES = ("one.c", "sub/two.c", "include/three.h")
WHOLE = ("gcc3", "gcc4", "gcc5", "gcc5-zlib", "gcc5-zstd", "gcc4-noaranges", "gcc5-noaranges", "clang4", "clang5")
OBJECTS = ("gcc4.o", "gcc5.o", "clang5.o", "ppc64le.o", "beside.o")
NAME = re.compile(r"\bint (\w+)\(int x\)$")


def defined() -> dict[str, str]:
    """Function → where its body opens, by the sources: compilers give that line to the entry."""
    found = {}
    for file in FILES:
        for number, line in enumerate((DWARF / file).read_text().splitlines(), 1):
            if match := NAME.search(line):
                found[match[1]] = f"{file}:{number + 1}"
    return found


def entries(image: Image) -> dict[str, int]:
    names = [image.symbols.name(int(row)) for row in image.functions.row]
    return dict(zip(names, image.functions.va.tolist(), strict=True))


def found_in(image: Image) -> dict[str, str | None]:
    functions = entries(image)
    return dict(zip(functions, source_lines(image, functions.values()), strict=True))


@pytest.mark.parametrize("name", WHOLE)
def test_every_function_of_a_linked_file_has_its_line(name: str) -> None:
    assert found_in(open_image(str(DWARF / name))) == defined()


@pytest.mark.parametrize("name", OBJECTS)
def test_a_relocatable_file_is_relocated_first(name: str) -> None:
    found = found_in(open_image(str(DWARF / name)))
    assert found == {name: place for name, place in defined().items() if not place.startswith("sub/")}


def test_nops_without_a_row_belong_to_the_function_behind_them() -> None:
    """gcc 12 begins the rows of a function behind its patchable NOPs: addr2line names the function before, as 6.1's."""
    image = open_image(str(DWARF / "gcc5"))
    va = entries(image)["again"]
    assert source_lines(image, [va]) == ["sub/two.c:12"]
    done = subprocess.run(["addr2line", "-e", DWARF / "gcc5", hex(va)], capture_output=True, text=True, check=False)
    assert not done.stdout.strip().endswith("two.c:12")


@pytest.mark.parametrize("name", ["gcc5", "clang5"])
def test_a_site_behind_the_entry_belongs_to_the_entry(name: str) -> None:
    image = open_image(str(DWARF / name))
    va = entries(image)["again"]
    assert source_lines(image, [va, va + 4, va + 8]) == ["sub/two.c:12"] * 3


def test_what_has_no_debug_information_has_no_line(mini: Path) -> None:
    image = open_image(str(mini / "vmlinux-pfe2"))
    assert source_lines(image, image.functions.va[:3].tolist()) == [None, None, None]


def test_answers_come_in_the_order_of_the_questions() -> None:
    image = open_image(str(DWARF / "clang5"))
    at = entries(image)
    asked = [at["two"], 0, at["one"], at["two"], (1 << 64) - 1]
    assert source_lines(image, asked) == ["sub/two.c:7", None, "one.c:7", "sub/two.c:7", None]
    assert source_lines(image, []) == []


@pytest.mark.parametrize(
    ("directories", "directory", "name", "path"),
    [
        (["/src/linux", "fs"], 1, "namei.c", "fs/namei.c"),
        (["/src/linux"], 0, "fs/namei.c", "fs/namei.c"),
        (["/src/linux/build", "../fs"], 1, "namei.c", "fs/namei.c"),
        (["/src/linux/build", "/src/linux/fs"], 1, "namei.c", "fs/namei.c"),
        (["/tmp/build", "/src/linux/fs"], 1, "namei.c", "/src/linux/fs/namei.c"),
        (["/src/linux", "arch/arm64/kvm/../../../virt/kvm"], 1, "kvm_main.c", "virt/kvm/kvm_main.c"),
        (["debian/build", "/usr/src/fs"], 1, "namei.c", "/usr/src/fs/namei.c"),
        (["/src/linux"], 7, "namei.c", "namei.c"),
        ([], 0, "", ""),
    ],
)
def test_a_path_is_that_below_the_top_of_the_tree(directories: list[str], directory: int, name: str, path: str) -> None:
    assert relative(name, directory, directories) == path


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_debug_information_gives_no_line_and_no_exception(data: st.DataObject) -> None:
    name = data.draw(
        st.sampled_from(["gcc4-noaranges", "gcc5", "gcc5-zlib", "gcc5-zstd", "clang5", "clang5.o", "gcc4.o"])
    )
    image = open_image(str(DWARF / name))
    vas = image.functions.va.tolist()
    octets = np.array(image.data[:])
    debug = [sec for sec, title in enumerate(image.names) if title.startswith((".debug", ".rela.debug"))]
    for _ in range(data.draw(st.integers(1, 8))):
        sec = data.draw(st.sampled_from(debug))
        size = int(image.shdr["sh_size"][sec])
        pos = int(image.shdr["sh_offset"][sec]) + data.draw(st.integers(0, size - 1))
        octets[pos] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    broken = Image(
        image.path,
        FileBytes.of(octets),
        FileBytes.of(octets),
        image.mode,
        image.wrapping,
        b"",
        image.ehdr,
        image.shdr,
        image.phdr,
        image.names,
    )
    found = source_lines(broken, vas)
    assert len(found) == len(vas)
    assert all(line is None or re.fullmatch(r".+:[1-9]\d*", line, re.DOTALL) for line in found)


@pytest.mark.corpus
def test_a_real_kernels_functions_have_the_lines_of_addr2line(kernel: Callable[[str], kernels.Kernel]) -> None:
    """6.12 is built by gcc 14, whose rows cover the NOPs. binutils before 2.41 names the unit's file for functions that
    a header defines, so there the line alone is compared."""
    path = kernel("arm64-6.12").vmlinux
    scan = api.scan(str(path))
    named = scan.sites.entry_va[scan.sites.func < scan.sites.func_end]
    vas = random.Random(7).sample(named.tolist(), 50)
    found = source_lines(scan.image, vas)
    done = subprocess.run(
        ["addr2line", "-e", path, *(hex(va) for va in vas)], capture_output=True, text=True, check=True
    )
    for line, theirs in zip(found, done.stdout.splitlines(), strict=True):
        assert line is not None
        file, _, number = line.rpartition(":")
        assert theirs.split(" (")[0].endswith(f":{number}")
        assert file.endswith(".h") or theirs.split(" (")[0].replace("/./", "/").endswith(line.split("/")[-1])


@pytest.mark.corpus
def test_a_kernel_of_an_older_compiler_has_the_function_itself(kernel: Callable[[str], kernels.Kernel]) -> None:
    """6.1 is built by gcc 12: behind the two NOPs addr2line knows the function."""
    path = kernel("arm64-6.1").vmlinux
    scan = api.scan(str(path))
    named = scan.sites.entry_va[scan.sites.func < scan.sites.func_end]
    vas = random.Random(7).sample(named.tolist(), 50)
    found = source_lines(scan.image, vas)
    assert None not in found
    done = subprocess.run(
        ["addr2line", "-e", path, *(hex(va + 8) for va in vas)], capture_output=True, text=True, check=True
    )
    same = 0
    for line, theirs in zip(found, done.stdout.splitlines(), strict=True):
        ours, near = str(line).rpartition(":"), theirs.split(" (")[0].rpartition(":")
        same += ours[0].split("/")[-1] == near[0].split("/")[-1] and abs(int(ours[2]) - int(near[2])) <= 6
    assert same >= 45  # the rest begin with inlined code
