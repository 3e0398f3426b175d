"""Keys that cannot be set whatever the function: those of other files, and what the kernel itself would not take."""

from __future__ import annotations

import numpy as np

from ftpatch.plan.static_calls.request import NULL, RETURN0, Goal, SetDraft
from ftpatch.sites.static_calls import StaticCallTable

# What the kernel accepts at a site, by whether it is a tail call: else it stops (BUG) at boot, or when a module loads.
# Source: arch/x86/kernel/static_call.c __static_call_validate() (Linux 6.12).
ACCEPTED = {False: ("call", "nop", "return0"), True: ("tail", "conditional", "return")}
ELSEWHERE = "its key is another file's: set it there, and this module's sites follow"


def refuse_wrong_states(draft: SetDraft) -> None:
    """Keys of other files, keys without a trampoline that can be changed with them, and sites that would stop the
    boot."""
    table, image = draft.table, draft.table.image
    kinds, pos, signed = draft.trampoline_kinds, image.pos(table.keys.sec, table.keys.off), table.signed()
    for key in draft.goals:
        if table.keys.sec[key] < 0:
            draft.refuse(key, ELSEWHERE)
        elif kinds[key] is None:
            draft.refuse(key, "its trampoline is not in this file")
        elif kinds[key] == "unknown" or not signed[key]:
            draft.refuse(key, "its trampoline is not the code of one: the kernel stops at it (BUG)")
        elif pos[key] < 0:
            draft.refuse(key, "its key has no bytes in this file")
        elif other := _shares_with(table, key):
            draft.refuse(key, f"its key or trampoline is that of {other}, too: both would be set")
        elif not _agrees(draft, key):
            draft.refuse(key, "its trampoline does not lead where its key does: one of them was changed alone")
    _refuse_sites(draft)


def _shares_with(table: StaticCallTable, key: int) -> str:
    """The name of another key that is at the same place, or whose trampoline is; empty where there is none."""
    same = np.zeros(len(table.keys), dtype=bool)
    for sec, off in ((table.keys.sec, table.keys.off), table.trampolines):
        same |= (sec == sec[key]) & (off == off[key])
    same[key] = False
    return table.keys.name[int(np.argmax(same))] if same.any() else ""


def _agrees(draft: SetDraft, key: int) -> bool:
    """Whether a key and its trampoline lead to the same."""
    to, func = draft.table.keys.leads_to, draft.table.keys.func
    kind, holds = draft.trampoline_kinds[key], draft.holds[key]
    if kind in ("null", "thunk"):
        return holds == NULL
    if kind == "return0":
        static = draft.table.image.arch.static_calls  # without sites that are rewritten, NULL goes to what returns 0
        return holds == RETURN0 or (holds == NULL and static is not None and not static.inline)
    return all(one[key] == other[key] for one, other in zip(to[:2], func[:2], strict=True)) and (
        int(to.sec[key]) >= 0 or int(to.symbol[key]) == int(func.symbol[key])
    )


def _refuse_sites(draft: SetDraft) -> None:
    """Keys one of whose sites is not what its flag says."""
    table, calls = draft.table, draft.table.calls
    kinds = table.kinds()
    rows = np.flatnonzero(np.isin(calls.key, list(draft.goals)))
    direct: dict[int, int] = {}
    for site in rows.tolist():
        tail, key = bool(calls.tail[site]), int(calls.key[site])
        if kinds[site] not in ACCEPTED[tail]:
            what = "tail call" if tail else "call"
            found = "no code that is known" if kinds[site] == "unknown" else f"a {kinds[site]}"
            draft.refuse(key, f"its {what} at {place(table, site)} is {found}: the kernel stops there (BUG)")
        elif kinds[site] in ("call", "tail", "conditional") and not _names_trampoline(table, site, key):
            direct[key] = direct.get(key, 0) + 1
    for key, n in direct.items():
        draft.warnings.append(f"{n} site{'s' * (n != 1)} of {draft.name(key)} name another place than its trampoline, "
                              "and go there until the kernel has set its static calls up")  # fmt: skip


def _names_trampoline(table: StaticCallTable, site: int, key: int) -> bool:
    to, (sec, off) = table.calls.destination, table.trampolines
    return bool(to.sec[site] == sec[key] and to.off[site] == off[key])


def place(table: StaticCallTable, site: int) -> str:
    """Where a site is, for people."""
    sec, off = int(table.calls.sec[site]), int(table.calls.off[site])
    return f"{table.image.names[sec]}+{off:#x}" if sec >= 0 else "a place outside the file"


def refuse_what_is_so(draft: SetDraft) -> None:
    """Keys that are what they are to be."""
    for key, goal in draft.goals.items():
        if draft.holds[key] == goal.kind and (goal.kind in (NULL, RETURN0) or _calls(draft, key, goal)):
            draft.refuse(key, f"it {'is' if goal.kind in (NULL, RETURN0) else 'calls'} {goal.name} already")


def _calls(draft: SetDraft, key: int, goal: Goal) -> bool:
    """Whether a key calls a function now."""
    image, func = draft.table.image, draft.table.keys.func
    if goal.own_row >= 0 and image.symbols.shndx[goal.own_row] > 0:
        return _place(draft, goal.own_row) == (int(func.sec[key]), int(func.off[key]))
    return int(func.sec[key]) < 0 and image.symbols.name(int(func.symbol[key])) == goal.name


def _place(draft: SetDraft, row: int) -> tuple[int, int]:
    """(section, offset) of a symbol of the file."""
    image = draft.table.image
    sec, value = int(image.symbols.shndx[row]), int(image.symbols.rows["st_value"][row])
    return sec, value - (int(image.base[sec]) if image.linked else 0)
