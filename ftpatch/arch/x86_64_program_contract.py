"""Does a piece of x86_64 code behave as a trampoline that a patch site of a program may call?

As in a kernel (x86_64_contract.py), but r10 and xmm0–xmm7 must be kept, too. Moves of whole vector registers to the
stack and back are followed; a call of other code loses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from ftpatch.arch import x86_64_contract as kernel
from ftpatch.arch.contract import NotShown, Read, judge
from ftpatch.arch.register_use import bits
from ftpatch.arch.x86_64_code import Operand, decoded, vector_move
from ftpatch.arch.x86_64_registers import VECTORS

N_VECTORS, R10 = 8, 10


@dataclass
class State(kernel.State):
    vectors: list[bool] = field(default_factory=lambda: [True] * N_VECTORS)  # whether each of xmm0–xmm7 is as at entry
    untouched: bool = True  # nothing can have changed any vector register

    def copy(self, va: int) -> State:
        return State(va, list(self.regs), dict(self.stack), self.zero, list(self.vectors), self.untouched)


def keeps_contract(read: Read, va: int) -> str:
    """Why the code at `va` is no trampoline for a site of a program; empty where it is."""
    return judge(read, State(va), partial(_step, read), {})


def kept_registers(read: Read, va: int) -> int:
    """The registers that the code at `va` gives back, as bits of `x86_64_registers`; 0: nothing is shown."""
    reached: list[State] = []
    if judge(read, State(va), partial(_step, read), {}, reached):
        return 0
    kept = bits(n for n in range(16) if all(state.regs[n] == ("reg", n) for state in reached))
    untouched = all(state.untouched for state in reached)
    followed = bits(VECTORS + n for n in range(N_VECTORS) if all(state.vectors[n] for state in reached))
    return kept | (bits(range(VECTORS, VECTORS + 32)) if untouched else followed)


def _step(read: Read, state: State, word: int, todo: list[State]) -> bool:
    """Step over one instruction; True where this path ends (soundly)."""
    code = bytes(read(state.va, 16).tolist())
    if (move := vector_move(code)) is not None:
        _move(state, move.register, move.memory, move.store)
        state.va += move.size
        return False
    seen, va = decoded(code), state.va
    others: list[kernel.State] = []
    ended = kernel.step(read, state, word, others)
    todo += [other for other in others if isinstance(other, State)]
    if seen is not None and seen.kind == "call" and state.va == va + seen.size:
        state.vectors, state.untouched = [False] * N_VECTORS, False
    if ended:
        _keeps(state)
    return ended


def _keeps(state: State) -> None:
    changed = ["r10"] if state.regs[R10] != ("reg", R10) else []
    changed += [f"xmm{n}" for n, same in enumerate(state.vectors) if not same]
    if changed:
        raise NotShown(f"it changes {', '.join(changed)}")


def _move(state: State, register: int, memory: Operand, store: bool) -> None:
    """A whole vector register to memory, or back."""
    state.untouched &= store
    kind, off = kernel.address_of(state, memory)
    halves = {off: ("low", register), off + 8: ("high", register)}
    if store and kind == "sp":
        state.write(off, 16, ("?", 0))
        if register < N_VECTORS and state.vectors[register] and off >= state.sp:
            state.stack |= halves
    elif not store and register < N_VECTORS:
        kept = kind == "sp" and off >= state.sp
        state.vectors[register] = kept and all(state.stack.get(at) == half for at, half in halves.items())
