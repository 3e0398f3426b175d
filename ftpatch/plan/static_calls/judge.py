"""Whether a key may call what it is to: the function's place, its type, and whether it comes back."""

from __future__ import annotations

import numpy as np

from ftpatch.elf.c_types import WHOLE_NUMBERS, Kind, NotKnown, Prototype
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.kernel.callee import NOINSTR, is_freed, kind_of_code, why_never_returns, why_no_function
from ftpatch.kernel.init_text import in_init_text
from ftpatch.kernel.signatures import Comparison, compare_prototypes, compare_signatures, is_assembly, not_compared
from ftpatch.plan.static_calls.lookup import symbol_at
from ftpatch.plan.static_calls.request import NULL, RETURN0, Goal, SetDraft
from ftpatch.plan.static_calls.state import place
from ftpatch.sites.static_keys import TRAMPOLINE

EQUAL = "equal"  # how the text about two types begins, where they agree
FORCE = "(--force-signature overrides)"
SHOWN = 3  # texts of a kind that are told one by one
NUMBERS = (*WHOLE_NUMBERS, Kind.POINTER)


def refuse_wrong_functions(draft: SetDraft, types: FunctionTypes) -> None:
    """Keys that may not call what they are to. types: of the file with the keys."""
    declared = types.declared([TRAMPOLINE + draft.name(key) for key in draft.open()])
    doubts: list[str] = []
    for key in draft.open():
        goal, row = draft.goals[key], symbol_at(draft.table.image, draft.table.keys.func, key)
        row = None if draft.holds[key] == RETURN0 else row
        if goal.kind == "function":
            _refuse_place(draft, types, key, row)
        told = declared.get(TRAMPOLINE + draft.name(key))
        mine = told if told is not None else types.prototype(row) if row is not None else NotKnown(_unknown(types))
        if goal.kind in (NULL, RETURN0):
            _refuse_no_effect(draft, key, goal, mine)
            continue
        compared = _compared(draft, types, key, None if told is not None else row, mine)
        doubts += [compared.warning] if compared.warning else []
        _judge(draft, key, goal, compared)
    draft.warnings += doubts[:SHOWN]
    if len(doubts) > SHOWN:
        draft.warnings.append(f"{len(doubts) - SHOWN} more types could not be compared, or differ in little")
    warnings = _noinstr_callers(draft)
    draft.warnings += warnings[:SHOWN]
    if len(warnings) > SHOWN:
        draft.warnings.append(f"{len(warnings) - SHOWN} more static calls have callers that are {NOINSTR}")


def _unknown(types: FunctionTypes) -> str:
    """Why the type of a key without a function is not known."""
    return "it calls no function in this file, and no debug information declares it"


def _compared(
    draft: SetDraft, types: FunctionTypes, key: int, row: int | None, mine: Prototype | NotKnown
) -> Comparison:
    """How the type of a goal's function differs from its key's. row: of the symbol of the function that the key calls,
    where that alone tells the type."""
    goal, name = draft.goals[key], draft.name(key)
    if goal.types is None:
        return Comparison(warning=f"the type of {goal.name} is not known: {goal.why}")
    compiled = goal.types is types and _has_site(draft, goal.row)
    if row is not None:
        return compare_signatures(types, row, goal.types, goal.row, compiled)
    other = goal.types.prototype(goal.row)
    if isinstance(mine, NotKnown) or isinstance(other, NotKnown) or (not compiled and is_assembly(mine, other)):
        return Comparison(warning=not_compared((name, goal.name), mine, other))
    return compare_prototypes((name, goal.name), mine, other, types.image.arch.widens)


def _has_site(draft: SetDraft, row: int) -> bool:
    """Whether a function has a patch site, as only compilers make them."""
    functions = draft.scan.image.functions
    starts = functions.va[functions.row == row]
    return bool(len(starts) and (draft.scan.sites.entry_va == starts[0]).any())


def _judge(draft: SetDraft, key: int, goal: Goal, compared: Comparison) -> None:
    """What reports say of two types; a key with another type than its function is refused."""
    different = compared.different
    if different and not draft.request.force_signature:
        draft.refuse(key, f"its type is not that of {goal.name}: {different} {FORCE}")
    elif different:
        draft.warnings.append(f"the types of {draft.name(key)} and {goal.name} differ: {different}; forced")
    draft.signatures[key] = different or compared.warning or f"{EQUAL} ({compared.source})"


# -- NULL and return0 --------------------------------------------------------------------------------------------------


def _refuse_no_effect(draft: SetDraft, key: int, goal: Goal, mine: Prototype | NotKnown) -> None:
    """Keys whose callers use a result that NULL or return0 does not give."""
    name, forced = draft.name(key), draft.request.force_signature
    if isinstance(mine, NotKnown):
        needs = "nothing" if goal.kind == NULL else "a number"
        draft.warnings.append(f"whether callers of {name} expect {needs} as its result is not known: {mine.why}")
        draft.signatures[key] = f"not known: {mine.why}"
        return
    result = mine.result
    draft.signatures[key] = f"returns {result.text} ({mine.source})"
    void = result.kind is Kind.VOID
    if goal.kind == NULL and not void:
        why = f"its callers use what it returns ({result.text}), which NULL leaves as it happens to be"
    elif goal.kind == RETURN0 and void:
        why = "it returns nothing (void): NULL is what such a static call is set to"
    elif goal.kind == RETURN0 and (result.kind not in NUMBERS or (result.size or 0) > 8):
        why = f"it returns {result.text}, of which {RETURN0} fills only the register of a number"
    else:
        return
    if forced:
        draft.warnings.append(f"{name} becomes {goal.name}: {why}; forced")
    else:
        draft.refuse(key, f"{why} {FORCE}")


# -- where the function is ---------------------------------------------------------------------------------------------


def _refuse_place(draft: SetDraft, types: FunctionTypes, key: int, row: int | None) -> None:
    """A key whose function cannot be called from its sites. row: of the symbol of the function that it calls now."""
    goal, image = draft.goals[key], draft.table.image
    if goal.types is None:
        return
    static, symbols = image.arch.static_calls, goal.types.image.symbols
    own = goal.types.image is image
    if why := why_no_function(goal.types.image, goal.row):
        draft.refuse(key, f"{goal.name} is no function: {why}")
    elif symbols.name(goal.row).startswith(TRAMPOLINE):
        draft.refuse(key, f"{goal.name} is a static call's trampoline, and no function")
    elif static is not None and goal.name == static.thunk:
        draft.refuse(key, f"{goal.name} does nothing but return: {NULL} is what a static call without effect is set to")
    elif static is not None and static.register_jumps and goal.name.startswith(static.register_jumps):
        draft.refuse(key, f"{goal.name} goes on to where a register says, and is no function")
    elif goal.name in _entries(draft):
        draft.refuse(key, f"{goal.name} is called from patch sites alone, which are no function calls")
    elif own and is_freed(image, goal.row) and not _all_init(draft, key):
        when = "after boot" if image.linked else "once the module runs"
        draft.refuse(key, f"{goal.name} is init text, which is freed {when}, and not all of its sites are")
    elif why := _apart(draft, goal, row):
        draft.refuse(key, why)
    never = why_never_returns(goal.types, goal.row)
    if never and not (row is not None and why_never_returns(types, row)):
        draft.refuse(key, f"{goal.name} never returns{f': {never}' if never != goal.name else ''}")


def _entries(draft: SetDraft) -> tuple[str, ...]:
    arch = draft.scan.arch
    return (*arch.entries, *(shape.called for shape in arch.shapes if shape.called))


def _all_init(draft: SetDraft, key: int) -> bool:
    """Whether a key has sites, and all of them are freed with init memory."""
    calls, image = draft.table.calls, draft.table.image
    mine = calls.key == key
    if image.linked:
        return bool(mine.any() and in_init_text(image, image.va(calls.sec, calls.off)[mine]).all())
    return bool(mine.any()) and all(image.names[sec].startswith(".init") for sec in calls.sec[mine].tolist())


def _apart(draft: SetDraft, goal: Goal, row: int | None) -> str:
    """Why a function is of a kind of code that is not called from elsewhere; empty where it may be."""
    assert goal.types is not None
    kind = _kind(goal.types, goal.row)
    mine = _kind(FunctionTypes(draft.table.image), row) if row is not None and kind not in ("", NOINSTR) else ""
    return f"{goal.name} is {kind}, and what it calls now is not" if kind not in ("", NOINSTR, mine) else ""


def _kind(types: FunctionTypes, row: int) -> str:
    symbols = types.image.symbols
    return kind_of_code(types.image, int(symbols.shndx[row]), int(symbols.rows["st_value"][row]))


def _noinstr_callers(draft: SetDraft) -> list[str]:
    """Which keys have sites in code that calls only its own kind, where the function is not of it: a text each."""
    calls, image, texts = draft.table.calls, draft.table.image, []
    for key in draft.open():
        goal = draft.goals[key]
        if goal.kind != "function" or goal.types is None or _kind(goal.types, goal.row) == NOINSTR:
            continue
        sites = []
        for site in np.flatnonzero((calls.key == key) & (calls.sec >= 0)).tolist():
            sec, value = int(calls.sec[site]), int(calls.off[site])
            if kind_of_code(image, sec, value + (int(image.base[sec]) if image.linked else 0)) == NOINSTR:
                sites.append(place(draft.table, site))
        if sites:
            more = f" and {len(sites) - SHOWN} more" if len(sites) > SHOWN else ""
            texts.append(f"{goal.name} may be traced or trap, and {draft.name(key)} is called where nothing may "
                         f"({NOINSTR}): {', '.join(sites[:SHOWN])}{more}")  # fmt: skip
    return texts
