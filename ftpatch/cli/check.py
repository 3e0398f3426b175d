"""`ftpatch check`: the linter of patch sites, for kernels, objects and modules, and its gate."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from ftpatch import api
from ftpatch.cli import Verb, emit
from ftpatch.cli.options import Reports, failed, gathered, jobs, layout, max_size, note, options, reports
from ftpatch.cli.usage import Choice
from ftpatch.errors import FtpatchError, UsageError
from ftpatch.finding import SEVERITIES
from ftpatch.kernel.boot import oracle
from ftpatch.report import Document, shows_more
from ftpatch.report.files import REPORT_MODE, check_reports
from ftpatch.report.objects import finding_rows, oracle_object, totals
from ftpatch.rules.files import CheckedFile, CheckOptions, CheckResult
from ftpatch.rules.gate import render_baseline
from ftpatch.rules.register import rules_for
from ftpatch.write import contents, files, paths

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject

AGAINST_HELP = "The kernel that will load the modules; for a vmlinux, an earlier build of it."
CONFIG_HELP = "Settings: fail-on, rules, severities, ignores with reasons, functions that must be traceable."
SELECT_HELP = "Ask only these rules; repeatable, commas too."
IGNORE_HELP = "Do not ask these rules; repeatable, commas too."
UNITS_HELP = "Judge what the compiler was told, in files with much debug information, too."
PAGE = "html"  # the format that draws every site
SEVERITY_HELP = "Another severity of a rule, above what the settings say; repeatable."


def _names(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """The names in the values of an option, between commas."""
    return tuple(name.strip() for text in values for name in text.split(",") if name.strip())


@dataclass(frozen=True)
class CheckRun:
    """What is checked and written: what CheckOptions do not say."""

    files: tuple[str, ...]  # or directories
    exit_zero: bool
    write_baseline: str | None  # a file
    predict: bool
    jobs: int | None  # worker processes of a tree
    list_rules: bool


@click.command("check", cls=Verb)
@gathered(CheckRun, CheckOptions, Reports)
@click.argument("files", nargs=-1, metavar="[FILE|DIR]...")
@click.option("--against", metavar="VMLINUX", help=AGAINST_HELP)
@click.option("--kconfig", metavar="FILE", help="The .config that the files should be of.")
@click.option("--config", metavar="TOML", help=CONFIG_HELP)
@click.option("--fail-on", type=Choice(SEVERITIES[::-1]), help="Exit 1 from here on (default: error).")
@click.option("--exit-zero", is_flag=True, help="Findings do not change the exit code.")
@click.option("--select", multiple=True, metavar="RULE", callback=_names, help=SELECT_HELP)
@click.option("--ignore", multiple=True, metavar="RULE", callback=_names, help=IGNORE_HELP)
@click.option("--severity", multiple=True, metavar="RULE=LEVEL", help=SEVERITY_HELP)
@click.option("--baseline", metavar="FILE", help="Findings that are known: they are neither shown nor counted.")
@click.option("--write-baseline", metavar="FILE", help="Write all findings there, and exit as if none was new.")
@options(reports, [layout, max_size])
@click.option("--lines", is_flag=True, help="Add source file and line, where a file has debug information.")
@click.option("--units", is_flag=True, help=UNITS_HELP)
@click.option("--sites", is_flag=True, help="Add every site to JSON.")
@click.option("--predict", is_flag=True, help="Add what a kernel will say and list when it boots.")
@jobs
@click.option("--list-rules", is_flag=True, help="Show the rules, and do nothing else.")
def command(run: CheckRun, asked: CheckOptions, reports: Reports) -> int:
    """Check the patch sites of kernels, modules and objects (default: ./vmlinux); a DIR stands for all modules below.

    Exit code 1 if there is a finding at or above --fail-on that the baseline does not know, in every format.
    """
    if run.list_rules:
        for rule in rules_for():
            emit(f"{rule.id:<20} {rule.severity:<8} {rule.title}\n")
        return 0
    names = run.files or ("vmlinux",)
    read = [path for path in (asked.against, asked.kconfig, asked.config, asked.baseline) if path]
    written = [f"json={run.write_baseline}"] if run.write_baseline else []
    check_reports((*reports.report, *written), [*names, *read])
    # a page has the map of single files; the sites of a tree's modules would be too many
    drawn = PAGE in reports.formats and not any(os.path.isdir(path) for path in names)
    settings = api.check_settings(replace(asked, full=shows_more(reports.formats), sites=asked.sites or drawn))
    shown = [rule for rule in rules_for() if rule.id in settings.request.rules]
    document = Document("check", show_sites=asked.sites, rules=shown, fail_on=settings.fail_on)
    results, worst = [], 0
    for path in dict.fromkeys(names):
        try:
            results.append(api.check(path, settings, run.jobs, reports.watch(written)))
            worst = max(worst, _add(path, results[-1], document))
        except UsageError:  # nothing is written
            raise
        except FtpatchError as error:  # one bad file does not hide the others
            worst = max(worst, failed(document, path, error))
    for image in document.images if run.predict else ():  # what the kernel will say of its sites at boot
        if image["kind"] == "vmlinux":
            _predict(image, asked)
    fails = any(result.failed for result in results) and not run.exit_zero and not run.write_baseline
    document.exit_code = max(worst, int(fails))
    reports.to_files(document)
    if run.write_baseline:
        _write_baseline(run.write_baseline, [file for result in results for file in result.files])
    reports.to_stdout(document)
    return document.exit_code


def _predict(image: ImageObject, asked: CheckOptions) -> None:
    """Add what a kernel will say at boot. A record table that only a check can read allows no prediction."""
    try:
        image["oracle"] = oracle_object(oracle(api.scan(image["file"], asked.layout, asked.max_size)))
    except FtpatchError as error:
        note(f"{image['file']}: no prediction of the boot: {error.what}")


def _add(path: str, result: CheckResult, document: Document) -> int:
    """Add what a file or tree gave; the worst exit code of its files that cannot be read."""
    top = path if os.path.isdir(path) else None
    for file in result.files:
        file.image["gate"] = {"known": file.judged.known, "ignored": file.judged.ignored}
        file.image["findings"] = finding_rows(file.findings)
        if top is not None:
            file.image["tree"] = top
    images = [file.image for file in result.files]
    document.images += images
    codes = [failed(document, file, error, top) for file, error in result.errors]
    if top is not None:
        document.trees.append({"tree": top, "totals": totals(images, result.n_bad)})
    return max(codes, default=0)


def _write_baseline(path: str, checked: list[CheckedFile]) -> None:
    keys = [key for file in checked for key in file.judged.keys]
    sources = [file.image["file"] for file in checked]
    with files.whole_file(paths.report_path(path), REPORT_MODE, sources, note) as new:
        contents.append(new.fd, render_baseline(keys, {file.where: file.live for file in checked}))
        new.finish()
        new.publish()
