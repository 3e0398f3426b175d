"""What is known of registers and stack while a stub of an x86_64 program is followed."""

from __future__ import annotations

from dataclasses import dataclass, field

from ftpatch.arch.program_proof import UNKNOWN, NoStub, StubCall, Value

RSP = 4  # number of the register
RETURN: Value = ("return", 0)  # into the function, behind its site
CALLER: Value = ("caller", 0)  # where the function returns to


@dataclass
class State:
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
