"""Two decoders for the few instructions that a patch writes: capstone, and the bits of a branch taken apart here.

Source: Arm ARM (DDI 0487) C6.2 B, BL; Power ISA 3.1, book I, 2.4 (I-form branches).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch import architectures, constants
from ftpatch.arrays import I64, U8, U32

FAR = 1 << 40  # an address of no meaning, so that capstone's targets are distances
NONE, JUMP, CALL = range(3)
TEXTS = {
    0xD503_201F: "nop", 0xAA1E_03E9: "mov x9, x30", 0xD503_245F: "bti c",
    0x6000_0000: "nop", 0x7C08_02A6: "mflr r0", 0x7C08_03A6: "mtlr r0",
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """Per row: what its last word is (NONE, JUMP, CALL), bytes to where it goes, and a reason against the row, or
    empty: the decoders disagree, or one of them knows another instruction."""

    kind: U8
    distance: I64
    why: tuple[str, ...]


def branches(arch: str, words: U32) -> tuple[U8, I64]:
    """(what each word is, bytes to where it goes), by its bits."""
    wide = words.astype(np.int64)
    if arch == "arm64":
        kind = np.where(wide >> 26 == 0b000101, JUMP, np.where(wide >> 26 == 0b100101, CALL, NONE))
        distance = ((wide & 0x03FF_FFFF) ^ 0x0200_0000) - 0x0200_0000
        return kind.astype(np.uint8), distance * 4
    relative = (wide >> 26 == 18) & (wide & 2 == 0)
    kind = np.where(relative, np.where(wide & 1, CALL, JUMP), NONE)
    return kind.astype(np.uint8), ((wide & 0x03FF_FFFC) ^ 0x0200_0000) - 0x0200_0000


def both(arch: str, words: U32) -> Seen:
    """What two decoders see in rows of words, of which the last is a direct branch and the others are known ones."""
    kind, distance = branches(arch, words[:, -1])
    texts, targets = _capstone(arch, words)
    names = {JUMP: "b", CALL: "bl", NONE: "?"}
    why = []
    for row, text, target, is_, far in zip(
        words[:, :-1].tolist(), texts, targets.tolist(), kind.tolist(), distance.tolist(), strict=True
    ):
        wanted = [*(TEXTS.get(word, f"{word:#010x}") for word in row), names[is_]]
        if text != wanted:
            why.append(f"{'; '.join(text) or 'no instruction'} (capstone), {'; '.join(wanted)} (own decoder)")
        else:
            why.append("" if target == far else f"a branch by {target:+#x} (capstone), {far:+#x} (own decoder)")
    return Seen(kind, distance, tuple(why))


def _capstone(arch: str, words: U32) -> tuple[list[list[str]], I64]:
    """By capstone, per row: its instructions, the branch by its name alone; bytes to where that goes."""
    import capstone

    mode = constants(capstone, next(one.capstone for one in architectures() if one.name == arch))
    engine, (n, width) = capstone.Cs(*mode), words.shape
    engine.skipdata = True  # a word that is no instruction is one step, too
    found = list(engine.disasm_lite(words.astype("<u4").tobytes(), FAR))
    texts: list[list[str]] = [[] for _ in range(n)]
    distance = np.zeros(n, dtype=np.int64)
    for at, _, mnemonic, operands in found:  # capstone hands out one Python tuple per instruction
        row, column = divmod((at - FAR) // 4, width)
        last = column == width - 1
        texts[row].append(mnemonic if last else f"{mnemonic} {operands}".strip())
        if last and mnemonic in ("b", "bl"):
            distance[row] = int(operands.removeprefix("#"), 0) - at
    return texts, distance
