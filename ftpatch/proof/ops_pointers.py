"""The ops pointers of a linked kernel's sites or stubs: where the call's target reads one, and only there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.image_tables import n_dynamic
from ftpatch.proof.call_targets import CallTarget, CallTargets
from ftpatch.proof.case import NEW, Case, Pairs
from ftpatch.proof.emulate.memory import relative_pointers

TYPE = np.uint64(0xFFFF_FFFF)  # of r_info: no kernel looks at the symbol of a RELATIVE relocation


@dataclass(frozen=True)
class Words:
    """The 8 bytes at each place."""

    word: U64  # as the file has them
    n: I64  # relocations that touch them
    value: U64  # addend of the RELATIVE relocation that fills them; the word itself where none does


def check_ops_pointers(
    case: Case, pairs: Pairs, targets: dict[int, CallTarget], places: I64, in_stubs: bool
) -> dict[int, int]:
    """The ops of every enabled site whose target reads them, by pair. places: va per pair, 0 for none; in_stubs:
    they are in stubs, and not beside the sites."""
    at = np.flatnonzero(places)
    image = case.after.image
    pos = image.pos(*image.place(places[at].view(np.uint64)))
    at, pos = at[pos >= 0], pos[pos >= 0]
    if not len(at):
        return {}
    va = places[at].view(np.uint64)
    # The packed relocations are the same in both files, or told elsewhere; they are looked through once, as hostile
    # ones are many.
    packed = n_dynamic(image, va, 8) - _n_rows(image, va)
    old, new = (_words(side.image, case, va, pos, packed) for side in (case.before, case.after))
    filled, ops = _moves(image), {}
    empty = 0 if in_stubs else case.arch.nop * 0x1_0000_0001
    known = CallTargets(case, False, case.after)
    touched = (old.word != new.word) | (old.n != new.n) | (old.value != new.value)
    for row, i in enumerate(at.tolist()):
        target = targets.get(i)
        why = ""
        if pairs.new[i] == NEW and target is None:
            continue  # what is called is wrong, and is told
        if pairs.new[i] == NEW and target is not None and target.entry.literal and target.ops is None:
            why = _wrong(known, target, new, row, 1 if filled else 0)
            ops[i] = int(new.value[row])
        elif touched[row] and (int(new.word[row]) != empty or new.n[row]):
            why = f"{int(new.word[row]):#x}, relocated {int(new.n[row])} times, and nothing reads it"
        if why:
            pairs.say("verify-literal", i, f"its ops pointer at {int(places[i]) & (1 << 64) - 1:#x} is {why}")
    case.account_for("literal", pos[touched], 8)
    return ops


def _wrong(targets: CallTargets, target: CallTarget, words: Words, row: int, n: int) -> str:
    value, word = int(words.value[row]), int(words.word[row])
    if words.n[row] != n:
        return f"{value:#x}, relocated {int(words.n[row])} times, expected {n}"
    if value != word:
        return f"{word:#x}, and its relocation makes {value:#x} of it"
    return targets.bad_ops(value, target.entry)


def _moves(image: Image) -> bool:
    """Whether the kernel moves itself, so that every pointer wants a relocation."""
    return bool(len(image.rela[0])) or bool((image.shdr["sh_type"] == t.SHT_RELR).any())


def _n_rows(image: Image, va: U64) -> I64:
    """How many rows of the dynamic relocation table touch the 8 bytes at each va."""
    offset = np.sort(image.rela[0]["r_offset"])
    low = va - np.minimum(va, np.uint64(7))
    return np.searchsorted(offset, va + np.uint64(8)) - np.searchsorted(offset, low)


def _words(image: Image, case: Case, places: U64, pos: I64, packed: I64) -> Words:
    word = image.data.rows(pos, 8).view("<u8").reshape(-1).astype(np.uint64)
    filled, value, _ = relative_pointers(image, case.arch).at(places)
    return Words(word, packed + _n_rows(image, places), np.where(filled, value, word))
