"""Redirects in modules, planned: words, relocations, stubs and symbols, and what stands in the way."""

from __future__ import annotations

import json
import lzma
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from elfedit import SYM, Elf
from elfwriter import parsed, relocated, written
from test_module import (
    ARM64,
    PPC64LE,
    Export,
    arm64_module,
    content,
    helper_module,
    kernel,
    ppc_module,
    versioned,
    words,
)

from ftpatch import api
from ftpatch.cli import run
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.errors import SelectionError, UsageError
from ftpatch.plan.plan import Plan
from ftpatch.plan.redirect import arguments
from ftpatch.plan.redirect.refusals import Substitute
from ftpatch.plan.request import DisableRequest, RedirectRequest, new_draft

JUMP26, REL24, REL16_LO, REL16_HA = 282, 10, 250, 252
B_A64, NOP_A64, B_PPC, NOP_PPC, MFLR_R0 = 0x14000000, 0xD503201F, 0x48000000, 0x60000000, 0x7C0802A6
# the stubs, by the Power ISA: book I, 2.4, 3.3.2, 3.3.9, 3.3.17
ENTER = [
    MFLR_R0, 0x429F0005, 0x7D8802A6, 0x7C0803A6,  # mflr r0; bcl 20,31,$+4; mflr r12; mtlr r0
    0x3D8C0000, 0x398C0000, 0x7D8903A6, 0x4E800420,  # addis r12,r12,BAR@ha; addi r12,r12,BAR@l; mtctr r12; bctr
]  # fmt: skip
FRAME = [MFLR_R0, 0xF8010010, 0xF821FFD1, 0xF8410028]  # mflr r0; std r0,16(r1); stdu r1,-48(r1); std r2,40(r1)
OWN_TOC = [0x429F0005, 0x7D8802A6, 0x3C4C0000, 0x38420000]  # bcl; mflr r12; addis r2,r12,.TOC.@ha; addi r2,r2,.TOC.@l
BACK = [
    0x48000001, NOP_PPC, 0xE8410028, 0x38210030,  # bl BAR; nop; ld r2,40(r1); addi r1,r1,48
    0xE8010010, 0x7C0803A6, 0x4E800020,  # ld r0,16(r1); mtlr r0; blr
]  # fmt: skip
CALL, CALL_WITH_TOC = [*FRAME, *BACK], [*FRAME, *OWN_TOC, *BACK]


class Row(NamedTuple):
    """A relocation: (place, type, symbol, addend)."""

    offset: int
    type: int
    symbol: str
    addend: int


@dataclass(frozen=True)
class Redirected:
    """A plan, and the file that its edits make."""

    plan: Plan
    before: bytes
    after: bytes

    def new_rows(self, section: str) -> list[Row]:
        """The relocations of a section that were not there, or not so."""
        old = relocated(self.before, f".rela{section}")
        new = relocated(self.after, f".rela{section}")
        return [Row(row.offset, row.type, row.symbol, row.addend) for row in new if row not in old]

    def new_symbols(self) -> list[tuple[str, str | int, int, int, str]]:
        """(name, section, value, size, type) of the symbols behind the old ones, all of them global."""
        old, elf = parsed(self.before).get_section_by_name(".symtab").num_symbols(), parsed(self.after)
        symbols = []
        for symbol in list(elf.get_section_by_name(".symtab").iter_symbols())[old:]:
            assert (symbol["st_info"]["bind"], symbol["st_other"]["local"]) == ("STB_GLOBAL", 0)
            sec = symbol["st_shndx"]
            where = elf.get_section(sec).name if isinstance(sec, int) else sec
            symbols.append((symbol.name, where, symbol["st_value"], symbol["st_size"], symbol["st_info"]["type"]))
        return symbols

    def new_sections(self) -> list[str]:
        old = parsed(self.before).num_sections()
        return [section.name for section in list(parsed(self.after).iter_sections())[old:]]

    def words(self, section: str, off: int = 0, n: int | None = None) -> list[int]:
        return words(self.after, section, off, len(content(self.after, section)) // 4 if n is None else n)


def planned(path: str | Path, *pairs: tuple[str, str], **options: Any) -> Plan:
    scan = api.scan(str(path))
    chosen, _ = api.by_selectors([func for func, _ in pairs])(scan)
    return api.plan_redirect(scan, chosen, pairs, **options)


def redirected(path: str | Path, *pairs: tuple[str, str], **options: Any) -> Redirected:
    return applied(path, planned(path, *pairs, **options))


def applied(path: str | Path, plan: Plan) -> Redirected:
    before = Path(path).read_bytes()
    after = bytearray(before)
    for pos, old, new, _, _ in plan.edits:
        assert before[pos : pos + len(old)] == old
        after[pos : pos + len(new)] = new
    return Redirected(plan, before, bytes(after) + plan.edits.grown)


def module_of(name: str, tmp_path: Path) -> Path:
    """One of the fixtures, whose objects are made modules."""
    machine, _, file = name.partition("/")
    if file == "mini.ko":
        return {"arm64": ARM64, "ppc64le": PPC64LE}[machine]
    return (arm64_module if machine == "arm64" else ppc_module)(tmp_path, file)


# -- a jump to a function of the module --------------------------------------------------------------------------------

# module, FOO, BAR, section of FOO, offset of its site, the words there, what the relocation names
DIRECT = [
    ("arm64/mini.ko", "mini_work", "mini_untraced", ".text", 0x58, [B_A64, NOP_A64]),
    ("arm64/mini.ko", "mini_probe_one", "mini_util", ".init.text", 0x60, [B_A64, NOP_A64]),  # init to core text
    ("arm64/mini.ko", "mini_probe_one", "mini_init", ".init.text", 0x60, [B_A64, NOP_A64]),
    ("arm64/pfe2.o", "vfs_read", "vfs_write", ".text", 0x34, [B_A64, NOP_A64]),
    ("arm64/callops.o", "vfs_read", "slot_probe", ".text", 0x50, [B_A64, NOP_A64]),
    ("arm64/clang-sections.o", "direct_only", "slot_probe", ".text.direct_only", 0, [B_A64, NOP_A64]),
    # two entries each: the loader adds the local entry of the symbol
    ("ppc64le/mini.ko", "mini_work", "mini_step", ".text", 0x90, [B_PPC]),
    ("ppc64le/pfe2.o", "vfs_read", "vfs_write", ".text", 0x58, [B_PPC, NOP_PPC]),
    ("ppc64le/clang.o", "vfs_read", "vfs_write", ".text", 0x48, [B_PPC]),
    # the replacement has one
    ("ppc64le/mini.ko", "mini_work", "mini_util", ".text", 0x90, [B_PPC]),
    ("ppc64le/pfe2.o", "vfs_read", "slot_probe", ".text", 0x58, [B_PPC, NOP_PPC]),
    # both have one
    ("ppc64le/pfe2.o", "direct_only", "slot_probe", ".text", 0, [B_PPC, NOP_PPC]),
    ("ppc64le/clang.o", "direct_only", "slot_probe", ".text", 0x100, [B_PPC]),
]


@pytest.mark.parametrize(("name", "foo", "bar", "sec", "off", "code"), DIRECT)
def test_a_jump_names_the_replacement_itself(
    name: str, foo: str, bar: str, sec: str, off: int, code: list[int], tmp_path: Path
) -> None:
    found = redirected(module_of(name, tmp_path), (foo, bar))
    kind = JUMP26 if name.startswith("arm64") else REL24
    assert found.words(sec, off, len(code)) == code
    assert found.new_rows(sec) == [Row(off, kind, bar, 0)]
    assert [symbol[0] for symbol in found.new_symbols()] == [f"ftpatch_redirected_{foo}"]
    assert ".text.ftpatch" not in found.new_sections()
    plan = found.plan
    assert (plan.action(0), plan.concurrency(0), plan.distance, plan.stub) == ("redirect", "single", None, ("",))
    assert [(to.name, to.va) for to in plan.redirects] == [(bar, None)]
    assert (plan.record, int(plan.gone.sum())) == (("cut",), 1)


@pytest.mark.parametrize(("name", "foo", "sec", "entry"), [
    ("arm64/mini.ko", "mini_work", ".text", 0x58),
    ("ppc64le/mini.ko", "mini_work", ".text", 0x88),
    ("ppc64le/mini.ko", "mini_probe_one", ".init.text", 0xB8),
])  # fmt: skip
def test_a_symbol_marks_the_function_that_leads_elsewhere(
    name: str, foo: str, sec: str, entry: int, tmp_path: Path
) -> None:
    """At the function's own symbol, so that kallsyms, which takes the first of one address, keeps its name."""
    found = redirected(module_of(name, tmp_path), (foo, "mini_util"))
    assert found.new_symbols() == [(f"ftpatch_redirected_{foo}", sec, entry, 0, "STT_NOTYPE")]


def test_the_call_of_mcount_becomes_the_jump(tmp_path: Path) -> None:
    """Its own relocation names the replacement: the kernel would find two at one place. `mflr r0` in front stays."""
    found = redirected(ppc_module(tmp_path, "mprofile.o"), ("vfs_read", "vfs_write"))
    old, new = relocated(found.before, ".rela.text"), relocated(found.after, ".rela.text")
    assert len(old) == len(new)
    assert found.new_rows(".text") == [Row(0x5C, REL24, "vfs_write", 0)]
    assert found.words(".text", 0x58, 2) == [MFLR_R0, B_PPC]
    assert len(content(found.after, "__mcount_loc")) == len(content(found.before, "__mcount_loc")) - 8


@pytest.mark.parametrize("name", ["arm64/mini.ko", "ppc64le/mini.ko"])
@pytest.mark.parametrize("text", ["mini_util", "{place}"])
def test_replacements_are_named_by_place_as_well(name: str, text: str, tmp_path: Path) -> None:
    place = {"arm64/mini.ko": ".text+0xc0", "ppc64le/mini.ko": ".text+0x140"}[name]
    found = redirected(module_of(name, tmp_path), ("mini_work", text.format(place=place)))
    assert [row.symbol for row in found.new_rows(".text")] == ["mini_util"]


@pytest.mark.parametrize("text", ["mini_step@mini_mod.c", "mini_step@drivers/mini_mod.c", ".text+0x8"])
def test_static_functions_are_named_by_their_file(text: str) -> None:
    found = redirected(ARM64, ("mini_work", text))
    assert [row.symbol for row in found.new_rows(".text")] == ["mini_step"]


# -- ppc64le: stubs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "foo", "bar", "off"), [
    ("ppc64le/mini.ko", "mini_util", "mini_untraced", 0x140),
    ("ppc64le/pfe2.o", "direct_only", "vfs_write", 0),
    ("ppc64le/mprofile.o", "direct_only", "vfs_write", 4),
    ("ppc64le/clang.o", "direct_only", "vfs_write", 0x100),
])  # fmt: skip
def test_a_function_with_one_entry_enters_one_with_two_by_its_address(
    name: str, foo: str, bar: str, off: int, tmp_path: Path
) -> None:
    found = redirected(module_of(name, tmp_path), (foo, bar))
    assert found.new_rows(".text") == [Row(off, REL24, f"ftpatch_redirect_{bar}", 0)]
    assert found.words(".text", off, 1) == [B_PPC]
    assert found.words(".text.ftpatch") == ENTER
    assert found.new_rows(".text.ftpatch") == [Row(16, REL16_HA, bar, 8), Row(20, REL16_LO, bar, 12)]
    assert found.new_symbols()[0] == (f"ftpatch_redirect_{bar}", ".text.ftpatch", 0, 32, "STT_FUNC")
    assert found.plan.stub == (".text.ftpatch+0x0",)
    assert found.plan.stub_why == (f"{bar} computes its TOC from r12, which the function is not called with",)


@pytest.mark.parametrize("bar", [0x140, 0x8123, 0x1234_5678])
@pytest.mark.parametrize("stub", [0x1000, 0x0FFF_8000, 0x7000_0000])
def test_the_addends_of_that_stub_make_the_replacements_address(bar: int, stub: int) -> None:
    """As the loader works them out (ELFv2 ABI 3.5.3, #ha and #lo of S + A - P), and the processor adds them."""
    link = stub + 8  # behind the bcl
    ha = (bar + 8 - (stub + 16) + 0x8000) >> 16 & 0xFFFF
    lo = bar + 12 - (stub + 20) & 0xFFFF
    r12 = link + ((ha ^ 0x8000) - 0x8000 << 16) + ((lo ^ 0x8000) - 0x8000)
    assert r12 == bar


@pytest.mark.parametrize(("name", "foo", "off"), [
    ("ppc64le/mini.ko", "mini_work", 0x90),
    ("ppc64le/pfe2.o", "vfs_read", 0x58),
    ("ppc64le/mprofile.o", "vfs_read", 0x5C),
    ("ppc64le/clang.o", "vfs_read", 0x48),
])  # fmt: skip
def test_a_function_of_another_file_is_called_in_a_frame(name: str, foo: str, off: int, tmp_path: Path) -> None:
    bar = "_printk" if "mini" in name else "notrace_helper"
    found = redirected(module_of(name, tmp_path), (foo, bar), assume_register_args=True)
    assert found.new_rows(".text") == [Row(off, REL24, f"ftpatch_redirect_{bar}", 0)]
    assert found.words(".text.ftpatch") == CALL
    assert found.new_rows(".text.ftpatch") == [Row(16, REL24, bar, 0)]
    assert found.new_symbols()[0] == (f"ftpatch_redirect_{bar}", ".text.ftpatch", 0, 44, "STT_FUNC")
    assert found.plan.stub_why == (f"{bar} is in another file, with another TOC: it is called in a frame that keeps "
                                   "this one",)  # fmt: skip


@pytest.mark.parametrize(("name", "foo", "off"), [
    ("ppc64le/mini.ko", "mini_util", 0x140),
    ("ppc64le/pfe2.o", "direct_only", 0),
    ("ppc64le/mprofile.o", "direct_only", 4),
    ("ppc64le/clang.o", "direct_only", 0x100),
])  # fmt: skip
def test_a_function_with_one_entry_calls_it_with_the_modules_toc(name: str, foo: str, off: int, tmp_path: Path) -> None:
    """The loader's own stub finds its address by r2, and such a function is entered with anybody's."""
    bar = "_printk" if "mini" in name else "notrace_helper"
    found = redirected(module_of(name, tmp_path), (foo, bar), assume_register_args=True)
    assert found.new_rows(".text") == [Row(off, REL24, f"ftpatch_redirect_toc_{bar}", 0)]
    assert found.words(".text.ftpatch") == CALL_WITH_TOC
    assert found.new_rows(".text.ftpatch") == [
        Row(24, REL16_HA, ".TOC.", 4), Row(28, REL16_LO, ".TOC.", 8), Row(32, REL24, bar, 0),
    ]  # fmt: skip


def test_stubs_serve_many_functions_and_init_text_has_its_own() -> None:
    found = redirected(PPC64LE, *((func, "_printk") for func in ("mini_work", "mini_step", "mini_util", "mini_first",
                                  "mini_probe_one", "mini_complain")), assume_register_args=True)  # fmt: skip
    assert found.new_rows(".text") == [
        Row(0x140, REL24, "ftpatch_redirect_toc__printk", 0), Row(0x10, REL24, "ftpatch_redirect__printk", 0),
        Row(0x90, REL24, "ftpatch_redirect__printk", 0),
    ]  # fmt: skip
    assert [row.symbol for row in found.new_rows(".text.unlikely")] == ["ftpatch_redirect__printk"]
    assert [row.symbol for row in found.new_rows(".init.text")] == 2 * ["ftpatch_redirect__printk_init"]
    assert found.words(".init.text.ftpatch") == CALL
    assert sorted(symbol[:3] for symbol in found.new_symbols() if symbol[3]) == [
        ("ftpatch_redirect__printk", ".text.ftpatch", 0x40),
        ("ftpatch_redirect__printk_init", ".init.text.ftpatch", 0),
        ("ftpatch_redirect_toc__printk", ".text.ftpatch", 0),
    ]


# -- functions of other files ------------------------------------------------------------------------------------------


def test_arm64_jumps_to_what_other_files_export() -> None:
    """The loader makes the way there, by x16: a tail jump, which leaves the stack as it is."""
    found = redirected(ARM64, ("mini_work", "_printk"))
    assert found.new_rows(".text") == [Row(0x58, JUMP26, "_printk", 0)]
    assert [symbol[0] for symbol in found.new_symbols()] == ["ftpatch_redirected_mini_work"]
    assert found.plan.warnings[0] == "the signature of _printk is not known: no file with it was given (--against)"


# -- back again --------------------------------------------------------------------------------------------------------


def rows_of(file: bytes) -> list[Row]:
    return sorted(Row(row.offset, row.type, row.symbol, row.addend) for row in relocated(file, ".rela.text"))


@pytest.mark.parametrize(("name", "foo", "bar"), [
    ("arm64/mini.ko", "mini_work", "mini_untraced"), ("arm64/mini.ko", "mini_work", "_printk"),
    ("arm64/pfe2.o", "vfs_read", "vfs_write"), ("ppc64le/mini.ko", "mini_util", "mini_untraced"),
    ("ppc64le/mini.ko", "mini_work", "_printk"), ("ppc64le/pfe2.o", "vfs_read", "slot_probe"),
    ("ppc64le/pfe2.o", "direct_only", "notrace_helper"), ("ppc64le/clang.o", "direct_only", "notrace_helper"),
])  # fmt: skip
def test_disable_gives_words_relocations_and_record_back(name: str, foo: str, bar: str, tmp_path: Path) -> None:
    """Without a journal: by what the file shows."""
    found = redirected(module_of(name, tmp_path), (foo, bar), assume_register_args=True)
    back = disabled(written(tmp_path / "redirected.ko", found.after), foo)
    assert content(back.after, ".text") == content(found.before, ".text")
    assert rows_of(back.after) == rows_of(found.before)
    table = ".rela__patchable_function_entries"
    old, new = ([(row.symbol, row.addend) for row in relocated(file, table)] for file in (found.before, back.after))
    assert sorted(old) == sorted(new)
    assert (back.plan.action(0), back.plan.record) == ("restore", ("returned",))


def disabled(path: str, *funcs: str) -> Redirected:
    scan = api.scan(path)
    chosen, _ = api.by_selectors(list(funcs))(scan)
    return applied(path, api.make_plan(scan, DisableRequest(chosen)))


def test_a_redirected_call_of_mcount_becomes_a_nop(tmp_path: Path) -> None:
    """As the call of an enabled site: the file does not tell that it was one of `_mcount`."""
    found = redirected(ppc_module(tmp_path, "mprofile.o"), ("vfs_read", "vfs_write"))
    back = disabled(written(tmp_path / "redirected.ko", found.after), "vfs_read")
    assert back.words(".text", 0x58, 2) == [MFLR_R0, NOP_PPC]
    assert rows_of(back.after) == [row for row in rows_of(found.before) if row.offset != 0x5C]
    assert back.plan.record == ("none",)


def test_some_of_many_come_back_and_the_others_stay(tmp_path: Path) -> None:
    found = redirected(PPC64LE, *((func, "_printk") for func in ("mini_work", "mini_step")), assume_register_args=True)
    back = disabled(written(tmp_path / "redirected.ko", found.after), "mini_step")
    assert back.words(".text", 0x10, 1) == [NOP_PPC] and back.words(".text", 0x90, 1) == [B_PPC]
    assert [row for row in rows_of(back.after) if "redirect" in row.symbol] == [
        Row(0x90, REL24, "ftpatch_redirect__printk", 0)
    ]


@pytest.mark.parametrize("name", ["arm64/mini.ko", "ppc64le/mini.ko", "ppc64le/pfe2.o", "ppc64le/mprofile.o"])
def test_all_of_a_modules_functions_are_still_known(name: str, tmp_path: Path) -> None:
    """Not one record is left to show the layout."""
    bar = "_printk" if "mini" in name else "notrace_helper"
    found = redirected(module_of(name, tmp_path), ("*", bar), assume_register_args=True)
    scan = api.scan(written(tmp_path / "redirected.ko", found.after))
    n = len(found.plan.index)
    assert len(scan.sites) == n and scan.sites.redirected.all()
    assert scan.sites.shape == found.plan.scan.sites.shape
    assert {target.name for target in scan.sites.redirects.values()} == {bar}


# -- symbols that the module did not use -------------------------------------------------------------------------------

PPC_KERNEL = "vmlinux-ool"


def test_what_the_kernel_exports_is_imported(tmp_path: Path) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"), Export("vfs_read"))
    found = redirected(ARM64, ("mini_work", "vfs_read"), against=[str(vmlinux)], force_signature=True)
    assert found.new_rows(".text") == [Row(0x58, JUMP26, "vfs_read", 0)]
    assert [symbol[:2] for symbol in found.new_symbols()] == [
        ("vfs_read", "SHN_UNDEF"), ("ftpatch_redirected_mini_work", ".text"),
    ]  # fmt: skip


def test_many_functions_share_one_import_with_its_version(tmp_path: Path) -> None:
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk", crc=1), Export("new", crc=0xABCDEF01), crcs=True)
    module = versioned(tmp_path, _printk=1)
    found = redirected(module, ("mini_work", "new"), ("mini_step", "new"), ("mini_util", "new"), against=[str(vmlinux)])
    assert [row.symbol for row in found.new_rows(".text")] == ["new", "new", "new"]
    assert [symbol[0] for symbol in found.new_symbols() if symbol[1] == "SHN_UNDEF"] == ["new"]
    rows = content(found.after, "__versions")
    assert rows.count(b"new\0") == 1 and rows[64:72] == struct.pack("<Q", 0xABCDEF01)


@pytest.mark.parametrize(("module", "fixture", "machine"), [
    (ARM64, "vmlinux-callops", 183), (PPC64LE, PPC_KERNEL, 21),
])  # fmt: skip
def test_another_modules_function_makes_a_dependency(module: Path, fixture: str, machine: int, tmp_path: Path) -> None:
    vmlinux = kernel(tmp_path, fixture, Export("_printk"), folder=module.parent)
    helper = helper_module(tmp_path, machine=machine)
    found = redirected(module, ("mini_work", "helper_hook"), against=[str(vmlinux), str(helper)],
                       assume_register_args=True)  # fmt: skip
    assert b"depends=help_er\0" in content(found.after, ".modinfo")
    assert found.plan.notes[2].startswith("depends= now names help_er: run depmod")


# -- what is refused ---------------------------------------------------------------------------------------------------

NOT_ALL = "expected all of them, or nothing is written – --skip-unpatchable patches the others"
FORMS = "expected name, name@file.c or .section+0xOFF of the module, or what another file exports"
NO_KERNEL = (
    "the module does not use this symbol yet: found no kernel to look for it, expected a symbol that the module "
    "defines or uses – --against VMLINUX shows whether it may be used, and its version"
)
REGISTERS = (
    "is in another file, to which a stub hands on arguments in registers alone; whether all of them are is not known"
)


@pytest.mark.parametrize(("name", "foo", "bar", "told"), [
    ("arm64/mini.ko", "mini_work", "mini_work",
     "{m}: 1 of 1 chosen sites cannot be patched: found mini_work (row 1, .text+0x58): its replacement is the function "
     f"itself, {NOT_ALL}"),
    ("arm64/mini.ko", "mini_init", "init_module",  # another name of it
     "{m}: 1 of 1 chosen sites cannot be patched: found mini_init (row 2, .init.text+0x8): its replacement is the "
     f"function itself, {NOT_ALL}"),
    ("ppc64le/mini.ko", "mini_work", "mini_first",
     "{m}: 1 of 1 chosen sites cannot be patched: found mini_work (row 6, .text+0x90): mini_first is init text, which "
     f"is freed once the module runs, {NOT_ALL}"),
    ("arm64/mini.ko", "mini_work", "state",
     "--to state: the replacement is no function: found data in .bss, expected code"),
    ("arm64/mini.ko", "mini_work", ".text+0x9",
     f"--to .text+0x9: no such function: found no symbol of the module there, {FORMS}"),
    ("arm64/mini.ko", "mini_work", "mini_step@other.c",
     f"--to mini_step@other.c: no such function: found no symbol of the module there, {FORMS}"),
    ("arm64/mini.ko", "mini_work", "_printk@mini_mod.c",
     f"--to _printk@mini_mod.c: no such function: found no symbol of the module there, {FORMS}"),
    ("arm64/mini.ko", "mini_work", "0x40",
     f"--to 0x40: an address means nothing in a module, which is loaded anywhere: {FORMS}"),
    ("arm64/mini.ko", "mini_work", "nowhere", f"--to nowhere: {NO_KERNEL}"),
    ("ppc64le/pfe2.o", "vfs_read", "linux_banner",
     "--to linux_banner: the module uses this symbol, but never calls it: found no kernel to look for it, expected a "
     "function – --against the file that exports it shows whether it is one"),
    ("ppc64le/mini.ko", "mini_work", "_printk",
     f"{{m}}: 1 of 1 chosen sites cannot be patched: found mini_work (row 6, .text+0x90): _printk {REGISTERS}: "
     "mini_work: the file has neither DWARF nor BTF; _printk: no file with it was given (--against) "
     f"(--assume-register-args overrides), {NOT_ALL}"),
    ("arm64/mini.ko", "mini_work", "panic", f"--to panic: {NO_KERNEL}"),
])  # fmt: skip
def test_a_wrong_replacement_is_refused(
    name: str, foo: str, bar: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = module_of(name, tmp_path)
    assert refused(capsys, module, "--func", foo, "--to", bar) == told.format(m=module)


def refused(capsys: pytest.CaptureFixture[str], module: Path | str, *arguments: object) -> str:
    """The line that refuses, which nothing else is printed beside."""
    assert run(["redirect", str(module), *map(str, arguments), "--dry-run"]) == 5
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if not line.startswith("  ")]
    assert len(lines) == 1
    return lines[0].removeprefix("ftpatch: ")


# -- written, proven, and taken back -----------------------------------------------------------------------------------

WRITTEN = [
    ("arm64/mini.ko", "mini_work", "mini_untraced"), ("arm64/mini.ko", "mini_work", "_printk"),
    ("arm64/pfe2.o", "vfs_read", "vfs_write"), ("arm64/clang-sections.o", "direct_only", "slot_probe"),
    ("ppc64le/mini.ko", "mini_util", "mini_untraced"), ("ppc64le/mini.ko", "mini_work", "_printk"),
    ("ppc64le/mini.ko", "mini_util", "_printk"), ("ppc64le/mini.ko", "mini_probe_one", "_printk"),
    ("ppc64le/mprofile.o", "vfs_read", "vfs_write"), ("ppc64le/mprofile.o", "direct_only", "notrace_helper"),
    ("ppc64le/clang.o", "slot_probe", "vfs_write"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "foo", "bar"), WRITTEN)
def test_what_is_written_is_proven_and_comes_back(
    name: str, foo: str, bar: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module whose text lies behind its records moved when those became fewer, and a function at 0 was none of it."""
    module, out, journal, back = module_of(name, tmp_path), *(tmp_path / end for end in ("out.ko", "j.json", "back.ko"))
    wanted = ("--func", foo, "--to", bar, "--assume-register-args", "-o", str(out), "--report", f"json={journal}")
    assert run(["redirect", str(module), *wanted]) == 0
    capsys.readouterr()
    assert run(["verify", str(module), str(out), "--journal", str(journal)]) == 0
    assert run(["restore", str(out), "--journal", str(journal), "-o", str(back)]) == 0
    assert back.read_bytes() == module.read_bytes()
    again = tmp_path / "disabled.ko"
    assert run(["disable", str(out), "--func", foo, "-o", str(again)]) == 0
    assert run(["verify", str(out), str(again)]) == 0
    (journal_site,) = json.loads(journal.read_text())["images"][0]["sites"]
    assert (journal_site["action"], journal_site["target"]) == ("redirect", bar)


def test_a_compressed_module_comes_back(tmp_path: Path) -> None:
    module, out, journal, back = (tmp_path / name for name in ("m.ko.xz", "out.ko.xz", "j.json", "back.ko.xz"))
    module.write_bytes(lzma.compress(PPC64LE.read_bytes(), check=lzma.CHECK_CRC32))
    wanted = ("--func", "mini_work", "--to", "_printk", "--assume-register-args", "-o", str(out))
    assert run(["redirect", str(module), *wanted, "--report", f"json={journal}"]) == 0
    assert run(["restore", str(out), "--journal", str(journal), "-o", str(back)]) == 0
    assert lzma.decompress(back.read_bytes()) == PPC64LE.read_bytes()


NAMES = ("mini_step", "mini_untraced")


def edited(path: Path, out: Path, change: Callable[[Elf], object]) -> Path:
    elf = Elf(path)
    change(elf)
    out.write_bytes(elf.raw)
    return out


def namesakes(elf: Elf) -> None:
    """mini_untraced has the name of mini_step."""
    elf.sym("mini_untraced", st_name=elf.get(SYM, elf.symbol("mini_step"), "st_name"))


def in_the_middle(elf: Elf) -> None:
    """mini_untraced is a label inside mini_step."""
    elf.sym("mini_untraced", st_value=elf.value("mini_step") + 8, st_size=0, st_info=0x10)


def cold(elf: Elf) -> None:
    """mini_complain lost its letters to the name of an unlikely part."""
    pos = elf.raw.index(b"\0mini_complain\0") + 1
    elf.raw[pos : pos + 13] = b"mini_rk.cold\0"


def program_counter_relative(elf: Elf) -> None:
    elf.sym("mini_untraced", st_other=0x20)


def weak(elf: Elf) -> None:
    elf.sym("_printk", st_info=0x20)


def with_a_relocation(elf: Elf) -> None:
    """The second word of mini_work's site is written by the loader, too."""
    elf.rela(".rela.text", 0, r_offset=0x58)


CANNOT = "{m}: 1 of 1 chosen sites cannot be patched: found "


@pytest.mark.parametrize(("module", "change", "pairs", "told"), [
    (ARM64, namesakes, ("mini_work", "mini_step"),
     "--to mini_step: 2 functions of that name: found .text+0x8, .text+0x40 – give mini_step@mini_mod.c, or .text+0x8"),
    (PPC64LE, in_the_middle, ("mini_work", "mini_untraced"),
     "--to mini_untraced: the replacement is no function: found a place inside mini_step, expected code"),
    (PPC64LE, cold, ("mini_work", "mini_rk.cold"),
     "--to mini_rk.cold: the replacement is no function: found the unlikely part of a function, which goes back into "
     "it, expected code"),
    (PPC64LE, program_counter_relative, ("mini_work", "mini_untraced"),
     CANNOT + "mini_work (row 6, .text+0x90): mini_untraced does not keep the TOC pointer, which its callers rely on, "
     f"{NOT_ALL}"),
    (ARM64, weak, ("mini_work", "_printk"),
     "--to _printk: the symbol is weak, and nothing where no file exports it: found no kernel to look for it, expected "
     "a function that is there – --against the file that exports it shows whether it is one"),
    (ARM64, with_a_relocation, ("mini_work", "mini_step"),
     CANNOT + f"mini_work (row 1, .text+0x58): a relocation writes into its words, {NOT_ALL}"),
])  # fmt: skip
def test_odd_symbols_and_sites_are_refused(
    module: Path, change: Callable[[Elf], object], pairs: tuple[str, str], told: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    odd = edited(module, tmp_path / "odd.ko", change)
    assert refused(capsys, odd, "--func", pairs[0], "--to", pairs[1]) == told.format(m=odd)


@pytest.mark.parametrize(("export", "licence", "told"), [
    (Export("vfs_read", gpl=True), b"BSD",
     "--to vfs_read: the symbol is exported to GPL modules only: found license BSD, expected a GPL-compatible licence"),
    (Export("vfs_read", namespace="SPACE"), b"GPL",
     "--to vfs_read: the module does not import the symbol's namespace: found SPACE, expected no namespace at all – "
     "use a symbol outside namespaces"),
    (Export("other"), b"GPL",
     "--to vfs_read: no such exported symbol: found vfs_read in the kernel, but not exported, expected a function that "
     "the kernel or a module given by --against exports"),
    (Export("vfs_reads"), b"GPL",
     "--to vfs_read: no such exported symbol: found vfs_read in the kernel, but not exported, expected a function that "
     "the kernel or a module given by --against exports – vfs_reads is there"),
])  # fmt: skip
def test_what_the_loader_would_not_give_is_refused(
    export: Export, licence: bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tmp_path / "m.ko"
    module.write_bytes(ARM64.read_bytes().replace(b"license=GPL\0", b"license=" + licence + b"\0"))
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"), export)
    assert refused(capsys, module, "--func", "mini_work", "--to", "vfs_read", "--against", vmlinux) == told


def test_a_symbol_without_a_version_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, helper = versioned(tmp_path, _printk=1), helper_module(tmp_path)
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk", crc=1), crcs=True)
    against = ("--against", vmlinux, "--against", helper)
    assert refused(capsys, module, "--func", "mini_work", "--to", "helper_hook", *against) == (
        "--to helper_hook: the symbol has no version, and the module states one for each of its others: found no CRC "
        "in help_er, expected a symbol with a CRC – build its exporter with CONFIG_MODVERSIONS"
    )


def test_a_way_that_comes_back_through_an_earlier_patch_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first.ko"
    assert run(["redirect", str(ARM64), "--func", "mini_work", "--to", "mini_step", "-o", str(first)]) == 0
    capsys.readouterr()
    assert refused(capsys, first, "--func", "mini_step", "--to", "mini_work") == (
        f"{first}: 1 of 1 chosen sites cannot be patched: found mini_step (row 0, .text+0x8): its replacement is "
        f"redirected in turn, and the way comes back, {NOT_ALL}"
    )
    assert refused(capsys, first, "--func", "mini_work", "--to", "mini_util") == (
        f"{first}: 1 of 1 chosen sites cannot be patched: found mini_work (no record, .text+0x58): already redirected "
        f"to mini_step, {NOT_ALL}"
    )
    second = tmp_path / "second.ko"  # a longer way that ends is none that comes back
    assert run(["redirect", str(first), "--func", "mini_util", "--to", "mini_work", "-o", str(second)]) == 0


@pytest.mark.parametrize(("option", "told"), [
    (["--records", "null"], "M: --records null does not work in a module: found a loader that reads every slot, "
     "expected shrink: slot and relocation leave"),
    (["--keep-original", "old"], "M: --keep-original is for the object of --with: found no --with"),
])  # fmt: skip
def test_options_of_others_are_refused(option: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["redirect", str(ARM64), "--func", "mini_work", "--to", "mini_step", *option, "--dry-run"]
    assert run(wanted) == (2 if "original" in told else 5)
    assert capsys.readouterr().err == f"ftpatch: {told}\n".replace("M:", f"{ARM64}:")


@pytest.mark.parametrize(("name", "foo", "bar"), [
    ("arm64/mini.ko", "mini_step", "mini_work"), ("ppc64le/mini.ko", "mini_util", "mini_step"),
    ("ppc64le/mprofile.o", "slot_probe", "arch_hook_power"), ("arm64/pfe2.o", "direct_only", "vfs_read"),
])  # fmt: skip
def test_a_replacement_that_calls_what_it_replaces_is_told(name: str, foo: str, bar: str, tmp_path: Path) -> None:
    """Within a section assemblers resolve calls, and elsewhere relocations name them."""
    found = redirected(module_of(name, tmp_path), (foo, bar))
    told = f"{bar} calls {foo}, which is {bar} from now on: it never returns, unless a condition ends that"
    assert found.plan.warnings[-1] == told
    assert not [line for line in redirected(module_of(name, tmp_path), (bar, foo)).plan.warnings if "from now" in line]


def test_what_the_module_calls_already_needs_no_file(tmp_path: Path) -> None:
    """A kernel is given that does not export it: by depends= another module does."""
    elf, info = Elf(ARM64), content(ARM64.read_bytes(), ".modinfo").replace(b"depends=\0", b"depends=other\0")
    elf.sh(".modinfo", sh_offset=elf.append(info), sh_size=len(info))
    module = written(tmp_path / "m.ko", elf.raw)
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("other"))
    found = redirected(module, ("mini_work", "_printk"), against=[str(vmlinux)])
    assert [row.symbol for row in found.new_rows(".text")] == ["_printk"]
    assert found.plan.warnings[0] == "the signature of _printk is not known: no file with it was given (--against)"


# -- replacements that come along in an object -------------------------------------------------------------------------

OBJECTS = {path: PPC64LE.parents[1] / "link" / f"{machine}.o" for path, machine in
           ((ARM64, "arm64"), (PPC64LE, "ppc64le"))}  # fmt: skip
EXPORTS = {ARM64: "vmlinux-callops", PPC64LE: PPC_KERNEL}


def with_object(module: Path, tmp_path: Path, *pairs: tuple[str, str], names: tuple[str, ...]) -> Redirected:
    vmlinux = kernel(tmp_path, EXPORTS[module], Export("_printk"), Export("ktime_get"), folder=module.parent)
    return redirected(module, *pairs, patch=str(OBJECTS[module]), keep_original=names, against=[str(vmlinux)])


@pytest.mark.parametrize(("module", "site", "kind"), [(ARM64, 0x8, JUMP26), (PPC64LE, 0x10, REL24)])
def test_a_replacement_comes_along(module: Path, site: int, kind: int, tmp_path: Path) -> None:
    found = with_object(module, tmp_path, ("mini_step", "fixed_step"), names=("old_step",))
    assert found.new_rows(".text") == [Row(site, kind, "fixed_step", 0)]
    assert [(to.name, to.va) for to in found.plan.redirects] == [("fixed_step", None)]
    names = [symbol.name for symbol in parsed(found.after).get_section_by_name(".symtab").iter_symbols()]
    assert {"fixed_step", "old_step", "ftpatch_with.weigh", "ftpatch_redirected_mini_step"} <= set(names)


@pytest.mark.parametrize(("foo", "stub"), [
    ("mini_work", ("ftpatch_with.count", "")),
    ("mini_util", ("ftpatch_redirect_ftpatch_with.count", ".text.ftpatch+0x0")),  # it has one entry
])  # fmt: skip
def test_static_functions_of_an_object_have_names_of_their_own(foo: str, stub: tuple[str, str], tmp_path: Path) -> None:
    found = with_object(PPC64LE, tmp_path, (foo, "count"), ("mini_step", "fixed_step"), names=("mini_step=old_step",))
    site = {"mini_work": 0x90, "mini_util": 0x140}[foo]
    assert Row(site, REL24, stub[0], 0) in found.new_rows(".text")
    at = [found.plan.scan.sites.name(index) for index in found.plan.index.tolist()].index(foo)
    assert (found.plan.redirects[at].name, found.plan.stub[at]) == ("ftpatch_with.count", stub[1])


@pytest.mark.parametrize(("names", "told"), [
    ((), "2 redirected functions"), (("mini_first=old_step",), "0 redirected functions"),
    (("mini_*=old_step",), "2 redirected functions"),
])  # fmt: skip
def test_a_name_for_the_old_code_is_of_one_function(names: tuple[str, ...], told: str, tmp_path: Path) -> None:
    with pytest.raises(SelectionError) as refused:
        with_object(PPC64LE, tmp_path, ("mini_step", "fixed_step"), ("mini_work", "fixed_work"),
                    names=names or ("old_step",))  # fmt: skip
    assert str(refused.value) == (f"--keep-original {(names or ('old_step',))[0]}: a name for one function's old code: "
                                  f"found {told}, expected one – give FOO=NAME")  # fmt: skip


def test_two_names_for_the_old_code_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two names for the old code of one function: found a and b"):
        with_object(PPC64LE, tmp_path, ("mini_step", "fixed_step"), names=("a", "b"))


def test_an_object_that_nothing_leads_to_is_told(tmp_path: Path) -> None:
    found = with_object(PPC64LE, tmp_path, ("mini_step", "mini_work"), names=("old_step",))
    assert found.plan.warnings[-1] == f"no function leads to one of {OBJECTS[PPC64LE]}"


@pytest.mark.parametrize("module", [ARM64, PPC64LE])
def test_patches_upon_patches_come_back_one_by_one(module: Path, tmp_path: Path) -> None:
    """Two stubs of one name, a hook beside redirects, a replacement that is redirected in turn."""
    steps = [
        ("redirect", "--func", "mini_work", "--to", "_printk", "--assume-register-args"),
        ("redirect", "--func", "mini_step", "--to", "_printk", "--assume-register-args"),
        ("redirect", "--func", "mini_util", "--to", "mini_step"),
        ("enable", "--func", "mini_init", "--hook", "mini_untraced"),
        ("redirect", "--func", "mini_util_probe", "--to", "mini_util"),
    ]
    files = [module, *(tmp_path / f"{number}.ko" for number in range(len(steps)))]
    for (before, after), (verb, *options) in zip(pairwise(files), steps, strict=True):
        assert run([verb, str(before), *options, "-o", str(after), "--report", f"json={after}.json"]) == 0
    for before, after in reversed(list(pairwise(files))):
        assert run(["verify", str(before), str(after)]) == 0
        back = tmp_path / "back.ko"
        back.unlink(missing_ok=True)
        assert run(["restore", str(after), "--journal", f"{after}.json", "-o", str(back)]) == 0
        assert back.read_bytes() == before.read_bytes()


def one_name_twice(elf: Elf) -> None:
    elf.sym("mini_work", st_name=elf.get(SYM, elf.symbol("mini_step"), "st_name"))


def without_a_name(elf: Elf) -> None:
    elf.sym("mini_work", st_info=0x10, st_name=0)


@pytest.mark.parametrize("bar", ["mini_untraced", "_printk"])
@pytest.mark.parametrize("case", [
    (ARM64, one_name_twice, "mini_step", 2), (PPC64LE, one_name_twice, "mini_step", 2),
    (ARM64, without_a_name, ".text+0x58", 1), (PPC64LE, without_a_name, ".text+0x90", 1),
])  # fmt: skip
def test_functions_of_one_name_or_none(
    case: tuple[Path, Callable[[Elf], object], str, int], bar: str, tmp_path: Path
) -> None:
    """What has no symbol is taken to be called with anybody's TOC: its stub gives that back."""
    module, change, foo, n = case
    odd, out, back = edited(module, tmp_path / "odd.ko", change), tmp_path / "out.ko", tmp_path / "back.ko"
    assert run(["redirect", str(odd), "--func", foo, "--to", bar, "--assume-register-args", "-o", str(out)]) == 0
    scan = api.scan(str(out))
    assert [target.name for target in scan.sites.redirects.values()] == n * [bar]
    assert run(["disable", str(out), "--func", foo, "-o", str(back)]) == 0
    assert content(back.read_bytes(), ".text") == content(odd.read_bytes(), ".text")
    if module is PPC64LE and n == 1:
        assert words(out.read_bytes(), ".text.ftpatch", 0, 1) == [MFLR_R0]


@pytest.mark.parametrize("module", [ARM64, PPC64LE])
def test_all_functions_but_the_replacement_itself(module: Path) -> None:
    """It was held against each of the others that the way comes back through it, which is redirected to itself."""
    plan = planned(module, ("*", "mini_util"), skip_unpatchable=True)
    (site,) = plan.reasons
    assert (plan.scan.sites.name(site), plan.reasons[site]) == ("mini_util", "its replacement is the function itself")
    assert len(plan.index) == len(plan.scan.sites) - 1


# -- arguments in memory -----------------------------------------------------------------------------------------------

IN_STUB = "mini_step is in another file, to which a stub hands on arguments in registers alone; "
NO_TYPES = "the file has neither DWARF nor BTF"
OVERRIDES = "(--assume-register-args overrides)"
NOT_KNOWN = f"{IN_STUB}whether all of them are is not known: "


@pytest.mark.parametrize(("foo", "bar", "assume", "told"), [
    ("", "", False, ""),
    ("it is variadic", "", False, f"{IN_STUB}mini_work: it is variadic"),
    ("", "its 9th argument is on the stack", False, f"{IN_STUB}mini_step: its 9th argument is on the stack"),
    (None, "it is variadic", True, f"{IN_STUB}mini_step: it is variadic"),  # what is known no option overrides
    (None, "", False, f"{NOT_KNOWN}mini_work: {NO_TYPES} {OVERRIDES}"),
    ("", None, False, f"{NOT_KNOWN}mini_step: {NO_TYPES} {OVERRIDES}"),
    (None, None, False, f"{NOT_KNOWN}mini_work: {NO_TYPES}; mini_step: {NO_TYPES} {OVERRIDES}"),
    (None, None, True, ""),
])  # fmt: skip
def test_a_frame_in_between_takes_arguments_in_registers_alone(
    foo: str | None, bar: str | None, assume: bool, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of the module stands for one of another file. foo, bar: what is known of their arguments."""
    scan = api.scan(str(PPC64LE))
    types, (row,) = FunctionTypes(scan.image), scan.image.symbols.rows_named("mini_step").tolist()
    monkeypatch.setattr(arguments, "why_not_in_registers", lambda _, of, compiled: bar if of == row else foo)
    chosen, _ = api.by_selectors(["mini_work"])(scan)
    (site,) = chosen.nonzero()[0].tolist()
    request = RedirectRequest(chosen, {site: "mini_step"}, assume_register_args=assume)
    draft = new_draft(scan, request)
    outside = {site: Substitute("mini_step", types, row)}
    arguments.refuse_memory_arguments(draft, request, types, outside, {site: "not compared"})
    assert draft.reasons.get(site, "") == told
    warning = (
        f"it was taken for granted that all arguments travel in registers, which no file tells: mini_work: {NO_TYPES}"
    )
    assert draft.warnings == ([f"{warning}; mini_step: {NO_TYPES}"] if assume and not told else [])
