"""Damaged kernels without symbols: a right answer or a line. The long run is `python -m tools.damage_images`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from ftpatch.cli import run
from ftpatch.sites.scan import scan_file
from tools.damage_images import damage
from tools.damage_images.__main__ import campaign, case_of
from tools.damage_images.judge import NAMES, OWN, REFUSED, SAME, WRONG, Answer, judged
from tools.damage_images.kernels import Sound, all_small, flat, stripped
from tools.fuzz.bounds import Tally, bounded, execute
from tools.fuzz.files import named
from tools.fuzz.targets import Target

Capture = pytest.CaptureFixture[str]
SEED, RUNS = 22, 100


def put(sound: Sound, pos: int, octets: bytes) -> bytes:
    return sound.data[:pos] + octets + sound.data[pos + len(octets) :]


def flip(sound: Sound, pos: int, mask: int = 1) -> bytes:
    return put(sound, pos, bytes([sound.data[pos] ^ mask]))


# -- found by the campaign, each a wrong answer once -------------------------------------------------------------------


def dump_with_a_word_that_did_not_move(sound: Sound) -> bytes:
    """Pointers alone would have the kernel linked where it ran."""
    raw = bytearray(sound.data)
    for pos in sound.relocated[1:]:
        raw[pos : pos + 8] = (int.from_bytes(raw[pos : pos + 8], "little") + (1 << 21)).to_bytes(8, "little")
    return bytes(raw)


def row_of_another_type(sound: Sound) -> bytes:
    """The rows behind it were no part of the table any more: their records were empty slots."""
    start, end = sound.parts["relocations"]
    return put(sound, start + (end - start) // 48 * 24 + 8, b"\xff")


def byte_less(sound: Sound) -> bytes:
    """As above, and the rows behind are at odd places."""
    start, end = sound.parts["relocations"]
    middle = start + (end - start) // 48 * 24 + 5
    return sound.data[:middle] + sound.data[middle + 1 :]


def cut_in_relocations(sound: Sound) -> bytes:
    start, end = sound.parts["relocations"]
    return sound.data[: start + (end - start) * 3 // 4]


def bounds_moved(sound: Sound) -> bytes:
    """kallsyms of a kernel in which the records are a little further on."""
    start, end = sound.parts["offsets"]
    offsets = list(struct.unpack(f"<{(end - start) // 4}I", sound.data[start:end]))
    moved = [offset + 8 * (offset in sound.parts["records"]) for offset in offsets]
    return put(sound, start, struct.pack(f"<{len(moved)}I", *moved))


def cut_in_data(sound: Sound) -> bytes:
    return sound.data[: sum(sound.parts["data"]) // 2]


def without_markers(sound: Sound) -> bytes:
    start, end = sound.parts["markers"]
    return put(sound, start, b"\xff" * (end - start))


def record_in_the_middle(sound: Sound) -> bytes:
    """The table by its structure ended there."""
    start, end = sound.parts["records"]
    return flip(sound, (start + end) // 16 * 8 + 5)


def byte_less_in_records(sound: Sound) -> bytes:
    start, end = sound.parts["records"]
    middle = (start + end) // 2
    return sound.data[:middle] + sound.data[middle + 1 :]


def cut_in_records(sound: Sound) -> bytes:
    start, end = sound.parts["records"]
    return sound.data[: (start + end) // 16 * 8]


def letters_of_data(sound: Sound) -> bytes:
    """The token "t" became another letter of nm's: local functions were data."""
    start, end = sound.parts["token_table"]
    return put(sound, start + sound.data[start:end].index(b"\0t\0") + 1, b"d")


def another_kallsyms_and_no_banner(sound: Sound) -> bytes:
    """The right one is refused for its banner; another kernel's, which has no symbol of it, was believed."""
    other = flat("6.4", "relr", with_data=False)
    start, end = other.parts["kallsyms"]
    data = put(sound, sound.parts["banner"][0], bytes(32))
    return data + bytes(-len(data) % 64) + other.data[start:end]


def relocations_of_another(sound: Sound) -> bytes:
    """Under another base nothing contradicted them; offsets from their own places go along with any base."""
    start, end = sound.parts["relocations"]
    raw = bytearray(sound.data)
    for pos in range(start, end, 24):
        place = int.from_bytes(raw[pos : pos + 8], "little")
        raw[pos : pos + 8] = (place - 0x4000).to_bytes(8, "little")
    return bytes(raw)


NO_BASE = (
    "{}: the kernel does not tell at which address it is linked: expected relocation tables, or pointers to its own "
    "strings – the file is damaged, or give the vmlinux of the same build"
)
BROKEN = (
    "{}: position 0x7a00 to 0x9830: the table of relocations has rows that are none: found more rows beside it – the "
    "file is damaged"
)


@pytest.mark.parametrize(
    ("make", "kernel", "line"),
    [
        (dump_with_a_word_that_did_not_move, ("6.4", "relr"), NO_BASE),
        (row_of_another_type, ("6.1", "rela", False), BROKEN),
        (byte_less, ("4.20", "rela", False), BROKEN),
        (cut_in_relocations, ("6.1", "rela", False), NO_BASE),
        (cut_in_relocations, ("7.0", "rela"), "{}: position 0xac48: the file ends within the table of relocations – "
         "the file is not whole"),
        (bounds_moved, ("6.1", "none"), "{}: 0xffff800080007248: symbols of kallsyms do not bound the records of patch "
         "sites: found 271 sites in 272 records, "
         "and more records beside them – the file is damaged"),
        (byte_less_in_records, ("6.1", "relr", False), "{}: 0xffff800080007140: the records of patch sites are "
         "cut off, or have something else between them – the file is damaged: give the vmlinux of the same build"),
        (cut_in_records, ("6.1", "relr", False), "{}: 0xffff800080007140: the records of patch sites are cut off, or "
         "have something else between them – the file is damaged: give the vmlinux of the same build"),
        (record_in_the_middle, ("6.1", "none", False), "{}: two tables look like that of the records: found "
         "0xffff800080007140 and 0xffff800080007588 – give the vmlinux of the same build"),
        (letters_of_data, ("4.4", "relr"), "{}: kallsyms does not have names that every kernel has: found no _stext, "
         "_etext, _sinittext, _einittext – the file is damaged"),
        (another_kallsyms_and_no_banner, ("6.4", "relr"), "{}: 0xffff800080004480: the file has more than one "
         "kallsyms, and neither is proven by linux_banner: found linux_banner is not at the address that kallsyms has "
         "of it – the file is damaged, or has another kernel in it"),
        (relocations_of_another, ("7.0", "rela"), "{}: pointers of the file do not agree with the addresses that "
         "kallsyms has of functions: found 14 of 1060 point at functions, 795 if these are moved, expected 2 times as "
         "many – the file is damaged, or not whole"),
        (cut_in_data, ("6.4", "none"), "{}: the kernel ends before its data do: found 0xffff800080007ff8, expected "
         "at least 0xffff800080008200 _edata – the file is damaged, or not whole"),
        (without_markers, ("6.4", "relr"), "{}: position 0x6510: names and addresses of kallsyms are not where its "
         "token table is: expected kallsyms_names and kallsyms_markers before it, and addresses beside these – the "
         "file is damaged, or a kernel of a form that is not known"),
    ],
)  # fmt: skip
def test_a_damage_is_refused_in_a_line(
    make: Callable[[Sound], bytes], kernel: tuple[str, str], line: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "Image"
    path.write_bytes(make(flat(*kernel)))
    assert (run(["scan", str(path)]), capsys.readouterr()) == (3, ("", f"ftpatch: {line.format(path)}\n"))


# -- hostile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1 << 32, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("relocations", ["rela", "relr", "none"])
def test_what_a_header_says_of_its_size_changes_nothing_else(size: int, relocations: str) -> None:
    """A gigabyte was asked for to count pages of a kernel that claimed a terabyte."""
    sound = flat("6.4", relocations)
    with bounded(), named(put(sound, 16, struct.pack("<Q", size))) as path:
        said = Answer.of(scan_file(path))
    with named(sound.data) as path:
        assert judged(sound, Answer.of(scan_file(path)), said) == (SAME, "")


LINK = 0xFFFF_8000_8000_0000
HOSTILE = {
    "maps alone": struct.pack("<Q", LINK) + b"\xff" * (1 << 20),
    "a map for each word": b"".join(struct.pack("<2Q", LINK + 512 * row, (1 << 64) - 1) for row in range(1 << 16)),
    "addresses alone": b"".join(struct.pack("<Q", LINK + 8 * row) for row in range(1 << 17)),
    "rows in small runs": b"".join(
        struct.pack("<3Q", LINK + 8 * row, 1027 if row % 5 else 999_999, LINK) for row in range(1 << 15)
    ),
    "token tables": (b"a\0" * 256 + struct.pack("<256H", *range(0, 512, 2))) * (1 << 10),
    "banners": b"Linux version \0\0" * (1 << 16),
    "notes": (struct.pack("<3I", 4, 20, 3) + b"GNU\0" + bytes(20)) * (1 << 14),
    "type information": struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, 0, 4, 4, 4) * (1 << 15),
}


@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_contents_of_a_flat_kernel_end_in_a_line_within_limits(content: str) -> None:
    sound = flat("6.4", "relr")
    tally = Tally()
    target = Target(lambda data, seen: _scanned(data), lambda real: (), lambda data, rng: data, (), 1)
    with bounded():
        for data in (sound.data[:64] + HOSTILE[content], sound.data + HOSTILE[content]):
            execute(target, data, tally)
    assert tally.findings == {}


def _scanned(data: bytes) -> None:
    with named(data) as path:
        scan_file(path)


# -- the short run -----------------------------------------------------------------------------------------------------


def test_damaged_images_are_answered_rightly_or_refused() -> None:
    score = campaign([case_of(sound) for sound in all_small()[::4]], SEED, RUNS)
    assert score.bad == []
    assert min(score.answers[what] for what in (SAME, OWN, REFUSED)) > 0


def test_a_wrong_answer_is_told_from_a_damaged_name() -> None:
    sound = flat("6.1", "none")
    with named(sound.data) as path:
        right = Answer.of(scan_file(path))
    moved = {name: tuple(va + 4 for va in vas) for name, vas in right.places.items()}
    assert judged(sound, right, replace(right, places=moved))[0] == WRONG
    assert judged(sound, right, replace(right, sites=right.sites[:-1]))[0] == WRONG
    renamed = {name if name != "__page_get_0.isra.0" else "__page_got": vas for name, vas in right.places.items()}
    data = flip(sound, sound.parts["names"][0] + 40)
    assert judged(sound, right, replace(right, places=renamed, data=data)) == (NAMES, "")
    assert judged(sound, right, replace(right, places=renamed))[0] == WRONG


def test_the_same_seed_damages_alike_and_every_kind_does() -> None:
    sounds = (flat("6.4", "relr"), stripped("x86_64", "7.0"))
    made = [damage.damaged(sounds[0], sounds, Random(f"1 {n}")) for n in range(200)]
    assert made == [damage.damaged(sounds[0], sounds, Random(f"1 {n}")) for n in range(200)]
    changed = {kind for kind, data in made if data != sounds[0].data}
    assert changed == {kind.__name__ for kind in damage.KINDS}
