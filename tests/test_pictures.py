"""The pictures of docs/machines: they are what the tables and the small kernels give, and safe to show on any page."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ftpatch.arch import architectures
from tools.pictures import FOLDER, PICTURES, drawn
from tools.pictures.code import TESTDATA, addresses, explained, plain
from tools.pictures.svg import Block, Cell, Picture

PAGES = FOLDER.parent
SVG = "{http://www.w3.org/2000/svg}"


def words(name: str) -> list[str]:
    """All texts of a picture, in order."""
    return [
        element.text or ""
        for element in ElementTree.fromstring((FOLDER / f"{name}.svg").read_text()).iter(f"{SVG}text")
    ]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_its_data_gives(name: str) -> None:
    """`python -m tools.pictures` draws them again."""
    assert (FOLDER / f"{name}.svg").read_text() == drawn(name)


def test_there_is_no_picture_that_nothing_draws_or_no_page_shows() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(PICTURES)
    shown = [
        name
        for page in PAGES.glob("*.md")
        for name in re.findall(r"!\[.*?\]\(pictures/([\w-]+)\.svg\)", page.read_text())
    ]
    assert set(shown) == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_one_of_many_on_a_page_and_asks_for_nothing(name: str) -> None:
    text = (FOLDER / f"{name}.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img" and root.get("viewBox") and root.get("width") is None
    assert root.find(f"{SVG}title") is not None and root.find(f"{SVG}desc") is not None
    assert all(element.get("id", name).startswith(name) for element in root.iter())
    assert not re.search(r"<script|<image|<foreignObject|href|url\(|@import|on\w+=", text)
    rules = re.findall(r"(?:^|\})([^{}@]+)\{", root.findtext(f"{SVG}style") or "")
    assert all(".picture" in rule for rule in rules), "a rule would reach the rest of the page"


def test_text_stays_inside_its_picture() -> None:
    for name in PICTURES:
        root = ElementTree.fromstring((FOLDER / f"{name}.svg").read_text())
        _, _, width, height = (float(number) for number in (root.get("viewBox") or "").split())
        for text in root.iter(f"{SVG}text"):
            end = float(text.get("x", 0)) + (0 if text.get("text-anchor") else 7.25 * len(text.text or ""))
            assert end <= width and float(text.get("y", 0)) <= height, (name, text.text)


@pytest.mark.parametrize("name", [arch.name for arch in architectures()])
def test_the_picture_of_a_machine_shows_the_words_that_enable_writes(name: str) -> None:
    """Of one layout, against the code that `explain` gives."""
    file = {"arm64": "mini/vmlinux-callops", "ppc64le": "mini-ppc64le/vmlinux-ool", "x86_64": "x86_64/vmlinux-fentry"}[
        name
    ]
    _, _, site = explained(file, "vfs_read")
    shown = "\n".join(words(f"{name}-sites"))
    for block in site["code"]:
        for word in block["words"]:
            if word["new_word"] and word["text"] != "pointer":
                assert word["new_word"].removeprefix("0x") in shown


def test_each_page_of_a_machine_names_all_layouts_of_its_kernels() -> None:
    for arch in architectures():
        page = (PAGES / f"{arch.name}.md").read_text()
        for shape in arch.shapes:
            span = "`nop5` … `nop15`" if re.fullmatch(r"nop\d+", shape.name) else f"`{shape.name}`"
            assert span in page, (arch.name, shape.name)


def test_addresses_become_names_and_small_numbers_decimal() -> None:
    assert plain("bl 0xffff800080000400 <ftrace_caller>") == "bl ftrace_caller"
    assert plain("cmp w0, #0x3") == "cmp w0, 3"
    assert plain("ld r12, 0x10(r13)") == "ld r12, 0x10(r13)"
    assert addresses("mini/vmlinux-callops")["vfs_read"] == 0xFFFF8000800007B8
    assert (TESTDATA / "mini").is_dir()


def test_hostile_words_are_escaped() -> None:
    picture = Picture("<b>&", "a]]>")
    picture.table(["<head>"], [[Cell("<script>alert(1)</script>")]])
    picture.blocks([Block(0, 0, "&amp;")], [])
    root = ElementTree.fromstring(picture.svg("x"))
    assert root.findtext(f"{SVG}title") == "<b>&"
    assert [text.text for text in root.iter(f"{SVG}text")] == ["<head>", "<script>alert(1)</script>", "&amp;"]


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    rows = re.findall(r"^\| \*\*(.*?)\*\* \|", (PAGES / "glossary.md").read_text(), re.MULTILINE)
    assert rows == sorted(set(rows), key=lambda row: row.lower().replace(",", ""))
    assert {"site", "record", "slot", "ops", "trampoline", "thunk", "veneer", "stub", "leftover", "layout", "carrier",
            "journal"} <= set(rows)  # fmt: skip


def test_every_page_is_reachable_from_the_first() -> None:
    index = (PAGES / "index.md").read_text()
    assert set(re.findall(r"\]\((\w+\.md)\)", index)) == {path.name for path in PAGES.glob("*.md")} - {"index.md"}


def test_the_pictures_folder_is_beside_the_pages() -> None:
    assert Path("docs/machines/pictures") == FOLDER.relative_to(FOLDER.parent.parent.parent)
