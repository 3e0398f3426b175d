"""What `restore` did, as the image of its JSON report and as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftpatch.document.files import add_form
from ftpatch.elf.identity import build_id
from ftpatch.errors import printable
from ftpatch.journal.restore import Restored
from ftpatch.report.text.lines import line

if TYPE_CHECKING:
    from ftpatch.document.types import RestoredObject


def restored_object(done: Restored, dry_run: bool) -> RestoredObject:
    """The image of the JSON report."""
    image, journal = done.image, done.journal
    made: RestoredObject = {
        "file": image.path,
        "sha256": image.sha256,
        "build_id": build_id(image),
        "arch": image.arch.name,
        "kind": image.kind,
        "output": None if dry_run else {"file": done.path, "sha256": done.sha256, "elf_sha256": done.elf_sha256},
        "restored": {
            "journal": journal.path, "command": journal.command, "edits": journal.n_edits, "repacked": done.repacked,
            "same": done.same,
        },
    }  # fmt: skip
    add_form(made, image)
    return made


def restored_text(done: Restored, dry_run: bool) -> Iterator[str]:
    """The text report, line by line."""
    journal = done.journal
    since = ", since then packed in another way" if done.repacked else ""
    yield f"{printable(done.image.path)}: {done.image.arch.name} {done.image.kind}\n"
    yield line("journal", f"{printable(journal.path)}: {journal.command}, {journal.n_edits} edits{since}")
    what = "nothing written (dry run)" if dry_run else f"{printable(done.path)} written and checked"
    same = "byte for byte the file that was patched" if done.same else "the content of the file that was patched"
    yield line("output", f"{what}; {same}")
    yield line("sha256", done.sha256)
