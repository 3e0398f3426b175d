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
from typing import TYPE_CHECKING, Any

from ftpatch import __version__
from ftpatch.report import Document
from ftpatch.report.results import clean, every_finding, exit_code, rules_of, severity_of, source_of, usual_severity

if TYPE_CHECKING:
    from ftpatch.document.types import FindingRow, ImageObject
    from ftpatch.rules import Rule

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "%SRCROOT%"
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
NOT_READ = "file-not-read"  # id of the notification about a bad file
PROPERTIES = ("build_id", "arch", "kind", "layout")  # of a file, as far as they are known
# a module's name in a fingerprint is the same however it is compressed
PACKED = (".xz", ".gz", ".zst")

Object = dict[str, Any]


Addresses = dict[tuple[str, str], Object]  # (file, section) → its entry in the table of addresses


def render(document: Document) -> Iterator[str]:
    """The log file, with one run."""
    artifacts = {path_uri(image["file"]): _artifact(image) for image in document.images}
    position = {uri: i for i, uri in enumerate(artifacts)}
    rules, addresses, seen = rules_of(document), Addresses(), Counter[str]()
    number = {rule.id: i for i, rule in enumerate(rules)}
    results = []
    for image, finding in every_finding(document):
        uri = path_uri(image["file"])
        target = {"uri": uri, "index": position[uri]}
        fingerprint = _fingerprint(image, finding, seen)
        results.append(_result(finding, number[finding["rule"]], target, addresses, fingerprint))
    run = {
        "tool": {"driver": _driver(rules)},
        "automationDetails": {"id": f"ftpatch-{clean(document.command)}/"},
        "originalUriBaseIds": {ROOT: {"description": {"text": "The top of the kernel's source tree."}}},
        "invocations": [_invocation(document)],
        "artifacts": list(artifacts.values()),
        "addresses": list(addresses.values()),
        "results": results,
    }
    log = {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}
    yield from json.JSONEncoder(indent=1).iterencode(log)
    yield "\n"


def path_uri(path: str) -> str:
    """A file's path as a URI reference: what a path may hold and a URI may not is escaped, byte by byte.

    A colon is escaped too: in front of the first slash it would end a scheme.
    """
    try:
        octets = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        octets = path.encode("utf-8", "backslashreplace")  # half characters that no file name gives
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
    row = {
        "id": clean(rule.id),
        "shortDescription": title,
        "fullDescription": text,
        "help": text,
        "defaultConfiguration": {"level": usual_severity(rule.severity)},
    }
    link = re.search(r"https?://[\w./~%?=&#+-]+[\w/]", rule.source + " " + rule.help, re.ASCII)
    return {**row, "helpUri": link[0]} if link else row


def _message(text: str) -> Object:
    """A message: braces are placeholders, and brackets in front of a parenthesis a link."""
    return {"text": clean(text).replace("{", "{{").replace("}", "}}").replace("](", "] (")}


def _artifact(image: ImageObject) -> Object:
    return {
        "location": {"uri": path_uri(image["file"])},
        "roles": ["analysisTarget"],
        **({"hashes": {"sha-256": clean(image["sha256"])}} if image.get("sha256") else {}),
        "properties": {key: clean(value) for key, value in image.items() if key in PROPERTIES and value},
    }


def _invocation(document: Document) -> Object:
    notifications = [
        {
            "descriptor": {"id": NOT_READ, "index": 0}, "level": "error", "message": _message(error["message"]),
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": path_uri(error["file"])}}}],
        }
        for error in document.errors
    ]  # fmt: skip
    return {
        "executionSuccessful": not document.errors, "exitCode": exit_code(document),
        "toolExecutionNotifications": notifications,
    }  # fmt: skip


def _result(finding: FindingRow, rule: int, target: Object, addresses: Addresses, fingerprint: str) -> Object:
    """What one finding says, and where: in the sources if they are known, and in the binary."""
    binary: Object = {"artifactLocation": target}
    if address := _address(finding, target["uri"], addresses):
        binary["address"] = address
    location: Object = {"physicalLocation": binary}
    related: Object = {}
    if source := source_of(finding):
        base = {} if source[0].startswith("/") else {"uriBaseId": ROOT}
        place = {"artifactLocation": {"uri": path_uri(source[0]), **base}, "region": {"startLine": source[1]}}
        location, related = {"physicalLocation": place}, {"relatedLocations": [{"id": 0, "physicalLocation": binary}]}
    if name := finding.get("function"):
        location["logicalLocations"] = [{"name": clean(name), "kind": "function"}]
    return {
        "ruleId": clean(finding["rule"]),
        "ruleIndex": rule,
        "level": severity_of(finding),
        "message": _message(finding["message"]),
        "analysisTarget": target,
        "locations": [location],
        "occurrenceCount": finding["count"],
        "partialFingerprints": {"ftpatch/v1": fingerprint},
        **related,
    }


def _address(finding: FindingRow, file: str, addresses: Addresses) -> Object | None:
    """The place in the binary, as offset from its section, which gets an entry of its own."""
    section, offset, function = finding["section"], finding["offset"], finding["function"]
    if not section or not offset:
        return None
    name = clean(section)
    whole = {"name": name, "fullyQualifiedName": f"{file}!{name}", "kind": "section", "index": len(addresses)}
    return {
        "fullyQualifiedName": f"{name}+{clean(offset)}",
        "kind": "instruction",
        "offsetFromParent": int(offset, 16),
        "parentIndex": addresses.setdefault((file, section), whole)["index"],
        **({"name": clean(function)} if function else {}),
    }


def _fingerprint(image: ImageObject, finding: FindingRow, seen: Counter[str]) -> str:
    """Of rule, object and function, the same in the next build; of several that are alike, the number is added."""
    stem, suffix = posixpath.splitext(posixpath.basename(image["file"]))
    parts = [finding["rule"], stem if suffix in PACKED else stem + suffix, finding.get("function") or ""]
    value = hashlib.sha256("\0".join(clean(part) for part in parts).encode()).hexdigest()[:32]
    seen[value] += 1
    return f"{value}:{seen[value]}"
