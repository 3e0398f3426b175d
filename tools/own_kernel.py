"""Links a small x86_64 kernel, patches it and boots it as a bzImage that KASLR moves: python -m tools.own_kernel.

Distributions ship no kernel of x86_64 that ftpatch could patch and KASLR move: their bzImage is made from a vmlinux
whose relocations the build takes out. So this builds one, of Debian's linux-source-6.1 and of tinyconfig with what a
boot and the function tracer need. That build leaves the relocations in its vmlinux, and `make bzImage` reads them from
there: a patched vmlinux goes where the linked one was.

Four boots follow, each at an address of its own choice: as it was linked; with two sites enabled; with all but one;
and, as the control, with the two sites and the relocations of a build that nobody patched, which has to kill ftrace.

It takes the network, some minutes of two processors, and once make, gcc, flex, bison, bc and libelf-dev.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from ftpatch.cli import run
from ftpatch.elf.tables import SHT_RELA
from ftpatch.recovered.image import open_image
from tools.apt import Apt, FetchError, extract, newest_first, say
from tools.boot import BootError, boot
from tools.boot.verdict import Verdict
from tools.kernels import cache_directory, ensure_tools

PACKAGE = "linux-source-6.1"
SUITES = ("bookworm", "bookworm-security")
TWO = ("--func", "_printk", "--func", "__do_sys_getppid")
ALL_BUT_ONE = ("--func", "!vfs_open", "--status", "ready", "--status", "weak-leftover", "--func", "*")
ON = """
64BIT EXPERT RELOCATABLE RANDOMIZE_BASE PVH HYPERVISOR_GUEST X86_KERNEL_IBT UNWINDER_ORC CC_OPTIMIZE_FOR_SIZE
PRINTK KALLSYMS TTY SERIAL_8250 SERIAL_8250_CONSOLE PCI BLK_DEV_INITRD BINFMT_ELF FUTEX POSIX_TIMERS EPOLL MULTIUSER
PROC_FS PROC_SYSCTL SYSFS FTRACE FUNCTION_TRACER DYNAMIC_FTRACE KERNEL_GZIP
"""
OFF = """
RD_GZIP RD_BZIP2 RD_LZMA RD_XZ RD_LZO RD_LZ4 RD_ZSTD INPUT SERIO VT HID RTC_CLASS UNIX98_PTYS HW_RANDOM MODULES
SERIAL_8250_PCI SERIAL_8250_EXAR SERIAL_8250_LPSS SERIAL_8250_MID SERIAL_8250_PERICOM SERIAL_8250_DW
PERF_EVENTS_INTEL_UNCORE PERF_EVENTS_INTEL_RAPL PERF_EVENTS_INTEL_CSTATE UPROBE_EVENTS MICROCODE MTRR X86_MCE
VIRTIO_MENU VIRT_DRIVERS VHOST_MENU X86_PLATFORM_DEVICES
"""


def linked(folder: Path) -> Path:
    """Return the build tree of the kernel below `folder`, linked unless it was before."""
    source, tree = folder / PACKAGE, folder / "tree"
    vmlinux = folder / "vmlinux"  # as it was linked; the tree's own is replaced
    if vmlinux.exists():
        return tree
    shutil.rmtree(folder, ignore_errors=True)
    tree.mkdir(parents=True)
    archive, apt = folder / "source.tar.xz", Apt.prepare(cache_directory() / "apt" / "source", "amd64", SUITES)
    _, deb = apt.download(newest_first(PACKAGE, apt.candidates(PACKAGE)), folder)
    extract(deb, {archive.name: f"usr/src/{PACKAGE}.tar.xz"}, folder)
    deb.unlink()
    _call("tar", "-C", str(folder), "-xf", str(archive))
    archive.unlink()
    _call("make", "-s", "-C", str(source), f"O={tree}", "tinyconfig")
    with (tree / ".config").open("a") as config:
        config.writelines(f"CONFIG_{name}=y\n" for name in ON.split())
        config.writelines(f"# CONFIG_{name} is not set\n" for name in OFF.split())
    _call("make", "-s", "-C", str(tree), "olddefconfig")
    say("linking the kernel")
    _call("make", "-s", "-C", str(tree), "-j2", "bzImage")
    shutil.copyfile(tree / "vmlinux", vmlinux)
    return tree


def packed(tree: Path, vmlinux: Path, out: Path) -> Path:
    """Return the bzImage that the build makes of another vmlinux."""
    shutil.copyfile(vmlinux, tree / "vmlinux")
    _call("make", "-s", "-C", str(tree), "bzImage")
    if (tree / "vmlinux").read_bytes() != vmlinux.read_bytes():
        raise FetchError(f"{tree}: the build linked its own vmlinux again")
    shutil.copyfile(tree / "arch/x86/boot/bzImage", out)
    return out


def _call(*command: str) -> None:
    """Run a program of the build, whose messages go to stderr."""
    try:
        subprocess.run(command, check=True, stdout=sys.stderr)
    except FileNotFoundError:
        raise FetchError(f"{command[0]} is missing: apt-get install make gcc flex bison bc libelf-dev") from None
    except subprocess.CalledProcessError:
        raise FetchError(f"this failed: {' '.join(command)}") from None


def with_old_relocations(patched: Path, vmlinux: Path, out: Path) -> Path:
    """Return the patched file with the relocations of the linked one, which lie at the same positions."""
    image = open_image(str(vmlinux))
    content = bytearray(patched.read_bytes())
    for head in image.shdr[image.shdr["sh_type"] == SHT_RELA]:
        span = slice(int(head["sh_offset"]), int(head["sh_offset"] + head["sh_size"]))
        content[span] = image.data[span].tobytes()
    out.write_bytes(content)
    return out


def main() -> int:
    """Return 0 if each boot showed what it has to."""
    argparse.ArgumentParser(prog="python -m tools.own_kernel", description=__doc__).parse_args()
    folder = cache_directory() / "own" / PACKAGE
    try:
        ensure_tools()
        tree = linked(folder)
        return experiment(folder, tree)
    except (FetchError, BootError) as error:
        say(str(error))
        return 1


def experiment(folder: Path, tree: Path) -> int:
    """Return how many of the boots showed something else than they have to."""
    vmlinux, two, most, control = (folder / name for name in ("vmlinux", "two", "most", "control"))
    for options, patched in ((TWO, two), (ALL_BUT_ONE, most)):
        if run(["enable", str(vmlinux), *options, "-o", str(patched)]) or run(["verify", str(vmlinux), str(patched)]):
            raise FetchError(f"ftpatch refuses to enable {' '.join(options)}")
    with_old_relocations(two, vmlinux, control)
    n_listed: dict[Path, int | None] = {vmlinux: None, two: None, most: 1, control: -1}
    wrong = 0
    for kernel, expected in n_listed.items():
        verdict = boot(
            packed(tree, kernel, folder / f"{kernel.name}.bzImage"), arch="x86_64", names=["__do_sys_getppid"]
        )
        told = len(verdict.functions) if verdict.functions is not None else -1
        right = expected in (None, told) and (kernel == control or verdict.problems == ())
        wrong += not right
        print(f"{kernel.name}: {_told(verdict, told)}: {'as it has to be' if right else 'WRONG'}", flush=True)
    return wrong


def _told(verdict: Verdict, n_listed: int) -> str:
    """Return a boot in one line."""
    at = f"_stext at {verdict.text:#x}" if verdict.text is not None else "no user space"
    listed = f"{n_listed} functions listed" if n_listed >= 0 else "ftrace is dead"
    splats = "".join(f"; {line}" for line in verdict.splats)
    return f"{at}, {verdict.allocating} entries, {listed}, {verdict.seconds:.1f} s{splats}"


if __name__ == "__main__":
    sys.exit(main())
