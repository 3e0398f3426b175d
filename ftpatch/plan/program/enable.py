"""`enable` for programs: from sites and a request to a plan, every byte that will change and who wants it.

--target    each site calls a function that keeps all that a function may be called with
--hook      each site calls one stub, which keeps all that itself and calls a C function as hook(site, caller)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.arch.parts import Entry
from ftpatch.arch.program_parts import Programs
from ftpatch.errors import PolicyError, ShapeError
from ftpatch.plan import notes, refusals
from ftpatch.plan.caller_registers import kept_by_hook, refuse_relied_registers
from ftpatch.plan.edits import Edits, code_bytes, group
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary
from ftpatch.plan.program.chains import chain_to
from ftpatch.plan.program.site_refusals import one_for_each, refuse_sites
from ftpatch.plan.program.stub import HookStub, hook_stub
from ftpatch.plan.program.targets import ProgramTarget, direct_target, hook_target
from ftpatch.plan.request import DisableRequest, Draft, EnableRequest, new_draft
from ftpatch.plan.routes import Calls, distances
from ftpatch.plan.targets import Target
from ftpatch.sites.scan import Scan

KEPT = "a program's records are read by tools alone, and stay"
HOOK_CONTEXT = (
    "the hook runs as hook(site, caller) on whatever thread calls the function, in signal handlers, too; it must not "
    "throw or longjmp, and a backtrace from it by unwind tables ends at the stub"
)
NOT_FOLLOWED = (
    "whether the hook comes back to a patched function is known of direct calls of this file alone, not of calls "
    "through pointers or of imported functions"
)


def plan_program_enable(scan: Scan, request: EnableRequest, programs: Programs) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where the file or its layout cannot be patched."""
    draft = new_program_draft(scan, replace(request, records="keep"))
    target = checked_target(draft, request, programs)
    refuse_sites(draft, programs, target)
    who = f"the stub of {target.name}" if target.hook else target.name
    refuse_relied_registers(draft, _kept(draft, programs, target), who, request.force_target)
    refusals.refuse_unless_skipped(draft)
    used = target.hook and len(draft.open()) > 0
    hooked = hook_stub(scan, programs, target, draft.shape.anywhere) if used else None
    calls = _calls(draft, target, hooked)
    refusals.refuse_out_of_reach(draft, _reached(target, hooked), calls)
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused; the edits are built for the remaining sites alone.
    return _assemble(draft, target, hooked, _calls(draft, target, hooked))


def _reached(target: ProgramTarget, hooked: HookStub | None) -> Target:
    """What a call of a site must reach: with a hook, the stub behind everything that is loaded (.bss included)."""
    va, name = (hooked.stub.va, f"new code that calls {target.name}") if hooked else (target.va, target.name)
    return Target(va, name, False, Entry(literal=False))


def new_program_draft(scan: Scan, request: EnableRequest | DisableRequest) -> Draft:
    """A draft for the chosen sites, each once. Raises PolicyError or ShapeError where a program's cannot be changed."""
    if scan.sites.shape is None:
        raise PolicyError("no patch site in this file", scan.image.path, found="no record, and no call of a profiler",
                          expected="a program compiled with -fpatchable-function-entry")  # fmt: skip
    if scan.sites.shape.out_of_line:
        raise ShapeError(f"layout {scan.sites.shape.name} cannot be enabled in a program", scan.image.path,
                         found="one NOP, where the return address must be saved before a call",
                         expected="-fpatchable-function-entry=2")  # fmt: skip
    return new_draft(scan, replace(request, chosen=one_for_each(scan.sites, request.chosen)))


def checked_target(draft: Draft, request: EnableRequest, programs: Programs) -> ProgramTarget:
    """What the sites will call, and that it does not come back to one of them."""
    image, sites = draft.scan.image, draft.scan.sites
    if request.hook:
        target = hook_target(image, programs, request.hook, request.force_target)
    else:
        target = direct_target(image, programs, request.target, request.force_target, draft.shape.library)
    if target.own is None:
        return target
    where = f"--hook {request.hook}" if request.hook else f"--target {request.target}"
    index = draft.open()
    chosen = frozenset(np.concatenate([sites.entry_va[index], sites.local_va[index]]).tolist())
    if target.va in chosen:
        raise PolicyError("what the sites would call is itself among the chosen ones", where,
                          found="a call that leads back to itself", expected="a function that stays as it is",
                          todo=f"--func '!{target.own.name}' leaves it out")  # fmt: skip
    if chain := chain_to(image, programs, target.va, chosen):
        raise PolicyError("what the sites would call comes back to one of them, without end", where,
                          found=" -> ".join(chain), expected="a function that calls none of them",
                          todo=f"--func '!{chain[-1]}' leaves that one out")  # fmt: skip
    return target


def _kept(draft: Draft, programs: Programs, target: ProgramTarget) -> int:
    """The registers that what the sites call gives back as they were, as bits; none of an import, taken by force."""
    if target.hook:
        return kept_by_hook(draft)
    return programs.kept_registers(draft.scan.image.code, target.va) if target.own is not None else 0


def _calls(draft: Draft, target: ProgramTarget, hooked: HookStub | None) -> Calls:
    """Where the calls of the open sites go."""
    branch_va = draft.scan.sites.branch_va[draft.open()]
    n = len(branch_va)
    to = np.full(n, target.va if hooked is None else hooked.stub.va, dtype=np.uint64)
    if hooked is None and target.own is not None:
        to[:] = _local_entry(draft, target.own.row)
    through = np.full(n, -1 if hooked is None else 0, dtype=np.int64)
    return Calls(to, branch_va, to, np.zeros(n, np.uint64), through, (hooked.stub,) if hooked else ())


def _local_entry(draft: Draft, row: int) -> int:
    """va at which a function of the file is entered from within it."""
    functions = draft.scan.image.functions
    at = np.flatnonzero(functions.row == row)
    return int(functions.local[at[0]]) if len(at) else int(draft.scan.image.symbols.rows["st_value"][row])


def _assemble(draft: Draft, target: ProgramTarget, hooked: HookStub | None, calls: Calls) -> Plan:
    """The plan's columns and its edits."""
    scan, index, shape = draft.scan, draft.open(), draft.shape
    words = np.empty((len(index), len(shape.new)), dtype=np.uint32)
    words[:] = [word.bits for word in shape.new]
    distance = distances(calls.call_va, calls.call_to)
    words[:, -shape.branch.n_units :] = shape.branch.encode(distance).reshape(-1, shape.branch.n_units)
    groups = [group("site", scan.image.data, index, scan.sites.pos[index], code_bytes(words, shape.unit))]
    stub = hooked.stub if hooked else None
    new = hooked is not None and not hooked.stub.present and len(index) > 0
    edits = Edits([*groups, *(hooked.header if hooked and new else ())], hooked.tail if hooked and new else ())
    lines = [HOOK_CONTEXT, NOT_FOLLOWED, notes.BUILD_ID] if hooked else [notes.BUILD_ID]
    lines += notes.not_seen_again(scan, index, "keep", hooked is not None)
    warned = (target.warning,) if target.warning else ()
    return Plan(
        verb="enable", scan=scan, chosen=draft.request.chosen, reasons=draft.reasons, index=index, new_words=words,
        stub=(f"0x{stub.va:016x}" if stub else "",) * len(index), stub_why=(stub.why if stub else "",) * len(index),
        record=tuple(np.where(scan.sites.row[index] >= 0, RECORD_OUTCOMES["keep"], "none").tolist()), calls=calls,
        gone=draft.gone(index), returned=index[:0], notes=(*(lines if len(index) else ()), *draft.remarks),
        summary=PlanSummary("keep", KEPT, target.name, _va_called(target, calls)), edits=edits,
        warnings=(*warned, *draft.warnings), forced_target=bool(warned or draft.warnings),
    )  # fmt: skip


def _va_called(target: ProgramTarget, calls: Calls) -> int:
    """va of what the calls end at."""
    return int(calls.call_to[0]) if not target.hook and len(calls.call_to) else target.va
