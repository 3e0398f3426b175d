"""`static-calls --set` for kernels: the pointer in the key, the jump of the trampoline, and the relocations of both."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.static_call_forms import StaticCallForm, StaticCalls
from ftpatch.arrays import I64, U8, U64
from ftpatch.elf.code_lists import self_relative
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.elf.image import Image
from ftpatch.errors import SelectionError
from ftpatch.kernel.callee import why_no_function
from ftpatch.plan import notes
from ftpatch.plan.edits import Edits, Group, as_bytes, group
from ftpatch.plan.plan import Plan
from ftpatch.plan.redirect.replacement import find_replacement
from ftpatch.plan.routes import distances
from ftpatch.plan.static_calls.judge import refuse_wrong_functions
from ftpatch.plan.static_calls.literals import by_literals, literal_groups, refuse_pointers
from ftpatch.plan.static_calls.lookup import find_key
from ftpatch.plan.static_calls.made import plan_of
from ftpatch.plan.static_calls.reaches import warn_of_ways_back
from ftpatch.plan.static_calls.relocations import Pointing, groups_of, why_not_followed
from ftpatch.plan.static_calls.request import NULL, RETURN0, Goal, SetDraft, SetRequest, Setting
from ftpatch.plan.static_calls.state import refuse_what_is_so, refuse_wrong_states
from ftpatch.plan.static_calls.updates import warn_of_updates
from ftpatch.sites.scan import Scan
from ftpatch.sites.static_calls import read_static_calls

POINTER = 8  # bytes


def plan_kernel_settings(scan: Scan, request: SetRequest) -> Plan:
    """Decide everything. Raises a PlanError where some key cannot be set."""
    image, table = scan.image, read_static_calls(scan.image)
    types = FunctionTypes(image)
    goals = {find_key(table, setting): _goal(types, setting) for setting in request.settings}
    draft = SetDraft(scan, table, request, goals)
    refuse_wrong_states(draft)
    refuse_what_is_so(draft)
    refuse_wrong_functions(draft, types)
    if by_literals(image):
        refuse_pointers(draft)
    else:
        _refuse_jumps(draft)
    draft.require_all()

    # From here on nothing is refused for a single key.
    warn_of_ways_back(draft)
    warn_of_updates(draft)
    edits = Edits(literal_groups(draft) if by_literals(image) else _edits(draft))
    return plan_of(draft, edits, [notes.BUILD_ID, notes.SIGNATURE] if draft.open() else [])


def _refuse_jumps(draft: SetDraft) -> None:
    """Keys whose trampoline's jump does not reach, and those whose relocations cannot follow."""
    for key in draft.open():
        if why := _out_of_reach(draft, key):
            draft.refuse(key, why)
    places = [place for key in draft.open() for place in _places(draft, key)]
    for key, why in why_not_followed(draft.table.image, places).items():
        draft.refuse(key, why)


def _goal(types: FunctionTypes, setting: Setting) -> Goal:
    """What a setting's key is to call. Raises SelectionError or PolicyError for what is no function of this kernel."""
    image, static = types.image, types.image.arch.static_calls
    assert static is not None  # the table was read
    if setting.to == NULL:
        return Goal(NULL, NULL)
    row = image.symbols.defined(static.return0)
    if setting.to in (RETURN0, static.return0):
        if row is None or (why := why_no_function(image, row)):
            found = f"no {static.return0} in .symtab" if row is None else f"{static.return0}, {why}"
            raise SelectionError("this kernel has no function that returns 0 for static calls",
                                 setting.option + RETURN0, found=found, expected="a kernel from 5.12 on")  # fmt: skip
        return Goal(RETURN0, RETURN0, types, row, row)
    function = find_replacement(image, setting.to, setting.option)
    if row is not None and function.va == int(image.symbols.rows["st_value"][row]):  # by its address, or another name
        return Goal(RETURN0, RETURN0, types, row, row)
    return Goal("function", function.name, types, function.row, function.row)


def _target(image: Image, goal: Goal) -> int:
    return int(image.symbols.rows["st_value"][goal.own_row]) if goal.own_row >= 0 else 0


def jump_of(static: StaticCalls) -> StaticCallForm:
    """The form of a trampoline that goes to a function."""
    return next(form for form in static.trampolines if form.branch is not None)


def _trampoline_va(draft: SetDraft, key: int) -> int:
    sec, off = draft.table.trampolines
    return int(draft.table.image.base[sec[key]]) + int(off[key])


def _leads_to(draft: SetDraft, key: int) -> int:
    """va that the trampoline's jump is to go to; 0 where it returns at once without one."""
    image, goal, static = draft.table.image, draft.goals[key], draft.table.image.arch.static_calls
    assert static is not None
    if goal.kind != NULL:
        return _target(image, goal)
    thunk = image.symbols.value(static.thunk)
    return thunk if thunk is not None and _trampoline_va(draft, key) in _returns(draft) else 0


def _returns(draft: SetDraft) -> set[int]:
    """va of the code that the kernel knows as returns through its thunk, and rewrites at boot."""
    if not draft.returns:
        draft.returns.add(-1)  # read
        image, static = draft.table.image, draft.table.image.arch.static_calls
        assert static is not None
        start, stop = (image.symbols.value(name) for name in static.return_sites[:2])
        pos = image.pos_of_va(start) if start is not None else -1
        if start is not None and stop is not None and pos >= 0 and start < stop:
            fields = image.data[pos : min(pos + stop - start, len(image.data))]
            draft.returns.update(self_relative(fields, start).tolist())
    return draft.returns


def _out_of_reach(draft: SetDraft, key: int) -> str:
    """Why a trampoline's jump does not reach the function; empty where it does."""
    static, to = draft.table.image.arch.static_calls, _leads_to(draft, key)
    assert static is not None
    branch = jump_of(static).branch
    assert branch is not None
    distance = distances(np.array([_trampoline_va(draft, key)], dtype=np.uint64), np.uint64(to))
    if not to or branch.reaches(distance)[0]:
        return ""
    span = f"a jump spans {branch.low:+#x}..{branch.high:+#x}"
    return f"out of reach: {int(distance[0]):+#x} bytes from its trampoline to {draft.goals[key].name}, {span}"


def _places(draft: SetDraft, key: int) -> list[Pointing]:
    """The two places that have relocations: the key's pointer, and the field of the trampoline's jump."""
    image, goal, static = draft.table.image, draft.goals[key], draft.table.image.arch.static_calls
    assert static is not None
    keys, (sec, _), branch = draft.table.keys, draft.table.trampolines, jump_of(static).branch
    assert branch is not None
    to, field = _leads_to(draft, key), branch.lsb // 8
    thunk = image.symbols.defined(static.thunk) if static.thunk else None
    row = goal.own_row if goal.kind != NULL else -1 if thunk is None else thunk
    va = int(image.base[keys.sec[key]]) + int(keys.off[key])
    return [
        Pointing(key, int(keys.sec[key]), va, image.arch.abs64, _target(image, goal), goal.own_row),
        Pointing(key, int(sec[key]), _trampoline_va(draft, key) + field, static.distance, to, row, branch.base - field),
    ]


def _edits(draft: SetDraft) -> Iterator[Group]:
    """The keys' pointers, the trampolines' code, and the relocations of both."""
    image, keys = draft.table.image, draft.table.keys
    open_keys: I64 = np.array(draft.open(), dtype=np.int64)
    pointers: U64 = np.array([_target(image, draft.goals[key]) for key in open_keys.tolist()], dtype=np.uint64)
    yield group("key", image.data, open_keys, image.pos(keys.sec[open_keys], keys.off[open_keys]), as_bytes(pointers))
    sec, off = draft.table.trampolines
    code = np.array([_code(draft, key) for key in open_keys.tolist()], dtype=np.uint8)
    if len(open_keys):
        yield group("trampoline", image.data, open_keys, image.pos(sec[open_keys], off[open_keys]), code)
    yield from groups_of(image, [place for key in open_keys.tolist() for place in _places(draft, key)])


def _code(draft: SetDraft, key: int) -> U8:
    """A trampoline's code, up to its signature."""
    static, to = draft.table.image.arch.static_calls, _leads_to(draft, key)
    assert static is not None
    branch = jump_of(static).branch
    assert branch is not None
    if not to:
        return np.frombuffer(static.null, np.uint8)
    distance = distances(np.array([_trampoline_va(draft, key)], dtype=np.uint64), np.uint64(to))
    return np.asarray(branch.encode(distance)[0].astype(np.uint8))
