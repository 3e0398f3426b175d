"""What a machine is to this program: tables of instruction words and a few pure functions over arrays of them.

An architecture is one file in this folder that ends in one `Arch` value, and a line in `REGISTER`. It does no I/O and
sees no ELF object. What a new one has to fill, in tiers; a tier not reached is refused in words, never by a crash:

    scan            e_machine, call, shapes, relative, abs64, echoes
    patch vmlinux   entries, read_entry, keeps_contract; what its kernels need of skips_zero and table_end
    ops per site    ops_thunk, or site_stub where sites are out of line
    far calls       far
    modules         modules: relocation types, and the code that a patch brings along

Layouts and branches are tables of a shared kind: `shape.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ftpatch.arch.contract import Contract
from ftpatch.arch.shape import (
    MATCH_HALF,
    MATCH_NEW,
    MATCH_NONE,
    MATCH_OLD,
    WINDOW,
    WINDOW_FIRST,
    Branch,
    Shape,
    Word,
)
from ftpatch.arrays import I64, U8, U32, U64
from ftpatch.errors import ArchError

__all__ = [
    "MATCH_HALF", "MATCH_NEW", "MATCH_NONE", "MATCH_OLD", "WINDOW", "WINDOW_FIRST", "AddressPair", "Arch", "Branch",
    "Code", "Entry", "FarCalls", "Fixup", "Modules", "OpsThunk", "Shape", "SiteStub", "TableEnd", "Word", "arch_of",
    "architectures", "shape_named", "support_table",
]  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """What the kernel's own trampoline reads: `literal` tells that it loads the ops pointer that stands in front of the
    function or stub, in `register`; `resume` is the byte offset behind that load; `direct_call` the offset of a second
    pointer that it reads from the ops; `kernel_toc` where in the paca it finds the kernel's TOC."""

    literal: bool
    register: int = 0
    resume: int = 0
    direct_call: int = 0
    kernel_toc: int | None = None


@dataclass(frozen=True)
class AddressPair:
    """Two instructions that form an address: their word indices, the register, the address; `private` where the
    first one's result serves the second alone, so that both may change."""

    first: int
    second: int
    register: int
    value: int
    private: bool


@dataclass(frozen=True)
class OpsThunk:
    """A shared stub that loads the ops for all sites: words(va, ops, va of the trampoline, its Entry)."""

    words: Callable[[int, int, int, Entry], U32]
    size: int
    reach: int  # bytes from the thunk within which the ops must lie
    avoids: tuple[int, ...]  # offsets in a 4 KiB page where its second word may not lie


@dataclass(frozen=True)
class TableEnd:
    """How code forms the end of the record table, and how to change it."""

    find: Callable[[U32, int, int], list[AddressPair]]
    change: Callable[[U32, int, AddressPair, int], U32 | None]


@dataclass(frozen=True)
class FarCalls:
    """Calls beyond the branch's reach: words(target, TOC, place of the TOC in the paca).

    areas: symbols of the kernel's own trampolines, zero on disk, the second for init text; the kernel fills them with a
    jump to its last entry. toc: symbol of the TOC. early, start, ready: the functions known to run before the paca
    exists, where the walk for others starts, and the call that ends it.
    """

    stub: Callable[[int, int, int], U32]
    size: int
    reach: int  # bytes from the TOC within which a target must lie
    areas: tuple[str, str]
    toc: str
    start: str
    ready: str
    early: tuple[str, ...]
    runs_before: Callable[[Callable[[int, int], U32], Callable[[int], int], int, int], tuple[set[int], str]]


@dataclass(frozen=True)
class SiteStub:
    """A stub per site: code(call distance, back distance) → words; `literal` bytes of ops pointer in front of it, if
    the kernel reads one; text, init: the areas of slots, filled by the kernel in this order from their starts."""

    code: Callable[[I64, I64], U32]
    literal: int
    size: int
    call_at: int
    back_at: int
    text: tuple[str, ...]
    init: str


@dataclass(frozen=True)
class Fixup:
    """A relocation that a piece of code needs: byte offset, type, which symbol ("hook", "toc"), addend."""

    off: int
    kind: int
    symbol: str
    addend: int = 0


@dataclass(frozen=True)
class Code:
    """A piece of code for a module: its words, data in front of it included; byte offset of the first instruction."""

    words: tuple[int, ...]
    entry: int = 0
    fixups: tuple[Fixup, ...] = ()


@dataclass(frozen=True)
class Modules:
    """How modules of this machine are patched: with relocations that their loader resolves.

    branch: relocation type of a call; trampolines: the sections, core and init, in which the loader puts its jumps to
    the kernel's entries, `jump` bytes each, in the order of `Arch.entries`; empty where it offers nothing that can be
    named, so that a trampoline is brought along. ops_function: what an ops object of ours calls. hook: a stub that
    calls a C function, for a shape that is out of line or not. toc: the symbol that stands for the module's TOC.
    """

    branch: int
    trampolines: tuple[str, ...]
    jump: int
    ops_function: Code
    hook: Callable[[bool], Code]
    toc: str = ""


@dataclass(frozen=True)
class Arch:
    name: str
    e_machine: int
    nop: int
    call: Branch
    shapes: tuple[Shape, ...]  # longest first
    relative: int  # relocation type of a base-relative pointer in a linked image
    none: int  # relocation type that every loader skips
    abs64: int  # relocation type of a plain 64-bit pointer in ET_REL
    echoes: bool  # a slot's word repeats the addend of its relocation
    entries: tuple[str, ...]  # the kernel's own trampolines, the default first
    read_entry: Callable[[U32], Entry]
    contract: str  # what a target must do, for people
    keeps_contract: Contract
    ops_thunk: OpsThunk | None = None
    table_end: TableEnd | None = None
    skips_zero: Callable[[U32], bool] | None = None
    # st_other → bytes from a function's symbol to its local entry; None where functions have one entry only
    local_entry: Callable[[U8], U64] | None = None
    far: FarCalls | None = None
    site_stub: SiteStub | None = None
    modules: Modules | None = None
    dotted_names: bool = False  # the module loader drops one dot in front of a symbol's name, `.TOC.` is its own
    boots_elf: bool = False  # firmware boots the ELF file itself, not a flat image
    max_offset: int | None = None  # how far behind a symbol a record may lie before newer kernels call it invalid

    def shape(self, name: str) -> Shape | None:
        """The shape of that name, if this machine has it."""
        return next((shape for shape in self.shapes if shape.name == name), None)


def architectures() -> tuple[Arch, ...]:
    """Every machine that this program knows."""
    from ftpatch.arch import arm64, ppc64le

    return (arm64.ARCH, ppc64le.ARCH)


def shape_named(arch: str, layout: str) -> Shape | None:
    """The shape that a report names; None for `none`."""
    return next((one.shape(layout) for one in architectures() if one.name == arch), None)


def support_table() -> list[str]:
    """The README's table of what is supported, from the registers: Markdown lines."""
    rows = ["| machine | layout | | scan | enable | far calls | modules |", "|---|---|---|---|---|---|---|"]
    for arch in architectures():
        for shape in arch.shapes:
            enable = "refused" if shape.refusal else "yes"
            far = "" if shape.refusal else "yes" if arch.far else "not needed"
            module = "scan" if shape.refusal or arch.modules is None else "yes"
            rows.append(f"| {arch.name} | `{shape.name}` | {shape.text} | yes | {enable} | {far} | {module} |")
    return rows


def arch_of(e_machine: int, path: str) -> Arch:
    """The architecture of an e_machine value; ArchError names what the file is for instead."""
    register = {arch.e_machine: arch for arch in architectures()}
    if e_machine in register:
        return register[e_machine]
    name = MACHINES.get(e_machine, "unknown")
    raise ArchError("machine not supported", path, found=f"e_machine {e_machine} ({name})",
                    expected=", ".join(f"{a.e_machine} ({a.name})" for a in register.values()),
                    todo="give a kernel, module or object of one of these")  # fmt: skip


MACHINES = {2: "sparc", 3: "x86 32-bit", 8: "mips", 20: "ppc 32-bit", 21: "ppc64", 22: "s390", 40: "arm 32-bit",
            43: "sparc64", 50: "ia64", 62: "x86-64", 183: "arm64", 243: "riscv", 258: "loongarch"}  # fmt: skip
