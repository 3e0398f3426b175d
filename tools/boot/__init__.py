"""Boots a kernel image in QEMU, with modules if asked, and reports how its function tracing fares.

The guest's /init is `init.c` and what that includes; it answers through shared memory, the kernel talks on the console.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools.boot import initramfs
from tools.boot.qemu import BootError, observe
from tools.boot.verdict import Place, Verdict, judge
from tools.kernels import cache_directory
from tools.modules import dependencies, module_name, plain

__all__ = ["BootError", "Place", "Verdict", "boot", "dependencies"]

_WINDOW = 8 << 20  # size of the shared memory, as in report.c
_SEED = "1"  # any fixed number makes QEMU hand out the same KASLR seed again
_NIC = ("-netdev", "hubport,id=n0,hubid=0", "-device", "virtio-net-pci,netdev=n0,romfile=")  # a cable to nowhere


@dataclass(frozen=True)
class _Machine:
    """How kernels of one architecture are booted, and the compiler for their /init."""

    qemu: tuple[str, ...]
    parameters: str
    compiler: str
    kaslr: bool  # does KASLR exist there, and a parameter that turns it off?
    module_areas: tuple[tuple[int, int], ...]  # start and size of where, without KASLR, only modules have code


_MACHINES = {
    "arm64": _Machine(
        ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-m", "512M"),
        "console=ttyAMA0 earlycon",
        "aarch64-linux-gnu-gcc",
        kaslr=True,
        # Right below the kernel, 128 MB in 6.1 and 2 GB in 6.12, of which the upper end is used (seen in Debian).
        module_areas=((0xFFFF800000000000, 128 << 20), (0xFFFF800078000000, 128 << 20)),
    ),
    # The capabilities named are those that TCG does not emulate.  The kernel moves itself to physical 0, and its
    # functions run where they are linked, at 0xc000...: real mode, in which early_setup runs, ignores those bits.
    # VOF is QEMU's small firmware: SLOF, the default, spends more time on itself than these kernels on their boot.
    # A setting for the firmware makes QEMU format the NVRAM, which the kernel warns of where nobody did.
    "ppc64le": _Machine(
        (
            "qemu-system-ppc64",
            *("-M", "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"),
            *("-cpu", "power9", "-m", "1G", "-prom-env", "auto-boot?=true"),
        ),
        "console=hvc0",
        "powerpc64le-linux-gnu-gcc",
        kaslr=False,
        module_areas=((0xC008000000000000, 256 << 20),),
    ),
    # QEMU starts the ELF file itself, at the entry that its PVH note names; nothing moves such a kernel, whatever its
    # random seed. A kernel that can be moved comes as a bzImage, which has its own start.
    "x86_64": _Machine(
        ("qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-m", "512M"),
        "console=ttyS0",
        "x86_64-linux-gnu-gcc",
        kaslr=True,
        module_areas=((0xFFFFFFFFC0000000, 128 << 20),),
    ),
}


def boot(
    image: Path,
    *,
    arch: str = "arm64",
    names: Sequence[str] = (),
    kaslr: bool = True,
    watch: Collection[int] = (),
    text: int | None = None,
    modules: Sequence[Path] = (),
    nic: bool = False,
    watch_module: Collection[Place] = (),
    steps: Sequence[str] = (),
    expected_taint: int = 0,
    timeout: float = 120,
    log: Path | None = None,
) -> Verdict:
    """Boot `image` (what QEMU's -kernel takes) and return the verdict; `log` receives the console.

    The hits of `names` are counted by tracing all functions while getppid is called 20 times.  `watch` holds
    link-time addresses at which a basic block begins, such as return addresses; how often each was executed
    is in the verdict's `executed`.  Tracing all functions would itself execute the return addresses of patch
    sites, hence a boot takes `names` or `watch`, not both; getppid is called 20 times in either case.

    To watch with KASLR on takes `text`, the link-time address of _stext, and two boots with one random seed:
    the first one shows where the second one will put the kernel.  Where KASLR is off or does not exist, `text`
    may be left out; if it is given and the kernel turns out to run elsewhere, a second boot watches there.

    What a count is worth only a stock boot of the same kernel tells.  The first instruction of a function that
    is called runs there, too (the global entry of a syscall or an initcall, the local one of what is called
    directly).  The instruction behind a patch site begins a basic block only once the site calls something, so
    its stock count is 0.  Sites of -mprofile-kernel, as in ppc64le-6.1, call _mcount in the file and until
    ftrace_init replaces that: there the stock count is 0 only for what does not run before, such as getppid;
    of an early function such as _printk, a patched kernel must show more executions than the stock one.

    `modules` are loaded in this order before anything is traced, compressed or not, and unloaded in the reverse
    order after it.  In each recording, that is once for `watch` and twice for `names`, of which only the second
    one counts hits, every network interface that came with them is brought up, sends 20 frames, is asked for its
    statistics, and is brought down.  `nic` adds a virtio network card, whose cable ends nowhere.  `watch_module`
    is `watch` for places in modules, whose addresses nobody knows before the boot: all that runs in the area of
    the modules is logged, which takes a boot without KASLR, and the counts are in the verdict's `executed_in`; a
    module that was refused has none.

    `steps` are taken in the end, before modules are unloaded: "call NUMBER [ARGUMENT]...", "read PATH" or "write PATH
    VALUE", as in steps.c; the verdict has their answers.  `expected_taint` is what /proc/sys/kernel/tainted shall hold
    then.
    """
    if names and (watch or watch_module):
        raise ValueError("names and watch exclude each other: tracing all functions runs the watched addresses")
    if arch not in _MACHINES:
        raise ValueError(f"cannot boot {arch}, only: {', '.join(_MACHINES)}")
    kaslr = kaslr and _MACHINES[arch].kaslr
    if watch_module and kaslr:
        raise ValueError("to watch places in modules takes a boot without KASLR")
    if watch and text is None and kaslr:
        raise ValueError("to watch with KASLR on takes the link-time address of _stext")
    contents = [plain(path) for path in modules]
    loads = {module_name(path, elf): elf for path, elf in zip(modules, contents, strict=True)}
    guest = _Guest(image, arch, tuple(names), kaslr, loads, nic, tuple(steps), expected_taint, timeout)
    verdict = guest.watch(watch, text, watch_module) if watch or watch_module else guest.run()
    if log is not None:
        log.write_text(verdict.console)
    return verdict


@dataclass(frozen=True)
class _Guest:
    """A kernel with all that is needed to boot it, once or repeatedly."""

    image: Path
    arch: str
    names: tuple[str, ...]
    kaslr: bool
    modules: Mapping[str, bytes]  # by name, in the order of loading
    nic: bool
    steps: tuple[str, ...]
    expected_taint: int
    timeout: float

    def watch(self, watched: Collection[int], text: int | None, places: Collection[Place]) -> Verdict:
        """Boot and watch; if the kernel linked at `text` runs elsewhere, boot again with the same seed for that."""
        first = self.run(() if self.kaslr else watched, places=places)
        if text is None or first.text is None or (first.text == text and not self.kaslr):
            return first
        second = self.run(watched, first.text - text, places)
        if second.text not in (None, first.text):
            raise BootError(f"two boots with one seed put the kernel at {first.text:#x} and {second.text:#x}")
        return second

    def run(self, watched: Collection[int] = (), moved: int = 0, places: Collection[Place] = ()) -> Verdict:
        """Boot once and judge; `watched` addresses are logged `moved` bytes from where they were linked."""
        ranges = [(address + moved, 4) for address in watched]
        if places:
            ranges += _MACHINES[self.arch].module_areas
        with tempfile.TemporaryDirectory(prefix="ftpatch-boot-") as directory:
            window = Path(directory, "window")
            window.write_bytes(b"")
            os.truncate(window, _WINDOW)
            initrd = Path(directory, "initrd")
            initrd.write_bytes(self._initrd())
            command = self._command(window, initrd)
            started = time.monotonic()
            seen, timed_out = observe(command, ranges, self.timeout)
            seconds = time.monotonic() - started
            report = window.read_bytes().partition(b"\0")[0]
        verdict = judge(
            seen.console.decode(errors="replace"),
            report.decode(errors="replace"),
            seconds=seconds,
            timed_out=timed_out,
            executed={address: seen.executed[address + moved] for address in watched},
            expected_taint=self.expected_taint,
        )
        at = self._addresses(verdict, places)
        return replace(verdict, executed_in={place: seen.executed[address] for place, address in at.items()})

    def _addresses(self, verdict: Verdict, places: Collection[Place]) -> dict[Place, int]:
        """Return where places in modules were at run time, as far as their modules were loaded."""
        at = {}
        for module, symbol, offset in places:
            address = verdict.symbols.get(f"{module}:{symbol}")
            if address is not None:
                if not any(start <= address < start + size for start, size in _MACHINES[self.arch].module_areas):
                    raise BootError(f"module {module} is at {address:#x}, outside of the watched area")
                at[module, symbol, offset] = address + offset
            elif verdict.finished and verdict.loaded.get(module) == 0:
                raise BootError(f"module {module} has no symbol {symbol}, or several of that name")
        return at

    def _command(self, window: Path, initrd: Path) -> list[str]:
        """Return the QEMU command that boots the kernel with `window` as shared memory."""
        machine = _MACHINES[self.arch]
        nokaslr = " nokaslr" if machine.kaslr and not self.kaslr else ""
        # An emulated processor may stand still for long on a busy host, which is no lockup.
        parameters = f"{machine.parameters} loglevel=8 panic=-1 oops=panic watchdog_thresh=60{nokaslr}"
        return [
            *machine.qemu, "-accel", "tcg", "-smp", "1", "-nodefaults", "-display", "none",
            "-serial", "stdio", "-monitor", "none", "-no-reboot", "-seed", _SEED,
            "-object", f"memory-backend-file,id=window,mem-path={window},size={_WINDOW},share=on",
            "-device", "ivshmem-plain,memdev=window",
            *(_NIC if self.nic else ()),
            "-kernel", str(self.image), "-initrd", str(initrd), "-append", parameters,
        ]  # fmt: skip

    def _initrd(self) -> bytes:
        """Return the initramfs with our /init, the modules, and the names whose hits it is to count."""
        return initramfs.archive(
            [
                *(initramfs.directory(name) for name in ("dev", "proc", "sys", "modules")),
                initramfs.character_device("dev/console", 5, 1),
                initramfs.text("names", sorted(set(self.names))),
                initramfs.text("steps", self.steps),
                initramfs.text("modules.list", self.modules),
                *(initramfs.file(f"modules/{name}.ko", elf) for name, elf in self.modules.items()),
                initramfs.program("init", _init(self.arch).read_bytes()),
            ]
        )


def _init(arch: str) -> Path:
    """Return the path of the guest's /init in the cache, compiled unless its sources were already."""
    folder = Path(__file__).parent
    sources = sorted(folder.glob("*.c"))
    command = [_MACHINES[arch].compiler, "-O2", "-static", "-Wall", "-Wextra", "-Werror"]
    contents = b"".join(path.read_bytes() for path in [*sources, *sorted(folder.glob("*.h"))])
    digest = hashlib.sha256(" ".join(command).encode() + contents).hexdigest()[:16]
    program = cache_directory() / "boot" / f"init-{arch}-{digest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as directory:
            built = Path(directory, program.name)
            _compile([*command, "-o", str(built), *map(str, sources)])
            built.rename(program)
    return program


def _compile(command: list[str]) -> None:
    """Run a compiler, whose messages go to our stderr."""
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        raise BootError(f"{command[0]} is missing, see python -m tools.kernels --tools") from None
    except subprocess.CalledProcessError:
        raise BootError(f"{' '.join(command)} failed") from None
