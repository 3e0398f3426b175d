"""What speaks for a cause: what a message lacks, whether a file is the one that printed it, and what both agree in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch.known_code import CALL, JUMP
from ftpatch.arch.site_bytes import machines_named, name_in_logs
from ftpatch.explanation.code import name_at
from ftpatch.explanation.machine import Origin
from ftpatch.explanation.message import Splat
from ftpatch.kernel.init_text import in_init_text
from ftpatch.kernel.modinfo import kernel_spelling, read_modinfo
from ftpatch.sites.scan import Scan

SPACE = 1 << 64  # addresses
KASLR = 0x1000  # every kernel is moved by a multiple of so many bytes
NEAR = 32  # bytes that a record can be off and still mean the same site
# Bits of a record's flags, from the top. Kernels before 6.5 count tracers in some of the lower ones.
# Source: include/linux/ftrace.h FTRACE_FL_* (Linux 4.4 to 7.2).
FLAGS = (
    (31, "enabled"), (30, "wants registers"), (29, "saves registers"), (28, "wants a trampoline"),
    (27, "has a trampoline"), (26, "changes the instruction pointer (live patch)"), (25, "disabled"),
    (24, "wants a direct call"), (23, "has a direct call"), (22, "wants per-site ops"), (21, "has per-site ops"),
    (20, "was traced before"), (19, "was live-patched or called directly before"),
)  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """Whether a file can be the one that printed a message."""

    other_file: bool  # it cannot
    notes: tuple[str, ...]


def flag_names(flags: int) -> list[str]:
    """What the flags of a record say, each in words; the number of its tracers is not among them."""
    names = [text for bit, text in FLAGS if flags >> bit & 1]
    return names + [f"bit {bit} (not known)" for bit in range(32, 64) if flags >> bit & 1]


def about_message(splat: Splat, origin: Origin) -> list[str]:
    """What a message lacks, and what its own parts say of each other."""
    notes = []
    if splat.mixed:
        notes.append("lines of two messages are mixed here; which belongs to which cannot be told for certain")
    if splat.unreadable:
        notes.append("the kernel could not read the bytes of the site either: nothing is mapped at that address")
    sizes = {size for machine in machines_named(origin.name) for size in machine.sizes} or {4, 5, 6, 8}
    if splat.actual is not None and len(splat.actual) not in sizes:
        notes.append(f"the bytes are cut off behind the first {len(splat.actual)}")
    if splat.what and splat.function is None and splat.ip is None:
        notes.append("the line with the site's address and name is missing")
    if splat.what == "failed to modify" and splat.actual is None and splat.found is None and not splat.unreadable:
        notes.append("the line with the bytes of the site is missing")
    if splat.flags is not None and splat.flags >> 25 & 1 and splat.phase == "init":
        notes.append("the record is still disabled: its module was being loaded")
    if splat.tramp and origin.actual.to == splat.tramp:
        notes.append("the call there leads to where ftrace wants it to lead")
    elif splat.tramp and origin.actual.kind == CALL and origin.actual.to is not None:
        notes.append(f"the call there leads to 0x{origin.actual.to:x}, ftrace's would to 0x{splat.tramp:x}")
    return notes


def fits(splat: Splat, origin: Origin, scan: Scan) -> Fit:
    """Whether the file is for that machine, and the module or the kernel that the message is about."""
    notes, other = [], False
    if origin.name and origin.name != name_in_logs(scan.arch.name):
        notes.append(f"the message is from {origin.name}, the file is for {scan.arch.name}")
        other = True
    if splat.function is None:
        return Fit(other, tuple(notes))
    own = read_modinfo(scan.image).name if scan.image.kind == "module" else ""
    if splat.module and scan.image.kind == "vmlinux":
        notes.append(f"the message is about the module {splat.module}, the file is a kernel: give that module")
        other = True
    elif splat.module and own and own != kernel_spelling(splat.module):
        notes.append(f"the message is about the module {splat.module}, the file is the module {own}")
        other = True
    elif own and not splat.module and splat.what:
        notes.append(f"the message is about the kernel itself, the file is the module {own}: give vmlinux")
        other = True
    return Fit(other, tuple(notes))


def number_at(scan: Scan, site: int) -> int | None:
    """What the file has at the call, as a number of `Arch.numbers`; None where it has no layout, so no words."""
    table = scan.sites
    body = table.body()[site : site + 1]
    if not body.size:
        return None
    return int((scan.arch.numbers(body) if table.shape else body)[0, -1])


def same_words(splat: Splat, origin: Origin, scan: Scan, site: int) -> bool | None:
    """Whether the file holds at the call what the kernel found there; None where one of both is not known."""
    there = number_at(scan, site)
    if there is None or splat.actual is None:
        return None
    size = scan.arch.call.size
    found = int.from_bytes(splat.actual[:size], "little" if scan.arch.unit > 1 else "big")
    return found == there if len(splat.actual) >= size else None


def slide(splat: Splat, scan: Scan, exact: list[int]) -> int | None:
    """Bytes from where the kernel was linked to where it ran, by the site or by ftrace's entry; None if unknown."""
    if not scan.image.linked:
        return None
    if splat.ip is not None and exact:
        return splat.ip - int(scan.sites.branch_va[exact[0]])
    if splat.tramp and splat.function is None:
        entries = [scan.image.symbols.value(name) for name in scan.arch.entries]
        moved = [splat.tramp - value for value in entries if value is not None]
        return next((by for by in moved if by % KASLR == 0), None)
    return None


def about_addresses(splat: Splat, origin: Origin, scan: Scan, exact: list[int]) -> list[str]:
    """What the addresses of the message are in this kernel, and whether it can be the one that ran."""
    moved = slide(splat, scan, exact)
    if moved is None:
        return []
    if moved % KASLR:
        return ["kernels are moved by whole pages only: another build than this file printed the message"]
    notes = [f"the kernel ran {moved:+#x} bytes from where it was linked"] if moved else []
    place = place_of(splat, scan, moved)
    return notes + [place] * bool(place) + names_of_targets(splat, origin, scan, moved)


def place_of(splat: Splat, scan: Scan, moved: int) -> str:
    """What a site that the kernel does not name is in this file; "" where it is named or has no address."""
    if splat.function is not None or splat.ip is None:
        return ""
    va = (splat.ip - moved) % SPACE
    sec, off = scan.image.place(np.array([va], dtype=np.uint64))
    if sec[0] < 0:
        return "no section of this file is at that address"
    name = name_at(scan.image, va)
    return f"that address is {scan.image.names[int(sec[0])]}+{int(off[0]):#x}" + (f", {name}" if name else "")


def in_freed_text(scan: Scan, site: int) -> bool:
    """Whether the site is in text that a kernel frees at the end of boot, and a module when it has been loaded."""
    table = scan.sites
    section = scan.image.names[int(table.sec[site])] if table.sec[site] >= 0 else ""
    return section.startswith(".init") or bool(in_init_text(scan.image, table.va[site : site + 1])[0])


def names_of_targets(splat: Splat, origin: Origin, scan: Scan, moved: int) -> list[str]:
    """Where the call leads in this kernel, and where ftrace wanted it to."""
    notes = []
    if origin.actual.kind in (CALL, JUMP) and origin.actual.to is not None:
        name = name_at(scan.image, (origin.actual.to - moved) % SPACE)
        what = "call" if origin.actual.kind == CALL else "jump"
        notes.append(f"that {what} leads to {name} of this file" if name
                     else f"that {what} leads out of this file's text: to a module, a trampoline or BPF")  # fmt: skip
    if splat.tramp:
        name = name_at(scan.image, (splat.tramp - moved) % SPACE)
        if name:
            notes.append(f"ftrace wanted it to lead to {name}")
    return notes
