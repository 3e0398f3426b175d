"""`ftpatch doctor`: which parts of its surroundings are there, what each adds, and how it is installed."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ftpatch import __version__
from ftpatch.cli import Verb, emit
from ftpatch.cli.parts import missing_of, parts
from ftpatch.cli.terminal import is_colored, is_terminal, size
from ftpatch.cli.usage import Choice
from ftpatch.document import SCHEMA
from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.fitting import kept_to
from ftpatch.report.text.lines import ALARM, DONE, WARNING, number, tinted

if TYPE_CHECKING:
    from ftpatch.document.doctor import DoctorObject, PartRow

TINTS = {"found": DONE, "missing": WARNING, "broken": ALARM}
REQUIRE_HELP = "Exit 1 unless this part is there, and works with --try; repeatable."
TRY_HELP = "Load each library, which tells one that is broken; without it, found is not tried."


@click.command("doctor", cls=Verb)
@click.option("--require", "required", multiple=True, metavar="PART", help=REQUIRE_HELP)
@click.option("--try", "tried", is_flag=True, help=TRY_HELP)
@click.option("--format", "format_", type=Choice(["text", "json"]), default="text", help="What goes to stdout.")
@click.option("--color", type=Choice(["auto", "always", "never"]), default="auto", help="Colour on stdout.")
def command(required: tuple[str, ...], tried: bool, format_: str, color: str) -> int:
    """Show which optional parts are installed, what each adds, and the command that brings it. No program is started.

    Exit code 0; with --require, 1 if one of these parts is missing.
    """
    rows = parts(tried)
    absent = missing_of(rows, required)
    told: DoctorObject = {
        "version": __version__, "python": platform.python_version(), "machine": os.uname().machine,
        "system": os.uname().sysname, "parts": rows,
    }  # fmt: skip
    if format_ == "json":
        emit(json.dumps({"schema": SCHEMA, "command": "doctor", "images": [], "doctor": told}, indent=1) + "\n")
    else:
        document = Document("doctor", colored=is_colored(color), width=size()[0], fitted=is_terminal(sys.stdout))
        lines = _lines(told, [row["name"] for row in absent], tried, document)
        emit("".join(kept_to(document.width, lines) if document.fitted else lines))
    return int(bool(absent))


def _lines(told: DoctorObject, absent: list[str], tried: bool, document: Document) -> Iterator[str]:
    rows = told["parts"]
    yield f"ftpatch {told['version']}, Python {told['python']}, {told['system']} {told['machine']}\n"
    width = max(len(row["name"]) for row in rows)
    for need, kind in dict.fromkeys((row["need"], row["kind"]) for row in rows):
        yield f"{need} {kind if kind == 'files' else 'libraries' if kind == 'library' else 'programs'}\n"
        for row in rows:
            if (row["need"], row["kind"]) == (need, kind):
                yield from _part(row, width, tried, document)
    n = sum(row["state"] != "found" for row in rows)
    yield f"{number(len(rows), 'part')}, {n} of them not there; "
    yield "libraries were loaded, programs not started\n" if tried else "found is not tried (--try loads libraries)\n"
    if absent:
        yield f"required, and not there: {', '.join(absent)}\n"


def _part(row: PartRow, width: int, tried: bool, document: Document) -> Iterator[str]:
    state = "works" if row["state"] == "found" and tried and row["kind"] == "library" else row["state"]
    shown = tinted(state, TINTS[row["state"]], document) + " " * (8 - len(state))
    version = f"{printable(row['version'])}, " if row["version"] else ""
    yield f"  {row['name']:<{width}} {shown} {version}{row['adds']}\n"
    if row["why"]:
        yield f"  {'':<{width}} {'':<8} {printable(row['why'])}\n"
    if row["state"] != "found":
        yield f"  {'':<{width}} {'':<8} install: {row['install']}\n"
