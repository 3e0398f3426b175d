"""Static calls: calls through a pointer that the kernel writes into the code itself.

    key         __SCK__NAME: the function pointer, and a word of the kernel's own
    trampoline  __SCT__NAME: a few bytes that jump to the function, for who cannot be patched or is not yet
    site        a call or jump of the trampoline; at boot the kernel makes it go to what its key holds

A linked kernel has an array of entries {s32 site, s32 key} between `__start_static_call_sites` and
`__stop_static_call_sites`, each field relative to itself; modules and objects have a section `.static_call_sites`
whose fields are in its relocations. The key's low bits are flags. A module may name a trampoline in the key's place,
where the key is not exported; the loader finds the key by the kernel's table of such pairs.
Source: include/linux/static_call_types.h, kernel/static_call_inline.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.errors import RecordError, UnsupportedError
from ftpatch.sites.static_keys import UNKNOWN, Keys, Named, destinations, forms_of, named_at, read_keys

SECTION = ".static_call_sites"
START, STOP = "__start_static_call_sites", "__stop_static_call_sites"
ENTRY = 8  # bytes of an entry
WORD = 4  # bytes of a branch's destination word
TAIL, FLAGS = 1, 3  # flags in the key's field: a tail call; all of them (the other: in init text, set when it runs)
MAX_ENTRIES = 1 << 20
_NO = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class Calls:
    """One row per entry, in the order of the file."""

    entry: I64  # file position of its 8 bytes
    sec: I64  # section of the instruction; −1 where the entry names no place
    off: I64  # byte offset of the instruction there
    key: I64  # row of the table of keys; −1: it names none
    tail: Mask  # the flag for a tail call
    form: I64  # which of the machine's forms stands there; −1: none of them
    destination: Named  # where the instruction goes on disk

    def __len__(self) -> int:
        return len(self.entry)


@dataclass(frozen=True, eq=False, repr=False)
class StaticCallTable:
    """The static calls of one file."""

    image: Image
    calls: Calls
    keys: Keys

    def kinds(self) -> list[str]:
        """What stands at each site: a form's kind, or `unknown`."""
        forms = self.image.arch.static_calls
        names = [*(form.kind for form in forms.sites), "unknown"] if forms else ["unknown"]
        return [names[form] for form in self.calls.form.tolist()]

    def crosses(self, line: int) -> Mask:
        """Which sites have a destination word that lies in two cache lines of `line` bytes."""
        calls, forms = self.calls, self.image.arch.static_calls
        crosses = np.zeros(len(calls), dtype=bool)
        for number, form in enumerate(forms.sites if forms else ()):
            if form.branch is not None:
                first = self.image.va(calls.sec, calls.off).view(np.int64) + form.branch.lsb // 8
                crosses |= (calls.form == number) & (first // line != (first + WORD - 1) // line)
        return crosses


def read_static_calls(image: Image) -> StaticCallTable:
    """The static calls of an image; tables without rows where it has none.

    Raises UnsupportedError for machines whose kernels have none, RecordError where a table contradicts the file.
    """
    forms = image.arch.static_calls
    if forms is None:
        raise UnsupportedError(image.arch.no_static_calls, image.path, found=image.arch.name)
    entries = _from_span(image) if image.linked else _from_section(image)
    keys, index = read_keys(image, entries.key)
    form = forms_of(image, forms.sites, entries.sec, entries.off)
    destination = destinations(image, forms.sites, form, entries.sec, entries.off)
    calls = Calls(entries.entry, entries.sec, entries.off, index, entries.flags & TAIL != 0, form, destination)
    return StaticCallTable(image, calls, keys)


class _Entries(NamedTuple):
    """The entries as they stand in the file."""

    entry: I64  # file position
    sec: I64  # of the instruction, with `off`
    off: I64
    key: Named  # what stands in the key's place
    flags: I64


def _from_span(image: Image) -> _Entries:
    start, stop = (image.symbols.value(name) for name in (START, STOP))
    if (start is None) != (stop is None):
        raise RecordError("only one end of the table of static calls is named", image.path,
                          found=f"no symbol {START if start is None else STOP}")  # fmt: skip
    if start is None or stop is None or stop == start:
        return _Entries(_NO, _NO, _NO, Named(_NO, _NO, _NO), _NO)
    where = f"{image.path}: table of static calls {start:#x}..{stop:#x}"
    n = require_entries(stop - start, where)
    first = image.pos_of_va(start)
    if first < 0:
        raise RecordError("the table of static calls does not lie in the file", where)
    fields = t.cut(image.data, first, stop - start, where).view("<i4").astype(np.int64).reshape(n, 2)
    va = np.uint64(start).view(np.int64) + ENTRY * np.arange(n, dtype=np.int64)
    with np.errstate(over="ignore"):
        site, key = (va + fields[:, 0]).view(np.uint64), va + 4 + fields[:, 1]
    sec, off = image.place(site)
    key_sec, key_off = image.place((key & ~FLAGS).view(np.uint64))
    entry = first + ENTRY * np.arange(n, dtype=np.int64)
    return _Entries(entry, sec, off, Named(key_sec, key_off, np.full(n, UNKNOWN)), key & FLAGS)


def _from_section(image: Image) -> _Entries:
    parts = [_of_section(image, sec) for sec in image.sections_named(SECTION) if image.has_bytes[sec]]
    empty = _Entries(_NO, _NO, _NO, Named(_NO, _NO, _NO), _NO)
    entry, sec, off, flags = (np.concatenate([getattr(empty, name), *(getattr(part, name) for part in parts)])
                              for name in ("entry", "sec", "off", "flags"))  # fmt: skip
    key = (np.concatenate([_NO, *(part.key[i] for part in parts)]) for i in range(3))
    return _Entries(entry, sec, off, Named(*key), flags)


def _of_section(image: Image, sec: int) -> _Entries:
    where = f"{image.path}: section {sec} {image.names[sec]}"
    n = require_entries(int(image.shdr["sh_size"][sec]), where)
    relocations = relocations_of(image, sec)
    site, key = (named_at(image, relocations, ENTRY * np.arange(n, dtype=np.int64) + at) for at in (0, 4))
    entry = int(image.shdr["sh_offset"][sec]) + ENTRY * np.arange(n, dtype=np.int64)
    return _Entries(entry, site.sec, site.off, key._replace(off=key.off & ~FLAGS), key.off & FLAGS)


def require_entries(size: int, where: str) -> int:
    """How many entries a table of that many bytes has. Raises RecordError or UnsupportedError."""
    if size < 0 or size % ENTRY:
        raise RecordError("the table of static calls holds no whole number of entries", where, found=f"{size} bytes",
                          expected=f"a multiple of {ENTRY}")  # fmt: skip
    if size // ENTRY > MAX_ENTRIES:
        raise UnsupportedError("more static calls than are read", where, found=f"{size // ENTRY} entries",
                               expected=f"at most {MAX_ENTRIES}", todo="docs/limits.md has all limits")  # fmt: skip
    return size // ENTRY
