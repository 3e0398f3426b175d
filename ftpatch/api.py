"""The journeys of all verbs, each a short list of steps: what a command does, without the command line.

This is the public Python interface: `import ftpatch` offers the same names, and loads what they need when they are
first asked for. Files are given by name; what comes back are values:

    scan, scan_tree      a Scan: image, records and sites of one file; what each module of a tree gave
    check                a CheckResult: findings, after configuration and baseline (check_settings)
    diff                 a Comparison: what changed between two builds, the worst first
    explain, explain_log an Explanation of a function; Diagnoses of a kernel's own messages
    verify               a Proof: what became of the first file on the way to the second
    enable, disable, drop, redirect, record, set_static_calls    a Written: the Plan, and the file that it made
    restore              a Restored: the file that was patched, back from its journal
    static_calls         a StaticCallTable: keys, trampolines and sites of the static calls of one file (static-calls)
    image                a BootImage of a vmlinux
    symbols              a SymbolList: the names of a file and their addresses, of whatever table it has

    >>> import ftpatch
    >>> scan = ftpatch.scan("vmlinux")
    >>> len(scan.sites), scan.arch.name
    (38491, 'arm64')
    >>> ftpatch.enable("vmlinux", ftpatch.Delivery("patched"), ftpatch.by_selectors(["vfs_read"])).output.path
    'patched'

Every journey raises an FtpatchError (ftpatch.errors) where it cannot be made, and then has written nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, TypedDict, Unpack

from ftpatch.arch import Arch
from ftpatch.errors import RecordError, ShapeError, UsageError
from ftpatch.plan.decide import SetOptions, make_plan, plan_enable, plan_redirect, plan_settings, read_against
from ftpatch.plan.request import DisableRequest, DropRequest
from ftpatch.recovered.image import open_image
from ftpatch.report.delivery import Delivery, Written, packing_of, written_to
from ftpatch.sites.choice import Choose, all_but, by_selectors, no_site
from ftpatch.sites.scan import Scan, bare_scan, require_text, scan_file
from ftpatch.trees import SILENT, Watch, scan_tree

if TYPE_CHECKING:
    from ftpatch.arrays import Mask
    from ftpatch.compare.diff import compare as diff
    from ftpatch.explanation.function import Explanation, explain_log
    from ftpatch.journal.restore import RestoreRequest, restore
    from ftpatch.plan.plan import Plan
    from ftpatch.plan.record.decide import RecordOptions
    from ftpatch.proof.module_imports import Loader
    from ftpatch.proof.prove import Proof
    from ftpatch.rules.files import CheckOptions
    from ftpatch.rules.files import check_path as check
    from ftpatch.rules.files import settings_for as check_settings
    from ftpatch.sites.static_calls import static_calls_of as static_calls
    from ftpatch.write.with_symbols import symbols

__all__ = [
    "BootImage", "CheckOptions", "Delivery", "EnableOptions", "RedirectOptions", "RestoreRequest", "Scan",
    "SetOptions", "Watch", "Written", "all_but", "by_selectors", "check", "check_settings", "diff", "disable", "drop",
    "enable", "explain", "explain_log", "image", "make_plan", "patch", "plan_enable", "plan_redirect",
    "plan_settings", "read_against", "record", "redirect", "restore", "scan", "scan_tree", "set_static_calls",
    "static_calls", "symbols", "verify",
]  # fmt: skip

scan = scan_file  # file → image → records → sites

# Journeys of a single step, and their values: names of the room where they are documented, loaded when asked for.
BELOW = {
    "CheckOptions": "rules.files:CheckOptions", "check_settings": "rules.files:settings_for",
    "check": "rules.files:check_path", "diff": "compare.diff:compare",
    "explain_log": "explanation.function:explain_log", "RestoreRequest": "journal.restore:RestoreRequest",
    "restore": "journal.restore:restore", "static_calls": "sites.static_calls:static_calls_of",
    "symbols": "write.with_symbols:symbols",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """One of BELOW, by its name."""
    if name not in BELOW:
        raise AttributeError(f"module 'ftpatch.api' has no attribute {name!r}")
    module, _, attribute = BELOW[name].partition(":")
    return getattr(import_module(f"ftpatch.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__


class Reading(TypedDict, total=False):
    """How files are read: the parameters of `scan` besides its file."""

    layout: str | None  # a site layout that is taken instead of deciding by evidence
    max_size: int | None  # bytes that a packed file may unpack to


# -- reading -----------------------------------------------------------------------------------------------------------


def explain(
    path: str, func: str, against: Sequence[str] = (), modules: str | None = None, watch: Watch = SILENT,
    **reading: Unpack[Reading],
) -> Explanation:  # fmt: skip
    """Every site that a selector names, from bytes to verdict; or why that name has none."""
    from ftpatch.explanation.function import explain_function

    return explain_function(scan(path, **reading), func, against, modules, watch, reading.get("max_size"))


def verify(
    before: str, after: str, journal: str | None = None, deep: bool = False, require_emulation: bool = False,
    against: Sequence[str] = (), objects: Sequence[str] = (), **reading: Unpack[Reading],
) -> Proof:  # fmt: skip
    """What became of the first file on the way to the second, by both alone, and whether the journal agrees.

    deep: have lief read a kernel a second time; require_emulation: that a patched site was not run is a finding;
    against: for a module, the vmlinux that will load it, and modules that it may use, for what it newly imports;
    objects: that `redirect --with` linked into it, in that order.
    """
    from ftpatch.journal.read import read_journal
    from ftpatch.proof.prove import Checks, prove

    record = read_journal(journal) if journal else None
    first, second = _first_of(before, after, **reading), open_image(after, reading.get("max_size"))
    loader = _loader(first, against, reading.get("max_size")) if against else None
    if objects and first.image.linked:
        raise UsageError("--with is for modules, into which objects are linked", before, found=first.image.kind)
    linked = tuple(open_image(path, reading.get("max_size")) for path in objects)
    checks = Checks(True, require_emulation, deep, reading.get("layout"), loader, linked)
    return prove(first, second, record, checks=checks)


def _first_of(before: str, after: str, **reading: Unpack[Reading]) -> Scan:
    """The first of two files; one whose records cannot be read, without them, where the second mends those."""
    try:
        return scan(before, **reading)
    except (RecordError, ShapeError):
        from ftpatch.proof.recorded import is_recording

        first, second = (open_image(path, reading.get("max_size")) for path in (before, after))
        if not is_recording(first, second):
            raise
        return bare_scan(first, reading.get("layout"))


def _loader(scan: Scan, paths: Sequence[str], max_size: int | None) -> Loader:
    """What a module will meet. Raises UsageError where no kernel is among the files."""
    from ftpatch.proof.module_imports import Loader

    against = read_against(scan, paths, max_size)
    if against.kernel is None:
        raise UsageError("--against names no kernel", scan.image.path, found=", ".join(paths),
                         expected="the vmlinux that will load the module, and modules beside it")  # fmt: skip
    return Loader(against.kernel, against.others)


# -- writing -----------------------------------------------------------------------------------------------------------


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


def enable(path: str, delivery: Delivery, choose: Choose, **options: Unpack[EnableOptions]) -> Written:
    """Turn the sites that are chosen into calls, all of them or none."""
    return patch(
        "enable", path, choose, lambda scan, chosen: plan_enable(scan, chosen, delivery.max_size, **options), delivery
    )


def disable(
    path: str, delivery: Delivery, choose: Choose, skip_unpatchable: bool = False, unrecorded: bool = False
) -> Written:
    """Give enabled sites their old words back, and their records; all of them or none."""
    return patch(
        "disable", path, choose,
        lambda scan, chosen: make_plan(scan, DisableRequest(chosen, skip_unpatchable, unrecorded=unrecorded)), delivery,
    )  # fmt: skip


def drop(
    path: str, delivery: Delivery, choose: Choose, records: str = "auto", skip_unpatchable: bool = False
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
    path: str, delivery: Delivery, pairs: Sequence[tuple[str, str]], **options: Unpack[RedirectOptions]
) -> Written:
    """Let functions be others: (selector, replacement), each; all of them or none."""
    return patch(
        "redirect", path, by_selectors([func for func, _ in pairs]),
        lambda scan, chosen: plan_redirect(scan, chosen, pairs, delivery.max_size, **options), delivery,
    )  # fmt: skip


def set_static_calls(
    path: str, delivery: Delivery, settings: Sequence[tuple[str, str]], **options: Unpack[SetOptions]
) -> Written:  # fmt: skip
    """Let static calls call something else: (key, function, NULL or return0), each; all of them or none."""
    return patch(
        "static-calls", path, no_site,
        lambda scan, chosen: plan_settings(scan, settings, delivery.max_size, **options), delivery,
    )  # fmt: skip


def record(path: str, delivery: Delivery, **options: Unpack[RecordOptions]) -> Written:
    """Give functions records that a compiler or linker lost, and mend the sections of records: all of it or nothing."""
    from ftpatch.plan.record.decide import read_and_plan
    from ftpatch.write import deliver

    plan = read_and_plan(open_image(path, delivery.max_size), delivery.layout, delivery.max_size, **options)
    delivery.read(plan.scan)
    # without any change the signature is still good
    kept = deliver.kept_packing(plan.scan.image, delivery.out or path) if not len(plan.edits) else None
    return written_to(plan, delivery, kept or packing_of(plan.scan.image, path, delivery))


def patch(verb: str, path: str, choose: Choose, decide: Callable[[Scan, Mask], Plan], delivery: Delivery) -> Written:
    """file → scan → chosen sites → plan → new file, proven, with its reports: all of it, or nothing is written."""
    scan = scan_file(path, delivery.layout, delivery.max_size)
    delivery.read(scan)
    packing = packing_of(scan.image, path, delivery)
    chosen, selection_notes = choose(scan)
    for text in selection_notes:
        delivery.watch.note(text)
    plan = decide(scan, chosen)
    assert plan.verb == verb
    return written_to(plan, delivery, packing)


@dataclass(frozen=True)
class BootImage:
    """The boot image of a vmlinux, as it was written."""

    path: str
    size: int  # bytes
    arch: Arch  # the machine that it boots


def image(path: str, out: str, watch: Watch = SILENT, max_size: int | None = None) -> BootImage:
    """Write what boots of a vmlinux. max_size: bytes that it may unpack to, where it is packed."""
    from ftpatch.write import bootimage, contents, files, paths

    vmlinux = open_image(path, max_size)
    require_text(vmlinux)
    pieces = bootimage.boot_image(vmlinux)
    with files.whole_file(paths.output_path("", out, [path]), vmlinux.mode, (path,), watch.note) as new:
        size = contents.write_pieces(new.fd, pieces)
        new.finish()
        new.publish()
    return BootImage(out, size, vmlinux.arch)
