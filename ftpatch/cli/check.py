"""`ftpatch check`: the linter of patch sites, for kernels, objects and modules, and its gate."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ftpatch.cli import emit
from ftpatch.cli.options import failed, gathered, layout, note, options, reports, to_files, to_stdout, watch
from ftpatch.errors import FtpatchError, UsageError
from ftpatch.finding import SEVERITIES
from ftpatch.report.files import check_reports
from ftpatch.sites.scan import scan_file

if TYPE_CHECKING:
    from ftpatch.report import Document
    from ftpatch.rules.files import CheckResult

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


@dataclass(frozen=True)
class CheckOptions:
    files: tuple[str, ...]  # or directories
    against: str | None  # a file, as the next two
    kconfig: str | None
    config: str | None
    fail_on: str | None  # a severity
    exit_zero: bool
    select: tuple[str, ...]  # rules, commas among them, as the next
    ignore: tuple[str, ...]
    baseline: str | None
    write_baseline: str | None
    format_: str  # of stdout
    color: str
    report: tuple[str, ...]  # FORMAT=FILE, each
    layout: str | None  # of sites, where it is forced
    lines: bool
    with_sites: bool
    predict: bool
    jobs: int | None  # worker processes of a tree
    list_rules: bool


@click.command("check")
@click.argument("files", nargs=-1, metavar="[FILE|DIR]...")
@options(inputs, gate_options, reports, [layout])
@click.option("--lines", is_flag=True, help="Add source file and line, where a file has debug information.")
@click.option("--sites", "with_sites", is_flag=True, help="Add every site to JSON.")
@click.option("--predict", is_flag=True, help="Add what a kernel will say and list when it boots.")
@click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help="Worker processes for a tree.")
@click.option("--list-rules", is_flag=True, help="Show the rules, and do nothing else.")
@gathered("given", CheckOptions)
def command(given: CheckOptions) -> int:
    """Check the patch sites of kernels, modules and objects (default: ./vmlinux); a DIR stands for all modules below.

    Exit code 1 if there is a finding at or above --fail-on that the baseline does not know, in every format.
    """
    from ftpatch import api
    from ftpatch.report import Document, destinations, shows_more
    from ftpatch.rules import gate, register

    if given.list_rules:
        return _list_rules()
    files = given.files or ("vmlinux",)
    read = [path for path in (given.against, given.kconfig, given.config, given.baseline) if path]
    written = [f"json={given.write_baseline}"] if given.write_baseline else []
    check_reports((*given.report, *written), [*files, *read])
    settings = api.check_settings(
        select=_split(given.select), ignore=_split(given.ignore), config=given.config, baseline=given.baseline,
        kconfig=given.kconfig, against=given.against, layout=given.layout, lines=given.lines,
        fail_on=given.fail_on, sites=given.with_sites,
        full=shows_more([given.format_, *(name for name, _ in destinations(given.report))]),
    )  # fmt: skip
    shown = [rule for rule in register.rules_for() if rule.id in settings.request.rules]
    document = Document("check", show_sites=given.with_sites, rules=shown, fail_on=settings.fail_on)
    results, worst = [], 0
    for path in dict.fromkeys(files):
        try:
            results.append(api.check(path, settings, given.jobs, watch(given.report)))
            worst = max(worst, _add(path, results[-1], document))
        except UsageError:  # nothing is written
            raise
        except FtpatchError as error:  # one bad file does not hide the others
            worst = max(worst, failed(document, path, error))
    if given.predict:
        _predict(document, given.layout)
    found = any(one.failed for one in results) and not given.exit_zero and not given.write_baseline
    document.exit_code = max(worst, int(found))
    to_files(document, given.report)
    if given.write_baseline:
        checked = [one for result in results for one in result.files]
        keys = [key for one in checked for key in one.keys]
        _write(given.write_baseline, gate.render_baseline(keys, {one.where: one.live for one in checked}))
    to_stdout(document, given.format_, given.color)
    return document.exit_code


def _add(path: str, result: CheckResult, document: Document) -> int:
    """Add what a file or tree gave; the worst exit code of its files that cannot be read."""
    from ftpatch.report.findings import finding_rows
    from ftpatch.report.totals import totals

    top = path if os.path.isdir(path) else None
    images = []
    for one in result.files:
        image = one.image
        image["gate"] = {"known": one.known, "ignored": one.ignored}
        image["findings"] = finding_rows(one.findings)
        if top is not None:
            image["tree"] = top
        images.append(image)
    document.images += images
    codes = [failed(document, file, error, top) for file, error in result.errors]
    if top is not None:
        document.trees.append({"tree": top, "totals": totals(images, result.n_bad)})
    return max(codes, default=0)


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


def _split(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def _write(path: str, data: bytes) -> None:
    from ftpatch.write import contents, files, paths

    with files.whole_file(paths.report_path(path), 0o644, note) as new:
        contents.append(new.fd, data)
        new.finish()
        new.publish()
