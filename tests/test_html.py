"""The page of --report html=FILE: what it holds is what JSON holds, whatever the file and its names are."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from elfedit import Elf
from elfwriter import MINI
from hypothesis import given
from hypothesis import strategies as st
from lxml import html

from ftpatch.cli import run
from ftpatch.document.text_sections import TextSectionRow
from ftpatch.document.types import ReachObject
from ftpatch.errors import printable
from ftpatch.report.html.address_map import Map, map_of, placed
from ftpatch.report.html.columns import SAFE, Column, script_json
from ftpatch.report.html.distances import of_reach, of_sites
from ftpatch.report.html.tables import Field, table_of
from tools import kernels

Page = Any  # an element tree of lxml, which has no types


def page_and_json(arguments: list[str], capfd: pytest.CaptureFixture[str], code: int = 0) -> tuple[Page, Any]:
    """The page and the JSON report of the same command line."""
    texts = []
    for name in ("html", "json"):
        capfd.readouterr()
        assert run([*arguments, "--format", name]) == code
        texts.append(capfd.readouterr().out)
    return html.document_fromstring(texts[0].encode(), parser=html.HTMLParser(encoding="utf-8")), json.loads(texts[1])


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


# -- how columns are written -------------------------------------------------------------------------------------------

TOP = (1 << 64) - 1


@pytest.mark.parametrize(
    ("kind", "values", "encoded"),
    [
        ("text", ["a", None, "b"], {"values": ["a", "b"], "codes": [0, None, 1]}),
        ("text", [f"f{n}" for n in range(300)], {"text": "\n".join(f"f{n}" for n in range(300))}),
        ("enum", [str(n) for n in range(300)], {"values": [str(n) for n in range(300)], "codes": list(range(300))}),
        ("hex", [TOP, 0, None, 1 << 63], {"base": "0x0", "deltas": [-1, 1, None, str(-(1 << 63))]}),
        ("hex", [1 << 53], {"base": "0x0", "deltas": [str(1 << 53)]}),
        ("hex", [SAFE], {"base": "0x0", "deltas": [SAFE]}),
        ("int", [7, 8, None, -3], {"deltas": [7, 1, None, -11]}), ("int", [TOP], {"deltas": [str(TOP)]}),
        ("bytes", [-(1 << 62), 1 << 62], {"deltas": [str(-(1 << 62)), str(1 << 63)]}), ("int", [], {"deltas": []}),
        ("text", ["a\nb\u202e\udcff"], {"values": ["a\\x0ab\\u202e\\xdcff"], "codes": [0]}),
    ],
)  # fmt: skip
def test_a_column_is_exact(kind: str, values: list[Any], encoded: dict[str, Any]) -> None:
    column = Column("k", "K", kind, values)
    assert column.encoded() == encoded
    assert decoded(json.loads(script_json(encoded)), len(values)) == [
        printable(value) if isinstance(value, str) else value for value in values
    ]


@given(st.lists(st.none() | st.integers(0, TOP)))
def test_addresses_come_back_as_they_were(values: list[int | None]) -> None:
    encoded = json.loads(script_json(Column("k", "K", "hex", values).encoded()))
    assert all(delta is None or isinstance(delta, str) or abs(delta) <= SAFE for delta in encoded["deltas"])
    assert decoded(encoded, len(values)) == values


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_no_json_ends_the_element_that_it_is_in(value: Any) -> None:
    text = script_json(value)
    assert not set(text) & set("<>&\u2028\u2029") and json.loads(text) == value


def test_a_long_table_says_what_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftpatch.report.html.tables.MOST", 3)
    made = table_of("t", "T", (Field("a", "A"),), [{"a": str(n)} for n in range(5)])
    assert (made.n, made.left_out, made.payload()["truncated"]) == (3, 2, 2)


# -- drawings ----------------------------------------------------------------------------------------------------------


def section(name: str, address: int | None, size: int, shndx: int = 1) -> TextSectionRow:
    return {"section": name, "shndx": shndx, "address": None if address is None else f"0x{address:016x}", "size": size,
            "pos": 64}  # fmt: skip


def the_map(sections: list[TextSectionRow], sites: list[tuple[int, int, str]]) -> Map:
    drawn = map_of(sections, placed([site[0] for site in sites], [site[1] for site in sites], [s[2] for s in sites]))
    assert drawn is not None
    return drawn


def test_sections_are_drawn_to_scale_and_gaps_are_not() -> None:
    drawn = the_map(
        [section(".init.text", 0xFFFF_8000_8180_0000, 1 << 18, 2), section(".text", 0xFFFF_8000_8000_0000, 3 << 18, 1)],
        [(1, 0xFFFF_8000_8000_0000, "ready")],
    )
    text, init = drawn.sections
    assert (text.name, text.x, text.width) == (".text", 0.0, 745.5)  # three quarters of all but the gap
    assert (init.name, init.x, init.width) == (".init.text", 751.5, 248.5)
    assert [tick.label for tick in drawn.ticks] == [
        "0xffff800080000000", "+128 KiB", "+256 KiB", "+384 KiB", "+512 KiB", "+640 KiB",
        "0xffff800081800000", "+128 KiB",
    ]  # fmt: skip


def test_neighbours_in_memory_have_no_gap() -> None:
    drawn = the_map([section(".a", 0x1000, 0x1000, 1), section(".b", 0x2000, 0x1000, 2)], [(1, 0x1000, "ready")])
    assert [(one.x, one.width) for one in drawn.sections] == [(0.0, 500.0), (500.0, 500.0)]


def test_a_section_of_few_bytes_is_seen() -> None:
    drawn = the_map([section(".text", 0x1000, 1 << 24, 1), section(".tiny", 0x1000 + (1 << 24), 4, 2)],
                    [(2, 0x1000 + (1 << 24), "ready")])  # fmt: skip
    assert drawn.sections[1].width >= 0.99
    assert (drawn.lanes[0].cells[0].x, drawn.lanes[0].cells[0].width) == (drawn.sections[1].x, drawn.sections[1].width)


def test_cells_count_each_site_once_at_its_place() -> None:
    sites = [(1, 0x1000 + 16 * n, "ready" if n % 10 else "enabled") for n in range(1000)]
    drawn = the_map([section(".text", 0x1000, 16_000)], [*sites, (1, 0x0FFF, "ready"), (9, 0x1000, "ready")])
    assert [(lane.state, lane.n) for lane in drawn.lanes] == [("ready", 900), ("enabled", 100)]
    assert drawn.left_out == "2 sites outside of these"
    for lane in drawn.lanes:
        assert sum(cell.n for cell in lane.cells) == lane.n
        for cell in lane.cells:
            low, high = int(cell.address_from, 16), int(cell.address_to, 16)
            inside = [row for row, (_, va, state) in enumerate(sites) if low <= va < high and state == lane.state]
            assert (len(inside), inside[0]) == (cell.n, cell.first)
            assert abs(cell.x - (low - 0x1000) / 16) < 0.01 and 1 <= cell.level <= 4
    assert drawn.lanes[1].y > drawn.lanes[0].y + drawn.lanes[0].height and drawn.height >= drawn.lanes[1].y + 16


def test_a_relocatable_file_is_drawn_section_by_section() -> None:
    drawn = the_map([section(".text", None, 64, 1), section(".text", None, 64, 3)], [(3, 8, "ready"), (1, 8, "half")])
    assert drawn.relocatable and [one.shndx for one in drawn.sections] == [1, 3]
    assert [(lane.state, lane.cells[0].shndx, lane.cells[0].first) for lane in drawn.lanes] == [
        ("half", 1, 1), ("ready", 3, 0),
    ]  # fmt: skip


def test_sections_beyond_count_are_named_as_left_out() -> None:
    many = [section(f".text.{n}", None, 16, n) for n in range(500)]
    drawn = the_map(many, [(n, 0, "ready") for n in range(0, 500, 2)])
    assert len(drawn.sections) == 200 and all(one.n for one in drawn.sections)
    assert drawn.left_out == (
        "300 more sections, with 50 sites, are not drawn: the table has all; 50 sites outside of these"
    )
    assert drawn.sections[-1].x + drawn.sections[-1].width <= 1000.1


@pytest.mark.parametrize("top", [1 << 63, TOP - 15])
def test_addresses_at_the_end_of_memory_are_drawn(top: int) -> None:
    drawn = the_map([section(".text", top, 16)], [(1, top + 8, "ready")])
    assert drawn.lanes[0].n == 1


def test_sections_of_impossible_sizes_are_drawn_without_overflow() -> None:
    drawn = the_map([section(".a", 0x1000, TOP, 1), section(".b", 0x1000, TOP, 2)], [(1, 0x1000, "ready")])
    assert drawn.lanes[0].n == 1


def test_nothing_is_drawn_of_nothing() -> None:
    assert map_of([], placed([1], [0], ["ready"])) is None
    assert map_of([section(".text", 0, 16)], placed([None], [None], ["null"])) is None


def reach(**given: Any) -> ReachObject:
    usual = {
        "target": "ftrace_caller", "max_distance": 300, "limit": 256, "beyond": 1, "trampolines": {"tramp": 2},
        "headroom": -44, "target_address": "0x1000", "backward": -256, "calls_from": "sites",
        "distances": {"low": -256, "step": 128, "counts": [3, 4, 0, 0, 1], "beyond": [0, 0, 0, 0, 1]},
    }  # fmt: skip
    return cast("ReachObject", {**usual, **given})


def test_distances_have_the_limits_of_a_call_drawn_in() -> None:
    drawn = of_reach(reach(), "distance")
    assert drawn is not None and drawn.column == "distance"
    assert [(bar.state, bar.low, bar.high, bar.n) for bar in drawn.bars] == [
        ("ready", -256, -128, 3), ("ready", -128, 0, 4), ("far", 256, 384, 1),
    ]  # fmt: skip
    left, right = drawn.limits
    assert not left.outside and left.x == drawn.bars[0].x and right.x == drawn.bars[2].x
    assert (drawn.bars[1].y, drawn.bars[1].height, drawn.bars[0].height) == (0.0, 160.0, 120.0)
    assert drawn.text == "sites are at most 0.0 MiB from ftrace_caller; 1 beyond its reach; tramp: 2 beyond"


def test_a_limit_that_is_far_away_stands_at_the_edge() -> None:
    drawn = of_reach(reach(limit=1 << 31, backward=-(1 << 31)), "distance")
    assert drawn is not None and [(limit.x, limit.outside) for limit in drawn.limits] == [(0.0, True), (1000.0, True)]


def test_distances_of_stubs_are_no_filter_of_sites() -> None:
    drawn = of_reach(reach(calls_from="stubs"), "distance")
    assert drawn is not None and drawn.column == "" and drawn.text.startswith("calls of stubs are at most")


def test_calls_of_a_run_are_counted_by_what_they_go_through() -> None:
    drawn = of_sites([100, -100, 5000, None], ["call", "call", "via-stub", "dropped"], None)
    assert drawn is not None and sum(bar.n for bar in drawn.bars) == 3 and not drawn.limits
    assert {bar.state for bar in drawn.bars} == {"call", "via-stub"}
    assert of_sites([None], ["dropped"], None) is None


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=40))
def test_every_distance_is_in_one_bar(values: list[int]) -> None:
    drawn = of_sites(list(values), ["call"] * len(values), None)
    assert drawn is not None and len(drawn.bars) <= 70
    for bar in drawn.bars:
        assert sum(bar.low <= value < bar.high for value in values) == bar.n
        assert 0 <= bar.x <= 1000 and bar.y >= 0 and bar.y + bar.height <= 160.1
    assert sum(bar.n for bar in drawn.bars) == len(values)


# -- whole pages -------------------------------------------------------------------------------------------------------

STATIC = MINI.parent / "x86_64" / "vmlinux-static"


def facts(page: Page, view: int = 0) -> dict[str, list[str]]:
    """What the summary says, by key; keys that come twice together."""
    said: dict[str, list[str]] = {}
    (summary,) = page.xpath(f"//*[@id='summary-{view}']")
    key = ""
    for element in summary.iter("dt", "dd"):
        if element.tag == "dt":
            key = element.text_content().strip()
        else:
            said.setdefault(key, []).extend(text.strip() for text in element.itertext() if text.strip())
    return said


def test_the_summary_says_what_text_says(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", str(MINI / "vmlinux-pfe2")]) == 0
    lines = capfd.readouterr().out.splitlines()[1:]
    page, _ = page_and_json(["scan", str(MINI / "vmlinux-pfe2")], capfd)
    said = facts(page)
    of_file = [text for key, texts in said.items() if key not in ("file", "build-id", "sha256") for text in texts]
    assert [line[13:] for line in lines] == of_file
    assert said["records"] == ["19 slots, 0 null, 19 live"]


def test_a_page_without_script_says_where_the_table_is(capfd: pytest.CaptureFixture[str]) -> None:
    page, _ = page_and_json(["scan", str(MINI / "vmlinux-pfe2")], capfd)
    assert page.xpath("//noscript") and page.xpath("//div[@id='table-0-sites']")
    assert page.xpath("//title")[0].text == f"ftpatch scan: {MINI / 'vmlinux-pfe2'}"
    assert page.xpath("/html/@lang") == ["en"]


def test_nothing_is_loaded_and_only_the_pages_own_script_runs(capfd: pytest.CaptureFixture[str]) -> None:
    page, _ = page_and_json(["scan", str(MINI / "vmlinux-pfe2")], capfd)
    assert not page.xpath("//@src | //iframe | //object | //base | //@style | //form/@action")
    assert all(link.startswith(("#", "data:")) for link in page.xpath("//@href"))
    assert not [name for element in page.iter() for name in element.attrib if name.startswith("on")]
    (policy,) = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    for kind, name in (("script-src", "script[not(@type)]"), ("style-src", "style")):
        (element,) = page.xpath(f"//{name}")
        digest = base64.b64encode(hashlib.sha256((element.text or "").encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")


def test_findings_are_those_of_json_the_worst_in_full(capfd: pytest.CaptureFixture[str]) -> None:
    page, report = page_and_json(["check", str(MINI / "vmlinux-pfe2"), "--lines"], capfd)
    found, rows = report["images"][0]["findings"], table(page, "findings")
    assert [(row["rule"], row["severity"], row["message"], row["row"], row["count"]) for row in rows] == [
        (one["rule"], one["severity"], one["message"], one["row"], one["count"]) for one in found
    ]
    text = page.xpath("//*[@id='findings-0']")[0].text_content()
    assert all(" ".join(one["message"].split()) in " ".join(text.split()) for one in found)
    assert all(" ".join(one["help"].split()) in " ".join(text.split()) for one in found)
    # the page draws the sites, JSON has none without --sites
    assert len(table(page, "sites")) == 19 and report["images"][0]["sites"] == []
    assert "text_sections" not in report["images"][0]


def test_json_of_a_check_is_the_same_beside_a_page(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = [tmp_path / "a", tmp_path / "b"]
    assert run(["check", str(MINI / "vmlinux-pfe2"), "--report", f"json={written[0]}"]) == 0
    page = f"html={tmp_path / 'page'}"
    assert run(["check", str(MINI / "vmlinux-pfe2"), "--report", f"json={written[1]}", "--report", page]) == 0
    assert written[0].read_bytes() == written[1].read_bytes()


def pairs(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["owner"], row["pos"], row["old"], row["new"], row["concurrency"]) for row in rows]


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        (MINI / "vmlinux-callops", "nop; nop", "mov x9, x30; bl #0xffff800080000400 <ftrace_caller>"),
        (MINI.parent / "mini-ppc64le" / "vmlinux-pfe2", "nop; nop", "mflr r0; bl 0xc00000000000093c <ftrace_caller>"),
        (MINI.parent / "x86_64" / "vmlinux-fentry", "call 0xffffffff81000020",
         "call 0xffffffff81000030 <ftrace_caller>"),
    ],
    ids=["arm64", "ppc64le", "x86_64"],
)  # fmt: skip
def test_each_edit_is_there_with_its_code(
    file: Path, before: str, after: str, capfd: pytest.CaptureFixture[str]
) -> None:
    page, report = page_and_json(["enable", str(file), "--func", "vfs_read", "--dry-run"], capfd)
    rows, image = table(page, "edits"), report["images"][0]
    assert pairs(rows) == pairs(image["edits"])
    (of_site,) = [row for row in rows if row["owner"].startswith("site ")]
    (site,) = image["sites"]
    assert (of_site["before"], of_site["after"], of_site["row"]) == (before, after, site["row"])
    assert (hexed(of_site["address"]), of_site["section"]) == (site["site"], ".text")
    shown = page.xpath(f"//*[@id='edit-{of_site['n']}']")[0].text_content()
    assert all(part in shown for part in (*before.split("; "), *after.split("; ")))
    assert [row["state"] for row in table(page, "sites")] == ["call"]


def test_a_pointer_among_code_is_no_instruction(capfd: pytest.CaptureFixture[str]) -> None:
    page, _ = page_and_json(["enable", str(MINI / "vmlinux-callops"), "--func", "vfs_read", "--dry-run"], capfd)
    (row,) = [row for row in table(page, "edits") if row["owner"] == "literal row:12"]
    assert row["before"] == "nop; nop" and re.fullmatch(r"address 0x[0-9a-f]{16} <ftrace_list_ops>", row["after"])


def test_a_redirect_names_the_function_that_it_leads_to(capfd: pytest.CaptureFixture[str]) -> None:
    ask = ["redirect", str(MINI / "vmlinux-callops"), "--func", "vfs_read", "--to", "vfs_write", "--force-signature"]
    page, _ = page_and_json([*ask, "--dry-run"], capfd)
    assert table(page, "edits")[0]["after"] == "b #0xffff8000800008a0 <vfs_write>; nop"
    assert table(page, "sites")[0]["state"] == "redirected"


def test_a_call_that_a_loader_fills_in_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    page, report = page_and_json(["enable", str(MINI / "mini.ko"), "--func", "mini_step", "--dry-run"], capfd)
    rows = table(page, "edits")
    assert pairs(rows[:4]) == pairs(report["images"][0]["edits"][:4]) and len(rows) == len(report["images"][0]["edits"])
    (row,) = [row for row in rows if row["owner"] == "site row:0"]
    assert (row["after"], hexed(row["address"], 1)) == ("mov x9, x30; bl (the loader fills in where)", "0x8")


def test_a_stub_that_a_call_goes_through_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    program = MINI.parent / "programs" / "small" / "arm64-pie"
    page, report = page_and_json(["enable", str(program), "--func", "work", "--hook", "hook", "--dry-run"], capfd)
    (site,) = report["images"][0]["sites"]
    (row,) = [row for row in table(page, "edits") if row["owner"] == "site row:0"]
    stub = int(site["stub"], 16)
    assert row["after"] == f"mov x9, x30; bl #0x{stub:x} <stub>"
    assert [row["state"] for row in table(page, "sites")] == ["via-stub"]


@pytest.mark.parametrize(
    ("file", "func", "hook", "starts"),
    [
        (MINI / "mini.ko", "mini_step", "mini_work", "bti c; stp x29, x9, [sp, #-0x10]!; mov x29, sp; "),
        (MINI.parent / "programs" / "small" / "x86_64-pie", "work", "hook", "push qword ptr [rsp + 8]; push rbp; "),
    ],
    ids=["module", "program"],
)  # fmt: skip
def test_new_code_is_disassembled(
    file: Path, func: str, hook: str, starts: str, capfd: pytest.CaptureFixture[str]
) -> None:
    page, report = page_and_json(["enable", str(file), "--func", func, "--hook", hook, "--dry-run"], capfd)
    (section,) = report["images"][0]["new_text_sections"]
    (row,) = [row for row in table(page, "edits") if row["owner"] == f"section {section['shndx']} .text.ftpatch"]
    assert (row["section"], row["before"], row["old"]) == (".text.ftpatch", None, None)
    assert row["after"].startswith(starts) and row["address"] == int(section["address"] or "0", 16)
    edit = report["images"][0]["edits"][row["n"]]
    gap = section["pos"] - edit["pos"]
    assert gap >= 0 and len(edit["new"]) // 2 == gap + section["size"]


def test_static_calls_have_their_keys_calls_and_map(capfd: pytest.CaptureFixture[str]) -> None:
    page, report = page_and_json(["static-calls", str(STATIC), "--sites"], capfd)
    static = report["images"][0]["static_calls"]
    assert Counter((row["key"], row["function"], row["sites"]) for row in table(page, "keys")) == Counter(
        (one["key"], one["function"], one["sites"]) for one in static["entries"]
    )
    assert [(row["key"], hexed(row["address"], 1), row["kind"], row["code"]) for row in table(page, "calls")] == [
        (one["key"], one["address"], one["kind"], one["code"]) for one in static["calls"]
    ]
    assert facts(page)["sites"] == ["5: call 4, tail 1"]


def test_a_static_call_that_is_set_is_an_edit_of_code(capfd: pytest.CaptureFixture[str]) -> None:
    page, report = page_and_json(["static-calls", str(STATIC), "--set", "reader=NULL", "--dry-run"], capfd)
    assert pairs(table(page, "edits")) == pairs(report["images"][0]["edits"])
    assert [row["key"] for row in table(page, "set_calls")] == ["reader"]
    code = [row for row in table(page, "edits") if row["section"]]
    assert code and all(row["before"] and row["after"] for row in code)


def test_a_comparison_names_both_files_and_each_change(capfd: pytest.CaptureFixture[str]) -> None:
    old, new = MINI / "vmlinux-pfe2", MINI / "vmlinux-callops"
    page, report = page_and_json(["diff", str(old), str(new)], capfd, 1)
    assert page.xpath("//title")[0].text == f"ftpatch diff: {old} → {new}"
    assert len(table(page, "findings")) == len(report["images"][0]["findings"]) == 9
    assert facts(page)["before"] == [f"{old}, build-id {report['images'][0]['compared']['build_id']}"]


def test_a_tree_has_a_row_for_each_module_and_its_sites_if_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    for name in ("one.ko", "two.ko"):
        (tmp_path / name).write_bytes((MINI / "mini.ko").read_bytes())
    (tmp_path / "bad.ko").write_bytes(b"no ELF")
    page, report = page_and_json(["scan", str(tmp_path)], capfd, 3)
    rows = table(page, "modules")
    assert [(row["module"], row["live"]) for row in rows] == [("one.ko", 6), ("two.ko", 6), ("bad.ko", None)]
    assert rows[2]["error"] == report["errors"][0]["message"]
    assert report["errors"][0]["message"] in page.text_content()
    assert [one["name"] for one in payload(page)["views"][0]["tables"]] == ["modules"]
    page, report = page_and_json(["scan", str(tmp_path), "--sites"], capfd, 3)
    sites = [(image["file"].rpartition("/")[2], site["function"], site["site"])
             for image in report["images"] for site in image["sites"]]  # fmt: skip
    assert [(row["module"], row["function"], hexed(row["address"])) for row in table(page, "sites")] == sites


def test_findings_of_a_tree_name_their_modules(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = Elf("mini.ko")
    broken.poke(".text", 8, b"\0\0\0\0")
    (tmp_path / "a.ko").write_bytes(broken.raw)
    (tmp_path / "b.ko").write_bytes((MINI / "mini.ko").read_bytes())
    page, report = page_and_json(["check", str(tmp_path)], capfd, 1)
    found = [one for image in report["images"] for one in image["findings"]]
    assert found and {row["module"] for row in table(page, "findings")} == {"a.ko"}
    assert [row["findings"] for row in table(page, "modules")] == [len(found), 0]


def test_several_files_are_several_views(capfd: pytest.CaptureFixture[str]) -> None:
    page, _ = page_and_json(["scan", str(MINI / "vmlinux-pfe2"), str(MINI / "mini.ko")], capfd)
    assert [one["file"] for one in payload(page)["views"]] == [str(MINI / "vmlinux-pfe2"), str(MINI / "mini.ko")]
    assert (len(table(page, "sites", 0)), len(table(page, "sites", 1))) == (19, 6)
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("file", [MINI / "vmlinux-callops", MINI.parent / "mini-ppc64le" / "vmlinux-far"])
def test_a_bar_of_distances_is_a_filter_of_the_table(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page, _ = page_and_json(["scan", str(file)], capfd)
    require_bars_of(table(page, "sites"), page)


def test_sites_of_earlier_patches_are_told_apart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    once, twice = str(tmp_path / "once"), str(tmp_path / "twice")
    ask = ["redirect", str(MINI / "vmlinux-callops"), "--func", "vfs_read", "--to", "vfs_write", "--force-signature"]
    assert run([*ask, "-o", once]) == 0 and run(["enable", once, "--func", "vfs_write", "-o", twice]) == 0
    page, _ = page_and_json(["scan", twice], capfd)
    rows = table(page, "sites")
    named = {row["function"]: row for row in rows}
    states = [named[name]["state"] for name in ("vfs_read", "vfs_write", "start_kernel")]
    assert states == ["redirected", "enabled", "ready"]
    redirected = named["vfs_read"]
    assert (redirected["target"], redirected["row"], redirected["distance"]) == ("vfs_write", None, None)
    require_bars_of(rows, page)
    page, _ = page_and_json(["verify", str(MINI / "vmlinux-callops"), twice], capfd)
    assert page.xpath("//title")[0].text == f"ftpatch verify: {MINI / 'vmlinux-callops'} → {twice}"


def test_a_comparison_without_a_difference_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    page, _ = page_and_json(["diff", str(MINI / "mini.ko"), str(MINI / "mini.ko")], capfd)
    assert "no difference for tracing" in page.text_content()


OTHERS = [
    ["explain", "vfs_read", "K"], ["symbols", "M"], ["scan", "K", "--units"], ["scan", "K", "--func", "vfs_*"],
    ["drop", "K", "--func", "vfs_read", "--dry-run"], ["verify", "K", "K"], ["check", "M", "--predict"],
    ["check", "K", "--predict"], ["static-calls", "M"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", OTHERS, ids=lambda arguments: "-".join(arguments[:2]))
def test_every_verb_has_a_page(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    files = {"K": str(MINI / "vmlinux-callops"), "M": str(MINI / "mini.ko")}
    arguments = [files.get(word, word) for word in arguments]
    page, report = page_and_json(arguments, capfd)
    image = report["images"][0]
    for name in ("sites", "findings", "edits", "symbols"):
        n = len(image.get(name, [])) if arguments[0] != "check" or name != "sites" else image["summary"]["slots"]
        assert n == 0 or len(table(page, name)) == n
    assert files["K"] in page.text_content() or files["M"] in page.text_content()


# -- names that mean harm ----------------------------------------------------------------------------------------------

HARM = [
    "</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'--><svg/onload=alert(1)>",
    "{{ 7*7 }}{% x %}", "&lt;b&gt;&#60;", "javascript:alert(1)", "\u202e\u2066\u200b\x1b[31m\r\n\x01x", "<!--", "]]>",
    "</style><style>*{display:none}", "\\u003cscript>", "n" * 100_000, "=cmd()",
]  # fmt: skip
ROLES = ["vfs_read", "vfs_write", "sys_getppid"]


def skeleton(page: Page) -> list[tuple[str, tuple[str, ...]]]:
    """Elements and the names of their attributes, in order: what names of a file must never change."""
    return [(element.tag, tuple(sorted(element.attrib))) for element in page.iter() if isinstance(element.tag, str)]


def hostile(path: Path, *, function: str, section: str) -> Path:
    kernel = Elf("vmlinux-pfe2").rename(".strtab", {name: f"{function}{n}" for n, name in enumerate(ROLES)})
    path.write_bytes(kernel.rename(".shstrtab", {".init.text": section}).raw)
    return path


@pytest.mark.parametrize("verb", [["scan"], ["check"], ["enable", "--func", "row:17", "--dry-run"]], ids=lambda v: v[0])
def test_no_name_changes_what_the_page_is_made_of(
    verb: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    plain, _ = page_and_json([verb[0], str(hostile(tmp_path / "k", function="f", section=".s")), *verb[1:]], capfd)
    for harm in HARM:
        page, report = page_and_json(
            [verb[0], str(hostile(tmp_path / "k", function=harm, section=harm)), *verb[1:]], capfd
        )
        assert skeleton(page) == skeleton(plain), harm[:20]
        names = {row["function"] for row in table(page, "sites")}
        wanted = {site["function"] for site in report["images"][0]["sites"]}  # none of a check
        assert {printable(name)[:2000] for name in wanted if name} <= {(name or "")[:2000] for name in names}
        assert len(str(payload(page))) < 2_000_000


def test_a_hostile_path_is_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "<b>&amp;\u202e\udcff"
    folder.mkdir()
    path = hostile(folder / '"onload=x', function="f", section=".s")
    page, _ = page_and_json(["scan", str(path)], capfd)
    assert page.xpath("//title")[0].text == f"ftpatch scan: {printable(str(path))}"
    assert payload(page)["views"][0]["file"] == printable(str(path)) and not page.xpath("//b[contains(., 'amp')]")


def test_equal_files_have_equal_pages(tmp_path: Path) -> None:
    pages = []
    for name in ("a", "b"):
        assert run(["check", str(MINI / "vmlinux-pfe2"), "--report", f"html={tmp_path / name}"]) == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


# -- kernels of Debian -------------------------------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["arm64-6.12", "x86_64-6.12", "ppc64le-6.12"])
def test_the_page_of_a_real_kernel_is_small_and_its_sums_are_those_of_json(
    name: str, kernel: Callable[[str], kernels.Kernel], capfd: pytest.CaptureFixture[str]
) -> None:
    page, report = page_and_json(["scan", str(kernel(name).vmlinux)], capfd)
    image = report["images"][0]
    rows, sites, summary = table(page, "sites"), image["sites"], image["summary"]
    assert len(html.tostring(page)) < 4_000_000 < len(str(image))
    assert [(row["function"], hexed(row["address"])) for row in rows] == [
        (site["function"], site["site"]) for site in sites
    ]
    by_status = Counter(row["status"] for row in rows)
    assert by_status == {**summary["by_status"], **({"null": summary["null"]} if summary["null"] else {})}
    assert sum(summary["reach"]["distances"]["counts"]) == summary["live"]
    assert sum(row["state"] == "far" for row in rows) == summary["reach"]["beyond"]
    furthest = max(abs(row["distance"]) for row in rows if row["distance"] is not None)
    assert furthest == summary["reach"]["max_distance"]
    require_bars_of(rows, page)


def require_bars_of(rows: list[dict[str, Any]], page: Page) -> None:
    """Each bar over the table's distances has as many rows as it says."""
    bars = page.xpath("//*[@id='distances-0']//*[local-name()='rect'][@data-low]")
    assert bars
    for bar in bars:
        low, high = int(bar.get("data-low")), int(bar.get("data-high"))
        far = "state-far" in bar.get("class")
        inside = [row for row in rows if row["distance"] is not None and low <= row["distance"] < high]
        assert sum((row["state"] == "far") == far for row in inside) == int(bar.get("data-n"))
