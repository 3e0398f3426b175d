"""From the sites of a module and a request to a plan: patched words, new relocations and symbols, records that leave.

A module is relocated when it is loaded, so a patched site is a branch word with a relocation, and the loader works out
the distance. Nothing that exists is renumbered; what is new goes to the end of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch import Arch, Entry
from ftpatch.arrays import I64, U32, Mask
from ftpatch.elf.editor import Editor, Patch
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel import module_load
from ftpatch.kernel.exports import read_exports
from ftpatch.kernel.modinfo import kernel_spelling
from ftpatch.kernel.module_load import Check, Kernel, Module, preflight, reach
from ftpatch.plan import refusals
from ftpatch.plan.edits import Edits, Group, group
from ftpatch.plan.module import build, callee
from ftpatch.plan.module.callee import Callee
from ftpatch.plan.module.sites import by_literal, by_relocations
from ftpatch.plan.notes import LEAVES_LIST, STILL_BROKEN
from ftpatch.plan.outcome import Fate, Settled
from ftpatch.plan.request import Draft, Request, patchable_shape, slots_of
from ftpatch.plan.routes import Slack
from ftpatch.plan.targets import Target
from ftpatch.sites.records import SECTIONS, RecordTable
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED, HALF, UNEXPECTED, SiteTable

CUT = "slot and relocation are cut out, as every loader counts what is there"
KEPT = "asked for: the loader will find other words than it expects and switch ftrace off, machine-wide"
HOOK_CONTEXT = (
    "the hook runs as hook(site, caller) in whatever context the function is called in, interrupts included; "
    "a hook that calls the function itself never returns"
)


@dataclass(frozen=True)
class ModulePlan:
    """The decision for a module. index: the patched sites; new_words: one row for each, the branch's distance zero;
    calls: what each branch's relocation names; gone: slots that leave."""

    table: SiteTable
    records: RecordTable
    chosen: Mask
    reasons: dict[int, str]
    callee: Callee
    index: I64
    new_words: U32
    calls: tuple[build.Call, ...]
    gone: Mask
    way: str
    edits: Edits
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def settled(self) -> Settled:
        """What the request came to."""
        ops = build.OPS if self.callee.ops_size else None
        why = KEPT if self.way == "keep" else CUT
        return Settled(self.callee.name, None, ops, "literal" if ops else "none", self.way, why)

    def fate(self, at: int) -> Fate:
        """What happens to the at-th patched site."""
        call = self.calls[at]
        return Fate(
            action="call_via_stub" if call.stub else "call",
            reason=call.why,
            target=self.callee.name,
            distance=None,
            literal=build.OPS if self.callee.ops_size else None,
            stub=call.stub or None,
        )


def make_module_plan(
    image: Image, arch: Arch, records: RecordTable, table: SiteTable, request: Request,
    kernel: Kernel | None = None, others: Sequence[Module] = (),
) -> ModulePlan:  # fmt: skip
    """Decide everything. Raises a PlanError, or an UnsupportedError where the layout cannot be enabled at all."""
    shape = patchable_shape(image, table)
    module = Module(Scan(image, records, table))
    checks = _preflight(module, kernel, others)
    if refused := module_load.refusals(checks):
        raise PolicyError("the kernel would not load this module, or crash in it", image.path,
                          found="; ".join(check.text for check in refused),
                          todo="--against the kernel that the module was built for")  # fmt: skip
    wanted = callee.resolve_callee(image, arch, shape, request, kernel.image if kernel else None)
    target = Target(0, wanted.name, False, Entry(False))
    draft = Draft(image, arch, records, table, shape, request, target, None, Slack(False, np.zeros(0, np.int64)), {})
    refusals.by_status(draft)
    refusals.by_company(draft)
    by_relocations(draft)
    if wanted.ops_size:
        by_literal(draft)
    refusals.by_overlap(draft, wanted.ops_size > 0)
    if draft.reasons and not request.skip_unpatchable:
        raise refusals.unpatchable(table, request.chosen, draft.reasons)

    # From here on nothing is refused for a single site.
    index = draft.open()
    gone = slots_of(records, table, index[:0] if request.records == "keep" else index)
    return _assemble(draft, module, wanted, kernel, others, index, gone, checks)


def _preflight(module: Module, kernel: Kernel | None, others: Sequence[Module]) -> tuple[Check, ...]:
    """What can be told of the module before it is loaded, with the kernel or without."""
    if kernel is None:
        return (reach(module),)
    known = {kernel_spelling(one.info.first("name") or ""): read_exports(one.image) for one in others}
    return preflight(module, kernel, known)


def _assemble(
    draft: Draft, module: Module, wanted: Callee, kernel: Kernel | None, others: Sequence[Module], index: I64,
    gone: Mask, checks: tuple[Check, ...],
) -> ModulePlan:  # fmt: skip
    image, table, shape = draft.image, draft.table, draft.shape
    words = np.empty((len(index), len(shape.new)), dtype=np.uint32)
    words[:] = [word.bits for word in shape.new]
    editor, told = Editor(image), list(wanted.notes)
    calls: tuple[build.Call, ...] = ()
    if len(index):
        builder = build.Builder(editor, draft.arch, shape, wanted, module, kernel, tuple(others))
        calls = builder.build(table, index, words)
        told += builder.notes
        cut_records(editor, draft.records, gone)
    edits = edits_of(image, editor)
    told += [HOOK_CONTEXT] if draft.request.hook and draft.request.stub is None else []
    told += [check.text for check in checks if check.verdict == "warning"]
    if gone.any():
        told.insert(0, LEAVES_LIST)
    stays = np.flatnonzero(draft.records.live & ~gone)
    broken = int(np.isin(table.status[stays], (ENABLED, HALF, UNEXPECTED)).sum())
    way = "keep" if draft.request.records == "keep" else "shrink"
    warnings = [*wanted.warnings, *([f"{broken} {STILL_BROKEN}"] if broken else [])]
    warnings += [f"records are kept, {KEPT}"] if way == "keep" and len(index) else []
    return ModulePlan(
        table, draft.records, draft.request.chosen, draft.reasons, wanted, index, words, calls, gone, way, edits,
        checks, tuple(told) if len(index) else (), tuple(warnings),
    )  # fmt: skip


def cut_records(editor: Editor, records: RecordTable, gone: Mask) -> None:
    """Cut the slots out of every record section, each with its relocation."""
    image = editor.image
    for sec in image.sections_named(*SECTIONS):
        first, size = int(image.shdr["sh_offset"][sec]), int(image.shdr["sh_size"][sec])
        rows = np.flatnonzero((records.slot >= first) & (records.slot < first + size))
        if image.has_bytes[sec] and gone[rows].any():
            editor.cut_slots(sec, gone[rows], int(rows[0]))


def edits_of(image: Image, editor: Editor) -> Edits:
    """The editor's result as edits with their old bytes."""
    header, patches, tail = editor.finish()
    groups: list[Group] = []
    for piece in header:
        groups.append(_group(image, "header", [(0, piece.pos, piece.new)]))
    kinds: dict[tuple[str, int], list[Patch]] = {}
    for one in patches:
        kinds.setdefault((one.kind, len(one.new)), []).append(one)
    offset = image.shdr["sh_offset"].astype(np.int64)
    for (kind, _), some in kinds.items():
        groups.append(_group(image, kind, [(one.owner, int(offset[one.sec]) + one.off, one.new) for one in some]))
    return Edits(groups, tail)


def _group(image: Image, kind: str, rows: list[tuple[int, int, bytes]]) -> Group:
    """A group from (owner, position, new bytes) rows of one width."""
    new = np.frombuffer(b"".join(row[2] for row in rows), dtype=np.uint8).reshape(len(rows), -1)
    ids, pos = (np.array([row[column] for row in rows], dtype=np.int64) for column in (0, 1))
    return group(kind, image.data, ids, pos, new)
