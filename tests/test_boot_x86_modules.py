"""Modules of Debian's x86_64 kernels with a hook, in QEMU: loaded, run, walked through, unloaded, ftrace alive."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from test_boot_modules import FRAMES, UNSIGNED, Modules

from tools import kernels
from tools.kernels import Kernel

pytestmark = pytest.mark.boot
WALKED = re.compile(r"^(?:\[.*?\])?  (\S+)\+0x\S+ ?(\[\w+\])?\s*$", re.MULTILINE)  # a sure frame: others have a `?`
INIT, XMIT = "dummy_init_module", "dummy_xmit"


@pytest.mark.parametrize("name", ["x86_64-6.1", "x86_64-6.12"])
def test_a_hook_runs_at_every_call_and_a_stack_walk_shows_the_function_and_its_caller(
    kernel: Callable[[str], Kernel], tmp_path: Path, name: str
) -> None:
    one = Modules(kernel(name), kernels.modules(name), tmp_path)
    patched = one.enabled("dummy", "--func", XMIT, "--func", INIT, "--hook", "dump_stack")
    verdict = one.boot([patched], names=["vfs_open"], expected_taint=UNSIGNED)
    assert (verdict.problems, verdict.loaded, verdict.unloaded) == ((), {"dummy": 0}, {"dummy": 0})
    frames = [match[1] for match in WALKED.finditer(verdict.console)]
    stubs = [at for at, frame in enumerate(frames) if frame.startswith("ftpatch_call")]
    shown = [tuple(frames[at : at + 3]) for at in stubs]
    assert shown == [
        ("ftpatch_call_init", INIT, "do_one_initcall"),
        *[("ftpatch_call", XMIT, "__dev_direct_xmit")] * (2 * FRAMES),
    ]
    assert verdict.functions is not None
    assert {"dummy_setup [dummy]", "dummy_dev_init [dummy]"} <= set(verdict.functions)
    assert f"{XMIT} [dummy]" not in verdict.functions
