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
from re import Match

from ftpatch.arch.program_proof import MOST, UNKNOWN, NoStub, ProgramProof, StubCall, StubRead, Value
from ftpatch.arch.x86_64_stub_state import CALLER, RETURN, RSP, State
from ftpatch.arch.x86_64_stub_xsave import (
    copy_ecx,
    cpuid,
    je,
    jmp,
    mask_ebx,
    signed,
    store_rax,
    test_ebx,
    xrstor,
    xsave,
)

RAX, RCX, RDX, RBX, RBP, RSI, RDI, R10, R11 = 0, 1, 2, 3, 5, 6, 7, 10, 11
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
LOST = (RAX, RCX, RDX, RSI, RDI, 8, 9, R10, R11)
KEPT = tuple(n for n in range(16) if n != RSP)
R_GLOB_DAT, R_JUMP_SLOT = 6, 7
DEEP_CALLER: Value = ("caller", 1)  # the same, behind `push %rbp; mov %rsp,%rbp`
NARROW, WIDE = 16, 64


def read(code: bytes, va: int) -> StubRead:
    """What the code at `va` is: it is followed as a processor with XSAVE goes, and as one without."""
    states = [State(va, has_xsave) for has_xsave in (True, False)]
    (first, asked), (second, _) = [_follow(state, code, va) for state in states]
    used, room = max(state.used for state in states), states[0].room
    if not first.why and used != room:
        return StubRead(0, first.call, f"it makes room for {room} bytes and uses {used}")
    if first.why or not asked:
        return first
    if second.why or (second.size, second.call, second.deep) != (first.size, first.call, first.deep):
        return StubRead(0, first.call, second.why or "it does not end in one way where there is no XSAVE")
    return first


def _follow(state: State, code: bytes, va: int) -> tuple[StubRead, bool]:
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


def _push(state: State, match: Match[bytes]) -> None:
    _put(state, state.regs[_number(match)])


def _number(match: Match[bytes]) -> int:
    return (match[2][0] & 7) + 8 * bool(match[1])


def _put(state: State, value: Value) -> None:
    top = state.at(RSP, -8)
    state.move(top)
    state.store(top, 8, value)


def _pop(state: State, match: Match[bytes]) -> None:
    state.regs[_number(match)] = state.load(state.regs[RSP], 8)
    state.move(state.at(RSP, 8))


def _push_memory(state: State, match: Match[bytes]) -> None:
    _put(state, state.load(state.at(RSP, signed(match[1])), 8))


def _push_frame(state: State, match: Match[bytes]) -> None:
    """push disp8(%rbp): behind a prologue the function's return address is the word above what rbp points to."""
    known = state.regs[RBP] == ("reg", RBP) and signed(match[1]) == 8
    _put(state, DEEP_CALLER if known else state.load(state.at(RBP, signed(match[1])), 8))


def _copy_rsp(state: State, match: Match[bytes]) -> None:
    state.regs[RBP] = state.regs[RSP]


def _sub_rsp(state: State, match: Match[bytes]) -> None:
    amount = signed(match[1])
    state.move(state.at(RSP, -amount))
    state.room = amount


def _add_rsp(state: State, match: Match[bytes]) -> None:
    state.move(state.at(RSP, signed(match[1])))


def _align(state: State, match: Match[bytes]) -> None:
    if state.align or state.room <= 0:
        raise NoStub(f"it aligns rsp at {state.va:#x} without room below it")
    state.align = -signed(match[1])
    state.move(("low", 0))


def _vector(state: State, match: Match[bytes]) -> None:
    """movaps, movups: %xmm to (%rsp) with a distance, and back."""
    opcode, modrm = match[2][0], match[3][0]
    number = (modrm >> 3 & 7) + 8 * bool(match[1])
    place = state.at(RSP, signed(match[4]))
    if opcode in (0x28, 0x29) and (place[0] != "low" or place[1] % 16):
        raise NoStub(f"it moves 16 bytes at {state.va:#x} that are not aligned")
    if opcode & 1:
        state.store(place, 16, state.xmm[number])
    else:
        state.xmm[number] = state.load(place, 16)
        state.upper = state.upper if state.xmm[number] == ("xmm", number) else UNKNOWN


def _load_argument(state: State, match: Match[bytes]) -> None:
    """mov disp8(%rbp), a register"""
    number = {0x7D: RDI, 0x75: RSI, 0x5D: RBX}[match[1][0]]
    state.regs[number] = state.load(state.at(RBP, signed(match[2])), 8)


def _sub_rdi(state: State, match: Match[bytes]) -> None:
    kind, at = state.regs[RDI]
    state.regs[RDI] = (kind, at - signed(match[1])) if kind == "return" else UNKNOWN


def _lea_rsp(state: State, match: Match[bytes]) -> None:
    state.move(state.at(RBP, signed(match[1])))


def _call(state: State, match: Match[bytes]) -> None:
    to = state.va + match.end() - match.start() + signed(match[2]) & (1 << 64) - 1
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


def _require_frames(state: State) -> None:
    """Raise NoStub where rbp does not lead to a frame of the function, and from there to one of its caller."""
    inner = state.regs[RBP]
    outer, back = state.load(inner, 8), state.load((inner[0], inner[1] + 8), 8)
    whole = inner[0] == outer[0] == "sp" and back == RETURN
    if not whole or state.load(outer, 8) != ("reg", RBP) or state.load((outer[0], outer[1] + 8), 8) not in (
        CALLER, DEEP_CALLER,
    ):  # fmt: skip
        raise NoStub("rbp does not lead to frames of the function and its caller")


def _mov_eax(state: State, match: Match[bytes]) -> None:
    state.regs[RAX] = ("const", signed(match[1]))


def _clear(state: State, match: Match[bytes]) -> None:
    """xor of a register with itself"""
    state.regs[match[1][0] & 7] = ("const", 0)
    state.nothing = True


def _ret(state: State, match: Match[bytes]) -> None:
    """What must be true here is told apart from the other instructions."""


def _require_kept(state: State) -> None:
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
FORMS: tuple[tuple[re.Pattern[bytes], Callable[[State, Match[bytes]], int | None]], ...] = tuple(
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
        ("0fa2", cpuid),
        ("89cb", copy_ecx),
        (r"81e3 (....)", mask_ebx),
        ("85db", test_ebx),
        (r"74 (.)", je),
        (r"eb (.)", jmp),
        (r"48898424 (....)", store_rax),
        ("480fae2424", xsave),
        ("480fae2c24", xrstor),
        ("c3", _ret),
    )
)  # fmt: skip


def other_calls(st_other: int) -> str:
    """Nothing: no function says in its symbol that it is called by rules of its own."""
    return ""


PROGRAMS = ProgramProof(read=read, slots=(R_GLOB_DAT, R_JUMP_SLOT), other_calls=other_calls)
