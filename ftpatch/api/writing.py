"""The journeys that write: from a file and a choice of sites to a new file, proven, or to a refusal and no file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, Unpack

from ftpatch.arch import Arch
from ftpatch.inputs import Path
from ftpatch.plan.decide import SetOptions, make_plan, plan_enable, plan_redirect, plan_settings
from ftpatch.plan.request import DisableRequest, DropRequest
from ftpatch.recovered.image import open_image
from ftpatch.report.delivery import Delivery, Written, packing_of, written_to
from ftpatch.sites.choice import Choose, by_selectors, no_site
from ftpatch.sites.scan import Scan, require_text, scan_file
from ftpatch.trees import SILENT, Watch

if TYPE_CHECKING:
    from ftpatch.arrays import Mask
    from ftpatch.plan.plan import Plan
    from ftpatch.plan.record.decide import RecordOptions


Chosen = Choose | str | Sequence[str]  # sites: a selector or several, or a function that chooses
Destination = Delivery | Path | None  # the new file, or all there is to say of it; None: everything but writing


def _delivery(to: Destination) -> Delivery:
    return to if isinstance(to, Delivery) else Delivery(None if to is None else os.fspath(to))


def _choice(chosen: Chosen) -> Choose:
    return chosen if callable(chosen) else by_selectors([chosen] if isinstance(chosen, str) else chosen)


class EnableOptions(TypedDict, total=False):
    """The options of `enable`, none of them required: see `plan.decide.plan_enable`."""

    target: str
    hook: str
    stub_asm: str | None
    against: Sequence[str]
    force_target: bool
    force_early: bool
    records: str
    ops: str | None
    ops_via: str
    skip_unpatchable: bool
    arm: bool
    save: str
    unrecorded: bool


def enable(path: Path, delivery: Destination, choose: Chosen, **options: Unpack[EnableOptions]) -> Written:
    """Turn the sites that are chosen into calls, all of them or none."""
    to = _delivery(delivery)
    return patch("enable", path, choose, lambda scan, chosen: plan_enable(scan, chosen, to.max_size, **options), to)


def disable(
    path: Path, delivery: Destination, choose: Chosen, skip_unpatchable: bool = False, unrecorded: bool = False
) -> Written:
    """Give enabled sites their old words back, and their records; all of them or none."""
    return patch(
        "disable", path, choose,
        lambda scan, chosen: make_plan(scan, DisableRequest(chosen, skip_unpatchable, unrecorded=unrecorded)), delivery,
    )  # fmt: skip


def drop(
    path: Path, delivery: Destination, choose: Chosen, records: str = "auto", skip_unpatchable: bool = False
) -> Written:
    """Take the records of functions out of the kernel's table, their code untouched; all of them or none."""
    return patch(
        "drop", path, choose, lambda scan, chosen: make_plan(scan, DropRequest(chosen, records, skip_unpatchable)),
        delivery,
    )  # fmt: skip


class RedirectOptions(TypedDict, total=False):
    """The options of `redirect`, none of them required: see `plan.decide.plan_redirect`."""

    patch: str | None
    keep_original: Sequence[str]
    against: Sequence[str]
    force_signature: bool
    assume_register_args: bool
    force_early: bool
    records: str
    skip_unpatchable: bool


def redirect(
    path: Path, delivery: Destination, pairs: Sequence[tuple[str, str]], **options: Unpack[RedirectOptions]
) -> Written:
    """Let functions be others: (selector, replacement), each; all of them or none."""
    to = _delivery(delivery)
    return patch(
        "redirect", path, [func for func, _ in pairs],
        lambda scan, chosen: plan_redirect(scan, chosen, pairs, to.max_size, **options), to,
    )  # fmt: skip


def set_static_calls(
    path: Path, delivery: Destination, settings: Sequence[tuple[str, str]], **options: Unpack[SetOptions]
) -> Written:  # fmt: skip
    """Let static calls call something else: (key, function, NULL or return0), each; all of them or none."""
    to = _delivery(delivery)
    return patch(
        "static-calls", path, no_site, lambda scan, _: plan_settings(scan, settings, to.max_size, **options), to
    )  # fmt: skip


def record(path: Path, delivery: Destination, **options: Unpack[RecordOptions]) -> Written:
    """Give functions records that a compiler or linker lost, and mend the sections of records: all of it or nothing."""
    from ftpatch.plan.record.decide import read_and_plan
    from ftpatch.write import deliver

    path, to = os.fspath(path), _delivery(delivery)
    plan = read_and_plan(open_image(path, to.max_size), to.layout, to.max_size, **options)
    to.read(plan.scan)
    # without any change the signature is still good
    kept = deliver.kept_packing(plan.scan.image, to.out or path) if not len(plan.edits) else None
    return written_to(plan, to, kept or packing_of(plan.scan.image, path, to))


def patch(
    verb: str, path: Path, choose: Chosen, decide: Callable[[Scan, Mask], Plan], delivery: Destination
) -> Written:
    """file → scan → chosen sites → plan → new file, proven, with its reports: all of it, or nothing is written."""
    choice, to, path = _choice(choose), _delivery(delivery), os.fspath(path)
    scan = scan_file(path, to.layout, to.max_size)
    to.read(scan)
    packing = packing_of(scan.image, path, to)
    chosen, selection_notes = choice(scan)
    for text in selection_notes:
        to.watch.note(text)
    plan = decide(scan, chosen)
    assert plan.verb == verb
    return written_to(plan, to, packing)


@dataclass(frozen=True)
class BootImage:
    """The boot image of a vmlinux, as it was written."""

    path: str
    size: int  # bytes
    arch: Arch  # the machine that it boots


def image(path: Path, out: Path, watch: Watch = SILENT, max_size: int | None = None) -> BootImage:
    """Write what boots of a vmlinux. max_size: bytes that it may unpack to, where it is packed."""
    from ftpatch.write import bootimage, contents, files, paths

    path, out = os.fspath(path), os.fspath(out)
    vmlinux = open_image(path, max_size)
    require_text(vmlinux)
    pieces = bootimage.boot_image(vmlinux)
    with files.whole_file(paths.output_path("", out, [path]), vmlinux.mode, (path,), watch.note) as new:
        size = contents.write_pieces(new.fd, pieces)
        new.finish()
        new.publish()
    return BootImage(out, size, vmlinux.arch)
