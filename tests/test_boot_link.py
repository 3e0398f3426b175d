"""An object with a row in each table that a module's loader walks, linked into a module, in QEMU."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from test_boot_modules import FRAMES, UNSIGNED, Modules
from test_boot_redirect_modules import redirected

from tools import kernels
from tools.kernels import Kernel

pytestmark = pytest.mark.boot
OBJECT = Path(__file__).parent.parent / "testdata" / "link" / "tables-arm64.o"


def test_rows_behind_those_of_the_module_do_what_they_say(kernel: Callable[[str], Kernel], tmp_path: Path) -> None:
    """dummy.ko has alternatives, and none of the other tables: both ways in which rows come along."""
    one = Modules(kernel("arm64-6.12"), kernels.modules("arm64-6.12"), tmp_path)
    wanted = ("--map", "dummy_xmit=counted_xmit", "--with", str(OBJECT), "--keep-original", "old_xmit")
    verdict = one.boot([redirected(one, one.shipped("dummy"), "dummy", *wanted)], expected_taint=UNSIGNED)
    assert verdict.problems == ()
    assert set(verdict.loaded.values()) == set(verdict.unloaded.values()) == {0}
    told = re.findall(r"tables: ([ -~]+)", verdict.console)
    assert told == [f"count {n}, alternative 2, fault -14, label 8" for n in range(1, FRAMES + 1)]
