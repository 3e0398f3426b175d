"""Taken back or away, in QEMU: disabled sites are traceable again, dropped records are gone, all else is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from test_boot import ARM64, CALLS, EARLY, PPC64LE, Debian
from test_boot_modules import FRAMES, UNSIGNED, Modules, functions

from ftpatch.cli import run
from tools import kernels
from tools.kernels import Kernel

pytestmark = pytest.mark.boot
CALLED = "ppc64le-6.1"  # its sites are calls of _mcount, which cannot have their records back as NOPs


@pytest.mark.parametrize("name", ARM64 + PPC64LE)
def test_a_disabled_site_is_traced_again_and_dead_records_are_gone(
    kernel: Callable[[str], Kernel], tmp_path: Path, run_folder: Path, name: str
) -> None:
    one = Debian(kernel(name), tmp_path, run_folder)
    assert one.stock.functions is not None
    enabled, disabled, clean = (tmp_path / step / "vmlinux" for step in ("enabled", "disabled", "clean"))
    for path in (enabled, disabled, clean):
        path.parent.mkdir()
    chosen = ["--func", EARLY, "--func", one.syscall]
    assert run(["enable", str(one.kernel.vmlinux), *chosen, "-o", str(enabled)]) == 0
    assert run(["disable", str(enabled), *chosen, "-o", str(disabled)]) == 0
    assert (disabled.read_bytes() == one.kernel.vmlinux.read_bytes()) == (name != CALLED)
    leftovers = [site for site in one.scan["sites"] if site["status"] == "weak-leftover"]
    if leftovers:
        assert run(["drop", str(disabled), "--status", "weak-leftover", "-o", str(clean)]) == 0
    else:
        disabled.rename(clean)
    one.verify(clean)
    verdict = one.boot(one.image(clean), names=[one.syscall])
    assert verdict.problems == ()
    assert verdict.functions is not None
    assert verdict.hits == {one.syscall: 0 if name == CALLED else CALLS}
    kept = [site for site in leftovers if ".init" not in site["section"]]
    gone = Counter(one.stock.functions) - Counter(verdict.functions)
    expected = len(kept) + (2 if name == CALLED else 0)
    assert gone.total() == expected
    names = {site["listed_as"] for site in kept} | ({EARLY, one.syscall} if name == CALLED else set())
    assert {text.split("__addr")[0] if text.startswith("__ftrace_invalid") else text for text in gone} <= {
        text if not text.startswith("__ftrace_invalid") else "__ftrace_invalid_address__" for text in names
    } | {text for text in gone if text.startswith("__ftrace_invalid_address__")}
    assert one.prediction(clean) == {"allocating": verdict.allocating, "listed": len(verdict.functions)}


@pytest.mark.parametrize("name", ARM64 + PPC64LE)
def test_a_module_with_a_disabled_site_and_one_without_a_record_load(
    kernel: Callable[[str], Kernel], tmp_path: Path, name: str
) -> None:
    one = Modules(kernel(name), kernels.modules(name), tmp_path)
    enabled = one.enabled("dummy", "--func", "dummy_xmit", "--func", "dummy_init_module")
    back, module = tmp_path / "back" / enabled.name, tmp_path / "module" / enabled.name
    for path in (back, module):
        path.parent.mkdir()
    assert run(["disable", str(enabled), "--func", "dummy_xmit", "-o", str(back)]) == 0
    assert run(["drop", str(back), "--func", "dummy_get_stats64", "-o", str(module)]) == 0
    for before, after in ((enabled, back), (back, module)):
        assert run(["verify", str(before), str(after), "--require-emulation"]) == 0
    verdict = one.boot([module], names=["dummy_xmit", "dummy_get_stats64"], expected_taint=UNSIGNED)
    assert verdict.problems == ()
    assert verdict.loaded == verdict.unloaded == {"dummy": 0}
    assert verdict.hits == {"dummy_xmit": 0 if name == CALLED else FRAMES, "dummy_get_stats64": 0}
    listed = {text for text in functions(verdict) if text.endswith("[dummy]")}
    assert ("dummy_xmit [dummy]" in listed) == (name != CALLED)
    assert "dummy_get_stats64 [dummy]" not in listed
    assert verdict.leaked == 0


def test_a_dropped_function_runs_but_cannot_be_traced(
    kernel: Callable[[str], Kernel], tmp_path: Path, run_folder: Path
) -> None:
    one = Debian(kernel("arm64-6.12"), tmp_path, run_folder)
    assert one.stock.functions is not None
    out, journal = tmp_path / "vmlinux", tmp_path / "journal.json"
    options = ["--all-but", "vfs_*", "--report", f"json={journal}"]
    assert run(["drop", str(one.kernel.vmlinux), *options, "-o", str(out)]) == 0
    one.verify(out)
    verdict = one.boot(one.image(out), names=[one.syscall])
    assert verdict.problems == ()
    assert verdict.hits == {one.syscall: 0}
    assert verdict.functions is not None
    assert set(verdict.functions) == {text for text in one.stock.functions if text.startswith("vfs_")}
    done = json.loads(journal.read_text())["images"][0]["done"]
    assert done["patched"] == one.scan["summary"]["live"] - verdict.allocating
