"""What the memory of a loaded kernel or module holds, by address.

A linked image is loaded as it stands: firmware that boots the ELF file follows its segments, a flat image is made from
its sections. Pointers are read as the booting kernel leaves them: the addend of a RELATIVE relocation wins over the
word in the file, and a pointer that nothing relocates is wrong as soon as the kernel moves.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import I64, U8, U32, U64, Mask, distinct
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

READ_AHEAD = 64  # words of the kernel's trampoline that are read for its constants


@dataclass(frozen=True)
class Block:
    """A run of bytes at an address."""

    va: int
    data: U8

    @property
    def end(self) -> int:
        return self.va + len(self.data)


@dataclass(frozen=True)
class Pointers:
    """8-byte words of memory."""

    value: U64  # at load bias 0
    right: Mask  # whether each is relocated as often as it must be
    present: Mask  # whether anything is there


@dataclass(frozen=True)
class Moved:
    """Pointers that the loader changes."""

    filled: U64  # va of each that gets a value, ascending
    value: U64  # that value
    packed: U64  # va of those that keep the word that is there, ascending

    def at(self, places: U64) -> tuple[Mask, U64, I64]:
        """Per place: whether it is filled, with what, and how many relocations name it."""
        low, high = np.searchsorted(self.filled, places), np.searchsorted(self.filled, places, side="right")
        more = np.searchsorted(self.packed, places, side="right") - np.searchsorted(self.packed, places)
        known = low < high
        value = self.value[np.minimum(low, len(self.value) - 1)] if len(self.value) else np.zeros_like(places)
        return known, value, high - low + more


NOTHING = Moved(*(np.zeros(0, np.uint64) for _ in range(3)))


@dataclass(frozen=True)
class Memory:
    """What stands where. None: there is no such thing."""

    blocks: tuple[Block, ...]  # in ascending order, apart from each other
    moved: Moved = NOTHING
    moves: bool = False  # whether the loader moves the blocks, so that every pointer wants a relocation
    kernel_toc: int | None = None  # the kernel's TOC
    toc_at: int | None = None  # byte offset in the paca at which it stands
    own_toc: int | None = None  # that of the module
    outside: int | None = None  # va from which on symbols of other files are given addresses

    @cached_property
    def _starts(self) -> list[int]:
        return [block.va for block in self.blocks]

    def read(self, va: int, size: int) -> bytes:
        """Up to `size` bytes from `va` on, as far as one block has them; none where nothing is."""
        at = bisect_right(self._starts, va) - 1
        if at < 0 or va >= self.blocks[at].end:
            return b""
        block = self.blocks[at]
        return block.data[va - block.va : va - block.va + size].tobytes()

    def page(self, va: int, size: int) -> bytes | None:
        """`size` bytes from `va` on with zeros where nothing is; None where there is nothing at all."""
        content = np.zeros(size, dtype=np.uint8)
        at, filled = max(bisect_right(self._starts, va) - 1, 0), False
        for block in self.blocks[at:]:
            if block.va >= va + size:
                break
            low, high = max(block.va, va), min(block.end, va + size)
            if low < high:
                content[low - va : high - va], filled = block.data[low - block.va : high - block.va], True
        return content.tobytes() if filled else None

    def word(self, va: int) -> int | None:
        """The instruction word at `va`; None where there is none."""
        content = self.read(va, 4) if va % 4 == 0 else b""
        return int.from_bytes(content, "little") if len(content) == 4 else None

    def words(self, places: U64) -> tuple[U32, Mask]:
        """The instruction words at places that are multiples of four, and whether there is any."""
        word, present = np.zeros(len(places), dtype=np.uint32), np.zeros(len(places), dtype=bool)
        holder = np.searchsorted(np.array(self._starts, dtype=np.uint64), places, side="right") - 1
        for number in distinct(holder[holder >= 0]).tolist():
            block = self.blocks[number]
            if len(block.data) < 4:
                continue
            last = np.uint64(block.end - 4)  # so that nothing wraps at the end of all addresses
            inside = np.flatnonzero((holder == number) & (places <= last))
            at = (places[inside] - np.uint64(block.va)).view(np.int64)
            word[inside] = np.ascontiguousarray(block.data[at[:, None] + np.arange(4)]).view("<u4").reshape(-1)
            present[inside] = True
        return word, present

    def pointers(self, places: U64) -> Pointers:
        """The 8-byte words at the places, as the loader leaves them."""
        raw = [self.read(va, 8) for va in places.tolist()]
        word = np.array([int.from_bytes(content, "little") for content in raw], dtype=np.uint64)
        filled, value, n = self.moved.at(places)
        present = np.array([len(content) == 8 for content in raw], dtype=bool)
        return Pointers(np.where(filled, value, word), n == (1 if self.moves else 0), present)


def image_memory(image: Image, arch: Arch) -> Memory:
    """The memory of a linked image."""
    toc, paca = kernel_constants(image, arch)
    moved = replace(relative_pointers(image, arch), packed=np.sort(image.relr_places(0, (1 << 64) - 16)))
    return Memory(_blocks(image, arch), moved, bool(len(moved.filled) or len(moved.packed)), toc, paca)


def kernel_constants(image: Image, arch: Arch) -> tuple[int | None, int | None]:
    """(the kernel's TOC, where its trampoline finds it in the paca), where the machine has such things."""
    own = image.symbols.value(arch.entries[0])
    if arch.far is None or own is None:
        return None, None
    return image.symbols.value(arch.far.toc), arch.read_entry(image.code(own, READ_AHEAD)).kernel_toc


def _blocks(image: Image, arch: Arch) -> tuple[Block, ...]:
    """Segments before sections where the ELF file itself is booted, else sections before segments."""
    heads = image.phdr[image.phdr["p_type"] == t.PT_LOAD]
    size = np.minimum(heads["p_filesz"], heads["p_memsz"])
    segments = [(int(h["p_vaddr"]), int(h["p_offset"]), int(n)) for h, n in zip(heads, size, strict=True)]
    member = (image.shdr["sh_flags"] & t.SHF_ALLOC != 0) & image.has_bytes & (image.shdr["sh_flags"] & t.SHF_TLS == 0)
    sections = [(int(h["sh_addr"]), int(h["sh_offset"]), int(h["sh_size"])) for h in image.shdr[member]]
    blocks: list[Block] = []
    for runs in (segments, sections) if arch.boot == "elf" else (sections, segments):
        blocks = _around(blocks, [Block(va, image.data[pos : pos + size]) for va, pos, size in runs])
    return tuple(blocks)


def _around(there: list[Block], more: list[Block]) -> list[Block]:
    """All the blocks in ascending order; of those that come second, only what is not there yet."""
    blocks, starts, reached = list(there), [block.va for block in there], 0
    for block in sorted(more, key=lambda one: one.va):
        start = max(block.va, reached)
        at = max(bisect_right(starts, start) - 1, 0)
        while start < block.end:
            low = there[at].va if at < len(there) else block.end
            if low > start:
                blocks.append(Block(start, block.data[start - block.va : min(low, block.end) - block.va]))
            start = max(start, there[at].end if at < len(there) else block.end)
            at += 1
        reached = max(reached, block.end)
    return sorted((block for block in blocks if len(block.data)), key=lambda one: one.va)


def relative_pointers(image: Image, arch: Arch) -> Moved:
    """The pointers of a linked image that its relocation table fills."""
    rows = image.rela[0]
    rows = rows[(rows["r_info"] & np.uint64(0xFFFF_FFFF)) == arch.relative]
    rows = rows[np.argsort(rows["r_offset"], kind="stable")]
    filled, value = rows["r_offset"].astype(np.uint64), rows["r_addend"].astype(np.int64).view(np.uint64)
    return Moved(filled, value, NOTHING.packed)
