"""From a decided plan to the file and its reports: the last steps of every verb that writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ftpatch.sites.columns import SiteColumns
from ftpatch.sites.scan import Scan
from ftpatch.trees import SILENT, Watch

if TYPE_CHECKING:
    from ftpatch.elf.image import Image
    from ftpatch.plan.plan import Plan
    from ftpatch.report import Document
    from ftpatch.write.deliver import Output, Packing


@dataclass(frozen=True)
class Delivery:
    """How a writing verb reads its file, and where the result goes."""

    out: str | None  # the new file, which may be the old one; None: everything is done but writing
    reports: tuple[str, ...] = ()  # FORMAT=FILE, each; json=FILE is the journal that `restore` goes by
    layout: str | None = None  # a site layout that is taken instead of deciding by evidence
    max_size: int | None = None  # bytes that a packed file may unpack to
    signature: str = "strip"  # `strip` or `refuse` an appended one
    sign: tuple[str, str] | None = None  # key and certificate for a new one
    shown: int | None = None  # sites of each sort that the report names, without edits: enough for text; None: all
    hashed: bool = True  # whether the report has checksums, which cost a reading of both files
    # asked when the file is read, before anything is decided: what it raises ends the journey
    read: Callable[[Scan], object] = lambda scan: None
    watch: Watch = SILENT


@dataclass(frozen=True, repr=False)
class Written:
    """What a writing verb did."""

    plan: Plan
    output: Output | None  # None where nothing was to be written
    document: Document  # its report

    def __repr__(self) -> str:
        plan, path = self.plan, self.output.path if self.output else None
        return f"<Written {path!r}: {plan.verb} of {len(plan.index)} sites of {plan.scan.image.path!r}>"

    @property
    def sites(self) -> SiteColumns:
        """The sites that the plan changes, as they were before."""
        return SiteColumns(self.plan.scan.sites, self.plan.index)


def packing_of(image: Image, path: str, delivery: Delivery) -> tuple[Packing, tuple[str, ...]]:
    """How the result is packed, and notes on that."""
    from ftpatch.write import deliver

    return deliver.packing_for(image, delivery.out or path, delivery.signature, delivery.sign)


def written_to(plan: Plan, delivery: Delivery, packed: tuple[Packing, tuple[str, ...]]) -> Written:
    """plan → new file, proven, with its reports: all of it, or nothing is written."""
    from ftpatch.journal.write import plan_object
    from ftpatch.report import Document
    from ftpatch.report.files import files_ready
    from ftpatch.write import deliver

    (packing, notes), note, before = packed, delivery.watch.note, plan.scan.image
    plan = replace(plan, notes=(*plan.notes, *notes), warnings=(*plan.warnings, *packing.void))
    for text in plan.warnings:
        note(f"warning: {text}")

    # From here on nothing is decided.
    document = Document(plan.verb)

    @contextmanager
    def reports(written: Output | None, sha256: str | None) -> Iterator[None]:
        document.images.append(plan_object(plan, written, sha256, delivery.shown))
        with files_ready(document, delivery.reports, note):
            yield

    if delivery.out is None:
        if packing.layers:
            deliver.packed_result(plan, packing)  # which may be refused, as it would be in a run that writes
        with reports(None, before.sha256 if delivery.hashed else None):
            return Written(plan, None, document)
    out = delivery.out
    return Written(plan, deliver.write_result(plan, out, delivery.hashed, reports, packing, note), document)
