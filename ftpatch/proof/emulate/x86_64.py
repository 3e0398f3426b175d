"""x86_64 in unicorn.

At a target that is a kernel's trampoline the stack holds the return point, and above it the caller's return address;
every register is the caller's. It returns to that point, and changes no more than r10, r11 and the arithmetic flags,
which nothing is in where a function begins. A C function is called with the direction flag clear and the stack at a
multiple of eight: kernels are compiled for no more (-mpreferred-stack-boundary=3). It changes rax, rcx, rdx, rsi, rdi,
r8–r11, the flags, and what lies below the stack pointer. In both cases the function must then go on with the registers,
stack and return address of its caller; a stub that calls a C function has kept r10 and r11 as well.

A redirected function's replacement is entered by a jump: nothing is written on the way, and all registers are as the
caller left them. An indirect jump arrives at an endbr64 where the function itself begins with one.
Source: System V ABI, AMD64 supplement, 3.2; arch/x86/kernel/ftrace_64.S; arch/x86/Makefile (Linux 6.12).
"""

from __future__ import annotations

from collections.abc import Sequence

from ftpatch.progress import Advance, unseen
from ftpatch.proof.emulate import engine
from ftpatch.proof.emulate.engine import BELOW, STACK, Engine, Processor, Rules
from ftpatch.proof.emulate.expectation import (
    Outcome,
    RedirectExpectation,
    SiteExpectation,
    first_difference,
    line,
)
from ftpatch.proof.emulate.memory import Memory

NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)), "rip", "rflags")
RSP, RIP, RFLAGS = 4, 16, 17  # in the order of a row of registers
GENERAL = [(n, NAMES[n]) for n in range(16)]
CHANGED_BY_KERNEL = (10, 11)
CHANGED_BY_C = (0, 1, 2, 6, 7, 8, 9, 10, 11)
ARITHMETIC = 0x8D5  # CF, PF, AF, ZF, SF, OF: whoever is called may change them
AT_ENTRY = 0x202  # IF, and the bit that is always set; DF is clear wherever a function begins
ENDBR64 = bytes.fromhex("f30f1efa")
JMP_MEMORY = bytes.fromhex("ff25")  # jmp *distance(%rip)

PROCESSOR = Processor(
    "x86_const",
    "UC_ARCH_X86",
    "UC_MODE_64",
    tuple(f"UC_X86_REG_{name.upper()}" for name in NAMES),
    RSP,
    RIP,
    short_addresses=True,
    stops=("UC_X86_INS_SYSCALL", "UC_X86_INS_SYSENTER"),
)


def run(memory: Memory, sites: Sequence[SiteExpectation], seed: int, advance: Advance = unseen) -> Outcome:
    """Execute every site."""
    return engine.run(RULES, memory, sites, seed, advance)


def run_redirects(memory: Memory, redirects: Sequence[RedirectExpectation], seed: int) -> Outcome:
    """Execute every redirected function up to its replacement."""
    return engine.run_redirects(RULES, memory, redirects, seed)


def _start(engine: Engine, row: list[int]) -> list[int]:
    """A stack pointer as callees find it: at any multiple of eight; the arithmetic flags are random."""
    row[RSP] |= row[RFLAGS] >> 16 & 8
    row[RFLAGS] = row[RFLAGS] & ARITHMETIC | AT_ENTRY
    return row


def _top(engine: Engine, rsp: int) -> int:
    """The word at the top of the stack."""
    return int.from_bytes(engine.uc.mem_read(rsp, 8), "little")


def _changed_flags(start: list[int], there: list[int]) -> str:
    """Which flags are not the caller's, but for arithmetic ones, as the end of a sentence; empty where none is."""
    changed = (start[RFLAGS] ^ there[RFLAGS]) & ~ARITHMETIC
    return f"rflags: found {there[RFLAGS]:#x}, expected those at entry, {start[RFLAGS]:#x}" if changed else ""


def _at_target(engine: Engine, site: SiteExpectation, start: list[int], there: list[int]) -> str:
    """Why the target must not be entered with these registers; empty where it may."""
    rsp = there[RSP]
    if site.tail:
        inside = STACK + BELOW <= rsp < start[RSP] and rsp % 8 == 0
        what = "" if inside else f"rsp: found {rsp:#x}, expected an aligned stack below {start[RSP]:#x}"
    elif rsp != start[RSP] - 8:
        what = f"rsp: found {rsp:#x}, expected {start[RSP] - 8:#x}, with one return address more"
    elif _top(engine, rsp) != site.resume:
        what = f"the return address: found {_top(engine, rsp):#x}, expected {site.resume:#x}, behind the site"
    else:
        what = first_difference(there, start, [at for at in GENERAL if at[0] != RSP]) or ""
    what = what or _changed_flags(start, there)
    return f"{site.name}: at the target {what}" if what else ""


def _ops(engine: Engine, site: SiteExpectation, there: list[int]) -> tuple[str, int | None]:
    """None: the kernel's trampoline has its ops in its own code."""
    return "", None


def _returned(engine: Engine, site: SiteExpectation, there: list[int]) -> list[int]:
    """The registers when the target has returned."""
    registers = list(there)
    junk = engine.junk(len(NAMES))
    for n in CHANGED_BY_C if site.tail else CHANGED_BY_KERNEL:
        registers[n] = junk[n]
    registers[RFLAGS] = there[RFLAGS] & ~ARITHMETIC | junk[RFLAGS] & ARITHMETIC
    registers[RIP], registers[RSP] = _top(engine, there[RSP]), there[RSP] + 8
    engine.lose_below(registers[RSP])
    return registers


def _behind(site: SiteExpectation, start: list[int], behind: list[int]) -> str:
    """Why the function must not go on with these registers; empty where it may."""
    lost = () if site.tail else CHANGED_BY_KERNEL
    what = first_difference(behind, start, [at for at in GENERAL if at[0] not in lost])
    what = what or _changed_flags(start, behind)
    return f"{site.name}: behind the site {what}" if what else ""


def _at_replacement(engine: Engine, redirect: RedirectExpectation, start: list[int], there: list[int]) -> str:
    """Why the replacement may not be entered with these registers, by the jump that came last; empty where it may."""
    what = first_difference(there, start, GENERAL) or _changed_flags(start, there)
    if what:
        return f"{redirect.name}: at the target {what}"
    guarded = engine.memory.read(redirect.entry, 4) == ENDBR64
    pad = engine.memory.read(redirect.target, 4)
    if not guarded or engine.memory.read(engine.block_end - 6, 2) != JMP_MEMORY or pad in (b"", ENDBR64):
        return ""  # by a register it does not come here: each of them must be the caller's
    return line(redirect, "the target of an indirect jump begins with", pad.hex(), "endbr64")


RULES = Rules(PROCESSOR, _start, _at_target, _ops, _returned, _behind, _at_replacement)
