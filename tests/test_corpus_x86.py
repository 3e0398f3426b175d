"""Debian's x86_64 kernels and modules against an independent reading: binutils, and bytes by struct."""

from __future__ import annotations

import bisect
import json
import lzma
import re
import struct
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftpatch import api
from ftpatch.kernel.boot import oracle
from tools import kernels
from tools.kernels import Kernel

pytestmark = pytest.mark.corpus
NAMES = ("x86_64-6.1", "x86_64-6.12")
SYMBOL = re.compile(r"\s*\d+: ([0-9a-f]{16})\s+(\S+)\s+(\S+)\s+(\S+)\s+\S+\s+(\d+)\s+(\S+)$")
SECTION = re.compile(r"\s*\[\s*(\d+)\] (\S+)\s+\S+\s+([0-9a-f]{16}) ([0-9a-f]+) ([0-9a-f]+) ")
RELOCATION = re.compile(r"^([0-9a-f]{16})  [0-9a-f]{16} (\S+)\s+[0-9a-f]{16} (\S+)(?: \+ ([0-9a-f]+))?$")
ENDBR, INVALID = bytes.fromhex("f30f1efa"), "__ftrace_invalid_address__"
STEP = 40  # of the modules one in so many
Scan = dict[str, Any]


def readelf(*arguments: object) -> list[str]:
    done = subprocess.run(["readelf", *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@dataclass(frozen=True)
class Reading:
    """What readelf and the bytes say of a vmlinux."""

    path: Path
    symbols: dict[str, int]
    functions: dict[int, set[str]]  # by address, without padding
    spans: list[tuple[int, int, int]]  # va, file position and size of the sections
    values: list[int]  # of the slots

    def read(self, va: int, size: int) -> bytes:
        start, pos = next((start, pos) for start, pos, n in self.spans if start <= va < start + n)
        with self.path.open("rb") as file:
            file.seek(pos + va - start)
            return file.read(size)


@pytest.fixture(scope="module", params=NAMES)
def reading(request: pytest.FixtureRequest, kernel: Callable[[str], Kernel]) -> Reading:
    path = kernel(request.param).vmlinux
    symbols: dict[str, int] = {}
    functions: dict[int, set[str]] = defaultdict(set)
    for found in filter(None, map(SYMBOL.match, readelf("-sW", path))):
        value, name = int(found[1], 16), found[6]
        symbols[name] = value
        if found[3] == "FUNC" and not name.startswith("__pfx_"):
            functions[value].add(name)
    rows = [found for found in map(SECTION.match, readelf("-SW", path)) if found and int(found[3], 16)]
    spans = [(int(row[3], 16), int(row[4], 16), int(row[5], 16)) for row in rows if row[2] != ".bss"]
    empty = Reading(path, symbols, functions, spans, [])
    start, stop = symbols["__start_mcount_loc"], symbols["__stop_mcount_loc"]
    values = list(struct.unpack(f"<{(stop - start) // 8}Q", empty.read(start, stop - start)))
    return Reading(path, symbols, functions, spans, values)


@pytest.fixture(scope="module")
def texts(reading: Reading) -> dict[int, bytes]:
    """Nine bytes around each record: four in front of the call, and the call."""
    start, end = reading.symbols["_stext"], reading.symbols["_etext"]
    first, last = reading.symbols["_sinittext"], reading.symbols["_einittext"]
    code = {low: reading.read(low, high - low) for low, high in ((start, end), (first, last))}
    lows = sorted(code)
    found = {}
    for value in filter(None, reading.values):
        low = lows[bisect.bisect_right(lows, value) - 1]
        found[value] = code[low][value - low - 4 : value - low + 5]
    return found


@pytest.fixture(scope="module")
def scan(reading: Reading) -> Scan:
    import contextlib
    import io

    from ftpatch.cli import run

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run(["scan", str(reading.path), "--format", "json"]) == 0
    image: Scan = json.loads(out.getvalue())["images"][0]
    return image


def kallsyms(reading: Reading) -> tuple[list[int], list[str]]:
    """Addresses and names of the kernel's own table, as scripts/kallsyms.c writes it since Linux 6.1."""
    at, n = reading.symbols, struct.unpack("<I", reading.read(reading.symbols["kallsyms_num_syms"], 4))[0]
    index = struct.unpack("<256H", reading.read(at["kallsyms_token_index"], 512))
    table = reading.read(at["kallsyms_token_table"], 1 << 14)
    tokens = [table[start : table.index(b"\0", start)] for start in index]
    (base,) = struct.unpack("<Q", reading.read(at["kallsyms_relative_base"], 8))
    offsets = struct.unpack(f"<{n}i", reading.read(at["kallsyms_offsets"], 4 * n))
    packed, place, names = reading.read(at["kallsyms_names"], 8 << 20), 0, []
    for _ in range(n):
        size, place = packed[place], place + 1
        if size & 0x80:
            size, place = size & 0x7F | packed[place] << 7, place + 1
        names.append(b"".join(tokens[code] for code in packed[place : place + size])[1:].decode())
        place += size
    return [offset if offset >= 0 else base - 1 - offset for offset in offsets], names


def test_every_slot_is_the_word_in_the_file(reading: Reading, scan: Scan) -> None:
    assert [int(site["record"], 16) for site in scan["sites"]] == reading.values
    assert [site["row"] for site in scan["sites"]] == list(range(len(reading.values)))
    assert (scan["layout"], scan["carrier"]) == ("fentry", "word")
    assert scan["summary"]["null"] == reading.values.count(0)
    assert not {"patched", "redirected", "unrecorded", "padding"} & set(scan["summary"])


def test_every_site_is_a_call_of_fentry_at_a_functions_entry(
    reading: Reading, texts: dict[int, bytes], scan: Scan
) -> None:
    """The call's target, the endbr64 in front of it and the names at the entry, all from bytes and readelf."""
    fentry, with_endbr = reading.symbols["__fentry__"], 0
    for site in scan["sites"]:
        value = int(site["record"], 16)
        if not value:
            assert (site["status"], site["function"], site["words"]) == ("null", None, [])
            continue
        around = texts[value]
        behind = around[:4] == ENDBR and value - 4 in reading.functions
        names = reading.functions.get(value - 4 if behind else value, set())
        assert around[4] == 0xE8 and value + 5 + int.from_bytes(around[5:], "little", signed=True) == fentry
        assert site["words"] == ["0x" + around[4:].hex()]
        assert {*filter(None, [site["function"]]), *site["aliases"]} == names, site
        assert site["status"] == ("ready" if names else "weak-leftover"), site
        assert int(site["entry"], 16) == (value - 4 if behind else value)
        with_endbr += behind
    assert scan["summary"]["with_skip"] == with_endbr


def test_leftovers_lie_in_no_function(reading: Reading, scan: Scan) -> None:
    left = [site for site in scan["sites"] if site["status"] == "weak-leftover"]
    assert {site["listed_as"] for site in left} <= {INVALID}
    sorted_table = scan["summary"]["null"] > 0
    assert bool(left) != sorted_table, "the build of the newer kernel empties their slots"
    assert len(left) == len([value for value in reading.values
                             if value and not reading.functions.keys() & {value, value - 4}])  # fmt: skip


def test_the_list_is_what_the_kernels_own_kallsyms_say(reading: Reading, scan: Scan) -> None:
    """Name by name: of three at one address the kernel's first, and what lies too far behind one is invalid."""
    addresses, names = kallsyms(reading)
    live = sorted(filter(None, reading.values))
    expected = []
    for value in live:
        at = bisect.bisect_left(addresses, addresses[bisect.bisect_right(addresses, value) - 1])
        off = value - addresses[at]
        expected.append(names[at] if off <= 4 else f"{INVALID}_{off}")
    found = oracle(api.scan(str(reading.path)))
    assert found is not None and found.bugs == ()
    assert list(found.listed_before) == expected
    text = [name for name, value in zip(expected, live, strict=True) if value < reading.symbols["_etext"]]
    assert list(found.listed_after) == text
    assert "__do_sys_getppid" in text and "__x64_sys_getppid" not in text
    counts_all = scan["summary"]["null"] == 0
    assert scan["summary"]["boot"] == {
        "allocating": len(reading.values) if counts_all else len(live), "listed": len(text),
    }  # fmt: skip


def test_records_of_modules_are_what_readelf_shows(reading: Reading, tmp_path: Path) -> None:
    """Padding of all functions is listed beside them, in some modules alone."""
    tree, n, padded = kernels.modules(reading.path.parent.name), 0, 0
    for path in sorted(path for path in tree.rglob("*.ko*") if path.is_file())[::STEP]:
        plain = tmp_path / "plain.ko"
        plain.write_bytes(lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes())
        rows: dict[str, list[tuple[str, int]]] = defaultdict(list)
        table = ""
        for line in readelf("-rW", plain):
            if line.startswith("Relocation section"):
                table = line.split("'")[1]
            elif found := RELOCATION.match(line):
                rows[table].append((found[3], int(found[4] or "0", 16)))
        one = api.scan(str(path))
        places = [one.image.names[sec] for sec in one.records.sec.tolist()]
        assert list(zip(places, one.records.off.tolist(), strict=True)) == rows[".rela__mcount_loc"], path
        assert {*one.sites.status.tolist()} <= {0}, path  # ready
        assert len(one.sites) == len(one.records), path
        n, padded = n + len(one.records), padded + len(rows[".rela__patchable_function_entries"])
    assert n > 500 and (padded > n) == (reading.path.parent.name == "x86_64-6.12")


def test_modules_with_padding_alone_have_no_records(kernel: Callable[[str], Kernel]) -> None:
    """They are built without -pg, and were refused as of an unknown layout."""
    kernel("x86_64-6.12")
    path = kernels.modules("x86_64-6.12") / "kernel/lib/crc-itu-t.ko.xz"
    one = api.scan(str(path))
    assert (len(one.records), len(one.sites), one.sites.shape) == (0, 0, None)


def test_diff_of_two_series_counts_what_both_have(
    kernel: Callable[[str], Kernel], capsys: pytest.CaptureFixture[str]
) -> None:
    from ftpatch.cli import run

    old, new = (kernel(name).vmlinux for name in NAMES)
    assert run(["diff", str(old), str(new), "--format", "json"]) == 1
    (image,) = json.loads(capsys.readouterr().out)["images"]
    summary, before = image["summary"], image["compared"]["summary"]
    rules = {one["rule"] for one in image["findings"]}
    assert {"diff-lost", "diff-removed", "diff-gained", "diff-added", "diff-count"} <= rules
    figures = {one["message"].split(" (")[0] for one in image["findings"] if one["rule"] == "diff-count"}
    assert f"live: {before['live']} -> {summary['live']}" in figures and "null: 0 -> " in " ".join(figures)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("exc_page_fault", "noinstr, which is never traced"),
        ("__SCT__pv_sched_clock", "the trampoline of a static call, whose sites ftpatch static-calls --key "
                                  "pv_sched_clock tells"),
        ("__pfx_vfs_read", "padding in front of a function, which the symbol is named after: no function itself"),
        ("list_add", "inlined everywhere"),
        ("x86_64_start_kernel", "its unit arch/x86/kernel/head64.c (gcc "),
    ],
)  # fmt: skip
def test_explain_knows_why_a_function_has_no_site(
    name: str, why: str, kernel: Callable[[str], Kernel], ftpatch: Callable[..., str]
) -> None:
    told = json.loads(ftpatch("explain", name, kernel("x86_64-6.12").vmlinux, "--format", "json"))
    assert told["images"][0]["absent"]["text"].startswith(why)


def test_explain_shows_the_instructions_of_a_site(
    kernel: Callable[[str], Kernel], ftpatch: Callable[..., str]
) -> None:  # fmt: skip
    told = json.loads(ftpatch("explain", "vfs_read", kernel("x86_64-6.12").vmlinux, "--format", "json"))
    (site,) = told["images"][0]["explained"]
    (words,) = [block["words"] for block in site["code"]]
    assert [(row["text"].split()[0], row["at"]) for row in words[:2]] == [
        ("endbr64", "entry"), ("call", "record, call"),
    ]  # fmt: skip
    assert words[1]["text"].endswith("<__fentry__>") and words[1]["new_text"].endswith("<ftrace_caller>")
    assert not any(row["text"].startswith(".byte") for row in words)
