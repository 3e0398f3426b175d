"""Functions of the Debian kernels, every one that can be redirected, and of many modules: executed as patched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from ftpatch.arrays import I64
from ftpatch.elf.image import Image
from ftpatch.plan.decide import make_plan, plan_redirect
from ftpatch.plan.plan import Plan
from ftpatch.plan.redirect import kernel as redirect_kernel
from ftpatch.plan.request import RedirectRequest
from ftpatch.proof.emulate import RedirectExpectation, emulate
from ftpatch.proof.emulate.loader import Loaded, load_module
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import Scan, scan_file
from ftpatch.sites.table import READY, SiteTable
from ftpatch.write import contents
from tools.kernels import Kernel, modules

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
    return RedirectExpectation(name, own.local, bar.local, by_local=True, global_entry=own.other)


def redirected(scan: Scan, foo: I64, bar: I64, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Image, I64]:
    """(the image in which functions are others, the sites that are); two functions that agree in nothing will do."""
    monkeypatch.setattr(redirect_kernel, "refuse_wrong_substitutes",
                        lambda draft, request, types, goals: dict.fromkeys(goals, "not compared"))  # fmt: skip
    sites = scan.sites
    chosen = np.zeros(len(sites), dtype=bool)
    chosen[foo] = True
    to = dict(zip(foo.tolist(), (hex(va) for va in sites.entry_va[bar].tolist()), strict=True))
    plan = make_plan(scan, RedirectRequest(chosen, dict(sorted(to.items())), force_early=True, skip_unpatchable=True))
    return patched(plan, out), plan.index


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
    """Half of all functions become the other half."""
    scan = scan_file(str(kernel(name).vmlinux))
    order = np.random.default_rng(1).permutation(ready(scan))
    half = len(order) // 2
    assert n_of_pairs_that_hold(scan, order[:half], order[half:][:half], tmp_path / "out", monkeypatch) > 14_000


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["arm64-6.12", "ppc64le-6.12"])
def test_every_function_of_a_debian_kernel_becomes_the_next_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: GetKernel
) -> None:
    """One way through all of them: each is a target, too, and is redirected in turn."""
    scan = scan_file(str(kernel(name).vmlinux))
    order = np.random.default_rng(1).permutation(ready(scan))
    assert n_of_pairs_that_hold(scan, order[:-1], order[1:], tmp_path / "out", monkeypatch) > 30_000


def n_of_pairs_that_hold(scan: Scan, foo: I64, bar: I64, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many functions were redirected, all of which must hold. Of those that need a stub of their own a few will do:
    it would take long to find places for all of them."""
    sites = scan.sites
    by_stub = (sites.entry_va[foo] == sites.local_va[foo]) & (sites.entry_va[bar] != sites.local_va[bar])
    taken = ~by_stub | (np.cumsum(by_stub) <= ONE_ENTRY)
    foo, bar = foo[taken], bar[taken]
    image, index = redirected(scan, foo, bar, out, monkeypatch)
    goal = dict(zip(foo.tolist(), bar.tolist(), strict=True))
    expected = [expectation(image, sites, at, entries(sites, goal[at])) for at in index.tolist()]
    outcome = emulate(image, image.arch, expected)
    assert (outcome.failures, outcome.skipped, outcome.n) == ((), "", len(index))
    assert len(index) > len(foo) - 100
    return len(index)


# -- modules -------------------------------------------------------------------------------------------------------

N_MODULES, MOST_SITES = 30, 300


def small_modules(name: str) -> Iterator[Scan]:
    """Modules of all kinds that have a few sites, the same ones each time."""
    paths = sorted(modules(name).glob("kernel/**/*.ko*"))
    for at in np.random.default_rng(1).permutation(len(paths)).tolist():
        scan = scan_file(str(paths[at]))
        if 1 < len(ready(scan)) <= MOST_SITES:
            yield scan


def patched(plan: Plan, out: Path) -> Image:
    with out.open("w+b") as file:
        contents.write(plan.scan.image, plan.edits, file.fileno())
    return open_image(str(out))


def loaded_entries(sites: SiteTable, at: int, loaded: Loaded) -> Entries:
    """Where a site's function is called in the loaded module: its section keeps its number."""
    sec = int(sites.sec[at])
    assert loaded.image.names[sec] == sites.image.names[sec]
    moved = loaded.base[sec] - int(sites.image.base[sec])
    return Entries(int(sites.entry_va[at]) + moved, int(sites.local_va[at]) + moved)


def to_export(sites: SiteTable, export: str, loaded: Loaded, foo: int) -> RedirectExpectation:
    """What a function of a module must do that became one of the kernel's."""
    own, framed = loaded_entries(sites, foo, loaded), loaded.image.arch.name == "ppc64le"
    return RedirectExpectation(sites.name(foo) or hex(foo), own.local, loaded.fakes[export], by_global=framed,
                               framed=framed, global_entry=own.other)  # fmt: skip


def to_other(sites: SiteTable, goals: dict[int, int], loaded: Loaded, foo: int) -> RedirectExpectation:
    """What a function of a module must do that became another one of the same module."""
    own, goal = loaded_entries(sites, foo, loaded), loaded_entries(sites, goals[foo], loaded)
    name = sites.name(foo) or hex(foo)
    if goal.other is None:
        return RedirectExpectation(name, own.local, goal.local, global_entry=own.other)
    if own.other is None:
        return RedirectExpectation(name, own.local, goal.va, by_global=True)
    return RedirectExpectation(name, own.local, goal.local, by_local=True, global_entry=own.other)


def n_that_hold(plan: Plan, out: Path, expect: Callable[[Loaded, int], RedirectExpectation]) -> int:
    """How many functions of a module were redirected, all of which must do what is expected of them."""
    image = patched(plan, out)
    loaded = load_module(image, image.arch)
    expected = [expect(loaded, at) for at in plan.index.tolist()]
    outcome = emulate(image, image.arch, expected, memory=loaded.memory)
    seen = plan.scan.image.path, outcome.failures, outcome.skipped, outcome.n
    assert seen == (plan.scan.image.path, (), "", len(plan.index))
    return outcome.n


@pytest.mark.corpus
@pytest.mark.parametrize("name", KERNELS)
def test_functions_of_debian_modules_become_an_export(name: str, tmp_path: Path, kernel: GetKernel) -> None:
    """All of a module at once, by the loader's stubs; on ppc64le in a frame, but for those with arguments in memory."""
    vmlinux = str(kernel(name).vmlinux)
    held = []
    for scan in islice(small_modules(name), N_MODULES):
        plan = plan_redirect(scan, scan.sites.status == READY, [("*", "dump_stack")], against=[vmlinux],
                             force_signature=True, assume_register_args=True, skip_unpatchable=True)  # fmt: skip
        held.append(n_that_hold(plan, tmp_path / "out.ko", partial(to_export, scan.sites, "dump_stack")))
    assert len(held) == N_MODULES and sum(held) > 500


@pytest.mark.corpus
@pytest.mark.parametrize("name", KERNELS)
def test_functions_of_debian_modules_become_each_other(name: str, tmp_path: Path, kernel: GetKernel) -> None:
    """The first half of a module's functions becomes the second half, whatever entries they have."""
    kernel(name)
    held = []
    for scan in islice(small_modules(name), N_MODULES):
        sites, at = scan.sites, ready(scan)
        goals = dict(zip(at[: len(at) // 2].tolist(), at[len(at) // 2 :].tolist(), strict=False))
        chosen = np.isin(np.arange(len(sites)), list(goals))
        to = {foo: place(sites, bar) for foo, bar in goals.items()}
        plan = make_plan(scan, RedirectRequest(chosen, to, force_signature=True, skip_unpatchable=True))
        held.append(n_that_hold(plan, tmp_path / "out.ko", partial(to_other, sites, goals)))
    assert len(held) == N_MODULES and sum(held) > 200


def place(sites: SiteTable, at: int) -> str:
    sec = int(sites.sec[at])
    return f"{sites.image.names[sec]}+{int(sites.entry_va[at]) - int(sites.image.base[sec]):#x}"
