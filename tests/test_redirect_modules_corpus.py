"""Redirects in Debian's modules: what they change of a module, and that `disable` gives it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_modules_corpus import RECORDS, debian, relocations, sample, unpacked

from ftpatch import api
from ftpatch.elf.relocations import relocations_of
from ftpatch.errors import PlanError
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import DisableRequest, RedirectRequest
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import READY
from ftpatch.write import contents
from ftpatch.write.comparison import check_result

__all__ = ["debian", "sample"]  # fixtures
pytestmark = pytest.mark.corpus
LEFT_OUT = {"_mcount", "__stack_chk_fail", *NORETURN}


def imported(scan: Scan) -> list[str]:
    """The functions of other files that the module calls."""
    image, symbols, names = scan.image, scan.image.symbols, dict[str, None]()
    for sec in np.flatnonzero(image.executable).tolist():
        rows = relocations_of(image, sec)
        called = rows.symbol[np.isin(rows.kind, image.arch.loader.calls)]
        names |= dict.fromkeys(symbols.name(row) for row in called.tolist() if symbols.shndx[row] == 0)
    return [name for name in names if name not in LEFT_OUT]


def redirect(scan: Scan, to: str) -> Plan | None:
    """Some of the module's functions become another, if that may take their place."""
    ready = np.flatnonzero(scan.sites.status == READY)
    chosen = np.isin(np.arange(len(scan.sites)), ready[:: max(len(ready) // 8, 1)])
    goals = dict.fromkeys(np.flatnonzero(chosen).tolist(), to)
    try:
        return api.make_plan(scan, RedirectRequest(
            chosen, goals, force_signature=True, assume_register_args=True, skip_unpatchable=True
        ))  # fmt: skip
    except PlanError:  # init text, a function that never returns
        return None


@pytest.mark.parametrize("outside", [False, True])
def test_redirected_functions_of_a_module_and_back(sample: list[Path], outside: bool, tmp_path: Path) -> None:
    n = 0
    for path in sample[::2]:
        scan, before = unpacked(path, tmp_path)
        ready = np.flatnonzero(scan.sites.status == READY)
        names = imported(scan) if outside else list(filter(None, map(scan.sites.name, ready.tolist())))
        plan = redirect(scan, names[len(names) // 2]) if names and len(ready) else None
        if plan is None or not len(plan.index):
            continue
        patched, after = tmp_path / "patched.ko", tmp_path / "after.ko"
        patched.write_bytes(contents.assembled(scan.image, plan.edits))
        there = api.scan(str(patched))
        check_result(plan, there.image)
        assert int(there.sites.redirected.sum()) == len(plan.index), path
        old, new = relocations(before), relocations(patched)
        own = {int(scan.sites.body_va[site] - scan.image.base[scan.sites.sec[site]]) for site in plan.index.tolist()}
        for name, rows in old.items():
            if name not in RECORDS:
                assert {row.offset for row in set(new[name]) - set(rows)} <= own, path
        back = api.make_plan(there, DisableRequest(there.sites.redirected))
        after.write_bytes(contents.assembled(there.image, back.edits))
        check_result(back, api.scan(str(after)).image)
        if scan.sites.shape is not None and not scan.sites.shape.called:
            again = relocations(after)
            assert all(again.get(name, []) == rows for name, rows in old.items() if name not in RECORDS), path
        n += 1
    assert n > len(sample) // 4
