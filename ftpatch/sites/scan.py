"""One file, read: what every later room takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ftpatch.arch import Arch
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError, RecordError, ShapeError
from ftpatch.recovered.image import open_image
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import RecordTable, join, read_records
from ftpatch.sites.table import SiteTable
from ftpatch.sites.unsized import bounded

if TYPE_CHECKING:
    from ftpatch.sites.columns import SiteColumns

GCC_LTO = ".gnu.lto_"  # how the sections begin that hold gcc's intermediate language


class Scan(NamedTuple):
    """Everything that is known of one file before anything is asked of it."""

    image: Image
    records: RecordTable
    sites: SiteTable

    def __repr__(self) -> str:
        return f"<Scan of {self.image.path!r}: {self.arch.name} {self.image.kind}, {len(self.sites)} sites>"

    @property
    def arch(self) -> Arch:
        return self.image.arch

    @property
    def table(self) -> SiteColumns:
        """The sites as columns, for numpy and Arrow."""
        from ftpatch.sites.columns import SiteColumns

        return SiteColumns(self.sites)


def scan_file(path: str, layout: str | None = None, max_size: int | None = None) -> Scan:
    """Read one file. max_size: bytes that it may unpack to, where it is compressed.

    Raises InputError, UnsupportedError, or PolicyError for a stripped kernel.
    """
    image = open_image(path, max_size)
    _ = image.arch  # what no machine here is for is refused before anything in it is judged
    require_text(image)
    return _scan(image, layout)


def _scan(image: Image, layout: str | None) -> Scan:
    records = read_records(image)
    sites = bounded(read_sites(image, records, layout))
    return Scan(sites.image, records, sites)


def with_bounds(image: Image) -> Image:
    """The image, of a kernel without a symbol table with all that its records tell of where functions end."""
    if image.recovered is None:
        return image
    try:
        return _scan(image, None).image
    except (RecordError, ShapeError):  # for a scan to say
        return image


def bare_scan(image: Image, layout: str | None = None) -> Scan:
    """A file as if it had no record, and nothing of its sites were known. layout: what a user forces."""
    none, flags, records = np.zeros(0, np.int64), np.zeros(0, dtype=bool), join([])
    window = image.window(none, none)
    sites = SiteTable(image, None, layout, none, none, none, window, none, none, none.astype(np.uint8), none, flags)
    return Scan(image, records, sites)


def require_text(image: Image) -> None:
    """Refuse files that have no code: what was a kernel or module once, or is to become one."""
    code = image.executable & (image.shdr["sh_size"] > 0)
    if any(name.startswith(GCC_LTO) for name in image.names) and not code.any():
        raise ElfError("no code yet", image.path, found="GCC's intermediate language (-flto)", expected="code",
                       todo="give the vmlinux or module that the linker made of it, or an object built with "
                       "-ffat-lto-objects")  # fmt: skip
    if image.executable.any():
        return
    if any(name.endswith(".dwo") for name in image.names):
        raise ElfError("no text at all", image.path, found="split debug information (.dwo)", expected="code",
                       todo="use the object that it was split from")  # fmt: skip
    wanted = t.SHF_ALLOC | t.SHF_EXECINSTR
    if ((image.shdr["sh_flags"] & wanted) == wanted).any():
        raise ElfError("text without contents", image.path, found="a debug-only file (NOBITS text)",
                       expected="code", todo="use the file that it is the debug companion of")  # fmt: skip
    if image.sections_named(".BTF") and image.linked:
        raise ElfError("no text at all", image.path, found="type information only (a headers package's vmlinux)",
                       expected="a kernel", todo="use the vmlinux of the debug package")  # fmt: skip
    if image.linked or not len(image.symbols.rows):
        raise ElfError("no text at all", image.path, found="no executable section",
                       expected="a kernel, module or object")  # fmt: skip
