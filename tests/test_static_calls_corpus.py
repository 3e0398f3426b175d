"""Static calls of real kernels and modules, against a reading by nm and struct that shares no code with the program."""

from __future__ import annotations

import lzma
import struct
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ftpatch.document.static_call_rows import Asked, static_calls_object
from ftpatch.sites.static_calls import static_calls_of
from tools import kernels

pytestmark = pytest.mark.corpus
Get = Callable[[str], kernels.Kernel]
SECTION, SYMBOL, RELA = struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ"), struct.Struct("<QQq")


class File:
    """Sections of an ELF file: (name, type, addr, content, link, info), by number."""

    def __init__(self, data: bytes) -> None:
        (start,) = struct.unpack_from("<Q", data, 40)
        n, names = struct.unpack_from("<HH", data, 60)
        heads = [SECTION.unpack_from(data, start + 64 * i) for i in range(n)]
        text = data[heads[names][4] : heads[names][4] + heads[names][5]]
        self.rows = [(text[head[0] : text.index(b"\0", head[0])].decode(), head[1], head[3],
                      data[head[4] : head[4] + head[5]] if head[1] != 8 else b"", head[6], head[7])
                     for head in heads]  # fmt: skip

    def at(self, va: int, size: int) -> bytes:
        """Bytes at an address of a linked file."""
        for _, kind, start, content, _, _ in self.rows:
            if start and kind == 1 and start <= va and va + size <= start + len(content):
                return content[va - start : va - start + size]
        raise AssertionError(hex(va))


@pytest.mark.parametrize("name", ["x86_64-6.12", "x86_64-6.1"])
def test_a_kernels_sites_and_keys_are_those_of_nm_and_struct(name: str, kernel: Get) -> None:
    path = kernel(name).vmlinux
    lines = subprocess.run(["nm", str(path)], check=True, capture_output=True, text=True, timeout=120).stdout.split(
        "\n"
    )
    values = {words[2]: int(words[0], 16) for line in lines if len(words := line.split()) == 3}
    keys = {va: symbol.removeprefix("__SCK__") for symbol, va in values.items() if symbol.startswith("__SCK__")}
    file = File(path.read_bytes())
    start, stop = values["__start_static_call_sites"], values["__stop_static_call_sites"]
    table, sites = file.at(start, stop - start), []
    for at in range(0, len(table), 8):
        site, key = struct.unpack_from("<ii", table, at)
        va, named = start + at + site, start + at + 4 + key
        opcode, distance = struct.unpack("<Bi", file.at(va, 5))
        assert values["__SCT__" + keys[named & ~3]] == va + 5 + distance
        sites.append((va, keys[named & ~3], {0xE8: "call", 0xE9: "tail"}[opcode]))

    found = static_calls_object(static_calls_of(str(path)), Asked(calls=True))
    assert [(int(call["address"] or "0", 16), call["key"], call["kind"]) for call in found["calls"]] == sites
    crossing = [(va + 1) // 64 != (va + 4) // 64 for va, _, _ in sites]
    assert [call["crosses_line"] for call in found["calls"]] == crossing
    assert (found["sites"], found["cross_line"], found["keys"]) == (len(sites), sum(crossing), len(keys))
    at_va: dict[int, set[str]] = {}
    for symbol, va in values.items():
        at_va.setdefault(va, set()).add(symbol)
    per_key = Counter(key for _, key, _ in sites)
    for row in found["entries"]:
        va = values["__SCK__" + row["key"]]
        (held,) = struct.unpack("<Q", file.at(va, 8))
        instead = {0: {"NULL"}, values["__static_call_return0"]: {"return0"}}
        assert row["function"] in instead.get(held, at_va.get(held, set()))
        assert (int(row["address"] or "0", 16), row["sites"]) == (va, per_key[row["key"]])
        assert row["updated_by"] or row["pointed_to_by"]
    assert found["other_updates"] and {"tracepoint_add_func", "bpf_dispatcher_change_prog"} <= {
        row["function"] for row in found["other_updates"]}  # fmt: skip


@pytest.mark.parametrize("module", ["fs/btrfs/btrfs", "fs/xfs/xfs", "arch/x86/kvm/kvm"])
def test_a_modules_sites_are_those_of_its_relocations(module: str, kernel: Get) -> None:
    kernel("x86_64-6.12")
    (path,) = Path(kernels.modules("x86_64-6.12")).rglob(f"{module}.ko.xz")
    file = File(lzma.decompress(path.read_bytes()))
    (number,) = [i for i, row in enumerate(file.rows) if row[0] == ".static_call_sites"]
    (relocations,) = [row for row in file.rows if row[1] == 4 and row[5] == number]
    symbols, strings = file.rows[relocations[4]][3], file.rows[file.rows[relocations[4]][4]][3]
    named = Counter[str]()
    for at in range(0, len(relocations[3]), 24):
        offset, info, _ = RELA.unpack_from(relocations[3], at)
        name = SYMBOL.unpack_from(symbols, 24 * (info >> 32))[0]
        if offset % 8 == 4:
            named[strings[name : strings.index(b"\0", name)].decode()[len("__SCK__") :]] += 1
    found = static_calls_object(static_calls_of(str(path)), Asked())
    assert found["sites"] == len(file.rows[number][3]) // 8 == sum(named.values())
    assert {row["key"]: row["sites"] for row in found["entries"] if row["sites"]} == dict(named)
    assert found["not_known"] == 0
