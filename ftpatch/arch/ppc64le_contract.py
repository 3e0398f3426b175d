"""Does a piece of ppc64le code behave as a trampoline that a patch site may call?

At a site r0 holds the caller's return address and LR the return point behind the call. Whoever is called must leave to
the old LR with r1–r10 as they were, r2 among them, since it may be anyone's TOC. In front of an inline site LR must by
then be the old r0; an out-of-line stub does that move itself, so there the target may simply return. Behind the
prologue (-pg without -mprofile-kernel) the call is an ordinary one: whoever is called may change what any function may
change, and returns to LR.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ftpatch.arch.contract import UNKNOWN, NotShown, Read, Value, judge, signed
from ftpatch.arch.ppc64le_registers import FLOATS, VECTORS
from ftpatch.arch.register_use import bits

# Values: ("reg", n) and ("lr", 0): what they held at entry; ("sp", n): entry r1 + n; UNKNOWN
OLD_LR: Value = ("lr", 0)
PRESERVED = (*range(1, 11), *range(13, 32))
KEPT_BY_FUNCTIONS = (1, 2, *range(13, 32))
SCRATCH = (0, *range(3, 13))
LR, CTR = 8, 9
BCL_NEXT = 0x429F_0005  # bcl 20,31,$+4
NOT_FOLLOWED = (1, 17, 56, 57, 60, 61)  # prefixed words, sc, and loads and stores of pairs and vectors
CR_LOGIC = (0x000, 0x042, 0x102, 0x182, 0x1C2, 0x202, 0x242, 0x342, 0x382, 0x12C)  # mcrf, crxxx, isync

OF_VECTORS = (4, 48, 49, 50, 51, 59, 63)  # primary opcodes that change floating-point or vector registers
LOADS_OF_VECTORS = (7, 39, 71, 103, 359, 12, 76, 268, 332, 364, 524, 588, 780, 812, 844, 876, 535, 567, 599, 631, 855,
                    887, 51, 115, 179, 211, 243, 435)  # extended ones of 31  # fmt: skip


@dataclass
class State:
    va: int
    regs: list[Value] = field(default_factory=lambda: [("sp", 0) if n == 1 else ("reg", n) for n in range(32)])
    lr: Value = OLD_LR
    ctr: Value = UNKNOWN
    stack: dict[int, Value] = field(default_factory=dict)
    library: bool = False  # called as any function is

    def copy(self, va: int) -> State:
        return State(va, list(self.regs), self.lr, self.ctr, dict(self.stack), self.library)


def keeps_contract(read: Read, va: int, out_of_line: bool, home: int | None = None, target: int | None = None) -> str:
    """Why the code at `va` is no trampoline for a patch site, in line or out of line; empty where it is."""
    ends = {target: _pass_on, home: _at_home}
    return judge(read, State(va), lambda state, word, todo: step(state, word, todo, out_of_line), ends)


def keeps_library_contract(read: Read, va: int) -> str:
    """Why the code at `va`, a local entry, is no function as a compiler makes them; empty where it is."""
    return judge(read, State(va, library=True), lambda state, word, todo: step(state, word, todo, False), {})


def kept_registers(read: Read, va: int, out_of_line: bool = False) -> int:
    """The registers that the code at `va` gives back as they were, as bits of `ppc64le_registers`; 0: nothing is shown.

    Out of line the stub itself changes r0, which has the caller's return address there.
    """
    reached: list[State] = []
    others: list[int] = []  # words that may change floating-point or vector registers

    def look(state: State, word: int, todo: list[State]) -> bool:
        opcode = word >> 26
        called = opcode in (16, 18, 19) and word & 1 and word != BCL_NEXT
        if called or opcode in OF_VECTORS or (opcode == 31 and word >> 1 & 0x3FF in LOADS_OF_VECTORS):
            others.append(word)
        return step(state, word, todo, out_of_line)

    if judge(read, State(va), look, {}, reached):
        return 0
    kept = bits(n for n in range(2, 32) if all(state.regs[n] == ("reg", n) for state in reached))
    return kept if others else kept | bits(range(FLOATS, VECTORS + 32))


def step(state: State, word: int, todo: list[State], out_of_line: bool) -> bool:
    """Step over one instruction; True where this path ends (soundly)."""
    va, opcode = state.va, word >> 26
    if opcode == 18:  # b, bl
        if word & 2:
            raise NotShown(f"it branches to an absolute address at {va:#x}")
        if word & 1:
            _call(state)
        else:
            state.va = va + signed(word & 0x03FF_FFFC, 26)
        return False
    if opcode == 16:
        _conditional(state, word, todo)
    elif opcode == 19 and word & 0x7FE in (0x20, 0x420):  # bclr, bcctr
        always = word >> 21 & 0b10100 == 0b10100
        if word & 1:
            _call(state)
            state.regs[2] = UNKNOWN  # the callee's global entry sets it
            return False
        _leave(state, state.ctr if word & 0x400 else state.lr, out_of_line)
        if always:
            return True
    elif opcode in NOT_FOLLOWED or (opcode == 19 and word & 0x7FE not in CR_LOGIC):
        raise NotShown(f"it executes {word:#010x} at {va:#x}, which is not followed")
    elif opcode == 19:
        _condition(state, word >> 23 & 7)
    else:
        _straight(state, word)
    state.va += 4
    return False


def _conditional(state: State, word: int, todo: list[State]) -> None:
    """A conditional branch: both ways."""
    if word == BCL_NEXT:  # only to learn its own address
        state.lr = UNKNOWN
        return
    if word & 3:
        raise NotShown(f"it executes {word:#010x} at {state.va:#x}")
    if not word >> 21 & 0b00100:  # it counts CTR down
        state.ctr = UNKNOWN
    todo.append(state.copy(state.va + signed(word & 0xFFFC, 16)))


def _leave(state: State, to: Value, out_of_line: bool) -> None:
    if to != OLD_LR:
        raise NotShown("it does not return to where LR pointed")
    if state.library:
        _keeps(state, KEPT_BY_FUNCTIONS)
        return
    if state.lr != ("reg", 0) and not out_of_line:
        raise NotShown("it does not return with the old r0 in LR, so the traced function would never return")
    if out_of_line and state.regs[0] != ("reg", 0):
        raise NotShown("it does not keep r0, the caller's return address")
    _keeps(state)


def _at_home(state: State) -> None:
    """Behind the site, which nobody else moves r0 to LR for."""
    if state.lr != ("reg", 0):
        raise NotShown("it goes behind the site without the old r0 in LR, so the traced function would never return")
    _keeps(state)


def _pass_on(state: State) -> None:
    """The site's own two return addresses must still be where a trampoline looks for them."""
    if state.lr != OLD_LR or state.regs[0] != ("reg", 0):
        raise NotShown("it goes to the target without r0 and LR as they were")
    _keeps(state)


def _keeps(state: State, preserved: tuple[int, ...] = PRESERVED) -> None:
    kept = [("sp", 0) if n == 1 else ("reg", n) for n in range(32)]
    changed = [f"r{n}" for n in preserved if state.regs[n] != kept[n]]
    if changed:
        raise NotShown(f"it changes {', '.join(changed)}")


def _call(state: State) -> None:
    """A call of ordinary code: volatile registers, LR, CTR and all below the frame are lost; its callee keeps r2."""
    for n in SCRATCH:
        state.regs[n] = UNKNOWN
    state.lr = state.ctr = UNKNOWN
    kind, at = state.regs[1]
    state.stack = {off: value for off, value in state.stack.items() if kind == "sp" and off >= at + 32}
    state.va += 4


def _straight(state: State, word: int) -> None:
    """One instruction that is no branch."""
    opcode, rt, ra = word >> 26, word >> 21 & 31, word >> 16 & 31
    if opcode == 31:
        _register(state, word)
    elif opcode == 14:  # addi, li
        kind, n = state.regs[ra] if ra else UNKNOWN
        moved = ("sp", n + signed(word & 0xFFFF, 16)) if kind == "sp" else UNKNOWN
        state.regs[rt] = state.regs[ra] if ra and word & 0xFFFF == 0 else moved
    elif opcode in (58, 62):  # ld, ldu, lwa; std, stdu
        _doubleword(state, word)
    elif opcode in (10, 11):  # compares
        _condition(state, word >> 23 & 7)
    elif opcode == 24 and word & 0xFFFF == 0:  # ori ra,rs,0: a NOP or a move
        state.regs[ra] = state.regs[rt]
    elif opcode in (36, 38, 44, 52, 54, 37, 39, 45, 53, 55, 47):  # narrower stores, with update or not
        if state.regs[ra][0] == "sp":
            raise NotShown(f"it uses the stack by {word:#010x} at {state.va:#x}, which is not followed")
        state.regs[ra] = state.regs[ra] if opcode % 2 == 0 else UNKNOWN
    elif opcode in (20, 21, 23, 24, 25, 26, 27, 28, 29, 30):  # rotates and logicals write ra
        state.regs[ra] = UNKNOWN
    else:
        state.regs[rt] = UNKNOWN
        if opcode in (33, 35, 41, 43):  # loads with update
            state.regs[ra] = UNKNOWN
        elif opcode == 46:
            raise NotShown(f"it executes {word:#010x} at {state.va:#x}, which is not followed")


def _register(state: State, word: int) -> None:
    """Opcode 31: moves to and from LR and CTR, `mr`, and everything else, of which only the targets matter."""
    rt, ra, rb, extended = word >> 21 & 31, word >> 16 & 31, word >> 11 & 31, word >> 1 & 0x3FF
    special = (word >> 16 & 31) | (word >> 6 & 0x3E0)
    if extended == 339:  # mfspr
        state.regs[rt] = {LR: state.lr, CTR: state.ctr}.get(special, UNKNOWN)
    elif extended == 467:  # mtspr
        if special == LR:
            state.lr = state.regs[rt]
        elif special == CTR:
            state.ctr = state.regs[rt]
    elif extended in (0, 32):  # compares
        _condition(state, word >> 23 & 7)
    elif extended == 144:  # mtcrf, mtocrf
        for number in range(8):
            if word >> (19 - number) & 1:
                _condition(state, number)
    elif extended == 444 and rt == rb:  # mr ra,rs
        state.regs[ra] = state.regs[rt]
    else:  # it writes rt or ra; never both of them hold something that this code may keep
        state.regs[rt] = state.regs[ra] = UNKNOWN


def _doubleword(state: State, word: int) -> None:
    opcode, rt, ra, form = word >> 26, word >> 21 & 31, word >> 16 & 31, word & 3
    kind, at = state.regs[ra] if ra else UNKNOWN
    where = at + signed(word & 0xFFFC, 16)
    low = state.regs[1][1] if state.regs[1][0] == "sp" else 0
    if (form > 1 and opcode == 62) or (form == 1 and opcode == 62 and kind != "sp"):
        raise NotShown(f"it executes {word:#010x} at {state.va:#x}, which is not followed")
    if opcode == 58:
        kept = kind == "sp" and where >= low and form == 0
        state.regs[rt] = state.stack.get(where, UNKNOWN) if kept else UNKNOWN
        if form == 1:
            state.regs[ra] = ("sp", where) if kind == "sp" else UNKNOWN
        return
    if kind == "sp":
        if where > -8 and where != 16:  # 16(r1) of the caller's frame is the callee's to save LR in
            raise NotShown(f"it writes its caller's stack frame at {state.va:#x}")
        state.stack = {off: value for off, value in state.stack.items() if abs(off - where) >= 8}
        state.stack[where] = state.regs[rt]
        if form == 1:
            state.regs[ra] = ("sp", where)


def _condition(state: State, number: int) -> None:
    """A condition register field is written; cr2, cr3 and cr4 belong to the caller."""
    if number in (2, 3, 4):
        raise NotShown(f"it changes cr{number}")
