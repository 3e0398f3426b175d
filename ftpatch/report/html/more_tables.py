"""The tables of what is no site: static calls, symbols, new records, units, the modules of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from ftpatch.report.html.tables import Field, Row, Table, table_of

if TYPE_CHECKING:
    from ftpatch.document.static_calls import StaticKeyRow
    from ftpatch.document.types import ErrorRow, ImageObject

KEYS = (
    Field("key", "Key"), Field("function", "Function"), Field("sites", "Sites", "int"),
    Field("cross_line", "Cross-line", "int"), Field("trampoline_kind", "Trampoline does", "enum", filter=True),
    Field("trampoline", "Trampoline", hidden=True), Field("leads_to", "Leads to"),
    Field("address", "Address", "hex"), Field("trampoline_address", "Trampoline at", "hex", hidden=True),
    Field("exported", "Exported", "enum", filter=True), Field("sections", "Sections", "enum"),
    Field("found_in", "In file", "enum", filter=True), Field("usable", "Usable", "enum", filter=True),
    Field("defined", "Defined here", "enum", filter=True), Field("in_module", "Of this module", "enum", hidden=True),
    Field("tramp_key", "By trampoline", "enum", hidden=True), Field("updated_by", "Set by"),
    Field("pointed_to_by", "Pointed to by", hidden=True),
)  # fmt: skip
CALLS = (
    Field("function", "In function"), Field("key", "Key"), Field("section", "Section", "enum", filter=True),
    Field("address", "Address", "hex"), Field("kind", "Kind", "enum", filter=True), Field("destination", "Destination"),
    Field("crosses_line", "Crosses a line", "enum", filter=True),
    Field("concurrency", "Live change", "enum", filter=True),
    Field("tail", "Flagged tail", "enum", hidden=True), Field("init", "Init text", "enum", filter=True),
    Field("code", "Code", "words"),
)  # fmt: skip
SET_CALLS = (
    Field("key", "Key"), Field("was", "Was"), Field("to", "Is now"), Field("to_va", "Address", "hex"),
    Field("sites", "Sites", "int"), Field("signature", "Type", "enum"), Field("left", "Left because"),
)  # fmt: skip
RECORDED = (
    Field("function", "Function"), Field("section", "Section", "enum", filter=True),
    Field("shndx", "Section number", "int", hidden=True), Field("offset", "Offset", "hex"),
)  # fmt: skip
LEFT = (Field("function", "Function"), Field("reason", "Reason", "enum", filter=True))
SYMBOLS = (
    Field("name", "Function"), Field("type", "Type", "enum", filter=True), Field("address", "Address", "hex"),
    Field("size", "Size", "int"),
)  # fmt: skip
UNITS = (
    Field("name", "Unit"), Field("functions", "Functions", "int"), Field("sites", "Sites", "int"),
    Field("gives_sites", "Gives sites", "enum", filter=True), Field("producer", "Compiler", "enum", filter=True),
    Field("language", "Language", "enum", filter=True), Field("switches", "Switches", "enum"),
    Field("directory", "Directory", "enum", hidden=True),
)  # fmt: skip
MODULES = (
    Field("module", "Module"), Field("arch", "Machine", "enum", filter=True),
    Field("kind", "Kind", "enum", filter=True), Field("layout", "Layout", "enum", filter=True),
    Field("live", "Live", "int"), Field("null", "Null", "int"), Field("slots", "Slots", "int"),
    Field("by_status", "Status", "enum"), Field("by_section", "Sections", "enum"),
    Field("redirected", "Redirected", "int"), Field("findings", "Findings", "int"),
    Field("build_id", "Build-id", hidden=True), Field("error", "Bad file"),
)  # fmt: skip


def tables_of(image: ImageObject) -> Iterator[Table]:
    """The tables of one file, besides its sites, edits and findings; empty ones are left out."""
    parts: list[tuple[str, str, Sequence[Field], Sequence[object]]] = []
    if set_calls := image.get("set_calls"):
        parts.append(("set_calls", "Static calls that were set", SET_CALLS, set_calls))
    if static := image.get("static_calls"):
        parts.append(("keys", "Keys of static calls", KEYS, _key_rows(static["entries"])))
        parts.append(("calls", "Calls", CALLS, static.get("calls", [])))
    if recorded := image.get("recorded"):
        parts.append(("recorded", "New records", RECORDED, recorded["functions"]))
        parts.append(("left", "Functions that stay without", LEFT, recorded["left"]))
    if symbols := image.get("symbols"):
        parts.append(("symbols", "Symbols", SYMBOLS, symbols))
    if units := image.get("units"):
        parts.append(("units", "What the compiler was told", UNITS, units["units"]))
    for name, title, fields, rows in parts:
        if rows:
            yield table_of(name, title, fields, cast("Sequence[Row]", rows))


def _key_rows(entries: Sequence[StaticKeyRow]) -> list[Row]:
    """Keys, those with the most sites first; who sets them, by name."""
    rows: list[Row] = []
    for entry in sorted(entries, key=lambda entry: -entry["sites"]):
        by = [f"{update['function']}{' (init)' if update['init'] else ''}" for update in entry["updated_by"] or ()]
        rows.append({**entry, "updated_by": by})
    return rows


def modules_table(images: Sequence[ImageObject], names: Sequence[str], errors: Sequence[tuple[str, ErrorRow]]) -> Table:
    """The modules of a tree, and its files that cannot be read."""
    rows: list[Row] = []
    for image, name in zip(images, names, strict=True):
        summary = image["summary"]
        rows.append({
            "module": name, "arch": image["arch"], "kind": image["kind"], "layout": image["layout"],
            "live": summary["live"], "null": summary["null"], "slots": summary["slots"],
            "by_status": summary["by_status"], "by_section": summary["by_section"], "build_id": image["build_id"],
            "redirected": sum(row["sites"] for row in summary.get("redirected", ())) or None,
            "findings": sum(row["count"] for row in image["findings"]) if "findings" in image else None,
        })  # fmt: skip
    rows += [{"module": name, "error": error["message"]} for name, error in errors]
    return table_of("modules", "Modules", MODULES, rows)
