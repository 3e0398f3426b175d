"""What mkdocs does with our pages besides rendering them: mkdocs.yml names this file.

* `<!-- from README.md: the text above "## Verbs" -->` stands for that part of README.md, so that the site's first page
  is the README's; `<!-- from CONTRIBUTING.md -->` for a whole file.
* A picture of ours (`![…](pictures/x.svg)`) becomes part of the page: its colours follow light and dark.
* Comments that say how the tests run a page are left out.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parent.parent
FROM = re.compile(r'^<!-- from (\w+\.md)(?:: the text above "(.+)")? -->$', re.MULTILINE)
TESTED = re.compile(r"^<!-- run:.*?-->\n", re.MULTILINE | re.DOTALL)
IMAGE = re.compile(r'<img\b[^>]*?\bsrc="([^":]+\.svg)"[^>]*>')


class File(Protocol):
    """Of mkdocs: a file of the documentation."""

    src_uri: str


class Page(Protocol):
    """Of mkdocs: a page."""

    file: File


class SourceError(Exception):
    """A page asks for what is not there."""


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """The text of a page with what it takes from the files at the top of the repository."""
    return TESTED.sub("", FROM.sub(lambda match: taken(match[1], match[2], page.file.src_uri), markdown))


def taken(name: str, end: str | None, page: str) -> str:
    """A file at the top of the repository, up to a line; its links as they are from the page."""
    text = (ROOT / name).read_text("utf-8")
    if end is not None:
        head, mark, _ = text.partition(f"\n{end}\n")
        if not mark:
            raise SourceError(f"docs/{page}: {name} has no line {end!r}")
        text = head
    up = posixpath.relpath(".", posixpath.dirname(page) or ".")
    at_top = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
              "SECURITY.md": "security.md"}  # fmt: skip

    def seen(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        target = at_top.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.normpath(posixpath.join(up, target))}{'#' + anchor if anchor else ''})"

    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", seen, text)


def on_page_content(html: str, page: Page, **_: object) -> str:
    """The page with its pictures inside."""
    folder = ROOT / "docs" / posixpath.dirname(page.file.src_uri)

    def inline(match: re.Match[str]) -> str:
        path = (folder / match[1]).resolve()
        if not path.is_file():  # `mkdocs` counts from the page's own place
            raise SourceError(f"docs/{page.file.src_uri}: no picture {match[1]}")
        svg = re.sub(r"<\?xml.*?\?>|<!--.*?-->|<!DOCTYPE.*?>", "", path.read_text("utf-8"), flags=re.DOTALL)
        return f'<span class="picture" style="display: block">{svg.strip()}</span>'

    return IMAGE.sub(inline, html)
