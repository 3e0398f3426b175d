"""What damage is done to: a patched file, the one it was made from, and the journal that says what is where."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ftpatch.arch import Arch, arch_of
from ftpatch.arrays import Rows
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.recovered.image import open_image
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import RecordTable, read_records
from ftpatch.sites.table import SiteTable

__all__ = ["Damage", "Mutation", "Victim", "applied", "damaged", "victim_of"]


@dataclass(frozen=True)
class Damage:
    """Bytes to put at positions, and what to append to the file or to cut off its end."""

    writes: Sequence[tuple[int, bytes]] = ()
    appended: bytes = b""
    cut: int = 0


@dataclass(frozen=True)
class Mutation:
    """A kind of damage: the rules of which one must find it, and how it is done, None where it does not apply."""

    name: str
    rules: frozenset[str]
    make: Callable[[Victim], Damage | None]


@dataclass(frozen=True)
class Victim:
    """An uncompressed patched file without a signature, read by ftpatch."""

    path: Path
    before: Image
    after: Image
    arch: Arch
    journal: dict[str, Any]
    _cache: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def records(self) -> RecordTable:
        return read_records(self.after)

    @cached_property
    def sites(self) -> SiteTable:
        """Those of the first file, which has all records."""
        return read_sites(self.before, read_records(self.before))

    @property
    def linked(self) -> bool:
        return self.after.linked

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The sites that the journal tells of: none where static calls were set."""
        sites: list[dict[str, Any]] = self.journal.get("sites", [])
        return sites

    @cached_property
    def patched(self) -> list[dict[str, Any]]:
        """The sites that lead to something now."""
        return [site for site in self.listed if site["action"].startswith("call") or site["action"] == "redirect"]

    def edits(self, owner: str) -> list[dict[str, Any]]:
        """The journal's edits whose owner begins so."""
        return [edit for edit in self.journal["edits"] if edit["owner"].startswith(owner)]

    def word(self, pos: int) -> int:
        return int.from_bytes(self.read(pos, 4), "little")

    def read(self, pos: int, size: int) -> bytes:
        return self.after.data[pos : pos + size].tobytes()

    def flip(self, pos: int, mask: int = 1) -> Damage:
        """One byte with bits changed."""
        return Damage([(pos, bytes([self.read(pos, 1)[0] ^ mask]))])

    def put(self, pos: int, value: int, size: int = 4) -> tuple[int, bytes]:
        return pos, (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def section(self, *names: str) -> int:
        """The first section of one of the names that has bytes; −1 where there is none."""
        found = [sec for sec in self.after.sections_named(*names) if self.after.has_bytes[sec]]
        found = [sec for sec in found if self.after.shdr["sh_size"][sec]]
        return found[0] if found else -1

    def start(self, sec: int) -> int:
        return int(self.after.shdr["sh_offset"][sec])

    def header(self, sec: int, name: str) -> int:
        """File position of a field of a section header."""
        fields = t.SHDR.fields
        assert fields is not None
        return int(self.after.ehdr["e_shoff"]) + sec * t.SHDR.itemsize + int(fields[name][1])

    def symbol(self, row: int, name: str) -> int:
        """File position of a field of a symbol."""
        fields = t.SYM.fields
        assert fields is not None
        tab = int(np.flatnonzero(self.after.shdr["sh_type"] == t.SHT_SYMTAB)[0])
        return self.start(tab) + row * t.SYM.itemsize + int(fields[name][1])

    def relocations(self, target: str) -> tuple[Rows, int]:
        """Rows of a section's relocations, and where they stand; none where it has no such table."""
        for sec in np.flatnonzero(self.after.shdr["sh_type"] == t.SHT_RELA).tolist():
            if self.after.names[int(self.after.shdr["sh_info"][sec])] == target:
                return self.after.rows(sec, t.RELA), self.start(sec)
        return np.zeros(0, t.RELA), 0

    def row_of(self, place: int) -> int:
        """Index of the dynamic relocation of a place; −1 where it has none."""
        hit = np.flatnonzero(self.after.rela[0]["r_offset"] == np.uint64(place))
        return int(hit[0]) if len(hit) else -1


def victim_of(before: Path, after: Path, journal: Path) -> Victim:
    """A patched file and all that belongs to it."""
    image, result = open_image(str(before)), open_image(str(after))
    made = json.loads(journal.read_text())["images"][0]
    _ = result.data[: len(result.data)]  # large files are read where they are looked at, and damage changes this one
    return Victim(after, image, result, arch_of(image.e_machine, str(before)), made)


def applied(content: bytes, damage: Damage) -> bytes:
    """A file's content with the damage."""
    data = bytearray(content[: len(content) - damage.cut])
    for pos, new in damage.writes:
        data[pos : pos + len(new)] = new
    return bytes(data) + damage.appended


@contextmanager
def damaged(victim: Victim, damage: Damage) -> Iterator[None]:
    """The victim's file with the damage, in place; as it was when the context ends."""
    size = victim.path.stat().st_size
    with victim.path.open("r+b") as file:
        kept = []
        for pos, new in damage.writes:
            file.seek(pos)
            kept.append((pos, file.read(len(new))))
            file.seek(pos)
            file.write(new)
        file.seek(size - damage.cut)
        lost = file.read()
        file.truncate(size - damage.cut)
        file.seek(size - damage.cut)
        file.write(damage.appended)
        file.flush()
        try:
            yield
        finally:
            file.truncate(size - damage.cut)
            file.seek(size - damage.cut)
            file.write(lost)
            for pos, old in reversed(kept):
                file.seek(pos)
                file.write(old)
