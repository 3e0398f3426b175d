"""Debian's modules against readelf: what scan says of them, and what enabling one site changes in them.

A sample of each kernel's modules by default; all of them with `make corpus-full`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ftpatch import api
from ftpatch.elf.editor import Editor
from ftpatch.plan.edits import Edits
from ftpatch.plan.request import Against, DisableRequest, EnableRequest
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED, READY
from ftpatch.write import contents
from ftpatch.write.comparison import check_result
from tools import kernels
from tools.kernels import Kernel

pytestmark = pytest.mark.corpus
NAMES = ("arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid")
SAMPLE = 70  # modules of each kernel
RECORDS = ("__patchable_function_entries", "__mcount_loc")
READELF = "aarch64-linux-gnu-readelf"
TABLE = re.compile(r"^Relocation section '\.rela(.*)' at offset")
ROW = re.compile(r"^([0-9a-f]{16})  ([0-9a-f]{16}) (\S+)(?:\s+([0-9a-f]{16}) (.*?) ([+-]) ([0-9a-f]+))?")
SECTION = re.compile(
    r"^\s*\[\s*(\d+)\] (\S*)\s+(\S+)\s+([0-9a-f]{16}) ([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+)\s+([A-Zxop]*) "
)


@dataclass(frozen=True)
class Row:
    """One relocation as readelf prints it."""

    offset: int
    info: str
    kind: str
    value: int
    symbol: str
    addend: int


def readelf(*arguments: object) -> list[str]:
    done = subprocess.run([READELF, *map(str, arguments)], capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode("utf-8", "backslashreplace").splitlines()


def relocations(path: Path) -> dict[str, list[Row]]:
    """Every relocation table by the name of its section."""
    found: dict[str, list[Row]] = {}
    rows: list[Row] = []
    for line in readelf("-rW", path):
        if table := TABLE.match(line):
            rows = found.setdefault(table[1], [])
        elif row := ROW.match(line):
            addend = int(row[7] or "0", 16) * (-1 if row[6] == "-" else 1)
            rows.append(Row(int(row[1], 16), row[2], row[3], int(row[4] or "0", 16), row[5] or "", addend))
    return found


def sections(path: Path) -> list[tuple[str, str, int, int, str]]:
    """(name, type, file position, size, flags) of every section, in order."""
    return [
        (row[2], row[3], int(row[5], 16), int(row[6], 16), row[8])
        for row in map(SECTION.match, readelf("-SW", path))
        if row
    ]


@pytest.fixture(scope="module", params=NAMES)
def debian(request: pytest.FixtureRequest, kernel: Callable[[str], Kernel]) -> Kernel:
    return kernel(request.param)


@pytest.fixture(scope="module")
def sample(debian: Kernel) -> list[Path]:
    tree = kernels.modules(debian.name)
    everything = sorted(path for path in tree.rglob("*.ko*") if path.is_file())
    step = 1 if os.environ.get("CORPUS") == "full" else len(everything) // SAMPLE
    return everything[::step]


@pytest.fixture(scope="module")
def against(debian: Kernel, sample: list[Path]) -> Against:
    """The kernel that will load them."""
    return api.read_against(api.scan(str(sample[0])), [str(debian.vmlinux)])


def unpacked(path: Path, folder: Path) -> tuple[Scan, Path]:
    """A module as ftpatch reads it, and its ELF file alone for readelf."""
    scan = api.scan(str(path))
    plain = folder / "before.ko"
    plain.write_bytes(scan.image.data.tobytes())
    return scan, plain


def test_scan_equals_the_relocations_of_the_record_sections(sample: list[Path], tmp_path: Path) -> None:
    n = 0
    for path in sample:
        scan, plain = unpacked(path, tmp_path)
        rows = [row for name, table in relocations(plain).items() if name in RECORDS for row in table]
        records, image = scan.records, scan.image
        assert [row.offset for row in rows] == [8 * i for i in range(len(rows))], path
        assert records.value.tolist() == [row.value + row.addend for row in rows], path
        places = [image.names[sec] for sec in records.sec.tolist()]
        assert [p for p, row in zip(places, rows, strict=True) if row.symbol.startswith(".")] == [
            row.symbol for row in rows if row.symbol.startswith(".")
        ], path
        assert set(scan.sites.status.tolist()) <= {READY}, path
        n += len(rows)
    assert len(sample) >= SAMPLE
    assert n > 20 * len(sample)


def test_an_edit_that_changes_nothing_gives_the_same_bytes(sample: list[Path]) -> None:
    for path in sample:
        image = api.scan(str(path)).image
        header, patches, tail = Editor(image).finish()
        assert (header, patches, tail) == ([], [], [])
        assert contents.assembled(image, Edits([], tail)) == image.data.tobytes(), path


def test_one_enabled_site_leaves_every_other_relocation_and_every_other_byte_of_a_section_alone(
    against: Against, sample: list[Path], tmp_path: Path
) -> None:
    n = 0
    for path in sample:
        scan, before = unpacked(path, tmp_path)
        ready = np.flatnonzero(scan.sites.status == READY)
        if not len(ready):
            continue
        site = int(ready[len(ready) // 2])
        chosen = np.zeros(len(scan.sites), dtype=bool)
        chosen[site] = True
        plan = api.make_plan(scan, EnableRequest(chosen, against=against))
        after = tmp_path / "after.ko"
        after.write_bytes(contents.assembled(scan.image, plan.edits))
        written = api.scan(str(after))
        check_result(plan, written.image)
        compare_relocations(path, relocations(before), relocations(after), scan, site)
        compare_sections(path, before, after, scan, site)
        n += 1
    assert n >= 0.9 * len(sample)


def compare_relocations(
    path: Path, old: dict[str, list[Row]], new: dict[str, list[Row]], scan: Scan, site: int
) -> None:
    table, home = scan.sites, scan.image.names[int(scan.sites.sec[site])]
    branch = int(table.branch_va[site] - scan.image.base[int(table.sec[site])])
    for name, rows in old.items():
        if name in RECORDS:
            slot = int(table.row[site])
            kept = [row for row in rows if row.offset != 8 * slot]
            expected = [(8 * i, row.info, row.value, row.symbol, row.addend) for i, row in enumerate(kept)]
            assert [(r.offset, r.info, r.value, r.symbol, r.addend) for r in new.get(name, [])] == expected, path
            continue
        changed = [(a, b) for a, b in zip(rows, new[name], strict=False) if a != b]
        more = new[name][len(rows) :]
        if name != home:
            assert (changed, more) == ([], []), path
        elif scan.sites.shape is not None and scan.sites.shape.called:
            assert [(a.offset, a.symbol, b.symbol) for a, b in changed] in (
                [(branch, "_mcount", "ftpatch_call")], [(branch, "_mcount", "ftpatch_call_init")],
            ), path  # fmt: skip
            assert more == [], path
        else:
            assert changed == [], path
            assert [row.offset for row in more if "ABS64" not in row.kind] == [branch], path
            assert all(row.symbol.startswith("ftpatch_") for row in more), path
    assert {name for name in new if name not in old} <= {
        ".text.ftpatch", ".init.text.ftpatch", ".data.ftpatch", home,
    }, path  # fmt: skip


def compare_sections(path: Path, before: Path, after: Path, scan: Scan, site: int) -> None:
    old, new = sections(before), sections(after)
    one, two = before.read_bytes(), after.read_bytes()
    home = int(scan.sites.sec[site])
    start = int(scan.sites.off[site] + scan.sites.site[site])
    for number, (a, b) in enumerate(zip(old, new, strict=False)):
        assert (a[0], a[1], a[4]) == (b[0], b[1], b[4]), path
        if a[1] in ("NOBITS", "NULL") or a[0].startswith(".rela") or a[0] in RECORDS:
            continue
        was, now = one[a[2] : a[2] + a[3]], two[b[2] : b[2] + b[3]]
        if a[0] in (".symtab", ".strtab", ".shstrtab"):
            assert now.startswith(was), path
        else:
            assert len(now) == len(was), path
            differs = np.flatnonzero(np.frombuffer(was, np.uint8) != np.frombuffer(now, np.uint8))
            assert all(number == home and start <= at < start + 8 for at in differs.tolist()), path
    own = [section[0] for section in new[len(old) :] if section[0] != f".rela{scan.image.names[home]}"]
    assert all(".ftpatch" in name for name in own), path


def test_a_disabled_site_is_as_the_compiler_left_it(against: Against, sample: list[Path], tmp_path: Path) -> None:
    """Words, relocations of the code and the set of records come back; what the patch brought along stays, unused."""
    for path in sample:
        scan, before = unpacked(path, tmp_path)
        ready = np.flatnonzero(scan.sites.status == READY)
        if not len(ready):
            continue
        chosen = np.isin(np.arange(len(scan.sites)), ready[:: max(len(ready) // 3, 1)])
        plan = api.make_plan(scan, EnableRequest(chosen, against=against))
        patched, after = tmp_path / "patched.ko", tmp_path / "after.ko"
        patched.write_bytes(contents.assembled(scan.image, plan.edits))
        there = api.scan(str(patched))
        enabled = there.sites.status == ENABLED
        assert int(enabled.sum()) == int(chosen.sum()), path
        change = api.make_plan(there, DisableRequest(enabled))
        after.write_bytes(contents.assembled(there.image, change.edits))
        back = api.scan(str(after))
        check_result(change, back.image)
        called = scan.sites.shape is not None and scan.sites.shape.called
        places = set(zip(scan.records.sec.tolist(), scan.records.off.tolist(), strict=True))
        left = (
            {(int(scan.records.sec[i]), int(scan.records.off[i])) for i in np.flatnonzero(chosen)} if called else set()
        )
        assert set(zip(back.records.sec.tolist(), back.records.off.tolist(), strict=True)) == places - left, path
        if not called:
            old, new = relocations(before), relocations(after)
            homes = {scan.image.names[sec] for sec in np.unique(scan.sites.sec[chosen]).tolist()}
            assert all(new.get(name, []) == old.get(name, []) for name in homes), path


def other_readers(path: Path) -> Iterator[tuple[str, int, int, str, int]]:
    """(section, offset, type, symbol, addend) of every relocation, by lief."""
    import lief

    binary = lief.ELF.parse(str(path))
    assert isinstance(binary, lief.ELF.Binary)
    for row in binary.relocations:
        assert row.symbol is not None
        section = row.section.name if row.section else ""
        yield str(section), row.address, int(row.type) & 0xFFFF, str(row.symbol.name), row.addend


@pytest.mark.filterwarnings("ignore:.*is not a valid TYPE")  # lief 1.0 on ppc64's numbers
def test_lief_reads_the_same_relocations_as_readelf_from_a_patched_module(
    against: Against, sample: list[Path], tmp_path: Path
) -> None:
    for path in sample[:: len(sample) // 5]:
        scan, _ = unpacked(path, tmp_path)
        ready = np.flatnonzero(scan.sites.status == READY)
        if len(ready):
            chosen = np.isin(np.arange(len(scan.sites)), ready[:3])
            plan = api.make_plan(scan, EnableRequest(chosen, against=against))
            after = tmp_path / "after.ko"
            after.write_bytes(contents.assembled(scan.image, plan.edits))
            found = sorted((offset, kind, addend) for _, offset, kind, _, addend in other_readers(after))
            rows = [row for table in relocations(after).values() for row in table]
            assert found == sorted((r.offset, int(r.info[8:], 16), r.addend) for r in rows), path
