"""Damage to redirected functions: their jumps, the stubs in between, the relocations and symbols of both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ftpatch.elf import tables as t
from tools.sabotage.victim import Damage, Mutation, Victim

JUMP = frozenset(f"verify-{name}" for name in ("branch", "stub", "redirect", "site", "byte"))
STUB = frozenset(f"verify-{name}" for name in ("branch", "stub", "byte"))
RELOCATION = frozenset(f"verify-{name}" for name in ("branch", "stub", "relocation", "redirect", "symbol"))
NOPS = {"arm64": 0xD503201F, "ppc64le": 0x60000000}
SECTIONS = (".text.ftpatch", ".init.text.ftpatch")


def _jump(victim: Victim) -> int:
    """Position of the jump of the first redirected function; −1 where there is none."""
    return next((int(site["pos"]) for site in victim.patched if site["action"] == "redirect"), -1)


def _jump_word(change: Callable[[Victim], int]) -> Callable[[Victim], Damage | None]:
    def make(victim: Victim) -> Damage | None:
        pos = _jump(victim)
        return Damage([victim.put(pos, victim.word(pos) ^ change(victim))]) if pos >= 0 else None

    return make


def behind_the_jump(victim: Victim) -> Damage | None:
    """The word behind the jump is as compiled no longer."""
    pos = _jump(victim)
    wide = pos >= 0 and len(next(site for site in victim.patched if site["pos"] == pos)["new_words"]) > 1
    return Damage([victim.put(pos + 4, victim.word(pos + 4) ^ 1 << 21)]) if wide else None


def jump_undone(victim: Victim) -> Damage | None:
    """One of several sites is as it was compiled, and its record is gone all the same."""
    edits = [edit for edit in victim.edits("site ") if int(edit["pos"]) == _jump(victim)]
    several = len(victim.edits("site ")) > 1  # a record that left alone may have been dropped
    return Damage([(edits[0]["pos"], bytes.fromhex(edits[0]["old"]))]) if edits and several else None


# -- relocations and symbols of modules --------------------------------------------------------------------------------


def _rows(victim: Victim, section: str, off: int, size: int) -> list[int]:
    """Positions of the relocations of a part of a section."""
    rows, start = victim.relocations(section)
    hit = (rows["r_offset"] >= np.uint64(off)) & (rows["r_offset"] < np.uint64(off + size))
    return [start + 24 * at for at in np.flatnonzero(hit).tolist()]


def _jump_rows(victim: Victim) -> list[int]:
    pos = _jump(victim)
    if victim.linked or pos < 0:
        return []
    section = next(site["section"] for site in victim.patched if site["pos"] == pos)
    return _rows(victim, section, pos - victim.start(victim.section(section)), 4)


def _stub_rows(victim: Victim) -> list[int]:
    sec = -1 if victim.linked or _jump(victim) < 0 else victim.section(*SECTIONS)
    return _rows(victim, victim.after.names[sec], 0, 1 << 20) if sec >= 0 else []


def _row_field(
    rows: Callable[[Victim], list[int]], which: int, off: int, step: int, size: int
) -> Callable[[Victim], Damage | None]:
    def make(victim: Victim) -> Damage | None:
        places = rows(victim)
        if len(places) <= which:
            return None
        pos = places[which] + off
        return Damage([victim.put(pos, int.from_bytes(victim.read(pos, size), "little") + step, size)])

    return make


def mark_moved(victim: Victim) -> Damage | None:
    """The symbol that marks a redirected function stands elsewhere."""
    for row in range(len(victim.before.symbols.rows), len(victim.after.symbols.rows)):
        if victim.after.symbols.name(row).startswith("ftpatch_redirected_"):
            return victim.flip(victim.symbol(row, "st_value"), 4)
    return None


def stub_shorter(victim: Victim) -> Damage | None:
    for row in range(len(victim.before.symbols.rows), len(victim.after.symbols.rows)):
        if victim.after.symbols.name(row).startswith("ftpatch_redirect_"):
            return victim.flip(victim.symbol(row, "st_size"), 4)
    return None


# -- stubs -------------------------------------------------------------------------------------------------------------


def _stub_word(index: int, mask: int | None) -> Callable[[Victim], Damage | None]:
    """A bit of a word of the first stub, or a NOP in its place."""

    def make(victim: Victim) -> Damage | None:
        if _jump(victim) < 0:
            return None
        if victim.linked:
            edits = [edit for edit in victim.edits("stub ") if len(edit["new"]) // 8 > index]
            pos = int(edits[0]["pos"]) + 4 * index if edits else -1
        else:
            sec = victim.section(*SECTIONS)
            inside = sec >= 0 and int(victim.after.shdr["sh_size"][sec]) > 4 * index
            pos = victim.start(sec) + 4 * index if inside else -1
        if pos < 0 or (mask is None and victim.word(pos) == NOPS[victim.arch.name]):
            return None
        return Damage([victim.put(pos, NOPS[victim.arch.name] if mask is None else victim.word(pos) ^ mask)])

    return make


def stub_that_is_no_function(victim: Victim) -> Damage | None:
    """The symbol of a stub says that it is data."""
    for row in range(len(victim.before.symbols.rows), len(victim.after.symbols.rows)):
        if victim.after.symbols.name(row).startswith("ftpatch_redirect_"):
            return Damage([victim.put(victim.symbol(row, "st_info"), 0x10 | t.STT_OBJECT, 1)])
    return None


KINDS = (
    Mutation("jump 4 further", JUMP, _jump_word(lambda victim: 1 if victim.arch.name == "arm64" else 4)),
    Mutation("jump that calls", JUMP, _jump_word(lambda victim: 1 << 31 if victim.arch.name == "arm64" else 1)),
    Mutation("word behind a jump", JUMP, behind_the_jump),
    Mutation("jump undone, record gone", frozenset({"verify-record", "verify-relocation"}), jump_undone),
    *(Mutation(f"jump's relocation, {name}", RELOCATION, _row_field(_jump_rows, 0, off, step, size))
      for name, off, step, size in (("offset by 4", 0, 4, 8), ("type by one", 8, 1, 4), ("addend by 4", 16, 4, 8))),
    *(Mutation(f"stub's relocation {which}, {name}", RELOCATION, _row_field(_stub_rows, which, off, step, size))
      for which in range(3)
      for name, off, step, size in (("offset by 4", 0, 4, 8), ("type by one", 8, 1, 4), ("addend by 8", 16, 8, 8))),
    Mutation("mark moved", frozenset({"verify-symbol"}), mark_moved),
    Mutation("stub's symbol shorter", frozenset({"verify-stub"}), stub_shorter),
    Mutation("stub's symbol of data", frozenset({"verify-symbol", "verify-stub"}), stub_that_is_no_function),
    *(Mutation(f"redirect's stub without word {index}", STUB, _stub_word(index, None)) for index in range(9)),
    *(Mutation(f"bit of word {index} of a redirect's stub", STUB, _stub_word(index, 1 << 16 + index))
      for index in range(15)),
)  # fmt: skip
