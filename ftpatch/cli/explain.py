"""`ftpatch explain`: one function from bytes to verdict, or a kernel's own message taken apart."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from ftpatch.cli import complain
from ftpatch.cli.options import check_reports, layout, note, options, reports, to_files, to_stdout
from ftpatch.errors import InputError, SelectionError, UsageError
from ftpatch.sites.scan import scan_file

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject
    from ftpatch.explain.untraceable import Absence
    from ftpatch.report import Document
    from ftpatch.sites.scan import Scan

N_SITES = 32  # sites that one run explains
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
    from ftpatch.report import Document, destinations, shows_more

    hashed = shows_more([format_, *(name for name, _ in destinations(report))])
    n = len(arguments)
    if n > 1 + (splat is None) or (splat is None and not n):
        raise UsageError("wrong number of arguments", found=str(n), expected="[FILE]" if splat else "FUNC [FILE]")
    document = Document("explain")
    path = arguments[-1] if n == 1 + (splat is None) else "vmlinux"
    check_reports(report, [path, *([splat] if splat and splat != "-" else [])])
    code = 0
    if splat is not None:
        _splats(document, splat, path if n or os.path.exists(path) else None, layout, hashed)
    else:
        image, code = _function(arguments[0], path, layout, hashed, against, modules)
        document.images.append(image)
    to_files(document, report)
    to_stdout(document, format_, color)
    return code


def _function(
    func: str, path: str, layout: str | None, hashed: bool, against: tuple[str, ...], modules: str | None
) -> tuple[ImageObject, int]:
    """The IMAGE object with every explained site, or with why there is none; and the exit code."""
    import numpy as np

    from ftpatch.explain import site as explain
    from ftpatch.explain.untraceable import named
    from ftpatch.report.explain import absence_object, explain_object
    from ftpatch.sites.select import select

    scan = scan_file(path, layout)
    try:
        selection = select(scan.sites, [func])
    except SelectionError as error:
        absence = _absent(scan, func, modules)
        if absence is None:
            raise
        if not absence.known:
            complain(error)
        return absence_object(scan, absence, hashed), 0 if absence.known else error.exit_code
    for text in selection.notes:
        note(text.replace("are taken", "are explained"))
    index = np.flatnonzero(selection.mask)
    if len(index) > N_SITES:
        note(f"{len(index)} sites; the first {N_SITES} are explained")
        selection.mask[index[N_SITES:]] = False
    told = [explain.explain(scan, site, against) for site in index[:N_SITES].tolist()]
    others = [] if _name_of(func) is None else [one for one in named(scan.image, scan.sites, func) if not one.has_site]
    return explain_object(scan, selection.mask, told, func, others, hashed), 0


def _name_of(func: str) -> str | None:
    """The function that a selector names; None where it is no plain name."""
    name = func.partition("@")[0]
    return None if not name or any(char in func for char in "*?[/:+!") or func.startswith(("0x", "0X")) else name


def _absent(scan: Scan, func: str, modules: str | None) -> Absence | None:
    """What is known of a name that selects nothing; None where FUNC is no plain name."""
    from ftpatch.explain.untraceable import absence

    name = _name_of(func)
    if name is None:
        return None
    return absence(scan.image, scan.sites, name, _modules(name, modules) if modules else None)


def _modules(name: str, top: str) -> tuple[str, ...]:
    """The modules of a tree that have a site of that name."""
    from ftpatch import trees

    found = trees.scan_tree(trees.walk(top), trees.Request(None, (name,), (), (), False, False))
    return tuple(one.path for one in found if one.n_chosen)


def _splats(document: Document, log: str, path: str | None, layout: str | None, hashed: bool) -> None:
    """Add every message of a log to the document, and the file if there is one."""
    from ftpatch.explain.diagnosis import diagnose, diagnose_in
    from ftpatch.explain.splat import MAX_SPLAT, parse
    from ftpatch.report.explain import splat_image, splat_rows

    splats = parse(_read(log, MAX_SPLAT))
    if path is None:
        document.splats += splat_rows([diagnose(one) for one in splats])
        return
    scan = scan_file(path, layout)
    told = [diagnose_in(one, scan) for one in splats]
    document.images.append(splat_image(scan, told, hashed))
    document.splats += splat_rows(told, scan)


def _read(log: str, limit: int) -> str:
    try:
        if log == "-":
            if sys.stdin is None:
                raise InputError("the log cannot be read: there is no standard input", log)
            return sys.stdin.buffer.read(limit).decode("utf-8", "replace")
        with open(log, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError as error:
        raise InputError("the log cannot be read", log, found=error.strerror or str(error)) from None
