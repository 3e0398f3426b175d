"""A processor in unicorn, and what is done with it for every site whatever the machine.

One emulator serves all sites: its pages are copied from the file as they are touched, and its stack is random bytes.
What a machine's registers are called, and what must be in them where, is in `Rules`.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ftpatch.progress import Advance, unseen
from ftpatch.proof.emulate.expectation import (
    FRAME,
    Expectation,
    Outcome,
    PadExpectation,
    RedirectExpectation,
    SiteExpectation,
    first_difference,
    line,
    wrong_ops,
)
from ftpatch.proof.emulate.memory import Memory
from ftpatch.proof.emulate.registers import Registers

if TYPE_CHECKING:
    import unicorn

E = TypeVar("E")
PAGE = 1 << 16  # bytes that are copied at once
MAX_PAGES = 1 << 14  # 1 GiB: no honest code touches more
TRANSLATED = 64 << 20  # bytes of translated code that unicorn keeps at a time
N_INSTRUCTIONS = 1024  # from the entry to the target, and from there back
STACK, STACK_SIZE = 0x7F00_0000_0000, 1 << 16  # in the lower half, where no kernel address is
# Methods of its processors that unicorn has from 2.1.2 on; Debian 12 ships 2.0.1.
NEEDED = ("ctl_set_tcg_buffer_size", "ctl_set_tlb_mode", "_do_reg_read_batch", "_do_reg_write_batch")
BELOW = 256  # bytes below the stack pointer that a C function overwrites
NOWHERE = 1  # an address that execution cannot reach
STEP = 256  # sites between two words on how far it is


class Processor(NamedTuple):
    """A machine as unicorn knows it."""

    constants: str  # unicorn's module with the numbers of its registers
    arch: str  # names of unicorn's constants
    mode: str
    registers: tuple[str, ...]  # likewise, in the order of a row of registers
    sp: int  # index in a row of the stack pointer
    pc: int  # of the address of the next instruction
    # whether its physical addresses are too short for a kernel's, which then are not made physical ones
    short_addresses: bool = False
    stops: tuple[str, ...] = ()  # instructions that unicorn would pass by, and end a run


class Rules(NamedTuple):
    """What a machine asks of a site that is executed. Each returns why it does not hold, or nothing."""

    processor: Processor
    # start(engine, row) → the row as a caller of the function leaves the registers
    start: Callable[[Engine, list[int]], list[int]]
    # at_target(engine, site, row at the entry, row at the target)
    at_target: Callable[[Engine, SiteExpectation, list[int], list[int]], str]
    # ops(engine, site, row at the target) → (why the ops in a register are wrong, va where they are read from memory)
    ops: Callable[[Engine, SiteExpectation, list[int]], tuple[str, int | None]]
    # returned(engine, site, row at the target) → the row when the target has returned
    returned: Callable[[Engine, SiteExpectation, list[int]], list[int]]
    # behind(site, row at the entry, row behind the site)
    behind: Callable[[SiteExpectation, list[int], list[int]], str]
    # at_replacement(engine, redirect, row at the entry, row at the replacement)
    at_replacement: Callable[[Engine, RedirectExpectation, list[int], list[int]], str]


def run(
    rules: Rules, memory: Memory, sites: Sequence[SiteExpectation], seed: int, advance: Advance = unseen
) -> Outcome:
    """Execute every site; skipped where unicorn is not installed, or has not enough memory."""
    engine = _started(rules, memory, seed)
    if isinstance(engine, str):
        return Outcome(0, skipped=engine)
    if {site.target for site in sites} & {site.entry for site in sites}:
        engine.stop_at_blocks()
    failures: dict[int, str] = {}
    places: list[int | None] = []
    for at, site in enumerate(sites):  # one run of the emulator per site
        failure, place = _execute(engine, rules, site)
        places.append(place)
        if failure:
            failures[at] = failure
        if not at % STEP:
            advance(min(STEP, len(sites) - at))
    failures = wrong_ops(memory, sites, places) | failures
    return Outcome(len(sites), tuple(failures[at] for at in sorted(failures)))


def run_redirects(rules: Rules, memory: Memory, redirects: Sequence[RedirectExpectation], seed: int) -> Outcome:
    """Execute every redirected function up to its replacement; skipped where `run` is."""
    engine = _started(rules, memory, seed)
    if isinstance(engine, str):
        return Outcome(0, skipped=engine)
    engine.stop_at_blocks()
    engine.watch_writes()
    failures = [_jump(engine, rules, redirect) for redirect in redirects]  # one run of the emulator per function
    return Outcome(len(redirects), tuple(why for why in failures if why))


def run_pads(
    rules: Rules, memory: Memory, pads: Sequence[PadExpectation], seed: int,
    execute: Callable[[Engine, PadExpectation], str],
) -> Outcome:  # fmt: skip
    """Execute every switch and pad; skipped where `run` is. execute: what the machine does with a pad whose switch is
    on. A switch that is off is passed by first, and then the pad is executed as if it led there."""
    engine = _started(rules, memory, seed)
    if isinstance(engine, str):
        return Outcome(0, skipped=engine)
    # Those first, as unicorn stops inside a block only where it had to when it translated that.
    failures = [_pass_by(engine, rules, pad) if not pad.on else "" for pad in pads]
    engine.stop_at_blocks()
    failures = [why or execute(engine, pad) for why, pad in zip(failures, pads, strict=True)]  # a run or two per pad
    return Outcome(len(pads), tuple(why for why in failures if why))


def _pass_by(engine: Engine, rules: Rules, pad: PadExpectation) -> str:
    """Why a function does not go on behind its switch with all registers as they were; empty where it does."""
    start = rules.start(engine, engine.random_row(pad))
    passed, why = engine.go(start, pad, pad.resume)
    names = [(n, name) for n, name in enumerate(rules.processor.registers) if n != rules.processor.pc]
    what = first_difference(passed, start, names)
    return why or (f"{pad.name}: behind the switch, which is off, {what}" if what else "")


def _started(rules: Rules, memory: Memory, seed: int) -> Engine | str:
    """The emulator, or why there is none."""
    return or_why_not(lambda unicorn: Engine(unicorn, rules.processor, memory, seed))


def or_why_not(start: Callable[[Any], E]) -> E | str:
    """What `start` makes of unicorn, or why that is not to be had."""
    try:
        import unicorn
    except ImportError:
        return "unicorn is not installed: pip install unicorn"
    if lack := lacks(unicorn):
        return lack
    try:
        return start(unicorn)
    except (OSError, MemoryError) as reason:
        return f"unicorn cannot be started in the memory that there is: {reason}"


def lacks(unicorn: Any) -> str:
    """What is missing in a unicorn that is too old for what is done here; empty where nothing is."""
    if all(hasattr(unicorn.Uc, name) for name in NEEDED):
        return ""
    return f"unicorn {unicorn.__version__} cannot be told how much memory to take: pip install 'unicorn>=2.1.2'"


def new_processor(unicorn: Any, processor: Processor) -> Any:
    """A processor without memory. Raises OSError where there is not enough of it for one."""
    uc = unicorn.Uc(getattr(unicorn, processor.arch), getattr(unicorn, processor.mode))
    # Unicorn reserves 1 GiB for translated code otherwise, and ends the whole process where that cannot be had.
    mmap.mmap(-1, 2 * TRANSLATED).close()  # raises OSError instead
    uc.ctl_set_tcg_buffer_size(TRANSLATED)
    if processor.short_addresses:
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
    return uc


def _execute(engine: Engine, rules: Rules, site: SiteExpectation) -> tuple[str, int | None]:
    """(why the site does not hold, empty where it does; where its target reads the ops pointer)."""
    start = rules.start(engine, engine.random_row(site))
    stack = start[rules.processor.sp]
    frame = engine.uc.mem_read(stack, FRAME)
    place: int | None = None
    now = start
    if site.target != site.resume:
        there, why = engine.go(start, site, site.target)
        why = why or rules.at_target(engine, site, start, there)
        if why:
            return why, None
        wrong, place = rules.ops(engine, site, there)
        if wrong:
            return wrong, None
        now = rules.returned(engine, site, there)
    behind, why = engine.go(now, site, site.resume)
    why = why or rules.behind(site, start, behind)
    if not why and engine.uc.mem_read(stack, FRAME) != frame:
        why = line(site, "the caller's stack frame behind the site", "other bytes", "those at entry")
    engine.uc.mem_write(stack, bytes(frame))
    return why, place


def _jump(engine: Engine, rules: Rules, redirect: RedirectExpectation) -> str:
    """Why a redirected function does not become its replacement; empty where it does."""
    start = rules.start(engine, engine.random_row(redirect))
    engine.written.clear()
    there, why = engine.go(start, redirect, redirect.target)
    if why:
        return why
    if engine.written:
        place = f"{engine.written[0] - start[rules.processor.sp]:+d} from sp"
        return line(redirect, "memory written on the way to the target", place, "none")
    return rules.at_replacement(engine, redirect, start, there)


class Engine:
    """One emulator: memory that fills itself, and a stack of random bytes."""

    def __init__(self, unicorn: Any, processor: Processor, memory: Memory, seed: int) -> None:
        self.memory, self.processor, self.n_pages = memory, processor, 0
        self.error: type[Exception] = unicorn.UcError
        self.random = np.random.default_rng(seed)
        self.uc: unicorn.Uc = new_processor(unicorn, processor)
        names = getattr(unicorn, processor.constants)
        self.registers = Registers(self.uc, [getattr(names, name) for name in processor.registers], self.error)
        self.uc.mem_map(STACK, STACK_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        self.uc.mem_write(STACK, self.random.bytes(STACK_SIZE))
        self.written: list[int] = []  # va of what a redirected function wrote
        self.goal = 0  # va where execution is to stop
        self.at_blocks = False  # whether it is watched for, at the beginning of every block
        self.block_end = 0  # va behind the block that was executed last
        self.executable = unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC
        self.fresh = self.uc.context_save()  # system registers too: no site may leave anything to the next
        self.uc.hook_add(unicorn.UC_HOOK_MEM_FETCH_UNMAPPED | unicorn.UC_HOOK_MEM_READ_UNMAPPED, self._fill)
        for name in processor.stops:
            self.uc.hook_add(unicorn.UC_HOOK_INSN, lambda uc, data: uc.emu_stop(), aux1=getattr(names, name))
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

    def random_row(self, site: Expectation) -> list[int]:
        """Random registers at a function's entry, with a stack pointer; nothing is left of the site before."""
        self.uc.context_restore(self.fresh)
        row: list[int] = self.random.integers(0, 1 << 64, len(self.processor.registers), dtype=np.uint64).tolist()
        row[self.processor.sp] = STACK + STACK_SIZE // 2 + (row[self.processor.sp] & 0xFF0)
        row[self.processor.pc] = site.entry
        return row

    def junk(self, n: int) -> list[int]:
        """What n registers hold that nobody keeps."""
        values: list[int] = self.random.integers(0, 1 << 64, n, dtype=np.uint64).tolist()
        return values

    def lose_below(self, sp: int) -> None:
        """Overwrite what lies below the stack pointer, as whoever is called does."""
        self.uc.mem_write(sp - BELOW, self.random.bytes(BELOW))

    def stop_at_blocks(self) -> None:
        """Stop at the goal even where its code is executed as well: unicorn keeps what it has translated, with a stop
        where it had one then."""
        self.at_blocks = True

        def block(uc: Any, va: int, size: int, data: object) -> None:
            if va == self.goal:
                uc.emu_stop()
            else:
                self.block_end = va + size

        self.uc.hook_add(self.hooks[1], block)

    def watch_writes(self) -> None:
        def write(uc: Any, access: int, va: int, size: int, value: int, data: object) -> None:
            self.written.append(va)

        self.uc.hook_add(self.hooks[0], write)

    def go(self, row: list[int], site: Expectation, to: int) -> tuple[list[int], str]:
        """Run with these registers; the registers where it stops, and why that is not at `to`."""
        pc = self.processor.pc
        where = "the target" if to == site.target else "the instruction behind the site"
        if row[pc] == to:
            return row, ""
        self.registers.write(row)
        stopped = ""
        self.goal = to
        try:
            self.uc.emu_start(row[pc], NOWHERE if self.at_blocks else to, count=N_INSTRUCTIONS)
        except self.error as reason:
            stopped = f" ({reason})"
        stop = self.registers.read()
        elsewhere = not self.memory.read(to, 1)  # what is in another file cannot be fetched
        if stop[pc] != to or (stopped and not elsewhere):
            return stop, line(site, f"never arrives at {where}", f"a stop at {stop[pc]:#x}{stopped}", to)
        return stop, ""
