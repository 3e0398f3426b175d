"""From the names of files to the plan of `record`: the way into this room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from ftpatch.elf.image import Image
from ftpatch.errors import UsageError
from ftpatch.plan.plan import Plan
from ftpatch.plan.record.plan import plan_record
from ftpatch.plan.record.request import RecordRequest
from ftpatch.sites.scan import Scan, scan_file


class RecordOptions(TypedDict, total=False):
    """The options of `record`, none of them required."""

    func: Sequence[str]  # selectors of functions
    other: str | None  # another build of the file, whose records are wanted here
    section: str | None  # the section that takes records
    nop: bool  # make NOPs of calls, where a kernel takes them
    against: Sequence[str]  # a kernel that will load the file, or modules of it
    skip_unpatchable: bool


def read_and_plan(
    image: Image, layout: str | None, max_size: int | None, *, func: Sequence[str] = (), other: str | None = None,
    section: str | None = None, nop: bool = False, against: Sequence[str] = (), skip_unpatchable: bool = False,
) -> Plan:  # fmt: skip
    """Read the files that the options name, and decide. Raises UsageError for options that exclude each other."""
    if func and other is not None:
        raise UsageError("--func and --from exclude each other", todo="one of them names the functions")
    _ = image.arch  # what no machine here is for is refused before anything in it is judged
    build = None if other is None else scan_file(other, layout, max_size)
    loaders = tuple(_against(image, path, max_size) for path in against)
    return plan_record(image, RecordRequest(tuple(func), build, section, nop, skip_unpatchable, layout, loaders))


def _against(image: Image, path: str, max_size: int | None) -> Scan:
    scan = scan_file(path, None, max_size)
    if scan.arch is not image.arch:
        raise UsageError("--against is for another machine", path, found=scan.arch.name, expected=image.arch.name)
    return scan
