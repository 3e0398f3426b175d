"""Instruction words, branches, and the layouts of patch sites: what is looked for in a file, as tables.

Only the matching of a layout and the arithmetic of a branch compute anything; both work on all sites at once.

Code is looked at in units, one number in a uint32 each: an instruction word where every instruction is one, a byte
where instructions have any length and lie at any address. Everything here works on either.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, U8, U32, Mask

MATCH_NONE, MATCH_OLD, MATCH_NEW, MATCH_HALF, MATCH_ARMED, MATCH_PADDED = range(6)
WINDOW_BEFORE, WINDOW_SIZE = 8, 32  # bytes around a record that shapes look at: from record − 8, 32 of them


class Word(NamedTuple):
    """One unit of code as the kernel tests for it: an instruction word, or a byte of an instruction."""

    bits: int
    mask: int = 0xFFFF_FFFF  # which bits count
    text: str = ""  # the instruction, as assembly writes it

    def matches(self, words: U32) -> Mask:
        """Which words are this instruction."""
        return np.asarray((words & np.uint32(self.mask)) == np.uint32(self.bits))


BLOCK = 1 << 15  # words that are compared at once: they and what they are compared with fit into a cache
ANY = Word(0, 0)  # whatever stands there


class Branch(NamedTuple):
    """A direct branch: its distance stands in one field of the instruction."""

    word: Word  # the unit that tells it: the whole instruction word, or the first byte
    width: int  # bits of the distance field
    lsb: int = 0  # its lowest bit in the instruction as a little-endian number
    scale: int = 4  # bytes that one step of the field counts
    size: int = 4  # bytes of the instruction
    unit: int = 4  # bytes of a unit of code: of a word where every instruction is one, else 1
    base: int = 0  # bytes from the instruction's start to where the distance counts from

    @property
    def n_units(self) -> int:
        return self.size // self.unit

    @property
    def relocated_at(self) -> int:
        """Bytes from the instruction's start to the place that its relocation names."""
        return self.lsb // 8 if self.n_units > 1 else 0

    @property
    def relocated_by(self) -> int:
        """What its relocation has to add, as the distance counts from elsewhere than from that place."""
        return self.relocated_at - self.base

    @property
    def low(self) -> int:
        """The greatest distance backwards, in bytes from the instruction's start."""
        return self.base - (self.scale << (self.width - 1))

    @property
    def high(self) -> int:
        """The greatest distance forwards, in bytes from the instruction's start."""
        return self.base + (self.scale << (self.width - 1)) - self.scale

    def reaches(self, distance: I64) -> Mask:
        """Whether each distance (target − branch, bytes) can be encoded."""
        in_range = (distance >= self.low) & (distance <= self.high)
        return np.asarray(in_range & ((distance - self.base) % self.scale == 0))

    def spans(self, va: int, target: int) -> bool:
        """Whether it reaches from one address to another, which may lie anywhere in 64 bits."""
        distance = (target - va + (1 << 63)) % (1 << 64) - (1 << 63)
        return bool(self.reaches(np.array([distance], dtype=np.int64))[0])

    def encode(self, distance: I64) -> U32:
        """The instructions for distances that reach; a caller asks `reaches` first. One word
        each, or (n, size) bytes."""
        if not bool(np.all(self.reaches(distance))):
            raise AssertionError("a branch out of reach was to be encoded")
        field = (distance - self.base) // self.scale & ((1 << self.width) - 1)
        number = field << self.lsb | self.word.bits
        if self.n_units == 1:
            return number.astype(np.uint32)
        units = number[:, None] >> (8 * self.unit * np.arange(self.n_units)) & ((1 << 8 * self.unit) - 1)
        return np.asarray(units.astype(np.uint32))

    def decode(self, units: U32) -> I64:
        """The distance in bytes that each branches; only meaningful where `word` matches. units: as `encode` gives."""
        number = units.astype(np.int64)
        if self.n_units > 1:
            number = (number << (8 * self.unit * np.arange(self.n_units))).sum(axis=1)
        sign = 1 << (self.width - 1)
        field = number >> self.lsb & ((1 << self.width) - 1)
        return ((field ^ sign) - sign) * self.scale + self.base

    def calls_of(self, code: U32, va: int, target: int) -> I64:
        """Byte offsets of these branches to one target in a run of code, words at `va`: much faster than `find`, since
        the sum of a word's place and of the distance in it is the same for all that go there."""
        found = [np.zeros(0, dtype=np.int64)]
        field, step = ((1 << self.width) - 1) << self.lsb, (4 // self.scale) << self.lsb
        places = np.arange(0, step * BLOCK, step, dtype=np.uint32)
        for start in range(0, len(code), BLOCK):
            words = code[start : start + BLOCK]
            there = ((target - va - 4 * start) // self.scale << self.lsb) & field
            found.append(start + np.flatnonzero((words + places[: len(words)]) & np.uint32(field) == np.uint32(there)))
        at = np.concatenate(found)
        at = at[code[at] & np.uint32(~field & 0xFFFF_FFFF) == np.uint32(self.word.bits)]
        # a word alone does not tell how often it wrapped
        return np.asarray(4 * at[4 * at + self.decode(code[at]) == target - va])

    def ends(self, body: U32) -> Mask:
        """Which rows of code end with this branch."""
        return self.word.matches(body[:, -self.n_units])

    def distance(self, body: U32) -> I64:
        """As `decode`, of the branch that ends each row."""
        return self.decode(body[:, -1] if self.n_units == 1 else body[:, -self.n_units :])

    def find(self, code: U32) -> tuple[I64, I64]:
        """(byte offset, distance) of everything in a run of code that looks like this branch.

        In code of bytes that may be the inside of another instruction: a caller knows which targets make sense.
        """
        whole = code if self.n_units == 1 else code[: max(len(code) - self.n_units + 1, 0)]
        at = np.flatnonzero(self.word.matches(whole))
        units = code[at] if self.n_units == 1 else code[at[:, None] + np.arange(self.n_units)]
        return self.unit * at, self.decode(units)


def _are(words: U32, wanted: tuple[Word, ...]) -> Mask:
    """Which rows begin with these instructions; none where they are shorter, as code at the end of a section is."""
    equal = np.full(len(words), words.shape[1] >= len(wanted))
    wanted = wanted[: words.shape[1]]
    for i, word in enumerate(wanted):
        equal &= word.matches(words[:, i])
    return equal


def begins_with(words: U32, codes: tuple[tuple[Word, ...], ...]) -> Mask:
    """Which rows begin with one of these sequences."""
    equal = np.zeros(len(words), dtype=bool)
    for code in codes:
        equal |= _are(words, code)
    return equal


class Shape(NamedTuple):
    """How a compiler laid out one patch site, seen from its record. Code is counted in units: words, or bytes."""

    name: str
    entry: int  # bytes from the record to the function's local entry (`at_global`: to the global one)
    start: int  # units from the record to `old[0]`
    old: tuple[Word, ...]  # the units that enabling rewrites
    new: tuple[Word, ...]  # what they become; these end with `branch`
    branch: Branch  # goes to the target or to a stub of the site's own
    # other code of the same length that compilers and build tools leave at a site, in the same image
    also: tuple[tuple[Word, ...], ...] = ()
    lead: Word | None = None  # a unit that must stand right before the site
    # alternatives of equal length for units that some functions have, and where those are, in units from the record.
    # Before the record (< 0) they lie between the entry and it; behind the record they push the site down
    skips: tuple[tuple[Word, ...], ...] = ()
    skip_at: int = 0
    at_global: bool = False  # the record belongs to the function's global entry
    site_local: bool = False  # the site must be the local entry, wherever the record is
    called: str = ""  # what the branch goes to in the file, where sites are calls already
    # the call in `old` where that goes through a word in memory, which the dynamic linker fills with `called`
    through: Branch | None = None
    program: bool = False  # only programs and shared objects have such sites: no kernel of this machine patches them
    straight: bool = False  # those calls reach it without a stub of the linker's, so that one can be put back
    stub: tuple[Word, ...] = ()  # the words of the site's own stub, the last of them a `branch` back behind the site
    literal: int | None = None  # bytes from the record to an 8-byte ops pointer
    adjust: int | None = None  # what the kernel adds to a record before it looks at it, where that is a constant
    anywhere: bool = False  # the record may lie deep inside its function
    front: int | None = None  # units of NOPs that the compiler left in front of the entry, see `fronts.py`
    switch: bool = False  # the site's branch leads to code of its own among those NOPs
    reads: int = WINDOW_SIZE  # bytes of a window
    # the call is an ordinary one behind the prologue: its callee may change what any function may change
    library: bool = False
    nops: tuple[Word, ...] = ()  # what a call of `called` becomes that is switched off, as long as `old`
    refusal: str = ""  # why `enable` does not apply; empty where it does
    text: str = ""  # the layout, for people
    skip_text: str = ""  # its extra units
    source: str = ""  # where in the kernel's or compiler's source this is seen

    @property
    def unit(self) -> int:
        """Bytes of a unit of code."""
        return self.branch.unit

    @property
    def first(self) -> int:
        """Units from the record to the start of a window."""
        return -WINDOW_BEFORE // self.unit

    @property
    def size(self) -> int:
        """Bytes that enabling rewrites."""
        return self.unit * len(self.new)

    @property
    def call_at(self) -> int:
        """Bytes from the first that is rewritten to the call."""
        return max(self.size - self.branch.size, 0)  # where there is no room for one, it would begin there

    @property
    def code_text(self) -> str:
        """What stands at a site in the file, for people: instructions, or bytes where `??` may be anything."""
        if self.unit > 1:
            return "; ".join(word.text for word in self.old)
        codes = (self.old, *self.also)
        return " or ".join(" ".join(f"{word.bits:02x}" if word.mask else "??" for word in code) for code in codes)

    def is_left(self, body: U32) -> Mask:
        """Which rows of code are what a compiler leaves at a site. body: as `body` gives it."""
        return begins_with(body, (self.old, *self.also))

    @property
    def out_of_line(self) -> bool:
        """Whether every site calls from a stub of its own."""
        return bool(self.stub)

    @property
    def skip_words(self) -> int:
        """How many units a skip is long."""
        return len(self.skips[0]) if self.skips else 0

    def skipped(self, window: U32) -> Mask:
        """Which sites have the extra units. window: (n, …) units around each record, see `first`."""
        return begins_with(window[:, self.skip_at - self.first :], self.skips)

    def shift(self, window: U32) -> I64:
        """Units from `start` to the site's first one to rewrite, per site: not 0 behind extra units."""
        if self.skip_at < 0 or not self.skips:
            return np.zeros(len(window), dtype=np.int64)
        return np.where(self.skipped(window), self.skip_words, 0)

    def site(self, window: U32) -> I64:
        """Bytes from the record to the first byte to rewrite, per site."""
        return self.unit * (self.start + self.shift(window))

    def to_entry(self, window: U32) -> I64:
        """Bytes from the record to the function's entry, per site."""
        distance = np.full(len(window), self.entry, dtype=np.int64)
        if self.skips and self.skip_at < 0:
            distance[self.skipped(window)] -= self.unit * self.skip_words
        return distance

    def body(self, window: U32) -> U32:
        """(n, len(old)) units that enabling rewrites."""
        start = self.start - self.first
        if not self.skips or self.skip_at < 0:
            return window[:, start : start + len(self.old)].copy()
        first = start + self.shift(window)
        return np.asarray(np.take_along_axis(window, first[:, None] + np.arange(len(self.old)), axis=1))

    def behind(self, window: U32, n: int) -> U32:
        """(n sites, n) units behind the site; a window has at least as many as any machine looks at."""
        first = self.start - self.first + len(self.new) + self.shift(window)
        return np.asarray(np.take_along_axis(window, first[:, None] + np.arange(n), axis=1))

    def led(self, window: U32) -> Mask:
        """Which sites have the unit that must stand right before them, or before their extra units."""
        if self.lead is None:
            return np.ones(len(window), dtype=bool)
        before = self.start - self.first - 1
        far, near = window[:, before - self.skip_words], window[:, before]
        return self.lead.matches(np.where(self.skipped(window), far, near))

    def match(self, window: U32) -> U8:
        """MATCH_* per site, by the code alone."""
        body = self.body(window)
        old = self.is_left(body)
        if self.lead is not None:
            old &= self.led(window)
        match = np.where(old, MATCH_OLD, MATCH_NONE).astype(np.uint8)
        if self.refusal or self.new in (self.old, *self.also):  # where it goes tells, see sites/table.py
            return match
        if self.call_at:  # something is written in front of the call, as a running kernel leaves it
            front = self.call_at // self.unit
            match[_are(body, self.new[:front]) & _are(body[:, front:], self.old[front:])] = MATCH_HALF
        match[_are(body, self.new)] = MATCH_NEW
        return match
