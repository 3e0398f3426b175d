"""Modules with redirected functions on the unpatched kernels of their build, in QEMU: loaded, called, unloaded."""

from __future__ import annotations

import errno
import lzma
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_boot_modules import FRAMES, NAMES, UNSIGNED, Modules, functions

from ftpatch.cli import run
from tools import kernels
from tools.boot.verdict import Verdict
from tools.kernels import Kernel
from tools.modules import dependencies

pytestmark = pytest.mark.boot
OBJECTS = Path(__file__).parent.parent / "testdata" / "zram"
WITHOUT_TYPES = "ppc64le-6.1"  # its files tell no function's parameters
MPROFILE = "ppc64le-6.1"  # disabled sites of its modules stay without records
DUMMY = {"dummy_get_stats64": "dev_get_tstats64", "set_multicast_list": "netif_carrier_on"}
# Linux 7.2 calls set_multicast_list with more, and uses what it returns.
DUMMY_SID = {"dummy_get_stats64": "dev_get_tstats64", "set_multicast_list": "eth_validate_addr"}
ZRAM = {"comp_algorithm_show": "debug_stat_show", "io_stat_show": "device_show_int"}
ONE_ENTRY = {"max_comp_streams_store": "mem_limit_store"}  # gone in Linux 7.2
# Kernels for whose layout gcc 12 makes records; the code that comes along can be traced there.
RECORDED = {"arm64-6.1": "arm64-pfe2", "arm64-6.12": "arm64-callops", "ppc64le-6.1": "ppc64le-mprofile"}
DEVICE = "/sys/block/zram0/"
LIMIT = 1 << 20


def redirected(one: Modules, module: Path, step: str, *options: str) -> Path:
    """The module with functions redirected, proven."""
    out, kernel = one.folder / step / module.name, str(one.kernel.vmlinux)
    out.parent.mkdir()
    assert run(["redirect", str(module), "--against", kernel, "-o", str(out), *options]) == 0
    assert run(["verify", str(module), str(out), "--against", kernel, "--require-emulation"]) == 0
    return out


def maps(pairs: dict[str, str]) -> list[str]:
    return [word for func, to in pairs.items() for word in ("--map", f"{func}={to}")]


def patched_dummy(one: Modules, name: str) -> Path:
    pairs = DUMMY_SID if name == "ppc64le-sid" else DUMMY
    options = {WITHOUT_TYPES: ["--assume-register-args"], "ppc64le-sid": ["--force-signature"]}
    return redirected(one, one.shipped("dummy"), "dummy", *maps(pairs), *options.get(name, []))


def patched_zram(one: Modules, name: str) -> Path:
    """zram with functions that lead to others of its own, into the kernel, and to what objects bring along."""
    pairs = ZRAM if name == "ppc64le-sid" else ZRAM | ONE_ENTRY
    assume = ["--assume-register-args"] if name == WITHOUT_TYPES else []
    first = redirected(one, one.shipped("zram"), "zram", *maps(pairs), *assume)
    state = str(OBJECTS / f"state-{one.kernel.arch}.o")
    size = str(OBJECTS / f"size-{RECORDED.get(name, one.kernel.arch)}.o")
    second = redirected(one, first, "state", "--map", "initstate_show=patched_initstate_show", "--with", state)
    keep = ["--keep-original", "original_disksize_show"]
    return redirected(one, second, "size", "--map", "disksize_show=patched_disksize_show", "--with", size, *keep)


def boot(one: Modules, dummy: Path, zram: Path, taint: int, **options: Any) -> Verdict:
    others = dependencies(one.tree, "zram")[:-1]
    steps = [
        *(f"read {DEVICE}{file}" for file in ("comp_algorithm", "initstate", "disksize", "dev")),
        *(f"write {DEVICE}max_comp_streams {LIMIT}", f"read {DEVICE}mm_stat"),
        *(f"read /sys/class/net/dummy0/statistics/{side}_packets" for side in ("tx", "rx")),
    ]
    return one.boot([*others, zram, dummy], steps=steps, expected_taint=taint, **options)


@pytest.mark.parametrize("name", NAMES)
def test_functions_of_modules_do_what_their_replacements_do(
    kernel: Callable[[str], Kernel], tmp_path: Path, name: str
) -> None:
    one = Modules(kernel(name), kernels.modules(name), tmp_path)
    to = (DUMMY_SID if name == "ppc64le-sid" else DUMMY)["set_multicast_list"]
    verdict = boot(one, patched_dummy(one, name), patched_zram(one, name), UNSIGNED, names=[to, "set_multicast_list"])
    assert verdict.problems == ()
    assert set(verdict.loaded.values()) == set(verdict.unloaded.values()) == {0}
    own, state, size, device, wrote, stat, sent, received = verdict.steps
    assert own == "version: 1"
    assert state == "42, data reached"
    assert size == f"0 bytes, block major {device.split(':')[0]}"
    assert (wrote, stat.split()[3]) == (("0", str(LIMIT)) if name != "ppc64le-sid" else (str(-errno.ENOENT), "0"))
    assert (verdict.hits["set_multicast_list"], verdict.hits[to] >= 2) == (0, True)
    assert (sent, received) == ("0", str(2 * FRAMES))  # the kernel's function takes dummy's counters for others
    missing = {*ZRAM, *(ONE_ENTRY if name != "ppc64le-sid" else ()), "initstate_show", "disksize_show"}
    listed = functions(verdict)
    assert not {f"{func} [zram]" for func in missing} & set(listed)
    assert not {f"{func} [dummy]" for func in DUMMY} & set(listed)
    assert ("patched_disksize_show [zram]" in listed) == (name in RECORDED)
    assert {"debug_stat_show [zram]", "mm_stat_show [zram]", "dummy_xmit [dummy]"} <= set(listed)


@pytest.mark.parametrize("name", ["arm64-6.12", "ppc64le-6.1"])
def test_disabled_they_do_what_is_their_own(kernel: Callable[[str], Kernel], tmp_path: Path, name: str) -> None:
    """The control of the test above, too: what its answers are without redirects."""
    one = Modules(kernel(name), kernels.modules(name), tmp_path)
    assume = ["--assume-register-args"] if name == WITHOUT_TYPES else []
    back = {}
    for module, pairs in (("dummy", DUMMY), ("zram", ZRAM | ONE_ENTRY)):
        patched = redirected(one, one.shipped(module), module, *maps(pairs), *assume)
        back[module] = one.folder / f"{module}.ko"
        assert run(["disable", str(patched), *(f"--func={func}" for func in pairs), "-o", str(back[module])]) == 0
        assert run(["verify", str(patched), str(back[module]), "--require-emulation"]) == 0
    verdict = boot(one, back["dummy"], back["zram"], UNSIGNED, names=[*DUMMY, *DUMMY.values()])
    assert verdict.problems == ()
    own, state, size, _, wrote, stat, sent, received = verdict.steps
    assert "[" in own and "version" not in own
    assert (state, size, wrote, stat.split()[3]) == ("0", "0", "0", "0")
    assert (sent, received) == (str(2 * FRAMES), "0")
    traceable = name != MPROFILE
    assert {func: verdict.hits[func] > 0 for func in DUMMY} == dict.fromkeys(DUMMY, traceable)
    assert {verdict.hits[to] for to in DUMMY.values()} == {0}
    assert {f"{func} [zram]" in functions(verdict) for func in ZRAM} == {traceable}


def test_a_replacement_in_another_module_runs(kernel: Callable[[str], Kernel], tmp_path: Path) -> None:
    one = Modules(kernel("ppc64le-6.12"), kernels.modules("ppc64le-6.12"), tmp_path)
    other = "dm_get_reserved_bio_based_ios"  # takes nothing, changes nothing
    others = dependencies(one.tree, "dm_mod")
    given = [word for path in others for word in ("--against", str(path))]
    pair = ["--func", "set_multicast_list", "--to", other, "--force-signature"]
    patched = redirected(one, one.shipped("dummy"), "dummy", *pair, *given)
    verdict = one.boot([*others, patched], names=["set_multicast_list", other], expected_taint=UNSIGNED)
    assert (verdict.problems, verdict.unloaded) == ((), dict.fromkeys(verdict.loaded, 0))
    assert verdict.hits["set_multicast_list"] == 0 < verdict.hits[other]


def test_without_a_frame_a_caller_in_the_module_loses_its_data(
    kernel: Callable[[str], Kernel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control of the frame: a sibling jump to the kernel, as a compiler might make it, which the proof rejects."""
    one = Modules(kernel("ppc64le-6.12"), kernels.modules("ppc64le-6.12"), tmp_path)
    framed = patched_zram(one, "ppc64le-6.12")
    content = lzma.decompress(framed.read_bytes())
    enter = struct.pack("<5I", 0x7C0802A6, 0xF8010010, 0xF821FFD1, 0xF8410028, 0x48000001)  # mflr, std, stdu, std, bl
    assert content.count(enter) == 1
    frameless = tmp_path / "zram.ko"
    frameless.write_bytes(content.replace(enter, struct.pack("<5I", *[0x60000000] * 4, 0x48000000)))  # nop …, b
    capsys.readouterr()
    assert run(["verify", str(one.shipped("zram")), str(frameless), "--against", str(one.kernel.vmlinux)]) == 1
    assert "goes to device_show_int in another file without a frame of its own" in capsys.readouterr().out
    verdict = boot(one, one.shipped("dummy"), frameless, UNSIGNED)
    assert verdict.loaded["zram"] == 0
    assert verdict.steps == ("version: 1",)  # and no more: the guest died of the next one
    assert any("Oops" in line for line in verdict.splats)
    assert re.search(r"LR \[\w+\] patched_initstate_show\+", verdict.console)
