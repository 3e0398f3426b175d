"""Every edit of a run: where it is, whose bytes they are, and the code before and after."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, cast

from ftpatch.arch import architectures
from ftpatch.report.html.columns import FULL, cut, number
from ftpatch.report.html.tables import MOST, Field, Row, Table, table_of_columns
from ftpatch.report.text.lines import number as number_of

if TYPE_CHECKING:
    from ftpatch.document.site_rows import SiteRow
    from ftpatch.document.text_sections import TextSectionRow
    from ftpatch.document.types import ImageObject
    from ftpatch.document.written import EditRow

N_SHOWN = 100  # edits that the page has in full without its script
POINTER = 8  # bytes of an address
SHOWN = 32  # bytes of an edit that are written out
CODE = 512  # bytes of an edit that are disassembled
POINTERS = ("literal", "record", "key", "trampoline")  # whose bytes may be addresses
SPAN = 1 << 31  # bytes around the code of a file that its addresses are within
ADDRESS = re.compile(r"0x[0-9a-f]{1,16}\b")
ROW = re.compile(r"\w+ row:(\d+)", re.ASCII)  # a site by its row: what relocations and symbols are is another row
OF_SITE = ("site", "pad", "stub", "literal")

FIELDS = (
    Field("n", "Edit", "int"), Field("owner", "Whose bytes"), Field("section", "Section", "enum", filter=True),
    Field("address", "Address", "hex"), Field("pos", "File position", "int"), Field("before", "Before", "code"),
    Field("after", "After", "code"), Field("old", "Old bytes", "words"), Field("new", "New bytes", "words"),
    Field("concurrency", "Live change", "enum", filter=True), Field("row", "Row", "int"),
)  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """One line of code or data."""

    address: str  # empty for what has none
    word: str  # its bytes, as they lie in the file
    text: str  # empty for what is no code


@dataclass(frozen=True)
class EditView:
    id: str
    owner: str
    place: str  # .text+0x10, or the position in the file
    address: str
    pos: int
    concurrency: str
    before: tuple[Instruction, ...]
    after: tuple[Instruction, ...]
    old: str
    new: str
    row: int | None  # of the site in the kernel's table


@dataclass(frozen=True)
class Edits:
    n: int
    n_shown: int
    rows: tuple[EditView, ...]
    text: str


class Reader:
    """What the bytes of an edit mean, as far as the report of their file tells."""

    def __init__(self, image: ImageObject) -> None:
        from ftpatch.explanation.code import Disassembler  # and with it capstone

        (self.arch,) = [arch for arch in architectures() if arch.name == image["arch"]]
        every = [*image.get("text_sections", []), *image.get("new_text_sections", [])]
        self.sections = sorted(every, key=lambda row: row["pos"])
        self._starts = [row["pos"] for row in self.sections]
        self.names = names_of(image)
        first = self.sections[0]["address"] if self.sections else None
        self._near = number(first)
        self._ops = next((cut(name) for site in image.get("sites", ()) if (name := site.get("literal"))), "")
        self._engine = Disassembler(self.arch.capstone)

    def section(self, edit: EditRow) -> TextSectionRow | None:
        """The section of code that the edit is in, or of one that is appended the section in it."""
        pos = edit["pos"]
        last = pos if edit["old"] else pos + len(edit["new"]) // 2 - 1  # in front of a new section may be a gap
        at = bisect_right(self._starts, last) - 1
        return self.sections[at] if at >= 0 and pos < self._starts[at] + self.sections[at]["size"] else None

    def lines(self, code: bytes, owner: str, section: TextSectionRow | None, pos: int) -> tuple[Instruction, ...]:
        """The bytes as instructions where they are some, as an address where they hold one, else as bytes."""
        if not code:
            return ()
        if section and pos < section["pos"]:  # a gap in front of a new section
            gap = code[: section["pos"] - pos]
            return (Instruction("", hex_of(gap), ""), *self.lines(code[len(gap) :], owner, section, section["pos"]))
        offset = pos - section["pos"] if section else 0
        base = (number(section["address"]) or 0) if section else 0
        address = f"0x{base + offset:x}" if section else ""
        if text := self._pointer(code, owner):
            return (Instruction(address, code.hex(), text),)
        if section and not offset % self.arch.unit:
            found = self._engine.instructions(code[:CODE], base + offset)
            rest = len(code) - sum(len(part) for _, part, _ in found)
            if not rest or len(code) > CODE:
                told = [Instruction(f"0x{va:x}", part.hex(), self._told(text, section)) for va, part, text in found]
                more = [Instruction("", "", f"… and {rest} bytes more")] if rest else []
                return (*told, *more)
        return (Instruction(address, hex_of(code), ""),)

    def _pointer(self, code: bytes, owner: str) -> str:
        """Eight bytes as the address that they are; "" where they are none, or may be something else."""
        kind, value = owner.split(" ")[0], int.from_bytes(code, "little")
        if len(code) != POINTER or kind not in POINTERS or self._near is None or abs(value - self._near) >= SPAN:
            return ""
        name = self.names.get(value) or (self._ops if kind == "literal" else "")
        return f"address 0x{value:x}" + (f" <{name}>" if name else "")

    def _told(self, text: str, section: TextSectionRow) -> str:
        """An instruction with the name of a function whose address it has; without one that only a loader knows."""
        mnemonic = text.split(" ")[0]
        if section["address"] is None:
            return f"{mnemonic} (the loader fills in where)" if mnemonic in self.arch.jumps[-1:] else text
        if mnemonic not in self.arch.jumps:
            return text  # a number that happens to be an address

        def with_name(match: re.Match[str]) -> str:
            name = self.names.get(int(match[0], 16))
            return f"{match[0]} <{name}>" if name else match[0]

        return ADDRESS.sub(with_name, text)


def names_of(image: ImageObject) -> dict[int, str]:
    """The names that the report has of addresses: of functions with sites, and of what they call."""
    names: dict[int, str] = {}
    sections = image.get("text_sections", [])
    if not sections or sections[0]["address"] is None:
        return names
    for site in image.get("sites", ()):
        for key in ("record", "site", "local_entry", "entry"):
            value = cast("Row", site)[key]
            if isinstance(value, str) and site["function"]:
                names[int(value, 16)] = cut(site["function"])
        if (to := target_of(site)) is not None:
            names[to] = cut(site["target"])
        stub = site.get("stub") or ""
        if stub.startswith("0x"):  # in a module, a place in a section
            names[int(stub, 16)] = "stub"
    targets: Iterable[tuple[str, str | None]] = chain(
        [(request["target"], request["target_va"]) for request in [image.get("request")] if request],
        [(call["to"], call["to_va"]) for call in image.get("set_calls", ())],
    )
    # what is no symbol's name says how it was given
    names |= {int(va, 16): cut(name) for name, va in targets if va and name and " " not in name}
    return names


def target_of(site: SiteRow) -> int | None:
    """Where the new code of a site leads, by its distance; None where that is a stub, or not known."""
    away, start = site.get("distance"), site["site" if site.get("action") == "redirect" else "branch"]
    if away is None or start is None or site.get("stub") or not site.get("target"):
        return None
    return (int(start, 16) + away) % FULL


def hex_of(code: bytes) -> str:
    """Bytes as they lie in the file, the first of many."""
    more = f" … {len(code)} bytes" if len(code) > SHOWN else ""
    return code[:SHOWN].hex() + more


def edits_of(image: ImageObject) -> tuple[Edits, Table] | None:
    """The first edits in full, those of code in front, and the table of all; None where the report has none."""
    edits = image.get("edits")
    if not edits:
        return None
    reader = Reader(image)
    columns: dict[str, list[object]] = {field.key: [] for field in FIELDS}
    code: list[tuple[int, EditRow]] = []
    other: list[tuple[int, EditRow]] = []
    n_edits = 0
    for n, edit in enumerate(edits):
        section = reader.section(edit)
        kept = code if section else other
        if len(kept) < N_SHOWN:
            kept.append((n, edit))
        if n < MOST:
            for key, value in _row(n, edit, section, reader).items():
                columns[key].append(value)
        n_edits += 1
    shown = (code + other)[:N_SHOWN]
    left = f", of which the first {len(shown)} are here, those of code in front" if len(shown) < n_edits else ""
    views = tuple(_view(n, edit, reader) for n, edit in shown)
    table = table_of_columns("edits", "Edits", FIELDS, columns, max(0, n_edits - MOST))
    return Edits(n_edits, len(shown), views, number_of(n_edits, "edit") + left), table


def _sides(edit: EditRow, section: TextSectionRow | None, reader: Reader) -> Sequence[tuple[Instruction, ...]]:
    return [
        reader.lines(bytes.fromhex(side), edit["owner"], section, edit["pos"]) for side in (edit["old"], edit["new"])
    ]


def _row(n: int, edit: EditRow, section: TextSectionRow | None, reader: Reader) -> Row:
    """One edit as a row of the table."""
    before = after = ""
    if section:  # what is no code is long enough as bytes: a table of records may have moved as a whole
        before, after = ("; ".join(line.text for line in side if line.text) for side in _sides(edit, section, reader))
    return {
        "n": n, "owner": edit["owner"], "section": section["section"] if section else None,
        "address": _address(edit, section), "pos": edit["pos"], "before": before or None, "after": after or None,
        "old": hex_of(bytes.fromhex(edit["old"])), "new": hex_of(bytes.fromhex(edit["new"])),
        "concurrency": edit["concurrency"], "row": site_row(edit["owner"]),
    }  # fmt: skip


def _view(n: int, edit: EditRow, reader: Reader) -> EditView:
    section = reader.section(edit)
    before, after = _sides(edit, section, reader)
    offset = max(0, edit["pos"] - section["pos"]) if section else 0
    place = f"{cut(section['section'])}+0x{offset:x}" if section else f"file position {edit['pos']}"
    address = _address(edit, section)
    return EditView(
        f"edit-{n}", cut(edit["owner"]), place, "" if address is None else f"0x{address:x}", edit["pos"],
        cut(edit["concurrency"]), before, after, hex_of(bytes.fromhex(edit["old"])),
        hex_of(bytes.fromhex(edit["new"])), site_row(edit["owner"]),
    )  # fmt: skip


def _address(edit: EditRow, section: TextSectionRow | None) -> int | None:
    """va of the edit, or in a relocatable file the offset in its section."""
    return None if section is None else (number(section["address"]) or 0) + max(0, edit["pos"] - section["pos"])


def site_row(owner: str) -> int | None:
    """The row of the site that owns an edit; None for what is not a site's, or of one without a record."""
    match = ROW.fullmatch(owner)
    return int(match[1]) if match and owner.split(" ")[0] in OF_SITE else None
