"""What follows the original bytes of a relocatable file: every byte must belong to something.

A file that was patched several times still has the tables of the earlier patches, which no header names any more. They
are known by the section headers that close each patch: a table whose first rows are those of the first file.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Mask, Rows
from ftpatch.elf import tables as t
from ftpatch.proof.case import Case
from ftpatch.sites.records import SECTIONS as RECORD_SECTIONS

MAX_PADDING = 1 << 16
MAX_PATCHES = 256  # earlier patches that are looked for
Span = tuple[int, int, int]  # first byte, size, alignment


def check_tail(case: Case) -> None:
    """Findings for bytes behind the original ones that belong to no section, no header, and no earlier patch."""
    image, end = case.after.image, len(case.before.image.data)
    if len(image.data) < end:
        case.say("verify-byte", f"the file has {len(image.data)} bytes, fewer than the {end} that it had")
        return
    spans = _spans(image.shdr, image.has_bytes, end)
    case.kinds["appended part"] += len(spans)
    if int(image.ehdr["e_shoff"]) >= end:
        spans.append((int(image.ehdr["e_shoff"]), image.shdr.nbytes, 8))
    earlier = _earlier(case, spans)
    _account_for_leftovers(case, bool(earlier))
    for pos, size, align in sorted({*spans, *earlier}):
        if pos < end and (pos, size, align) in spans and not earlier:
            case.say("verify-section", f"two things overlap at file position {pos:#x}", pos=pos)
        elif pos > end and (pos - end >= min(max(align, 1), MAX_PADDING) or image.data[end:pos].any()):
            case.say("verify-byte", f"{pos - end} bytes at file position {end:#x} belong to no section", pos=end)
        end = max(end, pos + size)
    if end < len(image.data):
        n = len(image.data) - end
        case.say("verify-byte", f"{n} bytes at the end, from {end:#x} on, belong to no section", pos=end)


def _spans(heads: Rows, has_bytes: Mask, end: int) -> list[Span]:
    """The sections that lie behind the original bytes."""
    member = has_bytes & (heads["sh_offset"] >= np.uint64(end)) & (heads["sh_size"] > 0)
    return [(int(head["sh_offset"]), int(head["sh_size"]), int(head["sh_addralign"])) for head in heads[member]]


def _earlier(case: Case, spans: list[Span]) -> set[Span]:
    """What earlier patches appended, their section headers included."""
    before, data = case.before.image, case.after.image.data
    start = len(before.data)
    spans_found: set[Span] = set()
    if len(before.shdr) < 2:
        return spans_found
    mark = before.shdr[:1].tobytes() + before.shdr[1:2].tobytes()[:16]  # of the second row what never changes
    tail = data[start:].tobytes()
    at = tail.find(mark)
    for _ in range(MAX_PATCHES):
        if at < 0:
            break
        pos = start + at
        if not any(low <= pos < low + size for low, size, _ in spans) and pos % 8 == 0:
            spans_found |= _of_headers(case, pos, spans)
        at = tail.find(mark, at + 1)
    return spans_found


def _of_headers(case: Case, pos: int, spans: list[Span]) -> set[Span]:
    """The table at a position, if its rows go on as those of the first file do, and what it names."""
    before, image = case.before.image, case.after.image
    limit = min([low for low, _, _ in spans if low > pos], default=len(image.data))
    heads = image.data[pos : pos + (limit - pos) // t.SHDR.itemsize * t.SHDR.itemsize].view(t.SHDR)
    n = len(before.shdr)
    if len(heads) < n or any(np.any(heads[field][:n] != before.shdr[field]) for field in ("sh_name", "sh_type")):
        return set()
    fits = heads["sh_type"] != t.SHT_NULL
    fits &= (heads["sh_offset"] < np.uint64(pos)) & (heads["sh_size"] < np.uint64(pos))
    n_rows = next((row for row in range(n, len(heads)) if not fits[row]), len(heads))
    rows = heads[:n_rows]
    has_bytes = np.asarray((rows["sh_type"] != t.SHT_NOBITS) & (rows["sh_type"] != t.SHT_NULL))
    case.kinds["earlier patch"] += 1
    return {(pos, rows.nbytes, 8), *_spans(rows, has_bytes, len(before.data))}


def _account_for_leftovers(case: Case, several: bool) -> None:
    """What several patches leave in tables that moved or became shorter; rows in use are looked at elsewhere."""
    old, names = case.before.image.shdr, case.before.image.names
    for sec in range(len(old)) if several else ():
        if old["sh_type"][sec] == t.SHT_RELA or names[sec] in RECORD_SECTIONS:
            case.account_for("earlier patch", [int(old["sh_offset"][sec])], int(old["sh_size"][sec]))
