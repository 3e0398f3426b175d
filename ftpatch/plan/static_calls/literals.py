"""`static-calls --set` where trampolines read their destination from memory: two pointers change, and no code.

    key.func    the function; NULL: 0
    literal     the function; NULL: what returns 0

A kernel that moves itself has a relocation for each pointer that is not 0: a row whose addend is the value (RELA), or
the place alone, with the value in the word (RELR).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.plan.edits import Group, as_bytes, group
from ftpatch.plan.records_out import free_rows, relocation_group, to_none
from ftpatch.plan.static_calls.request import NULL, SetDraft
from ftpatch.sites.static_keys import literals_of

PACKED = "its pointer is on the packed list of what moves with the kernel (RELR), which would make an address of NULL"
NO_ROW = "its pointer has no relocation, and no entry of the table of those is free: the kernel would not move it"


class Pointer(NamedTuple):
    """One of the two, and what it is to hold."""

    key: int  # row of the table of keys
    kind: str  # key or trampoline
    va: int
    value: int


def by_literals(image: Image) -> bool:
    """Whether the machine's trampolines read their destination from memory."""
    static = image.arch.static_calls
    return static is not None and any(form.literal is not None for form in static.trampolines)


def literal_at(draft: SetDraft, key: int) -> tuple[int, int]:
    """(section, offset) of what a key's trampoline reads; section −1 where that is not known."""
    image, static, form = draft.table.image, draft.table.image.arch.static_calls, int(draft.table.keys.form[key])
    assert static is not None
    if form < 0 or static.trampolines[form].literal is None:
        return -1, 0
    sec, off = (column[key : key + 1] for column in draft.table.trampolines)
    found = literals_of(image, static.trampolines[form], sec, off)
    return int(found[0][0]), int(found[1][0])


def pointers_of(draft: SetDraft, key: int) -> list[Pointer]:
    """Both pointers of a key of a linked kernel."""
    image, keys, goal, static = (
        draft.table.image,
        draft.table.keys,
        draft.goals[key],
        draft.table.image.arch.static_calls,
    )
    assert static is not None
    value = int(image.symbols.rows["st_value"][goal.own_row]) if goal.own_row >= 0 else 0
    leads = value if goal.kind != NULL else image.symbols.value(static.return0) or 0
    sec, off = literal_at(draft, key)
    return [Pointer(key, "key", int(image.base[keys.sec[key]]) + int(keys.off[key]), value),
            Pointer(key, "trampoline", int(image.base[sec]) + off, leads)]  # fmt: skip


def refuse_pointers(draft: SetDraft) -> None:
    """Keys whose pointers cannot hold what they are to, for their relocations."""
    image, free = draft.table.image, len(free_rows(draft.table.image))
    static = image.arch.static_calls
    assert static is not None
    for key in draft.open():
        if literal_at(draft, key)[0] < 0:
            draft.refuse(key, "what its trampoline reads is not in this file")
            continue
        if draft.goals[key].kind == NULL and image.symbols.value(static.return0) is None:
            draft.refuse(key, f"no {static.return0} in .symtab, to which the trampoline of a NULL key leads")
            continue
        for pointer in pointers_of(draft, key):
            row, packed = _row(image, pointer.va), _is_packed(image, pointer.va)
            if packed and not pointer.value:
                draft.refuse(key, PACKED)
            elif pointer.value and row is None and not packed and _moves(image):
                free -= 1
                if free < 0:
                    draft.refuse(key, NO_ROW)


def _row(image: Image, va: int) -> int | None:
    """The row of the dynamic relocation table that fills a pointer."""
    rows = np.flatnonzero(image.rela[0]["r_offset"] == np.uint64(va))
    return int(rows[0]) if len(rows) else None


def _is_packed(image: Image, va: int) -> bool:
    return bool(len(image.relr_places(va, va + 8)))


def _moves(image: Image) -> bool:
    """Whether the kernel moves itself."""
    return bool(len(image.rela[0])) or bool((image.shdr["sh_type"] == t.SHT_RELR).any())


def literal_groups(draft: SetDraft) -> Iterator[Group]:
    """The edits of all pointers, and of their relocations."""
    image, taken = draft.table.image, set[int]()
    for pointer in (pointer for key in draft.open() for pointer in pointers_of(draft, key)):
        row, ids = _row(image, pointer.va), np.array([pointer.key])
        word: I64 = np.array([image.pos_of_va(pointer.va)], dtype=np.int64)
        old = int(image.data.rows(word, 8).view("<u8")[0, 0])
        value: U64 = np.array([pointer.value], dtype=np.uint64)
        # Where a row holds the value, linkers may leave the word 0.
        if old or not _moves(image) or _is_packed(image, pointer.va):
            yield group(pointer.kind, image.data, ids, word, as_bytes(value))
        if row is not None and not pointer.value:
            yield to_none(image, np.array([row], np.int64))
        elif row is not None or (_moves(image) and pointer.value and not _is_packed(image, pointer.va)):
            row = _free(image, pointer.va, taken) if row is None else row
            filled = np.zeros(1, t.RELA)
            filled["r_offset"], filled["r_info"], filled["r_addend"] = (
                pointer.va,
                image.arch.relative,
                value.view("<i8"),
            )
            yield relocation_group(image, np.array([row], np.int64), as_bytes(filled))


def _free(image: Image, va: int, taken: set[int]) -> int:
    """A free row for a pointer, where the rows in front of it are for lower places if there is one such."""
    rows, offset = free_rows(image), image.rela[0]["r_offset"]
    rows = rows[~np.isin(rows, list(taken))]
    fitting = [row for row in rows.tolist() if row and 0 < int(offset[row - 1]) < va]
    row = fitting[-1] if fitting else int(rows[0])
    taken.add(row)
    return row
