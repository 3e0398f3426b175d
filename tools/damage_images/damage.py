"""What may become of a kernel's file: ends cut off, bits flipped, tables exchanged, words moved as a kernel moves them.

Most kinds are led to a part whose place is known: a random byte of a kernel is code nine times of ten.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from random import Random

from tools.damage_images.kernels import KERNEL_TABLES, Sound, boot_image, bzimage, uimage, zboot
from tools.fuzz.mutate import EDGES

Damage = Callable[[Sound, tuple[Sound, ...], Random], bytes | None]  # a kernel, others to take from
SLIDES = (1 << 21, 1 << 16, 1 << 30, -(1 << 21), 0x2_5A80_0000)
PAGE = 1 << 12


def _pos(sound: Sound, rng: Random, size: int = 1, tables: float = 0.7) -> int:
    """A position, most times in one of the tables."""
    low, high = 0, len(sound.data)
    if rng.random() < tables:
        low, high = sound.parts[rng.choice([name for name in sorted(sound.parts) if name != "code"])]
    return max(min(rng.randrange(low, max(high, low + 1)), len(sound.data) - size), 0)


def _put(sound: Sound, pos: int, octets: bytes) -> bytes:
    return sound.data[:pos] + octets + sound.data[pos + len(octets) :]


def bit(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    pos = _pos(sound, rng)
    return _put(sound, pos, bytes([sound.data[pos] ^ 1 << rng.randrange(8)]))


def octet(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    return _put(sound, _pos(sound, rng), bytes([rng.choice((0, 0xFF, rng.randrange(256)))]))


def word(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    """A word of 2, 4 or 8 bytes: an edge, its neighbour, or near to what it was."""
    size = rng.choice((2, 4, 8))
    pos = _pos(sound, rng, size) & -size
    old = int.from_bytes(sound.data[pos : pos + size], "little")
    near = old + rng.choice((-256, -16, -8, -4, -1, 1, 4, 8, 16, 256, PAGE, -PAGE))
    neighbour = int.from_bytes(sound.data[pos + size : pos + 2 * size], "little")
    new = rng.choice((rng.choice(EDGES), near, neighbour, rng.getrandbits(8 * size)))
    return _put(sound, pos, (new % (1 << 8 * size)).to_bytes(size, "little"))


def table_field(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    """As `word`, in one of the tables that have few bytes and decide much."""
    few = [name for name in ("num_syms", "relative_base", "markers", "token_index", "token_table", "header", "banner")
           if name in sound.parts]  # fmt: skip
    start, end = sound.parts[rng.choice(few)]
    size = rng.choice((1, 2, 4, 8))
    pos = start + rng.randrange(max(end - start - size + 1, 1)) // size * size
    old = int.from_bytes(sound.data[pos : pos + size], "little")
    new = rng.choice((rng.choice(EDGES), old ^ 1 << rng.randrange(8 * size), old + rng.choice((-1, 1, 256, PAGE))))
    return _put(sound, pos, (new % (1 << 8 * size)).to_bytes(size, "little"))


def several(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    """Two to twenty bits in one part: what a bad disk or a bad flash leaves."""
    start, end = sound.parts[rng.choice(sorted(sound.parts))]
    raw = bytearray(sound.data)
    for _ in range(rng.randrange(2, 20)):
        raw[rng.randrange(start, min(max(end, start + 1), len(raw)))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def cut(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    return sound.data[: rng.choice((_pos(sound, rng), rng.randrange(len(sound.data))))]


def taken_out(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    """Bytes that are missing, or too many, somewhere: what is behind has moved."""
    pos, size = _pos(sound, rng), rng.choice((1, 2, 4, 8, 16, 64, 512, PAGE))
    if rng.random() < 0.5:
        return sound.data[:pos] + sound.data[pos + size :]
    return sound.data[:pos] + rng.choice((bytes(size), sound.data[pos : pos + size])) + sound.data[pos:]


def page(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    """A page, or a sector, of one byte, of noise, or of another place."""
    size = rng.choice((64, 512, PAGE))
    pos, other = (_pos(sound, rng, size) & -size for _ in range(2))
    made = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size), sound.data[other : other + size]))
    return _put(sound, pos, made)[: len(sound.data)]


def exchanged(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    """Two tables, or two rows of one, each at the other's place."""
    tables = [name for name in KERNEL_TABLES if name in sound.parts]
    one, other = (sound.parts[name] for name in rng.sample(tables, 2))
    if rng.random() < 0.5:
        start, end = sound.parts[rng.choice(tables)]
        size = rng.choice((2, 3, 4, 8, 256))
        one, other = ((at, at + size) for at in (start + rng.randrange(max(end - start - size, 1)) for _ in range(2)))
        if abs(one[0] - other[0]) < size:
            return _put(sound, one[0], sound.data[other[0] : other[1]])
    (a, b), (c, d) = sorted((one, other))
    data = sound.data
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def pasted(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    """A table of another kernel over the same one, or over any place; or its whole kallsyms."""
    source = rng.choice(others)
    name = rng.choice([name for name in sorted(source.parts) if name != "code"])
    start, end = source.parts[name]
    piece = source.data[start:end]
    if name in sound.parts and rng.random() < 0.6:
        low, high = sound.parts[name]
        piece = piece[: rng.choice((len(piece), high - low))]
        return _put(sound, low, piece)
    pos = rng.choice((_pos(sound, rng, len(piece)), len(sound.data))) & -8
    return _put(sound, pos, piece)


def doubled(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    """A table, the banner or the kallsyms a second time: at the end, or over something else."""
    start, end = sound.parts[rng.choice(sorted(sound.parts))]
    piece = sound.data[start:end]
    if rng.random() < 0.5:
        return sound.data + bytes(-len(sound.data) % 64) + piece
    return _put(sound, _pos(sound, rng, len(piece)) & -8, piece)


def relocated(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes | None:
    """A dump of the kernel where KASLR put it; now and then one word has not moved."""
    if not sound.flat or not sound.relocated or "relocations" not in sound.parts:
        return None  # where nothing tells how it was linked, it may have been linked so
    raw, slide = bytearray(sound.data), rng.choice(SLIDES)
    kept = rng.choice(sound.relocated) if rng.random() < 0.4 else -1
    addends = {place - sound.link: addend for place, _, addend in struct.iter_unpack("<3Q", _rela(sound))}
    for pos in sound.relocated:
        old = addends.get(pos, int.from_bytes(raw[pos : pos + 8], "little"))
        if pos != kept:
            raw[pos : pos + 8] = (old + slide & (1 << 64) - 1).to_bytes(8, "little")
    return bytes(raw)


def _rela(sound: Sound) -> bytes:
    start, end = sound.parts["relocations"] if sound.rela else (0, 0)
    return sound.data[start:end]


def in_layers(sound: Sound, others: tuple[Sound, ...], rng: Random) -> bytes:
    """A kernel in what boot loaders take, with a bit, a field or the end of that changed."""
    packed = bytearray(rng.choice(_layers(sound)))
    for _ in range(rng.choice((0, 1, 1, 1, 3))):
        pos = rng.randrange(min(len(packed), rng.choice((64, 2048, len(packed)))))
        packed[pos] = rng.choice((packed[pos] ^ 1 << rng.randrange(8), 0, 0xFF, rng.randrange(256)))
    if rng.random() < 0.2:
        del packed[rng.randrange(len(packed)) :]
    return bytes(packed)


def _layers(sound: Sound) -> tuple[bytes, ...]:
    if not sound.flat:
        return bzimage(gzip.compress(sound.data, mtime=0)), gzip.compress(sound.data, mtime=0)
    packed = gzip.compress(sound.data, 1, mtime=0)
    boots = tuple(boot_image(version, sound.data) for version in (0, 2, 4))
    return (packed, *boots, boot_image(3, packed), zboot(sound.data, "gzip"), uimage(sound.data))


KINDS: tuple[Damage, ...] = (
    bit, bit, bit, octet, word, word, table_field, table_field, several, cut, taken_out, page, page, exchanged, pasted,
    pasted, doubled, relocated, relocated, in_layers,
)  # fmt: skip


def damaged(sound: Sound, others: tuple[Sound, ...], rng: Random) -> tuple[str, bytes]:
    """What was done to a kernel, and its file then; as it was where a kind does not apply."""
    kind = rng.choice(KINDS)
    data = kind(sound, others, rng)
    return kind.__name__, sound.data if data is None else data
