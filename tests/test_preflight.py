"""A module against a kernel: one defect planted at a time, and what the check says of it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from elfwriter import (
    ALLOC,
    BASE,
    ET_EXEC,
    ET_REL,
    EXEC,
    LOCAL,
    NOBITS,
    NOP,
    NOTYPE,
    OBJECT,
    RELA,
    RET,
    WRITE,
    Elf,
    as_code,
    rela,
    written,
)

from ftpatch.elf.image import Image
from ftpatch.kernel.exports import read_exports
from ftpatch.kernel.loader import signatures_enforced, stub_bytes, stub_demand, vermagic, wanted_sections
from ftpatch.kernel.modinfo import kernel_spelling
from ftpatch.kernel.module import Kernel, Module
from ftpatch.kernel.module_load import Check, layout, literals, preflight, reach, refusals
from ftpatch.recovered.image import open_image
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import join, read_records
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import SiteTable
from tools import kernels

CALL26, JUMP26, ABS64, PREL32, REL24 = 283, 282, 257, 261, 10
MAGIC = "6.12.117 SMP mod_unload modversions aarch64"
SYMBOLS = {"module_layout": (1, False, ""), "_printk": (2, False, ""), "secret": (3, True, "NS"),
           "only_kvm": (4, True, "module:kvm,kvm-*")}  # fmt: skip
COUNTED = "the loader counts relocations, those of calls added later too"
LITERALS = b".plt\0x.init.text.ftrace_trampoline\0"  # the shorter name is the longer one's tail


@dataclass
class KernelFile:
    """A kernel with exports, a vermagic and sections that its loader wants. symbols: name → (crc, gpl, namespace)."""

    magic: str = MAGIC
    symbols: dict[str, tuple[int, bool, str]] = field(default_factory=lambda: dict(SYMBOLS))
    named: bool = True  # whether `vermagic` is a symbol
    enforce: bytes | None = None
    machine: int = 183

    def build(self, path: Path) -> Image:
        elf, strings, table = Elf(ET_EXEC, self.machine), b"\0", b""
        start, names = BASE + 0x10_0000, BASE + 0x20_0000
        for name, (_, _, namespace) in self.symbols.items():
            at = names + len(strings)
            strings += name.encode() + b"\0"
            space = names + len(strings) if namespace else names
            strings += namespace.encode() + b"\0" if namespace else b""
            here = start + len(table)
            table += struct.pack("<3i", BASE - here, at - here - 4, space - here - 8)
        text = elf.section(".text", as_code([RET] * 4), flags=ALLOC | EXEC, addr=BASE)
        magic = LITERALS + self.magic.encode() + b"\0"
        rodata = elf.section(".rodata", magic, flags=ALLOC, addr=BASE + 0x8_0000)
        elf.section("__ksymtab", table, flags=ALLOC, addr=start)
        elf.section(
            "__kflagstab", bytes(gpl for _, gpl, _ in self.symbols.values()), flags=ALLOC, addr=start + 0x1_0000
        )
        crcs = struct.pack(f"<{len(self.symbols)}I", *(crc for crc, _, _ in self.symbols.values()))
        elf.section("__kcrctab", crcs if "modversions" in self.magic else b"", flags=ALLOC, addr=start + 0x2_0000)
        elf.section("__ksymtab_strings", strings, flags=ALLOC, addr=names)
        data = elf.section(".data", self.enforce or b"", flags=ALLOC | WRITE, addr=BASE + 0x30_0000)
        bss = elf.section(".bss", type=NOBITS, flags=ALLOC | WRITE, addr=BASE + 0x40_0000, size=16)
        where = (data, BASE + 0x30_0000) if self.enforce else (bss, BASE + 0x40_0000)
        elf.symbol("sig_enforce", *where, 1, OBJECT, LOCAL)
        if self.named:
            elf.symbol("vermagic", rodata, BASE + 0x8_0000 + len(LITERALS), len(self.magic) + 1, OBJECT, LOCAL)
        elf.symbol("start_kernel", text, BASE, 16)
        return open_image(written(path / "vmlinux", elf.build()))


@dataclass
class ModuleFile:
    """A module of one function with a site before its label, and calls of undefined symbols."""

    info: dict[str, str] = field(
        default_factory=lambda: {"license": "GPL", "depends": "", "name": "m", "vermagic": MAGIC, "import_ns": "NS"}
    )
    versions: dict[str, int] | None = field(
        default_factory=lambda: {name: crc for name, (crc, _, _) in SYMBOLS.items() if name != "only_kvm"}
    )
    undefined: tuple[str, ...] = ("_printk", "secret")
    weak: tuple[str, ...] = ()
    sections: tuple[str, ...] = (".plt", ".init.plt", ".text.ftrace_trampoline", ".init.text.ftrace_trampoline")
    align: int = 8
    shift: int = 0  # bytes before the record
    machine: int = 183

    def build(self, path: Path) -> Image:
        elf = Elf(ET_REL, self.machine)
        code = bytes(self.shift) + as_code([NOP] * 4 + [RET])
        text = elf.section(".text", code, flags=ALLOC | EXEC, align=self.align)
        elf.section(".modinfo", b"".join(f"{key}={value}\0".encode() for key, value in self.info.items()), flags=ALLOC)
        if self.versions is not None:
            rows = b"".join(struct.pack("<Q56s", crc, name.encode()) for name, crc in self.versions.items())
            elf.section("__versions", rows, flags=ALLOC)
        for name in self.sections:
            elf.section(name, b"\0", flags=ALLOC)
        sites = elf.section("__patchable_function_entries", bytes(8), flags=ALLOC)
        entries = rela(0, ABS64, self.shift, 1)
        elf.section(".rela__patchable_function_entries", entries, type=RELA, info=sites, entsize=24)
        elf.symbol("", text, 0, type=3, bind=LOCAL)
        elf.symbol("f", text, self.shift + 8, 12)
        for bind, names in (1, self.undefined), (2, self.weak):
            for name in names:
                elf.symbol(name, 0, 0, type=NOTYPE, bind=bind)
        return open_image(written(path / "m.ko", elf.build()))


def table_of(image: Image) -> SiteTable:
    return read_sites(image, read_records(image))


@pytest.fixture
def check(tmp_path: Path, mini: Path) -> Callable[..., dict[str, tuple[str, str]]]:
    """preflight of a module file against a kernel file: id → (verdict, text)."""
    own = table_of(open_image(str(mini / "vmlinux-callops")))

    def call(module: ModuleFile, kernel: KernelFile | None = None, **others: Image) -> dict[str, tuple[str, str]]:
        loader = (kernel or KernelFile()).build(tmp_path)
        providers = {name: read_exports(image) for name, image in others.items()}
        checks = preflight(module_of(module.build(tmp_path)), Kernel(Scan(loader, join([]), own)), providers)
        assert tuple(one.id for one in refusals(checks)) == tuple(one.id for one in checks if one.verdict == "refused")
        return {one.id: (one.verdict, one.text) for one in checks}

    return call


def module_of(image: Image) -> Module:
    return Module(scan_of(image))


def scan_of(image: Image) -> Scan:
    return Scan(image, read_records(image), table_of(image))


Checker = Callable[..., dict[str, tuple[str, str]]]


def refused(found: dict[str, tuple[str, str]]) -> list[str]:
    return [name for name, (verdict, _) in found.items() if verdict == "refused"]


def test_a_sound_module_passes_every_check(check: Checker) -> None:
    assert check(ModuleFile()) == {
        "layout": ("ok", "1 sites of layout callops, as the kernel's"),
        "vermagic": ("ok", f"'{MAGIC}', as the kernel's"),
        "versions": ("ok", "3 CRCs equal, 0 of other modules' symbols not checked"),
        "symbols": ("ok", "all 2 undefined symbols are exported"),
        "signature": ("ok", "not signed; a changed module is written without one, and taints the kernel"),
        "sections": ("ok", ".plt, .init.plt, .text.ftrace_trampoline, .init.text.ftrace_trampoline present"),
        "stubs": ("ok", "0 for calls from text, 0 from init text; " + COUNTED),
        "reach": ("ok", "20 bytes of code and 0 of stubs, a call reaches 128 MiB"),
        "literals": ("ok", "1 pointers 8-byte aligned"),
    }  # fmt: skip


# -- vermagic ----------------------------------------------------------------------------------------------------------


def with_info(**changed: str | None) -> ModuleFile:
    info = {**ModuleFile().info, **changed}
    return ModuleFile(info={key: value for key, value in info.items() if value is not None})


def test_another_vermagic_is_refused(check: Checker) -> None:
    other = MAGIC.replace("SMP", "SMP preempt")
    assert check(with_info(vermagic=other))["vermagic"] == ("refused", f"'{other}', the kernel's is '{MAGIC}'")


def test_another_release_alone_is_let_pass_where_crcs_are_compared(check: Checker) -> None:
    found = check(with_info(vermagic=MAGIC.replace("117", "9")))
    assert found["vermagic"] == ("warning", "equal but for the release: 6.12.9, kernel 6.12.117")
    assert refused(found) == []


def test_another_release_is_refused_where_no_crcs_are_compared(check: Checker) -> None:
    plain = MAGIC.replace("modversions ", "")
    found = check(with_info(vermagic=plain.replace("117", "9")), KernelFile(magic=plain))
    assert found["vermagic"] == ("refused", f"'{plain.replace('117', '9')}', the kernel's is '{plain}'")
    assert found["versions"] == ("ok", "the kernel's symbols have no CRCs, none is compared")


def test_another_release_is_refused_in_a_module_without_versions(check: Checker) -> None:
    module = replace(with_info(vermagic=MAGIC.replace("117", "9")), versions=None)
    assert check(module)["vermagic"][0] == "refused"


def test_no_vermagic_is_refused(check: Checker) -> None:
    assert check(with_info(vermagic=None))["vermagic"] == ("refused", "the module has none: it loads only by force")


def test_a_kernel_without_a_vermagic_leaves_it_open(check: Checker) -> None:
    found = check(ModuleFile(), KernelFile(magic="", named=False))
    assert found["vermagic"] == ("unknown", f"the kernel's is not known, the module's is '{MAGIC}'")


def test_the_vermagic_is_found_without_its_symbol(tmp_path: Path) -> None:
    found = vermagic(KernelFile(named=False).build(tmp_path))
    assert found is not None
    assert (found.text, found.release, found.modversions) == (MAGIC, "6.12.117", True)
    assert vermagic(KernelFile(magic="no such string SMP", named=False).build(tmp_path)) is None


def test_a_hostile_string_stays_on_its_line(check: Checker) -> None:
    assert check(with_info(vermagic="a\nb\x1b[m"))["vermagic"][1] == f"'a\\x0ab\\x1b[m', the kernel's is '{MAGIC}'"


# -- versions ----------------------------------------------------------------------------------------------------------


def test_a_changed_crc_is_refused(check: Checker) -> None:
    found = check(ModuleFile(versions={"module_layout": 1, "_printk": 2, "secret": 0xDEAD}))
    assert refused(found) == ["versions"]
    assert found["versions"] == ("refused", "1 of 3 CRCs are not the kernel's: secret")


def test_a_crc_with_high_bits_is_another_one(check: Checker) -> None:
    found = check(ModuleFile(versions={"module_layout": 1, "_printk": 2, "secret": 3 | 1 << 32}))
    assert found["versions"] == ("refused", "1 of 3 CRCs are not the kernel's: secret")


def test_a_symbol_without_a_version_is_refused(check: Checker) -> None:
    found = check(ModuleFile(versions={"_printk": 2}))
    assert found["versions"] == ("refused", "2 of 3 symbols have no version: secret, module_layout")


def test_no_versions_at_all_are_refused(check: Checker) -> None:
    found = check(ModuleFile(versions=None))
    assert found["versions"] == ("refused", "no versions at all, the kernel wants 3: it loads only by force")


# -- symbols -----------------------------------------------------------------------------------------------------------


def test_a_symbol_that_nothing_exports_is_refused(check: Checker) -> None:
    found = check(ModuleFile(undefined=("_printk", "ftrace_caller")))
    assert refused(found) == ["symbols"]
    assert found["symbols"] == ("refused", "1 symbols that nothing exports: ftrace_caller")


def test_a_weak_symbol_may_be_missing(check: Checker) -> None:
    found = check(ModuleFile(weak=("maybe",)))
    assert found["symbols"] == ("ok", "all 2 undefined symbols are exported, 1 weak ones are missing")


def test_a_kernel_file_without_a_table_of_exports_leaves_it_open(check: Checker) -> None:
    found = check(ModuleFile(), KernelFile(symbols={}))
    assert found["symbols"] == ("unknown", "2 undefined symbols; the kernel's file has no table of exports")
    assert found["versions"] == ("ok", "the kernel's symbols have no CRCs, none is compared")


def test_a_list_of_modules_cannot_be_imported(check: Checker) -> None:
    module = replace(with_info(import_ns="module:kvm,kvm-*"), undefined=("only_kvm",))
    assert check(module)["symbols"] == ("refused", "1 symbols of namespaces not imported: only_kvm")


def test_a_symbol_of_a_module_that_was_not_given_is_unknown(check: Checker) -> None:
    module = replace(with_info(depends="a-b,mii"), undefined=("_printk", "of_ab", "of_mii"))
    found = check(module)
    assert found["symbols"] == ("unknown", "1 symbols are exported, 2 are left to a-b,mii")
    assert found["versions"] == ("ok", "2 CRCs equal, 2 of other modules' symbols not checked")


def test_a_name_in_depends_that_no_symbol_wants_is_refused(check: Checker) -> None:
    """Each module that is named has to export a symbol at least; none of 1,500 stock modules names more."""
    found = check(with_info(depends="evil"))
    assert refused(found) == ["symbols"]
    assert found["symbols"][1] == (
        "depends=evil, and 0 symbols are left to other modules: modprobe fails without one of these"
    )


def test_modules_that_are_given_must_export_the_symbol(check: Checker, tmp_path: Path) -> None:
    """aes-ce-blk.ko says depends=aes-ce-cipher, and that module calls itself aes_ce_cipher."""
    (tmp_path / "other").mkdir()
    other = KernelFile(symbols={"of_ab": (9, False, "")}).build(tmp_path / "other")
    module = replace(with_info(depends="a-b"), undefined=("_printk", "of_ab"))
    module = replace(module, versions={**(module.versions or {}), "of_ab": 9})
    found = check(module, None, a_b=other)
    assert found["symbols"] == ("ok", "all 2 undefined symbols are exported")
    assert found["versions"] == ("ok", "3 CRCs equal, 0 of other modules' symbols not checked")
    found = check(replace(module, undefined=("_printk", "gone")), None, a_b=other)
    assert found["symbols"] == ("refused", "1 symbols that nothing exports: gone")
    assert kernel_spelling("a-b") == "a_b"


def test_a_proprietary_module_may_not_use_gpl_only_symbols(check: Checker) -> None:
    found = check(with_info(license="Proprietary"))
    assert found["symbols"] == ("refused", "licence 'Proprietary' bars 1 GPL-only symbols: secret")
    assert check(replace(with_info(license=None), undefined=("_printk",)))["symbols"][0] == "ok"


def test_a_namespace_must_be_imported(check: Checker) -> None:
    found = check(with_info(import_ns=None))
    assert found["symbols"] == ("refused", "1 symbols of namespaces not imported: secret")


@pytest.mark.parametrize(("name", "verdict"), [
    ("kvm", "ok"), ("kvm_intel", "ok"), ("kvm-amd", "ok"), ("kvmx", "refused"), ("m", "refused"), ("k", "refused"),
])  # fmt: skip
def test_a_namespace_of_modules_is_open_to_those_on_its_list(check: Checker, name: str, verdict: str) -> None:
    module = replace(with_info(name=name), undefined=("only_kvm",), versions={"module_layout": 1, "only_kvm": 4})
    assert check(module)["symbols"][0] == verdict


# -- signature, sections, layout ---------------------------------------------------------------------------------------


def test_a_kernel_that_enforces_signatures_wants_the_result_signed(check: Checker) -> None:
    wanted = ("warning", "the kernel enforces signatures: sign the result with a key that it trusts")
    assert check(ModuleFile(), KernelFile(enforce=b"\1"))["signature"] == wanted


def test_whether_signatures_are_enforced_is_read_from_the_kernel(tmp_path: Path, mini: Path) -> None:
    assert signatures_enforced(KernelFile(enforce=b"\1").build(tmp_path)) is True
    assert signatures_enforced(KernelFile().build(tmp_path)) is False
    assert signatures_enforced(open_image(str(mini / "vmlinux-callops"))) is None


@pytest.mark.parametrize("gone", ModuleFile().sections)
def test_a_missing_section_is_refused(check: Checker, gone: str) -> None:
    found = check(ModuleFile(sections=tuple(name for name in ModuleFile().sections if name != gone)))
    assert refused(found) == ["sections"]
    assert found["sections"] == ("refused", f"no section {gone}: the loader has nowhere to put stubs")


def test_a_kernel_that_does_not_name_a_section_does_not_want_it(tmp_path: Path, mini: Path) -> None:
    assert wanted_sections(open_image(str(mini / "callops.o"))) == (".plt", ".init.plt")
    assert wanted_sections(KernelFile(machine=21).build(tmp_path)) == (".stubs",)


def test_another_layout_is_refused(tmp_path: Path, mini: Path) -> None:
    module = module_of(ModuleFile().build(tmp_path))
    own = open_image(str(mini / "vmlinux-pfe2"))
    found = layout(module, Kernel(scan_of(own)))
    assert found == Check("layout", "refused", "1 sites of layout callops, the kernel's are pfe2")
    none = open_image(str(mini / "vmlinux-notrace"))
    found = layout(module, Kernel(scan_of(none)))
    assert found == Check("layout", "unknown", "1 sites of layout callops; the kernel has no sites to compare")


def test_another_machine_is_all_that_is_said(tmp_path: Path, mini: Path) -> None:
    kernel = open_image(str(mini.parent / "mini-ppc64le" / "vmlinux-pfe2"))
    module = module_of(ModuleFile().build(tmp_path))
    found = preflight(module, Kernel(scan_of(kernel)))
    assert found == (Check("machine", "refused", "the module is for arm64, the kernel ppc64le"),)


# -- stubs, reach, literals --------------------------------------------------------------------------------------------


def calls(tmp_path: Path, machine: int, rows: dict[str, bytes]) -> Image:
    """A module whose sections have these relocations; symbols 1, 2 are undefined, 3 is in .text."""
    elf = Elf(ET_REL, machine)
    secs = {name: elf.section(name, bytes(64), flags=ALLOC | (0 if name == ".data" else EXEC)) for name in rows}
    for name, content in rows.items():
        elf.section(".rela" + name, content, type=RELA, info=secs[name], entsize=24)
    elf.symbol("one", 0, 0, type=NOTYPE)
    elf.symbol("two", 0, 0, type=NOTYPE)
    elf.symbol("near", secs[".text"], 0)
    return open_image(written(tmp_path / "calls.ko", elf.build()))


def test_arm64_counts_targets_elsewhere_once_per_section(tmp_path: Path) -> None:
    text = b"".join((
        rela(0, CALL26, 0, 1), rela(4, CALL26, 0, 1), rela(8, CALL26, 0, 2),  # two targets
        rela(12, JUMP26, 0, 1),  # a jump is counted apart from a call
        rela(16, CALL26, 8, 1), rela(20, CALL26, 8, 1),  # with an addend every one counts
        rela(24, CALL26, 0, 3), rela(28, PREL32, 0, 1),  # the same section; no branch
    ))  # fmt: skip
    init = rela(0, CALL26, 0, 1) + rela(4, CALL26, 0, 3)
    image = calls(tmp_path, 183, {".text": text, ".init.text": init, ".data": rela(0, CALL26, 0, 1)})
    assert stub_demand(image) == (5, 2)
    assert stub_bytes(image, 3, False) == 7 * 12


def test_ppc64_counts_targets_and_addends_once_per_section(tmp_path: Path) -> None:
    text = b"".join(
        rela(4 * i, REL24, addend, symbol) for i, (addend, symbol) in enumerate([(0, 1), (0, 1), (8, 1), (0, 3)])
    )
    image = calls(tmp_path, 21, {".text": text, ".init.text": rela(0, REL24, 0, 1) + rela(4, 11, 0, 2)})
    assert stub_demand(image) == (4, 0)
    assert stub_bytes(image, 10, False) == (4 + 2) * 40  # two for the function tracer
    assert stub_bytes(image, 10, True) == (4 + 2) * 40 + 10 * 24


@pytest.mark.parametrize(("size", "verdict"), [((128 << 20) - 4, "ok"), (128 << 20, "refused"), (1 << 63, "refused")])
def test_a_module_longer_than_a_branch_is_refused(tmp_path: Path, size: int, verdict: str) -> None:
    module = module_of(ModuleFile().build(tmp_path))
    shdr = module.image.shdr.copy()
    shdr["sh_size"][1] = size
    scan = module.scan._replace(image=replace(module.image, shdr=shdr))
    found = reach(replace(module, scan=scan))
    assert (found.id, found.verdict) == ("reach", verdict)
    assert found.text == f"{min(size, 1 << 40)} bytes of code and 0 of stubs, a call reaches 128 MiB"


def test_a_misaligned_literal_is_refused(tmp_path: Path) -> None:
    module = module_of(ModuleFile(shift=4).build(tmp_path))
    assert literals(module) == Check("literals", "refused", "1 of 1 pointers not 8-byte aligned: .text+0xc")


def test_a_literal_in_a_section_that_is_not_aligned_is_refused(tmp_path: Path) -> None:
    module = module_of(ModuleFile(align=4).build(tmp_path))
    assert literals(module) == Check("literals", "refused", "1 of 1 pointers not 8-byte aligned: .text+0x8")


# -- the real kernels --------------------------------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize("name", kernels.known())
def test_every_shipped_module_passes(kernel: Callable[[str], kernels.Kernel], tmp_path: Path, name: str) -> None:
    """With the exports of all modules at hand nothing is unknown: every symbol resolves, every CRC is equal."""
    from tools.modules import plain

    image = open_image(str(kernel(name).vmlinux))
    own = Kernel(scan_of(image))
    found = []
    for index, path in enumerate(sorted(kernels.modules(name).rglob("*.ko*"))):
        (tmp_path / f"{index}.ko").write_bytes(plain(path))
        found.append(module_of(open_image(str(tmp_path / f"{index}.ko"))))
        (tmp_path / f"{index}.ko").unlink()
    exports = {module.info.name: read_exports(module.image) for module in found}
    exporting = {name: one for name, one in exports.items() if len(one)}
    n_crcs = 0
    for module in found:
        needed = {kernel_spelling(other) for other in module.info.depends}
        checks = preflight(module, own, {name: one for name, one in exporting.items() if name in needed})
        assert {check.verdict for check in checks} == {"ok"}, (module.image.path, checks)
        n_crcs += len(module.versions)
    assert len(found) > 900
    assert bool(n_crcs) is bool(own.magic and own.magic.modversions)
    assert np.all([module.scan.sites.shape is None or own.scan.sites.shape is not None for module in found])
