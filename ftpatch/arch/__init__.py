"""What a machine is to this program: tables of instruction words and a few pure functions over arrays of them.

An architecture is one file in this folder that ends in one `Arch` value, and a line in `REGISTER`. It does no I/O and
sees no ELF object. What a new one has to fill, in tiers; a tier not reached is refused in words, never by a crash:

    scan            e_machine, branch, shapes, relative
    patch vmlinux   entries, read_entry, keeps_contract, thunk, find_pairs, set_pair
    patch modules   (with the modules issue)
    far calls       (with ppc64le)

The matching of shapes and the arithmetic of branches are shared and work on all sites at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ftpatch.elf.tables import I64, U8, U32, Mask
from ftpatch.errors import ArchError

MATCH_NONE, MATCH_OLD, MATCH_NEW, MATCH_HALF = 0, 1, 2, 3
WINDOW_FIRST, WINDOW = -1, 6  # the words around a record that shapes look at: from record − 4, six of them


@dataclass(frozen=True)
class Word:
    """One instruction as the kernel tests for it."""

    bits: int
    mask: int = 0xFFFF_FFFF
    text: str = ""

    def matches(self, words: U32) -> Mask:
        """Which words are this instruction."""
        found: Mask = (words & np.uint32(self.mask)) == np.uint32(self.bits)
        return found


@dataclass(frozen=True)
class Branch:
    """A direct call whose distance stands in one field of one word."""

    word: Word
    field: int  # mask of the distance, in units of `scale` bytes
    scale: int
    low: int  # smallest and greatest distance in bytes
    high: int

    def reaches(self, distance: I64) -> Mask:
        """Whether each distance (target − branch, bytes) can be encoded."""
        found: Mask = (distance >= self.low) & (distance <= self.high) & (distance % self.scale == 0)
        return found

    def encode(self, distance: I64) -> U32:
        """The instruction words for distances that reach; a caller asks `reaches` first."""
        if not bool(np.all(self.reaches(distance))):
            raise AssertionError("a branch out of reach was to be encoded")
        return ((distance // self.scale) & self.field).astype(np.uint32) | np.uint32(self.word.bits)

    def decode(self, words: U32) -> I64:
        """The distance in bytes that each word branches; only meaningful for words that match `word`."""
        field = (words & np.uint32(self.field)).astype(np.int64)
        sign = (self.field + 1) // 2
        return ((field ^ sign) - sign) * self.scale


@dataclass(frozen=True)
class Shape:
    """How a compiler laid out one patch site, seen from its record.

    entry: bytes from the record to the function's symbol; start: words from the record to `old[0]`;
    skip: a word that some functions have, at word `skip_at` from the record. Before the record (skip_at < 0) the
    symbol lies on it; behind the record it pushes the site one word down.
    old, new: words to rewrite and their replacement; the last new one is the call. literal: bytes from the record to
    an 8-byte ops pointer. refusal: why `enable` does not apply, empty where it does.
    """

    name: str
    entry: int
    start: int
    old: tuple[Word, ...]
    new: tuple[Word, ...]
    skip: Word | None = None
    skip_at: int = 0
    literal: int | None = None
    anywhere: bool = False  # the record may lie deep inside its function
    refusal: str = ""
    source: str = ""

    @property
    def minus4(self) -> bool:
        """Whether the kernel adds exactly 4 to a record, so that a record of −4 becomes 0 and is skipped."""
        return self.start == 0 and len(self.new) == 2 and self.literal is None

    def skips(self, window: U32) -> Mask:
        """Which sites have the extra word. window: (n, WINDOW) words from record + 4·WINDOW_FIRST."""
        if self.skip is None:
            return np.zeros(len(window), dtype=bool)
        return self.skip.matches(window[:, self.skip_at - WINDOW_FIRST])

    def shift(self, window: U32) -> I64:
        """Words from `start` to the site's first word to rewrite, per site: 1 behind an extra word, else 0."""
        return self.skips(window).astype(np.int64) if self.skip_at >= 0 else np.zeros(len(window), dtype=np.int64)

    def body(self, window: U32) -> U32:
        """(n, len(old)) words that enabling rewrites."""
        first = self.start - WINDOW_FIRST + self.shift(window)
        columns: U32 = np.take_along_axis(window, first[:, None] + np.arange(len(self.old)), axis=1)
        return columns

    def match(self, window: U32) -> U8:
        """MATCH_* per site, by the words alone."""
        body = self.body(window)
        old = np.logical_and.reduce([word.matches(body[:, i]) for i, word in enumerate(self.old)])
        found = np.where(old, MATCH_OLD, MATCH_NONE).astype(np.uint8)
        if self.refusal:
            return found
        new = np.logical_and.reduce([word.matches(body[:, i]) for i, word in enumerate(self.new)])
        half = self.new[0].matches(body[:, 0]) & self.old[-1].matches(body[:, -1]) if len(self.new) > 1 else ~old & old
        found[half] = MATCH_HALF
        found[new] = MATCH_NEW
        return found


@dataclass(frozen=True)
class Entry:
    """What the kernel's own trampoline does first: `literal` tells that it loads the ops pointer that stands in
    front of the function, in `register`; `resume` is the byte offset behind that load; `direct_call` the offset
    of a second pointer that it reads from the ops."""

    literal: bool
    register: int = 0
    resume: int = 0
    direct_call: int = 0


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
class Arch:
    name: str
    e_machine: int
    nop: int
    branch: Branch
    shapes: tuple[Shape, ...]  # longest first
    relative: int  # relocation type of a base-relative pointer in a linked image
    none: int  # relocation type that every loader skips
    abs64: int  # relocation type of a plain 64-bit pointer in ET_REL
    entries: tuple[str, ...]  # the kernel's own trampolines, the default first
    read_entry: Callable[[U32], Entry]
    contract: str  # what a target must do, for people
    keeps_contract: Callable[[Callable[[int, int], U32], int], str]
    thunk: Callable[[int, int, int, Entry], U32]
    thunk_size: int
    thunk_avoids: tuple[int, ...]  # offsets in a 4 KiB page where the thunk's address-forming word may not lie
    find_pairs: Callable[[U32, int, int], list[AddressPair]]
    set_pair: Callable[[U32, int, AddressPair, int], U32 | None]

    def shape(self, name: str) -> Shape | None:
        """The shape of that name, if this machine has it."""
        return next((shape for shape in self.shapes if shape.name == name), None)


def arch_of(e_machine: int, path: str) -> Arch:
    """The architecture of an e_machine value; ArchError names what the file is for instead."""
    from ftpatch.arch import arm64

    register = {arch.e_machine: arch for arch in (arm64.ARCH,)}
    if e_machine in register:
        return register[e_machine]
    name = MACHINES.get(e_machine, "unknown")
    raise ArchError("machine not supported", path, found=f"e_machine {e_machine} ({name})",
                    expected=", ".join(f"{a.e_machine} ({a.name})" for a in register.values()))  # fmt: skip


MACHINES = {2: "sparc", 3: "x86 32-bit", 8: "mips", 20: "ppc 32-bit", 21: "ppc64", 22: "s390", 40: "arm 32-bit",
            43: "sparc64", 50: "ia64", 62: "x86-64", 183: "arm64", 243: "riscv", 258: "loongarch"}  # fmt: skip
