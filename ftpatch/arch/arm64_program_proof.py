"""arm64 programs as the proof reads them.

A stub is entered with the return address of the function's caller in x9 and its own in x30. When it returns, x30 must
hold the former, execution must go on at the latter, and x0–x8, x18–x29, sp and q0–q7 must be as they were: arguments,
the place of a result, the static chain of a nested function, what a function keeps for its caller. q8–q15, of which a
callee keeps the lower halves, no stub may touch. The C function in between may change x0–x18 and what lies below sp.

The call of _mcount behind a prologue is an ordinary one, with where the function returns to in x0. A stub for it passes
the two arguments on, and ends in a jump to the C function, which returns behind the call.
Source: AAPCS64, 6.1; Arm ARM (DDI 0487) C6.2, C7.2; ELF for the Arm 64-bit Architecture, 5.5.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ftpatch.arch.program_proof import MOST, UNKNOWN, NoStub, ProgramProof, StubCall, StubRead, Value

SP, LR = 31, 30
KEPT = (*range(9), *range(18, 30))
LOST = (*range(19), LR)  # x18 belongs to the platform elsewhere; on Linux a callee may change it
ARGUMENTS = range(8)  # of q0–q7
STO_VARIANT_PCS = 0x80
R_GLOB_DAT, R_JUMP_SLOT = 1025, 1026
CALL = -4  # from where a call returns to, to the call
BIT64 = (1 << 64) - 1
BTI_C, NOP, BR_X17 = 0xD503_245F, 0xD503_201F, 0xD61F_0220


@dataclass
class _State:
    va: int  # of the instruction
    x: list[Value] = field(default_factory=lambda: [("x", n) for n in range(31)])
    q: list[Value] = field(default_factory=lambda: [("q", n) for n in range(32)])
    sp: int = 0  # bytes from where it was at entry
    stack: dict[int, tuple[int, Value]] = field(default_factory=dict)  # offset → (bytes, what is there)
    call: StubCall | None = None
    first: int | None = None

    def base(self, n: int) -> int:
        """The stack offset that a base register holds, which must be sp itself."""
        if n != SP:
            raise NoStub(f"it uses memory at {self.va:#x} by another register than sp")
        return self.sp

    def move_sp(self, to: int) -> None:
        if to > 0:
            raise NoStub(f"it gives its caller's stack back at {self.va:#x}")
        self.sp = to
        self.stack = {at: held for at, held in self.stack.items() if at >= to}

    def store(self, at: int, size: int, value: Value) -> None:
        if at < self.sp or at + size > 0:
            raise NoStub(f"it writes beside its own stack frame at {self.va:#x}")
        self.stack = {off: held for off, held in self.stack.items() if off + held[0] <= at or at + size <= off}
        self.stack[at] = size, value

    def load(self, at: int, size: int) -> Value:
        kept, value = self.stack.get(at, (0, UNKNOWN))
        return value if kept == size else UNKNOWN


def read(code: bytes, va: int) -> StubRead:
    """What the code at `va` is."""
    state, call = _State(va), None
    try:
        for number in range(min(len(code) // 4, MOST)):
            state.va = va + 4 * number
            word = int.from_bytes(code[4 * number : 4 * number + 4], "little")
            if word >> 26 == 0b000101 or word == BR_X17:
                return StubRead(4 * number + 4, _jump(state, word), deep=True, wide=16)
            if word & 0xFFFF_FC1F == 0xD65F_0000:  # ret; a br would need a landing pad where indirect jumps are guarded
                _require_kept(state, word >> 5 & 31)
                return StubRead(
                    4 * number + 4, state.call, "" if state.call else "it calls nothing", 16, first=state.first
                )
            _step(state, word)
        raise NoStub("it does not return")
    except NoStub as reason:
        call = state.call
        return StubRead(0, call, str(reason))


def _step(state: _State, word: int) -> None:
    for mask, bits, effect in FORMS:
        if word & mask == bits:
            effect(state, word)
            return
    raise NoStub(f"it executes {word:#010x} at {state.va:#x}, which no stub does")


def _pair(size: int) -> Callable[[_State, int], None]:
    """stp, ldp: two registers of `size` bytes, behind, before or at the base register's address."""

    def effect(state: _State, word: int) -> None:
        registers, load, mode = state.x if size == 8 else state.q, word >> 22 & 1, word >> 23 & 3
        step = ((word >> 15 & 0x7F ^ 0x40) - 0x40) * size
        _access(state, word >> 5 & 31, step, mode, bool(load), [(word & 31, size), (word >> 10 & 31, size)], registers)

    return effect


def _single(size: int) -> Callable[[_State, int], None]:
    """str, ldr with an offset that is no less than zero."""

    def effect(state: _State, word: int) -> None:
        step, rn, rt = (word >> 10 & 0xFFF) * size, word >> 5 & 31, word & 31
        if size == 8 and word >> 22 & 1 and rn != SP and state.x[rn][0] == "address":
            _set(state, rt, ("loaded", state.x[rn][1] + step & BIT64))
            return
        registers = state.x if size == 8 else state.q
        _access(state, rn, step, 2, bool(word >> 22 & 1), [(rt, size)], registers)

    return effect


def _access(state: _State, rn: int, step: int, mode: int, load: bool, of: list[tuple[int, int]],
            registers: list[Value]) -> None:  # fmt: skip
    """mode: 1 the base register moves afterwards, 2 it stays, 3 it moves before."""
    base = state.base(rn)
    if mode != 2 and rn != SP:
        raise NoStub(f"it moves another register than sp at {state.va:#x}")
    at = base + (step if mode != 1 else 0)
    if mode == 3:
        state.move_sp(at)
    for number, (rt, size) in enumerate(of):
        place = at + number * size
        if load:
            _load(state, registers, rt, state.load(place, size))
        else:
            state.store(place, size, registers[rt] if rt < len(registers) else UNKNOWN)
    if mode == 1:
        state.move_sp(base + step)


def _load(state: _State, registers: list[Value], rt: int, value: Value) -> None:
    """A register gets back what it held; x29 leads to the next frame, and the way back comes into any that is free."""
    own = value == ("x" if registers is state.x else "q", rt)
    frames = registers is state.x and (value in (("x", LR), ("x", 9)) or (rt == 29 and value[0] == "sp"))
    if rt >= len(registers) or not (own or frames):
        raise NoStub(f"it loads another register at {state.va:#x} than the one that was saved there")
    registers[rt] = value


def _move(state: _State, word: int) -> None:
    """mov Xd, Xm"""
    source = word >> 16 & 31
    _set(state, word & 31, state.x[source] if source < 31 else UNKNOWN)


def _add(state: _State, word: int) -> None:
    """add, sub Xd|sp, Xn|sp, #imm"""
    amount = (word >> 10 & 0xFFF) * (-1 if word >> 30 & 1 else 1)
    if word >> 30 & 1 and not amount:
        raise NoStub(f"it subtracts nothing at {state.va:#x}")
    rn, rd = word >> 5 & 31, word & 31
    kind, at = ("sp", state.sp) if rn == SP else state.x[rn]
    if rd == SP:
        if kind != "sp":
            raise NoStub(f"it loads sp from a register at {state.va:#x}")
        state.move_sp(at + amount)
    elif kind in ("sp", "address"):
        state.x[rd] = (kind, at + amount)
    else:
        state.x[rd] = ("behind x30", amount) if (kind, at) == ("x", LR) else UNKNOWN


def _adrp(state: _State, word: int) -> None:
    pages = (word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2
    pages = (pages ^ 1 << 20) - (1 << 20)
    _set(state, word & 31, ("address", (state.va & ~0xFFF) + (pages << 12)))


def _set(state: _State, n: int, value: Value) -> None:
    if n < 31:
        state.x[n] = value


def _nothing(state: _State, word: int) -> None:
    """nop, bti c"""


def _bl(state: _State, word: int) -> None:
    distance = ((word & 0x03FF_FFFF ^ 0x0200_0000) - 0x0200_0000) * 4
    _call(state, StubCall(state.va + distance & BIT64, False))


def _blr(state: _State, word: int) -> None:
    _call(state, StubCall(_slot(state, word >> 5 & 31), True))


def _slot(state: _State, n: int) -> int:
    """The slot from which the address in a register comes."""
    kind, slot = state.x[n]
    if kind != "loaded":
        raise NoStub(f"it calls what is in x{n} at {state.va:#x}, which comes from no slot")
    if state.x[16] != ("address", slot):
        raise NoStub("it calls through a slot without its address in x16, where the loader looks for it")
    return slot


def _jump(state: _State, word: int) -> StubCall:
    """What a stub for calls of _mcount ends in."""
    distance = ((word & 0x03FF_FFFF ^ 0x0200_0000) - 0x0200_0000) * 4
    call = StubCall(_slot(state, 17), True) if word == BR_X17 else StubCall(state.va + distance & BIT64, False)
    _require_arguments(state, 0)
    lost = [f"x{n}" for n in (*range(18, 30), LR) if state.x[n] != ("x", n)]
    lost += [f"q{n}" for n in range(8, 16) if state.q[n] != ("q", n)]
    if state.call is not None or state.sp or lost:
        raise NoStub(f"it jumps on without {', '.join(lost) or 'sp'} as it was")
    return call


def _require_arguments(state: _State, caller: int) -> None:
    """caller: register in which it was found where the function returns to."""
    if state.x[0][0] != "behind x30":
        raise NoStub("the first argument of its call is not the address of the site's call")
    state.first = None if state.x[0][1] == CALL else state.x[0][1]
    if state.x[1] != ("x", caller):
        raise NoStub("the second argument of its call is not where the function returns to")


def _call(state: _State, call: StubCall) -> None:
    if state.call is not None:
        raise NoStub("it calls more than one function")
    if state.sp % 16:
        raise NoStub(f"it calls with sp {-state.sp} bytes below where it was, which is no multiple of 16")
    _require_arguments(state, 9)
    _require_frames(state)
    state.call = call
    for n in LOST:
        state.x[n] = UNKNOWN
    state.q = [value if n in range(8, 16) else UNKNOWN for n, value in enumerate(state.q)]


def _require_frames(state: _State) -> None:
    """Raise NoStub where x29 does not lead to a frame record of the function, and from there to one of its caller."""
    kind, inner = state.x[29]
    outer, back = state.load(inner, 8), state.load(inner + 8, 8)
    whole = kind == outer[0] == "sp" and inner == state.sp and back == ("x", LR)
    if not whole or (state.load(outer[1], 8), state.load(outer[1] + 8, 8)) != (("x", 29), ("x", 9)):
        raise NoStub("x29 does not lead to frame records of the function and its caller")


def _require_kept(state: _State, to: int) -> None:
    """Raise NoStub where the function must not go on so."""
    if state.x[to] != ("x", LR):
        raise NoStub("it does not return to where x30 pointed")
    if state.x[LR] != ("x", 9):
        raise NoStub("it does not return with the old x9 in x30")
    if state.sp:
        raise NoStub(f"it returns with sp {-state.sp} bytes below where it was")
    lost = [f"x{n}" for n in KEPT if state.x[n] != ("x", n)]
    lost += [f"q{n}" for n in (*ARGUMENTS, *range(8, 16)) if state.q[n] != ("q", n)]
    if lost:
        raise NoStub(f"it does not keep {', '.join(lost)}")


FORMS: tuple[tuple[int, int, Callable[[_State, int], None]], ...] = (
    *((0xFFC0_0000, bits, _pair(8)) for bits in (0xA880_0000, 0xA8C0_0000, 0xA900_0000, 0xA940_0000, 0xA980_0000,
                                                0xA9C0_0000)),
    *((0xFFC0_0000, bits, _pair(16)) for bits in (0xAC80_0000, 0xACC0_0000, 0xAD00_0000, 0xAD40_0000, 0xAD80_0000,
                                                 0xADC0_0000)),
    (0xFFC0_0000, 0xF900_0000, _single(8)),  # str  Xt, [Xn, #imm]
    (0xFFC0_0000, 0xF940_0000, _single(8)),  # ldr  Xt, [Xn, #imm]
    (0xFFC0_0000, 0x3D80_0000, _single(16)),  # str  Qt, [Xn, #imm]
    (0xFFC0_0000, 0x3DC0_0000, _single(16)),  # ldr  Qt, [Xn, #imm]
    (0xFFE0_FFE0, 0xAA00_03E0, _move),  # mov  Xd, Xm
    (0xFFC0_0000, 0x9100_0000, _add),  # add  Xd, Xn, #imm
    (0xFFC0_0000, 0xD100_0000, _add),  # sub  Xd, Xn, #imm
    (0x9F00_0000, 0x9000_0000, _adrp),
    (0xFC00_0000, 0x9400_0000, _bl),
    (0xFFFF_FC1F, 0xD63F_0000, _blr),
    (0xFFFF_FFFF, BTI_C, _nothing),
    (0xFFFF_FFFF, NOP, _nothing),
)  # fmt: skip


def other_calls(st_other: int) -> str:
    """Of functions that are called by rules of their own."""
    return "has arguments in other registers (STO_AARCH64_VARIANT_PCS)" if st_other & STO_VARIANT_PCS else ""


PROGRAMS = ProgramProof(read=read, slots=(R_GLOB_DAT, R_JUMP_SLOT), other_calls=other_calls)
