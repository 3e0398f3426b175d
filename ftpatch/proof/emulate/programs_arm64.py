"""Sites of arm64 programs in unicorn.

The worst C function changes x0–x18, x30, v0–v7 and v16–v31, the upper halves of v8–v15, the flags, and what lies below
sp. Behind the site x0–x8, x18–x29, sp, v0–v7 and the lower halves of v8–v15 must be as at the entry, and x30 too: the
call of the site had put it into x9.

The call of _mcount behind a prologue is an ordinary one: x0 has where the function returns to, and behind it x19–x29,
sp and the lower halves of v8–v15 are as they were.
Source: AAPCS64, 6.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from ftpatch.arrays import U64
from ftpatch.proof.emulate import program_engine
from ftpatch.proof.emulate.engine import Processor
from ftpatch.proof.emulate.expectation import CallExpectation, Outcome
from ftpatch.proof.emulate.program_engine import ProgramEngine, ProgramRules
from ftpatch.proof.emulate.program_memory import ProgramMemory

LR, SP, PC, V0 = 30, 31, 32, 33  # in the order of a row
CHANGED = (*range(19), *range(V0, V0 + 8), *range(V0 + 16, V0 + 32))
UPPER = range(V0 + 8, V0 + 16)

PROCESSOR = Processor(
    "arm64_const", "UC_ARCH_ARM64", "UC_MODE_ARM",
    (*(f"UC_ARM64_REG_X{n}" for n in range(31)), "UC_ARM64_REG_SP", "UC_ARM64_REG_PC",
     *(f"UC_ARM64_REG_Q{n}" for n in range(32))), SP, PC,
)  # fmt: skip
KEPT = (
    *((n, 1, f"x{n}") for n in (*range(9), *range(18, 31))), (SP, 1, "sp"),
    *((V0 + n, 2, f"q{n}") for n in range(8)), *((V0 + n, 1, f"d{n}") for n in range(8, 16)),
)  # fmt: skip
KEPT_BY_C = (*((n, 1, f"x{n}") for n in range(19, 30)), (SP, 1, "sp"), *((V0 + n, 1, f"d{n}") for n in range(8, 16)))


def run(memory: ProgramMemory, sites: Sequence[CallExpectation], seed: int) -> Outcome:
    """Execute every site."""
    return program_engine.run((RULES, DEEP), memory, sites, seed)


def _start(row: U64, engine: ProgramEngine) -> None:
    """Nothing but what is random: sp is a multiple of 16 already."""


def _caller(row: U64, engine: ProgramEngine) -> int:
    return int(row[LR, 0])


def _aligned(row: U64) -> bool:
    return int(row[SP, 0]) % 16 == 0


def _returned(row: U64, junk: U64, engine: ProgramEngine) -> U64:
    after = row.copy()
    after[CHANGED, :] = junk[CHANGED, :]
    after[UPPER, 1] = junk[UPPER, 1]
    after[PC] = row[LR]
    after[LR] = junk[LR]
    engine.lose_below(int(row[SP, 0]))
    return after


def _odd(start: U64, row: U64) -> str:
    return ""


def _deep_caller(row: U64, engine: ProgramEngine) -> int:
    return int(row[0, 0])


RULES = ProgramRules(PROCESSOR, V0, "UC_ARM64_REG_TPIDR_EL0", _start, KEPT, _caller, (0, 1), _aligned, _returned, _odd)
DEEP = RULES._replace(kept=KEPT_BY_C, caller=_deep_caller)
