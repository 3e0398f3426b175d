"""Kernels whose calls of _mcount stand behind the prologue (-pg): enabled, executed, switched off, refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ftpatch import api
from ftpatch.arch import arch_of
from ftpatch.cli import run
from ftpatch.sites.table import ENABLED, UNRECORDED

DATA = Path(__file__).parent.parent / "testdata"
ARM64, PPC = DATA / "mini/vmlinux-pg", DATA / "mini-ppc64le/vmlinux-pg"
EARLY = ("fixup_boot_paca", "early_setup", "paca_checksum", "setup_paca", "initialise_paca")
Run = Callable[..., str]


def chosen(kernel: Path) -> list[str]:
    """Selectors of all that may be enabled."""
    return ["--func", "*", *(word for name in EARLY if kernel is PPC for word in ("--func", f"!{name}"))]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    code = run([str(argument) for argument in arguments])
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(("kernel", "n", "live"), [(ARM64, 16, 3), (PPC, 23, 9)])
def test_every_site_is_enabled_executed_found_again_and_switched_off(
    kernel: Path, n: int, live: int, tmp_path: Path, ftpatch: Run
) -> None:
    on, off, back = (tmp_path / name for name in ("on", "off", "back"))
    journal = tmp_path / "journal"
    ftpatch("enable", kernel, *chosen(kernel), "-o", on, "--report", f"json={journal}")
    proof = api.verify(str(kernel), str(on), str(journal), require_emulation=True)
    assert (proof.findings, proof.outcome.n, proof.live[1], dict(proof.callees)) == ((), n, live, {"ftrace_caller": n})
    before, after = api.scan(str(kernel)), api.scan(str(on))
    (enabled,) = np.nonzero(after.sites.status == ENABLED)
    names = {before.sites.name(at) for at in range(len(before.sites))} - {None, *(EARLY if kernel is PPC else ())}
    assert {after.sites.name(at) for at in enabled.tolist()} == names
    distance = after.arch.call.decode(after.sites.body()[enabled, 0])
    to = set((after.sites.branch_va[enabled].view(np.int64) + distance).view(np.uint64).tolist())
    assert to == {after.image.symbols.value("ftrace_caller")}
    ftpatch("disable", on, *chosen(kernel), "-o", off)
    assert api.verify(str(on), str(off)).findings == () == api.verify(str(kernel), str(off)).findings
    data = off.read_bytes()
    left = {data[pos : pos + 4] for pos in after.sites.pos[enabled].tolist()}
    assert left == {after.arch.nop.to_bytes(4, "little")}
    ftpatch("restore", on, "--journal", journal, "-o", back)
    assert back.read_bytes() == kernel.read_bytes()


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (("enable", "--func", "vfs_read", "--target", "_mcount"),
         "--target _mcount: the sites call this target already: found _mcount, expected ftrace_caller or "
         "ftrace_regs_caller"),
        (("enable", "--func", "vfs_read", "--target", "do_sys_open"),
         "do_sys_open: no such symbol: found nothing of that name in .symtab, expected a defined symbol"),
        (("enable", "--func", "sys_getppid", "--target", "vfs_read"),
         "--target vfs_read: the target is itself a traceable function: found record in row 13, expected code without "
         "a patch site – ftrace would rewrite it, and a traced target would call itself"),
        (("redirect", "--func", "vfs_read", "--to", "sys_getppid"),
         f"{ARM64}: functions of layout mcount cannot be redirected: found calls of _mcount behind the prologue, where "
         "a function has begun, expected sites at the entries of functions"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_words(
    verb: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = refused(capsys, verb[0], ARM64, *verb[1:], "-o", tmp_path / "out")
    assert code in (4, 5) and error == f"ftpatch: {said}"
    assert not list(tmp_path.iterdir())


LIBRARY = {
    183: [
        ("returns", (0xD65F_03C0,), ""),  # ret
        ("clobbers-x0", (0xD280_0020, 0xD65F_03C0), ""),  # mov x0, #1
        ("clobbers-x19", (0xD280_0033, 0xD65F_03C0), "it changes x19"),  # mov x19, #1
        ("moves-sp", (0xD100_43FF, 0xD65F_03C0), "it changes sp"),  # sub sp, sp, #16
        ("saves-x19", (0xA9BE_7BFD, 0xF900_0BF3, 0xD280_0033, 0x9400_0000, 0xF940_0BF3, 0xA8C2_7BFD, 0xD65F_03C0), ""),
        ("returns-to-x9", (0xD65F_0120,), "it does not return to where x30 pointed"),  # ret x9
        ("entry", (0xAA1E_03EA, 0xAA09_03FE, 0xD65F_0140), ""),  # mov x10, x30; mov x30, x9; ret x10
    ],
    21: [
        ("returns", (0x4E80_0020,), ""),  # blr
        ("clobbers-r3", (0x3860_0001, 0x4E80_0020), ""),  # li r3,1
        ("clobbers-r31", (0x3BE0_0001, 0x4E80_0020), "it changes r31"),  # li r31,1
        ("clobbers-r2", (0x3840_0001, 0x4E80_0020), "it changes r2"),  # li r2,1
        ("returns-to-r0", (0x7C08_03A6, 0x4E80_0020), "it does not return to where LR pointed"),  # mtlr r0; blr
        ("as-mprofile", (0x7D88_02A6, 0x7D89_03A6, 0x7C08_03A6, 0x4E80_0420), ""),  # mflr r12; mtctr r12; mtlr r0; bctr
    ],
}


@pytest.mark.parametrize(
    ("machine", "words", "reason"),
    [
        pytest.param(machine, words, reason, id=f"{machine}-{name}")
        for machine, cases in LIBRARY.items()
        for name, words, reason in cases
    ],
)
def test_what_an_ordinary_call_may_call(machine: int, words: tuple[int, ...], reason: str) -> None:
    code = np.array(words, dtype=np.uint32)

    def read(va: int, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
        return code[va // 4 - 256 : va // 4 - 256 + n] if va >= 1024 else code[:0]

    assert arch_of(machine, "f").keeps_contract(read, 1024, False, library=True) == reason


@pytest.mark.parametrize("kernel", [ARM64, PPC, DATA / "mini-ppc64le/vmlinux-mprofile"], ids=lambda path: path.name)
def test_a_call_that_no_record_names_is_taken_when_asked_for(
    kernel: Path, tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    lone, on, off = (tmp_path / name for name in ("lone", "on", "off"))
    ftpatch("drop", kernel, "--func", "vfs_read", "-o", lone)
    for verb in ("enable", "disable"):
        code, said = refused(capsys, verb, lone, "--func", "vfs_read", "-o", on)
        assert code == 5 and "so that the kernel does not know the site (--unrecorded takes it)" in said
    ftpatch("enable", lone, "--unrecorded", "-o", on)
    proof = api.verify(str(lone), str(on), require_emulation=True)
    assert (proof.findings, proof.outcome.n, dict(proof.callees)) == ((), 1, {"ftrace_caller": 1})
    ftpatch("disable", lone, "--unrecorded", "-o", off)
    assert api.verify(str(lone), str(off)).findings == ()
    (at,) = np.flatnonzero(api.scan(str(lone)).sites.status == UNRECORDED).tolist()
    scan = api.scan(str(lone))
    pos = int(scan.sites.pos[at])
    assert off.read_bytes()[pos : pos + 4] == scan.arch.nop.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("target", "records", "told"), [("asm_nops", "auto", True), ("asm_nops", "keep", False), (None, "auto", False)]
)
def test_sites_that_no_scan_finds_again_are_told(
    target: str | None, records: str, told: bool, tmp_path: Path, ftpatch: Run
) -> None:
    own = ("--target", target, "--force-target") if target else ()
    out = tmp_path / "out"
    said = ftpatch("enable", ARM64, "--func", "vfs_read", *own, "--records", records, "-o", out)
    note = "1 of the sites can no longer be found by scan and disable"
    assert (note in said) == told
    sites = api.scan(str(out)).sites
    there = {sites.name(at) for at in range(len(sites))}
    assert ("vfs_read" not in there) == told
