"""Instruction words, branches, and the layouts of patch sites: what is looked for in a file, as tables.

Only the matching of a layout and the arithmetic of a branch compute anything; both work on all sites at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8, U32, Mask

MATCH_NONE, MATCH_OLD, MATCH_NEW, MATCH_HALF = 0, 1, 2, 3
WINDOW_FIRST, WINDOW = -2, 8  # the words around a record that shapes look at: from record − 8, eight of them


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
    """A direct branch: its distance stands in one field, `width` bits from bit `lsb`, in units of `scale` bytes."""

    word: Word
    width: int
    lsb: int = 0
    scale: int = 4

    @property
    def low(self) -> int:
        """The greatest distance backwards, in bytes."""
        return -(self.scale << (self.width - 1))

    @property
    def high(self) -> int:
        """The greatest distance forwards, in bytes."""
        return (self.scale << (self.width - 1)) - self.scale

    def reaches(self, distance: I64) -> Mask:
        """Whether each distance (target − branch, bytes) can be encoded."""
        found: Mask = (distance >= self.low) & (distance <= self.high) & (distance % self.scale == 0)
        return found

    def encode(self, distance: I64) -> U32:
        """The instruction words for distances that reach; a caller asks `reaches` first."""
        if not bool(np.all(self.reaches(distance))):
            raise AssertionError("a branch out of reach was to be encoded")
        field = distance // self.scale & ((1 << self.width) - 1)
        return (field << self.lsb).astype(np.uint32) | np.uint32(self.word.bits)

    def decode(self, words: U32) -> I64:
        """The distance in bytes that each word branches; only meaningful for words that match `word`."""
        field = (words >> np.uint32(self.lsb)).astype(np.int64) & ((1 << self.width) - 1)
        sign = 1 << (self.width - 1)
        return ((field ^ sign) - sign) * self.scale


def _are(words: U32, wanted: tuple[Word, ...]) -> Mask:
    """Which rows begin with these instructions. words: (n, at least len(wanted))."""
    found = np.ones(len(words), dtype=bool)
    for i, word in enumerate(wanted):
        found &= word.matches(words[:, i])
    return found


@dataclass(frozen=True)
class Shape:
    """How a compiler laid out one patch site, seen from its record.

    entry: bytes from the record to the function's local entry (`at_global`: to the global one); start: words from the
    record to `old[0]`; lead: a word right before the site that must be there.
    skips: alternatives of equal length for words that some functions have, at word `skip_at` from the record. Before
    the record (skip_at < 0) they lie between the entry and it; behind the record they push the site down.
    old, new: words to rewrite and their replacement; the last new one is `branch`, to the target or to a stub of the
    site's own, whose words `stub` lists, the last of them `branch` back behind the site. called: what the branch goes
    to in the file, where sites are calls already.
    literal: bytes from the record to an 8-byte ops pointer. adjust: what the kernel adds to a record before it looks at
    it, where that is a constant. refusal: why `enable` does not apply, empty where it does. text, skip_text: the
    layout and its extra words, for people.
    """

    name: str
    entry: int
    start: int
    old: tuple[Word, ...]
    new: tuple[Word, ...]
    branch: Branch
    lead: Word | None = None
    skips: tuple[tuple[Word, ...], ...] = ()
    skip_at: int = 0
    at_global: bool = False
    site_local: bool = False  # the site must be the local entry, wherever the record is
    called: str = ""
    stub: tuple[Word, ...] = ()
    literal: int | None = None
    adjust: int | None = None
    anywhere: bool = False  # the record may lie deep inside its function
    refusal: str = ""
    text: str = ""
    skip_text: str = ""
    source: str = ""

    @property
    def out_of_line(self) -> bool:
        """Whether every site calls from a stub of its own."""
        return bool(self.stub)

    @property
    def skip_words(self) -> int:
        """How many words a skip is long."""
        return len(self.skips[0]) if self.skips else 0

    def skipped(self, window: U32) -> Mask:
        """Which sites have the extra words. window: (n, WINDOW) words from record + 4·WINDOW_FIRST."""
        found = np.zeros(len(window), dtype=bool)
        first = self.skip_at - WINDOW_FIRST
        for words in self.skips:
            found |= _are(window[:, first:], words)
        return found

    def shift(self, window: U32) -> I64:
        """Words from `start` to the site's first word to rewrite, per site: not 0 behind extra words."""
        found = np.zeros(len(window), dtype=np.int64)
        if self.skips and self.skip_at >= 0:
            found[self.skipped(window)] = self.skip_words
        return found

    def to_entry(self, window: U32) -> I64:
        """Bytes from the record to the function's entry, per site."""
        distance = np.full(len(window), self.entry, dtype=np.int64)
        if self.skips and self.skip_at < 0:
            distance[self.skipped(window)] -= 4 * self.skip_words
        return distance

    def body(self, window: U32) -> U32:
        """(n, len(old)) words that enabling rewrites."""
        start = self.start - WINDOW_FIRST
        if not self.skips or self.skip_at < 0:
            return window[:, start : start + len(self.old)].copy()
        first = start + self.shift(window)
        columns: U32 = np.take_along_axis(window, first[:, None] + np.arange(len(self.old)), axis=1)
        return columns

    def match(self, window: U32) -> U8:
        """MATCH_* per site, by the words alone."""
        body = self.body(window)
        old = _are(body, self.old)
        if self.lead is not None:
            old &= self._led(window)
        found = np.full(len(body), MATCH_NONE, dtype=np.uint8)
        found[old] = MATCH_OLD
        if self.refusal or self.old == self.new:
            return found
        new = _are(body, self.new)
        if len(self.new) > 1:
            found[self.new[0].matches(body[:, 0]) & self.old[-1].matches(body[:, -1])] = MATCH_HALF
        found[new] = MATCH_NEW
        return found

    def _led(self, window: U32) -> Mask:
        """Whether `lead` stands in front of the site, or in front of the extra words before it."""
        assert self.lead is not None
        near, far = self.start - WINDOW_FIRST - 1, self.start - WINDOW_FIRST - 1 - self.skip_words
        skipped = self.skipped(window)
        found: Mask = np.where(skipped, self.lead.matches(window[:, far]), self.lead.matches(window[:, near]))
        return found
