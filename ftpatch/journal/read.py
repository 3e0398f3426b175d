"""A journal, read back: the JSON report of a writing verb, which `journal.write` made.

It comes from anywhere, so nothing in it is believed: a value has the form that it must have, or the file is no journal.
Whether it speaks of a given file is for `restore` and the proof to say.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TypeVar

from ftpatch.container.wrappings import WRAPPINGS
from ftpatch.document import SCHEMA, json_input
from ftpatch.document.journal import Edit, Journal, Output, SiteAction
from ftpatch.document.json_input import NotJson, Object
from ftpatch.errors import InputError, UnsupportedError

T = TypeVar("T")

VERBS = ("enable", "disable", "drop")
LIMIT = 1 << 63  # positions and sizes are signed 64-bit numbers in every table
SIGNATURE = "signature"  # owner of the rows of a signature, the old one and the new one
SHA256 = re.compile(r"[0-9a-f]{64}")
HEX = re.compile(r"(?:[0-9a-f]{2})*")
NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}

# Members that are read. All others are dropped while the file is parsed: a site has twenty, and two are needed.
READ = frozenset((
    "schema", "command", "images", "build_id", "sha256", "size", "packing", "wrapping", "encoder", "original",
    "plain_sha256", "output", "elf_sha256", "edits", "pos", "old", "new", "owner", "sites", "action", "request",
    "records", "forced_target",
))  # fmt: skip


def read_journal(path: str) -> Journal:
    """The journal in a file. Raises InputError for what is none, and UnsupportedError for one of a later schema."""
    report = _require(_parsed(path), dict, "the report", path)
    schema = _member(report, "schema", int, path)
    if schema > SCHEMA:
        raise UnsupportedError("a journal of a newer ftpatch", path, found=f"schema {_short(schema)}",
                               expected=f"schema {SCHEMA}, which is what this one knows",
                               todo="use the ftpatch that wrote it")  # fmt: skip
    if schema != SCHEMA:
        raise _not_a_journal(path, f"schema {_short(schema)}", f"schema {SCHEMA}")
    command = _member(report, "command", str, path)
    if command not in VERBS:
        raise _not_a_journal(path, f"the report of {command[:40]!r}", "that of " + ", ".join(VERBS))
    images = _member(report, "images", list, path)
    if len(images) != 1:
        raise _not_a_journal(path, f"{len(images)} images", "one")
    image = _require(images[0], dict, "an image", path)
    if "output" in image and image["output"] is None:
        raise _not_a_journal(path, "the report of a dry run", "that of a patch")
    return _journal(path, command, image)


def _journal(path: str, command: str, image: Object) -> Journal:
    output, packing = _member(image, "output", dict, path), _member(image, "packing", dict, path)
    wrapping, encoder = _member(packing, "wrapping", str, path), packing.get("encoder")
    if wrapping not in ("none", *WRAPPINGS):
        raise _not_a_journal(path, f"wrapping {wrapping[:40]!r}", ", ".join(("none", *WRAPPINGS)))
    if encoder is not None:
        encoder = _member(packing, "encoder", str, path)
    size = _member(image, "size", int, path)
    if not 1 <= size < LIMIT:
        raise _not_a_journal(path, f"{_short(size)} as its size", "a size in bytes")
    rows = _member(image, "edits", list, path)
    edits, cut, appended, signature = _edits(rows, size, path)
    return Journal(
        path=path, command=command, build_id=_text_or_none(image.get("build_id")),
        sha256=_sha256(image, "sha256", path), plain_sha256=_sha256(packing, "plain_sha256", path),
        wrapping=wrapping, encoder=encoder, original=b"" if encoder is not None else _original(packing, path),
        size=size, edits=edits, cut=cut, appended=appended, signature=signature, n_edits=len(rows),
        sites=_sites(_member(image, "sites", list, path), path), records=_records(image.get("request")),
        output=Output(_sha256(output, "sha256", path), _sha256(output, "elf_sha256", path)),
        forced_target=_forced_target(image.get("request")),
    )  # fmt: skip


# -- single values ---------------------------------------------------------------------------------------------


def _parsed(path: str) -> object:
    try:
        return json_input.load(path, READ)
    except NotJson as error:
        raise _not_a_journal(path, error.found, error.expected) from None


def _member(parent: Object, key: str, kind: type[T], path: str) -> T:
    return _require(parent.get(key), kind, f"its {key}", path)


def _require(value: object, kind: type[T], what: str, path: str) -> T:
    if type(value) is kind:  # not isinstance: true is an int in Python
        return value
    is_ = "nothing" if value is None else NAMES.get(type(value), _short(value))
    raise _not_a_journal(path, f"{is_} as {what}", NAMES[kind])


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _forced_target(request: object) -> bool:
    return isinstance(request, dict) and request.get("forced_target") is True


def _records(request: object) -> str | None:
    return _text_or_none(request.get("records")) if isinstance(request, dict) else None


def _sha256(parent: Object, key: str, path: str) -> str:
    text = _member(parent, key, str, path)
    if not SHA256.fullmatch(text):
        raise _not_a_journal(path, f"{text[:80]!r} as its {key}", "64 hex digits")
    return text


def _original(packing: Object, path: str) -> bytes:
    try:
        return base64.b64decode(_member(packing, "original", str, path), validate=True)
    except (binascii.Error, ValueError):
        raise _not_a_journal(path, "something else as its original", "base64") from None


# -- rows ------------------------------------------------------------------------------------------------------


def _edits(rows: list[object], size: int, path: str) -> tuple[list[Edit], bytes, bytes, bytes]:
    """Edits within the file, in file order; what followed it before; what was appended; and the new signature."""
    edits: list[Edit] = []
    cut, appended, signature = bytearray(), bytearray(), bytearray()
    end = 0  # of the edit before
    for number, row in enumerate(rows):
        pos, old, new, owner = edit = _edit(_require(row, dict, f"edit {number}", path), number, path)
        if old and new:
            sound = len(old) == len(new) and end <= pos <= size - len(old)
            edits.append(edit)
            end = pos + len(old)
        elif old:
            sound = pos == size + len(cut)
            cut += old
        else:
            # The signature is the last thing in a file: nothing of the ELF file follows it.
            sound = bool(new) and pos == size + len(appended) + len(signature)
            sound &= owner == SIGNATURE or not signature
            if owner == SIGNATURE:
                signature += new
            else:
                appended += new
        if not sound:
            raise _not_a_journal(path, f"edit {number}: {len(old)} bytes to {len(new)} at {_short(pos)}",
                                 "edits side by side in file order, and pieces behind the file")  # fmt: skip
    return edits, bytes(cut), bytes(appended), bytes(signature)


def _edit(row: Object, number: int, path: str) -> Edit:
    pos, old, new, owner = row.get("pos"), row.get("old"), row.get("new"), row.get("owner")
    if type(pos) is not int or type(old) is not str or type(new) is not str:
        raise _not_a_journal(path, f"something else as edit {number}", "a position, and bytes in hex")
    if pos < 0 or not HEX.fullmatch(old) or not HEX.fullmatch(new):
        raise _not_a_journal(path, f"edit {number} at {_short(pos)}: {_short(old)} to {_short(new)}",
                             "a position, and bytes in hex")  # fmt: skip
    return Edit(pos, bytes.fromhex(old), bytes.fromhex(new), owner if type(owner) is str else "")


def _sites(rows: list[object], path: str) -> list[SiteAction]:
    sites = []
    for number, row in enumerate(rows):
        site = _require(row, dict, f"site {number}", path)
        pos, action = site.get("pos"), site.get("action")
        known = pos is None or (type(pos) is int and 0 <= pos < LIMIT)
        if not known or type(action) is not str:
            raise _not_a_journal(path, f"something else as site {number}", "a position and an action")
        sites.append(SiteAction(pos, action))
    return sites


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:20]}…"


def _not_a_journal(path: str, found: str, expected: str) -> InputError:
    return InputError("not a journal of a patch", path, found=found, expected=expected,
                      todo="the JSON report of the run that patched the file is one")  # fmt: skip
