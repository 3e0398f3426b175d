"""Functions of the Debian kernels, every one that can be redirected, and of many modules: executed as patched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from ftpatch.arrays import I64
from ftpatch.elf.image import Image, open_image
from ftpatch.plan.decide import make_plan
from ftpatch.plan.redirect import kernel as redirect_kernel
from ftpatch.plan.request import RedirectRequest
from ftpatch.proof.emulate import RedirectExpectation, emulate
from ftpatch.sites.scan import Scan, scan_file
from ftpatch.sites.table import READY, SiteTable
from ftpatch.write import contents
from tools.kernels import Kernel

KERNELS = ["arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid"]
REACH = {"arm64": 1 << 27, "ppc64le": 1 << 25}  # bytes that a `b` reaches (Arm ARM C6.2.26; Power ISA 2.4)
ONE_ENTRY = 200  # functions that go through a stub of their own, each
GetKernel = Callable[[str], Kernel]


class Entries(NamedTuple):
    """A function, where it is called."""

    va: int  # of its symbol: the global entry, where it has two
    local: int

    @property
    def other(self) -> int | None:
        return self.va if self.va != self.local else None


def entries(sites: SiteTable, at: int) -> Entries:
    return Entries(int(sites.entry_va[at]), int(sites.local_va[at]))


def expectation(image: Image, sites: SiteTable, foo: int, bar: Entries) -> RedirectExpectation:
    """What a function must do that became another one of the same kernel, by the ABI alone."""
    own, name = entries(sites, foo), sites.name(foo) or hex(foo)
    near = abs(bar.local - int(sites.body_va[foo])) < REACH[image.arch.name] - 4
    if bar.other is None:
        return RedirectExpectation(name, own.local, bar.local, global_entry=own.other)
    if own.other is None or not near:
        return RedirectExpectation(name, own.local, bar.va, by_global=True, global_entry=own.other)
    return RedirectExpectation(name, own.local, bar.local, toc=image.symbols.value(".TOC."), global_entry=own.other)


def redirected(scan: Scan, foo: I64, bar: I64, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Image, I64]:
    """(the image in which functions are others, the sites that are); two functions that agree in nothing will do."""
    monkeypatch.setattr(redirect_kernel, "refuse_wrong_substitutes",
                        lambda draft, request, types, goals: dict.fromkeys(goals, "not compared"))  # fmt: skip
    sites = scan.sites
    chosen = np.zeros(len(sites), dtype=bool)
    chosen[foo] = True
    to = dict(zip(foo.tolist(), (hex(va) for va in sites.entry_va[bar].tolist()), strict=True))
    plan = make_plan(scan, RedirectRequest(chosen, dict(sorted(to.items())), force_early=True, skip_unpatchable=True))
    with out.open("w+b") as file:
        contents.write(scan.image, plan.edits, file.fileno())
    return open_image(str(out)), plan.index


def ready(scan: Scan) -> I64:
    return np.flatnonzero(scan.sites.status == READY)


@pytest.mark.corpus
@pytest.mark.parametrize("name", KERNELS)
def test_every_function_of_a_debian_kernel_becomes_a_probe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: GetKernel
) -> None:
    """All of them become one function with two entries, where there are such, and that one is left as it is."""
    scan = scan_file(str(kernel(name).vmlinux))
    sites, every = scan.sites, ready(scan)
    probe = next(at for at in every.tolist() if sites.name(at) == "vfs_read")
    foo = every[every != probe]
    image, index = redirected(scan, foo, np.full(len(foo), probe), tmp_path / "out", monkeypatch)
    assert index.tolist() == foo.tolist()
    expected = [expectation(image, sites, at, entries(sites, probe)) for at in index.tolist()]
    outcome = emulate(image, image.arch, expected)
    assert (outcome.failures, outcome.skipped, outcome.n) == ((), "", len(foo)) and outcome.n > 33_000


@pytest.mark.corpus
@pytest.mark.parametrize("name", KERNELS)
def test_random_pairs_of_a_debian_kernel_hold(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: GetKernel
) -> None:
    """Half of all functions become the other half. A stub for each of those with one entry would take long to place."""
    scan = scan_file(str(kernel(name).vmlinux))
    sites, order = scan.sites, np.random.default_rng(1).permutation(ready(scan))
    foo, bar = order[: len(order) // 2], order[len(order) // 2 :][: len(order) // 2]
    by_stub = (sites.entry_va[foo] == sites.local_va[foo]) & (sites.entry_va[bar] != sites.local_va[bar])
    taken = ~by_stub | (np.cumsum(by_stub) <= ONE_ENTRY)
    foo, bar = foo[taken], bar[taken]
    image, index = redirected(scan, foo, bar, tmp_path / "out", monkeypatch)
    goal = dict(zip(foo.tolist(), bar.tolist(), strict=True))
    expected = [expectation(image, sites, at, entries(sites, goal[at])) for at in index.tolist()]
    outcome = emulate(image, image.arch, expected)
    assert (outcome.failures, outcome.skipped, outcome.n) == ((), "", len(index))
    assert len(index) > len(foo) - 100 and len(index) > 14_000
