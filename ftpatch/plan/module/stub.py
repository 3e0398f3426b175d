"""Does a user's own stub work at the sites that will call it? What its branches to symbols must look like, and whether
it keeps the contract of a site.

The stub is walked at address 0, so that the addresses in a reason are byte offsets; every symbol that it branches to
stands at an address of its own behind it.
"""

from __future__ import annotations

import re

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arch.parts import Fixup
from ftpatch.arrays import U32
from ftpatch.errors import PolicyError
from ftpatch.plan.stubasm import Stub
from ftpatch.plan.stubasm.text import SITE, TARGET

PLACES, APART = 1 << 24, 64  # where the walk sees symbols: within reach of every machine's branch
WITHOUT_TOC = (
    "it calls code of the module or outside with the TOC that it was entered with, which may be anybody's, and never "
    "looks for .TOC."
)


def require_direct(arch: Arch, stub: Stub, outside: frozenset[str], entry: str, ops_size: int) -> None:
    """Refuse branches that no loader can make work.

    outside: the symbols that are not in the module; entry: the kernel's entry that `target` is, or empty; ops_size: not
    0 where that entry reads an ops pointer by its return address. Raises PolicyError.
    """
    assert arch.assembly is not None and arch.modules is not None  # the stub was read by one, and is for the other
    jump, call = arch.assembly.jump, arch.assembly.call
    for fixup in _branches(arch, stub):
        calls, where, name = _calls(arch, stub, fixup), stub.where(fixup.off), fixup.symbol
        behind = stub.code.words[fixup.off // 4 + 1 : fixup.off // 4 + 2]
        if entry and name == TARGET:
            if calls and ops_size:
                raise PolicyError(f"{entry} cannot be called from here", where, found=f"{call} target",
                                  expected=f"{jump} target, as it finds its ops by the return address")  # fmt: skip
        elif arch.modules.toc and name in outside and not calls:
            raise PolicyError("a jump out of the module would leave the caller with another TOC", where,
                              found=f"{jump} {name}", expected=f"{call} {name}; nop")  # fmt: skip
        elif arch.modules.toc and name in outside and behind != (arch.nop,):
            raise PolicyError("a call out of the module has no room for the TOC to be loaded again", where,
                              found=f"{call} {name} without a nop behind it",
                              expected="a nop, which the loader turns into the load of the TOC")  # fmt: skip


def not_shown(arch: Arch, stub: Stub, out_of_line: bool, entry: str) -> str:
    """Why the stub is not known to keep the contract of a site; empty where it is."""
    calls_c = False
    for fixup in _branches(arch, stub):
        calls, place = _calls(arch, stub, fixup), f"at line {stub.lines[fixup.off // 4]}"
        if fixup.symbol == SITE:
            if calls or fixup.addend != 4:
                return f"it goes to site{fixup.addend:+d} {place}, and only `b site+4` goes on behind the site"
        elif fixup.symbol == TARGET and entry:
            if calls:
                why = "which then takes the stub for the site, and may change where it returns"
                return f"it calls {entry} {place}, {why}"
        elif not calls:
            name = "the hook" if fixup.symbol == TARGET else fixup.symbol
            return f"it ends in {name} {place}, and a C function does not return as a site needs it"
        else:
            calls_c = True
    toc = arch.modules.toc if arch.modules else ""
    if toc and calls_c and toc not in stub.symbols:
        return WITHOUT_TOC
    return _walk(arch, stub, out_of_line, bool(entry))


def _walk(arch: Arch, stub: Stub, out_of_line: bool, to_entry: bool) -> str:
    """Why the stub's instructions do not keep the contract; empty where they do."""
    places = {name: PLACES + APART * at for at, name in enumerate(sorted(stub.symbols))}
    words = np.array(stub.code.words, dtype=np.uint32)
    for fixup in _branches(arch, stub):
        distance = places[fixup.symbol] + fixup.addend - fixup.off
        word = arch.call.encode(np.array([distance], dtype=np.int64))[0]
        words[fixup.off // 4] |= word & np.uint32(~arch.call.word.mask & 0xFFFF_FFFF)

    def read(va: int, n: int) -> U32:
        return words[va // 4 : va // 4 + n] if va >= 0 else words[:0]

    def line(match: re.Match[str]) -> str:
        number = int(match[1], 16) // 4
        return f"at line {stub.lines[number]}" if number < len(stub.lines) else "behind its end"

    behind_site = places[SITE] + 4 if SITE in places else None
    target = places.get(TARGET) if to_entry else None
    reason = arch.keeps_contract(read, stub.code.entry, out_of_line, behind_site, target)
    return re.sub(r"\bat (0x[0-9a-f]+)", line, reason)


def _branches(arch: Arch, stub: Stub) -> list[Fixup]:
    """The fixups of branches: all but pointers."""
    return [fixup for fixup in stub.code.fixups if fixup.kind != arch.abs64]


def _calls(arch: Arch, stub: Stub, fixup: Fixup) -> bool:
    """Whether the branch at a fixup is one that comes back."""
    return bool(arch.call.word.matches(np.array([stub.code.words[fixup.off // 4]], dtype=np.uint32))[0])
