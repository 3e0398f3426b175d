"""Boots a kernel image in QEMU and reports how its function tracing fares.

The guest's /init is `init.c`; it answers through shared memory, the kernel talks on the console.
"""

from __future__ import annotations

import hashlib
import os
import re
import selectors
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.boot import initramfs
from tools.boot.verdict import Verdict, judge
from tools.kernels import cache_directory

__all__ = ["BootError", "Verdict", "boot"]

_WINDOW = 8 << 20  # size of the shared memory, as in init.c
_CONSOLE_LIMIT = 16 << 20  # what a guest prints beyond this is dropped
_EXECUTED = re.compile(rb"^Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/", re.MULTILINE)
_STOPPED = re.compile(rb"^Stopped execution of TB chain before \S+ \[([0-9a-f]+)\]", re.MULTILINE)
_SEED = "1"  # any fixed number makes QEMU hand out the same KASLR seed again


class BootError(RuntimeError):
    """The boot could not be carried out or observed, which says nothing about the kernel."""


@dataclass(frozen=True)
class _Machine:
    """How kernels of one architecture are booted, and the compiler for their /init."""

    qemu: tuple[str, ...]
    parameters: str
    compiler: str
    kaslr: bool  # does KASLR exist there, and a parameter that turns it off?


_MACHINES = {
    "arm64": _Machine(
        ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-m", "512M"),
        "console=ttyAMA0 earlycon",
        "aarch64-linux-gnu-gcc",
        kaslr=True,
    ),
    # The capabilities named are those that TCG does not emulate.  The kernel moves itself to physical 0, and its
    # functions run where they are linked, at 0xc000...: real mode, in which early_setup runs, ignores those bits.
    "ppc64le": _Machine(
        (
            "qemu-system-ppc64",
            *("-M", "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"),
            *("-cpu", "power9", "-m", "1G"),
        ),
        "console=hvc0",
        "powerpc64le-linux-gnu-gcc",
        kaslr=False,
    ),
}


@dataclass
class _Observation:
    """What came out of QEMU so far: the console, and how often each logged address was executed."""

    console: bytearray = field(default_factory=bytearray)
    executed: Counter[int] = field(default_factory=Counter)
    pending: bytes = b""  # the begun last line of the execution log

    def print(self, chunk: bytes) -> None:
        """Add console output, up to the limit."""
        self.console += chunk[: _CONSOLE_LIMIT - len(self.console)]

    def execute(self, chunk: bytes) -> None:
        """Count the complete lines of the execution log, which takes back what an interrupt prevented."""
        lines, newline, rest = (self.pending + chunk).rpartition(b"\n")
        self.pending = rest
        self.executed.update(int(address, 16) for address in _EXECUTED.findall(lines + newline))
        self.executed.subtract(int(address, 16) for address in _STOPPED.findall(lines + newline))


def boot(
    image: Path,
    *,
    arch: str = "arm64",
    names: Sequence[str] = (),
    kaslr: bool = True,
    watch: Collection[int] = (),
    text: int | None = None,
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
    """
    if names and watch:
        raise ValueError("names and watch exclude each other: tracing all functions runs the watched addresses")
    if arch not in _MACHINES:
        raise ValueError(f"cannot boot {arch}, only: {', '.join(_MACHINES)}")
    guest = _Guest(image, arch, tuple(names), kaslr and _MACHINES[arch].kaslr, timeout)
    verdict = guest.watch(watch, text) if watch else guest.run()
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
    timeout: float

    def watch(self, watched: Collection[int], text: int | None) -> Verdict:
        """Boot and watch; if the kernel linked at `text` runs elsewhere, boot again with the same seed for that."""
        if text is None and self.kaslr:
            raise ValueError("to watch with KASLR on takes the link-time address of _stext")
        first = self.run(() if self.kaslr else watched)
        if text is None or first.text is None or (first.text == text and not self.kaslr):
            return first
        second = self.run(watched, first.text - text)
        if second.text not in (None, first.text):
            raise BootError(f"two boots with one seed put the kernel at {first.text:#x} and {second.text:#x}")
        return second

    def run(self, watched: Collection[int] = (), moved: int = 0) -> Verdict:
        """Boot once and judge; `watched` addresses are logged `moved` bytes from where they were linked."""
        with tempfile.TemporaryDirectory(prefix="ftpatch-boot-") as directory:
            window = Path(directory, "window")
            window.write_bytes(b"")
            os.truncate(window, _WINDOW)
            initrd = Path(directory, "initrd")
            initrd.write_bytes(_initrd(self.arch, self.names))
            command = self._command(window, initrd)
            started = time.monotonic()
            seen, timed_out = _observe(command, [address + moved for address in watched], self.timeout)
            seconds = time.monotonic() - started
            report = window.read_bytes().partition(b"\0")[0]
        return judge(
            seen.console.decode(errors="replace"),
            report.decode(errors="replace"),
            seconds=seconds,
            timed_out=timed_out,
            executed={address: seen.executed[address + moved] for address in watched},
        )

    def _command(self, window: Path, initrd: Path) -> list[str]:
        """Return the QEMU command that boots the kernel with `window` as shared memory."""
        machine = _MACHINES[self.arch]
        nokaslr = " nokaslr" if machine.kaslr and not self.kaslr else ""
        parameters = f"{machine.parameters} loglevel=8 panic=-1 oops=panic{nokaslr}"
        return [
            *machine.qemu, "-accel", "tcg", "-smp", "1", "-nodefaults", "-display", "none",
            "-serial", "stdio", "-monitor", "none", "-no-reboot", "-seed", _SEED,
            "-object", f"memory-backend-file,id=window,mem-path={window},size={_WINDOW},share=on",
            "-device", "ivshmem-plain,memdev=window",
            "-kernel", str(self.image), "-initrd", str(initrd), "-append", parameters,
        ]  # fmt: skip


def _observe(command: list[str], watched: Collection[int], timeout: float) -> tuple[_Observation, bool]:
    """Run QEMU and return what came out of it, and whether it had to be killed at the timeout.

    The execution log goes through a pipe, so that a busy address costs time but no space.
    """
    log, log_end = os.pipe()
    with os.fdopen(log, "rb", buffering=0) as executions:
        try:
            qemu = _start(command, watched, log_end)
        finally:
            os.close(log_end)
        with qemu:
            assert qemu.stdout is not None
            seen = _Observation()
            sinks = {qemu.stdout.fileno(): seen.print, executions.fileno(): seen.execute}
            try:
                timed_out = not _drain(sinks, time.monotonic() + timeout)
            except BaseException:
                qemu.kill()
                raise
            if timed_out:
                qemu.kill()
    if qemu.returncode and not timed_out:
        raise BootError(f"{command[0]} failed: {seen.console[-500:].decode(errors='replace').strip()}")
    return seen, timed_out


def _start(command: list[str], watched: Collection[int], log: int) -> subprocess.Popen[bytes]:
    """Return the started QEMU, which logs to the descriptor `log` when it executes a watched address."""
    if watched:
        ranges = ",".join(f"{address:#x}+4" for address in watched)
        command = [*command, "-d", "exec,nochain", "-dfilter", ranges, "-D", f"/proc/self/fd/{log}"]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[log],
        )
    except FileNotFoundError:
        raise BootError(f"{command[0]} is missing, see python -m tools.kernels --tools") from None


def _drain(sinks: Mapping[int, Callable[[bytes], None]], deadline: float) -> bool:
    """Pass what arrives on each descriptor to its sink; return whether all ended before the deadline."""
    with selectors.DefaultSelector() as selector:
        for descriptor in sinks:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            for key, _ in selector.select(remaining):
                chunk = os.read(key.fd, 1 << 16)
                if chunk:
                    sinks[key.fd](chunk)
                else:
                    selector.unregister(key.fd)
    return True


def _initrd(arch: str, names: Iterable[str]) -> bytes:
    """Return the initramfs with our /init and the names whose hits it is to count."""
    return initramfs.archive(
        [
            *(initramfs.directory(name) for name in ("dev", "proc", "sys")),
            initramfs.character_device("dev/console", 5, 1),
            initramfs.text("names", sorted(set(names))),
            initramfs.program("init", _init(arch).read_bytes()),
        ]
    )


def _init(arch: str) -> Path:
    """Return the path of the guest's /init in the cache, compiled unless its source was already."""
    source = Path(__file__).with_name("init.c")
    command = [_MACHINES[arch].compiler, "-O2", "-static", "-Wall", "-Wextra", "-Werror"]
    digest = hashlib.sha256(" ".join(command).encode() + source.read_bytes()).hexdigest()[:16]
    program = cache_directory() / "boot" / f"init-{arch}-{digest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as directory:
            built = Path(directory, program.name)
            _compile([*command, "-o", str(built), str(source)])
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
