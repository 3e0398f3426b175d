"""What a patched site calls, and for whom.

A target is one of the kernel's own entries, or code whose instructions show that it keeps the contract of a patch
site. Where the kernel's entry loads an ops pointer, that pointer names the ftrace_ops that the site serves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch import Entry
from ftpatch.arrays import Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.sites.scan import Scan

OPS = {"list": "ftrace_list_ops", "nop": "ftrace_nop_ops"}
N_SAMPLES = 3
READ = 64  # words of a target that are read to see what it does first


@dataclass(frozen=True)
class Target:
    """Where the calls go."""

    va: int
    name: str
    own: bool  # one of the kernel's own entries
    entry: Entry  # what its code reads first: whether it finds an ops pointer
    warning: str = ""


def resolve_target(scan: Scan, chosen: Mask, text: str, force: bool) -> Target:
    """The target that `text` (a symbol or 0x…) names, for the chosen sites.

    Raises SelectionError or PolicyError where it cannot be one.
    """
    image, arch, sites = scan.image, scan.arch, scan.sites
    va, name = _symbol_or_va(image, text)
    where = f"--target {text}"
    if not len(image.code(va, 1)):
        raise PolicyError("the target is no code of this file", where, found=f"{va:#x}")
    # Its own site would be rewritten by ftrace, and a traced target would call itself.
    recorded = np.flatnonzero((sites.row >= 0) & (sites.sec >= 0) & (sites.entry_va == np.uint64(va)))
    if len(recorded):
        raise PolicyError(
            "the target is itself a traceable function", where, found=f"record in row {int(sites.row[recorded[0]])}",
            expected="code without a patch site", todo="ftrace would rewrite it, and a traced target would call itself",
        )  # fmt: skip
    # Init text may call init text: both are freed together.
    freed = (
        in_init_text(image, np.array([va], dtype=np.uint64))[0]
        and not in_init_text(image, sites.va[chosen & (sites.sec >= 0)]).all()
    )
    if freed and not force:
        raise PolicyError("the target is init text, which is freed after boot", where, found="chosen sites outside",
                          expected="a target that stays", todo="--force-target takes it nevertheless")  # fmt: skip
    if sites.shape is not None and sites.shape.called and va == image.symbols.value(sites.shape.called):
        raise PolicyError("the sites call this target already", where, found=sites.shape.called,
                          expected=" or ".join(arch.entries))  # fmt: skip
    entry = arch.read_entry(image.code(va, READ))
    if va in {image.symbols.value(own) for own in arch.entries}:
        _check_own_entry(scan, name, entry)
        return Target(va, name, True, entry)
    out_of_line = sites.shape is not None and sites.shape.out_of_line
    reason = arch.keeps_contract(image.code, va, out_of_line)
    if reason and not force:
        raise PolicyError(
            "the target does not behave as a trampoline for patch sites", where, found=reason,
            expected=arch.contract,
            todo="--force-target takes it nevertheless",
        )  # fmt: skip
    warning = f"target {name} was not shown to keep the contract of a patch site ({reason}); forced" if reason else ""
    return Target(va, name, False, entry, warning)


def _check_own_entry(scan: Scan, name: str, entry: Entry) -> None:
    shape = scan.sites.shape
    if shape is None or shape.out_of_line:
        return  # with and without ops in front of the stub: the size of a slot has to fit, which `slots` checks
    wants = shape.literal is not None
    if wants != entry.literal:
        raise PolicyError(
            f"{name} does not fit the layout of the sites", scan.image.path,
            found=f"{'a' if entry.literal else 'no'} load of an ops pointer in {name}",
            expected=f"{'a' if wants else 'no'} load of one in layout {shape.name}",
            todo="is --layout forced wrongly, or is this another kernel's vmlinux?",
        )  # fmt: skip


def _symbol_or_va(image: Image, text: str) -> tuple[int, str]:
    if text[:2] in ("0x", "0X"):
        try:
            va = int(text, 16) if len(text) <= 18 else -1
        except ValueError:
            va = -1
        if va < 0:
            raise SelectionError("not an address", text, expected="0x and up to 16 hexadecimal digits")
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
    # An ftrace_ops is data, both of its ends in one section.
    last = min(va + size - 1, (1 << 64) - 1)
    sec = image.place(np.array([va, last], dtype=np.uint64))[0]
    if sec[0] < 0 or sec[0] != sec[1] or image.executable[sec[0]]:
        raise PolicyError(
            "not an ftrace_ops", f"--ops {text}", found=f"{va:#x}", expected="an object in a data section"
        )
    return Ops(va, name)
