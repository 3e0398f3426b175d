"""Stubs in a linked kernel by which a redirected function's jump goes farther than it reaches, or enters where it must.

    veneer   arm64: adrp x16; add x16, x16, #lo12; br x16
    far      ppc64le: ld r12,K(r13); addis; addi; mtctr r12; bctr: enters a global entry, with its address in r12

Each stands in zero bytes that nothing claims, serves every function with the same replacement that reaches it, and is
made once: one of an earlier patch is used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import U32
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan.free_text import bytes_at, first_zero, gap_before_init, is_claimed, is_present, text_tail
from ftpatch.plan.routes import SharedStub, tocs
from ftpatch.sites.scan import Scan

ALIGN, SEARCH = 16, 1 << 16  # bytes; of a place, from its free end, that are looked through
Code = Callable[[int], U32]  # va of a stub → its words


@dataclass
class StubRoom:
    """The free places of a kernel's text, and the stubs that were put there."""

    scan: Scan
    stubs: list[SharedStub] = field(default_factory=list)
    _known: dict[int, list[int]] = field(default_factory=dict)  # va of a replacement → numbers of its stubs
    _taken: set[int] = field(default_factory=set)  # multiples of ALIGN on which this run's stubs lie

    def number_for(self, site: int, target: int, name: str) -> int | None:
        """Number in `stubs` of one that leads to `target` and that a jump at `site` reaches; None where there is none,
        and no room for one."""
        reaches = self._reach(site)
        for number in self._known.get(target, ()):
            if reaches(self.stubs[number].va):
                return number
        code, size = _code_to(self.scan, target, name)
        for place, va in self._places(site, size):
            words = code(va)
            if not reaches(va):
                continue
            present = is_present(self.scan.image, va, bytes_at(self.scan.image, va, size), words)
            if present is None:
                continue
            self._taken.update(_steps(va, size))
            self.stubs.append(SharedStub(va, words, present, place, f"its way to {name}, in {PLACES[place]}"))
            self._known.setdefault(target, []).append(len(self.stubs) - 1)
            return len(self.stubs) - 1
        return None

    def _reach(self, site: int) -> Callable[[int], bool]:
        jump = self.scan.arch.jump
        assert jump is not None
        return lambda va: bool(jump.reaches(np.array([va - site], dtype=np.int64))[0])

    def _places(self, site: int, size: int) -> Iterator[tuple[str, int]]:
        """(which place, va) that might hold a stub, those of earlier patches first: they lie before the free ones."""
        image, step = self.scan.image, (size + ALIGN - 1) & -ALIGN
        tail: list[int] = []
        for start, end in dict.fromkeys(text_tail(self.scan, inside) for inside in _in_core_text(image, site)):
            free = first_zero(image, start, end)
            tail += [*range(start, free, ALIGN), *range(free, end - size + 1, step)]
        gap_start, gap_end = gap_before_init(image)
        last = (gap_end - size) & -ALIGN
        gap = range(last, max(gap_start, last - SEARCH) - 1, -step)
        for place, candidates in (("text tail", tail), ("gap before init text", gap)):
            for va in candidates:
                free = self._taken.isdisjoint(_steps(va, size))
                if free and not self._avoided(va) and not is_claimed(image, va, size):
                    yield place, va

    def _avoided(self, va: int) -> bool:
        veneer = self.scan.arch.veneer
        return veneer is not None and va & 0xFFF in veneer.avoids


def _steps(va: int, size: int) -> range:
    """The multiples of ALIGN on which a stub lies."""
    return range(va // ALIGN, (va + size - 1) // ALIGN + 1)


PLACES = {
    "text tail": "zero bytes behind the text that no symbol claims",
    "gap before init text": "zero bytes in front of init text, which are mapped executable and never freed",
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
