"""Does a piece of x86_64 code behave as a trampoline that a patch site may call?

At a site the stack has the return address behind the call, and above it that of the function's caller. Whoever is
called must return to the first with the stack pointer just above it, and with every register as it was but r10 and
r11, which no function of the kernel is entered with. A lone `ret` does; a C function changes rax and others.

In the walk every register starts as itself, stack slots are remembered, what is not understood becomes unknown, and
an instruction that is not known ends the walk. Calls are of ordinary code, which keeps what the ABI says and the frame
of its caller; a call over nothing but int3 is how a return is balanced. What boot code writes over the instructions
(alternatives, other return thunks) is not seen, and does the same as they do.
Source: System V ABI, AMD64 supplement, 3.2; arch/x86/kernel/ftrace_64.S; Intel SDM, volume 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from ftpatch.arch.contract import UNKNOWN, NotShown, Read, Value, judge
from ftpatch.arch.register_use import bits
from ftpatch.arch.x86_64_code import RSP, Instruction, Operand, decoded
from ftpatch.arch.x86_64_registers import VECTORS

# Values: ("reg", n): what register n held at entry; ("sp", n): entry rsp + n; ("ret", 0): the return address behind the
# site; ("flags", 0); ("code", va); ("const", n); UNKNOWN
RETURN: Value = ("ret", 0)
FLAGS: Value = ("flags", 0)
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
RBP = 5
KEPT = tuple(n for n in range(16) if n not in (RSP, 10, 11))
SCRATCH = (0, 1, 2, 6, 7, 8, 9, 10, 11)  # what a call may change
BIT64 = (1 << 64) - 1


@dataclass
class State:
    va: int
    regs: list[Value] = field(default_factory=lambda: [("reg", n) if n != RSP else ("sp", 0) for n in range(16)])
    stack: dict[int, Value] = field(default_factory=lambda: {0: RETURN})
    zero: bool | None = None  # the zero flag, where it is known

    def copy(self, va: int) -> State:
        return State(va, list(self.regs), dict(self.stack), self.zero)

    @property
    def sp(self) -> int:
        return self.regs[RSP][1]

    def set(self, n: int, value: Value) -> None:
        """A register's new value. Where it is the stack pointer, an interrupt may overwrite what then lies below."""
        if n == RSP:
            if value[0] != "sp":
                raise NotShown(f"it loads rsp from a register or memory at {self.va:#x}")
            self.stack = {off: slot for off, slot in self.stack.items() if off >= value[1]}
        self.regs[n] = value

    def push(self, value: Value) -> None:
        self.set(RSP, ("sp", self.sp - 8))
        self.write(self.sp, 8, value)

    def pop(self) -> Value:
        value = self.stack.get(self.sp, UNKNOWN)
        self.set(RSP, ("sp", self.sp + 8))
        return value

    def write(self, off: int, size: int, value: Value) -> None:
        """Write to the stack, `off` bytes from where rsp was at entry."""
        if off + size > 8:
            raise NotShown(f"it writes its caller's stack frame at {self.va:#x}")
        self.stack = {at: slot for at, slot in self.stack.items() if at + 8 <= off or off + size <= at}
        if size == 8 and off >= self.sp:
            self.stack[off] = value


def keeps_contract(
    read: Read, va: int, out_of_line: bool = False, home: int | None = None, target: int | None = None
) -> str:
    """Why the code at `va` is no trampoline for a patch site; empty where it is. Sites are never out of line here."""
    return judge(read, State(va), partial(step, read), {target: _pass_on, home: _behind})


def kept_registers(read: Read, va: int, out_of_line: bool = False) -> int:
    """The registers that the code at `va` gives back as they were, as bits of `x86_64_registers`; 0: nothing is shown.

    No instruction on vectors is followed, so that only calls change these.
    """
    reached: list[State] = []
    calls: list[int] = []

    def look(state: State, word: int, todo: list[State]) -> bool:
        code = bytes(read(state.va, 16).tolist())
        seen = decoded(code)
        if seen is not None and seen.kind == "call" and not (seen.to is not None and _over_nothing(code, seen)):
            calls.append(state.va)
        return step(read, state, word, todo)

    if judge(read, State(va), look, {}, reached):
        return 0
    kept = bits(n for n in range(16) if n != RSP and all(state.regs[n] == ("reg", n) for state in reached))
    return kept if calls else kept | bits(range(VECTORS, VECTORS + 32))


def step(read: Read, state: State, _: int, todo: list[State]) -> bool:
    """Step over one instruction; True where this path ends (soundly)."""
    code = bytes(read(state.va, 16).tolist())
    seen = decoded(code)
    if seen is None:
        raise NotShown(f"it executes {code[:8].hex()} at {state.va:#x}, which is not followed")
    behind, kind = state.va + seen.size, seen.kind
    if kind == "ret":
        return _returned(state, state.pop())
    if kind == "jmp":
        if seen.to is None:
            return _returned(state, _load(state, seen.into))
        state.va = (behind + seen.to) & BIT64
        return False
    if kind == "jcc" and seen.to is not None:
        taken = None if state.zero is None or seen.condition not in (4, 5) else state.zero == (seen.condition == 4)
        if taken is None:
            todo.append(state.copy((behind + seen.to) & BIT64))
        state.va = (behind + seen.to) & BIT64 if taken else behind
        return False
    if kind == "call" and seen.to is not None and _over_nothing(code, seen):
        state.push(("code", behind))
        state.va = (behind + seen.to) & BIT64
        return False
    _straight(state, seen)
    state.va = behind
    return False


def _over_nothing(code: bytes, seen: Instruction) -> bool:
    """Whether a call goes over nothing but int3, so that it is no call of a function."""
    gap = seen.to if seen.to is not None else -1
    return 0 <= gap <= len(code) - seen.size and set(code[seen.size : seen.size + gap]) <= {0xCC}


def _returned(state: State, to: Value) -> bool:
    """A return or an indirect jump; True where that is the end of the path."""
    if to[0] == "code":  # of a call over nothing
        state.va = to[1]
        return False
    if to != RETURN:
        raise NotShown("it does not return behind the call of the site")
    _behind(state)
    return True


def _behind(state: State) -> None:
    """Behind the site: the return address is taken from the stack."""
    _keeps(state, 8)


def _pass_on(state: State) -> None:
    """The return address of the site must still be where a trampoline looks for it."""
    if state.stack.get(0) != RETURN:
        raise NotShown("it goes to the target without the return address on the stack")
    _keeps(state, 0)


def _keeps(state: State, sp: int) -> None:
    changed = [NAMES[n] for n in KEPT if state.regs[n] != ("reg", n)]
    if changed or state.sp != sp:
        raise NotShown(f"it changes {', '.join(changed or ['rsp'])}")


# -- one instruction that is no branch ---------------------------------------------------------------------------------


def _straight(state: State, seen: Instruction) -> None:
    kind, into, size = seen.kind, seen.into, seen.width
    if kind == "nop":
        return
    if kind == "call":
        for n in SCRATCH:
            state.regs[n] = UNKNOWN
        state.zero = None
        state.stack = {off: slot for off, slot in state.stack.items() if off >= state.sp}
    elif kind in ("push", "pop", "pushf", "popf", "leave"):
        _on_stack(state, seen)
    elif kind == "mov":
        _store(state, into, size, _load(state, seen.of) if size == 8 else UNKNOWN)
    elif kind == "lea":
        _store(state, into, size, address_of(state, seen.of) if size == 8 else UNKNOWN)
    elif kind == "xchg":
        first, second = _load(state, into), _load(state, seen.of)
        _store(state, into, size, second if size == 8 else UNKNOWN)
        _store(state, seen.of, size, first if size == 8 else UNKNOWN)
    else:
        _computed(state, seen)


def _on_stack(state: State, seen: Instruction) -> None:
    """What pushes or pops."""
    if seen.kind == "push":
        state.push(_load(state, seen.into))
    elif seen.kind == "pop":
        _store(state, seen.into, 8, state.pop())
    elif seen.kind == "pushf":
        state.push(FLAGS)
    elif seen.kind == "leave":
        state.set(RSP, state.regs[RBP])
        state.set(RBP, state.pop())
    elif state.pop() != FLAGS:
        raise NotShown(f"it loads flags at {state.va:#x} that it had not saved")
    else:
        state.zero = None


def _computed(state: State, seen: Instruction) -> None:
    """What sets the flags: the zero flag is known where both sides are numbers."""
    left, right = _load(state, seen.into), _load(state, seen.of)
    whole = seen.width == 8
    numbers = left[0] == right[0] == "const" and whole
    state.zero = None
    if seen.kind == "test" and numbers:
        state.zero = not left[1] & right[1]
    elif seen.kind == "cmp" and numbers:
        state.zero = left[1] == right[1]
    elif seen.kind in ("add", "sub") and whole and right[0] == "const" and left[0] in ("sp", "const"):
        step = right[1] if seen.kind == "add" else -right[1]
        _store(state, seen.into, 8, (left[0], left[1] + step))
    elif seen.kind == "xor" and seen.into == seen.of and seen.width >= 4:
        _store(state, seen.into, seen.width, UNKNOWN)
        state.set(seen.into.register, ("const", 0))
    elif seen.kind not in ("test", "cmp"):
        _store(state, seen.into, seen.width, UNKNOWN)
        for n in seen.clobbers:
            state.set(n, UNKNOWN)


def address_of(state: State, operand: Operand) -> Value:
    """The address of an operand in memory; where nothing is known of it, it is not in the stack."""
    if operand.base is None or operand.segment:
        return UNKNOWN
    kind, at = state.regs[operand.base]
    if kind != "sp":
        return UNKNOWN
    if operand.indexed:
        raise NotShown(f"it uses the stack by an index at {state.va:#x}, which is not followed")
    return "sp", at + operand.number


def _load(state: State, operand: Operand) -> Value:
    if operand.kind == "number":
        return "const", operand.number
    if operand.kind == "register":
        return state.regs[operand.register]
    kind, at = address_of(state, operand) if operand.kind == "memory" else UNKNOWN
    return state.stack.get(at, UNKNOWN) if kind == "sp" and at >= state.sp else UNKNOWN


def _store(state: State, operand: Operand, size: int, value: Value) -> None:
    if operand.kind == "register":
        state.set(operand.register, value)
    elif operand.kind == "memory":
        kind, at = address_of(state, operand)
        if kind == "sp":
            state.write(at, size, value)
