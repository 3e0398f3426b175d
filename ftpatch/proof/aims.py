"""What a call in a linked kernel leads to: one of the kernel's entries, a thunk, a far stub, or other code.

thunk   [bti c] adrp xN, ops; add xN, xN, #lo12; b entry behind its load       arm64: brings the ops in a register
far     ld r12,K(r13); addis r12,r12,X; addi r12,r12,Y; mtctr r12; bctr        ppc64le: X:Y is relative to the TOC

Both are read from their bits. Code of any other kind must begin a function and keep the contract of a patch site.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch import Arch, Entry
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.proof.case import Case
from ftpatch.proof.decoders import JUMP, branches
from ftpatch.sites.scan import Scan

READ = 64  # words of an entry that are read
BTI_C, ADRP, ADD = 0xD503_245F, 0x9000_0000, 0x9100_0000
ERRATUM_843419 = (0xFF8, 0xFFC)  # offsets in a page where an ADRP may misbehave on Cortex-A53
LD_R12, ADDIS_R12, ADDI_R12, MTCTR_R12, BCTR = 0xE98D_0000, 0x3D8C_0000, 0x398C_0000, 0x7D89_03A6, 0x4E80_0420
MIN_OPS = 8  # bytes of an ftrace_ops at the least: the pointer to its function
AREA = 20  # bytes that the kernel writes into a trampoline area of its own
NO_LOAD = Entry(False)


@dataclass(frozen=True)
class Aim:
    """Where a call ends."""

    target: int  # va
    name: str
    entry: Entry = NO_LOAD  # what the code there reads first
    ops: int | None = None  # va of the ops object that a thunk brings
    behind: int = 0  # va in the target where a thunk enters it
    shared: tuple[int, int] | None = None  # va and bytes of the stub in between
    why: str = ""  # a reason against it
    doubt: str = ""  # a reason that --force-target overrides


@dataclass
class Aims:
    """The aims of one of the two files, each looked at once."""

    case: Case
    out_of_line: bool
    side: Scan
    _known: dict[int, Aim] = field(default_factory=dict)
    _ops: dict[int, str] = field(default_factory=dict)

    @property
    def image(self) -> Image:
        return self.side.image

    @property
    def arch(self) -> Arch:
        return self.case.arch

    def aim(self, va: int) -> Aim:
        """What stands at `va`."""
        if va not in self._known:
            self._known[va] = self._read(va)
        return self._known[va]

    def entries(self) -> dict[int, str]:
        """The kernel's own entries: va → name."""
        found = {name: self.image.symbols.value(name) for name in self.arch.entries}
        return {va: name for name, va in found.items() if va is not None}

    def _read(self, va: int) -> Aim:
        own = self.entries()
        if va in own:
            return Aim(va, own[va], self.arch.read_entry(self.image.code(va, READ)))
        for read in (self._thunk, self._far):
            found = read(va, own)
            if found is not None:
                return found
        return self._code(va)

    def _code(self, va: int) -> Aim:
        """Code that is no entry of the kernel's."""
        functions = self.image.functions
        low, high = functions.at(np.array([va], dtype=np.uint64))
        name = self.image.symbols.name(int(functions.row[low[0]])) if low[0] < high[0] else f"{va:#x}"
        entry = self.arch.read_entry(self.image.code(va, READ))
        if low[0] == high[0]:
            symbols = self.image.symbols  # code in assembly may have a name and no type
            rows = np.flatnonzero((symbols.rows["st_value"] == np.uint64(va)) & (symbols.shndx > 0))
            if not len(rows):
                return Aim(va, name, entry, why="where no symbol stands")
            name = symbols.name(int(rows[0]))
        sites = self.side.sites
        if np.any((sites.row >= 0) & (sites.sec >= 0) & (sites.entry_va == np.uint64(va))):
            return Aim(va, name, entry, why="which is itself traced")
        reason = self.arch.keeps_contract(self.image.code, va, self.out_of_line)
        doubt = f"which was not shown to keep a site's contract ({reason})" if reason else ""
        return Aim(va, name, entry, doubt=doubt)

    def _thunk(self, va: int, own: dict[int, str]) -> Aim | None:
        words = [int(word) for word in self.words(va, 4)]
        if self.arch.ops_thunk is None or len(words) < 4 or words[1] & 0x9F00_0000 != ADRP:
            return None
        n = words[1] & 31
        if words[2] & 0xFFC0_0000 != ADD or words[2] & 31 != n or words[2] >> 5 & 31 != n:
            return None
        kind, distance = branches(self.arch.name, np.array(words[3:], dtype=np.uint32))
        to = va + 12 + int(distance[0])
        for entry_va, name in own.items():
            entry = self.arch.read_entry(self.image.code(entry_va, READ))
            if kind[0] == JUMP and entry.literal and to == entry_va + entry.resume:
                why = "" if n == entry.register else f"by a thunk that loads x{n}, where {name} reads x{entry.register}"
                why = why or ("" if words[0] == BTI_C else "by a thunk without a landing pad (bti c)")
                why = why or ("by a thunk whose adrp an erratum may hit" if va + 4 & 0xFFF in ERRATUM_843419 else "")
                ops = formed(words[1], words[2], va + 4)
                return Aim(entry_va, name, entry, ops, to, (va, 16), why or self.bad_ops(ops, entry))
        return None

    def _far(self, va: int, own: dict[int, str]) -> Aim | None:
        words = [int(word) for word in self.words(va, 5)]
        if self.arch.far is None or len(words) < 5 or (words[3], words[4]) != (MTCTR_R12, BCTR):
            return None
        if words[0] & 0xFFFF_0003 != LD_R12 or words[1] >> 16 != ADDIS_R12 >> 16 or words[2] >> 16 != ADDI_R12 >> 16:
            return None
        toc, first = self.image.symbols.value(self.arch.far.toc), self.image.symbols.value(self.arch.entries[0])
        if toc is None or first is None:
            return None
        paca = self.arch.read_entry(self.image.code(first, READ)).kernel_toc
        target = toc + (low_half(words[1]) << 16) + low_half(words[2])
        found = self.aim(target) if target in own else self._code(target)
        why = found.why or ("" if words[0] & 0xFFFC == paca else f"by a stub that reads its TOC at {words[0] & 0xFFFC}")
        areas = {self.image.symbols.value(name): name for name in self.arch.far.areas}
        if va in areas and target != max(own, key=lambda one: self.arch.entries.index(own[one])):
            why = why or f"by {areas[va]}, which the kernel overwrites with a jump to its last entry"
        return Aim(target, found.name, found.entry, shared=(va, AREA), why=why, doubt=found.doubt)

    def words(self, va: int, n: int) -> list[int]:
        """Words of the file at a va, in gaps between sections too; fewer where there is none."""
        pos, last = self.image.pos_of_va(va), self.image.pos_of_va(va + 4 * n - 1)
        if pos < 0 or last != pos + 4 * n - 1:
            return []
        return [int(word) for word in self.image.word_at(pos + 4 * np.arange(n, dtype=np.int64))]

    def bad_ops(self, va: int, entry: Entry) -> str:
        """Why the object at `va` cannot be the ftrace_ops of a site; empty where it can."""
        if va not in self._ops:
            self._ops[va] = self._bad_ops(va, entry)
        return self._ops[va]

    def _bad_ops(self, va: int, entry: Entry) -> str:
        symbols, image = self.image.symbols, self.image
        row = np.flatnonzero((symbols.rows["st_value"] == np.uint64(va)) & (symbols.type == t.STT_OBJECT))
        size = int(symbols.rows["st_size"][row].max()) if len(row) else 0
        if size < max(entry.direct_call + 8, MIN_OPS):
            return f"with ops at {va:#x}, where no object of at least {entry.direct_call + 8} bytes is"
        sec, _ = image.place(np.array([va], dtype=np.uint64))
        if sec[0] < 0 or image.executable[sec[0]]:
            return f"with ops at {va:#x}, which is no data"
        return ""


def formed(adrp: int, add: int, va: int) -> int:
    """The address that an ADRP at `va` and an ADD behind it form."""
    pages = (adrp >> 29 & 3) | (adrp >> 5 & 0x7FFFF) << 2
    pages = (pages ^ 1 << 20) - (1 << 20)
    return (va & ~0xFFF) + (pages << 12) + (add >> 10 & 0xFFF) & (1 << 64) - 1


def low_half(word: int) -> int:
    """The immediate in the lower half of a word, with its sign."""
    return (word & 0xFFFF ^ 0x8000) - 0x8000
