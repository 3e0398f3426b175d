"""Where a function of another file is called from a stub's own frame, which arguments would be lost.

A frame between a function and its caller moves what the caller left on the stack. So a replacement of another file is
for functions alone whose arguments all travel in registers, by their prototypes or by the user's word.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ftpatch.elf.c_types import NotKnown
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.kernel.signatures import why_not_in_registers
from ftpatch.plan.redirect.refusals import EQUAL, SHOWN, Substitute, symbol_of
from ftpatch.plan.request import Draft, RedirectRequest

ASSUMED = "it was taken for granted that all arguments travel in registers, which no file tells: {}"
ELSEWHERE = "is in another file, to which a stub hands on arguments in registers alone"
OVERRIDES = "(--assume-register-args overrides)"


def refuse_memory_arguments(
    draft: Draft, request: RedirectRequest, types: FunctionTypes, outside: Mapping[int, Substitute],
    signatures: Mapping[int, str],
) -> None:  # fmt: skip
    """Sites whose replacement in another file would miss arguments.

    outside: the replacements in other files, by site; signatures: what is known of the two, as reports have it.
    """
    loses_toc, entries, assumed = (
        draft.scan.arch.loses_toc,
        draft.scan.image.symbols.rows["st_other"],
        dict[str, None](),
    )
    for site, goal in outside.items():
        index, row = np.array([site]), symbol_of(draft, site)
        if row is not None and loses_toc is not None and loses_toc(entries[row : row + 1])[0]:
            draft.refuse(index, "it keeps no TOC pointer, by which a function of another file is called")
        mine = _why(types, row, compiled=True) if row is not None else ("it has no name", False)
        other = _why(goal.types, goal.row, signatures[site].startswith(EQUAL)) if goal.types else (goal.why, False)
        answers = [mine, other]
        names = [draft.scan.sites.name(site) or "the function", goal.name]
        known = [(name, why) for name, (why, sure) in zip(names, answers, strict=True) if sure and why]
        doubts = [f"{name}: {why}" for name, (why, sure) in zip(names, answers, strict=True) if not sure]
        if known:
            draft.refuse(index, f"{goal.name} {ELSEWHERE}; {known[0][0]}: {known[0][1]}")
        elif doubts and not request.assume_register_args:
            draft.refuse(index, f"{goal.name} {ELSEWHERE}; "
                         f"whether all of them are is not known: {'; '.join(doubts)} {OVERRIDES}")  # fmt: skip
        elif doubts:
            assumed |= dict.fromkeys(doubts)
    if assumed:
        more = f"; and {len(assumed) - SHOWN} more" if len(assumed) > SHOWN else ""
        draft.warnings.append(ASSUMED.format("; ".join(list(assumed)[:SHOWN]) + more))


def _why(types: FunctionTypes, row: int, compiled: bool) -> tuple[str, bool]:
    """(why not all arguments are in registers, empty where they are; True), or (why that is not known; False)."""
    answer = why_not_in_registers(types, row, compiled)
    if answer is not None:
        return answer, True
    told = types.prototype(row)
    return told.why if isinstance(told, NotKnown) else "its types do not tell", False
