"""What a boot will say, told from the file: beside small kernels of our own, and beside real boots."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from corrupt_cases import same_slot_twice
from elfedit import Elf
from elfwriter import MINI

from ftpatch import api
from ftpatch.cli import run
from ftpatch.kernel.boot import Oracle, oracle, pages_of, record_size
from tools.boot import boot
from tools.boot.verdict import Verdict
from tools.kernels import Kernel

SYSCALL = {"arm64": "__arm64_sys_getppid", "ppc64le": "sys_getppid"}
MINI_PPC = MINI.parent / "mini-ppc64le"


def foretold(path: Path) -> Oracle:
    one = api.scan(str(path))
    found = oracle(one)
    assert found is not None
    return found


def test_a_stock_kernel_lists_every_record_and_later_all_but_those_of_init_text() -> None:
    found = foretold(MINI / "vmlinux-callops")
    one = api.scan(str(MINI / "vmlinux-callops"))
    assert found.bugs == ()
    assert found.allocating == int(one.records.live.sum()) == len(found.listed_before)
    assert set(found.listed_before) - set(found.listed_after) == {"a_setup", "b_late", "b_setup", "start_kernel"}
    assert found.listed_after[:3] == ("init_once", "arch_hook_early", "arch_hook_power")
    assert "__arm64_sys_getppid" not in found.listed_after  # of three names at one address kallsyms takes this one:
    assert "sys_getppid" in found.listed_after


def test_pages_are_unknown_where_the_file_does_not_tell_the_size_of_a_record() -> None:
    one = api.scan(str(MINI / "vmlinux-callops"))
    assert record_size(one.image) is None
    assert pages_of(one.image, 100) is None
    assert foretold(MINI / "vmlinux-callops").pages is None


def test_a_module_or_a_kernel_without_tracer_has_no_oracle() -> None:
    for name in ("mini.ko", "vmlinux-notrace"):
        one = api.scan(str(MINI / name))
        assert oracle(one) is None


def kept(tmp_path: Path, name: Path, *names: str) -> Path:
    """A patched kernel that still lists its patched sites."""
    out = tmp_path / "kept"
    funcs = [text for one in names for text in ("--func", one)]
    assert run(["enable", str(name), *funcs, "--records", "keep", "-o", str(out)]) == 0
    return out


def name_of(path: Path) -> str:
    """A function of text that can be enabled."""
    one = api.scan(str(path))
    sites = [i for i in range(len(one.sites)) if one.sites.name(i) and one.image.names[one.sites.sec[i]] == ".text"]
    return str(one.sites.name(sites[len(sites) // 2]))


@pytest.mark.parametrize(
    ("path", "expected", "found"),
    [
        (MINI / "vmlinux-callops", 0xD503201F, 0xAA1E03E9),
        (MINI / "vmlinux-pfe2", 0xD503201F, 0xAA1E03E9),
        (MINI_PPC / "vmlinux-pfe2", 0x60000000, 0x7C0802A6),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else hex(value),
)
def test_a_kept_record_raises_a_bug_that_names_site_and_words(
    tmp_path: Path, path: Path, expected: int, found: int
) -> None:
    name = name_of(path)
    said = foretold(kept(tmp_path, path, name))
    assert said.listed_before == said.listed_after == ()
    (bug,) = said.bugs
    assert (bug.function, bug.expected, bug.found, bug.ip - bug.va) == (name, expected, found, 4)
    assert str(bug).startswith(f"{name}+{bug.offset:#x} (row {bug.row}, .text+")
    assert f"expected {expected:08x}, found {found:08x}" in str(bug)


def test_a_call_that_is_no_longer_mcount_raises_a_bug_with_both_branches(tmp_path: Path) -> None:
    path = MINI_PPC / "vmlinux-mprofile"
    (bug,) = foretold(kept(tmp_path, path, name_of(path))).bugs
    assert bug.expected & 0xFC000003 == bug.found & 0xFC000003 == 0x48000001
    assert bug.expected != bug.found == bug.actual
    assert bug.ip == bug.va


def test_two_records_of_one_site_raise_a_bug_although_the_site_is_untouched(tmp_path: Path) -> None:
    source = MINI / "vmlinux-exec"
    one = api.scan(str(source))
    slots = one.records.slot[np.flatnonzero(one.records.live)][-2:].tolist()
    data = bytearray(source.read_bytes())
    data[slots[1] : slots[1] + 8] = data[slots[0] : slots[0] + 8]
    (tmp_path / "twice").write_bytes(data)
    (bug,) = foretold(tmp_path / "twice").bugs
    assert (bug.expected, bug.found) == (0xD503201F, 0xAA1E03E9)


def test_what_allows_no_prediction_is_checked_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` finds that a slot has two relocations, where every other verb refuses the file; with --predict that
    refusal was all that was said, exit code 3, and the findings were lost."""
    path, elf = tmp_path / "vmlinux", Elf("vmlinux-pfe2")
    same_slot_twice(0)(elf)
    path.write_bytes(elf.raw)
    assert run(["check", str(path), "--predict"]) == 1
    out, err = capsys.readouterr()
    assert "error slot-relocation: 1 finding" in out
    assert err == f"ftpatch: {path}: no prediction of the boot: a slot has two relocations\n"


def test_check_predicts_on_demand_in_text_and_json(
    ftpatch: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stock = MINI / "vmlinux-callops"
    assert "oracle" not in json.loads(ftpatch("check", stock, "--format", "json"))["images"][0]
    out = ftpatch("check", stock, "--predict")
    assert out.endswith(
        "  at boot    ftrace: allocating 16 entries in an unknown number of pages\n"
        "  listed     16 functions, 12 once init memory is freed (--format json has their names)\n"
    )
    path = kept(tmp_path, stock, "vfs_read", "vfs_write")
    capsys.readouterr()
    assert run(["check", str(path), "--predict", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, json.loads((Path(api.__file__).parents[1] / "report" / "schema.json").read_text()))
    said = found["images"][0]["oracle"]
    assert [one["function"] for one in said["bugs"]] == ["vfs_read", "vfs_write"]
    assert run(["check", str(path), "--predict"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("  not reached vfs_write+0x4 (row 14, .text+0x4a0): at 0x")
    assert lines[-2].startswith("  bug        vfs_read+0x4 (row 12, .text+0x3b8): at 0x")


# -- real kernels --------------------------------------------------------------------------------------------------


def booted(one: Kernel, vmlinux: Path, folder: Path) -> Verdict:
    out = folder / "Image"
    assert run(["image", str(vmlinux), "-o", str(out)]) == 0
    return boot(out, arch=one.arch)


@pytest.mark.boot
@pytest.mark.parametrize("name", ["arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid"])
def test_a_stock_boot_says_and_lists_what_was_foretold_line_by_line(
    kernel: Callable[[str], Kernel], tmp_path: Path, name: str
) -> None:
    one = kernel(name)
    said, verdict = foretold(one.vmlinux), booted(one, one.vmlinux, tmp_path)
    assert said.bugs == ()
    assert verdict.problems == ()
    assert said.allocating == verdict.allocating
    assert said.pages == (None if name == "ppc64le-6.1" else verdict.pages)  # that kernel has no type information
    assert verdict.functions is not None
    assert list(said.listed_after) == list(verdict.functions)


@pytest.mark.boot
@pytest.mark.parametrize("name", ["arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12"])
def test_a_kept_record_raises_the_bug_that_was_foretold(
    kernel: Callable[[str], Kernel], tmp_path: Path, name: str
) -> None:
    one = kernel(name)
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        vmlinux = kept(Path(folder), one.vmlinux, SYSCALL[one.arch])
        (bug,) = foretold(vmlinux).bugs
        verdict = booted(one, vmlinux, Path(folder))
    assert verdict.functions is None
    shown = re.search(r"\[<[0-9a-f]+>\] (\S+)\+(0x[0-9a-f]+)/\S+", verdict.console)
    actual = re.search(r" actual: +([0-9a-f:]+)", verdict.console)
    assert shown is not None and actual is not None
    assert (shown[1], int(shown[2], 16)) == (bug.function, bug.offset)
    assert bytes.fromhex(actual[1].replace(":", "")) == bug.actual.to_bytes(4, "little")
    said = {
        "ppc64le-6.1": f"replaced ({bug.found:08x}) != old ({bug.expected:08x})",
        "ppc64le-6.12": f"{bug.va:#x}: expected ({bug.expected:08x}) != found ({bug.found:08x})",
    }
    assert said.get(name, "ftrace failed to modify") in verdict.console
