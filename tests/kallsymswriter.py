"""Writes kallsyms in every form that Linux 4.4 to 7.3 have, and small flat kernels around them.

The forms are what scripts/kallsyms.c of each series writes. Tokens are chosen as it does in essence: characters that
names have stand for themselves, the other bytes for what is frequent in these names.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, replace

Symbol = tuple[str, str, int]  # nm's letter, name, address

LINK = 0xFFFF_8000_0801_0000
BANNER = b"Linux version 5.10.0-test (nobody@nowhere) #1 SMP\n\0"


@dataclass(frozen=True)
class Form:
    """What a series of Linux writes."""

    kind: str = "base"  # absolute, base, percpu, own
    behind: bool = False  # addresses are behind the token index, else before num_syms
    ranks_last: bool | None = None  # ranks are the last table, else behind the markers; as `behind` where it is None
    align: int = 8
    word: int = 4  # bytes of num_syms and of each marker
    rank: int = 3  # bytes of each rank; 0 for none
    two_bytes: bool = True  # of a length over 127
    padding: int = 0  # the byte that aligns tables


FORMS = {
    "4.4": Form("absolute", word=8, rank=0, two_bytes=False),
    "4.6": Form("base", word=8, rank=0, two_bytes=False),
    "4.6-x86": Form("percpu", word=8, rank=0, two_bytes=False),
    "4.20": Form("base", rank=0, two_bytes=False),
    "4.20-x86": Form("percpu", rank=0, two_bytes=False),
    "4.20-ia64": Form("absolute", rank=0, two_bytes=False),
    "6.1": Form("base", rank=0),
    "6.2-rc": Form("base", rank=4),
    "6.2": Form("base"),
    "6.2-x86": Form("percpu"),
    "6.4": Form("base", behind=True),
    "6.4-x86": Form("percpu", behind=True),
    "6.4-ia64": Form("absolute", behind=True),
    "7.0": Form("own", behind=True, align=4),
}


@dataclass(frozen=True)
class Written:
    """The bytes of all tables, and where each is in them."""

    octets: bytes
    at: dict[str, int]
    n: int
    form: Form


def tokens_of(texts: list[bytes], letters: bool = True) -> list[bytes]:
    """256 tokens: each used character its own, then what is frequent; without `letters` any byte may stand for any."""
    used = sorted({octet for text in texts for octet in text})
    tokens = [bytes([octet]) if octet in used else b"" for octet in range(256)]
    pieces: Counter[bytes] = Counter()
    for text in texts:
        for size in (2, 3, 5):
            pieces.update(text[at : at + size] for at in range(len(text) - size + 1))
    frequent = [piece for piece, count in pieces.most_common(400) if count > 3]
    for code in range(255, -1, -1):
        if not tokens[code] and frequent:
            tokens[code] = frequent.pop(0)
    return tokens if letters else tokens[128:] + tokens[:128]


def compressed(text: bytes, tokens: list[bytes]) -> bytes:
    """A text as tokens, the longest first."""
    code_of = {token: code for code, token in enumerate(tokens) if token}
    codes, at = bytearray(), 0
    while at < len(text):
        size = next(
            size for size in (5, 3, 2, 1) if text[at : at + size] in code_of and len(text[at : at + size]) == size
        )
        codes.append(code_of[text[at : at + size]])
        at += size
    return bytes(codes)


def tables(
    symbols: list[Symbol],
    form: Form,
    va: int,
    tokens: list[bytes] | None = None,
    base: int | None = None,
    below: int = 0,
) -> Written:
    """All tables of some symbols, which are in ascending order.

    va: where the tables will be. tokens: 256, else chosen here. base: what kallsyms_relative_base has in the file.
    below: bytes from the base to the first symbol.
    """
    texts = [letter.encode() + name.encode() for letter, name, _ in symbols]
    tokens = tokens or tokens_of(texts)
    order = sorted(range(len(symbols)), key=lambda row: (texts[row][1:], symbols[row][2], row))
    writer = _Writer(form)
    values = ["offsets", "relative_base"] if form.kind in ("base", "percpu") else ["offsets"]
    first, last = ["num_syms", "names", "markers"], ["token_table", "token_index"]
    ranks = ["seqs_of_names"] if form.rank else []
    names = [compressed(text, tokens) for text in texts]
    ranks_last = form.behind if form.ranks_last is None else form.ranks_last
    before, behind = ([], values) if form.behind else (values, [])
    sequence = before + first + (ranks * (not ranks_last)) + last + behind + ranks * ranks_last
    lowest = min(address for _, _, address in symbols if form.kind != "percpu" or address >= 1 << 63) - below
    for table in sequence:
        writer.start(table)
        if table == "offsets":
            writer.add(_values(symbols, form, va + len(writer.octets), lowest))
        elif table == "relative_base":
            writer.add(struct.pack("<Q", lowest if base is None else base))
        elif table == "num_syms":
            writer.add(len(symbols).to_bytes(form.word, "little"))
        elif table == "names":
            markers = writer.names(names)
        elif table == "markers":
            writer.add(b"".join(marker.to_bytes(form.word, "little") for marker in markers))
        elif table == "seqs_of_names":
            writer.add(b"".join(row.to_bytes(form.rank, "big" if form.rank == 3 else "little") for row in order))
        elif table == "token_table":
            writer.add(b"".join(token + b"\0" for token in tokens))
        else:
            starts = [sum(len(token) + 1 for token in tokens[:code]) for code in range(256)]
            writer.add(struct.pack("<256H", *starts))
    return Written(bytes(writer.octets), writer.at, len(symbols), form)


class _Writer:
    def __init__(self, form: Form) -> None:
        self.form, self.octets, self.at = form, bytearray(), dict[str, int]()

    def start(self, table: str) -> None:
        self.octets += bytes([self.form.padding]) * (-len(self.octets) % self.form.align)
        self.at[table] = len(self.octets)

    def add(self, octets: bytes) -> None:
        self.octets += octets

    def names(self, names: list[bytes]) -> list[int]:
        """Write all names; where every 256th starts."""
        start, markers = len(self.octets), []
        for row, name in enumerate(names):
            if row % 256 == 0:
                markers.append(len(self.octets) - start)
            size = len(name)
            big = size > 127 and self.form.two_bytes
            self.octets += bytes([size & 127 | 128, size >> 7] if big else [size]) + name
        return markers


def _values(symbols: list[Symbol], form: Form, va: int, lowest: int) -> bytes:
    addresses = [address for _, _, address in symbols]
    if form.kind == "absolute":
        return struct.pack(f"<{len(addresses)}Q", *addresses)
    if form.kind == "base":
        return struct.pack(f"<{len(addresses)}I", *(address - lowest for address in addresses))
    if form.kind == "own":
        return struct.pack(f"<{len(addresses)}i", *(address - va - 4 * row for row, address in enumerate(addresses)))
    return struct.pack(
        f"<{len(addresses)}i", *(lowest - address - 1 if address >> 63 else address for address in addresses)
    )


@dataclass(frozen=True)
class Kernel:
    """A flat image at LINK: code, the banner, the tables, and some data."""

    data: bytes
    symbols: list[Symbol]
    at: dict[str, int]  # position of each table
    form: Form


def symbols_for(n: int, form: Form, data: bool = True) -> list[Symbol]:
    """n symbols of a kernel whose code is 16 bytes for each: functions, a weak alias, a banner behind them."""
    verbs, nouns = ("get", "put", "read", "write", "free", "init"), ("page", "inode", "sk_buff", "irq", "node2", "dev7")
    symbols: list[Symbol] = [("A", f"cpu_{row}", 8 * row) for row in range(3)] if form.kind == "percpu" else []
    symbols += [("T", "_text", LINK), ("t", "_stext", LINK)][: max(n - len(symbols) - 1, 1)]
    for row in range(n - len(symbols) - data):
        name = f"__{nouns[row % 6]}_{verbs[row // 6 % 6]}_{row:x}.constprop.{row % 3}"
        letter = "tTtTW"[row % 5]
        symbols.append((letter, name if row % 7 else name.upper(), LINK + 16 * row))
    return symbols + ([("D", "linux_banner", LINK + banner_pos(n))] if data else [])


def banner_pos(n: int) -> int:
    """Where the banner is in a kernel of n symbols."""
    return (16 * n + 63) & ~63


def kernel(n: int, form: Form, symbols: list[Symbol] | None = None, **options: object) -> Kernel:
    """A kernel of n symbols. options: as for `tables`."""
    symbols = symbols or symbols_for(n, form)
    head = bytes(range(1, 17)) * n
    head += bytes(banner_pos(n) - len(head)) + BANNER
    head += bytes(-len(head) % 64)
    written = tables(symbols, form, LINK + len(head), **options)  # type: ignore[arg-type]
    data = head + written.octets + bytes(-len(written.octets) % 8) + b"\x90" * 256
    return Kernel(data, symbols, {table: len(head) + pos for table, pos in written.at.items()}, form)


def changed(found: Kernel, pos: int, octets: bytes) -> Kernel:
    """The kernel with other bytes at a position."""
    return replace(found, data=found.data[:pos] + octets + found.data[pos + len(octets) :])
