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

import os
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.arch.static_call_forms import StaticCalls
from ftpatch.arrays import I64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.code_lists import self_relative
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.errors import PolicyError, RecordError, UnsupportedError
from ftpatch.inputs import Path
from ftpatch.recovered.image import open_image
from ftpatch.recovered.left_out import names_data
from ftpatch.sites.branches import branches_to
from ftpatch.sites.scan import require_text, with_bounds
from ftpatch.sites.static_keys import (
    UNKNOWN,
    Keys,
    Named,
    destinations,
    forms_of,
    is_symbol,
    named_at,
    place_of,
    read_keys,
    rows_of,
)
from ftpatch.sites.stripped import refuse_stripped_kernel, refuse_stripped_module

SECTION = ".static_call_sites"
START, STOP = "__start_static_call_sites", "__stop_static_call_sites"
ENTRY = 8  # bytes of an entry
WORD = 4  # bytes of a branch's destination word
TAIL, INIT, FLAGS = 1, 2, 3  # flags in the key's field: a tail call, in init text (set when it runs); both
MAX_ENTRIES = 1 << 18
_NO = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class Calls:
    """One row per entry, in the order of the file."""

    entry: I64  # file position of its 8 bytes; −1 where nothing lists it
    sec: I64  # section of the instruction; −1 where the entry names no place
    off: I64  # byte offset of the instruction there
    key: I64  # row of the table of keys; −1: it names none
    names: Named  # what stands in the key's place, without the flags
    flags: I64  # TAIL, INIT
    form: I64  # which of the machine's forms stands there; −1: none of them
    destination: Named  # where the instruction goes on disk

    @property
    def tail(self) -> Mask:
        """The flag for a tail call."""
        return np.asarray(self.flags & TAIL != 0)

    def __len__(self) -> int:
        return len(self.entry)


@dataclass(frozen=True, eq=False, repr=False)
class StaticCallTable:
    """The static calls of one file."""

    image: Image
    calls: Calls
    keys: Keys
    n_pointers: int = 0  # other keys, which are pointers that code calls through: there is no trampoline to go to

    @property
    def inline(self) -> bool:
        """Whether the kernel lists the sites, and rewrites them."""
        forms = self.image.arch.static_calls
        return forms is not None and forms.inline

    def kinds(self) -> list[str]:
        """What stands at each site: a form's kind, or `unknown`."""
        forms = self.image.arch.static_calls
        names = [*(form.kind for form in forms.sites), "unknown"] if forms else ["unknown"]
        return [names[form] for form in self.calls.form.tolist()]

    def words_at(self) -> I64:
        """Byte offset of the destination word in the instruction of each site; −1 where that is no branch."""
        forms = self.image.arch.static_calls
        at = [form.branch.lsb // 8 if form.branch else -1 for form in forms.sites] if forms else []
        return np.array([*at, -1])[self.calls.form]

    def codes(self, rows: I64) -> list[str]:
        """The bytes of these sites in hex, as long as the form of each; of one that has none, as long as a call."""
        arch, calls = self.image.arch, self.calls
        lengths = [len(form.code) for form in arch.static_calls.sites] if arch.static_calls else []
        n_units = np.array([*lengths, arch.call.n_units])[calls.form[rows]]
        units = self.image.words(calls.sec[rows], calls.off[rows], 0, int(n_units.max(initial=0)))
        octets = units.astype("<u4" if arch.unit > 1 else np.uint8)
        known = calls.sec[rows] >= 0
        return [octets[i, :size].tobytes().hex() if known[i] else "" for i, size in enumerate(n_units.tolist())]

    def trampoline_kinds(self) -> list[str | None]:
        """What each key's trampoline does: a form's name, or the function without effect that it goes to; None: it is
        in another file, or there is none."""
        forms, keys = self.image.arch.static_calls, self.keys
        names = [*(form.kind for form in forms.trampolines), "unknown"] if forms else ["unknown"]
        kinds = np.array(names, dtype=object)[keys.form]
        for kind, symbol in (("return0", forms.return0), ("thunk", forms.thunk)) if forms else ():
            kinds[is_symbol(self.image, keys.leads_to, symbol)] = kind
        kinds[self.trampolines[0] < 0] = None
        return list(kinds)

    @cached_property
    def trampolines(self) -> tuple[I64, I64]:
        """(section, offset) of each key's trampoline; −1 where it is in another file, or there is none."""
        return place_of(self.image, self.keys.trampoline)

    @cached_property
    def rows_by_place(self) -> dict[tuple[int, int], int]:
        """Row of the key at a (section, offset), or whose trampoline is there; the first of several."""
        rows: dict[tuple[int, int], int] = {}
        for sec, off in ((self.keys.sec, self.keys.off), self.trampolines):
            for row, place in enumerate(zip(sec.tolist(), off.tolist(), strict=True)):
                if place[0] >= 0:
                    rows.setdefault(place, row)
        return rows

    @cached_property
    def rows_by_symbol(self) -> dict[int, int]:
        """Row of the key that a symbol names, or whose trampoline."""
        symbols = (self.keys.trampoline, self.keys.symbol)
        return {symbol: row for column in symbols for row, symbol in enumerate(column.tolist()) if symbol >= 0}

    def signed(self) -> Mask:
        """Which keys' trampolines have the bytes by which the kernel knows one; True for those of other files."""
        forms, (sec, off) = self.image.arch.static_calls, self.trampolines
        signed = np.ones(len(sec), dtype=bool)
        if forms is not None:
            units = self.image.words(sec, off + forms.signature_at, 0, len(forms.signature))
            for i, word in enumerate(forms.signature):
                signed &= word.matches(units[:, i])
        return np.asarray(signed | (sec < 0))

    def is_return0(self) -> Mask:
        """Which keys hold the function that does nothing but return 0."""
        forms = self.image.arch.static_calls
        return is_symbol(self.image, self.keys.func, forms.return0 if forms else "")


def static_calls_of(path: Path, max_size: int | None = None) -> StaticCallTable:
    """The static calls of a file: its sites, keys and trampolines. max_size: bytes that it may unpack to."""
    image = open_image(os.fspath(path), max_size)
    _ = image.arch  # what no machine here is for is refused before anything in it is judged
    require_text(image)
    table = read_static_calls(with_bounds(image) if image.arch.static_calls else image)
    if not len(table.keys):
        refuse_stripped_kernel(image)
    return table


def read_static_calls(image: Image) -> StaticCallTable:
    """The static calls of an image; tables without rows where it has none.

    Raises UnsupportedError for machines whose kernels have none, RecordError where a table contradicts the file.
    """
    forms = image.arch.static_calls
    if forms is None:
        raise UnsupportedError(image.arch.no_static_calls, image.path, found=image.arch.name)
    if not forms.inline:
        return _from_code(image, forms)
    entries = _from_span(image) if image.linked else _from_section(image)
    keys, index = read_keys(image, entries.key)
    form = forms_of(image, forms.sites, entries.sec, entries.off)
    destination = destinations(image, forms.sites, form, entries.sec, entries.off)
    calls = Calls(entries.entry, entries.sec, entries.off, index, entries.key, entries.flags, form, destination)
    return StaticCallTable(image, calls, keys)


def _from_code(image: Image, forms: StaticCalls) -> StaticCallTable:
    """The static calls of a kernel that lists no sites: they are the branches to trampolines."""
    all_keys, _ = read_keys(image, Named(_NO, _NO, _NO))
    keys = all_keys.subset(all_keys.trampoline >= 0)
    branches = [form.branch for form in forms.sites if form.branch is not None]
    trampolines = keys.trampoline[keys.trampoline >= 0]
    sec, off, form = branches_to(image, branches, trampolines, forms.direct_branches)
    destination = destinations(image, forms.sites, form, sec, off)
    key = rows_of(image, destination, place_of(image, keys.trampoline), keys.symbol, keys.trampoline)
    symbol = np.where(keys.symbol >= 0, keys.symbol, keys.trampoline)
    names = Named(keys.sec[key], keys.off[key], symbol[key]) if len(keys) else Named(_NO, _NO, _NO)
    flags = np.where(np.array([form.kind == "tail" for form in forms.sites])[form], TAIL, 0)
    calls = Calls(np.full(len(sec), -1), sec, off, key, names, flags, form, destination)
    return StaticCallTable(image, calls, keys, len(all_keys) - len(keys))


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
    if start is None and not names_data(image):
        raise PolicyError("the table of static calls is not known", image.path, expected=START,
                          found="no names of data (a kernel without CONFIG_KALLSYMS_ALL)",
                          todo="give the vmlinux of the same build")  # fmt: skip
    if start is None or stop is None or stop == start:
        return _Entries(_NO, _NO, _NO, Named(_NO, _NO, _NO), _NO)
    where = f"{image.path}: table of static calls {start:#x}..{stop:#x}"
    n = require_entries(stop - start, where)
    first = image.pos_of_va(start)
    if first < 0:
        raise RecordError("the table of static calls does not lie in the file", where)
    named = self_relative(t.cut(image.data, first, stop - start, where), start).reshape(n, 2)
    key = named[:, 1].view(np.int64)
    sec, off = image.place(named[:, 0])
    key_sec, key_off = image.place((key & ~FLAGS).view(np.uint64))
    entry = first + ENTRY * np.arange(n, dtype=np.int64)
    return _Entries(entry, sec, off, Named(key_sec, key_off, np.full(n, UNKNOWN)), key & FLAGS)


def _from_section(image: Image) -> _Entries:
    secs = [sec for sec in image.sections_named(SECTION) if image.has_bytes[sec]]
    if secs:
        refuse_stripped_module(image, "static calls")
    parts = [_of_section(image, sec) for sec in secs]
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
