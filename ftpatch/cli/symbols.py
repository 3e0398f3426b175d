"""`ftpatch symbols`: the symbols of a file, as nm lists them, or as an ELF file that other tools read them from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ftpatch.cli import Verb
from ftpatch.cli.options import Reports, gathered, max_size, note, options, reports
from ftpatch.document.symbol_rows import symbols_file
from ftpatch.elf.image import Image
from ftpatch.errors import UsageError
from ftpatch.recovered.symbol_list import SymbolList, symbols_of
from ftpatch.report import Document, shows_more
from ftpatch.report.files import check_reports, files_ready

OUTPUT_HELP = "Write an ELF file of a kernel that has none of its own with these symbols, for debuggers and profilers."
NAME_HELP = "List only these: name, glob, /regex/ or !SEL; repeatable, joined."


@click.command("symbols", cls=Verb)
@gathered(Reports)
@click.argument("file", default="vmlinux", metavar="[FILE]")
@click.option("-o", "--output", metavar="OUT", help=OUTPUT_HELP)
@click.option("--name", "names", multiple=True, metavar="SEL", help=NAME_HELP)
@options(reports, [max_size])
def command(reports: Reports, file: str, output: str | None, names: tuple[str, ...], max_size: int | None) -> int:
    """List the symbols of a kernel, module, object or program (default: ./vmlinux) as `nm -n` does: those of its symbol
    table, or those that a kernel without one has for its own messages (kallsyms). With -o, write an ELF file that has
    these in a symbol table."""
    check_reports(reports.report, [file, *([output] if output else [])])
    if output and names:
        raise UsageError("--name narrows the list, and -o writes all symbols", todo="leave one of them out")
    if output:
        return _write(reports, file, output, max_size)
    symbols = symbols_of(file, max_size)
    if names:
        from ftpatch.sites.symbol_choice import choose_symbols

        symbols = choose_symbols(symbols, names)
    reports.deliver(_document(reports, symbols))
    return 0


def _document(reports: Reports, symbols: SymbolList, written: Image | None = None) -> Document:
    """The report. written: the ELF file that was made."""
    hashed = shows_more(reports.formats)
    image = symbols_file(symbols, symbols.image.sha256 if hashed else None)
    if written:
        image["output"] = {"file": written.path, "sha256": written.sha256 if hashed else None, "elf_sha256": None}
    for text in image["notes"]:
        note(text)
    return Document("symbols", images=[image])


def _write(reports: Reports, file: str, output: str, max_size: int | None) -> int:
    """Write the ELF file, and its reports with it."""
    from ftpatch import api

    documents = []

    @contextmanager
    def ready(symbols: SymbolList, written: Image) -> Iterator[None]:
        documents.append(_document(reports, symbols, written))
        with files_ready(documents[0], reports.report, note):
            yield

    api.symbols(file, output, note, max_size, ready)
    reports.to_stdout(documents[0])
    return 0
