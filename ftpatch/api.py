"""The journeys of all verbs, each a short list of steps: what a command does, without the command line.

This is the public Python interface: `import ftpatch` offers the same names, and loads what they need when they are
first asked for. Files are given by name; what comes back are values:

    scan, scan_tree      a Scan: image, records and sites of one file; what each module of a tree gave
    check                a CheckResult: findings, after configuration and baseline (check_settings)
    diff                 a Comparison: what changed between two builds, the worst first
    explain, explain_log an Explanation of a function; Diagnoses of a kernel's own messages
    verify               a Proof: what became of the first file on the way to the second
    enable, disable, drop    a Written: the Plan, and the file that it made
    restore              a Restored: the file that was patched, back from its journal
    image                a BootImage of a vmlinux

    >>> import ftpatch
    >>> scan = ftpatch.scan("vmlinux")
    >>> len(scan.sites), scan.arch.name
    (38491, 'arm64')
    >>> [finding.message for file in ftpatch.check("vmlinux").files for finding in file.findings]
    []

Every journey raises an FtpatchError (ftpatch.errors) where it cannot be made, and then has written nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict, Unpack

from ftpatch.arch import Arch
from ftpatch.elf.image import open_image
from ftpatch.plan.decide import make_plan, plan_enable, read_against
from ftpatch.plan.request import DisableRequest, DropRequest
from ftpatch.sites.choice import Choose, all_but, by_selectors
from ftpatch.sites.scan import Scan, require_text, scan_file
from ftpatch.trees import SILENT, Watch, scan_tree

if TYPE_CHECKING:
    from ftpatch.arrays import Mask
    from ftpatch.compare.diff import Comparison
    from ftpatch.explanation.function import Diagnoses, Explanation
    from ftpatch.journal.restore import Restored
    from ftpatch.plan.plan import Plan
    from ftpatch.proof.prove import Proof
    from ftpatch.report import Document
    from ftpatch.rules.files import CheckResult, Settings
    from ftpatch.write.deliver import Output

__all__ = [
    "BootImage", "Delivery", "EnableOptions", "Scan", "Watch", "Written", "all_but", "by_selectors", "check",
    "check_settings", "diff", "disable", "drop", "enable", "explain", "explain_log", "image", "make_plan", "patch",
    "plan_enable", "read_against", "restore", "scan", "scan_tree", "verify",
]  # fmt: skip

scan = scan_file  # file → image → records → sites


# -- reading -----------------------------------------------------------------------------------------------------------


def check_settings(
    *, select: Sequence[str] = (), ignore: Sequence[str] = (), config: str | None = None, baseline: str | None = None,
    kconfig: str | None = None, against: str | None = None, layout: str | None = None, lines: bool = False,
    fail_on: str | None = None, full: bool = False, sites: bool = False,
) -> Settings:  # fmt: skip
    """What `check` asks, as its options say: see `rules.files.settings_for`."""
    from ftpatch.rules.files import settings_for

    return settings_for(
        select=select, ignore=ignore, config=config, baseline=baseline, kconfig=kconfig, against=against,
        layout=layout, lines=lines, fail_on=fail_on, full=full, sites=sites,
    )  # fmt: skip


def check(path: str, settings: Settings | None = None, jobs: int | None = None, watch: Watch = SILENT) -> CheckResult:
    """What the linter finds in one file, or in every module of a tree: all its rules, unless `settings` says less."""
    from ftpatch.rules.files import check_path

    return check_path(path, settings, jobs, watch)


def diff(
    old: str, new: str, layout: str | None = None, hashed: bool = False, jobs: int | None = None,
    watch: Watch = SILENT,
) -> Comparison:  # fmt: skip
    """What changed for tracing between two builds of a file, or between two trees of modules. hashed: with sha256."""
    from ftpatch.compare.diff import compare

    return compare(old, new, layout, hashed, jobs, watch)


def explain(
    path: str, func: str, layout: str | None = None, against: Sequence[str] = (), modules: str | None = None,
    watch: Watch = SILENT,
) -> Explanation:  # fmt: skip
    """Every site that a selector names, from bytes to verdict; or why that name has none."""
    from ftpatch.explanation.function import explain_function

    return explain_function(scan(path, layout), func, against, modules, watch)


def explain_log(text: str, path: str | None = None, layout: str | None = None) -> Diagnoses:
    """The ftrace messages in a kernel's log, taken apart; path: the file that printed them."""
    from ftpatch.explanation import function

    return function.explain_log(text, path, layout)


def verify(
    before: str, after: str, journal: str | None = None, layout: str | None = None, max_size: int | None = None,
    deep: bool = False, require_emulation: bool = False,
) -> Proof:  # fmt: skip
    """What became of the first file on the way to the second, told from both alone, and whether the journal says so.

    deep: have lief read a kernel a second time; require_emulation: that a patched site was not run is a finding.
    """
    from ftpatch.container import envelope
    from ftpatch.journal.read import read_journal
    from ftpatch.proof.prove import Checks, prove

    told = read_journal(journal) if journal else None
    size = envelope.MAX_SIZE if max_size is None else max_size
    first = scan_file(before, layout, size)
    second = open_image(after, size)
    return prove(first, second, layout, told, checks=Checks(True, require_emulation, deep))


# -- writing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """How a writing verb reads its file, and where the result goes."""

    # the new file, which may be the old one; None: everything is done but writing
    out: str | None
    # FORMAT=FILE, each; json=FILE is the journal that `restore` goes by
    reports: tuple[str, ...] = ()
    # a site layout that is taken instead of deciding by evidence
    layout: str | None = None
    # bytes that a packed file may unpack to
    max_size: int | None = None
    # `strip` or `refuse` an appended signature; key and certificate for a new one
    signature: str = "strip"
    sign: tuple[str, str] | None = None
    # sites of each sort that the report names, without edits: enough for text; None: all
    shown: int | None = None
    # whether the report has checksums, which cost a reading of both files
    hashed: bool = True
    # asked when the file is read, before anything is decided: what it raises ends the journey
    read: Callable[[Scan], object] = lambda scan: None


@dataclass(frozen=True)
class Written:
    """What a writing verb did."""

    plan: Plan
    output: Output | None  # None where nothing was to be written
    document: Document  # its report


class EnableOptions(TypedDict, total=False):
    """What `enable` may be told, all of it optional: see `plan.decide.plan_enable`."""

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


def enable(
    path: str, delivery: Delivery, func: Sequence[str] = (), status: Sequence[str] = (), section: Sequence[str] = (),
    watch: Watch = SILENT, **options: Unpack[EnableOptions],
) -> Written:  # fmt: skip
    """Turn the sites that the selectors choose into calls, all of them or none."""
    return patch(
        "enable", path, by_selectors(func, status, section),
        lambda scan, chosen: plan_enable(scan, chosen, delivery.max_size, **options), delivery, watch,
    )  # fmt: skip


def disable(
    path: str, delivery: Delivery, func: Sequence[str] = (), status: Sequence[str] = (), section: Sequence[str] = (),
    watch: Watch = SILENT, skip_unpatchable: bool = False,
) -> Written:  # fmt: skip
    """Give enabled sites their old words back, and their records; all of them or none."""
    return patch(
        "disable", path, by_selectors(func, status, section),
        lambda scan, chosen: make_plan(scan, DisableRequest(chosen, skip_unpatchable)), delivery, watch,
    )  # fmt: skip


def drop(
    path: str, delivery: Delivery, func: Sequence[str] = (), status: Sequence[str] = (), section: Sequence[str] = (),
    watch: Watch = SILENT, records: str = "auto", skip_unpatchable: bool = False,
) -> Written:  # fmt: skip
    """Take the records of functions out of the kernel's table, their code untouched; all of them or none."""
    return patch(
        "drop", path, by_selectors(func, status, section),
        lambda scan, chosen: make_plan(scan, DropRequest(chosen, records, skip_unpatchable)), delivery, watch,
    )  # fmt: skip


def restore(
    after: str, journal: str, out: str | None = None, max_size: int | None = None, dry_run: bool = False,
    watch: Watch = SILENT,
) -> Restored:  # fmt: skip
    """Write the file that was patched, from the result and its journal; byte for byte, unless `out` says otherwise.

    out: packed as its name says; None: `after` without .patched; `after` itself is replaced, packed as it was.
    """
    from ftpatch.container import envelope
    from ftpatch.journal import restore as back
    from ftpatch.write import paths

    to = out or back.default_output(after)
    if to != after:
        paths.output_path(after, to)
    paths.output_path(journal, to)
    size = envelope.MAX_SIZE if max_size is None else max_size
    request = back.RestoreRequest(after, journal, to, out is not None and out != after, dry_run, size)
    return back.restore(request, watch.note)


def patch(
    verb: str, path: str, choose: Choose, decide: Callable[[Scan, Mask], Plan], delivery: Delivery,
    watch: Watch = SILENT,
) -> Written:  # fmt: skip
    """file → scan → chosen sites → plan → new file, proven, with its reports: all of it, or nothing is written."""
    from ftpatch.journal.write import plan_object
    from ftpatch.report import Document
    from ftpatch.report.files import files_ready
    from ftpatch.write import deliver

    scan = scan_file(path, delivery.layout, delivery.max_size)
    delivery.read(scan)
    out = delivery.out or path
    packing, signature_notes = deliver.packing_for(scan.image, out, delivery.signature, delivery.sign)
    chosen, selection_notes = choose(scan)
    for text in selection_notes:
        watch.note(text)
    plan = decide(scan, chosen)
    plan = replace(plan, notes=(*plan.notes, *signature_notes))
    for text in plan.warnings:
        watch.note(f"warning: {text}")

    # From here on nothing is decided.
    document = Document(verb)

    @contextmanager
    def reports(written: Output | None, sha256: str | None) -> Iterator[None]:
        document.images.append(plan_object(plan, written, sha256, delivery.shown))
        with files_ready(document, delivery.reports, watch.note):
            yield

    if delivery.out is None:
        with reports(None, scan.image.sha256 if delivery.hashed else None):
            return Written(plan, None, document)
    output = deliver.write_result(plan, out, delivery.hashed, reports, packing, watch.note)
    return Written(plan, output, document)


@dataclass(frozen=True)
class BootImage:
    """The boot image of a vmlinux, as it was written."""

    path: str
    size: int  # bytes
    arch: Arch  # the machine that it boots


def image(path: str, out: str, watch: Watch = SILENT) -> BootImage:
    """Write what boots of a vmlinux."""
    from ftpatch.write import bootimage, contents, files, paths

    vmlinux = open_image(path)
    arch = vmlinux.arch
    require_text(vmlinux)
    pieces = bootimage.boot_image(vmlinux)
    with files.whole_file(paths.output_path(path, out), vmlinux.mode, watch.note) as new:
        size = contents.write_pieces(new.fd, pieces)
        new.finish()
        new.publish()
    return BootImage(out, size, arch)
