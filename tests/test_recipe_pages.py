"""The recipes of docs/recipes: each is found from the first page, and has all that a recipe has.

Their commands are run by test_pages.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "recipes"
RECIPES = sorted(path for path in FOLDER.glob("*.md") if path.name != "index.md")
PARTS = ("**Goal**: ", "## What can go wrong", "The way back", "## Limits")


def test_the_index_leads_to_every_recipe_by_its_title() -> None:
    rows = re.findall(r"^\| .+ \| \[(.+)\]\((.+)\) \|$", (FOLDER / "index.md").read_text(), re.MULTILINE)
    titles = [(re.sub(r"^# ", "", path.read_text().split("\n")[0]), path.name) for path in RECIPES]
    assert sorted(rows) == sorted(titles)


def test_the_site_has_every_recipe_in_the_order_of_the_index() -> None:
    listed = re.findall(r"\(([\w-]+\.md)\)", (FOLDER / "index.md").read_text())
    nav = re.findall(r"recipes/(\S+\.md)", (ROOT / "mkdocs.yml").read_text())
    assert nav == ["index.md", *listed]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_has_a_goal_a_proof_a_way_back_and_limits(path: Path) -> None:
    text = path.read_text()
    assert [part for part in PARTS if part not in text] == []
    assert re.search(r"^##+ .*(Did it work|How to know|a gate|See it fail)", text, re.MULTILINE | re.IGNORECASE)
    assert text.count("```console") >= 3


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_refusal_is_shown_with_its_exit_code(path: Path) -> None:
    """A line of ours on stderr that refuses is followed by `echo $?`; warnings are not refusals."""
    for block in re.findall(r"^```console\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
        for line, behind in re.findall(r"^(ftpatch: (?!warning).*)\n(.*)$", block, re.MULTILINE):
            assert behind == "$ echo $?" or line.startswith("ftpatch: the symbols are"), line


def test_a_message_that_a_recipe_explains_is_one() -> None:
    """A code span of several words at the start of a row is what some verb prints, or its option."""
    source = "\n".join(path.read_text() for path in (ROOT / "ftpatch").rglob("*.py"))
    source = re.sub(r'"\n\s*f?"', "", source) + (ROOT / "ftpatch" / "rules" / "register.toml").read_text()
    for path in RECIPES:
        for message in re.findall(r"^\| `([^`]* [^`]*)`", path.read_text(), re.MULTILINE):
            assert message in source, f"{path.name}: nothing prints {message!r}"


def test_pictures_and_recipes_name_no_place_of_one_machine() -> None:
    for page in (*RECIPES, *(ROOT / "docs" / "machines").glob("*.md")):
        assert not re.search(r"/(work|root|home|tmp)/", page.read_text()), page.name
