"""The kernels that `make bench` makes itself, and what it says of costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from elfwriter import parsed
from limits import limited

from ftpatch.cli import run
from tools import bench_against, bench_sites, synthetic
from tools.bench_cost import Cost


@pytest.mark.parametrize("name", synthetic.MACHINES)
def test_a_synthetic_kernel_is_one_that_every_verb_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    synthetic.vmlinux(Path("vmlinux"), synthetic.MACHINES[name], 12)
    symbols = parsed(Path("vmlinux").read_bytes()).get_section_by_name(".symtab")
    functions = {symbol.name: symbol["st_value"] for symbol in symbols.iter_symbols() if symbol.name.startswith("f0")}
    start = synthetic.MACHINES[name].base + synthetic.FIRST
    assert functions == {f"f{n:07}": start + 24 * n for n in range(12)}
    assert run(["scan", "vmlinux"]) == 0
    assert "  records    20 slots, 8 null, 12 live\n" in capsys.readouterr().out
    assert run(["check", "vmlinux"]) == 0
    assert run(["enable", "vmlinux", "--func", "*", "-o", "patched"]) == 0
    capsys.readouterr()
    assert run(["verify", "vmlinux", "patched"]) == 0
    assert "  sites      12 enabled\n" in capsys.readouterr().out


def test_records_that_leave_are_looked_up_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each one was searched for among all of them: dropping 44,000 took minutes, dropping 30,000 one."""
    monkeypatch.chdir(tmp_path)
    synthetic.vmlinux(Path("vmlinux"), synthetic.MACHINES["arm64"], 30_000)
    with limited(20):
        assert run(["drop", "vmlinux", "--all-but", "f0000007", "-o", "patched", "--report", "json=j"]) == 0
        assert run(["verify", "vmlinux", "patched", "--journal", "j"]) == 0
    assert "  sites      29999 dropped from the record table\n" in capsys.readouterr().out


def test_what_a_site_costs_is_what_more_sites_cost_more() -> None:
    start, many = Cost(9.0, 0.5, 50_000), Cost(9.0, 2.5, 150_000)
    assert bench_sites.each(many, start, 100_000) == (20.0, 1024.0)


def test_a_verb_that_got_slower_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Processor time counts, not the clock: the median of the rounds, the first of them left out."""
    here = bench_against.HERE
    seconds = {
        ("scan", "there"): iter((9.0, 1.0, 1.0, 5.0, 1.0, 1.0)), ("scan", here): iter((9.0, *[1.09] * 5)),
        ("diff", "there"): iter((9.0, *[1.0] * 5)), ("diff", here): iter((9.0, 1.2, 1.2, 0.0, 0.0, 1.2)),
    }  # fmt: skip
    monkeypatch.setattr(
        bench_against, "measure", lambda argv, folder: Cost(2.0, float(next(seconds[argv[4], folder])), 40_000)
    )
    assert bench_against._table("name", "there", {"scan": ["scan"], "diff": ["diff"]}) == ["diff of name"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("SLOWER") for line in lines] == [False, False, False, True]
    assert "1.000 s   1.090 s  1.09 x" in lines[2]
