"""Stubs in a linked file by which a call or jump goes farther than its branch reaches, or enters where it must.

    veneer   arm64: adrp x16; add x16, x16, #lo12; br x16
    far      ppc64le: ld r12,K(r13); addis; addi; mtctr r12; bctr: enters a global entry, with its address in r12

Each stands where nothing can be, serves every site with the same target that reaches it, and is made once: one of an
earlier patch is used again. A veneer stands in padding, see `padding.py`; a far stub in zero bytes that nothing claims,
behind the text or in front of init text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arch.parts import FarCalls
from ftpatch.arch.shape import Branch
from ftpatch.arrays import I64, U32, U64, distinct
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan.free_text import bytes_at, first_zero, gap_before_init, is_claimed, is_present, text_tail
from ftpatch.plan.padding import Padding
from ftpatch.sites.evidence import called_by
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED

ALIGN, SEARCH = 16, 1 << 16  # bytes; of a place, from its free end, that are looked through
MAX_TRIED = 8  # places in padding of which a refusal may tell
READ = 64  # words of the kernel's own entry that are read
Code = Callable[[int], U32]  # va of a stub → its words


@dataclass(frozen=True, eq=False)
class SharedStub:
    """A stub that several sites call through."""

    va: int
    words: U32
    present: bool  # whether the file has it already
    name: str  # where it lies, for people
    why: str  # why it may lie there
    init_only: bool = False  # freed with init text, so that no other site may use it


def tocs(image: Image, far: FarCalls) -> tuple[int | None, int | None]:
    """(the kernel's TOC, where in the paca its own trampoline finds it); None for what the file does not tell."""
    own = image.symbols.value(image.arch.entries[0])
    kernel_toc = image.arch.read_entry(image.code(own, READ)).kernel_toc if own is not None else None
    return image.symbols.value(far.toc), kernel_toc


@dataclass
class StubRoom:
    """The free places of a file's text, and the stubs that were put there."""

    scan: Scan
    branch: Branch  # by which sites reach a stub
    stubs: list[SharedStub] = field(default_factory=list)
    tried: dict[int, SharedStub] = field(default_factory=dict)  # va → a free place that some site does not reach
    _known: dict[int, list[int]] = field(default_factory=dict)  # va of a target → numbers of its stubs
    _taken: set[int] = field(default_factory=set)  # multiples of ALIGN on which this run's stubs lie

    def number_for(self, site: int, target: int, name: str) -> int | None:
        """Number in `stubs` of one that leads to `target` and that a branch at `site` reaches; None where there is
        none, and no room for one."""
        init = bool(in_init_text(self.scan.image, np.array([site], dtype=np.uint64))[0])
        for number in self._known.get(target, ()):
            if self._reaches(site, self.stubs[number].va) and (init or not self.stubs[number].init_only):
                return number
        image, (code, size) = self.scan.image, _code_to(self.scan, target, name)
        for place, va in self._places(site, size, init):
            if self._veneer_avoids(va, target):
                continue
            freed = bool(in_init_text(image, np.array([va], dtype=np.uint64))[0])
            present = place != PADDING and is_present(image, va, bytes_at(image, va, size), code(va))
            if present is None or (freed and not init):
                continue
            stub = SharedStub(va, code(va), present, place, f"its way to {name}, in {PLACES[place]}", freed)
            if self._reaches(site, va):
                return self._add(target, stub)
            self._keep_nearest(stub)
            if place == PADDING and abs(va - site) > self.branch.high:  # all others are farther
                break
        return None

    def numbers_for(self, sites: U64, target: int, name: str) -> I64:
        """As `number_for`, of many sites with one target; −1 for none."""
        through = np.full(len(sites), -1, dtype=np.int64)
        init, open_ = in_init_text(self.scan.image, sites), np.ones(len(sites), dtype=bool)
        while open_.any():
            first = int(np.flatnonzero(open_)[0])
            number = self.number_for(int(sites[first]), target, name)
            open_[first] = False
            if number is None:
                continue
            stub = self.stubs[number]
            fits = self.branch.reaches(np.uint64(stub.va).view(np.int64) - sites.view(np.int64))
            fits &= (through < 0) & (init if stub.init_only else True)
            through[fits], open_[fits] = number, False
        return through

    def take(self, va: int, size: int) -> None:
        """Keep a place for something else."""
        self._taken.update(_steps(va, size))

    def _add(self, target: int, stub: SharedStub) -> int:
        self.take(stub.va, 4 * len(stub.words))
        self.stubs.append(stub)
        self._known.setdefault(target, []).append(len(self.stubs) - 1)
        return len(self.stubs) - 1

    def _keep_nearest(self, stub: SharedStub) -> None:
        """Remember a place that a site does not reach: a few of padding, one of every other kind."""
        if sum(other.name == stub.name for other in self.tried.values()) < (MAX_TRIED if stub.name == PADDING else 1):
            self.tried[stub.va] = stub

    def _reaches(self, site: int, va: int) -> bool:
        return self.branch.spans(site, va)

    def _veneer_avoids(self, va: int, target: int) -> bool:
        """Whether no veneer to the target may stand at an address."""
        veneer = self.scan.arch.veneer
        return veneer is not None and (va & 0xFFF in veneer.avoids or abs(target - va) >= veneer.reach)

    def _places(self, site: int, size: int, init: bool) -> Iterator[tuple[str, int]]:
        """(which place, va) that might hold a stub, those of earlier patches first."""
        padding = self._padding
        gap = self._gap(size) if self.scan.arch.text_reaches_init else ()
        candidates = ((EARLIER, self._earlier()), (TAIL, self._tail(site, size)), (GAP, gap))
        for place, va in ((place, va) for place, many in candidates for va in many):
            free = padding is None or place == EARLIER or padding.is_free(va, init)
            if free and self._taken.isdisjoint(_steps(va, size)) and not is_claimed(self.scan.image, va, size):
                yield place, va
        for va in padding.near(site, init) if padding else ():
            if self._taken.isdisjoint(_steps(va, size)):
                yield PADDING, va

    @cached_property
    def _padding(self) -> Padding | None:
        veneer = self.scan.arch.veneer
        return Padding(self.scan, veneer, veneer.size, veneer.avoids) if veneer is not None else None

    def _earlier(self) -> list[int]:
        """va of what may be veneers of earlier patches."""
        return [] if self.scan.arch.veneer is None else earlier_stubs(self.scan)

    def _tail(self, site: int, size: int) -> list[int]:
        """Places behind the text: stubs of earlier patches lie before the free ones."""
        image, step, tail = self.scan.image, (size + ALIGN - 1) & -ALIGN, list[int]()
        for start, end in dict.fromkeys(text_tail(self.scan, inside) for inside in _in_core_text(image, site)):
            free = first_zero(image, start, end)
            tail += [*range(start, free, ALIGN), *range(free, end - size + 1, step)]
        return tail

    def _gap(self, size: int) -> range:
        """Places in front of init text, from its end."""
        start, end = gap_before_init(self.scan.image)
        last = (end - size) & -ALIGN
        return range(last, max(start, last - SEARCH) - 1, -((size + ALIGN - 1) & -ALIGN))


def _steps(va: int, size: int) -> range:
    """The multiples of ALIGN on which a stub lies."""
    return range(va // ALIGN, (va + size - 1) // ALIGN + 1)


EARLIER, TAIL, GAP, PADDING = "an earlier veneer", "text tail", "gap before init text", "padding"
PLACES = {
    TAIL: "zero bytes behind the text that no symbol claims",
    GAP: "zero bytes in front of init text, which are mapped executable and never freed",
    EARLIER: "the place where an earlier patch put it",
    PADDING: "padding between functions that nothing claims, names or runs into",
}  # fmt: skip


def _code_to(scan: Scan, target: int, name: str) -> tuple[Code, int]:
    """(words by address, bytes) of a stub that leads to a function's global entry. Raises PolicyError."""
    image, arch = scan.image, scan.arch
    if arch.veneer is not None:
        veneer = arch.veneer
        return lambda va: veneer.words(va, target), veneer.size
    words = _far_words(image, arch, target, name)
    return lambda va: words, 4 * len(words)


def _far_words(image: Image, arch: Arch, target: int, name: str) -> U32:
    far = arch.far
    toc, kernel_toc = tocs(image, far) if far else (None, None)
    if far is None or toc is None or kernel_toc is None or abs(target - toc) >= far.reach:
        found = f"{name} too far from it"
        if far is None or toc is None or kernel_toc is None:
            found = "no way to it that is known" if toc is None else f"no load of it in {arch.entries[0]}"
        raise PolicyError("a stub to the replacement would need the kernel's TOC", image.path, found=found,
                          expected="a vmlinux with its symbols and a function tracer")  # fmt: skip
    return far.stub(target, toc, kernel_toc)


def _in_core_text(image: Image, site: int) -> list[int]:
    """An address in each section of text that stays and may have room: that of the kernel's own trampoline, and the
    site's."""
    own = image.symbols.value(image.arch.entries[0])
    freed = bool(in_init_text(image, np.array([site], dtype=np.uint64))[0])
    return ([] if own is None else [own]) + ([] if freed else [site])


def earlier_stubs(scan: Scan) -> list[int]:
    """va of everything that enabled and redirected sites of a linked file go to or through."""
    sites = scan.sites
    if sites.shape is None:
        return []
    jumps = [target.through for target in sites.redirects.values() if target.through is not None]
    return [*jumps, *distinct(called_by(sites, np.flatnonzero((sites.status == ENABLED) & ~sites.redirected))).tolist()]


def why_guarded(scan: Scan, target: int, name: str, branch: str) -> str:
    """Why no veneer may go on to a function in a file that guards its indirect jumps; empty where one may. branch: what
    does not reach it, a call or a jump."""
    veneer, sites = scan.arch.veneer, scan.sites
    if veneer is None or sites.shape is None or not sites.shape.skipped(sites.window).any():
        return ""
    first = scan.image.code(target, 1)
    if any(word.matches(first).any() for word in veneer.pads):
        return ""
    return f"{name} is beyond the {branch}'s reach, and begins with no {veneer.pads[0].text} for an indirect one"
