"""The tools that fetch and boot kernels, as far as that goes without a network and without QEMU."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from tools import apt, kernels, programs
from tools.boot import BootError, boot, initramfs
from tools.boot.verdict import Verdict, judge

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg") is None, reason="Debian's dpkg is not installed")

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

DEB822 = f"""\
# the archive
Types: deb deb-src
URIs: http://mirror.example/debian
# a comment between fields
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYRING}

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main

Types: deb
URIs:
 http://security.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: {KEYRING}
"""

ONE_LINE = f"""\
# deb http://off.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb http://plain.example/debian bookworm main contrib # with a comment
deb [arch=amd64 signed-by={KEYRING}] http://security.example/debian-security bookworm-security main
deb http://other.example/debian bookworm contrib
"""


def test_deb822_sources_are_the_enabled_binary_ones() -> None:
    assert list(apt.deb822_sources(DEB822)) == [
        apt.Source("http://mirror.example/debian", ("bookworm", "bookworm-updates"), KEYRING),
        apt.Source("http://security.example/debian-security", ("bookworm-security",), KEYRING),
    ]


def test_one_line_sources_are_the_binary_ones_with_main() -> None:
    assert list(apt.one_line_sources(ONE_LINE)) == [
        apt.Source("http://plain.example/debian", ("bookworm",), None),
        apt.Source("http://security.example/debian-security", ("bookworm-security",), KEYRING),
    ]


def test_machine_sources_are_debians_own_with_the_keyring_first(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://plain.example/debian bookworm main\n")
    (parts / "debian.sources").write_text(DEB822)
    (parts / "vendor.list").write_text(
        "deb [signed-by=/etc/apt/keyrings/vendor.gpg] http://vendor.example/apt bookworm main\n"
        "deb http://unrelated.example/apt nodistro main\n"
    )
    (parts / "off.list.disabled").write_text("deb http://off.example/debian bookworm main\n")
    assert [source.uri for source in apt.machine_sources(tmp_path)] == [
        "http://mirror.example/debian",
        "http://security.example/debian-security",
        "http://plain.example/debian",
    ]


def test_source_lines_take_each_suite_from_its_archive() -> None:
    lines = apt.source_lines(list(apt.deb822_sources(DEB822)), ("trixie", "trixie-security"), "arm64")
    assert lines == [
        f"deb [arch=arm64 signed-by={KEYRING}] http://mirror.example/debian trixie main",
        f"deb [arch=arm64 signed-by={KEYRING}] http://security.example/debian-security trixie-security main",
    ]


def test_suites_of_an_archive_the_machine_does_not_name_are_left_out() -> None:
    archive = apt.Source("http://mirror.example/debian", ("trixie",), None)
    lines = apt.source_lines([archive], ("trixie", "trixie-security"), "arm64")
    assert lines == ["deb [arch=arm64] http://mirror.example/debian trixie main"]


def test_apt_and_the_boot_have_their_own_name_for_an_architecture() -> None:
    spec = kernels.Spec(
        package="linux-binary-*-powerpc64le",
        arch="ppc64le",
        suites=("sid",),
        vmlinux="usr/lib/modules/*/vmlinuz",
        system_map=None,
    )
    assert (spec.arch, spec.debian_arch) == ("ppc64le", "ppc64el")
    assert spec.members == {"vmlinux": "usr/lib/modules/*/vmlinuz"}
    other = replace(spec, arch="arm64", system_map="boot/System.map-*")
    assert other.debian_arch == "arm64"
    assert other.members == {"vmlinux": "usr/lib/modules/*/vmlinuz", "System.map": "boot/System.map-*"}


def test_a_machine_without_a_mirror_is_told_so_in_one_line() -> None:
    with pytest.raises(kernels.FetchError) as caught:
        apt.source_lines([], ("trixie",), "arm64")
    assert "name no Debian mirror" in str(caught.value)
    assert "\n" not in str(caught.value)


def shown(package: str, version: str, kib: int = 1_800_000) -> str:
    """Return what `apt-cache show` prints about a package."""
    return (
        f"Package: {package}\nSource: linux\nVersion: {version}\nInstalled-Size: {kib}\n"
        f"Description: Debug symbols\n for a kernel\nSHA256: {version}-digest\n\n"
    )


OFFERED = "".join(
    [
        shown("linux-image-6.12-cloud-arm64-dbg", "6.12.200-1", kib=10),
        shown("linux-image-6.12+deb13-cloud-arm64-dbg", "6.12.200-1", kib=10),
        shown("linux-image-6.12.94+deb13-cloud-arm64-dbg", "6.12.94-1"),
        shown("linux-image-6.12.117+deb13-cloud-arm64-dbg", "6.12.117-1~rc1"),
        shown("linux-image-6.12.117+deb13-cloud-arm64-dbg", "6.12.117-1"),
        shown("linux-image-6.12.116+deb13-cloud-arm64-dbg", "6.12.116-2"),
        shown("linux-image-6.12.118+deb12-cloud-arm64-dbg", "6.12.118-1~deb12u1"),
        shown("linux-image-6.12.119+deb13-cloud-arm64", "6.12.119-1"),
        shown("linux-image-6.1.0-9-cloud-arm64-dbg", "6.1.27-1"),
        shown("linux-image-6.1.0-10-cloud-arm64-dbg", "6.1.27-1"),
        shown("linux-image-6.12.94+deb13-powerpc64le", "6.12.94-1", kib=116_329),
        shown("linux-image-6.12.107+deb13-powerpc64le", "6.12.107-1", kib=116_464),
        shown("linux-image-6.12.107+deb13-powerpc64le-dbg", "6.12.107-1"),
        shown("linux-image-6.12.108+deb13-powerpc64le-64k", "6.12.108-1", kib=116_478),
        shown("linux-image-7.2.13+deb14-powerpc64le", "7.2.13-1", kib=15),
        shown("linux-binary-7.2.13+deb14-powerpc64le", "7.2.13-1", kib=48_998),
        shown("linux-binary-7.2.13+deb14-powerpc64le-64k", "7.2.13-1", kib=49_593),
    ]
)


@needs_dpkg
def test_newest_is_by_debian_order_and_holds_a_kernel() -> None:
    choice = apt.newest_first("linux-image-6.12*+deb13*-cloud-arm64-dbg", apt.candidates(OFFERED))[0]
    assert choice == apt.Candidate(
        "linux-image-6.12.117+deb13-cloud-arm64-dbg", "6.12.117-1", "6.12.117-1-digest", 1_800_000
    )


@needs_dpkg
def test_of_packages_of_one_version_the_newest_by_name_is_taken() -> None:
    choice = apt.newest_first("linux-image-6.1.0-*-cloud-arm64-dbg", apt.candidates(OFFERED))[0]
    assert choice.package == "linux-image-6.1.0-10-cloud-arm64-dbg"


@needs_dpkg
@pytest.mark.parametrize(
    ("pattern", "package"),
    [
        ("linux-image-6.12*+deb13*-powerpc64le", "linux-image-6.12.107+deb13-powerpc64le"),
        ("linux-binary-*-powerpc64le", "linux-binary-7.2.13+deb14-powerpc64le"),
    ],
)
def test_the_flavour_with_64k_pages_and_the_debug_symbols_are_other_packages(pattern: str, package: str) -> None:
    assert apt.newest_first(pattern, apt.candidates(OFFERED))[0].package == package


def test_no_package_that_matches_is_an_error() -> None:
    with pytest.raises(kernels.FetchError, match="no package like linux-image-7"):
        apt.newest_first("linux-image-7*", apt.candidates(OFFERED))


@needs_dpkg
def test_extract_writes_what_matches_and_nothing_else(tmp_path: Path) -> None:
    tree, target = tmp_path / "tree", tmp_path / "target"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    (tree / "boot").mkdir()
    for name in ("System.map-1", "vmlinux-1", "config-1"):
        (tree / "boot" / name).write_text(f"this is {name}")
    target.mkdir()
    deb = tmp_path / "x.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(deb)], check=True, capture_output=True)
    wanted = {"vmlinux": "boot/vmlinux-*", "System.map": "boot/System.map-*", "absent": "boot/initrd-*"}
    apt.extract(deb, wanted, target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "vmlinux": "this is vmlinux-1",
        "System.map": "this is System.map-1",
    }


def test_a_cached_kernel_is_found_and_an_absent_one_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTPATCH_CACHE", str(tmp_path))
    assert kernels.cached("arm64-6.1") is None
    directory = tmp_path / "kernels/arm64-6.1"
    directory.mkdir(parents=True)
    (directory / "vmlinux").touch()
    (directory / "kernel.json").write_text('{"package": "p", "version": "v", "deb_sha256": ""}')
    assert kernels.cached("arm64-6.1") == kernels.Kernel("arm64-6.1", "arm64", "p", "v", directory / "vmlinux", None)
    (directory / "System.map").touch()
    found = kernels.ensure("arm64-6.1")
    assert found.system_map == directory / "System.map"


def test_a_ppc64le_kernel_in_the_cache_says_how_it_is_booted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTPATCH_CACHE", str(tmp_path))
    for name in ("ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid"):
        directory = tmp_path / "kernels" / name
        directory.mkdir(parents=True)
        (directory / "kernel.json").write_text('{"package": "p", "version": "v", "deb_sha256": ""}')
        assert kernels.ensure(name) == kernels.Kernel(name, "ppc64le", "p", "v", directory / "vmlinux", None)


def test_missing_programs_are_named_to_those_who_cannot_install_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(kernels.FetchError, match=r"apt-get install .*gcc-aarch64-linux-gnu .*qemu-system-arm "):
        kernels.ensure_tools()
    provide(tmp_path, "qemu-system-aarch64", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objcopy")
    with pytest.raises(kernels.FetchError) as caught:
        kernels.ensure_tools()
    named = str(caught.value).rpartition("recommends ")[2].split()
    assert named == sorted(set(named)) and {"binutils-powerpc64le-linux-gnu", "qemu-user", "g++", "chromium"} <= {
        *named
    }
    assert {"qemu-system-arm", "gcc-aarch64-linux-gnu", "binutils-aarch64-linux-gnu"}.isdisjoint(named)
    provide(tmp_path, *programs.TOOLS)
    kernels.ensure_tools()


def provide(directory: Path, *programs: str) -> None:
    """Put programs that do nothing into `directory`."""
    for program in programs:
        (directory / program).write_text("#!/bin/sh\n")
        (directory / program).chmod(0o755)


@needs_dpkg
def test_a_broken_package_is_an_error_of_the_fetch(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_text("not a package")
    with pytest.raises(kernels.FetchError, match="cannot be unpacked"):
        apt.extract(tmp_path / "x.deb", {"vmlinux": "boot/vmlinux-*"}, tmp_path)


def test_an_unknown_kernel_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(kernels.FetchError, match=r"arm64-6\.12"):
        kernels.ensure("arm64-6.13")


def read_newc(archive: bytes) -> dict[str, tuple[int, tuple[int, int], bytes]]:
    """Return mode, device numbers and data per name of a newc archive, as the format's description has it."""
    members: dict[str, tuple[int, tuple[int, int], bytes]] = {}
    stream = BytesIO(archive)
    while True:
        header = stream.read(110)
        assert header[:6] == b"070701" and len(header) == 110
        numbers = [int(header[at : at + 8], 16) for at in range(6, 110, 8)]
        mode, size, device, name_size = numbers[1], numbers[6], (numbers[9], numbers[10]), numbers[11]
        name = stream.read(name_size)
        assert name.endswith(b"\0")
        stream.seek(-stream.tell() % 4, 1)
        if name == b"TRAILER!!!\0":
            return members
        members[name[:-1].decode()] = (mode, device, stream.read(size))
        stream.seek(-stream.tell() % 4, 1)


def test_an_independent_reader_finds_in_the_archive_what_was_put_there() -> None:
    contents = [bytes(range(size)) for size in range(6)]
    archive = initramfs.archive(
        [
            initramfs.directory("dev"),
            initramfs.character_device("dev/console", 5, 1),
            initramfs.text("names", ["one", "two"]),
            *(initramfs.program("p" * size, contents[size]) for size in range(1, 6)),
        ]
    )
    assert len(archive) % 4 == 0
    assert read_newc(archive) == {
        "dev": (stat.S_IFDIR | 0o755, (0, 0), b""),
        "dev/console": (stat.S_IFCHR | 0o600, (5, 1), b""),
        "names": (stat.S_IFREG | 0o644, (0, 0), b"one\ntwo\n"),
        **{"p" * size: (stat.S_IFREG | 0o755, (0, 0), contents[size]) for size in range(1, 6)},
    }


HEALTHY_CONSOLE = """\
[    0.000000] Linux version 6.12.117+deb13-cloud-arm64
[    0.000000] ftrace: allocating 44011 entries in 172 pages
[    0.900000] Run /init as init process
ftpatch-init: running, report channel: ready
"""

HEALTHY_REPORT = """\
begin=1
text=ffffc35c37c10000
function=type_show
function=type_show
function=vfs_open
lines.function=3
total_info=42046 pages:168 groups: 3
lines.total_info=1
foreign=__arm64_sys_getppid
foreign=__arm64_sys_getppid
other=21
leaked=2
all=3187
hit.__arm64_sys_getppid=20
hit.nowhere=0
step=-38
step=console=ttyAMA0 loglevel=8
taint=0
lines.taint=1
end=1
"""

BUG_CONSOLE = """\
[    0.000000] ------------[ ftrace bug ]------------
[    0.000000] ftrace failed to modify
[    0.000000] [<ffff8000800c8b28>] __arm64_sys_getppid+0x0/0x30
[    0.000000] WARNING: CPU: 0 PID: 0 at kernel/trace/ftrace.c:2235 ftrace_bug+0x288/0x2b8
"""

BUG_REPORT = """\
begin=1
error.function=19
error.other=19
taint=512
end=1
"""


def judged(console: str, report: str, *, timed_out: bool = False) -> Verdict:
    """Return the verdict on a boot of one second."""
    return judge(console, report, seconds=1.0, timed_out=timed_out)


def test_a_healthy_boot_is_read_completely_and_has_no_problem() -> None:
    verdict = judged(HEALTHY_CONSOLE, HEALTHY_REPORT)
    assert (verdict.reached_userspace, verdict.finished, verdict.timed_out) == (True, True, False)
    assert (verdict.allocating, verdict.pages) == (44011, 172)
    assert verdict.text == 0xFFFFC35C37C10000
    assert verdict.functions == ("type_show", "type_show", "vfs_open")
    assert verdict.total_info == "42046 pages:168 groups: 3"
    assert (verdict.traced_other, verdict.leaked, verdict.traced_all) == (21, 2, 3187)
    assert verdict.steps == ("-38", "console=ttyAMA0 loglevel=8")
    assert verdict.foreign == ("__arm64_sys_getppid",)
    assert verdict.hits == {"__arm64_sys_getppid": 20, "nowhere": 0}
    assert (verdict.taint, verdict.splats, verdict.errors) == (0, (), {})
    assert verdict.problems == ()


def test_a_disabled_ftrace_is_not_the_same_as_an_empty_one() -> None:
    assert judged("", "begin=1\nerror.function=19\n").functions is None
    assert judged("", "begin=1\nfunction=cut_off_before_the_end\n").functions is None
    assert judged("", "begin=1\nfunction=f\nlines.function=1\nerror.function=5\n").functions is None
    assert judged("", "begin=1\nlines.function=0\n").functions == ()


def test_an_ftrace_bug_is_seen_in_every_respect() -> None:
    verdict = judged(HEALTHY_CONSOLE + BUG_CONSOLE, BUG_REPORT)
    assert verdict.splats == (
        "------------[ ftrace bug ]------------",
        "ftrace failed to modify",
        "WARNING: CPU: 0 PID: 0 at kernel/trace/ftrace.c:2235 ftrace_bug+0x288/0x2b8",
    )
    assert verdict.errors == {"function": 19, "other": 19}
    assert verdict.functions is None
    for problem in ("taint is 512", "ftrace is disabled", "step other failed with errno 19", *verdict.splats):
        assert problem in verdict.problems


@pytest.mark.parametrize(
    "line",
    [
        "[    0.1] Unable to handle kernel paging request at virtual address fffffffffffffffc",
        "[    0.1] Internal error: Oops: 0000000086000004 [#1] SMP",
        "[    0.1] Kernel panic - not syncing: Oops: Fatal exception",
        "[   26.1] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [init:1]",
        "[   21.1] rcu: INFO: rcu_preempt self-detected stall on CPU",
        "[    0.0] ftrace faulted on modifying ",
        "[    0.0] ftrace-powerpc: 0xc000000000167e98: expected (60000000) != found (7c0802a6)",
        "[    0.0] ftrace-powerpc: (____ptrval____): replaced (4bf104e5) != old (4bf0ed11)",
        "[    0.0] expected (60000000) != found (48c0df40)",
        "[    0.0] c000000000527950: replaced (4bb46915) != old (4bb45141)",
        "[    2.3] BUG: Unable to handle kernel data access at 0x3c4c01c2604200c0",
        "[    2.3] Oops: Kernel access of bad area, sig: 11 [#1]",
        "[    2.3] kernel BUG at kernel/trace/ftrace.c:2287!",
    ],
)
def test_a_splat_alone_is_a_problem(line: str) -> None:
    verdict = judged(f"{HEALTHY_CONSOLE}{line}\n", HEALTHY_REPORT)
    assert verdict.problems == verdict.splats == (line.partition("] ")[2].strip(),)


PPC64LE_CONSOLE = """\
SLOF **********************************************************************
C0880No NVRAM common partition, re-initializing...
Max number of cores passed to firmware: 2048 (NR_CPUS = 2048)
command line: console=hvc0 loglevel=8 panic=-1 oops=panic
[    0.000000] Activating Kernel Userspace Access Prevention
[    0.000000] ftrace: allocating 42648 entries in 250 pages
"""


def test_the_firmware_and_a_healthy_ppc64le_kernel_print_no_splat() -> None:
    report = (
        "begin=1\ntext=c000000000000000\nfunction=vfs_open\nlines.function=1\ntotal_info=40889 pages:240 groups: 4\n"
        "total_info=ftrace boot update time = 0 (ns)\nlines.total_info=2\nother=21\nleaked=0\ntaint=0\nend=1\n"
    )
    verdict = judged(PPC64LE_CONSOLE, report)
    assert verdict.problems == ()
    assert (verdict.allocating, verdict.pages, verdict.text) == (42648, 250, 0xC000000000000000)
    assert verdict.total_info == "40889 pages:240 groups: 4"


def test_a_guest_that_hangs_has_reached_nothing() -> None:
    verdict = judged("", "", timed_out=True)
    assert (verdict.reached_userspace, verdict.timed_out) == (False, True)
    assert (verdict.taint, verdict.functions, verdict.allocating, verdict.hits) == (None, None, None, {})
    assert verdict.problems == ("the guest was killed at the timeout without reaching userspace",)


def test_a_report_that_breaks_off_is_incomplete_and_its_last_line_unread() -> None:
    verdict = judged(HEALTHY_CONSOLE, HEALTHY_REPORT[: HEALTHY_REPORT.index("=3187") + 2], timed_out=True)
    assert (verdict.reached_userspace, verdict.finished, verdict.traced_other) == (True, False, 21)
    assert verdict.traced_all == 0
    assert "the guest's report is incomplete" in verdict.problems
    assert "killed at the timeout" in verdict.problems


FAKE_COMPILER = """\
import sys
open(sys.argv[sys.argv.index("-o") + 1], "w").write("the guest's init")
"""

FAKE_QEMU = """\
import re, shutil, sys, time
arguments = " ".join(sys.argv)
print("command:", arguments, flush=True)
initrd = open(sys.argv[sys.argv.index("-initrd") + 1], "rb").read()
assert b"the guest's init" in initrd
if "-D" in sys.argv:
    log = open(sys.argv[sys.argv.index("-D") + 1], "w")
    for piece in (
        "Trace 0: 0x7f0 [00000000/ffff00",
        "1004/0/ff] f\\nTrace 0: 0x7f0 [00000000/ffff001004/0/ff] f\\n",
        "Trace 0: 0x7f0 [00000000/ffff002004/0/ff] g\\nStopped execution of TB chain before 0x7f0 [ffff002004] g\\n",
        "Trace 0: 0x7f0 [00000000/ffff002004/0/ff] g\\n",
        "Trace 0: 0x7f0 [00000000/c000000000003004/0/ff] h\\n",
    ):
        log.write(piece)
        log.flush()
        time.sleep(0.01)
given = re.search(rb"steps\\0+((?:call|read).*?)(?:\\0|0707)", initrd, re.DOTALL)
with open(re.search("mem-path=([^,]*)", arguments)[1], "r+b") as window:
    window.write(b"begin=1\\ntext=ffff001000\\n")
    for line in given[1].splitlines() if given else ():
        window.write(b"step=did " + line + b"\\n")
if "hang" in arguments:
    time.sleep(60)
sys.exit("fail" in arguments)
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a compiler and a QEMU on the path that only pretend."""
    scripts = {
        "aarch64-linux-gnu-gcc": FAKE_COMPILER,
        "qemu-system-aarch64": FAKE_QEMU,
        "powerpc64le-linux-gnu-gcc": FAKE_COMPILER,
        "qemu-system-ppc64": FAKE_QEMU,
    }
    for name, script in scripts.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{sys.executable}\n{script}")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("FTPATCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("fakes")
def test_the_guest_is_handed_its_steps_in_their_order() -> None:
    assert boot(Path("Image")).steps == ()
    steps = ["read /proc/version", "call 173", "call 13 0"]
    assert boot(Path("Image"), steps=steps).steps == tuple(f"did {step}" for step in steps)


@pytest.mark.usefixtures("fakes")
def test_boot_reads_the_window_and_writes_the_console_to_the_log(tmp_path: Path) -> None:
    verdict = boot(Path("Image"), log=tmp_path / "log")
    assert (verdict.reached_userspace, verdict.finished, verdict.timed_out) == (True, False, False)
    assert "-kernel Image" in verdict.console and "nokaslr" not in verdict.console
    assert (tmp_path / "log").read_text() == verdict.console
    assert "nokaslr" in boot(Path("Image"), kaslr=False).console


@pytest.mark.usefixtures("fakes")
def test_executions_are_counted_per_watched_address_across_chunks_and_none_twice() -> None:
    verdict = boot(Path("Image"), kaslr=False, watch=[0xFFFF001004, 0xFFFF002004, 0xFFFF003004])
    assert verdict.executed == {0xFFFF001004: 2, 0xFFFF002004: 1, 0xFFFF003004: 0}
    assert "-dfilter 0xffff001004+4,0xffff002004+4,0xffff003004+4" in verdict.console


@pytest.mark.usefixtures("fakes")
def test_with_kaslr_the_watched_addresses_move_with_the_kernel() -> None:
    verdict = boot(Path("Image"), text=0x1000, watch=[0x1004, 0x2004])
    assert verdict.executed == {0x1004: 2, 0x2004: 1}
    assert "-dfilter 0xffff001004+4,0xffff002004+4" in verdict.console


@pytest.mark.usefixtures("fakes")
def test_ppc64le_boots_the_elf_and_knows_no_kaslr() -> None:
    verdict = boot(Path("vmlinux"), arch="ppc64le", watch=[0xC000000000003004])
    assert verdict.executed == {0xC000000000003004: 1}
    assert "-dfilter 0xc000000000003004+4" in verdict.console
    assert "qemu-system-ppc64 -M pseries," in verdict.console and "console=hvc0" in verdict.console
    assert "-kernel vmlinux" in verdict.console
    assert "nokaslr" not in boot(Path("vmlinux"), arch="ppc64le", kaslr=False).console


@pytest.mark.usefixtures("fakes")
def test_a_kernel_that_runs_elsewhere_without_kaslr_is_watched_there() -> None:
    there = boot(Path("vmlinux"), arch="ppc64le", text=0xFFFF001000, watch=[0xFFFF001004])
    assert there.executed == {0xFFFF001004: 2}
    moved = boot(Path("vmlinux"), arch="ppc64le", text=0x1000, watch=[0x1004, 0x2004])
    assert moved.executed == {0x1004: 2, 0x2004: 1}
    assert "-dfilter 0xffff001004+4,0xffff002004+4" in moved.console


@pytest.mark.usefixtures("fakes")
def test_a_guest_that_hangs_is_killed_at_the_timeout() -> None:
    verdict = boot(Path("hang"), timeout=1)
    assert (verdict.timed_out, verdict.reached_userspace) == (True, True)
    assert 1 <= verdict.seconds < 30


@pytest.mark.usefixtures("fakes")
def test_a_qemu_that_fails_or_is_missing_is_not_a_verdict(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="qemu-system-aarch64 failed"):
        boot(Path("fail"))
    (tmp_path / "bin/qemu-system-aarch64").unlink()
    with pytest.raises(BootError, match="qemu-system-aarch64 is missing"):
        boot(Path("Image"))


def test_contradictory_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        boot(Path("Image"), names=["f"], watch=[4], kaslr=False)
    with pytest.raises(ValueError, match="link-time address of _stext"):
        boot(Path("Image"), watch=[4])
    with pytest.raises(ValueError, match="cannot boot vax"):
        boot(Path("Image"), arch="vax")
