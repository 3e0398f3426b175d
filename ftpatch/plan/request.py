"""What the user asks of a writing verb, and a request on its way to a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64, Mask
from ftpatch.errors import PolicyError, ShapeError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.sites.scan import Scan

if TYPE_CHECKING:
    from ftpatch.elf.image import Image
    from ftpatch.kernel.module import Kernel, Module
    from ftpatch.plan.stubasm import Stub


@dataclass(frozen=True)
class Against:
    """The files that a module will meet when it is loaded."""

    kernel: Kernel | None = None  # the kernel that will load it
    others: tuple[Module, ...] = ()  # modules whose symbols it may use


@dataclass(frozen=True)
class EnableRequest:
    """Turn chosen sites into calls."""

    chosen: Mask  # over the site table
    target: str = ""  # symbol or 0x… that the sites call; empty: the kernel's own trampoline
    force_target: bool = False  # take a target that was not shown to keep the contract of a site
    force_early: bool = False  # take sites that run before the target can work
    records: str = "auto"  # how records leave: auto, null, minus4, shrink, keep
    ops: str | None = None  # list, nop or a symbol; None: list, where the kernel has ops at all
    ops_via: str = "auto"  # auto, literal, thunk
    skip_unpatchable: bool = False  # leave out sites that cannot be patched, instead of refusing
    hook: str = ""  # modules: a C function that the sites call
    stub: Stub | None = None  # modules: the user's own code that the sites call; it may branch on to target or hook
    against: Against = Against()  # modules
    arm: bool = False  # pad-before: fill the pads, and leave the switches off
    save: str = "register"  # pad-before: where a pad keeps the return address: register or stack
    unrecorded: bool = False  # take calls of kernels and modules that no record names


@dataclass(frozen=True)
class DisableRequest:
    """Give enabled sites their old words and their records back."""

    chosen: Mask  # over the site table
    skip_unpatchable: bool = False
    disarm: bool = False  # pad-before: clear the pads, too
    unrecorded: bool = False  # as for enabling


@dataclass(frozen=True)
class DropRequest:
    """Take the records of chosen sites out of the table, their code as it is."""

    chosen: Mask  # over the site table
    records: str = "auto"  # auto, null, minus4, shrink
    skip_unpatchable: bool = False


@dataclass(frozen=True)
class RedirectRequest:
    """Let chosen functions be others: whoever calls one of them comes to its replacement."""

    chosen: Mask  # over the site table
    replacements: Mapping[int, str]  # what each chosen site leads to, as the user named it, by index in the site table
    force_early: bool = False  # take sites that run before a stub can work
    force_signature: bool = False  # take a replacement with other parameters or another result
    assume_register_args: bool = False  # all arguments are in registers, where nothing tells
    records: str = "auto"  # how records leave: auto, null, minus4, shrink
    skip_unpatchable: bool = False
    patch: Image | None = None  # modules: an object file that brings replacements along
    keep_original: Mapping[int, str] = field(default_factory=dict)  # names for the old functions, by site
    against: Against = Against()  # modules


Request = EnableRequest | DisableRequest | DropRequest | RedirectRequest


@dataclass
class Draft:
    """A request on its way to a plan: the obstacles found so far."""

    scan: Scan
    shape: Shape  # the layout of the file's sites
    request: Request
    reasons: dict[int, str] = field(default_factory=dict)  # why a chosen site stays, by its index in the site table
    remarks: list[str] = field(default_factory=list)  # notes for the plan
    warnings: list[str] = field(default_factory=list)  # for the plan, too

    @property
    def takes_unrecorded(self) -> bool:
        """Whether sites that no record names may be changed: asked for, or in a file whose records no kernel reads."""
        asked = isinstance(self.request, EnableRequest | DisableRequest) and self.request.unrecorded
        return asked or self.scan.image.kind not in ("vmlinux", "module")

    def refuse(self, index: I64, reason: str) -> None:
        """Hold a reason against sites; the first one against a site stands."""
        for site in index.tolist():
            self.reasons.setdefault(site, reason)

    def open(self) -> I64:
        """Chosen sites without a reason against them."""
        index = np.flatnonzero(self.request.chosen)
        return index[~np.isin(index, list(self.reasons))]

    def gone(self, index: I64) -> Mask:
        """Slots whose records leave with those of the sites `index`: none where the user keeps them.

        Records of init text may not be the only ones to stay: when init memory is freed the kernel then frees its whole
        list, and reads through a null pointer as soon as somebody looks at it (seen in Debian's 6.1, 6.12 and 7.2). On
        some machines nothing more leaves, and the request is refused: see `require_core_record`.
        """
        records, sites = self.scan.records, self.scan.sites
        mask = np.zeros(len(records), dtype=bool)
        if isinstance(self.request, EnableRequest) and self.request.records == "keep":
            return mask
        row = sites.row[index]
        mask[row[row >= 0]] = True
        stays = records.live & ~mask
        if self.scan.arch.core_record or not self.scan.image.linked or not mask.any():
            return mask
        if in_init_text(self.scan.image, sites.va[: len(mask)])[stays].all():
            mask |= stays
        return mask


def new_draft(scan: Scan, request: Request) -> Draft:
    """A draft for sites whose layout can be changed on disk. Raises PolicyError or ShapeError where it cannot."""
    shape = scan.sites.shape
    if shape is None:
        raise PolicyError("no patch site in this file", scan.image.path, found="no record table",
                          expected="a kernel or module built with CONFIG_FUNCTION_TRACER")  # fmt: skip
    if shape.refusal:
        raise ShapeError(f"layout {shape.name} cannot be enabled on disk", scan.image.path, found=shape.refusal,
                         expected="-fpatchable-function-entry")  # fmt: skip
    if shape.anywhere and isinstance(request, RedirectRequest):
        raise ShapeError(f"functions of layout {shape.name} cannot be redirected", scan.image.path,
                         found=f"calls of {shape.called} behind the prologue, where a function has begun",
                         expected="sites at the entries of functions")  # fmt: skip
    return Draft(scan, shape, request)
