"""What ppc64le's instructions do to registers: r0–r31 are 0–31, f0–f31 (vs0–vs31) are 32–63, v0–v31 are 64–95.

capstone does not tell that for this machine, so that the usual instructions of compiled code are told here, by their
words; behind any other nothing is known. r2 and r13 are left out, and r11 and r12, which a linker's stub changes; so
are LR, CTR and condition fields.
Source: Power ISA 3.1, book I; ELFv2 ABI, 2.2.1.
"""

from __future__ import annotations

from ftpatch.arch.contract import signed
from ftpatch.arch.register_use import CallerRegisters, Decoded, Use, bits

FLOATS, VECTORS = 32, 64
REGISTERS = CallerRegisters(
    names=(*(f"r{n}" for n in range(32)), *(f"f{n}" for n in range(32)), *(f"v{n}" for n in range(32))),
    lost=bits((0, *range(3, 11), *range(32, 46), *range(64, 84))),
    results=((3, bits([4])), (33, bits(range(34, 41))), (66, bits(range(67, 74)))),
    site=1 << 0,  # mflr r0
    promised=bits(range(3, 11)),
    hooked=bits((*range(3, 11), *range(33, 46), *range(66, 78))),
    arguments=bits((*range(3, 11), *range(33, 46), *range(66, 78))),
)
BY_CAPSTONE = False
# Primary opcodes of loads and stores with a displacement: (float, store, update)
MEMORY = {
    32: "", 33: "u", 34: "", 35: "u", 36: "s", 37: "su", 38: "s", 39: "su", 40: "", 41: "u", 42: "", 43: "u", 44: "s",
    45: "su", 48: "f", 49: "fu", 50: "f", 51: "fu", 52: "fs", 53: "fsu", 54: "fs", 55: "fsu",
}  # fmt: skip
ADDING = (7, 8, 12, 13, 14, 15)  # rt ← ra, number; 14 and 15 take 0 for r0
LOGICAL = (24, 25, 26, 27, 28, 29)  # ra ← rs, number
COMPARING = (10, 11)
# Extended opcodes of 31: rt ← ra, rb; without the overflow bit
OF_TWO = (8, 10, 40, 136, 138, 9, 11, 73, 75, 233, 235, 457, 459, 489, 491, 266, 393, 395, 425, 427, 265, 267, 777, 779)
OF_ONE = (104, 200, 202, 232, 234)  # rt ← ra
LOGICAL_OF_TWO = (28, 60, 124, 284, 316, 412, 444, 476, 24, 27, 536, 539, 792, 794)  # ra ← rs, rb
LOGICAL_OF_ONE = (26, 58, 824, 826, 827, 922, 954, 986, 506, 378, 122, 186, 154)  # ra ← rs
INDEXED_LOADS, INDEXED_STORES = (21, 23, 87, 279, 341, 343, 533, 534, 790), (149, 151, 215, 407, 661, 662, 918)
COMPARING_OF_TWO = (0, 32)


def use(code: bytes, va: int, seen: Decoded | None) -> Use | None:
    """What the instruction at `va` does; None where that is not known."""
    word = int.from_bytes(code[:4], "little")
    opcode, rt, ra, rb = word >> 26, word >> 21 & 31, word >> 16 & 31, word >> 11 & 31
    if len(code) < 4:
        return None
    if opcode in (16, 18):
        return _branch(word, va)
    if opcode == 19:
        return _by_register(word)
    if opcode in MEMORY:
        return _memory(MEMORY[opcode], rt, ra)
    if opcode in (58, 62):  # ld, ldu, lwa; std, stdu
        return _memory(("s" if opcode == 62 else "") + ("u" if word & 3 == 1 else ""), rt, ra) if word & 3 < 3 else None
    if opcode in ADDING:
        return Use(4, bits([ra] if ra or opcode < 14 else []), 1 << rt)
    if opcode in LOGICAL:
        nothing = opcode == 24 and rt == ra and not word & 0xFFFF  # ori ra,ra,0: a NOP
        return Use(4) if nothing else Use(4, 1 << rt, 1 << ra)
    if opcode in COMPARING:
        return Use(4, 1 << ra)
    if opcode in (20, 21, 23):  # rlwimi keeps bits of ra
        return Use(4, bits([rt, *([ra] if opcode == 20 else []), *([rb] if opcode == 23 else [])]), 1 << ra)
    if opcode == 30:  # rotates of doublewords; the last two by a register, rldimi keeps bits of ra
        return Use(4, bits([rt, *([ra] if word >> 2 & 7 == 3 else []), *([rb] if word >> 4 & 1 else [])]), 1 << ra)
    if opcode in (59, 63):
        return _floating(word)
    return _extended(word) if opcode == 31 else None


def _branch(word: int, va: int) -> Use:
    """b, bl, and with a condition."""
    conditional = word >> 26 == 16
    distance = signed(word & 0xFFFC, 16) if conditional else signed(word & 0x03FF_FFFC, 26)
    to = None if word & 2 else (va + distance) & (1 << 64) - 1
    if word & 1:
        return Use(4, flow="call", to=to)
    return Use(4, flow="branch" if conditional else "jump" if to is not None else "end", to=to)


def _by_register(word: int) -> Use | None:
    """Returns, jumps and calls through LR and CTR; what only changes the condition register."""
    extended = word >> 1 & 0x3FF
    if extended in (16, 528):
        always = word >> 21 & 0b10100 == 0b10100
        if word & 1:
            return Use(4, flow="call")
        return Use(4, flow="on" if not always else "return" if extended == 16 else "end")
    return Use(4) if extended in (0, 33, 129, 150, 193, 225, 257, 289, 417, 449) else None


def _memory(kind: str, rt: int, ra: int) -> Use:
    """A load or store by a base and a displacement."""
    held = 1 << rt + (FLOATS if "f" in kind else 0)
    base = bits([ra] if ra else [])
    moved = base if "u" in kind else 0
    return Use(4, base | held, moved) if "s" in kind else Use(4, base, held | moved)


def _floating(word: int) -> Use | None:
    """Arithmetic of one or two numbers, and of three."""
    rt, ra, rb, rc = (FLOATS + (word >> place & 31) for place in (21, 16, 11, 6))
    short, extended = word >> 1 & 31, word >> 1 & 0x3FF
    if short in (28, 29, 30, 31, 23):  # fmsub, fmadd, fnmsub, fnmadd, fsel
        return Use(4, bits((ra, rb, rc)), 1 << rt)
    if short == 25:  # fmul
        return Use(4, bits((ra, rc)), 1 << rt)
    if short in (18, 20, 21):  # fdiv, fsub, fadd
        return Use(4, bits((ra, rb)), 1 << rt)
    if word >> 26 == 63 and extended in (0, 32):  # fcmpu, fcmpo
        return Use(4, bits((ra, rb)))
    one = (12, 14, 15, 40, 72, 136, 264, 814, 815, 846, 942, 943, 974, 392, 424, 456, 488)  # frsp, fmr, fneg, fcfid, …
    return Use(4, 1 << rb, 1 << rt) if extended in one or short in (22, 24, 26) else None


def _extended(word: int) -> Use | None:
    """Opcode 31."""
    rt, ra, rb, extended = word >> 21 & 31, word >> 16 & 31, word >> 11 & 31, word >> 1 & 0x3FF
    base = bits([rb, *([ra] if ra else [])])
    if extended in INDEXED_LOADS:
        return Use(4, base, 1 << rt)
    if extended in INDEXED_STORES:
        return Use(4, base | 1 << rt)
    if extended & 0x1FF in OF_TWO or extended in OF_TWO:
        same = rb == ra and extended & 0x1FF in (40, 8, 136)  # rt ← 0, or all ones
        return Use(4, 0 if same else bits((ra, rb)), 1 << rt)
    if extended & 0x1FF in OF_ONE:
        return Use(4, 1 << ra, 1 << rt)
    if extended in LOGICAL_OF_TWO:
        return Use(4, 0 if extended == 316 and rt == rb else bits((rt, rb)), 1 << ra)
    if extended in LOGICAL_OF_ONE:
        return Use(4, 1 << rt, 1 << ra)
    if extended in COMPARING_OF_TWO:
        return Use(4, bits((ra, rb)))
    if extended in (598, 144):  # sync, mtcrf
        return Use(4, 1 << rt if extended == 144 else 0)
    if extended == 339:  # mfspr
        return Use(4, 0, 1 << rt)
    if extended == 467:  # mtspr
        return Use(4, 1 << rt)
    if extended == 15:  # isel
        return Use(4, base, 1 << rt)
    return Use(4, 0, 1 << rt) if extended == 19 else None  # mfcr
