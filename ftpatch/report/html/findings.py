"""What a check, a comparison or a proof found: the worst in full, and the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch.report.html.columns import LONGEST, cut
from ftpatch.report.html.tables import Field, Row, Table, table_of
from ftpatch.report.results import SEVEREST_FIRST, place_of, severities_text, severity_of
from ftpatch.report.text.lines import number

if TYPE_CHECKING:
    from ftpatch.document.types import FindingRow, ImageObject

N_SHOWN = 200  # findings that the page has in full without its script
N_OF_RULE = 20  # of one rule, as long as others have some
FIELDS = (
    Field("severity", "Severity", "enum", filter=True), Field("rule", "Rule", "enum", filter=True),
    Field("module", "Module", "enum", filter=True), Field("function", "Function"), Field("message", "Message"),
    Field("section", "Section", "enum", filter=True), Field("offset", "Offset", "hex"), Field("row", "Row", "int"),
    Field("pos", "File position", "int"), Field("source", "Source"), Field("count", "Sites", "int"),
    Field("help", "What to do", "enum", hidden=True),
)  # fmt: skip


@dataclass(frozen=True)
class FindingView:
    id: str
    severity: str
    rule: str
    message: str
    place: str
    function: str
    row: int | None
    source: str
    help: str
    count: int
    module: str  # of a tree; else empty


@dataclass(frozen=True)
class Skipped:
    rule: str
    needs: str


@dataclass(frozen=True)
class Findings:
    n: int
    n_shown: int
    rows: tuple[FindingView, ...]
    headline: str  # `2 errors, 1 note`
    skipped: tuple[Skipped, ...]  # rules that were not asked
    gate: str  # what is not shown, and why; empty for nothing
    text: str  # what is not here


Placed = tuple[str, "FindingRow"]  # the module of a tree, and what was found in it


def findings_of(
    images: Sequence[ImageObject], names: Sequence[str], index: int
) -> tuple[Findings, Table | None] | None:
    """The findings of one file, or of the modules of a tree by their names; None where none was looked for.

    index: of the view, for the names of elements.
    """
    if not any("findings" in image for image in images):
        return None
    placed = [(name, row) for image, name in zip(images, names, strict=True) for row in image.get("findings", ())]
    placed.sort(key=lambda pair: SEVEREST_FIRST.index(severity_of(pair[1])))
    shown = _first(placed)
    views = tuple(_view(f"finding-{index}-{n}", module, row) for n, (module, row) in enumerate(shown))
    skipped = {row["rule"]: row["needs"] for image in images for row in image.get("skipped", ())}
    text = f"{len(shown)} of {number(len(placed), 'finding')} are here" if len(shown) < len(placed) else ""
    found = Findings(
        len(placed), len(shown), views, severities_text(row for _, row in placed) or "nothing found",
        tuple(Skipped(cut(rule), cut(needs)) for rule, needs in skipped.items()), _gate(images), text,
    )  # fmt: skip
    rows: list[Row] = [{**row, "module": module or None, "severity": severity_of(row)} for module, row in placed]
    return found, table_of("findings", "Findings", FIELDS, rows) if rows else None


def _first(placed: Sequence[Placed]) -> list[Placed]:
    """The first of each rule, and of these rules' others as many as there is room for; the worst in front."""
    of_rule: dict[str, int] = {}
    front: list[Placed] = []
    behind: list[Placed] = []
    for pair in placed:
        n = of_rule[pair[1]["rule"]] = of_rule.get(pair[1]["rule"], 0) + 1
        (front if n <= N_OF_RULE else behind).append(pair)
    chosen = (front + behind)[:N_SHOWN]
    return sorted(chosen, key=lambda pair: SEVEREST_FIRST.index(severity_of(pair[1])))


def _view(name: str, module: str, row: FindingRow) -> FindingView:
    return FindingView(
        name, severity_of(row), cut(row["rule"]), cut(row["message"], LONGEST), cut(place_of(row)),
        cut(row["function"] or ""), row["row"], cut(row["source"] or ""), cut(row["help"], LONGEST),
        row["count"], module,
    )  # fmt: skip


def _gate(images: Sequence[ImageObject]) -> str:
    """How many findings are not shown."""
    gates = [image["gate"] for image in images if "gate" in image]
    counts = {"known by the baseline": sum(gate["known"] for gate in gates),
              "ignored by the configuration": sum(gate["ignored"] for gate in gates)}  # fmt: skip
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n)
