"""The JSON objects of `check --predict`: what a boot will say and list."""

from __future__ import annotations

from typing import Annotated, TypedDict

from ftpatch.document.fields import Hex


class BugRow(TypedDict):
    """One ftrace bug that a boot would raise."""

    function: str
    offset: Hex
    row: int
    place: str
    ip: Hex
    va: Hex
    expected: Hex
    found: Hex
    actual: Hex
    text: str


class OracleObject(TypedDict):
    allocating: int
    pages: Annotated[int | None, "null where the file does not tell the size of a page or record"]
    listed_before: list[str]
    listed_after: Annotated[list[str], "once init memory is freed"]
    bugs: list[BugRow]
