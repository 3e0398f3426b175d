"""A journal, read back: the JSON report of a writing verb, which `report.journal` made.

It comes from anywhere, so nothing of it is believed: a value has the form that it must have, or the file is no journal.
Whether it speaks of a given file is for `restoring` to say.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
from dataclasses import dataclass
from typing import Any, TypeVar

from ftpatch.container import envelope
from ftpatch.document import SCHEMA
from ftpatch.errors import InputError, UnsupportedError

T = TypeVar("T")
Edit = tuple[int, bytes, bytes]  # position, old, new

VERBS = ("enable", "disable", "drop")
MAX_SIZE = 512 << 20  # bytes of a journal; one of 44,000 sites has 38 MB
MAX_VALUES = 16 << 20  # values in it; that one has 1.8 million
SHA256 = re.compile(r"[0-9a-f]{64}")
HEX = re.compile(r"(?:[0-9a-f]{2})*")
NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
READ = {
    "schema", "command", "images", "build_id", "sha256", "size", "packing", "wrapping", "encoder", "original",
    "plain_sha256", "output", "elf_sha256", "edits", "pos", "old", "new",
}  # fmt: skip


@dataclass(frozen=True)
class Written:
    """The file that the patch wrote: its sha256, and that of the ELF file in it."""

    sha256: str
    elf_sha256: str


@dataclass(frozen=True)
class Journal:
    """What a journal says of two files, checked for form alone.

    sha256: of the file that was patched; plain_sha256: of its content, the ELF file with its signature; wrapping: how
    it was compressed; encoder: what makes the same bytes again, or None where `original` holds them.
    size: bytes of its ELF file. `edits` lie below that, in file order, apart from each other; `cut` and `added` are
    what follows it before and after the patch; n_edits counts all of these.
    """

    path: str
    command: str
    build_id: str | None
    sha256: str
    plain_sha256: str
    wrapping: str
    encoder: str | None
    original: bytes
    size: int
    edits: list[Edit]
    cut: bytes
    added: bytes
    n_edits: int
    output: Written


def read_journal(path: str) -> Journal:
    """The journal in a file. Raises InputError for what is none, and UnsupportedError for one of a later schema."""
    found = _require(_parsed(path), dict, "the report", path)
    schema = _member(found, "schema", int, path)
    if schema > SCHEMA:
        raise UnsupportedError("a journal of a newer ftpatch", path, found=f"schema {_short(schema)}",
                               expected=f"schema {SCHEMA}, which is what this one knows",
                               todo="use the ftpatch that wrote it")  # fmt: skip
    if schema != SCHEMA:
        raise _none(path, f"schema {_short(schema)}", f"schema {SCHEMA}")
    command = _member(found, "command", str, path)
    if command not in VERBS:
        raise _none(path, f"the report of {command[:40]!r}", "that of " + ", ".join(VERBS))
    images = _member(found, "images", list, path)
    if len(images) != 1:
        raise _none(path, f"{len(images)} images", "one")
    image = _require(images[0], dict, "an image", path)
    if "output" in image and image["output"] is None:
        raise _none(path, "the report of a dry run", "that of a patch")
    return _journal(path, command, image)


def _journal(path: str, command: str, image: dict[str, Any]) -> Journal:
    output, packing = _member(image, "output", dict, path), _member(image, "packing", dict, path)
    wrapping, encoder = _member(packing, "wrapping", str, path), packing.get("encoder")
    if wrapping not in ("none", *envelope.WRAPPINGS):
        raise _none(path, f"wrapping {wrapping[:40]!r}", ", ".join(("none", *envelope.WRAPPINGS)))
    if encoder is not None:
        encoder = _member(packing, "encoder", str, path)
    size = _member(image, "size", int, path)
    if size < 1:
        raise _none(path, f"{_short(size)} as its size", "a size in bytes")
    rows = _member(image, "edits", list, path)
    edits, cut, added = _edits(rows, size, path)
    build_id = image.get("build_id")
    return Journal(
        path, command, build_id if isinstance(build_id, str) else None, _sha256(image, "sha256", path),
        _sha256(packing, "plain_sha256", path), wrapping, encoder,
        b"" if encoder is not None else _original(packing, path), size, edits, cut, added, len(rows),
        Written(_sha256(output, "sha256", path), _sha256(output, "elf_sha256", path)),
    )  # fmt: skip


# -- JSON ------------------------------------------------------------------------------------------------------


def _parsed(path: str) -> Any:
    """The JSON value in a file, with the members that are read and no others: sites are many, and not needed."""
    try:
        return json.loads(_text(path), object_pairs_hook=_object, parse_constant=_no_number)
    except RecursionError:
        raise _none(path, "values inside values, without end", "JSON") from None
    except ValueError as error:  # JSON's and UTF-8's errors are such, and numbers of thousands of digits
        raise _none(path, str(error)[:120], "JSON") from None


def _text(path: str) -> str:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError("is not a regular file", path, todo="copy its content to a file first")
            data = file.read(min(status.st_size, MAX_SIZE) + 1)  # read() takes room for all that it may read
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None
    if len(data) > MAX_SIZE:
        raise _none(path, f"more than {MAX_SIZE} bytes", "less")
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise _none(path, f"more than {MAX_VALUES} values", "less")
    return data.decode()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a member that is there twice")
    return {key: value for key, value in pairs if key in READ}


def _no_number(name: str) -> Any:
    raise ValueError(f"{name}, which is no number of JSON")


def _member(found: dict[str, Any], key: str, kind: type[T], path: str) -> T:
    return _require(found.get(key), kind, f"its {key}", path)


def _require(value: Any, kind: type[T], what: str, path: str) -> T:
    if type(value) is kind:
        return value
    is_ = "nothing" if value is None else NAMES.get(type(value), _short(value))
    raise _none(path, f"{is_} as {what}", NAMES[kind])


def _sha256(found: dict[str, Any], key: str, path: str) -> str:
    text = _member(found, key, str, path)
    if not SHA256.fullmatch(text):
        raise _none(path, f"{text[:80]!r} as its {key}", "64 hex digits")
    return text


def _original(packing: dict[str, Any], path: str) -> bytes:
    try:
        return base64.b64decode(_member(packing, "original", str, path), validate=True)
    except (binascii.Error, ValueError):
        raise _none(path, "something else as its original", "base64") from None


def _edits(rows: list[Any], size: int, path: str) -> tuple[list[Edit], bytes, bytes]:
    """Edits of what is there before and after, in file order; what is there only before, and only after."""
    edits: list[Edit] = []
    cut, added, end = [], [], 0
    n_cut = n_added = 0
    for number, row in enumerate(rows):
        pos, old, new = _edit(_require(row, dict, f"edit {number}", path), number, path)
        if old and new:
            sound = len(old) == len(new) and end <= pos <= size - len(old)
            edits.append((pos, old, new))
            end = pos + len(old)
        elif old:
            sound = pos == size + n_cut
            cut.append(old)
            n_cut += len(old)
        else:
            sound = bool(new) and pos == size + n_added
            added.append(new)
            n_added += len(new)
        if not sound:
            raise _none(path, f"edit {number}: {len(old)} bytes to {len(new)} at {_short(pos)}",
                        "edits side by side in file order, and pieces behind the file")  # fmt: skip
    return edits, b"".join(cut), b"".join(added)


def _edit(row: dict[str, Any], number: int, path: str) -> Edit:
    pos, old, new = row.get("pos"), row.get("old"), row.get("new")
    if type(pos) is not int or type(old) is not str or type(new) is not str:
        raise _none(path, f"something else as edit {number}", "a position, and bytes in hex")
    if pos < 0 or not HEX.fullmatch(old) or not HEX.fullmatch(new):
        raise _none(path, f"edit {number} at {_short(pos)}: {_short(old)} to {_short(new)}",
                    "a position, and bytes in hex")  # fmt: skip
    return pos, bytes.fromhex(old), bytes.fromhex(new)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:20]}…"


def _none(path: str, found: str, expected: str) -> InputError:
    return InputError("not a journal of a patch", path, found=found, expected=expected,
                      todo="the JSON report of the run that patched the file is one")  # fmt: skip
