"""`check` on real kernels and modules: nothing but true findings, and every planted defect found alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ftpatch.rules.register import known_rules
from ftpatch.rules.run import Request, check_file, check_files, prepare
from tools import kernels, mutations

pytestmark = pytest.mark.corpus
DEAD_WEAK = {"arm64-6.1": 292, "arm64-6.12": 0, "ppc64le-6.1": 243, "ppc64le-6.12": 262, "ppc64le-sid": 285,
             "x86_64-6.1": 576, "x86_64-6.12": 0}  # fmt: skip
# kvm.ko overrides weak functions of virt/kvm, and keeps their records
KVM = {"ppc64le-6.1": 4, "ppc64le-6.12": 4, "ppc64le-sid": 4, "x86_64-6.1": 16, "x86_64-6.12": 18}
FULL = os.environ.get("CORPUS") == "full"
STEP = 1 if FULL else 25
# x86_64-6.1 takes every defect as 6.12 does, in a file of 590 MB: a minute and a half that CI does not have
PLANTED = [name for name in DEAD_WEAK if FULL or name != "x86_64-6.1"]
Get = Callable[[str], kernels.Kernel]


@pytest.mark.parametrize("name", DEAD_WEAK)
def test_a_stock_kernel_has_dead_weak_records_and_nothing_else(name: str, kernel: Get) -> None:
    found = check_file(Request(known_rules()), str(kernel(name).vmlinux)).findings
    rules = Counter(one.finding.rule for one in found)
    assert set(rules) <= {"dead-weak"}
    assert abs(rules["dead-weak"] - DEAD_WEAK[name]) <= DEAD_WEAK[name] // 20  # the archive moves on


@pytest.mark.parametrize("name", DEAD_WEAK)
def test_stock_modules_are_sound_for_their_kernel(name: str, kernel: Get) -> None:
    vmlinux = kernel(name).vmlinux
    kernels.modules(name)
    files = sorted(str(path) for path in (vmlinux.parent / "modules").rglob("*.ko*"))
    kvm = [one for one in files if "/kvm/kvm.ko" in one]
    prepare(str(vmlinux), None)
    found = check_files(Request(known_rules(), against=str(vmlinux)), [*files[::STEP], *kvm])
    assert [one.path for one in found if one.error] == []
    rules = {Path(one.path).name.partition(".")[0]: Counter(f.finding.rule for f in one.findings) for one in found}
    odd = {module: dict(counts) for module, counts in rules.items() if counts}
    assert odd in ({}, {"kvm": {"dead-weak": KVM.get(name, 0)}})


@pytest.mark.parametrize("name", PLANTED)
def test_every_planted_defect_is_found_alone(name: str, kernel: Get, capsys: pytest.CaptureFixture[str]) -> None:
    kernel(name)
    kernels.modules(name)
    assert mutations.main([name]) == 0, capsys.readouterr().out
