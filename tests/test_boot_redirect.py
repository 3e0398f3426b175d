"""Redirected functions of real kernels, in QEMU: user space gets the other function's answer, and ftrace is alive.

Beside each redirected boot stands one of what `disable` makes of the file, which is the stock kernel again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from test_boot import ARM64, CALLS, PPC64LE, Debian

from ftpatch import api
from ftpatch.arch.shape import Branch
from ftpatch.arrays import I64, Mask
from ftpatch.cli import run
from ftpatch.plan.decide import make_plan, plan_redirect
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import EnableRequest
from ftpatch.sites.scan import Scan, scan_file
from tools.boot.verdict import Verdict
from tools.kernels import Kernel

pytestmark = pytest.mark.boot
THE_TIME = "seconds since 1970"


class Case(NamedTuple):
    """A system call that becomes another, and how user space tells them apart."""

    func: str
    to: str
    call: str  # a step of the guest
    own: str  # what the function answers
    other: str  # what its replacement answers
    by_stub: bool = False


SYSCALLS = {
    "arm64": [
        Case("__arm64_sys_getppid", "__arm64_sys_getpid", "call 173", "0", "1"),
        Case("__arm64_sys_sched_get_priority_min", "__arm64_sys_sched_get_priority_max", "call 126 1", "1", "99"),
        Case("__arm64_sys_getpgid", "__arm64_sys_ni_syscall", "call 155 0", "0", "-38"),
    ],
    "ppc64le": [
        Case("sys_getppid", "sys_getpid", "call 64", "0", "1"),  # two entries both
        Case("sys_getpgrp", "sys_sched_get_priority_max", "call 65 1", "0", "99"),  # two entries, one entry
        Case("sys_sched_get_priority_min", "sys_sched_get_priority_max", "call 160 1", "1", "99"),  # one entry both
        Case("sys_umask", "sys_time", "call 60 0", "18", THE_TIME, by_stub=True),  # one entry, two entries
    ],
}
UNCHANGED = {"arm64": ("call 172", "call 125 1"), "ppc64le": ("call 20", "call 159 1")}  # getpid, priority_max
# What prints a backtrace when an initcall runs. On two kernels, handshake_init is beyond a jump's reach of the
# replacement, and that is redirected in turn: what prints is reached over a stub and two jumps.
INIT = {"proc_cmdline_init": "dump_stack"}
FAR_INIT = {"handshake_init": "sys_pciconfig_iobase", "sys_pciconfig_iobase": "dump_stack"}
HAVE_FAR = ("ppc64le-6.12", "ppc64le-sid")


def redirect(vmlinux: Path, out: Path, maps: dict[str, str], *options: str) -> dict[str, dict[str, Any]]:
    """Redirect and verify; the changed sites by function, as the journal has them."""
    journal = out.with_suffix(".json")
    given = [word for func, to in maps.items() for word in ("--map", f"{func}={to}")]
    assert run(["redirect", str(vmlinux), *given, *options, "-o", str(out), "--report", f"json={journal}"]) == 0
    assert run(["verify", str(vmlinux), str(out), "--require-emulation"]) == 0
    sites = json.loads(journal.read_text())["images"][0]["sites"]
    return {site["function"]: site for site in sites if site["action"] == "redirect"}


def answers(verdict: Verdict) -> list[str]:
    assert verdict.problems == ()
    return [THE_TIME if answer.isdigit() and 10**9 < int(answer) < 10**10 else answer for answer in verdict.steps]


def backtraces(verdict: Verdict) -> int:
    return verdict.console.count("] Call trace:") + verdict.console.count("] Call Trace:")


@pytest.mark.parametrize("name", ARM64 + PPC64LE)
def test_redirected_functions_answer_as_the_others(kernel: Callable[[str], Kernel], tmp_path: Path, name: str) -> None:
    one = Debian(kernel(name), tmp_path)
    cases = SYSCALLS[one.kernel.arch]
    redirected, both, disabled = (tmp_path / step / "vmlinux" for step in ("redirected", "both", "disabled"))
    for path in (redirected, both, disabled):
        path.parent.mkdir()
    sites = redirect(one.kernel.vmlinux, redirected, {case.func: case.to for case in cases})
    assert {func: bool(site["stub"]) for func, site in sites.items()} == {case.func: case.by_stub for case in cases}
    init = INIT | FAR_INIT if name in HAVE_FAR else INIT
    sites = redirect(redirected, both, init, "--force-signature")
    assert [func for func, site in sites.items() if site["stub"]] == [func for func in init if func == "handshake_init"]

    changed = [*init, *(case.func for case in cases)]
    gone = Counter(func for func in changed if not func.endswith("_init"))  # init text is not listed once it is free
    steps = [*(case.call for case in cases), *UNCHANGED[one.kernel.arch], "read /proc/cmdline"]
    names = [function for case in cases[:1] for function in (case.func, case.to)]
    after = one.boot(one.image(both), names=names, steps=steps)
    assert answers(after) == [*(case.other for case in cases), "1", "99", "-2"]
    assert after.hits == {cases[0].func: 0, cases[0].to: CALLS}
    assert (after.leaked, backtraces(after)) == (0, 1 + (name in HAVE_FAR))
    assert after.functions is not None
    assert one.prediction(both) == {
        "allocating": after.allocating, "listed": len(after.functions),
    }  # fmt: skip

    off = [word for func in changed for word in ("--func", func)]
    assert run(["disable", str(both), *off, "-o", str(disabled)]) == 0
    assert disabled.read_bytes() == one.kernel.vmlinux.read_bytes()  # which makes this boot one of the stock kernel
    stock = one.boot(one.image(disabled), names=names, steps=steps)
    assert answers(stock)[:-1] == [*(case.own for case in cases), "1", "99"]
    assert stock.steps[-1].startswith("console=")
    assert stock.hits == {cases[0].func: CALLS, cases[0].to: 0}
    assert (stock.leaked, backtraces(stock)) == (0, 0)
    assert stock.functions is not None
    assert Counter(stock.functions) - Counter(after.functions) == gone
    assert Counter(after.functions) - Counter(stock.functions) == Counter()


# -- what these kernels do not need, and what goes wrong otherwise


class FarOnly(Branch):
    """A jump for which what is near is out of reach: these kernels are too small for a veneer."""

    def reaches(self, distance: I64) -> Mask:
        return super().reaches(distance) & (abs(distance) > 1 << 16)


class NearOnly(Branch):
    """A call that reaches padding near its site, and not the tracer."""

    def reaches(self, distance: I64) -> Mask:
        return super().reaches(distance) & (abs(distance) < 1 << 16)


def planned(scan: Scan, func: str, to: str) -> Plan:
    chosen, _ = api.by_selectors([func])(scan)
    return plan_redirect(scan, chosen, [(func, to)])


def written(plan: Plan, out: Path, kinds: Sequence[str] = ("site", "thunk", "record", "relocation")) -> Path:
    """The file with the edits of these kinds alone."""
    data = bytearray(Path(plan.scan.image.path).read_bytes())
    for pos, old, new, kind, _ in plan.edits:
        if kind in kinds:
            assert data[pos : pos + len(old)] == old
            data[pos : pos + len(new)] = new
    out.write_bytes(data)
    return out


def test_a_veneer_leads_to_the_replacement(kernel: Callable[[str], Kernel], tmp_path: Path) -> None:
    one = Debian(kernel("arm64-6.12"), tmp_path)
    case = SYSCALLS["arm64"][0]
    scan = scan_file(str(one.kernel.vmlinux))
    assert scan.arch.jump is not None
    scan.image.__dict__["arch"] = scan.image.arch._replace(jump=FarOnly(*scan.arch.jump))
    plan = planned(scan, case.func, case.to)
    assert plan.stub != ("",)
    out = written(plan, tmp_path / "vmlinux")
    one.verify(out)
    assert answers(one.boot(one.image(out), steps=[case.call])) == [case.other]


def test_a_tracer_sees_the_call_through_a_veneer(kernel: Callable[[str], Kernel], tmp_path: Path) -> None:
    """The ops pointer in front of the function is found by the return address, which the veneer leaves alone."""
    one = Debian(kernel("arm64-6.12"), tmp_path)
    scan = scan_file(str(one.kernel.vmlinux))
    scan.image.__dict__["arch"] = scan.image.arch._replace(call=NearOnly(*scan.arch.call))
    plan = make_plan(scan, EnableRequest(api.by_selectors([one.syscall])(scan)[0]))
    assert [stub.name for stub in plan.calls.shared] == ["padding"] and plan.summary.ops_via == "literal"
    out = written(plan, tmp_path / "vmlinux", ("site", "literal", "thunk", "record", "relocation"))
    one.verify(out)
    verdict = one.boot(one.image(out), names=[one.syscall])
    assert verdict.hits == {one.syscall: CALLS} and not verdict.splats
    assert verdict.functions is not None and one.syscall not in verdict.functions


def test_a_kept_record_kills_ftrace(kernel: Callable[[str], Kernel], tmp_path: Path) -> None:
    one = Debian(kernel("arm64-6.12"), tmp_path)
    case = SYSCALLS["arm64"][0]
    out = written(planned(scan_file(str(one.kernel.vmlinux)), case.func, case.to), tmp_path / "vmlinux", ["site"])
    one.verify(out, sound=False)
    verdict = one.boot(one.image(out), steps=[case.call])
    assert verdict.steps == (case.other,)
    assert verdict.functions is None
    assert any("ftrace failed to modify" in line for line in verdict.splats)


def test_a_jump_to_a_global_entry_without_its_address_gets_a_wrong_answer(
    kernel: Callable[[str], Kernel], tmp_path: Path
) -> None:
    """The control of the stub: r12 still holds the address of what was called, and the TOC is off by the difference."""
    one = Debian(kernel("ppc64le-6.12"), tmp_path)
    case = SYSCALLS["ppc64le"][-1]
    scan = scan_file(str(one.kernel.vmlinux))
    plan = planned(scan, case.func, case.to)
    out = written(plan, tmp_path / "vmlinux", ["site", "record", "relocation"])
    (index,) = plan.index.tolist()
    (redirected,) = plan.redirects
    assert redirected.va is not None and scan.arch.jump is not None
    distance = np.array([redirected.va - int(scan.sites.body_va[index])])
    data = bytearray(out.read_bytes())
    pos = int(scan.sites.pos[index])
    data[pos : pos + 4] = scan.arch.jump.encode(distance).tobytes()
    out.write_bytes(data)
    one.verify(out, sound=False)
    verdict = one.boot(one.image(out), steps=[case.call])
    assert verdict.reached_userspace and verdict.steps != ()
    # whatever stands that far from the time: nothing at one boot, any eight bytes at another, but no time of day
    assert not 1_000_000_000 < int(verdict.steps[0]) < 4_000_000_000
