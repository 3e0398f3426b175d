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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch.arch import Arch
from ftpatch.elf.image import open_image
from ftpatch.errors import InputError, UsageError
from ftpatch.plan.decide import FOR_MODULES, make_plan, read_against
from ftpatch.sites.scan import Scan, require_text, scan_file
from ftpatch.trees import SILENT, Watch, scan_tree

if TYPE_CHECKING:
    from ftpatch.compare.diff import Comparison
    from ftpatch.explain.function import Diagnoses, Explanation
    from ftpatch.plan.stubasm import Stub
    from ftpatch.rules.files import CheckResult, Settings

__all__ = [
    "BootImage", "Scan", "Watch", "check", "check_settings", "diff", "explain", "explain_log", "image", "make_plan",
    "read_against", "read_stub", "scan", "scan_tree",
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
    from ftpatch.explain.function import explain_function

    return explain_function(scan(path, layout), func, against, modules, watch)


def explain_log(text: str, path: str | None = None, layout: str | None = None) -> Diagnoses:
    """The ftrace messages in a kernel's log, taken apart; path: the file that printed them."""
    from ftpatch.explain import function

    return function.explain_log(text, path, layout)


# -- writing -----------------------------------------------------------------------------------------------------------


def read_stub(found: Scan, path: str) -> Stub:
    """The stub that a file of assembly holds, for the sites of a module.

    Raises InputError or UsageError, and UnsupportedError where the assembler is missing.
    """
    from ftpatch.plan import stubasm

    if found.image.kind == "vmlinux":
        raise UsageError(FOR_MODULES, found.image.path, found="a vmlinux")
    try:
        with open(path, "rb") as file:
            data = file.read(stubasm.MAX_SOURCE + 1)
    except OSError as error:
        raise InputError("cannot read the stub", path, found=error.strerror or str(error)) from error
    return stubasm.assemble(data, path, found.arch)


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
