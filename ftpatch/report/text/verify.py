"""The text of `verify`: what was recognised of the second file, and what does not hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.results import n_sites
from ftpatch.report.text.lines import each_file, line, number

if TYPE_CHECKING:
    from ftpatch.document.proofs import ImportRow
    from ftpatch.document.types import FindingRow, ImageObject

N_SHOWN = 10  # findings of one rule


def render(document: Document) -> Iterator[str]:
    """The one pair of files."""
    yield from each_file(document, _file)


def _file(image: ImageObject) -> Iterator[str]:
    proof, findings, output = image["proof"], image["findings"], image["output"]
    assert output is not None
    result = number(n_sites(findings), "finding") if findings else "every change is accounted for"
    missing = "".join(f"; {reason}" for reason in proof["missing"])
    yield line("result", f"{printable(output['file'])}: {result}{printable(missing)}")
    sites = [f"{n} {_kind(name, n)}" for name, n in proof["sites"].items() if n]
    yield line("sites", ", ".join(sites) or "none changed")
    records = proof["records"]
    (live, live_now), (slots, slots_now) = records["live"], records["slots"]
    moved = {"taken out": records["record taken out"], "returned": records["record returned"]}
    moves = "".join(f"; {n} {what}" for what, n in moved.items() if n)
    yield line("records", f"{live} live in {slots} slots, now {live_now} in {slots_now}{moves}")
    totals = (("callees", proof.get("callees")), ("ops", proof.get("ops")), ("redirects", proof.get("redirects")))
    for what, counts in totals:
        if counts:
            yield line(what, ", ".join(f"{printable(name)} {n}" for name, n in counts.items()))
    if calls := proof.get("static_calls"):
        texts = [f"{key} -> {to}" for key, to in list(calls.items())[:N_SHOWN]]
        more = f" and {len(calls) - N_SHOWN} more" if len(calls) > N_SHOWN else ""
        yield line("static", f"{number(len(calls), 'static call')} set: {printable(', '.join(texts))}{more}")
    imports = [_import(row) for row in proof.get("imports", ())]
    if imports or proof.get("depends"):
        depends = "".join(f"; depends= gained {name}" for name in proof.get("depends", ()))
        yield line("imports", printable(", ".join(imports) + depends))
    yield line("edits", ", ".join(f"{name} {n}" for name, n in proof["edits"].items()) or "none")
    yield line("readers", f"ftpatch; second reader: {proof['reader']}")
    skipped = proof["not_emulated"]
    yield line("emulated", f"not emulated: {skipped}" if skipped else f"{proof['emulated']} sites")
    yield from (line("", f"not emulated: {printable(reason)}") for reason in proof["unclaimed"][:N_SHOWN])
    if proof["journal"]:
        yield line("journal", f"{printable(proof['journal'])}: held against both files")
    yield from (line("note", note) for note in proof["notes"])
    yield from _findings(findings)


def _kind(name: str, n: int) -> str:
    """A kind of change for people: sites are what the line is about, functions are not."""
    return name.replace("function", "functions" if n > 1 else "function").removeprefix("site ")


def _import(row: ImportRow) -> str:
    exporter = row.get("exporter")
    return f"{row['name']} ({row['crc'] or 'no version'}{f', of {exporter}' if exporter else ''})"


def _findings(findings: Sequence[FindingRow]) -> Iterator[str]:
    """A line for each finding, the first few of each rule; behind all how many more of a rule there are."""
    of_rule: dict[str, list[FindingRow]] = {}
    for finding in findings:
        rows = of_rule.setdefault(finding["rule"], [])
        rows.append(finding)
        if len(rows) <= N_SHOWN:
            yield f"    {finding['rule']}: {finding['message']}\n"
    for rule, rows in of_rule.items():
        if len(rows) > N_SHOWN:
            yield f"    {rule}: … and {n_sites(rows) - N_SHOWN} more\n"
