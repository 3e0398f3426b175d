"""Tables that the page's script shows: searched, sorted and filtered by people, a row made only while it is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ftpatch.report.html.columns import Column, Encoded, number

MOST = 250_000  # rows of one table: more would make a page that no browser opens with pleasure

Row = Mapping[str, object]


class Field(NamedTuple):
    """How a field of the interface becomes a column."""

    key: str
    title: str
    kind: str = "text"  # as of Column
    filter: bool = False
    hidden: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the page."""

    name: str
    title: str
    columns: tuple[Column, ...]
    n: int  # rows
    left_out: int = 0  # rows that the page has no room for

    def payload(self) -> Encoded:
        """The table as JSON."""
        return {
            "name": self.name, "title": self.title, "n": self.n, "truncated": self.left_out,
            "columns": [column.described() for column in self.columns],
            "data": {column.key: column.encoded() for column in self.columns},
        }  # fmt: skip


def table_of(name: str, title: str, fields: Sequence[Field], rows: Sequence[Row]) -> Table:
    """The table of these rows. Columns that hold nothing are left out."""
    shown = rows[:MOST] if len(rows) > MOST else rows
    columns = [column for field in fields if (column := column_of(field, shown)) is not None]
    return Table(name, title, tuple(columns), len(shown), len(rows) - len(shown))


def table_of_columns(
    name: str, title: str, fields: Sequence[Field], columns: Mapping[str, list[object]], left_out: int
) -> Table:
    """The same of rows that are columns already, without those that have no room."""
    made = [column for field in fields if (column := shaped_column(field, columns[field.key])) is not None]
    return Table(name, title, tuple(made), len(columns[fields[0].key]), left_out)


def column_of(field: Field, rows: Sequence[Row]) -> Column | None:
    """The values of one field; None where no row has any."""
    return shaped_column(field, [row.get(field.key) for row in rows])


def shaped_column(field: Field, values: list[object]) -> Column | None:
    """The column of these values; None where none is known."""
    if not any(value not in (None, "", []) for value in values):
        return None
    return Column(field.key, field.title, field.kind, shaped(field.kind, values), field.filter, field.hidden)


def shaped(kind: str, values: list[object]) -> list[object]:
    """Values as a column of a kind takes them: addresses are numbers, lists one text."""
    if kind == "hex":
        return [number(value) if isinstance(value, str) else value for value in values]
    if kind in ("int", "bytes"):
        return values
    return [text_of(value) for value in values]


def text_of(value: object) -> str | None:
    """A value of JSON as the text of a cell; None for nothing."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {n}" for name, n in value.items()) or None
    if isinstance(value, list | tuple):
        return " ".join(text_of(item) or "" for item in value) or None
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None or value == "" else str(value)
