"""ppc64le programs as the proof reads them.

A stub is entered with the return address of the function's caller in r0 and its own in LR. When it returns, LR must
hold the former, execution must go on at the latter, and r1–r31, f1–f31, v2–v13, v20–v31 and CR must be as they
were: arguments, the TOC, the static chain of a nested function in r11, what a function keeps for its caller. The C
function in between is entered at its global entry, with that address in r12. It may change r0, r2–r12, CTR, LR, XER,
cr0, cr1, cr5–cr7, f0–f13, v0–v19, what lies below r1, and three words of the frame above that are for those who are
called. Of its caller's frame the stub may write 16(r1), where the patched function keeps the same.

The call of _mcount behind a prologue is an ordinary one from a frame of the function's own. A stub for it finds where
the function returns to in the frame above, by the back chain, returns as functions of C do, and keeps what these keep,
r2 among it. It may write 24(r1), too: what is behind such a call expects no less of the stub of a .plt.
Source: OpenPOWER ELFv2 ABI 1.5, 2.2 and 2.3; Power ISA 3.1, book I.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ftpatch.arch.program_proof import MOST, UNKNOWN, NoStub, ProgramProof, StubCall, StubRead, Value

LR_SAVE = 16  # of a frame: what its own function returns to
FOR_CALLEES = (8, 16, 24)  # words of a frame that those who are called may write
LOST = (0, *range(2, 13))
KEPT = range(2, 32)
FLOATS, VECTORS = range(1, 14), range(2, 14)
R_GLOB_DAT, R_JUMP_SLOT = 20, 21
BCL_NEXT, BCTR, BCTRL, BLR, NOP = 0x429F_0005, 0x4E80_0420, 0x4E80_0421, 0x4E80_0020, 0x6000_0000
TOC_SAVE = 24  # of the frame of whoever calls by the stub of a .plt
DEEP_CALLER: Value = ("caller", 0)  # where the function of a call behind a prologue returns to


@dataclass
class _State:
    va: int
    r: list[Value] = field(default_factory=lambda: [("sp", 0) if n == 1 else ("r", n) for n in range(32)])
    f: list[Value] = field(default_factory=lambda: [("f", n) for n in range(32)])
    v: list[Value] = field(default_factory=lambda: [("v", n) for n in range(32)])
    cr: Value = ("cr", 0)
    lr: Value = ("lr", 0)
    ctr: Value = UNKNOWN
    stack: dict[int, tuple[int, Value]] = field(default_factory=dict)  # bytes from r1 at entry → (bytes, what is there)
    call: StubCall | None = None
    deep: bool = False  # whether the C function is told of a call behind a prologue
    writes_toc: bool = False  # whether 24(r1) of the caller's frame was written
    writes_cr: bool = False

    @property
    def sp(self) -> int:
        kind, at = self.r[1]
        if kind != "sp":
            raise NoStub(f"it loads r1 with something else than its stack at {self.va:#x}")
        return at

    def place(self, base: int, more: int) -> int:
        kind, at = self.r[base] if base else UNKNOWN
        if kind != "sp":
            raise NoStub(f"it uses memory other than its stack at {self.va:#x}")
        return at + more

    def store(self, at: int, size: int, value: Value) -> None:
        self.writes_toc |= at == TOC_SAVE
        if (at < self.sp or at + size > 0) and at not in (LR_SAVE, TOC_SAVE):
            raise NoStub(f"it writes beside its own stack frame at {self.va:#x}")
        self.stack = {off: held for off, held in self.stack.items() if off + held[0] <= at or at + size <= off}
        self.stack[at] = size, value

    def load(self, at: int, size: int) -> Value:
        kept, value = self.stack.get(at, (0, UNKNOWN))
        return value if kept == size else UNKNOWN


def read(code: bytes, va: int) -> StubRead:
    """What the code at `va` is."""
    state = _State(va)
    try:
        for number in range(min(len(code) // 4, MOST)):
            state.va = va + 4 * number
            word = int.from_bytes(code[4 * number : 4 * number + 4], "little")
            if word in (BCTR, BLR):
                (_require_kept if word == BCTR else _require_kept_by_c)(state)
                why = "" if state.call else "it calls nothing"
                return StubRead(4 * number + 4, state.call, why, 16, deep=word == BLR)
            _step(state, word)
        raise NoStub("it does not return")
    except NoStub as reason:
        return StubRead(0, state.call, str(reason))


def _step(state: _State, word: int) -> None:
    for mask, bits, effect in FORMS:
        if word & mask == bits:
            effect(state, word)
            return
    raise NoStub(f"it executes {word:#010x} at {state.va:#x}, which no stub does")


def _fields(word: int) -> tuple[int, int, int]:
    """(first register, second register, the lower half with its sign)"""
    return word >> 21 & 31, word >> 16 & 31, (word & 0xFFFF ^ 0x8000) - 0x8000


def _store(state: _State, word: int) -> None:
    rs, ra, more = _fields(word)
    state.store(state.place(ra, more), 8, state.r[rs])


def _store_update(state: _State, word: int) -> None:
    """stdu r1,-X(r1): a frame, with the back chain at its start"""
    rs, ra, more = _fields(word)
    more &= ~3
    if (rs, ra) != (1, 1) or more >= 0 or more % 16:
        raise NoStub(f"it makes no frame of a multiple of 16 bytes at {state.va:#x}")
    was = state.sp
    state.r[1] = ("sp", was + more)
    state.store(was + more, 8, ("sp", was))


def _load(state: _State, word: int) -> None:
    rt, ra, more = _fields(word)
    kind, at = state.r[ra] if ra else UNKNOWN
    if kind == "address":
        value = ("loaded", at + more)
    elif kind == "chain":
        value = DEEP_CALLER if more == LR_SAVE else UNKNOWN
    elif state.place(ra, more) == 0 and 0 not in state.stack:  # the back chain of the frame at entry
        value = ("chain", 0)
    else:
        value = state.load(state.place(ra, more), 8)
    _set(state, rt, value)


def _store_float(state: _State, word: int) -> None:
    rs, ra, more = _fields(word)
    state.store(state.place(ra, more), 8, state.f[rs])


def _load_float(state: _State, word: int) -> None:
    rt, ra, more = _fields(word)
    state.f[rt] = state.load(state.place(ra, more), 8)


def _vector(state: _State, word: int) -> None:
    """stvx, lvx v,rA,rB: the address loses its lowest four bits"""
    register, ra, rb = word >> 21 & 31, word >> 16 & 31, word >> 11 & 31
    kind, more = state.r[rb]
    if kind != "const":
        raise NoStub(f"it moves a vector register at {state.va:#x} to or from a place that is not known")
    place = state.place(ra, more)
    if place % 16:
        raise NoStub(f"it moves 16 bytes at {state.va:#x} that are not aligned")
    if word >> 8 & 1:
        state.store(place, 16, state.v[register])
    else:
        state.v[register] = state.load(place, 16)


def _addi(state: _State, word: int) -> None:
    """addi, li; addis, lis"""
    rt, ra, more = _fields(word)
    kind, at = state.r[ra] if ra else ("const", 0)
    more <<= 16 * (word >> 26 & 1)
    known = kind in ("const", "sp", "lr", "address")
    if kind == "sp" and rt == 1 and at + more > 0:
        raise NoStub(f"it gives its caller's stack back at {state.va:#x}")
    _set(state, rt, (kind, at + more) if known else UNKNOWN)
    if rt == 1:
        state.stack = {off: held for off, held in state.stack.items() if off >= state.sp}


def _set(state: _State, n: int, value: Value) -> None:
    if n == 1 and value[0] != "sp":
        raise NoStub(f"it loads r1 with something else than its stack at {state.va:#x}")
    state.r[n] = value


def _mfcr(state: _State, word: int) -> None:
    _set(state, word >> 21 & 31, state.cr)


def _mr(state: _State, word: int) -> None:
    """mr rA,rS: or of a register with itself"""
    rs, ra, rb = word >> 21 & 31, word >> 16 & 31, word >> 11 & 31
    _set(state, ra, state.r[rs] if rs == rb else UNKNOWN)


def _mtcrf(state: _State, word: int) -> None:
    """All eight fields."""
    state.writes_cr = True
    state.cr = state.r[word >> 21 & 31]


def _mflr(state: _State, word: int) -> None:
    _set(state, word >> 21 & 31, state.lr)


def _mtlr(state: _State, word: int) -> None:
    state.lr = state.r[word >> 21 & 31]


def _mtctr(state: _State, word: int) -> None:
    state.ctr = state.r[word >> 21 & 31]


def _here(state: _State, word: int) -> None:
    state.lr = ("address", state.va + 4)


def _nothing(state: _State, word: int) -> None:
    """nop"""


def _call(state: _State, word: int) -> None:
    kind, at = state.ctr
    if state.call is not None:
        raise NoStub("it calls more than one function")
    if kind not in ("address", "loaded"):
        raise NoStub(f"it calls what is in CTR at {state.va:#x}, which is no address that is known")
    if state.r[12] != state.ctr:
        raise NoStub("it calls a function without its address in r12, from which that computes its TOC")
    if state.load(state.sp, 8)[0] != "sp" or state.sp > -32:
        raise NoStub("it calls without a frame of its own")
    if state.r[3] != ("lr", -4):
        raise NoStub("the first argument of its call is not the address of the site's call")
    state.deep = state.r[4] == DEEP_CALLER
    if state.r[4] not in (("r", 0), DEEP_CALLER):
        raise NoStub("the second argument of its call is not where the function returns to")
    state.call = StubCall(at & (1 << 64) - 1, kind == "loaded")
    for n in LOST:
        state.r[n] = UNKNOWN
    state.f = [value if n > 13 else UNKNOWN for n, value in enumerate(state.f)]
    state.v = [value if n > 19 else UNKNOWN for n, value in enumerate(state.v)]
    state.cr = state.lr = state.ctr = UNKNOWN
    for at in FOR_CALLEES:
        state.stack.pop(state.sp + at, None)


def _require_kept_by_c(state: _State) -> None:
    """Raise NoStub where an ordinary call may not come back so, or the C function was told of another kind of site."""
    if not state.deep:
        raise NoStub("it returns as a function of C does, and was called by a site at the entry")
    if state.lr != ("lr", 0):
        raise NoStub("it does not return to where LR pointed")
    if state.sp:
        raise NoStub(f"it returns with r1 {-state.sp} bytes below where it was")
    lost = [f"r{n}" for n in (2, *range(13, 32)) if state.r[n] != ("r", n)]
    lost += [f"f{n}" for n in range(14, 32) if state.f[n] != ("f", n)]
    lost += [f"v{n}" for n in range(20, 32) if state.v[n] != ("v", n)]
    lost += ["cr"] * state.writes_cr
    if lost:
        raise NoStub(f"it does not keep {', '.join(lost)}")


def _require_kept(state: _State) -> None:
    """Raise NoStub where the function must not go on so."""
    if state.deep or state.writes_toc:
        raise NoStub("it uses its caller's frame, and goes on into a function behind a site at the entry")
    if state.ctr != ("lr", 0):
        raise NoStub("it does not return to where LR pointed")
    if state.lr != ("r", 0):
        raise NoStub("it does not return with the old r0 in LR")
    if state.sp:
        raise NoStub(f"it returns with r1 {-state.sp} bytes below where it was")
    lost = [f"r{n}" for n in KEPT if state.r[n] != ("r", n)]
    lost += [f"f{n}" for n in (*FLOATS, *range(14, 32)) if state.f[n] != ("f", n)]
    lost += [f"v{n}" for n in (*VECTORS, *range(20, 32)) if state.v[n] != ("v", n)]
    lost += ["cr"] * (state.cr != ("cr", 0))
    if lost:
        raise NoStub(f"it does not keep {', '.join(lost)}")


FORMS: tuple[tuple[int, int, Callable[[_State, int], None]], ...] = (
    (0xFC00_0003, 0xF800_0000, _store),  # std   rS,D(rA)
    (0xFC00_0003, 0xF800_0001, _store_update),  # stdu  rS,D(rA)
    (0xFC00_0003, 0xE800_0000, _load),  # ld    rT,D(rA)
    (0xFC00_0000, 0xD800_0000, _store_float),  # stfd  fS,D(rA)
    (0xFC00_0000, 0xC800_0000, _load_float),  # lfd   fT,D(rA)
    (0xFC00_07FF, 0x7C00_01CE, _vector),  # stvx  vS,rA,rB
    (0xFC00_07FF, 0x7C00_00CE, _vector),  # lvx   vT,rA,rB
    (0xFC00_0000, 0x3800_0000, _addi),  # addi  rT,rA,D
    (0xFC00_0000, 0x3C00_0000, _addi),  # addis rT,rA,D
    (0xFC00_07FF, 0x7C00_0378, _mr),  # or rA,rS,rB
    (0xFC1F_FFFF, 0x7C00_0026, _mfcr),
    (0xFC1F_FFFF, 0x7C0F_F120, _mtcrf),  # mtcrf 255,rS
    (0xFC1F_FFFF, 0x7C08_02A6, _mflr),
    (0xFC1F_FFFF, 0x7C08_03A6, _mtlr),
    (0xFC1F_FFFF, 0x7C09_03A6, _mtctr),
    (0xFFFF_FFFF, BCL_NEXT, _here),
    (0xFFFF_FFFF, BCTRL, _call),
    (0xFFFF_FFFF, NOP, _nothing),
)


def other_calls(st_other: int) -> str:
    """Nothing: no function says in its symbol that it is called by rules of its own."""
    return ""


PROGRAMS = ProgramProof(read=read, slots=(R_GLOB_DAT, R_JUMP_SLOT), other_calls=other_calls)
