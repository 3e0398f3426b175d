"""A journal, read back: the JSON report of a writing verb, which `journal.write` made.

It comes from anywhere, so nothing in it is believed: a value has the form that it must have, or the file is no journal.
Whether it speaks of a given file is for `restore` and the proof to say.
"""

from __future__ import annotations

import base64
import re
from typing import TypeVar

from ftpatch.container import layers
from ftpatch.container.wrappings import WRAPPINGS
from ftpatch.document import SCHEMA, json_input
from ftpatch.document.journal import LAYERS, Edit, Journal, OldLayer, Output, SiteAction
from ftpatch.document.json_input import NotJson, Object
from ftpatch.errors import InputError, UnsupportedError

T = TypeVar("T")

VERBS = ("enable", "disable", "drop", "redirect", "static-calls", "record")
LIMIT = 1 << 63  # positions and sizes are signed 64-bit numbers in every table
SIGNATURE = "signature"  # owner of the rows of a signature, the old one and the new one
OFFSET = re.compile(r"0x[0-9a-f]{1,10}")
SHA256 = re.compile(r"[0-9a-f]{64}")
HEX = re.compile(r"[0-9a-f]*")  # no group that repeats: of those, the matcher remembers every turn
NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}

# Members that are read. All others are dropped while the file is parsed: a site has twenty, and two are needed.
READ = frozenset((
    "schema", "command", "images", "build_id", "sha256", "size", "packing", "wrapping", "encoder", "original",
    "plain_sha256", "output", "elf_sha256", "edits", "pos", "old", "new", "owner", "sites", "action", "target",
    "request", "records", "forced_target", "set_calls", "key", "to", "left", "recorded", "functions", "shndx", "offset",
    "layers", "kind",
))  # fmt: skip


def read_journal(path: str) -> Journal:
    """The journal in a file. Raises InputError for what is none, and UnsupportedError for one of a later schema."""
    try:
        report = _require(json_input.load(path, READ), dict, "the report")
        schema = _member(report, "schema", int)
        if schema > SCHEMA:
            raise UnsupportedError("a journal of a newer ftpatch", path, found=f"schema {_short(schema)}",
                                   expected=f"schema {SCHEMA}, which is what this one knows",
                                   todo="use the ftpatch that wrote it")  # fmt: skip
        return _journal(report, schema, path)
    except NotJson as error:
        raise InputError("not a journal of a patch", path, found=error.found, expected=error.expected,
                         todo="the JSON report of the run that patched the file is one") from None  # fmt: skip


class NotAJournal(NotJson):
    """JSON that is no journal: what it has, and what a journal has there."""


def _journal(report: Object, schema: int, path: str) -> Journal:
    if schema != SCHEMA:
        raise NotAJournal(f"schema {_short(schema)}", f"schema {SCHEMA}")
    command = _member(report, "command", str)
    if command not in VERBS:
        raise NotAJournal(f"the report of {command[:40]!r}", "that of " + ", ".join(VERBS))
    images = _member(report, "images", list)
    if len(images) != 1:
        raise NotAJournal(f"{len(images)} images", "one")
    image = _require(images[0], dict, "an image")
    if "output" in image and image["output"] is None:
        raise NotAJournal("the report of a dry run", "that of a patch")
    output, packing = _member(image, "output", dict), _member(image, "packing", dict)
    wrapping = _member(packing, "wrapping", str)
    if wrapping not in ("none", *WRAPPINGS, LAYERS):
        raise NotAJournal(f"wrapping {wrapping[:40]!r}", ", ".join(("none", *WRAPPINGS, LAYERS)))
    around = _layers(_member(packing, "layers", list)) if wrapping == LAYERS else ()
    encoder = None if packing.get("encoder") is None else _member(packing, "encoder", str)
    size = _member(image, "size", int)
    if not 1 <= size < LIMIT:
        raise NotAJournal(f"{_short(size)} as its size", "a size in bytes")
    rows, request = _member(image, "edits", list), image.get("request")
    request = request if isinstance(request, dict) else {}  # that of a module has less
    build_id, records = image.get("build_id"), request.get("records")
    edits, cut, appended, signature = _edits(rows, size)
    return Journal(
        path=path, command=command, build_id=build_id if isinstance(build_id, str) else None,
        sha256=_sha256(image, "sha256"), plain_sha256=_sha256(packing, "plain_sha256"),
        wrapping=wrapping, encoder=encoder, layers=around,
        original=b"" if encoder is not None or around else _original(packing, "its original"), size=size,
        edits=edits, cut=cut, appended=appended, signature=signature, n_edits=len(rows),
        sites=[] if command in ("static-calls", "record") else _sites(_member(image, "sites", list)),
        recorded=_recorded(_member(image, "recorded", dict)) if command == "record" else None,
        set_calls=_set_calls(_member(image, "set_calls", list)) if command == "static-calls" else {},
        records=records if isinstance(records, str) else None,
        output=Output(_sha256(output, "sha256"), _sha256(output, "elf_sha256")),
        forced_target=request.get("forced_target") is True,
    )  # fmt: skip


# -- single values ---------------------------------------------------------------------------------------------


def _member(parent: Object, key: str, kind: type[T]) -> T:
    return _require(parent.get(key), kind, f"its {key}")


def _require(value: object, kind: type[T], what: str) -> T:
    if type(value) is kind:  # not isinstance: true is an int in Python
        return value
    is_ = "nothing" if value is None else NAMES.get(type(value), _short(value))
    raise NotAJournal(f"{is_} as {what}", NAMES[kind])


def _sha256(parent: Object, key: str) -> str:
    text = _member(parent, key, str)
    if not SHA256.fullmatch(text):
        raise NotAJournal(f"{text[:80]!r} as its {key}", "64 hex digits")
    return text


def _original(packing: Object, what: str) -> bytes:
    try:
        return base64.b64decode(_require(packing.get("original"), str, what), validate=True)
    except ValueError:  # binascii.Error is one
        raise NotAJournal(f"something else as {what}", "base64") from None


def _layers(rows: list[object]) -> tuple[OldLayer, ...]:
    """What was around a kernel, the outermost first."""
    around = []
    for number, value in enumerate(rows):
        row = _require(value, dict, f"layer {number}")
        kind = _require(row.get("kind"), str, f"the kind of layer {number}")
        if kind not in layers.NAMES:
            raise NotAJournal(f"a layer {kind[:40]!r}", ", ".join(layers.NAMES))
        kept = None if row.get("original") is None else _original(row, f"the original of layer {number}")
        around.append(OldLayer(kind, kept))
    if not around:
        raise NotAJournal("no layers", "one or more")
    return tuple(around)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:20]}…"


# -- rows ------------------------------------------------------------------------------------------------------


def _edits(rows: list[object], size: int) -> tuple[list[Edit], bytes, bytes, bytes]:
    """Edits within the file, in file order; what followed it before; what was appended; and the new signature."""
    edits: list[Edit] = []
    cut, appended, signature = bytearray(), bytearray(), bytearray()
    end = 0  # of the edit before
    for number, row in enumerate(rows):
        pos, old, new, owner = edit = _edit(_require(row, dict, f"edit {number}"), number)
        rows[number] = None  # a journal has hundreds of thousands of rows, each of them four times its edit
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
            raise NotAJournal(f"edit {number}: {len(old)} bytes to {len(new)} at {_short(pos)}",
                              "edits side by side in file order, and pieces behind the file")  # fmt: skip
    return edits, bytes(cut), bytes(appended), bytes(signature)


def _edit(row: Object, number: int) -> Edit:
    pos, old, new, owner = row.get("pos"), row.get("old"), row.get("new"), row.get("owner")
    if type(pos) is not int or type(old) is not str or type(new) is not str:
        raise NotAJournal(f"something else as edit {number}", "a position, and bytes in hex")
    if pos < 0 or not all(len(text) % 2 == 0 and HEX.fullmatch(text) for text in (old, new)):
        raise NotAJournal(
            f"edit {number} at {_short(pos)}: {_short(old)} to {_short(new)}", "a position, and bytes in hex"
        )
    return Edit(pos, bytes.fromhex(old), bytes.fromhex(new), owner if type(owner) is str else "")


def _sites(rows: list[object]) -> list[SiteAction]:
    sites = []
    for number, row in enumerate(rows):
        site = _require(row, dict, f"site {number}")
        pos, action, target = (site.get(name) for name in ("pos", "action", "target"))
        known = pos is None or (type(pos) is int and 0 <= pos < LIMIT)
        if not known or type(action) is not str:
            raise NotAJournal(f"something else as site {number}", "a position and an action")
        redirected = action == "redirect" and type(target) is str
        sites.append(SiteAction(pos, action, target if redirected else None))
    return sites


def _recorded(image: Object) -> tuple[tuple[int, int], ...]:
    """(section, offset) of the records that came."""
    places = []
    for number, value in enumerate(_member(image, "functions", list)):
        row = _require(value, dict, f"record {number}")
        sec, off = _member(row, "shndx", int), _member(row, "offset", str)
        if not 0 <= sec < LIMIT or not OFFSET.fullmatch(off):
            raise NotAJournal(f"something else as record {number}", "a section and an offset")
        places.append((sec, int(off, 16)))
    return tuple(places)


def _set_calls(rows: list[object]) -> dict[str, str]:
    """What static calls were set to, by key."""
    settings = {}
    for number, row in enumerate(rows):
        call = _require(row, dict, f"static call {number}")
        key, to = (_member(call, name, str) for name in ("key", "to"))
        if call.get("left") is None:
            settings[key] = to
    return settings
