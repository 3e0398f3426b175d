"""What `verify` has to say: its findings, and what it recognised, as JSON objects and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report.text.lines import line, number
from ftpatch.rules.register import help_of

if TYPE_CHECKING:
    from ftpatch.document.types import FindingRow, ImageObject, ProofRecords
    from ftpatch.elf.image import Image
    from ftpatch.finding import Finding
    from ftpatch.proof.prove import Proof

SITES = ("site enabled", "site disabled", "site redirected", "record dropped alone")
RECORDS = ("record taken out", "record returned")
N_SHOWN = 10


def finding_rows(findings: Sequence[Finding], with_pos: bool = False) -> list[FindingRow]:
    """One object per finding. with_pos: with the position in the file, which the findings of `verify` have."""
    rows: list[FindingRow] = [
        {
            "rule": finding.rule, "severity": finding.severity, "message": printable(finding.message),
            "function": finding.function, "row": finding.row, "section": finding.section,
            "offset": None if finding.offset is None else f"0x{finding.offset:x}", "pos": finding.pos,
            "source": finding.source, "help": help_of(finding.rule), "count": finding.count,
        }
        for finding in findings
    ]  # fmt: skip
    for row in rows if not with_pos else ():
        del row["pos"]
    return rows


def proof_object(proof: Proof, hashed: bool, journal: str | None) -> ImageObject:
    """The IMAGE object of `verify`: the first file, the second as its `output`, and what was found."""
    from ftpatch.document.rows import image_object

    before, after = proof.before, proof.after
    found = image_object(before, sha256=before.image.sha256 if hashed else None, with_sites=False)
    found["output"] = {
        "file": after.path, "sha256": after.sha256 if hashed else None, "elf_sha256": _elf(after) if hashed else None,
    }  # fmt: skip
    kinds, outcome = proof.kinds, proof.outcome
    moved: ProofRecords = {
        "live": list(proof.live), "slots": list(proof.slots),
        "record taken out": kinds.get("record taken out", 0), "record returned": kinds.get("record returned", 0),
    }  # fmt: skip
    found["proof"] = {
        "sites": {name: kinds.get(name, 0) for name in SITES},
        "records": moved,
        "edits": {name: n for name, n in sorted(kinds.items()) if name not in (*SITES, *RECORDS)},
        "reader": proof.reader,
        "emulated": outcome.n,
        "not_emulated": outcome.skipped,
        "unclaimed": list(proof.unclaimed),
        "missing": list(proof.missing),
        "journal": journal,
        "notes": list(proof.notes),
    }
    found["findings"] = finding_rows(proof.findings, with_pos=True)
    return found


def _elf(image: Image) -> str:
    import hashlib

    plain = image.wrapping == "none" and not image.trailer
    return image.sha256 if plain else hashlib.sha256(image.data.data).hexdigest()


def text(image: ImageObject) -> Iterator[str]:
    """The lines of one `verify` for people, but for the head."""
    proof, findings = image["proof"], image["findings"]
    assert image["output"] is not None
    missing = "".join(f"; {why}" for why in proof["missing"])
    yield line("result", f"{printable(image['output']['file'])}: {_count(findings)}{printable(missing)}")
    sites = [f"{n} {name.removeprefix('site ')}" for name, n in proof["sites"].items() if n]
    yield line("sites", ", ".join(sites) or "none changed")
    (live, now), (slots, now_slots) = proof["records"]["live"], proof["records"]["slots"]
    moved = {"taken out": proof["records"]["record taken out"], "returned": proof["records"]["record returned"]}
    moves = [f"{n} {what}" for what, n in moved.items() if n]
    yield line("records", f"{live} live in {slots} slots, now {now} in {now_slots}" + "".join(f"; {m}" for m in moves))
    yield line("edits", ", ".join(f"{name} {n}" for name, n in proof["edits"].items()) or "none")
    yield line("readers", f"ftpatch; second reader: {proof['reader']}")
    skipped, n = proof["not_emulated"], proof["emulated"]
    yield line("emulated", f"not emulated: {skipped}" if skipped else f"{n} sites")
    yield from (line("", f"not emulated: {printable(why)}") for why in proof["unclaimed"][:N_SHOWN])
    if proof["journal"]:
        yield line("journal", f"{printable(proof['journal'])}: held against both files")
    yield from (line("note", note) for note in proof["notes"])
    yield from _findings(findings)


def _findings(findings: Sequence[FindingRow]) -> Iterator[str]:
    """A line for each finding, the first few of each rule."""
    shown: Counter[str] = Counter()
    for finding in findings:
        shown[finding["rule"]] += 1
        if shown[finding["rule"]] <= N_SHOWN:
            yield f"    {finding['rule']}: {finding['message']}\n"
    for rule, n in shown.items():
        total = sum(finding["count"] for finding in findings if finding["rule"] == rule)
        if n > N_SHOWN:
            yield f"    {rule}: … and {total - N_SHOWN} more\n"


def _count(findings: Sequence[FindingRow]) -> str:
    n = sum(finding["count"] for finding in findings)
    return number(n, "finding") if n else "every change is accounted for"
