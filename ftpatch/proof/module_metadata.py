"""What a module says of the symbols that it uses: `depends=` and the versions, which gain what new symbols want.

Nothing else may change in these sections, not a byte of padding. Whether a new version, or a new name in `depends=`, is
the right one is not in the two files: a kernel to hold them against tells (`module_imports`), and the verdict names
them.
"""

from __future__ import annotations

import re

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.modinfo import LONGEST, VERSION, kernel_spelling, section_of
from ftpatch.proof.case import Case, Import

MODINFO, VERSIONS, CRCS, NAMES = ".modinfo", "__versions", "__version_ext_crcs", "__version_ext_names"
GROWN_NAMES = (MODINFO, VERSIONS, CRCS, NAMES)
LOADERS_OWN = (".TOC.", "TOC.")
DEPENDS = b"depends="
NAME = re.compile(r"[0-9A-Za-z_-]+")  # of a module


def check_modinfo(case: Case) -> None:
    """Every string as it was, but `depends=`, which may name a module more for a new symbol."""
    sec = section_of(case.after.image, MODINFO)
    old, new = (_content(side.image, MODINFO) for side in (case.before, case.after))
    if old == new:
        return
    texts = [
        next((text for text in content.split(b"\0") if text.startswith(DEPENDS)), DEPENDS) for content in (old, new)
    ]
    names = [[name.decode(errors="replace") for name in text[len(DEPENDS) :].split(b",") if name] for text in texts]
    if new != with_depends(old, texts[1]):
        was, is_ = (content.split(b"\0") for content in (old, new))
        at = next((i for i, pair in enumerate(zip(was, is_, strict=False)) if pair[0] != pair[1] and
                   not pair[0].startswith(DEPENDS)), min(len(was), len(is_)))  # fmt: skip
        what = [
            repr(some[at].decode("utf-8", "backslashreplace")) if at < len(some) else "nothing" for some in (was, is_)
        ]
        case.say("verify-section", f".modinfo: string {at} was {what[0]}, is {what[1]}", sec=sec)
        return
    added = names[1][len(names[0]) :]
    own = next((text[5:].decode(errors="replace") for text in old.split(b"\0") if text.startswith(b"name=")), "")
    known = [kernel_spelling(name) for name in (*names[0], own)]
    needed = len(new_imports(case))
    wrong = names[1][: len(names[0])] != names[0] or not added or len(added) > needed
    wrong |= any(kernel_spelling(name) in (*known, *map(kernel_spelling, added[:at])) or not NAME.fullmatch(name)
                 for at, name in enumerate(added))  # fmt: skip
    if wrong:
        case.say("verify-section", f".modinfo: {texts[0].decode(errors='replace')} became "
                 f"{texts[1].decode(errors='replace')}, for {needed} new symbols of other files", sec=sec)  # fmt: skip
    case.depends = tuple(added)
    case.kinds["dependency"] += 1
    one, two, at = case.before.image.shdr, case.after.image.shdr, section_of(case.before.image, MODINFO)
    if at >= 0 and one["sh_offset"][at] == two["sh_offset"][at]:  # a section that moved leaves its old bytes
        case.account_for("modinfo", [int(one["sh_offset"][at])], int(one["sh_size"][at]))


def with_depends(content: bytes, text: bytes) -> bytes:
    """The strings with another `depends=`: in its place, or behind the others where there was none."""
    parts = content.split(b"\0")
    at = next((i for i, part in enumerate(parts) if part.startswith(DEPENDS)), None)
    if at is not None:
        return b"\0".join([*parts[:at], text, *parts[at + 1 :]])
    return content + b"\0" * (content != b"" and not content.endswith(b"\0")) + text + b"\0"


def new_imports(case: Case) -> list[str]:
    """Names of the new symbols that other files define; the loader's own are none of them."""
    symbols, n = case.after.image.symbols, len(case.before.image.symbols.rows)
    names = [symbols.name(row) for row in range(n, len(symbols.rows))
             if symbols.shndx[row] == t.SHN_UNDEF and symbols.bind[row] != t.STB_WEAK]  # fmt: skip
    return [name for name in names if name not in LOADERS_OWN]


def check_versions(case: Case) -> None:
    """Old rows as they were; new ones for new symbols, one for each of them where the module has versions."""
    wanted = new_imports(case)
    basic, extended = _basic(case, wanted), _extended(case, wanted)
    states = {**basic, **extended}
    case.imports = tuple(Import(name, states.get(name)) for name in wanted)
    case.kinds["symbol version"] += len(states)
    image = case.before.image
    has = [bool(_content(image, name)) for name in (VERSIONS, CRCS)]
    sec = section_of(case.after.image, CRCS if has[1] else VERSIONS)
    for name in wanted if any(has) else ():
        short = len(name.encode()) <= LONGEST
        if (has[1] and name not in extended) or (has[0] and short and name not in basic):
            case.say("verify-symbol", f"the new symbol {name} has no version, and others have", sec=sec)
        elif name in basic and name in extended and basic[name] != extended[name]:
            case.say("verify-section", f"the new symbol {name} has two versions, {basic[name]:#x} and "
                     f"{extended[name]:#x}", sec=sec)  # fmt: skip


def _basic(case: Case, wanted: list[str]) -> dict[str, int]:
    """The versions that `__versions` gained."""
    old, new = (_content(side.image, VERSIONS) for side in (case.before, case.after))
    if old == new:
        return {}
    sec = section_of(case.after.image, VERSIONS)
    kept = len(old) // VERSION.itemsize * VERSION.itemsize
    crcs: dict[str, int] = {}
    added = new[kept:]
    if new[:kept] != old[:kept] or len(added) % VERSION.itemsize or not old:
        at = next((i for i in range(kept) if new[i : i + 1] != old[i : i + 1]), kept)
        name = old[at // 64 * 64 + 8 : at // 64 * 64 + 64].partition(b"\0")[0].decode(errors="replace")
        case.say("verify-section", f"the symbol version of {name} is not what it was" if at < kept else
                 "the table of symbol versions cannot be read any more" if old else
                 "the table of symbol versions is new", sec=sec, off=at)  # fmt: skip
        return {}
    for at in range(0, len(added), VERSION.itemsize):
        crc, text = int.from_bytes(added[at : at + 8], "little"), added[at + 8 : at + VERSION.itemsize]
        _add(case, crcs, text.partition(b"\0")[0], crc, (wanted, sec))
        if text.rstrip(b"\0") != text.partition(b"\0")[0]:
            case.say(
                "verify-section", f"there are bytes behind the name of a symbol version at {kept + at:#x}", sec=sec
            )
    return crcs


def _extended(case: Case, wanted: list[str]) -> dict[str, int]:
    """The versions that the two sections for longer names gained."""
    old, new = ([_content(side.image, name) for name in (CRCS, NAMES)] for side in (case.before, case.after))
    if old == new:
        return {}
    sec, kept = section_of(case.after.image, CRCS), len(old[0]) // 4 * 4
    n, names = kept // 4, new[1].split(b"\0")
    known = b"".join(name + b"\0" for name in old[1].split(b"\0")[:n])
    crcs: dict[str, int] = {}
    added = new[0][kept:]
    if not old[0] or new[0][:kept] != old[0][:kept] or len(added) % 4 or not new[1].startswith(known) or (
        new[1] != b"".join(name + b"\0" for name in names[: n + len(added) // 4])
    ):  # fmt: skip
        case.say("verify-section", "the two tables of symbol versions for long names are not what they were", sec=sec)
        return {}
    for at, name in enumerate(names[n : n + len(added) // 4]):
        _add(case, crcs, name, int.from_bytes(added[4 * at : 4 * at + 4], "little"), (wanted, sec))
    return crcs


def _add(case: Case, crcs: dict[str, int], name: bytes, crc: int, where: tuple[list[str], int]) -> None:
    """Take a new version. where: the new symbols, and the section for findings."""
    (wanted, sec), shown = where, name.decode(errors="replace")
    if shown not in wanted or shown in crcs:
        why = "which has one already" if shown in crcs else "which is no new symbol"
        case.say("verify-section", f"there is a symbol version for {shown}, {why}", sec=sec)
    elif not 0 < crc < 1 << 32:
        case.say("verify-section", f"the symbol version of {shown} is {crc:#x}, which is no CRC", sec=sec)
    crcs[shown] = crc


def _content(image: Image, name: str) -> bytes:
    sec = section_of(image, name)
    return image.content(sec).tobytes() if sec >= 0 else b""
