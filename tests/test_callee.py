"""What may take a function's place, and what must not: by its symbol, its place, its code."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from elfwriter import ALLOC, EXEC, FUNC, NOTYPE, OBJECT, RELA, WRITE, Elf, as_code
from test_prototypes import DWARF, types_of

from ftpatch.arch import Arch
from ftpatch.arch.arm64 import ARCH as ARM64
from ftpatch.arch.ppc64le import ARCH as PPC64LE
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.elf.image import Image
from ftpatch.kernel.callee import why_never_returns, why_no_function, why_no_substitute
from ftpatch.recovered.image import open_image

TEXT, INIT, DATA = 0xFFFF_8000_0801_0000, 0xFFFF_8000_0802_0000, 0xFFFF_8000_0803_0000
AARCH64, X86_64 = 183, 62  # e_machine
NOP, RET, STOP = 0xD503_201F, 0xD65F_03C0, 0x1400_0000  # nop, ret, b .
REL, DYN, ABS, COMMON, SECTION, FILE, TLS, IFUNC = 1, 3, 0xFFF1, 0xFFF2, 3, 4, 6, 10

# -- symbols -----------------------------------------------------------------------------------------------------------


def file_with(path: Path, e_type: int, symbols: list[tuple[str, int, int, int, int]]) -> Image:
    """A file with .text (1), .data (2) and symbols (name, section, offset there, size, type)."""
    elf = Elf(e_type=e_type)
    linked = e_type != REL
    text = elf.section(".text", as_code([NOP, RET] * 16), addr=TEXT * linked, flags=ALLOC | EXEC)
    data = elf.section(".data", bytes(64), addr=DATA * linked, flags=ALLOC | WRITE)
    start = {text: TEXT * linked, data: DATA * linked}
    for name, sec, off, size, kind in symbols:
        elf.symbol(name, sec, (start.get(sec, 0) + off) & (1 << 64) - 1, size, kind)
    path.write_bytes(elf.build())
    return open_image(str(path))


@pytest.mark.parametrize("e_type", [REL, DYN])
@pytest.mark.parametrize(("sec", "off", "size", "kind", "why"), [
    (1, 0, 8, FUNC, ""),
    (1, 8, 8, NOTYPE, ""),
    (0, 0, 0, NOTYPE, "defined elsewhere"),
    (0, 0, 0, FUNC, "defined elsewhere"),
    (ABS, 0, 0, NOTYPE, "an absolute number"),
    (COMMON, 8, 8, OBJECT, "data without a section (COMMON)"),
    (2, 0, 8, OBJECT, "data in .data"),
    (2, 0, 8, FUNC, "data in .data"),
    (1, 0, 8, OBJECT, "data in .text"),
    (1, 0, 0, SECTION, "a section's symbol in .text"),
    (2, 0, 8, TLS, "thread-local data in .data"),
    (1, 0, 8, IFUNC, "an indirect function (IFUNC), which nothing in a kernel resolves, in .text"),
    (ABS, 0, 0, FILE, "the name of a source file"),
    (77, 0, 8, FUNC, "in section 77, which is not there"),
    (1, 36, 0, NOTYPE, "a place inside outer"),
    (1, 36, 8, FUNC, "a place inside outer"),
    (1, 48, 8, FUNC, ""),
    (1, 2, 8, FUNC, "no instruction at .text+0x2"),
    (1, 128, 8, FUNC, "no instruction at .text+0x80"),
    (1, -4, 8, FUNC, "no instruction at .text+0xfffffffffffffffc"),
])  # fmt: skip
def test_a_function_begins_at_its_symbol(
    e_type: int, sec: int, off: int, size: int, kind: int, why: str, tmp_path: Path
) -> None:
    image = file_with(tmp_path / "f", e_type, [("outer", 1, 32, 16, FUNC), ("it", sec, off, size, kind)])
    assert why_no_function(image, 2) == why


@pytest.mark.parametrize("e_type", [REL, DYN])
@pytest.mark.parametrize(("name", "why"), [
    ("it.cold", "the unlikely part of a function, which goes back into it"),
    ("it.cold.3", "the unlikely part of a function, which goes back into it"),
    ("it.coldness", ""), ("it.isra.0", ""), ("$it", ""),
])  # fmt: skip
def test_a_cold_part_is_no_function(e_type: int, name: str, why: str, tmp_path: Path) -> None:
    assert why_no_function(file_with(tmp_path / "f", e_type, [(name, 1, 0, 8, FUNC)]), 1) == why


@pytest.mark.parametrize("e_type", [REL, DYN])
@pytest.mark.parametrize(("machine", "name", "why"), [
    (X86_64, "__pfx_it", "padding in front of a function, where the kernel may write code of its own"),
    (X86_64, "__cfi_it", "padding in front of a function, where the kernel may write code of its own"),
    (X86_64, "pfx_it", ""), (AARCH64, "__pfx_it", ""),
])  # fmt: skip
def test_padding_is_no_function(e_type: int, machine: int, name: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "f"
    file_with(path, e_type, [(name, 1, 0, 8, FUNC)])
    content = path.read_bytes()
    path.write_bytes(content[:18] + struct.pack("<H", machine) + content[20:])
    assert why_no_function(open_image(str(path)), 1) == why


@pytest.mark.parametrize("name", ["$x", "$d", "$x.12"])
def test_a_mapping_symbol_is_no_function(name: str, tmp_path: Path) -> None:
    image = file_with(tmp_path / "f", REL, [(name, 1, 0, 0, NOTYPE)])
    assert why_no_function(image, 1) == "a mark of the compiler where code or data begins"


# -- places ------------------------------------------------------------------------------------------------------------

REGIONS = ("__init_begin", "__init_end", "_sinittext", "_einittext", "__noinstr_text_start", "__noinstr_text_end",
           "__hyp_text_start", "__hyp_text_end")  # fmt: skip


def kernel_with_regions(path: Path) -> FunctionTypes:
    """A kernel: 16 bytes of plain text, noinstr, hypervisor; of init text, then of exit text."""
    elf = Elf()
    text = elf.section(".text", as_code([NOP, RET] * 6), addr=TEXT, flags=ALLOC | EXEC)
    init = elf.section(".init.text", as_code([NOP, RET] * 4), addr=INIT, flags=ALLOC | EXEC)
    for name, sec, va in (("plain", text, TEXT), ("plain2", text, TEXT + 8), ("quiet", text, TEXT + 16),
                          ("quiet2", text, TEXT + 24), ("hyp", text, TEXT + 32), ("setup", init, INIT),
                          ("setup2", init, INIT + 8), ("leave", init, INIT + 16)):  # fmt: skip
        elf.symbol(name, sec, va, 8)
    values = (INIT, INIT + 32, INIT, INIT + 16, TEXT + 16, TEXT + 32, TEXT + 32, TEXT + 48)
    for name, value in zip(REGIONS, values, strict=True):
        elf.symbol(name, init if value >= INIT else text, value, type=NOTYPE)
    path.write_bytes(elf.build())
    return FunctionTypes(open_image(str(path)))


@pytest.mark.parametrize(("bar", "foo", "why"), [
    ("plain", "plain2", ""), ("plain", "setup", ""), ("plain", "quiet", ""),
    ("setup", "setup2", ""), ("leave", "setup", ""),
    ("setup", "plain", "setup is init text, which is freed after boot"),
    ("leave", "plain", "leave is init text, which is freed after boot"),  # exit text lies behind init text
    ("quiet", "quiet2", ""),
    ("quiet", "plain", "quiet is noinstr, and the function is not"),
    ("hyp", "plain", "hyp is code of the hypervisor, and the function is not"),
    ("hyp", "quiet", "hyp is code of the hypervisor, and the function is not"),
])  # fmt: skip
def test_a_replacement_lies_where_it_may_run(bar: str, foo: str, why: str, tmp_path: Path) -> None:
    image = kernel_with_regions(tmp_path / "vmlinux").image
    rows = [image.symbols.defined(name) or 0 for name in (bar, foo)]
    assert why_no_substitute(image, rows[0], image, rows[1]) == why


def module_with_sections(path: Path) -> Image:
    elf = Elf(e_type=REL)
    for name in (".text", ".init.text", ".noinstr.text", ".init.text.unlikely", ".hyp.text", ".exit.text",
                 ".head.text"):  # fmt: skip
        sec = elf.section(name, as_code([NOP, RET]), flags=ALLOC | EXEC)
        elf.symbol(name[1:], sec, 0, 8)
    path.write_bytes(elf.build())
    return open_image(str(path))


@pytest.mark.parametrize(("bar", "foo", "why"), [
    ("init.text", "init.text.unlikely", ""), ("text", "init.text", ""), ("exit.text", "text", ""),
    ("init.text", "text", "init.text is init text, which is freed once the module runs"),
    ("noinstr.text", "text", "noinstr.text is noinstr, and the function is not"),
    ("head.text", "text", "head.text is code of the boot and of exception entries, and the function is not"),
    ("hyp.text", "text", "hyp.text is code of the hypervisor, and the function is not"),
])  # fmt: skip
def test_a_replacement_in_a_module_lies_where_it_may_run(bar: str, foo: str, why: str, tmp_path: Path) -> None:
    image = module_with_sections(tmp_path / "m.ko")
    rows = [image.symbols.defined(name) or 0 for name in (bar, foo)]
    assert why_no_substitute(image, rows[0], image, rows[1]) == why


def test_init_text_of_the_kernel_is_gone_when_modules_run(tmp_path: Path) -> None:
    """So is it for the init text of a module, which is freed at another time."""
    kernel, module = kernel_with_regions(tmp_path / "vmlinux").image, module_with_sections(tmp_path / "m.ko")
    rows = kernel.symbols.defined("setup") or 0, module.symbols.defined("init.text") or 0
    assert why_no_substitute(kernel, rows[0], module, rows[1]) == "setup is init text, which is freed after boot"


# -- what never returns ------------------------------------------------------------------------------------------------

BL, B_OUT, B_BACK, BEQ_OUT, BEQ_BACK = 0x9400_1000, 0x1400_1000, 0x17FF_FFFF, 0x5400_8000, 0x54FF_FFE0
CBZ_OUT, TBZ_OUT, BR, BLR, RETAA, ERET, BRK = 0xB400_8000, 0x3600_4000, 0xD61F_0200, 0xD63F_0100, 0xD65F_0BFF, (
    0xD69F_03E0), 0xD421_0000  # fmt: skip
P_NOP, BLR_P, B_P, BL_P, BCTR, BCTRL, BEQLR, BNE_BACK, BNE_OUT, RFID, TRAP, BA = (
    0x6000_0000, 0x4E80_0020, 0x4800_0000, 0x4800_1001, 0x4E80_0420, 0x4E80_0421, 0x4D82_0020, 0x4082_FFFC, 0x4082_1000,
    0x4C00_0024, 0x7FE0_0008, 0x4800_0002)  # fmt: skip
NEVER = "no instruction of it leaves it"


@pytest.mark.parametrize(("machine", "words", "why"), [
    (ARM64, (NOP, RET), ""), (ARM64, (NOP, RETAA), ""), (ARM64, (NOP, ERET), ""), (ARM64, (NOP, BR), ""),
    (ARM64, (STOP,), NEVER), (ARM64, (NOP, B_BACK), NEVER), (ARM64, (BLR, B_BACK), NEVER), (ARM64, (BL, BRK), NEVER),
    (ARM64, (NOP, BL), NEVER),  # of what never returns itself, as it must be at the end
    (ARM64, (NOP, NOP), ""),  # goes on into what follows
    (ARM64, (NOP, B_OUT), ""), (ARM64, (BEQ_OUT, STOP), ""), (ARM64, (CBZ_OUT, STOP), ""), (ARM64, (TBZ_OUT, STOP), ""),
    (ARM64, (NOP, BEQ_BACK, STOP), NEVER),
    (PPC64LE, (P_NOP, BLR_P), ""), (PPC64LE, (P_NOP, BCTR), ""), (PPC64LE, (BEQLR, B_P), ""),
    (PPC64LE, (RFID, B_P), ""),
    (PPC64LE, (B_P,), NEVER), (PPC64LE, (BCTRL, B_P), NEVER), (PPC64LE, (BL_P, TRAP), NEVER),
    (PPC64LE, (P_NOP, BL_P), NEVER), (PPC64LE, (P_NOP, BNE_BACK, B_P), NEVER),
    (PPC64LE, (B_P, 0, 0x100_0000, 0x80), NEVER), (PPC64LE, (BLR_P, 0, 0x100_0000, 0x80), ""),
    (PPC64LE, (BL_P, P_NOP), NEVER), (PPC64LE, (BLR_P, BL_P, P_NOP, 0, 0x100_0000, 0x80), ""),
    (PPC64LE, (P_NOP, P_NOP), ""), (PPC64LE, (BNE_OUT, B_P), ""), (PPC64LE, (BA, B_P), ""),
])  # fmt: skip
def test_code_without_a_way_out_never_returns(machine: Arch, words: tuple[int, ...], why: str, tmp_path: Path) -> None:
    elf = Elf(machine=machine.e_machine)
    text = elf.section(".text", as_code(words), addr=TEXT, flags=ALLOC | EXEC)
    elf.symbol("it", text, TEXT, 4 * len(words))
    (tmp_path / "vmlinux").write_bytes(elf.build())
    assert why_never_returns(FunctionTypes(open_image(str(tmp_path / "vmlinux"))), 1) == why


@pytest.mark.parametrize(("words", "relocated", "kind", "why"), [
    ((NOP, STOP), 4, 282, ""),  # JUMP26: a tail call, which the loader completes
    ((0x9400_0000, STOP), 0, 283, NEVER),  # CALL26
    ((0x9000_0000, STOP), 0, 275, NEVER),  # ADR_PREL_PG_HI21: an address
    ((0x5400_0000, STOP), 0, 280, ""),  # CONDBR19
    ((STOP, NOP, RET), 0, 282, ""),
])  # fmt: skip
def test_a_jump_that_the_loader_completes_may_leave(
    words: tuple[int, ...], relocated: int, kind: int, why: str, tmp_path: Path
) -> None:
    elf = Elf(e_type=REL)
    text = elf.section(".text", as_code(words), flags=ALLOC | EXEC)
    elf.symbol("it", text, 0, 4 * len(words))
    elf.symbol("elsewhere", 0, 0, type=NOTYPE)
    elf.section(
        ".rela.text", struct.pack("<QQq", relocated, 2 << 32 | kind, 0), type=RELA, link=3, info=text, entsize=24
    )
    (tmp_path / "m.o").write_bytes(elf.build())
    assert why_never_returns(FunctionTypes(open_image(str(tmp_path / "m.o"))), 1) == why


@pytest.mark.parametrize(("names", "size", "why"), [
    (("do_exit",), 8, "do_exit"),
    (("my_name", "panic"), 8, "panic"),  # an alias
    (("my_name",), 8, ""),
    (("my_name",), 0, ""),  # of unknown length
    (("my_name",), 1 << 20, ""),
])  # fmt: skip
def test_some_never_return_by_their_name(names: tuple[str, ...], size: int, why: str, tmp_path: Path) -> None:
    elf = Elf()
    text = elf.section(".text", as_code([NOP, RET]), addr=TEXT, flags=ALLOC | EXEC)
    for name in names:
        elf.symbol(name, text, TEXT, size)
    (tmp_path / "vmlinux").write_bytes(elf.build())
    assert why_never_returns(FunctionTypes(open_image(str(tmp_path / "vmlinux"))), 1) == why


@pytest.mark.parametrize("file", ["types.o", "types-ppc64le.o"])
@pytest.mark.parametrize(("name", "why"), [("forever", "declared noreturn, says DWARF"), ("nothing", "")])
def test_dwarf_tells_what_is_declared_noreturn(file: str, name: str, why: str) -> None:
    types = types_of(DWARF / file)
    assert why_never_returns(types, types.image.symbols.defined(name) or 0) == why
