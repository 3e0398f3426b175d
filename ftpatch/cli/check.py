"""`ftpatch check`: the linter of patch sites, for kernels, objects and modules, and its gate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from ftpatch.cli import emit
from ftpatch.cli.options import check_reports, failed, layout, note, options, reports, to_files, to_stdout
from ftpatch.errors import FtpatchError, InputError, UsageError
from ftpatch.finding import SEVERITIES
from ftpatch.sites.scan import scan_file

if TYPE_CHECKING:
    from ftpatch.report import Document
    from ftpatch.rules.gate import Baseline, Config, Key
    from ftpatch.rules.run import Checked, Request

MAX_TEXT = 1 << 26  # bytes of a configuration or baseline
AGAINST_HELP = "The kernel that will load the modules; for a vmlinux, an earlier build of it."
KCONFIG_HELP = "The .config that the files should be of."
CONFIG_HELP = "Settings: fail-on, rules, severities, ignores with reasons, functions that must be traceable."
RULES_HELP = "only these rules; repeatable, commas too."
inputs = [
    click.option("--against", metavar="VMLINUX", help=AGAINST_HELP),
    click.option("--kconfig", metavar="FILE", help=KCONFIG_HELP),
    click.option("--config", metavar="TOML", help=CONFIG_HELP),
]
gate_options = [
    click.option("--fail-on", type=click.Choice(SEVERITIES[::-1]), help="Exit 1 from here on (default: error)."),
    click.option("--exit-zero", is_flag=True, help="Findings do not change the exit code."),
    click.option("--select", multiple=True, metavar="RULE", help=f"Ask {RULES_HELP}"),
    click.option("--ignore", multiple=True, metavar="RULE", help=f"Leave out {RULES_HELP}"),
    click.option("--baseline", metavar="FILE", help="Findings that are known: they are neither shown nor counted."),
    click.option("--write-baseline", metavar="FILE", help="Write all findings there, and exit as if none was new."),
]  # fmt: skip


@dataclass
class Run:
    """What one command line asks, and what all its files gave."""

    request: Request
    config: Config
    baseline: Baseline
    fail_on: str
    failed: bool = False
    keys: list[Key] = field(default_factory=list)
    live: dict[str, int] = field(default_factory=dict)


@click.command("check")
@click.argument("files", nargs=-1, metavar="[FILE|DIR]...")
@options(inputs, gate_options, reports, [layout])
@click.option("--lines", is_flag=True, help="Add source file and line, where a file has debug information.")
@click.option("--sites", "with_sites", is_flag=True, help="Add every site to JSON.")
@click.option("--predict", is_flag=True, help="Add what a kernel will say and list when it boots.")
@click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help="Worker processes for a tree.")
@click.option("--list-rules", is_flag=True, help="Show the rules, and do nothing else.")
def command(
    files: tuple[str, ...], against: str | None, kconfig: str | None, config: str | None, fail_on: str | None,
    exit_zero: bool, select: tuple[str, ...], ignore: tuple[str, ...], baseline: str | None,
    write_baseline: str | None, format_: str, color: str, report: tuple[str, ...], layout: str | None, lines: bool,
    with_sites: bool, predict: bool, jobs: int | None, list_rules: bool,
) -> int:  # fmt: skip
    """Check the patch sites of kernels, modules and objects (default: ./vmlinux); a DIR stands for all modules below.

    Exit code 1 if there is a finding at or above --fail-on that the baseline does not know, in every format.
    """
    from ftpatch.report import Document, destinations, shows_more
    from ftpatch.rules import gate, register
    from ftpatch.rules.run import Request, kernel_of

    if list_rules:
        return _list_rules()
    files, rules = files or ("vmlinux",), register.known_rules()
    given = [one for one in (against, kconfig, config, baseline) if one]
    check_reports((*report, *([f"json={write_baseline}"] if write_baseline else [])), [*files, *given])
    settings = gate.parse_config(_read(config), config, rules) if config else gate.Config()
    known = gate.read_baseline(baseline) if baseline else gate.Baseline()
    full = shows_more([format_, *(name for name, _ in destinations(report))])
    request = Request(
        gate.asked(rules, settings, _split(select), _split(ignore)), layout, against,
        gate.parse_kconfig(_read(kconfig), kconfig) if kconfig else None, settings.must, lines,
        _before(files, known.live), full, with_sites,
    )  # fmt: skip
    if against:
        kernel_of(against)
    run = Run(request, settings, known, fail_on or settings.fail_on or "error")
    shown = [rule for rule in register.rules_for() if rule.id in request.rules]
    document = Document("check", show_sites=with_sites, rules=shown, fail_on=run.fail_on)
    worst = _all(files, run, jobs, report, document)
    if predict:
        _predict(document, layout)
    document.exit_code = max(worst, int(run.failed and not exit_zero and not write_baseline))
    to_files(document, report)
    if write_baseline:
        _write(write_baseline, gate.render_baseline(run.keys, run.live))
    to_stdout(document, format_, color)
    return document.exit_code


def _all(files: tuple[str, ...], run: Run, jobs: int | None, report: tuple[str, ...], document: Document) -> int:
    """Add all files to the document; the worst exit code of those that cannot be read."""
    from ftpatch.rules.run import check_file

    worst = 0
    for path in dict.fromkeys(files):
        try:
            if os.path.isdir(path):
                worst = max(worst, _tree(path, run, jobs, report, document))
            else:
                _add(check_file(run.request, path), run, document)
        except UsageError:  # nothing is written
            raise
        except FtpatchError as error:  # one bad file does not hide the others
            worst = max(worst, failed(document, path, error))
    return worst


def _add(checked: Checked, run: Run, document: Document, top: str | None = None) -> None:
    """Add what one file gave, after the gate."""
    from ftpatch.report.findings import finding_rows
    from ftpatch.rules import gate

    assert checked.image is not None
    where = gate.object_name(checked.path, top)
    judged = gate.judge([(one.finding, one.after) for one in checked.found], where, run.config, run.baseline)
    run.failed |= gate.fails(judged.left, run.fail_on)
    run.keys += judged.keys
    run.live[where] = checked.live
    image = checked.image
    image["gate"] = {"known": judged.known, "ignored": judged.ignored}
    image["findings"] = finding_rows(judged.left)
    if top is not None:
        image["tree"] = top
    document.images.append(image)


def _tree(top: str, run: Run, jobs: int | None, report: tuple[str, ...], document: Document) -> int:
    """Add all modules of a tree, side by side."""
    from dataclasses import replace
    from functools import partial

    from ftpatch import trees
    from ftpatch.cli.scan import _progress
    from ftpatch.report.totals import totals
    from ftpatch.rules import gate
    from ftpatch.rules.run import check_files, prepare

    listing = trees.walk(top)
    check_reports(report, listing.files)
    live = {path: run.baseline.live[name] for path in listing.files
            if (name := gate.object_name(path, top)) in run.baseline.live}  # fmt: skip
    if run.request.against:
        prepare(run.request.against)
    with _progress(len(listing.files)) as advance:
        found = trees.over_files(listing, partial(check_files, replace(run.request, before=live)), jobs, advance)
    worst, first = 0, len(document.images)
    for folder in listing.errors:
        assert folder.error is not None
        worst = max(worst, failed(document, folder.path, folder.error, top))
    for one in sorted(found, key=lambda one: os.fsencode(one.path)):
        if one.error is not None:
            worst = max(worst, failed(document, one.path, one.error, top))
        else:
            _add(one, run, document, top)
    images = document.images[first:]
    document.trees.append({"tree": top, "totals": totals(images, len(found) - len(images))})
    return worst


def _predict(document: Document, layout: str | None) -> None:
    """Add the oracle of every kernel that was checked."""
    from ftpatch.kernel.boot import oracle
    from ftpatch.report.oracle import oracle_object

    for image in document.images:
        if image["kind"] == "vmlinux":
            scan = scan_file(image["file"], layout)
            image["oracle"] = oracle_object(oracle(scan))


def _list_rules() -> int:
    from ftpatch.rules.register import rules_for

    for rule in rules_for():
        emit(f"{rule.id:<20} {rule.severity:<8} {rule.title}\n")
    return 0


def _before(files: tuple[str, ...], live: Mapping[str, int]) -> dict[str, int]:
    """Live records that a baseline has for the files that were named."""
    from ftpatch.rules.gate import object_name

    return {path: live[object_name(path)] for path in files if object_name(path) in live}


def _split(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise InputError("cannot be read", path, found=error.strerror or str(error)) from None
    if len(data) > MAX_TEXT:
        raise InputError("too long", path, expected=f"at most {MAX_TEXT} bytes")
    return data


def _write(path: str, data: bytes) -> None:
    from ftpatch.write import contents, files, paths

    with files.whole_file(paths.report_path(path), 0o644, note) as new:
        contents.append(new.fd, data)
        new.finish()
        new.publish()
