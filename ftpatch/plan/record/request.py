"""What is asked of `record`, and which section that makes the records go to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftpatch.arch.shape import Shape
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError, UsageError
from ftpatch.plan.record.existing import RecordSection
from ftpatch.sites.records import MCOUNT, PADDING, record_names
from ftpatch.sites.scan import Scan


@dataclass(frozen=True)
class RecordRequest:
    """What is asked for."""

    func: tuple[str, ...] = ()  # selectors of functions; empty: what the file's own calls show
    other: Scan | None = None  # another build, whose records are wanted here
    section: str | None = None  # the section that takes the records; None: as the file, or the others, tell
    nop: bool = False  # make NOPs of calls
    skip_unpatchable: bool = False  # leave out chosen functions that have no site, instead of refusing
    layout: str | None = None  # of NOP sites, where it is forced
    against: tuple[Scan, ...] = ()  # a kernel that will load the file, or modules of it


def section_name(
    image: Image, request: RecordRequest, existing: Sequence[RecordSection], shape: Shape | None
) -> tuple[str, str]:
    """The section that kernels of this file's kind read, and why it is that one. Raises UsageError for one that no
    kernel of the machine reads, PolicyError where the file and others contradict each other."""
    names = record_names(image)
    if request.section is not None:
        if request.section not in names:
            raise UsageError("no kernel of this machine reads that section", "--section", found=request.section,
                             expected=" or ".join(names))  # fmt: skip
        return request.section, "asked for"
    there = dict.fromkeys(image.names[section.sec] for section in existing if section.sound.any())
    if len(there) > 1:
        raise _undecided(image, "records in " + " and ".join(there), "a kernel reads one of them")
    wanted = None if shape is None else MCOUNT if shape.called or image.arch.padded else PADDING
    if there:
        name = next(iter(there))
        if wanted not in (None, name) and len(names) > 1:
            raise _undecided(image, f"records in {name}", f"the sites of layout {shape.name if shape else ''} belong "
                             f"into {wanted}")  # fmt: skip
        return name, "the file has it"
    if len(names) == 1:
        return names[0], f"the one that kernels of {image.arch.name} read"
    for scan in request.against:
        read = _read_by(scan)
        if read is None:
            continue
        if wanted not in (None, read):
            raise _undecided(image, f"sites that belong into {wanted}", f"{scan.image.path} has its records in {read}")
        return read, f"{scan.image.path} has its records there"
    if wanted is None:
        return image.names[existing[0].sec] if existing else names[0], "nothing else tells"
    what = "calls" if wanted == MCOUNT else "NOPs"
    return wanted, f"kernels whose sites are {what} in the file read it"


def _read_by(scan: Scan) -> str | None:
    """The section that a kernel reads, or a module has; None where it has no sites."""
    there = [name for name in record_names(scan.image) if scan.image.sections_named(name)]
    shape = scan.sites.shape
    if not scan.image.linked and len(there) == 1:
        return there[0]
    return None if shape is None else MCOUNT if shape.called or scan.arch.padded else PADDING


def _undecided(image: Image, found: str, other: str) -> PolicyError:
    return PolicyError("the section of the records is not certain", image.path, found=f"{found}, but {other}",
                       todo=f"--section {' or '.join(record_names(image))} decides it")  # fmt: skip
