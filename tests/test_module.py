"""Modules: every byte that enabling one writes, what it refuses, and that the code it brings along works."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from elfwriter import (
    ALLOC,
    ET_REL,
    EXEC,
    LOCAL,
    MINI,
    NOTYPE,
    RELA,
    SECTION,
    Elf,
    Relocation,
    Section,
    extended,
    parsed,
    rela,
    relocated,
    symbol,
    written,
)

import ftpatch.report
from ftpatch.arch import architectures
from ftpatch.cli import run
from ftpatch.elf.editor import Editor
from ftpatch.plan.module.imports import Import, add_import
from ftpatch.recovered.image import open_image

MINI_PPC = MINI.parent / "mini-ppc64le"
ARM64, PPC64LE = MINI / "mini.ko", MINI_PPC / "mini.ko"
CALL26, ABS64, REL24, ADDR64, REL64 = 283, 257, 10, 38, 44
TRAMPOLINE, INIT_TRAMPOLINE = ".text.ftrace_trampoline", ".init.text.ftrace_trampoline"
NOP, MOV_X9_X30, BL, BTI_C, RET = 0xD503201F, 0xAA1E03E9, 0x94000000, 0xD503245F, 0xD65F03C0
PPC_NOP, PPC_B, MFLR_R0, PPC_BL, MTLR_R0 = 0x60000000, 0x48000000, 0x7C0802A6, 0x48000001, 0x7C0803A6
SCHEMA = json.loads((Path(ftpatch.report.__file__).parent / "schema.json").read_text())
MODULES = {arch.name: arch.modules for arch in architectures()}
LEAVES = (
    "the patched functions leave ftrace's list: they can no longer be traced by name, kprobed through ftrace or "
    "live-patched"
)
CUT = "shrink: slot and relocation are cut out, as every loader counts what is there"
NO_OPS = "the sites run ftrace_caller with an ops object of their own that does nothing: no tracer ever sees them"
IN_ANY_CONTEXT = (
    "the hook runs as hook(site, caller) in whatever context the function is called in, interrupts included; "
    "a hook that calls the function itself never returns"
)


@dataclass(frozen=True)
class Patched:
    """One successful run: both files, the report's text and its journal."""

    path: Path
    before: bytes
    after: bytes
    text: str
    journal: dict[str, Any]

    @property
    def image(self) -> dict[str, Any]:
        found: dict[str, Any] = self.journal["images"][0]
        return found


Enable = Callable[..., Patched]
Refusal = Callable[..., str]


@pytest.fixture
def enable(tmp_path: Path, ftpatch: Callable[..., str]) -> Enable:
    """A function: module and options → what came of it."""

    def call(source: Path | str, *arguments: object, out: str = "out.ko") -> Patched:
        result, journal = tmp_path / out, tmp_path / f"{out}.json"
        text = ftpatch("enable", source, *arguments, "-o", result, "--report", f"json={journal}")
        found = json.loads(journal.read_text())
        jsonschema.validate(found, SCHEMA)
        return Patched(result, Path(source).read_bytes(), result.read_bytes(), text, found)

    return call


@pytest.fixture
def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """A function: module and options → the line that refuses; nothing is left behind."""

    def call(source: Path | str, *arguments: object, code: int = 5) -> str:
        capsys.readouterr()
        out = tmp_path / "out.ko"
        before = sorted(tmp_path.iterdir())
        assert run(["enable", str(source), *(str(one) for one in arguments), "-o", str(out)]) == code
        shown = capsys.readouterr()
        lines = [line for line in shown.err.splitlines() if not line.startswith("  ")]
        assert shown.out == "" and len(lines) == 1 and sorted(tmp_path.iterdir()) == before
        return lines[0].removeprefix("ftpatch: ").replace(f"{source}", "M")

    return call


def content(file: bytes, name: str) -> bytes:
    section = parsed(file).get_section_by_name(name)
    return bytes(section.data()) if section is not None else b""


def words(file: bytes, section: str, off: int, n: int) -> list[int]:
    return list(struct.unpack_from(f"<{n}I", content(file, section), off))


def index_of(file: bytes, name: str) -> int:
    return int(parsed(file).get_section_index(name))


def new_relocations(patched: Patched, table: str) -> list[tuple[int, int, str, int]]:
    """(offset, type, symbol, addend) of the rows that a table has more than before, in order."""
    old = relocated(patched.before, table)
    new = relocated(patched.after, table)
    assert new[: len(old)] == old
    return [(one.offset, one.type, one.symbol, one.addend) for one in new[len(old) :]]


def new_symbols(patched: Patched) -> list[tuple[str, str | int, int, int, str]]:
    """(name, section, value, size, type) of the new symbols."""
    elf = parsed(patched.after)
    old = parsed(patched.before).get_section_by_name(".symtab").num_symbols()
    found = []
    for one in list(elf.get_section_by_name(".symtab").iter_symbols())[old:]:
        assert one["st_info"]["bind"] == "STB_GLOBAL"
        sec = one["st_shndx"]
        home = elf.get_section(sec).name if isinstance(sec, int) else sec
        found.append((one.name, home, one["st_value"], one["st_size"], one["st_info"]["type"]))
    return found


def records(file: bytes) -> list[tuple[str, int]]:
    """(symbol, addend) of the records, in order of their slots."""
    rows = sorted(relocated(file, ".rela__patchable_function_entries"), key=lambda one: one.offset)
    assert [one.offset for one in rows] == [8 * slot for slot in range(len(rows))]
    assert len(content(file, "__patchable_function_entries")) == 8 * len(rows)
    return [(one.symbol, one.addend) for one in rows]


def scanned(ftpatch: Callable[..., str], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ftpatch("scan", path, "--sites", "--format", "json"))["images"][0]
    return found


def without(source: Path, name: str, path: Path) -> Path:
    """A copy of a module in which a section has another name: that without its first letter."""
    file = bytearray(source.read_bytes())
    head = struct.unpack_from("<Q", file, 40)[0] + 64 * index_of(bytes(file), name)
    struct.pack_into("<I", file, head, struct.unpack_from("<I", file, head)[0] + 1)
    return Path(written(path, file))


# -- arm64: the loader's jump ------------------------------------------------------------------------------------------

# (function, section, record) of mini.ko, in the order of the slots; the site is 8 bytes behind
ARM64_SITES = [
    ("mini_step", ".text", 0x0), ("mini_work", ".text", 0x50), ("mini_init", ".init.text", 0x0),
    ("mini_util", ".text", 0xB8), ("mini_probe_one", ".init.text", 0x58), ("mini_util_probe", ".init.text", 0x88),
]  # fmt: skip


def test_arm64_sites_call_the_loaders_jump_with_ops_of_their_own(enable: Enable) -> None:
    found = enable(ARM64, "--func", "*")
    for _, section, record in ARM64_SITES:
        assert words(found.after, section, record, 4) == [NOP, NOP, MOV_X9_X30, BL]
    for section, suffix in (".text", ""), (".init.text", "_init"):
        assert new_relocations(found, f".rela{section}") == [
            row
            for _, sec, record in ARM64_SITES
            if sec == section
            for row in (
                (record + 12, CALL26, f"ftpatch_ftrace_caller{suffix}", 0), (record, ABS64, "ftpatch_ops", 0),
            )
        ]  # fmt: skip
    assert new_symbols(found) == [
        ("ftpatch_ops_function", ".text.ftpatch.ops", 0, 8, "STT_FUNC"),
        ("ftpatch_ops", ".data.ftpatch", 0, 256, "STT_OBJECT"),
        ("ftpatch_ftrace_caller", TRAMPOLINE, 0, 0, "STT_NOTYPE"),
        ("ftpatch_ftrace_caller_init", INIT_TRAMPOLINE, 0, 0, "STT_NOTYPE"),
    ]
    assert words(found.after, ".text.ftpatch.ops", 0, 2) == [BTI_C, RET]
    assert content(found.after, ".data.ftpatch") == bytes(256)
    assert relocated(found.after, ".rela.data.ftpatch") == [
        Relocation(index_of(found.after, ".data.ftpatch"), 0, ABS64, "ftpatch_ops_function", 0)
    ]
    assert records(found.after) == []


def test_everything_else_of_the_module_stays(enable: Enable) -> None:
    found = enable(ARM64, "--func", "mini_work", "--func", "mini_init")
    changed = {".text": {*range(0x58, 0x60)}, ".init.text": {*range(8, 16)}}
    for section in parsed(found.before).iter_sections():
        if section["sh_type"] == "SHT_PROGBITS" and section.name != "__patchable_function_entries":
            old, new = content(found.before, section.name), content(found.after, section.name)
            differs = {at for at in range(len(old)) if old[at] != new[at]}
            assert len(old) == len(new) and differs <= changed.get(section.name, set())
    for name in (".rela.exit.text", ".rela.gnu.linkonce.this_module"):
        assert relocated(found.after, name) == relocated(found.before, name)


def test_records_leave_and_the_others_keep_their_order(enable: Enable) -> None:
    found = enable(ARM64, "--func", "mini_step", "--func", "mini_util", "--func", "mini_probe_one")
    assert records(found.before) == [
        (".text", 0), (".text", 0x50), (".init.text", 0), (".text", 0xB8), (".init.text", 0x58), (".init.text", 0x88),
    ]  # fmt: skip
    assert records(found.after) == [(".text", 0x50), (".init.text", 0), (".init.text", 0x88)]
    assert [site["record_fate"] for site in found.image["sites"]] == ["cut"] * 3


def test_init_text_uses_the_core_jump_where_it_has_none_of_its_own(tmp_path: Path, enable: Enable) -> None:
    """Linux 6.12 has both sections, older kernels the first alone."""
    found = enable(without(ARM64, INIT_TRAMPOLINE, tmp_path / "old.ko"), "--func", "mini_init")
    assert new_relocations(found, ".rela.init.text") == [
        (12, CALL26, "ftpatch_ftrace_caller_init", 0), (0, ABS64, "ftpatch_ops", 0),
    ]  # fmt: skip
    assert new_symbols(found)[-1] == ("ftpatch_ftrace_caller_init", TRAMPOLINE, 0, 0, "STT_NOTYPE")


def test_a_module_without_room_for_the_jump_is_refused_but_takes_a_hook(
    tmp_path: Path, refusal: Refusal, enable: Enable
) -> None:
    bare = without(ARM64, TRAMPOLINE, tmp_path / "bare.ko")
    assert refusal(bare, "--func", "mini_work") == (
        "M: the module has no section for the loader's jump: found no .text.ftrace_trampoline, expected a module "
        "linked with the kernel's module.lds – --hook works without it"
    )
    assert new_symbols(enable(bare, "--func", "mini_work", "--hook", "mini_util"))[0][0] == "ftpatch_call"


def test_the_records_may_stay_and_a_warning_says_what_then_happens(
    tmp_path: Path, enable: Enable, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept.ko"
    assert run(["enable", str(ARM64), "--func", "mini_work", "--records", "keep", "-o", str(out)]) == 0
    warning = (
        "records are kept, asked for: the loader will find other words than it expects and switch ftrace off, "
        "machine-wide"
    )
    assert capsys.readouterr().err == f"ftpatch: warning: {warning}\n"
    assert records(out.read_bytes()) == records(ARM64.read_bytes())
    found = enable(ARM64, "--func", "mini_work", "--records", "keep")
    assert found.image["notes"] == [warning, NO_OPS]
    assert found.image["sites"][0]["record_fate"] == "kept"


def test_the_other_entry_is_the_loaders_second_jump(tmp_path: Path, enable: Enable, refusal: Refusal) -> None:
    """Kernels with CALL_OPS have one entry; those before have two, and modules with two NOPs behind the label."""
    module = arm64_module(tmp_path)
    choice = ["--func", "vfs_read", "--target", "ftrace_regs_caller"]
    assert refusal(module, *choice) == (
        "M: the loader may not have a jump to ftrace_regs_caller: found no kernel to look at, expected a kernel with "
        "several entries – --against VMLINUX, the kernel that will load it"
    )
    found = enable(module, *choice, "--against", kernel(tmp_path, "vmlinux-pfe2", *map(Export, BASICS)))
    assert new_symbols(found) == [("ftpatch_ftrace_regs_caller", TRAMPOLINE, 12, 0, "STT_NOTYPE")]
    (site,) = found.image["sites"]
    assert (site["stub"], site["literal"], site["target"]) == (f"{TRAMPOLINE}+0xc", None, "ftrace_regs_caller")
    assert found.image["request"]["target"] == "ftrace_regs_caller"


def test_a_kernel_without_the_other_entry_is_named(tmp_path: Path, refusal: Refusal) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"))
    choice = ["--func", "mini_work", "--target", "ftrace_regs_caller", "--against", vmlinux]
    assert refusal(ARM64, *choice) == (
        "M: the loader may not have a jump to ftrace_regs_caller: found no ftrace_regs_caller in the kernel, expected "
        "a kernel with several entries – --target ftrace_caller"
    )


def test_ops_of_this_kernel_are_as_large_as_its_entry_reads(tmp_path: Path, enable: Enable) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"))
    found = enable(ARM64, "--func", "mini_work", "--against", vmlinux)
    assert content(found.after, ".data.ftpatch") == bytes(256)  # mini.ko's kernel reads 8 bytes at 80
    assert found.image["notes"] == [LEAVES, NO_OPS]


# -- layouts -----------------------------------------------------------------------------------------------------------

BASICS = ("notrace_helper", "linux_banner", "early_puts")
INFO = b"vermagic=0.0.0-mini SMP mod_unload aarch64\0name=plain\0depends=\0license=GPL\0"


def arm64_module(tmp_path: Path, name: str = "pfe2.o") -> Path:
    """An object of the fixtures as a module."""
    code = [Section(one, b"\0", flags=ALLOC | EXEC) for one in (".plt", ".init.plt", TRAMPOLINE)]
    more = [Section(".modinfo", INFO, flags=ALLOC), *code]
    return Path(written(tmp_path / "plain.ko", extended((MINI / name).read_bytes(), more)))


def ppc_module(tmp_path: Path, name: str) -> Path:
    more = [Section(".modinfo", INFO.replace(b"aarch64", b"ppc64le"), flags=ALLOC),
            Section(".stubs", type=8, flags=ALLOC | EXEC, size=0)]  # fmt: skip
    return Path(written(tmp_path / "plain.ko", extended((MINI_PPC / name).read_bytes(), more)))


def test_two_nops_behind_the_label_need_no_ops(tmp_path: Path, enable: Enable) -> None:
    found = enable(arm64_module(tmp_path), "--func", "vfs_read", "--func", "vfs_write")
    assert [one[0] for one in new_symbols(found)] == ["ftpatch_ftrace_caller"]
    assert {site["literal"] for site in found.image["sites"]} == {None}
    for site in found.image["sites"]:
        at = int(site["offset"], 16)
        assert words(found.after, ".text", at, 2) == [MOV_X9_X30, BL]
        assert (at + 4, CALL26, "ftpatch_ftrace_caller", 0) in new_relocations(found, ".rela.text")


def test_records_in_sections_of_their_own_leave_there(tmp_path: Path, enable: Enable) -> None:
    found = enable(arm64_module(tmp_path, "clang-sections.o"), "--func", "vfs_read")
    elf, old = parsed(found.after), parsed(found.before)
    changed = [one.name for one, two in zip(elf.iter_sections(), old.iter_sections(), strict=False)
               if one["sh_size"] < two["sh_size"]]  # fmt: skip
    assert changed == ["__patchable_function_entries", ".rela__patchable_function_entries"]
    assert new_relocations(found, ".rela.text.vfs_read") == [(4, CALL26, "ftpatch_ftrace_caller", 0)]


def test_a_table_of_relocations_is_made_for_text_without_any(tmp_path: Path, enable: Enable) -> None:
    found = enable(arm64_module(tmp_path, "clang-sections.o"), "--func", "direct_only")
    assert relocated(found.before, ".rela.text.direct_only") == []
    text = index_of(found.before, ".text.direct_only")
    assert relocated(found.after, ".rela.text.direct_only") == [Relocation(text, 4, CALL26, "ftpatch_ftrace_caller", 0)]


def test_calls_of_mcount_name_another_symbol(tmp_path: Path, enable: Enable) -> None:
    module = ppc_module(tmp_path, "mprofile.o")
    found = enable(module, "--func", "vfs_read", "--hook", "notrace_helper")
    old, new = relocated(found.before, ".rela.text"), relocated(found.after, ".rela.text")
    changed = [(one, two) for one, two in zip(old, new, strict=True) if one != two]
    (site,) = found.image["sites"]
    at = int(site["branch"], 16)
    assert changed == [(
        Relocation(changed[0][0].section, at, REL24, "_mcount", 0),
        Relocation(changed[0][0].section, at, REL24, "ftpatch_call", 0),
    )]  # fmt: skip
    assert content(found.after, ".text") == content(found.before, ".text")
    assert len(content(found.after, "__mcount_loc")) == len(content(found.before, "__mcount_loc")) - 8


@pytest.mark.parametrize("chosen", ["vfs_read", "*"])
def test_calls_of_mcount_that_become_nops_lose_their_relocations(chosen: str, tmp_path: Path) -> None:
    """The proof knew a call that was redirected and restored, but none that the compiler left: `disable` of a module of
    a -mprofile-kernel build ended in `self-check failed on verify-relocation … please report this`, exit code 70."""
    module, out = ppc_module(tmp_path, "mprofile.o"), tmp_path / "out.ko"
    assert run(["disable", str(module), "--func", chosen, "-o", str(out)]) == 0
    assert run(["verify", str(module), str(out)]) == 0
    old, new = (relocated(path.read_bytes(), ".rela.text") for path in (module, out))
    gone = [row for row in old if row not in new]
    assert {row.symbol for row in gone} == {"_mcount"} and len(old) - len(gone) == len(new)
    records = [len(content(path.read_bytes(), "__mcount_loc")) // 8 for path in (module, out)]
    assert records[0] - records[1] >= len(gone) >= 1


@pytest.mark.parametrize(("at", "new"), [(8, struct.pack("<I", 11)), (12, struct.pack("<I", 1)), (0, b"\xff\xff")])
def test_a_call_that_is_no_plain_call_of_mcount_is_refused(
    tmp_path: Path, refusal: Refusal, at: int, new: bytes
) -> None:
    """Another type (R_PPC64_REL14), symbol or place of its relocation. The type was kept for the new symbol."""
    module = ppc_module(tmp_path, "mprofile.o")
    file = bytearray(module.read_bytes())
    table = parsed(bytes(file)).get_section_by_name(".rela.text")
    row = next(number for number, one in enumerate(relocated(bytes(file), ".rela.text")) if one.symbol == "_mcount")
    place = relocated(bytes(file), ".rela.text")[row].offset
    pos = table["sh_offset"] + 24 * row + at
    file[pos : pos + len(new)] = new
    module.write_bytes(file)
    said = refusal(module, "--func", f".text+{place:#x}", "--hook", "notrace_helper")
    assert "its call has no single relocation to _mcount" in said


@pytest.mark.parametrize(("name", "layout"), [("pg.o", "mcount")])
def test_a_layout_that_cannot_be_enabled_is_refused(tmp_path: Path, refusal: Refusal, name: str, layout: str) -> None:
    assert refusal(arm64_module(tmp_path, name), "--func", "vfs_read", code=4).startswith(
        f"M: layout {layout} cannot be enabled in a module: found calls of _mcount behind the prologue, which no stub "
        "of a module fits, expected sites at the entries of functions – "
    )


# -- options that a module does not have -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ops", "list"],
         "M: --ops list does not work in a module: found the kernel's own ftrace_ops are not exported, expected "
         "--ops nop – a hook is seen where ops are not: --hook SYMBOL"),
        (["--ops", "my_ops"],
         "M: --ops my_ops does not work in a module: found the kernel's own ftrace_ops are not exported, expected "
         "--ops nop – a hook is seen where ops are not: --hook SYMBOL"),
        (["--ops-via", "thunk"], "M: --ops-via thunk does not work in a module: expected literal"),
        (["--records", "null"],
         "M: --records null does not work in a module: found a loader that reads every slot, expected shrink: slot and "
         "relocation leave"),
        (["--records", "minus4"],
         "M: --records minus4 does not work in a module: found a loader that reads every slot, expected shrink: slot "
         "and relocation leave"),
        (["--target", "ftrace_caller", "--hook", "mini_util"], "M: --target and --hook exclude each other"),
        (["--target", "my_tramp"],
         "--target my_tramp: not a target for a module's sites: expected ftrace_caller or ftrace_regs_caller – --hook "
         "calls a C function, --stub-asm a stub of your own"),
        (["--target", "0xffff800080000400"],
         "--target 0xffff800080000400: not a target for a module's sites: expected ftrace_caller or "
         "ftrace_regs_caller – --hook calls a C function, --stub-asm a stub of your own"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_only_a_kernel_can_do_is_refused(refusal: Refusal, options: list[str], message: str) -> None:
    assert refusal(ARM64, "--func", "mini_work", *options) == message


@pytest.mark.parametrize("options", [["--ops", "nop"], ["--ops-via", "literal"], ["--records", "shrink"],
                                     ["--target", "ftrace_caller"]])  # fmt: skip
def test_what_is_the_default_may_be_said(enable: Enable, options: list[str]) -> None:
    assert enable(ARM64, "--func", "mini_work", *options).after == enable(ARM64, "--func", "mini_work").after


def test_a_module_is_no_kernel_to_patch_another_against(refusal: Refusal, tmp_path: Path) -> None:
    choice = ["--func", "mini_work", "--against", MINI / "pfe2.o"]
    assert refusal(ARM64, *choice, code=2) == (
        f"{MINI / 'pfe2.o'}: --against takes one vmlinux, and modules: found object"
    )
    other = PPC64LE
    assert refusal(ARM64, "--func", "mini_work", "--against", other, code=2) == (
        f"{other}: --against names a file of another machine: found ppc64le, expected arm64"
    )


def test_a_kernel_that_would_refuse_the_module_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"), magic="6.12.0 SMP mod_unload aarch64")
    assert refusal(ARM64, "--func", "mini_work", "--against", vmlinux) == (
        "M: the kernel would not load this module, or crash in it: found '0.0.0-mini SMP mod_unload aarch64', the "
        "kernel's is '6.12.0 SMP mod_unload aarch64' – --against the kernel that the module was built for"
    )


# -- again -------------------------------------------------------------------------------------------------------------


def test_an_enabled_site_is_refused(enable: Enable, refusal: Refusal) -> None:
    first = enable(ARM64, "--func", "mini_work", out="first.ko")
    assert refusal(first.path, "--func", "mini_work") == (
        "M: 1 of 1 chosen sites cannot be patched: found mini_work (no record, .text+0x58): already enabled, expected "
        "all of them, or nothing is written – there is nothing to do; ftpatch disable and restore are the ways back"
    )


@pytest.mark.parametrize("hook", [(), ("--hook", "_printk")])
@pytest.mark.parametrize("source", [ARM64, PPC64LE], ids=["arm64", "ppc64le"])
def test_a_patched_module_can_be_patched_again(
    enable: Enable, ftpatch: Callable[..., str], source: Path, hook: tuple[str, ...]
) -> None:
    if source == PPC64LE and not hook:
        hook = ("--hook", "mini_untraced")
    first = enable(source, "--func", "mini_work", *hook, out="first.ko")
    second = enable(first.path, "--func", "mini_util", "--func", "mini_init", "--hook", "_printk", out="second.ko")
    found = {site["function"]: site["status"] for site in scanned(ftpatch, second.path)["sites"]}
    mine = {"mini_work": "enabled", "mini_util": "enabled", "mini_init": "enabled"}
    assert {name: found[name] for name in mine} == mine
    assert set(found.values()) == {"enabled", "ready"}
    assert len(records(second.after)) == len(records(first.before)) - 3
    new = relocated(second.after)
    slots = index_of(first.after, "__patchable_function_entries")
    assert all(one in new for one in relocated(first.after) if one.section != slots)
    third = enable(second.path, "--func", "*", "--func", "!mini_work", "--func", "!mini_util", "--func", "!mini_init",
                   "--hook", "_printk", out="third.ko")  # fmt: skip
    assert records(third.after) == []


def test_a_scan_of_the_result_shows_what_was_done(enable: Enable, ftpatch: Callable[..., str]) -> None:
    found = scanned(ftpatch, enable(ARM64, "--func", "mini_work", "--func", "mini_init").path)
    assert found["layout"] == "callops"
    assert found["summary"]["by_status"] == {"ready": 4}
    assert found["summary"]["without_record"] == 2
    assert [
        (site["function"], site["row"], site["section"], site["offset"])
        for site in found["sites"]
        if site["status"] == "enabled"
    ] == [("mini_work", None, ".text", "0x58"), ("mini_init", None, ".init.text", "0x8")]


# -- hooks -------------------------------------------------------------------------------------------------------------


def test_a_hook_that_the_module_uses_already_needs_no_kernel(enable: Enable) -> None:
    found = enable(ARM64, "--func", "mini_work", "--func", "mini_init", "--hook", "_printk")
    modules = MODULES["arm64"]
    assert modules is not None
    hook = modules.hook(False, ())
    for section, text in (".text", ".text.ftpatch"), (".init.text", ".init.text.ftpatch"):
        assert words(found.after, text, 0, len(hook.words)) == list(hook.words)
        assert len(content(found.after, text)) == 4 * len(hook.words)
        assert relocated(found.after, f".rela{text}") == [
            Relocation(index_of(found.after, text), 48, CALL26, "_printk", 0)
        ]
        suffix = "_init" if section == ".init.text" else ""
        record = 0x50 if section == ".text" else 0
        assert new_relocations(found, f".rela{section}") == [(record + 12, CALL26, f"ftpatch_call{suffix}", 0)]
    assert new_symbols(found) == [
        ("ftpatch_call", ".text.ftpatch", 0, 84, "STT_FUNC"),
        ("ftpatch_call_init", ".init.text.ftpatch", 0, 84, "STT_FUNC"),
    ]
    assert found.image["notes"] == [LEAVES, IN_ANY_CONTEXT]


def test_the_literals_of_hooked_sites_stay_empty(enable: Enable) -> None:
    """A hook is a plain call; no ops object is made, and the words in front of the function stay NOPs."""
    found = enable(ARM64, "--func", "*", "--hook", "_printk")
    assert content(found.after, ".data.ftpatch") == b""
    assert ABS64 not in [kind for _, kind, _, _ in new_relocations(found, ".rela.text")]
    assert {site["literal"] for site in found.image["sites"]} == {None}


@pytest.mark.parametrize("hook", ["mini_untraced", "mini_util", "mini_exit"])
def test_a_hook_of_the_module_itself_may_be_local(enable: Enable, hook: str) -> None:
    found = enable(ARM64, "--func", "mini_step", "--hook", hook)
    assert relocated(found.after, ".rela.text.ftpatch") == [
        Relocation(index_of(found.after, ".text.ftpatch"), 48, CALL26, hook, 0)
    ]
    assert [name for name, *_ in new_symbols(found)] == ["ftpatch_call"]


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("mini_work", "--hook mini_work: the hook is itself among the chosen sites: found a call that leads back to "
                      "itself, expected another function – --func '!mini_work' leaves it out"),
        ("init_module", "--hook init_module: the hook is init text, which is freed once the module runs: found chosen "
                        "sites outside init text, expected a hook that stays"),
        ("state", "--hook state: the hook is no function: found data in .bss, expected code"),
        ("__this_module", "--hook __this_module: the hook is no function: found data in .gnu.linkonce.this_module, "
                          "expected code"),
        ("mini_mod.c", "--hook mini_mod.c: the hook is no function: found the name of a source file, expected code"),
        ("nothing", "--hook nothing: the module does not use this symbol yet: found no kernel to look for it, expected "
                    "a symbol that the module defines or uses – --against VMLINUX shows whether it may be used, and "
                    "its version"),
    ],
)  # fmt: skip
def test_a_hook_that_cannot_be_called_is_refused(refusal: Refusal, hook: str, message: str) -> None:
    assert refusal(ARM64, "--func", "mini_work", "--func", "mini_step", "--hook", hook) == message


def test_sites_of_init_text_alone_may_have_a_hook_of_init_text(enable: Enable) -> None:
    found = enable(ARM64, "--func", "mini_probe_one", "--hook", "mini_util_probe")
    assert [name for name, *_ in new_symbols(found)] == ["ftpatch_call_init"]


@dataclass(frozen=True)
class Export:
    """A symbol that a kernel of the tests exports."""

    name: str
    gpl: bool = False
    namespace: str = ""
    crc: int = 0


def kernel(
    tmp_path: Path, fixture: str, *exports: Export, magic: str = "", crcs: bool = False, folder: Path = MINI
) -> Path:
    """A vmlinux of the fixtures with a table of exports in a kernel's form, and a vermagic."""
    before = (folder / fixture).read_bytes()
    file = before.replace(b"\0__ksymtab\0", b"\0._ksymtab\0")
    machine = "aarch64" if folder == MINI else "ppc64le"
    magic = magic or f"0.0.0-mini SMP mod_unload {'modversions ' if crcs else ''}{machine}"
    text = parsed(file).get_section_by_name(".text")["sh_addr"]
    start, more, strings = (text & ~0xFF_FFFF) + 0x1000_0000, list[Section](), b"\0"
    names = start + 0x8_0000
    for number, (suffix, rows) in enumerate({"": [e for e in exports if not e.gpl],
                                             "_gpl": [e for e in exports if e.gpl]}.items()):  # fmt: skip
        table = b""
        for one in rows:
            here, at = start + 0x1_0000 * number + len(table), names + len(strings)
            strings += one.name.encode() + b"\0"
            space = names + len(strings) if one.namespace else names
            strings += one.namespace.encode() + b"\0" if one.namespace else b""
            table += struct.pack("<3i", text + 4 - here, at - here - 4, space - here - 8)
        crc = struct.pack(f"<{len(rows)}I", *(one.crc for one in rows)) if crcs else b""
        more.append(Section(f"__ksymtab{suffix}", table, flags=ALLOC, addr=start + 0x1_0000 * number))
        more.append(Section(f"__kcrctab{suffix}", crc, flags=ALLOC, addr=start + 0x4_0000 + 0x1_0000 * number))
    more.append(Section("__ksymtab_strings", strings, flags=ALLOC, addr=names))
    more.append(Section(".magic", b"\0" + magic.encode() + b"\0", flags=ALLOC, addr=start + 0xC_0000))
    wanted = b"\0" + TRAMPOLINE.encode() + b"\0" + (INIT_TRAMPOLINE.encode() + b"\0" if "callops" in fixture else b"")
    more.append(Section(".strings", wanted, flags=ALLOC, addr=start + 0xD_0000))
    return Path(written(tmp_path / f"kernel-{fixture}", extended(file, more)))


def test_a_new_symbol_is_taken_from_the_kernel(tmp_path: Path, enable: Enable) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"), Export("kernel_hook"))
    found = enable(ARM64, "--func", "mini_work", "--hook", "kernel_hook", "--against", vmlinux)
    assert new_symbols(found) == [
        ("kernel_hook", "SHN_UNDEF", 0, 0, "STT_NOTYPE"), ("ftpatch_call", ".text.ftpatch", 0, 84, "STT_FUNC"),
    ]  # fmt: skip
    assert relocated(found.after, ".rela.text.ftpatch")[0].symbol == "kernel_hook"
    assert content(found.after, ".modinfo") == content(found.before, ".modinfo")
    assert content(found.after, "__versions") == b""


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("nothing", "--hook nothing: no such exported symbol: found nothing of that name, expected a function that the "
                    "kernel or a module given by --against exports"),
        ("vfs_read", "--hook vfs_read: no such exported symbol: found vfs_read in the kernel, but not exported, "
                     "expected a function that the kernel or a module given by --against exports"),
        ("spaced", "--hook spaced: the module does not import the symbol's namespace: found SPACE, expected no "
                   "namespace at all – use a symbol outside namespaces"),
        ("others", "--hook others: the module does not import the symbol's namespace: found module:kvm,kvm-*, "
                   "expected no namespace at all – use a symbol outside namespaces"),
    ],
)  # fmt: skip
def test_a_new_symbol_that_the_loader_would_not_give_is_refused(
    tmp_path: Path, refusal: Refusal, hook: str, message: str
) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"), Export("spaced", namespace="SPACE"),
                     Export("others", namespace="module:kvm,kvm-*"))  # fmt: skip
    assert refusal(ARM64, "--func", "mini_work", "--hook", hook, "--against", vmlinux) == message


def test_a_symbol_for_gpl_modules_is_for_those_alone(tmp_path: Path, enable: Enable, refusal: Refusal) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"), Export("gpl_hook", gpl=True))
    choice = ["--func", "mini_work", "--hook", "gpl_hook", "--against", vmlinux]
    assert new_symbols(enable(ARM64, *choice))[0][0] == "gpl_hook"
    closed = tmp_path / "closed.ko"
    closed.write_bytes(ARM64.read_bytes().replace(b"license=GPL\0", b"license=BSD\0"))
    assert refusal(closed, *choice) == (
        "--hook gpl_hook: the symbol is exported to GPL modules only: found license BSD, expected a GPL-compatible "
        "licence"
    )


@pytest.mark.parametrize("name", ["mini", "mi*"])
def test_a_symbol_for_some_modules_is_for_those_alone(tmp_path: Path, enable: Enable, name: str) -> None:
    space = f"module:kvm,{name}"
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"), Export("others", namespace=space))
    found = enable(ARM64, "--func", "mini_work", "--hook", "others", "--against", vmlinux)
    assert new_symbols(found)[0][0] == "others"


def versioned(tmp_path: Path, **crcs: int) -> Path:
    """mini.ko of a kernel that compares versions."""
    rows = b"".join(struct.pack("<Q56s", crc, name.encode()) for name, crc in crcs.items())
    file = extended(ARM64.read_bytes(), [Section("__versions", rows, flags=ALLOC, align=8)])
    magic = b"vermagic=0.0.0-mini SMP mod_unload "
    old = file.index(magic)
    info = content(file, ".modinfo")
    new = info.replace(b"mod_unload ", b"mod_unload modversions ")
    elf = parsed(file)
    assert old == elf.get_section_by_name(".modinfo")["sh_offset"]
    head = struct.unpack_from("<Q", file, 40)[0] + 64 * index_of(file, ".modinfo")
    changed = bytearray(file + new)
    struct.pack_into("<QQ", changed, head + 24, len(file), len(new))
    return Path(written(tmp_path / "versioned.ko", changed))


def test_a_new_symbol_brings_its_version(tmp_path: Path, enable: Enable) -> None:
    module = versioned(tmp_path, module_layout=7, _printk=0x92991598)
    exports = [Export("module_layout", crc=7), Export("_printk", crc=0x92991598), Export("hook", crc=0xFEDCBA98)]
    vmlinux = kernel(tmp_path, "vmlinux-callops", *exports, crcs=True)
    found = enable(module, "--func", "mini_work", "--hook", "hook", "--against", vmlinux)
    assert content(found.after, "__versions") == content(found.before, "__versions") + struct.pack(
        "<Q56s", 0xFEDCBA98, b"hook"
    )
    assert len(content(found.after, "__versions")) == 3 * 64


def test_a_symbol_that_is_used_already_brings_no_second_version(tmp_path: Path, enable: Enable) -> None:
    module = versioned(tmp_path, module_layout=7, _printk=0x92991598)
    exports = [Export("module_layout", crc=7), Export("_printk", crc=0x92991598)]
    vmlinux = kernel(tmp_path, "vmlinux-callops", *exports, crcs=True)
    found = enable(module, "--func", "mini_work", "--hook", "_printk", "--against", vmlinux)
    assert content(found.after, "__versions") == content(found.before, "__versions")


def test_a_module_without_versions_gets_no_new_symbol_where_they_are_compared(tmp_path: Path, refusal: Refusal) -> None:
    module = versioned(tmp_path)
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"), Export("hook", crc=1), crcs=True)
    bare = without(module, "__versions", tmp_path / "bare.ko")
    said = refusal(bare, "--func", "mini_work", "--hook", "hook", "--against", vmlinux)
    assert said.startswith("M: the kernel would not load this module, or crash in it: found ")


def helper_module(tmp_path: Path, name: str = "help-er", machine: int = 183) -> Path:
    """A module that exports `helper_hook`."""
    elf = Elf(ET_REL, machine)
    text = elf.section(".text", bytes(16), flags=ALLOC | EXEC, align=8)
    info = f"name={name.replace('-', '_')}\0depends=\0license=GPL\0".encode() if name else b"license=GPL\0"
    elf.section(".modinfo", info, flags=ALLOC)
    strings = elf.section("__ksymtab_strings", b"helper_hook\0\0", flags=ALLOC)
    table = elf.section("__ksymtab", bytes(12), flags=ALLOC, align=4)
    kind = 261 if machine == 183 else 26  # R_AARCH64_PREL32, R_PPC64_REL32
    rows = rela(0, kind, 0, 3) + rela(4, kind, 0, 2) + rela(8, kind, 12, 2)
    elf.section(".rela__ksymtab", rows, type=RELA, link=6, info=table, align=8, entsize=24)
    elf.symbol("", text, 0, type=SECTION, bind=LOCAL)
    elf.symbol("", strings, 0, type=SECTION, bind=LOCAL)
    elf.symbol("helper_hook", text, 0, 16)
    return Path(written(tmp_path / f"{name}.ko", elf.build()))


def test_another_modules_export_makes_a_dependency(tmp_path: Path, enable: Enable) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"))
    helper = helper_module(tmp_path)
    found = enable(ARM64, "--func", "mini_work", "--hook", "helper_hook", "--against", vmlinux, "--against", helper)
    assert content(found.after, ".modinfo") == content(found.before, ".modinfo").replace(
        b"depends=\0", b"depends=help_er\0"
    )
    assert found.image["notes"] == [
        LEAVES,
        "depends= now names help_er: run depmod so that modprobe loads it first; insmod needs it loaded by hand",
        IN_ANY_CONTEXT,
    ]
    assert content(found.after, "__versions") == b""


def test_a_dependency_that_is_there_already_is_not_repeated(tmp_path: Path, enable: Enable) -> None:
    vmlinux, helper = kernel(tmp_path, "vmlinux-callops", Export("_printk")), helper_module(tmp_path)
    choice = ["--hook", "helper_hook", "--against", vmlinux, "--against", helper]
    first = enable(ARM64, "--func", "mini_work", *choice, out="first.ko")
    second = enable(first.path, "--func", "mini_util", *choice, out="second.ko")
    assert content(second.after, ".modinfo") == content(first.after, ".modinfo")
    assert [name for name, *_ in new_symbols(second)] == ["ftpatch_call"]


def test_an_exporter_without_a_name_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    """Its depends= would have been left out."""
    vmlinux, helper = kernel(tmp_path, "vmlinux-callops", Export("_printk")), helper_module(tmp_path, "")
    assert refusal(
        ARM64, "--func", "mini_work", "--hook", "helper_hook", "--against", vmlinux, "--against", helper
    ) == (f"{helper}: a module that exports the symbol has no name: expected name= in its .modinfo")


def test_a_dependency_may_be_spelt_with_a_dash(tmp_path: Path, enable: Enable) -> None:
    """depends= holds names of files; `help-er` was joined by `help_er`."""
    vmlinux, helper = kernel(tmp_path, "vmlinux-callops", Export("_printk")), helper_module(tmp_path)
    choice = ["--func", "mini_work", "--hook", "helper_hook", "--against", vmlinux, "--against", helper]
    first = enable(ARM64, *choice, out="first.ko")
    dashed = tmp_path / "dashed.ko"
    dashed.write_bytes(first.after.replace(b"depends=help_er\0", b"depends=help-er\0"))
    found = enable(dashed, "--func", "mini_util", *choice[2:])
    assert content(found.after, ".modinfo") == content(dashed.read_bytes(), ".modinfo")


def test_several_new_symbols_add_up(tmp_path: Path) -> None:
    """A stub of the user's own may use many; each version row replaced the one before, and so did each dependency."""
    editor = Editor(open_image(str(versioned(tmp_path, module_layout=7))))
    for name, crc, exporter in ("one", 1, "first"), ("two", 2, "second"), ("three", 3, "first"):
        add_import(editor, Import(name, crc, exporter))
    assert editor.content(editor.image.sections_named("__versions")[0])[64:] == b"".join(
        struct.pack("<Q56s", crc, name) for name, crc in ((b"one", 1), (b"two", 2), (b"three", 3))
    )
    info = editor.content(editor.image.sections_named(".modinfo")[0])
    assert b"depends=first,second\0" in info


# -- ppc64le -----------------------------------------------------------------------------------------------------------

# (function, section, site) of the ppc64le mini.ko, in the order of the slots
PPC_SITES = [
    ("mini_util", ".text", 0x140), ("mini_probe_one", ".init.text", 0xC0), ("mini_complain", ".text.unlikely", 0x10),
    ("mini_util_probe", ".init.text", 0x100), ("mini_first", ".init.text", 0x10), ("mini_step", ".text", 0x10),
    ("mini_work", ".text", 0x90), ("mini_init", ".init.text", 0x40),
]  # fmt: skip


def test_ppc64le_trampolines_have_no_name_without_a_kernel(refusal: Refusal) -> None:
    assert refusal(PPC64LE, "--func", "mini_work") == (
        "M: ftrace_caller cannot be named in a module of this machine: found no kernel to take its address from, "
        "expected --against VMLINUX, the kernel that will load it – --hook SYMBOL works without one"
    )


def check_stubs(found: Patched, sites: Sequence[tuple[str, str, int]], first: int, literal: int) -> None:
    """Every site branches to a stub of its own that calls the code at the section's start and leads back behind it."""
    for init in (False, True):
        mine = [one for one in sites if one[1].startswith(".init") == init]
        text, suffix = (".init.text.ftpatch", "_init") if init else (".text.ftpatch", "")
        rows = {one.offset: one for one in relocated(found.after, f".rela{text}")}
        for number, (_, section, site) in enumerate(mine):
            start = number * (literal + 16)
            assert words(found.after, section, site, 1) == [PPC_B]
            assert (site, REL24, f"ftpatch_stubs{suffix}", start + literal) in new_relocations(found, f".rela{section}")
            at = first + start + literal
            assert words(found.after, text, at, 4) == [MFLR_R0, PPC_BL, MTLR_R0, PPC_B]
            home = index_of(found.after, text)
            assert rows[at + 4] == Relocation(home, at + 4, REL24, f"ftpatch_call{suffix}", 0)
            assert rows[at + 12] == Relocation(home, at + 12, REL24, section, site + 4)
            if literal:
                assert rows[at - 8] == Relocation(home, at - 8, ADDR64, "ftpatch_ops", 0)


def test_ppc64le_sites_call_a_hook_from_stubs_of_their_own(enable: Enable) -> None:
    found = enable(PPC64LE, "--func", "*", "--hook", "_printk")
    modules = MODULES["ppc64le"]
    assert modules is not None
    hook = modules.hook(True, ())
    check_stubs(found, PPC_SITES, 4 * len(hook.words) + 7 & ~7, 0)
    for text in (".text.ftpatch", ".init.text.ftpatch"):
        assert words(found.after, text, 0, len(hook.words)) == list(hook.words)
        home = index_of(found.after, text)
        assert relocated(found.after, f".rela{text}")[:2] == [
            Relocation(home, 0, REL64, ".TOC.", -68), Relocation(home, hook.fixups[1].off, REL24, "_printk", 0),
        ]  # fmt: skip
    assert records(found.after) == []
    assert "ftpatch_ops" not in [name for name, *_ in new_symbols(found)]


def test_ppc64le_sites_call_the_kernels_entry_by_a_trampoline_of_this_kernel(tmp_path: Path, enable: Enable) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-ool", Export("_printk"), folder=MINI_PPC)
    found = enable(PPC64LE, "--func", "*", "--against", vmlinux)
    check_stubs(found, PPC_SITES, 24, 8)
    file = vmlinux.read_bytes()
    distance = symbol(file, "ftrace_caller") - symbol(file, ".TOC.")
    high, low = (distance + 0x8000 >> 16) & 0xFFFF, distance & 0xFFFF
    code = [0xE98D0010, 0x3D8C0000 | high, 0x398C0000 | low, 0x7D8903A6, 0x4E800420, 0]
    for text in (".text.ftpatch", ".init.text.ftpatch"):  # ld r12,16(r13); addis, addi r12; mtctr r12; bctr
        assert words(found.after, text, 0, 6) == code
    assert content(found.after, ".data.ftpatch") == bytes(256)
    assert words(found.after, ".text.ftpatch.ops", 0, 1) == [0x4E800020]  # blr
    assert found.image["notes"] == [
        LEAVES,
        "the trampoline holds constants of this very kernel (build-id "
        f"{found_build_id(vmlinux)}): vermagic and symbol versions do not tell another build of the same version, on "
        "which the module would jump to a wrong address",
        NO_OPS,
    ]


def found_build_id(path: Path) -> str:
    for section in parsed(path.read_bytes()).iter_sections():
        if section["sh_type"] == "SHT_NOTE":
            for note in section.iter_notes():
                if note["n_type"] == "NT_GNU_BUILD_ID":
                    return str(note["n_desc"])
    return "none"


def test_the_kernels_other_entry_needs_no_second_ops(tmp_path: Path, enable: Enable) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-ool", Export("_printk"), folder=MINI_PPC)
    choice = ["--func", "mini_work", "--against", vmlinux, "--target", "ftrace_regs_caller"]
    found = enable(PPC64LE, *choice)
    file = vmlinux.read_bytes()
    distance = symbol(file, "ftrace_regs_caller") - symbol(file, ".TOC.")
    assert words(found.after, ".text.ftpatch", 8, 1) == [0x398C0000 | distance & 0xFFFF]


# -- reports -----------------------------------------------------------------------------------------------------------


def rebuilt(start: bytes, edits: list[dict[str, Any]], old: str, new: str) -> bytes:
    """The edits applied by hand, in one direction: each must find what it replaces."""
    file = bytearray(start)
    for edit in edits if new == "new" else reversed(edits):
        before, after, pos = bytes.fromhex(edit[old]), bytes.fromhex(edit[new]), edit["pos"]
        assert file[pos : pos + len(before)] == before
        if len(before) == len(after) or not edit["old"]:
            file[pos : pos + len(before)] = after
    return bytes(file)


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (ARM64, ["--func", "*"]), (ARM64, ["--func", "mini_util"]), (ARM64, ["--func", "mini_i*", "--hook", "_printk"]),
        (PPC64LE, ["--func", "*", "--hook", "_printk"]), (PPC64LE, ["--func", "mini_first", "--hook", "_printk"]),
    ],
)  # fmt: skip
def test_the_journal_leads_from_the_input_to_the_output_and_back(
    enable: Enable, source: Path, options: list[str]
) -> None:
    found = enable(source, *options)
    edits = found.image["edits"]
    assert rebuilt(found.before, edits, "old", "new") == found.after
    assert rebuilt(found.after, edits, "new", "old") == found.before
    assert [edit["pos"] for edit in edits] == sorted(edit["pos"] for edit in edits)
    assert found.image["done"]["edits"] == len(edits)
    assert found.image["done"]["bytes"] == sum(len(edit["new"]) // 2 for edit in edits)


def test_the_journal_names_the_owner_of_every_edit(enable: Enable) -> None:
    edits = enable(ARM64, "--func", "mini_work").image["edits"]
    assert [edit["owner"] for edit in edits] == [
        "ELF header", "ELF header", "site row:1", "relocation row:1", "relocation row:2", "relocation row:3",
        "relocation row:4", "section 3 .rela.text", "section 20 .symtab", "section 21 .strtab",
        "section 22 .shstrtab", "section 23 .text.ftpatch.ops", "section 24 .data.ftpatch",
        "section 25 .rela.data.ftpatch", "section headers",
    ]  # fmt: skip


def test_the_journal_tells_each_sites_fate(enable: Enable) -> None:
    (site,) = enable(ARM64, "--func", "mini_work").image["sites"]
    assert {key: site[key] for key in ("action", "reason", "target", "distance", "new_words", "record_fate", "literal",
                                       "stub", "concurrency")} == {
        "action": "call_via_stub", "reason": "the loader's jump, filled when the module is loaded",
        "target": "ftrace_caller", "distance": None, "new_words": ["0xaa1e03e9", "0x94000000"], "record_fate": "cut",
        "literal": "ftpatch_ops", "stub": f"{TRAMPOLINE}+0x0", "concurrency": "pair",
    }  # fmt: skip
    image = enable(PPC64LE, "--func", "mini_work", "--hook", "_printk").image
    assert image["sites"][0]["stub"] == ".text.ftpatch+0xc0" and image["sites"][0]["concurrency"] == "single"
    assert image["request"] == {
        "target": "hook _printk", "target_va": None, "ops": None, "ops_via": "none", "records": "shrink",
        "records_why": CUT.removeprefix("shrink: "),
    }  # fmt: skip


def test_the_text_report_of_an_arm64_module(enable: Enable) -> None:
    found = enable(ARM64, "--func", "mini_work", "--func", "mini_init")
    new, done = "d503201f d503201f -> aa1e03e9 94000000", found.image["done"]
    assert (
        found.text
        == f"""\
{ARM64}: arm64 module, build-id 7d50d5f2661eae9b12414c9f97dbe6f75c348626
  sites      2 enabled, calling ftrace_caller
  ops        ftpatch_ops by literal
  records    {CUT}
    mini_work (row 1, .text+0x58): {new}, to {TRAMPOLINE}+0x0, by relocation; record cut
    mini_init (row 2, .init.text+0x8): {new}, to {INIT_TRAMPOLINE}+0x0, by relocation; record cut
  output     {found.path} written and checked; {done["edits"]} edits, {done["bytes"]} bytes
  live       no in the loaded module: nop -> mov x9, x30 may be changed only where nobody executes it. But for
             that, in this order:
             1. stubs and pads, which nothing leads to yet; the caches are cleaned, so that all processors see
             them
             2. ops pointers, one aligned store of eight bytes each
             3. the first word of each site, where nobody executes it: before other processors run or the code
             does, or with all of them stopped; then every processor synchronises its instruction fetch
             4. the call of each site, one aligned word
  note       {LEAVES}
  note       {NO_OPS}
"""
    )


def test_the_text_report_of_a_ppc64le_module(enable: Enable) -> None:
    found = enable(PPC64LE, "--func", "mini_work", "--func", "mini_first", "--hook", "_printk")
    done = found.image["done"]
    assert (
        found.text
        == f"""\
{PPC64LE}: ppc64le module, build-id 9618c4bf25675ed3b866634344eed576989a1352
  sites      2 enabled, calling hook _printk
  records    {CUT}
    mini_first (row 4, .init.text+0x10): 60000000 -> 48000000, to .init.text.ftpatch+0xc0, by relocation; record cut
    mini_work (row 6, .text+0x90): 60000000 -> 48000000, to .text.ftpatch+0xc0, by relocation; record cut
  output     {found.path} written and checked; {done["edits"]} edits, {done["bytes"]} bytes
  live       yes in the loaded module, in this order:
             1. stubs and pads, which nothing leads to yet; the caches are cleaned, so that all processors see
             them
             2. the jump of each site, one aligned word
  note       {LEAVES}
  note       {IN_ANY_CONTEXT}
"""
    )


def test_a_dry_run_writes_nothing_and_tells_the_same(enable: Enable, ftpatch: Callable[..., str]) -> None:
    found = enable(ARM64, "--func", "mini_work")
    found.path.unlink()
    text = ftpatch("enable", ARM64, "--func", "mini_work", "-o", found.path, "--dry-run")
    assert text == found.text.replace(f"{found.path} written and checked", "nothing written (dry run)")
    assert not found.path.exists()


def test_the_same_input_gives_the_same_bytes(enable: Enable) -> None:
    one, two = (enable(ARM64, "--func", "*", out=f"{name}.ko") for name in ("one", "two"))
    assert one.after == two.after and one.image["edits"] == two.image["edits"]


def test_nothing_open_changes_nothing(enable: Enable, ftpatch: Callable[..., str]) -> None:
    first = enable(ARM64, "--func", "mini_work", out="first.ko")
    again = enable(first.path, "--func", "mini_work", "--skip-unpatchable", out="again.ko")
    assert again.after == first.after
    assert again.image["edits"] == [] and again.image["notes"] == []
    assert [(site["action"], site["reason"]) for site in again.image["sites"]] == [("keep", "already enabled")]


# -- execution ---------------------------------------------------------------------------------------------------------

AREA = 0x1000  # bytes between sections of a module that is loaded
HOME = 0x1000_0000


class Loaded:
    """A module in memory: sections at addresses, relocations applied as the kernel's loaders do."""

    def __init__(self, file: bytes, outside: dict[str, int]) -> None:
        elf = parsed(file)
        self.base = {name: HOME + AREA * sec for sec, name in enumerate(one.name for one in elf.iter_sections())}
        self.memory = bytearray(AREA * elf.num_sections())
        self.symbols: dict[str, int] = {}
        values = []
        for one in elf.get_section_by_name(".symtab").iter_symbols():
            sec = one["st_shndx"]
            inside = isinstance(sec, int)
            value = HOME + AREA * sec + one["st_value"] if inside else outside.get(one.name, 0)
            local = (1 << (one["st_other"]["local"] or 0)) >> 2 << 2 if inside else 0
            values.append((value, local))
            self.symbols[one.name] = value
        for sec, one in enumerate(elf.iter_sections()):
            if one["sh_flags"] & ALLOC and one["sh_type"] == "SHT_PROGBITS":
                self.memory[AREA * sec : AREA * sec + one["sh_size"]] = one.data()
        for table in elf.iter_sections("SHT_RELA"):
            for row in table.iter_relocations():
                place = AREA * table["sh_info"] + row["r_offset"]
                value, local = values[row["r_info_sym"]]
                self.apply(row["r_info_type"], place, value + row["r_addend"], local)

    def put(self, place: int, mask: int, value: int) -> None:
        (old,) = struct.unpack_from("<I", self.memory, place)
        struct.pack_into("<I", self.memory, place, old & ~mask | value & mask)

    def apply(self, kind: int, place: int, value: int, local: int) -> None:
        distance = value - (HOME + place)
        if kind in (CALL26, 282):  # and JUMP26
            self.put(place, 0x3FF_FFFF, distance >> 2)
        elif kind in (ABS64, ADDR64):
            struct.pack_into("<Q", self.memory, place, value)
        elif kind == 275:  # ADR_PREL_PG_HI21
            pages = (value >> 12) - (HOME + place >> 12)
            self.put(place, 0x60FF_FFE0, (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5)
        elif kind in (277, 285):  # ADD_ABS_LO12_NC, LDST32_ABS_LO12_NC
            self.put(place, 0x3F_FC00, (value & 0xFFF) >> (2 if kind == 285 else 0) << 10)
        elif kind == REL24:
            self.put(place, 0x3FF_FFFC, distance + local)
        elif kind == REL64:
            struct.pack_into("<q", self.memory, place, distance)
        else:
            assert kind in (50, 64, 118), kind  # TOC16_HA, TOC16_LO_DS, ENTRY: of code that no test runs


def emulator(module: str = "unicorn") -> Any:
    """The package unicorn, or a part of it; skips without it."""
    return pytest.importorskip(module, reason="pip install unicorn runs this")


CALLER, HOOK, STACK = 0x1400_0000, 0x1400_1000, 0x3000_8000


def run_arm64(module: Loaded, entry: int, calls: list[tuple[int, int]], stops: Sequence[int] = ()) -> Any:
    """Call a function with a value of its own in every register; the emulator, and calls of the hook as they come."""
    unicorn, reg = emulator(), emulator("unicorn.arm64_const")
    cpu = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    cpu.mem_map(HOME, 0x10_0000)
    cpu.mem_map(CALLER, 0x2000)
    cpu.mem_map(STACK - 0x8000, 0x1_0000)
    cpu.mem_write(HOME, bytes(module.memory))
    cpu.mem_write(HOOK, struct.pack("<I", RET))
    for n in range(31):
        cpu.reg_write(getattr(reg, f"UC_ARM64_REG_X{n}"), 0x1111_0000 + n)
    cpu.reg_write(reg.UC_ARM64_REG_X0, 3)
    cpu.reg_write(reg.UC_ARM64_REG_SP, STACK)
    cpu.reg_write(reg.UC_ARM64_REG_LR, CALLER)

    def hooked(cpu: Any, address: int, size: int, data: object) -> None:
        if address == HOOK:
            calls.append((cpu.reg_read(reg.UC_ARM64_REG_X0), cpu.reg_read(reg.UC_ARM64_REG_X1)))
            for n in range(18):
                cpu.reg_write(getattr(reg, f"UC_ARM64_REG_X{n}"), 0xDEAD_0000 + n)
        elif address in stops:
            cpu.emu_stop()

    cpu.hook_add(unicorn.UC_HOOK_CODE, hooked)
    cpu.emu_start(entry, CALLER, count=100_000)
    return cpu


def registers(cpu: Any, numbers: Sequence[int]) -> list[int]:
    reg = emulator("unicorn.arm64_const")
    return [cpu.reg_read(getattr(reg, f"UC_ARM64_REG_X{n}")) for n in numbers]


def test_an_arm64_hook_is_told_the_site_and_the_caller_and_the_function_goes_on(enable: Enable) -> None:
    reg = emulator("unicorn.arm64_const")
    plain = run_arm64(Loaded(ARM64.read_bytes(), {}), Loaded(ARM64.read_bytes(), {}).symbols["mini_work"], [])
    found = enable(ARM64, "--func", "mini_work", "--func", "mini_step", "--func", "mini_util", "--hook", "_printk")
    module, calls = Loaded(found.after, {"_printk": HOOK}), list[tuple[int, int]]()
    text = module.base[".text"]
    cpu = run_arm64(module, text + 0x58, calls)
    assert registers(cpu, [0]) == registers(plain, [0]) != [3]
    assert cpu.reg_read(reg.UC_ARM64_REG_PC) == CALLER and cpu.reg_read(reg.UC_ARM64_REG_SP) == STACK
    assert registers(cpu, range(18, 30)) == [0x1111_0000 + n for n in range(18, 30)]
    step, util = (text + 0xC, text + 0x8C), (text + 0xC4, text + 0x20)
    assert calls == [(text + 0x5C, CALLER), step, util, step, util, step, util]


def test_an_arm64_hook_keeps_every_register_of_the_contract(enable: Enable) -> None:
    reg = emulator("unicorn.arm64_const")
    found = enable(ARM64, "--func", "mini_util", "--hook", "_printk")
    module, calls = Loaded(found.after, {"_printk": HOOK}), list[tuple[int, int]]()
    entry = module.symbols["mini_util"]
    cpu = run_arm64(module, entry, calls, stops=[entry + 8])
    assert cpu.reg_read(reg.UC_ARM64_REG_PC) == entry + 8 and calls == [(entry + 4, CALLER)]
    kept = [*range(1, 9), *range(18, 30)]
    assert registers(cpu, kept) == [0x1111_0000 + n for n in kept]
    assert registers(cpu, [0, 30]) == [3, CALLER]
    assert cpu.reg_read(reg.UC_ARM64_REG_SP) == STACK


def test_at_the_loaders_jump_the_ops_are_where_the_kernel_looks(enable: Enable) -> None:
    """ftrace_caller takes the pointer 16 bytes below the aligned return address, and calls what the ops point to."""
    found = enable(ARM64, "--func", "mini_util")
    module = Loaded(found.after, {})
    entry, jump = module.symbols["mini_util"], module.base[TRAMPOLINE]
    cpu = run_arm64(module, entry, [], stops=[jump])
    (link,) = registers(cpu, [30])
    assert (link, registers(cpu, [9])) == (entry + 8, [CALLER])
    (ops,) = struct.unpack("<Q", cpu.mem_read((link & ~7) - 16, 8))
    assert ops == module.base[".data.ftpatch"]
    (function,) = struct.unpack("<Q", cpu.mem_read(ops, 8))
    assert struct.unpack("<2I", cpu.mem_read(function, 8)) == (BTI_C, RET)


# A function behind a site: all registers into a buffer, which is written to stdout. r12 alone is lost for that.
def std(n: int, at: int, base: int) -> int:
    return 0xF800_0000 | n << 21 | base << 16 | at


def li(n: int, value: int) -> list[int]:
    """lis rN; ori rN,rN of 31 bits."""
    return [0x3C00_0000 | n << 21 | value >> 16, 0x6000_0000 | n << 21 | n << 16 | value & 0xFFFF]


BUFFER, TOC, LINK, SC, BLR = HOME + 0xE_0000, HOME + 0xC_8000, 0x7D68_02A6, 0x4400_0002, 0x4E80_0020
SHOW = [
    *li(12, BUFFER), *(std(n, 8 * n, 12) for n in range(32) if n != 12), LINK, std(11, 96, 12),
    *li(0, 4), *li(3, 1), *li(4, BUFFER), *li(5, 512), SC, *li(0, 1), *li(3, 0), SC,
]  # fmt: skip
TELL = [  # the hook: its arguments and r2 behind the registers, then no volatile register is what it was
    *li(12, BUFFER), std(3, 256, 12), std(4, 264, 12), std(2, 272, 12), std(1, 280, 12), std(12, 16, 1),
    *(word for n in (0, 2, *range(3, 13)) for word in li(n, 0xDEAD)), 0x7D89_03A6, BLR,
]  # fmt: skip


def ppc_source(tmp_path: Path, layout: str) -> Path:
    """A module of a function whose site is followed by SHOW, and a hook."""
    elf = Elf(ET_REL, 21)
    nops = {"ool": [PPC_NOP], "pfe2": [PPC_NOP] * 2}[layout]
    code = struct.pack(f"<{len(nops) + len(SHOW)}I", *nops, *SHOW)
    text = elf.section(".text", code, flags=ALLOC | EXEC, align=16)
    hook = elf.section(".text.hook", struct.pack(f"<{len(TELL)}I", *TELL), flags=ALLOC | EXEC, align=16)
    elf.section(".modinfo", INFO.replace(b"aarch64", b"ppc64le"), flags=ALLOC)
    slots = elf.section("__patchable_function_entries", bytes(8), flags=ALLOC | 1, align=8)
    elf.section(".rela__patchable_function_entries", rela(0, ADDR64, 0, 1), type=RELA, link=6, info=slots, align=8,
                entsize=24)  # fmt: skip
    elf.symbol("", text, 0, type=SECTION, bind=LOCAL)
    elf.symbol("f", text, 0, len(code))
    elf.symbol("tell", hook, 0, 4 * len(TELL))
    elf.symbol(".TOC.", 0, 0, type=NOTYPE)
    return Path(written(tmp_path / f"{layout}.ko", elf.build()))


@pytest.mark.skipif(shutil.which("qemu-ppc64le") is None, reason="apt-get install qemu-user runs this")
@pytest.mark.parametrize("layout", ["ool", "pfe2"])
def test_a_ppc64le_hook_is_told_the_site_and_the_caller_and_keeps_every_register(
    tmp_path: Path, enable: Enable, layout: str
) -> None:
    """In user mode: the module's sections as one program, entered by code that fills all registers."""
    found = enable(ppc_source(tmp_path, layout), "--func", "f", "--hook", "tell")
    assert found.image["layout"] == layout
    module = Loaded(found.after, {".TOC.": TOC})
    stack, caller = HOME + 0xD_0000, HOME + 0xF_0000
    values = {1: stack} | {n: 0x1111_0000 + n for n in range(2, 32) if n not in (11, 12, 13)}
    entry = [*li(11, caller), 0x7D68_03A6, *li(12, module.symbols["f"]), 0x7D89_03A6]  # mtlr r11; mtctr r12
    entry += [word for n, value in values.items() for word in li(n, value)] + [0x4E80_0420]  # bctr
    program = bytearray(0x10_0000)
    program[: len(module.memory)] = module.memory
    program[0xF_8000 : 0xF_8000 + 4 * len(entry)] = struct.pack(f"<{len(entry)}I", *entry)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 21, 1, HOME + 0xF_8000, 64, 0, 2, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0x1_0000, HOME, HOME, len(program), len(program), 0x1_0000)
    path = tmp_path / "program"
    path.write_bytes((head + segment).ljust(0x1_0000, b"\0") + program)
    path.chmod(0o755)
    done = subprocess.run(["qemu-ppc64le", str(path)], capture_output=True, check=False, timeout=60)
    assert (done.returncode, len(done.stdout)) == (0, 512), done.stderr
    seen = struct.unpack("<64Q", done.stdout)
    kept = [n for n in values if n not in (0, 11, 12)]
    assert {n: hex(seen[n]) for n in kept} == {n: hex(values[n]) for n in kept}
    assert seen[12] == caller  # LR, by way of r11
    branch = module.symbols["f"] + (4 if layout == "pfe2" else 0)
    assert [hex(seen[n]) for n in (32, 33, 34)] == [hex(branch), hex(caller), hex(TOC)]
    assert stack - seen[35] == 176  # one frame for the function, one of the stub's own
