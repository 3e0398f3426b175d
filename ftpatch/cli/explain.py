"""`ftpatch explain`: one function from bytes to verdict, or a kernel's own message taken apart."""

from __future__ import annotations

import os
import sys

import click

from ftpatch.cli import complain
from ftpatch.cli.options import layout, options, reports, to_files, to_stdout, watch
from ftpatch.errors import InputError, UsageError
from ftpatch.report.files import check_reports

AGAINST_HELP = "For a module: the vmlinux that will load it, or a module that it may call; repeatable."
MODULES_HELP = "A tree of modules in which a function that FILE does not have is looked for."
SPLAT_HELP = "Take apart an ftrace message from a log (- is stdin); the arguments are then [FILE]."


@click.command("explain")
@click.argument("arguments", nargs=-1, metavar="FUNC [FILE]")
@options(reports, [layout])
@click.option("--against", multiple=True, metavar="FILE", help=AGAINST_HELP)
@click.option("--modules", metavar="DIR", help=MODULES_HELP)
@click.option("--splat", metavar="LOG", help=SPLAT_HELP)
def command(
    arguments: tuple[str, ...], format_: str, color: str, report: tuple[str, ...], layout: str | None,
    against: tuple[str, ...], modules: str | None, splat: str | None,
) -> int:  # fmt: skip
    """Explain one function of FILE (default: ./vmlinux): symbols, record, place, words now and as enable would write
    them, whether that could be done live, and the source line; and why it is not traceable, if it is not.

    FUNC may be any selector; every site that it names is explained. With --splat the arguments are [FILE]: the kernel
    or module that printed the message.
    """
    from ftpatch import api
    from ftpatch.report import Document, destinations, shows_more
    from ftpatch.report.explain import explanation_object, splat_image, splat_rows

    hashed = shows_more([format_, *(name for name, _ in destinations(report))])
    n = len(arguments)
    if n > 1 + (splat is None) or (splat is None and not n):
        raise UsageError("wrong number of arguments", found=str(n), expected="[FILE]" if splat else "FUNC [FILE]")
    document = Document("explain")
    path = arguments[-1] if n == 1 + (splat is None) else "vmlinux"
    check_reports(report, [path, *([splat] if splat and splat != "-" else [])])
    if splat is not None:
        told = api.explain_log(_read(splat), path if n or os.path.exists(path) else None, layout)
        document.splats += splat_rows(told)
        if told.scan is not None:
            document.images.append(splat_image(told.scan, told.told, hashed))
        error = None
    else:
        explanation = api.explain(path, arguments[0], layout, against, modules, watch(report))
        document.images.append(explanation_object(explanation, hashed))
        error = explanation.error
    if error is not None:
        complain(error)
    to_files(document, report)
    to_stdout(document, format_, color)
    return error.exit_code if error is not None else 0


def _read(log: str) -> str:
    """The text of a log, as far as it is read."""
    from ftpatch.explanation.splat import MAX_SPLAT

    try:
        if log == "-":
            if sys.stdin is None:
                raise InputError("the log cannot be read: there is no standard input", log)
            return sys.stdin.buffer.read(MAX_SPLAT).decode("utf-8", "replace")
        with open(log, "rb") as file:
            return file.read(MAX_SPLAT).decode("utf-8", "replace")
    except OSError as error:
        raise InputError("the log cannot be read", log, found=error.strerror or str(error)) from None
