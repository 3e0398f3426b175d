"""What a module says of the symbols that it uses: `depends=` and the versions, which may only gain entries."""

from __future__ import annotations

from ftpatch.arrays import U8
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.modinfo import VERSION
from ftpatch.proof.case import Case

MODINFO, VERSIONS, CRCS, NAMES = ".modinfo", "__versions", "__version_ext_crcs", "__version_ext_names"
GROWN_NAMES = (MODINFO, VERSIONS, CRCS, NAMES)
LOADERS_OWN = (".TOC.", "TOC.")


def check_modinfo(case: Case) -> None:
    """Every string as it was, but `depends=`, which may name more modules."""
    old, new = (_strings(side.image) for side in (case.before, case.after))
    sec = _section(case.after.image, MODINFO)
    depends = [next((text for text in texts if text.startswith(b"depends=")), b"depends=") for texts in (old, new)]
    rest = [[text for text in texts if not text.startswith(b"depends=")] for texts in (old, new)]
    if rest[0] != rest[1]:
        at = next((i for i, pair in enumerate(zip(*rest, strict=False)) if pair[0] != pair[1]), min(map(len, rest)))
        what = [repr(some[at].decode("utf-8", "backslashreplace")) if at < len(some) else "nothing" for some in rest]
        case.say("verify-section", f".modinfo: string {at} was {what[0]}, is {what[1]}", sec=sec)
    names = [[name for name in text.partition(b"=")[2].split(b",") if name] for text in depends]
    if names[1][: len(names[0])] != names[0]:
        case.say("verify-section", f".modinfo: {depends[0].decode(errors='replace')} became "
                 f"{depends[1].decode(errors='replace')}", sec=sec)  # fmt: skip
    elif len(names[1]) > len(names[0]):
        case.kinds["dependency"] += 1
        one, two, at = case.before.image.shdr, case.after.image.shdr, _section(case.before.image, MODINFO)
        if at >= 0 and one["sh_offset"][at] == two["sh_offset"][at]:  # a section that moved leaves its old bytes
            case.account_for("modinfo", [int(one["sh_offset"][at])], int(one["sh_size"][at]))


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
                 sec=sec, off=at * VERSION.itemsize)  # fmt: skip
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
    return next((sec for sec in image.sections_named(name) if image.has_bytes[sec]), -1)


def _content(image: Image, name: str) -> U8:
    sec = _section(image, name)
    return image.content(sec) if sec >= 0 else image.data[:0]


def _strings(image: Image) -> list[bytes]:
    return [text for text in _content(image, MODINFO).tobytes().split(b"\0") if text]


def _versions(image: Image) -> list[tuple[bytes, int]] | None:
    """(name, CRC) rows, those of both tables; None where they are cut in the middle of a row."""
    basic, crcs = _content(image, VERSIONS), _content(image, CRCS)
    names = _content(image, NAMES).tobytes().split(b"\0")
    if len(basic) % VERSION.itemsize or len(crcs) % 4 or len(names) < len(crcs) // 4:
        return None
    rows = [(name.partition(b"\0")[0], crc) for crc, name in basic.view(VERSION).tolist()]
    return rows + list(zip(names, crcs.view("<u4").tolist(), strict=False))
