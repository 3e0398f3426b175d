"""SARIF 2.1.0, for code scanning: results with their rules, at a source line where debug information tells one.

A kernel is no source file, so a result's place is the line of the function's entry, and beside it the address in the
binary; without a line the binary itself, with the address as section and offset. Addresses change from build to build,
so fingerprints are made from rule, object and function alone. Source: OASIS SARIF 2.1.0 (errata 01).
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftpatch import __version__
from ftpatch.report import Document
from ftpatch.report.results import clean, every_finding, exit_code, rules_of, severity_of, source_of, usual_severity

if TYPE_CHECKING:
    from ftpatch.document.types import ErrorRow, FindingRow, ImageObject
    from ftpatch.rules import Rule

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "%SRCROOT%"
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
NOT_READ = "file-not-read"
PROPERTIES = ("build_id", "arch", "kind", "layout")  # of a file, as far as they are known
PACKED = (".xz", ".gz", ".zst")

Object = dict[str, Any]


@dataclass
class Tables:
    """What results refer to by index: the binaries, and the sections in them."""

    artifacts: dict[str, Object] = field(default_factory=dict)
    addresses: dict[tuple[str, str], Object] = field(default_factory=dict)


def render(document: Document) -> Iterator[str]:
    """The log file, with one run."""
    tables = Tables({uri(image): _artifact(image) for image in document.images})
    position = {name: i for i, name in enumerate(tables.artifacts)}
    rules = rules_of(document)
    number = {rule.id: i for i, rule in enumerate(rules)}
    seen: Counter[str] = Counter()
    results = []
    for image, finding in every_finding(document):
        target = {"uri": uri(image), "index": position[uri(image)]}
        fingerprint = _fingerprint(image, finding, seen)
        results.append(_result(finding, number[finding["rule"]], target, tables, fingerprint))
    run = {
        "tool": {"driver": _driver(rules)},
        "automationDetails": {"id": f"ftpatch-{clean(document.command)}/"},
        "originalUriBaseIds": {ROOT: {"description": {"text": "The top of the kernel's source tree."}}},
        "invocations": [_invocation(document)],
        "artifacts": list(tables.artifacts.values()),
        "addresses": list(tables.addresses.values()),
        "results": results,
    }
    log = {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}
    yield from json.JSONEncoder(indent=1).iterencode(log)
    yield "\n"


def uri(image: ImageObject | ErrorRow) -> str:
    """A file's path as a URI reference: what a path may hold and a URI may not is escaped, byte by byte."""
    return path_uri(image["file"])


def path_uri(path: str) -> str:
    """See `uri`. A colon is escaped too: in front of the first slash it would end a scheme."""
    try:
        octets = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        octets = path.encode("utf-8", "backslashreplace")
    text = "".join(chr(octet) if octet in UNRESERVED else f"%{octet:02X}" for octet in octets)
    return f"file:///{text.lstrip('/')}" if text.startswith("/") else text


def _driver(rules: list[Rule]) -> Object:
    return {
        "name": "ftpatch",
        "version": __version__,
        "semanticVersion": __version__,
        "shortDescription": {"text": "Patch-site rewriter and linter for Linux kernels and modules"},
        "rules": [_rule(rule) for rule in rules],
        "notifications": [{"id": NOT_READ, "shortDescription": {"text": "A file could not be read"}}],
    }


def _rule(rule: Rule) -> Object:
    title, text = _message(rule.title or rule.id), _message(rule.help or rule.title or rule.id)
    found = {
        "id": clean(rule.id),
        "shortDescription": title,
        "fullDescription": text,
        "help": text,
        "defaultConfiguration": {"level": usual_severity(rule.severity)},
    }
    link = re.search(r"https?://[\w./~%?=&#+-]+[\w/]", rule.source + " " + rule.help, re.ASCII)
    return {**found, "helpUri": link[0]} if link else found


def _message(text: str) -> Object:
    """A message: braces are placeholders, and brackets in front of a parenthesis a link."""
    return {"text": clean(text).replace("{", "{{").replace("}", "}}").replace("](", "] (")}


def _artifact(image: ImageObject) -> Object:
    found: Object = {"location": {"uri": uri(image)}, "roles": ["analysisTarget"]}
    if image.get("sha256"):
        found["hashes"] = {"sha-256": clean(image["sha256"])}
    return {**found, "properties": {key: clean(value) for key, value in image.items() if key in PROPERTIES and value}}


def _invocation(document: Document) -> Object:
    notifications = [
        {
            "descriptor": {"id": NOT_READ, "index": 0},
            "level": "error",
            "message": _message(error["message"]),
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri(error)}}}],
        }
        for error in document.errors
    ]
    return {
        "executionSuccessful": not document.errors,
        "exitCode": exit_code(document),
        "toolExecutionNotifications": notifications,
    }


def _result(finding: FindingRow, rule: int, target: Object, tables: Tables, fingerprint: str) -> Object:
    binary: Object = {"artifactLocation": target}
    if address := _address(finding, target["uri"], tables):
        binary["address"] = address
    found: Object = {
        "ruleId": clean(finding["rule"]),
        "ruleIndex": rule,
        "level": severity_of(finding),
        "message": _message(finding["message"]),
        "analysisTarget": target,
        "locations": [{"physicalLocation": binary}],
        "occurrenceCount": finding["count"],
        "partialFingerprints": {"ftpatch/v1": fingerprint},
    }
    if source := source_of(finding):
        base = {} if source[0].startswith("/") else {"uriBaseId": ROOT}
        place = {"artifactLocation": {"uri": path_uri(source[0]), **base}, "region": {"startLine": source[1]}}
        found["locations"] = [{"physicalLocation": place}]
        found["relatedLocations"] = [{"id": 0, "physicalLocation": binary}]
    if name := finding.get("function"):
        found["locations"][0]["logicalLocations"] = [{"name": clean(name), "kind": "function"}]
    return found


def _address(finding: FindingRow, file: str, tables: Tables) -> Object | None:
    """The place in the binary, as offset from its section."""
    section, offset = finding.get("section"), finding.get("offset")
    if not section or not offset:
        return None
    key = (file, str(section))
    whole = {"name": clean(section), "fullyQualifiedName": f"{file}!{clean(section)}", "kind": "section"}
    tables.addresses.setdefault(key, {**whole, "index": len(tables.addresses)})
    found = {
        "fullyQualifiedName": f"{clean(section)}+{clean(offset)}",
        "kind": "instruction",
        "offsetFromParent": int(offset, 16),
        "parentIndex": tables.addresses[key]["index"],
    }
    return {**found, "name": clean(finding["function"])} if finding.get("function") else found


def _fingerprint(image: ImageObject, finding: FindingRow, seen: Counter[str]) -> str:
    """Of rule, object and function, the same in the next build; of several that are alike, the number is added."""
    stem, suffix = posixpath.splitext(posixpath.basename(image["file"]))
    parts = [finding["rule"], stem if suffix in PACKED else stem + suffix, finding.get("function") or ""]
    value = hashlib.sha256("\0".join(clean(part) for part in parts).encode()).hexdigest()[:32]
    seen[value] += 1
    return f"{value}:{seen[value]}"
