"""arm64 in unicorn: one emulator for all sites, whose pages are copied from the file as they are touched.

At a target that is a kernel's trampoline x9 must hold the caller's return address and x30 the return point; it returns
there with x30 := x9 and x9–x17 changed. A C function is called with the stack aligned, and changes x0–x17, x30 and what
lies below the stack pointer. In both cases the function must then go on with x0–x8, x18–x29 and sp of its caller, and
with the return address in x30.

A redirected function's replacement is entered by a jump: nothing is written on the way, and all registers but x16 and
x17 are as the caller left them. In a function that begins with a `bti c`, which is executed where indirect jumps are
guarded, an indirect jump arrives at a landing pad.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ftpatch.proof.emulate.expectation import (
    FRAME,
    Expectation,
    Outcome,
    RedirectExpectation,
    SiteExpectation,
    first_difference,
    line,
    wrong_ops,
)
from ftpatch.proof.emulate.memory import Memory

if TYPE_CHECKING:
    import unicorn

PAGE = 1 << 16  # bytes that are copied at once
MAX_PAGES = 1 << 14  # 1 GiB: no honest code touches more
TRANSLATED = 64 << 20  # bytes of translated code that unicorn keeps at a time
N_INSTRUCTIONS = 1024  # from the entry to the target, and from there back
STACK, STACK_SIZE = 0x7F00_0000_0000, 1 << 16  # in the lower half, where no kernel address is
BELOW = 256  # bytes below the stack pointer that a C function overwrites
NOWHERE = 1  # an address that execution cannot reach
LR, SP, PC = 30, 31, 32  # in the order of a row of registers
PRESERVED = [(n, f"x{n}") for n in (*range(9), *range(18, 30))] + [(SP, "sp")]
BEHIND = [*PRESERVED, (LR, "x30")]
CHANGED_BY_KERNEL = range(9, 18)
CHANGED_BY_C = range(18)
BETWEEN = [(n, f"x{n}") for n in (*range(16), *range(18, 31))] + [(SP, "sp")]  # x16, x17: free between two functions
BTI_C, BR_X16, BR_X17 = 0xD503_245F, 0xD61F_0200, 0xD61F_0220
LANDING_PADS = (BTI_C, 0xD503_249F, 0xD503_24DF, 0xD503_233F, 0xD503_237F)  # bti c, bti j, bti jc, paciasp, pacibsp
AND_LR_7, LDUR_16 = 0x927D_F3C0, 0xF85F_0000  # and Xn, x30, #~7; ldur Xn, [Xn, #-16]: how ftrace_caller finds its ops


def run(memory: Memory, sites: Sequence[SiteExpectation], seed: int) -> Outcome:
    """Execute every site; skipped where unicorn is not installed, or has not enough memory."""
    machine = _started(memory, seed)
    if isinstance(machine, str):
        return Outcome(0, skipped=machine)
    if {site.target for site in sites} & {site.entry for site in sites}:
        machine.stop_at_blocks()
    failures: dict[int, str] = {}
    places: list[int | None] = []
    for at, site in enumerate(sites):  # one run of the emulator per site
        failure, place = machine.execute(site)
        places.append(place)
        if failure:
            failures[at] = failure
    failures = wrong_ops(memory, sites, places) | failures
    return Outcome(len(sites), tuple(failures[at] for at in sorted(failures)))


def run_redirects(memory: Memory, redirects: Sequence[RedirectExpectation], seed: int) -> Outcome:
    """Execute every redirected function up to its replacement; skipped where `run` is."""
    machine = _started(memory, seed)
    if isinstance(machine, str):
        return Outcome(0, skipped=machine)
    machine.stop_at_blocks()
    machine.watch_writes()
    failures = [machine.jump(redirect) for redirect in redirects]  # one run of the emulator per function
    return Outcome(len(redirects), tuple(why for why in failures if why))


def _started(memory: Memory, seed: int) -> _Machine | str:
    """The emulator, or why there is none."""
    try:
        import unicorn
    except ImportError:
        return "unicorn is not installed: pip install unicorn"
    try:
        return _Machine(unicorn, memory, seed)
    except (OSError, MemoryError) as reason:
        return f"unicorn cannot be started in the memory that there is: {reason}"


class _Machine:
    """One emulator: memory that fills itself, and a stack of random bytes."""

    def __init__(self, unicorn: Any, memory: Memory, seed: int) -> None:
        self.memory, self.n_pages = memory, 0
        self.error: type[Exception] = unicorn.UcError
        self.random = np.random.default_rng(seed)
        names = unicorn.arm64_const
        ordinary = [getattr(names, f"UC_ARM64_REG_X{n}") for n in range(31)]
        self.uc: unicorn.Uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self.registers = _Registers(self.uc, [*ordinary, names.UC_ARM64_REG_SP, names.UC_ARM64_REG_PC], self.error)
        # Unicorn reserves 1 GiB for translated code otherwise, and ends the whole process where that cannot be had.
        mmap.mmap(-1, 2 * TRANSLATED).close()  # raises OSError instead
        self.uc.ctl_set_tcg_buffer_size(TRANSLATED)
        self.uc.mem_map(STACK, STACK_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        self.uc.mem_write(STACK, self.random.bytes(STACK_SIZE))
        self.written: list[int] = []  # va of what a redirected function wrote
        self.goal = 0  # va where execution is to stop
        self.at_blocks = False  # whether it is watched for, at the beginning of every block
        self.last = 0  # va of the last word of the block that was executed last
        self.executable = unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC
        self.fresh = self.uc.context_save()  # system registers too: no site may leave anything to the next
        self.uc.hook_add(unicorn.UC_HOOK_MEM_FETCH_UNMAPPED | unicorn.UC_HOOK_MEM_READ_UNMAPPED, self._fill)
        self.hooks = unicorn.UC_HOOK_MEM_WRITE, unicorn.UC_HOOK_BLOCK

    def _fill(self, uc: Any, access: int, va: int, size: int, value: int, data: object) -> bool:
        """Copy the page of the file that is touched; False, which ends the run, where it has none."""
        first = va & ~(PAGE - 1)
        content = self.memory.page(first, PAGE)
        self.n_pages += 1
        if content is None or self.n_pages > MAX_PAGES:
            return False
        uc.mem_map(first, PAGE, self.executable)
        uc.mem_write(first, content)
        return True

    def execute(self, site: SiteExpectation) -> tuple[str, int | None]:
        """(why the site does not hold, empty where it does; where its target reads the ops pointer)."""
        start = self._start(site)
        frame = self.uc.mem_read(start[SP], FRAME)
        place: int | None = None
        now = start
        if site.target != site.resume:
            there, why = self._go(start, site, site.target)
            why = why or _at_target(site, start, there)
            if why:
                return why, None
            wrong, place = self._ops(site, there)
            if wrong:
                return wrong, None
            now = self._returned(site, there)
        behind, why = self._go(now, site, site.resume)
        if not why and (what := first_difference(behind, start, BEHIND)):
            why = f"{site.name}: behind the site {what}"
        if not why and self.uc.mem_read(start[SP], FRAME) != frame:
            why = line(site, "the caller's stack frame behind the site", "other bytes", "those at entry")
        self.uc.mem_write(start[SP], bytes(frame))
        return why, place

    def _start(self, site: Expectation) -> list[int]:
        """The registers at the entry; nothing is left of the site before."""
        self.uc.context_restore(self.fresh)
        start: list[int] = self.random.integers(0, 1 << 64, 33, dtype=np.uint64).tolist()
        start[SP] = STACK + STACK_SIZE // 2 + (start[SP] & 0xFF0)
        start[PC] = site.entry
        return start

    def stop_at_blocks(self) -> None:
        """Stop at the goal even where its code is executed as well: unicorn keeps what it has translated, with a stop
        where it had one then."""
        self.at_blocks = True

        def block(uc: Any, va: int, size: int, data: object) -> None:
            if va == self.goal:
                uc.emu_stop()
            else:
                self.last = va + size - 4

        self.uc.hook_add(self.hooks[1], block)

    def watch_writes(self) -> None:
        def write(uc: Any, access: int, va: int, size: int, value: int, data: object) -> None:
            self.written.append(va)

        self.uc.hook_add(self.hooks[0], write)

    def jump(self, redirect: RedirectExpectation) -> str:
        """Why a redirected function does not become its replacement; empty where it does."""
        start = self._start(redirect)
        self.written.clear()
        there, why = self._go(start, redirect, redirect.target)
        if why:
            return why
        if self.written:
            place = f"{self.written[0] - start[SP]:+d} from sp"
            return line(redirect, "memory written on the way to the target", place, "none")
        if what := first_difference(there, start, BETWEEN):
            return f"{redirect.name}: at the target {what}"
        return self._landing(redirect)

    def _landing(self, redirect: RedirectExpectation) -> str:
        """Why the replacement may not be entered by the jump that came last; empty where it may."""
        jump, pad = self.memory.word(self.last), self.memory.word(redirect.target)
        guarded = self.memory.word(redirect.entry) == BTI_C
        if not guarded or jump not in (BR_X16, BR_X17) or pad is None or pad in LANDING_PADS:
            return ""  # by another register it does not come here: each of them must be the caller's
        return line(redirect, "the target of an indirect jump begins with", pad, "a landing pad")

    def _go(self, registers: list[int], site: Expectation, to: int) -> tuple[list[int], str]:
        """Run with these registers; the registers where it stops, and why that is not at `to`."""
        where = "the target" if to == site.target else "the instruction behind the site"
        if registers[PC] == to:
            return registers, ""
        self.registers.write(registers)
        stopped = ""
        self.goal = to
        try:
            self.uc.emu_start(registers[PC], NOWHERE if self.at_blocks else to, count=N_INSTRUCTIONS)
        except self.error as reason:
            stopped = f" ({reason})"
        stop = self.registers.read()
        elsewhere = self.memory.word(to) is None  # what is in another file cannot be fetched
        if stop[PC] != to or (stopped and not elsewhere):
            return stop, line(site, f"never arrives at {where}", f"a stop at {stop[PC]:#x}{stopped}", to)
        return stop, ""

    def _ops(self, site: SiteExpectation, there: list[int]) -> tuple[str, int | None]:
        """(why the ops are wrong, or empty; where they are read): in a register where the target is behind the load."""
        if site.ops is None:
            return "", None
        mask, load = (self.memory.word(site.target - back) or 0 for back in (8, 4))
        n = mask & 31
        if mask != AND_LR_7 | n or load != LDUR_16 | n << 5 | n:
            return "", (there[LR] & ~7) - 16
        return "" if there[n] == site.ops else line(site, f"the ops in x{n} at the target", there[n], site.ops), None

    def _returned(self, site: SiteExpectation, there: list[int]) -> list[int]:
        """The registers when the target has returned."""
        registers = list(there)
        junk: list[int] = self.random.integers(0, 1 << 64, 18, dtype=np.uint64).tolist()
        for n in CHANGED_BY_C if site.tail else CHANGED_BY_KERNEL:
            registers[n] = junk[n]
        registers[PC] = there[LR]
        if not site.tail:
            registers[LR] = there[9]
        self.uc.mem_write(there[SP] - BELOW, self.random.bytes(BELOW))
        return registers


class _Registers:
    """The registers of an emulator in one array, which it reads and fills by itself.

    Its own methods make an object for every register each time, which took two thirds of the time of a site.
    """

    def __init__(self, uc: Any, ids: list[int], error: type[Exception]) -> None:
        n = len(ids)
        self.values, self.error = np.zeros(n, dtype=np.uint64), error
        start = self.values.ctypes.data
        self.arguments = (ctypes.c_int * n)(*ids), (ctypes.c_void_p * n)(*range(start, start + 8 * n, 8)), n
        # The layer of the package's own batches; it asks for nothing but ctypes' arrays.
        self.pull, self.push = uc._do_reg_read_batch, uc._do_reg_write_batch

    def write(self, values: list[int]) -> None:
        self.values[:] = values
        self._checked(self.push(*self.arguments))

    def read(self) -> list[int]:
        self._checked(self.pull(*self.arguments))
        values: list[int] = self.values.tolist()
        return values

    def _checked(self, status: int) -> None:
        if status:
            raise self.error(status)


def _at_target(site: SiteExpectation, start: list[int], there: list[int]) -> str:
    """Why the target must not be entered with these registers; empty where it may."""
    if site.tail:
        inside = STACK + BELOW <= there[SP] <= start[SP]
        return "" if inside and there[SP] % 16 == 0 else line(site, "sp at the target", there[SP], "an aligned stack")
    if there[9] != start[LR]:
        return line(site, "x9 at the target", there[9], f"{start[LR]:#x}, the caller's return address")
    if there[LR] != site.resume:
        return line(site, "x30 at the target", there[LR], f"{site.resume:#x}, behind the site")
    what = first_difference(there, start, PRESERVED)
    return f"{site.name}: at the target {what}" if what else ""
