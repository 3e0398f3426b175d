"""What follows the original bytes of a relocatable file: every byte must belong to one of the patches that made it.

    first file │ tables that grew, new sections │ section headers │ tables that grew, … │ section headers
               └──────────── one patch ────────────────────────┘

Each patch copies what becomes longer to the end of the file, in the order of the sections' numbers, and closes with a
new table of section headers. The copies and headers of earlier patches stay where they are, and nothing names them any
more; they are found again because each table of headers goes on from the one before it, and because the parts of a
patch lie side by side. What the copies may hold is looked at by `stale`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import Mask, Rows
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.sites.records import record_names

MAX_ALIGN = 1 << 16  # of a section that moves; linkers align to pages at most
MAX_CANDIDATES = 4096  # places that begin like a table of section headers and are looked at
MAX_NEW = 1 << 12  # sections that one patch adds
ALIGN = 8  # of section headers
MAY_CHANGE = ("sh_offset", "sh_size", "sh_addralign")
STAYS = [name for name in t.SHDR.names or () if name not in MAY_CHANGE]


@dataclass(frozen=True)
class Step:
    """What one patch appended."""

    start: int  # bytes of the file before it
    headers: int  # file position of its section headers, which are its end
    shdr: Rows  # these
    moved: tuple[int, ...]  # sections that lie in it, ascending

    @property
    def end(self) -> int:
        return self.headers + self.shdr.nbytes


@dataclass(frozen=True)
class Stray:
    """Bytes that no patch accounts for."""

    rule: str
    text: str
    pos: int


def read_steps(before: Image, after: Image) -> tuple[tuple[Step, ...], Stray | None]:
    """The patches behind the first file's bytes, and the first bytes that belong to none of them."""
    steps: list[Step] = []
    start, heads, last = len(before.data), before.shdr, int(after.ehdr["e_shoff"])
    if len(after.data) < start:
        return (), Stray("verify-byte", f"the file has {len(after.data)} bytes, fewer than the {start} that it had",
                         len(after.data))  # fmt: skip
    while start <= last:
        step = _next(after, heads, start, last)
        if step is None:
            return tuple(steps), _stray(after, start)
        steps.append(step)
        start, heads = step.end, step.shdr
    if start < len(after.data):
        text = f"{len(after.data) - start} bytes at the end, from {start:#x} on, belong to no section"
        return tuple(steps), Stray("verify-byte", text, start)
    return tuple(steps), None


def _next(after: Image, heads: Rows, start: int, last: int) -> Step | None:
    """The patch that begins at `start`, on a file with the section headers `heads`."""
    if step := _step(after, heads, start, last, after.shdr):
        return step
    if len(heads) < 2:
        return None
    mark = heads[1].tobytes()[:16]  # of the second row what never changes
    tail = after.data[start:last].tobytes()
    for number, at in enumerate(t.places_of(mark, tail)):
        pos = start + at - t.SHDR.itemsize
        if number >= MAX_CANDIDATES:
            break
        if pos >= start and pos % ALIGN == 0 and (step := _step(after, heads, start, pos, None)):
            return step
    return None


def _step(image: Image, heads: Rows, start: int, pos: int, final: Rows | None) -> Step | None:
    """The patch whose section headers stand at `pos`, if they go on from those before it and its parts touch.

    final: the file's own section headers, where they are meant; the number of others is told by what they name.
    """
    n = len(heads)
    rows = final if final is not None else _headers(image, pos, n + MAX_NEW)
    if len(rows) < n or not _goes_on(image, heads, rows[:n]):
        return None
    moved = np.flatnonzero(rows["sh_offset"][:n] != heads["sh_offset"]).tolist()
    end = start
    for sec in moved:
        end = _behind(image, rows[sec], end)
        if not start <= end <= pos:
            return None
    n_rows = n
    while n_rows < len(rows) and (final is not None or not _closes(image, end, pos)):
        end = _behind(image, rows[n_rows], end)
        if not start <= end <= pos:
            return None
        moved.append(n_rows)
        n_rows += 1
    # Section 0 has the number of sections, where the ELF header cannot.
    numbered = int(rows["sh_size"][0]) in (int(heads["sh_size"][0]), n_rows if n_rows >= t.SHN_LORESERVE else 0)
    return Step(start, pos, rows[:n_rows], tuple(moved)) if numbered and _closes(image, end, pos) else None


def _headers(image: Image, pos: int, n: int) -> Rows:
    """As many as n section headers at a position; fewer where the file ends."""
    return image.data[pos : pos + min(n, (len(image.data) - pos) // t.SHDR.itemsize) * t.SHDR.itemsize].view(t.SHDR)


def _goes_on(image: Image, heads: Rows, rows: Rows) -> bool:
    """Whether section headers are those of the next patch: nothing changed but where sections are, and how long."""
    if not all(np.array_equal(heads[name], rows[name]) for name in STAYS):
        return False
    moved = rows["sh_offset"] != heads["sh_offset"]
    wider = rows["sh_addralign"] > heads["sh_addralign"]
    # What grows moves, and nothing else; but a table may lose more records than an object brings along.
    grows = (rows["sh_size"] > heads["sh_size"]) | wider
    right = (moved == grows) | (moved & _holds_records(image, heads))
    right &= wider | (rows["sh_addralign"] == heads["sh_addralign"])
    return bool(right[1:].all() and rows["sh_offset"][0] == heads["sh_offset"][0])


def _holds_records(image: Image, heads: Rows) -> Mask:
    """Which sections hold records of patch sites, or their relocations."""
    records = np.zeros(len(heads), dtype=bool)
    records[[sec for sec, name in enumerate(image.names[: len(heads)]) if name in record_names(image)]] = True
    of = np.where(heads["sh_type"] == t.SHT_RELA, heads["sh_info"], 0)
    return np.asarray(records | ((of < len(heads)) & records[np.minimum(of, len(heads) - 1)]))


def _behind(image: Image, row: Rows, end: int) -> int:
    """Where a part ends that begins behind `end`, with nothing but zeros in between; −1 where it does not."""
    align, pos, size = (int(row[name]) for name in ("sh_addralign", "sh_offset", "sh_size"))
    size = 0 if int(row["sh_type"]) == t.SHT_NOBITS else size
    align = max(align, 1)
    if (
        align > MAX_ALIGN
        or pos != -(-end // align) * align
        or pos + size > len(image.data)
        or image.data[end:pos].any()
    ):
        return -1
    return pos + size


def _closes(image: Image, end: int, pos: int) -> bool:
    return pos == -(-end // ALIGN) * ALIGN and not image.data[end:pos].any()


def _stray(after: Image, start: int) -> Stray:
    """The first bytes from `start` on that the file's own section headers do not account for."""
    heads, end = after.shdr, start
    member = np.flatnonzero(after.has_bytes & (heads["sh_offset"] >= np.uint64(start)) & (heads["sh_size"] > 0))
    order = member[np.argsort(heads["sh_offset"][member], kind="stable")].tolist()
    if order != sorted(order):
        at = int(heads["sh_offset"][order[0]])
        return Stray("verify-section", "the sections behind the original bytes lie in another order than their numbers",
                     at)  # fmt: skip
    for sec in order:
        following = _behind(after, heads[sec], end)
        if following < 0:
            break
        end = following
    after_end = f"{len(after.data) - end} bytes at file position {end:#x}"
    return Stray("verify-byte", f"not all of the {after_end} belong to a section or to a patch that was made before",
                 end)  # fmt: skip
