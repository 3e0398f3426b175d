"""The documentation as a site, and a browser that opens it as files.

It builds without a warning, its links lead somewhere, its pages load nothing from elsewhere; they can be searched, are
light or dark, and fit wide screens and narrow ones.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from lxml import etree, html

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parent.parent
WIDTHS = (390, 1280)  # of a telephone and of a screen
CHROMIUM = "/usr/bin/chromium"
SILENT = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
# (elements, attribute): what a browser loads without being asked
LOADED = (("script img iframe source video audio embed input track", "src"), ("object", "data"), ("image use", "href"))
RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}


@pytest.fixture(scope="module")
def site(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, etree._Element]:
    """Every page by its file; without 404.html, which only a server shows, at any address."""
    files = [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]
    return {path: html.parse(str(path)).getroot() for path in files}


def test_every_page_is_built(site: Path) -> None:
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert sources <= {path.relative_to(site) for path in site.rglob("*.html")}


def test_links_lead_to_files_and_anchors(site: Path, pages: dict[Path, etree._Element]) -> None:
    ids = {path: set(page.xpath("//@id | //a/@name")) for path, page in pages.items()}
    lost = []
    for path, page in pages.items():
        for link in page.xpath("//a/@href"):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = target.is_file() and (not parts.fragment or unquote(parts.fragment) in ids.get(target, ()))
            if not known:
                lost.append(f"{path.relative_to(site)}: {link}")
    assert lost == []


def test_links_to_elsewhere_have_the_form_of_an_address(pages: dict[Path, etree._Element]) -> None:
    """Whether there is something, nobody asks: the tests need no network."""
    links = {link for page in pages.values() for link in page.xpath("//a/@href") if urlsplit(link).scheme}
    address = re.compile(r"https://[a-z0-9.-]+\.[a-z]+(/[\x21-\x7e]*)?")
    assert [link for link in sorted(links) if not address.fullmatch(link)] == []


def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, etree._Element]) -> None:
    for path, page in pages.items():
        loaded = [value for names, attribute in LOADED for name in names.split()
                  for value in page.xpath(f"//{name}/@{attribute}")]  # fmt: skip
        loaded += [link.get("href") for link in page.iter("link") if RELATIONS & set((link.get("rel") or "").split())]
        loaded += [part.split()[0] for value in page.xpath("//@srcset") for part in value.split(",")]
        for style in (*page.xpath("//style/text()"), *page.xpath("//@style")):
            loaded += addresses(style)
        assert [value for value in loaded if urlsplit(value).scheme not in ("", "data") or value.startswith("//")] == []
        files = [value for value in loaded if not value.startswith(("data:", "#"))]
        assert [value for value in files if not (path.parent / urlsplit(value).path).exists()] == []
    for path in site.rglob("*.css"):
        outside = [value for value in addresses(path.read_text()) if re.match(r"(https?:)?//", value)]
        assert outside == [], path.name


def addresses(style: str) -> list[str]:
    """What a style sheet loads."""
    found = re.findall(r"url\(\s*[\"']?([^)\"']*)|@import\s+[\"']([^\"']+)", style)
    return [first or second for first, second in found]


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(programs: None, site: Path) -> object:
    """Chromium, with pages that note what goes wrong."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=SILENT)
        yield started
        started.close()


class Visit:
    """A page, what its console said, and what it asked for that is no file of the site."""

    def __init__(self, page: Page, site: Path) -> None:
        self.page, self.site = page, site
        self.errors: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda asked: self.errors.append(asked.url) if self.outside(asked.url) else None)

    def outside(self, url: str) -> bool:
        return not url.startswith((f"file://{self.site}", "data:", "blob:", "about:"))

    def open(self, name: str) -> None:
        self.page.goto(f"file://{self.site}/{name}")


@pytest.fixture
def visit(browser: object, site: Path) -> object:
    from playwright.sync_api import Browser

    assert isinstance(browser, Browser)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    yield Visit(page, site)
    page.close()


@pytest.mark.programs
def test_the_search_works_without_a_server(visit: Visit) -> None:
    visit.open("index.html")
    visit.page.keyboard.press("/")
    visit.page.keyboard.type("kallsyms")
    visit.page.wait_for_selector(".md-search-result__item a", timeout=10_000)
    found = visit.page.locator(".md-search-result__item > a").evaluate_all("links => links.map(link => link.href)")
    assert any("images.html" in link for link in found)
    assert visit.errors == []


@pytest.mark.programs
def test_light_and_dark_can_be_chosen(visit: Visit) -> None:
    visit.open("index.html")
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    color = "getComputedStyle(document.body).backgroundColor"
    before = visit.page.evaluate(scheme), visit.page.evaluate(color)
    visit.page.locator("form[data-md-component=palette] label:visible").click()
    visit.page.wait_for_function(f"{scheme} !== '{before[0]}'")
    assert {before[0], visit.page.evaluate(scheme)} == {"default", "slate"}
    assert visit.page.evaluate(color) != before[1]
    assert visit.errors == []


@pytest.mark.programs
def test_no_page_is_wider_than_the_screen(visit: Visit, pages: dict[Path, etree._Element]) -> None:
    for path in pages:
        visit.open(str(path.relative_to(visit.site)))
        for width in WIDTHS:
            visit.page.set_viewport_size({"width": width, "height": 844})
            fits = f"document.documentElement.scrollWidth <= {width}"  # once it is laid out for that width
            visit.page.wait_for_function(fits, timeout=5_000)
    assert visit.errors == []
