"""Keys that the kernel sets itself: what is set in the file lasts until then."""

from __future__ import annotations

from collections.abc import Sequence

from ftpatch.kernel.static_call_pointers import pointers_to
from ftpatch.kernel.static_call_updates import Updater, updates_of
from ftpatch.plan.static_calls.request import SetDraft

SHOWN = 3  # keys, functions and data that a message names


def warn_of_updates(draft: SetDraft) -> None:
    """Say which functions set the keys again, and which data points to them, by which others may."""
    keys, updates = draft.open(), updates_of(draft.table) if draft.open() else None
    if updates is None:
        return
    pointers = pointers_to(draft.table)
    named = {key: who for key in keys if (who := updates.by_key.get(key))}
    for key, who in list(named.items())[:SHOWN]:
        boot = any(updater.init for updater in who)
        when = "when the kernel boots" if boot and all(updater.init for updater in who) else "while the kernel runs"
        draft.warnings.append(f"{draft.name(key)} is set again {when}, by {_some([_name(updater) for updater in who])}")
    if len(named) > SHOWN:
        draft.warnings.append(f"{len(named) - SHOWN} more static calls are set again by the kernel itself")
    pointed = {key: where for key in keys if key not in named and (where := pointers.get(key))}
    for key, where in list(pointed.items())[:SHOWN]:
        others = _some([_name(updater) for updater in updates.others]) or "the kernel's functions"
        draft.warnings.append(f"{draft.name(key)} may be set again: {_some(where)} points to it, and {others} set "
                              "static calls by pointers")  # fmt: skip
    if len(pointed) > SHOWN:
        draft.warnings.append(f"{len(pointed) - SHOWN} more static calls may be set again by pointers to them")


def _name(updater: Updater) -> str:
    return f"{updater.function} (init)" if updater.init else updater.function


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
