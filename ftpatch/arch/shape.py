"""Instruction words, branches, and the layouts of patch sites: what is looked for in a file, as tables.

Only the matching of a layout and the arithmetic of a branch compute anything; both work on all sites at once.

Code is looked at in units, one number in a uint32 each: an instruction word where every instruction is one, a byte
where instructions have any length and lie at any address. Everything here works on either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8, U32, Mask

MATCH_NONE, MATCH_OLD, MATCH_NEW, MATCH_HALF = 0, 1, 2, 3
WINDOW_BEFORE, WINDOW_SIZE = 8, 32  # bytes around a record that shapes look at: from record − 8, 32 of them


@dataclass(frozen=True)
class Word:
    """One unit of code as the kernel tests for it: an instruction word, or a byte of an instruction."""

    bits: int
    # which bits count
    mask: int = 0xFFFF_FFFF
    # the instruction, as assembly writes it
    text: str = ""

    def matches(self, words: U32) -> Mask:
        """Which words are this instruction."""
        found: Mask = (words & np.uint32(self.mask)) == np.uint32(self.bits)
        return found


ANY = Word(0, 0)  # whatever stands there


@dataclass(frozen=True)
class Branch:
    """A direct branch: its distance stands in one field of the instruction."""

    # the unit that tells it: the whole instruction word, or the first byte
    word: Word
    # bits of the distance field, and its lowest bit in the instruction as a little-endian number
    width: int
    lsb: int = 0
    # bytes that one step of the field counts
    scale: int = 4
    # bytes of the instruction
    size: int = 4
    # bytes of a unit of code: of a word where every instruction is one, else 1
    unit: int = 4
    # bytes from the instruction's start to where the distance counts from
    base: int = 0

    @property
    def n_units(self) -> int:
        return self.size // self.unit

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
        found: Mask = in_range & ((distance - self.base) % self.scale == 0)
        return found

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
    """Which rows begin with these instructions. words: (n, at least len(wanted))."""
    found = np.ones(len(words), dtype=bool)
    for i, word in enumerate(wanted):
        found &= word.matches(words[:, i])
    return found


@dataclass(frozen=True)
class Shape:
    """How a compiler laid out one patch site, seen from its record. Code is counted in units: words, or bytes."""

    name: str
    # bytes from the record to the function's local entry (`at_global`: to the global one)
    entry: int
    # units from the record to `old[0]`
    start: int
    # the units that enabling rewrites, and what they become; these end with `branch`
    old: tuple[Word, ...]
    new: tuple[Word, ...]
    # goes to the target or to a stub of the site's own
    branch: Branch
    # other code of the same length that compilers and build tools leave at a site, in the same image
    also: tuple[tuple[Word, ...], ...] = ()
    # a unit that must stand right before the site
    lead: Word | None = None
    # alternatives of equal length for units that some functions have, and where those are, in units from the record.
    # Before the record (< 0) they lie between the entry and it; behind the record they push the site down
    skips: tuple[tuple[Word, ...], ...] = ()
    skip_at: int = 0
    # the record belongs to the function's global entry
    at_global: bool = False
    # the site must be the local entry, wherever the record is
    site_local: bool = False
    # what the branch goes to in the file, where sites are calls already
    called: str = ""
    # the words of the site's own stub, the last of them a `branch` back behind the site
    stub: tuple[Word, ...] = ()
    # bytes from the record to an 8-byte ops pointer
    literal: int | None = None
    # what the kernel adds to a record before it looks at it, where that is a constant
    adjust: int | None = None
    # the record may lie deep inside its function
    anywhere: bool = False
    # why `enable` does not apply; empty where it does
    refusal: str = ""
    # the layout, and its extra units, for people
    text: str = ""
    skip_text: str = ""
    # where in the kernel's or compiler's source this is seen
    source: str = ""

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
        return self.size - self.branch.size

    @property
    def code_text(self) -> str:
        """What stands at a site in the file, for people: instructions, or bytes where `??` may be anything."""
        if self.unit > 1:
            return "; ".join(word.text for word in self.old)
        codes = (self.old, *self.also)
        return " or ".join(" ".join(f"{word.bits:02x}" if word.mask else "??" for word in code) for code in codes)

    def is_left(self, body: U32) -> Mask:
        """Which rows of code are what a compiler leaves at a site. body: as `body` gives it."""
        found = _are(body, self.old)
        for code in self.also:
            found |= _are(body, code)
        return found

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
        found = np.zeros(len(window), dtype=bool)
        first = self.skip_at - self.first
        for words in self.skips:
            found |= _are(window[:, first:], words)
        return found

    def shift(self, window: U32) -> I64:
        """Units from `start` to the site's first one to rewrite, per site: not 0 behind extra units."""
        found = np.zeros(len(window), dtype=np.int64)
        if self.skips and self.skip_at >= 0:
            found[self.skipped(window)] = self.skip_words
        return found

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
        columns: U32 = np.take_along_axis(window, first[:, None] + np.arange(len(self.old)), axis=1)
        return columns

    def match(self, window: U32) -> U8:
        """MATCH_* per site, by the code alone."""
        body = self.body(window)
        old = self.is_left(body)
        if self.lead is not None:
            old &= self._led(window)
        found = np.full(len(body), MATCH_NONE, dtype=np.uint8)
        found[old] = MATCH_OLD
        if self.refusal or self.new in (self.old, *self.also):  # where it goes tells, see sites/table.py
            return found
        new = _are(body, self.new)
        if self.call_at:  # something is written in front of the call, as a running kernel leaves it
            found[self.new[0].matches(body[:, 0]) & self.old[-1].matches(body[:, -1])] = MATCH_HALF
        found[new] = MATCH_NEW
        return found

    def _led(self, window: U32) -> Mask:
        """Whether `lead` stands in front of the site, or in front of the extra words before it."""
        assert self.lead is not None
        near, far = self.start - self.first - 1, self.start - self.first - 1 - self.skip_words
        skipped = self.skipped(window)
        found: Mask = np.where(skipped, self.lead.matches(window[:, far]), self.lead.matches(window[:, near]))
        return found
