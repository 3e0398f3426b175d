"""The journey of a check over files and trees: what each gives, after the gate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from ftpatch import trees
from ftpatch.errors import FtpatchError
from ftpatch.finding import Finding
from ftpatch.inputs import Path, read_file
from ftpatch.rules import gate
from ftpatch.rules.register import known_rules
from ftpatch.rules.run import Checked, Request, check_file, check_files, kernel_of, prepare

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject

MAX_KCONFIG = 16 << 20  # bytes of a kernel's .config; that of a distribution has 300 KB


@dataclass(frozen=True)
class Settings:
    """What is asked of every file, and which findings count."""

    request: Request = field(default_factory=lambda: Request(known_rules()))
    config: gate.Config = field(default_factory=gate.Config)
    baseline: gate.Baseline = field(default_factory=gate.Baseline)
    fail_on: str = "error"  # the least severity that fails a check


@dataclass(frozen=True)
class CheckedFile:
    """What one file gave."""

    path: str
    image: ImageObject  # without findings
    judged: gate.Judged
    live: int  # records
    where: str  # how a baseline names the file

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those that count."""
        return self.judged.left


@dataclass(frozen=True)
class CheckResult:
    """What one file, or all modules of a tree, gave."""

    files: tuple[CheckedFile, ...]
    errors: tuple[tuple[str, FtpatchError], ...] = ()  # of a tree: files and folders that could not be read
    n_bad: int = 0  # how many of those are files
    failed: bool = False  # whether a finding is severe enough to fail the check


@dataclass(frozen=True)
class CheckOptions:
    """What a check is told, by its caller or by the options of the command line."""

    select: Sequence[str] = ()  # only these rules; none: all of them
    ignore: Sequence[str] = ()  # not these rules
    config: str | None = None  # an ftpatch.toml
    baseline: str | None = None  # a JSON file of known findings
    kconfig: str | None = None  # the .config that the files should be of
    against: str | None = None  # a vmlinux
    layout: str | None = None  # of sites, where it is forced
    max_size: int | None = None  # bytes that a packed file may unpack to
    lines: bool = False  # with the source lines of the findings
    fail_on: str | None = None  # the least severity that fails; None: as the configuration says, or error
    full: bool = False  # with sha256 and all figures
    sites: bool = False  # with every site
    units: bool = False  # with what the compiler was told, however long that takes
    severity: Sequence[str] = ()  # RULE=LEVEL, each above what the configuration says


def settings_for(options: CheckOptions) -> Settings:
    """The settings of one check. Raises UsageError for what is no rule or no such file, and what reading the vmlinux
    raises."""
    rules = known_rules()
    config = gate.read_config(options.config, rules) if options.config else gate.Config()
    config = replace(config, severity={**config.severity, **_severities(options.severity, rules)})
    baseline = gate.read_baseline(options.baseline) if options.baseline else gate.Baseline()
    asked = gate.asked(rules, config, options.select, options.ignore)
    kconfig = gate.parse_kconfig(read_file(options.kconfig, MAX_KCONFIG), options.kconfig) if options.kconfig else None
    if options.against:
        kernel_of(options.against, options.max_size)
    request = Request(
        asked,
        options.layout,
        options.against,
        kconfig,
        config.must,
        options.lines,
        None,
        options.full,
        options.sites,
        options.max_size,
        options.units,
    )
    return Settings(request, config, baseline, options.fail_on or config.fail_on or "error")


def _severities(texts: Sequence[str], rules: Sequence[str]) -> dict[str, str]:
    """Severity by rule, of texts RULE=LEVEL. Raises UsageError for what is no rule or no severity."""
    pairs = dict(text.partition("=")[::2] for text in texts)
    gate.require_rules(pairs, rules, "--severity")
    return {rule: gate.severity_of(level, f"--severity {rule}") for rule, level in pairs.items()}


def check_path(
    path: Path, settings: Settings | None = None, jobs: int | None = None, watch: trees.Watch = trees.SILENT
) -> CheckResult:
    """One file, or the modules of a tree. Raises FtpatchError for a file that cannot be read, and for an empty tree."""
    path, settings = os.fspath(path), settings or Settings()
    if os.path.isdir(path):
        return _tree(path, settings, jobs, watch)
    checked = check_file(replace(settings.request, before=_before([path], settings, None)), path)
    return _result([_judged(checked, settings, None)], settings)


def _tree(top: str, settings: Settings, jobs: int | None, watch: trees.Watch) -> CheckResult:
    """All modules of a tree, side by side."""

    def work(listing: trees.Listing) -> Callable[[Sequence[str]], list[Checked]]:
        if settings.request.against:
            prepare(settings.request.against, settings.request.max_size)
        return partial(check_files, replace(settings.request, before=_before(listing.files, settings, top)))

    listing, modules = trees.over_tree(top, work, jobs, watch)
    modules.sort(key=lambda module: os.fsencode(module.path))
    files = [_judged(module, settings, top) for module in modules if module.error is None]
    bad = [(folder.path, folder.error) for folder in listing.errors if folder.error is not None]
    bad += [(module.path, module.error) for module in modules if module.error is not None]
    return replace(_result(files, settings), errors=tuple(bad), n_bad=len(modules) - len(files))


def _before(paths: Sequence[str], settings: Settings, top: str | None) -> Mapping[str, int]:
    """Live records that the baseline has for these files."""
    live = settings.baseline.live
    return {path: live[name] for path in paths if (name := gate.object_name(path, top)) in live}


def _judged(checked: Checked, settings: Settings, top: str | None) -> CheckedFile:
    assert checked.image is not None
    where = gate.object_name(checked.path, top)
    judged = gate.judge(checked.findings, where, settings.config, settings.baseline)
    return CheckedFile(checked.path, checked.image, judged, checked.live, where)


def _result(files: Sequence[CheckedFile], settings: Settings) -> CheckResult:
    return CheckResult(tuple(files), failed=any(gate.fails(file.findings, settings.fail_on) for file in files))
