"""The sections of a kernel whose file has no section headers, from its symbols and from what its tables look like.

What is known is painted over memory, from the coarse to the fine: first the parts of the linker's script (text,
constants, data, init text), then the tables within them, then the relocations. What nothing paints is in no section,
as are the linker's gaps in a file that has headers; so sections never overlap, whatever the symbols say. Zeros at the
end of a part that no symbol claims are such a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import I64, U64, Mask, Rows, distinct
from ftpatch.elf import tables as t
from ftpatch.recovered import layout_names as known
from ftpatch.recovered.layout_content import table_of
from ftpatch.recovered.layout_names import Bounds
from ftpatch.recovered.memory import Memory
from ftpatch.recovered.relocations import find_rela, find_relr

MAX_HEAD = 1 << 21  # bytes of code in front of the text
LINE = 64  # bytes at the end of a part that may be zero and not yet padding
PIECE = 1 << 16  # bytes that are looked through at once
UPPER_HALF = np.uint64(1 << 63)


class Span(NamedTuple):
    """A section to be, at [start, end)."""

    name: str
    start: int
    end: int
    flags: int
    kind: int = t.SHT_PROGBITS
    entsize: int = 0
    exact: bool = True  # else zeros at its end belong to nothing


class Sections(NamedTuple):
    """Section headers that point into the bytes of memory, and their names."""

    shdr: Rows
    names: tuple[str, ...]


def sections_of(memory: Memory, symbols: t.Symbols, arch: Arch, more: Sequence[Span] = ()) -> Sections:
    """The sections of a kernel, by address. symbols: what is known by name; more: what is known otherwise."""
    spans = [*_everything(memory), *_head(memory, symbols), *_named(symbols, known.PARTS)]
    spans += [*_other_code(memory, symbols, spans), *_named(symbols, known.TABLES)]
    spans += [*_by_content(memory, spans), *more, *_relocations(memory, symbols, arch)]
    return _headers(memory, symbols, spans)


def _everything(memory: Memory) -> Iterator[Span]:
    """All that is loaded, as data of no other name; what lies at 0, where the rest does not, is each processor's."""
    upper = bool((memory.va >= UPPER_HALF).any())
    for va, size in zip(memory.va.tolist(), memory.size.tolist(), strict=True):
        if upper and va < int(UPPER_HALF):
            yield Span(known.PER_CPU, va, va + size, known.DATA)
        else:
            yield Span(".rodata", va, va + size, known.CONSTANT, exact=False)


def _head(memory: Memory, symbols: t.Symbols) -> Iterator[Span]:
    """What lies in front of the text, where its own symbol is not known: a kernel begins with code."""
    start, text = int(memory.va[-1]) if len(memory.va) == 1 else None, symbols.value("_stext")
    if start is not None and text is not None and symbols.value("_text") is None and 0 < text - start <= MAX_HEAD:
        yield Span(known.HEAD_TEXT, start, text, known.CODE)


def _by_content(memory: Memory, spans: Sequence[Span]) -> Iterator[Span]:
    """Tables that no symbol bounds, but that tell themselves."""
    there = {span.name for span in spans}
    for part in known.BY_CONTENT:
        if part.name not in there and (table := table_of(memory, part.name)) is not None:
            start = int(memory.va_of(np.array([table[0]]))[0])
            yield Span(part.name, start, start + table[1] - table[0], part.flags, part.kind)


def _named(symbols: t.Symbols, parts: Sequence[Bounds]) -> Iterator[Span]:
    """The parts whose two ends the symbols name."""
    symbols.look_up([name for part in parts for name in (*part.start, *part.stop)])
    for part in parts:
        start, end = (first_value(symbols, names) for names in (part.start, part.stop))
        if start is not None and end is not None and start < end:
            yield Span(part.name, start, end, part.flags, part.kind, part.entsize, part.exact)


def first_value(symbols: t.Symbols, names: Sequence[str]) -> int | None:
    """Value of the first of the names that there is."""
    values = (symbols.value(name) for name in names)
    return next((value for value in values if value is not None), None)


def _other_code(memory: Memory, symbols: t.Symbols, spans: Sequence[Span]) -> Iterator[Span]:
    """Code in parts that no symbol bounds, by symbols of functions that follow each other without one of data."""
    init, end = (symbols.value(name) for name in ("__init_begin", "__init_end"))
    value, code = symbols.rows["st_value"], symbols.type == t.STT_FUNC
    placed = np.flatnonzero((value != 0) & ((value >= memory.va[:1]) if len(memory.va) else False))
    placed = placed[np.argsort(value[placed], kind="stable")]
    value, code = value[placed], code[placed]
    where, owner = _painted(spans, [])
    of = np.searchsorted(where, value, side="right") - 1
    flags = np.array([span.flags for span in spans] + [0])
    inside = np.where((of >= 0) & (of < len(owner)), owner[np.clip(of, 0, len(owner) - 1)], -1) if len(owner) else of
    loose = code & (inside >= 0) & (flags[inside] & t.SHF_EXECINSTR == 0)
    # data that some linkers mark as executable has the letters of code
    loose &= ~np.array([span.name == known.WRITTEN for span in spans] + [False])[inside]
    yield from _behind_init_text(symbols, value, code)
    change = np.flatnonzero(loose[1:] != loose[:-1]) + 1
    starts = np.concatenate(([0], change)) if len(loose) else change
    ends = np.append(change, len(loose)) if len(loose) else change
    for first, behind in zip(starts.tolist(), ends.tolist(), strict=True):
        if not loose[first] or value[first] == value[behind - 1]:
            continue  # a name at the end of a part
        low, high = int(value[first]), int(value[behind]) if behind < len(value) else int(value[behind - 1])
        name = known.EXIT_TEXT if init is not None and init <= low < (end or low) else known.OTHER_TEXT
        yield Span(name, low, high, known.CODE, exact=False)


def _behind_init_text(symbols: t.Symbols, value: U64, code: Mask) -> Iterator[Span]:
    """Code of alternatives that has no symbol of its own, from the end of init text to the first data behind."""
    end = symbols.value("_einittext")
    following = int(np.searchsorted(value, np.uint64(end), side="right")) if end is not None else len(value)
    table = symbols.value("__alt_instructions")
    if end is None or table is None or table <= end:  # there are no alternatives, or their code is elsewhere
        return
    if following < len(value) and not code[following]:
        yield Span(known.ALTERNATIVES, end, int(value[following]), known.CODE, exact=False)


def _relocations(memory: Memory, symbols: t.Symbols, arch: Arch) -> Iterator[Span]:
    """The tables of relocations that the kernel applies to itself: where symbols say, else what looks like them."""
    named = {part.name: list(_named(symbols, (part,))) for part in (known.RELA, known.RELR)}
    if all(named.values()) or (named[known.RELA.name] and first_value(symbols, known.RELR.start) is not None):
        spans = [span for found in named.values() for span in found]  # an empty table is none
    elif arch.listed:
        return  # its compressed kernel moves it, by a list of its own
    else:
        rela = find_rela(memory, arch)
        spans = []
        for part, table in ((known.RELA, rela), (known.RELR, find_relr(memory, rela))):
            if named[part.name]:
                spans += named[part.name]
            elif table is not None:
                start = int(memory.va_of(np.array([table.start]))[0])
                spans.append(Span(part.name, start, start + table.size, part.flags, part.kind, part.entsize))
    yield from (span for span in spans if _is_to_come(memory, span))


def _is_to_come(memory: Memory, span: Span) -> bool:
    """Whether a table is about this memory: in a dump of a kernel that was moved it names places as they were linked,
    and has been applied."""
    pos = int(memory.pos_of(np.array([span.start], dtype=np.uint64))[0])
    if pos < 0:
        return False
    place = memory.data[pos : pos + 8].view("<u8").astype(np.uint64)  # both begin with the address of a place
    return not len(place) or not place.any() or bool((memory.pos_of(place) >= 0).all())


# -- paint ---------------------------------------------------------------------------------------------------------


def _painted(spans: Sequence[Span], bounds: Sequence[int]) -> tuple[U64, I64]:
    """(addresses, the span that is uppermost from each to the next; −1 for none)."""
    ends = [end for span in spans for end in (span.start, span.end)]
    where = distinct(np.array([*ends, *bounds], dtype=np.uint64))
    owner = np.full(max(len(where) - 1, 0), -1, dtype=np.int64)
    for number, span in enumerate(spans):
        low, high = np.searchsorted(where, np.array([span.start, span.end], dtype=np.uint64))
        owner[low:high] = number
    return where, owner


def _headers(memory: Memory, symbols: t.Symbols, spans: Sequence[Span]) -> Sections:
    """What is uppermost everywhere, as section headers behind the empty first one."""
    ends = (memory.va + memory.size.astype(np.uint64)).tolist()
    where, owner = _painted(spans, [*memory.va.tolist(), *ends])
    pos = memory.pos_of(where[:-1])
    values = np.sort(symbols.rows["st_value"])
    heads, names = [np.zeros((), t.SHDR)], [""]
    for first, behind in _runs(owner, pos, where):
        span, at = spans[int(owner[first])], int(pos[first])
        start, end = int(where[first]), int(where[behind])
        if span.kind != t.SHT_NOBITS and not span.exact:
            end = _content_end(memory, values, at, start, end)
        if start == end or (at < 0 and span.kind != t.SHT_NOBITS):
            continue
        head = np.zeros((), t.SHDR)
        head["sh_type"], head["sh_flags"], head["sh_addr"], head["sh_size"] = span.kind, span.flags, start, end - start
        head["sh_offset"], head["sh_entsize"], head["sh_addralign"] = max(at, 0), span.entsize, 1
        heads.append(head)
        names.append(span.name)
    return Sections(np.array(heads, t.SHDR), tuple(names))


def _runs(owner: I64, pos: I64, where: U64) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of the pieces that make up a section: of one span, side by side in the file, too."""
    n = len(owner)
    size = np.diff(where.view(np.int64))
    goes_on = (owner[1:] == owner[:-1]) & ((pos[1:] == pos[:-1] + size[:-1]) | ((pos[1:] < 0) & (pos[:-1] < 0)))
    starts = np.concatenate(([0], np.flatnonzero(~goes_on) + 1)) if n else np.zeros(0, np.int64)
    for first, behind in zip(starts.tolist(), [*starts[1:].tolist(), n], strict=False):
        if owner[first] >= 0:
            yield first, behind


def _content_end(memory: Memory, values: U64, pos: int, start: int, end: int) -> int:
    """Where a part ends: behind its last byte that is not zero and its last symbol; `start` where there is neither."""
    content = memory.data[pos : pos + end - start] if pos >= 0 else memory.data[:0]
    used = used_size(content)
    last = int(np.searchsorted(values, np.uint64(end))) - 1
    claimed = int(values[last]) + 1 if last >= 0 and int(values[last]) >= start else start
    behind = min(max(start + used, claimed), end)
    return start if not used else end if end - behind < LINE else min(behind + 15 & ~15, end)


def used_size(content: Rows) -> int:
    """Bytes up to the last that is not zero."""
    for end in range(len(content), 0, -PIECE):
        used = np.flatnonzero(content[max(end - PIECE, 0) : end])
        if len(used):
            return max(end - PIECE, 0) + int(used[-1]) + 1
    return 0
