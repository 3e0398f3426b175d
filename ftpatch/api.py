"""The journeys, each readable as a list of steps: what a command does, without the command line.

scan     file → image → records → sites
enable   scan → selection → plan → file' → check
image    image → boot image
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch.arch import Arch, arch_of
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image, open_image
from ftpatch.errors import ElfError
from ftpatch.records import RecordTable, read_records
from ftpatch.sites import SiteTable, read_sites

if TYPE_CHECKING:
    from ftpatch.plan import Plan


@dataclass(frozen=True)
class Scan:
    """Everything that is known of one file before anything is asked of it."""

    image: Image
    arch: Arch
    records: RecordTable
    table: SiteTable


@dataclass(frozen=True)
class Output:
    """The written file: where, and its hash where a report needs it."""

    path: str
    sha256: str | None


def scan(path: str, layout: str | None = None) -> Scan:
    """Read one file. Raises InputError, UnsupportedError, or PolicyError for a stripped kernel."""
    image = open_image(path)
    arch = arch_of(image.e_machine, path)
    _require_text(image)
    records = read_records(image, arch)
    return Scan(image, arch, records, read_sites(image, arch, records, layout))


def _require_text(image: Image) -> None:
    """Refuse files that were a kernel or module once: debug companions and headers packages have no code."""
    if image.executable.any():
        return
    wanted = t.SHF_ALLOC | t.SHF_EXECINSTR
    if ((image.shdr["sh_flags"] & wanted) == wanted).any():
        raise ElfError("text without contents", image.path, found="a debug-only file (NOBITS text)",
                       expected="code", todo="use the file that it is the debug companion of")  # fmt: skip
    if image.sections_named(".BTF") and image.linked:
        raise ElfError("no text at all", image.path, found="type information only (a headers package's vmlinux)",
                       expected="a kernel", todo="use the vmlinux of the debug package")  # fmt: skip
    if image.linked or not len(image.symbols.rows):
        raise ElfError(
            "no text at all", image.path, found="no executable section", expected="a kernel, module or object"
        )


def write_enabled(before: Scan, plan: Plan, out: str, *, in_place: bool, hashed: bool,
                  before_rename: Callable[[Output, str | None], None]) -> Output:  # fmt: skip
    """Write the plan's result to `out`, check it, and give it its name.

    before_rename(output, sha256 of the input) runs when the result is proven and not yet visible: reports that fail to
    be written then leave no output. Raises ApplyError where the check fails; nothing is left behind in any such case.
    """
    import os

    from ftpatch import apply, verify

    path = os.path.realpath(before.image.path) if in_place else apply.output_path(before.image.path, out)
    with apply.whole_file(path, before.image.mode) as (fd, temporary):
        apply.write(before.image, plan.edits, fd)

        # From here on the result is only read.
        after = open_image(temporary)
        verify.check_result(before.image, after, before.arch, plan)
        old_hash, new_hash = _hashes(before.image, after) if hashed else (None, None)
        output = Output(before.image.path if in_place else out, new_hash)
        before_rename(output, old_hash)
    return output


def _hashes(before: Image, after: Image) -> tuple[str, str]:
    """sha256 of both files, side by side: hashlib lets go of the interpreter."""
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda image: hashlib.sha256(image.data.data).hexdigest(), (before, after))
    return one, two


def write_image(path: str, out: str) -> int:
    """Write the boot image of a vmlinux; its size in bytes."""
    from ftpatch import apply, bootimage

    image = open_image(path)
    arch_of(image.e_machine, path)
    _require_text(image)
    pieces = bootimage.boot_image(image)
    with apply.whole_file(apply.output_path(path, out), image.mode & 0o666) as (fd, _):
        return bootimage.write_pieces(fd, pieces)
