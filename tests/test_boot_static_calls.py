"""Static calls that are set in the file, booted: the new function runs and the old one never does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_boot import Debian

from ftpatch.cli import run
from tools.kernels import Kernel
from tools.modules import dependencies

pytestmark = pytest.mark.boot
UNSIGNED = 1 << 13  # taint E: the signature is gone
OLD, NEW = "native_sched_clock", "read_tsc"


def with_a_set_module(kernel: Kernel, folder: Path) -> list[Path]:
    """Two modules, in the order of loading: the second calls the first one's trampolines. One key of that is set."""
    assert kernel.modules is not None
    stock = dependencies(kernel.modules, "netfs", "cachefiles")
    out = folder / "netfs.ko"
    assert run(["static-calls", str(stock[0]), "--set", "tp_func_fscache_access=__traceiter_fscache_resize",
                "--force-signature", "-o", str(out)]) == 0  # fmt: skip
    return [out if path.name.startswith("netfs.") else path for path in stock]


@pytest.mark.parametrize("name", ["x86_64-6.1", "x86_64-6.12"])
def test_the_kernel_calls_what_its_static_calls_were_set_to(
    kernel: Callable[[str], Kernel], tmp_path: Path, name: str
) -> None:
    """One key goes to another function, which ignores that it takes a parameter; one is NULL, and one no longer
    returns 0 alone. 6.1 has relocations of them that the link kept.

    A stock boot executes native_sched_clock 10,000 times, and its first call comes before static calls are set up.
    """
    debian = Debian(kernel(name), tmp_path)
    settings = [f"pv_sched_clock={NEW}", "irqentry_exit_cond_resched=NULL", "cond_resched=__cond_resched"]
    vmlinux, patched = str(debian.kernel.vmlinux), tmp_path / "vmlinux"
    options = [word for setting in settings for word in ("--set", setting)]
    journal = tmp_path / "journal.json"
    assert run(["static-calls", vmlinux, *options, "--force-signature", "-o", str(patched),
                "--report", f"json={journal}"]) == 0  # fmt: skip
    assert run(["verify", vmlinux, str(patched), "--journal", str(journal), "--require", "emulation"]) == 0
    watch = {debian.symbol(function): function for function in (OLD, NEW)}
    modules = with_a_set_module(debian.kernel, tmp_path) if name == "x86_64-6.12" else []
    taint = UNSIGNED if modules else 0
    verdict = debian.boot(debian.image(patched), watch=list(watch), modules=modules, expected_taint=taint)
    assert (verdict.problems, set(verdict.loaded.values())) == ((), {0} if modules else set())
    ran = {watch[va]: n for va, n in verdict.executed.items()}
    assert ran[OLD] == 0
    assert ran[NEW] > 9000  # 8,300 times as the clock source that it is, in a stock boot
    stock = [
        f"pv_sched_clock={OLD}",
        "irqentry_exit_cond_resched=raw_irqentry_exit_cond_resched",
        "cond_resched=return0",
    ]
    options = [word for setting in stock for word in ("--set", setting)]
    assert run(["static-calls", str(patched), *options, "-o", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back").read_bytes() == debian.kernel.vmlinux.read_bytes()
