"""The journeys, each readable as a list of steps: what a command does, without the command line.

scan     file → image → records → sites
enable   scan → selection → plan → file' → check
image    image → boot image
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch.arch import Arch, arch_of
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image, open_image
from ftpatch.errors import ApplyError, ElfError, FtpatchError
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


def write_enabled(
    before: Scan,
    plan: Plan,
    out: str,
    hashed: bool,
    reports: Callable[[Output, str | None], AbstractContextManager[None]],
) -> Output:
    """Write the plan's result to `out`, check it, and give it its name; `out` may be the input itself.

    reports(output, sha256 of the input) makes a context in which the reports lie ready under temporary names: they get
    theirs after the result has its own, and vanish where that fails. Raises ApplyError where the check fails; nothing
    is left behind in any such case.
    """
    import os

    from ftpatch import apply

    path = os.path.realpath(out)
    with ExitStack() as later, apply.whole_file(path, before.image.mode) as (fd, temporary):
        apply.write(before.image, plan.edits, fd)

        # From here on the result is only read.
        after = _proven(before, plan, temporary)
        old_hash, new_hash = _hashes(before.image, after) if hashed else (None, None)
        output = Output(out, new_hash)
        later.enter_context(reports(output, old_hash))
    return output


def _proven(before: Scan, plan: Plan, written: str) -> Image:
    """The written file, read again and found to be what the plan says."""
    from ftpatch import verify

    try:
        after = open_image(written)
        verify.check_result(before.image, after, before.arch, plan)
    except ApplyError:
        raise
    except FtpatchError as error:
        raise ApplyError("self-check failed: the result cannot be read back", before.image.path, found=error.what,
                         todo="the output was not kept; please report this") from error  # fmt: skip
    return after


def _hashes(before: Image, after: Image) -> tuple[str, str]:
    """sha256 of both files, side by side: hashlib lets go of the interpreter."""
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda image: hashlib.sha256(image.data.data).hexdigest(), (before, after))
    return one, two


def write_image(path: str, out: str) -> tuple[int, Arch]:
    """Write the boot image of a vmlinux; its size in bytes, and the machine it boots."""
    from ftpatch import apply, bootimage

    image = open_image(path)
    arch = arch_of(image.e_machine, path)
    _require_text(image)
    pieces = bootimage.boot_image(image, arch)
    with apply.whole_file(apply.output_path(path, out), image.mode) as (fd, _):
        return apply.write_pieces(fd, pieces), arch
