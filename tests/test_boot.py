"""Real kernels in QEMU: what ftpatch writes boots, runs, and leaves ftrace alive, each beside a stock boot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from ftpatch.cli import run
from tools.boot import boot
from tools.boot.verdict import Verdict
from tools.kernels import Kernel

pytestmark = pytest.mark.boot
EARLY, SYSCALL = (
    "_printk",
    "__arm64_sys_getppid",
)  # runs in the first lines of start_kernel; called 20 times by the guest
CALLS = 20


@dataclass
class Debian:
    """One Debian kernel: stock facts measured once, patched variants on demand."""

    kernel: Kernel
    folder: Path
    made: dict[str, Path] = field(default_factory=dict)

    @cached_property
    def scan(self) -> dict[str, Any]:
        report = self.folder / "scan.json"
        assert run(["scan", str(self.kernel.vmlinux), "--report", f"json={report}"]) == 0
        found: dict[str, Any] = json.loads(report.read_text())["images"][0]
        return found

    @cached_property
    def stock(self) -> Verdict:
        return boot(self.image(self.kernel.vmlinux), names=[SYSCALL])

    def image(self, vmlinux: Path) -> Path:
        out = vmlinux.with_name("Image") if vmlinux != self.kernel.vmlinux else self.folder / "Image"
        assert run(["image", str(vmlinux), "-o", str(out)]) == 0
        return out

    def patched(self, *options: str) -> Path:
        """Image of the kernel with these `enable` options."""
        key = " ".join(options)
        if key not in self.made:
            folder = self.folder / str(len(self.made))
            folder.mkdir()
            assert run(["enable", str(self.kernel.vmlinux), "-o", str(folder / "vmlinux"), *options]) == 0
            self.made[key] = self.image(folder / "vmlinux")
            (folder / "vmlinux").unlink()
        return self.made[key]

    def return_address(self, name: str) -> int:
        """Link-time address behind the call of a function's site."""
        site = next(s for s in self.scan["sites"] if name in (s["function"], *s["aliases"]))
        return int(site["branch"], 16) + 4

    def symbol(self, name: str) -> int:
        for line in (self.kernel.system_map or Path()).read_text().splitlines():
            value, _, found = line.split()
            if found == name:
                return int(value, 16)
        raise KeyError(name)


@pytest.fixture(scope="module")
def debian(kernel: Callable[[str], Kernel], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Debian]:
    known: dict[str, Debian] = {}

    def get(name: str) -> Debian:
        if name not in known:
            known[name] = Debian(kernel(name), tmp_path_factory.mktemp(name))
        return known[name]

    return get


@pytest.mark.parametrize("name", ["arm64-6.1", "arm64-6.12"])
def test_the_summary_of_a_stock_kernel_equals_its_boot(debian: Callable[[str], Debian], name: str) -> None:
    one = debian(name)
    assert one.stock.problems == ()
    assert one.stock.functions is not None
    predicted = one.scan["summary"]["boot"]
    assert predicted == {"allocating": one.stock.allocating, "listed": len(one.stock.functions)}
    assert one.stock.hits == {SYSCALL: CALLS}


CASES = [
    ("arm64-6.1", ["--records", "minus4"]),
    ("arm64-6.1", ["--records", "shrink"]),
    ("arm64-6.1", ["--records", "auto", "--target", "ftrace_regs_caller"]),
    ("arm64-6.12", ["--records", "null", "--ops-via", "literal"]),
    ("arm64-6.12", ["--records", "null", "--ops-via", "thunk"]),
    ("arm64-6.12", ["--records", "shrink", "--ops-via", "literal"]),
    ("arm64-6.12", ["--records", "auto", "--ops", "nop"]),
    ("arm64-6.12", ["--records", "auto", "--target", "ftrace_stub_direct_tramp"]),
]


@pytest.mark.parametrize(
    ("name", "options"), CASES, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_an_early_function_and_a_syscall_run_enabled_and_everything_else_is_traced(
    debian: Callable[[str], Debian], name: str, options: list[str]
) -> None:
    one = debian(name)
    patched = boot(one.patched("--func", EARLY, "--func", SYSCALL, *options), names=[SYSCALL])
    assert patched.problems == ()
    assert one.stock.functions is not None and patched.functions is not None
    assert Counter(one.stock.functions) - Counter(patched.functions) == Counter([EARLY, SYSCALL])
    assert Counter(patched.functions) - Counter(one.stock.functions) == Counter()
    # The unfiltered tracer sees the site where it goes through the ops that walk all tracers, or through the one entry
    # of kernels without ops per site; a filter on another function holds in the first case only.
    silent = "nop" in options or "ftrace_stub_direct_tramp" in options
    assert patched.hits == {SYSCALL: 0 if silent else CALLS}
    assert patched.leaked == (CALLS if name == "arm64-6.1" else 0)
    assert set(patched.foreign) == ({SYSCALL} if name == "arm64-6.1" else set())


@pytest.mark.parametrize("name", ["arm64-6.1", "arm64-6.12"])
def test_the_sites_execute_from_the_first_call_on(debian: Callable[[str], Debian], name: str) -> None:
    """QEMU's log counts returns from the target to behind the call: with KASLR, beside a stock control."""
    one = debian(name)
    watch, text = {one.return_address(f): f for f in (EARLY, SYSCALL)}, one.symbol("_stext")
    counts = {}
    for image in (one.folder / "Image", one.patched("--func", EARLY, "--func", SYSCALL)):
        verdict = boot(image, watch=list(watch), text=text)
        assert verdict.problems == ()
        counts[image] = {watch[va]: n for va, n in verdict.executed.items()}
    stock, patched = counts.values()
    assert stock == {EARLY: 0, SYSCALL: 0}
    assert patched[SYSCALL] == CALLS
    assert patched[EARLY] > 50


@pytest.mark.parametrize(
    ("name", "options", "allocating"),
    [
        ("arm64-6.1", ["--func", "*", "--status", "weak-leftover"], None),
        ("arm64-6.12", ["--func", "*"], 0),
    ],
)
def test_every_site_at_once_boots_to_user_space(
    debian: Callable[[str], Debian], name: str, options: list[str], allocating: int | None
) -> None:
    one = debian(name)
    verdict = boot(one.patched(*options))
    assert (verdict.problems, verdict.functions) == ((), ())
    slots = one.scan["summary"]["slots"]  # 6.1 counts slots before it looks into them
    assert verdict.allocating == (slots if allocating is None else allocating)


def test_a_kept_record_kills_ftrace_and_the_harness_sees_it(debian: Callable[[str], Debian]) -> None:
    """The control of all the others: what `--records keep` warns of really happens."""
    one = debian("arm64-6.12")
    verdict = boot(one.patched("--func", SYSCALL, "--records", "keep"))
    assert verdict.functions is None
    assert any("ftrace failed to modify" in line for line in verdict.splats)
