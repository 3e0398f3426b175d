"""What the instructions of one file do to registers, each decoded once.

capstone tells it for machines whose table says so; for others the table itself does (`arch.registers`).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ftpatch.arch import constants
from ftpatch.arch.register_use import CallerRegisters, Decoded, Use
from ftpatch.arrays import I64
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.errors import ElfError

PIECE = 128  # bytes that are decoded at once
LONGEST = 16  # bytes of an instruction, on any machine


class RegisterReader:
    """Reads instructions of an image. registers: None on machines of which nothing here knows."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self._table: Any = import_module(image.arch.registers) if image.arch.registers else None
        self.registers: CallerRegisters | None = self._table.REGISTERS if self._table is not None else None
        self._engine: Any = None
        self._known: dict[int, Use | None] = {}
        self._relocated: dict[int, I64] = {}

    def at(self, va: int) -> Use | None:
        """What the instruction at an address does; None where that is not known."""
        if va not in self._known:
            self._read(va)
        return self._known[va]

    def _read(self, va: int) -> None:
        """Decode some instructions from an address on."""
        self._known[va] = None
        sec, off = self.image.place(np.array([va], dtype=np.uint64))
        if sec[0] < 0 or not self.image.executable[sec[0]] or self._table is None:
            return
        at = int(off[0])
        code = self.image.content(int(sec[0]))[at : at + PIECE + LONGEST].tobytes()
        if not self._table.BY_CAPSTONE:
            for start in range(0, min(len(code) - 3, PIECE), self.image.arch.unit):
                self._keep(int(sec[0]), at, va, self._table.use(code[start : start + 4], va + start, None), start)
            return
        for seen in self._capstone().disasm(code, va):
            if seen.address - va >= PIECE:
                return
            reads, writes = seen.regs_access()
            names = (tuple(map(seen.reg_name, numbers)) for numbers in (reads, writes))
            decoded = Decoded(seen.size, seen.mnemonic, tuple(filter(None, seen.op_str.split(", "))), *names)
            start = seen.address - va
            octets = code[start : start + seen.size]
            self._keep(int(sec[0]), at, va, self._table.use(octets, seen.address, decoded), start)

    def _keep(self, sec: int, off: int, va: int, use: Use | None, start: int) -> None:
        """Remember an instruction; where a linker will say where a branch goes, its word does not."""
        if use is not None and use.flow in ("jump", "branch") and self._is_relocated(sec, off + start, use.size):
            use = use._replace(flow="end" if use.flow == "jump" else "on", to=None)
        if self._known.get(va + start) is None:
            self._known[va + start] = use

    def _is_relocated(self, sec: int, off: int, size: int) -> bool:
        if self.image.linked:
            return False
        if sec not in self._relocated:
            try:
                self._relocated[sec] = relocations_of(self.image, sec).off
            except ElfError:
                self._relocated[sec] = np.zeros(0, dtype=np.int64)
        low, high = np.searchsorted(self._relocated[sec], [off, off + size])
        return bool(low < high)

    def _capstone(self) -> Any:
        if self._engine is None:
            import capstone

            self._engine = capstone.Cs(*constants(capstone, self.image.arch.capstone))
            self._engine.detail = True
        return self._engine
