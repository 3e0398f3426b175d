"""A record may name any byte: what looks like a call inside another instruction is none, whatever layout is forced."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ftpatch.proof.prove import Checks, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file

KERNEL = Path(__file__).resolve().parents[1] / "testdata/x86_64/vmlinux-fentry"
TEXT = 0xFFFF_FFFF_8100_0000
ENDBR64, NOP = bytes.fromhex("f30f1efa"), b"\x90"


def call(site: int, target: int) -> bytes:
    return b"\xe8" + struct.pack("<i", target - site - 5)


def found(folder: Path, front: bytes) -> list[str]:
    """What is said of a call in ftrace_regs_caller that became another one, behind some code of that function."""
    image = open_image(str(KERNEL))
    regs, own, fentry = (image.symbols.value(name) for name in ("ftrace_regs_caller", "ftrace_caller", "__fentry__"))
    start = image.symbols.value("__start_mcount_loc")
    assert regs and own and fentry and start
    site, slot = regs + len(front), image.pos_of_va(start) + 16  # the first that is no null
    before, after = bytearray(KERNEL.read_bytes()), bytearray(KERNEL.read_bytes())
    for content, record, target in ((before, site, fentry), (after, 0, own)):
        code = front + call(site, target) + bytes(3)
        at = image.pos_of_va(regs)
        content[at : at + len(code)] = code
        content[slot : slot + 8] = struct.pack("<Q", record)
    paths = folder / "before", folder / "after"
    for path, content in zip(paths, (before, after), strict=True):
        path.write_bytes(content)
    proof = prove(scan_file(str(paths[0]), "fentry"), open_image(str(paths[1])),
                  checks=Checks(execute=False, layout="fentry"))  # fmt: skip
    return [f"{finding.rule}: {finding.message}" for finding in proof.findings]


MOV = bytes.fromhex("48b8")  # movabs $…, %rax


@pytest.mark.parametrize("front", [b"", ENDBR64, ENDBR64 + NOP * 60, ENDBR64 + b"\x55\x48\x89\xe5", MOV + bytes(8)])
def test_a_call_behind_whole_instructions_may_change(tmp_path: Path, front: bytes) -> None:
    assert found(tmp_path, front) == []


@pytest.mark.parametrize(("front", "bytes_in"), [(MOV, 2), (ENDBR64 + MOV, 2), (b"\xb8", 1), (MOV + bytes(3), 5),
                                                 (ENDBR64[:2], 2)])  # fmt: skip
def test_a_call_inside_an_instruction_may_not(tmp_path: Path, front: bytes, bytes_in: int) -> None:
    image = open_image(str(KERNEL))
    site = (image.symbols.value("ftrace_regs_caller") or 0) + len(front) - TEXT
    expected = (f"verify-site: .text+{site:#x}: it begins {bytes_in} bytes into an instruction, which begins at "
                f"{site - bytes_in:#x}; expected the beginning of one")  # fmt: skip
    assert found(tmp_path, front) == [expected]
