"""Switches of pad-before and their pads: what is in front of each entry, whether the switch leads there, and back.

A site is ready (a NOP, and NOPs in front of the entry), armed (a NOP, and a pad) or on (a jump to the pad). Every one
of these may become every other; the pad is read word by word, in both files, whichever way the switch is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ftpatch.arch.program_parts import programs_of
from ftpatch.arch.program_proof import StubRead
from ftpatch.arch.proof_tables import CALL, JUMP, Pad
from ftpatch.arrays import I64, U32
from ftpatch.proof.case import Case, Pairs, SiteCalls
from ftpatch.proof.decoders import both, branches
from ftpatch.proof.emulate.expectation import CallExpectation, PadExpectation
from ftpatch.proof.emulate.program_memory import program_memory
from ftpatch.proof.program_calls import FORCED, NO_ROOM, ProgramTarget, ProgramTargets, own_calls
from ftpatch.proof.program_imports import Imports
from ftpatch.sites.scan import Scan

READY, ARMED, ON = "ready", "armed", "on"
TURNED = {(READY, ARMED): "site armed", (ARMED, READY): "site disarmed", (ARMED, ARMED): "pad changed"}


@dataclass(frozen=True)
class Switch:
    """A site in one of the two files."""

    state: str  # READY, ARMED or ON; otherwise why it is none of them
    pad: Pad

    @property
    def sound(self) -> bool:
        return self.state in (READY, ARMED, ON)


def check_pads(case: Case, pairs: Pairs, stubs: Mapping[int, StubRead]) -> None:
    """Own the switches and pads that went from one sound state to another; findings for the others. stubs: of hooks."""
    old, new = (_switches(case, pairs, side) for side in (case.before, case.after))
    for changed in np.flatnonzero(pairs.differs).tolist():
        if new[changed].sound:
            case.kinds[_what(old[changed].state, new[changed].state)] += 1
        else:
            pairs.say("verify-site", changed, f"{new[changed].state}; expected a NOP or a jump to a whole pad")
    sound = pairs.differs & np.array([switch.sound for switch in new], dtype=bool)
    pads = case.before.image.pos(pairs.sec[sound], pairs.record[sound])
    case.account_for("site words", pairs.pos[sound], pairs.shape.size)
    case.account_for("pad", pads, pairs.shape.unit * (pairs.shape.front or 0))
    targets = _targets(pairs, (old, new), ProgramTargets(case, stubs, Imports(case.after.image), True))
    case.callees.update(target.name for target in targets.values())
    at = np.array(list(targets), dtype=np.int64)
    va = np.array([target.va for target in targets.values()], dtype=np.uint64)
    case.calls = SiteCalls(pairs.pos[at], va, np.zeros(len(va), np.uint64))
    case.expect_later = partial(_expect, case, pairs, new, targets)


def _what(old: str, new: str) -> str:
    """The kind of an edit."""
    if new == ON:
        return "site enabled" if old != ON else "site redirected"
    return "site disabled" if old == ON else TURNED.get((old, new), "site disabled")


def _switches(case: Case, pairs: Pairs, side: Scan) -> list[Switch]:
    """The switch of every pair in one file."""
    read, shape, image = case.tables.pad, pairs.shape, side.image
    assert read is not None and shape.front
    fronts = image.words(pairs.sec, pairs.record, 0, shape.front)
    words = image.words(pairs.sec, pairs.off, 0, len(shape.new))
    kind, distance = branches(case.arch, words[:, 0] if shape.unit > 1 else words)
    start, site = (image.va(pairs.sec, off).view(np.int64).tolist() for off in (pairs.record, pairs.off))
    switches = []
    for at in range(len(pairs)):  # a Python object for every pad
        pad = read(fronts[at].tolist(), start[at])
        nop = words[at].tolist() == [word.bits for word in shape.old]
        goes_to = site[at] + int(distance[at]) if int(kind[at]) == JUMP else None
        state = _state(pad, start[at], shape.unit, site[at] + shape.size, goes_to if not nop else -1)
        switches.append(Switch(state, pad))
    _decode_twice(case, pairs, fronts, switches)
    return switches


def _state(pad: Pad, start: int, unit: int, behind: int, goes_to: int | None) -> str:
    """The state of a site, or what is wrong. goes_to: where its jump leads; −1 for a NOP, None for other code."""
    if pad.why:
        return f"in front of the entry: {pad.why}"
    if pad.form and pad.back != behind:
        return f"its pad goes on at {pad.back:#x}, not behind the site at {behind:#x}"
    if goes_to == -1:
        return ARMED if pad.form else READY
    if goes_to is None:
        return "its switch is neither a NOP nor a jump"
    if pad.form and start <= goes_to <= start + unit * pad.start:  # NOPs may lie in between
        return ON
    return f"its switch leads to {goes_to:#x}, where no pad begins"


def _decode_twice(case: Case, pairs: Pairs, fronts: U32, switches: list[Switch]) -> None:
    """Let another decoder read each pad, too: up to its call, and from there to its jump."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for at, switch in enumerate(switches):
        if switch.sound and switch.pad.form:
            groups.setdefault((switch.pad.start, switch.pad.call, switch.pad.end), []).append(at)
    for (start, call, end), rows in groups.items():
        for first, last, kind in ((start, call, CALL), (call, end, JUMP)):
            seen = both(case.arch, fronts[rows, first:last])
            for row, why, found in zip(rows, seen.why, seen.kind.tolist(), strict=True):
                if why or found != kind:
                    switches[row] = Switch(why or "its pad has another branch", switches[row].pad)


def _targets(pairs: Pairs, sides: tuple[list[Switch], list[Switch]], known: ProgramTargets) -> dict[int, ProgramTarget]:
    """What each filled pad of the second file calls, by pair; findings for those that lead nowhere good."""
    case, plain = pairs.case, {}
    targets: dict[int, ProgramTarget] = {}
    for at, (was, switch) in enumerate(zip(*sides, strict=True)):
        if not switch.sound or not switch.pad.form:
            continue
        va, form = switch.pad.target, switch.pad.form
        target = known.at(va)
        if form != "target" and target.row >= 0:  # else it is imported, and what it does is not known
            if (va, form) not in plain:
                reason = _why_not_plain(case, va, form)
                doubt = f"which was not shown to keep what a pad needs kept ({reason})" if reason else ""
                plain[va, form] = replace(target, doubt=doubt)
            target = plain[va, form]
        settled = was.pad == switch.pad and (was.state == ON or switch.state != ON)  # whoever filled it answers for it
        text = target.why or ("" if case.forced or settled else target.doubt)
        text = text or _wrong_first(pairs, switch.pad, known.stubs.get(va))
        text = text and f"its pad calls {va:#x}, {text}"
        if text := text or (own_calls(known, pairs, at) if target.function is not None else ""):
            pairs.say("verify-branch", at, text)
        else:
            targets[at] = target
    return targets


def _wrong_first(pairs: Pairs, pad: Pad, stub: StubRead | None) -> str:
    """Why the stub of a hook does not give it the function's entry; empty where it does, or there is no stub."""
    ahead = pairs.shape.unit * ((pairs.shape.front or 0) - pad.call)
    right = stub is None or stub.first == ahead
    return "" if right else "by a stub that does not give the hook the function's entry"


def _why_not_plain(case: Case, va: int, form: str) -> str:
    """Why the code at an address is no function that returns as any other, and keeps what a pad needs kept."""
    programs = programs_of(case.arch)
    if programs is None or programs.returns_plainly is None:
        return "nothing here can tell what its code does"
    return programs.returns_plainly(case.after.image.code, va, form == "pad")


def _expect(case: Case, pairs: Pairs, switches: list[Switch], targets: dict[int, ProgramTarget]) -> None:
    """What is to be seen when the sites are executed: up to what the pad calls and back, and all of it in one run."""
    image, unit = case.after.image, pairs.shape.unit
    case.memory = memory = program_memory(image, {va: slot.name for va, slot in Imports(image).slots.items()})
    first: I64 = image.va(pairs.sec, pairs.record).view(np.int64)
    resume = pairs.va(pairs.off).view(np.int64) + pairs.shape.size
    for at, target in targets.items():
        if target.doubt or memory is None:
            case.unclaimed.append(f"{pairs.name(at)}: {FORCED if target.doubt else NO_ROOM}")
            continue
        pad, name, on = switches[at].pad, pairs.name(at), switches[at].state == ON
        entry = int(image.base[int(pairs.sec[at])]) + pairs.entry_off(at)  # a hook gets this
        start, behind = (int(first[at]) + unit * place for place in (pad.start, pad.call))
        function = target.function
        if function is not None and target.row < 0:
            function = memory.imports[target.name.removesuffix("@plt")]
        case.expectations += (
            PadExpectation(name, entry, int(resume[at]), pad.target, start, behind, pad.form, on),
            CallExpectation(name, entry if on else start, entry, int(resume[at]), pad.target, function),
        )  # fmt: skip
