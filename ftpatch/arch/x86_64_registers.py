"""What x86_64's instructions do to registers, as capstone tells them: rax … r15 are 0–15, xmm0–xmm31 are 16–47.

An instruction that writes a part of a register counts as one that writes it, and what only keeps the other part as one
that does not read it: a false alarm would be worse than one too few.
Source: System V ABI, AMD64 supplement, 3.2; Intel SDM, volume 2.
"""

from __future__ import annotations

import re

from ftpatch.arch.register_use import CallerRegisters, Decoded, Flow, Use, bits

NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
VECTORS = 16
RCX, RDX = 1, 2
REGISTERS = CallerRegisters(
    names=(*NAMES, *(f"xmm{n}" for n in range(32))),
    lost=bits((0, 1, 2, 6, 7, 8, 9, 10, 11, *range(16, 48))),
    results=((0, 1 << 2), (16, 1 << 17)),
    site=0,
    promised=bits((0, 1, 2, 6, 7, 8, 9)),
    hooked=bits((0, 1, 2, 6, 7, 8, 9, 10, 11, *range(16, 24))),
    arguments=bits((1, 2, 6, 7, 8, 9, 10, *range(16, 24))),
)
BY_CAPSTONE = True
PARTS = {"al": 0, "ah": 0, "cl": 1, "ch": 1, "dl": 2, "dh": 2, "bl": 3, "bh": 3, "spl": 4, "bpl": 5, "sil": 6, "dil": 7}
NUMBERS = {
    **PARTS, **{name: n for n, name in enumerate(NAMES)},
    **{f"{front}{name[1:]}": n for n, name in enumerate(NAMES[:8]) for front in ("e", "")},
    **{f"r{n}{part}": n for n in range(8, 16) for part in ("d", "w", "b")},
}  # fmt: skip
VECTOR = re.compile(r"[xyz]mm(\d+)")
FLOWS: dict[str, Flow] = {"jmp": "jump", "call": "call", "ret": "return"}
STOPS = ("int3", "int1", "int", "ud2", "ud0", "ud1", "hlt", "syscall", "sysret", "iretq", "cpuid", "xgetbv", "vmcall",
         "vzeroall", "lcall", "ljmp", "enter")  # fmt: skip
STOPS_BEGIN = ("rep", "notrack", "xsav", "xrst", "xset")
# they need no value of what they name twice: zero, or all ones
SAME = re.compile(r"v?(xor|sub|pxor\w?|xorp[sd]|pcmpeq[bwdq]|psub[bwdq]|pandn\w?|andnp[sd]|sbb)")
# they write a part of their first operand, and the rest stays or comes from the second, whatever that is
MERGING = re.compile(r"v?(cvt\w+|sqrts[sd]|rcpss|rsqrtss|rounds[sd]|movs[sd]|mov[lh]p[sd]|pinsr[bwdq]|insertps|"
                     r"rndscale\w*|getexp\w*|set\w+)")  # fmt: skip
NO_OPERAND = ("nop", "endbr64", "endbr32", "push", "prefetcht0", "prefetcht1", "prefetcht2", "prefetchnta", "prefetchw")


def number(name: str) -> int | None:
    """The number of a register; None for those that are not counted."""
    if match := VECTOR.fullmatch(name):
        return VECTORS + int(match[1]) if int(match[1]) < 32 else None
    return NUMBERS.get(name)


def use(code: bytes, va: int, seen: Decoded | None) -> Use | None:
    """What the instruction at `va` does; None where that is not known."""
    if seen is None:
        return None
    if seen.mnemonic in STOPS or seen.mnemonic.startswith(STOPS_BEGIN):
        return Use(seen.size, flow="end")
    words = seen.mnemonic.split()
    name = words[-1]
    flow = FLOWS.get(name, "branch" if name.startswith(("j", "loop")) else "on")
    first = seen.operands[0] if seen.operands else ""
    to = int(first, 16) if flow in ("jump", "branch", "call") and first.startswith("0x") else None
    if flow == "jump" and to is None:
        flow = "end"
    read, written = (bits(n for n in map(number, names) if n is not None) for names in (seen.reads, seen.writes))
    return Use(seen.size, _matters(name, seen, read), written, flow, to)


def _matters(name: str, seen: Decoded, read: int) -> int:
    """Of what an instruction reads: those whose values make a difference."""
    if name in NO_OPERAND or name.startswith("nop"):
        return 0
    *into, last = seen.operands or ("",)
    if SAME.fullmatch(name) and len(set(seen.operands[-2:])) == 1:
        return 0
    if name in ("and", "or") and last in ("0", "-1", "0xffffffff", "0xffffffffffffffff"):
        return 0
    if MERGING.fullmatch(name):  # what is read for sure: registers of an address, and the last operand
        kept = bits(n for n in map(number, into) if n is not None)
        return read & ~(kept & ~bits(n for n in [number(last)] if n is not None))
    return read
