"""The journeys, each readable as a list of steps: what a command does, without the command line.

scan     file → image → records → sites
enable   scan → selection → plan; drop and disable likewise (the way to a file is `deliver`)
image    image → boot image
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ftpatch.arch import Arch
from ftpatch.elf.image import open_image
from ftpatch.errors import InputError, UsageError
from ftpatch.plan.decide import FOR_MODULES, make_plan, read_against
from ftpatch.sites.scan import Scan, require_text, scan_file

__all__ = ["Scan", "make_plan", "read_against", "read_stub", "scan", "write_image"]

scan = scan_file  # the first of the journeys

if TYPE_CHECKING:
    from ftpatch.plan.stubasm import Stub


def read_stub(found: Scan, path: str) -> Stub:
    """The stub that a file of assembly holds, for the sites of a module.

    Raises InputError or UsageError, and UnsupportedError where the assembler is missing.
    """
    from ftpatch.plan import stubasm

    if found.image.kind == "vmlinux":
        raise UsageError(FOR_MODULES, found.image.path, found="a vmlinux")
    try:
        with open(path, "rb") as file:
            data = file.read(stubasm.MAX_SOURCE + 1)
    except OSError as error:
        raise InputError("cannot read the stub", path, found=error.strerror or str(error)) from error
    return stubasm.assemble(data, path, found.arch)


def write_image(path: str, out: str, note: Callable[[str], None] | None = None) -> tuple[int, Arch]:
    """Write the boot image of a vmlinux; its size in bytes, and the machine it boots."""
    from ftpatch.write import bootimage, contents, files, paths
    from ftpatch.write.system import on_stderr

    image = open_image(path)
    arch = image.arch
    require_text(image)
    pieces = bootimage.boot_image(image)
    with files.whole_file(paths.output_path(path, out), image.mode, note or on_stderr) as new:
        size = contents.write_pieces(new.fd, pieces)
        new.finish()
        new.publish()
    return size, arch
