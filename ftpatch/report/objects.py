"""What checks and trees have to say, as JSON objects: findings, a proof, what a boot will show, the sums of a tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable

if TYPE_CHECKING:
    from ftpatch.document.oracle import BugRow, OracleObject
    from ftpatch.document.types import FindingRow, ImageObject, TotalsObject
    from ftpatch.elf.image import Image
    from ftpatch.finding import Finding
    from ftpatch.kernel.boot import Oracle
    from ftpatch.proof.prove import Proof

# kinds of changes in a proof
SITES = ("site enabled", "site disabled", "site redirected", "function redirected", "record dropped alone")
SWITCHES = ("site armed", "site disarmed", "pad changed")  # of layout pad-before alone
RECORDS = ("record taken out", "record returned")


def finding_rows(findings: Sequence[Finding], with_pos: bool = False) -> list[FindingRow]:
    """One object per finding. with_pos: with the position in the file, which the findings of `verify` have."""
    from ftpatch.rules.register import help_of

    rows: list[FindingRow] = [
        {
            "rule": finding.rule, "severity": finding.severity, "message": printable(finding.message),
            "function": finding.function, "row": finding.row, "section": finding.section,
            "offset": f"0x{finding.offset:x}" if finding.offset is not None and finding.offset >= 0 else None,
            "pos": finding.pos,
            "source": finding.source, "help": help_of(finding.rule), "count": finding.count,
        }
        for finding in findings
    ]  # fmt: skip
    for row in rows if not with_pos else ():
        del row["pos"]  # the interface has it in `verify` alone
    return rows


def proof_object(proof: Proof, hashed: bool, journal: str | None) -> ImageObject:
    """The IMAGE object of `verify`: the first file, the second as its `output`, and what was found."""
    from ftpatch.document.rows import image_object

    before, after, kinds = proof.before, proof.after, proof.kinds
    image = image_object(before, sha256=before.image.sha256 if hashed else None, with_sites=False)
    image["output"] = {
        "file": after.path, "sha256": after.sha256 if hashed else None, "elf_sha256": _elf(after) if hashed else None,
    }  # fmt: skip
    image["proof"] = {
        "sites": {name: kinds.get(name, 0) for name in (*SITES, *SWITCHES) if name in SITES or kinds.get(name)},
        "records": {
            "live": list(proof.live), "slots": list(proof.slots),
            "record taken out": kinds.get("record taken out", 0), "record returned": kinds.get("record returned", 0),
        },
        "edits": {name: n for name, n in sorted(kinds.items()) if name not in (*SITES, *SWITCHES, *RECORDS)},
        "reader": proof.reader,
        "emulated": proof.outcome.n,
        "not_emulated": proof.outcome.skipped,
        "unclaimed": list(proof.unclaimed),
        "missing": list(proof.missing),
        "journal": journal,
        "notes": list(proof.notes),
        "callees": dict(sorted(proof.callees.items())),
        "ops": dict(sorted(proof.ops.items())),
        "redirects": dict(sorted(proof.replacements.items())),
        "imports": [
            {"name": name, "crc": None if crc is None else f"0x{crc:08x}", "exporter": exporter}
            for name, crc, exporter in proof.imports
        ],
        "depends": list(proof.depends),
        "static_calls": {key: to.name for key, to in sorted(proof.set_calls.items())},
    }  # fmt: skip
    image["findings"] = finding_rows(proof.findings, with_pos=True)
    return image


def _elf(image: Image) -> str:
    return image.sha256 if image.is_bare else image.data.sha256()


def oracle_object(oracle: Oracle | None) -> OracleObject | None:
    """What a boot of a kernel will say and list; None for a file that has no oracle."""
    if oracle is None:
        return None
    bugs: list[BugRow] = [
        {
            "function": bug.function, "offset": f"0x{bug.offset:x}", "row": bug.row, "place": bug.place,
            "ip": f"0x{bug.ip:016x}", "va": f"0x{bug.va:016x}", "expected": f"0x{bug.expected:0{bug.digits}x}",
            "found": f"0x{bug.found:0{bug.digits}x}", "actual": f"0x{bug.actual:0{bug.digits}x}", "text": str(bug),
        }
        for bug in oracle.bugs
    ]  # fmt: skip
    return {
        "allocating": oracle.allocating, "pages": oracle.pages, "listed_before": list(oracle.listed_before),
        "listed_after": list(oracle.listed_after), "bugs": bugs,
    }  # fmt: skip


def totals(images: Sequence[ImageObject], n_bad: int) -> TotalsObject:
    """The sums over the modules of one tree; the counts by name begin with the greatest."""
    summaries = [image["summary"] for image in images]
    with_sites = sum(1 for summary in summaries if summary["live"])
    redirected = sum(row["sites"] for summary in summaries for row in summary.get("redirected", ()))
    sums: TotalsObject = {
        "modules": len(images) + n_bad,
        "bad": n_bad,
        "with_sites": with_sites,
        "without_sites": len(images) - with_sites,
        "slots": sum(summary["slots"] for summary in summaries),
        "null": sum(summary["null"] for summary in summaries),
        "live": sum(summary["live"] for summary in summaries),
        "by_section": _sum(summary["by_section"] for summary in summaries),
        "by_status": _sum(summary["by_status"] for summary in summaries),
        "by_layout": _sum({image["layout"]: 1} for image in images),
        "by_arch": _sum({image["arch"]: 1} for image in images),
    }
    if redirected:
        sums["redirected"] = redirected
    return sums


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for of_module in counts:
        total.update(of_module)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
