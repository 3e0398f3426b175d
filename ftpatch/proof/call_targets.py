"""What a call in a linked kernel leads to: one of the kernel's entries, a thunk, a far stub, or other code.

thunk   [bti c] adrp xN, ops; add xN, xN, #lo12; b entry behind its load       arm64: brings the ops in a register
veneer  adrp x16, any of these; add x16, x16, #lo12; br x16                    arm64: beyond the reach of a call
far     ld r12,K(r13); addis r12,r12,X; addi r12,r12,Y; mtctr r12; bctr        ppc64le: X:Y is relative to the TOC

All are read from their bits. Code of any other kind must begin a function and keep the contract of a patch site.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ftpatch.arch.parts import Entry
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.init_text import in_init_text
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.proof.case import Case
from ftpatch.sites.scan import Scan

READ = 64  # words of an entry that are read
MIN_OPS = 8  # bytes of an ftrace_ops at the least: the pointer to its function
AREA = 20  # bytes that the kernel writes into a trampoline area of its own
NO_LOAD = Entry(False)
VENEER = 12  # bytes


@dataclass(frozen=True)
class CallTarget:
    """Where a call ends."""

    target: int  # va
    name: str
    entry: Entry = NO_LOAD  # what the code there reads first
    ops: int | None = None  # va of the ops object that a thunk brings
    behind: int = 0  # va in the target where a thunk enters it
    shared: tuple[tuple[int, int], ...] = ()  # va and bytes of the stubs in between
    why: str = ""  # a reason against it
    doubt: str = ""  # a reason that --force-target overrides
    freed: bool = False  # whether the target is init text


@dataclass
class CallTargets:
    """The call targets in one of the two files, each looked at once."""

    case: Case
    out_of_line: bool
    side: Scan
    _known: dict[int, CallTarget] = field(default_factory=dict)
    _freed: dict[int, bool] = field(default_factory=dict)
    _ops: dict[int, str] = field(default_factory=dict)

    @property
    def image(self) -> Image:
        return self.side.image

    @property
    def library(self) -> bool:
        """Whether sites call as any code calls a function of C."""
        shape = self.case.before.sites.shape or self.case.after.sites.shape
        return shape is not None and shape.library

    def at(self, va: int) -> CallTarget:
        """What stands at `va`."""
        if va not in self._known:
            self._known[va] = self._read(va)
        return self._known[va]

    def entries(self) -> dict[int, str]:
        """The kernel's own entries: va → name."""
        values = {name: self.image.symbols.value(name) for name in self.side.arch.entries}
        return {va: name for name, va in values.items() if va is not None}

    def _read(self, va: int) -> CallTarget:
        own = self.entries()
        if va in own:
            return CallTarget(va, own[va], self.side.arch.read_entry(self.image.code(va, READ)), freed=self.freed(va))
        for read in (self._thunk, self._far, self._veneer):
            target = read(va, own)
            if target is not None:
                return target
        return self._code(va)

    def _code(self, va: int) -> CallTarget:
        """Code that is no entry of the kernel's."""
        functions = self.image.functions
        low, high = functions.at(np.array([va], dtype=np.uint64))
        name = self.image.symbols.name(int(functions.row[low[0]])) if low[0] < high[0] else f"{va:#x}"
        entry = self.side.arch.read_entry(self.image.code(va, READ))
        if low[0] == high[0]:
            symbols = self.image.symbols  # code in assembly may have a name and no type
            rows = np.flatnonzero((symbols.rows["st_value"] == np.uint64(va)) & (symbols.shndx > 0))
            if not len(rows):
                return CallTarget(va, name, entry, why="where no symbol stands")
            name = symbols.name(int(rows[0]))
        if name in NORETURN:
            return CallTarget(va, name, entry, why=f"{name}, which never returns")
        sites = self.side.sites
        if np.any((sites.row >= 0) & (sites.sec >= 0) & (sites.entry_va == np.uint64(va))):
            return CallTarget(va, name, entry, why="which is itself traced")
        reason = self.side.arch.keeps_contract(self.image.code, va, self.out_of_line, library=self.library)
        doubt = f"which was not shown to keep a site's contract ({reason})" if reason else ""
        return CallTarget(va, name, entry, doubt=doubt, freed=self.freed(va))

    def _thunk(self, va: int, own: dict[int, str]) -> CallTarget | None:
        read = self.case.tables.thunk
        thunk = read(self.words(va, 4), va) if read else None
        for entry_va, name in own.items() if thunk else ():
            entry = self.side.arch.read_entry(self.image.code(entry_va, READ))
            if thunk and entry.literal and thunk.target == entry_va + entry.resume:
                right = thunk.register == entry.register
                why = "" if right else f"by a thunk that loads x{thunk.register}, where {name} reads x{entry.register}"
                return CallTarget(entry_va, name, entry, thunk.ops, thunk.target, ((va, 16),), why or thunk.fault or
                           self.bad_ops(thunk.ops, entry))  # fmt: skip
        return None

    def _veneer(self, va: int, own: dict[int, str]) -> CallTarget | None:
        read = self.case.tables.veneer
        veneer = read(self.words(va, VENEER // 4), va) if read else None
        if veneer is None:
            return None
        if read is not None and read(self.words(veneer.target, VENEER // 4), veneer.target) is not None:
            return CallTarget(veneer.target, f"{veneer.target:#x}", why="by a veneer to another veneer")
        end = self.at(veneer.target)
        why = end.why or veneer.fault or self._no_pad(veneer.target, end.name)
        return replace(end, shared=((va, VENEER), *end.shared), why=why)

    def _no_pad(self, va: int, name: str) -> str:
        """Why a veneer may not enter code in a kernel that guards its indirect jumps; empty where it may."""
        sites, pad = self.case.before.sites, self.case.tables.landing_pad
        if pad is None or sites.shape is None or not sites.shape.skips or not sites.shape.skipped(sites.window).any():
            return ""
        first = self.words(va, 1)
        return "" if first and pad(first[0]) else f"by a veneer to {name}, which begins with no landing pad for it"

    def _far(self, va: int, own: dict[int, str]) -> CallTarget | None:
        far, read = self.side.arch.far, self.case.tables.far
        stub = read(self.words(va, 5)) if read else None
        if far is None or stub is None:
            return None
        toc, first = self.image.symbols.value(far.toc), self.image.symbols.value(self.side.arch.entries[0])
        if toc is None or first is None:
            return None
        paca = self.side.arch.read_entry(self.image.code(first, READ)).kernel_toc
        target = toc + stub[1]
        end = self.at(target) if target in own else self._code(target)
        why = end.why or ("" if stub[0] == paca else f"by a stub that reads its TOC at {stub[0]}")
        areas = {self.image.symbols.value(name): name for name in far.areas}
        if va in areas and target != max(own, key=lambda one: self.side.arch.entries.index(own[one])):
            why = why or f"by {areas[va]}, which the kernel overwrites with a jump to its last entry"
        return CallTarget(target, end.name, end.entry, shared=((va, AREA),), why=why, doubt=end.doubt, freed=end.freed)

    def freed(self, va: int) -> bool:
        """Whether code is init text; asked once for each stub, which tens of thousands of sites may share."""
        if va not in self._freed:
            self._freed[va] = bool(in_init_text(self.image, np.array([va], dtype=np.uint64))[0])
        return self._freed[va]

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
        from ftpatch.kernel.ftrace_ops import why_no_ops  # loaded only where sites have ops

        why = [why_no_ops(image, at) for at in row.tolist()]
        if all(why):
            return f"with ops at {va:#x}, {symbols.name(int(row[0]))}: {why[0]}"
        return ""
