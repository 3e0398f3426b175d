"""What a machine is to this program: tables of instruction words and a few pure functions over arrays of them.

An architecture is one file that ends in one `Arch` value. It does no I/O and sees no ELF object. Those of this folder
are named in `OWN`; `register` takes more, from anywhere. Layouts and branches are tables of a shared kind: `shape.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from importlib import import_module
from itertools import groupby
from operator import or_
from typing import Literal, NamedTuple

import numpy as np

from ftpatch.arch import parts
from ftpatch.arch.code_lists import CodeList
from ftpatch.arch.contract import Read
from ftpatch.arch.fillers import Fillers
from ftpatch.arch.fronts import Pads
from ftpatch.arch.shape import Branch, Shape, Word
from ftpatch.arch.static_call_forms import StaticCalls
from ftpatch.arrays import U8, U32, U64, Mask
from ftpatch.errors import ArchError

OWN = {183: "arm64", 21: "ppc64le", 62: "x86_64"}  # e_machine → the module of this folder that ends in its `ARCH`
_added: dict[str, Arch] = {}  # machines that were registered from outside, by name

# What a new machine has to fill, tier by tier. A tier not reached is refused in words, never by a crash.
#
#   scan, check, explain, diff   name, e_machine, nop, call, shapes, relative, none, abs64, abs32, wide; entries and
#                                read_entry, so that an image without records shows its layout. Sites are bytes: the
#                                `unit` of `call` and of the shapes is 4 where every instruction is an aligned word, 1
#                                where instructions have any length and lie at any address (tests/toy_machine.py).
#                                Where its kernels have something of the kind: local_entry, dotted_names, max_offset,
#                                compares_first, jump, global_entry, jumps, capstone, log, layout_options, skip_option,
#                                alternatives, exchangeable and cache_line
#   image                        boot
#   enable, disable, drop        contract, judge, echoes; skips_zero and table_end, by which records may leave
#   one ops per site             ops_thunk, or site_stub where sites are out of line
#   calls out of reach           far or veneer
#   redirect                     jump, and one of these
#   modules                      loader, modules; assembly for --stub-asm
#   verify, emulation            an emulator in proof/


class Arch(NamedTuple):
    """One machine. Tiers as in the list above."""

    # -- scan, check, explain, diff
    name: str  # as reports and messages call it
    e_machine: int  # number in the ELF header
    nop: int  # the NOP that compilers leave: its word, or its bytes as one number, the first byte foremost
    call: Branch  # the branch by which a site calls
    shapes: tuple[Shape, ...]  # layouts of its patch sites, the longest first
    relative: int  # relocation type of a base-relative pointer in a linked image
    none: int  # relocation type that every loader skips
    abs64: int  # relocation type of a plain 64-bit pointer in ET_REL
    abs32: int  # relocation type of a plain 32-bit value in ET_REL: debug sections refer to each other by it
    wide: tuple[int, ...]  # relocation types that fill eight bytes; all others fill four at most
    entries: tuple[str, ...]  # symbols of the kernel's own trampolines, the default target first
    read_entry: Callable[[U32], parts.Entry]  # what the kernel's own trampoline does, from its first instruction words
    fronts: tuple[Shape, ...] = ()  # layouts with NOPs in front of the entry, the longest first, see `fronts.py`
    unwinds_from_entry: bool = False  # unwind tables begin with a function's NOPs, not behind them
    front_nop: int | None = None  # the unit of these NOPs, where that is not `nop`
    relaxes_to_nops: bool = False  # its linkers make NOPs of instructions, at the entries of functions, too
    irelative: int | None = None  # relocation type by which the loader of programs asks a function for an address
    direct_calls: tuple[int, ...] = ()  # relocation types of direct calls
    indirect_calls: tuple[int, ...] = ()  # relocation types of calls through a pointer to a named function
    pointer_options: str = "-fno-plt, -mlongcall"  # by which compilers make such calls
    # plt_slot(words of stubs, their addresses, address of .got) → the word that holds where each jumps to, 0 for none
    plt_slot: Callable[[U32, U64, int], U64] | None = None
    # st_other → bytes from a function's symbol to its local entry; None where functions have one entry only
    local_entry: Callable[[U8], U64] | None = None
    # st_other → functions that leave another TOC pointer to those who called them with theirs
    loses_toc: Callable[[U8], Mask] | None = None
    tls: tuple[int, ...] = ()  # relocation types of thread-local variables, in debug information: nobody asks for them
    padded: bool = False  # ftrace looks at __mcount_loc alone: the other list names padding in front of functions
    padding_names: tuple[str, ...] = ()  # how symbols begin that name padding in front of functions, as if it were some
    code_marks: str = ""  # how names begin that mark where code and data lie: a character behind it, or a dot and more
    dotted_names: bool = False  # the module loader drops one dot in front of a symbol's name, and `.TOC.` is its own
    max_offset: int | None = None  # bytes behind a symbol beyond which newer kernels call a record invalid
    sorts_at_boot: bool = False  # its kernels sort their records when they boot, whatever the build did
    compares_first: bool = False  # at boot its kernels compare a site's first word alone, unless that is a call
    jump: Branch | None = None  # the direct jump, by which a function may end in another
    # how the code begins that is behind a jump which ends a function and still in its bounds: traps and marks
    ends: tuple[tuple[Word, ...], ...] = ()
    # how a function begins that does nothing: where the site says no more than its call, any may be called so
    idle: tuple[tuple[Word, ...], ...] = ()
    global_entry: tuple[tuple[Word, ...], ...] = ()  # what may stand in front of a local entry, of equal lengths
    jumps: tuple[str, ...] = ()  # mnemonics of direct jumps, and of the direct call behind them
    capstone: tuple[str, ...] = ()  # names of capstone's constants: the architecture, then the flags of its mode
    log: parts.LogLines = parts.LogLines()  # how its kernels speak of ftrace in a log
    exchangeable: tuple[Word, ...] = ()  # may take each other's place while other processors execute them
    cache_line: int = 64  # bytes of a cache line on usual machines
    short_nop: int | None = None  # the NOP of one unit, where there are longer ones
    fillers: Fillers = Fillers()  # what stands between functions, piece by piece
    padding: bytes = b""  # what assemblers fill gaps in code with, as a pattern of module `re`
    # configuration options that decide the layout, the first that is set: (option, names of layouts)
    layout_options: tuple[tuple[str, tuple[str, ...]], ...] = ()
    skip_option: str = ""  # the option that puts what a layout skips in front of every site
    # .altinstructions, where each row tells the length of its code: (bytes of a row, where in it that stands); where
    # its form has changed, the one of today first
    alternatives: tuple[tuple[int, int], ...] = ()
    short_keys: tuple[tuple[Word, ...], ...] = ()  # code of a static key that is shorter than a call

    # -- static-calls
    static_calls: StaticCalls | None = None  # None: its kernels have none, as `no_static_calls` says
    no_static_calls: str = "kernels of this machine have no static calls"

    # -- image
    # what boots: a flat image, or "elf" where firmware boots the ELF file itself; None: not known
    boot: parts.FlatImage | Literal["elf"] | None = None

    # -- enable, disable, drop
    contract: str = ""  # what a target must do, for people; empty where this tier is not reached
    library_contract: str = ""  # the same at sites that call as any code calls a function of C
    judge: str = ""  # module whose `keeps_contract` tells whether a piece of code does that; not imported before
    # module that tells which registers instructions read and write, `REGISTERS` and `use`; not imported before
    registers: str = ""
    # relocation types of which the build makes the list by which a compressed kernel moves itself, where it has one
    listed: tuple[int, ...] = ()
    code_lists: tuple[CodeList, ...] = ()  # what else its kernels rewrite at boot
    # at least one record has to name text that is never freed
    core_record: bool = False
    echoes: bool = False  # a slot's word repeats the addend of its relocation
    # whether the kernel's loop over the records, by its words, tests a value for 0 before it adjusts it
    skips_zero: Callable[[U32], bool] | None = None
    table_end: parts.TableEnd | None = None  # how the end of the record table is formed in code
    ops_thunk: parts.OpsThunk | None = None  # how a shared stub brings the ops
    site_stub: parts.SiteStub | None = None  # where every site calls from a stub of its own
    far: parts.FarCalls | None = None  # how calls go farther than a branch reaches
    pads: Pads | None = None  # what fills the NOPs in front of an entry

    # what lies between the text and init text is mapped executable and never freed
    text_reaches_init: bool = False
    # how a call or jump goes farther than it reaches, where that needs no more than the addresses; else `far` serves
    veneer: parts.Veneer | None = None

    # -- redirect
    # in_registers(result, parameters) → for each parameter whether all of it travels in registers, None: that is not
    # told; None where no stub of a redirect has a frame of its own, so that it makes no difference
    in_registers: Callable[[parts.Passed, Sequence[parts.Passed]], list[bool | None]] | None = None
    # ways_out(units of a function) → whether it may be left, by a return or a jump; calls do not count
    ways_out: Callable[[U32], bool] | None = None
    widens: bool = False  # callers widen a number to the register, by its sign, and callees count on that

    # -- modules
    loader: parts.Loader = parts.Loader()
    modules: parts.Modules | None = None
    assembly: parts.Assembly | None = None

    # -- programs
    programs: str = ""  # module that ends in `PROGRAMS` (see program_parts.py); not imported before

    # -- verify, and the check of what the writing verbs write
    # module with the tables by which the proof reads code, `TABLES` (see proof_tables.py); not imported before
    proof: str = ""

    @property
    def unit(self) -> int:
        """Bytes of a unit of code, and what instructions are aligned to: 4 where each is one word, else 1."""
        return self.call.unit

    def crosses_line(self, va: int, size: int) -> bool:
        """Whether `size` bytes from an address lie in two cache lines, so that no single store writes them."""
        return va // self.cache_line != (va + size - 1) // self.cache_line

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

    def code_words(self, units: U32) -> list[str]:
        """Units of code as reports have them: each word as a number; of bytes one string, in the file's order."""
        if self.call.n_units > 1:
            return ["0x" + bytes(units.tolist()).hex()] if len(units) else []
        return [f"0x{word:08x}" for word in units.tolist()]

    def keeps_contract(
        self, read: Read, va: int, out_of_line: bool, home: int | None = None, target: int | None = None,
        *, library: bool = False,
    ) -> str:  # fmt: skip
        """Why the code at `va` is no trampoline for a patch site, in line or out of line; empty where it is.

        home: an address behind the site, where a path may end with the caller's return address back in its register;
        target: a trampoline that is known to keep the contract, where a path may end with everything as at entry;
        library: of a site whose call is an ordinary one (`Shape.library`).
        """
        if not self.judge:
            return "nothing here can tell what its code does"
        judge = import_module(self.judge)
        if library:
            library_reason: str = judge.keeps_library_contract(read, va)
            return library_reason
        reason: str = judge.keeps_contract(read, va, out_of_line, home, target)
        return reason

    def contract_of(self, shape: Shape | None) -> str:
        """What a target of sites of that layout must do, for people."""
        return self.library_contract if shape is not None and shape.library else self.contract

    def kept_registers(self, read: Read, va: int, out_of_line: bool) -> int:
        """The registers that the code at `va` gives back as they were, as bits of the machine's `REGISTERS`; 0:
        nothing is shown of it."""
        kept: int = import_module(self.judge).kept_registers(read, va, out_of_line) if self.judge else 0
        return kept

    def shape(self, name: str) -> Shape | None:
        """The shape of that name, if this machine has it."""
        return next((shape for shape in (*self.shapes, *self.fronts) if shape.name == name), None)


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
    values = [int(getattr(library, name)) for name in names]
    return values[0], reduce(or_, values[1:], 0)


def shape_named(arch: str, layout: str) -> Shape | None:
    """The shape that a report names; None for `none`."""
    return next((known.shape(layout) for known in architectures() if known.name == arch), None)


def support_table() -> list[str]:
    """The README's table of what is supported, from the registers: Markdown lines."""
    rows = ["| machine | layout | | scan | enable | far calls | modules |", "|---|---|---|---|---|---|---|"]
    for arch in architectures():
        # layouts that differ in a number alone have one line
        for text, kin in groupby(arch.shapes, lambda shape: re.sub(r"\d+", "…", shape.text)):
            shape, *others = kin
            names = ", ".join(f"`{other.name}`" for other in (shape, *others))
            refused = shape.refusal or not arch.contract
            enable = "refused" if refused else "yes"
            far = "" if refused else "yes" if arch.far or arch.veneer else "not needed"
            module = "scan" if refused or arch.modules is None or shape.anywhere else "yes"
            module = "programs only" if shape.program else module
            rows.append(
                f"| {arch.name} | {names} | {text if others else shape.text} | yes | {enable} | {far} | {module} |"
            )
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
