"""Patched modules on the unpatched kernels of their build, in QEMU: loaded, run, counted, unloaded, ftrace alive.

Beside each patched boot stands a stock one, with the modules as they were shipped.
"""

from __future__ import annotations

import errno
import json
import lzma
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from test_signature import files, rsa_key

from ftpatch.cli import run
from ftpatch.container.wrappings import MARKER
from tools import kernels
from tools.boot import boot
from tools.boot.verdict import Verdict
from tools.kernels import Kernel
from tools.modules import dependencies

pytestmark = pytest.mark.boot
NAMES = ("arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid")
UNSIGNED = 1 << 13  # the taint of a module without a valid signature
FRAMES = 20  # what the guest sends through each interface, once per recording
PATCHED = {"dummy": ("dummy_xmit", "dummy_init_module"), "virtio_net": ("start_xmit", "virtio_net_driver_init")}
RUNNING = (("dummy", "dummy_xmit"), ("virtio_net", "start_xmit"))  # init text is gone when addresses can be asked for
Place = tuple[str, str, int]


@dataclass
class Modules:
    """One kernel with the modules of its build, as shipped and patched."""

    kernel: Kernel
    tree: Path
    folder: Path
    scans: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def image(self) -> Path:
        out = self.folder / "Image"
        assert run(["image", str(self.kernel.vmlinux), "-o", str(out)]) == 0
        return out

    def shipped(self, name: str) -> Path:
        return next(self.tree.rglob(f"{name}.ko*"))

    @cached_property
    def stock(self) -> list[Path]:
        return dependencies(self.tree, "virtio_pci", "virtio_net", "dummy")

    def sites(self, name: str) -> list[dict[str, Any]]:
        if name not in self.scans:
            report = self.folder / "scan.json"
            assert run(["scan", str(self.shipped(name)), "--report", f"json={report}"]) == 0
            self.scans[name] = json.loads(report.read_text())["images"][0]
        found: list[dict[str, Any]] = self.scans[name]["sites"]
        return found

    def behind(self, name: str, function: str) -> Place:
        """The place behind the call of a function's site."""
        site = next(one for one in self.sites(name) if one["function"] == function)
        return name, function, int(site["branch"], 16) + 4 - int(site["entry"], 16)

    def enabled(self, name: str, *options: str) -> Path:
        """A patched module in the envelope that it was shipped in."""
        shipped = self.shipped(name)
        out = self.folder / shipped.name
        assert run(["enable", str(shipped), "-o", str(out), "--against", str(self.kernel.vmlinux), *options]) == 0
        assert run(["verify", str(shipped), str(out), "--require-emulation"]) == (1 if "keep" in options else 0)
        return out

    def boot(self, modules: list[Path], **options: Any) -> Verdict:
        return boot(self.image, arch=self.kernel.arch, modules=modules, nic=True, **options)


@pytest.fixture(scope="module")
def debian(kernel: Callable[[str], Kernel], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Modules]:
    known: dict[str, Modules] = {}

    def get(name: str) -> Modules:
        if name not in known:
            known[name] = Modules(kernel(name), kernels.modules(name), tmp_path_factory.mktemp(name))
        return known[name]

    return get


def functions(verdict: Verdict) -> Counter[str]:
    assert verdict.functions is not None
    return Counter(verdict.functions)


@pytest.mark.parametrize("name", NAMES)
def test_patched_modules_load_run_their_sites_and_unload_on_the_stock_kernel(
    debian: Callable[[str], Modules], name: str
) -> None:
    one = debian(name)
    made = {
        module: one.enabled(module, *(word for function in found for word in ("--func", function)))
        for module, found in PATCHED.items()
    }
    patched = [made.get(path.name.split(".")[0], path) for path in one.stock]
    places = [one.behind(module, function) for module, function in RUNNING]
    before = one.boot(one.stock, watch_module=places, kaslr=False)
    after = one.boot(patched, watch_module=places, kaslr=False, expected_taint=UNSIGNED)
    assert (before.problems, after.problems) == ((), ())
    assert set(after.loaded.values()) == set(after.unloaded.values()) == {0}
    assert set(after.loaded) == set(before.loaded) >= {"dummy", "virtio_net", "net_failover"}
    assert after.sent == 2 * FRAMES
    assert before.executed_in == dict.fromkeys(places, 0)
    assert after.executed_in == dict.fromkeys(places, FRAMES)
    # What was patched has left the list of its module; everything else is there. Some kernels take functions of init
    # text off the list by themselves once the module is initialised.
    chosen = {f"{function} [{module}]" for module, some in PATCHED.items() for function in some}
    assert functions(before) - functions(after) == Counter(chosen & set(functions(before)))
    assert {"dummy_xmit [dummy]", "start_xmit [virtio_net]"} <= set(functions(before))
    assert functions(after) - functions(before) == Counter()


@pytest.mark.parametrize("name", ["arm64-6.1", "ppc64le-6.1", "ppc64le-6.12"])
def test_without_an_ops_per_site_a_tracer_sees_the_patched_function(
    debian: Callable[[str], Modules], name: str
) -> None:
    one = debian(name)
    patched = one.enabled("dummy", "--func", "dummy_xmit")
    verdict = one.boot([patched], names=["dummy_xmit", "dummy_get_stats64"], expected_taint=UNSIGNED)
    assert verdict.problems == ()
    assert verdict.hits["dummy_xmit"] == FRAMES
    assert verdict.hits["dummy_get_stats64"] > 0
    assert "dummy_xmit [dummy]" not in functions(verdict)
    assert set(verdict.foreign) == {"dummy_xmit"}  # whatever its filter, as the report says


@pytest.mark.parametrize("name", NAMES)
def test_a_hook_into_the_kernel_runs_at_every_call_and_its_backtrace_shows_the_function(
    debian: Callable[[str], Modules], name: str
) -> None:
    one = debian(name)
    init, xmit = "dummy_init_module", "dummy_xmit"
    patched = one.enabled("dummy", "--func", xmit, "--func", init, "--hook", "dump_stack")
    verdict = one.boot([patched], names=["vfs_open"], expected_taint=UNSIGNED)
    assert verdict.problems == ()
    frames = re.findall(r"^.*?(\S+) \[dummy\](?: \(unreliable\))?\s*$", verdict.console, re.MULTILINE)
    names = [frame.split("+")[0] for frame in frames]
    assert names == ["ftpatch_call_init", init] + ["ftpatch_call", xmit] * (2 * FRAMES)  # two recordings


@pytest.mark.parametrize("name", ["arm64-6.12", "ppc64le-6.12"])
def test_a_hook_into_another_module_runs_at_every_call_and_the_loader_counts_the_use(
    debian: Callable[[str], Modules], name: str
) -> None:
    one = debian(name)
    hook = "dm_get_reserved_bio_based_ios"  # takes nothing, changes nothing
    others = dependencies(one.tree, "dm_mod")
    given = [word for path in others for word in ("--against", str(path))]
    patched = one.enabled("dummy", "--func", "dummy_xmit", "--hook", hook, *given)
    places = [one.behind("dummy", "dummy_xmit"), ("dm_mod", hook, 0)]
    verdict = one.boot([*others, patched], watch_module=places, kaslr=False, expected_taint=UNSIGNED)
    assert verdict.problems == ()
    assert verdict.executed_in == dict.fromkeys(places, FRAMES)
    alone = one.boot([patched], expected_taint=0)
    assert alone.loaded == {"dummy": 2}  # ENOENT: insmod needs the other one first


def test_a_signed_module_without_its_key_loads_as_unsigned_and_a_bad_trailer_does_not(
    debian: Callable[[str], Modules], tmp_path: Path
) -> None:
    """The trailer is sound, only its key is not known to the kernel (ENOKEY, which taints); EBADMSG would refuse it."""
    one = debian("arm64-6.12")
    key, cert = files(tmp_path, rsa_key())
    patched = one.enabled("dummy", "--func", "dummy_xmit", "--sign", key, cert)
    verdict = one.boot([patched], expected_taint=UNSIGNED)
    assert (verdict.problems, verdict.loaded) == ((), {"dummy": 0})
    assert "signature and/or required key missing" in verdict.console
    plain = bytearray(lzma.decompress(patched.read_bytes()))
    plain[-len(MARKER) - 4 : -len(MARKER)] = b"\x7f\xff\xff\xff"  # a message longer than the file
    bad = tmp_path / "dummy.ko"
    bad.write_bytes(plain)
    assert one.boot([bad]).loaded == {"dummy": errno.EBADMSG}


@pytest.mark.parametrize(
    ("name", "sign"), [("arm64-6.12", "ftrace failed to modify"), ("ppc64le-6.12", "ftrace-powerpc")]
)
def test_a_kept_record_kills_ftrace_and_the_harness_sees_it(
    debian: Callable[[str], Modules], name: str, sign: str
) -> None:
    one = debian(name)
    verdict = one.boot([one.enabled("dummy", "--func", "dummy_xmit", "--records", "keep")], expected_taint=UNSIGNED)
    assert verdict.functions is None
    assert any(sign in line for line in verdict.splats)
