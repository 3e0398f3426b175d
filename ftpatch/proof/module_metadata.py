"""What a module says of the symbols that it uses: `depends=` and the versions, which may only gain entries."""

from __future__ import annotations

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.proof.case import Case

MODINFO, VERSIONS, CRCS, NAMES = ".modinfo", "__versions", "__version_ext_crcs", "__version_ext_names"
GROWN_NAMES = (MODINFO, VERSIONS, CRCS, NAMES)
ROW, CRC = 64, 8  # bytes of a row of __versions, and of the version in it
LOADERS_OWN = (".TOC.", "TOC.")


def check_modinfo(case: Case) -> None:
    """Every string as it was, but `depends=`, which may name more modules."""
    old, new = (_strings(side.image) for side in (case.before, case.after))
    sec = _section(case.after.image, MODINFO)
    depends = [next((one for one in some if one.startswith(b"depends=")), b"depends=") for some in (old, new)]
    rest = [[one for one in some if not one.startswith(b"depends=")] for some in (old, new)]
    if rest[0] != rest[1]:
        at = next((i for i, pair in enumerate(zip(*rest, strict=False)) if pair[0] != pair[1]), min(map(len, rest)))
        shown = [repr(some[at].decode("utf-8", "backslashreplace")) if at < len(some) else "nothing" for some in rest]
        case.say("verify-section", f".modinfo: string {at} was {shown[0]}, is {shown[1]}", sec=sec)
    names = [[one for one in some.partition(b"=")[2].split(b",") if one] for some in depends]
    if names[1][: len(names[0])] != names[0]:
        case.say("verify-section", f".modinfo: {depends[0].decode(errors='replace')} became "
                 f"{depends[1].decode(errors='replace')}", sec=sec)  # fmt: skip
    elif len(names[1]) > len(names[0]):
        case.kinds["dependency"] += 1
        case.account_for("modinfo", _span(case, MODINFO), 1)


def _span(case: Case, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Positions of a section that did not move."""
    sec = _section(case.before.image, name)
    if sec < 0 or case.before.image.shdr["sh_offset"][sec] != case.after.image.shdr["sh_offset"][sec]:
        return np.zeros(0, dtype=np.int64)
    head = case.before.image.shdr[sec]
    return int(head["sh_offset"]) + np.arange(int(head["sh_size"]), dtype=np.int64)


def check_versions(case: Case) -> None:
    """Old rows as they were; new ones for new symbols, and one for each of them where the module has versions."""
    old, new = (_versions(side.image) for side in (case.before, case.after))
    sec = max(_section(case.after.image, VERSIONS), _section(case.after.image, CRCS))
    symbols, n = case.after.image.symbols, len(case.before.image.symbols.rows)
    added = [symbols.name(row).encode() for row in range(n, len(symbols.rows)) if symbols.shndx[row] == t.SHN_UNDEF]
    wanted = {name for name in added if name.decode(errors="replace") not in LOADERS_OWN}
    if new is None or old is None:
        if (new is None) != (old is None):
            case.say("verify-section", "the table of symbol versions cannot be read any more" if new is None else
                     "the table of symbol versions is new", sec=sec)  # fmt: skip
        return
    if new[: len(old)] != old:
        at = next(i for i, row in enumerate(old) if new[i : i + 1] != [row])
        case.say("verify-section", f"the symbol version of {old[at][0].decode(errors='replace')} is not what it was",
                 sec=sec, off=at * ROW)  # fmt: skip
    for name, crc in new[len(old) :]:
        shown = name.decode(errors="replace")
        if name not in wanted:
            case.say("verify-section", f"there is a symbol version for {shown}, which is no new symbol", sec=sec)
        elif not 0 < crc < 1 << 32:
            case.say("verify-section", f"the symbol version of {shown} is {crc:#x}, which is no CRC", sec=sec)
    missing = sorted(wanted - {name for name, _ in new}) if old else []
    for name in missing:
        case.say("verify-symbol", f"the new symbol {name.decode(errors='replace')} has no version, and others have",
                 sec=sec)  # fmt: skip
    case.kinds["symbol version"] += max(len(new) - len(old), 0)


def _section(image: Image, name: str) -> int:
    found = [sec for sec in image.sections_named(name) if image.has_bytes[sec]]
    return found[0] if found else -1


def _strings(image: Image) -> list[bytes]:
    sec = _section(image, MODINFO)
    return [one for one in image.content(sec).tobytes().split(b"\0") if one] if sec >= 0 else []


def _versions(image: Image) -> list[tuple[bytes, int]] | None:
    """(name, CRC) rows, those of both tables; None where they are cut in the middle of a row."""
    found, basic, crcs, names = [], *(_section(image, name) for name in (VERSIONS, CRCS, NAMES))
    content = image.content(basic).tobytes() if basic >= 0 else b""
    if len(content) % ROW:
        return None
    for at in range(0, len(content), ROW):
        name = content[at + CRC : at + ROW].partition(b"\0")[0]
        found.append((name, int.from_bytes(content[at : at + CRC], "little")))
    if crcs >= 0 and names >= 0:
        words, strings = image.content(crcs).tobytes(), image.content(names).tobytes().split(b"\0")
        if len(words) % 4 or len(strings) < len(words) // 4:
            return None
        found += [(strings[i], int.from_bytes(words[4 * i : 4 * i + 4], "little")) for i in range(len(words) // 4)]
    return found
