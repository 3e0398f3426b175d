"""The journey of a check: file → what can be read of it → rules → findings; and the same for the files of a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arch.shape import MATCH_OLD, Shape
from ftpatch.elf.image import Image
from ftpatch.errors import FtpatchError, RecordError, ShapeError, UsageError
from ftpatch.recovered.image import open_image
from ftpatch.rules import KeyedFinding, check
from ftpatch.rules.case import Case, Context
from ftpatch.rules.register import rules_for
from ftpatch.rules.skipped import skipped
from ftpatch.sites.layout import shapes_of
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import RecordTable, join, read_records
from ftpatch.sites.scan import Scan, scan_file
from ftpatch.sites.table import ENABLED, NULL, READY, UNEXPECTED, SiteTable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from ftpatch.document.types import ImageObject
    from ftpatch.kernel.module import Kernel


@dataclass(frozen=True)
class Request:
    """What is asked of every file, small enough to send to a worker."""

    rules: tuple[str, ...]  # their names
    layout: str | None = None  # of sites, where it is forced
    against: str | None = None  # a vmlinux, read once per process
    kconfig: Mapping[str, str] | None = None  # options without CONFIG_
    must: tuple[str, ...] = ()  # functions that have to be traceable
    lines: bool = False  # with the source lines of the findings
    before: Mapping[str, int] | None = None  # live records that a baseline has, by path
    full: bool = False  # with sha256 and all figures
    sites: bool = False  # with every site
    max_size: int | None = None  # bytes that a packed file may unpack to
    units: bool = False  # with what the compiler was told, however long that takes


@dataclass(frozen=True)
class Checked:
    """What one file gave, or its error."""

    path: str
    image: ImageObject | None = None  # without findings
    findings: tuple[KeyedFinding, ...] = ()
    live: int = 0  # records
    error: FtpatchError | None = None


@lru_cache(maxsize=1)
def kernel_of(path: str, max_size: int | None) -> Kernel:
    """The kernel at a path, read once."""
    from ftpatch.kernel.module import Kernel

    scan = scan_file(path, max_size=max_size)
    if scan.image.kind != "vmlinux":
        raise UsageError("--against takes a vmlinux", path, found=scan.image.kind,
                         todo="name the kernel that will load the modules")  # fmt: skip
    return Kernel(scan)


@lru_cache(maxsize=1)
def certificates_of(path: str, max_size: int | None) -> tuple[Certificate, ...]:
    """The certificates that are built into the kernel at a path, read once."""
    from ftpatch.rules.signed import certificates

    return certificates(kernel_of(path, max_size).image)


def prepare(path: str, max_size: int | None) -> None:
    """Read all of a kernel that modules are compared with, so that workers inherit it."""
    kernel = kernel_of(path, max_size)
    _ = kernel.exports, kernel.magic, kernel.enforced, kernel.sections, certificates_of(path, max_size)


def check_file(request: Request, path: str) -> Checked:
    """The findings of one file. Raises FtpatchError for one that cannot be read."""
    case = open_case(path, request.layout, request.max_size)
    kernel = kernel_of(request.against, request.max_size) if request.against else None
    context = Context(kernel, None, (request.before or {}).get(path), request.kconfig or {}, request.must)
    context = replace(context, units=request.units)
    if kernel is not None and case.kind == "vmlinux" and kernel.arch is case.arch:
        context = replace(context, before=kernel.scan.sites, live_before=int((kernel.scan.sites.status != NULL).sum()))
    if request.against and case.image.trailer:
        context = replace(context, certificates=certificates_of(request.against, request.max_size))
    case = replace(case, context=context)
    rules = [rule for rule in rules_for() if rule.id in request.rules]
    findings = check(case, rules)
    findings = with_lines(case.image, findings) if request.lines else findings
    image = _image(case, request.full or request.sites, request.sites)
    if unanswered := skipped(case, rules):
        image["skipped"] = [{"rule": rule, "needs": needs} for rule, needs in unanswered]
    return Checked(path, image, tuple(findings), int(case.records.live.sum()))


def check_files(request: Request, paths: Sequence[str]) -> list[Checked]:
    """The findings of some files; one that cannot be read gives its error."""
    files = []
    for path in paths:
        try:
            files.append(check_file(request, path))
        except UsageError:
            raise
        except FtpatchError as error:
            files.append(Checked(path, error=error))
        except Exception as error:  # only to say where
            error.add_note(f"while checking {path}")
            raise
    return files


def open_case(path: str, layout: str | None = None, max_size: int | None = None) -> Case:
    """One file with all that can be read of it: a table that cannot be read is for the rules to say."""
    try:
        scan = scan_file(path, layout, max_size)
        table, odd = longer_layout(scan) if layout is None else (scan.sites, {})
        return Case(scan.image, scan.records, table, odd=odd)
    except RecordError as error:
        image, records = open_image(path, max_size), join([])
        return Case(image, records, read_sites(image, records), ("records", "table"), error)
    except ShapeError as error:
        if layout:
            raise
        image = open_image(path, max_size)
        records = read_records(image)
        usual, odd = usual_layout(image, records)
        if usual is None:
            return Case(image, records, read_sites(image, join([])), ("table",), error)
        return Case(image, records, usual, (), error, odd)


def usual_layout(image: Image, records: RecordTable) -> tuple[SiteTable | None, dict[int, str]]:
    """The sites by the layout that explains most records, and the rows that only another one explains, by its name."""
    tables = {shape.name: read_sites(image, records, shape.name) for shape in shapes_of(image)}
    n = len(records)
    fits = {name: np.isin(table.status[:n], (READY, ENABLED)) for name, table in tables.items()}
    best = max(fits, key=lambda name: int(fits[name].sum()))
    odd: dict[int, str] = {}
    for name, fit in fits.items():
        for row in np.flatnonzero(fit & ~fits[best]).tolist():
            odd.setdefault(row, name)
    return (tables[best], odd) if fits[best].any() else (None, {})


def longer_layout(scan: Scan) -> tuple[SiteTable, dict[int, str]]:
    """The sites, and those that fall short of a stricter layout which most of them show: two NOPs are also one, and
    a call behind mflr is also a call."""
    table, n = scan.sites, len(scan.records)
    shape, ready = table.shape, table.status[:n] == READY
    if shape is None or not n:
        return table, {}
    if shape.program:
        return table, _too_short(scan)
    for other in shapes_of(scan.image):
        alike = (other.start, other.at_global, other.called) == (shape.start, shape.at_global, shape.called)
        if alike and not other.refusal and _strictness(other) > _strictness(shape):
            short = ready & (other.match(table.window[:n]) != MATCH_OLD)
            if 2 * int(short.sum()) < int(ready.sum()):
                longer = read_sites(scan.image, scan.records, other.name)
                return longer, dict.fromkeys(np.flatnonzero(short).tolist(), shape.name)
    return table, {}


def _too_short(scan: Scan) -> dict[int, str]:
    """The sites of a program that have fewer NOPs than the layout of most, by the name of theirs."""
    table, n = scan.sites, len(scan.records)
    odd = np.flatnonzero(table.status[:n] == UNEXPECTED)
    short: dict[int, str] = {}
    for other in shapes_of(scan.image) if len(odd) else ():
        if other.program and other.refusal and not other.called:
            short |= dict.fromkeys(odd[other.match(table.window[odd]) == MATCH_OLD].tolist(), other.name)
    return short


def _strictness(shape: Shape) -> int:
    """How many words a layout demands."""
    return len(shape.old) + (shape.lead is not None)


def with_lines(image: Image, findings: Sequence[KeyedFinding]) -> list[KeyedFinding]:
    """The findings with source file and line, where the file has debug information."""
    from ftpatch.elf.debug_lines import source_lines

    places: dict[int, int] = {}  # va by finding
    for number, (finding, _) in enumerate(findings):
        secs = image.sections_named(finding.section) if finding.section else []
        if len(secs) == 1 and finding.offset is not None:
            places[number] = int(image.base[secs[0]]) + finding.offset
    places = {number: va for number, va in places.items() if 0 <= va < 1 << 64}  # a damaged record names any place
    lines = dict(zip(places, source_lines(image, list(places.values())), strict=True))
    return [KeyedFinding(replace(finding, source=lines.get(number)), after)
            for number, (finding, after) in enumerate(findings)]  # fmt: skip


def _image(case: Case, full: bool, sites: bool) -> ImageObject:
    """The IMAGE object; only with `full` those of its figures that cost something."""
    from ftpatch.document.rows import image_object

    records = join([]) if case.unread else case.records  # a table that cannot be read has no figures
    sha256 = case.image.sha256 if full else None
    return image_object(Scan(case.image, records, case.table), None, sha256, with_sites=sites, brief=not full)
