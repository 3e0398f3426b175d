"""A machine that nobody builds: what a new architecture has to be for the reading verbs, and nothing else.

Its instructions have any length and lie at any address. A traced function starts with a NOP of five bytes or
with a call of `__entry__`, both in one file; some begin with a landing pad of three bytes in front of that.

    90 91 92 93 94          nop            the record names it
    c5 rel32                call           counted from the end of the instruction
    b0 b1 b2                landing pad    symbol = record − 3
"""

from __future__ import annotations

from ftpatch.arch import Arch
from ftpatch.arch.parts import Entry
from ftpatch.arch.shape import ANY, Branch, Shape, Word
from ftpatch.arrays import U32

E_MACHINE = 0x7A7A
R_RELATIVE, R_ABS64, R_ABS32 = 3, 5, 6
NOP = bytes.fromhex("9091929394")
PAD = bytes.fromhex("b0b1b2")

CALL = Branch(Word(0xC5, 0xFF, "call"), 32, lsb=8, scale=1, size=5, unit=1, base=5)
CALL_BYTES = (CALL.word, ANY, ANY, ANY, ANY)


def units(code: bytes) -> tuple[Word, ...]:
    """Each byte as what is looked for."""
    return tuple(Word(byte, 0xFF) for byte in code)


def no_ops(words: U32) -> Entry:
    """Its trampoline loads no ops."""
    return Entry(literal=False)


ARCH = Arch(
    name="toy",
    e_machine=E_MACHINE,
    nop=int.from_bytes(NOP),
    call=CALL,
    shapes=(
        Shape(
            "toy5", entry=0, start=0, old=units(NOP), also=(CALL_BYTES,), new=CALL_BYTES, branch=CALL,
            called="__entry__", skips=(units(PAD),), skip_at=-3,
            text="five bytes, a NOP or a call of __entry__", skip_text="a landing pad in front of them",
            source="tests/toy_machine.py",
        ),
        Shape(
            "toy-late", entry=0, start=0, old=CALL_BYTES, new=CALL_BYTES, branch=CALL, called="__entry__",
            anywhere=True, refusal="the call is not at the entry",
            text="a call of __entry__ somewhere in the prologue", source="tests/toy_machine.py",
        ),
    ),
    relative=R_RELATIVE,
    none=0,
    abs64=R_ABS64,
    abs32=R_ABS32,
    wide=(R_ABS64,),
    entries=("toy_caller",),
    read_entry=no_ops,
)  # fmt: skip
