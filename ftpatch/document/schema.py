"""The JSON Schema of the reports, made from their types and from the registers of machines and states.

`python -m ftpatch.document.schema` writes the one that is shipped, `ftpatch/report/schema.json`.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from ftpatch.arch import Arch, architectures
from ftpatch.document.fields import Pattern, PatternRegister, Range, Register, Values
from ftpatch.document.types import RecordedFile, Report, RestoredObject, StaticCallsFile, SymbolsFile
from ftpatch.sites.table import STATUSES

PATH = Path(__file__).parent.parent / "report" / "schema.json"
TITLE = "ftpatch report, schema 1"
DESCRIPTION = (
    "What every command prints with --format json. Addresses, offsets and words are 0x strings, counts and file "
    "positions integers. Fields are only ever added. A scan of a tree has one image per module; their sites are empty "
    "unless --sites or a selector was given."
)
SIMPLE = {str: "string", int: "integer", bool: "boolean", type(None): "null"}

Schema = dict[str, Any]  # JSON Schema is no shape that Python's types can say


def registers(machines: Sequence[Arch]) -> dict[str, list[str]]:
    """The names that a `Register` field may hold, and the forms of a `PatternRegister` field."""
    layouts = [shape.name for arch in machines for shape in (*arch.shapes, *arch.fronts)]
    return {
        "arch": [arch.name for arch in machines],
        "layout": [*dict.fromkeys(layouts), "none"],
        "status": list(STATUSES),
        "word": list(dict.fromkeys(_word(arch.unit) for arch in machines)),
    }


def _word(unit: int) -> str:
    """The form of code: an instruction word as a number; where instructions are no words, bytes as they lie."""
    return f"^0x[0-9a-f]{{{2 * unit}}}$" if unit > 1 else "^0x([0-9a-f]{2})+$"


def schema(machines: Sequence[Arch] | None = None) -> Schema:
    """The schema of a program that knows these machines: by default, all that are registered."""
    maker = _Maker(registers(architectures() if machines is None else machines))
    report = maker.of_object(Report)
    restored = {"properties": {"images": {"items": maker.of(RestoredObject)}}}
    usual = {"properties": {"images": {"items": report["properties"]["images"]["items"]}}}
    static = {"properties": {"images": {"items": {**maker.of(StaticCallsFile), "required": ["static_calls"]}}}}
    recorded = {"properties": {"images": {"items": {**maker.of(RecordedFile), "required": ["recorded"]}}}}
    listed = {"properties": {"images": {"items": {**maker.of(SymbolsFile), "required": ["symbols", "source"]}}}}
    special = {"static-calls": static, "record": recorded, "symbols": listed}
    for command, form in special.items():
        usual = {"if": {"properties": {"command": {"const": command}}}, "then": form, "else": usual}
    # Some commands have images of a form of their own, so which form is asked behind the command.
    report["properties"]["images"] = {"type": "array", "items": {"type": "object"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "description": DESCRIPTION,
        **report,
        "if": {"properties": {"command": {"const": "restore"}}},
        "then": restored,
        "else": usual,
        "$defs": dict(sorted(maker.defs.items())),
    }


class _Maker:
    """From types to schemas; each TypedDict becomes one definition."""

    def __init__(self, names: Mapping[str, list[str]]) -> None:
        self.names = names
        self.defs: dict[str, Schema] = {}

    def of(self, hint: Any) -> Schema:
        """The schema of one type."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.NotRequired:
            return self.of(arguments[0])
        if origin is Annotated:
            return self._limited(arguments[0], arguments[1:])
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.of(choice) for choice in arguments]}
        if origin in (list, Sequence):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if typing.is_typeddict(hint):
            name = hint.__name__
            if name not in self.defs:
                self.defs[name] = {}  # so that a type that holds itself ends
                self.defs[name] = self.of_object(hint)
            return {"$ref": f"#/$defs/{name}"}
        return {"type": SIMPLE[hint]}

    def of_object(self, hint: Any) -> Schema:
        """The schema of a TypedDict, in full."""
        fields = typing.get_type_hints(hint, include_extras=True)
        optional = set(hint.__optional_keys__)  # of types that are not total; NotRequired stands in the hint itself
        optional |= {name for name, field in fields.items() if typing.get_origin(field) is typing.NotRequired}
        made: Schema = {"type": "object", "required": [name for name in fields if name not in optional]}
        made["properties"] = {name: self.of(field) for name, field in fields.items()}
        return {"description": hint.__doc__, **made} if hint.__doc__ else made

    def _limited(self, hint: Any, limits: Sequence[object]) -> Schema:
        made = self.of(hint)
        for limit in limits:
            match limit:
                case Pattern(regex):
                    made = {**made, "pattern": regex}
                case Values(values):
                    made = {"enum": list(values)}
                case Register(name):
                    made = {"enum": self.names[name]}
                case PatternRegister(name):
                    made = {**made, "pattern": "|".join(self.names[name])}
                case Range(low, high):
                    keys = ("minItems", "maxItems") if made["type"] == "array" else ("minimum", "maximum")
                    made |= {key: n for key, n in zip(keys, (low, high), strict=True) if n is not None}
                case str(text):
                    made = {**made, "description": text}
        return made


def text() -> str:
    """The shipped file."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), "utf-8")
