"""What a machine is to this program: tables of instruction words and a few pure functions over arrays of them.

An architecture is one file that ends in one `Arch` value. It does no I/O and sees no ELF object. Those of this folder
are named in `OWN`; `register` takes more, from anywhere. Layouts and branches are tables of a shared kind: `shape.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal

import numpy as np

from ftpatch.arch.contract import Contract, unjudged
from ftpatch.arch.parts import (
    AddressPair,
    Assembly,
    Code,
    Entry,
    FarCalls,
    Fixup,
    FlatImage,
    Loader,
    LogLines,
    Modules,
    OpsThunk,
    SiteStub,
    TableEnd,
)
from ftpatch.arch.shape import (
    ANY,
    MATCH_HALF,
    MATCH_NEW,
    MATCH_NONE,
    MATCH_OLD,
    WINDOW_BEFORE,
    WINDOW_SIZE,
    Branch,
    Shape,
    Word,
)
from ftpatch.arrays import U8, U32, U64
from ftpatch.errors import ArchError

__all__ = [
    "ANY",
    "MATCH_HALF",
    "MATCH_NEW",
    "MATCH_NONE",
    "MATCH_OLD",
    "WINDOW_BEFORE",
    "WINDOW_SIZE",
    "AddressPair",
    "Arch",
    "Assembly",
    "Branch",
    "Code",
    "Entry",
    "FarCalls",
    "Fixup",
    "FlatImage",
    "Loader",
    "LogLines",
    "Modules",
    "OpsThunk",
    "Shape",
    "SiteStub",
    "TableEnd",
    "Word",
    "arch_of",
    "architectures",
    "constants",
    "register",
    "registered",
    "shape_named",
    "support_table",
]  # fmt: skip

OWN = {183: "arm64", 21: "ppc64le"}  # e_machine → the module of this folder that ends in its `ARCH`
_added: dict[str, Arch] = {}  # machines that were registered from outside, by name

# What a new machine has to fill, tier by tier. A tier not reached is refused in words, never by a crash.
#
#   scan, check, explain, diff   name, e_machine, nop, call, shapes, relative, none, abs64, abs32, wide; entries and
#                                read_entry, so that an image without records shows its layout. Sites are bytes: the
#                                `unit` of `call` and of the shapes is 4 where every instruction is an aligned word, 1
#                                where instructions have any length and lie at any address (tests/toy_machine.py).
#                                Where its kernels have something of the kind: local_entry, dotted_names, max_offset,
#                                compares_first, jumps, capstone, log, layout_options, skip_option, alternatives,
#                                exchangeable and cache_line
#   image                        boot
#   enable, disable, drop        contract, keeps_contract, echoes; skips_zero and table_end, by which records may leave
#   one ops per site             ops_thunk, or site_stub where sites are out of line
#   calls out of reach           far
#   modules                      loader, modules; assembly for --stub-asm
#   verify, emulation            an emulator in proof/


@dataclass(frozen=True)
class Arch:
    """One machine. Tiers as in the list above."""

    # -- scan, check, explain, diff
    # as reports and messages call it
    name: str
    # number in the ELF header
    e_machine: int
    # the NOP that compilers leave: its word, or its bytes as one number, the first byte foremost
    nop: int
    # the branch by which a site calls
    call: Branch
    # layouts of its patch sites, the longest first
    shapes: tuple[Shape, ...]
    # relocation type of a base-relative pointer in a linked image
    relative: int
    # relocation type that every loader skips
    none: int
    # relocation type of a plain 64-bit pointer in ET_REL
    abs64: int
    # relocation type of a plain 32-bit value in ET_REL: debug sections refer to each other by it
    abs32: int
    # relocation types that fill eight bytes; all others fill four at most
    wide: tuple[int, ...]
    # symbols of the kernel's own trampolines, the default target first
    entries: tuple[str, ...]
    # what the kernel's own trampoline does, from its first instruction words
    read_entry: Callable[[U32], Entry]
    # st_other → bytes from a function's symbol to its local entry; None where functions have one entry only
    local_entry: Callable[[U8], U64] | None = None
    # the module loader drops one dot in front of a symbol's name, and `.TOC.` is its own
    dotted_names: bool = False
    # bytes behind a symbol beyond which newer kernels call a record invalid; None: no limit
    max_offset: int | None = None
    # at boot its kernels compare the first word of a site alone, unless that site is a call
    compares_first: bool = False
    # mnemonics of direct jumps, and of the direct call behind them, for the names of where they go
    jumps: tuple[str, ...] = ()
    # names of capstone's constants: the architecture, then the flags of its mode; empty where it has none
    capstone: tuple[str, ...] = ()
    # how its kernels speak of ftrace in a log
    log: LogLines = field(default_factory=LogLines)
    # instructions that may take each other's place while other processors execute them
    exchangeable: tuple[Word, ...] = ()
    # bytes of a cache line on usual machines
    cache_line: int = 64
    # configuration options that decide the layout, the first that is set: (option, names of layouts)
    layout_options: tuple[tuple[str, tuple[str, ...]], ...] = ()
    # the option that puts what a layout skips in front of every site
    skip_option: str = ""
    # .altinstructions, where each row tells the length of its code: (bytes of a row, where in it that stands)
    alternatives: tuple[int, int] | None = None

    # -- image
    # what boots: a flat image, or "elf" where firmware boots the ELF file itself; None: not known
    boot: FlatImage | Literal["elf"] | None = None

    # -- enable, disable, drop
    # what a target must do, for people; empty where this tier is not reached
    contract: str = ""
    # whether a piece of code does that
    keeps_contract: Contract = unjudged
    # a slot's word repeats the addend of its relocation
    echoes: bool = False
    # whether the kernel's loop over the records, by its words, tests a value for 0 before it adjusts it
    skips_zero: Callable[[U32], bool] | None = None
    # how the end of the record table is formed in code
    table_end: TableEnd | None = None
    ops_thunk: OpsThunk | None = None
    site_stub: SiteStub | None = None
    far: FarCalls | None = None

    # -- modules
    loader: Loader = field(default_factory=Loader)
    modules: Modules | None = None
    assembly: Assembly | None = None

    # -- verify, and the check of what the writing verbs write
    # module with the tables by which the proof reads code, `TABLES` (see proof_tables.py); not imported before
    proof: str = ""

    @property
    def unit(self) -> int:
        """Bytes of a unit of code, and what instructions are aligned to: 4 where each is one word, else 1."""
        return self.call.unit

    def numbers(self, units: U32) -> U64:
        """(n, units) of code as the numbers in which a kernel and its messages name it: each word, or all bytes of a
        row as one, the first byte foremost."""
        numbers: U64 = units.astype(np.uint64)
        if self.call.n_units == 1:
            return numbers
        places = np.arange(units.shape[1] - 1, -1, -1, dtype=np.uint64)
        return np.asarray((numbers << (np.uint64(8 * self.unit) * places)).sum(axis=1, dtype=np.uint64))[:, None]

    def text(self, number: int) -> str:
        """Such a number in hex, as long as the code that it is."""
        return f"{number:0{2 * self.call.size}x}"

    def code_text(self, units: U32) -> str:
        """Units of code in hex, as they lie: words, or bytes."""
        return " ".join(f"{unit:0{2 * self.unit}x}" for unit in units.tolist())

    def shape(self, name: str) -> Shape | None:
        """The shape of that name, if this machine has it."""
        return next((shape for shape in self.shapes if shape.name == name), None)


def architectures() -> tuple[Arch, ...]:
    """Every machine that this program knows."""
    return (*(import_module(f"ftpatch.arch.{name}").ARCH for name in OWN.values()), *_added.values())


def register(arch: Arch) -> None:
    """Make a machine known to the whole program. A name or ELF number that is taken is an AssertionError."""
    for other in architectures():
        assert arch.name != other.name and arch.e_machine != other.e_machine, f"{other.name} is registered already"
    _added[arch.name] = arch


@contextmanager
def registered(arch: Arch) -> Iterator[Arch]:
    """As `register`, for as long as the context lasts."""
    register(arch)
    try:
        yield arch
    finally:
        del _added[arch.name]


def constants(library: object, names: tuple[str, ...]) -> tuple[int, int]:
    """(architecture, mode) of a disassembler or assembler, from the names of its constants."""
    mode = 0
    for name in names[1:]:
        mode |= int(getattr(library, name))
    return int(getattr(library, names[0])), mode


def shape_named(arch: str, layout: str) -> Shape | None:
    """The shape that a report names; None for `none`."""
    return next((one.shape(layout) for one in architectures() if one.name == arch), None)


def support_table() -> list[str]:
    """The README's table of what is supported, from the registers: Markdown lines."""
    rows = ["| machine | layout | | scan | enable | far calls | modules |", "|---|---|---|---|---|---|---|"]
    for arch in architectures():
        for shape in arch.shapes:
            refused = shape.refusal or not arch.contract
            enable = "refused" if refused else "yes"
            far = "" if refused else "yes" if arch.far else "not needed"
            module = "scan" if refused or arch.modules is None else "yes"
            rows.append(f"| {arch.name} | `{shape.name}` | {shape.text} | yes | {enable} | {far} | {module} |")
    return rows


def arch_of(e_machine: int, path: str) -> Arch:
    """The architecture of an e_machine value; ArchError names what the file is for instead."""
    if e_machine in OWN:  # the others need not be loaded
        own: Arch = import_module(f"ftpatch.arch.{OWN[e_machine]}").ARCH
        return own
    known = {arch.e_machine: arch for arch in architectures()}
    if e_machine in known:
        return known[e_machine]
    name = MACHINES.get(e_machine, "unknown")
    raise ArchError("machine not supported", path, found=f"e_machine {e_machine} ({name})",
                    expected=", ".join(f"{a.e_machine} ({a.name})" for a in known.values()),
                    todo="give a kernel, module or object of one of these")  # fmt: skip


# Names of ELF machines that kernels are made for. Source: include/uapi/linux/elf-em.h.
MACHINES: Mapping[int, str] = {
    2: "sparc", 3: "x86 32-bit", 8: "mips", 20: "ppc 32-bit", 21: "ppc64", 22: "s390", 40: "arm 32-bit", 43: "sparc64",
    50: "ia64", 62: "x86-64", 183: "arm64", 243: "riscv", 258: "loongarch",
}  # fmt: skip
