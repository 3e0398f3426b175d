"""The shipped JSON Schema: made from the types of the reports, and strict where a reader of them relies on it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ftpatch.arch import architectures
from ftpatch.document.schema import PATH, registers, schema, text

ROOT = Path(__file__).resolve().parents[1]
VALIDATOR = jsonschema.Draft202012Validator(schema())


def test_the_shipped_schema_is_what_the_types_say() -> None:
    assert PATH.read_text() == text(), "run python -m ftpatch.document.schema"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_every_verb_has_its_form_in_the_schema() -> None:
    from ftpatch.cli import VERBS

    commands = schema()["properties"]["command"]["enum"]
    assert sorted(commands) == sorted({*VERBS, "doctor"} - {"image"})  # `image` has no report


@pytest.fixture(scope="module")
def scanned() -> Any:
    """A scan with sites, as a program reads it."""
    import contextlib
    import io

    from ftpatch.cli import run

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run(["scan", str(ROOT / "testdata/mini/vmlinux-callops"), "--sites", "--format", "json"]) == 0
    return json.loads(out.getvalue())


def site(document: Any) -> Any:
    return document["images"][0]["sites"][0]


REJECTED: list[tuple[str, Callable[[Any], object]]] = [
    ("another schema", lambda document: document.update(schema=2)),
    ("no command", lambda document: document.pop("command")),
    ("a command that is none", lambda document: document.update(command="guess")),
    ("images as an object", lambda document: document.update(images={})),
    ("an image of restore in a scan", lambda document: document["images"][0].pop("summary")),
    ("a scan that calls itself a restore", lambda document: document.update(command="restore")),
    ("an unknown machine", lambda document: document["images"][0].update(arch="z80")),
    ("an unknown layout", lambda document: document["images"][0].update(layout="callop")),
    ("no layout", lambda document: document["images"][0].pop("layout")),
    ("a sha256 that is too short", lambda document: document["images"][0].update(sha256="ab" * 31)),
    ("a sha256 in upper case", lambda document: document["images"][0].update(sha256="AB" * 32)),
    ("a negative count", lambda document: document["images"][0]["summary"].update(live=-1)),
    ("a section with no sites", lambda document: document["images"][0]["summary"]["by_section"].update(gone=0)),
    ("a count as text", lambda document: document["images"][0]["summary"].update(slots="4")),
    ("a row as text", lambda document: site(document).update(row="0")),
    ("an address as a number", lambda document: site(document).update(record=4096)),
    ("an address without 0x", lambda document: site(document).update(entry="ffff800080000000")),
    ("a short record", lambda document: site(document).update(record="0x12")),
    ("a word of nine digits", lambda document: site(document).update(words=["0x0d503201f"])),
    ("a word without digits", lambda document: site(document).update(words=["0x"])),
    ("a word in upper case", lambda document: site(document).update(words=["0xD503201F"])),
    ("a status that is none", lambda document: site(document).update(status="fine")),
    ("an action that is none", lambda document: site(document).update(action="burn")),
    ("an error without its code", lambda document: document.update(errors=[{"file": "a", "message": "b"}])),
]


@pytest.mark.parametrize(("change"), [one[1] for one in REJECTED], ids=[one[0] for one in REJECTED])
def test_a_document_that_breaks_its_promise_is_rejected(scanned: Any, change: Callable[[Any], object]) -> None:
    assert VALIDATOR.is_valid(scanned)
    broken = copy.deepcopy(scanned)
    change(broken)
    assert not VALIDATOR.is_valid(broken)


def test_a_machine_that_is_registered_is_a_machine_of_the_schema(scanned: Any) -> None:
    machines = architectures()
    shape = machines[0].shapes[0]._replace(name="toy-layout")
    toy = machines[0]._replace(name="toy", shapes=(shape,), fronts=())
    document = copy.deepcopy(scanned)
    document["images"][0].update(arch="toy", layout="toy-layout")
    jsonschema.validate(document, schema((*machines, toy)))
    assert registers((toy,))["layout"] == ["toy-layout", "none"]
