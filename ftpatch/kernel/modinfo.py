"""What a module says of itself: `.modinfo`, and the versions of the symbols that it was built against.

`.modinfo` is a run of strings `key=value`, each ended by at least one NUL; keys may repeat, and the loader takes the
first where it wants one. `__versions` has a row of 64 bytes per symbol; for longer names there are the sections
`__version_ext_crcs` and `__version_ext_names`, and where a module has them, newer kernels look nowhere else.

The functions at the end make new contents of these sections; nothing here places them in a file.
Source: kernel/module/main.c get_next_modinfo(), kernel/module/version.c check_version() (Linux 6.12, 7.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ftpatch.arrays import I64, U8, U64, Mask
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError, PolicyError

Names = npt.NDArray[np.bytes_]

VERSION = np.dtype([("crc", "<u8"), ("name", "S56")])
LONGEST = VERSION["name"].itemsize - 1  # bytes of a name that leave room for its NUL
MAX_MODINFO = 1 << 24  # bytes; option.ko's, the longest known, has 76,078
MAX_SYMBOL = 512  # KSYM_NAME_LEN
MAX_NAMES = 1 << 17  # rows of a table of names; kernels have some 10,000

GPL = ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")


class Entry(NamedTuple):
    """One string of `.modinfo`."""

    key: str
    value: str
    start: int  # of `key=value`, in bytes from the section's start
    end: int  # of it without its NUL


@dataclass(frozen=True)
class ModInfo:
    """All strings of `.modinfo` that have a key, in their order."""

    entries: tuple[Entry, ...]

    def first(self, key: str) -> str | None:
        """The value that the loader takes; None where there is none."""
        return next((entry.value for entry in self.entries if entry.key == key), None)

    def all(self, key: str) -> tuple[str, ...]:
        """Every value of a key that may repeat: alias, import_ns, firmware, parm."""
        return tuple(entry.value for entry in self.entries if entry.key == key)

    @property
    def name(self) -> str:
        """The module's name as the kernel spells it."""
        return kernel_spelling(self.first("name") or "")

    @cached_property
    def depends(self) -> tuple[str, ...]:
        """Names of the modules whose symbols it uses, as written: file names, where a dash may stand for `_`."""
        return tuple(name for name in (self.first("depends") or "").split(",") if name)

    @cached_property
    def gpl_compatible(self) -> bool:
        """Whether GPL-only symbols are open to it. Source: include/linux/license.h license_is_gpl_compatible()."""
        return self.first("license") in GPL


@dataclass(frozen=True)
class Versions:
    """(name, crc) rows; the loader takes the first of a name and compares all 64 bits of the CRC."""

    names: Names
    crc: U64
    basic: bool  # whether the module has a `__versions` at all, be it empty
    extended: bool  # likewise the two sections for longer names

    def __len__(self) -> int:
        return len(self.crc)

    @cached_property
    def _order(self) -> I64:
        return np.argsort(self.names, kind="stable")

    def rows(self, names: Names) -> I64:
        """First row of each name; −1 where it has none."""
        return find_names(self.names, self._order, names)


def kernel_spelling(name: str) -> str:
    """A module's name as the kernel spells it. Source: scripts/Makefile.lib name-fix-token."""
    return name.replace("-", "_")


def read_modinfo(image: Image) -> ModInfo:
    """The strings of a module; none where the file has no `.modinfo`.

    Raises ElfError where the section is absurdly long.
    """
    sec = section_of(image, ".modinfo")
    return ModInfo(() if sec < 0 else entries_of(image.content(sec).tobytes(), image.path))


def entries_of(content: bytes, where: str = "") -> tuple[Entry, ...]:
    """The strings in the bytes of a `.modinfo`; padding and strings without a key are passed over."""
    if len(content) > MAX_MODINFO:
        raise ElfError(".modinfo is too long", where, found=f"{len(content)} bytes", expected=f"at most {MAX_MODINFO}")
    entries, start = [], 0
    for string in content.split(b"\0"):  # a few hundred: aliases and parameters
        key, equals, value = string.decode("utf-8", "backslashreplace").partition("=")
        if equals and key:
            entries.append(Entry(key, value, start, start + len(string)))
        start += len(string) + 1
    return tuple(entries)


def read_versions(image: Image) -> Versions:
    """The symbol versions that the loader uses: the extended ones where a module has them, else the basic ones.

    Raises ElfError where the two extended sections do not belong together.
    """
    basic, crcs, names = (section_of(image, f"__version{end}") for end in ("s", "_ext_crcs", "_ext_names"))
    if (crcs < 0) != (names < 0):
        raise ElfError("only one of the two sections of extended versions is there", image.path)
    if crcs >= 0:
        words, content = image.content(crcs), image.content(names)
        crc = words[: len(words) & ~3].view("<u4").astype(np.uint64)
        starts = undotted(image, content, _starts(content, len(crc), image.path))
        return Versions(strings_at(content, starts, MAX_SYMBOL), crc, basic >= 0, True)
    content = image.content(basic) if basic >= 0 else image.data[:0]
    rows = content[: len(content) // VERSION.itemsize * VERSION.itemsize].view(VERSION)
    starts = undotted(image, content, VERSION.itemsize * np.arange(len(rows), dtype=np.int64) + 8)
    return Versions(strings_at(content, starts, LONGEST), rows["crc"].astype(np.uint64), basic >= 0, False)


def _starts(content: U8, n: int, where: str) -> I64:
    """Where the first n strings start in a run of strings, each ended by one NUL."""
    ends = np.flatnonzero(content == 0)[:n].astype(np.int64)
    if len(ends) < n:
        raise ElfError("__version_ext_names has fewer names than there are CRCs", where, found=f"{len(ends)}",
                       expected=f"{n}")  # fmt: skip
    return np.concatenate((np.zeros(1, np.int64), ends + 1))[:n]


# -- names, many at once -----------------------------------------------------------------------------------------------


def section_of(image: Image, name: str) -> int:
    """The first loaded section of that name, as the loader picks it; −1 if there is none.

    Source: kernel/module/main.c find_sec().
    """
    for sec in image.sections_named(name):
        if int(image.shdr["sh_flags"][sec]) & t.SHF_ALLOC and image.has_bytes[sec]:
            return sec
    return -1


def strings_at(data: U8 | FileBytes, starts: I64, limit: int) -> Names:
    """The strings that start at each position of `data`, to their NUL or `limit` bytes; all positions lie inside."""
    n = len(starts)
    if not n:
        return np.zeros(0, "S1")
    if n > MAX_NAMES:
        raise ElfError("a table has more names than any kernel", found=f"{n}", expected=f"at most {MAX_NAMES}")
    low = int(starts.min())
    part = data[low : int(starts.max()) + limit]
    nul = np.concatenate((np.flatnonzero(part == 0), [len(part)])).astype(np.int64)
    length = np.minimum(nul[np.searchsorted(nul, starts - low)] - (starts - low), limit)
    width = max(int(length.max()), 1)
    index = np.minimum((starts - low)[:, None] + np.arange(width), len(part) - 1)
    columns = np.where(np.arange(width) < length[:, None], part[index], np.uint8(0)).astype(np.uint8)
    strings: Names = columns.view(f"S{width}").reshape(n)
    return strings


def find_names(table: Names, order: I64, names: Names) -> I64:
    """Row of each name in `table`, whose rows `order` sorts stably: the first of equals; −1 where it has none."""
    if not len(table):
        return np.full(len(names), -1, dtype=np.int64)
    near = np.minimum(np.searchsorted(table, names, sorter=order), len(table) - 1)
    row = order[near]
    return np.where(table[row] == names, row, -1).astype(np.int64)


def undotted(image: Image, data: U8, starts: I64) -> I64:
    """Starts of names as the loader looks for them: on ppc64 one leading dot is dropped.

    Source: arch/powerpc/kernel/module_64.c dedotify(), dedotify_versions().
    """
    return starts + (data[starts] == ord(".")) if image.arch.dotted_names else starts


def undefined_names(image: Image) -> tuple[Names, Mask]:
    """(names, weak) of the symbols that a loader must find elsewhere; `.TOC.` of ppc64 is its own."""
    symbols = image.symbols
    row = np.flatnonzero((symbols.shndx == t.SHN_UNDEF) & (symbols.rows["st_name"] != 0))
    row = row[symbols.rows["st_name"][row] < len(symbols.strtab)]
    weak = symbols.bind[row] == t.STB_WEAK
    strings = np.frombuffer(symbols.strtab, dtype=np.uint8)
    starts = undotted(image, strings, symbols.rows["st_name"][row].astype(np.int64))
    names = strings_at(strings, starts, MAX_SYMBOL)
    own = np.asarray((names == b"TOC.") & image.arch.dotted_names)
    return names[~own], np.asarray(weak[~own])


# -- new contents ------------------------------------------------------------------------------------------------------


def with_modinfo(content: bytes, depends: Sequence[str] | None = None, import_ns: Sequence[str] = ()) -> bytes:
    """The bytes of a `.modinfo` with another `depends=` (None: kept) and with namespaces that it did not import yet.

    Every other byte stays; what is new stands at the end, a `depends=` in its old place.
    """
    entries = entries_of(content)
    present = {entry.value for entry in entries if entry.key == "import_ns"}
    added = [f"import_ns={name}" for name in dict.fromkeys(import_ns) if name not in present]
    if depends is not None:
        new = f"depends={','.join(depends)}"
        old = next((entry for entry in entries if entry.key == "depends"), None)
        if old:
            content = content[: old.start] + new.encode() + content[old.end :]
        else:
            added.insert(0, new)
    if added and content and not content.endswith(b"\0"):
        content += b"\0"
    return content + b"".join(string.encode() + b"\0" for string in added)


def with_versions(content: bytes, added: Mapping[str, int]) -> bytes:
    """The bytes of a `__versions` with a row more for each name → CRC, in the order given.

    Raises PolicyError where a name is too long for a row, or has one with another CRC; an equal one is kept.
    """
    rows = np.frombuffer(content[: len(content) // VERSION.itemsize * VERSION.itemsize], VERSION)
    known = {bytes(row["name"]): int(row["crc"]) for row in rows[np.isin(rows["name"], [n.encode() for n in added])]}
    new = []
    for name, crc in added.items():
        if len(name.encode()) > LONGEST:
            raise PolicyError("the symbol's name is too long for __versions", name, found=f"{len(name)} bytes",
                              expected=f"at most {LONGEST}", todo="use a symbol with a shorter name")  # fmt: skip
        if known.get(name.encode(), crc) != crc:
            raise PolicyError("the module already has another version of the symbol", name,
                              found=f"{known[name.encode()]:#010x}", expected=f"{crc:#010x}")  # fmt: skip
        if name.encode() not in known:
            new.append((crc, name.encode()))
    return rows.tobytes() + np.array(new, VERSION).tobytes()


def with_extended_versions(crcs: bytes, names: bytes, added: Mapping[str, int]) -> tuple[bytes, bytes]:
    """The bytes of `__version_ext_crcs` and `__version_ext_names` with a row more for each name → CRC."""
    n = len(crcs) // 4
    behind = int(_starts(np.frombuffer(names + b"\0", np.uint8), n + 1, "")[n])  # padding is cut off
    new = np.array(list(added.values()), "<u4").tobytes()
    return crcs[: 4 * n] + new, names[:behind] + b"".join(name.encode() + b"\0" for name in added)
