"""x86_64 modules with --hook: the stub, what tables tell of it, what is refused, and the way back.

`told.ko` has the tables that objtool makes; what stands in them is read with pyelftools and struct here.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from elftools.elf import elffile

from ftpatch.arch.x86_64_module import FRAMES, hook
from ftpatch.arch.x86_64_proof import walk
from ftpatch.cli import run
from ftpatch.errors import FtpatchError
from ftpatch.kernel.module import Module
from ftpatch.kernel.module_load import Check, relocations
from ftpatch.proof.prove import Checks, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file

FOLDER = Path(__file__).resolve().parent.parent / "testdata" / "x86_64"
TOLD, MINI = FOLDER / "told.ko", FOLDER / "mini.ko"
THUNK, PLAIN = hook(False, (".return_sites",)), hook(False, ())
ENTRY, CALL, RETURN, END = 16, 16 + 45, 16 + 77, 16 + 83  # of the stub with its padding
HOOKED = ("--func", "told_work", "--func", "init_module", "--hook", "told_hook")
Row = tuple[int, int, str, int]  # offset, type, symbol, addend
ELFFile: Any = elffile.ELFFile


def enabled(source: Path, out: Path, *options: str) -> Path:
    assert run(["enable", str(source), "-o", str(out), *options]) == 0
    return out


def content(path: Path, name: str) -> bytes:
    with path.open("rb") as file:
        return bytes(ELFFile(file).get_section_by_name(name).data())


def rows(path: Path, name: str) -> list[Row]:
    """The relocations of one section."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(f".rela{name}")
        symbols = elf.get_section_by_name(".symtab")
        return [
            (row["r_offset"], row["r_info_type"], symbols.get_symbol(row["r_info_sym"]).name, row["r_addend"])
            for row in (table.iter_relocations() if table else ())
        ]


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return enabled(TOLD, tmp_path / "told.ko", *HOOKED)


# -- what is written ---------------------------------------------------------------------------------------------------


def test_sites_call_a_stub_each_in_memory_that_lives_as_long_as_they(told: Path) -> None:
    before, after = rows(TOLD, ".text"), rows(told, ".text")
    assert before[0] == (0x15, 4, "__fentry__", -4)
    assert after == [(0x15, 4, "ftpatch_call", -4), *before[1:]]
    assert rows(told, ".init.text")[0] == (0x15, 4, "ftpatch_call_init", -4)
    assert [slot[3] for slot in rows(told, "__mcount_loc")] == [0x44]  # of told_hook, which stays
    for name in (".text", ".init.text", ".exit.text"):
        assert content(told, name) == content(TOLD, name)


def test_the_stub_returns_as_the_modules_own_functions_do(told: Path, tmp_path: Path) -> None:
    assert content(told, ".text.ftpatch") == content(told, ".init.text.ftpatch") == THUNK.content
    assert rows(told, ".text.ftpatch") == [
        (CALL + 1, 4, "told_hook", -4), (RETURN + 1, 4, "__x86_return_thunk", -4),
    ]  # fmt: skip
    assert THUNK.content[RETURN:] == bytes.fromhex("e900000000cc")
    plain = enabled(MINI, tmp_path / "mini.ko", "--func", "mini_work", "--hook", "mini_util")
    assert content(plain, ".text.ftpatch") == PLAIN.content
    assert rows(plain, ".text.ftpatch") == [(CALL + 1, 4, "mini_util", -4)]
    assert PLAIN.content[RETURN:] == bytes.fromhex("c3cc")


@pytest.mark.parametrize(("table", "off"), [(".return_sites", RETURN), (".call_sites", CALL)])
def test_tables_name_what_the_loader_changes_for_the_processor(told: Path, table: str, off: int) -> None:
    before, after = rows(TOLD, table), rows(told, table)
    added = [(2, "ftpatch_call", off - ENTRY), (2, "ftpatch_call_init", off - ENTRY)]
    assert after[: len(before)] == before and [row[1:] for row in after[len(before) :]] == added
    assert [row[0] for row in after] == list(range(0, 4 * len(after), 4))
    assert content(told, table) == bytes(4 * len(after))


# Bytes to the caller's stack pointer, bytes from there to its rbp, the two registers: 5 is rsp, 4 is rbp, and 1 stands
# for that stack pointer. From the instruction at an offset on.
WALK = (
    (0, 8, 0, 0x05), (ENTRY + 4, 16, 0, 0x05), (ENTRY + 5, 24, -24, 0x15), (ENTRY + 12, 32, -24, 0x15),
    (ENTRY + 13, 40, -24, 0x15), (ENTRY + 16, 40, -24, 0x14), (RETURN - 9, 32, -24, 0x15), (RETURN - 5, 24, -24, 0x15),
    (RETURN - 4, 16, 0, 0x05), (RETURN, 8, 0, 0x05),
)  # fmt: skip


def test_stack_walks_find_the_caller_from_every_instruction(told: Path) -> None:
    before, after = rows(TOLD, ".orc_unwind_ip"), rows(told, ".orc_unwind_ip")
    places = [(name, addend + ENTRY) for _, _, name, addend in after[len(before) :]]
    offs = [off for off, *_ in WALK] + [END]
    assert places == [(name, off) for name in ("ftpatch_call", "ftpatch_call_init") for off in offs]
    said = b"".join(struct.pack("<hhBB", size, saved, registers, 2) for _, size, saved, registers in WALK) + bytes(6)
    assert content(told, ".orc_unwind") == content(TOLD, ".orc_unwind") + 2 * said


def test_the_stub_in_an_emulator_gives_site_and_caller_to_the_hook_aligned() -> None:
    unicorn: Any = pytest.importorskip("unicorn")
    from unicorn import x86_const as x86

    code, target, site, caller = 0x10000, 0x20000, 0x30014, 0x40123
    for at_entry in (0x50F00, 0x50F08):  # kernel code has its stack at any multiple of eight
        engine: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        engine.mem_map(0x10000, 0x60000)
        stub = bytearray(PLAIN.content)
        stub[CALL + 1 : CALL + 5] = (target - code - CALL - 5).to_bytes(4, "little")
        engine.mem_write(code, bytes(stub))
        engine.mem_write(at_entry, struct.pack("<QQ", site + 5, caller))
        engine.reg_write(x86.UC_X86_REG_RSP, at_entry)
        engine.emu_start(code + ENTRY, target)
        arguments = [engine.reg_read(register) for register in (x86.UC_X86_REG_RDI, x86.UC_X86_REG_RSI)]
        assert arguments == [site, caller]
        assert engine.reg_read(x86.UC_X86_REG_RSP) % 16 == 8  # below the return address that the call pushed


def test_what_is_said_of_the_stub_is_what_a_walk_through_it_finds() -> None:
    walked = {step.off: step for step in walk(THUNK.content) or ()}
    assert max(walked) == END - 1
    for frame in FRAMES:
        step = walked[frame.off]
        assert frame.size == (step.sp if frame.base == "sp" else step.fp) and frame.saved == (step.saved or 0)


@pytest.mark.parametrize("code", ["c9", "5dc3", "55c3", "4883ec08e900000000", "0f0b", "ff7424", "4889e5c9"])
def test_code_that_does_more_is_followed_nowhere(code: str) -> None:
    """leave; pop %rbp that was not pushed; a return with rbp on the stack, or to something else; ud2; half a push."""
    assert walk(bytes.fromhex(code)) is None


# -- what is refused ---------------------------------------------------------------------------------------------------

NO_ENTRY = (
    "{path}: {name} cannot be called from a module of this machine: found no jump of the loader's to an entry of the "
    "kernel, none of which is exported, expected --hook SYMBOL, which calls a C function by a stub in the module"
)


@pytest.mark.parametrize(("options", "name"), [
    ((), "ftrace_caller"), (("--target", "ftrace_regs_caller"), "ftrace_regs_caller"), (("--target", "f"), "f"),
])  # fmt: skip
def test_the_kernels_own_entries_are_out_of_a_modules_reach(
    options: tuple[str, ...], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enable", str(TOLD), "--func", "told_work", *options, "-o", str(tmp_path / "out.ko")]) == 5
    assert capsys.readouterr().err == f"ftpatch: {NO_ENTRY.format(path=TOLD, name=name)}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "code", "text"), [
    (("--hook", "told_work"), 5, "--hook told_work: the hook is itself among the chosen sites: found a call that leads "
     "back to itself, expected another function – --func '!told_work' leaves it out"),
    (("--hook", "init_module"), 5, "--hook init_module: the hook is init text, which is freed once the module runs: "
     "found chosen sites outside init text, expected a hook that stays"),
    (("--hook", "__x86_return_thunk"), 5, "--hook __x86_return_thunk: the hook is no function of C: found a thunk, "
     "which goes where a register or the stack says, expected a function that returns"),
    (("--hook", "none"), 5, "--hook none: the module does not use this symbol yet: found no kernel to look for it, "
     "expected a symbol that the module defines or uses – --against VMLINUX shows whether it may be used, and its "
     "version"),
    (("--stub-asm", str(FOLDER / "entry.S")), 4, f"{FOLDER / 'entry.S'}: assembling stubs for x86_64 is not supported: "
     "expected arm64, ppc64le"),
])  # fmt: skip
def test_other_refusals_name_their_reason(
    options: tuple[str, ...], code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["enable", str(TOLD), "--func", "told_work", *options, "-o", str(tmp_path / "out.ko")]) == code
    assert capsys.readouterr().err == f"ftpatch: {text}\n"


def changed(path: Path, out: Path, name: str, off: int, new: bytes) -> Path:
    """A copy with other bytes at an offset of a section."""
    with path.open("rb") as file:
        start = ELFFile(file).get_section_by_name(name)["sh_offset"] + off
    data = bytearray(path.read_bytes())
    data[start : start + len(new)] = new
    out.write_bytes(data)
    return out


@pytest.mark.parametrize(("name", "off", "new", "text"), [
    (".rela.text", 8, b"\x2a", "type 42 at .text+0x15"),
    (".text", 0x16, b"\x01", "a place that is not zero, .text+0x15"),
    (".orc_unwind_ip", 5, b"\x01", "a place that is not zero, .orc_unwind_ip+0x4"),
])  # fmt: skip
def test_relocations_that_the_loader_refuses_are_told(
    name: str, off: int, new: bytes, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = changed(TOLD, tmp_path / "bad.ko", name, off, new)
    assert relocations(Module(scan_file(str(bad)))) == (
        Check("relocations", "refused", f"the loader refuses {text}"),
    )  # fmt: skip
    assert run(["enable", str(bad), *HOOKED, "-o", str(tmp_path / "out.ko")]) == 5
    assert f"the kernel would not load this module, or crash in it: found the loader refuses {text} – " in (
        capsys.readouterr().err
    )


def test_relocations_of_a_module_as_built_are_known() -> None:
    assert relocations(Module(scan_file(str(TOLD)))) == (
        Check("relocations", "ok", "28 relocations of types that the loader knows"),
    )  # fmt: skip


# -- the way back ------------------------------------------------------------------------------------------------------


def with_nops(path: Path, out: Path) -> Path:
    """As objtool leaves a module: a NOP of five bytes for each call, whose relocation does nothing."""
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        elf = ELFFile(file)
        for name in (".text", ".init.text"):
            code, table = (elf.get_section_by_name(prefix + name)["sh_offset"] for prefix in ("", ".rela"))
            for number, (off, _, symbol, _) in enumerate(rows(path, name)):
                if symbol == "__fentry__":
                    data[code + off - 1 : code + off + 4] = bytes.fromhex("0f1f440000")
                    data[table + 24 * number + 8] = 0
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("nops", [False, True])
def test_disable_gives_back_what_the_sites_were_and_their_records(nops: bool, tmp_path: Path) -> None:
    source = with_nops(TOLD, tmp_path / "source.ko") if nops else TOLD
    first = enabled(source, tmp_path / "1.ko", *HOOKED)
    second = tmp_path / "2.ko"
    assert run(["disable", str(first), "--func", "told_work", "--func", "init_module", "-o", str(second)]) == 0
    for name in (".text", ".init.text"):
        assert content(second, name) == content(source, name) and rows(second, name) == rows(source, name)
    assert sorted(row[1:] for row in rows(second, "__mcount_loc")) == sorted(
        row[1:] for row in rows(source, "__mcount_loc")
    )
    third = enabled(second, tmp_path / "3.ko", "--func", "told_work", "--hook", "told_hook")
    for before, after in ((source, first), (source, second), (source, third), (first, second), (second, third)):
        assert run(["verify", str(before), str(after), "--require-emulation"]) == 0


def test_the_journal_takes_all_of_it_back(tmp_path: Path) -> None:
    journal = tmp_path / "journal.json"
    after = enabled(TOLD, tmp_path / "after.ko", *HOOKED, "--report", f"json={journal}")
    back = tmp_path / "back.ko"
    assert run(["restore", str(after), "--journal", str(journal), "-o", str(back)]) == 0
    assert back.read_bytes() == TOLD.read_bytes()


# -- damage ------------------------------------------------------------------------------------------------------------

NEW = (".text.ftpatch", ".init.text.ftpatch", ".rela.text.ftpatch", ".return_sites", ".call_sites", ".orc_unwind",
       ".orc_unwind_ip", ".rela.return_sites", ".rela.call_sites", ".rela.orc_unwind_ip")  # fmt: skip


@pytest.mark.parametrize("name", NEW)
def test_no_byte_of_what_came_along_may_be_another(told: Path, tmp_path: Path, name: str) -> None:
    """Read alone: nothing is executed, and no journal is at hand."""
    before = scan_file(str(TOLD))
    with TOLD.open("rb") as file:
        old = ELFFile(file).get_section_by_name(name)
        first = old["sh_size"] if old else 0
    for off in range(first, len(content(told, name)), 7):
        bad = changed(told, tmp_path / "bad.ko", name, off, bytes((content(told, name)[off] ^ 1 << off % 8,)))
        try:
            found: tuple[object, ...] = prove(before, open_image(str(bad)), checks=Checks(False, deep=None)).findings
        except FtpatchError as error:  # a relocation that names no symbol
            found = (error,)
        assert found, f"{name}+{off:#x}"


def test_a_function_that_no_table_row_is_about_gets_no_rows(tmp_path: Path) -> None:
    """Rows of another form than those of functions are not understood: nothing is said of the stub, as is told."""
    odd = changed(TOLD, tmp_path / "odd.ko", ".orc_unwind", 4, b"\x04")
    journal = tmp_path / "journal.json"
    after = enabled(odd, tmp_path / "after.ko", *HOOKED[:2], *HOOKED[4:], "--report", f"json={journal}")
    assert content(after, ".orc_unwind") == content(odd, ".orc_unwind")
    assert "stack walks end at the patch's code: the module's tables for them are not understood" in journal.read_text()
    assert run(["verify", str(odd), str(after), "--require-emulation"]) == 0
