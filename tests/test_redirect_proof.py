"""What `verify` says of redirected functions: sound ones are found sound, and every damage is found, in its words."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftpatch.cli import run
from ftpatch.elf.image import Image, open_image
from tools.sabotage.__main__ import quietly

ROOT = Path(__file__).parent.parent / "testdata"
ARM64, PPC64LE = ROOT / "mini", ROOT / "mini-ppc64le"
KERNELS = [
    *(ARM64 / f"vmlinux-{name}" for name in ("callops", "callops-bti", "exec", "kcfi", "pfe2", "pfe2-bti")),
    *(PPC64LE / f"vmlinux-{name}" for name in ("mprofile", "pfe2", "ool", "ool-noops", "clang", "unreachable")),
]
FORCED = ("--force-signature", "--assume-register-args")
MODULES = [
    (ARM64 / "mini.ko", ("mini_work=mini_util",)),
    (ARM64 / "mini.ko", ("mini_work=_printk", "mini_step=_printk")),
    (ARM64 / "mini.ko", ("mini_probe_one=mini_util_probe", "mini_util=mini_untraced")),
    (PPC64LE / "mini.ko", ("mini_work=mini_step",)),
    (PPC64LE / "mini.ko", ("mini_util=mini_work",)),
    (PPC64LE / "mini.ko", ("mini_work=_printk", "mini_util=_printk")),
    (PPC64LE / "mini.ko", ("mini_work=mini_util", "mini_probe_one=_printk", "mini_util_probe=_printk")),
]  # fmt: skip
READ_BY_WRITE = ("--map", "vfs_read=vfs_write", "--force-signature")


def redirected(before: Path, folder: Path, *options: str, verb: str = "redirect", out: str = "after") -> Path:
    """A file with redirected functions; its journal lies beside it."""
    after = folder / f"{out}{before.suffix}"
    assert run([verb, str(before), *options, "-o", str(after), "--report", f"json={folder / out}.json"]) == 0
    return after


def verify(before: Path, after: Path, *options: str) -> dict[str, Any]:
    """The IMAGE object of one verify."""
    code, text = quietly(["verify", str(before), str(after), "--format", "json", *options])
    image: dict[str, Any] = json.loads(text)["images"][0]
    assert code == bool(image["findings"])
    return image


def messages(image: dict[str, Any]) -> list[str]:
    return [f"{finding['rule']}: {finding['message']}" for finding in image["findings"]]


def jump(image: Image, va: int, to: int) -> int:
    """The word `b to` at an address."""
    if image.arch.name == "arm64":
        return 0x1400_0000 | (to - va) >> 2 & 0x03FF_FFFF
    return 0x4800_0000 | to - va & 0x03FF_FFFC


def site(image: Image, name: str) -> int:
    """va of the first word that a redirect of a function changes."""
    from ftpatch.sites.scan import scan_file

    sites = scan_file(image.path).sites
    return next(int(sites.body_va[at]) for at in range(len(sites)) if sites.name(at) == name)


def write(image: Image, path: Path, words: dict[int, int]) -> Path:
    """A copy with other words, by address."""
    data = bytearray(Path(image.path).read_bytes())
    for va, word in words.items():
        struct.pack_into("<I", data, image.pos_of_va(va), word & 0xFFFF_FFFF)
    path.write_bytes(data)
    return path


# -- what is sound -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", KERNELS, ids=lambda path: path.name)
def test_what_redirect_makes_of_a_kernel_is_found_sound(before: Path, tmp_path: Path) -> None:
    after = redirected(before, tmp_path, *READ_BY_WRITE)
    image = verify(before, after, "--journal", str(tmp_path / "after.json"))
    assert messages(image) == []
    assert {name: n for name, n in image["proof"]["sites"].items() if n} == {"function redirected": 1}
    assert (image["proof"]["redirects"], image["proof"]["callees"]) == ({"vfs_write": 1}, {})
    back = verify(after, before)
    assert messages(back) == []
    assert {name: n for name, n in back["proof"]["sites"].items() if n} == {"site disabled": 1}


@pytest.mark.parametrize(("before", "pairs"), MODULES, ids=lambda one: ",".join(one) if isinstance(one, tuple) else "")
def test_what_redirect_makes_of_a_module_is_found_sound(before: Path, pairs: tuple[str, ...], tmp_path: Path) -> None:
    after = redirected(before, tmp_path, *(word for pair in pairs for word in ("--map", pair)), *FORCED)
    image = verify(before, after, "--journal", str(tmp_path / "after.json"))
    assert messages(image) == []
    assert {name: n for name, n in image["proof"]["sites"].items() if n} == {"function redirected": len(pairs)}
    replacements = [pair.partition("=")[2] for pair in pairs]
    assert image["proof"]["redirects"] == {name: replacements.count(name) for name in replacements}


def test_the_text_names_what_the_functions_lead_to(tmp_path: Path) -> None:
    before = ARM64 / "vmlinux-exec"
    after = redirected(before, tmp_path, *READ_BY_WRITE, "--map", "rest_init=arch_hook_late")
    _, text = quietly(["verify", str(before), str(after)])
    assert [line for line in text.splitlines() if line.startswith(("  sites", "  redirects"))] == [
        "  sites      2 functions redirected",
        "  redirects  arch_hook_late 1, vfs_write 1",
    ]


# -- where a jump must not lead ----------------------------------------------------------------------------------------

Where = Callable[[Image], int]


def symbol(name: str, more: int = 0) -> Where:
    return lambda image: (image.symbols.value(name) or 0) + more


BAD_TARGETS = [
    (ARM64 / "vmlinux-callops", symbol("vfs_write", 4), "verify-branch", "0x4 bytes into vfs_write"),
    (ARM64 / "vmlinux-callops-bti", symbol("vfs_write", 8), "verify-branch", "0x8 bytes into vfs_write"),
    (PPC64LE / "vmlinux-pfe2", symbol("vfs_write", 12), "verify-branch", "0xc bytes into vfs_write"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "where", "rule", "text"), BAD_TARGETS)
def test_a_jump_to_what_is_no_entry_is_a_finding(
    before: Path, where: Where, rule: str, text: str, tmp_path: Path
) -> None:
    after = open_image(str(redirected(before, tmp_path, *READ_BY_WRITE)))
    va, to = site(open_image(str(before)), "vfs_read"), where(after)
    damaged = write(after, tmp_path / "damaged", {va: jump(after, va, to)})
    assert messages(verify(before, damaged)) == [f"{rule}: vfs_read: its jump goes to {to:#x}, {text}"]


def test_a_journal_of_another_replacement_is_a_finding(tmp_path: Path) -> None:
    before = ARM64 / "vmlinux-callops"
    after = redirected(before, tmp_path, *READ_BY_WRITE)
    journal = tmp_path / "after.json"
    journal.write_text(journal.read_text().replace('"target": "vfs_write"', '"target": "rest_init"'))
    (finding,) = messages(verify(before, after, "--journal", str(journal)))
    assert finding.endswith(" leads to vfs_write, in the journal to rest_init")
