"""Does a piece of ppc64le code behave as a trampoline that a patch site of a program may call?

As in a kernel (ppc64le_contract.py), but r11, the static chain of nested functions, must be kept, too, and so must
f1–f13 and v2–v13. Nothing that touches such a register is followed, and no call of code that may.
Opcodes: Power ISA 3.1, book I, appendix; extended ones of primary opcode 31 are told by their lowest bits.
"""

from __future__ import annotations

from ftpatch.arch import ppc64le_contract as kernel
from ftpatch.arch import ppc64le_registers as registers
from ftpatch.arch.contract import NotShown, Read, judge
from ftpatch.arch.register_use import bits

FLOATS = (4, 48, 49, 50, 51, 59, 63)  # vectors; loads, and arithmetic
VECTOR_LOADS = (7, 12, 13)  # lowest five bits of an extended opcode: lvx and its like; lxv…x
MTVSR = (179, 211, 243, 403, 435)  # moves from general registers
FLOAT_LOADS, FIRST_FLOAT = 23, 512  # lfsx and its like, from that one on: below are loads of integers
R11 = 11


def keeps_contract(read: Read, va: int) -> str:
    """Why the code at `va` is no trampoline for a site of a program; empty where it is."""
    return judge(read, kernel.State(va), _step, {})


def kept_registers(read: Read, va: int) -> int:
    """The registers that the code at `va` gives back, as bits of `ppc64le_registers`; 0: nothing is shown."""
    reached: list[kernel.State] = []
    if judge(read, kernel.State(va), _step, {}, reached):
        return 0
    kept = bits(n for n in range(2, 32) if all(state.regs[n] == ("reg", n) for state in reached))
    return kept | bits(range(registers.FLOATS, registers.VECTORS + 32))


def _step(state: kernel.State, word: int, todo: list[kernel.State]) -> bool:
    """Step over one instruction; True where this path ends (soundly)."""
    if _calls(word):
        raise NotShown(f"it calls other code at {state.va:#x}, which may change f1-f13 and v2-v13")
    if _sets_float(word):
        raise NotShown(f"it executes {word:#010x} at {state.va:#x}, which is not followed")
    if _leaves(word) and state.regs[R11] != ("reg", R11):
        raise NotShown("it changes r11")
    return kernel.step(state, word, todo, out_of_line=False)


def _calls(word: int) -> bool:
    """Whether the word is a branch that comes back, other than one to learn its own address."""
    branches = word >> 26 in (16, 18) or _leaves(word)
    return branches and bool(word & 1) and word != kernel.BCL_NEXT


def _leaves(word: int) -> bool:
    """Whether the word goes where LR or CTR says: bclr, bcctr."""
    return word >> 26 == 19 and word & 0x7FE in (0x20, 0x420)


def _sets_float(word: int) -> bool:
    """Whether the word may change a floating-point or vector register."""
    opcode, extended = word >> 26, word >> 1 & 0x3FF
    if opcode != 31:
        return opcode in FLOATS
    low = extended & 31
    return low in VECTOR_LOADS or extended in MTVSR or (low == FLOAT_LOADS and extended >= FIRST_FLOAT)
