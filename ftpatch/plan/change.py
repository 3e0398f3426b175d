"""A plan that takes something away or back rather than enabling it: what `drop` and `disable` decide."""

from __future__ import annotations

from dataclasses import dataclass, field

from ftpatch.arrays import I64, U32, Mask
from ftpatch.plan.edits import Edits
from ftpatch.plan.outcome import Fate, Settled
from ftpatch.sites.records import RecordTable
from ftpatch.sites.table import SiteTable


@dataclass(frozen=True)
class Undoing:
    """What the user asks of `drop` and `disable`; `chosen` marks the sites."""

    chosen: Mask
    records: str = "auto"
    skip_unpatchable: bool = False


@dataclass(frozen=True)
class Change:
    """The decision, site by site and byte by byte.

    verb: `drop` or `disable`. reasons: why a chosen site stays, by site index. index: the sites that change; new_words:
    their words afterwards, one row for each, without columns where code stays as it is; fates: what becomes of each
    one's record. gone: slots that leave; sec, off: the places of all records that the kernel will find, in no order.
    """

    verb: str
    table: SiteTable
    records: RecordTable
    chosen: Mask
    reasons: dict[int, str]
    index: I64
    new_words: U32
    fates: tuple[str, ...]
    gone: Mask
    sec: I64
    off: I64
    settled: Settled
    edits: Edits
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def fate(self, at: int) -> Fate:
        """What happens to the at-th changed site."""
        action = "restore" if self.verb == "disable" else "drop"
        return Fate(action, None, None, None, None, None, self.fates[at])
