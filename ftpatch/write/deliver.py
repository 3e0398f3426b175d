"""From a decided plan to a file: packed, checked, and named only when nothing can go wrong any more."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

from ftpatch import memory
from ftpatch.container import signature as signatures
from ftpatch.container.layers import NAMES, Layer, inside, kinds_left, rebuild
from ftpatch.container.pack import wrap
from ftpatch.container.wrappings import wrapping_for
from ftpatch.elf.image import Image
from ftpatch.errors import ApplyError, ChangedError, FtpatchError, PolicyError, UnsoundError
from ftpatch.plan.plan import Plan
from ftpatch.recovered.image import open_image
from ftpatch.write import comparison, contents, files
from ftpatch.write.in_place import own_input
from ftpatch.write.system import Note, on_stderr


@dataclass(frozen=True)
class Packing:
    """How a result is packed."""

    wrapping: str = "none"  # how it is compressed
    sign: Callable[[bytes], bytes] | None = None  # what makes the appended signature of an ELF file, if anything
    layers: tuple[Layer, ...] = ()  # what is around the kernel, the outermost first; then there is no wrapping
    void: tuple[str, ...] = ()  # what holds no more of that, each for a warning


@dataclass(frozen=True)
class Output:
    """The written file."""

    path: str
    sha256: str | None  # None where no report needs it
    elf_sha256: str | None = None  # of the ELF file or the flat kernel in it
    trailer: bytes = b""  # the appended signature
    layers: tuple[Layer, ...] = ()  # around the kernel, as they were read back


SIGNATURE_STRIPPED = (
    "the appended signature covers other bytes and is left out: the module loads with taint E, and not at all where "
    "the kernel enforces signatures or is locked down"
)
SIGNED_PE = "pe-signature"  # the layer that no result has
SIGNED = "signed anew: a kernel that does not have this key loads the module as unsigned (taint E)"


def packing_for(
    image: Image, out: str, signature: str, sign: tuple[str, str] | None
) -> tuple[Packing, tuple[str, ...]]:
    """How the result is packed, and notes on its signature. signature: `strip` or `refuse` one that is there; sign: key
    and certificate for a new one. Raises PolicyError where one is there that may not be lost."""
    wrapping = wrapping_for(out, image.wrapping)
    if image.layers or image.recovered is not None:
        return _kernel_packing(image, out, wrapping, sign)
    if sign is not None:
        digest = signatures.usual_digest(image.trailer)
        return Packing(wrapping, lambda elf: signatures.sign(elf, *sign, digest)), (SIGNED,)
    if image.trailer and signature == "refuse":
        raise PolicyError("the file is signed, and any change makes that void", image.path,
                          found=f"a signature of {len(image.trailer)} bytes",
                          todo="--signature strip leaves it out, --sign KEY CERT makes a new one")  # fmt: skip
    return Packing(wrapping), (SIGNATURE_STRIPPED,) if image.trailer else ()


def _kernel_packing(
    image: Image, out: str, wrapping: str, sign: tuple[str, str] | None
) -> tuple[Packing, tuple[str, ...]]:
    """As `packing_for`, for a kernel as boot loaders take it: in the form that it has, but for the names that modules
    have. Raises PolicyError where a layer cannot be made anew, or a signature is wanted that only modules have."""
    if image.recovered is not None and image.recovered.moved:
        raise PolicyError("a dump of a running kernel is not patched", image.path,
                          found=f"words that were moved by {image.recovered.moved:#x}",
                          todo="patch the file that was booted")  # fmt: skip
    if sign is not None:
        raise PolicyError("only modules are signed so", image.path, found=f"a {image.kind}",
                          todo="leave --sign out; boot loaders check signatures of other kinds")  # fmt: skip
    if not image.layers or wrapping_for(out, ""):
        return Packing(wrapping), ()
    for layer in image.layers:
        if layer.repack is None:
            raise PolicyError(f"a changed kernel cannot be put back into {NAMES[layer.kind]}", image.path,
                              todo=layer.why_not)  # fmt: skip
    void = tuple(f"not valid any more: {layer.void}" for layer in image.layers if layer.void)
    kept = tuple(layer for layer in image.layers if layer.kind != SIGNED_PE)  # that one is taken off
    notes = (f"packed as the input is: the kernel{inside(kept)}",) if kept else ()
    return Packing(layers=image.layers, void=void), notes


def kept_packing(image: Image, out: str) -> tuple[Packing, tuple[str, ...]]:
    """As `packing_for`, for an ELF file that stays as it is: its signature, too."""
    trailer = image.trailer
    return Packing(wrapping_for(out, image.wrapping), (lambda elf: trailer) if trailer else None), ()


def write_result(
    plan: Plan, out: str, hashed: bool, reports: Callable[[Output, str | None], AbstractContextManager[None]],
    packing: Packing = Packing(), note: Note = on_stderr,
) -> Output:  # fmt: skip
    """Write the plan's result to `out`, check it, and give it its name; `out` may be the input itself.

    reports(output, sha256 of the input) makes a context with the reports in place, as `files.named` does: the result
    gets its name in it, and where that fails they are taken back. note: given what else happens to files. Raises
    ApplyError where the check fails, and InputError where the system refuses or an input that is to be replaced is not
    what was read any more; nothing is left behind in any such case.
    """
    before, path = plan.scan.image, os.path.realpath(out)
    with ExitStack() as stack:
        in_place = path == os.path.realpath(before.path)
        check = stack.enter_context(own_input(before, note)) if in_place else lambda: None
        new = stack.enter_context(files.whole_file(path, before.mode, (before.path,), note))
        trailer = _write(before, plan, new.fd, packing)

        # From here on the result is only read.
        after = _proven(plan, new.readable, out, packing, trailer)
        old_hash, new_hash, elf_hash = _hashes(before, after) if hashed else (None, None, None)
        output = Output(out, new_hash, elf_hash, trailer, after.layers)
        new.finish()
        with reports(output, old_hash):
            check()
            new.publish()
    return output


def _write(image: Image, plan: Plan, fd: int, packing: Packing) -> bytes:
    """The result, packed, into an empty descriptor; its signature."""
    if packing.wrapping == "none" and packing.sign is None and not packing.layers:
        contents.write(image, plan.edits, fd)
        return b""
    packed, trailer = packed_result(plan, packing)
    contents.append(fd, packed)
    return trailer


def packed_result(plan: Plan, packing: Packing) -> tuple[bytes, bytes]:
    """The result as it is written, in memory; and its signature."""
    data = bytes(contents.assembled(plan.scan.image, plan.edits))
    trailer = packing.sign(data) if packing.sign else b""
    if packing.layers:
        return rebuild(packing.layers, data + trailer), trailer
    return wrap(packing.wrapping, data + trailer), trailer


def _proven(plan: Plan, written: str, out: str, packing: Packing, trailer: bytes) -> Image:
    """The written file, which is to be `out`, read again from zero and found to be sound, and what the plan says."""
    try:
        after = replace(open_image(written), path=out)
        if after.trailer != trailer:
            raise comparison.failed(after, "the appended signature", f"{len(after.trailer)} bytes")
        if packing.layers and kinds_left(after.layers) != kinds_left(packing.layers):
            raise comparison.failed(after, "what is around the kernel", f"a kernel{inside(after.layers)}")
        comparison.check_result(plan, after)
    except (ApplyError, ChangedError, UnsoundError):  # the latter of the input
        raise
    except FtpatchError as error:
        if plan.scan.image.recovered is not None:  # what shows where its tables are may be what was patched
            raise PolicyError("the patched kernel could not be read any more", plan.scan.image.path, found=error.what,
                              todo="take fewer records out, or patch the vmlinux") from error  # fmt: skip
        raise ApplyError("self-check failed: the result cannot be read back", plan.scan.image.path, found=error.what,
                         todo="the output was not kept; please report this") from error  # fmt: skip
    return after


def _hashes(before: Image, after: Image) -> tuple[str, str, str]:
    """sha256 of both files, side by side as hashlib lets go of the interpreter; and of what is in the second."""
    if memory.is_there(2 * memory.THREAD):
        with ThreadPoolExecutor(2) as pool:
            old, new = pool.map(lambda image: image.sha256, (before, after))
    else:
        old, new = before.sha256, after.sha256
    return old, new, new if after.is_bare else after.data.sha256()
