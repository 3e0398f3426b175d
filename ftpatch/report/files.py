"""Reports in files: every FORMAT=FILE of a run, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from ftpatch.report import Document, destinations, renderer

REPORT_MODE = 0o666  # permission bits of a new report, less the umask and what its sources do not allow
BLOCK = 1 << 16  # characters that are written at once: pieces are short, and a reader like `head` may end it early


def check_reports(reports: Sequence[str], files: Sequence[str]) -> None:
    """Refuse, before any work is done, reports that would replace one of `files` or each other."""
    if reports:
        from ftpatch.write.paths import require_distinct

        require_distinct([path for _, path in destinations(reports)], files)


@contextmanager
def files_ready(document: Document, reports: Sequence[str], note: Callable[[str], None]) -> Iterator[None]:
    """Every FORMAT=FILE, complete before the first gets its name; all are taken back if the context ends badly.

    What the context does is short: signals wait until then. note: told what else happens to files.
    """
    if not reports:
        yield
        return
    from ftpatch.write import contents, files, paths

    with ExitStack() as stack:
        new_files, sources = [], sorted(_sources(document))
        for name, path in destinations(reports):
            new = stack.enter_context(files.whole_file(paths.report_path(path), REPORT_MODE, sources, note))
            for block in blocks(renderer(name)(document)):
                contents.append(new.fd, block.encode("utf-8", "backslashreplace"))
            new.finish()
            new_files.append(new)
        with files.named(new_files):
            yield


def blocks(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces of a report put together to blocks of some size."""
    block = ""
    for piece in pieces:
        block += piece
        if len(block) > BLOCK:
            yield block
            block = ""
    yield block


def _sources(document: Document) -> set[str]:
    """The files that a document tells of: a report may hold pieces of each. An output that is to be replaced counts."""
    sources = {*document.sources, *(image["file"] for image in document.images)}
    sources |= {other["file"] for image in document.images if (other := image.get("compared"))}
    outputs = {output["file"] for image in document.images if (output := image.get("output"))}
    return sources | set(filter(os.path.lexists, outputs))
