"""The HTML page in a real browser: Chromium, without a window and without a network."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from elfwriter import MINI

from ftpatch.cli import run
from ftpatch.report import Document
from ftpatch.report.formats.html import render
from tools.kernels import Kernel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.programs

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
CALLOPS = MINI / "vmlinux-callops"


@dataclass
class Opened:
    """A page in the browser, what it asked of the network, and what it complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def at(self, hash: str) -> Page:
        """The page with another hash, as one types it into the address bar."""
        self.page.evaluate("hash => { location.hash = hash }", hash)
        settle(self.page)
        return self.page


@pytest.fixture(scope="module")
def browser(programs: None) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # which takes long to load

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """A function that opens a file with a hash; it must have loaded nothing and complained about nothing."""
    contexts: list[BrowserContext] = []
    visits: list[Opened] = []

    def visited(path: Path, hash: str = "", **options: Any) -> Opened:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        opened = Opened(context.new_page())
        visits.append(opened)
        context.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.goto(path.as_uri() + hash)
        if options.get("java_script_enabled", True):
            opened.page.wait_for_selector("html.ready")
        return opened

    yield visited
    for opened in visits:
        assert opened.complaints == []
        assert [url for url in opened.requests if not url.startswith(("file:", "data:,", "blob:"))] == []
        assert len([url for url in opened.requests if url.startswith("file:")]) == 1
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function: arguments of a command → its page; made once."""
    folder, made = tmp_path_factory.mktemp("pages"), dict[tuple[str, ...], Path]()

    def page(*arguments: object) -> Path:
        key = tuple(map(str, arguments))
        if key not in made:
            made[key] = folder / f"{len(made)}.html"
            assert run([*key, "--report", f"html={made[key]}"]) in (0, 1)
        return made[key]

    return page


@pytest.fixture
def mini_page(visit: Callable[..., Opened], report: Callable[..., Path]) -> Opened:
    """The page of a scan of a small kernel."""
    return visit(report("scan", CALLOPS))


def settle(page: Page) -> None:
    """What was typed is searched, what was asked for is drawn."""
    page.evaluate("""async () => {
      const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
      await frame();
      for (const view of ftpatch.views) for (const panel of view.panels) panel.finishTyping();
      await frame();
      await frame();
    }""")


def shown(page: Page, column: str = "function", table: str = "sites") -> list[str]:
    """The cells of a column, of all rows that pass, in order."""
    return list(page.evaluate(
        """([name, key]) => { const panel = ftpatch.views[ftpatch.shown].panel(name);
        return panel.rows.map((row) => panel.table.by[key].text(row)) }""", [table, column],
    ))  # fmt: skip


def drawn(page: Page) -> list[str]:
    """The second cell of each row that is there as an element, from the top."""
    return list(page.evaluate(
        """[...document.querySelectorAll("#table-0-sites .grid-row:not([hidden])")].sort((a, b) =>
        a.getAttribute("aria-rowindex") - b.getAttribute("aria-rowindex")).map((row) => row.children[1].textContent)"""
    ))  # fmt: skip


def text_of(page: Page, selector: str) -> str:
    return " ".join((page.locator(selector).first.text_content() or "").split())


def search(page: Page, text: str) -> None:
    page.locator("#table-0-sites input[type=search]").fill(text)
    settle(page)


def sites_of(path: Path, capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capfd.readouterr()
    assert run(["scan", str(path), "--sites", "--format", "json"]) == 0
    sites: list[dict[str, Any]] = json.loads(capfd.readouterr().out)["images"][0]["sites"]
    return sites


def large(n: int, capfd: pytest.CaptureFixture[str], folder: Path, change: Callable[[Any], None] | None = None) -> Path:
    """The page of a kernel that is a small one with n sites."""
    capfd.readouterr()
    assert run(["scan", str(CALLOPS), "--sites", "--format", "json"]) == 0
    image = json.loads(capfd.readouterr().out)["images"][0]
    pattern = next(site for site in image["sites"] if site["status"] == "ready")
    first = int(pattern["site"], 16)
    image["sites"] = [
        {**pattern, "row": i, "function": f"function_{i:06}", "site": f"0x{first + 32 * i:016x}",
         "branch": f"0x{first + 32 * i + 4:016x}", "offset": f"0x{32 * i:x}", "pos": 4096 + 32 * i}
        for i in range(n)
    ]  # fmt: skip
    for section in image["text_sections"]:
        if section["section"] == pattern["section"]:
            section["size"] = 32 * n + 4096
    if change:
        change(image)
    path = folder / "large.html"
    path.write_text("".join(render(Document("scan", images=[copy.deepcopy(image)]))), encoding="utf-8")
    return path


# -- every kind of page ------------------------------------------------------------------------------------------------

PAGES = {
    "scan": ("scan", CALLOPS), "module": ("scan", MINI / "mini.ko"), "tree": ("scan", MINI),
    "several": ("scan", CALLOPS, MINI / "vmlinux-pfe2", MINI / "mini.ko"), "check": ("check", MINI / "vmlinux-pfe2"),
    "enable": ("enable", CALLOPS, "--func", "vfs_*", "--dry-run"),
    "redirect": ("redirect", CALLOPS, "--func", "vfs_read", "--to", "vfs_write", "--dry-run"),
    "diff": ("diff", MINI / "vmlinux-pfe2", CALLOPS), "symbols": ("symbols", CALLOPS),
    "explain": ("explain", "vfs_read", CALLOPS), "sites": ("scan", "--sites", MINI),
    "units": ("scan", "--units", CALLOPS),
}  # fmt: skip

FAULTS = (Path(__file__).parent / "page_faults.js").read_text()

CONTRAST = (Path(__file__).parent / "page_contrast.js").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_names_headings_and_anchors_and_fits(
    name: str, visit: Callable[..., Opened], report: Callable[..., Path]
) -> None:
    opened = visit(report(*PAGES[name]))
    assert opened.page.evaluate(FAULTS) == []
    opened.page.set_viewport_size({"width": 375, "height": 700})
    settle(opened.page)
    assert opened.page.evaluate(FAULTS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["scan", "check", "enable", "diff"])
def test_text_can_be_read_in_both_schemes(
    name: str, scheme: str, visit: Callable[..., Opened], report: Callable[..., Path]
) -> None:
    opened = visit(report(*PAGES[name]), color_scheme=scheme)
    ground = opened.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    assert opened.page.evaluate(CONTRAST) == []


def test_the_scheme_can_be_chosen_against_the_system(mini_page: Opened) -> None:
    page = mini_page.page
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    page.get_by_label("Colours").select_option("Dark")
    assert page.evaluate(ground) == "rgb(20, 23, 28)"
    assert page.evaluate(CONTRAST) == []
    page.emulate_media(color_scheme="dark")
    page.get_by_label("Colours").select_option("Light")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.get_by_label("Colours").select_option("Automatic")
    assert page.evaluate(ground) == "rgb(20, 23, 28)"


def test_without_its_script_the_page_can_be_read(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    page = visit(report("scan", CALLOPS), java_script_enabled=False).page
    assert "callops" in text_of(page, "#summary-0")
    assert "does not run" in (page.locator("#table-0-sites").inner_text())
    assert page.locator("#map-0 rect.cell").count() > 0


# -- search, filters, sort ---------------------------------------------------------------------------------------------


def test_cells_are_what_json_says(mini_page: Opened, capfd: pytest.CaptureFixture[str]) -> None:
    sites = sites_of(CALLOPS, capfd)
    assert shown(mini_page.page) == [site["function"] or "" for site in sites]
    expected = ["" if site["site"] is None else hex(int(site["site"], 16)) for site in sites]
    assert shown(mini_page.page, "address") == expected
    words = [" ".join(word.removeprefix("0x") for word in site["words"]) for site in sites]
    assert shown(mini_page.page, "words") == words


SEARCHES: tuple[tuple[str, list[str]], ...] = (
    ("vfs", ["vfs_read", "vfs_write"]), ("VFS", []), ("vfs_r*", ["vfs_read"]), ("*_write", ["vfs_write"]),
    ("vfs_?rite", ["vfs_write"]), ("vfs_[rx]ead", []), ("vfs_[rx]ea?", ["vfs_read"]), ('"vfs_read"', ["vfs_read"]),
    ('"vfs"', []), ("/^vfs/", ["vfs_read", "vfs_write"]), ("/^VFS/i", ["vfs_read", "vfs_write"]),
    ("/d$/ ", ["sys_getppid", "vfs_read"]), ("write vfs", ["vfs_write"]), (".text+0x3b8", ["vfs_read"]),
    ("row:12", ["vfs_read"]),
    ("row:9999", []), ("a.b", []), ("\\", []), ("(", []),
)  # fmt: skip


def test_search(mini_page: Opened) -> None:
    page = mini_page.page
    for typed, names in SEARCHES:
        search(page, typed)
        assert (typed, shown(page)) == (typed, names)
        assert f"{len(names)} of 19 rows" in text_of(page, "#table-0-sites .count")
        assert drawn(page) == names


def test_what_docs_say_one_may_type_is_understood(mini_page: Opened) -> None:
    text = (Path(__file__).parent.parent / "docs" / "html-report.md").read_text()
    rows = text.partition("| typed | finds |")[2].partition("\n\n")[0].splitlines()
    forms = [form for row in rows for form in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    assert len(forms) == 10
    for form in forms:
        search(mini_page.page, form.replace("…", "x"))
        assert (form, mini_page.page.locator(".message.bad").count()) == (form, 0)


def test_search_by_address(mini_page: Opened, capfd: pytest.CaptureFixture[str]) -> None:
    page = mini_page.page
    site = next(site for site in sites_of(CALLOPS, capfd) if site["function"] == "vfs_read")
    address = int(site["site"], 16)
    for text in (hex(address), hex(address).upper().replace("X", "x"), f"0x{address:016x}"):
        search(page, text)
        assert shown(page) == ["vfs_read"]
    search(page, hex(address + 4))
    assert shown(page) == []
    message = f"There is no site at {address + 4:#x}; the one in front of it is 0x4 bytes away: vfs_read"
    assert text_of(page, "#table-0-sites .message") == message
    page.get_by_role("button", name="vfs_read").click()
    assert "vfs_read" in text_of(page, "#table-0-sites .chosen strong")


def test_a_negated_search_leaves_the_others(mini_page: Opened) -> None:
    everything = shown(mini_page.page)
    search(mini_page.page, "!vfs_*")
    assert shown(mini_page.page) == [name for name in everything if not name.startswith("vfs_")]


def test_a_bad_expression_is_said_and_hides_nothing(mini_page: Opened) -> None:
    page = mini_page.page
    everything = shown(page)
    for typed in ("/(/", "/[/", "/a{2,1}/", "/x/gy"):
        search(page, typed)
        assert shown(page) == everything
        message = text_of(page, "#table-0-sites .message.bad")
        assert "expression" in message or "flag" in message
        assert page.locator("input[aria-invalid=true]").count() == 1


def test_a_typo_gets_proposals(mini_page: Opened) -> None:
    search(mini_page.page, "vfs_raed")
    assert text_of(mini_page.page, "#table-0-sites .message") == "Nothing passes. Do you mean vfs_read?"
    mini_page.page.get_by_role("button", name="vfs_read").click()
    assert shown(mini_page.page) == ["vfs_read"]


def test_a_column_sorts_up_down_and_not(mini_page: Opened) -> None:
    page = mini_page.page
    before = shown(page)
    button = page.get_by_role("button", name="Function")
    heading = page.locator("#table-0-sites [data-key=function]")
    button.click()
    names = [name for name in before if name]
    assert shown(page) == sorted(names) + [""] * (len(before) - len(names))
    assert heading.get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert shown(page) == sorted(names, reverse=True) + [""] * (len(before) - len(names))
    assert heading.get_attribute("aria-sort") == "descending"
    assert "sort=-function" in page.url
    button.press("Space")
    assert shown(page) == before
    assert heading.get_attribute("aria-sort") == "none"
    page.go_back()
    assert heading.get_attribute("aria-sort") == "descending"
    page.go_forward()
    assert shown(page) == before


def test_addresses_sort_as_numbers(mini_page: Opened) -> None:
    page = mini_page.page
    page.get_by_role("button", name="Offset").click()
    values = [int(text, 16) for text in shown(page, "offset") if text]
    assert values == sorted(values)


def test_a_filter_has_counts_and_is_in_the_address(mini_page: Opened, capfd: pytest.CaptureFixture[str]) -> None:
    page = mini_page.page
    sites = sites_of(CALLOPS, capfd)
    page.locator("#table-0-sites summary", has_text="Section").click()
    n_of = {name: sum(site["section"] == name for site in sites) for name in (".text", ".init.text")}
    for name, n in n_of.items():
        assert text_of(page, f"label:has(input[value='{name}'])") == f"{name}{n}"
    page.get_by_label(".init.text").check()
    assert len(shown(page)) == n_of[".init.text"]
    assert "section=.init.text" in page.url
    page.keyboard.press("Escape")
    assert not page.locator("#table-0-sites details[open]").count()
    page.go_back()
    assert len(shown(page)) == len(sites)


# -- deep links --------------------------------------------------------------------------------------------------------


def test_a_link_to_a_function_shows_it(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    page = visit(report("scan", CALLOPS), "#func=vfs_read").page
    assert text_of(page, "#table-0-sites .chosen strong") == "vfs_read"
    row = page.locator("#table-0-sites .grid-row[aria-selected=true]")
    assert "vfs_read" in (row.text_content() or "")
    assert page.locator("#table-0-sites .grid").evaluate("grid => grid === document.activeElement")


MISSING = (
    ("#func=vfs_raed", "No site of a function named vfs_raed in {file}. Do you mean vfs_read?"),
    ("#func=nothing_like_it", "No site of a function named nothing_like_it in {file}."),
    ("#row=99999", "There is no row 99999 in the table Sites of {file}."),
    ("#row=-1", "There is no row -1 in the table Sites of {file}."),
    ("#view=7", "This page has 1 file; there is none of number 7."), ("#status=none", "This table has no status none."),
    ("#table=nothing", "There is no table nothing for {file}."),
    ("#sort=constructor", "This table has no column constructor."), ("#range=5", "This table has no range 5."),
)  # fmt: skip


def test_a_link_to_what_is_not_there_says_so(mini_page: Opened) -> None:
    for hash, message in MISSING:
        page = mini_page.at(hash)
        assert text_of(page, "#table-0-sites .message.bad") == message.format(file=CALLOPS)


def test_a_hash_of_any_kind_breaks_nothing(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    opened = visit(report("scan", CALLOPS), "#%E0%A4%A")
    for hash in ("#%", "#=&&==", "#func=", "#q=%2B+%00", "#nowhere", "#row=1e3", "#at=1", "#view=-0", "#sort=-"):
        opened.at(hash)
        opened.at("#q=vfs_read")
        assert shown(opened.page) == ["vfs_read"]


def test_the_whole_state_is_in_the_address(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    opened = visit(report("scan", CALLOPS))
    search(opened.page, "/vfs_.*e+/ ")
    opened.page.get_by_role("button", name="Address").click()
    opened.page.locator(".grid-row:not([hidden])").first.click()
    hash = opened.page.evaluate("location.hash")
    again = visit(report("scan", CALLOPS), hash).page
    assert shown(again) == shown(opened.page) != []
    assert text_of(again, ".chosen strong") == text_of(opened.page, ".chosen strong")
    assert again.locator("#table-0-sites input[type=search]").input_value() == "/vfs_.*e+/ "


def test_each_row_has_a_link_to_itself(mini_page: Opened) -> None:
    search(mini_page.page, "vfs_write")
    link = mini_page.page.get_by_role("link", name="Link to vfs_write")
    assert link.get_attribute("href") == "#row=14"
    link.click()
    assert text_of(mini_page.page, ".chosen strong") == "vfs_write"


def test_several_files_are_one_page(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    opened = visit(report(*PAGES["several"]))
    page = opened.page
    assert page.get_by_label("File").locator("option").count() == 3
    assert page.locator(".view:visible").count() == 1
    opened.at("#view=2")
    assert "mini.ko" in text_of(page, ".view:visible h2")
    page.go_back()
    assert "vmlinux-callops" in text_of(page, ".view:visible h2")
    name = next(iter(opened.page.evaluate("ftpatch.views[2].data.tables[0].by.function.lines.filter(Boolean)")))
    opened.at(f"#func={quote(name)}")
    assert text_of(page, ".view:visible .chosen strong") == name


def test_rows_of_a_tree_are_not_told_by_slots(
    visit: Callable[..., Opened], report: Callable[..., Path], tmp_path: Path
) -> None:
    """Each module has a row 0; a link to one of them is a link to its place in the table."""
    for name in ("a.ko", "b.ko"):
        shutil.copy(MINI / "mini.ko", tmp_path / name)
    opened = visit(report("scan", "--sites", tmp_path))
    page = opened.page
    name = shown(page)[-1]
    opened.at(f"#func={quote(name)}")
    assert text_of(page, "#table-0-sites .chosen strong") == name
    link = page.get_by_role("link", name=f"Link to {name}").first.get_attribute("href") or ""
    assert "row=" not in link
    opened.at("#row=0&table=sites")
    message = "Each module counts its own rows: a search for row:0 finds all of that number."
    assert text_of(page, "#table-0-sites .message.bad") == message
    opened.at("#table=sites&q=row:0")
    assert sorted(shown(page, "module")) == ["a.ko", "b.ko"]
    assert not any(text.startswith("row:") for text in page.evaluate("ftpatch.views[0].panel('sites').selectors()"))


def test_a_finding_and_an_edit_lead_to_their_site(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    page = visit(report(*PAGES["enable"]), "#edit-0").page
    edit = page.locator("#edit-0")
    assert edit.get_attribute("open") is not None
    page.locator("#edits-0 .to-site a").first.click()
    assert text_of(page, "#table-0-sites .chosen strong").startswith("vfs_")
    page.get_by_role("link", name="In Edits").click()
    assert "edits" in page.url


# -- keys --------------------------------------------------------------------------------------------------------------


def test_the_table_is_walked_with_keys(mini_page: Opened) -> None:
    page = mini_page.page
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.type("vfs")
    page.keyboard.press("ArrowDown")
    chosen = "#table-0-sites .chosen strong"
    assert text_of(page, chosen) == "vfs_read"
    page.keyboard.press("ArrowDown")
    assert text_of(page, chosen) == "vfs_write"
    for key, name in (("ArrowDown", "vfs_write"), ("Home", "vfs_read"), ("End", "vfs_write"), ("PageUp", "vfs_read")):
        page.keyboard.press(key)
        assert text_of(page, chosen) == name
    page.keyboard.press("ArrowRight")
    cell = page.evaluate(
        "document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).textContent"
    )
    assert cell == "vfs_read"
    page.keyboard.press("Escape")
    assert page.locator("#table-0-sites input[type=search]").input_value() == ""
    assert len(shown(page)) > 2


def test_the_grid_says_where_one_is(mini_page: Opened) -> None:
    page = mini_page.page
    grid = page.get_by_role("grid", name=f"Sites of {CALLOPS}")
    assert grid.get_attribute("aria-rowcount") == str(len(shown(page)) + 1)
    grid.focus()
    page.keyboard.press("End")
    row = page.locator(".grid-row[aria-selected=true]")
    assert row.get_attribute("aria-rowindex") == str(len(shown(page)) + 1)
    assert row.is_visible()


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_the_map_zooms_and_its_cells_filter(mini_page: Opened) -> None:
    page = mini_page.page
    svg = page.locator("#map-0")
    before = svg.locator("rect.cell").evaluate_all("cells => cells.map((cell) => cell.getAttribute('x'))")
    n_sites = sum(map(int, svg.locator("rect.cell").evaluate_all("cells => cells.map((cell) => cell.dataset.n)")))
    assert n_sites == len([name for name in shown(page, "address") if name])
    page.get_by_role("button", name="Zoom in").click()
    settle(page)
    assert text_of(page, ".place").startswith("2.0×, 0x")
    svg.hover()
    page.mouse.wheel(0, -100)
    settle(page)
    assert text_of(page, ".place").startswith("2.8×, 0x")
    svg.focus()
    place = text_of(page, ".place")
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert text_of(page, ".place") != place
    page.keyboard.press("0")
    settle(page)
    assert text_of(page, ".place") == ""
    assert svg.locator("rect.cell").evaluate_all("cells => cells.map((cell) => cell.getAttribute('x'))") == before
    svg.locator("rect.cell").last.click()
    assert text_of(page, "#table-0-sites .chosen strong") in shown(page)
    svg.focus()
    page.keyboard.press("ArrowUp")
    page.get_by_role("button", name="Filter: ").click()
    assert 0 < len(shown(page)) < 16
    assert "range=0x" in page.url
    page.get_by_role("button", name="remove this filter").click()
    assert len(shown(page)) == 19


def test_a_cell_of_many_sites_filters(
    visit: Callable[..., Opened], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = visit(large(2000, capfd, tmp_path)).page
    cells = page.locator("#map-0 rect.cell")
    n, first = (int(cells.nth(3).get_attribute(name) or "") for name in ("data-n", "data-first"))
    cells.nth(3).click()
    assert n > 1
    assert shown(page) == [f"function_{i:06}" for i in range(first, first + n)]
    assert page.evaluate("location.hash").startswith("#status=ready&range=0x")
    for _ in range(4):
        page.get_by_role("button", name="Zoom in").click()
    settle(page)
    total = sum(page.locator("#map-0 rect.cell").evaluate_all("cells => cells.map((cell) => +cell.dataset.n)"))
    page.get_by_role("button", name="Filter: ").click()
    assert abs(len(shown(page)) - total) <= 1
    assert 100 < total < 150


def test_the_map_goes_down_to_single_sites(mini_page: Opened) -> None:
    page = mini_page.page
    page.locator("#map-0").focus()
    for _ in range(12):
        page.keyboard.press("Shift+ArrowRight")
    title = text_of(page, ".readout")
    assert " in .text 0x" in title or " in .init.text 0x" in title or "ready" in title
    page.keyboard.press("Enter")
    page.locator("#map-0").focus()
    for _ in range(30):
        page.keyboard.press("+")
    settle(page)
    counts = page.locator("#map-0 rect.cell").evaluate_all("cells => cells.map((cell) => +cell.dataset.n)")
    assert max(counts, default=1) == 1


def test_a_drag_moves_the_map_and_filters_nothing(mini_page: Opened) -> None:
    page = mini_page.page
    page.get_by_role("button", name="Zoom in").click()
    settle(page)
    place, n = text_of(page, ".place"), len(shown(page))
    box = page.locator("#map-0").bounding_box()
    assert box
    page.mouse.move(box["x"] + 300, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 40, steps=4)
    page.mouse.up()
    settle(page)
    assert text_of(page, ".place") != place
    assert len(shown(page)) == n


def test_the_map_of_an_object_tells_sections_apart(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    """Sections of a file that is not linked all begin at 0: a filter by address takes the section along."""
    page = visit(report("scan", MINI / "mini.ko")).page
    assert page.locator("#table-0-sites [data-key=address]").count() == 0
    for name in (".text", ".init.text"):
        cell = page.locator(f"#map-0 rect.cell:has(title:text(' in {name} '))").first
        n, first, to, shndx = (cell.get_attribute(f"data-{key}") or "" for key in ("n", "first", "to", "shndx"))
        cell.click()
        assert n == "1"
        assert text_of(page, "#table-0-sites .chosen strong") == shown(page)[int(first)]
        page.evaluate(f"location.hash = 'range=0x0-{to}@{shndx}'")
        settle(page)
        assert set(shown(page, "section")) == {name}
        page.evaluate("location.hash = ''")
        settle(page)


@pytest.mark.corpus
def test_keys_of_static_calls_are_named_by_key_and_mapped_by_kind(
    kernel: Callable[[str], Kernel], visit: Callable[..., Opened], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    vmlinux, path = str(kernel("x86_64-6.12").vmlinux), tmp_path / "calls.html"
    assert run(["static-calls", vmlinux, "--sites", "--report", f"html={path}"]) == 0
    page = visit(path, "#q=*_resched", permissions=["clipboard-read", "clipboard-write"]).page
    page.locator("#table-0-keys").get_by_role("button", name="Copy names").click()
    page.locator(".message:not(:empty)").first.wait_for()
    names = page.evaluate("navigator.clipboard.readText()").split()
    assert names == shown(page, "key", "keys") != []
    capfd.readouterr()
    assert run(["static-calls", vmlinux, "--key", "*_resched", "--format", "json"]) == 0
    entries = json.loads(capfd.readouterr().out)["images"][0]["static_calls"]["entries"]
    assert sorted(entry["key"] for entry in entries) == sorted(names)
    assert page.locator("#map-0 g[data-state]").evaluate_all("lanes => lanes.map((lane) => lane.dataset.state)") == [
        "sc-call",
        "sc-tail",
    ]
    cell = page.locator("#map-0 g[data-state=sc-tail] rect.cell[data-n]:not([data-n='1'])").first
    n = int(cell.get_attribute("data-n") or "")
    cell.click()
    assert shown(page, "kind", "calls") == ["tail"] * n


def test_a_bar_of_distances_filters(mini_page: Opened) -> None:
    page = mini_page.page
    bar = page.locator("svg.distances .bar").first
    n = int(bar.get_attribute("data-n") or "")
    bar.focus()
    page.keyboard.press("Enter")
    assert len(shown(page)) == n > 0
    assert "bytes=" in page.url


# -- what leaves the page ----------------------------------------------------------------------------------------------


def test_names_are_copied_as_a_list_for_func(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    page = visit(report("scan", CALLOPS), "#q=vfs", permissions=["clipboard-read", "clipboard-write"]).page
    page.get_by_role("button", name="Copy names").click()
    page.locator(".message:not(:empty)").first.wait_for()
    assert text_of(page, ".message") == "Copied 2 selectors."
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"# 2 selectors of {CALLOPS}, for --func @file\nvfs_read\nvfs_write\n"


def test_copied_names_choose_what_was_shown(
    visit: Callable[..., Opened], report: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names that several functions share are copied as rows, unless all of these are shown."""
    page = visit(report("scan", CALLOPS), "#status=ready", permissions=["clipboard-read", "clipboard-write"]).page
    page.get_by_role("button", name="Copy names").click()
    page.locator(".message:not(:empty)").first.wait_for()
    (tmp_path / "list").write_text(page.evaluate("navigator.clipboard.readText()"))
    capfd.readouterr()
    assert run(["scan", str(CALLOPS), "--func", f"@{tmp_path / 'list'}", "--format", "json"]) == 0
    chosen = json.loads(capfd.readouterr().out)["images"][0]["sites"]
    assert [str(site["row"]) for site in chosen] == shown(page, "row")


def test_csv_has_the_rows_that_are_shown(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    page = visit(report("scan", CALLOPS), "#q=vfs", accept_downloads=True).page
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "vmlinux-callops-sites.csv"
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("row,function,")
    assert [line.split(",")[:2] for line in lines[1:]] == [["12", "vfs_read"], ["14", "vfs_write"]]


def test_on_paper_is_what_is_filtered(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    page = visit(report("scan", CALLOPS), "#q=vfs").page
    page.emulate_media(media="print")
    settle(page)
    assert text_of(page, ".paper p") == "2 rows, after search and filters: vfs."
    names = page.locator(".paper tbody tr td:nth-child(2)").all_text_contents()
    assert names == ["vfs_read", "vfs_write"]
    hidden = page.locator(".grid, .tools, nav, .controls")
    assert [element.is_visible() for element in hidden.all()] == [False] * hidden.count()
    assert page.evaluate(CONTRAST) == []


# -- size and enmity ---------------------------------------------------------------------------------------------------

PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def test_many_sites_are_fluid(visit: Callable[..., Opened], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    n = 48_000
    page = visit(large(n, capfd, tmp_path)).page
    assert page.evaluate(PAINT) < 1000
    assert page.locator("#table-0-sites .grid-row").count() < 60
    took = page.evaluate("""() => { const panel = ftpatch.views[0].panel("sites"), start = performance.now();
      panel.state.q = "n_04770"; panel.refresh(); return performance.now() - start }""")
    assert took < 1000
    assert shown(page)[:2] == ["function_047700", "function_047701"]
    search(page, "")
    settle(page)
    page.locator("#table-0-sites .grid").focus()
    page.keyboard.press("End")
    assert drawn(page)[-1] == f"function_{n - 1:06}"
    page.locator("#table-0-sites .grid").evaluate("grid => { grid.scrollTop = grid.scrollHeight / 2 }")
    settle(page)
    middle = int(drawn(page)[20].split("_")[1])
    assert abs(middle - n // 2) < 40
    page.get_by_role("button", name="Function").click()
    page.get_by_role("button", name="Function").click()
    assert shown(page)[0] == f"function_{n - 1:06}"


SHIFTS = """window.shifts = 0; new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifts += entry.value;
}).observe({ type: "layout-shift", buffered: true })"""


def test_nothing_jumps_when_the_script_starts(visit: Callable[..., Opened], report: Callable[..., Path]) -> None:
    opened = visit(report("scan", CALLOPS))
    opened.page.add_init_script(SHIFTS)
    opened.page.reload()
    opened.page.wait_for_selector("html.ready")
    settle(opened.page)
    assert opened.page.evaluate("shifts") < 0.01
    opened.requests.pop()  # the second one of the same page


@pytest.mark.corpus
def test_a_real_kernel_is_painted_within_a_second(
    kernel: Callable[[str], Kernel], visit: Callable[..., Opened], tmp_path: Path
) -> None:
    path = tmp_path / "kernel.html"
    assert run(["scan", str(kernel("arm64-6.12").vmlinux), "--report", f"html={path}"]) == 0
    assert path.stat().st_size < 4 << 20
    page = visit(path, "#func=vfs_read").page
    assert page.evaluate(PAINT) < 1000
    assert text_of(page, "#table-0-sites .chosen strong") == "vfs_read"


HOSTILE = (
    "<script>window.pwned = 1</script>", "</script><img src=x onerror='window.pwned = 1'>", '"><b onclick=x>',
    "{{ 7*7 }}", "${7*7}", "&lt;i&gt;", "a" * 100_000, "=cmd|'/c calc'!A0", "\u202egnp.exe", "#row=1", "!vfs",
    "\ud800", "a\nb\tc", "-->",
)  # fmt: skip


def test_hostile_names_are_text(
    visit: Callable[..., Opened], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def change(image: Any) -> None:
        for i, name in enumerate(HOSTILE):
            image["sites"][i] |= {"function": name, "section": name, "aliases": [name, "alias"]}
        image["file"] = "<script>window.pwned = 1</script>/vmlinux"

    page = visit(large(40, capfd, tmp_path, change)).page
    assert page.evaluate("window.pwned") is None
    assert page.locator("#table-0-sites img, #table-0-sites b, #table-0-sites script").count() == 0
    assert drawn(page)[:6] == list(HOSTILE[:6])
    assert page.evaluate(FAULTS) == []
    for i in range(len(HOSTILE)):
        page.locator(f"#table-0-sites .grid-row[aria-rowindex='{i + 2}']").click(position={"x": 30, "y": 10})
    page.locator("#table-0-sites summary", has_text="Section").click()
    assert page.evaluate("window.pwned") is None
    assert page.evaluate(FAULTS) == []
    selectors = page.evaluate("ftpatch.views[0].panel('sites').selectors()")
    assert selectors[: len(HOSTILE)] == [f"row:{i}" for i in range(len(HOSTILE))]
    csv = page.evaluate("ftpatch.views[0].panel('sites').csv()")
    assert "'=cmd" in csv
    assert ",=cmd" not in csv
