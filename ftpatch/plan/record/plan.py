"""From a request to a Plan: which places get records, in which section, and every byte that changes for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import Shape, begins_with
from ftpatch.arrays import Mask, is_in
from ftpatch.elf.editor import Editor
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.plan.module.records import edits_of
from ftpatch.plan.plan import Plan, PlanSummary
from ftpatch.plan.record.build import places_from
from ftpatch.plan.record.calls import are_recorded, calls_of, make_nops, pointer_text
from ftpatch.plan.record.entries import layout_of, table_of, why_not
from ftpatch.plan.record.existing import read_existing
from ftpatch.plan.record.places import NOWHERE, Places, as_records, joined
from ftpatch.plan.record.request import RecordRequest, section_name
from ftpatch.plan.record.sections import SectionWriter, base_symbols
from ftpatch.plan.recording import Recording
from ftpatch.plan.routes import no_calls
from ftpatch.sites import select
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import record_names
from ftpatch.sites.scan import Scan, bare_scan, require_text
from ftpatch.sites.table import UNTOUCHED

N_SHOWN = 3
SHOWN = 16  # bytes of code in a refusal
NOTHING = "nothing to do: {n} records are there, and the file shows no other that belongs there"
UNTRACED = "no record for {n} of {called} in {sections}: no kernel traces what is there{nop}"
UNTRACED_THERE = "{n} records of the other build are left out: no kernel traces exit functions"
NO_BASE = "its section {section} has no symbol that a record could count from, but weak ones"
STAY_CALLS = "recorded calls stay calls: {why}. --nop made NOPs of calls without a record alone"


class _Found(NamedTuple):
    """Which records a file is to get, before those that it has are taken away."""

    places: Places
    shape: Shape | None  # layout of these sites
    left: dict[str, str]  # why others stay without
    n_left: int
    notes: tuple[str, ...] = ()


def plan_record(image: Image, request: RecordRequest) -> Plan:
    """The plan. Raises InputError for damaged files, PlanError where records cannot be told for certain."""
    if image.linked:
        raise PolicyError("the record table of a linked file cannot grow", image.path, found=image.kind,
                          expected="an object or module (ET_REL)",
                          todo="record the objects, or vmlinux.o, and link again")  # fmt: skip
    require_text(image)
    existing, calls = read_existing(image), calls_of(image)
    recorded = joined(NOWHERE, *(section.kept for section in existing))
    found = _with_bases(image, _find(image, request, recorded, calls), recorded)
    _refuse_left(image, request, found)
    added = found.places.ordered().without(recorded)
    _refuse_unsound(image, request, recorded, added)
    name, why = section_name(image, request, existing, found.shape)

    # From here on nothing is decided.
    editor = Editor(image)
    writer = SectionWriter(editor, name)
    writer.write(existing, added)
    nops, nop_notes = _nops(image, request, joined(recorded, added), calls)
    make_nops(editor, nops)
    n_dropped = sum(int((~section.sound).sum()) for section in existing)
    recording = Recording(
        name, why, found.shape.name if found.shape and len(added.sec) else "none", added.sec, added.off,
        _names(image, added), len(recorded.sec), tuple(writer.dropped), n_dropped, tuple(writer.repairs),
        tuple(f"{image.names[sec]}+{off:#x}" for sec, off in zip(nops.sec.tolist(), nops.off.tolist(), strict=True)),
        found.left, len(writer.made),
    )  # fmt: skip
    untraced = _untraced(image, joined(recorded, added), calls, request.nop)
    return _plan(image, request, recording, editor, (*found.notes, *nop_notes, *untraced))


# -- which places ------------------------------------------------------------------------------------------------------


def _find(image: Image, request: RecordRequest, recorded: Places, calls: Places) -> _Found:
    """The places that the request names."""
    if request.other is not None:
        found = places_from(image, request.other, calls)
        notes = (UNTRACED_THERE.format(n=found.n_untraced),) if found.n_untraced else ()
        return _Found(found.places, request.other.sites.shape, found.left, found.n_left, notes)
    if request.func:
        return _chosen(image, request, recorded, calls)
    shape = _shape_of(image, calls)
    if not len(calls.sec) and not len(recorded.sec) and not image.sections_named(*record_names(image)):
        raise PolicyError("nothing tells which functions are to be recorded", image.path,
                          found=f"no direct call of a profiling function{pointer_text(image)}, and no record",
                          todo="--func NAME names functions with NOPs at their entries, --from FILE another build "
                          "that has its records")  # fmt: skip
    return _Found(calls.where(are_recorded(image, calls)), shape, {}, 0)


def _with_bases(image: Image, found: _Found, recorded: Places) -> _Found:
    """Without places in code that no symbol can name: a weak one may be overridden by another file's."""
    bases = base_symbols(image)
    bare = ~is_in(found.places.sec, list(bases)) & ~is_in(found.places.key, recorded.key)
    if not bare.any():
        return found
    places = found.places.where(bare)
    why = {name or "unnamed": NO_BASE.format(section=image.names[sec])
           for name, sec in zip(_names(image, places), places.sec.tolist(), strict=True)}  # fmt: skip
    return found._replace(
        places=found.places.where(~bare), left={**found.left, **why}, n_left=found.n_left + int(bare.sum())
    )  # fmt: skip


def _chosen(image: Image, request: RecordRequest, recorded: Places, calls: Places) -> _Found:
    """The sites of functions that the selectors name."""
    shown = next((scan.sites.shape for scan in request.against if scan.sites.shape is not None), None)
    shape = layout_of(image, request.layout, recorded, shown)
    if shape is None and len(calls.sec):
        shape = _shape_of(image, calls)
    table = table_of(image, shape, calls)
    selection = select.select(table, request.func, named=True)
    reasons = why_not(table, selection.mask, calls)
    chosen = selection.mask & ~is_in(np.arange(len(table)), list(reasons))
    left = {table.name(row) or table.place_text(row): why for row, why in reasons.items()}
    return _Found(Places(table.sec[chosen], table.off[chosen]), shape, left, len(reasons), selection.notes)


def _shape_of(image: Image, calls: Places) -> Shape | None:
    """The layout of calls; None where there are none."""
    if not len(calls.sec):
        return None
    from ftpatch.sites.layout import shape_of_calls
    from ftpatch.sites.profiler_calls import calls_by_relocation

    for called in dict.fromkeys(shape.called for shape in image.arch.shapes if shape.called):
        sec, off = calls_by_relocation(image, called)
        if len(sec):
            return shape_of_calls(image, called, sec, off)
    return None


def _refuse_left(image: Image, request: RecordRequest, found: _Found) -> None:
    """Refuse functions that cannot have a record, unless they may be left out."""
    if not found.left or request.skip_unpatchable:
        return
    lines = tuple(f"{name}: {why}" for name, why in found.left.items())
    what = "a function cannot have a record" if found.n_left == 1 else f"{found.n_left} functions cannot have a record"
    raise PolicyError(what, image.path, found="; ".join(lines[:N_SHOWN]),
                      expected="a site as a compiler leaves it", details=lines,
                      todo="--skip-unpatchable leaves them out")  # fmt: skip


def _refuse_unsound(image: Image, request: RecordRequest, recorded: Places, added: Places) -> None:
    """Refuse places that are no sites once their records are there, as every verb then reads them: damaged code."""
    if not len(added.sec):
        return
    places = joined(recorded, added)
    sites = read_sites(image, as_records(places), request.layout)
    sound = is_in(sites.status[: len(places.sec)], UNTOUCHED)[len(recorded.sec) :]
    rows = len(recorded.sec) + np.flatnonzero(~sound)
    if len(rows):
        row = int(rows[0])
        code = image.arch.code_text(image.words(*places.where(rows[:1]), 0, SHOWN // image.arch.unit)[0])
        what = "1 place is no site as a compiler leaves it" if len(rows) == 1 else (
            f"{len(rows)} places are no sites as a compiler leaves them")  # fmt: skip
        raise PolicyError(what, image.path,
                          found=f"{sites.place_text(row)}: {code}", expected="the code of the layout "
                          f"{sites.shape.name if sites.shape else 'none'}")  # fmt: skip


# -- calls that become NOPs --------------------------------------------------------------------------------------------


def _nops(image: Image, request: RecordRequest, recorded: Places, calls: Places) -> tuple[Places, tuple[str, ...]]:
    """The calls that become NOPs, and what to say of the others."""
    if not request.nop:
        return NOWHERE, ()
    bare = calls.without(recorded)
    have_record = calls.where(is_in(calls.key, recorded.key))
    shape = _shape_of(image, calls)
    if not len(have_record.sec) or shape is None:
        return bare, ()
    if not shape.also:
        why = f"a kernel of {image.arch.name} expects the call of {shape.called} at a record, and a NOP there makes it "
        return bare, (STAY_CALLS.format(why=why + "switch ftrace off"),)
    if _has_nops(image, shape, recorded) or any(_scan_has_nops(scan) for scan in request.against):
        return calls, ()
    why = "nothing shows a kernel built with CC_USING_NOP_MCOUNT, and another switches ftrace off where it finds a NOP "
    return bare, (STAY_CALLS.format(why=why + "at a record (--against VMLINUX shows it)"),)


def _has_nops(image: Image, shape: Shape, places: Places) -> bool:
    """Whether a recorded site is a NOP."""
    return bool(begins_with(shape.body(image.window(*places)), shape.also).any())


def _scan_has_nops(scan: Scan) -> bool:
    shape = scan.sites.shape
    return shape is not None and bool(shape.also) and bool(begins_with(scan.sites.body(), shape.also).any())


def _untraced(image: Image, recorded: Places, calls: Places, nop: bool) -> tuple[str, ...]:
    """What is said of calls where no kernel traces anything."""
    bare = calls.without(recorded)
    bare = bare.where(~are_recorded(image, bare))
    if not len(bare.sec):
        return ()
    names = dict.fromkeys(image.names[sec] for sec in bare.sec.tolist())
    shape = _shape_of(image, calls)
    then = "; they are NOPs now" if nop else "; --nop makes them NOPs, as recordmcount does"
    return (
        UNTRACED.format(
            n=f"{len(bare.sec)} call{'s' * (len(bare.sec) != 1)}",
            called=shape.called if shape else "",
            sections=", ".join(names),
            nop=then,
        ),
    )


# -- the plan ----------------------------------------------------------------------------------------------------------


def _names(image: Image, places: Places) -> tuple[str, ...]:
    """The function of each place: whose code it lies in, or whose entry it lies in front of."""
    functions, va = image.functions, image.va(*places)
    index = functions.containing(va)
    if len(functions.va):
        front = np.minimum(np.searchsorted(functions.va, va), len(functions.va) - 1)
        near = (functions.va[front] >= va) & (functions.va[front] - va <= np.uint64(8))
        index = np.where(near, front, index)
    return tuple("" if at < 0 else image.symbols.name(int(functions.row[at])) for at in index.tolist())


def _plan(image: Image, request: RecordRequest, recording: Recording, editor: Editor, notes: Sequence[str]) -> Plan:
    edits = edits_of(editor)
    scan = bare_scan(image, request.layout)
    none, lines = np.zeros(0, np.int64), list(notes)
    if not len(edits):
        lines.append(NOTHING.format(n=recording.kept))
    gone: Mask = np.zeros(0, dtype=bool)
    return Plan(
        verb="record", scan=scan, chosen=gone, reasons={}, index=none, new_words=np.zeros((0, 0), np.uint32), stub=(),
        stub_why=(), record=(), calls=no_calls(0), gone=gone, returned=none,
        summary=PlanSummary("return", recording.why), edits=edits, notes=tuple(dict.fromkeys(lines)),
        recording=recording,
    )  # fmt: skip
