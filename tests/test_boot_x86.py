"""Debian's x86_64 kernels in QEMU, booted by their PVH note: what ftpatch reads of them, and what it writes into them.

A boot takes seconds, so that each one answers several questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_boot import CALLS, EARLY, Debian

from ftpatch.cli import run
from tools.boot.verdict import Verdict
from tools.kernels import Kernel

pytestmark = pytest.mark.boot
INVALID = "__ftrace_invalid_address__"
NAMES = ("x86_64-6.1", "x86_64-6.12")


@pytest.fixture(scope="module")
def debian(kernel: Callable[[str], Kernel], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Debian]:
    known: dict[str, Debian] = {}

    def get(name: str) -> Debian:
        if name not in known:
            known[name] = Debian(kernel(name), tmp_path_factory.mktemp(name))
        return known[name]

    return get


def listed(sites: list[dict[str, Any]]) -> Iterator[str]:
    """What scan says that the kernel lists the sites of its core text as."""
    for site in sites:
        if site["row"] is not None and site["status"] != "null" and site["section"] == ".text":
            yield site["listed_as"] or site["function"]


def places(one: Debian) -> dict[int, str]:
    """Link-time addresses behind two sites' calls: where they return to once they call something that returns."""
    return {one.return_address(name): name for name in (EARLY, one.syscall)}


def counts(one: Debian, verdict: Verdict) -> dict[str, int]:
    return {places(one)[va]: n for va, n in verdict.executed.items()}


@pytest.fixture(scope="module")
def stock(debian: Callable[[str], Debian]) -> Callable[[str], Verdict]:
    known: dict[str, Verdict] = {}

    def get(name: str) -> Verdict:
        if name not in known:
            one = debian(name)
            known[name] = one.boot(one.stock_image, watch=list(places(one)))
        return known[name]

    return get


def functions(verdict: Verdict) -> Counter[str]:
    assert verdict.problems == () and verdict.functions is not None
    return Counter(verdict.functions)


@pytest.mark.parametrize("name", NAMES)
def test_the_boot_of_a_stock_kernel_lists_each_function_that_scan_names(
    debian: Callable[[str], Debian], stock: Callable[[str], Verdict], name: str
) -> None:
    one, verdict = debian(name), stock(name)
    told = functions(verdict)
    assert one.scan["summary"]["boot"] == {"allocating": verdict.allocating, "listed": told.total()}
    # The kernel numbers the addresses behind no function, as far as they are from the one in front.
    assert Counter(listed(one.scan["sites"])) == Counter(
        INVALID if text.startswith(INVALID) else text for text in told.elements()
    )
    assert counts(one, verdict)[one.syscall] == 0
    assert verdict.leaked == 0


@pytest.mark.parametrize("name", NAMES)
def test_enabled_sites_run_from_the_first_call_on_and_leave_the_list(
    debian: Callable[[str], Debian], stock: Callable[[str], Verdict], name: str
) -> None:
    """Until ftrace_init, a stock kernel's sites call __fentry__: one that runs early returns there, too."""
    one = debian(name)
    image = one.patched("--func", EARLY, "--func", one.syscall)
    verdict = one.boot(image, watch=list(places(one)))
    assert functions(stock(name)) - functions(verdict) == Counter([EARLY, one.syscall])
    assert functions(verdict) - functions(stock(name)) == Counter()
    assert {"allocating": verdict.allocating, "listed": functions(verdict).total()} in one.predicted.values()
    ran = counts(one, verdict)
    assert ran[one.syscall] == CALLS
    assert ran[EARLY] > counts(one, stock(name))[EARLY] + 50
    # The tracer is alone and its filter is on another function: the site's ftrace_caller has no filter of its own.
    assert (verdict.leaked, verdict.foreign) == (CALLS, (one.syscall,))


@pytest.mark.parametrize("name", NAMES)
def test_every_site_but_one_at_once_boots_to_user_space(debian: Callable[[str], Debian], name: str) -> None:
    """With no record left in core text, the kernel would crash when it lists them."""
    one = debian(name)
    options = ["--func", "*", "--func", "!vfs_open", "--status", "ready", "--status", "weak-leftover"]
    verdict = one.boot(one.patched(*options))
    assert (verdict.problems, verdict.functions) == ((), ("vfs_open",))
    assert {"allocating": verdict.allocating, "listed": 1} in one.predicted.values()
    assert verdict.leaked > 1000


def test_a_disabled_site_is_traced_again_and_dropped_records_are_gone(
    debian: Callable[[str], Debian], stock: Callable[[str], Verdict], tmp_path: Path
) -> None:
    """All verbs one after another; then the stock kernel comes back twice, byte for byte."""
    one = debian("x86_64-6.12")
    before = one.kernel.vmlinux
    enabled, disabled, dropped, back = (tmp_path / name for name in ("enabled", "disabled", "dropped", "back"))
    journal, second = tmp_path / "journal.json", tmp_path / "second.json"
    both = ["--func", EARLY, "--func", one.syscall]
    assert run(["enable", str(before), *both, "-o", str(enabled), "--report", f"json={journal}"]) == 0
    assert run(["disable", str(enabled), *both[2:], "-o", str(disabled)]) == 0
    gone = ["--func", "vfs_*", "--func", "!vfs_open"]
    assert run(["drop", str(disabled), *gone, "-o", str(dropped), "--report", f"json={second}"]) == 0
    for old, new in ((enabled, disabled), (disabled, dropped)):
        assert run(["verify", str(old), str(new), "--require-emulation"]) == 0
    (tmp_path / "image").mkdir()
    image = tmp_path / "image" / "vmlinux"
    assert run(["image", str(dropped), "-o", str(image)]) == 0
    verdict = one.boot(image, names=[one.syscall, EARLY])
    left = functions(stock(one.kernel.name)) - functions(verdict)
    assert left[EARLY] == 1 and one.syscall not in left
    assert {name for name in left if not name.startswith("vfs_")} == {EARLY} and left.total() > 50
    assert verdict.hits[one.syscall] == CALLS
    assert run(["restore", str(dropped), "--journal", str(second), "-o", str(back)]) == 0
    assert back.read_bytes() == disabled.read_bytes()
    assert run(["restore", str(enabled), "--journal", str(journal), "-o", str(back)]) == 0
    assert back.read_bytes() == before.read_bytes()
