"""The text of `symbols`: a line for each, as `nm -n` has it; of a file that was made, what is in it."""

from __future__ import annotations

from collections.abc import Iterator

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.fitting import fitted
from ftpatch.report.text.lines import number

NOWHERE = " " * 16  # in place of the address of an undefined symbol


def render(document: Document) -> Iterator[str]:
    """The lines of each file, without a head: as other programs read them."""
    for image in document.images:
        if (output := image.get("output")) is not None:
            n = number(len(image["symbols"]), "symbol")
            yield f"{printable(output['file'])}: {image['arch']} ELF file with {n}, from {image['source']}\n"
            continue
        for symbol in image["symbols"]:
            address = symbol["address"]
            figures = f"{address[2:] if address else NOWHERE} {symbol['type']} "
            yield f"{figures}{fitted(printable(symbol['name']), len(figures), document)}\n"
