"""Sites of a program in unicorn: each is executed from its function's entry to the instruction behind the site.

    entry ─► site ─► function that keeps a site's contract ─────────────────────► behind the site
    entry ─► site ─► stub ─► [stub of the .plt ─►] C function ─► rest of the stub ─► behind the site

What the sites call is executed itself; every function that this calls in turn is the worst that the ABI allows: it
changes all registers that it may, flags and vector registers too, and what lies below the stack pointer. All registers,
vectors whole, are random at the entry.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ftpatch.arrays import U64, Mask
from ftpatch.proof.emulate.engine import Processor, new_processor, or_why_not
from ftpatch.proof.emulate.expectation import FRAME, CallExpectation, Outcome, line, together
from ftpatch.proof.emulate.program_memory import PAGE, ProgramMemory, entries_of

if TYPE_CHECKING:
    import unicorn

STACK_SIZE, THREAD_SIZE = 1 << 16, 1 << 16
MAX_PAGES = 1 << 16  # 256 MiB
N_INSTRUCTIONS = 4096  # between two stops
MAX_CALLS = 16  # of functions, by what one site calls
BELOW = 256  # bytes below the stack pointer that a C function overwrites
NOWHERE = 1
ONES = (1 << 64) - 1


class ProgramRules(NamedTuple):
    """What a machine asks of sites of programs. A row has two words for each register, the lower one first."""

    processor: Processor
    wide: int  # registers from this number on have both words
    thread: str  # name in `processor.constants` of the register that points to thread-local storage
    # start(row, engine) changes the random row to one with which a function is entered
    start: Callable[[U64, ProgramEngine], None]
    kept: Sequence[tuple[int, int, str]]  # registers that must be as they were: number, words, name
    # caller(row at a function's entry, engine) → where that function returns to
    caller: Callable[[U64, ProgramEngine], int]
    arguments: tuple[int, int]  # registers of the first two
    # aligned(row at the entry of a C function) → whether its stack is as the ABI has it
    aligned: Callable[[U64], bool]
    # returned(row at the entry of a C function, junk, engine) → the row when the worst function has returned
    returned: Callable[[U64, U64, ProgramEngine], U64]
    # odd(row at the entry, row) → what else is wrong with registers, as the end of a sentence; or nothing
    odd: Callable[[U64, U64], str]


def run(
    rules: tuple[ProgramRules, ProgramRules], memory: ProgramMemory, sites: Sequence[CallExpectation], seed: int
) -> Outcome:
    """Execute every site; skipped where unicorn is not installed, or has not enough memory.

    rules: for sites at the entries of functions, and for those behind prologues.
    """
    groups = [[site for site in sites if site.deep == deep] for deep in (False, True)]
    outcomes = [_run(of, memory, group, seed) for of, group in zip(rules, groups, strict=True) if group]
    return together(outcomes) if outcomes else Outcome(0)


def _run(rules: ProgramRules, memory: ProgramMemory, sites: Sequence[CallExpectation], seed: int) -> Outcome:
    engine = or_why_not(lambda unicorn: ProgramEngine(unicorn, rules, memory, seed))
    if isinstance(engine, str):
        return Outcome(0, skipped=engine)
    why = [_execute(engine, rules, site) for site in sites]  # one run of the emulator, or a few, for each
    return Outcome(len(sites), tuple(text for text in why if text))


def _execute(engine: ProgramEngine, rules: ProgramRules, site: CallExpectation) -> str:
    """Why the site does not hold; empty where it does."""
    start = engine.random_row(site.entry)
    rules.start(start, engine)
    sp, pc = rules.processor.sp, rules.processor.pc
    stack = int(start[sp, 0])
    frame = engine.uc.mem_read(stack, FRAME)
    caller = rules.caller(start, engine)
    row, n_hooked, reached = start, 0, False
    for _ in range(MAX_CALLS):
        row, passed, why = engine.go(row, site)
        reached |= site.target in passed
        at = int(row[pc, 0])
        if why or at == site.resume:
            break
        if at == site.function:
            n_hooked += 1
            why = _at_function(rules, site, row, caller)
        if why:
            break
        row = rules.returned(row, engine.junk(), engine)
    else:
        why = line(site, "calls", f"{MAX_CALLS} functions and more", "an end")
    if not why and not reached:
        why = line(site, "never arrives at the target", "none", site.target)
    if not why and site.function is not None and n_hooked != 1:
        why = line(site, "calls of the function", str(n_hooked), "one")
    why = why or _behind(engine, rules, start, row, site)
    if not why and engine.uc.mem_read(stack, FRAME) != frame:
        why = line(site, "the caller's stack frame behind the site", "other bytes", "those at entry")
    engine.uc.mem_write(stack, bytes(frame))
    return why


def _at_function(rules: ProgramRules, site: CallExpectation, row: U64, caller: int) -> str:
    """Why the C function must not be entered so."""
    for register, expected, which in zip(rules.arguments, (site.call, caller), ("first", "second"), strict=True):
        if int(row[register, 0]) != expected:
            return line(site, f"the {which} argument of the function", int(row[register, 0]), expected)
    return "" if rules.aligned(row) else line(
        site, "the stack pointer of the function", int(row[rules.processor.sp, 0]), "one that is aligned")  # fmt: skip


def _behind(engine: ProgramEngine, rules: ProgramRules, start: U64, row: U64, site: CallExpectation) -> str:
    """Why the function must not go on so."""
    wrong: Mask = np.asarray(((row ^ start) & engine.kept).any(axis=1))
    for number, words, name in rules.kept if wrong.any() else ():
        if wrong[number]:
            values = [int(one[number, 0]) | (int(one[number, 1]) << 64) * (words > 1) for one in (row, start)]
            return line(site, f"{name} behind the site", values[0], values[1])
    odd = rules.odd(start, row)
    return f"{site.name}: behind the site {odd}" if odd else ""


class ProgramEngine:
    """One emulator for all sites: pages are copied from the file as they are touched."""

    def __init__(self, unicorn: Any, rules: ProgramRules, memory: ProgramMemory, seed: int) -> None:
        uc = new_processor(unicorn, rules.processor)
        self.uc: unicorn.Uc = uc
        self.memory, self.rules = memory, rules
        self.error: type[Exception] = unicorn.UcError
        self.random = np.random.default_rng(seed)
        names = getattr(unicorn, rules.processor.constants)
        self.registers = _Rows(uc, [getattr(names, name) for name in rules.processor.registers], self.error)
        self.read_only, self.writable = unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC, unicorn.UC_PROT_ALL
        self.thread = memory.stack + STACK_SIZE
        uc.mem_map(memory.stack, STACK_SIZE + THREAD_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        uc.mem_write(memory.stack, self.random.bytes(STACK_SIZE))
        uc.reg_write(getattr(names, rules.thread), self.thread + THREAD_SIZE // 2)
        self.functions = entries_of(memory.image) | set(memory.imports.values())
        self.kept = np.zeros((len(rules.processor.registers), 2), dtype=np.uint64)
        for number, words, _ in rules.kept:
            self.kept[number, :words] = ONES
        self.passed: list[int] = []
        self.stops: set[int] = set()
        self.first = True  # whether the next block is the one where execution was started
        self.n_pages = 0
        self.fresh = uc.context_save()  # no site may leave anything to the next
        fetch = unicorn.UC_HOOK_MEM_FETCH_UNMAPPED | unicorn.UC_HOOK_MEM_READ_UNMAPPED
        uc.hook_add(fetch | unicorn.UC_HOOK_MEM_WRITE_UNMAPPED, self._fill)
        uc.hook_add(unicorn.UC_HOOK_BLOCK, self._block)
        for name in rules.processor.stops:
            uc.hook_add(unicorn.UC_HOOK_INSN, lambda uc, data: uc.emu_stop(), aux1=getattr(names, name))

    def _fill(self, uc: Any, access: int, va: int, size: int, value: int, data: object) -> bool:
        """Copy the page that is touched; False, which ends the run, where the program has none."""
        first = va & ~(PAGE - 1)
        page = self.memory.page(first)
        self.n_pages += 1
        if page is None or self.n_pages > MAX_PAGES:
            return False
        uc.mem_map(first, PAGE, self.writable if page[1] else self.read_only)
        uc.mem_write(first, page[0])
        return True

    def _block(self, uc: Any, va: int, size: int, data: object) -> None:
        """Stop where another function begins, and behind the site."""
        if va in self.stops and not self.first:
            uc.emu_stop()
        self.first = False
        self.passed.append(va)

    def random_row(self, entry: int) -> U64:
        """Random registers at a function's entry, with a stack pointer."""
        self.uc.context_restore(self.fresh)
        row, processor = self.junk(), self.rules.processor
        row[processor.sp, 0] = self.memory.stack + STACK_SIZE // 2 + (int(row[processor.sp, 0]) & 0xFF0)
        row[processor.pc, 0] = entry
        return row

    def junk(self) -> U64:
        """What registers hold that nobody keeps."""
        n, wide = len(self.rules.processor.registers), self.rules.wide
        row: U64 = self.random.integers(0, 1 << 64, (n, 2), dtype=np.uint64)
        row[:wide, 1] = 0
        return row

    def lose_below(self, sp: int) -> None:
        """Overwrite what lies below the stack pointer, as whoever is called does."""
        self.uc.mem_write(sp - BELOW, self.random.bytes(BELOW))

    def word(self, va: int) -> int:
        """Eight bytes of memory."""
        return int.from_bytes(self.uc.mem_read(va, 8), "little")

    def go(self, row: U64, site: CallExpectation) -> tuple[U64, list[int], str]:
        """Run with these registers up to another function, or behind the site: (registers, blocks, why it did not)."""
        pc = self.rules.processor.pc
        if int(row[pc, 0]) == site.resume:  # where a function came back to, that was jumped to
            return row, [], ""
        self.stops = self.functions - {site.target} | {site.resume}
        self.passed, self.first, stopped = [], True, ""
        self.registers.write(row)
        try:
            self.uc.emu_start(int(row[pc, 0]), NOWHERE, count=N_INSTRUCTIONS)
        except self.error as reason:
            stopped = f" ({reason})"
        stop = self.registers.read()
        at = int(stop[pc, 0])
        if stopped or at not in self.stops:
            return stop, self.passed, line(site, "never arrives behind the site", f"a stop at {at:#x}{stopped}",
                                           site.resume)  # fmt: skip
        return stop, self.passed, ""


class _Rows:
    """The registers of an emulator in one array of two words each, which it reads and fills by itself."""

    def __init__(self, uc: Any, ids: list[int], error: type[Exception]) -> None:
        n = len(ids)
        self.values, self.error = np.zeros((n, 2), dtype=np.uint64), error
        start = self.values.ctypes.data
        self.arguments = (ctypes.c_int * n)(*ids), (ctypes.c_void_p * n)(*range(start, start + 16 * n, 16)), n
        self.pull, self.push = uc._do_reg_read_batch, uc._do_reg_write_batch

    def write(self, row: U64) -> None:
        self.values[:] = row
        self._checked(self.push(*self.arguments))

    def read(self) -> U64:
        self.values[:] = 0
        self._checked(self.pull(*self.arguments))
        return self.values.copy()

    def _checked(self, status: int) -> None:
        if status:
            raise self.error(status)
