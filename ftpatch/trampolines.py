"""What a patched site calls, and how the call gets its ops.

A target is one of the kernel's own entries, or code whose instructions show that it keeps the contract of a patch
site. Where the kernel's entry loads an ops pointer from in front of the function, a site gets that pointer in one of
two ways: a literal of its own with an added relocation, or a thunk in proven-free padding of the text, shared by all
sites, that loads the address of the ops and enters the trampoline behind its load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch import Arch, Entry
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.tables import I64
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.sites import SiteTable

OPS = {"list": "ftrace_list_ops", "nop": "ftrace_nop_ops"}
OPS_VIA = ("auto", "literal", "thunk")
N_SAMPLES = 3
READ = 64  # words of a target that are read to see what it does first


@dataclass(frozen=True)
class Target:
    """Where the calls go: `own` for the kernel's own entries; `entry` says whether it reads an ops pointer."""

    va: int
    name: str
    own: bool
    entry: Entry
    warning: str = ""


def resolve_target(image: Image, arch: Arch, table: SiteTable, text: str, force: bool) -> Target:
    """The target that `text` (a symbol or 0x…) names. Raises SelectionError or PolicyError where it cannot be one."""
    va, name = _symbol_or_va(image, text)
    where = f"--target {text}"
    if not len(image.code(va, 1)):
        raise PolicyError("the target is no code of this file", where, found=f"{va:#x}")
    recorded = np.flatnonzero((table.row >= 0) & (table.sec >= 0) & (table.entry_va == np.uint64(va)))
    if len(recorded):
        raise PolicyError(
            "the target is itself a traceable function", where, found=f"record in row {int(table.row[recorded[0]])}",
            expected="code without a patch site", todo="ftrace would rewrite it, and a traced target would call itself",
        )  # fmt: skip
    entry = arch.read_entry(image.code(va, READ))
    if name in arch.entries:
        _check_own_entry(image, table, name, entry)
        return Target(va, name, True, entry)
    reason = arch.keeps_contract(image.code, va)
    if reason and not force:
        raise PolicyError(
            "the target does not behave as a trampoline for patch sites", where, found=reason,
            expected=arch.contract,
            todo="--force-target takes it nevertheless",
        )  # fmt: skip
    warning = f"target {name} was not shown to keep the contract of a patch site ({reason}); forced" if reason else ""
    return Target(va, name, False, entry, warning)


def _check_own_entry(image: Image, table: SiteTable, name: str, entry: Entry) -> None:
    wants = table.shape is not None and table.shape.literal is not None
    if wants != entry.literal:
        raise PolicyError(
            f"{name} does not fit the layout of the sites", image.path,
            found=f"{'a' if entry.literal else 'no'} load of an ops pointer in {name}",
            expected=f"{'a' if wants else 'no'} load of one in layout {table.shape.name if table.shape else None}",
            todo="is --layout forced wrongly, or is this another kernel's vmlinux?",
        )  # fmt: skip


def _symbol_or_va(image: Image, text: str) -> tuple[int, str]:
    if text[:2] in ("0x", "0X"):
        try:
            va = int(text, 16)
        except ValueError:
            raise SelectionError("not a number", text, expected="0x and hexadecimal digits") from None
        return va, hex(va)
    va = _one_value(image, text)
    return va, text


def _one_value(image: Image, name: str) -> int:
    """st_value of the defined symbol `name`; refused where there is none, or where several differ."""
    symbols = image.symbols
    rows = symbols.rows_named(name)
    rows = rows[symbols.shndx[rows] != t.SHN_UNDEF]
    values = sorted({int(value) for value in symbols.rows["st_value"][rows]})
    if not values:
        raise SelectionError(
            "no such symbol", name, found="nothing of that name in .symtab", expected="a defined symbol"
        )
    if len(values) > 1:
        raise SelectionError(
            "several symbols of that name", name, found=", ".join(map(hex, values[:3])), todo="give 0xVA"
        )
    return values[0]


@dataclass(frozen=True)
class Ops:
    """The ftrace_ops that static sites serve."""

    va: int
    name: str


def resolve_ops(image: Image, entry: Entry, text: str) -> Ops:
    """The ops that `list`, `nop` or a symbol name."""
    name = OPS.get(text, text)
    va = _one_value(image, name)
    row = image.symbols.defined(name)
    assert row is not None
    kind, size = int(image.symbols.type[row]), int(image.symbols.rows["st_size"][row])
    if kind != t.STT_OBJECT or size < entry.direct_call + 8:
        raise PolicyError(
            "not an ftrace_ops", f"--ops {text}", found=f"symbol type {kind}, {size} bytes",
            expected=f"an object of at least {entry.direct_call + 8} bytes: direct_call is read at {entry.direct_call}",
        )  # fmt: skip
    return Ops(va, name)


@dataclass(frozen=True)
class Slack:
    """Relocation rows that may be filled. `needed`: the image moves at boot, so that every pointer wants a row."""

    needed: bool
    rows: I64


def slack(image: Image) -> Slack:
    """All-zero rows of the dynamic relocation table, in file order: linkers reserve more than they fill."""
    rows, _ = image.rela
    relocatable = bool(len(rows)) or bool((image.shdr["sh_type"] == t.SHT_RELR).any())
    free = (rows["r_offset"] == 0) & (rows["r_info"] == 0) & (rows["r_addend"] == 0)
    return Slack(relocatable, np.flatnonzero(free))


@dataclass(frozen=True)
class Thunk:
    """A shared stub: its va and words, and whether an earlier patch has put it there already."""

    va: int
    words: t.U32
    present: bool


def place_thunk(image: Image, arch: Arch, target: Target, ops: Ops) -> Thunk:
    """The thunk for these ops: an earlier one of the same words, else in the free tail of the target's section.

    Free is: all bytes zero up to the section's end, no symbol reaches in, no relocation touches it, and it lies within
    the kernel's text. Raises PolicyError where there is no room.
    """
    sec, _ = image.place(np.array([target.va], dtype=np.uint64))
    start, end = _tail(image, int(sec[0]))
    free = _first_zero(image, start, end)
    size = arch.thunk_size
    for va in range(start, end - size + 1, 16):
        if va & 0xFFF in {(offset - 4) & 0xFFF for offset in arch.thunk_avoids}:
            continue
        words = arch.thunk(va, ops.va, target.va, target.entry)
        if va < free:
            if np.array_equal(image.code(va, size // 4), words):
                return Thunk(va, words, True)
        elif not _relocated(image, va, va + size):
            return Thunk(va, words, False)
    raise PolicyError(
        "no room for a thunk", image.path, found=f"{max(end - free, 0)} zero bytes behind the last function of "
        f"{image.names[int(sec[0])]}", expected=f"at least {size}", todo="--ops-via literal",
    )  # fmt: skip


def _tail(image: Image, sec: int) -> tuple[int, int]:
    """[start, end) of what no symbol claims at the end of a text section, 16-byte aligned."""
    symbols = image.symbols
    first = int(image.base[sec])
    end = first + int(image.shdr["sh_size"][sec])
    row = (symbols.shndx == sec) & (symbols.type != t.STT_SECTION)
    value, size = symbols.rows["st_value"][row], symbols.rows["st_size"][row]
    inside = (value >= np.uint64(first)) & (value < np.uint64(end))
    last = int((value + np.maximum(size, np.uint64(4)))[inside].max()) if inside.any() else first
    limit = image.symbols.value("_etext")
    if limit is not None and first < limit < end:
        end = limit
    return (last + 15) & ~15, end


def _first_zero(image: Image, start: int, end: int) -> int:
    """Where the run of zero bytes begins that ends at `end`, 16-byte aligned, not before `start`."""
    if start >= end:
        return end
    pos = image.pos_of_va(start)
    used = np.flatnonzero(image.data[pos : pos + end - start])
    return start if not len(used) else (start + int(used[-1]) + 16) & ~15


def _relocated(image: Image, start: int, end: int) -> bool:
    offset = image.rela[0]["r_offset"]
    return bool(((offset >= np.uint64(start)) & (offset < np.uint64(end))).any()) or bool(
        len(image.relr_places(start, end))
    )
