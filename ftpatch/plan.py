"""From sites and a request to a plan: every byte that will change, what it must hold before, and who wants it.

Nothing is written here. A plan is complete or it is not made: sites that cannot be patched refuse the whole request
unless the user allows to leave them out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch import dropping, trampolines
from ftpatch.arch import Arch, Shape
from ftpatch.dropping import Dropping
from ftpatch.edits import Edits, Group, as_bytes, group
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.tables import I64, U32, Mask
from ftpatch.errors import PlanError, PolicyError, ReachError, ShapeError, UnsupportedError
from ftpatch.records import RecordTable
from ftpatch.sites import ENABLED, HALF, LEFTOVER, NULL, OUTSIDE, READY, SiteTable
from ftpatch.trampolines import Ops, Slack, Target, Thunk

WHY_NOT = {
    ENABLED: "already enabled",
    HALF: "half enabled: the first word is rewritten, the call is missing",
    NULL: "a null slot names no function",
    OUTSIDE: "the record points outside the text of this file",
}
OTHER = "unexpected words, or not at a function's entry"
N_SAMPLES = 3
LEAVES_LIST = (
    "the patched functions leave ftrace's list: "
    "they can no longer be traced by name, kprobed through ftrace or live-patched"
)
NO_FILTER = (
    "this kernel's ftrace_caller has no per-site filter: "
    "a tracer that runs alone also sees the patched sites, whatever its filter"
)
INVISIBLE = "ops nop: the sites run ftrace_caller but no tracer ever sees them"
BUILD_ID = "the build-id still names the original build, not these bytes"
SIGNATURE = "a Secure Boot signature over the image is void"


@dataclass(frozen=True)
class Request:
    """What the user asks of `enable`; `chosen` marks the sites."""

    chosen: Mask
    target: str = ""
    force_target: bool = False
    records: str = "auto"
    ops: str = "list"
    ops_via: str = "auto"
    skip_unpatchable: bool = False


@dataclass(frozen=True)
class Plan:
    """The decision, site by site and byte by byte.

    patched: sites that get a call; reasons: why a chosen site does not, by site index; distance: branch to `aim`,
    bytes, per site; new_words: (n, words) for patched sites; aim: va of the target, or of the thunk before it.
    """

    table: SiteTable
    records: RecordTable
    chosen: Mask
    patched: Mask
    reasons: dict[int, str]
    target: Target
    aim: int
    distance: I64
    new_words: U32
    ops: Ops | None
    ops_via: str
    thunk: Thunk | None
    dropping: Dropping
    edits: Edits
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def literal(self) -> bool:
        """Whether every patched site gets an ops pointer of its own."""
        return self.ops is not None and self.thunk is None


def make_plan(image: Image, arch: Arch, records: RecordTable, table: SiteTable, request: Request) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where the layout cannot be enabled at all."""
    shape = _patchable_shape(image, table)
    target = trampolines.resolve_target(image, arch, table, request.target or arch.entries[0], request.force_target)
    ops = trampolines.resolve_ops(image, target.entry, request.ops) if target.entry.literal else None

    reasons = _by_status(table, request.chosen)
    via, thunk, free, why_via = _ops_way(
        image, arch, target, ops, request.ops_via, int(request.chosen.sum()) - len(reasons)
    )
    aim = thunk.va if thunk else target.va
    distance = np.where(table.sec >= 0, np.uint64(aim).astype(np.int64) - table.branch_va.view(np.int64), 0)
    _by_reach(arch, request.chosen, distance, reasons)
    if via == "literal":
        _by_literal(image, shape, table, request.chosen, reasons)
    if reasons and not request.skip_unpatchable:
        raise _unpatchable(table, request.chosen, reasons)
    patched = request.chosen.copy()
    patched[list(reasons)] = False

    # From here on nothing is refused for a single site; the edits are built for `patched` alone.
    index = np.flatnonzero(patched)
    gone = np.zeros(len(records), dtype=bool)
    gone[table.row[index]] = True
    dropped = dropping.drop(image, arch, shape, records, gone, request.records)
    new_words = _site_words(arch, shape, distance[index])
    groups = [group("site", image.data, index, table.pos[index], as_bytes(new_words)), *dropped.groups]
    if len(index) and via == "literal" and ops:
        groups += _literal_edits(image, arch, shape, table, index, ops, free)
    if len(index) and thunk and not thunk.present:
        pos = np.array([image.pos_of_va(thunk.va)], dtype=np.int64)
        groups.append(group("thunk", image.data, np.array([0]), pos, as_bytes(thunk.words[None, :])))
    warnings = (*dropped.warnings, *([target.warning] if target.warning else []))
    notes = (*_notes(table, shape, target, ops, dropped), *([why_via] if why_via and len(index) else []))
    return Plan(
        table, records, request.chosen, patched, reasons, target, aim, distance, new_words, ops, via, thunk,
        dropped, Edits(groups), notes if len(index) else (), warnings,
    )  # fmt: skip


def _patchable_shape(image: Image, table: SiteTable) -> Shape:
    if image.kind != "vmlinux":
        raise UnsupportedError(f"patching a {image.kind} is not supported", image.path, expected="a linked vmlinux",
                               todo="ftpatch scan reads it")  # fmt: skip
    if table.shape is None:
        raise PolicyError("no patch site in this file", image.path, found="no record table",
                          expected="a kernel built with CONFIG_FUNCTION_TRACER")  # fmt: skip
    if table.shape.refusal:
        raise ShapeError(f"layout {table.shape.name} cannot be enabled on disk", image.path, found=table.shape.refusal,
                         expected="-fpatchable-function-entry")  # fmt: skip
    return table.shape


def _by_status(table: SiteTable, chosen: Mask) -> dict[int, str]:
    """Reasons of the chosen sites whose state forbids a patch."""
    bad = np.flatnonzero(chosen & (table.status != READY) & (table.status != LEFTOVER))
    return {int(i): WHY_NOT.get(int(table.status[i]), OTHER) for i in bad}


def _by_reach(arch: Arch, chosen: Mask, distance: I64, reasons: dict[int, str]) -> None:
    for i in np.flatnonzero(chosen & ~arch.branch.reaches(distance)).tolist():
        reasons.setdefault(
            i, f"out of reach: {distance[i]:+#x} bytes, the branch spans {arch.branch.low:+#x}..{arch.branch.high:+#x}"
        )


def _by_literal(image: Image, shape: Shape, table: SiteTable, chosen: Mask, reasons: dict[int, str]) -> None:
    """Sites whose eight bytes in front cannot take a pointer."""
    assert shape.literal is not None
    index = np.flatnonzero(chosen & (table.sec >= 0))
    va = table.va[index] + np.uint64(shape.literal)
    words = image.words(table.sec[index], table.off[index] + shape.literal, 0, 2)
    moved = (
        np.isin(va, image.rela[0]["r_offset"]) | np.isin(va, image.relr_places(int(va.min()), int(va.max()) + 8))
        if len(va)
        else va == 0
    )
    for i, at, pair, relocated in zip(index.tolist(), va.tolist(), words, moved, strict=True):
        if at % 8:
            reasons.setdefault(i, f"its ops literal at {at:#x} is not 8-byte aligned")
        elif relocated:
            reasons.setdefault(i, f"its ops literal at {at:#x} has a relocation already")
        elif not shape.old[0].matches(pair).all():
            reasons.setdefault(i, f"its ops literal at {at:#x} is not empty")


def _unpatchable(table: SiteTable, chosen: Mask, reasons: dict[int, str]) -> PlanError:
    """One error for all sites that stand in the way; its `details` list every one."""
    lines = [f"{_label(table, i)}: {reason}" for i, reason in sorted(reasons.items())]
    reach = all(reason.startswith("out of reach") for reason in reasons.values())
    return (ReachError if reach else PolicyError)(
        f"{len(reasons)} of {int(chosen.sum())} chosen sites cannot be patched", table.image.path,
        found="; ".join(lines[:N_SAMPLES]) + ("; …" if len(lines) > N_SAMPLES else ""),
        expected="all of them, or nothing is written",
        todo="--skip-unpatchable patches the others", details=tuple(lines),
    )  # fmt: skip


def _label(table: SiteTable, index: int) -> str:
    row = int(table.row[index])
    place = table.place_text(index)
    return f"{table.name(index) or 'unnamed site'} ({f'row {row}' if row >= 0 else 'no record'}, {place})"


def _ops_way(
    image: Image, arch: Arch, target: Target, ops: Ops | None, asked: str, n: int
) -> tuple[str, Thunk | None, Slack, str]:
    """How the sites get their ops: `none`, `literal` or `thunk`, with what that needs and why."""
    free = trampolines.slack(image)
    if ops is None:
        return "none", None, free, ""
    room = not free.needed or n <= len(free.rows)
    if asked == "thunk" or (asked == "auto" and not room):
        why = "" if room else f"a shared thunk carries the ops: {n} sites, but {len(free.rows)} free relocation entries"
        return "thunk", trampolines.place_thunk(image, arch, target, ops), free, why
    if not room:
        raise PolicyError("not enough free relocation entries for the ops literals", image.path,
                          found=str(len(free.rows)), expected=str(n), todo="--ops-via thunk")  # fmt: skip
    return "literal", None, free, ""


def _site_words(arch: Arch, shape: Shape, distance: I64) -> U32:
    words = np.empty((len(distance), len(shape.new)), dtype=np.uint32)
    words[:, :-1] = [word.bits for word in shape.new[:-1]]
    words[:, -1] = arch.branch.encode(distance)
    return words


def _literal_edits(
    image: Image, arch: Arch, shape: Shape, table: SiteTable, index: I64, ops: Ops, free: Slack
) -> list[Group]:
    """Each site's ops pointer, and the relocation that moves it with the kernel."""
    assert shape.literal is not None
    pointer = as_bytes(np.full(len(index), ops.va, dtype=np.uint64))
    groups = [
        group("literal", image.data, index, table.image.pos(table.sec, table.off + shape.literal)[index], pointer)
    ]
    if free.needed:
        rows = np.zeros(len(index), dtype=t.RELA)
        rows["r_offset"] = table.va[index] + np.uint64(shape.literal)
        rows["r_info"] = arch.relative
        rows["r_addend"] = np.uint64(ops.va).astype(np.int64)
        used = free.rows[: len(index)]
        groups.append(group("relocation", image.data, used, image.rela[1][used], as_bytes(rows)))
    return groups


def _notes(table: SiteTable, shape: Shape, target: Target, ops: Ops | None, dropped: Dropping) -> list[str]:
    """What every user of the result has to know; told once."""
    notes = []
    if dropped.way != "keep":
        notes.append(LEAVES_LIST)
    if target.own and shape.literal is None:
        notes.append(NO_FILTER)
    if ops is not None and ops.name == trampolines.OPS["nop"]:
        notes.append(INVISIBLE)
    return [*notes, BUILD_ID, SIGNATURE]
