"""The journeys that only read and need several steps: scan, explain, verify."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

from ftpatch.errors import RecordError, ShapeError, UsageError
from ftpatch.inputs import Path
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import Scan, bare_scan, scan_file
from ftpatch.trees import SILENT, Watch

if TYPE_CHECKING:
    from ftpatch.explanation.function import Explanation
    from ftpatch.proof.module_imports import Loader
    from ftpatch.proof.prove import Proof


class Reading(TypedDict, total=False):
    """How files are read: the parameters of `scan` besides its file."""

    layout: str | None  # a site layout that is taken instead of deciding by evidence
    max_size: int | None  # bytes that a packed file may unpack to


def scan(path: Path, layout: str | None = None, max_size: int | None = None) -> Scan:
    """One file: its image, its record table and its sites. See `Reading` for the parameters."""
    return scan_file(os.fspath(path), layout, max_size)


def explain(
    path: Path, func: str, against: Sequence[str] = (), modules: str | None = None, watch: Watch = SILENT,
    **reading: Unpack[Reading],
) -> Explanation:  # fmt: skip
    """Every site that a selector names, from bytes to verdict; or why that name has none."""
    from ftpatch.explanation.function import explain_function

    return explain_function(scan(path, **reading), func, against, modules, watch, reading.get("max_size"))


def verify(
    before: Path, after: Path, journal: Path | None = None, deep: bool = False, require_emulation: bool = False,
    against: Sequence[str] = (), objects: Sequence[str] = (), watch: Watch = SILENT, **reading: Unpack[Reading],
) -> Proof:  # fmt: skip
    """What became of the first file on the way to the second, by both alone, and whether the journal agrees.

    deep: have lief read a kernel a second time; require_emulation: that a patched site was not run is a finding;
    against: for a module, the vmlinux that will load it, and modules that it may use, for what it newly imports;
    objects: that `redirect --with` linked into it, in that order; watch: of the sites that are executed.
    """
    from ftpatch.journal.read import read_journal
    from ftpatch.proof.prove import Checks, prove

    before, after = os.fspath(before), os.fspath(after)
    record = read_journal(os.fspath(journal)) if journal else None
    first, second = _first_of(before, after, **reading), open_image(after, reading.get("max_size"))
    loader = _loader(first, against, reading.get("max_size")) if against else None
    if objects and first.image.linked:
        raise UsageError("--with is for modules, into which objects are linked", before, found=first.image.kind)
    linked = tuple(open_image(path, reading.get("max_size")) for path in objects)
    checks = Checks(True, require_emulation, deep, reading.get("layout"), loader, linked, watch.progress)
    return prove(first, second, record, checks=checks)


def _first_of(before: str, after: str, **reading: Unpack[Reading]) -> Scan:
    """The first of two files; one whose records cannot be read, without them, where the second mends those."""
    try:
        return scan_file(before, **reading)
    except (RecordError, ShapeError):
        from ftpatch.proof.recorded import is_recording

        first, second = (open_image(path, reading.get("max_size")) for path in (before, after))
        if not is_recording(first, second):
            raise
        return bare_scan(first, reading.get("layout"))


def _loader(scan: Scan, paths: Sequence[str], max_size: int | None) -> Loader:
    """What a module will meet. Raises UsageError where no kernel is among the files."""
    from ftpatch.plan.decide import read_against
    from ftpatch.proof.module_imports import Loader

    against = read_against(scan, paths, max_size)
    if against.kernel is None:
        raise UsageError("--against names no kernel", scan.image.path, found=", ".join(paths),
                         expected="the vmlinux that will load the module, and modules beside it")  # fmt: skip
    return Loader(against.kernel, against.others)
