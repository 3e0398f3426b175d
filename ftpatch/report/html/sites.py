"""The table of sites, and the state of each: what the address map and the table are coloured by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from ftpatch.report.html.columns import Column, number
from ftpatch.report.html.tables import MOST, Field, Row, Table, column_of
from ftpatch.report.results import clean

if TYPE_CHECKING:
    from ftpatch.document.site_rows import SiteRow
    from ftpatch.document.types import ImageObject, ReachObject

# what a writing verb made of a site, by its action; a site that is kept shows its status
STATE_OF_ACTION = {
    "call": "call", "call_via_stub": "via-stub", "restore": "restored", "drop": "dropped", "redirect": "redirected",
    "arm": "arm", "disarm": "disarm",
}  # fmt: skip
FAR = "far"  # an untouched or enabled site from which a call does not reach the tracer's entry

BEFORE = (
    Field("row", "Row", "int"), Field("function", "Function"), Field("aliases", "Other names", hidden=True),
    Field("section", "Section", "enum", filter=True), Field("shndx", "Section number", "int", hidden=True),
)  # fmt: skip
BETWEEN = (
    Field("offset", "Offset", "hex"), Field("pos", "File position", "int", hidden=True),
    Field("status", "Status", "enum", filter=True),
)  # fmt: skip
BEHIND = (
    Field("words", "Code", "words"), Field("listed_as", "Listed as"), Field("calls", "Calls"),
    Field("action", "Action", "enum", filter=True), Field("target", "Target", "enum"), Field("stub", "Through"),
    Field("new_words", "New code", "words"), Field("record_fate", "Its record", "enum", filter=True),
    Field("reason", "Reason", "enum"), Field("literal", "Ops pointer", "enum", hidden=True),
    Field("concurrency", "Live change", "enum", filter=True), Field("live", "Possible live", "enum", hidden=True),
    Field("sure", "Sure", "enum", hidden=True),
)  # fmt: skip
MODULE = Field("module", "Module", "enum", filter=True)


class SitePlaces(NamedTuple):
    """Where the sites of a table are, and how they are shown: a value for each row."""

    state: list[str]
    address: list[int | None]  # va in linked files, else the offset in the section
    distance: list[int | None]  # bytes from the call to where it goes, or of the recorded ones to the tracer's entry
    distance_title: str


def places_of(sites: Sequence[SiteRow], reach: ReachObject | None) -> SitePlaces:
    """The places and states of some sites. reach: of the file, which says where the tracer's entry is."""
    target = limits = None
    # of calls that stubs make, the distances are the stubs'
    if reach is not None and reach.get("calls_from") == "sites" and "target_address" in reach:
        target, limits = number(reach["target_address"]), (reach["backward"], reach["limit"])
    state, address, distance = list[str](), list[int | None](), list[int | None]()
    for site in sites:
        away = site.get("distance")
        counted = site["row"] is not None and site["branch"] is not None  # as the file's own figures have it
        if "distance" not in site and target is not None and counted:
            away = signed(target - int(site["branch"] or "0", 16))
        address.append(number(site["site"]))
        distance.append(away)
        name = STATE_OF_ACTION.get(site.get("action", ""), site["status"])
        reached = away is None or limits is None or limits[0] <= away <= limits[1]
        state.append(name if reached or name not in ("ready", "enabled") else FAR)
    changed = any("distance" in site for site in sites)
    title = f"To {reach['target']}" if reach is not None and not changed else "Distance"
    return SitePlaces(state, address, distance, clean(title))


def signed(difference: int) -> int:
    """A difference of two addresses, which wrap at 2^64."""
    return (difference + (1 << 63)) % (1 << 64) - (1 << 63)


def site_table(title: str, sites: Sequence[SiteRow], places: SitePlaces, left_out: int = 0) -> Table:
    """The table of these sites, with their places. left_out: how many more there are."""
    rows = cast("Sequence[Row]", sites)
    plain = all(state == site["status"] for state, site in zip(places.state, sites, strict=True))
    before, between, behind = (
        [column for field in fields if (column := column_of(field, rows)) is not None]
        for fields in (BEFORE, BETWEEN, BEHIND)
    )
    drawn = [
        Column("address", "Address", "hex", places.address),
        *between,
        Column("state", "State", "enum", places.state, not plain, hidden=plain),
        *behind[:1],
    ]
    if any(away is not None for away in places.distance):
        drawn.append(Column("distance", places.distance_title, "bytes", places.distance))
    return Table("sites", title, (*before, *drawn, *behind[1:]), len(sites), left_out)


def sites_of_tree(images: Sequence[ImageObject], names: Sequence[str]) -> Table | None:
    """The sites of all modules of a tree, as many as there is room for; None where the document has none."""
    sites: list[SiteRow] = []
    modules: list[object] = []
    total = sum(len(image["sites"]) for image in images)
    for image, name in zip(images, names, strict=True):
        if len(sites) >= MOST:
            break
        sites += list(image["sites"])[: MOST - len(sites)]
        modules += [name] * (len(sites) - len(modules))
    if not sites:
        return None
    table = site_table("Sites", sites, places_of(sites, None))
    module = Column(MODULE.key, MODULE.title, MODULE.kind, modules, MODULE.filter)
    return Table(table.name, table.title, (module, *table.columns), len(sites), total - len(sites))
