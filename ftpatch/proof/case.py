"""What is being proven: two files as they were read, and what was found out about the way from one to the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import I64, Mask
from ftpatch.elf.image import Image
from ftpatch.proof.emulate.expectation import Claim
from ftpatch.proof.emulate.memory import Memory
from ftpatch.sites.records import RecordTable
from ftpatch.sites.table import SiteTable

if TYPE_CHECKING:
    from ftpatch.proof.pairs import Pairs

MOST = 1000  # findings of one rule that are kept one by one; the rest is a count


@dataclass(frozen=True)
class Finding:
    """Something that does not hold: rule, one sentence, and as much of the place as is known.

    offset: in the section; pos: in the ELF file; count: how many findings this one stands for.
    """

    rule: str
    message: str
    function: str | None = None
    row: int | None = None
    section: str | None = None
    offset: int | None = None
    pos: int | None = None
    count: int = 1


@dataclass(frozen=True)
class Side:
    """One of the two files, read from zero."""

    image: Image
    records: RecordTable
    sites: SiteTable


@dataclass(frozen=True)
class Owned:
    """Bytes that may differ: where, how many from each position, and what they are."""

    kind: str
    pos: I64
    width: int


@dataclass
class Case:
    """before, after: the two files. The rest is collected by the checks.

    dropped: file positions of sites whose records a journal says leave although their code stays, None without one;
    keeps: whether a journal says that records stay on purpose. pairs: the sites of both files. claims: what is to be
    seen when sites are executed, in `memory` for modules; unclaimed: why one run cannot show it, for others.
    """

    arch: Arch
    before: Side
    after: Side
    dropped: I64 | None = None
    keeps: bool = False
    findings: list[Finding] = field(default_factory=list)
    owned: list[Owned] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    claims: list[Claim] = field(default_factory=list)
    unclaimed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pairs: Pairs | None = None
    memory: Memory | None = None
    _more: Counter[str] = field(default_factory=Counter)

    def say(
        self, rule: str, message: str, *, function: str | None = None, row: int | None = None, sec: int | None = None,
        off: int | None = None, pos: int | None = None,
    ) -> None:  # fmt: skip
        """Add a finding; sec, off, pos: where, in the file that was patched."""
        self._more[rule] += 1
        if self._more[rule] > MOST:
            return
        names = self.after.image.names
        section = names[sec] if sec is not None and 0 <= sec < len(names) else None
        if section is None and pos is not None:
            section, off = section_at(self.after.image, pos)
        self.findings.append(Finding(rule, message, function, row, section, off, pos))

    def own(self, kind: str, pos: I64 | Sequence[int], width: int) -> None:
        """These bytes may differ."""
        places = np.asarray(pos, dtype=np.int64)
        if len(places) and width:
            self.owned.append(Owned(kind, places, width))

    def all_findings(self) -> tuple[Finding, ...]:
        """The findings by rule, in the order in which the rules were first broken; what was too much is one more."""
        order = list(dict.fromkeys(one.rule for one in self.findings))
        found = [one for rule in order for one in self.findings if one.rule == rule]
        extra = [Finding(rule, f"{n - MOST} more of this kind", count=n - MOST) for rule, n in self._more.items()
                 if n > MOST]  # fmt: skip
        return tuple(found + extra)


def section_at(image: Image, pos: int) -> tuple[str | None, int | None]:
    """Name of the section whose bytes lie at a file position, and the offset in it; None where there is none."""
    start = image.shdr["sh_offset"].astype(np.int64)
    size = image.shdr["sh_size"].astype(np.int64)
    inside: Mask = image.has_bytes & (start <= pos) & (pos < start + size)
    if not inside.any():
        return None, None
    sec = int(np.argmax(inside))
    return image.names[sec] or str(sec), pos - int(start[sec])
