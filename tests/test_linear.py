"""Files with far too many of something: time and memory grow with their size, and no faster.

Each of these took minutes once; the limit of time is many times what is needed now.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from elfwriter import MINI
from limits import limited

from ftpatch import rules
from ftpatch.cli import run
from ftpatch.compare import digest
from ftpatch.elf import functions
from ftpatch.elf.tables import EHDR, RELA, SHDR, SYM
from ftpatch.explanation import function, untraceable
from ftpatch.plan.redirect.refusals import refuse_loops
from ftpatch.proof import lief_check
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file

Capture = pytest.CaptureFixture[str]
SECONDS = 30
RECORDS = "__patchable_function_entries"
MODULE, KERNEL = MINI / "mini.ko", MINI / "vmlinux-callops"


class File:
    """A file whose sections can be replaced and added to: what is new stands behind what was there."""

    def __init__(self, source: Path) -> None:
        self.data = bytearray(source.read_bytes())
        self.ehdr = np.frombuffer(self.data, EHDR, 1).copy()
        self.shdr = np.frombuffer(self.data, SHDR, int(self.ehdr["e_shnum"][0]), int(self.ehdr["e_shoff"][0])).copy()
        names = self.content(int(self.ehdr["e_shstrndx"][0]))
        self.names = [names[at : names.index(b"\0", at)].decode() for at in self.shdr["sh_name"].tolist()]

    def content(self, number: int) -> bytes:
        start, size = int(self.shdr["sh_offset"][number]), int(self.shdr["sh_size"][number])
        return bytes(self.data[start : start + size])

    def rows(self, name: str, dtype: np.dtype[np.void]) -> np.ndarray:
        return np.frombuffer(self.content(self.names.index(name)), dtype)

    def put(self, name: str, content: bytes) -> None:
        self.data += bytes(-len(self.data) % 16)
        number = self.names.index(name)
        self.shdr["sh_offset"][number], self.shdr["sh_size"][number] = len(self.data), len(content)
        self.data += content

    def write(self, path: Path) -> str:
        self.data += bytes(-len(self.data) % 16)
        n = len(self.shdr)
        self.ehdr["e_shoff"], self.ehdr["e_shnum"] = len(self.data), n if n < 0xFF00 else 0
        if n >= 0xFF00:
            self.shdr["sh_size"][0] = n  # gABI, 4: the header has no room for it
        self.data[: EHDR.itemsize] = self.ehdr.tobytes()
        path.write_bytes(self.data + self.shdr.tobytes())
        return str(path)


def with_sections(n: int, path: Path) -> str:
    """A module with so many empty sections of code more."""
    file = File(MODULE)
    more = np.repeat(file.shdr[file.names.index(".text")][None], n)
    more["sh_size"] = 0
    file.shdr = np.concatenate([file.shdr, more])
    return file.write(path)


def with_symbols(source: Path, n: int, path: Path) -> str:
    """A file with so many function symbols more, all of one name and at one address."""
    file = File(source)
    symbols = file.rows(".symtab", SYM)
    first = symbols[((symbols["st_info"] & 15) == 2) & (symbols["st_shndx"] != 0)][:1].copy()
    first["st_info"] = 0x12  # global
    file.put(".symtab", symbols.tobytes() + np.repeat(first, n).tobytes())
    return file.write(path)


def with_records(n: int, path: Path) -> str:
    """A module with so many records more, at every word of its text again and again."""
    file = File(MODULE)
    content = file.content(file.names.index(RECORDS))
    file.put(RECORDS, content + bytes(8 * n))
    rows = file.rows(f".rela{RECORDS}", RELA)
    more = np.repeat(rows[:1], n)
    more["r_offset"], more["r_addend"] = len(content) + np.arange(n) * 8, np.arange(n) * 4 % 160
    file.put(f".rela{RECORDS}", rows.tobytes() + more.tobytes())
    return file.write(path)


def test_more_sections_than_a_header_counts(tmp_path: Path, capsys: Capture) -> None:
    """For each section all headers were searched for its relocations; and above 65,280 sections, whose number stands in
    the first header, the result was refused as a fault of this program."""
    source, out = with_sections(66_000, tmp_path / "m.ko"), str(tmp_path / "out.ko")
    with limited(SECONDS):
        assert run(["enable", source, "--func", "mini_step", "-o", out]) == 0
        assert run(["verify", source, out]) == 0
    assert "1 enabled" in capsys.readouterr().out


@pytest.mark.parametrize("source", [MODULE, KERNEL], ids=["module", "kernel"])
def test_symbols_of_one_name_and_address(source: Path, tmp_path: Path, capsys: Capture) -> None:
    path, name = with_symbols(source, 150_000, tmp_path / "x"), "mini_step" if source is MODULE else "vfs_read"
    with limited(SECONDS):
        assert run(["diff", path, path]) == 0
        assert run(["scan", path]) == 0
        assert run(["explain", name, path]) == 0
    assert name in capsys.readouterr().out


def test_a_way_through_many_redirects() -> None:
    """Each function followed the whole way that was left to the end: 40,000 in a row took minutes."""
    n, refused = 40_000, []
    sites = SimpleNamespace(entry_va=np.arange(n + 1, dtype=np.uint64), redirects={})
    draft: Any = SimpleNamespace(scan=SimpleNamespace(sites=sites), refuse=lambda index, why: refused.extend(index))
    with limited(SECONDS):
        refuse_loops(draft, {site: site + 1 for site in range(n)})
        assert refused == []
        refuse_loops(draft, {site: (site + 1) % n for site in range(n)})
    assert refused == list(range(n))


def test_findings_are_told_one_by_one_up_to_a_limit(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million findings took a gigabyte. All are counted."""
    monkeypatch.setattr(rules, "MAX_FINDINGS", 1000)
    path = with_records(5000, tmp_path / "m.ko")
    with limited(SECONDS):
        assert run(["check", path, "--select", "duplicate", "--layout", "callops"]) == 1
    out = capsys.readouterr().out
    assert "  error duplicate: 4962 findings\n" in out and "      … and 998 more\n" in out


def test_names_that_share_a_tail_of_megabytes(tmp_path: Path, capsys: Capture) -> None:
    """lief copies each name to its end: these would have 40 GB together."""
    file = File(MODULE)
    symbols, names = file.rows(".symtab", SYM), file.content(file.names.index(".strtab"))
    more = np.repeat(symbols[-1:], 4000)
    more["st_name"] = len(names) + np.arange(len(more)) * 600
    file.put(".symtab", symbols.tobytes() + more.tobytes())
    file.put(".strtab", names + b"a" * (10 << 20) + b"\0")
    path = file.write(tmp_path / "m.ko")
    with limited(SECONDS):
        assert run(["verify", path, path]) == 0
    assert "none (lief reads each name to its end, and they have too many characters)" in capsys.readouterr().out


@pytest.mark.parametrize(("make", "n"), [(with_records, 4200), (lambda n, path: with_symbols(MODULE, n, path), 4200)])
def test_lief_is_not_asked_where_its_objects_take_too_much(
    make: Callable[[int, Path], str], n: int, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million relocations in 32 MB took it 1.2 GB."""
    monkeypatch.setattr(lief_check, "FREE_MEMORY", 0)
    path = make(2000, tmp_path / "m.ko")
    assert run(["verify", path, path, "--layout", "callops"]) == 0
    line = f"second reader: none (lief makes an object of each symbol and relocation, and {n} are too many for files of"
    assert line in capsys.readouterr().out


def test_a_comparison_of_too_many_functions_is_refused(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is an object: ten million took a minute and 3 GB."""
    monkeypatch.setattr(digest, "MAX_FUNCTIONS", 1000)
    path = with_symbols(MODULE, 1000, tmp_path / "m.ko")
    assert run(["diff", path, path]) == 4
    line = "too many functions to compare: found 1010, expected at most 1000 – docs/limits.md has all"
    assert capsys.readouterr().err == f"ftpatch: {path}: {line}\n"


def test_functions_are_looked_at_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words at the entries of ten million functions took 2 GB at once; what is told of each stays the same."""
    scan = scan_file(with_symbols(KERNEL, 100, tmp_path / "x"))
    whole = [column.tolist() for column in untraceable.states(scan.image, scan.sites)]
    monkeypatch.setattr(untraceable, "SLICE", 7)
    assert [column.tolist() for column in untraceable.states(scan.image, scan.sites)] == whole


def test_fewer_sites_are_explained_where_a_file_has_very_many(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each a plan is made, which goes through the whole table."""
    monkeypatch.setattr(function, "MAX_ROWS", 20_000)
    path = with_records(5000, tmp_path / "m.ko")
    assert run(["explain", "*", path, "--layout", "callops"]) == 0
    assert "sites; the first 3 are explained" in capsys.readouterr().err


def test_culprits_of_a_refusal_are_shown_up_to_a_limit(tmp_path: Path, capsys: Capture) -> None:
    path = with_records(20_000, tmp_path / "m.ko")
    with limited(SECONDS):
        code = run(["enable", path, "--func", "*", "--layout", "callops", "-o", str(tmp_path / "out")])
    lines = capsys.readouterr().err.splitlines()
    assert code == 5 and len(lines) == 1002
    assert lines[-2].startswith("  … and ") and lines[-2].endswith(" more")


def test_the_order_of_very_many_names_of_one_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting ten million names took ten times the file's size; whether a name is weak is still asked."""
    file = File(KERNEL)
    symbols = file.rows(".symtab", SYM)
    first = symbols[((symbols["st_info"] & 15) == 2) & (symbols["st_shndx"] != 0)][:1]
    more = np.repeat(first, 10)
    more["st_info"] = [0x22, 0x12] * 5  # weak, global
    more["st_value"] += 4
    file.put(".symtab", symbols.tobytes() + more.tobytes())
    path, n = file.write(tmp_path / "x"), len(symbols)
    monkeypatch.setattr(functions, "MAX_RANKED", 9)
    rows = open_image(path).functions.row.tolist()
    at = rows.index(n + 1)
    assert rows[at : at + 10] == [n + 1, n + 3, n + 5, n + 7, n + 9, n, n + 2, n + 4, n + 6, n + 8]


@pytest.mark.parametrize("size", [(2 << 20) * 8 + 8, 256 << 20, 1 << 40])
def test_a_sparse_record_table_is_refused(size: int, tmp_path: Path, capsys: Capture) -> None:
    """It costs nothing to make; each slot took 250 bytes."""
    file = File(MODULE)
    start, path = len(file.data) + 4096, tmp_path / "m.ko"
    number = file.names.index(RECORDS)
    file.shdr["sh_offset"][number], file.shdr["sh_size"][number] = start, size
    file.write(path)
    with path.open("r+b") as out:
        out.truncate(start + size)
    line = f"found {size // 8} slots, expected at most 2097152 – docs/limits.md has all limits\n"
    with limited(SECONDS, 400 << 20):
        for verb in (
            ["scan"],
            ["explain", "mini_step"],
            ["enable", "--func", "mini_step", "-o", str(tmp_path / "out")],
        ):
            assert run([verb[0], *verb[1:2], str(path)] if verb[0] == "explain" else [*verb, str(path)]) in (3, 4)
            err = capsys.readouterr().err
            assert err.count("\n") == 1 and (line in err or "there is not enough memory to read it" in err)
