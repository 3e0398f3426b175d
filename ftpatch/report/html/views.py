"""What stands on the page: a view of each file that was named alone, and one of each tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch.report import Document
from ftpatch.report.html import address_map, distances, edits, facts, findings, more_tables, sites, tables
from ftpatch.report.html.columns import Encoded, number
from ftpatch.report.results import clean
from ftpatch.report.text.lines import below
from ftpatch.report.text.lines import number as number_of

if TYPE_CHECKING:
    from ftpatch.document.static_calls import StaticCallRow
    from ftpatch.document.types import ImageObject, TreeObject

STATIC_STATES = {"call": "sc-call", "tail": "sc-tail", "conditional": "sc-conditional"}  # lanes of static calls


@dataclass(frozen=True)
class StateCount:
    """How many sites of one state the view has, and how many of them the map shows."""

    state: str
    n: int
    in_map: int


@dataclass(frozen=True)
class TableView:
    """The place of a table, and what is said of it where no script runs."""

    name: str
    title: str
    n: int
    truncated: int
    text: str


@dataclass(frozen=True)
class View:
    index: int
    kind: str  # image or tree
    file: str
    facts: tuple[facts.Fact, ...]
    notes: tuple[str, ...]  # what is left out of the page, and how to get it
    tables: tuple[TableView, ...]
    payload: Encoded  # the tables, for the script
    states: tuple[StateCount, ...] = ()
    map: address_map.Map | None = None
    distances: tuple[distances.Distances, ...] = ()
    findings: findings.Findings | None = None
    edits: edits.Edits | None = None
    report: str = ""  # what is told in paragraphs, as text has it


def views_of(document: Document) -> tuple[View, ...]:
    """All views, in the order of the text report."""
    made = [_file(image, document, i) for i, image in enumerate(document.alone())]
    # a comparison of trees has no sums
    tops = [tree["tree"] for tree in document.trees] + [image["tree"] for image in document.images if "tree" in image]
    for top in dict.fromkeys(tops):
        made.append(_tree(top, document, len(made)))
    return tuple(made)


def _file(image: ImageObject, document: Document, index: int) -> View:
    """The view of one file."""
    shown: list[tables.Table] = []
    drawn = _drawn(image, shown)
    shown += more_tables.tables_of(image)
    found = findings.findings_of([image], [""], index)
    if found and found[1]:
        shown.insert(0 if document.kind.table == "findings" and not image.get("sites") else len(shown), found[1])
    changes = edits.edits_of(image)
    if changes:
        shown.append(changes[1])
    return View(
        index, "image", clean(image["file"]), facts.facts_of(image, document), _notes(image, document), _places(shown),
        _payload(image["file"], "image", shown), drawn.states, drawn.map, drawn.distances, found[0] if found else None,
        changes[0] if changes else None,
    )  # fmt: skip


def _tree(top: str, document: Document, index: int) -> View:
    """The view of the modules of one tree."""
    images, errors = document.of_tree(top)
    names = [clean(below(top, image["file"])) for image in images]
    shown = [more_tables.modules_table(images, names, [(clean(below(top, row["file"])), row) for row in errors])]
    found = findings.findings_of(images, names, index)
    if found and found[1]:
        shown.append(found[1])
    all_sites = sites.sites_of_tree(images, names) if document.show_sites else None
    notes = (
        ["the sites of its modules are not here: --sites or a selector adds them"] if images and not all_sites else []
    )
    if all_sites:
        shown.append(all_sites)
    totals: list[TreeObject] = [tree for tree in document.trees if tree["tree"] == top]
    told = facts.facts_of_tree(totals[0], document) if totals else ()
    counts = totals[0]["totals"]["by_status"] if totals else {}
    states = tuple(StateCount(clean(name), n, 0) for name, n in counts.items())
    return View(
        index, "tree", clean(top), told, tuple(notes if not document.kind.checks else ()), _places(shown),
        _payload(top, "tree", shown), states, findings=found[0] if found else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """The drawings of one file."""

    states: tuple[StateCount, ...] = ()
    map: address_map.Map | None = None
    distances: tuple[distances.Distances, ...] = ()


def _drawn(image: ImageObject, shown: list[tables.Table]) -> Drawn:
    """The drawings of a file with sites, or with static calls; the table of sites goes to `shown`."""
    rows = list(image.get("sites", ()))[: tables.MOST]
    reach = image["summary"]["reach"] if "summary" in image else None
    if not rows:
        static = image.get("static_calls")
        picture = _map_of_calls(image, static["calls"]) if static and static.get("calls") else None
        return Drawn((), picture, _reaches(image))
    places = sites.places_of(rows, reach)
    left_out = len(image["sites"]) - len(rows)
    shown.append(sites.site_table("Sites", rows, places, left_out))
    where = address_map.placed([row["shndx"] for row in rows], places.address, places.state)
    picture = address_map.map_of(image.get("text_sections", []), where)
    in_map = {lane.state: lane.n for lane in picture.lanes} if picture else {}
    counts = Counter(places.state).most_common()
    changed = any("distance" in row for row in rows)
    of_run = distances.of_sites(places.distance, places.state, reach) if changed else None
    of_all = distances.of_reach(reach, "" if changed else "distance") if reach else None
    return Drawn(
        tuple(StateCount(clean(state), n, in_map.get(state, 0)) for state, n in counts), picture,
        tuple(drawn for drawn in (of_run, of_all) if drawn is not None),
    )  # fmt: skip


def _reaches(image: ImageObject) -> tuple[distances.Distances, ...]:
    """The distances of a file, and those of the one that it was compared with."""
    reach, other = image["summary"]["reach"] if "summary" in image else None, image.get("compared")
    now = distances.of_reach(reach, "") if reach else None
    before = other["summary"]["reach"] if other else None
    was = distances.of_reach(before, "", ", before") if before else None
    return tuple(drawn for drawn in (now, was) if drawn is not None)


def _map_of_calls(image: ImageObject, calls: Sequence[StaticCallRow]) -> address_map.Map | None:
    """The map of static calls."""
    sections = image.get("text_sections", [])
    numbers = Counter(row["section"] for row in sections)
    sure = {
        row["section"]: row["shndx"] for row in sections if numbers[row["section"]] == 1
    }  # of several it may be any
    where = address_map.placed(
        [sure.get(row["section"] or "") for row in calls], [number(row["address"]) for row in calls],
        [STATIC_STATES.get(row["kind"], "sc-other") for row in calls],
    )  # fmt: skip
    return address_map.map_of(sections, where, "call")


def _notes(image: ImageObject, document: Document) -> tuple[str, ...]:
    """What is not on the page, and how to get it."""
    notes = []
    if document.selected and "sites" in image and image.get("sites"):
        notes.append(f"{len(image['sites'])} of {image['summary']['slots']} slots were chosen; figures are of all")
    static = image.get("static_calls")
    if static and static["sites"] and "calls" not in static and "set_calls" not in image:
        notes.append("the calls are not listed one by one: --sites adds them")
    return tuple(notes)


def _places(shown: Sequence[tables.Table]) -> tuple[TableView, ...]:
    return tuple(
        TableView(table.name, table.title, table.n, table.left_out, number_of(table.n, "row")
                  + (f", {table.left_out} more have no room here: --format csv has all" if table.left_out else ""))
        for table in shown
    )  # fmt: skip


def _payload(file: str, kind: str, shown: Sequence[tables.Table]) -> Encoded:
    return {"file": clean(file), "kind": kind, "tables": [table.payload() for table in shown]}
