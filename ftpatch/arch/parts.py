"""The parts of an `Arch`, one dataclass for each tier that a machine may reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ftpatch.arrays import I64, U32, U64, Mask


@dataclass(frozen=True)
class Entry:
    """What the kernel's own trampoline reads, as told from its first instructions."""

    # whether it loads the ops pointer that stands in front of the function or stub
    literal: bool
    # number of the register that the pointer is loaded into
    register: int = 0
    # bytes from the trampoline's start to behind that load
    resume: int = 0
    # byte offset, in the ops, of a second pointer that it reads; 0: none
    direct_call: int = 0
    # byte offset, in the paca, of the kernel's TOC pointer; None where it reads none
    kernel_toc: int | None = None


@dataclass(frozen=True)
class AddressPair:
    """Two instructions of one function that together form an address."""

    # word indices in the function
    first: int
    second: int
    # the register that the first one sets
    register: int
    # the address that the pair forms
    value: int
    # the first one's result serves the second alone, so that both may change
    private: bool


@dataclass(frozen=True)
class OpsThunk:
    """A shared stub that loads the ops for all sites, where those have no pointers of their own."""

    # words(va, ops, va of the trampoline, its Entry)
    words: Callable[[int, int, int, Entry], U32]
    # bytes
    size: int
    # bytes from the thunk within which the ops must lie
    reach: int
    # offsets in a 4 KiB page where its second word may not lie
    avoids: tuple[int, ...]


@dataclass(frozen=True)
class TableEnd:
    """How code forms the end of the record table, and how to change it."""

    # find(words of a function, its va, address) → the pairs that form that address
    find: Callable[[U32, int, int], list[AddressPair]]
    # change(words, va, pair, new address) → the pair's new words; None where it cannot
    change: Callable[[U32, int, AddressPair, int], U32 | None]


@dataclass(frozen=True)
class FarCalls:
    """Calls beyond the branch's reach, by shared stubs."""

    # stub(target, TOC, place of the TOC in the paca) → words
    stub: Callable[[int, int, int], U32]
    # bytes of a stub
    size: int
    # bytes from the TOC within which a target must lie
    reach: int
    # symbols of the kernel's own trampolines, zero on disk, the second for init text; the kernel fills them with a
    # jump to its last entry
    areas: tuple[str, str]
    # symbol of the TOC
    toc: str
    # the function where the walk for those that run before the paca exists starts, and the call that ends it
    start: str
    ready: str
    # functions known to run before the paca exists
    early: tuple[str, ...]
    # the walk itself: (read, leads_to, va of start, va of ready) → (addresses of functions, why it is incomplete)
    runs_before: Callable[[Callable[[int, int], U32], Callable[[int], int], int, int], tuple[set[int], str]]


@dataclass(frozen=True)
class SiteStub:
    """A stub per site, in areas of slots that the kernel fills from their starts."""

    # code(call distance, back distance) → words
    code: Callable[[I64, I64], U32]
    # bytes of ops pointer in front of the code, if the kernel reads one
    literal: int
    # bytes of the code
    size: int
    # byte offsets in the code: of the call, and of the branch back behind the site
    call_at: int
    back_at: int
    # symbols of the areas, in the order in which the kernel fills them; of the one for init text
    text: tuple[str, ...]
    init: str
    # the configuration option that sizes the first area
    reserve_option: str


@dataclass(frozen=True)
class Fixup:
    """A relocation that a piece of code needs."""

    # byte offset in the code
    off: int
    # relocation type
    kind: int
    # which symbol: "hook", "toc", or a name
    symbol: str
    addend: int = 0


@dataclass(frozen=True)
class Code:
    """A piece of code for a module."""

    # data in front of it included
    words: tuple[int, ...]
    # byte offset of the first instruction
    entry: int = 0
    fixups: tuple[Fixup, ...] = ()


@dataclass(frozen=True)
class Modules:
    """How modules of this machine are patched: with relocations that their loader resolves."""

    # relocation type of a call
    branch: int
    # the sections, core and init, in which the loader puts its jumps to the kernel's entries, in the order of
    # `Arch.entries`; empty where it offers nothing that can be named, so that a trampoline is brought along
    trampolines: tuple[str, ...]
    # bytes of one such jump
    jump: int
    # what an ops object made by a patch calls
    ops_function: Code
    # hook(shape is out of line) → a stub that calls a C function
    hook: Callable[[bool], Code]
    # the symbol that stands for the module's TOC
    toc: str = ""


def no_stubs(info: U64, addend: I64, same_section: Mask) -> int:
    """For loaders whose calls reach everything: 0."""
    return 0


@dataclass(frozen=True)
class Loader:
    """What a machine's module loader asks of a module, and the stubs that it adds to one."""

    # relocation types of calls that may need a stub
    calls: tuple[int, ...] = ()
    # count(r_info, r_addend, whether the symbol is in the section itself) of one section's calls → stubs for them
    count: Callable[[U64, I64, Mask], int] = no_stubs
    # only calls from executable sections count
    from_code_only: bool = False
    # stubs for init text are in a section of their own
    init_apart: bool = False
    # sections without which it refuses a module
    always: tuple[str, ...] = ()
    # those that only kernels want that have such a string
    traced: tuple[str, ...] = ()
    # bytes of a stub
    stub: int = 0
    # stubs of its own for the function tracer
    ftrace: int = 0
    # bytes that it keeps per record where sites are out of line
    slot: int = 0


@dataclass(frozen=True)
class FlatImage:
    """A flat boot image: the loaded sections at their addresses, recognised by a magic in the first."""

    # byte offset of the magic
    at: int
    magic: bytes
    # the magic as documentation writes it
    text: str


@dataclass(frozen=True)
class LogLines:
    """How this machine's code in the kernel speaks of ftrace in a log."""

    # text that only logs of this machine have, one of them tells the machine
    signs: tuple[str, ...] = ()
    # patterns with the groups place, expected, found: a line that compares two words
    compared: tuple[str, ...] = ()
    # (pattern, what it means)
    remarks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Assembly:
    """How a user's stub is written for this machine, for the assembler keystone. Patterns are of module `re`."""

    # names of keystone's constants: the architecture, then the flags of its mode
    keystone: tuple[str, ...]
    # what a comment looks like
    comment: str
    # words that are registers or other names of the machine, in lower case
    registers: str
    # branches, which name a place in their last operand
    branches: str
    # the direct branch and the direct call that may name a symbol
    jump: str
    call: str
    # relocation type of that branch
    jump_type: int
    # other instructions that name a place in their last operand
    leads: tuple[str, ...] = ()
    # instructions that keystone does not know, as those that it does
    hints: Mapping[str, str] = field(default_factory=dict)
    # what stands in front of a general register's number and is taken away; empty where registers have names
    number_prefix: str = ""
    # general registers as written in operands, where they are numbers to the assembler
    numbered: str = ""
    # instructions that take a mask as two numbers, by how they begin: keystone hangs on those with one
    masked: str = ""
