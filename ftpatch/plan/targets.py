"""What a patched site calls, and for whom.

A target is one of the kernel's own entries, or code whose instructions show that it keeps the contract of a patch
site. Where the kernel's entry loads an ops pointer, that pointer names the ftrace_ops that the site serves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ftpatch.arch.parts import Entry
from ftpatch.arrays import Mask, distinct
from ftpatch.elf import tables as t
from ftpatch.elf.function_names import function_names
from ftpatch.elf.image import Image
from ftpatch.elf.recovered import table_name
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.near_names import did_you_mean
from ftpatch.sites.scan import Scan

OPS = {"list": "ftrace_list_ops", "nop": "ftrace_nop_ops"}
READ = 64  # words of a target that are read to see what it does first


@dataclass(frozen=True)
class Target:
    """Where the calls go."""

    va: int
    name: str  # of its symbol, or the va in hex where the user gave that
    own: bool  # one of the kernel's own entries
    entry: Entry  # what its code reads first: whether it finds an ops pointer
    warning: str = ""


@dataclass(frozen=True)
class Ops:
    """The ftrace_ops that static sites serve."""

    va: int
    name: str  # of its symbol


@dataclass(frozen=True)
class Goal:
    """What the calls of a kernel's sites are for."""

    target: Target
    ops: Ops | None  # the ftrace_ops that the sites serve, where the target reads a pointer to one
    via: str  # how the sites find the ops: none, literal or thunk


def resolve_target(scan: Scan, chosen: Mask, text: str, force: bool) -> Target:
    """The target that `text` (a symbol or 0x…) names, for the chosen sites.

    Raises SelectionError or PolicyError where it cannot be one.
    """
    image, arch, sites, shape = scan.image, scan.arch, scan.sites, scan.sites.shape
    va, name = _symbol_or_va(image, text)
    where = f"--target {text}"
    if not len(image.code(va, 1)):
        raise PolicyError("the target is no code of this file", where, found=f"{va:#x}")
    rows = np.flatnonzero(image.symbols.rows["st_value"] == np.uint64(va)).tolist()
    if fatal := sorted(NORETURN & {image.symbols.name(row) for row in rows}):
        raise PolicyError("the target never returns", where, found=fatal[0], expected="code that returns to its site")
    # Its own site would be rewritten by ftrace, and a traced target would call itself.
    recorded = np.flatnonzero((sites.row >= 0) & (sites.sec >= 0) & (sites.entry_va == np.uint64(va)))
    if len(recorded):
        raise PolicyError("the target is itself a traceable function", where,
                          found=f"record in row {int(sites.row[recorded[0]])}", expected="code without a patch site",
                          todo="ftrace would rewrite it, and a traced target would call itself")  # fmt: skip
    freed = in_init_text(image, np.array([va], dtype=np.uint64))[0]
    # Init text may call init text: both are freed together.
    if freed and not force and not in_init_text(image, sites.va[chosen & (sites.sec >= 0)]).all():
        raise PolicyError("the target is init text, which is freed after boot", where, found="chosen sites outside",
                          expected="a target that stays", todo="--force-target takes it nevertheless")  # fmt: skip
    if shape is not None and shape.called and va == image.symbols.value(shape.called):
        raise PolicyError("the sites call this target already", where, found=shape.called,
                          expected=" or ".join(arch.entries))  # fmt: skip
    entry = arch.read_entry(image.code(va, READ))
    if va in {image.symbols.value(own) for own in arch.entries}:
        _check_own_entry(scan, name, entry)
        return Target(va, name, True, entry)
    out_of_line, library = (False, False) if shape is None else (shape.out_of_line, shape.library)
    reason = arch.keeps_contract(image.code, va, out_of_line, library=library)
    if reason and not force:
        raise PolicyError("the target does not behave as a trampoline for patch sites", where, found=reason,
                          expected=arch.contract_of(shape), todo="--force-target takes it nevertheless")  # fmt: skip
    warning = f"target {name} was not shown to keep the contract of a patch site ({reason}); forced" if reason else ""
    return Target(va, name, False, entry, warning)


def _check_own_entry(scan: Scan, name: str, entry: Entry) -> None:
    """Refuse an entry that reads an ops pointer where the sites have no place for one, and the reverse."""
    shape = scan.sites.shape
    if shape is None or shape.out_of_line:
        return  # with and without ops in front of the stub: the size of a slot has to fit, which `ool_slots` checks
    wants = shape.literal is not None
    if wants != entry.literal:
        raise PolicyError(f"{name} does not fit the layout of the sites", scan.image.path,
                          found=f"{'a' if entry.literal else 'no'} load of an ops pointer in {name}",
                          expected=f"{'a' if wants else 'no'} load of one in layout {shape.name}",
                          todo="is --layout forced wrongly, or is this another kernel's vmlinux?")  # fmt: skip


def _symbol_or_va(image: Image, text: str) -> tuple[int, str]:
    """(va, name) of a symbol, or of an address in hex."""
    if text[:2] not in ("0x", "0X"):
        row = _symbol_row(image, text)
        kind, sec = int(image.symbols.type[row]), int(image.symbols.shndx[row])
        if kind not in (t.STT_FUNC, 0) or sec <= 0:  # an IFUNC is called for an address, a TLS symbol is none
            raise PolicyError("the target is no function", f"--target {text}",
                              found=f"symbol type {kind} in section {sec}", expected="code")  # fmt: skip
        return int(image.symbols.rows["st_value"][row]), text
    if not re.fullmatch("0[xX][0-9a-fA-F]{1,16}", text):
        raise SelectionError("not an address", text, expected="0x and up to 16 hexadecimal digits")
    return int(text, 16), hex(int(text, 16))


def _symbol_row(image: Image, name: str) -> int:
    """Row of the defined symbol `name`; refused where there is none, or where several have different values."""
    symbols, row = image.symbols, image.symbols.defined(name)
    if row is None:
        raise SelectionError("no such symbol", name, found=f"nothing of that name in {table_name(image.recovered)}",
                             expected="a defined symbol", todo=did_you_mean(name, function_names(image)))  # fmt: skip
    rows = symbols.rows_named(name)
    values = distinct(symbols.rows["st_value"][rows[symbols.shndx[rows] != t.SHN_UNDEF]]).tolist()
    if len(values) > 1:
        raise SelectionError("several symbols of that name", name, found=", ".join(map(hex, values[:3])),
                             todo="give 0xVA")  # fmt: skip
    return row


def resolve_ops(image: Image, entry: Entry, text: str) -> Ops:
    """The ops that `list`, `nop` or a symbol name."""
    name = OPS.get(text, text)
    row = _symbol_row(image, name)
    kind, va, size = int(image.symbols.type[row]), *(int(image.symbols.rows[f][row]) for f in ("st_value", "st_size"))
    if kind != t.STT_OBJECT or size < entry.direct_call + 8:
        raise PolicyError(
            "not an ftrace_ops", f"--ops {text}", found=f"symbol type {kind}, {size} bytes",
            expected=f"an object of at least {entry.direct_call + 8} bytes: direct_call is read at {entry.direct_call}",
        )  # fmt: skip
    from ftpatch.kernel.ftrace_ops import why_no_ops  # loaded only where ops are asked for

    if why := why_no_ops(image, row):
        raise PolicyError("not an ftrace_ops", f"--ops {text}", found=why, expected="a struct ftrace_ops",
                          todo="ftrace_list_ops serves every tracer, ftrace_nop_ops none")  # fmt: skip
    # An ftrace_ops is data, both of its ends in one section.
    sec = image.place(np.array([va, min(va + size - 1, t.LAST_VA)], dtype=np.uint64))[0]
    if sec[0] < 0 or sec[0] != sec[1] or image.executable[sec[0]]:
        raise PolicyError("not an ftrace_ops", f"--ops {text}", found=f"{va:#x}",
                          expected="an object in a data section")  # fmt: skip
    return Ops(va, name)
