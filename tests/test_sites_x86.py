"""Code of x86_64 kernels that looks like a patch at first and is none, as links of small kernels left it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from elfwriter import ALLOC, EXEC, NOTYPE, OBJECT, WRITE, Elf, written

X86_64, ET_EXEC = 62, 2
TEXT, INIT, AUX, TABLE = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8180_0000, 0xFFFF_FFFF_8180_0040, 0xFFFF_FFFF_8190_0000
ENDBR, RET = bytes.fromhex("f30f1efa"), b"\xc3"
TAIL = bytes.fromhex("4889f0c3")  # mov %rsi, %rax; ret


def jump(opcode: int, site: int, to: int) -> bytes:
    return struct.pack("<Bi", opcode, to - site - 5)


def vmlinux(tmp_path: Path, odd: Callable[[int], bytes], other: bytes, name: str = "other") -> Path:
    """A kernel of a traced function, an untraced one whose code `odd` returns, and the code `other` at TEXT + 0x80."""
    code = bytearray(b"\xcc" * 0x100)
    functions = {
        "__fentry__": (0x00, RET), "ftrace_caller": (0x10, RET), "start_kernel": (0x20, b""), "odd": (0x40, b""),
        name: (0x80, other), "__x86_return_thunk": (0xA0, RET), "last": (0xC0, TAIL),
    }  # fmt: skip
    functions["start_kernel"] = (0x20, ENDBR + jump(0xE8, TEXT + 0x24, TEXT) + TAIL)
    functions["odd"] = (0x40, odd(TEXT + 0x40))
    for at, content in functions.values():
        code[at : at + len(content)] = content
    elf = Elf(ET_EXEC, X86_64)
    text = elf.section(".text", bytes(code), flags=ALLOC | EXEC, addr=TEXT, align=16)
    init = elf.section(".init.text", b"\xcc" * 0x40, flags=ALLOC | EXEC, addr=INIT, align=16)
    elf.section(".altinstr_aux", TAIL, flags=ALLOC | EXEC, addr=AUX)
    data = elf.section(".init.data", struct.pack("<Q", TEXT + 0x24), flags=ALLOC | WRITE, addr=TABLE, align=8)
    for name, (at, content) in functions.items():
        elf.symbol(name, text, TEXT + at, len(content))
    elf.symbol("_einittext", init, AUX, type=NOTYPE)
    elf.symbol("__start_mcount_loc", data, TABLE, type=OBJECT)
    elf.symbol("__stop_mcount_loc", data, TABLE + 8, type=OBJECT)
    return Path(written(tmp_path / "vmlinux", elf.build()))


ODD: dict[str, tuple[Callable[[int], bytes], bytes]] = {
    # arch/x86/mm: static_cpu_has() jumps to .altinstr_aux, which begins where the label _einittext is
    "a-jump-to-the-end-of-init-text": (lambda va: jump(0xE9, va, AUX) + TAIL, RET),
    # kernel/trace, which is not traced itself: ftrace_free_init_mem() calls ftrace_boot_snapshot(), without its option
    "a-call-of-an-empty-function": (lambda va: jump(0xE8, va, TEXT + 0x80) + TAIL, RET),
    "behind-endbr64": (lambda va: ENDBR + jump(0xE8, va + 4, TEXT + 0x80) + TAIL, ENDBR + RET),
    "that-ends-in-the-return-thunk": (
        lambda va: jump(0xE8, va, TEXT + 0x80) + TAIL, ENDBR + jump(0xE9, TEXT + 0x84, TEXT + 0xA0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_code_that_compilers_write_is_no_patch(case: str, tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    """Both were found in kernels of a small configuration, and stopped `enable` of every function."""
    path = vmlinux(tmp_path, *ODD[case])
    scan = json.loads(ftpatch("scan", path, "--format", "json"))["images"][0]
    assert [(site["function"], site["status"]) for site in scan["sites"]] == [("start_kernel", "ready")]
    assert "result     nothing found" in ftpatch("check", path)
    assert "every change is accounted for" in ftpatch("verify", path, path)


@pytest.mark.parametrize("name", ["ftrace_graph_addr_finish", "ftrace_graph_ret_addr", "ftrace_trampoline_free"])
def test_a_call_of_a_function_of_c_with_a_tracers_prefix_is_no_patch(
    name: str, tmp_path: Path, ftpatch: Callable[..., str]
) -> None:
    """trace_graph_thresh_return() of 6.1, with -Os, begins with the call of the first."""
    path = vmlinux(tmp_path, lambda va: ENDBR + jump(0xE8, va + 4, TEXT + 0x80) + TAIL, TAIL, name)
    scan = json.loads(ftpatch("scan", path, "--format", "json"))["images"][0]
    assert [(site["function"], site["status"]) for site in scan["sites"]] == [("start_kernel", "ready")]
    assert "every change is accounted for" in ftpatch("verify", path, path)


@pytest.mark.parametrize("target", ["ftrace_caller", "__fentry__"])
def test_a_call_of_a_tracer_entry_stays_a_patch_without_a_record(
    target: str, tmp_path: Path, ftpatch: Callable[..., str]
) -> None:
    to = {"ftrace_caller": TEXT + 0x10, "__fentry__": TEXT}[target]
    path = vmlinux(tmp_path, lambda va: jump(0xE8, va, to) + TAIL, RET)
    scan = json.loads(ftpatch("scan", path, "--format", "json"))["images"][0]
    status = {"ftrace_caller": "enabled", "__fentry__": "unrecorded"}[target]
    assert [(site["function"], site["status"]) for site in scan["sites"]] == [
        ("start_kernel", "ready"), ("odd", status),
    ]  # fmt: skip
