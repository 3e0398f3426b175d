"""The instructions of x86_64 that trampolines are made of: their length, operands, and what they do with them.

Only what such code uses is known; `decoded` says None of everything else. Opcodes: Intel SDM, volume 2, appendix A.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

RAX, RCX, RDX, RSP = 0, 1, 2, 4
LEGACY = {0x66: "wide", 0xF2: "repne", 0xF3: "rep", 0xF0: "lock", 0x64: "segment", 0x65: "segment", 0x2E: "none",
          0x36: "none", 0x3E: "none", 0x26: "none"}  # fmt: skip
GROUP1 = ("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp")  # by the middle field of the byte behind the opcode
UNARY = {2: "not", 3: "neg"}


class Operand(NamedTuple):
    """One operand."""

    kind: Literal["register", "memory", "number", "none"] = "none"
    register: int = 0
    number: int = 0  # the number itself, or what is added to a base
    base: int | None = None  # register that an address starts from; None: an address without one
    indexed: bool = False  # another register is added
    segment: bool = False  # in the memory of a processor of its own


NOTHING = Operand()


class Instruction(NamedTuple):
    """One instruction."""

    size: int  # bytes
    # ret, jmp, call, jcc, nop, push, pop, pushf, popf, leave, mov, lea, xchg, test, cmp, add, sub, xor; `set`: some
    # other, whose first operand it changes
    kind: str
    into: Operand = NOTHING  # what changes, or is looked at
    of: Operand = NOTHING
    width: int = 8  # bytes of the operands
    to: int | None = None  # bytes from behind the instruction to where a direct branch goes
    condition: int = 0  # of jcc
    clobbers: tuple[int, ...] = ()  # registers that change besides


class _Reader:
    """The bytes of one instruction, from prefix to end. An IndexError where they are too few."""

    def __init__(self, code: bytes) -> None:
        self.code, self.at, self.rex = code, 0, 0
        self.prefixes: set[str] = set()
        while LEGACY.get(code[self.at]) is not None:
            self.prefixes.add(LEGACY[code[self.at]])
            self.at += 1
        if code[self.at] & 0xF0 == 0x40:
            self.rex = code[self.at]
            self.at += 1

    @property
    def width(self) -> int:
        return 8 if self.rex & 8 else 2 if "wide" in self.prefixes else 4

    def byte(self) -> int:
        self.at += 1
        return self.code[self.at - 1]

    def signed(self, size: int) -> int:
        if self.at + size > len(self.code):
            raise IndexError
        self.at += size
        return int.from_bytes(self.code[self.at - size : self.at], "little", signed=True)

    def number(self, size: int) -> Operand:
        return Operand("number", number=self.signed(size))

    def low(self, opcode: int) -> Operand:
        """The register in the lowest bits of an opcode."""
        return Operand("register", opcode & 7 | (self.rex & 1) << 3)

    def operands(self) -> tuple[int, Operand, Operand]:
        """(middle field, the register that it names, the other operand) of the byte behind an opcode."""
        modrm = self.byte()
        mode, middle, rm = modrm >> 6, modrm >> 3 & 7, modrm & 7
        register = Operand("register", middle | (self.rex & 4) << 1)
        if mode == 3:
            return middle, register, Operand("register", rm | (self.rex & 1) << 3)
        base: int | None = rm | (self.rex & 1) << 3
        indexed = False
        if rm == 4:
            sib = self.byte()
            base, indexed = sib & 7 | (self.rex & 1) << 3, (sib >> 3 & 7 | (self.rex & 2) << 2) != 4
            if sib & 7 == 5 and mode == 0:
                base, mode = None, 2
        elif rm == 5 and mode == 0:  # relative to the instruction
            base, mode = None, 2
        number = self.signed((0, 1, 4)[mode])
        return middle, register, Operand("memory", number=number, base=base, indexed=indexed,
                                         segment="segment" in self.prefixes)  # fmt: skip


def decoded(code: bytes) -> Instruction | None:
    """The instruction that some bytes begin with; None where it is none of those that are known here."""
    try:
        reader = _Reader(code)
        seen = _decoded(reader, reader.byte())
    except IndexError:
        return None
    return seen and seen._replace(size=reader.at)


class VectorMove(NamedTuple):
    """A move of a whole xmm register to memory or from it."""

    size: int  # bytes of the instruction
    register: int
    memory: Operand
    store: bool


# movups, movupd, movaps, movapd; movdqa, movdqu: by the opcode behind 0f, whether it stores
VECTOR_MOVES = {0x10: False, 0x11: True, 0x28: False, 0x29: True, 0x6F: False, 0x7F: True}


def vector_move(code: bytes) -> VectorMove | None:
    """The move of a whole xmm register that some bytes begin with; None where it is none."""
    try:
        reader = _Reader(code)
        if reader.byte() != 0x0F or (opcode := reader.byte()) not in VECTOR_MOVES:
            return None
        _, register, memory = reader.operands()
    except IndexError:
        return None
    prefixes, integers = reader.prefixes - {"none"}, opcode in (0x6F, 0x7F)  # without a prefix those are MMX
    known = prefixes in ({"wide"}, {"rep"}) if integers else prefixes in (set(), {"wide"})
    if memory.kind != "memory" or not known:
        return None
    return VectorMove(reader.at, register.register, memory, VECTOR_MOVES[opcode])


def _decoded(reader: _Reader, opcode: int) -> Instruction | None:
    for group in (_branch, _stack, _moved, _computed):
        if (seen := group(reader, opcode)) is not None:
            return seen
    return _two_bytes(reader, reader.byte()) if opcode == 0x0F else None


def _branch(reader: _Reader, opcode: int) -> Instruction | None:
    if "wide" in reader.prefixes:
        return None
    if opcode == 0xC3:
        return Instruction(0, "ret")
    if opcode in (0xE8, 0xE9):
        return Instruction(0, "call" if opcode == 0xE8 else "jmp", to=reader.signed(4))
    if opcode == 0xEB:
        return Instruction(0, "jmp", to=reader.signed(1))
    if opcode & 0xF0 == 0x70:
        return Instruction(0, "jcc", to=reader.signed(1), condition=opcode & 15)
    return None


def _stack(reader: _Reader, opcode: int) -> Instruction | None:
    if "wide" in reader.prefixes:
        return None
    if opcode & 0xF0 == 0x50:
        return Instruction(0, "push" if opcode < 0x58 else "pop", reader.low(opcode))
    if opcode in (0x68, 0x6A):
        return Instruction(0, "push", reader.number(4 if opcode == 0x68 else 1))
    plain = {0x9C: "pushf", 0x9D: "popf", 0xC9: "leave"}
    return Instruction(0, plain[opcode]) if opcode in plain else None


def _moved(reader: _Reader, opcode: int) -> Instruction | None:
    width = 1 if opcode in (0x86, 0x88, 0x8A, 0xC6) else reader.width
    if opcode == 0x90:
        return Instruction(0, "nop") if not reader.rex & 1 else None
    if 0xB0 <= opcode <= 0xB7:
        return Instruction(0, "mov", _of_bytes(reader, 1, reader.low(opcode), NOTHING)[0], reader.number(1), 1)
    if 0xB8 <= opcode <= 0xBF:
        return Instruction(0, "mov", reader.low(opcode), reader.number(width), width)
    if opcode not in (0x86, 0x87, 0x88, 0x89, 0x8A, 0x8B, 0x8D, 0x63, 0xC6, 0xC7):
        return None
    middle, register, other = reader.operands()
    if opcode in (0x86, 0x87):
        return Instruction(0, "xchg", *_of_bytes(reader, width, other, register), width)
    if opcode in (0x88, 0x89):
        return Instruction(0, "mov", *_of_bytes(reader, width, other, register), width)
    if opcode in (0xC6, 0xC7):
        number = reader.number(1 if opcode == 0xC6 else min(width, 4))
        return Instruction(0, "mov", *_of_bytes(reader, width, other, number), width) if not middle else None
    if opcode == 0x63:
        return Instruction(0, "set", register, other)
    if opcode == 0x8D:
        return Instruction(0, "lea", register, other, width) if other.kind == "memory" else None
    return Instruction(0, "mov", *_of_bytes(reader, width, register, other), width)


def _computed(reader: _Reader, opcode: int) -> Instruction | None:
    width = reader.width if opcode & 1 else 1
    if opcode < 0x40 and opcode & 7 < 4:  # add, or, … with a register, in both directions
        _, register, other = reader.operands()
        into, of = (register, other) if opcode & 2 else (other, register)
        return Instruction(0, GROUP1[opcode >> 3], *_of_bytes(reader, width, into, of), width)
    if opcode < 0x40 and opcode & 7 < 6:  # with rax and a number
        into, of = Operand("register", RAX), reader.number(min(width, 4))
        return Instruction(0, GROUP1[opcode >> 3], into, of, width)
    if opcode in (0x80, 0x81, 0x83, 0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3, 0x84, 0x85, 0xF6, 0xF7, 0xFE, 0xFF):
        middle, register, other = reader.operands()
        other, register = _of_bytes(reader, width, other, register)
        if opcode in (0x80, 0x81, 0x83):
            number = reader.number(min(width, 4) if opcode == 0x81 else 1)
            return Instruction(0, GROUP1[middle], other, number, width)
        if opcode in (0xC0, 0xC1):
            reader.byte()
        if opcode in (0x84, 0x85):
            return Instruction(0, "test", other, register, width)
        return _by_middle(reader, opcode, middle, other._replace(), width)
    if opcode in (0xA8, 0xA9):
        return Instruction(0, "test", Operand("register", RAX), reader.number(min(width, 4)), width)
    if opcode in (0x98, 0x99):
        return Instruction(0, "set", Operand("register", RAX if opcode == 0x98 else RDX))
    return None


def _by_middle(reader: _Reader, opcode: int, middle: int, other: Operand, width: int) -> Instruction | None:
    """Shifts, and the groups of opcodes 0xf6 and 0xff, by the middle field of the byte behind the opcode."""
    if opcode in (0xF6, 0xF7) and middle < 2:
        return Instruction(0, "test", other, reader.number(min(width, 4)), width)
    if opcode in (0xF6, 0xF7) and middle >= 4:
        return Instruction(0, "set", NOTHING, other, width, clobbers=(RAX, RDX))
    if opcode == 0xFF and middle in (2, 4, 6):
        if "wide" in reader.prefixes:
            return None
        return Instruction(0, {2: "call", 4: "jmp", 6: "push"}[middle], other)
    if opcode in (0xFE, 0xFF) and middle > 1:
        return None
    return Instruction(0, "set", other, width=width)


def _two_bytes(reader: _Reader, opcode: int) -> Instruction | None:
    """What begins with 0f."""
    if opcode == 0x1E and "rep" in reader.prefixes:
        return Instruction(0, "nop") if reader.byte() == 0xFA else None  # endbr64
    if opcode == 0x1F:
        reader.operands()
        return Instruction(0, "nop")
    if opcode == 0xAE:  # lfence, mfence, sfence
        return Instruction(0, "nop") if reader.byte() in (0xE8, 0xF0, 0xF8) else None
    if opcode & 0xF0 == 0x80 and "wide" not in reader.prefixes:
        return Instruction(0, "jcc", to=reader.signed(4), condition=opcode & 15)
    if opcode & 0xF0 in (0x40, 0x90) or opcode in (0xAF, 0xB6, 0xB7, 0xBE, 0xBF):
        _, register, other = reader.operands()
        into, width = (other, 1) if opcode & 0xF0 == 0x90 else (register, reader.width)
        return Instruction(0, "set", _of_bytes(reader, width, into, into)[0], width=width)
    return None


def _of_bytes(reader: _Reader, width: int, into: Operand, of: Operand) -> tuple[Operand, Operand]:
    """Two operands; of one byte and without a prefix, ah, ch, dh and bh are parts of the first four registers."""
    if width > 1 or reader.rex:
        return into, of
    first, second = (one._replace(register=one.register & 3) if one.kind == "register" else one for one in (into, of))
    return first, second
