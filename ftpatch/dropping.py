"""How a patched site's record leaves the kernel's table. A record that stays kills ftrace at boot: the kernel finds a
call where it expects a NOP, and switches all tracing off.

    null    the slot becomes 0, in front of the others. For kernels whose table has zeros already: their loop tests
            a value before it adjusts it, and skips what is no kernel text, so that 0 + KASLR offset is skipped too.
    minus4  the slot becomes −4 and its relocation R_*_NONE. For sites of two NOPs at the record: the older loop adds 4
            before it tests for 0, and would take a plain zero for a record at address 4.
    shrink  the record is cut out, the others close up, and the end of the table that ftrace_init computes in its
            instructions is lowered. Relies on no skipping at all.
    keep    nothing happens to the record.

Which of them a kernel accepts is decided by what its file shows, never by its version.
Source: kernel/trace/ftrace.c ftrace_process_locs() (Linux 6.1 and 6.12).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch import AddressPair, Arch, Shape
from ftpatch.edits import Group, as_bytes, group
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.tables import I64, U64, Mask
from ftpatch.errors import PolicyError
from ftpatch.records import MINUS4, SLOT, STOP, RecordTable

WAYS = ("auto", "null", "minus4", "shrink", "keep")
FATES = {"null": "null", "minus4": "minus4", "shrink": "cut", "keep": "kept"}
INIT = "ftrace_init"


@dataclass(frozen=True)
class Dropping:
    """The chosen way, the edits it takes, and the values that the kernel will then find: one per remaining slot."""

    way: str
    why: str
    values: U64
    groups: tuple[Group, ...]
    warnings: tuple[str, ...] = ()


def drop(image: Image, arch: Arch, shape: Shape, records: RecordTable, gone: Mask, way: str) -> Dropping:
    """Take the slots marked in `gone` out of the table. Raises PolicyError where the way does not suit the file."""
    why = "asked for"
    if way == "auto":
        way, why = _suitable_way(shape, records)
    if not gone.any():
        return Dropping(way, why, records.value, ())
    return {"null": _null, "minus4": _minus4, "shrink": _shrink, "keep": _keep}[way](
        image, arch, shape, records, gone, why
    )


def _suitable_way(shape: Shape, records: RecordTable) -> tuple[str, str]:
    if records.zero.any():
        return "null", f"the table has {int(records.zero.sum())} null slots already"
    if shape.minus4 and records.carrier == "rela":
        return "minus4", "two NOPs at the record, values in R_*_RELATIVE addends"
    return "shrink", "no null slots in the table that would show that the kernel skips them"


def _refuse(image: Image, way: str, found: str, expected: str) -> PolicyError:
    return PolicyError(f"--records {way} does not suit this kernel", image.path, found=found, expected=expected,
                       todo="--records auto takes the way that does")  # fmt: skip


def _uniform(image: Image, records: RecordTable, way: str) -> None:
    if records.carrier == "mixed" or records.in_sections:
        raise _refuse(image, way, f"record values in {records.carrier} carriers", "one carrier for all records")


def _null(image: Image, arch: Arch, shape: Shape, records: RecordTable, gone: Mask, why: str) -> Dropping:
    if not records.zero.any():
        raise _refuse(image, "null", "no null slot in the table", "null slots, which show that the kernel skips them")
    n_zero = int(records.zero.sum())
    values = np.where(gone, np.uint64(0), records.value)
    shifts = bool(records.zero[:n_zero].all()) and records.carrier != "mixed"
    if shifts:  # zeros lead, as after the build's sort: keep it so, and the rest in order
        stays = values[~(records.zero | gone)]
        values = np.concatenate([np.zeros(len(records) - len(stays), np.uint64), stays])
    return Dropping("null", why, values, tuple(_rewrite(image, records, values)))


def _minus4(image: Image, arch: Arch, shape: Shape, records: RecordTable, gone: Mask, why: str) -> Dropping:
    if not shape.minus4:
        raise _refuse(image, "minus4", f"layout {shape.name}", "sites of two NOPs at the record")
    if bool(records.relr[gone].any()):
        raise _refuse(image, "minus4", "slots moved by RELR, so that −4 would not stay −4",
                      "R_*_RELATIVE or unrelocated slots")  # fmt: skip
    slots = np.flatnonzero(gone)
    words = group("record", image.data, slots, records.slot[slots], as_bytes(np.full(len(slots), MINUS4)))
    cut = records.rela[slots]
    return Dropping("minus4", why, np.where(gone, MINUS4, records.value), (words, _to_none(image, cut[cut >= 0])))


def _shrink(image: Image, arch: Arch, shape: Shape, records: RecordTable, gone: Mask, why: str) -> Dropping:
    _uniform(image, records, "shrink")
    if not records.start:
        raise _refuse(image, "shrink", "no array between symbols", "a vmlinux")
    stays = records.value[~gone]
    n_left, end = len(stays), records.start + SLOT * len(records)
    new_end = records.start + SLOT * n_left
    bound = _lower_bound(image, arch, end, new_end)
    values = np.concatenate([stays, np.zeros(len(records) - n_left, np.uint64)])
    tail = records.rela[n_left:]
    groups = [*_rewrite(image, records, values, upto=n_left), _to_none(image, tail[tail >= 0]), bound]
    groups.append(_clear(image, records, n_left))
    groups.append(_move_symbol(image, new_end))
    warnings = () if n_left else ("no record is left: the kernel will say that there are no functions to be traced",)
    return Dropping("shrink", why, stays, tuple(groups), warnings)


def _keep(image: Image, arch: Arch, shape: Shape, records: RecordTable, gone: Mask, why: str) -> Dropping:
    warning = (
        "the records of the patched sites stay: at boot the kernel will print an ftrace bug at the first of them "
        "and switch ftrace off for good (no tracing, no kprobes on ftrace, no live patching)"
    )
    return Dropping("keep", why, records.value, (), (warning,))


def _rewrite(image: Image, records: RecordTable, values: U64, upto: int | None = None) -> list[Group]:
    """Edits that make slots [0, upto) worth `values`: in the addend where there is one, in the word where it counts."""
    n = len(records) if upto is None else upto
    slots = np.arange(n, dtype=np.int64)
    by_addend = records.rela[:n] >= 0
    _, rela_pos = image.rela
    addend_pos = rela_pos[records.rela[:n][by_addend]] + 16
    echoed = records.word[:n] == records.value[:n]  # the file repeats the addend, or the word is all there is
    word = ~by_addend | echoed
    return [
        group("relocation", image.data, records.rela[:n][by_addend], addend_pos, as_bytes(values[:n][by_addend])),
        group("record", image.data, slots[word], records.slot[:n][word], as_bytes(values[:n][word])),
    ]


def _clear(image: Image, records: RecordTable, n_left: int) -> Group:
    """Zero the words behind the table's new end."""
    slots = np.arange(n_left, len(records), dtype=np.int64)
    return group("record", image.data, slots, records.slot[slots], as_bytes(np.zeros(len(slots), np.uint64)))


def _to_none(image: Image, rows: I64) -> Group:
    """Relocation rows become all zero: type NONE."""
    _, pos = image.rela
    return group("relocation", image.data, rows, pos[rows], np.zeros((len(rows), t.RELA.itemsize), np.uint8))


def _lower_bound(image: Image, arch: Arch, end: int, new_end: int) -> Group:
    """The edit of the instructions by which ftrace_init computes the table's end."""
    row = image.symbols.defined(INIT)
    where = f"{image.path}: {INIT}"
    if row is None:
        raise PolicyError(
            "the table cannot shrink", where, found="no such function", expected="its code, to lower the end"
        )
    va, size = int(image.symbols.rows["st_value"][row]), int(image.symbols.rows["st_size"][row])
    words = image.code(va, min(size, 1 << 20) // 4)
    pairs = arch.find_pairs(words, va, end)
    if len(pairs) != 1:
        raise PolicyError(
            "the table cannot shrink", where, found=f"{len(pairs)} places that form its end {end:#x}",
            expected="exactly one", todo="--records null or minus4, if this kernel accepts them",
        )  # fmt: skip
    new = arch.set_pair(words, va, pairs[0], new_end)
    if new is None:
        raise PolicyError(
            "the table cannot shrink so far", where, found=f"new end {new_end:#x} on another page than {end:#x}",
            expected="a page register of its own in the code", todo="drop fewer records",
        )  # fmt: skip
    pair: AddressPair = pairs[0]
    index = np.array([pair.first, pair.second], dtype=np.int64)
    return group("bound", image.data, index, image.pos_of_va(va) + 4 * index, as_bytes(new))


def _move_symbol(image: Image, new_end: int) -> Group:
    """The symbol follows the code, so that every reader of the file sees the same table as the kernel."""
    rows = image.symbols.rows_named(STOP)
    tab = int(np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB)[0])
    pos = int(image.shdr["sh_offset"][tab]) + t.SYM.itemsize * rows + 8
    return group("symbol", image.data, rows, pos, as_bytes(np.full(len(rows), new_end, dtype=np.uint64)))
