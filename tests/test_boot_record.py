"""A module of each machine whose records were taken out, and given back, on the stock kernel of its build, in QEMU.

Beside it another module without its records is loaded: of that the tracer knows no function.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recorded_files import without_records
from test_boot_modules import FRAMES, UNSIGNED, Modules

from ftpatch import api
from ftpatch.recovered.image import open_image
from tools import kernels
from tools.kernels import Kernel

pytestmark = pytest.mark.boot
LOST = "udp_diag"  # the module whose records stay away


def stripped(shipped: Path, folder: Path) -> Path:
    """A module without its records and its signature."""
    out = folder / f"{shipped.name.split('.')[0]}.ko"
    out.write_bytes(without_records(open_image(str(shipped)).data.tobytes()))
    return out


@pytest.mark.parametrize(
    ("name", "calls"),
    [("arm64-6.12", False), ("ppc64le-6.1", True), ("x86_64-6.1", True)],
    ids=lambda value: str(value),
)
def test_a_module_that_got_its_records_back_is_traced(
    kernel: Callable[[str], Kernel], tmp_path: Path, name: str, calls: bool
) -> None:
    one = Modules(kernel(name), kernels.modules(name), tmp_path)
    shipped = one.shipped("dummy")
    bare = stripped(shipped, tmp_path)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "dummy.ko"
    # where sites are calls in the file, nothing but the file is needed
    options = {} if calls else {"other": str(shipped)}
    written = api.record(str(bare), api.Delivery(str(out)), **options)  # type: ignore[arg-type]
    assert written.plan.recording is not None
    assert len(written.plan.recording.sec) == len(one.sites("dummy"))
    others = kernels_modules(one, LOST)
    verdict = one.boot([out, *others], names=["dummy_xmit"], expected_taint=UNSIGNED)
    assert verdict.problems == ()
    assert verdict.hits["dummy_xmit"] == FRAMES
    assert verdict.functions is not None
    listed = [function.split(" ")[1] for function in verdict.functions if "[" in function]
    assert "dummy_xmit [dummy]" in verdict.functions
    assert f"[{LOST}]" not in listed and listed.count("[dummy]") > 3


def kernels_modules(one: Modules, name: str) -> list[Path]:
    """A module without its records, behind those that it needs, which have theirs."""
    from tools.modules import dependencies

    paths = dependencies(one.tree, name)
    return [*paths[:-1], stripped(paths[-1], one.folder)]
