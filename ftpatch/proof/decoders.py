"""Two decoders for the few instructions that a patch writes: capstone, and the tables of `arch` for the proof."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch import Arch, constants
from ftpatch.arch.proof_tables import tables_of
from ftpatch.arrays import I64, U8, U32
from ftpatch.elf.image import Image

FAR = 1 << 40  # an address of no meaning, so that capstone's targets are distances


@dataclass(frozen=True)
class Seen:
    """What two decoders see in rows of words."""

    kind: U8  # of the last word: NONE, JUMP or CALL
    distance: I64  # bytes from the last word to where it goes
    why: tuple[str, ...]  # the decoders disagree, or one of them knows another instruction; empty: all is well


def branches(arch: Arch, words: U32) -> tuple[U8, I64]:
    """(what each word is, bytes to where it goes), by its bits."""
    return tables_of(arch).branches(words)


def branch_targets(image: Image, va: I64) -> I64:
    """va where the direct branch at each va goes."""
    words = image.words(*image.place(va.view(np.uint64)), 0, 1)[:, 0]
    return va + branches(image.arch, words)[1]


def both(arch: Arch, words: U32) -> Seen:
    """What two decoders see in rows of words, of which the last is a direct branch and the others are known ones."""
    kind, distance = branches(arch, words[:, -1])
    texts, mnemonic = tables_of(arch).texts, {0: "?", **tables_of(arch).mnemonics}
    # Branches are relative, so that a word means the same in every row: each is decoded once.
    plain, of_plain = np.unique(words[:, :-1], return_inverse=True)
    last, of_last = np.unique(words[:, -1], return_inverse=True)
    plain_text = [f"{name} {operands}".strip() for name, operands, _ in _capstone(arch, plain)]
    sound = np.array([text == texts.get(word) for text, word in zip(plain_text, plain.tolist(), strict=True)], bool)
    seen = _capstone(arch, last)
    own_kind, own_distance = (column.tolist() for column in branches(arch, last))
    agree = [(name, distance) == (mnemonic[own], own_far) for (name, _, distance), own, own_far in zip(
             seen, own_kind, own_distance, strict=True)]  # fmt: skip
    of_plain = of_plain.reshape(words[:, :-1].shape)
    right = sound[of_plain].all(axis=1) & np.array(agree, dtype=bool)[of_last.reshape(-1)]
    why = [""] * len(words)
    for row in np.flatnonzero(~right).tolist():
        name, _, far = seen[int(of_last.reshape(-1)[row])]
        text = [*(plain_text[at] for at in of_plain[row].tolist()), name]
        wanted = [*(texts.get(word, f"{word:#010x}") for word in words[row, :-1].tolist()), mnemonic[int(kind[row])]]
        why[row] = (f"a branch by {far:+#x} (capstone), {int(distance[row]):+#x} (own decoder)" if text == wanted else
                    f"{'; '.join(text) or 'no instruction'} (capstone), {'; '.join(wanted)} (own decoder)")  # fmt: skip
    return Seen(kind, distance, tuple(why))


def _capstone(arch: Arch, words: U32) -> list[tuple[str, str, int]]:
    """By capstone, per word: mnemonic, operands, and for a direct branch the bytes to where it goes."""
    import capstone

    engine, direct = capstone.Cs(*constants(capstone, arch.capstone)), set(tables_of(arch).mnemonics.values())
    engine.skipdata = True  # a word that is no instruction is one step, too
    rows = []
    for at, _, name, operands in engine.disasm_lite(words.astype("<u4").tobytes(), FAR):
        rows.append((name, operands, int(operands.removeprefix("#"), 0) - at if name in direct else 0))
    return rows
