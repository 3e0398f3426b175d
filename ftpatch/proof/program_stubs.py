"""The code that patches of a program brought along: stubs by which sites call a C function, one behind the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ftpatch.arch.program_proof import LONGEST, StubRead, program_proof
from ftpatch.proof.case import Case
from ftpatch.proof.program_file import ALIGN_CODE, NAME, Added


def read_stubs(case: Case, added: Sequence[Added]) -> dict[int, StubRead]:
    """The stubs by their addresses; a finding where what was appended is something else as well."""
    stubs: dict[int, StubRead] = {}
    for part in added:
        for at, stub in _stubs(case, part):
            if stub.why:
                case.say("verify-stub", f"the new code at {part.va + at:#x} is no stub that calls a C function: "
                         f"{stub.why}", pos=part.pos + at)  # fmt: skip
            else:
                stubs[part.va + at] = stub
                case.kinds["hook stub"] += 1
    for part in _earlier(case):
        stubs |= {part.va + at: stub for at, stub in _stubs(case, part) if not stub.why}
    return stubs


def _earlier(case: Case) -> Iterator[Added]:
    """What both files have of such code: the first was patched before."""
    image = case.after.image
    for sec in (sec for sec in image.sections_named(NAME) if sec < len(case.before.image.shdr)):
        va, pos, size = (int(image.shdr[field][sec]) for field in ("sh_addr", "sh_offset", "sh_size"))
        if image.executable[sec]:
            yield Added(va, size, va, pos)


def _stubs(case: Case, part: Added) -> Iterator[tuple[int, StubRead]]:
    """(offset, what is there) of each stub, up to the first that is none."""
    machine, data = program_proof(case.arch), case.after.image.data
    at = 0
    while at < part.size:
        code = data[part.pos + at : part.pos + min(part.size, at + LONGEST)].tobytes()
        stub = machine.read(code, part.va + at) if machine else StubRead(why="none is known of this machine")
        end = at + stub.size
        following = min(-(-end // ALIGN_CODE) * ALIGN_CODE, part.size)
        if not stub.why and data[part.pos + end : part.pos + following].any():
            stub = StubRead(why=f"the bytes behind it, at {part.va + end:#x}, are no zeros")
        yield at, stub
        if stub.why:
            return
        at = following
