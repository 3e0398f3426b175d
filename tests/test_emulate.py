"""The proof by emulation: sites that were patched well are silent, each way to be wrong is a failure of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftpatch.arch import Arch, arch_of
from ftpatch.arch import arm64_module as arm_code
from ftpatch.arch import ppc64le_module as ppc_code
from ftpatch.cli import run
from ftpatch.elf.image import Image
from ftpatch.proof.emulate import (
    Outcome,
    SiteExpectation,
    arm64,
    emulate,
    engine,
    ppc64le,
    process_ppc64le,
    qemu_sandbox,
)
from ftpatch.proof.emulate import guest_ppc64le as guest
from ftpatch.proof.emulate import reach_ppc64le as reach
from ftpatch.proof.emulate.loader import load_module
from ftpatch.proof.emulate.memory import Block, Memory, Moved, _around, image_memory
from ftpatch.recovered.image import open_image
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import read_records
from ftpatch.sites.table import ENABLED, SiteTable
from tools.kernels import Kernel, modules

MINI = Path(__file__).resolve().parent.parent / "testdata"
BASE, STUB, TARGET, OPS = 0xC000_0000_0001_0000, 0xC000_0000_0002_0000, 0xC000_0000_0003_0000, 0xC000_0000_0004_0000
RESUME = BASE + 8
NOT_HERE = qemu_sandbox.why_not(ppc64le.QEMU)
needs_qemu = pytest.mark.skipif(bool(NOT_HERE), reason=f"{NOT_HERE} – apt install qemu-user runs it")
Enable = Callable[..., str]


# -- whole files ---------------------------------------------------------------------------------------------------


def branch_target(memory: Memory, arch: Arch, va: int) -> int:
    """Where the direct branch at va goes, by the manuals (Arm ARM C6.2 BL; Power ISA 2.4 I-form)."""
    word = memory.word(va)
    assert word is not None
    if arch.name == "arm64":
        return va + 4 * ((word & 0x03FF_FFFF ^ 0x0200_0000) - 0x0200_0000)
    return va + ((word & 0x03FF_FFFC ^ 0x0200_0000) - 0x0200_0000)


def claims_of(image: Image, arch: Arch, memory: Memory, sites: SiteTable) -> list[SiteExpectation]:
    """A claim for every enabled site of a linked image that calls a kernel entry, straight or over a shared stub."""
    assert sites.shape is not None
    value = image.symbols.value
    own, regs, ops = value("ftrace_caller"), value("ftrace_regs_caller"), value("ftrace_list_ops")
    assert own is not None
    entry = arch.read_entry(image.code(own, 64))
    tramps = [value(name) for name in arch.far.areas] if arch.far else []
    found = []
    for at in np.flatnonzero(sites.status == ENABLED).tolist():
        branch = int(sites.branch_va[at])
        to = branch_target(memory, arch, branch)
        to = branch_target(memory, arch, to + 4) if sites.shape.out_of_line else to
        target = own
        if to in tramps and regs is not None:
            target = regs
        elif to != own and arch.name == "arm64":
            target = own + entry.resume
        wanted = ops if entry.literal else None
        found.append(
            SiteExpectation(sites.name(at) or hex(branch), int(sites.local_va[at]), branch + 4, target, wanted)
        )
    return found


def proved(path: Path) -> Outcome:
    """The outcome for every enabled site of a linked image."""
    image = open_image(str(path))
    arch = arch_of(image.e_machine, str(path))
    memory = image_memory(image, arch)
    sites = read_sites(image, read_records(image))
    return emulate(image, arch, claims_of(image, arch, memory, sites))


@pytest.mark.parametrize("name", ["vmlinux-callops", "vmlinux-callops-bti", "vmlinux-pfe2", "vmlinux-pfe2-bti"])
def test_every_site_of_an_arm64_image_holds(name: str, tmp_path: Path, ftpatch: Enable) -> None:
    ftpatch("enable", MINI / "mini" / name, "--func", "*", "--skip-unpatchable", "-o", tmp_path / "out")
    assert proved(tmp_path / "out") == Outcome(16)


@pytest.mark.parametrize("via", ["literal", "thunk"])
def test_ops_are_found_in_the_literal_and_behind_the_thunk(via: str, tmp_path: Path, ftpatch: Enable) -> None:
    image = MINI / "mini/vmlinux-callops"
    ftpatch("enable", image, "--func", "sys_getppid", "--ops-via", via, "-o", tmp_path / "out")
    assert proved(tmp_path / "out") == Outcome(1)


@needs_qemu
@pytest.mark.parametrize("name", ["mprofile", "pfe2", "far", "ool", "ool-noops", "clang"])
def test_every_site_of_a_ppc64le_image_holds(name: str, tmp_path: Path, ftpatch: Enable) -> None:
    image = MINI / f"mini-ppc64le/vmlinux-{name}"
    ftpatch("enable", image, "--func", "*", "--skip-unpatchable", "-o", tmp_path / "out")
    outcome = proved(tmp_path / "out")
    assert outcome.failures == () and outcome.n > 20


def proved_module(path: Path, layout: str, hook: str = "", kernel: Path | None = None) -> Outcome:
    """The outcome for every enabled site of a module."""
    image = open_image(str(path))
    arch = arch_of(image.e_machine, str(path))
    loaded = load_module(image, arch, open_image(str(kernel)) if kernel else None)
    sites = read_sites(image, read_records(image), layout)
    target = loaded.called(hook) if hook else loaded.fakes["ftrace_caller"]
    ops = None if hook else loaded.called("ftpatch_ops")
    assert target is not None
    claims = []
    for at in np.flatnonzero(sites.status == ENABLED).tolist():
        moved = loaded.base[int(sites.sec[at])] - int(image.base[sites.sec[at]])
        branch = int(sites.branch_va[at]) + moved
        name = sites.name(at) or hex(branch)
        claims.append(SiteExpectation(name, int(sites.local_va[at]) + moved, branch + 4, target, ops, bool(hook)))
    return emulate(image, arch, claims, memory=loaded.memory)


def test_the_sites_of_an_arm64_module_hold(tmp_path: Path, ftpatch: Enable) -> None:
    ftpatch("enable", MINI / "mini/mini.ko", "--func", "*", "-o", tmp_path / "out.ko")
    assert proved_module(tmp_path / "out.ko", "callops") == Outcome(6)


@pytest.mark.parametrize("hook", ["_printk", "mini_untraced"])
def test_hooks_of_an_arm64_module_hold(hook: str, tmp_path: Path, ftpatch: Enable) -> None:
    ftpatch("enable", MINI / "mini/mini.ko", "--func", "mini_step", "--func", "mini_init", "--hook", hook,
            "-o", tmp_path / "out.ko")  # fmt: skip
    assert proved_module(tmp_path / "out.ko", "callops", hook) == Outcome(2)


@needs_qemu
@pytest.mark.parametrize("hook", ["_printk", "mini_untraced"])
def test_hooks_of_a_ppc64le_module_hold(hook: str, tmp_path: Path, ftpatch: Enable) -> None:
    """One lives in the kernel and is called over the loader's stub, the other in the module and shares its TOC."""
    ftpatch("enable", MINI / "mini-ppc64le/mini.ko", "--func", "mini_step", "--func", "mini_first", "--hook", hook,
            "-o", tmp_path / "out.ko")  # fmt: skip
    assert proved_module(tmp_path / "out.ko", "ool", hook) == Outcome(2)


# -- the kernels ---------------------------------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid"])
def test_every_site_of_a_debian_kernel_holds(
    name: str, tmp_path: Path, ftpatch: Enable, kernel: Callable[[str], Kernel]
) -> None:
    ftpatch("enable", kernel(name).vmlinux, "--func", "*", "--skip-unpatchable", "-o", tmp_path / "out")
    start = monotonic()
    outcome = proved(tmp_path / "out")
    assert outcome.failures == () and outcome.n > 33_000
    assert monotonic() - start < 60


@pytest.mark.corpus
@pytest.mark.parametrize("hook", ["", "dump_stack"])
@pytest.mark.parametrize(("name", "layout"), [("arm64-6.1", "pfe2"), ("arm64-6.12", "callops"),
                                              ("ppc64le-6.1", "mprofile"), ("ppc64le-6.12", "pfe2"),
                                              ("ppc64le-sid", "ool")])  # fmt: skip
def test_the_sites_of_a_debian_module_hold(
    name: str, layout: str, hook: str, tmp_path: Path, ftpatch: Enable, kernel: Callable[[str], Kernel]
) -> None:
    vmlinux = kernel(name).vmlinux
    module = next((modules(name) / "kernel/drivers/net").glob("dummy.ko*"))
    calls = ["--hook", hook] if hook else []
    ftpatch("enable", module, "--func", "dummy_xmit", *calls, "--against", vmlinux, "-o", tmp_path / "out.ko")
    assert proved_module(tmp_path / "out.ko", layout, hook, vmlinux) == Outcome(1)


# -- arm64, wrong in every way -------------------------------------------------------------------------------------

MOV_X9_X30, NOP = 0xAA1E_03E9, 0xD503_201F


def bl(site: int, target: int) -> int:
    return 0x9400_0000 | (target - site >> 2) & 0x03FF_FFFF


def memory_of(code: Mapping[int, Sequence[int]], moves: bool = False, own_toc: int | None = None) -> Memory:
    """Memory with these words; `moves`: it is loaded anywhere, and nothing in it is relocated."""
    blocks = [Block(va, np.array(words, dtype="<u4").view(np.uint8)) for va, words in sorted(code.items())]
    return Memory(tuple(blocks), moves=moves, own_toc=own_toc)


def arm(
    code: Mapping[int, Sequence[int]],
    *,
    ops: int | None = None,
    tail: bool = False,
    moves: bool = False,
    target: int = TARGET,
) -> str:
    """The failure of one site at BASE, or nothing."""
    claim = SiteExpectation("f", BASE, RESUME, target, ops, tail)
    outcome = arm64.run(memory_of({TARGET: [0] * 8, **code}, moves), [claim], 1)
    assert outcome.n == 1 and not outcome.skipped
    return "".join(outcome.failures)


GOOD = [MOV_X9_X30, bl(BASE + 4, TARGET), NOP]
HOOKED = [MOV_X9_X30, bl(BASE + 4, STUB), NOP]


def hook_stub(**changed: int) -> list[int]:
    """The hook's stub at STUB, with words changed: w<index>=word."""
    words = list(arm_code.HOOK.words)
    words[12] = bl(STUB + 48, TARGET)
    for name, word in changed.items():
        words[int(name[1:])] = word
    return words


def test_a_plain_site_holds() -> None:
    assert arm({BASE: GOOD}) == ""


@pytest.mark.parametrize(("word", "expected"), [
    (0xAA1E_03EA, "f: x9 at the target: found 0x"),  # mov x10, x30
    (NOP, "f: x9 at the target: found 0x"),
    (0xAA1E_03E0, "f: x9 at the target: found 0x"),  # mov x0, x30
])  # fmt: skip
def test_a_wrong_register_in_the_first_word_fails(word: int, expected: str) -> None:
    assert arm({BASE: [word, *GOOD[1:]]}).startswith(expected)


@pytest.mark.parametrize("off", [4, -4, 0x1000, 1 << 20])
def test_a_branch_that_misses_fails(off: int) -> None:
    why = arm({BASE: [MOV_X9_X30, bl(BASE + 4, TARGET + off), NOP]})
    assert why.startswith("f: never arrives at the target: found a stop at 0x")
    assert why.endswith(f", expected {TARGET:#x}")


def test_a_branch_that_does_not_link_fails() -> None:
    assert arm({BASE: [MOV_X9_X30, GOOD[1] & 0x7FFF_FFFF, NOP]}).startswith("f: x30 at the target: found 0x")


def test_a_site_one_word_late_fails() -> None:
    why = arm({BASE: [NOP, MOV_X9_X30, bl(BASE + 8, TARGET), NOP]})
    assert why.startswith("f: never arrives at the target") or why.startswith("f: x30 at the target")


def literal(value: int) -> dict[int, list[int]]:
    return {BASE - 8: [value & 0xFFFF_FFFF, value >> 32, *GOOD]}


def test_a_literal_with_its_ops_holds() -> None:
    assert arm(literal(OPS), ops=OPS) == ""


def test_a_literal_that_points_elsewhere_fails() -> None:
    expected = f"f: the ops pointer at {BASE - 8:#x}: found {OPS + 8:#x}, expected {OPS:#x}"
    assert arm(literal(OPS + 8), ops=OPS) == expected


def test_a_literal_that_stays_where_the_kernel_moves_fails() -> None:
    why = arm(literal(OPS), ops=OPS, moves=True)
    where = f"f: the ops pointer at {BASE - 8:#x} as the kernel moves"
    assert why == f"{where}: found no relocation, or two, expected one relocation"


@pytest.mark.parametrize(("filled", "packed", "holds"), [(1, 0, True), (0, 1, True), (1, 1, False), (2, 0, False)])
def test_a_literal_is_relocated_exactly_once(filled: int, packed: int, holds: bool) -> None:
    u64 = np.uint64
    place = np.array([BASE - 8], dtype=u64)
    moved = Moved(np.repeat(place, filled), np.full(filled, OPS, u64), np.repeat(place, packed))
    blocks = memory_of({**literal(OPS), TARGET: [0]}).blocks
    outcome = arm64.run(Memory(blocks, moved, True), [SiteExpectation("f", BASE, RESUME, TARGET, OPS)], 1)
    assert (outcome.failures == ()) == holds


@pytest.mark.parametrize("ops", [OPS, OPS + 16])
def test_behind_the_load_the_ops_are_in_the_register(ops: int) -> None:
    """A thunk's target is ftrace_caller behind its load of the literal, and its register is looked at instead."""
    thunk = [0x9000_000B | (OPS - STUB >> 12 & 3) << 29 | (OPS - STUB >> 14) << 5,  # adrp x11, OPS
             0x9100_016B | (ops & 0xFFF) << 10, 0x1400_0000 | bl(STUB + 8, TARGET + 8) & 0x03FF_FFFF]  # fmt: skip
    entry = [0x927D_F3CB, 0xF85F_016B, 0, 0]  # and x11, x30, #~7; ldur x11, [x11, #-16]
    why = arm({BASE: HOOKED, STUB: thunk, TARGET: entry}, ops=OPS, target=TARGET + 8)
    assert why == ("" if ops == OPS else f"f: the ops in x11 at the target: found {ops:#x}, expected {OPS:#x}")


def test_the_hooks_stub_holds() -> None:
    assert arm({BASE: HOOKED, STUB: hook_stub()}, tail=True) == ""


@pytest.mark.parametrize(("changed", "what"), [
    ({"w13": NOP}, "f: behind the site x0: found 0x"),  # ldp x0, x1
    ({"w17": NOP}, "f: behind the site x8: found 0x"),  # ldr x8
    ({"w19": 0xA8C2_7BFD}, "f: behind the site sp: found 0x"),  # ldp x29, x30, [sp], #32
    ({"w18": 0xA8C6_2BFD}, "f: never arrives at the instruction behind the site"),  # ldp x29, x10, [sp], #96
    ({"w20": 0xD65F_03C0}, "f: never arrives at the instruction behind the site"),  # ret
    ({"w4": 0x9100_23FF}, "f: sp at the target: found 0x"),  # add sp, sp, #8
    ({"w5": 0xA93F_07E0, "w13": 0xA97F_07E0}, "f: behind the site x0: found 0x"),  # stp x0, x1, [sp, #-16]
    ({"w1": 0xA907_27FD}, "f: "),  # stp x29, x9, [sp, #112]: no room is made
    ({"w2": 0xAA1F_03F3}, "f: behind the site x19: found 0x0, expected 0x"),  # mov x19, xzr
    ({"w12": 0x1400_0000}, "f: never arrives at the target: found a stop at 0x"),  # b .
    ({"w12": 0xD400_0001}, "f: never arrives at the target: found a stop at 0x"),  # svc #0
])  # fmt: skip
def test_a_hook_stub_that_breaks_something_fails(changed: dict[str, int], what: str) -> None:
    assert arm({BASE: HOOKED, STUB: hook_stub(**changed)}, tail=True).startswith(what)


def test_a_stub_that_writes_the_callers_frame_fails() -> None:
    why = arm({BASE: HOOKED, STUB: hook_stub(w0=0xF900_0BE0)}, tail=True)  # str x0, [sp, #16]
    assert why == "f: the caller's stack frame behind the site: found other bytes, expected those at entry"


def test_a_c_function_called_straight_from_a_site_fails() -> None:
    """It would return with x30 as it was, and the traced function would return into itself for ever."""
    assert arm({BASE: GOOD}, tail=True).startswith("f: behind the site x0: found 0x")


def test_a_target_that_was_executed_as_a_site_is_stopped_at() -> None:
    """Unicorn keeps translated code, without the stop that it gets where it is a target; so the order mattered."""
    memory = memory_of({BASE: GOOD, TARGET: [MOV_X9_X30, bl(TARGET + 4, STUB), NOP], STUB: [0]})
    claims = [SiteExpectation("g", TARGET, TARGET + 8, STUB, None), SiteExpectation("f", BASE, RESUME, TARGET, None)]
    assert arm64.run(memory, claims, 1) == arm64.run(memory, claims[::-1], 1) == Outcome(2)


def test_a_stub_that_does_all_by_itself_arrives_behind_the_site() -> None:
    tramp = [0xAA1E_03EA, 0xAA09_03FE, 0xD65F_0140]  # mov x10, x30; mov x30, x9; ret x10
    assert arm({BASE: HOOKED, STUB: tramp}, target=RESUME) == ""
    assert arm({BASE: HOOKED, STUB: [0xD65F_03C0]}, target=RESUME).startswith("f: behind the site x30: found 0x")


@pytest.mark.parametrize(("there", "more", "expected"), [
    ([], [(0, 16)], [(0, 16)]),
    ([(0, 16)], [(0, 16)], [(0, 16)]),
    ([(4, 8)], [(0, 16)], [(0, 4), (4, 8), (8, 16)]),
    ([(0, 4), (8, 12)], [(2, 10), (14, 18)], [(0, 4), (4, 8), (8, 12), (14, 18)]),
    ([], [(0, 8), (4, 12), (5, 6)], [(0, 8), (8, 12)]),
    ([(8, 16)], [(0, 4)], [(0, 4), (8, 16)]),
    ([(0, 4)], [(8, 16)], [(0, 4), (8, 16)]),
])  # fmt: skip
def test_what_is_said_twice_of_memory_is_taken_from_the_first(
    there: list[tuple[int, int]], more: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    first = [Block(low, np.full(high - low, 1, np.uint8)) for low, high in there]
    second = [Block(low, np.arange(low, high, dtype=np.uint8) + 100) for low, high in more]
    found = _around(first, second)
    assert [(block.va, block.end) for block in found] == expected
    for block in found:
        assert (block.va, block.end) in there or block.data.tolist() == list(range(block.va + 100, block.end + 100))


def test_the_same_seed_gives_the_same_words() -> None:
    bad = memory_of({BASE: [NOP, *GOOD[1:]], TARGET: [0]})
    claim = SiteExpectation("f", BASE, RESUME, TARGET, None)
    first, again, other = (arm64.run(bad, [claim], seed).failures for seed in (1, 1, 2))
    assert first == again != other


# -- ppc64le, wrong in every way -----------------------------------------------------------------------------------

MFLR_R0, MTLR_R0, PPC_NOP, TOC = 0x7C08_02A6, 0x7C08_03A6, 0x6000_0000, 0xC000_0000_0005_8000


def jump(site: int, target: int, link: int = 1) -> int:
    return 0x4800_0000 | target - site & 0x03FF_FFFC | link


def ppc(
    code: Mapping[int, Sequence[int]], *, ops: int | None = None, tail: bool = False, moves: bool = False,
    target: int = TARGET, resume: int = RESUME, toc: int = TOC,
) -> str:  # fmt: skip
    """The failure of one site at BASE, or nothing; a second site, which is good, must not suffer."""
    other = BASE + 0x800
    memory = memory_of({**code, other: [MFLR_R0, jump(other + 4, TARGET), PPC_NOP]}, moves, own_toc=toc)
    claims = [
        SiteExpectation("f", BASE, resume, target, ops, tail),
        SiteExpectation("g", other, other + 8, TARGET, None),
    ]
    outcome = ppc64le.run(memory, claims, 1)
    assert outcome.n == 2 and not outcome.skipped
    assert not any(failure.startswith("g") for failure in outcome.failures)
    return "".join(outcome.failures)


INLINE = [MFLR_R0, jump(BASE + 4, TARGET), PPC_NOP]
TO_STUB = [MFLR_R0, jump(BASE + 4, STUB), PPC_NOP]


@needs_qemu
def test_a_plain_ppc64le_site_holds() -> None:
    assert ppc({BASE: INLINE}) == ""


@needs_qemu
@pytest.mark.parametrize(("words", "what"), [
    ([0x7D68_02A6, *INLINE[1:]], "f: r0 at the target: found 0x"),  # mflr r11
    ([PPC_NOP, *INLINE[1:]], "f: r0 at the target: found 0x"),
    ([MFLR_R0, INLINE[1] + 4, PPC_NOP], "f: never arrives at the target: found an illegal instruction at 0x"),
    ([MFLR_R0, INLINE[1] & ~1, PPC_NOP], "f: never arrives at the instruction behind the site"),
    ([0x3860_0000, INLINE[1], PPC_NOP], "f: r0 at the target: found 0x"),  # li r3,0
    ([0x4400_0002, *INLINE[1:]], f"f: never arrives at the target: found a system call at {BASE:#x}"),  # sc
    ([0x4400_0001, *INLINE[1:]], f"f: never arrives at the target: found a system call at {BASE:#x}"),  # scv
    ([0, *INLINE[1:]], f"f: never arrives at the target: found an illegal instruction at {BASE:#x}"),
    ([0xE860_0000, *INLINE[1:]], f"f: never arrives at the target: found an access to nothing at {BASE:#x}"),
])  # fmt: skip
def test_a_wrong_ppc64le_site_fails(words: list[int], what: str) -> None:
    assert ppc({BASE: words}).startswith(what)


@needs_qemu
def test_a_branch_to_nothing_fails() -> None:
    assert ppc({BASE: [MFLR_R0, jump(BASE + 4, TARGET + 4), PPC_NOP]}).startswith("f: never arrives at the target")


def ppc_stub(**changed: int) -> list[int]:
    """The hook's stub at STUB, data in front of its code at STUB − 8, with words changed: w<index>=word."""
    code = ppc_code.hook(False, ())
    words = list(code.words)
    distance = TOC - (STUB - 8 + ppc_code.TOC_FROM)
    words[0], words[1] = distance & 0xFFFF_FFFF, distance >> 32
    call = next(one.off for one in code.fixups if one.symbol == "hook")
    words[call // 4] = jump(STUB - 8 + call, TARGET)
    for name, word in changed.items():
        at = next(n for n, old in enumerate(words) if f"{old:08x}" == name[1:])
        words[at] = word
    return words


@needs_qemu
def test_the_ppc64le_hooks_stub_holds() -> None:
    assert ppc({BASE: TO_STUB, STUB - 8: ppc_stub()}, tail=True) == ""


@needs_qemu
@pytest.mark.parametrize(("old", "new", "what"), [
    (0xE861_0030, PPC_NOP, "f: behind the site r3: found 0x"),  # ld r3,48(r1)
    (0xE941_0068, PPC_NOP, "f: behind the site r10: found 0x"),  # ld r10,104(r1)
    (0xE841_0028, PPC_NOP, "f: behind the site r2: found 0x"),  # ld r2,40(r1)
    (0x3821_0020, 0x3821_0030, "f: "),  # addi r1,r1,32
    (0x7C08_03A6, PPC_NOP, "f: LR behind the site: found 0x"),  # mtlr r0
    (0x7C42_6214, PPC_NOP, "f: r2 at the target: found 0x"),  # add r2,r2,r12
    (0xF821_FF71, 0xF821_FF79, "f: r1 at the target: found 0x"),  # stdu r1,-144(r1)
    (0xF801_0010, 0xF841_0018, "f: "),  # std r0,16(r1): r2 to 24(r1) instead
    (0x4E80_0420, 0x4E80_0020, "f: never arrives at the instruction behind the site"),  # bctr
    (0xE881_00C0, 0x4400_0002, "f: never arrives at the target: found a system call"),  # ld r4,192(r1)
    (0xE881_00C0, 0x7C62_0120, "f: behind the site cr2–cr4: found 0x"),  # mtcrf 0x20,r3
])  # fmt: skip
def test_a_ppc64le_hook_stub_that_breaks_something_fails(old: int, new: int, what: str) -> None:
    assert ppc({BASE: TO_STUB, STUB - 8: ppc_stub(**{f"w{old:08x}": new})}, tail=True).startswith(what)


@needs_qemu
def test_a_stub_that_writes_the_callers_toc_slot_fails() -> None:
    stub = [0xF841_0018, jump(STUB + 4, TARGET, 0)]  # std r2,24(r1)
    assert ppc({BASE: TO_STUB, STUB: stub}).startswith("f: 24(r1), the caller's, behind the site: found 0x")


@needs_qemu
def test_a_c_function_called_straight_from_a_ppc64le_site_fails() -> None:
    why = ppc({BASE: INLINE}, tail=True)
    assert why.startswith("f: r1 at the target: found 0x")


@needs_qemu
def test_a_stub_that_calls_the_kernels_entry_fails() -> None:
    """ftrace_caller would take the stub for the site, and lose r0."""
    stub = [jump(STUB, TARGET), MTLR_R0, jump(STUB + 8, RESUME, 0)]
    why = ppc({BASE: TO_STUB, STUB: stub})
    assert why == f"f: LR at the target: found {STUB + 4:#x}, expected {RESUME:#x}, behind the site"


def out_of_line(back: int = BASE + 4, ops: int = OPS) -> dict[int, list[int]]:
    """A site of one word, and its stub with the ops pointer in front."""
    code = [MFLR_R0, jump(STUB + 4, TARGET), MTLR_R0, jump(STUB + 12, back, 0)]
    return {BASE: [jump(BASE, STUB, 0), PPC_NOP], STUB - 8: [ops & 0xFFFF_FFFF, ops >> 32, *code]}


@needs_qemu
def test_a_site_out_of_line_holds() -> None:
    assert ppc(out_of_line(), ops=OPS, resume=BASE + 4) == ""


@needs_qemu
def test_the_stub_of_another_site_fails() -> None:
    why = ppc(out_of_line(BASE + 0x804), ops=OPS, resume=BASE + 4)
    assert why.startswith("f: never arrives at the instruction behind the site")


@needs_qemu
def test_a_slot_with_other_ops_fails() -> None:
    why = ppc(out_of_line(ops=OPS + 8), ops=OPS, resume=BASE + 4)
    assert why == f"f: the ops pointer at {STUB - 8:#x}: found {OPS + 8:#x}, expected {OPS:#x}"


@needs_qemu
def test_a_target_that_is_a_site_itself_is_run_apart() -> None:
    """A trap stands at a target; the site that begins there would come to it first."""
    memory = memory_of({BASE: INLINE, TARGET: [MFLR_R0, jump(TARGET + 4, STUB), PPC_NOP]})
    claims = [SiteExpectation("f", BASE, RESUME, TARGET, None), SiteExpectation("g", TARGET, TARGET + 8, STUB, None)]
    assert ppc64le.run(memory, claims, 1) == Outcome(2)


@needs_qemu
def test_code_without_end_is_stopped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_ppc64le, "SECONDS", 1.0)
    memory = memory_of({BASE: [0x4800_0000], TARGET: INLINE})  # b .
    claims = [
        SiteExpectation("f", BASE, RESUME, STUB, None),
        SiteExpectation("g", TARGET, TARGET + 8, BASE + 0x2_0000, None),
    ]
    first, second = ppc64le.run(memory, claims, 1).failures
    assert first == f"f: never arrives at the target: found no end within 1 s, expected {STUB:#x}"
    assert second.startswith("g: never arrives at the target: found no end within 1 s, in an earlier site, expected ")


def test_without_qemu_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    outcome = ppc64le.run(memory_of({BASE: INLINE}), [SiteExpectation("f", BASE, RESUME, TARGET, None)], 1)
    assert outcome == Outcome(0, skipped="no qemu-ppc64le (Debian package qemu-user)")


# -- nobody gets out -----------------------------------------------------------------------------------------------


def system_call(number: int, r3: int, r4: int, r5: int) -> list[int]:
    """Words that make one call and exit with 0 if it failed with ENOSYS, else with 1."""
    load = [word for register, value in ((3, r3), (4, r4), (5, r5), (0, number))
            for word in (0x3C00_0000 | register << 21 | value >> 16,
                         0x6000_0000 | register << 21 | register << 16 | value & 0xFFFF)]  # fmt: skip
    return [*load, 0x4400_0002,
            0x2C23_0026,  # cmpdi r3,38
            0x3860_0001,  # li    r3,1
            0x4082_0008,  # bne   +8
            0x3860_0000,  # li    r3,0
            0x3800_00EA, 0x4400_0002]  # fmt: skip


@needs_qemu
@pytest.mark.parametrize(("number", "r4", "r5"), [
    (39, 0o755, 0),  # mkdir
    (5, 0o101, 0o644),  # open, O_WRONLY | O_CREAT
    (8, 0o644, 0),  # creat
    (10, 0, 0),  # unlink
])  # fmt: skip
def test_a_guest_cannot_change_files(number: int, r4: int, r5: int, tmp_path: Path) -> None:
    """Whatever gets past the scan for system calls comes to a process that may do nothing."""
    there, path = tmp_path / "there", tmp_path / ("there" if number == 10 else "made")
    there.touch()
    data = bytes(path) + b"\0"
    words = system_call(number, guest.STATE, r4, r5)
    segments = [guest.Segment(guest.CODE, np.array(words, dtype="<u4").tobytes(), guest.READ | guest.EXECUTE),
                guest.Segment(guest.STATE, data, guest.READ | guest.WRITE)]  # fmt: skip
    assert qemu_sandbox.run(ppc64le.QEMU, guest.elf(segments), 20) == qemu_sandbox.Ran(bytearray(), "")
    assert [one.name for one in tmp_path.iterdir()] == ["there"]


@needs_qemu
@pytest.mark.parametrize("number", [326, 2, 37, 362])  # socket, fork, kill with signal 0, execveat
def test_a_guest_cannot_reach_out(number: int) -> None:
    words = np.array(system_call(number, 2, 0, 0), dtype="<u4").tobytes()
    ran = qemu_sandbox.run(ppc64le.QEMU, guest.elf([guest.Segment(guest.CODE, words, guest.READ | guest.EXECUTE)]), 20)
    assert ran == qemu_sandbox.Ran(bytearray(), "")


@pytest.mark.parametrize(
    ("name", "options", "emulator"),
    [("mini/vmlinux-callops", (), "unicorn"),
     pytest.param("mini-ppc64le/mini.ko", ("--hook", "_printk"), "qemu-ppc64le", marks=needs_qemu)],
)  # fmt: skip
def test_an_emulator_without_memory_is_no_finding(
    name: str, options: tuple[str, ...], emulator: str, tmp_path: Path
) -> None:
    """Under `ulimit -v` unicorn ended the process with a line of its own and exit code 1; and that QEMU ended with code
    255 was told as sites that never arrive: eight findings against a sound file."""
    path, out = MINI / name, tmp_path / "out.ko"
    assert run(["enable", str(path), "--func", "*", "--skip-unpatchable", *options, "-o", str(out)]) == 0
    command = f"ulimit -v 260000; exec {sys.executable} -m ftpatch verify {path} {out}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=MINI.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"not emulated: {emulator} cannot be started" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", engine.NEEDED)
def test_an_emulator_that_is_too_old_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12 has unicorn 2.0.1, with which verify ended in a traceback."""
    methods = {needed: None for needed in engine.NEEDED if needed != name}
    monkeypatch.setitem(sys.modules, "unicorn", SimpleNamespace(Uc=type("Uc", (), methods), __version__="2.0.1"))
    assert engine.or_why_not(lambda unicorn: pytest.fail("it was started")) == (
        "unicorn 2.0.1 cannot be told how much memory to take: pip install 'unicorn>=2.1.2'"
    )


def test_registers_are_the_emulators_own() -> None:
    """The array that stands for all registers, against the package's way to read and write each of them."""
    import unicorn

    memory = Memory((Block(0x1000, np.zeros(16, dtype=np.uint8)),))
    machine = engine.Engine(unicorn, arm64.PROCESSOR, memory, 1)
    values = [(n + 1) * 0x0102_0304_0506_0708 & 0xFFFF_FFFF_FFFF_FFF0 for n in range(33)]
    machine.registers.write(values)
    ids = [getattr(unicorn.arm64_const, f"UC_ARM64_REG_{name}") for name in (*(f"X{n}" for n in range(31)), "SP", "PC")]
    assert [machine.uc.reg_read(number) for number in ids] == values
    for number, value in zip(ids, reversed(values), strict=True):
        machine.uc.reg_write(number, value)
    assert machine.registers.read() == values[::-1]
    with pytest.raises(machine.error):
        machine.registers._checked(unicorn.UC_ERR_ARG)


@given(st.lists(st.integers(0x40, 0x400).map(lambda n: 4 * n), max_size=40))
def test_what_is_beside_code_is_copied_once(places: list[int]) -> None:
    expected = sorted({va + 4 * n for va in places for n in range(-reach.BEFORE, reach.BEHIND + 1)})
    assert reach._around(np.array(sorted(set(places)), dtype=np.uint64)).tolist() == expected
