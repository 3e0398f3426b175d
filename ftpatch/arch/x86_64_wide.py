"""Which x86_64 functions may be called with arguments in the upper parts of ymm and zmm registers.

Such a function is compiled for AVX, as are functions that have an instruction on those registers. Code is decoded one
instruction behind the other; what cannot be decoded counts as such an instruction.
Whether a function may be left at all is told the same way.
Opcodes: Intel SDM, volume 2, 2.3 (VEX), 2.7 (EVEX), appendix A.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import U32

PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
VEX3, VEX2, EVEX = 0xC4, 0xC5, 0x62
VEX_BYTES = {VEX3, VEX2, EVEX}


def _table(runs: str) -> str:
    """One letter for each of 256 opcodes, from runs such as `8m`, eight opcodes of kind m."""
    table = "".join(run[-1] * int(run[:-1] or "1") for run in runs.split())
    assert len(table) == 256, f"a table of {len(table)} opcodes"
    return table


# What is behind an opcode: `-` nothing; `m` its operands (modrm); `b` one byte; `w` two; `e` three; `j` four; `d` four,
# or two with a 66 prefix; `q` the same, or eight with REX.W; `o` an address; `B`, `D` operands and then as `b`, `d`;
# `T`, `U` as these for the first two of eight operations, else as `m`; `x` no instruction
ONE = _table(
    8 * "4m b d 2x " + "32- 2x x m 4x d D b B 4- 16b "  # 00 … 7f
    "B D x B 12m 10- x 5- 4o 4- b d 6- 8b 8q "  # 80 … bf
    "2B w - 2x B D e - w 2- b x - 4m 3x - 8m 8b 2j x b 4- x - 2x 2- T U 6- 2m"  # c0 … ff
)
TWO = _table(
    "4m x 5- x - x m - B 20m 4x 8m 8- 8x 48m 4B 3m - 8m "  # 00 … 7f
    "16j 16m 3- m B m 2x 3- m B 13m B 5m "  # 80 … bf
    "2m B m 3B m 8- 48m"  # c0 … ff
)


def is_wide(code: U32) -> bool:
    """Whether code, one byte in each number, has an instruction on ymm or zmm registers, or one that is not known."""
    content, at = code.astype(np.uint8).tobytes(), 0
    if not VEX_BYTES & set(content):
        return False
    while at < len(content):
        try:
            size, wide = _instruction(content, at)
        except IndexError:
            return True
        if wide or not size:
            return True
        at += size
    return False


def ways_out(code: U32) -> bool:
    """Whether a function's bytes have a return, an indirect jump, a jump to outside of them, or simply go on; also
    where not all of them are known."""
    content, at = code.astype(np.uint8).tobytes(), 0
    while at < len(content):
        try:
            size, _ = _instruction(content, at)
        except IndexError:
            return True
        if not size or _leaves(content[at : at + size], at, len(content)):
            return True
        at += size
    return False


def _leaves(instruction: bytes, at: int, end: int) -> bool:
    """Whether an instruction may leave a function of `end` bytes, in which it is at `at`."""
    body = instruction.lstrip(bytes(PREFIXES))
    behind, last = at + len(instruction), at + len(instruction) == end
    if body[0] in (0xC2, 0xC3, 0xCA, 0xCB, 0xCF):
        return True
    if body[0] == 0xFF or (body[0] & 0xF0 == 0x40 and body[1:2] == b"\xff"):
        return body[body.index(0xFF) + 1] >> 3 & 7 in (4, 5)
    if body[0] in (0xE9, 0xEB) or body[0] & 0xF0 == 0x70 or 0xE0 <= body[0] <= 0xE3 or body[:1] == b"\x0f":
        jump = body[0] != 0x0F or body[1] & 0xF0 == 0x80
        distance = int.from_bytes(body[1 if len(body) == 2 else -4 :], "little", signed=True)
        return jump and not 0 <= behind + distance < end
    # a call, a trap or hlt may end a function that never returns; whatever else does goes on behind it
    return last and body[0] not in (0xE8, 0xCC, 0xF4) and body[:2] != b"\x0f\x0b"


def _instruction(code: bytes, start: int) -> tuple[int, bool]:
    """(bytes of the instruction at `start`, 0 for none that is known; whether it is on wide registers). An IndexError
    where it goes on behind the end."""
    at, short = start, False
    while code[at] in PREFIXES:
        short |= code[at] == 0x66
        at += 1
    long = code[at] & 0xF8 == 0x48
    at += code[at] & 0xF0 == 0x40
    opcode = code[at]
    if opcode in (VEX2, VEX3, EVEX):
        return _vector_instruction(code, start, at)
    kind, at = ONE[opcode], at + 1
    if opcode == 0x0F:
        kind, at = TWO[code[at]], at + 1
        if code[at - 1] in (0x38, 0x3A):
            kind, at = "m" if code[at - 1] == 0x38 else "B", at + 1
    if kind == "x":
        return 0, False
    if kind in "mBDTU":
        operation = code[at] >> 3 & 7
        at = _behind_operands(code, at)
        kind = {"m": "-", "B": "b", "D": "d", "T": "b" if operation < 2 else "-", "U": "d" if operation < 2 else "-"}[
            kind
        ]
    number = {"-": 0, "b": 1, "w": 2, "e": 3, "j": 4, "d": 2 if short else 4, "o": 8}
    at += (8 if long else number["d"]) if kind == "q" else number[kind]
    return at - start, False


def _vector_instruction(code: bytes, start: int, at: int) -> tuple[int, bool]:
    """The same for one with a VEX or EVEX prefix at `at`."""
    prefix, opmap = code[at], 1 if code[at] == VEX2 else code[at + 1] & (0x1F if code[at] == VEX3 else 7)
    length = code[at + {VEX2: 1, VEX3: 2, EVEX: 3}[prefix]]
    wide = bool(length & 0x70) if prefix == EVEX else bool(length & 4)  # EVEX: rounding stands for 512 bits, too
    at += {VEX2: 2, VEX3: 3, EVEX: 4}[prefix]
    kind = {1: TWO[code[at]], 3: "B"}.get(opmap, "m")
    at += 1
    if kind in "mB":
        at = _behind_operands(code, at) + (kind == "B")
    return (at - start if kind in "mB-" else 0), wide


def _behind_operands(code: bytes, at: int) -> int:
    """Where the operands end that begin with the modrm byte at `at`."""
    mode, memory = code[at] >> 6, code[at] & 7
    at += 1
    if mode == 3:
        return at
    if memory == 4:
        at += 1
        if mode == 0 and code[at - 1] & 7 == 5:
            return at + 4
    elif mode == 0 and memory == 5:
        return at + 4
    return at + (0, 1, 4)[mode]
