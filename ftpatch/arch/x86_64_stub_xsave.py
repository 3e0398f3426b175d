"""How a stub of an x86_64 program asks CPUID for XSAVE, and saves and restores vector registers by it.

Source: Intel SDM, volume 1, 13.4 and 13.7 (XSAVE); volume 2, CPUID.
"""

from __future__ import annotations

from re import Match

from ftpatch.arch.program_proof import UNKNOWN, NoStub
from ftpatch.arch.x86_64_stub_state import RSP, State

RAX, RCX, RDX, RBX = 0, 1, 2, 3
COMPONENTS = 0xE6  # of XSAVE: SSE, AVX, opmask, both of AVX-512's
XSAVE_SIZE, XSAVE_ALIGN, HEADER = 2688, 64, range(512, 576, 8)  # in the standard form, and bytes that must be zero
OSXSAVE = 1 << 27


def signed(code: bytes) -> int:
    """A number as it lies in an instruction."""
    return int.from_bytes(code, "little", signed=True)


def cpuid(state: State, match: Match[bytes]) -> None:
    right = state.regs[RAX] == ("const", 1)
    for n in (RAX, RBX, RDX):
        state.regs[n] = UNKNOWN
    state.regs[RCX] = ("features", 0) if right else UNKNOWN


def copy_ecx(state: State, match: Match[bytes]) -> None:
    state.regs[RBX] = state.regs[RCX]


def mask_ebx(state: State, match: Match[bytes]) -> None:
    known = state.regs[RBX] == ("features", 0) and signed(match[1]) == OSXSAVE
    state.regs[RBX] = ("osxsave", 0) if known else UNKNOWN
    state.nothing = not state.has_xsave if known else None


def test_ebx(state: State, match: Match[bytes]) -> None:
    state.nothing = not state.has_xsave if state.regs[RBX] == ("osxsave", 0) else None


def je(state: State, match: Match[bytes]) -> int:
    if state.nothing is None:
        raise NoStub(f"it goes one way or another at {state.va:#x} by something else than whether there is XSAVE")
    state.asked = True
    return _ahead(match) if state.nothing else 0


def jmp(state: State, match: Match[bytes]) -> int:
    return _ahead(match)


def _ahead(match: Match[bytes]) -> int:
    if (distance := signed(match[1])) < 0:
        raise NoStub("it jumps backwards")
    return distance


def store_rax(state: State, match: Match[bytes]) -> None:
    state.store(state.at(RSP, signed(match[1])), 8, state.regs[RAX])


def _require_components(state: State) -> None:
    right = state.regs[RAX] == ("const", COMPONENTS) and state.regs[RDX] == ("const", 0)
    if not right or not state.has_xsave or state.regs[RSP] != ("low", 0):
        raise NoStub(f"it saves or restores other components than {COMPONENTS:#x} at {state.va:#x}")


def xsave(state: State, match: Match[bytes]) -> None:
    _require_components(state)
    zeros = all(state.load(("low", at), 8) == ("const", 0) for at in HEADER)
    if not zeros or state.align < XSAVE_ALIGN or state.room < XSAVE_SIZE:
        raise NoStub(f"what it has for XSAVE at {state.va:#x} is too small, not aligned, or has no empty header")
    if state.xmm != [("xmm", n) for n in range(16)] or state.upper != ("upper", 0):
        raise NoStub(f"it saves vector registers at {state.va:#x} that it has changed")
    state.store(("low", 0), XSAVE_SIZE, ("xsave", 0))


def xrstor(state: State, match: Match[bytes]) -> None:
    _require_components(state)
    if state.load(("low", 0), XSAVE_SIZE) != ("xsave", 0):
        raise NoStub(f"what it restores at {state.va:#x} is not what XSAVE left")
    state.xmm, state.upper = [("xmm", n) for n in range(16)], ("upper", 0)
