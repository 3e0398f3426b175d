"""`ftpatch restore`: from a patched file and its journal back to the file that was patched, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import click

from ftpatch import api
from ftpatch.cli import Verb, emit
from ftpatch.cli.options import gathered, max_size, note
from ftpatch.cli.usage import Choice
from ftpatch.errors import UsageError
from ftpatch.journal.restore import RestoreRequest
from ftpatch.report import Document, renderer
from ftpatch.report.restored import restored_object, restored_text
from ftpatch.write import paths

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject


@click.command("restore", cls=Verb)
@gathered(RestoreRequest)
@click.argument("after", metavar="AFTER")
@click.option("--journal", required=True, metavar="FILE", help="The JSON report of the run that patched AFTER.")
@click.option("-o", "--output", "out", metavar="BACK", help="Write the result here (default: AFTER without .patched).")
@click.option("--in-place", is_flag=True, help="Replace AFTER itself; the journal stays.")
@click.option("--format", "format_", type=Choice(["text", "json"]), default="text", help="What goes to stdout.")
@max_size
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
def command(request: RestoreRequest, in_place: bool, format_: str) -> int:
    """Undo a patch: give back the file that was patched, compression and signature included.

    A file that was patched more than once goes back step by step, the last patch first.
    """
    if in_place and request.out:
        raise UsageError("--in-place and -o exclude each other", todo="leave one of them out")
    if in_place:
        request = replace(request, out=request.after)
    elif request.out:
        paths.output_path(request.after, request.out)  # its own name is for --in-place
    done = api.restore(request, api.Watch(note))
    if format_ == "json":
        # an image of a form of its own, which no format but JSON is asked to show
        document = Document("restore", [cast("ImageObject", restored_object(done, request.dry_run))])
        emit("".join(renderer("json")(document)))
    else:
        emit("".join(restored_text(done, request.dry_run)))
    return 0
