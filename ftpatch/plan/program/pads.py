"""`enable` and `disable` where one NOP behind the entry is a switch, and those in front of it take what it leads to.

    pad       keep the return address; call; bring it back; jump behind the switch       written once, while it is off
    switch    NOP, or a jump to the pad                                         one word, which turns a hook on and off

`enable --arm` fills the pads alone; `disable` turns switches off and leaves the pads; `disable --disarm` clears them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ftpatch.arch.fronts import PadForm, Pads
from ftpatch.arch.parts import Entry
from ftpatch.arch.program_parts import Programs
from ftpatch.arrays import I64, U8, Mask
from ftpatch.elf.program_editor import SECTION
from ftpatch.errors import PolicyError, UnsupportedError
from ftpatch.plan import notes, refusals
from ftpatch.plan.caller_registers import kept_by_hook, refuse_relied_registers
from ftpatch.plan.edits import Edits, code_bytes, group
from ftpatch.plan.plan import Plan, PlanSummary
from ftpatch.plan.program.enable import HOOK_CONTEXT, KEPT, NOT_FOLLOWED, checked_target
from ftpatch.plan.program.pad_forms import FormChoice
from ftpatch.plan.program.pad_refusals import refuse_pads, refuse_states
from ftpatch.plan.program.site_refusals import one_for_each, refuse_variants
from ftpatch.plan.program.stub import HookStub, hook_stub
from ftpatch.plan.program.targets import ProgramTarget
from ftpatch.plan.request import DisableRequest, Draft, EnableRequest, new_draft
from ftpatch.plan.routes import Calls, distances, no_calls
from ftpatch.plan.targets import Target
from ftpatch.sites.fronts import filled_pads
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ARMED, ENABLED, UNTOUCHED

FILLED = "the pads stay filled: enable without --target or --hook turns the switches on again, --disarm clears them"
CHANGED = "live: a pad that calls something else now may be written only while its switch is off and no thread is in it"
HOOK_SITE = "the hook's first argument is the function's entry, as its pad and not the function has the call"
PAD_WHY = "its pad, the NOPs in front of the entry"


@dataclass(frozen=True)
class Aim:
    """What pads will call."""

    target: ProgramTarget
    form: PadForm
    va: int  # that they call: of the target, or of the stub that calls the hook
    hooked: HookStub | None = None


def plan_pads(scan: Scan, request: EnableRequest, programs: Programs) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where no pads are known."""
    pads = scan.arch.pads
    if pads is None:
        raise UnsupportedError(f"pads of {scan.arch.name} are not supported", scan.image.path,
                               todo="ftpatch scan reads them")  # fmt: skip
    draft = new_draft(scan, replace(request, chosen=one_for_each(scan.sites, request.chosen), records="keep"))
    refuse_states(draft, bool(request.target or request.hook), request.arm)
    refuse_pads(draft)
    refuse_variants(draft, programs)
    refusals.refuse_unless_skipped(draft)
    aim = _aim(draft, request, programs, pads)
    if aim is None:
        _refuse_doubtful(draft, pads, request, programs)
        refusals.refuse_unless_skipped(draft)
    else:
        kept = kept_by_hook(draft) if aim.hooked else programs.kept_registers(scan.image.code, aim.va)
        who = f"the stub of {aim.target.name}" if aim.hooked else aim.target.name
        refuse_relied_registers(draft, kept, who, request.force_target)
        calls = _calls(draft, pads, aim)
        refusals.refuse_out_of_reach(draft, Target(aim.target.va, aim.target.name, False, Entry(literal=False)), calls)
        refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused; the edits are built for the remaining sites alone.
    return _assemble(draft, pads, aim, request)


def _aim(draft: Draft, request: EnableRequest, programs: Programs, pads: Pads) -> Aim | None:
    """What the pads will call; None where they are all filled already, and stay as they are."""
    if not request.target and not request.hook:
        return None
    room = draft.shape.front or 0
    choice = FormChoice(pads, request.save, programs, draft.scan.image.code)
    target = checked_target(draft, request, programs._replace(keeps_contract=choice.judge, contract=choice.contract))
    form = choice.form(target)
    if len(form.code) > room:
        need = len(form.code)
        raise PolicyError(
            f"the NOPs in front of the entries are too few for a pad that calls {target.name}", draft.scan.image.path,
            found=f"{room} (-fpatchable-function-entry={room + 1},{room})",
            expected=f"{need} (-fpatchable-function-entry={need + 1},{need} is enough)", todo=choice.shorter(form),
        )  # fmt: skip
    if target.hook and len(draft.open()):
        behind = draft.shape.unit * form.call_at + draft.scan.arch.call.size
        target = replace(target, entry=draft.shape.unit * room - behind)
        hooked = hook_stub(draft.scan, programs, target)
        return Aim(target, form, hooked.stub.va, hooked)
    return Aim(target, form, target.va)


def _calls(draft: Draft, pads: Pads, aim: Aim) -> Calls:
    """Where the open sites' switches and pads lead."""
    sites, index, n = draft.scan.sites, draft.open(), len(draft.open())
    start = sites.va[index]
    to = np.full(n, aim.va, dtype=np.uint64)
    call = start + np.uint64(draft.shape.unit * aim.form.call_at)
    through = np.full(n, -1 if aim.hooked is None else 0, dtype=np.int64)
    return Calls(start, call, to, np.zeros(n, np.uint64), through, (aim.hooked.stub,) if aim.hooked else ())


def _as_filled(draft: Draft, pads: Pads) -> Calls:
    """As `_calls`, of pads that stay as they are."""
    sites, index = draft.scan.sites, draft.open()
    filled = filled_pads(draft.scan.image, draft.shape, sites.window[index], sites.va[index])
    start = sites.va[index] + (draft.shape.unit * filled.at).view(np.uint64)
    call_at = np.array([form.call_at for form in pads.forms], dtype=np.int64)[filled.form]
    call, n = start + (draft.shape.unit * call_at).view(np.uint64), len(index)
    return Calls(start, call, filled.target, np.zeros(n, np.uint64), np.full(n, -1, np.int64))


def _refuse_doubtful(draft: Draft, pads: Pads, request: EnableRequest, programs: Programs) -> None:
    """Armed sites whose pads call what is not shown to keep what they need kept: somebody filled them by force."""
    sites, index, image = draft.scan.sites, draft.open(), draft.scan.image
    filled = filled_pads(image, draft.shape, sites.window[index], sites.va[index])
    known: dict[tuple[int, int], str] = {}
    for site, number, va in zip(index.tolist(), filled.form.tolist(), filled.target.tolist(), strict=True):
        if request.force_target or image.place(np.array([va], dtype=np.uint64))[0][0] in image.sections_named(SECTION):
            continue
        if (number, va) not in known:
            choice = FormChoice(pads, request.save, programs, image.code)
            known[number, va] = choice.why_not(pads.forms[number], va)
        if why := known[number, va]:
            draft.reasons[site] = (
                f"its pad calls {va:#x}, which is not shown to keep what it must ({why}; "
                "--force-target takes it nevertheless)"
            )


def _pad_bytes(draft: Draft, pads: Pads, aim: Aim, index: I64) -> U8:
    """What is in front of the entries afterwards: the pad's code, and NOPs behind it."""
    shape, sites, arch = draft.shape, draft.scan.sites, draft.scan.arch
    code = np.full((len(index), shape.front or 0), arch.nop, dtype=np.uint32)
    size = len(aim.form.code)
    code[:, :size] = [word.bits for word in aim.form.code]
    start = sites.va[index].view(np.int64)
    call, last = start + shape.unit * aim.form.call_at, start + shape.unit * (size - pads.back.n_units)
    behind = sites.body_va[index].view(np.int64) + shape.size
    for branch, at, distance in (
        (arch.call, aim.form.call_at, aim.va - call), (pads.back, size - pads.back.n_units, behind - last),
    ):  # fmt: skip
        code[:, at : at + branch.n_units] = branch.encode(distance).reshape(-1, branch.n_units)
    return code_bytes(code, shape.unit)


def _assemble(draft: Draft, pads: Pads, aim: Aim | None, request: EnableRequest) -> Plan:
    """The plan's columns and its edits."""
    scan, index, shape = draft.scan, draft.open(), draft.shape
    image, sites = scan.image, scan.sites
    calls = _as_filled(draft, pads) if aim is None else _calls(draft, pads, aim)
    words = np.empty((len(index), len(shape.new)), dtype=np.uint32)
    words[:] = [word.bits for word in shape.old]
    groups = []
    if aim is not None:
        pos = image.pos(sites.sec[index], sites.off[index])
        groups.append(group("pad", image.data, index, pos, _pad_bytes(draft, pads, aim, index)))
    if not request.arm:
        switch = shape.branch.encode(distances(sites.branch_va[index], calls.branch_to))
        words[:, -shape.branch.n_units :] = switch.reshape(-1, shape.branch.n_units)
        groups.append(group("site", image.data, index, sites.pos[index], code_bytes(words, shape.unit)))
    hooked = aim.hooked if aim is not None and aim.hooked and not aim.hooked.stub.present and len(index) else None
    changed = aim is not None and bool((sites.status[groups[0].ids] == ARMED).any())
    of_hook = (HOOK_CONTEXT, HOOK_SITE, NOT_FOLLOWED) if aim is not None and aim.hooked else ()
    lines = (*((CHANGED,) if changed else ()), *of_hook, notes.BUILD_ID)
    target = aim.target if aim is not None else None
    warned = (target.warning,) if target is not None and target.warning else ()
    return Plan(
        verb="enable", scan=scan, chosen=draft.request.chosen, reasons=draft.reasons, index=index, new_words=words,
        stub=tuple(f"0x{va:016x}" for va in calls.branch_to.tolist()), stub_why=(PAD_WHY,) * len(index),
        record=("kept",) * len(index), calls=calls, gone=draft.gone(index), returned=index[:0],
        notes=(*(lines if len(index) else ()), *draft.remarks),
        summary=PlanSummary("keep", KEPT, target.name if target else "", _va_called(target, calls)),
        edits=Edits([*groups, *(hooked.header if hooked else ())], hooked.tail if hooked else ()),
        warnings=(*warned, *draft.warnings),
        forced_target=bool(warned or draft.warnings) or (aim is None and request.force_target),
        actions=("arm",) * len(index) if request.arm else (),
    )  # fmt: skip


def _va_called(target: ProgramTarget | None, calls: Calls) -> int | None:
    """va of what all calls end at; None where they end at several."""
    if target is not None:
        return int(calls.call_to[0]) if not target.hook and len(calls.call_to) else target.va
    return int(calls.call_to[0]) if len(set(calls.call_to.tolist())) == 1 else None


def plan_pads_back(scan: Scan, request: DisableRequest) -> Plan:
    """Switches are turned off, and with `disarm` pads are cleared. Raises a PlanError where that cannot be."""
    draft = new_draft(scan, replace(request, chosen=one_for_each(scan.sites, request.chosen)))
    states = (ENABLED, ARMED) if request.disarm else (ENABLED,)
    _refuse_not_on(draft, states)
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    index, shape, sites, image = draft.open(), draft.shape, scan.sites, scan.image
    n = len(index)
    words = np.empty((n, len(shape.old)), dtype=np.uint32)
    words[:] = [word.bits for word in shape.old]
    groups = [group("site", image.data, index, sites.pos[index], code_bytes(words, shape.unit))]
    if request.disarm:
        nops = np.full((n, shape.front or 0), scan.arch.nop, dtype=np.uint32)
        pos = image.pos(sites.sec[index], sites.off[index])
        groups.append(group("pad", image.data, index, pos, code_bytes(nops, shape.unit)))
    on: Mask = sites.status[index] == ENABLED
    return Plan(
        verb="disable", scan=scan, chosen=draft.request.chosen, reasons=draft.reasons, index=index, new_words=words,
        stub=("",) * n, stub_why=("",) * n, record=("kept",) * n, calls=no_calls(n), gone=draft.gone(index[:0]),
        returned=index[:0], summary=PlanSummary("keep", KEPT), edits=Edits(groups),
        notes=(FILLED,) if n and not request.disarm else (),
        actions=tuple(np.where(on, "restore", "disarm").tolist()),
    )  # fmt: skip


def _refuse_not_on(draft: Draft, states: tuple[int, ...]) -> None:
    """Sites whose switch is not on; of armed ones, where pads stay."""
    status = draft.scan.sites.status
    for at in np.flatnonzero(draft.request.chosen & ~np.isin(status, states)).tolist():
        draft.reasons[at] = (
            "its switch is off (--disarm clears its pad)" if status[at] == ARMED
            else refusals.WHY_NOT.get(int(status[at]), refusals.OTHER) if status[at] not in UNTOUCHED
            else refusals.NOT_ENABLED
        )  # fmt: skip
