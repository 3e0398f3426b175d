"""The stub by which the sites of a program call a hook: one that an earlier patch added, or a new one in a new segment.

Who builds other code that ends in a hook, as the pads of pad-before do, calls `hook_stub` and branches to its address.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch.program_parts import Programs
from ftpatch.elf.editor import Placed
from ftpatch.elf.image import Image
from ftpatch.elf.program_editor import SECTION, new_segment
from ftpatch.errors import ReachError, UnsupportedError
from ftpatch.plan.edits import Group, code_bytes, group
from ftpatch.plan.program.targets import ProgramTarget
from ftpatch.plan.program.wide import uses_wide_registers
from ftpatch.plan.stub_room import SharedStub
from ftpatch.sites.scan import Scan

WHY_NEW = "code that the patch brings along, in a segment of its own behind everything that is loaded"
WHY_OLD = "an earlier patch put it there"


@dataclass(frozen=True)
class HookStub:
    """A stub, and what must change in the file for it to be there."""

    stub: SharedStub
    header: tuple[Group, ...] = ()  # edits of the ELF header
    tail: tuple[Placed, ...] = ()  # what follows the original bytes


def hook_stub(scan: Scan, programs: Programs, hook: ProgramTarget, deep: bool = False) -> HookStub:
    """The stub that calls a hook as hook(site, caller) for sites of this file.

    deep: for calls behind a function's prologue. Raises UnsupportedError, PolicyError or ReachError where the file
    takes no new code.
    """
    image, unit, wide = scan.image, scan.arch.unit, uses_wide_registers(scan, programs)
    make = programs.deep_stub if deep else programs.stub
    if make is None:
        raise UnsupportedError("no hook can be called behind a prologue", image.path, found=image.arch.name,
                               expected="sites at the entries of functions")  # fmt: skip
    for sec in image.sections_named(SECTION):
        va = int(image.base[sec])
        if not image.executable[sec] or not _reaches(programs, hook, va):
            continue
        code = make(va, hook.call, wide)
        if np.array_equal(image.code(va, len(code)), code):
            return HookStub(SharedStub(va, code, True, SECTION, WHY_OLD))
    segment = new_segment(image)
    if not _reaches(programs, hook, segment.code_va):
        reach = programs.slot_reach if hook.own is None else programs.reach
        raise ReachError("the hook is out of reach of new code at the file's end", image.path,
                         found=f"{hook.va - segment.code_va:+#x} bytes to {hook.name}",
                         expected=f"at most {reach:#x}")  # fmt: skip
    code = make(segment.code_va, hook.call, wide)
    header, tail = segment.finish(code_bytes(code[None, :], unit).tobytes())
    return HookStub(SharedStub(segment.code_va, code, False, SECTION, WHY_NEW), _groups(image, header), tuple(tail))


def _reaches(programs: Programs, hook: ProgramTarget, va: int) -> bool:
    """Whether a stub at `va` reaches what it calls."""
    return abs(hook.va - va) < (programs.slot_reach if hook.own is None else programs.reach)


def _groups(image: Image, header: list[Placed]) -> tuple[Group, ...]:
    """Fields of the ELF header as edits."""
    owner = np.zeros(1, np.int64)
    return tuple(
        group("header", image.data, owner, np.array([piece.pos]), np.frombuffer(piece.new, np.uint8)[None])
        for piece in header
    )
