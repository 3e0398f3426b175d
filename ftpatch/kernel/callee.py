"""Which functions may be put in another's place: what each must not be, in linked and relocatable files alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arrays import is_in
from ftpatch.elf import tables as t
from ftpatch.elf.c_types import Prototype
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.kernel.init_text import init_text
from ftpatch.kernel.noreturn import NORETURN

if TYPE_CHECKING:
    from ftpatch.elf.function_types import FunctionTypes

NO_SECTION = {
    t.SHN_UNDEF: "defined elsewhere",
    t.SHN_ABS: "an absolute number",
    0xFFF2: "data without a section (COMMON)",
}
COLD = re.compile(r"\.cold(\.\d+)?$")  # compilers move the unlikely blocks of a function there
STT_TLS, STT_GNU_IFUNC = 6, 10
# Types of symbols that are no functions; all others are data.
KINDS = {t.STT_SECTION: "a section's symbol", STT_TLS: "thread-local data",
         STT_GNU_IFUNC: "an indirect function (IFUNC), which nothing in a kernel resolves,"}  # fmt: skip
NOINSTR = "noinstr"  # code in which nothing may trace or trap
MAX_UNITS = 1 << 14  # of a function whose code is looked at
# Code that is apart in a vmlinux: symbols at its start and end, sections that have it in modules, and what it is.
APART = (
    ("__noinstr_text_start", "__noinstr_text_end", r"\.noinstr\.text.*|\.cpuidle\.text", NOINSTR),
    ("__entry_text_start", "__entry_text_end", r"\.entry\.text", "code of exception entries (noinstr)"),
    ("__hyp_text_start", "__hyp_text_end", r"\.hyp\.text", "code of the hypervisor"),
    ("__hyp_idmap_text_start", "__hyp_idmap_text_end", r"\.hyp\.idmap\.text", "code of the hypervisor"),
    ("__idmap_text_start", "__idmap_text_end", r"\.idmap\.text", "code that runs without the kernel's page tables"),
    ("", "", r"\.head\.text", "code of the boot and of exception entries"),
    ("__hibernate_exit_text_start", "__hibernate_exit_text_end", r"\.hibernate_exit\.text", "code for waking up"),
    ("", "", r"\.rodata\.text", "code that runs as a copy, or without the kernel's page tables"),
)  # fmt: skip


def why_no_function(image: Image, row: int) -> str:
    """Why a symbol is no beginning of a function with code in this file; empty where it is one."""
    symbols, sec = image.symbols, int(image.symbols.shndx[row])
    kind, value = int(symbols.type[row]), int(symbols.rows["st_value"][row])
    if kind == t.STT_FILE:
        return "the name of a source file"
    if kind == 0 and symbols.name(row).startswith("$"):  # $x, $d: AAELF64, 4.5.4
        return "a mark of the compiler where code or data begins"
    if why := _no_place(image, row):
        return why
    if kind not in (t.STT_FUNC, 0) or not image.executable[sec]:
        return f"{KINDS.get(kind, 'data')} in {image.names[sec]}"
    off = value - (int(image.base[sec]) if image.linked else 0)
    if not 0 <= off < int(image.shdr["sh_size"][sec]) or not len(image.code(int(image.base[sec]) + off, 1)):
        return f"no instruction at {image.names[sec]}+{off & (1 << 64) - 1:#x}"
    if symbols.name(row).startswith(image.arch.padding_names):
        return "padding in front of a function, where the kernel may write code of its own"
    if COLD.search(symbols.name(row)):
        return "the unlikely part of a function, which goes back into it"
    start, size = symbols.rows["st_value"], symbols.rows["st_size"]
    around = (symbols.type == t.STT_FUNC) & (symbols.shndx == sec) & (start < np.uint64(value))
    outer = np.flatnonzero(around & (np.uint64(value) - start < size))
    return f"a place inside {symbols.name(int(outer[0]))}" if len(outer) else ""


def _no_place(image: Image, row: int) -> str:
    """Why a symbol is in no section of this file."""
    shndx = int(image.symbols.rows["st_shndx"][row])
    if shndx in NO_SECTION:
        return NO_SECTION[shndx]
    return "" if 0 < int(image.symbols.shndx[row]) < len(image.shdr) else f"in section {shndx}, which is not there"


def why_never_returns(types: FunctionTypes, row: int) -> str:
    """What tells that a function never returns: its name, DWARF, its code; empty where nothing does."""
    image = types.image
    if fatal := sorted(NORETURN & {image.symbols.name(row), *types.aliases(row)}):
        return fatal[0]
    prototype = types.prototype(row)
    if isinstance(prototype, Prototype) and prototype.noreturn:
        return "declared noreturn, says DWARF"
    return "" if _may_leave(image, row) else "no instruction of it leaves it"


def _may_leave(image: Image, row: int) -> bool:
    """Whether a function's code may end it, by a return or by going on elsewhere; where that is not known, too."""
    ways_out, sec = image.arch.ways_out, int(image.symbols.shndx[row])
    value, size = (int(image.symbols.rows[name][row]) for name in ("st_value", "st_size"))
    n, unit = size // image.arch.unit, image.arch.unit
    off = value - (int(image.base[sec]) if image.linked else 0)
    words = image.code(int(image.base[sec]) + off, n)
    if ways_out is None or not 0 < n == len(words) <= MAX_UNITS or ways_out(words):
        return True
    at = np.zeros(0, np.int64)
    if not image.linked:
        rows = relocations_of(image, sec)
        linking = image.arch.modules.linking if image.arch.modules is not None else None
        written = rows.off if linking is None else rows.off[is_in(rows.kind, linking.branches)]
        at = (written[(written >= off) & (written < off + size)] - off) // unit
    # What the loader writes may be a jump out of it, but for calls.
    return bool((~image.arch.call.word.matches(words[at])).any())


def why_no_substitute(image: Image, row: int, for_image: Image, for_row: int) -> str:
    """Why BAR (image, row) may not run where FOO (for_image, for_row) is called, by where it lies; empty where it may:
    BAR is freed, or apart from other code, and FOO is not."""
    name = image.symbols.name(row)
    if is_freed(image, row) and not (image is for_image and is_freed(for_image, for_row)):
        return f"{name} is init text, which is freed {'after boot' if image.linked else 'once the module runs'}"
    kind = apart(image, row)
    return f"{name} is {kind}, and the function is not" if kind and kind != apart(for_image, for_row) else ""


def is_freed(image: Image, row: int) -> bool:
    """Whether a function is gone once the kernel has booted, or the module runs."""
    sec, value = int(image.symbols.shndx[row]), int(image.symbols.rows["st_value"][row])
    if not image.linked:
        return image.names[sec].startswith(".init")
    begin, end = image.symbols.value("__init_begin"), image.symbols.value("__init_end")
    low, high = init_text(image)
    # Exit text lies behind init text in what is freed, and is no init text for is_kernel_inittext().
    return low <= value < high or (begin is not None and end is not None and begin <= value < end)


def apart(image: Image, row: int) -> str:
    """What kind of code a function is, as `kind_of_code` says."""
    return kind_of_code(image, int(image.symbols.shndx[row]), int(image.symbols.rows["st_value"][row]))


def kind_of_code(image: Image, sec: int, value: int) -> str:
    """What kind of code is at a place that only code of the same kind goes to; empty where it is like most.

    value: as symbols have it: va in a linked image, offset in the section in others.
    """
    for first, last, pattern, kind in APART:
        known = image.linked and first
        low, high = (image.symbols.value(first), image.symbols.value(last)) if known else (None, None)
        if re.fullmatch(pattern, image.names[sec]) or (low is not None and high is not None and low <= value < high):
            return kind
    return ""
