"""x86_64 sites, executed: those that were patched well are silent, each way to be wrong is a failure of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from ftpatch.arch import x86_64 as machine
from ftpatch.arch import x86_64_module as modules
from ftpatch.arch import x86_64_shapes
from ftpatch.proof.decoders import both
from ftpatch.proof.emulate import Outcome, RedirectExpectation, SiteExpectation, emulate, engine, x86_64
from ftpatch.proof.emulate.memory import Block, Memory
from ftpatch.proof.prove import Checks, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file
from ftpatch.sites.table import READY
from tools.kernels import Kernel

BASE, STUB, TARGET = 0xFFFF_FFFF_8100_0013, 0xFFFF_FFFF_8102_0000, 0xFFFF_FFFF_8103_0000
THUNK, OTHER = 0xFFFF_FFFF_8104_0000, 0xFFFF_FFFF_C000_0000
ENDBR64, RET = bytes.fromhex("f30f1efa"), b"\xc3"
NEVER = "f: never arrives at "


def call(va: int, target: int, opcode: int = 0xE8) -> bytes:
    return bytes((opcode,)) + (target - va - 5).to_bytes(4, "little", signed=True)


def jmp(va: int, target: int) -> bytes:
    return call(va, target, 0xE9)


def memory_of(code: Mapping[int, bytes]) -> Memory:
    return Memory(tuple(Block(va, np.frombuffer(content, np.uint8)) for va, content in sorted(code.items())))


def site(
    code: Mapping[int, bytes], *, tail: bool = False, target: int = TARGET, resume: int = BASE + 5, there: bytes = RET
) -> str:
    """The failure of one site of a function at BASE, or nothing; a second one, which is good, must not suffer."""
    good = BASE + 0x800
    elsewhere = {TARGET: there} if there else {}
    memory = memory_of({**elsewhere, good: call(good, TARGET), **code})
    sites = [SiteExpectation("f", BASE, resume, target, None, tail), SiteExpectation("g", good, good + 5, TARGET, None)]
    outcome = x86_64.run(memory, sites, 1)
    assert outcome.n == 2 and not outcome.skipped
    assert not any(failure.startswith("g") for failure in outcome.failures)
    return "".join(outcome.failures)


# -- sites that call the kernel's trampoline ---------------------------------------------------------------------------

GOOD, HOOKED = call(BASE, TARGET), call(BASE, STUB)


def test_a_plain_site_holds() -> None:
    assert site({BASE: GOOD + b"\x55"}) == ""


def test_a_site_behind_an_endbr64_holds() -> None:
    assert site({BASE: ENDBR64 + call(BASE + 4, TARGET)}, resume=BASE + 9) == ""


def test_a_target_in_another_file_is_arrived_at() -> None:
    """Nothing is there to be fetched."""
    assert site({BASE: GOOD}, there=b"") == ""


@pytest.mark.parametrize("at", [0xFFFF_FFFF_8100_0000 + n for n in range(0xFFF8, 0x1_0002)])
def test_a_call_that_crosses_into_the_next_page_holds(at: int) -> None:
    sites = [SiteExpectation("f", at, at + 5, TARGET, None)]
    assert x86_64.run(memory_of({at: call(at, TARGET), TARGET: RET}), sites, 1) == Outcome(1)


@pytest.mark.parametrize("off", [1, -1, 4, 0x1000, -(1 << 20)])
def test_a_call_that_misses_fails(off: int) -> None:
    why = site({BASE: call(BASE, TARGET + off)})
    assert why.startswith(f"{NEVER}the target: found a stop at 0x") and why.endswith(f", expected {TARGET:#x}")


@pytest.mark.parametrize(("code", "what"), [
    (jmp(BASE, TARGET), "f: at the target rsp: found 0x"),
    (b"\x50" + call(BASE + 1, TARGET), "f: at the target rsp: found 0x"),  # push %rax
    (b"\x90" + call(BASE + 1, TARGET), "f: at the target the return address: found 0x"),
    (bytes.fromhex("31c0") + call(BASE + 2, TARGET), "f: at the target the return address: found 0x"),
    (b"\xfd" + call(BASE + 1, TARGET), "f: at the target the return address: found 0x"),  # std
    (x86_64_shapes.NOP5, f"{NEVER}the target: found a stop at 0x"),
    (b"\x0f\x0b" + GOOD[2:], f"{NEVER}the target: found a stop at 0x"),  # ud2
    (b"\xcc" + GOOD[1:], f"{NEVER}the target: found a stop at 0x"),  # int3
    (b"\xeb\xfe", f"{NEVER}the target: found a stop at {BASE:#x}, expected "),  # jmp .
    (b"\x0f\x05" + call(BASE + 2, TARGET), f"{NEVER}the target: found a stop at 0x"),  # syscall
])  # fmt: skip
def test_other_code_at_a_site_fails(code: bytes, what: str) -> None:
    assert site({BASE: code}).startswith(what)


@pytest.mark.parametrize(("code", "what"), [
    (bytes.fromhex("4883c001"), "f: at the target rax: found 0x"),  # add $1, %rax
    (bytes.fromhex("4d31db"), "f: at the target r11: found 0x0, expected 0x"),  # xor %r11, %r11
    (b"\xfd", "f: at the target rflags: found 0x"),  # std
    (b"\xfa", "f: at the target rflags: found 0x"),  # cli
    (b"\x0f\x05", f"{NEVER}the target: found a stop at 0x"),  # syscall
    (b"\x0f\x34", f"{NEVER}the target: found a stop at 0x"),  # sysenter
    (b"\xf4", f"{NEVER}the target: found a stop at 0x"),  # hlt
    (bytes.fromhex("48ff0424"), "f: at the target the return address: found 0x"),  # incq (%rsp)
    (bytes.fromhex("4883ec08"), "f: at the target rsp: found 0x"),  # sub $8, %rsp
])  # fmt: skip
def test_a_stub_that_changes_something_in_front_of_the_target_fails(code: bytes, what: str) -> None:
    assert site({BASE: HOOKED, STUB: code + jmp(STUB + len(code), TARGET)}).startswith(what)


def test_a_stub_that_jumps_to_the_target_holds() -> None:
    """Arithmetic flags are nobody's at the beginning of a function."""
    assert site({BASE: HOOKED, STUB: ENDBR64 + jmp(STUB + 4, TARGET)}) == ""
    assert site({BASE: HOOKED, STUB: b"\xf9" + jmp(STUB + 1, TARGET)}) == ""  # stc


def test_the_callers_return_address_is_kept() -> None:
    stub = bytes.fromhex("48ff442408") + jmp(STUB + 5, TARGET)  # incq 8(%rsp)
    why = site({BASE: HOOKED, STUB: stub})
    assert why == "f: the caller's stack frame behind the site: found other bytes, expected those at entry"


# -- sites that lead to nothing, before and after ----------------------------------------------------------------------


@pytest.mark.parametrize("fentry", [RET, ENDBR64 + jmp(STUB + 4, THUNK), jmp(STUB, THUNK)])
def test_a_site_as_compiled_goes_on_behind_itself(fentry: bytes) -> None:
    """`call __fentry__`, which returns at once or over the return thunk, as it lies in the file."""
    assert site({BASE: HOOKED, STUB: fentry, THUNK: RET}, target=BASE + 5) == ""


def test_a_nop_goes_on_behind_itself() -> None:
    assert site({BASE: x86_64_shapes.NOP5}, target=BASE + 5) == ""


@pytest.mark.parametrize(("code", "what"), [
    (jmp(BASE, STUB), f"{NEVER}the target: found a stop at 0x"),
    (bytes.fromhex("0f1f4000") + b"\x58", "f: behind the site rax: found 0x"),  # a NOP of four bytes; pop %rax
    (bytes.fromhex("0f1f440041") + b"\x90", ""),
    (bytes.fromhex("0f1f840000"), f"{NEVER}the target: found a stop at 0x"),  # a NOP of eight
])  # fmt: skip
def test_something_else_where_a_site_is_retired_fails(code: bytes, what: str) -> None:
    assert site({BASE: code + bytes(16), STUB: RET}, target=BASE + 5).startswith(what)


# -- stubs that call a C function --------------------------------------------------------------------------------------

PUSHED = ("50", "51", "52", "56", "57", "4150", "4151", "4152", "4153")  # rax, rcx, rdx, rsi, rdi, r8–r11
POPPED = ("415b", "415a", "4159", "4158", "5f", "5e", "5a", "59", "58")
ARGUMENTS = ("488b7c2448", "4883ef05", "488b742450")  # mov 72(%rsp), %rdi; sub $5, %rdi; mov 80(%rsp), %rsi


def hook_stub(
    pushed: Sequence[str] = PUSHED, popped: Sequence[str] = POPPED, front: str = "f30f1efa", back: str = "",
    last: bytes = RET,
) -> dict[int, bytes]:  # fmt: skip
    code = bytes.fromhex("".join((front, *pushed, *ARGUMENTS)))
    code += call(STUB + len(code), TARGET) + bytes.fromhex("".join((back, *popped)))
    return {BASE: HOOKED, STUB: code + last, THUNK: RET}


def without(names: Sequence[str], name: str) -> list[str]:
    return [other for other in names if other != name]


def test_the_hooks_stub_holds() -> None:
    assert site(hook_stub(), tail=True) == ""
    assert site(hook_stub(), tail=True, there=b"") == ""


def test_a_hooks_stub_that_returns_over_the_thunk_holds() -> None:
    code = hook_stub(last=b"")
    code[STUB] += jmp(STUB + len(code[STUB]), THUNK)
    assert site(code, tail=True) == ""


@pytest.mark.parametrize("n", range(9))
def test_each_register_that_a_c_function_loses_must_be_kept(n: int) -> None:
    name = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11")[n]
    other = "53" if PUSHED[n] != "53" else "55"  # push %rbx in its place, and pop it to where nobody looks
    pushed, popped = list(PUSHED), list(POPPED)
    pushed[n], popped[8 - n] = other, "5b"
    assert site(hook_stub(pushed, popped), tail=True).startswith(f"f: behind the site {name}: found 0x")


@pytest.mark.parametrize(("code", "what"), [
    (hook_stub(popped=without(POPPED, "58")), f"{NEVER}the instruction behind the site: found a stop at 0x"),
    (hook_stub((*PUSHED, "53")), f"{NEVER}the instruction behind the site: found a stop at 0x"),
    (hook_stub(front="4883ec04", back="4883c404"), "f: at the target rsp: found 0x"),  # sub $4, %rsp
    (hook_stub(front="fd"), "f: at the target rflags: found 0x"),  # std
    (hook_stub(back="fd"), "f: behind the site rflags: found 0x"),
    (hook_stub(back="4831db"), "f: behind the site rbx: found 0x0, expected 0x"),
    (hook_stub(back="4831ed"), "f: behind the site rbp: found 0x0, expected 0x"),
    (hook_stub(last=b"\xc2\x08\x00"), "f: behind the site rsp: found 0x"),  # ret $8
    (hook_stub(last=b"\x0f\x0b"), f"{NEVER}the instruction behind the site: found a stop at 0x"),
    (hook_stub(back="4889442458"), "f: the caller's stack frame behind the site: found other bytes, "),
    (hook_stub(front="eb3c"), f"{NEVER}the target: found a stop at 0x"),
])  # fmt: skip
def test_a_hook_stub_that_breaks_something_fails(code: dict[int, bytes], what: str) -> None:
    assert site(code, tail=True).startswith(what)


def test_what_lies_below_the_stack_is_not_kept() -> None:
    """Kernels have no red zone: what is written there is lost with the first call."""
    stub = bytes.fromhex("48894424f8") + call(STUB + 5, TARGET) + bytes.fromhex("488b4424f8") + RET
    assert site({BASE: HOOKED, STUB: stub}, tail=True).startswith("f: behind the site rax: found 0x")


def test_a_c_function_called_straight_from_a_site_fails() -> None:
    assert site({BASE: GOOD}, tail=True).startswith("f: behind the site rax: found 0x")


def test_a_stack_at_any_multiple_of_eight_is_a_kernels() -> None:
    """Compiled code asks for no more, so that both kinds are tried; a stub that wants 16 has to align it itself."""
    seen = set()
    for seed in range(8):
        row = [seed << 19] * 18
        seen.add(x86_64._start(None, row)[x86_64.RSP] % 16)  # type: ignore[arg-type]
    assert seen == {0, 8}


# -- the stub that a module brings along -------------------------------------------------------------------------------


def module_stub(thunk: bool) -> dict[int, bytes]:
    """A site that calls it, and the stub, as the module loader leaves it."""
    code = modules.hook(False, (modules.RETURN_SITES,) if thunk else ())
    content, where = bytearray(code.content), {"hook": TARGET, modules.RETURN_THUNK: THUNK}
    for fixup in code.fixups:
        distance = where[fixup.symbol] + fixup.addend - (STUB + fixup.off)
        content[fixup.off : fixup.off + 4] = distance.to_bytes(4, "little", signed=True)
    return {BASE: call(BASE, STUB + code.entry), STUB: bytes(content), THUNK: RET}


@pytest.mark.parametrize("thunk", [False, True])
def test_the_modules_stub_holds(thunk: bool) -> None:
    assert site(module_stub(thunk), tail=True) == ""


@pytest.mark.parametrize("seed", range(4))
def test_the_modules_stub_calls_with_the_site_and_its_caller(seed: int) -> None:
    """The stack is aligned as the ABI wants it, whatever it was."""
    import unicorn

    there = engine.Engine(unicorn, x86_64.PROCESSOR, memory_of({**module_stub(True), TARGET: RET}), seed)
    expected = SiteExpectation("f", BASE, BASE + 5, TARGET, None, True)
    start = x86_64._start(there, there.random_row(expected))
    caller = x86_64._top(there, start[x86_64.RSP])
    row, why = there.go(start, expected, TARGET)
    assert why == "" and (row[x86_64.RSP] + 8) % 16 == 0
    assert (row[x86_64.NAMES.index("rdi")], row[x86_64.NAMES.index("rsi")]) == (BASE, caller)


# -- whole files -------------------------------------------------------------------------------------------------------

FIXTURES = Path(__file__).resolve().parents[1] / "testdata/x86_64"
Enable = Callable[..., str]


def seen(before: Path, after: Path) -> tuple[Outcome, Outcome]:
    """What becomes of all enabled sites up to the kernel's trampoline; of all sites through its code and that of
    __fentry__, and back behind each."""
    scan, image = scan_file(str(before)), open_image(str(after))
    proof, sites = prove(scan, image, checks=Checks()), scan.sites
    assert proof.findings == ()
    rows = np.flatnonzero(sites.status == READY).tolist()
    behind = [int(sites.branch_va[row]) + 5 for row in rows]
    through = [SiteExpectation(sites.name(row) or hex(va), int(sites.local_va[row]), va, va, None)
               for row, va in zip(rows, behind, strict=True)]  # fmt: skip
    return proof.outcome, emulate(image, image.arch, through)


@pytest.mark.parametrize(("name", "n"), [("vmlinux-fentry", 11), ("vmlinux-nop", 11), ("vmlinux-rela", 11)])
def test_every_site_of_an_image_holds(name: str, n: int, tmp_path: Path, ftpatch: Enable) -> None:
    ftpatch("enable", FIXTURES / name, "--func", "*", "--func", "!vfs_write", "-o", tmp_path / "out")
    assert seen(FIXTURES / name, tmp_path / "out") == (Outcome(n - 1), Outcome(n))


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "n"), [("x86_64-6.12", 42_596)])
def test_every_site_of_a_debian_kernel_holds(
    name: str, n: int, tmp_path: Path, ftpatch: Enable, kernel: Callable[[str], Kernel]
) -> None:
    vmlinux = kernel(name).vmlinux
    ftpatch("enable", vmlinux, "--func", "*", "--func", "!ksys_read", "-o", tmp_path / "out")
    assert seen(vmlinux, tmp_path / "out") == (Outcome(n - 1), Outcome(n))


# -- redirected functions ----------------------------------------------------------------------------------------------


def redirect(code: Mapping[int, bytes], there: bytes = ENDBR64) -> str:
    good = BASE + 0x800
    memory = memory_of({TARGET: there, good: jmp(good, TARGET), **code})
    expected = [RedirectExpectation("f", BASE, TARGET), RedirectExpectation("g", good, TARGET)]
    outcome = x86_64.run_redirects(memory, expected, 1)
    assert outcome.n == 2 and not outcome.skipped
    assert not any(failure.startswith("g") for failure in outcome.failures)
    return "".join(outcome.failures)


VIA_MEMORY = ENDBR64 + bytes.fromhex("ff2500000000") + TARGET.to_bytes(8, "little")  # jmp *0(%rip)


@pytest.mark.parametrize(("code", "there"), [
    ({BASE: jmp(BASE, TARGET)}, RET),
    ({BASE: ENDBR64 + jmp(BASE + 4, TARGET)}, RET),
    ({BASE: ENDBR64 + jmp(BASE + 4, STUB), STUB: jmp(STUB, TARGET)}, RET),
    ({BASE: VIA_MEMORY}, ENDBR64),
    ({BASE: VIA_MEMORY[4:]}, RET),  # no IBT, so nothing is guarded
])  # fmt: skip
def test_a_jump_to_the_replacement_holds(code: dict[int, bytes], there: bytes) -> None:
    assert redirect(code, there) == ""


@pytest.mark.parametrize(("code", "failure"), [
    ({BASE: call(BASE, TARGET)}, "f: memory written on the way to the target: found -8 from sp, expected none"),
    ({BASE: b"\xb8" + bytes(4) + jmp(BASE + 5, TARGET)}, "f: at the target rax: found 0x0, expected 0x"),
    ({BASE: b"\xfd" + jmp(BASE + 1, TARGET)}, "f: at the target rflags: found 0x"),
    ({BASE: jmp(BASE, TARGET + 1)}, f"{NEVER}the target: found a stop at "),
    ({BASE: ENDBR64 + VIA_MEMORY[4:8]}, f"{NEVER}the target: found a stop at "),
])  # fmt: skip
def test_a_jump_that_breaks_something_fails(code: dict[int, bytes], failure: str) -> None:
    assert redirect(code).startswith(failure)


def test_an_indirect_jump_arrives_at_an_endbr64() -> None:
    expected = "f: the target of an indirect jump begins with: found 55488be5, expected endbr64"
    assert redirect({BASE: VIA_MEMORY}, bytes.fromhex("55488be5")) == expected


# -- the second decoder ------------------------------------------------------------------------------------------------


def rows(*codes: str) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    return np.array([list(bytes.fromhex(code)) for code in codes], dtype=np.uint32)


def test_both_decoders_agree_about_calls_and_jumps() -> None:
    seen = both(machine.ARCH, rows("e800000000", "e9ffffffff", "e800000080", "e8ffffff7f", "e8fbffffff", "e800000000"))
    assert seen.why == ("",) * 6
    assert seen.kind.tolist() == [2, 1, 2, 2, 2, 2]
    assert seen.distance.tolist() == [5, 4, 5 - (1 << 31), 4 + (1 << 31), 0, 5]


@pytest.mark.parametrize(("code", "name"), [
    ("0f1f440000", "nop"), ("41ff542408", "call"), ("e2fe000000", "loop of 2 bytes"), ("66e8000000", "no instruction"),
    ("f0e8000000", "no instruction"), ("ffe0909090", "jmp of 2 bytes"), ("b800000000", "mov"),
    ("c300000000", "ret of 1 bytes"), ("48e8000000", "no instruction"), ("0f84000000", "no instruction"),
])  # fmt: skip
def test_other_instructions_are_named(code: str, name: str) -> None:
    (why,) = both(machine.ARCH, rows(code)).why
    assert why == f"{name} (capstone), ? (own decoder)"
