"""The page of --report html=FILE: what it holds is what JSON holds, whatever the file and its names are."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from elfwriter import MINI
from lxml import etree, html

from ftpatch.cli import run

Page = Any  # an element tree of lxml, which has no types


def page_and_json(arguments: list[str], capfd: pytest.CaptureFixture[str], code: int = 0) -> tuple[Page, Any]:
    """The page and the JSON report of the same command line."""
    texts = []
    for name in ("html", "json"):
        capfd.readouterr()
        assert run([*arguments, "--format", name]) == code
        texts.append(capfd.readouterr().out)
    return html.document_fromstring(texts[0].encode(), parser=etree.HTMLParser(encoding="utf-8")), json.loads(texts[1])


def payload(page: Page) -> Any:
    """What the script gets."""
    (element,) = page.xpath("//script[@id='ftpatch-data']")
    return json.loads(element.text)


def decoded(column: dict[str, Any], n: int) -> list[Any]:
    """The values of a column, read as docs and script read them."""
    if "text" in column:
        return [line or None for line in column["text"].split("\n")]
    if "values" in column:
        return [None if code is None else column["values"][code] for code in column["codes"]]
    last, values = int(column.get("base", "0"), 16), list[Any]()
    for delta in column["deltas"]:
        last += 0 if delta is None else int(delta)
        if "base" in column:
            last %= 1 << 64
        values.append(None if delta is None else last)
    assert len(values) == n
    return values


def table(page: Page, name: str, view: int = 0) -> list[dict[str, Any]]:
    """The rows of one table of the page."""
    (found,) = [one for one in payload(page)["views"][view]["tables"] if one["name"] == name]
    keys = [column["key"] for column in found["columns"]]
    assert list(found["data"]) == keys
    columns = [decoded(found["data"][key], found["n"]) for key in keys]
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


def hexed(value: int | None, digits: int = 16) -> str | None:
    return None if value is None else f"0x{value:0{digits}x}"


@pytest.mark.parametrize("file", ["vmlinux-callops", "vmlinux-pfe2", "vmlinux-kcfi", "mini.ko", "pg.o", "program"])
def test_the_table_of_sites_is_that_of_json(file: str, capfd: pytest.CaptureFixture[str]) -> None:
    page, report = page_and_json(["scan", str(MINI / file)], capfd)
    rows, sites = table(page, "sites"), report["images"][0]["sites"]
    assert len(rows) == len(sites) > 0
    for row, site in zip(rows, sites, strict=True):
        assert (row["row"], row["function"], row["section"]) == (site["row"], site["function"], site["section"])
        assert (hexed(row["address"]), row["status"]) == (site["site"], site["status"])
        assert (row["words"] or "").split() == site["words"]
        assert hexed(row["offset"], 1) == site["offset"]
    assert Counter(row["state"] for row in rows) == Counter(site["status"] for site in sites)
