"""Code as it is and as a plan's edits would make it: one row per instruction, disassembled by capstone.

Where every instruction is a word, each word is a row. On other machines the disassembler tells where the next one
starts, anew from every place that has a name; for a machine that it does not know, a row is all from one such place to
the next, eight bytes at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arch import constants
from ftpatch.arrays import U8
from ftpatch.elf.image import Image
from ftpatch.plan.edits import Edits

if TYPE_CHECKING:
    from ftpatch.document.explained import WordRow

POINTER = 8  # bytes of an ops pointer
LONGEST = 15  # bytes of an instruction, on the machines that are known
MAX_ROW = 8  # bytes of a row that no disassembler divides


def code_rows(
    image: Image, va: int, size: int, edits: Edits | None, names: Mapping[int, str], literal: int | None = None
) -> list[WordRow]:
    """The code of `size` bytes from `va`. names: what places are called; literal: where eight bytes are a pointer."""
    pos = image.pos_of_va(va)
    old = np.array(image.data[pos : pos + size] if pos >= 0 else [], dtype=np.uint8)
    new = old.copy()
    if edits is not None and len(old):
        _overlay(edits, pos, new)
    base = 0 if image.linked else int(image.base[image.place(np.array([va], dtype=np.uint64))[0][0]])
    rows: list[WordRow] = []
    for start, end in _pieces(image, va, old.tobytes(), sorted(names)):
        at, before, after = va + start, old[start:end].tobytes(), new[start:end].tobytes()
        data = literal is not None and literal <= at < literal + POINTER
        text, new_text = ("pointer" if data else disassembled(image, at, code) for code in (before, after))
        changed = before != after
        rows.append(
            {
                "va": f"0x{at - base:016x}", "word": _number(image, before),
                "new_word": _number(image, after) if changed else None,
                "text": text, "new_text": new_text if changed else None, "at": names.get(at) or None,
            }
        )  # fmt: skip
    return rows


def _pieces(image: Image, va: int, code: bytes, marks: list[int]) -> Iterator[tuple[int, int]]:
    """[start, end) of each row, in bytes from `va`. marks: places where a row starts in any case, ascending."""
    unit, start = image.arch.unit, 0
    if unit > 1:
        yield from ((at, at + unit) for at in range(0, len(code) - unit + 1, unit))
        return
    while start < len(code):
        stop = next((mark - va for mark in marks if mark - va > start), len(code))
        size = MAX_ROW
        if image.arch.capstone:
            decoded = _decoded(image, va + start, code[start:])
            if decoded is None and start and stop == len(code) and len(code) - start < LONGEST:
                return  # an instruction that is longer than what is shown
            size = decoded[1] if decoded else 1
        end = min(start + size, stop, len(code))
        yield start, end
        start = end


def _decoded(image: Image, va: int, code: bytes) -> tuple[int, int, str, str] | None:
    """(va, bytes, mnemonic, operands) of the first instruction, by capstone."""
    import capstone

    engine = capstone.Cs(*constants(capstone, image.arch.capstone))
    return next(iter(engine.disasm_lite(code, va, 1)), None)


def disassembly(machine: tuple[str, ...], code: bytes, va: int) -> str:
    """All instructions of some code, on a machine that is named by capstone's constants; "" where it knows none."""
    return "; ".join(text for _, _, text in Disassembler(machine).instructions(code, va))


class Disassembler:
    """Instructions of one machine, for code that no file is at hand of."""

    def __init__(self, machine: tuple[str, ...]) -> None:
        """machine: capstone's constants; none for a machine that it does not know."""
        import capstone

        self._engine = capstone.Cs(*constants(capstone, machine)) if machine else None

    def instructions(self, code: bytes, va: int) -> list[tuple[int, bytes, str]]:
        """(va, bytes, text) of each instruction from the first byte on, as far as the disassembler knows them."""
        if self._engine is None:
            return []
        return [(at, code[at - va : at - va + size], f"{mnemonic} {operands}".strip())
                for at, size, mnemonic, operands in self._engine.disasm_lite(code, va)]  # fmt: skip


def _number(image: Image, code: bytes) -> str:
    """An instruction word as a number; bytes as they lie in the file."""
    return f"0x{int.from_bytes(code, 'little'):08x}" if image.arch.unit > 1 else f"0x{code.hex()}"


def _overlay(edits: Edits, start: int, chunk: U8) -> None:
    """Put what the edits write into the bytes of the file from `start`."""
    for group in edits.groups:
        width = group.new.shape[1]
        for row in np.flatnonzero((group.pos > start - width) & (group.pos < start + len(chunk))).tolist():
            first = int(group.pos[row]) - start
            low, high = max(first, 0), min(first + width, len(chunk))
            chunk[low:high] = group.new[row][low - first : high - first]


def disassembled(image: Image, va: int, code: bytes) -> str:
    """One instruction; a direct branch with the name of where it goes."""
    decoded = _decoded(image, va, code) if image.arch.capstone else None
    if decoded is None:
        return f".word {_number(image, code)}" if image.arch.unit > 1 else f".byte {code.hex(' ')}"
    _, _, mnemonic, operands = decoded
    if mnemonic in image.arch.jumps and image.linked and operands.startswith(("0x", "#0x")):
        target = int(operands.removeprefix("#"), 16)
        name = name_at(image, target)
        return f"{mnemonic} 0x{target:x}" + (f" <{name}>" if name else "")
    if mnemonic in image.arch.jumps[-1:] and not image.linked:
        return f"{mnemonic} (the loader fills in where)"
    return f"{mnemonic} {operands}".strip()


def name_at(image: Image, va: int) -> str:
    """`function` or `function+0x8` of an address; "" where none is known."""
    where = np.array([va], dtype=np.uint64)
    at = int(image.functions.containing(where)[0])
    if at < 0:
        rows = np.flatnonzero((image.symbols.rows["st_value"] == np.uint64(va)) & (image.symbols.shndx > 0))
        names = [image.symbols.name(row) for row in rows.tolist()]
        return next((name for name in names if name and not name.startswith(("$", "."))), "")
    at = int(image.functions.at(image.functions.va[at : at + 1])[0][0])
    off = va - int(image.functions.va[at])
    return image.symbols.name(int(image.functions.row[at])) + (f"+{off:#x}" if off else "")
