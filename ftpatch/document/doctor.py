"""What `doctor` says of an installation."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

State = Literal["found", "missing", "broken"]
Need = Literal["required", "optional"]


class PartRow(TypedDict):
    """One library, program or file that ftpatch uses, or that people use with it."""

    name: str
    kind: Literal["library", "program", "files"]
    need: Need
    state: Annotated[State, "found: it is there, and was not tried; broken: it was tried (--try), and failed"]
    version: str | None
    place: Annotated[str | None, "where it was found"]
    adds: Annotated[str, "what it is for"]
    install: Annotated[str, "the command that brings it"]
    why: Annotated[str | None, "why it is broken"]


class DoctorObject(TypedDict):
    """What is installed, and on what."""

    version: str
    python: str
    machine: Annotated[str, "as uname -m says"]
    system: str
    parts: list[PartRow]
