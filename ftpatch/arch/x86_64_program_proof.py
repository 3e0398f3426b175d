"""x86_64 programs as the proof reads them.

A stub is entered by a call in front of everything that its function does: on top of the stack is the way back into the
function, and above it where that returns to. Behind the stub all registers but the flags must be as they were:
arguments in rdi, rsi, rdx, rcx, r8, r9 and xmm0–xmm7, the number of the latter in al, the static chain of a nested
function in r10, and what a function keeps for its caller. The C function in between changes rax, rcx, rdx, rsi, rdi,
r8–r11, all vector registers, and what lies below rsp, which is a multiple of 16 where it is called.

Arguments in ymm0–ymm7 and zmm0–zmm7 are kept by XSAVE, where CPUID says that the system lets programs use it. So a stub
may ask once, and go one way or the other each time: both are followed.
Source: System V ABI, AMD64 supplement, 3.2; Intel SDM, volume 1, 13.4 and 13.7 (XSAVE); volume 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from re import Match

from ftpatch.arch.program_proof import MOST, UNKNOWN, NoStub, ProgramProof, StubCall, StubRead, Value

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R10, R11 = 0, 1, 2, 3, 4, 5, 6, 7, 10, 11
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
LOST = (RAX, RCX, RDX, RSI, RDI, 8, 9, R10, R11)
KEPT = tuple(n for n in range(16) if n != RSP)
R_GLOB_DAT, R_JUMP_SLOT = 6, 7
RETURN: Value = ("return", 0)  # into the function, behind its site
CALLER: Value = ("caller", 0)  # where the function returns to
DEEP_CALLER: Value = ("caller", 1)  # the same, behind `push %rbp; mov %rsp,%rbp`
COMPONENTS = 0xE6  # of XSAVE: SSE, AVX, opmask, both of AVX-512's
XSAVE_SIZE, XSAVE_ALIGN, HEADER = 2688, 64, range(512, 576, 8)  # in the standard form, and bytes that must be zero
OSXSAVE = 1 << 27
NARROW, WIDE = 16, 64


@dataclass
class _State:
    """What is known in front of an instruction. The stack below `bottom`, where rsp was aligned, is counted from there:
    ("low", n) are n bytes from the aligned rsp; ("sp", n) n bytes from where it was at the entry."""

    va: int
    has_xsave: bool  # what CPUID is taken to say
    regs: list[Value] = field(default_factory=lambda: [("reg", n) for n in range(16)])
    xmm: list[Value] = field(default_factory=lambda: [("xmm", n) for n in range(16)])
    upper: Value = ("upper", 0)  # what the upper parts of the vector registers hold
    stack: dict[Value, tuple[int, Value]] = field(default_factory=dict)  # place → (bytes, what is there)
    room: int = 0  # bytes from the aligned rsp up that the stub has for itself
    used: int = 0  # of them, up to the last that it uses
    align: int = 0  # what the aligned rsp is a multiple of; 0 where it has not been aligned
    nothing: bool | None = None  # the zero flag
    call: StubCall | None = None
    asked: bool = False  # whether a way was chosen by what CPUID says
    deep: bool = False  # whether the C function is told of a call behind a prologue

    def __post_init__(self) -> None:
        self.regs[RSP] = ("sp", 0)

    def at(self, base: int, more: int) -> Value:
        kind, place = self.regs[base]
        if kind not in ("sp", "low"):
            raise NoStub(f"it uses memory other than its stack at {self.va:#x}")
        return kind, place + more

    def store(self, place: Value, size: int, value: Value) -> None:
        kind, off = place
        top = self.regs[RSP]
        inside = off + size <= (0 if kind == "sp" else self.room)
        if not inside or (off < 0 and kind == "low") or (kind == top[0] and off < top[1]):
            raise NoStub(f"it writes beside its own stack frame at {self.va:#x}")
        self.stack = {(zone, at): held for (zone, at), held in self.stack.items()
                      if zone != kind or at + held[0] <= off or off + size <= at}  # fmt: skip
        self.stack[place] = size, value
        self.used = max(self.used, off + size) if kind == "low" else self.used

    def load(self, place: Value, size: int) -> Value:
        if size == 8 and place in (("sp", 0), ("sp", 8)) and place not in self.stack:
            return RETURN if place[1] == 0 else CALLER
        kept, value = self.stack.get(place, (0, UNKNOWN))
        return value if kept == size else UNKNOWN

    def move(self, to: Value) -> None:
        """A new rsp: what lies below it is lost."""
        kind, off = to
        if kind == "sp" and self.regs[RSP][0] == "low":
            self.stack = {place: held for place, held in self.stack.items() if place[0] == "sp"}
        if kind not in ("sp", "low") or (kind == "sp" and off > 8):
            raise NoStub(f"it loads rsp with something else than its stack at {self.va:#x}")
        self.regs[RSP] = to
        self.stack = {place: held for place, held in self.stack.items() if place[0] != kind or place[1] >= off}


def read(code: bytes, va: int) -> StubRead:
    """What the code at `va` is: it is followed as a processor with XSAVE goes, and as one without."""
    states = [_State(va, has_xsave) for has_xsave in (True, False)]
    (first, asked), (second, _) = [_follow(state, code, va) for state in states]
    used, room = max(state.used for state in states), states[0].room
    if not first.why and used != room:
        return StubRead(0, first.call, f"it makes room for {room} bytes and uses {used}")
    if first.why or not asked:
        return first
    if second.why or (second.size, second.call, second.deep) != (first.size, first.call, first.deep):
        return StubRead(0, first.call, second.why or "it does not end in one way where there is no XSAVE")
    return first


def _follow(state: _State, code: bytes, va: int) -> tuple[StubRead, bool]:
    """(what the code is on one way, whether it asked which)."""
    at = 0
    try:
        for _ in range(MOST):
            state.va = va + at
            match, effect = next(((match, effect) for pattern, effect in FORMS if (match := pattern.match(code, at))),
                                 (None, None))  # fmt: skip
            if match is None or effect is None:
                raise NoStub(f"it executes {code[at : at + 8].hex() or 'nothing'} at {state.va:#x}, which no stub does")
            if effect is _ret:
                _require_kept(state)
                size = match.end() + (code[match.end() : match.end() + 1] == b"\xcc")
                if state.call is None:
                    raise NoStub("it calls nothing")
                return StubRead(size, state.call, wide=WIDE if state.asked else NARROW, deep=state.deep), state.asked
            at = match.end() + (effect(state, match) or 0)
        raise NoStub("it does not return")
    except NoStub as reason:
        return StubRead(0, state.call, str(reason)), state.asked


def _signed(code: bytes) -> int:
    return int.from_bytes(code, "little", signed=True)


def _push(state: _State, match: Match[bytes]) -> None:
    _put(state, state.regs[_number(match)])


def _number(match: Match[bytes]) -> int:
    return (match[2][0] & 7) + 8 * bool(match[1])


def _put(state: _State, value: Value) -> None:
    top = state.at(RSP, -8)
    state.move(top)
    state.store(top, 8, value)


def _pop(state: _State, match: Match[bytes]) -> None:
    state.regs[_number(match)] = state.load(state.regs[RSP], 8)
    state.move(state.at(RSP, 8))


def _push_memory(state: _State, match: Match[bytes]) -> None:
    _put(state, state.load(state.at(RSP, _signed(match[1])), 8))


def _push_frame(state: _State, match: Match[bytes]) -> None:
    """push disp8(%rbp): behind a prologue the function's return address is the word above what rbp points to."""
    known = state.regs[RBP] == ("reg", RBP) and _signed(match[1]) == 8
    _put(state, DEEP_CALLER if known else state.load(state.at(RBP, _signed(match[1])), 8))


def _copy_rsp(state: _State, match: Match[bytes]) -> None:
    state.regs[RBP] = state.regs[RSP]


def _sub_rsp(state: _State, match: Match[bytes]) -> None:
    amount = _signed(match[1])
    state.move(state.at(RSP, -amount))
    state.room = amount


def _add_rsp(state: _State, match: Match[bytes]) -> None:
    state.move(state.at(RSP, _signed(match[1])))


def _align(state: _State, match: Match[bytes]) -> None:
    if state.align or state.room <= 0:
        raise NoStub(f"it aligns rsp at {state.va:#x} without room below it")
    state.align = -_signed(match[1])
    state.move(("low", 0))


def _vector(state: _State, match: Match[bytes]) -> None:
    """movaps, movups: %xmm to (%rsp) with a distance, and back."""
    opcode, modrm = match[2][0], match[3][0]
    number = (modrm >> 3 & 7) + 8 * bool(match[1])
    place = state.at(RSP, _signed(match[4]))
    if opcode in (0x28, 0x29) and (place[0] != "low" or place[1] % 16):
        raise NoStub(f"it moves 16 bytes at {state.va:#x} that are not aligned")
    if opcode & 1:
        state.store(place, 16, state.xmm[number])
    else:
        state.xmm[number] = state.load(place, 16)
        state.upper = state.upper if state.xmm[number] == ("xmm", number) else UNKNOWN


def _load_argument(state: _State, match: Match[bytes]) -> None:
    """mov disp8(%rbp), a register"""
    number = {0x7D: RDI, 0x75: RSI, 0x5D: RBX}[match[1][0]]
    state.regs[number] = state.load(state.at(RBP, _signed(match[2])), 8)


def _sub_rdi(state: _State, match: Match[bytes]) -> None:
    kind, at = state.regs[RDI]
    state.regs[RDI] = (kind, at - _signed(match[1])) if kind == "return" else UNKNOWN


def _lea_rsp(state: _State, match: Match[bytes]) -> None:
    state.move(state.at(RBP, _signed(match[1])))


def _call(state: _State, match: Match[bytes]) -> None:
    to = state.va + match.end() - match.start() + _signed(match[2]) & (1 << 64) - 1
    if state.call is not None:
        raise NoStub("it calls more than one function")
    if state.regs[RSP] != ("low", 0):
        raise NoStub("it calls with rsp at no known multiple of 16")
    if state.regs[RDI] != ("return", -5):
        raise NoStub("the first argument of its call is not the address of the site's call")
    _require_frames(state)
    state.deep = state.regs[RSI] == DEEP_CALLER
    if state.regs[RSI] not in (CALLER, DEEP_CALLER):
        raise NoStub("the second argument of its call is not where the function returns to")
    state.call = StubCall(to, match[1] == b"\xff\x15")
    for n in LOST:
        state.regs[n] = UNKNOWN
    state.xmm, state.upper, state.nothing = [UNKNOWN] * 16, UNKNOWN, None


def _require_frames(state: _State) -> None:
    """Raise NoStub where rbp does not lead to a frame of the function, and from there to one of its caller."""
    inner = state.regs[RBP]
    outer, back = state.load(inner, 8), state.load((inner[0], inner[1] + 8), 8)
    whole = inner[0] == outer[0] == "sp" and back == RETURN
    if not whole or state.load(outer, 8) != ("reg", RBP) or state.load((outer[0], outer[1] + 8), 8) not in (
        CALLER, DEEP_CALLER,
    ):  # fmt: skip
        raise NoStub("rbp does not lead to frames of the function and its caller")


def _mov_eax(state: _State, match: Match[bytes]) -> None:
    state.regs[RAX] = ("const", _signed(match[1]))


def _clear(state: _State, match: Match[bytes]) -> None:
    """xor of a register with itself"""
    state.regs[match[1][0] & 7] = ("const", 0)
    state.nothing = True


def _cpuid(state: _State, match: Match[bytes]) -> None:
    right = state.regs[RAX] == ("const", 1)
    for n in (RAX, RBX, RDX):
        state.regs[n] = UNKNOWN
    state.regs[RCX] = ("features", 0) if right else UNKNOWN


def _copy_ecx(state: _State, match: Match[bytes]) -> None:
    state.regs[RBX] = state.regs[RCX]


def _mask_ebx(state: _State, match: Match[bytes]) -> None:
    known = state.regs[RBX] == ("features", 0) and _signed(match[1]) == OSXSAVE
    state.regs[RBX] = ("osxsave", 0) if known else UNKNOWN
    state.nothing = not state.has_xsave if known else None


def _test_ebx(state: _State, match: Match[bytes]) -> None:
    state.nothing = not state.has_xsave if state.regs[RBX] == ("osxsave", 0) else None


def _je(state: _State, match: Match[bytes]) -> int:
    if state.nothing is None:
        raise NoStub(f"it goes one way or another at {state.va:#x} by something else than whether there is XSAVE")
    state.asked = True
    return _ahead(match) if state.nothing else 0


def _jmp(state: _State, match: Match[bytes]) -> int:
    return _ahead(match)


def _ahead(match: Match[bytes]) -> int:
    if (distance := _signed(match[1])) < 0:
        raise NoStub("it jumps backwards")
    return distance


def _store_rax(state: _State, match: Match[bytes]) -> None:
    state.store(state.at(RSP, _signed(match[1])), 8, state.regs[RAX])


def _require_components(state: _State) -> None:
    right = state.regs[RAX] == ("const", COMPONENTS) and state.regs[RDX] == ("const", 0)
    if not right or not state.has_xsave or state.regs[RSP] != ("low", 0):
        raise NoStub(f"it saves or restores other components than {COMPONENTS:#x} at {state.va:#x}")


def _xsave(state: _State, match: Match[bytes]) -> None:
    _require_components(state)
    zeros = all(state.load(("low", at), 8) == ("const", 0) for at in HEADER)
    if not zeros or state.align < XSAVE_ALIGN or state.room < XSAVE_SIZE:
        raise NoStub(f"what it has for XSAVE at {state.va:#x} is too small, not aligned, or has no empty header")
    if state.xmm != [("xmm", n) for n in range(16)] or state.upper != ("upper", 0):
        raise NoStub(f"it saves vector registers at {state.va:#x} that it has changed")
    state.store(("low", 0), XSAVE_SIZE, ("xsave", 0))


def _xrstor(state: _State, match: Match[bytes]) -> None:
    _require_components(state)
    if state.load(("low", 0), XSAVE_SIZE) != ("xsave", 0):
        raise NoStub(f"what it restores at {state.va:#x} is not what XSAVE left")
    state.xmm, state.upper = [("xmm", n) for n in range(16)], ("upper", 0)


def _ret(state: _State, match: Match[bytes]) -> None:
    """What must be true here is told apart from the other instructions."""


def _require_kept(state: _State) -> None:
    """Raise NoStub where the function must not go on so."""
    if state.regs[RSP] != ("sp", 0) or state.load(("sp", 0), 8) != RETURN:
        raise NoStub("it does not return behind the site")
    lost = [NAMES[n] for n in KEPT if state.regs[n] != ("reg", n)]
    lost += [f"xmm{n}" for n in range(8) if state.xmm[n] != ("xmm", n)]
    if state.asked and state.has_xsave and state.upper != ("upper", 0):
        lost.append("the upper parts of the vector registers")
    if lost:
        raise NoStub(f"it does not keep {', '.join(lost)}")


def _form(pattern: str) -> re.Pattern[bytes]:
    """Bytes in hex, with groups of regular expressions in between, as one pattern."""
    parts = [part if part[0] in "(?" else "".join(f"\\x{part[at : at + 2]}" for at in range(0, len(part), 2))
             for part in pattern.split()]  # fmt: skip
    return re.compile("".join(parts).encode(), re.DOTALL)


MODRM = r"([\x04\x0c\x14\x1c\x24\x2c\x34\x3c])"  # mod 0, behind which no distance stands
MODRM8, MODRM32 = r"([\x44\x4c\x54\x5c\x64\x6c\x74\x7c])", r"([\x84\x8c\x94\x9c\xa4\xac\xb4\xbc])"
MOVES = r"(\x44)? 0f ([\x10\x11\x28\x29])"
FORMS: tuple[tuple[re.Pattern[bytes], Callable[[_State, Match[bytes]], int | None]], ...] = tuple(
    (_form(pattern), effect) for pattern, effect in (
        (r"(\x41)? ([\x50-\x57])", _push),
        (r"(\x41)? ([\x58-\x5f])", _pop),
        (r"ff7424 (.)", _push_memory),
        (r"ff75 (.)", _push_frame),
        ("4889e5", _copy_rsp),
        (r"4881ec (....)", _sub_rsp),
        (r"4883ec (.)", _sub_rsp),
        (r"4883c4 (.)", _add_rsp),
        (r"4883e4 ([\xf0\xc0])", _align),
        (f"{MOVES} {MODRM} 24 ()", _vector),
        (f"{MOVES} {MODRM8} 24 (.)", _vector),
        (f"{MOVES} {MODRM32} 24 (....)", _vector),
        (r"488b ([\x7d\x75\x5d]) (.)", _load_argument),
        (r"4883ef (.)", _sub_rdi),
        (r"488d65 (.)", _lea_rsp),
        (r"(\xe8|\xff\x15) (....)", _call),
        (r"b8 (....)", _mov_eax),
        (r"31 ([\xc0\xc9\xd2])", _clear),
        ("0fa2", _cpuid),
        ("89cb", _copy_ecx),
        (r"81e3 (....)", _mask_ebx),
        ("85db", _test_ebx),
        (r"74 (.)", _je),
        (r"eb (.)", _jmp),
        (r"48898424 (....)", _store_rax),
        ("480fae2424", _xsave),
        ("480fae2c24", _xrstor),
        ("c3", _ret),
    )
)  # fmt: skip


def other_calls(st_other: int) -> str:
    """Nothing: no function says in its symbol that it is called by rules of its own."""
    return ""


PROGRAMS = ProgramProof(read=read, slots=(R_GLOB_DAT, R_JUMP_SLOT), other_calls=other_calls)
