"""`ftpatch restore`: from a patched file and its journal back to the file that was patched, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import click

from ftpatch.cli import emit
from ftpatch.cli.options import max_size, note
from ftpatch.errors import UsageError, printable

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject, RestoredObject
    from ftpatch.journal.restore import Restored


@click.command("restore")
@click.argument("file", metavar="AFTER")
@click.option("--journal", required=True, metavar="FILE", help="The JSON report of the run that patched AFTER.")
@click.option("-o", "--output", metavar="BACK", help="Write the result here (default: AFTER without .patched).")
@click.option("--in-place", is_flag=True, help="Replace AFTER itself; the journal stays.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", help="What goes to stdout.")
@max_size
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
def command(
    file: str, journal: str, output: str | None, in_place: bool, format_: str, max_size: int | None, dry_run: bool
) -> int:
    """Undo a patch: give back the file that was patched, compression and signature included.

    A file that was patched more than once goes back step by step, the last patch first.
    """
    from ftpatch.container import envelope
    from ftpatch.journal import restore
    from ftpatch.report import Document, renderer
    from ftpatch.write import paths

    if in_place and output:
        raise UsageError("--in-place and -o exclude each other")
    out = file if in_place else output or restore.default_output(file)
    if not in_place:
        paths.output_path(file, out)
    paths.output_path(journal, out)

    done = restore.restore(
        file, journal, out, by_suffix=bool(output), dry_run=dry_run,
        max_size=envelope.MAX_SIZE if max_size is None else max_size, note=note,
    )  # fmt: skip
    if format_ == "json":
        # an image of a form of its own, which no format but JSON is asked to show
        document = Document("restore", [cast("ImageObject", _object(done, dry_run))])
        emit("".join(renderer("json")(document)))
    else:
        emit("".join(_text(done, dry_run)))
    return 0


def _object(done: Restored, dry_run: bool) -> RestoredObject:
    """The image of the JSON report."""
    from ftpatch.elf.identity import build_id

    image, journal = done.image, done.journal
    return {
        "file": image.path,
        "sha256": image.sha256,
        "build_id": build_id(image),
        "arch": done.arch.name,
        "kind": image.kind,
        "output": None if dry_run else {"file": done.path, "sha256": done.sha256, "elf_sha256": done.elf_sha256},
        "restored": {
            "journal": journal.path, "command": journal.command, "edits": journal.n_edits, "repacked": done.repacked,
            "same": done.same,
        },
    }  # fmt: skip


def _text(done: Restored, dry_run: bool) -> Iterator[str]:
    journal = done.journal
    since = ", since then packed in another way" if done.repacked else ""
    yield f"{printable(done.image.path)}: {done.arch.name} {done.image.kind}\n"
    yield f"  journal    {printable(journal.path)}: {journal.command}, {journal.n_edits} edits{since}\n"
    what = "nothing written (dry run)" if dry_run else f"{printable(done.path)} written and checked"
    same = "byte for byte the file that was patched" if done.same else "the content of the file that was patched"
    yield f"  output     {what}; {same}\n"
    yield f"  sha256     {done.sha256}\n"
