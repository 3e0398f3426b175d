"""What a walk over arm64 code knows on its way: registers, stack slots and vector registers, and what loads and stores
do with them.

Values: ("reg", n): what register n held at entry; ("sp", n): entry sp + n; signed x30; ("low", n), ("high", n): the
halves of vector register n; UNKNOWN.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ftpatch.arch.contract import UNKNOWN, NotShown, Value, signed

ZR = SP = 31


@dataclass
class State:
    va: int
    regs: list[Value] = field(default_factory=lambda: [("reg", n) for n in range(31)])
    sp: int = 0
    stack: dict[int, Value] = field(default_factory=dict)
    library: bool = False  # called as any function is
    plain: tuple[int, ...] = ()  # called from a pad: what it keeps, and it returns as any function does
    vectors: list[bool] = field(default_factory=list)  # of a program: whether each of v0–v15 is as at entry

    def copy(self, va: int) -> State:
        return State(va, list(self.regs), self.sp, dict(self.stack), self.library, self.plain, list(self.vectors))

    def get(self, n: int) -> Value:
        return UNKNOWN if n == ZR else self.regs[n]

    def set(self, n: int, value: Value) -> None:
        if n != ZR:
            self.regs[n] = value

    def move_sp(self, sp: int) -> None:
        """Move the stack pointer; an interrupt may overwrite what then lies below it."""
        self.sp = sp
        self.stack = {off: value for off, value in self.stack.items() if off >= sp}

    def base(self, n: int) -> Value:
        """Value of register n where 31 means the stack pointer."""
        return ("sp", self.sp) if n == SP else self.regs[n]


def memory(state: State, word: int) -> None:
    """Loads and stores: pairs and single 64-bit registers at immediate offsets are followed exactly."""
    rt, rn, load = word & 31, word >> 5 & 31, bool(word >> 22 & 1)
    if word & 0xFE00_0000 == 0xA800_0000 and word >> 23 & 3:  # stp, ldp Xt1, Xt2
        step = signed(word >> 15, 7) * 8
        _access(state, rn, step, ("off", "post", "off", "pre")[word >> 23 & 3], load, (rt, word >> 10 & 31))
    elif word & 0xFF80_0000 == 0xF900_0000:  # str, ldr Xt, [Xn, #imm]
        _access(state, rn, (word >> 10 & 0xFFF) * 8, "off", load, (rt,))
    elif word & 0xFFA0_0000 == 0xF800_0000 and word >> 10 & 3 != 2:  # stur, ldur, pre- and post-indexed
        _access(state, rn, signed(word >> 12, 9), ("off", "post", "", "pre")[word >> 10 & 3], load, (rt,))
    elif word >> 24 & 0b111011 == 0b011000:  # ldr literal
        state.set(rt, UNKNOWN)
    elif rn == SP or state.base(rn)[0] == "sp":
        raise NotShown(f"it uses the stack by {word:#010x} at {state.va:#x}, which is not followed")
    else:
        for n in (rt, word >> 10 & 31, word >> 16 & 31, rn):  # whatever it writes is among these
            state.set(n, UNKNOWN)


def _access(state: State, rn: int, step: int, mode: str, load: bool, registers: tuple[int, ...]) -> None:
    kind, at = state.base(rn)
    where = at + (step if mode != "post" else 0)
    for i, n in enumerate(registers):
        off = where + 8 * i
        if load:
            kept = kind == "sp" and off >= (where if mode == "pre" and rn == SP else state.sp)
            state.set(n, state.stack.get(off, UNKNOWN) if kept else UNKNOWN)
        elif kind == "sp":
            if off > -8:
                raise NotShown(f"it writes its caller's stack frame at {state.va:#x}")
            state.stack = {o: v for o, v in state.stack.items() if abs(o - off) >= 8}
            state.stack[off] = state.get(n)
    if mode != "off":
        _write_back(state, rn, kind, at + step)


def _write_back(state: State, rn: int, kind: str, at: int) -> None:
    """The base register of an access gets its new address. kind: of the value that it had before the access."""
    if rn == SP:
        state.move_sp(at)
    else:
        state.set(rn, ("sp", at) if kind == "sp" else UNKNOWN)


# -- vector registers --------------------------------------------------------------------------------------------------


def vector(state: State, word: int) -> bool:
    """Follow what an instruction does to v0–v15; whether that is all that it does."""
    rt, rn, load = word & 31, word >> 5 & 31, bool(word >> 22 & 1)
    if word >> 25 & 0b1111 == 0b0010:
        raise NotShown(f"it executes {word:#010x} at {state.va:#x}, which is not followed")  # SVE
    if word & 0xFE00_0000 == 0xAC00_0000 and word >> 23 & 3:  # stp, ldp Qt1, Qt2
        step = signed(word >> 15, 7) * 16
        _vector_access(state, rn, step, ("", "post", "off", "pre")[word >> 23 & 3], load, (rt, word >> 10 & 31))
    elif word & 0xFF80_0000 == 0x3D80_0000:  # str, ldr Qt, [Xn, #imm]
        _vector_access(state, rn, (word >> 10 & 0xFFF) * 16, "off", load, (rt,))
    elif word & 0xFFA0_0000 == 0x3C80_0000 and word >> 10 & 3 != 2:  # stur, ldur, pre- and post-indexed
        _vector_access(state, rn, signed(word >> 12, 9), ("off", "post", "", "pre")[word >> 10 & 3], load, (rt,))
    else:
        if word >> 25 & 0b111 == 0b111:  # arithmetic
            forget(state, (rt,))
        elif word >> 25 & 0b101 == 0b100 and word >> 26 & 1:  # other loads, of up to four registers in a row
            forget(state, (*(rt + n & 31 for n in range(4)), word >> 10 & 31))
        return False
    return True


def forget(state: State, registers: tuple[int, ...]) -> None:
    for n in registers:
        if n < len(state.vectors):
            state.vectors[n] = False


def _vector_access(state: State, rn: int, step: int, mode: str, load: bool, registers: tuple[int, ...]) -> None:
    """Loads and stores of whole vector registers."""
    kind, at = state.base(rn)
    where = at + (step if mode != "post" else 0)
    for i, n in enumerate(registers):
        off = where + 16 * i
        if load:
            kept = kind == "sp" and off >= (where if mode == "pre" and rn == SP else state.sp)
            same = kept and (state.stack.get(off), state.stack.get(off + 8)) == (("low", n), ("high", n))
            if n < len(state.vectors):
                state.vectors[n] = same
        elif kind == "sp":
            if off > -16:
                raise NotShown(f"it writes its caller's stack frame at {state.va:#x}")
            state.stack = {o: v for o, v in state.stack.items() if not -8 < o - off < 16}
            if n >= len(state.vectors) or state.vectors[n]:
                state.stack |= {off: ("low", n), off + 8: ("high", n)}
    if mode != "off":
        _write_back(state, rn, kind, at + step)
