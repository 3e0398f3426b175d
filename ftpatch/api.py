"""The journeys, each readable as a list of steps: what a command does, without the command line.

scan     file → image → records → sites
enable   scan → selection → plan → file' → check
image    image → boot image
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ftpatch.arch import Arch, arch_of
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image, open_image
from ftpatch.errors import (
    ApplyError,
    ElfError,
    FtpatchError,
    InputError,
    PolicyError,
    UnsupportedError,
    UsageError,
)
from ftpatch.records import RecordTable, read_records
from ftpatch.sites import SiteTable, read_sites

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Packing:
    """How a result is packed: its compression, and what makes the appended signature of an ELF file, if anything."""

    wrapping: str = "none"
    sign: Callable[[bytes], bytes] | None = None


@dataclass(frozen=True)
class Output:
    """The written file: where, its hash and that of the ELF file in it where a report needs them, its signature."""

    path: str
    sha256: str | None
    elf_sha256: str | None = None
    trailer: bytes = b""


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


SIGNATURE_STRIPPED = (
    "the appended signature covers other bytes and is left out: the module loads with taint E, and not at all where "
    "the kernel enforces signatures or is locked down"
)
SIGNED = "signed anew: a kernel that does not have this key loads the module as unsigned (taint E)"


def packing_for(
    image: Image, out: str, signature: str, sign: tuple[str, str] | None
) -> tuple[Packing, tuple[str, ...]]:
    """How the result is packed, and what to tell of its signature. signature: `strip` or `refuse` one that is there;
    sign: key and certificate for a new one. Raises PolicyError where one is there that may not be lost."""
    from ftpatch import envelope

    wrapping = envelope.wrapping_for(out, image.wrapping)
    if sign is not None:
        from ftpatch import signature as signatures

        digest = signatures.usual_digest(image.trailer)
        return Packing(wrapping, lambda elf: signatures.sign(elf, *sign, digest)), (SIGNED,)
    if image.trailer and signature == "refuse":
        raise PolicyError("the file is signed, and any change makes that void", image.path,
                          found=f"a signature of {len(image.trailer)} bytes",
                          todo="--signature strip leaves it out, --sign KEY CERT makes a new one")  # fmt: skip
    return Packing(wrapping), (SIGNATURE_STRIPPED,) if image.trailer else ()


def write_enabled(
    before: Scan,
    plan: Plan | ModulePlan,
    out: str,
    hashed: bool,
    reports: Callable[[Output, str | None], AbstractContextManager[None]],
    packing: Packing = Packing(),
    note: Callable[[str], None] | None = None,
) -> Output:
    """Write the plan's result to `out`, check it, and give it its name; `out` may be the input itself.

    reports(output, sha256 of the input) makes a context with the reports in place, as `apply.named` does: the result
    gets its name in it, and where that fails they are taken back. note: told what else happens to files; stderr by
    default. Raises ApplyError where the check fails, and InputError where the system refuses or an input that is to be
    replaced is not what was read any more; nothing is left behind in any such case.
    """
    import os

    from ftpatch import apply

    path, tell = os.path.realpath(out), note or apply.on_stderr
    with ExitStack() as stack:
        in_place = path == os.path.realpath(before.image.path)
        check = stack.enter_context(apply.own_input(before.image, tell)) if in_place else lambda: None
        new = stack.enter_context(apply.whole_file(path, before.image.mode, tell))
        trailer = _write(before.image, plan, new.fd, packing)

        # From here on the result is only read.
        after = _proven(before, plan, new.readable, out, trailer)
        old_hash, new_hash, elf_hash = _hashes(before.image, after) if hashed else (None, None, None)
        output = Output(out, new_hash, elf_hash, trailer)
        new.finish()
        with reports(output, old_hash):
            check()
            new.publish()
    return output


def _write(image: Image, plan: Plan | ModulePlan, fd: int, packing: Packing) -> bytes:
    """The result, packed, into an empty descriptor; its signature."""
    from ftpatch import apply, envelope

    if packing.wrapping == "none" and packing.sign is None:
        apply.write(image, plan.edits, fd)
        return b""
    elf = apply.assembled(image, plan.edits)
    trailer = packing.sign(bytes(elf)) if packing.sign else b""
    apply.append(fd, envelope.wrap(packing.wrapping, bytes(elf) + trailer))
    return trailer


def _proven(before: Scan, plan: Plan | ModulePlan, written: str, out: str, trailer: bytes) -> Image:
    """The written file, which is to be `out`, read again and found to be what the plan says."""
    from ftpatch import verify
    from ftpatch.plan import Plan

    try:
        after = replace(open_image(written), path=out)
        if after.trailer != trailer:
            raise verify.failed(after, "the appended signature", f"{len(after.trailer)} bytes")
        if isinstance(plan, Plan):
            verify.check_result(before.image, after, before.arch, plan)
        else:
            from ftpatch.module_check import check_module

            check_module(before.image, after, before.arch, plan)
    except ApplyError:
        raise
    except FtpatchError as error:
        raise ApplyError("self-check failed: the result cannot be read back", before.image.path, found=error.what,
                         todo="the output was not kept; please report this") from error  # fmt: skip
    return after


def _hashes(before: Image, after: Image) -> tuple[str, str, str]:
    """sha256 of both files, side by side as hashlib lets go of the interpreter; and of the ELF file in the second."""
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda image: image.sha256, (before, after))
    plain = after.wrapping == "none" and not after.trailer
    return one, two, two if plain else hashlib.sha256(after.data.data).hexdigest()


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
