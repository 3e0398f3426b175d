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
    assert arch.assembly is not None  # by which the stub was read
    jump, call = arch.assembly.jump, arch.assembly.call
    toc = arch.modules.toc if arch.modules else ""
    for fixup in stub.code.fixups:
        if fixup.kind == arch.abs64:
            continue
        calls, where = _calls(arch, stub, fixup), stub.where(fixup.off)
        if entry and fixup.symbol == TARGET:
            if calls and ops_size:
                raise PolicyError(f"{entry} cannot be called from here", where, found=f"{call} target",
                                  expected=f"{jump} target, as it finds its ops by the return address")  # fmt: skip
        elif toc and fixup.symbol in outside and not calls:
            raise PolicyError("a jump out of the module would leave the caller with another TOC", where,
                              found=f"{jump} {fixup.symbol}", expected=f"{call} {fixup.symbol}; nop")  # fmt: skip
        elif (
            toc and fixup.symbol in outside and stub.code.words[fixup.off // 4 + 1 : fixup.off // 4 + 2] != (arch.nop,)
        ):
            raise PolicyError("a call out of the module has no room for the TOC to be loaded again", where,
                              found=f"{call} {fixup.symbol} without a nop behind it",
                              expected="a nop, which the loader turns into the load of the TOC")  # fmt: skip


def not_shown(arch: Arch, stub: Stub, out_of_line: bool, entry: str) -> str:
    """Why the stub is not known to keep the contract of a site; empty where it is."""
    toc = arch.modules.toc if arch.modules else ""
    branches = [fixup for fixup in stub.code.fixups if fixup.kind != arch.abs64]
    for fixup in branches:
        calls, there = _calls(arch, stub, fixup), f"at line {stub.lines[fixup.off // 4]}"
        if fixup.symbol == SITE and (calls or fixup.addend != 4):
            return f"it goes to site{fixup.addend:+d} {there}, and only `b site+4` goes on behind the site"
        if fixup.symbol == TARGET and entry and calls:
            return f"it calls {entry} {there}, which then takes the stub for the site, and may change where it returns"
        if fixup.symbol not in (SITE, TARGET) and not calls:
            return f"it ends in {fixup.symbol} {there}, and a C function does not return as a site needs it"
        if fixup.symbol == TARGET and not entry and not calls:
            return f"it ends in the hook {there}, and a C function does not return as a site needs it"
    c_calls = [fixup for fixup in branches if _calls(arch, stub, fixup) and fixup.symbol != SITE]
    if toc and c_calls and toc not in stub.symbols:
        return WITHOUT_TOC
    return _walk(arch, stub, out_of_line, bool(entry))


def _walk(arch: Arch, stub: Stub, out_of_line: bool, to_entry: bool) -> str:
    places = {name: PLACES + APART * at for at, name in enumerate(sorted(stub.symbols))}
    words = np.array(stub.code.words, dtype=np.uint32)
    for fixup in stub.code.fixups:
        if fixup.kind != arch.abs64:
            distance = places[fixup.symbol] + fixup.addend - fixup.off
            word = arch.call.encode(np.array([distance], dtype=np.int64))[0]
            words[fixup.off // 4] |= word & np.uint32(~arch.call.word.mask & 0xFFFF_FFFF)

    def read(va: int, n: int) -> U32:
        return words[va // 4 : va // 4 + n] if va >= 0 else words[:0]

    home = places[SITE] + 4 if SITE in places else None
    target = places.get(TARGET) if to_entry else None
    reason = arch.keeps_contract(read, stub.code.entry, out_of_line, home, target)
    return re.sub(r"\bat (0x[0-9a-f]+)", lambda match: _line(stub, int(match[1], 16)), reason)


def _line(stub: Stub, off: int) -> str:
    return f"at line {stub.lines[off // 4]}" if off < 4 * len(stub.lines) else "behind its end"


def _calls(arch: Arch, stub: Stub, fixup: Fixup) -> bool:
    """Whether the branch at a fixup is one that comes back."""
    return bool(arch.call.word.matches(np.array([stub.code.words[fixup.off // 4]], dtype=np.uint32))[0])
