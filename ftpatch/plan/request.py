"""A request on its way to a plan."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch import Arch, Shape
from ftpatch.arrays import I64, Mask
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError, ShapeError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan.routes import Slack
from ftpatch.plan.stubasm import Stub
from ftpatch.plan.targets import Ops, Target
from ftpatch.sites.records import RecordTable
from ftpatch.sites.table import SiteTable


@dataclass(frozen=True)
class Request:
    """What the user asks of `enable`; `chosen` marks the sites.

    hook: a C function that the sites of a module call; stub: code of the user's own that they call instead of `target`
    or `hook`, and that may go on to it.
    """

    chosen: Mask
    target: str = ""
    force_target: bool = False
    force_early: bool = False
    records: str = "auto"
    ops: str | None = None  # None: list
    ops_via: str = "auto"
    skip_unpatchable: bool = False
    hook: str = ""
    stub: Stub | None = None


@dataclass
class Draft:
    """A request on its way to a plan: the image, what was resolved, and the reasons found so far."""

    image: Image
    arch: Arch
    records: RecordTable
    table: SiteTable
    shape: Shape
    request: Request
    target: Target
    ops: Ops | None
    slack: Slack
    reasons: dict[int, str]
    remarks: list[str] = field(default_factory=list)

    def open(self) -> I64:
        """Chosen sites without a reason against them."""
        index = np.flatnonzero(self.request.chosen)
        return index[~np.isin(index, list(self.reasons))]

    def gone(self, index: I64) -> Mask:
        """Slots whose records leave when these sites are patched."""
        return leaving(self.image, self.records, self.table, index, self.request.records == "keep")


def slots_of(records: RecordTable, table: SiteTable, index: I64) -> Mask:
    """The slots of the sites `index`, as far as they have one."""
    found = np.zeros(len(records), dtype=bool)
    found[table.row[index][table.row[index] >= 0]] = True
    return found


def leaving(image: Image, records: RecordTable, table: SiteTable, index: I64, kept: bool) -> Mask:
    """Slots whose records leave with those of the sites `index`; kept: the user wants no others to leave.

    Records of init text may not be the only ones to stay: when init memory is freed the kernel then frees its whole
    list, and reads through a null pointer as soon as somebody looks at it (seen in Debian's 6.1, 6.12 and 7.2).
    """
    mask = slots_of(records, table, index)
    stays = records.live & ~mask
    init = in_init_text(image, table.va)[: len(stays)]
    if mask.any() and not kept and init[stays].all():
        mask |= stays
    return mask


def patchable_shape(image: Image, table: SiteTable) -> Shape:
    """The layout of a file's sites, which can be changed on disk. Raises PolicyError or ShapeError where it cannot."""
    if table.shape is None:
        raise PolicyError("no patch site in this file", image.path, found="no record table",
                          expected="a kernel or module built with CONFIG_FUNCTION_TRACER")  # fmt: skip
    if table.shape.refusal:
        raise ShapeError(f"layout {table.shape.name} cannot be enabled on disk", image.path, found=table.shape.refusal,
                         expected="-fpatchable-function-entry")  # fmt: skip
    return table.shape
