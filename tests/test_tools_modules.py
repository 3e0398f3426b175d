"""Module trees of the Debian kernels and boots with modules; without a network and QEMU as far as that goes."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from ftpatch.cli import run
from tools import apt, kernels
from tools.boot import BootError, boot
from tools.boot.verdict import Verdict, judge
from tools.modules import ModuleError, dependencies, modinfo, module_name, plain

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="Debian's dpkg is not installed")
ALL = kernels.known()
MOST = tuple(name for name in ALL if name != "x86_64-6.1")  # of one machine, one with the same loader will do
SYSCALL = {"arm64": "__arm64_sys_getppid", "ppc64le": "sys_getppid", "x86_64": "__do_sys_getppid"}
BEHIND = {"arm64": 8, "ppc64le": 8, "x86_64": 9}  # the first site's call: where a stock function begins no basic block
CALLS = 20
SIGNATURE = b"~Module signature appended~\n"


def module(**info: str) -> bytes:
    """Return an ELF file with a section .modinfo, signed in appearance."""
    names = b"\0.shstrtab\0.modinfo\0"
    content = b"".join(f"{key}={value}\0".encode() for key, value in info.items())
    at = {1: (1, 64, len(names)), 2: (11, 64 + len(names), len(content))}
    rows = [bytes(64)] + [struct.pack("<IIQQQQIIQQ", at[r][0], 1, 0, 0, *at[r][1:], 0, 0, 1, 0) for r in (1, 2)]
    e_shoff = 64 + len(names) + len(content)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 1, 183, 1, 0, 0, e_shoff, 0, 64, 0, 0, 64, 3, 1)
    return header + names + content + b"".join(rows) + SIGNATURE


def plant(tree: Path, modules: Mapping[str, str]) -> dict[str, Path]:
    """Write a tree of modules, each given as path and what it depends on; their paths by name."""
    for path, depends in modules.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        elf = module(depends=depends, name=Path(path).name.partition(".")[0])
        (tree / path).write_bytes(lzma.compress(elf) if path.endswith("xz") else elf)
    return {Path(path).name.partition(".")[0]: tree / path for path in modules}


NET = {
    "kernel/drivers/net/virtio_net.ko.xz": "net_failover,virtio_ring",
    "kernel/drivers/net/net_failover.ko": "failover",
    "kernel/net/core/failover.ko": "",
    "kernel/drivers/virtio/virtio_ring.ko": "",
    "kernel/drivers/net/dummy.ko": "",
}


def test_a_module_is_decompressed_and_keeps_its_signature(tmp_path: Path) -> None:
    elf = module(name="m")
    for name, stored in {"m.ko": elf, "m.ko.xz": lzma.compress(elf), "m.ko.gz": gzip.compress(elf)}.items():
        (tmp_path / name).write_bytes(stored)
        assert plain(tmp_path / name) == elf
    assert elf.endswith(SIGNATURE)


def test_modinfo_and_the_name_are_the_modules_own_words() -> None:
    assert modinfo(module(name="snd_x", vermagic="6.1 SMP ")) == {"name": "snd_x", "vermagic": "6.1 SMP "}
    assert module_name(Path("patched.ko"), module(name="dummy")) == "dummy"
    assert module_name(Path("snd-x.ko.xz"), module(license="GPL")) == "snd_x"
    with pytest.raises(ModuleError, match="not a module: expected an ELF file"):
        modinfo(b"text")


def test_modules_are_loaded_after_what_they_say_they_need(tmp_path: Path) -> None:
    at = plant(tmp_path, NET)
    assert dependencies(tmp_path, "dummy") == [at["dummy"]]
    assert dependencies(tmp_path, "virtio-net") == [
        at["failover"],
        at["net_failover"],
        at["virtio_ring"],
        at["virtio_net"],
    ]
    both = dependencies(tmp_path, "virtio_ring", "virtio_net")
    assert both == [at["virtio_ring"], at["failover"], at["net_failover"], at["virtio_net"]]


def test_modules_dep_says_it_where_there_is_one(tmp_path: Path) -> None:
    at = plant(tmp_path, dict.fromkeys(NET, ""))
    lines = [
        "kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko",
        "kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko",
        "kernel/net/core/failover.ko:",
    ]
    (tmp_path / "modules.dep").write_text("\n".join(lines))
    assert dependencies(tmp_path, "virtio_net") == [at["failover"], at["net_failover"], at["virtio_net"]]


def test_what_is_built_in_needs_no_loading_and_what_is_missing_is_named(tmp_path: Path) -> None:
    plant(tmp_path, {"kernel/a.ko": "b", "kernel/x.ko": "y", "kernel/y.ko": "x"})
    with pytest.raises(ModuleError, match="has no module b, needed by a"):
        dependencies(tmp_path, "a")
    with pytest.raises(ModuleError, match="modules need each other: x y x"):
        dependencies(tmp_path, "x")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\nkernel/b.ko\n")
    assert dependencies(tmp_path, "virtio_pci", "a") == [tmp_path / "kernel/a.ko"]


def test_the_packages_with_the_modules_go_by_the_package_with_the_kernel() -> None:
    assert kernels.module_packages("linux-image-6.1.0-56-cloud-arm64-dbg") == (
        (
            "linux-image-6.1.0-56-cloud-arm64",
            "linux-image-6.1.0-56-cloud-arm64-unsigned",
            "linux-image-6.1.0-56-cloud-arm64-dbg",
        ),
    )
    same = "linux-image-6.12.107+deb13-powerpc64le"
    assert kernels.module_packages(same) == ((same,),)
    assert kernels.module_packages("linux-binary-7.2.13+deb14-powerpc64le") == (
        ("linux-modules-7.2.13+deb14-powerpc64le",),
        ("linux-base-7.2.13+deb14-powerpc64le",),
    )


def test_only_packages_of_exactly_the_kernels_version_are_taken_in_order() -> None:
    offered = [
        apt.Candidate("p", "1-2", "new", 9000),
        apt.Candidate("p-dbg", "1-1", "dbg", 9000),
        apt.Candidate("p-unsigned", "1-1", "unsigned", 9000),
    ]
    assert [one.sha256 for one in apt.of_version(["p", "p-unsigned", "p-dbg"], "1-1", offered)] == ["unsigned", "dbg"]
    assert [one.sha256 for one in apt.of_version(["p", "p-unsigned", "p-dbg"], "1-2", offered)] == ["new"]
    with pytest.raises(apt.FetchError, match="the apt sources offer 1-3 of none of: p, p-dbg"):
        apt.of_version(["p", "p-dbg"], "1-3", offered)


class Archive(apt.Apt):
    """An apt whose packages are made on the spot: the members of each, by package and version.

    What `missing` holds is listed, but a download of it fails.
    """

    def __init__(self, packages: Mapping[tuple[str, str], Sequence[str]]) -> None:
        super().__init__({})
        self.__dict__.update(packages=packages, missing=set())

    packages: Mapping[tuple[str, str], Sequence[str]]
    missing: set[tuple[str, str]]

    def have(self, packages: Mapping[tuple[str, str], Sequence[str]]) -> None:
        self.__dict__.update(packages=packages)

    def candidates(self, pattern: str) -> list[apt.Candidate]:
        fitting = (key for key in self.packages if re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), key[0]))
        return [apt.Candidate(package, version, "digest", 9000) for package, version in fitting]

    def _run(
        self, command: list[str], *, capture: bool = False, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        assert command[:3] == ["apt-get", "download", "--quiet"] and cwd
        package, _, version = command[3].partition("=")
        if (package, version) in self.missing:
            return subprocess.CompletedProcess(command, 100)
        tree = cwd / f"tree-{package}"
        control = f"Package: x\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@x.org>\nDescription: x\n"
        for name in self.packages[package, version]:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(f"{version} {name}")
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(control)
        build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(cwd / "x.deb")]
        return subprocess.run(build, check=True, capture_output=True, text=True)


BINARY, MODULES, BASE = (f"linux-{part}-7-powerpc64le" for part in ("binary", "modules", "base"))


def version(number: str) -> dict[tuple[str, str], Sequence[str]]:
    """Return the packages of one version of a kernel."""
    return {
        (BINARY, number): ["usr/lib/modules/7/vmlinuz"],
        (MODULES, number): ["usr/lib/modules/7/kernel/net/a.ko.xz", "usr/lib/modules/7/kernel/note", "usr/share/b.ko"],
        (BASE, number): ["usr/lib/modules/7/modules.builtin", "boot/config"],
    }


@needs_dpkg
def test_a_tree_is_of_the_kernels_version_before_and_after_a_refresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTPATCH_CACHE", str(tmp_path))
    archive = Archive(version("1"))
    monkeypatch.setattr(kernels, "_apt", lambda spec: archive)
    assert kernels.ensure("ppc64le-sid").modules is None
    archive.have(version("2") | version("1"))
    tree = kernels.modules("ppc64le-sid")
    assert tree == tmp_path / "kernels/ppc64le-sid/modules" == kernels.ensure("ppc64le-sid").modules
    found = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    assert found == {"kernel/net/a.ko.xz", "modules.builtin", "kernel.json"}
    assert (tree / "kernel/net/a.ko.xz").read_text() == "1 usr/lib/modules/7/kernel/net/a.ko.xz"
    newer = kernels.ensure("ppc64le-sid", refresh=True)
    assert (newer.version, newer.modules) == ("2", tree)
    assert newer.vmlinux.read_text().startswith("2 ") and (tree / "kernel/net/a.ko.xz").read_text().startswith("2 ")


AMD64 = {  # what a fresh machine finds of the cloud kernels; (flavour, version) → the release in their files' names
    ("linux-image-6.12.118+deb13-cloud-amd64", "6.12.118-1"): "6.12.118+deb13-cloud-amd64",
    ("linux-image-6.12.118+deb13-amd64", "6.12.118-1"): "6.12.118+deb13-amd64",
    ("linux-image-6.12.119+deb12-cloud-amd64", "6.12.119-1~bpo12+1"): "6.12.119+deb12-cloud-amd64",
    ("linux-image-6.1.0-57-cloud-amd64", "6.1.187-1"): "6.1.0-57-cloud-amd64",
    ("linux-image-6.1.0-57-rt-amd64", "6.1.187-1"): "6.1.0-57-rt-amd64",
}


@needs_dpkg
def test_a_fresh_machine_gets_both_kernels_of_x86_64_with_their_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FTPATCH_CACHE", str(tmp_path))
    packages: dict[tuple[str, str], Sequence[str]] = {}
    for (name, number), release in AMD64.items():
        debug = [f"usr/lib/debug/boot/{file}-{release}" for file in ("vmlinux", "System.map")]
        packages[f"{name}-dbg", number] = [*debug, f"usr/lib/debug/lib/modules/{release}/kernel/net/a.ko"]
        packages[f"{name}-unsigned", number] = [f"boot/vmlinuz-{release}", f"lib/modules/{release}/kernel/net/a.ko"]
    archive = Archive(packages)
    monkeypatch.setattr(kernels, "_apt", lambda spec: archive)
    wanted = [name for name in kernels.known() if name.startswith("x86_64")]
    monkeypatch.setattr(sys, "argv", ["tools.kernels", "--modules", *wanted])
    assert kernels.main() == 0
    at = tmp_path / "kernels"
    newest = [one for one in AMD64 if "cloud" in one[0] and "deb12" not in one[0]][::-1]
    assert capsys.readouterr().out.splitlines() == [
        f"{name}: {package}-dbg {number} {at}/{name}/vmlinux {at}/{name}/modules"
        for name, (package, number) in zip(wanted, newest, strict=True)
    ]
    release = "6.12.118+deb13-cloud-amd64"
    assert (at / "x86_64-6.12/System.map").read_text() == f"6.12.118-1 usr/lib/debug/boot/System.map-{release}"
    assert (
        at / "x86_64-6.12/modules/kernel/net/a.ko"
    ).read_text() == f"6.12.118-1 lib/modules/{release}/kernel/net/a.ko"
    assert kernels.boot_file("x86_64-6.12") == at / "x86_64-6.12/modules/vmlinuz"
    assert kernels.boot_file("x86_64-6.12").read_text() == f"6.12.118-1 boot/vmlinuz-{release}"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """An archive with three versions of a kernel, in place of Debian's."""
    monkeypatch.setenv("FTPATCH_CACHE", str(tmp_path))
    archive = Archive(version("1") | version("2") | version("3"))
    monkeypatch.setattr(kernels, "_apt", lambda spec: archive)
    return archive


@needs_dpkg
def test_the_newest_kernel_that_comes_is_taken_and_named(archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    """A mirror listed linux-image-6.12.117 for ppc64le and answered 404; everything stopped, though 6.12.107 came."""
    archive.missing.update({(BINARY, "3"), (BINARY, "2")})
    kernel = kernels.ensure("ppc64le-sid")
    assert kernel.version == "1" and kernel.vmlinux.read_text() == "1 usr/lib/modules/7/vmlinuz"
    assert [line.removeprefix("tools.kernels: ") for line in capsys.readouterr().err.splitlines()] == [
        f"downloading {BINARY} 3",
        f"{BINARY} 3 is listed but does not come",
        f"downloading {BINARY} 2",
        f"{BINARY} 2 is listed but does not come",
        f"downloading {BINARY} 1",
        "extracting x.deb",
    ]


@needs_dpkg
def test_that_no_kernel_comes_is_an_error_with_all_that_were_tried(archive: Archive, tmp_path: Path) -> None:
    archive.missing.update({(BINARY, "3"), (BINARY, "2"), (BINARY, "1")})
    with pytest.raises(kernels.FetchError) as caught:
        kernels.ensure("ppc64le-sid")
    assert str(caught.value) == f"apt-get could download none of: {BINARY} 3, {BINARY} 2, {BINARY} 1"
    assert list((tmp_path / "kernels").iterdir()) == []


@needs_dpkg
def test_a_refresh_that_brings_nothing_newer_leaves_what_is_there(archive: Archive) -> None:
    archive.missing.add((BINARY, "3"))
    assert kernels.ensure("ppc64le-sid").version == "2"
    archive.missing.add((BINARY, "2"))
    assert kernels.ensure("ppc64le-sid", refresh=True).version == "2"
    archive.missing.clear()
    assert kernels.ensure("ppc64le-sid", refresh=True).version == "3"


@needs_dpkg
def test_a_kernel_whose_modules_do_not_come_gives_way_to_the_newest_whose_modules_do(archive: Archive) -> None:
    archive.missing.update({(MODULES, "3"), (BASE, "2")})
    assert kernels.ensure("ppc64le-sid").version == "3"
    tree = kernels.modules("ppc64le-sid")
    assert kernels.ensure("ppc64le-sid").version == "1"
    assert (tree / "kernel/net/a.ko.xz").read_text().startswith("1 ")


@needs_dpkg
def test_a_cached_kernel_that_the_archive_has_no_longer_gives_way_too(archive: Archive) -> None:
    archive.have(version("1"))
    kernels.ensure("ppc64le-sid")
    archive.have(version("2"))
    kernels.modules("ppc64le-sid")
    assert kernels.ensure("ppc64le-sid").version == "2"


@needs_dpkg
def test_that_no_modules_come_is_an_error_and_the_kernel_stays(archive: Archive) -> None:
    archive.missing.update({(MODULES, one) for one in "123"})
    with pytest.raises(kernels.FetchError, match=f"could download none of: {MODULES} 3$"):
        kernels.modules("ppc64le-sid")
    assert kernels.ensure("ppc64le-sid").version == "3"


CLOUD = "linux-image-6.12.{}+deb13-cloud-arm64"


def installed(number: str, *members: str) -> dict[tuple[str, str], Sequence[str]]:
    """Return the packages of one version of a kernel whose installed package holds these members and modules."""
    debug = ["usr/lib/debug/boot/vmlinux-x", "usr/lib/debug/lib/modules/x/kernel/net/a.ko"]
    package = CLOUD.format(number)
    tree = ["lib/modules/x/kernel/net/a.ko", "lib/modules/x/vmlinuz"]
    return {(f"{package}-dbg", number): debug, (package, number): [*members, *tree]}


@needs_dpkg
def test_a_boot_file_comes_with_the_modules_and_on_demand_to_those_that_came_without(
    archive: Archive, tmp_path: Path
) -> None:
    archive.have(installed("1", "boot/vmlinuz-x"))
    tree = kernels.modules("arm64-6.12")
    assert (tree / "vmlinuz").read_text() == "1 boot/vmlinuz-x"
    assert (tree / "kernel/net/a.ko").read_text() == "1 lib/modules/x/kernel/net/a.ko"
    (tree / "vmlinuz").unlink()
    assert kernels.modules("arm64-6.12") == tree and not (tree / "vmlinuz").exists()
    assert kernels.boot_file("arm64-6.12") == tree / "vmlinuz" == tmp_path / "kernels/arm64-6.12/modules/vmlinuz"
    assert (tree / "vmlinuz").read_text() == "1 boot/vmlinuz-x"


@needs_dpkg
def test_a_kernel_whose_boot_file_does_not_come_gives_way_to_the_newest_whose_does(archive: Archive) -> None:
    archive.have(installed("3", "boot/vmlinuz-x") | installed("2") | installed("1", "boot/vmlinuz-x"))
    archive.missing.add((CLOUD.format("3"), "3"))
    tree = kernels.modules("arm64-6.12")
    assert (tree / "kernel/net/a.ko").read_text() == "3 usr/lib/debug/lib/modules/x/kernel/net/a.ko"
    assert kernels.boot_file("arm64-6.12").read_text() == "1 boot/vmlinuz-x"
    assert (tree / "kernel/net/a.ko").read_text() == "1 lib/modules/x/kernel/net/a.ko"
    assert kernels.ensure("arm64-6.12").version == "1"


@needs_dpkg
def test_that_no_boot_file_comes_is_an_error_and_the_modules_stay(archive: Archive) -> None:
    archive.have(installed("2"))
    tree = kernels.modules("arm64-6.12")
    with pytest.raises(kernels.FetchError, match=r"^x\.deb holds no boot/vmlinuz-\*$"):
        kernels.boot_file("arm64-6.12")
    assert (tree / "kernel/net/a.ko").read_text() == "2 lib/modules/x/kernel/net/a.ko"


@needs_dpkg
def test_a_vmlinux_that_is_itself_what_is_booted_is_the_boot_file(archive: Archive, tmp_path: Path) -> None:
    assert kernels.boot_file("ppc64le-sid") == tmp_path / "kernels/ppc64le-sid/vmlinux"
    assert kernels.cached("ppc64le-sid") == kernels.ensure("ppc64le-sid")


REPORT = """\
begin=1
text=ffff800008000000
loaded.failover=0
loaded.virtio_net=0
loaded.dummy=129
symbol.virtio_net:start_xmit=ffff800000001000
symbol.virtio_net:twice=ffff800000002000
symbol.virtio_net:twice=ffff800000003000
symbol.failover:twice=ffff800000004000
function=vfs_open
function=start_xmit [virtio_net]
lines.function=2
sent=19
other=21
leaked=0
sent=20
unloaded.virtio_net=11
unloaded.failover=0
taint=8192
end=1
"""


def test_what_the_guest_says_of_modules_is_read_and_refusals_are_problems() -> None:
    verdict = judge("", REPORT, seconds=1, timed_out=False, expected_taint=8192)
    assert verdict.loaded == {"failover": 0, "virtio_net": 0, "dummy": 129}
    assert verdict.unloaded == {"virtio_net": 11, "failover": 0}
    assert verdict.symbols == {"virtio_net:start_xmit": 0xFFFF800000001000, "failover:twice": 0xFFFF800000004000}
    assert verdict.functions == ("vfs_open", "start_xmit [virtio_net]")
    assert verdict.sent == 20
    assert verdict.problems == (
        "module dummy was not loaded, errno 129",
        "module virtio_net was not unloaded, errno 11",
    )


@pytest.mark.parametrize(
    ("expected", "problem"), [(0, "taint is 8192"), (8192, None), (12288, "taint is 8192, not 12288")]
)
def test_only_the_taint_that_the_caller_expects_is_no_problem(expected: int, problem: str | None) -> None:
    report = "begin=1\nfunction=f\nlines.function=1\nother=1\ntaint=8192\nend=1\n"
    verdict = judge("", report, seconds=1, timed_out=False, expected_taint=expected)
    assert verdict.problems == ((problem,) if problem else ())


FAKE_COMPILER = """\
import sys
open(sys.argv[sys.argv.index("-o") + 1], "w").write("the guest's init")
"""

FAKE_QEMU = """\
import re, sys
arguments = " ".join(sys.argv)
print("command:", arguments, flush=True)
initrd = open(sys.argv[sys.argv.index("-initrd") + 1], "rb").read()
assert b"modules/m.ko\\0" in initrd and b"~Module signature appended~" in initrd and b"m\\n" in initrd
if "-D" in sys.argv:
    log = open(sys.argv[sys.argv.index("-D") + 1], "w")
    for address in ("ffff800000001008", "ffff800000001000", "ffff800000001008", "ffff000000001004"):
        log.write(f"Trace 0: 0x7f0 [00000000/{address}/0/ff] f\\n")
report = "begin=1\\ntext=ffff000000001000\\nloaded.m=ERRNO\\nsymbol.m:f=ffff800000001000\\nsymbol.m:far=f000\\nend=1\\n"
refused = "refuse" in arguments
report = re.sub("symbol.*\\n", "", report) if refused else report
with open(re.search("mem-path=([^,]*)", arguments)[1], "r+b") as window:
    window.write(report.replace("ERRNO", "129" if refused else "0").encode())
"""


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compressed module called m; the compiler and the QEMU on the path only pretend."""
    for name, script in {"aarch64-linux-gnu-gcc": FAKE_COMPILER, "qemu-system-aarch64": FAKE_QEMU}.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{sys.executable}\n{script}")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("FTPATCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "patched.ko.xz"
    path.write_bytes(lzma.compress(module(name="m")))
    return path


def test_places_in_modules_are_counted_where_the_boot_itself_says_they_are(unit: Path) -> None:
    places = [("m", "f", 8), ("m", "f", 0), ("m", "f", 16)]
    verdict = boot(Path("Image"), kaslr=False, modules=[unit], watch_module=places, watch=[0xFFFF000000001004])
    assert verdict.executed_in == {("m", "f", 8): 2, ("m", "f", 0): 1, ("m", "f", 16): 0}
    assert verdict.executed == {0xFFFF000000001004: 1}
    assert "-dfilter 0xffff000000001004+4,0xffff800000000000+134217728," in verdict.console
    assert "virtio-net-pci" not in verdict.console
    assert "virtio-net-pci,netdev=n0" in boot(Path("Image"), modules=[unit], nic=True).console


def test_a_place_in_a_refused_module_has_no_count(unit: Path) -> None:
    verdict = boot(Path("refuse"), kaslr=False, modules=[unit], watch_module=[("m", "f", 8)])
    assert (verdict.loaded, verdict.executed_in) == ({"m": 129}, {})


def test_a_place_that_cannot_be_watched_is_not_counted_as_zero(unit: Path) -> None:
    with pytest.raises(BootError, match="module m has no symbol nowhere, or several of that name"):
        boot(Path("Image"), kaslr=False, modules=[unit], watch_module=[("m", "nowhere", 0)])
    with pytest.raises(BootError, match="module m is at 0xf000, outside of the watched area"):
        boot(Path("Image"), kaslr=False, modules=[unit], watch_module=[("m", "far", 0)])
    with pytest.raises(ValueError, match="takes a boot without KASLR"):
        boot(Path("Image"), modules=[unit], watch_module=[("m", "f", 0)])
    with pytest.raises(ValueError, match="exclude each other"):
        boot(Path("Image"), kaslr=False, names=["f"], modules=[unit], watch_module=[("m", "f", 0)])


@pytest.fixture(scope="module")
def stock(kernel: Callable[[str], kernels.Kernel], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Verdict]:
    """A function that boots a stock kernel with its own modules."""

    def call(name: str, *needed: str, names: Sequence[str] = (), sent: int = CALLS, **options: object) -> Verdict:
        one = kernel(name)
        image = tmp_path_factory.mktemp(name) / "Image"
        assert run(["image", str(one.vmlinux), "-o", str(image)]) == 0
        asked = [SYSCALL[one.arch], *names] if names else []
        load = dependencies(kernels.modules(name), *needed)
        verdict = boot(image, arch=one.arch, names=asked, modules=load, **options)  # type: ignore[arg-type]
        assert verdict.problems == ()
        loaded = [path.name.partition(".")[0] for path in load]
        assert (list(verdict.loaded), list(verdict.unloaded)) == (loaded, loaded[::-1])
        assert verdict.sent == sent
        return verdict

    return call


@pytest.mark.corpus
@pytest.mark.parametrize("name", ALL)
def test_the_modules_are_of_the_kernels_own_build(kernel: Callable[[str], kernels.Kernel], name: str) -> None:
    magic = modinfo(plain(dependencies(kernels.modules(name), "dummy")[-1]))["vermagic"]
    assert f"\0{magic}\0".encode() in kernel(name).vmlinux.read_bytes()


@pytest.mark.boot
@pytest.mark.parametrize("name", ALL)
def test_stock_modules_are_traced_send_frames_and_leave_without_a_trace(
    stock: Callable[..., Verdict], name: str
) -> None:
    """An interface without hardware, and one whose frames go through its card."""
    functions = ["dummy_xmit", "dummy_get_stats64", "start_xmit"]
    verdict = stock(name, "virtio_pci", "virtio_net", "dummy", names=functions, sent=2 * CALLS, nic=True)
    hits = dict(verdict.hits)
    assert hits.pop("dummy_get_stats64") > 0
    assert hits == dict.fromkeys([SYSCALL[name.partition("-")[0]], "dummy_xmit", "start_xmit"], CALLS)
    assert {"dummy_xmit [dummy]", "start_xmit [virtio_net]"} <= set(verdict.functions or ())


@pytest.mark.boot
@pytest.mark.parametrize("name", MOST)
def test_executions_in_a_module_are_counted(
    stock: Callable[..., Verdict], kernel: Callable[[str], kernels.Kernel], name: str
) -> None:
    entry, inside = ("dummy", "dummy_xmit", 0), ("dummy", "dummy_xmit", BEHIND[kernel(name).arch])
    verdict = stock(name, "dummy", kaslr=False, watch_module=[entry, inside])
    assert verdict.executed_in == {entry: CALLS, inside: 0}
