"""What `verify` says of redirected functions: sound ones are found sound, and every damage is found, in its words."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from test_redirect import far_kernel

from ftpatch.cli import run
from ftpatch.elf.image import Image
from ftpatch.errors import FtpatchError
from ftpatch.kernel import signatures
from ftpatch.proof.prove import Checks, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import Scan, scan_file
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
    after, journal = folder / f"{out}{before.suffix}", folder / f"{out}.json"
    written = made_once if before.is_relative_to(ROOT) else made
    contents = written(before, (verb, *options))
    for path, content in zip((after, journal), contents, strict=True):
        path.write_bytes(content)
    return after


def made(before: Path, arguments: tuple[str, ...]) -> tuple[bytes, bytes]:
    """The file that a command line makes, and its journal."""
    with TemporaryDirectory() as folder:
        out, journal = Path(folder, f"after{before.suffix}"), Path(folder, "journal")
        assert run([arguments[0], str(before), *arguments[1:], "-o", str(out), "--report", f"json={journal}"]) == 0
        return out.read_bytes(), journal.read_bytes()


made_once = cache(made)  # many tests damage one file


def verify(before: Path, after: Path, *options: str) -> dict[str, Any]:
    """The IMAGE object of one verify."""
    code, text = quietly(["verify", str(before), str(after), "--format", "json", *options])
    image: dict[str, Any] = json.loads(text)["images"][0]
    assert code == bool(image["findings"])
    return image


def messages(image: dict[str, Any]) -> list[str]:
    return [f"{finding['rule']}: {finding['message']}" for finding in image["findings"]]


@cache
def scanned(path: Path) -> Scan:
    return scan_file(str(path))


def found(before: Path, after: Path) -> list[str]:
    """What the proof finds without executing anything."""
    scan = scanned(before) if before.is_relative_to(ROOT) else scan_file(str(before))
    proof = prove(scan, open_image(str(after)), checks=Checks(execute=False))
    return [f"{finding.rule}: {finding.message}" for finding in proof.findings]


def jump(image: Image, va: int, to: int) -> int:
    """The word `b to` at an address."""
    if image.arch.name == "arm64":
        return 0x1400_0000 | (to - va) >> 2 & 0x03FF_FFFF
    return 0x4800_0000 | to - va & 0x03FF_FFFC


def site(image: Image, name: str) -> int:
    """va of the first word that a redirect of a function changes."""
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


JUMPS: list[tuple[Path, str, Where, str]] = [
    (ARM64 / "vmlinux-callops", "vfs_read", symbol("vfs_write", 4), "verify-branch: {jump}, 0x4 bytes into vfs_write"),
    (ARM64 / "vmlinux-callops-bti", "vfs_read", symbol("vfs_write", 8),
     "verify-branch: {jump}, 0x8 bytes into vfs_write"),
    (PPC64LE / "vmlinux-pfe2", "vfs_read", symbol("vfs_write", 12), "verify-branch: {jump}, 0xc bytes into vfs_write"),
    (PPC64LE / "vmlinux-mprofile", "vfs_read", symbol("vfs_write", 12),
     "verify-branch: {jump}, 0xc bytes into vfs_write"),
    (PPC64LE / "vmlinux-ool", "vfs_read", symbol("vfs_write", 12), "verify-branch: {jump}, 0xc bytes into vfs_write"),
    (PPC64LE / "vmlinux-pfe2", "vfs_read", symbol("vfs_write"),
     "verify-branch: {jump}, the global entry of vfs_write, which needs its address in r12"),
    (PPC64LE / "vmlinux-pfe2", "vfs_read", symbol("pcrel_read"),
     "verify-branch: {jump}, pcrel_read, which does not keep r2 as callers of vfs_read expect"),
    (PPC64LE / "vmlinux-pfe2", "slot_probe", symbol("vfs_write", 8),
     "verify-branch: {jump}, the local entry of vfs_write, which needs its TOC in r2: callers of slot_probe need not "
     "have it there"),
    (ARM64 / "vmlinux-callops", "vfs_read", symbol("linux_banner", 4),
     "verify-branch: {jump}, in linux_banner, which is data"),
    (ARM64 / "vmlinux-pfe2", "vfs_read", symbol("vfs_read"), "verify-redirect: vfs_read: it leads to itself"),
    (PPC64LE / "vmlinux-pfe2", "vfs_read", symbol("vfs_read", 8), "verify-redirect: vfs_read: it leads to itself"),
    (ARM64 / "vmlinux-pfe2", "vfs_read", symbol("b_setup"),
     "verify-redirect: vfs_read: it leads to b_setup, which is freed with init memory"),
    (ARM64 / "vmlinux-pfe2", "vfs_read", symbol("rest_init"),
     "verify-redirect: vfs_read: it leads to rest_init, which never returns"),
    (ARM64 / "vmlinux-pfe2", "vfs_read", symbol("ftrace_caller"),
     "verify-redirect: vfs_read: it leads to ftrace_caller, which is called from patch sites alone"),
    (PPC64LE / "vmlinux-mprofile", "vfs_read", symbol("_mcount"),
     "verify-redirect: vfs_read: it leads to _mcount, which is called from patch sites alone"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "function", "where", "text"), JUMPS, ids=[case[3].rpartition(", ")[2] for case in JUMPS]
)
def test_a_jump_to_where_none_may_lead_is_a_finding(
    before: Path, function: str, where: Where, text: str, tmp_path: Path
) -> None:
    after = open_image(str(redirected(before, tmp_path, "--map", f"{function}=vfs_write", "--force-signature")))
    va, to = site(open_image(str(before)), function), where(after)
    said = found(before, write(after, tmp_path / "damaged", {va: jump(after, va, to)}))
    assert [line for line in said if not line.startswith("verify-byte")] == [
        text.format(jump=f"{function}: its jump goes to {to:#x}")
    ]


def test_two_functions_that_lead_to_each_other_are_findings(tmp_path: Path) -> None:
    before = ARM64 / "vmlinux-exec"
    after = open_image(str(redirected(before, tmp_path, *READ_BY_WRITE, "--map", "vfs_write=slot_probe")))
    va = site(open_image(str(before)), "vfs_write")
    damaged = write(after, tmp_path / "damaged", {va: jump(after, va, symbol("vfs_read")(after))})
    assert found(before, damaged) == [
        "verify-redirect: vfs_read: it leads to vfs_write, from where the way comes back",
        "verify-redirect: vfs_write: it leads to vfs_read, from where the way comes back",
    ]


@pytest.mark.parametrize("before", [ARM64 / "vmlinux-callops", PPC64LE / "vmlinux-pfe2", PPC64LE / "vmlinux-ool"])
def test_a_record_that_stays_kills_the_tracer(before: Path, tmp_path: Path) -> None:
    image = open_image(str(before))
    va, more = site(image, "vfs_read"), 8 if before.parent == PPC64LE else 0
    kept = write(image, tmp_path / "kept", {va: jump(image, va, symbol("vfs_write", more)(image))})
    (finding,) = found(before, kept)
    row = finding.partition("slot ")[2].partition(":")[0]
    assert finding == f"verify-record: vfs_read: its record stays in slot {row}: the kernel will switch ftrace off"


# -- modules: damage to jumps, relocations, stubs and marks ------------------------------------------------------------


class Patched:
    """A module with redirected functions, and changes to it."""

    def __init__(self, folder: Path, before: Path, *pairs: str) -> None:
        self.before, self.path = before, folder / "damaged.ko"
        after = redirected(before, folder, *(word for pair in pairs for word in ("--map", pair)), *FORCED)
        self.image, self.data = open_image(str(after)), bytearray(after.read_bytes())

    def start(self, section: str) -> int:
        return int(self.image.shdr["sh_offset"][self.image.names.index(section)])

    def row(self, name: str) -> int:
        """A symbol of that name, or of the section of that name."""
        symbols = self.image.symbols
        if name in self.image.names:
            sec = self.image.names.index(name)
            return next(row for row in range(len(symbols.rows)) if symbols.type[row] == 3 and symbols.shndx[row] == sec)
        return int(symbols.rows_named(name)[-1])

    def word(self, place: str, word: int) -> None:
        """Another word at .section+0xOFF or symbol+0xOFF."""
        struct.pack_into("<I", self.data, self._pos(place), word)

    def _pos(self, place: str) -> int:
        name, _, off = place.partition("+")
        more = int(off or "0", 16)
        if name in self.image.names:
            return self.start(name) + more
        row = self.row(name)
        start = int(self.image.shdr["sh_offset"][int(self.image.symbols.shndx[row])])
        return start + int(self.image.symbols.rows["st_value"][row]) + more

    def relocation(self, place: str, **fields: Any) -> None:
        """Other fields of the relocation at a place: type, symbol (a name), addend, offset (bytes further)."""
        wanted = self._pos(place)
        for sec, name in enumerate(self.image.names):
            if self.image.shdr["sh_type"][sec] != 4:
                continue
            target = int(self.image.shdr["sh_info"][sec])
            start, size = (int(self.image.shdr[field][sec]) for field in ("sh_offset", "sh_size"))
            for pos in range(start, start + size, 24):
                offset, info, addend = struct.unpack_from("<QQq", self.data, pos)
                if int(self.image.shdr["sh_offset"][target]) + offset == wanted and name != ".rela.debug_info":
                    symbol, kind = info >> 32, info & 0xFFFF_FFFF
                    symbol = self.row(fields["symbol"]) if "symbol" in fields else symbol
                    info = symbol << 32 | fields.get("type", kind)
                    packed = (offset + fields.get("offset", 0), info, fields.get("addend", addend))
                    struct.pack_into("<QQq", self.data, pos, *packed)
                    return
        raise AssertionError(f"no relocation at {place}")

    def rename(self, name: str, new: str) -> None:
        at = self.data.rindex(b"\0" + name.encode() + b"\0")
        self.data[at + 1 : at + 1 + len(name)] = new.encode().ljust(len(name), b"_")

    def findings(self) -> list[str]:
        self.path.write_bytes(self.data)
        return found(self.before, self.path)


Change = Callable[[Patched], None]
SITE_UTIL, SITE_WORK, SITE_STEP = ".text+0x140", ".text+0x90", ".text+0x10"  # of the ppc64le module
FRAMELESS = (
    "the loader's stub for it writes the TOC pointer into a frame of the caller's, which may hold another one there"
)


def words(place: str, *some: int) -> Change:
    def change(module: Patched) -> None:
        name, _, off = place.partition("+")
        for number, word in enumerate(some):
            module.word(f"{name}+{int(off or '0', 16) + 4 * number:#x}", word)

    return change


def relocation(place: str, **fields: Any) -> Change:
    return lambda module: module.relocation(place, **fields)


def both(*changes: Change) -> Change:
    def change(module: Patched) -> None:
        for step in changes:
            step(module)

    return change


NOP, FRAMED, TOC, ENTER = 0x6000_0000, "ftpatch_redirect__printk", "ftpatch_redirect_toc__printk", (
    "ftpatch_redirect_mini_work"
)  # fmt: skip
BY_FRAME = "verify-stub: mini_work: it jumps to ftpatch_redirect__printk (.text.ftpatch+0x0), but "
BY_TOC = "verify-stub: mini_util: it jumps to ftpatch_redirect_toc__printk (.text.ftpatch+0x0), but "
BY_R12 = "verify-stub: mini_util: it jumps to ftpatch_redirect_mini_work (.text.ftpatch+0x0), but "
CASES: list[tuple[str, tuple[str, ...], Change, list[str]]] = [
    # the sibling call, which corrupts a TOC pointer of the caller's
    ("a jump straight to another file", ("mini_work=_printk",), relocation(SITE_WORK, symbol="_printk"), [
        "verify-symbol: new symbol 28 ftpatch_redirect__printk is used by nothing",
        f"verify-branch: mini_work: it jumps to _printk in another file: {FRAMELESS}",
        "verify-stub: .text.ftpatch: ftpatch_redirect__printk of 44 bytes is entered by nothing"]),
    ("a stub without a frame that jumps to another file", ("mini_work=_printk",),
     words(FRAMED, NOP, NOP, NOP, NOP, 0x4800_0000), [
        BY_FRAME + "its stub goes to _printk "
        f"in another file without a frame of its own: {FRAMELESS}"]),
    ("a stub that keeps r2 in its caller's frame", ("mini_work=_printk",), words(FRAMED + "+0x4", 0xF841_0018), [
        BY_FRAME + "its stub writes a TOC "
        "pointer into a frame of the caller's, which may hold another one there"]),
    ("a frame that is not made", ("mini_work=_printk",), words(FRAMED + "+0x8", NOP), [
        BY_FRAME + "its stub goes to _printk "
        f"in another file without a frame of its own: {FRAMELESS}"]),
    ("a frame that is not given back", ("mini_work=_printk",), words(FRAMED + "+0x1c", NOP), [
        BY_FRAME + "its stub has 0x60000000 at "
        "+0x1c, expected 0x38210030 (addi r1,r1,48): r1 is not the caller's"]),
    ("r2 that is not put back", ("mini_work=_printk",), words(FRAMED + "+0x18", NOP), [
        BY_FRAME + "its stub has 0x60000000 at "
        "+0x18, expected 0xe8410028 (ld r2,40(r1)): the caller's r2 is lost"]),
    ("a return address that is not put back", ("mini_util=_printk",), words(TOC + "+0x34", NOP), [
        BY_TOC + "its stub has "
        "0x60000000 at +0x34, expected 0x7c0803a6 (mtlr r0): the return address is lost"]),
    ("a call without its nop", ("mini_work=_printk",), words(FRAMED + "+0x14", 0x7C00_0378), [
        BY_FRAME + "its stub has 0x7c000378 at "
        "+0x14, expected 0x60000000 (nop): the loader refuses a call without one, which becomes the load of r2"]),
    ("a call with the caller's r2", ("mini_work=_printk", "mini_util=_printk"), relocation(SITE_UTIL, symbol=FRAMED), [
        "verify-symbol: new symbol 28 ftpatch_redirect_toc__printk is used by nothing",
        "verify-stub: mini_util: its stub calls _printk with whatever TOC pointer the callers of mini_util have",
        "verify-stub: .text.ftpatch: ftpatch_redirect_toc__printk of 60 bytes is entered by nothing"]),
    # entries
    ("a global entry without r12", ("mini_work=mini_step",), relocation(SITE_WORK, symbol=".text", addend=8), [
        "verify-branch: mini_work: it jumps to the global entry of mini_step, which needs its address in r12"]),
    ("a local entry with anybody's r2", ("mini_util=mini_work",), relocation(SITE_UTIL, symbol="mini_work"), [
        "verify-symbol: new symbol 28 ftpatch_redirect_mini_work is used by nothing",
        "verify-branch: mini_util: it jumps to the local entry of mini_work, which needs its TOC in r2: callers of "
        "mini_util need not have it there",
        "verify-stub: .text.ftpatch: ftpatch_redirect_mini_work of 32 bytes is entered by nothing"]),
    ("the local entry by a section's symbol", ("mini_work=mini_step",),
     relocation(SITE_WORK, symbol=".text", addend=16), []),
    ("the middle of a function", ("mini_work=mini_step",), relocation(SITE_WORK, symbol=".text", addend=20), [
        "verify-branch: mini_work: it jumps to .text+0x14, 0xc bytes into mini_step"]),
    ("behind a symbol", ("mini_work=mini_step",), relocation(SITE_WORK, addend=4), [
        "verify-branch: mini_work: it jumps to .text+0x14, 0xc bytes into mini_step"]),
    ("data", ("mini_work=mini_step",), relocation(SITE_WORK, symbol="state"), [
        "verify-branch: mini_work: it jumps to .bss+0x0, in state, which is data"]),
    ("a stub to a local entry", ("mini_util=mini_work",),
     both(relocation(ENTER + "+0x10", addend=16), relocation(ENTER + "+0x14", addend=20)), [
        BY_R12 + "its stub enters mini_work "
        "behind its global entry"]),
    ("a stub into another file", ("mini_util=mini_work",),
     both(relocation(ENTER + "+0x10", symbol="_printk"), relocation(ENTER + "+0x14", symbol="_printk")), [
        BY_R12 + "its stub enters _printk in "
        "another file, and nothing takes its TOC pointer back"]),
    ("halves of two places", ("mini_util=mini_work",), relocation(ENTER + "+0x14", addend=16), [
        BY_R12 + "the halves of a distance in "
        "its stub are of two places, mini_work (.text+0x90) and mini_work (.text+0x98)"]),
    ("another TOC pointer", ("mini_util=_printk",),
     both(relocation(TOC + "+0x18", symbol="mini_work"), relocation(TOC + "+0x1c", symbol="mini_work")), [
        BY_TOC + "its stub takes "
        "mini_work+0x88 for the module's TOC pointer"]),
    ("a stub of a function of the module", ("mini_work=_printk",), relocation(FRAMED + "+0x10", symbol="mini_step"), [
        BY_FRAME + "its stub calls mini_step of "
        "the module itself, where a jump keeps arguments on the stack"]),
    # relocations
    ("a relocation of another type", ("mini_work=mini_step",), relocation(SITE_WORK, type=44), [
        "verify-branch: mini_work: its jump has a relocation of type 44 at 0x90, expected 10 at 0x90",
        "verify-relocation: .rela.text row 20: offset 0x90, type 44, symbol 8 mini_step +0x0 is new, and no patched "
        "site is there"]),
    ("a relocation beside the jump", ("mini_work=mini_step",), relocation(SITE_WORK, offset=4), [
        "verify-branch: mini_work: 0 relocations write its jump, expected one",
        "verify-relocation: .rela.text row 20: offset 0x94, type 10, symbol 8 mini_step +0x0 is new, and no patched "
        "site is there"]),
    ("a distance that is there before", ("mini_work=mini_step",), words(SITE_WORK, 0x4800_0004), [
        "verify-branch: mini_work: its jump goes +0x4 bytes before the loader fills it, expected 0"]),
    # the pair
    ("itself", ("mini_work=mini_step",), relocation(SITE_WORK, symbol="mini_work"), [
        "verify-redirect: mini_work: it leads to itself"]),
    ("each other", ("mini_work=mini_step", "mini_step=mini_util"), relocation(SITE_STEP, symbol="mini_work"), [
        "verify-redirect: mini_step: it leads to mini_work, from where the way comes back",
        "verify-redirect: mini_work: it leads to mini_step, from where the way comes back"]),
    ("init text", ("mini_work=mini_step",), relocation(SITE_WORK, symbol="mini_init"), [
        "verify-redirect: mini_work: it leads to mini_init, which is freed with init memory"]),
    # marks
    ("a mark of another name", ("mini_work=mini_step",), lambda module: module.rename("ftpatch_redirected_mini_work", (
        "ftpatch_redirected_mini_walk")), [
        "verify-symbol: mini_work: no symbol ftpatch_redirected_mini_work marks it as redirected",
        "verify-symbol: new symbol 28 ftpatch_redirected_mini_walk marks no redirected function"]),
    ("a stub of another name", ("mini_work=_printk",), lambda module: module.rename(FRAMED, "ftpatch_redirect__puts"), [
        "verify-stub: .text.ftpatch: ftpatch_redirect__puts__ leads to _printk, and should have the name "
        "ftpatch_redirect__printk"]),
]  # fmt: skip


@pytest.mark.parametrize(("pairs", "change", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_damage_to_a_module_is_found(
    pairs: tuple[str, ...], change: Change, expected: list[str], tmp_path: Path
) -> None:
    module = Patched(tmp_path, PPC64LE / "mini.ko", *pairs)
    change(module)
    assert module.findings() == expected


# -- every byte --------------------------------------------------------------------------------------------------------

EVERY = [
    (ARM64 / "vmlinux-callops", READ_BY_WRITE),
    (PPC64LE / "vmlinux-pfe2", ("--map", "slot_probe=vfs_write", "--force-signature")),
    (ARM64 / "mini.ko", ("--map", "mini_work=_printk", *FORCED)),
    (PPC64LE / "mini.ko", ("--map", "mini_util=mini_work", *FORCED)),
    (PPC64LE / "mini.ko", ("--map", "mini_util=_printk", *FORCED)),
]  # fmt: skip


def places(before: Image, after: Image, journal: Path) -> list[int]:
    """Positions of what a redirect wrote: the jump, its stub, the relocations of both, and the new symbols."""
    document = json.loads(journal.read_text())["images"][0]
    spans = [(int(edit["pos"]), len(edit["new"]) // 2) for edit in document["edits"]
             if edit["owner"].startswith(("site ", "stub "))]  # fmt: skip
    for sec in range(len(after.shdr)) if not after.linked else ():
        start, size, kind = (int(after.shdr[field][sec]) for field in ("sh_offset", "sh_size", "sh_type"))
        old = int(before.shdr["sh_size"][sec]) if sec < len(before.shdr) else 0
        if kind in (2, 4) and size > old and not after.names[sec].startswith((".rela__", ".rela.debug")):
            spans.append((start + old, size - old))  # symbols and relocations that are new
        elif sec >= len(before.shdr) and kind == 1:
            spans.append((start, size))
    return [pos + at for pos, size in spans for at in range(size)]


@pytest.mark.parametrize(("before", "options"), EVERY, ids=lambda one: one.name if isinstance(one, Path) else one[1])
def test_any_changed_byte_of_a_redirect_is_found(before: Path, options: tuple[str, ...], tmp_path: Path) -> None:
    """One bit of each byte, by turns; it may make another request's result, which leads to another function."""
    after = redirected(before, tmp_path, *options)
    scan, sound = scanned(before), after.read_bytes()
    leads = prove(scan, open_image(str(after)), checks=Checks(execute=False)).replacements
    at, missed = places(scan.image, open_image(str(after)), tmp_path / "after.json"), []
    assert len(at) >= 8
    for number, pos in enumerate(at):
        data = bytearray(sound)
        data[pos] ^= 1 << number % 8
        (tmp_path / "damaged").write_bytes(data)
        try:
            proof = prove(scan, open_image(str(tmp_path / "damaged")), checks=Checks(execute=False, deep=None))
        except FtpatchError:
            continue
        if not proof.findings and proof.replacements == leads:
            missed.append((hex(pos), number % 8))
    assert missed == []


# -- stubs of kernels --------------------------------------------------------------------------------------------------


def far_words(image: Image, function: str) -> tuple[int, list[int]]:
    """va and words of the stub that a function's jump goes to."""
    va = site(open_image(image.path), function) if image.arch.name == "arm64" else symbol(function)(image)
    (word,) = struct.unpack("<I", image.data[image.pos_of_va(va) : image.pos_of_va(va) + 4].tobytes())
    if image.arch.name == "arm64":
        stub = va + (((word & 0x03FF_FFFF) ^ 0x0200_0000) - 0x0200_0000) * 4
    else:
        stub = va + ((word & 0x03FF_FFFC) ^ 0x0200_0000) - 0x0200_0000
    pos, n = image.pos_of_va(stub), 3 if image.arch.name == "arm64" else 5
    return stub, list(struct.unpack(f"<{n}I", image.data[pos : pos + 4 * n].tobytes()))


PACA = [
    (0, lambda word: word + 8,
     "verify-branch: slot_probe: its jump goes to {stub}, by a stub that reads its TOC at 24"),
    (1, lambda word: word + 1, "verify-branch: slot_probe: its jump goes to {stub}, where no function begins"),
    (2, lambda word: word + 8,
     "verify-branch: slot_probe: its jump goes to {stub}, by a stub that enters vfs_write behind its global entry"),
    (2, lambda word: word + 4, "verify-branch: slot_probe: its jump goes to {stub}, 0x4 bytes into vfs_write"),
    (3, lambda word: 0x6000_0000, "verify-branch: slot_probe: its jump goes to {stub}, where no function begins"),
    (4, lambda word: word | 1, "verify-branch: slot_probe: its jump goes to {stub}, where no function begins"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "change", "text"), PACA)
def test_a_damaged_stub_of_a_kernel_is_told(
    number: int, change: Callable[[int], int], text: str, tmp_path: Path
) -> None:
    before = PPC64LE / "vmlinux-pfe2"
    after = open_image(str(redirected(before, tmp_path, "--map", "slot_probe=vfs_write", "--force-signature")))
    stub, words = far_words(after, "slot_probe")
    assert words[3:] == [0x7D89_03A6, 0x4E80_0420]
    damaged = write(after, tmp_path / "damaged", {stub + 4 * number: change(words[number])})
    said = found(before, damaged)
    assert [line for line in said if not line.startswith("verify-byte")] == [text.format(stub=f"{stub:#x}")]


VENEER = [
    (0, lambda word: word ^ 1 << 29, "verify-branch: near: its jump goes to {stub}, where no function begins"),
    (1, lambda word: word + (4 << 10), "verify-branch: near: its jump goes to {stub}, 0x4 bytes into far"),
    (1, lambda word: word + 1, "verify-branch: near: its jump goes to {stub}, where no function begins"),
    (2, lambda word: 0xD61F_0220, "verify-branch: near: its jump goes to {stub}, where no function begins"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "change", "text"), VENEER)
def test_a_damaged_veneer_is_told(number: int, change: Callable[[int], int], text: str, tmp_path: Path) -> None:
    before = Path(far_kernel(tmp_path / "before"))
    after = open_image(str(redirected(before, tmp_path, "--map", "near=far", "--force-signature")))
    assert messages(verify(before, Path(after.path))) == []
    stub, words = far_words(after, "near")
    damaged = write(after, tmp_path / "damaged", {stub + 4 * number: change(words[number])})
    said = found(before, damaged)
    assert [line for line in said if not line.startswith("verify-byte")] == [text.format(stub=f"{stub:#x}")]


def test_a_veneer_over_code_is_a_finding(tmp_path: Path) -> None:
    """It stands where something stood before."""
    before = Path(far_kernel(tmp_path / "before"))
    after = open_image(str(redirected(before, tmp_path, "--map", "near=far", "--force-signature")))
    stub, _ = far_words(after, "near")
    taken = write(open_image(str(before)), tmp_path / "taken", {stub: 0xD65F_03C0})
    assert found(taken, Path(after.path)) == [
        f"verify-stub: a shared stub of 12 bytes stands at {stub:#x}, where something else stood"
    ]


# -- arguments, journals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected", "notes"),
    [
        ("", [], []),
        ("it is variadic", ["verify-redirect: mini_work: it leads to _printk by a call from another frame, and it is "
                            "variadic"], []),
        (None, [], ["mini_work becomes _printk, which is called from another frame: whether all arguments travel in "
                    "registers is not known"]),
    ],
)  # fmt: skip
def test_arguments_in_memory_behind_a_frame_are_a_finding(
    answer: str | None, expected: list[str], notes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = PPC64LE / "mini.ko"
    after = redirected(before, tmp_path, "--map", "mini_work=_printk", *FORCED)
    monkeypatch.setattr(signatures, "why_not_in_registers", lambda *_, **__: answer)
    proof = prove(scan_file(str(before)), open_image(str(after)), checks=Checks(execute=False))
    said = [f"{finding.rule}: {finding.message}" for finding in proof.findings]
    assert (said, list(proof.notes)) == (expected, notes)


def changed_journal(path: Path, old: str, new: str) -> Path:
    """A journal whose site says something else."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(("old", "new", "expected"), [
    ('"action": "redirect"', '"action": "call"', [
        "verify-journal: the site at {place} is enabled in the journal, and not in the file",
        "verify-journal: the site at {place} is redirected in the file, and not in the journal"]),
    ('"action": "redirect"', '"action": "keep"', [
        "verify-journal: the site at {place} is redirected in the file, and not in the journal"]),
    ('"target": "vfs_write"', '"target": "slot_probe"', [
        "verify-journal: the site at {place} leads to vfs_write, in the journal to slot_probe"]),
    ('"target": "vfs_write"', '"target": null', [
        "verify-journal: the site at {place} leads to vfs_write, in the journal to None"]),
])  # fmt: skip
def test_a_journal_that_says_something_else_is_a_finding(
    old: str, new: str, expected: list[str], tmp_path: Path
) -> None:
    before = ARM64 / "vmlinux-callops"
    after = redirected(before, tmp_path, *READ_BY_WRITE)
    journal = changed_journal(tmp_path / "after.json", old, new)
    image = open_image(str(before))
    va = site(image, "vfs_read")
    place = f".text+{va - int(image.shdr['sh_addr'][image.names.index('.text')]):#x} (file position "
    said = messages(verify(before, after, "--journal", str(journal)))
    assert said == [line.format(place=f"{place}{image.pos_of_va(va):#x})") for line in expected]


def test_a_journal_may_name_another_symbol_of_the_replacement(tmp_path: Path) -> None:
    before = ARM64 / "vmlinux-callops"
    after = redirected(before, tmp_path, "--map", "vfs_read=__se_sys_getppid", "--force-signature")
    image = verify(before, after, "--journal", str(tmp_path / "after.json"))
    assert (messages(image), image["proof"]["redirects"]) == ([], {"sys_getppid": 1})


# -- what is unusual, and sound ----------------------------------------------------------------------------------------

SOUND: list[tuple[Path, tuple[tuple[str, ...], ...]]] = [
    (ARM64 / "vmlinux-callops", (("redirect", "--map", "vfs_read=asm_nops"),)),  # in assembly
    (ARM64 / "vmlinux-pfe2", (("redirect", "--map", "vfs_read=vfs_write", "--map", "vfs_write=slot_probe"),)),
    (PPC64LE / "vmlinux-ool", (("redirect", "--map", "vfs_read=vfs_write"), ("enable", "--func", "vfs_write"))),
    (PPC64LE / "vmlinux-ool", (("enable", "--func", "vfs_write"), ("redirect", "--map", "vfs_read=vfs_write"))),
    (PPC64LE / "vmlinux-pfe2", (("redirect", "--map", "slot_probe=vfs_write"), ("disable", "--func", "slot_probe"),
                                ("redirect", "--map", "slot_probe=direct_only"))),
    (PPC64LE / "vmlinux-mprofile", (("redirect", "--map", "vfs_read=vfs_write"), ("disable", "--func", "vfs_read"))),
    (PPC64LE / "mini.ko", (("redirect", "--map", "mini_util=mini_work"), ("disable", "--func", "mini_util"),
                           ("redirect", "--map", "mini_util=_printk"))),
    (PPC64LE / "mini.ko", (("redirect", "--map", "mini_work=_printk"), ("enable", "--func", "mini_step",
                            "--hook", "_printk"))),
    (PPC64LE / "mini.ko", (("enable", "--func", "mini_work", "--hook", "_printk"), ("disable", "--func", "mini_work"),
                           ("redirect", "--map", "mini_work=mini_step"))),
    (ARM64 / "mini.ko", (("redirect", "--map", "mini_work=_printk"), ("redirect", "--map", "mini_step=mini_work"))),
]  # fmt: skip


@pytest.mark.parametrize(("before", "steps"), SOUND, ids=lambda one: one.name if isinstance(one, Path) else one[-1][-1])
def test_several_steps_are_one_change(before: Path, steps: tuple[tuple[str, ...], ...], tmp_path: Path) -> None:
    """From the first file to the last one, and over each step alone."""
    files = [before]
    for number, (verb, *options) in enumerate(steps):
        forced = FORCED if verb == "redirect" else ()
        files.append(redirected(files[-1], tmp_path, *options, *forced, verb=verb, out=f"step{number}"))
    for one, other in (*pairwise(files), (files[-1], files[-1])):
        assert found(one, other) == [], (one, other)
    assert messages(verify(files[0], files[-1])) == []


@pytest.mark.parametrize("folder", [ARM64, PPC64LE])
def test_a_hook_that_becomes_what_it_hooks_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two would call each other for ever; the proof found it, and the writer blamed itself."""
    before, out = folder / "mini.ko", str(tmp_path / "out.ko")
    hooked = redirected(before, tmp_path, "--func", "mini_step", "--hook", "mini_work", verb="enable", out="hooked")
    leading = redirected(before, tmp_path, "--map", "mini_work=mini_step", *FORCED, out="leading")
    capsys.readouterr()
    assert run(["redirect", str(hooked), "--map", "mini_work=mini_step", *FORCED, "-o", out]) == 5
    assert "it is the hook of mini_step, which takes its place: they never return" in capsys.readouterr().err
    assert run(["enable", str(leading), "--func", "mini_step", "--hook", "mini_work", "-o", out]) == 5
    assert capsys.readouterr().err == (
        "ftpatch: --hook mini_work: the hook is itself among the chosen sites: found a call that leads back to itself, "
        "expected another function \N{EN DASH} ftpatch disable --func mini_work, which became that function, gives it "
        "its own code back\n"
    )
