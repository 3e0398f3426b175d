"""Brings Debian's kernels into a cache, and the modules of the same builds: python -m tools.kernels [NAME...].

A kernel's folder in the cache holds its vmlinux and, once somebody asked for them, its modules as they were shipped:
modules/kernel/drivers/net/dummy.ko.xz, and with them what is installed to boot: modules/vmlinuz.  All are of one
version, since a newer kernel replaces the whole folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.apt import Apt, Candidate, FetchError, extract, extract_below, newest_first, of_version, say
from tools.programs import ensure_tools

__all__ = [
    "FetchError",
    "Kernel",
    "boot_file",
    "cache_directory",
    "cached",
    "ensure",
    "ensure_tools",
    "known",
    "modules",
]

_FACTS = "kernel.json"  # in a folder: which package its files are from
_BOOT_FILE = "vmlinuz"  # in the folder of the modules
_DEBIAN_NAMES = {"ppc64le": "ppc64el", "x86_64": "amd64"}  # of the architectures that Debian calls something else
_MODULE_ROOT = "(usr/)?(lib/debug/)?lib/modules/[^/]+/"  # what precedes kernel/drivers/net/dummy.ko in a package
_MODULE_FILES = ("kernel/*.ko", "kernel/*.ko.xz", "kernel/*.ko.zst", "kernel/*.ko.gz", "modules.dep", "modules.builtin")


@dataclass(frozen=True)
class Spec:
    """Where to find a kernel: the newest package that comes and whose name matches a pattern, and the files in it."""

    package: str  # pattern of the package's name
    arch: str  # as tools.boot calls it
    suites: tuple[str, ...]
    vmlinux: str  # pattern of the member of the .deb
    system_map: str | None  # likewise; None if the package has none, or one line that points elsewhere
    boot: str | None = None  # of what is booted, in the package of the modules; None where the vmlinux itself is booted

    @property
    def debian_arch(self) -> str:
        """Return what apt calls the architecture."""
        return _DEBIAN_NAMES.get(self.arch, self.arch)

    @property
    def members(self) -> dict[str, str]:
        """Return the pattern of each wanted member, by the name of its file in the cache."""
        wanted = {"vmlinux": self.vmlinux}
        return wanted | {"System.map": self.system_map} if self.system_map else wanted


def module_packages(package: str) -> tuple[tuple[str, ...], ...]:
    """Return which packages hold the modules of the vmlinux in `package`: one of each group, the first to be had.

    Beside a package of debug symbols there is the one that is installed, its modules as they are loaded; those among
    the debug symbols are the last resort.  Newer kernels have their modules in one package, and in another one the
    list of those that are built in.
    """
    if package.endswith("-dbg"):
        installed = package.removesuffix("-dbg")
        return ((installed, f"{installed}-unsigned", package),)
    if package.startswith("linux-binary-"):
        return tuple((package.replace("binary", part, 1),) for part in ("modules", "base"))
    return ((package,),)


_KERNELS = {
    "arm64-6.1": Spec(
        package="linux-image-6.1.0-*-cloud-arm64-dbg",
        arch="arm64",
        suites=("bookworm", "bookworm-security"),
        vmlinux="usr/lib/debug/boot/vmlinux-*",
        system_map="usr/lib/debug/boot/System.map-*",
        boot="boot/vmlinuz-*",
    ),
    "arm64-6.12": Spec(
        package="linux-image-6.12*+deb13*-cloud-arm64-dbg",
        arch="arm64",
        suites=("trixie", "trixie-security"),
        vmlinux="usr/lib/debug/boot/vmlinux-*",
        system_map="usr/lib/debug/boot/System.map-*",
        boot="boot/vmlinuz-*",
    ),
    # What is installed to boot a ppc64le machine is the linked ELF itself, with its symbols.  No pattern matches
    # the packages of the 64k flavour, whose names end in -64k.
    "ppc64le-6.1": Spec(
        package="linux-image-6.1.0-*-powerpc64le",
        arch="ppc64le",
        suites=("bookworm", "bookworm-security"),
        vmlinux="boot/vmlinux-*",
        system_map=None,
    ),
    "ppc64le-6.12": Spec(
        package="linux-image-6.12*+deb13*-powerpc64le",
        arch="ppc64le",
        suites=("trixie", "trixie-security"),
        vmlinux="boot/vmlinux-*",
        system_map=None,
    ),
    "ppc64le-sid": Spec(
        package="linux-binary-*-powerpc64le",
        arch="ppc64le",
        suites=("sid",),
        vmlinux="usr/lib/modules/*/vmlinuz",
        system_map=None,
    ),
    "x86_64-6.1": Spec(
        package="linux-image-6.1.0-*-cloud-amd64-dbg",
        arch="x86_64",
        suites=("bookworm", "bookworm-security"),
        vmlinux="usr/lib/debug/boot/vmlinux-*",
        system_map="usr/lib/debug/boot/System.map-*",
        boot="boot/vmlinuz-*",
    ),
    "x86_64-6.12": Spec(
        package="linux-image-6.12*+deb13*-cloud-amd64-dbg",
        arch="x86_64",
        suites=("trixie", "trixie-security"),
        vmlinux="usr/lib/debug/boot/vmlinux-*",
        system_map="usr/lib/debug/boot/System.map-*",
        boot="boot/vmlinuz-*",
    ),
}


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache."""

    name: str
    arch: str
    package: str
    version: str
    vmlinux: Path
    system_map: Path | None
    modules: Path | None = None  # what lies below lib/modules/VERSION; None until it was asked for


def cache_directory() -> Path:
    """Return where everything that is downloaded or built is kept."""
    if own := os.environ.get("FTPATCH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftpatch"


def known() -> tuple[str, ...]:
    """Return the names of all kernels that can be had."""
    return tuple(_KERNELS)


def cached(name: str) -> Kernel | None:
    """Return the kernel if it is in the cache, None if it would have to be downloaded."""
    directory = _directory(name)
    try:
        facts = json.loads((directory / _FACTS).read_text())
    except FileNotFoundError:
        return None
    system_map, tree = directory / "System.map", directory / "modules"
    return Kernel(
        name=name,
        arch=_spec(name).arch,
        package=facts["package"],
        version=facts["version"],
        vmlinux=directory / "vmlinux",
        system_map=system_map if system_map.exists() else None,
        modules=tree if tree.exists() else None,
    )


def ensure(name: str, *, refresh: bool = False) -> Kernel:
    """Return the kernel, downloaded if it is missing or if `refresh` is set and a newer one comes."""
    present = cached(name)
    if present and not refresh:
        return present
    spec = _spec(name)
    apt = _apt(spec)
    choices = newest_first(spec.package, apt.candidates(spec.package))
    if present:
        # Only what is newer than the one at hand is worth a download.
        choices = list(itertools.takewhile(lambda choice: not _is_of(present, choice), choices))
    if choices:
        try:
            _put(apt, [choices], _directory(name), _kernel_of(spec))
        except FetchError as error:
            if not present:
                raise
            say(f"{error}; {present.package} {present.version} stays")
        else:
            if present and present.modules:
                modules(name)
    brought = cached(name)
    assert brought is not None
    return brought


def modules(name: str) -> Path:
    """Return the tree of the modules of the kernel's own build, downloaded if it is missing.

    Below it, paths are those below lib/modules/VERSION: kernel/drivers/net/dummy.ko, or .ko.xz; as they were shipped.
    Where the modules of that build do not come, the newest other kernel whose modules do takes its place.
    """
    return ensure(name).modules or _fetch_beside(name)


def boot_file(name: str) -> Path:
    """Return what is installed to boot the kernel, of its own build; downloaded with the modules if it is missing.

    Where it does not come, the newest other kernel whose boot file and modules do takes the kernel's place.
    """
    if _spec(name).boot is None:
        return ensure(name).vmlinux
    tree = modules(name)
    if not (tree / _BOOT_FILE).exists():
        _fetch_beside(name, boot_file_needed=True)
    return tree / _BOOT_FILE


def _fetch_beside(name: str, *, boot_file_needed: bool = False) -> Path:
    """Return the tree of the modules, downloaded, with the boot file if there is one."""
    kernel, spec = ensure(name), _spec(name)
    apt = _apt(spec)
    tree = _directory(name) / "modules"
    fill = _modules_of(spec, boot_file_needed)
    try:
        _put_modules(apt, kernel.package, kernel.version, tree, fill)
        return tree
    except FetchError as error:
        say(f"no modules of {kernel.package} {kernel.version}: {error}")
        failed = error
    for choice in newest_first(spec.package, apt.candidates(spec.package)):
        if _is_of(kernel, choice):
            continue
        say(f"trying {choice.package} {choice.version} with its modules")
        try:
            with tempfile.TemporaryDirectory(dir=_directory(name).parent, prefix=f".{name}-try-") as folder:
                _put_modules(apt, choice.package, choice.version, Path(folder, "modules"), fill)
                _put(apt, [[choice]], _directory(name), _kernel_of(spec))
                Path(folder, "modules").rename(tree)
            return tree
        except FetchError as error:
            say(str(error))
    raise failed


def _is_of(kernel: Kernel, choice: Candidate) -> bool:
    """Is `choice` the package that `kernel` was taken from?"""
    return (kernel.package, kernel.version) == (choice.package, choice.version)


def _put_modules(apt: Apt, package: str, version: str, tree: Path, fill: Callable[[Path, Path], None]) -> None:
    """Put the modules of the kernel in `package` at `tree`: of each group of packages the first that comes."""
    groups = []
    for packages in module_packages(package):
        offered = [candidate for one in packages for candidate in apt.candidates(one)]
        groups.append(of_version(packages, version, offered))
    _put(apt, groups, tree, fill)


def _spec(name: str) -> Spec:
    """Return the table's entry for `name`."""
    if name not in _KERNELS:
        raise FetchError(f"no kernel is called {name}, there are: {', '.join(_KERNELS)}")
    return _KERNELS[name]


def _directory(name: str) -> Path:
    """Return where the kernel is, or will be, in the cache."""
    return cache_directory() / "kernels" / name


def _apt(spec: Spec) -> Apt:
    """Return an apt that knows all suites of the kernels of this architecture."""
    arch = spec.debian_arch
    suites = {suite: None for one in _KERNELS.values() if one.debian_arch == arch for suite in one.suites}
    return Apt.prepare(cache_directory() / "apt" / arch, arch, tuple(suites))


def _put(apt: Apt, groups: Sequence[Sequence[Candidate]], target: Path, fill: Callable[[Path, Path], None]) -> None:
    """Put what `fill` makes of the first that comes of each group at `target`, in one step, in place of the old."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as directory:
        fresh = Path(directory, target.name)
        fresh.mkdir()
        taken = []
        for group in groups:
            choice, deb = apt.download(group, Path(directory))
            say(f"extracting {deb.name}")
            fill(deb, fresh)
            deb.unlink()
            taken.append(choice)
        facts = {"package": taken[0].package, "version": taken[0].version, "deb_sha256": taken[0].sha256}
        (fresh / _FACTS).write_text(json.dumps(facts, indent=2) + "\n")
        if target.exists():
            target.rename(Path(directory, "old"))
        fresh.rename(target)


def _kernel_of(spec: Spec) -> Callable[[Path, Path], None]:
    """Return how a package's kernel gets into a folder."""

    def fill(deb: Path, folder: Path) -> None:
        extract(deb, spec.members, folder)
        if not (folder / "vmlinux").exists():
            raise FetchError(f"{deb.name} holds no {spec.vmlinux}")

    return fill


def _modules_of(spec: Spec, boot_file_needed: bool) -> Callable[[Path, Path], None]:
    """Return how a package's modules get into a folder, and the boot file."""

    def fill(deb: Path, folder: Path) -> None:
        if not extract_below(deb, _MODULE_ROOT, _MODULE_FILES, folder):
            raise FetchError(f"{deb.name} holds no modules")
        if spec.boot:
            extract(deb, {_BOOT_FILE: spec.boot}, folder)
        if boot_file_needed and not (folder / _BOOT_FILE).exists():
            raise FetchError(f"{deb.name} holds no {spec.boot}")

    return fill


def main() -> int:
    """Return 0 if all that was asked for is in the cache."""
    parser = argparse.ArgumentParser(prog="python -m tools.kernels", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"one of: {', '.join(_KERNELS)} (default: all)")
    parser.add_argument("--list", action="store_true", help="only say what is in the cache, download nothing")
    parser.add_argument("--refresh", action="store_true", help="look for newer packages")
    parser.add_argument("--modules", action="store_true", help="fetch the modules and boot file of the same build, too")
    parser.add_argument("--tools", action="store_true", help="also install the programs the tests need")
    options = parser.parse_args()
    try:
        if options.tools:
            ensure_tools()
        for name in options.names or known():
            if not options.list:
                ensure(name, refresh=options.refresh)
            if options.modules and not options.list:
                modules(name)
                boot_file(name)
            print(_line(name, cached(name)), flush=True)
    except FetchError as error:
        say(str(error))
        return 1
    return 0


def _line(name: str, kernel: Kernel | None) -> str:
    """Return how a kernel is listed."""
    if not kernel:
        return f"{name}: not in the cache"
    return " ".join(
        [f"{name}:", kernel.package, kernel.version, *map(str, filter(None, [kernel.vmlinux, kernel.modules]))]
    )


if __name__ == "__main__":
    sys.exit(main())
