"""Which names of code are no functions: marks that the linker's script, or assembly, puts between functions.

kallsyms has them as it has functions, under the letters of code. A mark at a function's entry would be an alias of it,
or take its place.
Source: include/asm-generic/vmlinux.lds.h and arch/*/kernel/vmlinux.lds.S (Linux 4.4 to 7.3).
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U64, Mask, is_in
from ftpatch.elf.tables import places_of

# whole names; those of code that is linked twice have a prefix, see ENDINGS
NAMES = (
    b"_text", b"_stext", b"_etext", b"_sinittext", b"_einittext", b"_end", b"__init_begin", b"__init_end",
    b"__inittext_begin", b"__inittext_end", b"__exittext_begin", b"__exittext_end",
    b"__start_rodata", b"__end_rodata", b"__srwx_boundary",
    # within the kernel's own trampolines, whose calls look like those of patched sites
    b"ftrace_call", b"ftrace_regs_call", b"ftrace_graph_call", b"ftrace_caller_end", b"ftrace_regs_caller_end",
)  # fmt: skip
ENDINGS = (b"_text_start", b"_text_end", b"__text", b"__stext", b"_section_.hyp.text")
LAST = b"_end"  # of a piece of assembly, where a function follows it; a function may be called so, too


def marks_of(strings: bytes, starts: I64, va: U64, code: Mask) -> Mask:
    """Which symbols are marks of code. strings: names that end in NULs; starts: where each begins, ascending;
    va: the address of each; code: which are of code."""
    marks, last = np.zeros(len(starts), dtype=bool), np.zeros(len(starts), dtype=bool)
    marks[_called(strings, starts, NAMES)] = True
    marks[_ending(strings, starts, ENDINGS)] = True
    last[_ending(strings, starts, (LAST,))] = True
    functions = va[code & ~marks & ~last]
    return (marks | last & is_in(va, functions)) & code


def _called(strings: bytes, starts: I64, names: tuple[bytes, ...]) -> I64:
    """The symbols of these names."""
    at = np.array([place for name in names for place in places_of(name + b"\0", strings)], dtype=np.int64)
    row = np.minimum(np.searchsorted(starts, at), max(len(starts) - 1, 0))
    return row[starts[row] == at] if len(starts) else row[:0]


def _ending(strings: bytes, starts: I64, endings: tuple[bytes, ...]) -> I64:
    """The symbols whose names end so."""
    at = [place for ending in endings for place in places_of(ending + b"\0", strings)]
    return np.searchsorted(starts, np.array(at, dtype=np.int64), side="right") - 1
