"""Which objects of a kernel are a `struct ftrace_ops`: what a site may serve.

What an ops pointer names is called: the first member is a function. So an object must be known to be one: by BTF, where
it lists the variable; by DWARF; else by its name, as these are in every kernel with a function tracer.
Source: kernel/trace/ftrace.c, fgraph.c, fprobe.c, kernel/kprobes.c (Linux 6.1 to 7.2).
"""

from __future__ import annotations

from ftpatch.elf import btf
from ftpatch.elf.btf import Btf, read_btf
from ftpatch.elf.debug_types import variable_type
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError

STRUCT = "ftrace_ops"
KNOWN = ("ftrace_list_ops", "ftrace_nop_ops", "ftrace_list_end", "global_ops", "kprobe_ftrace_ops",
         "kprobe_ipmodify_ops", "graph_ops", "fprobe_ftrace_ops")  # fmt: skip


def why_no_ops(image: Image, row: int) -> str:
    """Why the object of a symbol is not known to be an ftrace_ops; empty where it is."""
    name = image.symbols.name(row)
    va, size = (int(image.symbols.rows[field][row]) for field in ("st_value", "st_size"))
    types = _types(image)
    number = types.find(btf.STRUCT, STRUCT) if types else None
    wanted = types.size(number) if types and number is not None else None
    longer_at_most = image.recovered is not None  # kallsyms has no sizes: the next symbol is behind it, or further
    if wanted is not None and (size < wanted if longer_at_most else size != wanted):
        return f"{size} bytes, and struct ftrace_ops has {wanted}"
    if types and (of := types.variable(name)) is not None:
        return "" if types.plain(of) == number else f"{_text(types, of)}, by BTF"
    if name in KNOWN:
        return ""
    by_dwarf = variable_type(image, va)
    if by_dwarf:
        return "" if by_dwarf == f"struct {STRUCT}" else f"{by_dwarf}, by DWARF"
    return "an object of a type that neither BTF nor DWARF tells here, and none of the known names"


def _types(image: Image) -> Btf | None:
    """The kernel's types; None where it has none that can be read."""
    try:
        return read_btf(image)
    except ElfError:
        return None


def _text(types: Btf, number: int) -> str:
    plain = types.plain(number)
    return f"struct {types.name(plain)}" if types.kind(plain) == btf.STRUCT else f"a type of kind {types.kind(plain)}"
