"""How a patched site's record leaves the kernel's table. A record that stays kills ftrace at boot: the kernel finds a
call where it expects a NOP, and switches all tracing off.

    null    the slot becomes 0, and its relocation NONE; in front of the others where zeros lead. For kernels whose
            loop tests a value before it adjusts it: the table has zeros already, or the loop's code shows it; and for
            layouts whose records are not adjusted at all.
    minus4  the slot becomes −4 and its relocation R_*_NONE. For sites of two NOPs at the record: the older loop adds 4
            before it tests for 0, and would take a plain zero for a record at address 4.
    shrink  the record is cut out, the others close up, and the end of the table that ftrace_init computes in its
            instructions is lowered. Relies on no skipping at all.
    keep    nothing happens to the record.

Which of them a kernel accepts is decided by what its file shows, never by its version.
Source: kernel/trace/ftrace.c ftrace_process_locs() (Linux 6.1 and 6.12).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch import architectures
from ftpatch.arch.parts import TableEnd
from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64, U8, U64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.boot import LOOP, tests_zero_first
from ftpatch.plan import kept_relocations
from ftpatch.plan.edits import Group, as_bytes, group
from ftpatch.sites.records import MINUS4, SLOT, STOP
from ftpatch.sites.scan import Scan

ASKED = "asked for"
KEPT = (
    "the records of the patched sites stay: at boot the kernel will print an ftrace bug at the first of them "
    "and switch ftrace off for good (no tracing, no kprobes on ftrace, no live patching)"
)
NO_RECORD = "no record is left: the kernel will say that there are no functions to be traced, and ftrace is then off"
INIT = "ftrace_init"
MAX_CODE = 1 << 20  # bytes of one function that are read
ADDEND, VALUE = 16, 8  # byte offsets of r_addend in a relocation, of st_value in a symbol


@dataclass(frozen=True)
class RecordEdits:
    """How records leave the table, or come back to it."""

    way: str  # null, minus4, shrink, keep, return
    why: str  # what in the file, or in the request, decided that
    groups: tuple[Group, ...] = ()
    freed: I64 = field(default_factory=lambda: np.zeros(0, np.int64))  # relocation rows that nothing uses any more
    warnings: tuple[str, ...] = ()


def take_out(scan: Scan, shape: Shape, gone: Mask, way: str) -> RecordEdits:
    """Take the slots marked in `gone` out of the table. Raises PolicyError where the way does not suit the file."""
    why = ASKED
    if way == "auto":
        way, why = _suitable_way(scan, shape)
    if way == "keep" or not gone.any():
        return RecordEdits(way, why)
    return {"null": _null, "minus4": _minus4, "shrink": _shrink}[way](scan, shape, gone, why)


def _suitable_way(scan: Scan, shape: Shape) -> tuple[str, str]:
    """(way, what in the file shows that it suits)."""
    why = _skips_zero(scan, shape)
    if why:
        return "null", why
    if shape.adjust == 4 and scan.records.carrier == "rela":
        return "minus4", "the kernel adds 4 to a record, and its values are R_*_RELATIVE addends"
    return "shrink", "nothing in the file shows that the kernel skips null slots"


def _skips_zero(scan: Scan, shape: Shape) -> str:
    """What shows that this kernel skips a slot that is 0; empty where nothing does."""
    if scan.records.zero.any():
        return f"the table has {int(scan.records.zero.sum())} null slots already"
    if shape.adjust == 0:
        return "this layout's records are not adjusted, so that 0 stays 0 and is skipped"
    return f"{LOOP} tests a record before it adjusts it" if tests_zero_first(scan.image) else ""


def _refusal(image: Image, way: str, why: str, found: str, expected: str) -> PolicyError:
    if why != ASKED:
        return PolicyError("no way to take records out of the table suits this kernel", image.path, found=found,
                           expected=f"{expected}, for --records {way}")  # fmt: skip
    return PolicyError(f"--records {way} does not suit this kernel", image.path, found=found, expected=expected,
                       todo="--records auto takes the way that does")  # fmt: skip


def _null(scan: Scan, shape: Shape, gone: Mask, why: str) -> RecordEdits:
    records, zero = scan.records, scan.records.zero
    if not _skips_zero(scan, shape):
        raise _refusal(scan.image, "null", why, "nothing that shows that the kernel skips null slots",
                       "null slots in its table")  # fmt: skip
    values, n_zero = np.where(gone, np.uint64(0), records.value), int(zero.sum())
    # Zeros lead, as after the build's sort: keep it so, and the rest in order. Values may only move between slots that
    # are all filled in the same way.
    if n_zero > 0 and bool(zero[:n_zero].all()) and records.uniform:
        stays = values[~(zero | gone)]
        values = np.concatenate([np.zeros(len(records) - len(stays), np.uint64), stays])
    # A relocation would make a zero the kernel's base address, which is no zero.
    nulled = (values == 0) & ~zero & (records.rela >= 0)
    groups = (*rewrite(scan, values, ~nulled), record_group(scan, np.flatnonzero(nulled), values),
              kept_relocations.of_slots(scan, values))  # fmt: skip
    return RecordEdits("null", why, groups, records.rela[nulled])


def _minus4(scan: Scan, shape: Shape, gone: Mask, why: str) -> RecordEdits:
    image, records = scan.image, scan.records
    if shape.adjust != 4:
        raise _refusal(image, "minus4", why, f"layout {shape.name}", "a layout whose records the kernel moves by 4")
    if bool(records.relr[gone].any()):
        raise _refusal(image, "minus4", why, "slots moved by RELR, so that −4 would not stay −4",
                       "R_*_RELATIVE or unrelocated slots")  # fmt: skip
    values, slots = np.where(gone, MINUS4, records.value), np.flatnonzero(gone)
    cut = records.rela[slots]  # a relocation that stayed would overwrite the −4
    return RecordEdits("minus4", why, (record_group(scan, slots, values),), cut[cut >= 0])


def _shrink(scan: Scan, shape: Shape, gone: Mask, why: str) -> RecordEdits:
    image, arch, records = scan.image, scan.arch, scan.records
    if not records.uniform:
        raise _refusal(image, "shrink", why, "slots that are filled in different ways", "the same way everywhere")
    if not records.start:
        raise _refusal(image, "shrink", why, "no array between symbols", "a vmlinux")
    if arch.table_end is None:
        raise _refusal(image, "shrink", why, f"machine {arch.name}, whose ftrace_init is not read",
                       " or ".join(other.name for other in architectures() if other.table_end))  # fmt: skip
    n, n_left = len(records), int((~gone).sum())
    new_end = records.start + SLOT * n_left
    values = np.concatenate([records.value[~gone], np.zeros(n - n_left, np.uint64)])
    groups = (
        *rewrite(scan, values, np.arange(n) < n_left),
        record_group(scan, np.arange(n_left, n), values),  # their relocations go
        _lower_bound(image, arch.table_end, records.start + SLOT * n, new_end),
        _move_symbol(image, new_end),
    )
    tail = records.rela[n_left:]
    return RecordEdits("shrink", why, groups, tail[tail >= 0], () if n_left else (NO_RECORD,))


def record_group(scan: Scan, slots: I64, values: U64) -> Group:
    """Edits of the words of slots. values: what every slot of the table is worth."""
    return group("record", scan.image.data, slots, scan.records.slot[slots], as_bytes(values[slots]))


def rewrite(scan: Scan, values: U64, which: Mask) -> tuple[Group, Group]:
    """Edits that make the marked slots worth `values`: in the addend if there is one, in the word where it counts."""
    image, records = scan.image, scan.records
    by_addend = np.flatnonzero(which & (records.rela >= 0))
    addend_pos = image.rela[1][records.rela[by_addend]] + ADDEND
    echoed = records.word == records.value  # the file repeats the addend, or the word is all there is
    echoed |= bool(records.live.any()) and bool(echoed[records.live].all())
    return (
        group("relocation", image.data, records.rela[by_addend], addend_pos, as_bytes(values[by_addend])),
        record_group(scan, np.flatnonzero(which & ((records.rela < 0) | echoed)), values),
    )


def relocation_group(image: Image, rows: I64, new: U8) -> Group:
    """Edits of whole rows of the dynamic relocation table. new: (n, bytes of a row)."""
    return group("relocation", image.data, rows, image.rela[1][rows], new)


def to_none(image: Image, rows: I64) -> Group:
    """Relocation rows become all zero: type NONE."""
    return relocation_group(image, rows, np.zeros((len(rows), t.RELA.itemsize), np.uint8))


def free_rows(image: Image) -> I64:
    """All-zero rows of the dynamic relocation table, in file order: linkers reserve more than they fill."""
    rows, _ = image.rela
    return np.flatnonzero((rows["r_offset"] == 0) & (rows["r_info"] == 0) & (rows["r_addend"] == 0))


def _lower_bound(image: Image, code: TableEnd, end: int, new_end: int) -> Group:
    """The edit of the instructions by which ftrace_init computes the table's end."""
    row = image.symbols.defined(INIT)
    where = f"{image.path}: {INIT}"
    if row is None:
        raise PolicyError("the table cannot shrink", where, found="no such function",
                          expected="its code, to lower the end")  # fmt: skip
    va, size = int(image.symbols.rows["st_value"][row]), int(image.symbols.rows["st_size"][row])
    words = image.code(va, min(size, MAX_CODE) // 4)
    pairs = code.find(words, va, end)
    if len(pairs) != 1:  # of two, the other would still read up to the old end
        raise PolicyError("the table cannot shrink", where, found=f"{len(pairs)} places that form its end {end:#x}",
                          expected="exactly one",
                          todo="--records null or minus4, if this kernel accepts them")  # fmt: skip
    new = code.change(words, va, pairs[0], new_end)
    if new is None:
        raise PolicyError("the table cannot shrink so far", where,
                          found=f"new end {new_end:#x} on another page than {end:#x}",
                          expected="a page register of its own in the code", todo="drop fewer records")  # fmt: skip
    index = np.array([pairs[0].first, pairs[0].second], dtype=np.int64)
    return group("bound", image.data, index, image.pos_of_va(va) + 4 * index, as_bytes(new))


def _move_symbol(image: Image, new_end: int) -> Group:
    """The symbol follows the code, so that every reader of the file sees the same table as the kernel. A file without a
    symbol table has none to move: its readers ask the code."""
    tabs = np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB)
    rows = image.symbols.rows_named(STOP) if len(tabs) else np.zeros(0, np.int64)
    pos = int(image.shdr["sh_offset"][tabs[:1]].sum()) + t.SYM.itemsize * rows + VALUE
    return group("symbol", image.data, rows, pos, as_bytes(np.full(len(rows), new_end, dtype=np.uint64)))
