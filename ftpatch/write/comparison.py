"""A plan against what the proof saw of the written file: the bytes, the sites, where each call ends, the records.

The proof knows nothing of plans, and says whether the file is sound; here it is said whether it is the one that was
planned.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import U64
from ftpatch.elf.image import Image
from ftpatch.errors import ApplyError, UnsoundError
from ftpatch.plan.plan import Callee, Plan
from ftpatch.proof.case import Intent
from ftpatch.proof.changes import uncovered
from ftpatch.proof.prove import Checks, Proof, prove

N_SHOWN = 3


def check_result(plan: Plan, after: Image) -> None:
    """Raise ApplyError where the file that was written, read again from zero, is not what the plan says or not sound.

    Nothing is executed here, and no second reader asked, as that would cost more than all else; `verify` does it.
    """
    dropped = plan.scan.sites.pos[plan.index] if plan.verb == "drop" else np.zeros(0, np.int64)
    # what the file alone does not tell
    intent = Intent(dropped, plan.summary.records == "keep", plan.forced_target, plan.recording is not None)
    patch = plan.asked.patch if plan.asked is not None and len(plan.index) else None
    objects = (patch,) if patch is not None else ()
    checks = Checks(execute=False, deep=None, layout=plan.scan.sites.forced, objects=objects)
    proof = prove(plan.scan, after, intent=intent, checks=checks)
    require_bytes(plan, proof)
    try:
        require_planned(plan, proof)
    except ApplyError:
        _require_sound_before(plan, proof)
        raise


def require_bytes(plan: Plan, proof: Proof) -> None:
    """Every byte of the result is the input's byte or the plan's."""
    before, after, edits = plan.scan.image.data, proof.after.data, plan.edits
    grown = np.frombuffer(edits.grown, dtype=np.uint8)
    if len(after) != len(before) + len(grown):
        raise failed(proof.after, "the size", f"{len(after)} bytes, planned {len(before) + len(grown)}")
    if not np.array_equal(after[len(before) :], grown):
        raise failed(proof.after, "what was appended", "other bytes than planned")
    if stray := uncovered(proof.runs, [(part.pos, part.new.shape[1]) for part in edits.groups]):
        raise failed(proof.after, "a byte that no edit owns", f"a change at file position {stray[0][0]:#x}")
    for part in edits.groups:
        if not np.array_equal(after.rows(part.pos, part.new.shape[1]), part.new):
            raise failed(proof.after, f"the {part.kind} edits", "other bytes than planned")


def require_planned(plan: Plan, proof: Proof) -> None:
    """The proof finds no fault, and saw the plan's sites, records and calls."""
    if proof.findings:
        more = f" (and {len(proof.findings) - 1} more findings)" if len(proof.findings) > 1 else ""
        first = proof.findings[0]
        raise failed(proof.after, first.rule, first.message + more, "nothing that verify finds")
    sites, index, back = plan.scan.sites, plan.index, plan.returned
    changed = np.sort(sites.pos[index]) if plan.new_words.shape[1] else np.zeros(0, np.int64)
    came = (sites.sec[back], sites.off[back]) if plan.recording is None else (plan.recording.sec, plan.recording.off)
    places = [sorted(zip(sec.tolist(), off.tolist(), strict=True)) for sec, off in (proof.returned, came)]
    for noun, did, seen, planned in (
        ("sites", "changed", proof.changed.tolist(), changed.tolist()),
        ("records", "left", proof.gone.tolist(), np.flatnonzero(plan.gone).tolist()),
        ("records", "came back", *places),
    ):
        if seen != planned:
            raise failed(proof.after, f"the {noun}", f"{len(seen)} that {did}, planned {len(planned)}, or others")
    if plan.verb == "enable" and len(index):
        _require_calls(plan, proof)
    if plan.verb == "redirect" and len(index):
        _require_redirects(plan, proof)
    _require_static_calls(plan, proof)


def _require_sound_before(plan: Plan, proof: Proof) -> None:
    """Raise UnsoundError where the file that was to be patched, held against itself, has findings already: that is no
    fault of the patch, and of this program neither. One that the result has too is told before others."""
    image = plan.scan.image
    before = prove(plan.scan, image, checks=Checks(execute=False, deep=None)).findings
    if not before:
        return
    after = {finding.message for finding in proof.findings}
    first = next((finding for finding in before if finding.message in after), before[0])
    raise UnsoundError("the file is not sound before it is patched", image.path,
                       found=f"{first.rule}: {first.message}", expected="nothing that verify finds",
                       todo="ftpatch verify FILE FILE shows all of it")  # fmt: skip


def _require_calls(plan: Plan, proof: Proof) -> None:
    """Every planned site calls what was planned, with the planned ops."""
    calls, pos = proof.calls, plan.scan.sites.pos[plan.index]
    order = np.argsort(calls.pos)  # sections need not lie in the file in the order of their numbers
    near = np.minimum(np.searchsorted(calls.pos[order], pos), max(len(order) - 1, 0))
    if not len(order) or not np.array_equal(calls.pos[order[near]], pos):
        raise failed(proof.after, "the calls", "a site that is not seen to call anything")
    if not plan.summary.target:  # pads that stay as they were: what they call is no part of the plan
        return
    row = order[near]
    if plan.callee is None:
        bad = np.flatnonzero((calls.target[row] != _targets(plan)) | (calls.ops[row] != np.uint64(plan.ops_va or 0)))
        shown = [f"{int(calls.target[row[at]]):#x} with ops at {int(calls.ops[row[at]]):#x}" for at in bad[:N_SHOWN]]
    else:
        names, ops = _names(plan.callee), bool(plan.callee.ops_size)
        right = [calls.names[of] <= names and bool(calls.ops[of]) == ops for of in row.tolist()]  # Python sets
        bad = np.flatnonzero(~np.array(right))
        shown = [", ".join(sorted(calls.names[row[at]])) or "nothing" for at in bad[:N_SHOWN]]
    if len(bad):
        found = f"{len(bad)} sites that call {'; '.join(shown)}, planned {plan.summary.target}"
        raise failed(proof.after, "the calls", found)


def _require_redirects(plan: Plan, proof: Proof) -> None:
    """Every planned site leads to the planned replacement."""
    pos, target = proof.redirects.pos.tolist(), proof.redirects.target.tolist()
    seen = dict(zip(pos, zip(target, proof.redirects.names, strict=True), strict=True))
    for place, planned in zip(plan.scan.sites.pos[plan.index].tolist(), plan.redirects, strict=True):
        va, name = seen.get(place, (0, "nothing"))
        if va != (planned.va or 0) or (planned.va is None and name != planned.name):
            raise failed(proof.after, "the redirects", f"a site that leads to {name}, planned {planned.name}")


def _require_static_calls(plan: Plan, proof: Proof) -> None:
    """Every planned static call, and no other, calls what was planned."""
    planned = {call.key: call for call in plan.set_calls if call.left is None}
    for key in sorted(planned.keys() | proof.set_calls.keys()):
        wanted, seen = planned.get(key), proof.set_calls.get(key)
        if wanted is None or seen is None or wanted.va != seen.va or (not seen.va and wanted.to != seen.name):
            names = [str(getattr(side, name, "nothing new")) for side, name in ((seen, "name"), (wanted, "to"))]
            raise failed(proof.after, "the static calls", f"{key} that calls {names[0]}, planned {names[1]}")


def _targets(plan: Plan) -> U64:
    """va where the call of each patched site is to end. A trampoline area of the kernel's own leads to its last entry,
    as that is what the kernel itself will write there."""
    arch, symbols = plan.scan.arch, plan.scan.image.symbols
    entries = [va for name in arch.entries if (va := symbols.value(name)) is not None]
    areas, target = arch.far.areas if arch.far else (), plan.summary.target_va or 0
    ends = [entries[-1] if stub.name in areas else target for stub in plan.calls.shared]
    return np.array([*ends, target], dtype=np.uint64)[plan.calls.through]  # −1: no stub, the last of them


def _names(callee: Callee) -> frozenset[str]:
    """The symbols that a call of a module's site may lead to."""
    own = {callee.name} if callee.code is None else {name for role, name in callee.names if role not in callee.data}
    return frozenset(own | (_names(callee.target) if callee.target else frozenset()))


def failed(after: Image, what: str, found: str, expected: str = "what the plan says") -> ApplyError:
    """The error of a result that is not what was planned."""
    return ApplyError(f"self-check failed on {what}", after.path, found=found, expected=expected,
                      todo="the output was not kept; please report this")  # fmt: skip
