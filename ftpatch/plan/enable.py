"""From sites and a request to a plan: every byte that will change, what it must hold before, and who wants it.

Nothing is written here. A plan is complete or it is not made: sites that cannot be patched refuse the whole request
unless the user allows to leave them out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch import Arch, Shape
from ftpatch.arrays import I64, U32, U64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan import notes, ool_slots, refusals, targets
from ftpatch.plan import records_out as dropping
from ftpatch.plan import routes as trampolines
from ftpatch.plan.edits import Edits, Group, as_bytes, group
from ftpatch.plan.ool_slots import Slots
from ftpatch.plan.outcome import Fate, Settled
from ftpatch.plan.records_out import Dropping
from ftpatch.plan.request import Draft, Request, patchable_shape
from ftpatch.plan.routes import Routes
from ftpatch.plan.targets import Ops, Target
from ftpatch.sites.layout import require_still_shown
from ftpatch.sites.records import RecordTable
from ftpatch.sites.table import ENABLED, HALF, UNEXPECTED, SiteTable


@dataclass(frozen=True)
class Plan:
    """The decision, site by site and byte by byte.

    reasons: why a chosen site is not patched, by site index. index: the patched sites; the columns below have one row
    for each of them. aim: va that the site's own branch goes to; call_va, call_aim: the call that leads to the target,
    which an out-of-line site has in its stub; slot: va of that stub's slot, else 0; through: shared stub, −1 if none.
    gone: the slots whose records leave.
    """

    table: SiteTable
    records: RecordTable
    chosen: Mask
    reasons: dict[int, str]
    target: Target
    ops: Ops | None
    ops_via: str
    index: I64
    aim: U64
    new_words: U32
    call_va: U64
    call_aim: U64
    slot: U64
    through: I64
    stubs: tuple[trampolines.Stub, ...]
    gone: Mask
    dropping: Dropping
    edits: Edits
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def distance(self) -> I64:
        """Bytes from each patched site's branch to where it goes."""
        return self.aim.view(np.int64) - self.table.branch_va[self.index].view(np.int64)

    @property
    def settled(self) -> Settled:
        """What the request came to."""
        ops = self.ops.name if self.ops else None
        way = self.dropping
        return Settled(self.target.name, self.target.va, ops, self.ops_via, way.way, way.why)

    def fate(self, at: int) -> Fate:
        """What happens to the at-th patched site."""
        shared, own = int(self.through[at]), int(self.slot[at])
        stub = own or (self.stubs[shared].va if shared >= 0 else 0)
        return Fate(
            action="call_via_stub" if stub else "call",
            reason=self.stubs[shared].why if shared >= 0 else None,
            target=self.target.name,
            distance=int(self.distance[at]),
            literal=self.ops.name if self.ops and self.ops_via == "literal" else None,
            stub=f"0x{stub:016x}" if stub else None,
        )


def make_plan(image: Image, arch: Arch, records: RecordTable, table: SiteTable, request: Request) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where the layout cannot be enabled at all."""
    shape = patchable_shape(image, table)
    target = targets.resolve_target(
        image, arch, table, request.chosen, request.target or arch.entries[0], request.force_target
    )
    ops = None
    if target.entry.literal:
        ops = targets.resolve_ops(image, target.entry, "list" if request.ops is None else request.ops)
    if ops is None and (request.ops not in (None, "list") or request.ops_via != "auto"):
        raise PolicyError(f"{target.name} reads no ops pointer", image.path, found="--ops or --ops-via",
                          expected="a kernel with one ftrace_ops per site", todo="leave the option out")  # fmt: skip
    draft = Draft(image, arch, records, table, shape, request, target, ops, trampolines.slack(image), {})
    refusals.by_status(draft)
    refusals.by_company(draft)
    refusals.by_time(draft)
    via = _ops_way(draft)

    if via == "literal" and shape.literal is not None:
        refusals.by_literal(draft, shape.literal)
    refusals.by_overlap(draft, via == "literal")
    if draft.reasons and shape.out_of_line:
        _refuse_unless_skipped(draft)
    n_reasons = -1
    while n_reasons != len(draft.reasons):  # a site that falls out may move the stubs of the others
        n_reasons = len(draft.reasons)
        placed, routes = _routes(draft, via)
        refusals.by_reach(draft, placed, routes)
        _refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site; the edits are built for the remaining ones alone.
    index = draft.open()
    gone = draft.gone(index)
    if gone.any() and request.records != "keep" and not table.forced:
        n = len(records)
        require_still_shown(image, records, table.window[:n], table.va[:n], gone, shape)
    dropped = dropping.drop(image, arch, shape, records, gone, request.records)
    return _assemble(draft, via, index, gone, placed, routes, dropped)


def _refuse_unless_skipped(draft: Draft) -> None:
    if draft.reasons and not draft.request.skip_unpatchable:
        raise refusals.unpatchable(draft.table, draft.request.chosen, draft.reasons)


def _assemble(
    draft: Draft, via: str, index: I64, gone: Mask, placed: Slots | None, routes: Routes, dropped: Dropping
) -> Plan:
    """The plan's columns and its edits."""
    image, arch, table, shape = draft.image, draft.arch, draft.table, draft.shape
    site, slot = table.branch_va[index], np.zeros(len(index), np.uint64)
    aim, call_va, groups = routes.aim, site, list(dropped.groups)
    literals = (table.va[index].view(np.int64) + (shape.literal or 0)).view(np.uint64)
    if placed is not None and arch.site_stub is not None:
        slot, literals = placed.va, placed.va
        aim = slot + np.uint64(placed.literal)
        call_va = aim + np.uint64(arch.site_stub.call_at)
        back = site.view(np.int64) + 4 - (aim.view(np.int64) + arch.site_stub.back_at)
        code = arch.site_stub.code(trampolines.distances(call_va, routes.aim), back)
        groups.append(group("stub", image.data, index, _positions(image, aim), as_bytes(code)))
    new_words = _site_words(shape, trampolines.distances(site, aim))
    groups.append(group("site", image.data, index, table.pos[index], as_bytes(new_words)))
    freed = dropped.freed
    if via == "literal" and draft.ops is not None and len(index):
        made, freed = _literal_edits(draft, index, literals, draft.ops, freed)
        groups += made
    groups.append(dropping.to_none(image, freed))
    groups += [_stub_edit(image, number, stub) for number, stub in enumerate(routes.stubs) if not stub.present]
    more = int(gone.sum()) - int((table.row[index] >= 0).sum())
    told = notes.of_plan(shape, draft.target, draft.ops, dropped, routes, len(index), more)
    stays = np.flatnonzero(draft.records.live & ~gone)
    broken = int(np.isin(table.status[stays], (ENABLED, HALF, UNEXPECTED)).sum())
    warnings = (
        *dropped.warnings,
        *([draft.target.warning] if draft.target.warning else []),
        *([f"{broken} {notes.STILL_BROKEN}"] if broken else []),
    )
    return Plan(
        table, draft.records, draft.request.chosen, draft.reasons, draft.target, draft.ops, via, index, aim, new_words,
        call_va, routes.aim, slot, routes.through, routes.stubs, gone, dropped, Edits(groups), (*told, *draft.remarks),
        warnings,
    )  # fmt: skip


def _routes(draft: Draft, via: str) -> tuple[Slots | None, Routes]:
    """Where the open sites' stubs and calls go."""
    index, arch, image, table = draft.open(), draft.arch, draft.image, draft.table
    if via == "thunk":
        assert draft.ops is not None
        return None, trampolines.by_thunk(image, arch, draft.target, draft.ops, len(index))
    init = in_init_text(image, table.va[index])
    if not draft.shape.out_of_line or arch.site_stub is None:
        return None, trampolines.by_reach(image, arch, draft.target, table.branch_va[index], init)
    if not len(index):
        return None, trampolines.straight(draft.target, 0)
    placed = ool_slots.assign_slots(image, arch, arch.site_stub, table, draft.records, index, draft.gone(index))
    call_va = placed.va + np.uint64(placed.literal + arch.site_stub.call_at)
    return placed, trampolines.by_reach(image, arch, draft.target, call_va, init)


def _ops_way(draft: Draft) -> str:
    """How the sites get their ops: `none`, `literal` or `thunk`."""
    asked, free, index = draft.request.ops_via, draft.slack, draft.open()
    if draft.ops is None:
        return "none"
    freed = 0 if draft.request.records == "keep" else int((draft.records.rela[draft.gone(index)] >= 0).sum())
    n_free = len(free.rows) + freed
    room = not free.needed or len(index) <= n_free
    if asked == "thunk" or (asked == "auto" and not room and draft.arch.ops_thunk is not None):
        if not room:
            draft.remarks.append(
                f"a shared thunk carries the ops: {len(index)} sites, but {n_free} free relocation entries"
            )
        return "thunk"
    if not room:
        raise PolicyError("not enough free relocation entries for the ops literals", draft.image.path,
                          found=str(n_free), expected=str(len(index)),
                          todo="--ops-via thunk" if draft.arch.ops_thunk else "choose fewer sites")  # fmt: skip
    return "literal"


def _site_words(shape: Shape, distance: I64) -> U32:
    words = np.empty((len(distance), len(shape.new)), dtype=np.uint32)
    words[:, :-1] = [word.bits for word in shape.new[:-1]]
    words[:, -1] = shape.branch.encode(distance)
    return words


def _positions(image: Image, va: U64) -> I64:
    sec, off = image.place(va)
    return image.pos(sec, off)


def _literal_edits(draft: Draft, index: I64, va: U64, ops: Ops, freed: I64) -> tuple[list[Group], I64]:
    """Each site's ops pointer and the relocation that moves it with the kernel; and the freed rows still unused."""
    image = draft.image
    pointer = as_bytes(np.full(len(index), ops.va, dtype=np.uint64))
    groups = [group("literal", image.data, index, _positions(image, va), pointer)]
    if draft.slack.needed:
        rows = np.zeros(len(index), dtype=t.RELA)
        rows["r_offset"], rows["r_info"] = va, draft.arch.relative
        rows["r_addend"] = np.uint64(ops.va).astype(np.int64)
        used = np.concatenate([freed, draft.slack.rows])[: len(index)]
        groups.append(group("relocation", image.data, used, image.rela[1][used], as_bytes(rows)))
        freed = freed[len(index) :]
    return groups, freed


def _stub_edit(image: Image, number: int, stub: trampolines.Stub) -> Group:
    pos = np.array([image.pos_of_va(stub.va)], dtype=np.int64)
    return group("thunk", image.data, np.array([number]), pos, as_bytes(stub.words[None, :]))
