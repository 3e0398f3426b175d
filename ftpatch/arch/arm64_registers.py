"""What arm64's instructions do to registers, as capstone tells them: x0–x30 are 0–30, v0–v31 are 32–63.

x16–x18 are left out, since a linker's stub may change the first two, and the third is the platform's; so are v8–v15,
whose lower halves are the caller's.
Source: AAPCS64, 6.1; Arm ARM, part C.
"""

from __future__ import annotations

import re

from ftpatch.arch.register_use import CallerRegisters, Decoded, Flow, Use, bits

VECTORS = 32
REGISTERS = CallerRegisters(
    names=(*(f"x{n}" for n in range(31)), "sp", *(f"v{n}" for n in range(32))),
    lost=bits((*range(16), *range(32, 40), *range(48, 64))),
    results=((0, 1 << 1), (32, bits((33, 34, 35)))),
    site=1 << 9,  # mov x9, x30
    promised=bits(range(9)),
    hooked=bits((*range(9), *range(32, 40))),
    arguments=bits((*range(9), *range(32, 40))),
)
BY_CAPSTONE = True
NAME = re.compile(r"([wxvqdshb])(\d+)(?:\..*)?")
WORD = re.compile(r"\w+")
FLOWS: dict[str, Flow] = {
    "b": "jump", "cbz": "branch", "cbnz": "branch", "tbz": "branch", "tbnz": "branch", "bl": "call", "blr": "call",
    "br": "end", "ret": "return", "retaa": "return", "retab": "return",
}  # fmt: skip
# behind these nothing is known: traps, and calls of what is not ordinary code
STOPS = ("brk", "hlt", "udf", "svc", "hvc", "smc", "eret", "blraa", "blrab", "blraaz", "blrabz", "braa", "brab",
         "braaz", "brabz")  # fmt: skip

# What an instruction writes it needs only where it is one of these: capstone says so of the aliases of bit fields, too.
ADDS_TO = ("movk", "bf", "cas", "fmla", "fmls", "mla", "mls")


def number(name: str) -> int | None:
    """The number of a register; None for those that are not counted."""
    match = NAME.fullmatch(name)
    if match is None or int(match[2]) > (30 if match[1] in "wx" else 31):
        return None
    return int(match[2]) + (0 if match[1] in "wx" else VECTORS)


def use(code: bytes, va: int, seen: Decoded | None) -> Use | None:
    """What the instruction at `va` does; None where that is not known."""
    if seen is None:
        return None
    if seen.mnemonic in STOPS:
        return Use(4, flow="end")
    flow = FLOWS.get(seen.mnemonic, "branch" if seen.mnemonic.startswith("b.") else "on")
    read, written = (bits(n for n in map(number, names) if n is not None) for names in (seen.reads, seen.writes))
    if seen.operands and not seen.mnemonic.startswith(ADDS_TO):
        into, *others = ({number(word) for word in WORD.findall(operand)} for operand in seen.operands)
        read &= ~(written & bits(n for n in into.difference(*others) if n is not None))
    last = seen.operands[-1] if seen.operands else ""
    to = int(last[1:], 16) if flow in ("jump", "branch", "call") and last.startswith("#0x") else None
    return Use(4, read, written, flow, to)
