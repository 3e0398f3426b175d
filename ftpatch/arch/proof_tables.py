"""What the proof knows of a machine: a second set of tables, written apart from those by which plans are made.

A wrong encoding in one of the two sets is seen when a result is checked; so no table here takes a word from the other
files of its machine. Relocations are applied to memory of the emulator alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import NamedTuple

from ftpatch.arch import Arch
from ftpatch.arrays import I64, U8, U32

NONE, JUMP, CALL = range(3)
BIT64 = (1 << 64) - 1


# -- what a module's loader does ---------------------------------------------------------------------------------------


class Spot(NamedTuple):
    """One relocation."""

    content: bytearray  # of the section
    off: int  # of the place, in that
    va: int  # of the place
    value: int  # symbol plus addend
    local: int  # bytes from there to the local entry of a function that has two
    outside: bool  # whether the symbol lives in another file

    def word(self, more: int = 0) -> int:
        return int.from_bytes(self.content[self.off + more : self.off + more + 4], "little")

    def put(self, value: int, size: int = 4, more: int = 0) -> None:
        self.content[self.off + more : self.off + more + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")


@dataclass
class Link:
    """What relocating a module makes."""

    free: int  # va from which stubs are laid down
    toc: int | None  # the module's TOC pointer, if any
    make_stub: Callable[[int, int, int | None], Stub]  # (its va, target, TOC)
    stubs: bytearray = field(default_factory=bytearray)
    pointers: dict[int, int] = field(default_factory=dict)  # va of a place → the address that it holds
    _made: dict[int, int] = field(default_factory=dict)

    def stub(self, target: int) -> int:
        """Address of a stub that goes to the target."""
        if target not in self._made:
            va = self.free + len(self.stubs)
            made = self.make_stub(va, target, self.toc)
            if made.pointer is not None:
                self.pointers[va + made.pointer] = target
            self._made[target] = va
            self.stubs += b"".join(word.to_bytes(4, "little") for word in made.words)
            self.stubs += bytes(-len(self.stubs) % 8)
        return self._made[target]


class Stub(NamedTuple):
    """A stub that the loader makes for a call that does not reach."""

    words: tuple[int, ...]
    pointer: int | None = None  # byte offset of the target's address in it, where it holds one


Apply = Callable[[Link, Spot], None]


def pointer64(link: Link, at: Spot) -> None:
    at.put(at.value, 8)
    link.pointers[at.va] = at.value


def value32(link: Link, at: Spot) -> None:
    at.put(at.value)


def relative64(link: Link, at: Spot) -> None:
    at.put(at.value - at.va, 8)


def relative32(link: Link, at: Spot) -> None:
    at.put(at.value - at.va)


# -- code --------------------------------------------------------------------------------------------------------------


class Thunk(NamedTuple):
    """A shared stub that brings the ops in a register and enters the kernel's entry behind its own load of them."""

    register: int
    ops: int  # va
    target: int  # va of the instruction that it jumps to
    fault: str = ""  # why it must not be used, whatever it leads to


class Veneer(NamedTuple):
    """A stub by which a jump goes farther than it reaches."""

    target: int  # va
    fault: str = ""  # why it must not be used, whatever it leads to


class AddressPairs(NamedTuple):
    """The two instructions by which code forms an address, as it forms the end of the record table."""

    # (words, va of the first, address) → the word indices of every pair that forms this address
    find: Callable[[U32, int, int], list[tuple[int, int]]]
    formed: Callable[[int, int, int], int]  # (first word, second word, va of the first) → the address that they form
    # ((first, second) before, (first, second) after) → whether nothing but the address changed
    same_else: Callable[[tuple[int, int], tuple[int, int]], bool]


class StubWord(NamedTuple):
    """One instruction of a stub."""

    word: int
    text: str  # as assembly writes it
    loss: str  # what comes of it where another stands there


class Halves(NamedTuple):
    """Two instructions of a stub that add the distance from `here` to an address, in two relocated halves."""

    here: int  # byte offset of the place whose address is in the register
    high: int  # of the instruction with the upper half
    low: int  # of that with the lower half


class RedirectStub(NamedTuple):
    """What a module's redirected function jumps to, where a jump to its replacement would not do."""

    kind: str  # in its symbol's name, between the prefix and the replacement's name
    text: str
    words: tuple[StubWord, ...]
    enters: Halves | None = None  # the replacement that it goes on to, by its global entry
    own_toc: Halves | None = None  # how it finds the module's TOC pointer, where it is entered without
    call: int | None = None  # byte offset of the call of the replacement, from a frame of its own


class KeptEntry(NamedTuple):
    """The entry to the old body of a redirected function, as it stands in front of the jump there."""

    words: tuple[int, ...]
    front: tuple[int, ...] = ()  # words that may follow, each once: what the function did in front of its site
    toc: tuple[int, int, int] | None = None  # (type, bytes from the entry, addend) of the distance to the TOC


class Walked(NamedTuple):
    """What is true of the registers in front of one instruction, all of it as bytes down from the stack pointer that
    the caller has when the code has returned."""

    off: int  # byte offset of the instruction
    sp: int | None  # where the stack pointer is; None: not known
    fp: int | None  # where the frame pointer is, once it is the code's own; None: it is the caller's, or not known
    saved: int | None  # where the caller's frame pointer lies; None: nowhere


class CodeTables(NamedTuple):
    """Tables of a module that tell of places in its code, where its kernel was built with them: they must tell of code
    that a patch brings along as well. Rows are the distances from themselves to the places."""

    kind: int  # relocation type of the rows
    # section → whether it must name an instruction: (first byte, name of the symbol that its relocation is about)
    lists: Mapping[str, Callable[[int, str], bool]]
    places: str  # section of those for stack walks, where each row is true from its place to the next
    rows: str  # section that says what
    size: int  # bytes of a row there
    first: bytes  # how the row begins that is true in front of a function's first instruction; what follows is its kind
    # code, its first instructions may be padding → what is true in front of each instruction; None where one is not
    # understood
    walk: Callable[[bytes], list[Walked] | None]
    # (row, what is true) → whether it says so, but for its kind
    tells: Callable[[bytes, Walked], bool]


class StaticTrampoline(NamedTuple):
    """The trampolines of static calls."""

    size: int  # bytes
    code: int  # bytes of those that change when it leads elsewhere; 0 where a pointer in memory does
    # (all its bytes, its va) → va that it jumps to, 0 where it returns at once; None where it is no trampoline
    leads_to: Callable[[bytes, int], int | None]
    field: int  # byte offset of what a relocation of its jump writes
    thunk: str  # symbol of the function that those jump to which return at once
    returns: tuple[str, str]  # symbols around the table of what the kernel rewrites as returns at boot
    # (all its bytes, its va) → va of the pointer by which it goes on; None where it is no trampoline
    reads: Callable[[bytes, int], int | None] | None = None


class Pad(NamedTuple):
    """What is in the NOPs in front of an entry: nothing, or code that the switch behind the entry leads to."""

    why: str = ""  # why it is neither; empty where it is one of them
    form: str = ""  # who brings the return address back: "target", "pad" from a register, "stack"; "" for no code
    start: int = 0  # index of its first unit
    call: int = 0  # index behind its call
    end: int = 0  # index behind its jump, which is the last of its code
    target: int = 0  # va that it calls
    back: int = 0  # va that it goes on at


class ObjectSite(NamedTuple):
    """What a site of an object file may be, in one length; a relocation fills its last four bytes."""

    calls: tuple[tuple[bytes, tuple[int, ...]], ...]  # as it calls, and the relocation types of that
    nop: bytes  # as it calls nothing


class ProofTables(NamedTuple):
    """One machine, as the proof reads it."""

    # words, or (n, bytes of a branch) → (NONE, JUMP or CALL for each, bytes to where a direct branch goes)
    branches: Callable[[U32], tuple[U8, I64]]
    mnemonics: Mapping[int, str]  # JUMP, CALL → capstone's mnemonic
    # every other instruction that a patch writes into a site or its stub, as capstone writes it
    texts: Mapping[int, str]
    nop: int  # what a call becomes that has no record any more
    ends: tuple[int, ...]  # words that end a path: returns, and jumps to an address in a register
    conditional: Callable[[int], bool]  # whether a word is a branch with a condition
    returns: tuple[tuple[int, ...], ...]  # whole functions that do nothing but return
    distance64: int  # relocation type that fills in a distance of 64 bits
    emulator: str  # module of ftpatch.proof.emulate that executes code of this machine
    apply: Mapping[int, Apply]  # relocation type → what it writes; others are left as they are
    stub: Callable[[int, int, int | None], Stub]  # what the loader lays down for calls that do not reach
    stub_size: int  # bytes of such a stub at most
    module_area: tuple[int, int]  # va where modules lie in the emulator, and where the rest of the kernel begins
    module_toc: bool = False  # whether a module has a TOC of its own
    # code that build tools leave at a site instead of the layout's call, a unit each
    left: tuple[tuple[int, ...], ...] = ()
    # symbols of other files whose code the emulator executes, as modules are called back from there: name → the code
    stand_ins: Mapping[str, bytes] = {}
    # what a site's own stub out of line is: its first and third word, around a call, with a jump behind; its text
    site_stub: tuple[int, int, str] | None = None
    # (four words, va of the first) → the thunk that they are
    thunk: Callable[[Sequence[int], int], Thunk | None] | None = None
    # (three words, va of the first) → the veneer that they are
    veneer: Callable[[Sequence[int], int], Veneer | None] | None = None
    # word → whether nothing goes on from it to the word behind
    leaves: Callable[[int], bool] | None = None
    # (words, va of the first, first va of a place, its end) → whether one of them goes there or makes its address
    names: Callable[[U32, int, int, int], bool] | None = None
    # first word of a function → whether a veneer may enter it where the kernel guards its indirect jumps
    landing_pad: Callable[[int], bool] | None = None
    # st_other of a function → whether it may come back with another TOC pointer than it was called with
    loses_toc: Callable[[int], bool] | None = None
    # what the relocation of a branch fills: (bytes from its first one, bytes from there to where the distance counts)
    branch_field: tuple[int, int] = (0, 0)
    object_sites: tuple[ObjectSite, ...] = ()
    code_tables: CodeTables | None = None
    return_thunks: tuple[str, ...] = ()  # functions of the kernel to which code jumps in order to return
    jump_type: int = 0  # relocation type of a jump
    halves: tuple[int, int] = (0, 0)  # relocation types of the upper and lower half of a distance
    redirect_stubs: tuple[RedirectStub, ...] = ()
    # word of a stub → whether it writes where the caller's frame may hold a TOC pointer
    writes_toc: Callable[[int], bool] | None = None
    makes_frame: Callable[[int], bool] | None = None  # word → whether it makes a frame
    # entries to the old body of a function with one entry, and with two
    kept_entries: tuple[KeptEntry, ...] = ()
    jump: int = 0  # a jump by no distance
    also_applied: tuple[int, ...] = ()  # relocation types that a module's loader applies, and `apply` does not
    # five words of a far stub → (where in the paca it finds the kernel's TOC, bytes from there to its target)
    far: Callable[[Sequence[int]], tuple[int, int] | None] | None = None
    address_pairs: AddressPairs | None = None
    # (units in front of an entry, va of the first) → what they are; None where no pads are known
    pad: Callable[[Sequence[int], int], Pad] | None = None
    static_trampoline: StaticTrampoline | None = None  # of static calls; None: kernels of this machine have none
    also: Mapping[str, str] = {}  # what older versions of capstone write → what is in `texts`


def tables_of(arch: Arch) -> ProofTables:
    """The tables of a machine whose results can be verified."""
    found: ProofTables = import_module(arch.proof).TABLES
    return found
