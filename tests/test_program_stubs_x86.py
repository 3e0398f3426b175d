"""`ftpatch verify` on x86_64 programs whose sites call a C function by a stub: files are made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from program_patch import Patch, findings, slot, symbol, with_calls
from test_program_proof import SMALL
from test_verify import verify

X86_64 = [SMALL / f"x86_64-{kind}" for kind in ("pie", "exec", "so")]
SITES = ("work", "numbers", "vectors", "structure")
PIE = X86_64[0]
ENTER = (
    "ff742408 55 4889e5"  # push 8(%rsp); push %rbp; mov %rsp,%rbp
    "ff742410 55 4889e5"  # push 16(%rsp); push %rbp; mov %rsp,%rbp
    "50 51 52 56 57 4150 4151 4152 4153"  # push %rax, %rcx, %rdx, %rsi, %rdi, %r8 … %r11
)
ROOM = "4881ec80000000 4883e4f0"  # sub $128,%rsp; and $-16,%rsp
SAVE = "0f290424 0f294c2410 0f29542420 0f295c2430 0f29642440 0f296c2450 0f29742460 0f297c2470"  # movaps %xmm0,(%rsp) …
ARGUMENTS = "488b7d08 4883ef05 488b7518"  # mov 8(%rbp),%rdi; sub $5,%rdi; mov 24(%rbp),%rsi
LOAD = SAVE.replace("0f29", "0f28")
LEAVE = (
    "488d65b8 415b 415a 4159 4158 5f 5e 5a 59 58"  # lea -72(%rbp),%rsp; pop %r11, %r10, %r9, %r8, %rdi, %rsi, …
    "5d 4883c408 5d 4883c408 c3cc"  # pop %rbp; add $8,%rsp; pop %rbp; add $8,%rsp; ret; int3
)
WIDE_ROOM = "53 4881ec800a0000 4883e4c0"  # push %rbx; sub $2688,%rsp; and $-64,%rsp
ASK = "b801000000 31c9 0fa2 89cb 81e300000008"  # mov $1,%eax; xor %ecx,%ecx; cpuid; mov %ecx,%ebx; and $1<<27,%ebx
HEADER = "31c0" + "".join(f"48898424 {at.to_bytes(4, 'little').hex()}" for at in range(512, 576, 8))
MASK = "b8e6000000 31d2"  # mov $0xe6,%eax; xor %edx,%edx


def size(code: str) -> int:
    return len(bytes.fromhex(code))


def either(first: str, second: str) -> str:
    """je over the first; jmp over the second"""
    return f"74{size(first) + 2:02x}{first}eb{size(second):02x}{second}"


NARROW = (ENTER + ROOM + SAVE + ARGUMENTS, LOAD + LEAVE)
WIDE = (
    ENTER + WIDE_ROOM + ASK + either(HEADER + MASK + "480fae2424", SAVE) + ARGUMENTS,
    "85db" + either(MASK + "480fae2c24", LOAD) + "488b5db0" + LEAVE,
)


def stub(va: int, hook: int, halves: tuple[str, str] = NARROW, opcode: str = "e8") -> bytes:
    front, back = map(bytes.fromhex, halves)
    behind = va + len(front) + len(opcode) // 2 + 4
    return front + bytes.fromhex(opcode) + (hook - behind).to_bytes(4, "little", signed=True) + back


def hooked(before: Path, code: bytes, folder: Path) -> Path:
    patch = Patch(before, code)
    (folder / "after").write_bytes(with_calls(patch.build(), before, dict.fromkeys(SITES, patch.code_va)))
    return folder / "after"


@pytest.mark.parametrize("before", X86_64, ids=lambda path: path.name)
@pytest.mark.parametrize("halves", [NARROW, WIDE], ids=["narrow", "wide"])
def test_sites_that_call_a_c_function_by_a_stub_are_found_sound(
    before: Path, halves: tuple[str, str], tmp_path: Path
) -> None:
    va = Patch(before, b"").code_va
    code = stub(va, symbol(before, "hook"), halves)
    code += bytes(-len(code) % 16)
    second = stub(va + len(code), slot(before, "outside"), halves, "ff15")
    patch = Patch(before, code + second)
    to = {"work": va, "numbers": va, "vectors": va + len(code), "structure": va + len(code)}
    (tmp_path / "after").write_bytes(with_calls(patch.build(), before, to))
    proof = verify(before, tmp_path / "after", "--require", "emulation")["proof"]
    assert proof["callees"] == {"hook": 2, "outside@plt": 2} and proof["emulated"] == 4
    assert proof["edits"] == {"ELF header": 4, "hook stub": 2, "new segment": 1, "site words": 4}


VA, HOOK = Patch(PIE, b"").code_va, symbol(PIE, "hook")
# Which half of which form, what in it becomes what, and why that is no stub.
STUBS = {
    "r10 not saved": (NARROW, 0, "4152", "4151", "it does not keep r10"),
    "no frame": (NARROW, 0, "ff742410 55", "ff742410 50", "rbp does not lead to frames of the function and its caller"),
    "rax not kept": (NARROW, 1, "59 58", "59 59", "it does not keep rax, rcx"),
    "room that is not used": (NARROW, 0, "ec80000000", "ec90000000", "it makes room for 144 bytes and uses 128"),
    "xmm3 not saved": (NARROW, 0, "0f295c2430", "0f29542430", "it does not keep xmm3"),
    "xmm6, xmm7 swapped": (NARROW, 1, "0f28742460 0f287c2470", "0f287c2460 0f28742470", "it does not keep xmm6, xmm7"),
    "not aligned": (NARROW, 0, "4883e4f0", "", "it moves 16 bytes at {save:#x} that are not aligned"),
    "too little room": (NARROW, 0, "ec80000000", "ec70000000", "it writes beside its own stack frame at {xmm7:#x}"),
    "another site": (
        NARROW, 0, "4883ef05", "4883ef04", "the first argument of its call is not the address of the site's call"),
    "another caller": (
        NARROW, 0, "488b7518", "488b7508", "the second argument of its call is not where the function returns to"),
    "returns to the caller": (NARROW, 1, "4883c408 c3", "4883c410 c3", "it does not return behind the site"),
    "another instruction": (NARROW, 1, "c3cc", "ffe0", "it executes ffe0 at {end:#x}, which no stub does"),
    "other components": (WIDE, 0, "b8e6", "b8e2", "it saves or restores other components than 0xe6 at {xsave:#x}"),
    "no header": (WIDE, 0, "4889842400020000", "4889842408020000", "what it has for XSAVE at {xsave:#x} is too small, "
                  "not aligned, or has no empty header"),
    "always XSAVE": (WIDE, 0, "81e300000008", "81e300000004", "it goes one way or another at {ask:#x} by something "
                     "else than whether there is XSAVE"),
    "rbx not kept": (WIDE, 1, "488b5db0", "", "it does not keep rbx"),
    "the upper parts lost": (WIDE, 1, MASK + "480fae2c24", LOAD, "it does not keep xmm0, xmm1, xmm2, xmm3, "
                             "xmm4, xmm5, xmm6, xmm7, the upper parts of the vector registers"),
}  # fmt: skip


@pytest.mark.parametrize("name", STUBS)
def test_a_stub_that_loses_something_is_found(name: str, tmp_path: Path) -> None:
    form, half, old, new, why = STUBS[name]
    halves = [text.replace(" ", "") for text in form]
    assert halves[half].count(old.replace(" ", "")) == 1
    halves[half] = halves[half].replace(old.replace(" ", ""), new.replace(" ", ""))
    if name == "the upper parts lost":
        halves[1] = ("85db" + either(LOAD, LOAD) + "488b5db0" + LEAVE).replace(" ", "")
    code = stub(VA, HOOK, (halves[0], halves[1]))
    ask = VA + size(ENTER + WIDE_ROOM + ASK)
    at = {"save": VA + size(ENTER + ROOM) - 4, "xmm7": VA + size(ENTER + ROOM + SAVE) - 5, "end": VA + len(code) - 2,
          "ask": ask, "xsave": ask + 2 + size(HEADER + MASK)}  # fmt: skip
    found = findings(PIE, hooked(PIE, code, tmp_path))
    stubs = [text for rule, text in found if rule == "verify-stub"]
    assert stubs == [f"the new code at {VA:#x} is no stub that calls a C function: {why.format(**at)}"]


def test_bytes_behind_a_stub_are_found(tmp_path: Path) -> None:
    code = stub(VA, HOOK, WIDE)
    found = findings(PIE, hooked(PIE, code + b"\x90", tmp_path))
    why = f"the bytes behind it, at {VA + len(code):#x}, are no zeros"
    stubs = [text for rule, text in found if rule == "verify-stub"]
    assert stubs == [f"the new code at {VA:#x} is no stub that calls a C function: {why}"]


def test_a_direct_call_of_a_function_that_keeps_all_is_sound(tmp_path: Path) -> None:
    after = tmp_path / "after"
    after.write_bytes(with_calls(PIE.read_bytes(), PIE, {"work": symbol(PIE, "direct")}))
    assert verify(PIE, after, "--require", "emulation")["proof"]["callees"] == {"direct": 1}
