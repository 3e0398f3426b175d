"""Damage to static calls that were set: their keys and trampolines, and the sites and entries that must stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ftpatch.elf.image import Image
from ftpatch.sites.static_calls import StaticCallTable, read_static_calls
from tools.sabotage.victim import Damage, Mutation, Victim

FOUND = frozenset(f"verify-{name}" for name in ("static-call", "byte", "journal", "relocation", "symbol")) | {
    "unreadable"
}
Make = Callable[[Victim], Damage | None]


def _table(victim: Victim) -> StaticCallTable | None:
    return _table_of(victim.before) if victim.before.arch.static_calls is not None else None


@lru_cache(maxsize=1)
def _table_of(before: Image) -> StaticCallTable:
    return read_static_calls(before)


def _set(victim: Victim, part: str) -> list[tuple[int, bytes, int]]:
    """(position, bytes before, row of the key) of a part of each static call that was set: `key` or `trampoline`."""
    table = _table(victim) if victim.journal.get("edits") else None
    if table is None:
        return []
    keys = table.keys
    wanted = {edit["owner"].partition(" ")[2] for edit in victim.edits("key ") + victim.edits("trampoline ")}
    rows = [row for row, name in enumerate(keys.name) if name in wanted]
    sec, off = (keys.sec, keys.off) if part == "key" else table.trampolines
    pos = victim.before.pos(sec[rows], off[rows]).tolist()
    return [(at, victim.before.data[at : at + 8].tobytes(), row) for at, row in zip(pos, rows, strict=True) if at >= 0]


def bit(part: str, byte: int, mask: int, which: int = 0) -> Make:
    """One bit of a byte of a part; which: of the first static call that was set, or of the last."""

    def make(victim: Victim) -> Damage | None:
        parts = _set(victim, part)
        return victim.flip(parts[which][0] + byte, mask) if parts else None

    return make


def undone(part: str) -> Make:
    """A part as it was: one half of what was set."""

    def make(victim: Victim) -> Damage | None:
        pos, old, _ = next(iter(_set(victim, part)), (-1, b"", -1))
        return Damage([(pos, old)]) if victim.linked and pos >= 0 and victim.read(pos, 8) != old else None

    return make


def of_neighbour(part: str, byte: int, mask: int) -> Make:
    """One bit of a key or trampoline that was not set."""

    def make(victim: Victim) -> Damage | None:
        parts, table = _set(victim, part), _table(victim)
        if not parts or table is None:
            return None
        rows = {row for _, _, row in parts}
        sec, off = (table.keys.sec, table.keys.off) if part == "key" else table.trampolines
        other = next((row for row in range(len(table.keys)) if row not in rows and sec[row] >= 0), None)
        if other is None:
            return None
        return victim.flip(int(victim.before.pos(sec[[other]], off[[other]])[0]) + byte, mask)

    return make


def of_call(entry: bool, byte: int, mask: int, own: bool = True) -> Make:
    """One bit of a site, or of its entry; of a key that was set, or of another."""

    def make(victim: Victim) -> Damage | None:
        parts, table = _set(victim, "key"), _table(victim)
        if not parts or table is None:
            return None
        of_key = np.isin(table.calls.key, [row for _, _, row in parts]) == own
        calls = np.flatnonzero(of_key & (table.calls.sec >= 0))
        if not len(calls):
            return None
        call = calls[-1:]
        pos = table.calls.entry[call] if entry else victim.before.pos(table.calls.sec[call], table.calls.off[call])
        return victim.flip(int(pos[0]) + byte, mask)

    return make


KINDS = (
    *(Mutation(f"static call's key, bit {mask:#x} of byte {byte}", FOUND, bit("key", byte, mask))
      for byte, mask in ((0, 1), (0, 0x10), (1, 4), (3, 0x80), (7, 0x80))),
    Mutation("static call's key, of the last", FOUND, bit("key", 0, 1, -1)),
    Mutation("word behind a static call's key", FOUND, bit("key", 8, 1)),
    Mutation("static call's key as before", FOUND, undone("key")),
    Mutation("another static call's key", FOUND, of_neighbour("key", 0, 0x10)),
    *(Mutation(f"static call's trampoline, bit {mask:#x} of byte {byte}", FOUND, bit("trampoline", byte, mask))
      for byte, mask in ((0, 1), (0, 0x80), (1, 1), (2, 0x40), (4, 0x80), (5, 1), (6, 0x10), (7, 1))),
    Mutation("static call's trampoline, of the last", FOUND, bit("trampoline", 1, 0x80, -1)),
    Mutation("static call's trampoline as before", FOUND, undone("trampoline")),
    Mutation("another static call's trampoline", FOUND, of_neighbour("trampoline", 1, 0x10)),
    *(Mutation(f"static call's site, bit {mask:#x} of byte {byte}", FOUND, of_call(False, byte, mask))
      for byte, mask in ((0, 1), (1, 1), (4, 0x80))),
    Mutation("another static call's site", FOUND, of_call(False, 1, 0x10, own=False)),
    *(Mutation(f"static call's entry, bit {mask:#x} of byte {byte}", FOUND, of_call(True, byte, mask))
      for byte, mask in ((0, 1), (3, 1), (4, 1), (4, 2), (5, 1))),
    Mutation("another static call's entry", FOUND, of_call(True, 4, 1, own=False)),
)  # fmt: skip
