"""The formats for other tools, each held against a schema or parser that is not ours, with names that mean harm."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, cast

import attr
import jsonschema
import junitparser
import pytest
import sarif_om
from elfwriter import MINI
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from markdown_it import MarkdownIt
from tap.parser import Parser

from ftpatch.cli import run
from ftpatch.document.types import ErrorRow, FindingRow, ImageObject
from ftpatch.report import FORMATS, Document, renderer
from ftpatch.report.formats.sarif import path_uri
from ftpatch.rules import Rule

SCHEMAS = Path(__file__).parent.parent / "testdata" / "schemas"
OFFICIAL = Path(os.environ.get("SARIF_SCHEMA") or SCHEMAS / "sarif-schema-2.1.0.json")
NEW = ("sarif", "junit", "ktap", "markdown", "github")


RULES = (
    Rule("weak-leftover", "warning", "records of dead weak functions", "Drop them.", source="scripts/sorttable.c"),
    Rule(
        "misaligned-site",
        "error",
        "a site is not aligned",
        "Rebuild.",
        source="https://docs.kernel.org/trace/ftrace.html",
    ),
    Rule("half-site", "error", "a site is half written"),
    Rule("no-headroom", "note", "no room to grow", "Mind it."),
)


def finding(**given: Any) -> FindingRow:
    usual = {
        "rule": "misaligned-site", "severity": "error", "message": "found at 4 mod 8", "function": "vfs_read", "row": 7,
        "section": ".text", "offset": "0x575328", "source": "fs/read_write.c:550", "help": "Rebuild.", "count": 1,
    }  # fmt: skip
    return cast(FindingRow, {**usual, **given})


def image(*findings: FindingRow, **given: Any) -> ImageObject:
    usual = {
        "file": "build/vmlinux", "sha256": "ab" * 32, "build_id": "cd" * 20, "arch": "arm64", "kind": "vmlinux",
        "layout": "callops", "carrier": "relr", "summary": {}, "sites": [],
    }  # fmt: skip
    return cast(ImageObject, {**usual, "findings": list(findings), **given})


def usual() -> Document:
    grouped = finding(
        rule="weak-leftover", severity="warning", function=None, row=None, section=None, offset=None, source=None,
        message="17 records of dead functions", count=17,
    )  # fmt: skip
    images = [
        image(finding(), finding(function="vfs_write", source=None, offset="0x575400"), grouped),
        image(finding(rule="no-headroom", severity="note"), file="lib/modules/dummy.ko", sha256=None, kind="module"),
        image(file="/abs/clean.ko"),
    ]
    errors: list[ErrorRow] = [{"file": "bad.ko", "code": 3, "message": "bad.ko: is an empty file"}]
    return Document("check", images, errors, rules=RULES)


def rendered(name: str, document: Document) -> str:
    text = "".join(renderer(name)(document))
    assert text.encode("utf-8").decode() == text
    return text


# -- what each format is held against --------------------------------------------------------------------------

# Properties of SARIF that hold objects, by the class of Microsoft's object model; others are plain, or bags.
MODEL = {
    "runs": "Run", "tool": "Tool", "driver": "ToolComponent", "rules": "ReportingDescriptor",
    "notifications": "ReportingDescriptor", "shortDescription": "MultiformatMessageString",
    "fullDescription": "MultiformatMessageString", "help": "MultiformatMessageString",
    "defaultConfiguration": "ReportingConfiguration", "automationDetails": "RunAutomationDetails",
    "invocations": "Invocation", "toolExecutionNotifications": "Notification", "message": "Message",
    "descriptor": "ReportingDescriptorReference", "locations": "Location", "relatedLocations": "Location",
    "physicalLocation": "PhysicalLocation", "artifactLocation": "ArtifactLocation", "location": "ArtifactLocation",
    "analysisTarget": "ArtifactLocation", "region": "Region", "address": "Address", "addresses": "Address",
    "logicalLocations": "LogicalLocation", "artifacts": "Artifact", "results": "Result", "description": "Message",
}  # fmt: skip
BAGS = ("properties", "partialFingerprints", "hashes", "originalUriBaseIds")
URI = re.compile(r"(?:[A-Za-z0-9._~/-]|%[0-9A-F]{2})*|file:///(?:[A-Za-z0-9._~/-]|%[0-9A-F]{2})*")


@cache
def official() -> Any:
    return jsonschema.Draft4Validator(json.loads(OFFICIAL.read_text())) if OFFICIAL.exists() else None


def hold_to_model(value: dict[str, Any], name: str) -> None:
    """Every property is one of the class, and what the class requires is there."""
    fields = {one.metadata["schema_property_name"]: one for one in attr.fields(getattr(sarif_om, name))}
    assert set(value) <= set(fields), (name, value)
    assert {key for key, one in fields.items() if one.default is attr.NOTHING} <= set(value), (name, value)
    for key, part in value.items():
        for one in part if isinstance(part, list) else [part]:
            if isinstance(one, dict) and key not in BAGS:
                hold_to_model(one, MODEL["fullDescription" if name == "ToolComponent" and "escription" in key else key])


def sarif(text: str) -> dict[str, Any]:
    """The one run of a log that is sound."""
    log = json.loads(text)
    hold_to_model(log, "SarifLog")
    if official():
        official().validate(log)
    (run_,) = log["runs"]
    rules, artifacts = run_["tool"]["driver"]["rules"], run_["artifacts"]
    for result in run_["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert artifacts[result["analysisTarget"]["index"]]["location"]["uri"] == result["analysisTarget"]["uri"]
        assert result["level"] in ("error", "warning", "note")
        for place in result["locations"] + result.get("relatedLocations", []):
            physical = place["physicalLocation"]
            assert URI.fullmatch(physical["artifactLocation"]["uri"])
            if "address" in physical:
                assert run_["addresses"][physical["address"]["parentIndex"]]["kind"] == "section"
            if "region" in physical:
                assert physical["region"]["startLine"] >= 1
    assert len({result["partialFingerprints"]["ftpatch/v1"] for result in run_["results"]}) == len(run_["results"])
    assert isinstance(run_, dict)
    return run_


@cache
def xsd() -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(str(SCHEMAS / "junit-10.xsd")))


def junit(text: str) -> junitparser.JUnitXml:
    """The suites of a document that Jenkins' schema allows and two parsers read alike."""
    xsd().assertValid(etree.fromstring(text.encode()))
    top = ElementTree.fromstring(text)
    parsed = junitparser.JUnitXml.fromstring(text.encode())
    assert len(list(parsed)) == len(top)
    for suite, element in zip(parsed, top, strict=True):
        cases = list(suite)
        assert suite.tests == len(cases) == len(element.findall("testcase"))
        assert suite.failures == sum(isinstance(r, junitparser.Failure) for case in cases for r in case.result)
        assert suite.errors == sum(isinstance(r, junitparser.Error) for case in cases for r in case.result)
        # Windy Road's schema, as far as it is narrower: these attributes, and these children in this order.
        assert {"name", "id", "package", "timestamp", "hostname", "time", "tests", "failures"} <= set(element.keys())
        tags = [child.tag for child in element]
        assert tags == ["properties", *["testcase"] * len(cases), "system-out", "system-err"]
        assert all(
            len(case) <= 1 and {"name", "classname", "time"} <= set(case.keys()) for case in element.iter("testcase")
        )
    return parsed


Test = tuple[bool, str, str]  # ok, description, what is behind the hash sign
RESULT = re.compile(r"(ok|not ok) (\d+)(?: ([^#]*[^# ]))?(?: # (.*))?")


def ktap(text: str) -> list[tuple[Test, list[Test]]]:
    """The tests of a KTAP document with their subtests, read as Documentation/dev-tools/ktap.rst says."""
    assert text.endswith("\n") and all(line.isprintable() for line in text[:-1].split("\n"))
    lines = text[:-1].split("\n")
    assert lines.pop(0) == "KTAP version 1"
    plan = re.fullmatch(r"1\.\.(\d+)", lines.pop(0))
    found: list[tuple[Test, list[Test]]] = []
    inner: list[str] = []
    for line in lines:
        if line.startswith("  "):
            inner.append(line[2:])
            continue
        match = RESULT.fullmatch(line)
        assert match and int(match[2]) == len(found) + 1, line
        subtests: list[Test] = []
        if inner:
            assert inner.pop(0) == "KTAP version 1"
            subplan = re.fullmatch(r"1\.\.(\d+)", inner.pop(0))
            for one in inner:
                if one.startswith("# "):
                    continue
                sub = RESULT.fullmatch(one)
                assert sub and int(sub[2]) == len(subtests) + 1, one
                subtests.append((sub[1] == "ok", sub[3] or "", sub[4] or ""))
            assert subplan and int(subplan[1]) == len(subtests)
            assert (match[1] == "ok") == all(test[0] for test in subtests)
        inner = []
        found.append(((match[1] == "ok", match[3] or "", match[4] or ""), subtests))
    assert plan and int(plan[1]) == len(found) and not inner
    return found


def tap(text: str) -> list[tuple[bool, bool, bool]]:
    """(ok, skipped, todo) of the outer tests, as a TAP parser reads them."""
    outer = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith((" ", "KTAP")))
    results = [line for line in Parser().parse(StringIO(outer)) if line.category == "test"]
    return [(line.ok, bool(line.skip), bool(line.todo)) for line in results]


@dataclass
class Table:
    rows: list[list[str]]


def markdown(text: str) -> list[Table]:
    """The tables of a comment in which nothing but our own markup is markup: no link, picture, mention or emphasis."""
    assert len(text) < 65_536
    parser = MarkdownIt("gfm-like", {"linkify": False, "html": True}).enable("table")
    tables: list[Table] = []
    for token in parser.parse(text):
        if token.type == "table_open":
            tables.append(Table([]))
        elif token.type == "tr_open":
            tables[-1].rows.append([])
        elif token.type == "html_block":
            assert re.fullmatch(r"(</?details>|<details><summary>[\w ]+</summary>)\n?", token.content), token.content
        elif token.type == "inline":
            allowed = ("text", "code_inline", "html_inline", "text_special")
            for child in token.children or []:
                assert child.type in allowed, (child.type, token.content)
                if child.type == "html_inline":
                    assert child.content in ("<code>", "</code>", "<!-- -->"), child.content
                elif child.type != "code_inline":
                    assert not re.search(r"[@#]\w|://|www\.", child.content), child.content
            if tables and tables[-1].rows and token.level >= 4:
                cell = "".join(c.content for c in token.children or [] if c.type != "html_inline")
                tables[-1].rows[-1].append(html.unescape(cell))
        else:
            assert token.type.removesuffix("_open").removesuffix("_close") in (
                "heading", "table", "thead", "tbody", "tr", "th", "td", "paragraph", "bullet_list", "list_item",
            ), token.type  # fmt: skip
    for table in tables:
        assert all(len(row) == 4 for row in table.rows), table.rows
    return tables


COMMAND = re.compile(r"::(error|warning|notice)( [^:]*)?::([^\r\n]*)")


def github(text: str) -> list[tuple[str, dict[str, str], str]]:
    """(command, properties, message) of every line, unescaped as the runner does it."""
    found = []
    for line in text.split("\n")[:-1]:
        match = COMMAND.fullmatch(line)
        assert match, line
        pairs = dict(pair.split("=", 1) for pair in (match[2] or "").strip().split(",") if pair)
        for key, value in pairs.items():
            pairs[key] = data(value).replace("%3A", ":").replace("%2C", ",").replace("%25", "%")
        assert set(pairs) <= {"file", "line", "title"}
        found.append((match[1], pairs, data(match[3]).replace("%25", "%")))
    assert all(sum(command == name for command, _, _ in found) <= 10 for name in ("error", "warning", "notice"))
    return found


def data(text: str) -> str:
    assert re.fullmatch(r"(?:[^%]|%(?:25|0A|0D|3A|2C))*", text)
    return text.replace("%0D", "\r").replace("%0A", "\n")


CHECKS = {"sarif": sarif, "junit": junit, "ktap": ktap, "markdown": markdown, "github": github}


# -- what they say ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not OFFICIAL.exists(), reason="SARIF_SCHEMA=sarif-schema-2.1.0.json of OASIS runs it")
def test_sarif_is_valid_by_the_official_schema() -> None:
    official().validate(json.loads(rendered("sarif", usual())))
    with pytest.raises(jsonschema.ValidationError):
        official().validate({"version": "2.1.0", "runs": [{"tool": {"driver": {}}}]})


def test_sarif_has_rules_results_places_and_what_could_not_be_read() -> None:
    found = sarif(rendered("sarif", usual()))
    driver = found["tool"]["driver"]
    assert (driver["name"], [rule["id"] for rule in driver["rules"]]) == ("ftpatch", [rule.id for rule in RULES])
    assert driver["rules"][1]["helpUri"] == "https://docs.kernel.org/trace/ftrace.html"
    assert driver["rules"][1]["defaultConfiguration"] == {"level": "error"}
    assert [one["location"]["uri"] for one in found["artifacts"]] == [
        "build/vmlinux", "lib/modules/dummy.ko", "file:///abs/clean.ko",
    ]  # fmt: skip
    assert found["artifacts"][0]["hashes"] == {"sha-256": "ab" * 32}
    first, second, group, note = found["results"]
    source = {"uri": "fs/read_write.c", "uriBaseId": "%SRCROOT%"}
    assert first["locations"] == [
        {
            "physicalLocation": {"artifactLocation": source, "region": {"startLine": 550}},
            "logicalLocations": [{"name": "vfs_read", "kind": "function"}],
        }
    ]
    assert second["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "build/vmlinux", "index": 0},
        "address": {
            "fullyQualifiedName": ".text+0x575400", "kind": "instruction", "offsetFromParent": 0x575400,
            "parentIndex": 0, "name": "vfs_write",
        },
    }  # fmt: skip
    assert (group["level"], group["occurrenceCount"], note["level"]) == ("warning", 17, "note")
    (invocation,) = found["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 3)
    assert invocation["toolExecutionNotifications"][0]["message"] == {"text": "bad.ko: is an empty file"}


def test_fingerprints_outlive_a_rebuild() -> None:
    def prints(*findings: FindingRow) -> list[str]:
        run_ = sarif(rendered("sarif", Document("check", [image(*findings)])))
        return [result["partialFingerprints"]["ftpatch/v1"] for result in run_["results"]]

    moved = prints(finding(row=9, offset="0x9000", source="fs/read_write.c:612", message="another"))
    assert moved == prints(finding())
    assert prints(finding(), finding(row=8)) == [moved[0], moved[0].replace(":1", ":2")]
    assert moved != prints(finding(function="vfs_write"))
    assert moved != prints(finding(rule="half-site"))


def test_junit_has_a_suite_for_each_file_and_a_case_for_each_rule() -> None:
    text = rendered("junit", usual())
    suites = list(junit(text))
    assert [(suite.name, suite.tests, suite.failures, suite.errors) for suite in suites] == [
        ("build/vmlinux", 4, 1, 0), ("lib/modules/dummy.ko", 4, 0, 0), ("/abs/clean.ko", 4, 0, 0), ("bad.ko", 1, 0, 1),
    ]  # fmt: skip
    assert [case.name for case in suites[0]] == [rule.id for rule in RULES]
    (failure,) = list(suites[0])[1].result
    assert failure.message == "vfs_read (row 7, .text+0x575328, fs/read_write.c:550): found at 4 mod 8 (and 1 more)"
    assert (
        ElementTree.fromstring(text)[0].findtext("system-out")
        == "weak-leftover: warning: 17 records of dead functions (17 sites)\n"
    )


def test_ktap_has_a_test_for_each_file_and_a_subtest_for_each_rule() -> None:
    text = rendered("ktap", usual())
    assert [test for test, _ in ktap(text)] == [
        (False, "build/vmlinux", ""), (True, "lib/modules/dummy.ko", ""), (True, "/abs/clean.ko", ""),
        (False, "bad.ko", "ERROR bad.ko: is an empty file"),
    ]  # fmt: skip
    assert ktap(text)[0][1] == [
        (True, "weak-leftover", "found 17"), (False, "misaligned-site", "found 2"), (True, "half-site", ""),
        (True, "no-headroom", ""),
    ]  # fmt: skip
    assert tap(text) == [(False, False, False), (True, False, False), (True, False, False), (False, False, False)]


def test_the_limit_of_the_check_decides_what_fails() -> None:
    document = usual()
    document.fail_on = "warning"
    assert [ok for ok, _, _ in ktap(rendered("ktap", document))[0][1]] == [False, False, True, True]
    assert next(iter(junit(rendered("junit", document)))).failures == 2
    document.errors, document.fail_on, document.images = [], "error", document.images[1:]
    assert sarif(rendered("sarif", document))["invocations"][0]["exitCode"] == 0
    document.fail_on = "note"
    assert sarif(rendered("sarif", document))["invocations"][0]["exitCode"] == 1


def test_markdown_is_a_comment_with_a_headline_a_table_and_the_rest_folded() -> None:
    text = rendered("markdown", usual())
    assert text.startswith("### ftpatch check: 2 errors, 17 warnings, 1 note in 3 files\n\n| | rule | where | what |\n")
    (table,) = markdown(text)
    assert [row[0] for row in table.rows] == ["", "error", "error", "warning", "note"]
    assert table.rows[1][1:] == [
        "misaligned-site", "build/vmlinux vfs_read (row 7, .text+0x575328, fs/read_write.c:550)", "found at 4 mod 8",
    ]  # fmt: skip
    many = Document("check", [image(*(finding(function=f"f{n}") for n in range(500)))])
    first, rest = markdown(rendered("markdown", many))
    assert (len(first.rows), len(rest.rows) > 100) == (21, True)
    assert re.search(r"… and \d+ findings that have no room here", rendered("markdown", many))


def test_github_annotations_stand_at_the_source_line() -> None:
    found = github(rendered("github", usual()))
    assert [name for name, _, _ in found] == ["error", "error", "error", "warning", "notice"]
    assert found[1] == (
        "error", {"file": "fs/read_write.c", "line": "550", "title": "ftpatch misaligned-site"},
        "vfs_read (row 7, .text+0x575328, fs/read_write.c:550): found at 4 mod 8\nRebuild.",
    )  # fmt: skip
    assert found[2][1] == {"file": "build/vmlinux", "title": "ftpatch misaligned-site"}
    many = github(rendered("github", Document("check", [image(*[finding()] * 12)])))
    assert (len(many), many[-1][2]) == (10, "3 more errors: see the other reports")


# -- whatever comes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("command", ["scan", "enable", "check", "diff"])
def test_a_document_without_findings_is_valid_and_empty(name: str, command: str) -> None:
    for document in (Document(command), Document(command, [cast(ImageObject, {"file": "vmlinux", "sites": []})])):
        text = rendered(name, document)
        CHECKS[name](text)
        assert text == rendered(name, document)
    text = rendered(name, Document(command, [image()], rules=RULES))
    if name == "sarif":
        assert sarif(text)["results"] == []
    if name == "github":
        assert text == ""
    if name == "ktap" and command == "scan":
        assert ktap(text) == [((True, "build/vmlinux", "SKIP scan looks for no findings"), [])]


@pytest.mark.parametrize("arguments", [("scan",), ("enable", "--func", "vfs_read", "--dry-run")])
def test_every_format_in_one_run_on_a_real_file(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(MINI / "vmlinux-callops", "vmlinux")
    reports = [option for name in FORMATS for option in ("--report", f"{name}=r.{name}")]
    assert run([arguments[0], "vmlinux", *arguments[1:], *reports]) == 0
    for name in NEW:
        CHECKS[name]((tmp_path / f"r.{name}").read_text(encoding="utf-8"))
    before = {name: (tmp_path / f"r.{name}").read_bytes() for name in NEW}
    assert run([arguments[0], "vmlinux", *arguments[1:], *reports]) == 0
    assert before == {name: (tmp_path / f"r.{name}").read_bytes() for name in NEW}
    capsys.readouterr()


BAD = [
    "]]>", "<!--", "-->", "&amp;", "\n::error::x", "%0A::set-output name=x::y", "##[add-mask]x", "::", "|", "`", "``|",
    "[x](http://evil.example)", "![x](y)", "<script>", "</details>", "<img src=x>", "@someone", "#1", "www.evil.test",
    "http://evil.example", "a@b.example", "*x*", "__x__", "~~x~~", "\\", "\\|", "# SKIP", " # TODO later", "ok 1",
    "1..0", "\x1b[31m", "\x00", "\r", "\u2028", "\u202e", "\udcff", "\ud800", "\ufffe", "{0}", "{", "$x$", "  ", "\t",
    "é", "𝒳", "",
]  # fmt: skip
ANY = st.lists(st.sampled_from(BAD) | st.text(max_size=8) | st.characters(categories=["Cs", "Cc"]), max_size=4).map(
    "".join
)
SOURCE = st.none() | st.builds("{}:{}".format, ANY, st.integers(-2, 1 << 33))
HOSTILE = st.builds(
    finding, rule=ANY, severity=st.sampled_from(["error", "warning", "note"]), message=ANY, function=st.none() | ANY,
    row=st.none() | st.integers(0, 1 << 40), section=st.none() | ANY, source=SOURCE, help=ANY, count=st.integers(1, 9),
    offset=st.none() | st.integers(0, (1 << 64) - 1).map(hex),
)  # fmt: skip
IMAGES = st.lists(st.builds(image, file=ANY, layout=ANY).flatmap(
    lambda one: st.lists(HOSTILE, max_size=4).map(lambda found: {**one, "findings": found})), max_size=3)  # fmt: skip
ERRORS = st.lists(st.fixed_dictionaries({"file": ANY, "code": st.integers(1, 70), "message": ANY}), max_size=2)
DOCUMENTS = st.builds(
    Document, st.sampled_from(["check", "verify", "scan"]), IMAGES, ERRORS, rules=st.sampled_from([(), RULES]),
    fail_on=st.sampled_from(["error", "warning", "note"]),
)  # fmt: skip


@pytest.mark.parametrize("name", NEW)
@given(document=DOCUMENTS)
@settings(max_examples=150, deadline=None)
def test_no_name_breaks_a_format(name: str, document: Document) -> None:
    text = rendered(name, document)
    assert text == rendered(name, document)
    CHECKS[name](text)
    if name == "ktap" and document.command != "scan":
        assert [test[0] for test in tap(text)] == [ok for (ok, _, _), _ in ktap(text)]
        assert not any(skipped or todo for _, skipped, todo in tap(text))


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("fs/namei.c", "fs/namei.c"),
        ("a b%#?.ko", "a%20b%25%23%3F.ko"),
        ("c:x.ko", "c%3Ax.ko"),
        ("/lib/x.ko", "file:///lib/x.ko"),
        ("//host/x.ko", "file:///host/x.ko"),
        ("é\udcff", "%C3%A9%FF"),
        ("", ""),
    ],
)
def test_a_path_becomes_a_uri_byte_by_byte(path: str, uri: str) -> None:
    assert path_uri(path) == uri
