"""Does a piece of arm64 code behave as a trampoline that a patch site may call?

At a site x9 holds the caller's return address and x30 the return point inside the function. Whoever is called must
leave by a branch to the old x30, with x30 := the old x9 and with sp, x0–x8 and x18–x29 as they were. A C function
does not: it returns to x30 with x30 unchanged, and the traced function then returns into itself for ever.

Where `bl _mcount` stands behind the prologue (-pg), the call is an ordinary one: whoever is called may change what any
function may change, and returns to x30.

In the walk every register starts as itself, stack slots are remembered, what is not understood becomes unknown. In a
program v0–v15 must be kept, too, and are followed likewise; kernels have nothing in them.
"""

from __future__ import annotations

from ftpatch.arch.arm64_registers import VECTORS
from ftpatch.arch.arm64_state import SP, State, memory, vector
from ftpatch.arch.contract import UNKNOWN, NotShown, Read, judge, signed
from ftpatch.arch.register_use import bits

PRESERVED = (*range(9), *range(18, 30))
KEPT_BY_FUNCTIONS = tuple(range(18, 30))
N_ARGUMENTS, N_VECTORS = 8, 16  # vector registers that arguments are in; and with those that functions keep
SCRATCH = (*range(18), 30)  # what a call may change; x18 belongs to the platform and is left alone


def keeps_contract(
    read: Read, va: int, out_of_line: bool = False, home: int | None = None, target: int | None = None
) -> str:
    """Why the code at `va` is no trampoline for a patch site; empty where it is. Sites are never out of line here."""
    return judge(read, State(va), _branch, {target: _pass_on, home: _kept})


def keeps_library_contract(read: Read, va: int) -> str:
    """Why the code at `va` is no function as a compiler makes them; empty where it is."""
    return judge(read, State(va, library=True), _branch, {})


def program_keeps_contract(read: Read, va: int) -> str:
    """As `keeps_contract`, for the sites of a program."""
    return judge(read, State(va, vectors=[True] * N_VECTORS), _branch, {})


def returns_plainly(read: Read, va: int, x9: bool) -> str:
    """Why the code at `va` is no function of a program that a pad may call and that returns to x30; empty where it is.

    x9: whether it must keep that, too."""
    kept = (*range(9 + x9), *range(18, 30))
    return judge(read, State(va, plain=kept, vectors=[True] * N_VECTORS), _branch, {})


def kept_registers(read: Read, va: int, out_of_line: bool = False) -> int:
    """The registers that the code at `va` gives back, as bits of `arm64_registers`; 0: nothing is shown."""
    return _kept_registers(read, State(va))


def program_kept_registers(read: Read, va: int) -> int:
    """As `kept_registers`, for the sites of a program."""
    return _kept_registers(read, State(va, vectors=[True] * N_VECTORS))


def _kept_registers(read: Read, start: State) -> int:
    reached: list[State] = []
    changes_vectors: list[int] = []  # words that may change some

    def step(state: State, word: int, todo: list[State]) -> bool:
        called = word & 0xFC00_0000 == 0x9400_0000 or word & 0xFFFF_FC1F == 0xD63F_0000
        loaded = word >> 25 & 0b101 == 0b100 and word >> 26 & 1 and word >> 22 & 1
        if called or loaded or word >> 25 & 0b111 == 0b111:
            changes_vectors.append(word)
        return _branch(state, word, todo)

    if judge(read, start, step, {}, reached):
        return 0
    kept = bits(n for n in range(31) if all(state.regs[n] == ("reg", n) for state in reached))
    followed = bits(VECTORS + n for n in range(len(start.vectors)) if all(state.vectors[n] for state in reached))
    return kept | (followed if changes_vectors else bits(range(VECTORS, VECTORS + 32)))


def _branch(state: State, word: int, todo: list[State]) -> bool:
    """Step over one instruction; True where this path ends (soundly)."""
    va = state.va
    if word & 0xFC00_0000 == 0x1400_0000:  # b
        state.va = va + signed(word, 26) * 4
    elif word & 0xFC00_0000 == 0x9400_0000 or word & 0xFFFF_FC1F == 0xD63F_0000:  # bl, blr
        _call(state)
    elif word & 0xFF00_0010 == 0x5400_0000 or word & 0x7E00_0000 == 0x3400_0000:  # b.cond, cbz, cbnz
        todo.append(state.copy(va + signed(word >> 5, 19) * 4))
        state.va += 4
    elif word & 0x7E00_0000 == 0x3600_0000:  # tbz, tbnz
        todo.append(state.copy(va + signed(word >> 5, 14) * 4))
        state.va += 4
    elif word & 0xFFFF_FC1F in (0xD61F_0000, 0xD65F_0000):  # br, ret
        _leave(state, word >> 5 & 31)
        return True
    elif word >> 26 & 7 == 0b101 and word & 0xFF00_0000 != 0xD500_0000:
        raise NotShown(f"it executes {word:#010x} at {va:#x}")
    else:
        _straight(state, word)
        state.va += 4
    return False


def _leave(state: State, register: int) -> None:
    if state.get(register) != ("reg", 30):
        raise NotShown("it does not return to where x30 pointed")
    if state.library or state.plain:
        _keeps(state, state.plain or KEPT_BY_FUNCTIONS)
    else:
        _kept(state)


def _pass_on(state: State) -> None:
    """The site's own two return addresses must still be where a trampoline looks for them."""
    if state.regs[30] != ("reg", 30) or state.regs[9] != ("reg", 9):
        raise NotShown("it goes to the target without x9 and x30 as they were")
    _keeps(state)


def _kept(state: State) -> None:
    if state.regs[30] != ("reg", 9):
        raise NotShown("it does not return with the old x9 in x30, so the traced function would never return")
    _keeps(state)


def _keeps(state: State, preserved: tuple[int, ...] = PRESERVED) -> None:
    changed = [f"x{n}" for n in preserved if state.regs[n] != ("reg", n)]
    changed += [f"v{n}" for n, same in enumerate(state.vectors) if not same]
    if changed or state.sp:
        raise NotShown(f"it changes {', '.join(changed or ['sp'])}")


def _call(state: State) -> None:
    """A call of ordinary code: scratch registers and everything below sp are lost."""
    for n in SCRATCH:
        state.regs[n] = UNKNOWN
    state.vectors[:N_ARGUMENTS] = [False] * len(state.vectors[:N_ARGUMENTS])  # of the others lower halves are kept
    state.stack = {off: value for off, value in state.stack.items() if off >= state.sp}
    state.va += 4


def _straight(state: State, word: int) -> None:
    """One instruction that is no branch."""
    rd = word & 31
    if state.vectors and vector(state, word):
        return
    if word & 0xFF00_0000 == 0xD500_0000:  # hints, barriers, msr, mrs
        _system(state, word)
    elif word & 0xFFE0_FFE0 == 0xAA00_03E0:  # mov Xd, Xm
        state.set(rd, state.get(word >> 16 & 31))
    elif word & 0xBF80_0000 == 0x9100_0000:  # add, sub Xd|sp, Xn|sp, #imm
        _add(state, word)
    elif word >> 25 & 0b101 == 0b100:
        memory(state, word)
    elif word & 0x1F00_0000 == 0x1100_0000 and rd == SP and not word >> 29 & 1:
        raise NotShown(f"it moves sp by {word:#010x} at {state.va:#x}")
    elif word & 0x1F80_0000 == 0x1200_0000 and rd == SP and word >> 29 & 3 != 3:
        raise NotShown(f"it aligns sp at {state.va:#x}")
    elif word & 0x1FE0_0000 == 0x0B20_0000 and rd == SP and not word >> 29 & 1:
        raise NotShown(f"it moves sp by a register at {state.va:#x}")
    else:
        state.set(rd, UNKNOWN)


def _system(state: State, word: int) -> None:
    kind, n = state.regs[30]
    signed = f"{'b' if word & 0x40 else 'a'} at sp {state.sp}"  # the key and the modifier, which both must fit
    if word in (0xD503_233F, 0xD503_237F):  # paciasp, pacibsp
        state.regs[30] = (signed, n) if kind == "reg" else UNKNOWN
    elif word in (0xD503_23BF, 0xD503_23FF):  # autiasp, autibsp
        state.regs[30] = ("reg", n) if kind == signed else UNKNOWN
    elif word & 0xFFFF_FF1F == 0xD503_231F or word == 0xD503_20FF:  # paciaz, autiaz and their like, xpaclri
        state.regs[30] = UNKNOWN
    elif word & 0xFFFF_FF1F == 0xD503_211F:  # pacia1716 and its like
        state.regs[17] = UNKNOWN
    elif word & 0xFFF0_0000 == 0xD530_0000:  # mrs
        state.set(word & 31, UNKNOWN)


def _add(state: State, word: int) -> None:
    amount = (word >> 10 & 0xFFF) << (12 if word >> 22 & 1 else 0)
    kind, n = state.base(word >> 5 & 31)
    amount = -amount if word >> 30 & 1 else amount
    result = ("sp", n + amount) if kind == "sp" else (kind, n) if amount == 0 else UNKNOWN
    if word & 31 != SP:
        state.set(word & 31, result)
    elif result[0] != "sp":
        raise NotShown(f"it loads sp from a register at {state.va:#x}")
    else:
        state.move_sp(result[1])
