"""The patch sites of one file: where each one is, which function it belongs to, what code is there, in which state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ftpatch.arch.shape import MATCH_ARMED, MATCH_HALF, MATCH_NEW, MATCH_OLD, MATCH_PADDED, Shape
from ftpatch.arrays import I64, U8, U32, U64, Mask, is_in
from ftpatch.elf.image import Image
from ftpatch.sites.entries import Entries
from ftpatch.sites.jumps import Jumps, JumpTarget, marks

STATUSES = (
    "ready", "enabled", "half", "null", "weak-leftover", "outside-text", "unexpected", "stripped", "unnamed",
    "unrecorded", "armed", "padding", "off",
)  # fmt: skip
READY, ENABLED, HALF, NULL, LEFTOVER, OUTSIDE, UNEXPECTED, STRIPPED, UNNAMED, UNRECORDED, ARMED, PADDED, OFF = range(13)
# calls of the profiling function that no record names, and what is left of such a call that was made a NOP
UNLISTED = (UNRECORDED, OFF)
# sites as the compiler left them at the entry of no function symbol: left of an overridden weak function, its symbol
# stripped, or one of the two
NAMELESS = (LEFTOVER, STRIPPED, UNNAMED)
UNTOUCHED = (READY, *NAMELESS)
# of sites where one may be, by what the code there shows
OF_MATCH = {MATCH_OLD: READY, MATCH_NEW: ENABLED, MATCH_HALF: HALF, MATCH_ARMED: ARMED, MATCH_PADDED: PADDED}


@dataclass(frozen=True, eq=False, repr=False)
class SiteTable:
    """One row per slot of the record table, in its order; then one per site without a record."""

    image: Image
    shape: Shape | None  # the layout of all sites; None where there is no site to tell it
    forced: str | None  # the layout's name where a user gave it
    row: I64  # slot number; −1 without a record
    sec: I64  # section of the record, or of where it would be; −1 for null slots
    off: I64  # byte offset of that place
    window: U32  # (n, …) units of code around the record, see `Shape.first`
    func: I64  # index in `image.functions` of the first symbol at the function's entry
    func_end: I64  # behind the last; equal to the first: none
    status: U8  # index into STATUSES
    site: I64  # bytes from the record to the first byte to rewrite
    redirected: Mask  # enabled sites that do not call, but jump to another function, which takes their place

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def va(self) -> U64:
        """va of the record; 0 for null rows."""
        return self.image.va(self.sec, self.off)

    @cached_property
    def body_va(self) -> U64:
        """va of the first word that enabling rewrites."""
        return self.va + self.site.view(np.uint64)

    @cached_property
    def branch_va(self) -> U64:
        """va of the call; of a redirected site's jump."""
        return self.body_va + np.where(self.redirected, 0, self.shape.call_at if self.shape else 0).astype(np.uint64)

    @cached_property
    def entry_va(self) -> U64:
        """va of the function's symbol; of the record where no symbol starts there."""
        return self._of_function(self.image.functions.va)

    @cached_property
    def local_va(self) -> U64:
        """va of the function's local entry, which differs from its symbol on ppc64 only."""
        return self._of_function(self.image.functions.local)

    def _of_function(self, column: U64) -> U64:
        named = self.func < self.func_end
        va = self.va.copy()
        va[named] = column[self.func[named]]
        return va

    @cached_property
    def pos(self) -> I64:
        """File position of the first word that enabling rewrites; −1 where there is none."""
        return self.image.pos(self.sec, self.off + self.site)

    @cached_property
    def entries(self) -> Entries:
        """Which sites belong to which functions."""
        return Entries(self.image.functions, self.func, self.func_end)

    @cached_property
    def redirects(self) -> dict[int, JumpTarget]:
        """Where each redirected site leads, by its index."""
        index = np.flatnonzero(self.redirected)
        if not len(index):
            return {}
        off, at_mark = self.off[index] + self.site[index], is_in(self.entry_va[index], marks(self.image)).tolist()
        targets: dict[int, JumpTarget] = {}
        found = Jumps(self.image).targets_of(self.sec[index], off, self.body()[index])
        for site, target, marked in zip(index.tolist(), found, at_mark, strict=True):
            assert target is not None  # that is what told the site
            targets[site] = target._replace(sure=target.sure or marked)
        return targets

    def body(self) -> U32:
        """(n, words) that enabling rewrites, as found."""
        return self.shape.body(self.window) if self.shape else self.window[:, :0]

    def name(self, index: int) -> str | None:
        """The function's name as kallsyms would choose it; None for a site without one."""
        if self.func[index] == self.func_end[index]:
            return None
        return self.image.symbols.name(int(self.image.functions.row[self.func[index]]))

    def aliases(self, index: int) -> list[str]:
        """The other function symbols at the same entry."""
        rows = self.image.functions.row[self.func[index] + 1 : self.func_end[index]]
        return [self.image.symbols.name(int(row)) for row in rows]

    def place_text(self, index: int) -> str:
        """`.text+0x1234` of the first word to rewrite."""
        sec = int(self.sec[index])
        return f"{self.image.names[sec]}+{int(self.off[index]) + int(self.site[index]):#x}" if sec >= 0 else "nowhere"

    def stub_text(self, index: int) -> str:
        """Where the stub lies that a redirected site's jump goes through: its va, or `section+0x10`; "" without one."""
        through = self.redirects[index].through
        if through is None or self.image.linked:
            return "" if through is None else f"0x{through:016x}"
        sec, off = self.image.place(np.array([through], dtype=np.uint64))
        return f"{self.image.names[int(sec[0])]}+{int(off[0]):#x}"

    def calls_another(self, index: int) -> str:
        """Of a relocatable file's site that only its relocation tells from an untouched one: the function that it
        should call; "" for others."""
        if self.shape is None or self.image.linked or self.status[index] != UNEXPECTED or not self.shape.called:
            return ""
        body, named = self.shape.body(self.window[index : index + 1]), self.func[index] < self.func_end[index]
        return self.shape.called if named and bool(self.shape.branch.ends(body)[0]) else ""

    def words_text(self, index: int) -> list[str]:
        """The code from the record to the end of the call: its words, or all its bytes in one string."""
        if self.shape is None or self.sec[index] < 0:
            return []
        site, shape = int(self.site[index]) // self.shape.unit, self.shape
        shown = self.window[index : index + 1, min(0, site) - shape.first : site + len(shape.old) - shape.first]
        return self.image.arch.code_words(shown[0])
