"""`ftpatch restore`: from a patched file and its journal back to the file that was patched, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import click

from ftpatch.cli import emit
from ftpatch.cli.options import gathered, max_size, note
from ftpatch.errors import UsageError

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject


@dataclass(frozen=True)
class RestoreOptions:
    file: str  # the patched file
    journal: str
    output: str | None
    in_place: bool
    format_: str  # of stdout
    max_size: int | None  # bytes that a packed file may unpack to
    dry_run: bool


@click.command("restore")
@gathered(RestoreOptions)
@click.argument("file", metavar="AFTER")
@click.option("--journal", required=True, metavar="FILE", help="The JSON report of the run that patched AFTER.")
@click.option("-o", "--output", metavar="BACK", help="Write the result here (default: AFTER without .patched).")
@click.option("--in-place", is_flag=True, help="Replace AFTER itself; the journal stays.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", help="What goes to stdout.")
@max_size
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
def command(given: RestoreOptions) -> int:
    """Undo a patch: give back the file that was patched, compression and signature included.

    A file that was patched more than once goes back step by step, the last patch first.
    """
    from ftpatch import api
    from ftpatch.report import Document, renderer
    from ftpatch.report.restored import restored_object, restored_text
    from ftpatch.write import paths

    if given.in_place and given.output:
        raise UsageError("--in-place and -o exclude each other")
    if given.output:
        paths.output_path(given.file, given.output)  # its own name is for --in-place
    out = given.file if given.in_place else given.output
    request = api.RestoreRequest(given.file, given.journal, out, given.dry_run, given.max_size)
    done = api.restore(request, api.Watch(note))
    if given.format_ == "json":
        # an image of a form of its own, which no format but JSON is asked to show
        document = Document("restore", [cast("ImageObject", restored_object(done, given.dry_run))])
        emit("".join(renderer("json")(document)))
    else:
        emit("".join(restored_text(done, given.dry_run)))
    return 0
