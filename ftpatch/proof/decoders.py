"""Two decoders for the few instructions that a patch writes: capstone, and the tables of `arch` for the proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftpatch.arch import Arch, constants
from ftpatch.arch.proof_tables import tables_of
from ftpatch.arrays import I64, U8, U32
from ftpatch.elf.image import Image

FAR = 1 << 40  # an address of no meaning, so that capstone's targets are distances


@dataclass(frozen=True)
class Seen:
    """What two decoders see in rows of code."""

    kind: U8  # of the last instruction: NONE, JUMP or CALL
    distance: I64  # bytes from the last instruction to where it goes
    why: tuple[str, ...]  # the decoders disagree, or one of them knows another instruction; empty: all is well


def branches(arch: Arch, code: U32) -> tuple[U8, I64]:
    """(what each instruction is, bytes to where it goes), by its bits. code: words, or a row of bytes for each."""
    return tables_of(arch).branches(code)


def branch_targets(image: Image, va: I64) -> I64:
    """va where the direct branch at each va goes."""
    n = image.arch.call.n_units
    units = image.words(*image.place(va.view(np.uint64)), 0, n)
    return va + branches(image.arch, units[:, 0] if n == 1 else units)[1]


def starts(arch: Arch, code: U32) -> I64:
    """Index of the first unit of each instruction in a run of code."""
    if arch.unit > 1:
        return np.arange(len(code))
    content = code.astype(np.uint8).tobytes()
    return np.array([at - FAR for at, *_ in _engine(arch).disasm_lite(content, FAR)], dtype=np.int64)


def direct_branches(arch: Arch, code: U32) -> list[tuple[int, int]]:
    """(byte offset, JUMP or CALL) of each direct branch in a run of code."""
    at, n = starts(arch, code), arch.call.n_units
    rows = np.concatenate([code, np.zeros(n, np.uint32)])[at[:, None] + np.arange(n)]
    kind = branches(arch, rows[:, 0] if n == 1 else rows)[0]
    return [(arch.unit * int(at[number]), int(kind[number])) for number in np.flatnonzero(kind).tolist()]


def conditional(arch: Arch, code: U32) -> bool:
    """Whether a run of code has a branch with a condition."""
    return any(map(tables_of(arch).conditional, code[starts(arch, code)].tolist()))


def both(arch: Arch, code: U32) -> Seen:
    """What two decoders see in rows of code, of which the last instruction is a direct branch.

    The words in front of it are known ones; where instructions are bytes and not words, they were compared as such.
    """
    n = arch.call.n_units
    front, last = (code[:, :-1], code[:, -1]) if n == 1 else (code[:, :0], code[:, -n:])
    kind, distance = branches(arch, last)
    texts, mnemonic = tables_of(arch).texts, {0: "?", **tables_of(arch).mnemonics}
    # Branches are relative, so that an instruction means the same in every row: each is decoded once.
    plain, of_plain = np.unique(front, return_inverse=True)
    numbers = last if n == 1 else arch.numbers(last)[:, 0]
    _, first, of_last = np.unique(numbers, return_index=True, return_inverse=True)
    also = tables_of(arch).also
    seen_text = (f"{name} {operands}".strip() for name, operands, _ in _capstone(arch, plain))
    plain_text = [also.get(text, text) for text in seen_text]
    sound = np.array([text == texts.get(word) for text, word in zip(plain_text, plain.tolist(), strict=True)], bool)
    seen = _capstone(arch, last[first])
    own_kind, own_distance = kind[first].tolist(), distance[first].tolist()
    agree = [(name, distance) == (mnemonic[own], own_far) for (name, _, distance), own, own_far in zip(
             seen, own_kind, own_distance, strict=True)]  # fmt: skip
    of_plain = of_plain.reshape(front.shape)
    right = sound[of_plain].all(axis=1) & np.array(agree, dtype=bool)[of_last.reshape(-1)]
    why = [""] * len(code)
    for row in np.flatnonzero(~right).tolist():
        name, _, far = seen[int(of_last.reshape(-1)[row])]
        text = [*(plain_text[at] for at in of_plain[row].tolist()), name]
        wanted = [*(texts.get(word, f"{word:#010x}") for word in front[row].tolist()), mnemonic[int(kind[row])]]
        why[row] = (f"a branch by {far:+#x} (capstone), {int(distance[row]):+#x} (own decoder)" if text == wanted else
                    f"{'; '.join(text) or 'no instruction'} (capstone), {'; '.join(wanted)} (own decoder)")  # fmt: skip
    return Seen(kind, distance, tuple(why))


def whole(arch: Arch, code: U8) -> int:
    """How many bytes of a run of code are whole instructions, from its beginning on."""
    import capstone

    engine = capstone.Cs(*constants(capstone, arch.capstone))
    return sum(size for _, size, _, _ in engine.disasm_lite(code.tobytes(), 0))


def _capstone(arch: Arch, code: U32) -> list[tuple[str, str, int]]:
    """By capstone, per instruction: mnemonic, operands, and for a direct branch the bytes to where it goes."""
    direct = set(tables_of(arch).mnemonics.values())
    rows = []
    for at, _, name, operands in _disassembled(arch, code):
        goes_to = operands.removeprefix("#") if name in direct else ""
        rows.append((name, operands, int(goes_to, 0) - at if goes_to[:1].isdigit() else 0))
    return rows


def _engine(arch: Arch) -> Any:
    import capstone

    engine = capstone.Cs(*constants(capstone, arch.capstone))
    engine.skipdata = True  # what is no instruction is one step, too
    return engine


def _disassembled(arch: Arch, code: U32) -> Iterator[tuple[int, int, str, str]]:
    """(address, size, mnemonic, operands) of each instruction."""
    engine = _engine(arch)
    if arch.call.n_units == 1:
        yield from engine.disasm_lite(code.astype("<u4").tobytes(), FAR)
        return
    for row in code.astype(np.uint8):  # each by itself: of another length it would shift all that follow
        for at, size, name, operands in engine.disasm_lite(row.tobytes(), FAR, 1):
            name = "no instruction" if name == ".byte" else name if size == len(row) else f"{name} of {size} bytes"
            yield at, size, name, operands
