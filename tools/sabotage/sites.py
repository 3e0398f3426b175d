"""Damage to what a patch wrote: the words of sites, stubs, ops pointers and their relocations."""

from __future__ import annotations

import numpy as np

from tools.sabotage.victim import Damage, Mutation, Victim

NOPS = {"arm64": 0xD503201F, "ppc64le": 0x60000000}
BTI = {0xD503245F}


def _site(victim: Victim) -> tuple[int, list[int]] | None:
    """Position and words of the first patched site; none where instructions are no words, see `octets`."""
    if victim.arch.unit == 1 or not victim.patched:
        return None
    one = victim.patched[0]
    words = [int(word, 16) for word in one["new_words"]]
    return (one["pos"], words) if words and one["action"] != "redirect" else None


def wrong_register(victim: Victim) -> Damage | None:
    site = _site(victim)
    if site is None or len(site[1]) < 2:
        return None
    return Damage([victim.put(site[0], victim.word(site[0]) ^ (1 if victim.arch.name == "arm64" else 1 << 21))])


def branch_off_by_4(victim: Victim) -> Damage | None:
    site = _site(victim)
    if site is None:
        return None
    pos, step = site[0] + 4 * (len(site[1]) - 1), 1 if victim.arch.name == "arm64" else 4
    return Damage([victim.put(pos, victim.word(pos) ^ step)])


def branch_without_link(victim: Victim) -> Damage | None:
    site = _site(victim)
    if site is None:
        return None
    pos = site[0] + 4 * (len(site[1]) - 1)
    return Damage([victim.put(pos, victim.word(pos) ^ (1 << 31 if victim.arch.name == "arm64" else 1))])


def half_a_site(victim: Victim) -> Damage | None:
    site = _site(victim)
    return Damage([victim.put(site[0] + 4, NOPS[victim.arch.name])]) if site and len(site[1]) == 2 else None


def site_undone(victim: Victim) -> Damage | None:
    """One of several sites has its old words, and its record is gone all the same."""
    edits = victim.edits("site ")
    if len(edits) < 2:
        return None
    return Damage([(edits[0]["pos"], bytes.fromhex(edits[0]["old"]))])


def bti_removed(victim: Victim) -> Damage | None:
    for site in victim.listed:
        if site["pos"] and victim.word(site["pos"] - 4) in BTI and victim.arch.name == "arm64":
            return Damage([victim.put(site["pos"] - 4, NOPS["arm64"])])
    return None


# -- ops pointers ------------------------------------------------------------------------------------------------------


def _literal(victim: Victim) -> tuple[int, int] | None:
    """(file position, va) of a pointer in a linked file."""
    edits = victim.edits("literal ")
    if not edits or not victim.linked:
        return None
    pos = int(edits[0]["pos"])
    starts, sizes = (victim.after.shdr[field].astype(np.int64) for field in ("sh_offset", "sh_size"))
    sec = int(np.flatnonzero(victim.after.has_bytes & (starts <= pos) & (pos < starts + sizes))[0])
    return pos, int(victim.after.base[sec]) + pos - int(starts[sec])


def literal_unrelocated(victim: Victim) -> Damage | None:
    place = _literal(victim)
    row = victim.row_of(place[1]) if place else -1
    return Damage([(int(victim.after.rela[1][row]), bytes(24))]) if row >= 0 else None


def literal_relocated_twice(victim: Victim) -> Damage | None:
    place = _literal(victim)
    row = victim.row_of(place[1]) if place else -1
    rows, pos = victim.after.rela
    free = np.flatnonzero((rows["r_offset"] == 0) & (rows["r_info"] == 0))
    if row < 0 or not len(free):
        return None
    return Damage([(int(pos[free[-1]]), rows[row : row + 1].tobytes())])


def literal_beside_its_object(victim: Victim) -> Damage | None:
    """Pointer and relocation name eight bytes further, both."""
    place = _literal(victim)
    if place is None:
        return None
    row, value = victim.row_of(place[1]), int.from_bytes(victim.read(place[0], 8), "little") + 8
    writes = [victim.put(place[0], value, 8)]
    return Damage(writes + ([victim.put(int(victim.after.rela[1][row]) + 16, value, 8)] if row >= 0 else []))


def _row_field(off: int, step: int, size: int) -> Mutation:
    name = {0: "offset", 8: "type", 16: "addend"}[off]

    def make(victim: Victim) -> Damage | None:
        place = _literal(victim)
        row = victim.row_of(place[1]) if place else -1
        if row < 0:
            return None
        pos = int(victim.after.rela[1][row]) + off
        return Damage([victim.put(pos, int.from_bytes(victim.read(pos, size), "little") + step, size)])

    return Mutation(f"literal's relocation {name} by {step}", frozenset({"verify-literal", "verify-relocation"}), make)


# -- stubs -------------------------------------------------------------------------------------------------------------


def _stubs(victim: Victim) -> list[int]:
    """Positions of the first words of out-of-line stubs in a linked file."""
    return [int(edit["pos"]) for edit in victim.edits("stub row")] if victim.linked else []


def stubs_swapped(victim: Victim) -> Damage | None:
    places = _stubs(victim)
    if len(places) < 2:
        return None
    one, two = (victim.read(pos, 16) for pos in places[:2])
    return Damage([(places[0], two), (places[1], one)])


def _stub_word(name: str, index: int, change: int) -> Mutation:
    def make(victim: Victim) -> Damage | None:
        pos = _stubs(victim)[0] + 4 * index if _stubs(victim) else -1
        return Damage([victim.put(pos, victim.word(pos) ^ change)]) if pos >= 0 else None

    return Mutation(name, frozenset({"verify-stub", "verify-branch"}), make)


def stub_of_the_kernels(victim: Victim) -> Damage | None:
    """A site and its stub move to the first slot of an area, which the kernel gives to somebody else."""
    places, site = _stubs(victim), _site(victim)
    area = victim.after.symbols.value("ftrace_ool_stub_text_end")
    literal = 8 if victim.edits("literal ") else 0
    if not places or site is None or area is None:
        return None
    old = victim.edits("stub row")[0]
    branch = next(one for one in victim.patched if f"row:{one['row']}" == old["owner"].split()[-1])
    to = victim.after.pos_of_va(area) + literal
    moved = to - places[0]
    if any(victim.read(to - literal, 16 + literal)):
        return None
    words = [victim.word(places[0] + 4 * i) for i in range(4)]
    new = [words[0], words[1] & ~0x3FFFFFC | (words[1] - moved & 0x3FFFFFC), words[2],
           words[3] & ~0x3FFFFFC | (words[3] - moved & 0x3FFFFFC)]  # fmt: skip
    first = victim.word(branch["pos"])
    return Damage([*[victim.put(to + 4 * i, word) for i, word in enumerate(new)],
                   victim.put(branch["pos"], first & ~0x3FFFFFC | (first + moved & 0x3FFFFFC))])  # fmt: skip


def _shared(name: str, index: int, change: int) -> Mutation:
    def make(victim: Victim) -> Damage | None:
        found = [edit for edit in victim.edits("stub ") if not edit["owner"].startswith("stub row")]
        found = [edit for edit in found if len(edit["new"]) // 8 > index] if victim.linked else []
        if not found:
            return None
        pos = int(found[0]["pos"]) + 4 * index
        return Damage([victim.put(pos, victim.word(pos) ^ change)])

    return Mutation(name, frozenset({"verify-stub", "verify-branch", "verify-byte"}), make)


SITE, BRANCH = (
    frozenset({"verify-site", "verify-branch"}),
    frozenset(f"verify-{name}" for name in ("branch", "stub", "site", "byte")),
)
LITERAL = frozenset({"verify-literal", "verify-relocation"})
KINDS = (
    Mutation("wrong register", SITE, wrong_register),
    Mutation("branch off by 4", BRANCH, branch_off_by_4),
    Mutation("branch without link", BRANCH | {"verify-redirect"}, branch_without_link),
    Mutation("half a site", SITE, half_a_site),
    Mutation("site undone, record gone", frozenset({"verify-record", "verify-literal", "verify-stub", "verify-byte",
             "verify-relocation"}), site_undone),
    Mutation("BTI removed", frozenset({"verify-byte"}), bti_removed),
    Mutation("literal unrelocated", LITERAL, literal_unrelocated),
    Mutation("literal relocated twice", LITERAL, literal_relocated_twice),
    Mutation("literal beside its object", LITERAL, literal_beside_its_object),
    _row_field(0, 1, 8), _row_field(0, 8, 8), _row_field(8, 1, 4), _row_field(16, 1, 8),
    Mutation("stubs swapped", frozenset({"verify-stub", "verify-branch"}), stubs_swapped),
    _stub_word("stub keeps another register", 0, 1 << 21), _stub_word("stub calls 4 further", 1, 4),
    _stub_word("stub without mtlr", 2, 0x7C0803A6 ^ NOPS["ppc64le"]), _stub_word("stub goes back 4 further", 3, 4),
    Mutation("stub in a slot of the kernel's", frozenset({"verify-stub"}), stub_of_the_kernels),
    _shared("shared stub's first word", 0, 1 << 16), _shared("shared stub's address", 1, 1 << 5 | 1),
    _shared("shared stub's low part", 2, 1 << 10), _shared("shared stub's last word", 3, 1),
)  # fmt: skip
