"""Sites of x86_64 programs in unicorn.

The worst C function changes rax, rcx, rdx, rsi, rdi, r8–r11, xmm0–xmm15, the arithmetic flags, and what lies below rsp,
which is a multiple of 16 where it is called. Behind the site all other general registers must be as at the entry, and
rax, rcx, rdx, rsi, rdi, r8–r10 and xmm0–xmm7 too: arguments, their number in al, and the static chain of a nested
function in r10. The call of mcount stands behind `push %rbp; mov %rsp,%rbp`, with everything else as at the entry.
Unicorn knows no registers wider than these; that a stub keeps those is read from its code.
Source: System V ABI, AMD64 supplement, 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from ftpatch.arrays import U64
from ftpatch.proof.emulate import program_engine
from ftpatch.proof.emulate.engine import Processor
from ftpatch.proof.emulate.expectation import CallExpectation, Outcome
from ftpatch.proof.emulate.program_engine import ProgramEngine, ProgramRules
from ftpatch.proof.emulate.program_memory import ProgramMemory
from ftpatch.proof.emulate.x86_64 import ARITHMETIC, AT_ENTRY, CHANGED_BY_C, NAMES, RFLAGS, RIP, RSP

XMM0, R11 = len(NAMES), 11  # in the order of a row
CHANGED = (*CHANGED_BY_C, *range(XMM0, XMM0 + 16))
RBP, RSI, RDI = 5, 6, 7
FRAME_SIZE = 32  # bytes of a function that a prologue has made room for

PROCESSOR = Processor(
    "x86_const", "UC_ARCH_X86", "UC_MODE_64",
    (*(f"UC_X86_REG_{name.upper()}" for name in NAMES), *(f"UC_X86_REG_XMM{n}" for n in range(16))), RSP, RIP,
    short_addresses=True, stops=("UC_X86_INS_SYSCALL", "UC_X86_INS_SYSENTER"),
)  # fmt: skip
KEPT = (
    *((n, 1, NAMES[n]) for n in range(16) if n != R11),
    *((XMM0 + n, 2, f"xmm{n}") for n in range(8)),
)  # fmt: skip


def run(memory: ProgramMemory, sites: Sequence[CallExpectation], seed: int) -> Outcome:
    """Execute every site."""
    return program_engine.run((RULES, DEEP), memory, sites, seed)


def _start(row: U64, engine: ProgramEngine) -> None:
    """Where a function begins, its return address makes rsp a multiple of 8 and not of 16."""
    row[RSP, 0] |= 8
    row[RFLAGS, 0] = int(row[RFLAGS, 0]) & ARITHMETIC | AT_ENTRY


def _caller(row: U64, engine: ProgramEngine) -> int:
    return engine.word(int(row[RSP, 0]))


def _deep_start(row: U64, engine: ProgramEngine) -> None:
    """Behind a prologue rsp is a multiple of 16, and rbp points to where the caller's was saved."""
    _start(row, engine)
    row[RSP, 0] ^= 8
    row[RBP, 0] = int(row[RSP, 0]) + FRAME_SIZE


def _deep_caller(row: U64, engine: ProgramEngine) -> int:
    return engine.word(int(row[RBP, 0]) + 8)


def _aligned(row: U64) -> bool:
    return int(row[RSP, 0]) % 16 == 8


def _returned(row: U64, junk: U64, engine: ProgramEngine) -> U64:
    after, rsp = row.copy(), int(row[RSP, 0])
    after[CHANGED, :] = junk[CHANGED, :]
    after[RFLAGS, 0] = int(row[RFLAGS, 0]) & ~ARITHMETIC | int(junk[RFLAGS, 0]) & ARITHMETIC
    after[RIP, 0], after[RSP, 0] = engine.word(rsp), rsp + 8
    engine.lose_below(rsp + 8)
    return after


def _odd(start: U64, row: U64) -> str:
    was, is_ = int(start[RFLAGS, 0]), int(row[RFLAGS, 0])
    return f"rflags: found {is_:#x}, expected those at entry, {was:#x}" if (was ^ is_) & ~ARITHMETIC else ""


RULES = ProgramRules(
    PROCESSOR, XMM0, "UC_X86_REG_FS_BASE", _start, KEPT, _caller, (RDI, RSI), _aligned, _returned, _odd
)
DEEP = RULES._replace(start=_deep_start, caller=_deep_caller)
