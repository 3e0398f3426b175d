"""The page as a whole: its title, its verdict, its views, and what a browser may run of it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch import __version__
from ftpatch.finding import SEVERITIES
from ftpatch.report import Document
from ftpatch.report.html.columns import script_json
from ftpatch.report.html.facts import plain_text
from ftpatch.report.html.views import View, views_of
from ftpatch.report.results import clean, every_finding, exit_code, severities_text, severity_of
from ftpatch.report.text.diff import NOTHING
from ftpatch.report.text.lines import number

if TYPE_CHECKING:
    from jinja2 import Environment

SCHEMA = 1  # of the payload
# in the order in which they stand on the page
SCRIPTS = (
    "page_data.js", "page_search.js", "page_table.js", "page_panel.js", "page_export.js", "page_map.js", "page.js",
)  # fmt: skip
STYLE = "page.css"
PARAGRAPHS = ("explain",)  # kinds of text that are told in paragraphs, and stand on the page as they are
EXIT_TEXTS = {
    0: "done, nothing to report", 1: "findings", 2: "wrong usage", 3: "a file cannot be read", 4: "not supported",
    5: "refused", 70: "an error of ftpatch itself",
}  # fmt: skip


@dataclass(frozen=True)
class BadFile:
    file: str
    code: int
    message: str


@dataclass(frozen=True)
class Page:
    """All that the template is given."""

    title: str
    command: str
    version: str
    exit_code: int
    exit_text: str
    verdict: str  # the result in a few words
    tone: str  # error, warning, note, good, or nothing: how the verdict is coloured
    views: tuple[View, ...]
    errors: tuple[BadFile, ...]
    report: str  # what is told in paragraphs; empty where views have it all
    payload: str  # JSON, ready for a script element
    script: str
    style: str
    csp: str  # what the page may load and run: itself


def render_page(document: Document) -> Iterator[str]:
    """The page, in pieces."""
    environment = _environment()
    script = "\n".join(_asset(environment, name) for name in SCRIPTS)
    page = page_of(document, script, _asset(environment, STYLE))
    template = environment.get_template("templates/page.html.j2")
    yield from map(str, template.generate(page=page))  # escaped pieces would escape what is put together with them
    yield "\n"


def page_of(document: Document, script: str, style: str) -> Page:
    """What the template is given."""
    views = views_of(document)
    verdict, tone = verdict_of(document, views)
    code = exit_code(document)
    payload = {"schema": SCHEMA, "command": document.command, "views": [view.payload for view in views]}
    return Page(
        title_of(document, views),
        clean(document.command), __version__, code, EXIT_TEXTS.get(code, ""), verdict, tone, views,
        tuple(BadFile(clean(row["file"]), row["code"], clean(row["message"])) for row in document.errors),
        plain_text(document) if document.kind.text in PARAGRAPHS else "", script_json(payload), script, style,
        policy(script, style),
    )  # fmt: skip


def title_of(document: Document, views: Sequence[View]) -> str:
    """The command and the files that the page is about."""
    names = [view.file for view in views] or [clean(row["file"]) for row in document.errors]
    about = names[0] if len(names) == 1 else number(len(names), "file") if names else ""
    if len(document.images) == 1:  # one file beside another
        (image,) = document.images
        before, after = image.get("compared"), image.get("output") if "proof" in image else None
        about = f"{clean(before['file'])} → {about}" if before else about
        about = f"{about} → {clean(after['file'])}" if after else about
    return f"ftpatch {clean(document.command)}" + (f": {about}" if about else "")


def verdict_of(document: Document, views: Sequence[View]) -> tuple[str, str]:
    """The result in a few words, and its tone."""
    findings = [finding for _, finding in every_finding(document)]
    bad = f"{number(len(document.errors), 'file')} cannot be read" if document.errors else ""
    if document.kind.checks:
        worst = max((SEVERITIES.index(severity_of(finding)) for finding in findings), default=-1)
        text = severities_text(findings) or (NOTHING if document.kind.text == "diff" else "no findings")
        tone = "error" if bad else SEVERITIES[worst] if worst >= 0 else "good"
        return "; ".join(part for part in (text, bad) if part), tone
    parts = [_done(document, views), bad]
    return "; ".join(part for part in parts if part), "error" if bad else ""


def _done(document: Document, views: Sequence[View]) -> str:
    """What a command that looks for no findings has to say first."""
    of_run = [fact for view in views for fact in view.facts if fact.about == "run"]
    if of_run and any("done" in image for image in document.images):
        return of_run[0].lines[0]  # text says it first, too
    static = [image["static_calls"] for image in document.images if "static_calls" in image]
    if static:
        return (
            f"{number(sum(row['sites'] for row in static), 'static call')} of {sum(row['keys'] for row in static)} keys"
        )
    if any("symbols" in image for image in document.images):
        return number(sum(len(image["symbols"]) for image in document.images), "symbol")
    live = sum(image["summary"]["live"] for image in document.images if "summary" in image)
    return f"{live} live records" if document.images and document.kind.text == "scan" else ""


def policy(script: str, style: str) -> str:
    """A content security policy: the page's own script and style may run, and nothing is ever loaded."""
    from hashlib import sha256

    def hashed(text: str) -> str:
        return "'sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; script-src {hashed(script)}; style-src {hashed(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(loader=PackageLoader("ftpatch.report", "html"), autoescape=True, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)  # fmt: skip


def _asset(environment: Environment, name: str) -> str:
    """A file of the page that is no template."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
