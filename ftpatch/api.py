"""The journeys, each readable as a list of steps: what a command does, without the command line.

scan     file → image → records → sites
enable   scan → selection → plan; drop and disable likewise (the way to a file is `deliver`)
image    image → boot image
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch.arch import Arch, arch_of
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image, open_image
from ftpatch.errors import ElfError, InputError, UnsupportedError, UsageError
from ftpatch.records import RecordTable, read_records
from ftpatch.sites import SiteTable, read_sites

if TYPE_CHECKING:
    from ftpatch.change import Change, Undoing
    from ftpatch.draft import Request
    from ftpatch.module.plan import ModulePlan
    from ftpatch.plan import Plan
    from ftpatch.stubasm import Stub


FOR_MODULES = "--hook, --stub-asm and --against are for modules"


@dataclass(frozen=True)
class Scan:
    """Everything that is known of one file before anything is asked of it."""

    image: Image
    arch: Arch
    records: RecordTable
    table: SiteTable


def scan(path: str, layout: str | None = None, max_size: int | None = None) -> Scan:
    """Read one file. max_size: bytes that it may unpack to, where it is compressed.

    Raises InputError, UnsupportedError, or PolicyError for a stripped kernel.
    """
    image = open_image(path) if max_size is None else open_image(path, max_size)
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


def read_stub(found: Scan, path: str) -> Stub:
    """The stub that a file of assembly holds, for the sites of a module.

    Raises InputError or UsageError, and UnsupportedError where the assembler is missing.
    """
    from ftpatch import stubasm

    if found.image.kind == "vmlinux":
        raise UsageError(FOR_MODULES, found.image.path, found="a vmlinux")
    try:
        with open(path, "rb") as file:
            data = file.read(stubasm.MAX_SOURCE + 1)
    except OSError as error:
        raise InputError("cannot read the stub", path, found=error.strerror or str(error)) from error
    return stubasm.assemble(data, path, found.arch)


def make_plan(
    found: Scan, request: Request, against: Sequence[str] = (), max_size: int | None = None
) -> Plan | ModulePlan:
    """The plan for one scanned file. against: the vmlinux that will load a module, and modules that it may call.

    Raises InputError or UnsupportedError for those files, and what a plan raises.
    """
    from ftpatch.module.plan import make_module_plan
    from ftpatch.plan import make_plan
    from ftpatch.preflight import Kernel, Module

    image, arch = found.image, found.arch
    if image.kind not in ("vmlinux", "module"):
        raise UnsupportedError(f"patching files of kind {image.kind} is not supported", image.path,
                               expected="a linked vmlinux or a module", todo="ftpatch scan reads it")  # fmt: skip
    if image.kind == "vmlinux":
        if request.hook or request.stub is not None or against:
            raise UsageError(FOR_MODULES, image.path, found="a vmlinux")
        return make_plan(image, arch, found.records, found.table, request)
    kernel, others = None, []
    for other in (scan(path, max_size=max_size) for path in against):
        if other.arch is not arch:
            raise UsageError("--against names a file of another machine", other.image.path, found=other.arch.name,
                             expected=arch.name)  # fmt: skip
        if other.image.kind == "module":
            others.append(Module(other.image, other.arch, other.records, other.table))
        elif kernel is None and other.image.kind == "vmlinux":
            kernel = Kernel(other.image, other.arch, other.table)
        else:
            raise UsageError("--against takes one vmlinux, and modules", other.image.path, found=other.image.kind)
    return make_module_plan(image, arch, found.records, found.table, request, kernel, others)


def make_change(found: Scan, verb: str, request: Undoing) -> Change:
    """The plan of `drop` or `disable` for one scanned file. Raises what a plan raises."""
    from ftpatch import undoing
    from ftpatch.module import undo

    if found.image.kind not in ("vmlinux", "module"):
        raise UnsupportedError(f"patching files of kind {found.image.kind} is not supported", found.image.path,
                               expected="a linked vmlinux or a module", todo="ftpatch scan reads it")  # fmt: skip
    drops = {"vmlinux": undoing.make_drop, "module": undo.make_module_drop}
    disables = {"vmlinux": undoing.make_disable, "module": undo.make_module_disable}
    make = (drops if verb == "drop" else disables)[found.image.kind]
    return make(found.image, found.arch, found.records, found.table, request)


def write_image(path: str, out: str, note: Callable[[str], None] | None = None) -> tuple[int, Arch]:
    """Write the boot image of a vmlinux; its size in bytes, and the machine it boots."""
    from ftpatch import apply, bootimage

    image = open_image(path)
    arch = arch_of(image.e_machine, path)
    _require_text(image)
    pieces = bootimage.boot_image(image, arch)
    with apply.whole_file(apply.output_path(path, out), image.mode, note or apply.on_stderr) as new:
        size = apply.write_pieces(new.fd, pieces)
        new.finish()
        new.publish()
    return size, arch
