"""The parts of an `Arch`, one tuple of names for each tier that a machine may reach."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Literal, NamedTuple

from ftpatch.arch.code_lists import Frame, Listed, UnwindTables
from ftpatch.arch.shape import Word
from ftpatch.arrays import I64, U32, U64, Mask


class Entry(NamedTuple):
    """What the kernel's own trampoline reads, as told from its first instructions."""

    literal: bool  # whether it loads the ops pointer that stands in front of the function or stub
    register: int = 0  # number of the register that the pointer is loaded into
    resume: int = 0  # bytes from the trampoline's start to behind that load
    direct_call: int = 0  # byte offset, in the ops, of a second pointer that it reads; 0: none
    kernel_toc: int | None = None  # byte offset, in the paca, of the kernel's TOC pointer; None where it reads none


class AddressPair(NamedTuple):
    """Two instructions of one function that together form an address."""

    first: int  # word index, in the function, of the instruction that sets a register
    second: int  # of the one that adds to it
    register: int  # the register's number
    value: int  # the address that the pair forms
    private: bool  # the first one's result serves the second alone, so that both may change


class OpsThunk(NamedTuple):
    """A shared stub that loads the ops for all sites, where those have no pointers of their own."""

    words: Callable[[int, int, int, Entry], U32]  # words(va, ops, va of the trampoline, its Entry)
    size: int  # bytes
    reach: int  # bytes from the thunk within which the ops must lie
    avoids: tuple[int, ...]  # offsets in a 4 KiB page where its second word may not lie
    # leads_to(words at va, va) → where such a stub jumps to; None where they are none
    leads_to: Callable[[U32, int], int | None]


class TableEnd(NamedTuple):
    """How code forms the end of the record table, and how to change it."""

    # find(words of a function, its va, address) → the pairs that form that address; with None all pairs
    find: Callable[[U32, int, int | None], list[AddressPair]]
    # change(words, va, pair, new address) → the pair's new words; None where it cannot
    change: Callable[[U32, int, AddressPair, int], U32 | None]


class FarCalls(NamedTuple):
    """Calls beyond the branch's reach, by shared stubs."""

    stub: Callable[[int, int, int], U32]  # stub(target, TOC, place of the TOC in the paca) → words
    size: int  # bytes of a stub
    reach: int  # bytes from the TOC within which a target must lie
    # symbols of the kernel's own trampolines, zero on disk, the second for init text; the kernel fills them with a
    # jump to its last entry
    areas: tuple[str, str]
    toc: str  # symbol of the TOC
    start: str  # the function where the walk for those that run before the paca exists starts
    ready: str  # the call that ends it
    early: tuple[str, ...]  # functions known to run before the paca exists
    # the walk itself: (read, leads_to, va of start, va of ready) → (addresses of functions, why it is incomplete)
    runs_before: Callable[[Callable[[int, int], U32], Callable[[int], int], int, int], tuple[set[int], str]]
    # leads_to(words, TOC) → where such a stub jumps to; None where they are none
    leads_to: Callable[[U32, int], int | None]


class Veneer(NamedTuple):
    """A stub that goes on to a function beyond a jump's reach, and changes nothing that it is called with."""

    words: Callable[[int, int], U32]  # words(va of the stub, va of the function)
    size: int  # bytes
    reach: int  # bytes from the stub, either way, within which the function must lie
    avoids: tuple[int, ...]  # offsets in a 4 KiB page where its first word may not lie
    # leads_to(words at va, va) → where such a stub goes on; None where they are none
    leads_to: Callable[[U32, int], int | None]
    pads: tuple[Word, ...]  # words that a function must begin with where the kernel guards indirect jumps (BTI)
    # named(words of code, va of the first, va of places in ascending order, va behind each) → which of the places some
    # instruction names; addresses are int64
    named: Callable[[U32, int, I64, I64], I64]
    ends: tuple[Word, ...]  # instructions that are not gone on from to the one behind


class SiteStub(NamedTuple):
    """A stub per site, in areas of slots that the kernel fills from their starts."""

    code: Callable[[I64, I64], U32]  # code(call distance, back distance) → words
    literal: int  # bytes of ops pointer in front of the code, if the kernel reads one
    size: int  # bytes of the code
    call_at: int  # byte offset of the call in the code
    back_at: int  # of the branch back behind the site
    text: tuple[str, ...]  # symbols of the areas, in the order in which the kernel fills them
    init: str  # of the one for init text
    reserve_option: str  # the configuration option that sizes the first area


class Fixup(NamedTuple):
    """A relocation that a piece of code needs."""

    off: int  # byte offset in the code
    kind: int  # relocation type
    symbol: str  # which symbol: "hook", "toc", or a name
    addend: int = 0


class Code(NamedTuple):
    """A piece of code for a module."""

    words: tuple[int, ...]  # units of code: words, or bytes; data in front of it included
    entry: int = 0  # byte offset of the first instruction
    fixups: tuple[Fixup, ...] = ()  # its relocations
    unit: int = 4  # bytes of a unit
    listed: tuple[Listed, ...] = ()  # what tables of the module say of it
    frames: tuple[Frame, ...] = ()  # for stack walks, in ascending order; empty where they need no table

    @property
    def content(self) -> bytes:
        """The code as it lies in the file."""
        return b"".join(word.to_bytes(self.unit, "little") for word in self.words)


class Applied(NamedTuple):
    """A relocation type of object files that a machine's module loader applies."""

    name: str
    # bytes that it spans in the module's text, to which it is bound then; 0: all memory of a module
    reach: int = 0
    # whether it may name what lives in another file: else the loader would cut the distance, and not say so
    outside: bool = True
    absent: bool = False  # whether it may name a weak symbol that nobody defines, whose address is 0
    named: bool = True  # whether it is about a symbol; else about its own place, or about the TOC


class NotApplied(NamedTuple):
    """A range of relocation types that object files have and the loader does not apply."""

    first: int
    last: int
    why: str  # what code uses them
    todo: str  # how it is compiled without


class Protection(NamedTuple):
    """What compilers put into functions against an attacker, told by its words."""

    words: tuple[int, ...]
    what: str  # what functions with it do
    option: str  # by which it is compiled in
    needs_kernel: bool = False  # whether functions with it crash in a kernel without


class Linking(NamedTuple):
    """How an object file is linked into a module of this machine."""

    applied: Mapping[int, Applied]
    not_applied: tuple[NotApplied, ...]
    nothing: tuple[int, ...]  # relocation types that do nothing
    branches: tuple[int, ...]  # those of direct branches
    entry: Code  # what an entry into the middle of a function begins with
    entry_pair: Code | None = None  # the same for a function with a global and a local entry; None: there are none such
    pair_other: int = 0  # st_other of a symbol at that
    # words between the local entry and the site that the code behind the site builds upon
    repeated: tuple[int, ...] = ()
    landing: tuple[int, ...] = ()  # words that an indirect branch may go to, where the processor asks for one
    pads: Protection | None = None  # those of them that are there for nothing else
    # words that are in functions that put the return address on the stack
    protections: tuple[Protection, ...] = ()
    saves: tuple[tuple[int, int], ...] = ()  # (bits, mask) of words that put it there
    # (bits, mask) of words that change floating-point or vector registers, which hold what is a user program's
    user_registers: tuple[tuple[int, int], ...] = ()
    integers_only: str = ""  # the options by which compilers use none of them
    abi_mask: int = 0  # of e_flags
    abi: tuple[int, ...] = (0,)  # values of those bits that an object may have
    no_link: str = ""  # the option by which compilers make no jumps where a call is needed
    small_code: str = ""  # the options by which distances to other sections are not too large
    own_sections: tuple[str, ...] = ()  # the loader's own, which it fills itself
    appended: tuple[str, ...] = ()  # tables of this machine that the loader walks from one end to the other


class ModuleEntries(NamedTuple):
    """Stubs that a module's redirected function jumps to, where a jump to its replacement would not do.

    Their fixups name `replacement` and `toc`.
    """

    enter: Code  # goes on to a function of the module with what its global entry computes the TOC from
    call: Code  # calls a function of another file in a frame of its own, and returns; entered with the module's TOC
    call_with_toc: Code  # the same; entered with anybody's TOC, which it returns with


class Modules(NamedTuple):
    """How modules of this machine are patched: with relocations that their loader resolves."""

    branch: int  # relocation type of a call
    # the sections, core and init, in which the loader puts its jumps to the kernel's entries, in the order of
    # `Arch.entries`; empty where it offers nothing that can be named, so that a trampoline is brought along
    trampolines: tuple[str, ...]
    jump: int  # bytes of one such jump
    ops_function: Code  # what an ops object made by a patch calls
    # hook(shape is out of line, names of the module's sections) → a stub that calls a C function
    hook: Callable[[bool, Container[str]], Code]
    jump_type: int  # relocation type of a jump
    toc: str = ""  # the symbol that stands for the module's TOC
    linking: Linking | None = None  # how object files are linked in; None where that is not known
    entries: ModuleEntries | None = None  # stubs of redirected functions, where a jump is not always enough
    calls: tuple[int, ...] = ()  # other relocation types that compilers give to the call of a site
    thunks: tuple[str, ...] = ()  # how the names of exported code begin that is no function of C
    distance: int = 0  # relocation type of the rows of tables that list code
    unwind: UnwindTables | None = None  # how it tells stack walks about its code; None: nothing does


def no_stubs(info: U64, addend: I64, same_section: Mask) -> int:
    """For loaders whose calls reach everything: 0."""
    return 0


class Loader(NamedTuple):
    """What a machine's module loader asks of a module, and the stubs that it adds to one."""

    calls: tuple[int, ...] = ()  # relocation types of calls that may need a stub
    # stubs_for(r_info, r_addend, whether the symbol is in the section itself) of one section's calls → stubs for them
    stubs_for: Callable[[U64, I64, Mask], int] = no_stubs
    from_code_only: bool = False  # only calls from executable sections count
    init_apart: bool = False  # stubs for init text are in a section of their own
    always: tuple[str, ...] = ()  # sections without which it refuses a module
    traced: tuple[str, ...] = ()  # those that only kernels want that have such a string
    stub: int = 0  # bytes of a stub
    ftrace: int = 0  # stubs of its own for the function tracer
    slot: int = 0  # bytes that it keeps per record where sites are out of line
    applied: tuple[int, ...] = ()  # relocation types that it knows; empty: whatever modules have
    empty: bool = False  # whether it refuses a relocation whose place does not hold zeros


class FlatImage(NamedTuple):
    """A flat boot image: the loaded sections at their addresses, recognised by a magic in the first."""

    at: int  # byte offset of the magic
    magic: bytes  # as it stands in the file
    text: str  # the magic as documentation writes it
    size_at: int  # byte offset of the u64 that tells how many bytes it takes in memory


class LogLines(NamedTuple):
    """How this machine's code in the kernel speaks of ftrace in a log."""

    signs: tuple[str, ...] = ()  # text that only logs of this machine have, one of them tells the machine
    # patterns with the groups place, expected, found: a line that compares two words, with `!=` between them
    compared: tuple[str, ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()  # (pattern, what it means)


class Assembly(NamedTuple):
    """How a user's stub is written for this machine, for the assembler keystone. Patterns are of module `re`."""

    keystone: tuple[str, ...]  # names of keystone's constants: the architecture, then the flags of its mode
    comment: str  # what a comment looks like
    registers: str  # words that are registers or other names of the machine, in lower case
    branches: str  # branches, which name a place in their last operand
    jump: str  # the direct branch that may name a symbol
    call: str  # the direct call
    jump_type: int  # relocation type of that branch
    leads: tuple[str, ...] = ()  # other instructions that name a place in their last operand
    hints: Mapping[str, str] = {}  # instructions that keystone does not know, as those that it does
    # what stands in front of a general register's number and is taken away; empty where registers have names
    number_prefix: str = ""
    numbered: str = ""  # general registers as written in operands, where they are numbers to the assembler
    # instructions that take a mask as two numbers, by how they begin: keystone hangs on those with one
    masked: str = ""


class Passed(NamedTuple):
    """A parameter or result, as calling conventions see it."""

    kind: Literal["number", "float", "aggregate", "none"]  # pointers are numbers; none: a result of type void
    size: int  # bytes
