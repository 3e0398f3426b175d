"""The pages of JSON and CSV, from the types of the reports; and that of the layouts, from the machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ftpatch.arch import architectures, support_table
from ftpatch.document import schema
from ftpatch.document.site_rows import ScannedSite, SiteChange
from ftpatch.document.static_calls import SetCallRow, StaticCallRow, StaticKeyRow
from ftpatch.document.symbols import ListedSymbol
from ftpatch.document.types import FindingRow
from ftpatch.document.written import RecordedRow
from tools.reference.markdown import code, generated, sentence, table
from tools.reference.meanings import MEANINGS

Schema = Mapping[str, Any]  # JSON Schema is no shape that Python's types can say
FEW = 9  # values of an enumeration that are shown
TABLES: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("Sites", (ScannedSite,), "scan"),
    ("Sites of a patch", (ScannedSite, SiteChange), "enable, disable, drop, redirect, explain"),
    ("Findings", (FindingRow,), "check, verify, diff"),
    ("Keys of static calls", (StaticKeyRow,), "static-calls"),
    ("Sites of static calls", (StaticCallRow,), "static-calls with --sites"),
    ("Static calls that were set", (SetCallRow,), "static-calls with --set"),
    ("Records", (RecordedRow,), "record"),
    ("Symbols", (ListedSymbol,), "symbols"),
)


def json_page() -> str:
    """docs/reference/json.md."""
    whole = schema.schema()
    parts = [
        "`--format json`, `--report json=FILE` and journals are of one form, held by a JSON Schema that comes "
        "with the package "
        "(`ftpatch/report/schema.json`). Addresses, offsets and words are strings `0x…`; counts and positions "
        "in files are "
        "integers. Fields are only ever added; what is here keeps its meaning. A field marked *(optional)* is "
        "absent where it has "
        "nothing to say.\n",
        "## Report\n\nThe top of every report.\n",
        _fields("Report", whole),
    ]
    for name, made in whole["$defs"].items():
        parts.append(f"## {name}\n")
        if "description" in made:
            parts.append(f"{sentence(str(made['description']))}\n")
        parts.append(_fields(name, made))
    return generated("JSON", "\n".join(parts))


def _fields(name: str, made: Schema) -> str:
    rows = []
    for field, value in made["properties"].items():
        optional = "" if field in made.get("required", ()) else " *(optional)*"
        text = _forms(name, field) + sentence(meaning(name, field, value))
        rows.append((code(field) + optional, type_of(value), text))
    return table(("field", "type", "meaning"), rows)


IMAGES = ("ImageObject", "RestoredObject", "StaticCallsFile", "RecordedFile", "SymbolsFile")  # forms, by the command


def meaning(name: str, field: str, value: Schema) -> str:
    """What a field means; empty where nobody says it."""
    own = value.get("description") or next((part.get("description", "") for part in value.get("anyOf", ())
                                            if "description" in part), "")  # fmt: skip
    return str(own or MEANINGS.get(f"{name}.{field}") or MEANINGS.get(field, ""))


def _forms(name: str, field: str) -> str:
    """Links to the forms of an image, which the schema tells apart by the command."""
    links = ", ".join(type_of({"$ref": f"/{form}"}) for form in IMAGES)
    return f"{links}: " if (name, field) == ("Report", "images") else ""


def type_of(value: Schema, page: str = "") -> str:
    """The type of a value, as Markdown. page: the one that has the objects, where it is another."""
    if "$ref" in value:
        name = str(value["$ref"]).rpartition("/")[2]
        return f"[{name}]({page}#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(type_of(part, page) for part in value["anyOf"]))
    if "enum" in value:
        values = [str(choice) for choice in value["enum"] if choice is not None]
        shown = ", ".join(code(choice) for choice in values[:FEW])
        return shown + (", …" if values[FEW:] else "") + (" or null" if None in value["enum"] else "")
    kind = str(value.get("type", "any"))
    if kind == "array":
        return f"list of {type_of(value['items'], page)}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"object, by name: {type_of(inner, page)}" if inner else kind
    return f"{kind} `0x…`" if str(value.get("pattern", "")).startswith("^0x") else kind


def csv_page() -> str:
    """docs/reference/csv.md."""
    return generated("CSV", "\n".join(_csv()))


def _csv() -> Iterator[str]:
    yield (
        "`--format csv` has a header, then one line for each row of every file, the file first. Columns are the "
        "fields of the JSON "
        "report and mean the same ([JSON](json.md)); they are only appended. Lists are joined by spaces, null "
        "is empty. A cell that a "
        "spreadsheet would take for a formula has an apostrophe in front. A scan of a file with redirected "
        "functions has "
        "`action` and `target`, too.\n"
    )
    defs = schema.schema()["$defs"]
    for title, rows, verbs in TABLES:
        yield f"## {title}\n\nOf {verbs}.\n"
        columns = [column for row in rows for column in row.__annotations__]
        of = next(
            name
            for name, made in defs.items()
            if columns[-1] in made["properties"] and columns[0] in made["properties"]
        )
        known = defs[of]["properties"]
        cells = [("`file`", "string", "name of the file, as it was given")]
        for column in columns:
            value = known.get(column, {})
            cells.append((code(column), type_of(value, "json.md"), sentence(meaning(of, column, value))))
        yield table(("column", "type", "meaning"), cells)


def layouts_page() -> str:
    """docs/reference/layouts.md."""
    parts = [
        "A layout is how a compiler makes patch sites. It is decided once for a file, by the words and symbols "
        "of all its records; "
        "`--layout NAME` forces one. A machine that is not in the table is refused with exit code 4.\n",
        "\n".join(support_table()) + "\n",
        "## NOPs in front of the entry\n\nOf `-fpatchable-function-entry=N,M`; told by how far a record lies in "
        "front of its function.\n",
        table(("machine", "layout", ""), [(arch.name, code(shape.name), sentence(shape.text))
                                          for arch in architectures() for shape in arch.fronts]),
        "## Refused layouts\n",
        table(("machine", "layout", "why"), [(arch.name, code(shape.name), sentence(shape.refusal))
                                             for arch in architectures() for shape in arch.shapes if shape.refusal]),
    ]  # fmt: skip
    return generated("Layouts", "\n".join(parts))
