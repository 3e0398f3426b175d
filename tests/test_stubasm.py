"""Stubs of the user's own: what their assembly may say, where their words go in a module, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ftpatch import api
from ftpatch.arch import architectures
from ftpatch.arch.parts import Code, Fixup
from ftpatch.cli import run
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import InputError, PolicyError, UnsupportedError
from ftpatch.plan import stubasm
from ftpatch.plan.plan import Callee, Plan
from ftpatch.plan.request import EnableRequest
from ftpatch.plan.stubasm import Stub
from ftpatch.recovered.image import open_image
from ftpatch.sites import select
from ftpatch.write import contents

ROOT = Path(__file__).resolve().parents[1]
ARM64, PPC64LE = ROOT / "testdata/mini/mini.ko", ROOT / "testdata/mini-ppc64le/mini.ko"
ARCH = {arch.name: arch for arch in architectures()}
CALL26, JUMP26, REL24 = 283, 282, 10
STUBS = {  # as they are shown to users
    name: (ROOT / f"testdata/stubs/{name}.S").read_text() for name, arch in ARCH.items() if arch.assembly is not None
}
EXAMPLE = {name: text.replace("target ", "_printk ") for name, text in STUBS.items()}


def require_keystone() -> None:
    if find_spec("keystone") is None:
        pytest.skip("pip install keystone-engine runs this (x86-64 only)")


def assembled(text: str, arch: str = "arm64") -> Stub:
    require_keystone()
    return stubasm.assemble(text.encode(), "f.S", ARCH[arch])


def words(text: str, arch: str = "arm64") -> list[int]:
    return list(assembled(text, arch).code.words)


def refusal(text: str | bytes, arch: str = "arm64") -> str:
    require_keystone()
    with pytest.raises(InputError) as error:
        stubasm.assemble(text.encode() if isinstance(text, str) else text, "f.S", ARCH[arch])
    return str(error.value)


# -- the assembly ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("bti c; stp x29, x9, [sp, #-16]!; ret x9", [0xD503245F, 0xA9BF27FD, 0xD65F0120]),
        ("mov x9, lr // lr is x30\n# 1 \"cpp\"\n/* two\nlines */ nop", [0xAA1E03E9, 0xD503201F]),
        (".equ N, 16\nadd x0, x0, #N\nsub sp, sp, #N+16", [0x91004000, 0xD10083FF]),
        ("stp x0, x1, [sp, #-N]!\n.equ N, 96", [0xA9BA07E0]),
        ("1: b 1f; 1: b 1b; b .; b .-4", [0x14000001, 0x14000000, 0x14000000, 0x17FFFFFF]),
        ("x: cbz x0, y; tbnz w1, #3, x; b.ne y; y: adr x2, x", [0xB4000060, 0x371FFFE1, 0x54000021, 0x10FFFFA2]),
        ("ldr x10, v; ret; v: .quad -2", [0x5800004A, 0xD65F03C0, 0xFFFFFFFE, 0xFFFFFFFF]),
        ("ldr x0, [x1, #b-a]; a: nop; b: nop", [0xF8404020, 0xD503201F, 0xD503201F]),
        ("nop; .balign 8; .inst 0xd65f03c0; .long 5, b-a; a: nop; b: .text; .globl a",
         [0xD503201F, 0xD503201F, 0xD65F03C0, 5, 4, 0xD503201F]),
    ],
)  # fmt: skip
def test_arm64_assembly(text: str, wanted: list[int]) -> None:
    assert words(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mflr r0; mflr %r0; mflr 0; std r0, 16(r1) # saved", [0x7C0802A6] * 3 + [0xF8010010]),
        (".equ N, 32\nstdu r1, -N(r1); addi r1, r1, N", [0xF821FFE1, 0x38210020]),
        ("bcl 20, 31, 1f; 1: mflr r12; ld r2, toc-1b(r12); .balign 8; toc: .quad 1",
         [0x429F0005, 0x7D8802A6, 0xE84C000C, 0x60000000, 1, 0]),
        ("cmpdi cr7, r3, 0; beq cr7, 1f; bne+ 1f; bdnz .-8; 1: bctr",
         [0x2FA30000, 0x419E000C, 0x40E20008, 0x4200FFF8, 0x4E800420]),
        ("bl 1f; 1: b $", [0x48000005, 0x48000000]),
    ],
)  # fmt: skip
def test_ppc64le_assembly(text: str, wanted: list[int]) -> None:
    assert words(text, "ppc64le") == wanted


def test_symbols_become_relocations() -> None:
    stub = assembled("nop; bl foo; b site+4\nb target; .quad state+8")
    assert stub.code.words == (0xD503201F, 0x94000000, 0x14000000, 0x14000000, 0, 0)
    assert stub.code.fixups == (
        Fixup(4, CALL26, "foo"), Fixup(8, JUMP26, "site", 4), Fixup(12, JUMP26, "target"), Fixup(16, 257, "state", 8),
    )  # fmt: skip
    assert stub.lines == (1, 1, 1, 2, 2, 2)
    other = assembled("bl foo; nop; b site+4; nop; .quad .TOC.", "ppc64le")
    assert other.code.fixups == (Fixup(0, REL24, "foo"), Fixup(8, REL24, "site", 4), Fixup(16, 38, ".TOC."))


def test_data_may_come_first() -> None:
    assert assembled(".quad 5\nret").code.entry == 8


REFUSED = [
    ("", "f.S: no instruction in it: expected a stub in assembly"),
    ("// nothing\n.quad 5", "f.S: no instruction in it: expected a stub in assembly"),
    (b"nop\n\xff", "f.S: not UTF-8 text: found byte 0xff at 0x4, expected assembly"),
    ("nop\n" * 4097, "f.S: too large for a stub: found 4097 words, expected at most 4096"),
    ("nop\nbogus x0", "f.S:2: the assembler (keystone) does not take it: found bogus x0: Invalid mnemonic "
     "(KS_ERR_ASM_MNEMONICFAIL), expected one instruction – .inst gives an instruction as a number"),
    ("adrp x0, foo", "f.S:1: only b and bl, and .quad, may name a symbol: found adrp x0, foo, expected foo to be a "
     "label, or a register of this machine"),
    ("b.eq foo", "f.S:1: only b and bl, and .quad, may name a symbol: found b.eq foo, expected foo to be a label, or a "
     "register of this machine"),
    ("add x0, x0, :lo12:foo", "f.S:1: operands that are not understood: found add x0, x0, :lo12:foo, expected "
     "registers, numbers and labels"),
    ("ldr x0, =foo", "f.S:1: operands that are not understood: found ldr x0, =foo, expected registers, numbers and "
     "labels"),
    ("bl foo+4", "f.S:1: no place to branch to: found bl foo+4, expected a label, a symbol, or site+4"),
    ("b 0x1000", "f.S:1: no place to branch to: found b 0x1000, expected a label"),
    ("b 1f", "f.S:1: no such label: found 1f"),
    # Python refuses to read 5,000 digits as a number: that was a ValueError
    ("nop; .long " + "9" * 5000, f"f.S:1: no value: found .long {'9' * 5000}, expected a number, or .quad SYMBOL"),
    (".equ X, " + "9" * 5000, f"f.S:1: no constant: found .equ X, {'9' * 5000}, expected .equ NAME, NUMBER"),
    ("mov x0, #" + "9" * 5000, f"f.S:1: operands that are not understood: found mov x0, #{'9' * 5000}, expected "
     "registers, numbers and labels"),
    ("a: a: nop", "f.S:1: the name is taken: found label a, expected a name of its own"),
    ("site: nop", "f.S:1: the name is taken: found label site, expected a name of its own"),
    ("x0: nop", "f.S:1: the name is taken: found label x0, expected a name of its own"),
    (".macro m", "f.S:1: this directive is not supported: found .macro, expected .inst, .long, .4byte, .quad, .8byte, "
     ".balign, .equ"),
    ("nop; .quad foo", "f.S:1: no pointer: found .quad foo at offset 0x4, expected .quad SYMBOL at a multiple of 8 – "
     ".balign 8 in front of it"),
    ("nop; .long foo", "f.S:1: no pointer: found .long foo at offset 0x4, expected .quad SYMBOL at a multiple of 8 – "
     ".balign 8 in front of it"),
    ("nop; .long 0x100000000", "f.S:1: a number that does not fit: found .long 0x100000000, expected 4 bytes"),
    (".inst 0xffffffff", "f.S:1: no instruction to the second decoder (capstone): found .inst 0xffffffff: 0xffffffff"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_a_line_that_cannot_be_taken_is_named(text: str | bytes, wanted: str) -> None:
    assert refusal(text) == wanted


@pytest.mark.parametrize(
    ("text", "arch"),
    [
        ("add x0, (", "arm64"),  # keystone never comes back
        ("a: b a+2", "arm64"),  # "fixup not sufficiently aligned", and the process ends
        ("mov x0 x1", "arm64"),  # no bytes and no error
        ("b 0x90000000", "arm64"),  # cut off without a word
        ("beq .+0x20000", "ppc64le"),  # the same
        ("bl 0(r3)", "ppc64le"),  # a crash
        ("slwi r3, ~, r4", "ppc64le"),  # never comes back
        ("rlwinm r3, r4, 44", "ppc64le"),  # "Not supported instr", and the process ends
        ("addi 3, 3, 0x1ffffffffffffffff", "ppc64le"),  # prints to stderr, returns nothing
        ("ba .+8", "ppc64le"),
    ],
)
def test_what_the_assembler_gets_wrong_never_reaches_it_or_is_seen(
    text: str, arch: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert refusal(text, arch).startswith("f.S:1: ")
    assert capfd.readouterr().err == ""


def test_without_keystone_the_refusal_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keystone", None)
    with pytest.raises(UnsupportedError) as error:
        stubasm.assemble(b"ret", "f.S", ARCH["arm64"])
    assert str(error.value) == (
        "--stub-asm needs the assembler keystone: found import of keystone halted; None in sys.modules – "
        "pip install keystone-engine, or use --hook SYMBOL where it has no wheel"
    )


# -- in a module -----------------------------------------------------------------------------------------------


Row = tuple[int, int, str, int]  # offset, type, symbol, addend


def planned(path: Path, text: str, functions: tuple[str, ...], **more: str) -> Plan:
    """The plan by which the functions' sites call that stub."""
    require_keystone()
    found = api.scan(str(path))
    stub = stubasm.assemble(text.encode(), "f.S", found.arch)
    request = EnableRequest(
        select.select(found.sites, functions).mask, stub=stub, force_target="force" in more,
        target=more.get("target", ""), hook=more.get("hook", ""),
    )  # fmt: skip
    plan = api.make_plan(found, request)
    return plan


def result(plan: Plan, folder: Path) -> Image:
    image = plan.scan.sites.image
    (folder / "out.ko").write_bytes(contents.assembled(image, plan.edits))
    return open_image(str(folder / "out.ko"))


def relocations(image: Image, section: str) -> list[Row]:
    """A section's relocations; symbols of sections by their section's name."""
    table = image.names.index(".rela" + section)
    found = []
    for row in image.rows(table, t.RELA):
        symbol = int(row["r_info"]) >> 32
        name = image.symbols.name(symbol) or image.names[int(image.symbols.shndx[symbol])]
        found.append((int(row["r_offset"]), int(row["r_info"]) & 0xFFFF_FFFF, name, int(row["r_addend"])))
    return found


def code(image: Image, section: str) -> list[int]:
    content = image.content(image.names.index(section)).tobytes()
    return [int(word) for word in np.frombuffer(content, dtype="<u4")]


def policy(path: Path, text: str, functions: tuple[str, ...] = ("mini_work",), **more: str) -> str:
    with pytest.raises(PolicyError) as error:
        planned(path, text, functions, **more)
    return str(error.value)


def test_one_copy_serves_the_sites_of_a_region(tmp_path: Path) -> None:
    plan = planned(ARM64, EXAMPLE["arm64"], ("mini_work", "mini_util", "mini_init"))
    image = result(plan, tmp_path)
    for section in (".text.ftpatch", ".init.text.ftpatch"):
        assert code(image, section) == words(EXAMPLE["arm64"])
        assert relocations(image, section) == [(40, CALL26, "_printk", 0)]
    calls = [row for row in relocations(image, ".text") if row[2].startswith("ftpatch")]
    assert [row[1:] for row in calls] == [(CALL26, "ftpatch_call", 0)] * 2
    calls = [row for row in relocations(image, ".init.text") if row[2].startswith("ftpatch")]
    assert [row[1:] for row in calls] == [(CALL26, "ftpatch_call_init", 0)]
    assert plan.summary.target == "stub f.S" and plan.warnings == ()


def test_a_stub_that_names_its_site_is_laid_down_for_each(tmp_path: Path) -> None:
    """In line on arm64 and out of line on ppc64le: each copy goes on behind the branch of its own site."""
    for path, text, size in ((ARM64, "mov x30, x9; b site+4", 8), (PPC64LE, "mtlr r0; b site+4", 8)):
        plan = planned(path, text, ("mini_work", "mini_util"))
        image, table, kind = result(plan, tmp_path), plan.scan.sites, JUMP26 if path == ARM64 else REL24
        homes = [int(table.branch_va[i] - table.image.base[table.sec[i]]) + 4 for i in plan.index.tolist()]
        found = relocations(image, ".text.ftpatch")
        assert [row for row in found if row[0] < 2 * size] == [
            (size * at + 4, kind, ".text", home) for at, home in enumerate(homes)
        ]
        assert code(image, ".text.ftpatch")[:2] == code(image, ".text.ftpatch")[2:4]
        calls = [row for row in found if row[2] == "ftpatch_call"] or [
            row for row in relocations(image, ".text") if row[2] == "ftpatch_call"
        ]
        assert [row[3] for row in calls] == [0, size]


def test_target_is_the_loaders_jump_of_the_region(tmp_path: Path) -> None:
    """The sites' ops are filled in as for a call of ftrace_caller itself, which finds them by the return address."""
    plan = planned(ARM64, "b target", ("mini_work", "mini_init"))
    image = result(plan, tmp_path)
    assert relocations(image, ".text.ftpatch") == [(0, JUMP26, "ftpatch_ftrace_caller", 0)]
    assert relocations(image, ".init.text.ftpatch") == [(0, JUMP26, "ftpatch_ftrace_caller_init", 0)]
    assert [row[1:] for row in relocations(image, ".text") if row[2] == "ftpatch_ops"] == [(257, "ftpatch_ops", 0)]
    row = image.symbols.defined("ftpatch_ftrace_caller_init")
    assert row is not None and image.names[int(image.symbols.shndx[row])] == ".init.text.ftrace_trampoline"


def test_target_is_a_trampoline_in_front_of_the_stub_where_the_loader_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ppc64le, out of line: a tail branch keeps LR, by which ftrace_caller finds the ops of the site."""
    own = Callee("ftrace_caller", Code((1, 2, 3, 4, 5)), ops_size=256)  # as read from a kernel
    monkeypatch.setattr("ftpatch.plan.module.callee._own", lambda *_: own)
    plan = planned(PPC64LE, "nop; b target", ("mini_work",))
    image, (home,) = result(plan, tmp_path), plan.scan.sites.branch_va[plan.index].tolist()
    assert code(image, ".text.ftpatch")[:8] == [1, 2, 3, 4, 5, 0, 0x60000000, 0x48000000]
    assert sorted(relocations(image, ".text.ftpatch")) == [
        (28, REL24, "ftpatch_target", 0),
        (32, 38, "ftpatch_ops", 0),
        (44, REL24, "ftpatch_call", 0),
        (52, REL24, ".text", home - int(plan.scan.sites.image.base[plan.scan.sites.sec[plan.index[0]]]) + 4),
    ]
    assert policy(PPC64LE, "bl target").startswith("f.S:1: ftrace_caller cannot be called from here: ")
    monkeypatch.setattr("ftpatch.plan.module.callee._own", lambda *_: replace(own, ops_size=0))
    assert "it calls ftrace_caller at line 1, which then takes the stub for the site" in policy(PPC64LE, "bl target")


def test_target_is_the_hook(tmp_path: Path) -> None:
    image = result(planned(ARM64, STUBS["arm64"], ("mini_work",), hook="mini_untraced"), tmp_path)
    assert relocations(image, ".text.ftpatch") == [(40, CALL26, "mini_untraced", 0)]


def test_a_pointer_may_lead_to_data(tmp_path: Path) -> None:
    """A stub that counts in a variable of the module's."""
    text = "ldr x10, 1f; ldr x11, [x10]; add x11, x11, #1; str x11, [x10]; mov x10, x30; mov x30, x9; ret x10\n" \
           ".balign 8; 1: .quad state"  # fmt: skip
    image = result(planned(ARM64, text, ("mini_work",)), tmp_path)
    assert relocations(image, ".text.ftpatch") == [(32, 257, "state", 0)]
    assert policy(ARM64, text.replace("state", "mini_init")) == (
        "--stub-asm mini_init: the symbol is init text, which is freed once the module runs: found chosen sites "
        "outside "
        "init text, expected a symbol that stays"
    )


def test_ppc64le_example_loads_the_modules_toc(tmp_path: Path) -> None:
    image = result(planned(PPC64LE, EXAMPLE["ppc64le"], ("mini_work",)), tmp_path)
    found = relocations(image, ".text.ftpatch")
    toc = 4 * len(words(EXAMPLE["ppc64le"], "ppc64le")) - 8
    assert (toc, 38, ".TOC.", 0) in found and [row[1:] for row in found if row[2] == "_printk"] == [
        (REL24, "_printk", 0)
    ]


UNSOUND = [
    (ARM64, "ret", "f.S: the stub does not behave as a trampoline for patch sites: found it does not return with "
     "the old "
     "x9 in x30, so the traced function would never return, expected x0-x8, x18-x29 and sp kept, x30 := x9, return to "
     "the old x30 – --force-target takes it nevertheless"),
    (ARM64, "nop\nmov x30, x9\nb site", "it goes to site+0 at line 3, and only `b site+4` goes on behind the site"),
    (ARM64, "b site+4", "it does not return with the old x9 in x30"),
    (ARM64, "mov x30, x9; mov x0, #1; b site+4", "it changes x0"),
    (ARM64, "mov x30, x9; sub sp, sp, #16; b site+4", "it changes sp"),
    (ARM64, "mov x30, x9; b target", "it goes to the target without x9 and x30 as they were"),
    (ARM64, "nop\nb _printk", "it ends in _printk at line 2, and a C function does not return as a site needs it"),
    (ARM64, "nop", "it runs out of code behind its end"),
    (ARM64, "nop\nsvc #0", "it executes 0xd4000001 at line 2"),
    (PPC64LE, EXAMPLE["ppc64le"].replace(".quad   .TOC.", ".quad 0"), "it calls code of the module or outside with the "
     "TOC that it was entered with, which may be anybody's, and never looks for .TOC."),
    (PPC64LE, "b site+4", "it goes behind the site without the old r0 in LR, so the traced function would never "
     "return"),
    (PPC64LE, "mtlr r0; blr", "it does not return to where LR pointed"),
    (PPC64LE, "mtlr r0; li r3, 1; b site+4", "it changes r3"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text", "wanted"), UNSOUND, ids=[str(i) for i in range(len(UNSOUND))])
def test_a_stub_that_was_not_shown_to_keep_the_contract_needs_force(path: Path, text: str, wanted: str) -> None:
    message = policy(path, text)
    assert wanted in message
    plan = planned(path, text, ("mini_work",), force="")
    assert plan.warnings[0].startswith("the stub was not shown to keep the contract of a patch site (it ")
    assert plan.warnings[0].endswith("; forced")


NEVER = [
    (ARM64, "bl target", "f.S:1: ftrace_caller cannot be called from here: found bl target, expected b target, as "
     "it finds "
     "its ops by the return address"),
    (PPC64LE, "nop\nb _printk", "f.S:2: a jump out of the module would leave the caller with another TOC: found b "
     "_printk, "
     "expected bl _printk; nop"),
    (PPC64LE, "bl _printk\nblr", "f.S:1: a call out of the module has no room for the TOC to be loaded again: found bl "
     "_printk without a nop behind it, expected a nop, which the loader turns into the load of the TOC"),
    (ARM64, EXAMPLE["arm64"].replace("_printk", "mini_work"), "--stub-asm mini_work: the symbol is itself among "
     "the chosen "
     "sites: found a call that leads back to itself, expected another function – --func '!mini_work' leaves it out"),
    (ARM64, EXAMPLE["arm64"].replace("_printk", "unheard_of"), "--stub-asm unheard_of: the module does not use "
     "this symbol "
     "yet: found no kernel to look for it, expected a symbol that the module defines or uses – --against VMLINUX shows "
     "whether it may be used, and its version"),
    (PPC64LE, "b target", f"{PPC64LE}: ftrace_caller cannot be named in a module of this machine: found no kernel "
     "to take "
     "its address from, expected --against VMLINUX, the kernel that will load it – --hook SYMBOL works without one"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text", "wanted"), NEVER, ids=[str(i) for i in range(len(NEVER))])
def test_what_cannot_work_is_refused_with_force_too(path: Path, text: str, wanted: str) -> None:
    assert policy(path, text, force="") == wanted


def test_a_hook_is_named_as_one_behind_a_stub_too() -> None:
    assert policy(ARM64, STUBS["arm64"], hook="mini_work") == (
        "--hook mini_work: the hook is itself among the chosen sites: found a call that leads back to itself, expected "
        "another function – --func '!mini_work' leaves it out"
    )


def test_a_target_that_the_stub_never_goes_on_to_is_refused() -> None:
    assert policy(ARM64, EXAMPLE["arm64"], hook="mini_untraced") == (
        "f.S: the stub never goes on to its target: found --hook, but no `target` in the assembly, expected b or bl "
        "target – leave the option out"
    )
    assert policy(ARM64, "b target", hook="mini_untraced", target="ftrace_caller") == (
        f"{ARM64}: --target and --hook exclude each other"
    )


# -- the command line ------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_keystone()
    source, out = tmp_path / "s.S", tmp_path / "out.ko"
    enable = ["enable", str(ARM64), "--func", "mini_work", "--stub-asm", str(source), "-o", str(out)]
    assert run(enable) == 3
    assert capsys.readouterr().err == f"ftpatch: {source}: the stub cannot be read: No such file or directory\n"
    source.write_text("nop\nbogus")
    assert run(enable) == 3
    source.write_text("ret")
    assert run(enable) == 5 and not out.exists()
    source.write_text(EXAMPLE["arm64"])
    capsys.readouterr()
    assert run(enable) == 0
    assert f"calling stub {source}" in capsys.readouterr().out
    kernel = str(ROOT / "testdata/mini/vmlinux-pfe2")
    assert run(["enable", kernel, "--func", "*", *enable[4:]]) == 2
    assert capsys.readouterr().err == (
        f"ftpatch: {kernel}: --hook, --stub-asm and --against are for modules: found a vmlinux – in a vmlinux, "
        "--target names what the sites call\n"
    )


def test_without_keystone_the_exit_code_is_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "keystone", None)
    source = tmp_path / "s.S"
    source.write_text("ret")
    enable = ["enable", str(ARM64), "--func", "mini_work", "-o", str(tmp_path / "out.ko")]
    assert run([*enable, "--stub-asm", str(source)]) == 4
    assert run([*enable, "--hook", "mini_untraced"]) == 0
