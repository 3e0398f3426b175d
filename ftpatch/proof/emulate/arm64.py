"""arm64 in unicorn.

At a target that is a kernel's trampoline x9 must hold the caller's return address and x30 the return point; it returns
there with x30 := x9 and x9–x17 changed. A C function is called with the stack aligned, and changes x0–x17, x30 and what
lies below the stack pointer. In both cases the function must then go on with x0–x8, x18–x29 and sp of its caller, and
with the return address in x30. Where a site's call is an ordinary one, it is executed from the site on: a C function
must be entered with x30 behind it, and x18–x29 and sp must be as they were.

A redirected function's replacement is entered by a jump: nothing is written on the way, and all registers but x16 and
x17 are as the caller left them. In a function that begins with a `bti c`, which is executed where indirect jumps are
guarded, an indirect jump arrives at a landing pad.
"""

from __future__ import annotations

from collections.abc import Sequence

from ftpatch.progress import Advance, unseen
from ftpatch.proof.emulate import engine
from ftpatch.proof.emulate.engine import BELOW, STACK, Engine, Processor, Rules
from ftpatch.proof.emulate.expectation import (
    FRAME,
    Outcome,
    PadExpectation,
    RedirectExpectation,
    SiteExpectation,
    first_difference,
    line,
)
from ftpatch.proof.emulate.memory import Memory

LR, SP, PC = 30, 31, 32  # in the order of a row of registers
PRESERVED = [(n, f"x{n}") for n in (*range(9), *range(18, 30))] + [(SP, "sp")]
BEHIND = [*PRESERVED, (LR, "x30")]
KEPT_BY_C = [(n, f"x{n}") for n in range(18, 30)] + [(SP, "sp")]
CHANGED_BY_KERNEL = range(9, 18)
CHANGED_BY_C = range(18)
BETWEEN = [(n, f"x{n}") for n in (*range(16), *range(18, 31))] + [(SP, "sp")]  # x16, x17: free between two functions
BTI_C, BR_X16, BR_X17 = 0xD503_245F, 0xD61F_0200, 0xD61F_0220
LANDING_PADS = (BTI_C, 0xD503_249F, 0xD503_24DF, 0xD503_233F, 0xD503_237F)  # bti c, bti j, bti jc, paciasp, pacibsp
AND_LR_7, LDUR_16 = 0x927D_F3C0, 0xF85F_0000  # and Xn, x30, #~7; ldur Xn, [Xn, #-16]: how ftrace_caller finds its ops

PROCESSOR = Processor(
    "arm64_const", "UC_ARCH_ARM64", "UC_MODE_ARM",
    (*(f"UC_ARM64_REG_X{n}" for n in range(31)), "UC_ARM64_REG_SP", "UC_ARM64_REG_PC"), SP, PC,
)  # fmt: skip


def run(memory: Memory, sites: Sequence[SiteExpectation], seed: int, advance: Advance = unseen) -> Outcome:
    """Execute every site."""
    return engine.run(RULES, memory, sites, seed, advance)


def run_redirects(memory: Memory, redirects: Sequence[RedirectExpectation], seed: int) -> Outcome:
    """Execute every redirected function up to its replacement."""
    return engine.run_redirects(RULES, memory, redirects, seed)


def run_pads(memory: Memory, pads: Sequence[PadExpectation], seed: int) -> Outcome:
    """Execute every switch and pad."""
    return engine.run_pads(RULES, memory, pads, seed, _execute_pad)


def _execute_pad(engine: Engine, pad: PadExpectation) -> str:
    """Why a pad does not what it should; empty where it does. Where the switch is off, it is entered by itself."""
    start = engine.random_row(pad)
    if not pad.on:
        start[PC] = pad.start
    frame = engine.uc.mem_read(start[SP], FRAME)
    there, why = engine.go(start, pad, pad.target)
    if why := why or _at_pad_target(engine, pad, start, there):
        return why
    behind, why = engine.go(_returned_to_pad(engine, pad, there), pad, pad.resume)
    if why:
        return why
    if what := first_difference(behind, start, BEHIND):
        return f"{pad.name}: behind the site {what}"
    if engine.uc.mem_read(start[SP], FRAME) != frame:
        return line(pad, "the caller's stack frame behind the site", "other bytes", "those at entry")
    return ""


def _at_pad_target(engine: Engine, pad: PadExpectation, start: list[int], there: list[int]) -> str:
    """Why the pad's target must not be entered with these registers; empty where it may."""
    if there[LR] != pad.behind:
        return line(pad, "x30 at the target", there[LR], f"{pad.behind:#x}, behind the pad's call")
    frame = 16 if pad.form == "stack" else 0
    if there[SP] != start[SP] - frame:
        return line(pad, "sp at the target", there[SP], start[SP] - frame)
    if not frame and there[9] != start[LR]:
        return line(pad, "x9 at the target", there[9], f"{start[LR]:#x}, the caller's return address")
    what = first_difference(there, start, PRESERVED[:-1])
    return f"{pad.name}: at the target {what}" if what else ""


def _returned_to_pad(engine: Engine, pad: PadExpectation, there: list[int]) -> list[int]:
    """The registers when the pad's target has returned."""
    registers, junk = list(there), engine.junk(18)
    kept = pad.form == "pad"
    for n in range(10 if kept else 9, 18):
        registers[n] = junk[n]
    registers[PC] = there[LR]
    registers[LR] = there[9] if pad.form == "target" else junk[0]
    engine.lose_below(there[SP])
    return registers


def _start(engine: Engine, row: list[int]) -> list[int]:
    return row


def _at_target(engine: Engine, site: SiteExpectation, start: list[int], there: list[int]) -> str:
    """Why the target must not be entered with these registers; empty where it may."""
    if site.tail:
        inside = STACK + BELOW <= there[SP] <= start[SP]
        return "" if inside and there[SP] % 16 == 0 else line(site, "sp at the target", there[SP], "an aligned stack")
    if site.library:
        if there[LR] != site.resume:
            return line(site, "x30 at the target", there[LR], f"{site.resume:#x}, behind the site")
        what = first_difference(there, start, [at for at in BEHIND if at[0] != LR])
        return f"{site.name}: at the target {what}" if what else ""
    if there[9] != start[LR]:
        return line(site, "x9 at the target", there[9], f"{start[LR]:#x}, the caller's return address")
    if there[LR] != site.resume:
        return line(site, "x30 at the target", there[LR], f"{site.resume:#x}, behind the site")
    what = first_difference(there, start, PRESERVED)
    return f"{site.name}: at the target {what}" if what else ""


def _ops(engine: Engine, site: SiteExpectation, there: list[int]) -> tuple[str, int | None]:
    """In a register where the target is behind the load of the ops."""
    if site.ops is None:
        return "", None
    mask, load = (engine.memory.word(site.target - back) or 0 for back in (8, 4))
    n = mask & 31
    if mask != AND_LR_7 | n or load != LDUR_16 | n << 5 | n:
        return "", (there[LR] & ~7) - 16
    return "" if there[n] == site.ops else line(site, f"the ops in x{n} at the target", there[n], site.ops), None


def _returned(engine: Engine, site: SiteExpectation, there: list[int]) -> list[int]:
    """The registers when the target has returned."""
    registers = list(there)
    junk = engine.junk(18)
    for n in CHANGED_BY_C if site.tail or site.library else CHANGED_BY_KERNEL:
        registers[n] = junk[n]
    registers[PC] = there[LR]
    if not (site.tail or site.library):
        registers[LR] = there[9]
    engine.lose_below(there[SP])
    return registers


def _behind(site: SiteExpectation, start: list[int], behind: list[int]) -> str:
    what = first_difference(behind, start, KEPT_BY_C if site.library else BEHIND)
    return f"{site.name}: behind the site {what}" if what else ""


def _at_replacement(engine: Engine, redirect: RedirectExpectation, start: list[int], there: list[int]) -> str:
    """Why the replacement may not be entered with these registers, by the jump that came last; empty where it may."""
    if what := first_difference(there, start, BETWEEN):
        return f"{redirect.name}: at the target {what}"
    jump, pad = engine.memory.word(engine.block_end - 4), engine.memory.word(redirect.target)
    guarded = engine.memory.word(redirect.entry) == BTI_C
    if not guarded or jump not in (BR_X16, BR_X17) or pad is None or pad in LANDING_PADS:
        return ""  # by another register it does not come here: each of them must be the caller's
    return line(redirect, "the target of an indirect jump begins with", pad, "a landing pad")


RULES = Rules(PROCESSOR, _start, _at_target, _ops, _returned, _behind, _at_replacement)
