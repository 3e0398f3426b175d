"""`ftpatch explain`: one function from bytes to verdict, or a kernel's own message taken apart."""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass

import click

from ftpatch import api
from ftpatch.cli import Verb, complain
from ftpatch.cli.options import Reports, gathered, layout, max_size, options, reports, selector_files
from ftpatch.errors import UsageError
from ftpatch.inputs import read_input
from ftpatch.report import Document, shows_more
from ftpatch.report.explain import explanation_object, splat_image, splat_rows
from ftpatch.report.files import check_reports

AGAINST_HELP = "For a module: the vmlinux that will load it, or a module that it may call; repeatable."
MODULES_HELP = "A tree of modules in which a function that FILE does not have is looked for."
SPLAT_HELP = "Take apart an ftrace message from a log (- is stdin); the arguments are then [FILE]."


@dataclass(frozen=True)
class ExplainOptions:
    arguments: tuple[str, ...]  # FUNC [FILE], or [FILE] with a log
    layout: str | None  # of sites, where it is forced
    max_size: int | None  # bytes that a packed file may unpack to
    against: tuple[str, ...]  # files that a module will meet
    modules: str | None  # a directory
    splat: str | None  # a log


@click.command("explain", cls=Verb)
@gathered(ExplainOptions, Reports)
@click.argument("arguments", nargs=-1, metavar="FUNC [FILE]")
@options(reports, [layout, max_size])
@click.option("--against", multiple=True, metavar="FILE", help=AGAINST_HELP)
@click.option("--modules", metavar="DIR", help=MODULES_HELP)
@click.option("--splat", metavar="LOG", help=SPLAT_HELP)
def command(given: ExplainOptions, reports: Reports) -> int:
    """Explain one function of FILE (default: ./vmlinux): symbols, record, place, words now and as enable would write
    them, whether that could be done live, and the source line; and why it is not traceable, if it is not.

    FUNC may be any selector; every site that it names is explained. With --splat the arguments are [FILE]: the kernel
    or module that printed the message.
    """
    hashed = shows_more(reports.formats)
    n, n_names, log = len(given.arguments), int(given.splat is None), given.splat
    if not n_names <= n <= n_names + 1:
        raise UsageError("wrong number of arguments", found=str(n), expected="[FILE]" if log else "FUNC [FILE]",
                         todo="for example ftpatch explain vfs_read vmlinux")  # fmt: skip
    if log is not None and (given.against or given.modules):
        raise UsageError("--against and --modules say nothing of a log", todo="leave them out, or name a function")
    document = Document("explain", sources=[log] if log and log != "-" else [])
    path = given.arguments[-1] if n > n_names else "vmlinux"
    lists = selector_files(given.arguments[:1]) if n_names else []
    check_reports(reports.report, [path, *document.sources, *given.against, *lists])
    error = None
    if log is not None:
        file = path if n or os.path.exists(path) else None
        diagnoses = api.explain_log(_read(log), file, given.layout, given.max_size)
        for text in diagnoses.notes:
            reports.watch().note(text)
        document.splats += splat_rows(diagnoses)
        if diagnoses.scan is not None:
            document.images.append(splat_image(diagnoses.scan, diagnoses.told, hashed))
    else:
        explanation = api.explain(
            path,
            given.arguments[0],
            given.against,
            given.modules,
            reports.watch(),
            layout=given.layout,
            max_size=given.max_size,
        )
        document.images.append(explanation_object(explanation, hashed))
        error = explanation.error
    if error is not None:
        complain(error)
    reports.deliver(document)
    return 0 if error is None else error.exit_code


def _read(log: str) -> str:
    """The text of a log, each byte a character: what matters is ASCII, and lines are decoded one by one."""
    from ftpatch.explanation.splat import MAX_SPLAT  # with all that reads messages, which a function needs not

    data = read_input(log, MAX_SPLAT, "the log")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell's `>` writes it
    return data.decode("utf-16", "replace") if wide else data.decode("latin-1")
