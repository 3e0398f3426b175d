"""Brings Debian's kernels into a cache: python -m tools.kernels [NAME...].

apt does the downloading and checks the signatures.  It runs on a private configuration whose sources name the
same mirrors and the same keyring as this machine's own, for the suites and architectures of the kernels.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SMALLEST_KIB = 1024  # a package that installs less than this is a meta package
_KEYRING = "debian-archive-keyring"
_RELEASES = frozenset({"bullseye", "bookworm", "trixie", "forky", "sid"})
_CHANNELS = frozenset({"oldoldstable", "oldstable", "stable", "testing", "unstable"})
_DEBIAN_NAMES = {"ppc64le": "ppc64el"}  # of the architectures that Debian calls something else


class FetchError(RuntimeError):
    """A kernel could not be brought into the cache; the message is one line for the user."""


@dataclass(frozen=True)
class Spec:
    """Where to find a kernel: the newest package whose name matches a pattern, and the files in it."""

    package: str  # pattern of the package's name
    arch: str  # as tools.boot calls it
    suites: tuple[str, ...]
    vmlinux: str  # pattern of the member of the .deb
    system_map: str | None  # likewise; None if the package has none, or one line that points elsewhere

    @property
    def debian_arch(self) -> str:
        """Return what apt calls the architecture."""
        return _DEBIAN_NAMES.get(self.arch, self.arch)

    @property
    def members(self) -> dict[str, str]:
        """Return the pattern of each wanted member, by the name of its file in the cache."""
        wanted = {"vmlinux": self.vmlinux}
        return wanted | {"System.map": self.system_map} if self.system_map else wanted


_KERNELS = {
    "arm64-6.1": Spec(
        package="linux-image-6.1.0-*-cloud-arm64-dbg",
        arch="arm64",
        suites=("bookworm", "bookworm-security"),
        vmlinux="usr/lib/debug/boot/vmlinux-*",
        system_map="usr/lib/debug/boot/System.map-*",
    ),
    "arm64-6.12": Spec(
        package="linux-image-6.12*+deb13*-cloud-arm64-dbg",
        arch="arm64",
        suites=("trixie", "trixie-security"),
        vmlinux="usr/lib/debug/boot/vmlinux-*",
        system_map="usr/lib/debug/boot/System.map-*",
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
}

_TOOLS = {
    "qemu-system-aarch64": ("qemu-system-arm",),
    "aarch64-linux-gnu-gcc": ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
    "aarch64-linux-gnu-objcopy": ("binutils-aarch64-linux-gnu",),
    "qemu-system-ppc64": ("qemu-system-ppc",),
    "powerpc64le-linux-gnu-gcc": ("gcc-powerpc64le-linux-gnu", "libc6-dev-ppc64el-cross"),
    "powerpc64le-linux-gnu-objcopy": ("binutils-powerpc64le-linux-gnu",),
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


@dataclass(frozen=True)
class Source:
    """One of this machine's package sources."""

    uri: str
    suites: tuple[str, ...]
    keyring: str | None


@dataclass(frozen=True)
class Candidate:
    """A package that apt offers."""

    package: str
    version: str
    sha256: str
    installed_kib: int


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
        facts = json.loads((directory / "kernel.json").read_text())
    except FileNotFoundError:
        return None
    system_map = directory / "System.map"
    return Kernel(
        name=name,
        arch=_spec(name).arch,
        package=facts["package"],
        version=facts["version"],
        vmlinux=directory / "vmlinux",
        system_map=system_map if system_map.exists() else None,
    )


def ensure(name: str, *, refresh: bool = False) -> Kernel:
    """Return the kernel, downloaded if it is missing or if `refresh` is set and there is a newer one."""
    present = cached(name)
    if present and not refresh:
        return present
    spec = _spec(name)
    apt = _Apt.prepare(spec.debian_arch)
    choice = newest(spec.package, apt.candidates(spec.package))
    if not present or (present.package, present.version) != (choice.package, choice.version):
        _install(apt, spec, choice, _directory(name))
    brought = cached(name)
    assert brought is not None
    return brought


def ensure_tools() -> None:
    """Install the programs that corpus and boot tests need; without root, fail and say how it is done."""
    missing = sorted({package for tool, wanted in _TOOLS.items() if not shutil.which(tool) for package in wanted})
    if not missing:
        return
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        raise FetchError(f"programs are missing, as root run: {' '.join(install)}")
    for command in (["apt-get", "update"], install):
        _say(" ".join(command))
        status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if status:
        raise FetchError(f"this failed: {' '.join(install)}")


def _spec(name: str) -> Spec:
    """Return the table's entry for `name`."""
    if name not in _KERNELS:
        raise FetchError(f"no kernel is called {name}, there are: {', '.join(_KERNELS)}")
    return _KERNELS[name]


def _directory(name: str) -> Path:
    """Return where the kernel is, or will be, in the cache."""
    return cache_directory() / "kernels" / name


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the paragraphs of deb822 text, with lower-case field names; comment lines do not count."""
    for paragraph in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields: dict[str, str] = {}
        key = ""
        for line in paragraph.splitlines():
            if line[:1].isspace():
                fields[key] = f"{fields.get(key, '')}\n{line.strip()}".strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields:
            yield fields


def deb822_sources(text: str) -> Iterator[Source]:
    """Yield the binary package sources of a `.sources` file that are enabled and have a component main."""
    for fields in stanzas(text):
        enabled = fields.get("enabled", "yes").lower() in ("yes", "true", "1", "on", "with", "enable")
        if enabled and "deb" in fields.get("types", "").split() and "main" in fields.get("components", "").split():
            signer = fields.get("signed-by", "")
            for uri in fields.get("uris", "").split():
                yield Source(uri, tuple(fields.get("suites", "").split()), signer or None)


_ONE_LINE = re.compile(
    r"^\s*deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>[^#\n]*)"
)


def one_line_sources(text: str) -> Iterator[Source]:
    """Yield the binary package sources of a `.list` file that have a component main."""
    for line in text.splitlines():
        match = _ONE_LINE.match(line)
        if match and "main" in match["components"].split():
            signer = re.search(r"\bsigned-by=(\S+)", match["options"] or "")
            yield Source(match["uri"], (match["suite"],), signer[1] if signer else None)


def machine_sources(etc: Path = Path("/etc/apt")) -> list[Source]:
    """Return this machine's sources of Debian's own packages, those that name Debian's keyring first."""
    found: list[Source] = []
    for path in sorted([*etc.glob("sources.list"), *etc.glob("sources.list.d/*")]):
        if path.suffix == ".sources":
            found += deb822_sources(path.read_text())
        elif path.suffix == ".list":
            found += one_line_sources(path.read_text())
    debian = [source for source in found if _is_debian(source)]
    return sorted(debian, key=lambda source: source.keyring is None)


def _is_debian(source: Source) -> bool:
    """Is this Debian's archive, as far as its suites and its keyring tell?"""
    keyring_fits = source.keyring is None or _KEYRING in source.keyring
    return keyring_fits and any(re.split("[-/]", suite)[0] in _RELEASES | _CHANNELS for suite in source.suites)


def _is_security(suite: str) -> bool:
    """Does this suite live in the security archive?"""
    return suite.endswith(("-security", "/updates"))


def source_lines(sources: Sequence[Source], suites: Iterable[str], arch: str) -> list[str]:
    """Return the lines of a sources.list that offer `suites` for `arch` from the archives of `sources`.

    A suite whose archive the machine does not name is left out; that none is left is an error.
    """
    lines = []
    for suite in suites:
        security = _is_security(suite)
        fitting = (source for source in sources if any(_is_security(one) == security for one in source.suites))
        if source := next(fitting, None):
            signer = f" signed-by={source.keyring}" if source.keyring else ""
            lines.append(f"deb [arch={arch}{signer}] {source.uri} {suite} main")
    if not lines:
        raise FetchError("this machine's apt sources name no Debian mirror to download from")
    return lines


def candidates(shown: str) -> list[Candidate]:
    """Return the packages in the output of `apt-cache show`."""
    return [
        Candidate(
            package=fields["package"],
            version=fields["version"],
            sha256=fields.get("sha256", ""),
            installed_kib=int(fields.get("installed-size", 0)),
        )
        for fields in stanzas(shown)
    ]


def newest(pattern: str, offered: Iterable[Candidate]) -> Candidate:
    """Return the newest of the packages that match `pattern` and are large enough to hold a kernel."""
    fitting = [
        candidate
        for candidate in offered
        if fnmatch.fnmatchcase(candidate.package, pattern) and candidate.installed_kib >= _SMALLEST_KIB
    ]
    if not fitting:
        raise FetchError(f"the apt sources offer no package like {pattern}")
    return max(fitting, key=functools.cmp_to_key(_compare))


def _compare(left: Candidate, right: Candidate) -> int:
    """Order by version; rebuilds that share one differ in the version that is part of the name."""
    return _compare_versions(left.version, right.version) or _compare_versions(left.package, right.package)


def _compare_versions(left: str, right: str) -> int:
    """Return -1, 0 or 1 by Debian's version order."""
    for operator, result in (("lt", -1), ("gt", 1)):
        if subprocess.run(["dpkg", "--compare-versions", left, operator, right], check=False).returncode == 0:
            return result
    return 0


@dataclass(frozen=True)
class _Apt:
    """A private apt for one architecture, with its own lists and an empty package database."""

    environment: Mapping[str, str]

    @classmethod
    @functools.cache
    def prepare(cls, arch: str) -> _Apt:
        """Return an apt that knows all suites of that architecture's kernels, with fresh indexes."""
        root = cache_directory() / "apt" / arch
        for name in ("state/lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "status").touch()
        suites = {suite: None for spec in _KERNELS.values() if spec.debian_arch == arch for suite in spec.suites}
        lines = source_lines(machine_sources(), suites, arch)
        (root / "sources.list").write_text("\n".join(lines) + "\n")
        (root / "apt.conf").write_text(_configuration(root.resolve(), arch))
        apt = cls({**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C"})
        apt._update()
        return apt

    def _update(self) -> None:
        """Fetch the indexes.  One that fails matters only if a package is then not found."""
        _say("apt-get update")
        if self._run(["apt-get", "update", "--quiet"]).returncode:
            _say("apt-get update failed in part, going on with the indexes at hand")

    def candidates(self, pattern: str) -> list[Candidate]:
        """Return the packages whose names match `pattern`, in all their versions."""
        names = self._run(["apt-cache", "pkgnames", pattern.partition("*")[0]], capture=True).stdout.split()
        fitting = sorted(fnmatch.filter(names, pattern))
        return candidates(self._run(["apt-cache", "show", *fitting], capture=True).stdout) if fitting else []

    def download(self, choice: Candidate, directory: Path) -> Path:
        """Return the path of the .deb after downloading it to `directory`."""
        _say(f"downloading {choice.package} {choice.version}")
        self._run(["apt-get", "download", "--quiet", f"{choice.package}={choice.version}"], cwd=directory)
        if not (debs := list(directory.glob("*.deb"))):
            raise FetchError(f"apt-get could not download {choice.package} {choice.version}")
        return debs[0]

    def _run(
        self, command: list[str], *, capture: bool = False, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run apt on the private configuration; output that is not captured is progress."""
        output = subprocess.PIPE if capture else sys.stderr
        return subprocess.run(command, env=dict(self.environment), cwd=cwd, stdout=output, text=True, check=False)


def _configuration(root: Path, arch: str) -> str:
    """Return the configuration of an apt whose files are all below `root`."""
    return f"""\
Dir::Etc::SourceList "{root}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{root}/state";
Dir::State::Status "{root}/status";
Dir::Cache "{root}/cache";
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
"""


def _install(apt: _Apt, spec: Spec, choice: Candidate, target: Path) -> None:
    """Download `choice` and put its files at `target` in one step, in place of what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as directory:
        deb = apt.download(choice, Path(directory))
        fresh = Path(directory, target.name)
        fresh.mkdir()
        _say(f"extracting {deb.name}")
        extract(deb, spec.members, fresh)
        if not (fresh / "vmlinux").exists():
            raise FetchError(f"{choice.package} holds no {spec.vmlinux}")
        facts = {"package": choice.package, "version": choice.version, "deb_sha256": choice.sha256}
        (fresh / "kernel.json").write_text(json.dumps(facts, indent=2) + "\n")
        if target.exists():
            target.rename(Path(directory, "old"))
        fresh.rename(target)


def extract(deb: Path, wanted: Mapping[str, str], directory: Path) -> None:
    """Write the member that matches each pattern to `directory`, under the key; stop once all are there."""
    missing = dict(wanted)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as unpacker:
        try:
            with tarfile.open(fileobj=unpacker.stdout, mode="r|") as tar:
                for member in tar:
                    _extract_wanted(tar, member, missing, directory)
                    if not missing:
                        break
        except tarfile.TarError as error:
            raise FetchError(f"{deb.name} cannot be unpacked: {error}") from None
        finally:
            unpacker.kill()


def _extract_wanted(tar: tarfile.TarFile, member: tarfile.TarInfo, missing: dict[str, str], directory: Path) -> None:
    """Write `member` to `directory` if it matches one of the `missing` patterns, and drop that pattern."""
    name = member.name.removeprefix("./")
    key = next((key for key, pattern in missing.items() if fnmatch.fnmatchcase(name, pattern)), None)
    content = tar.extractfile(member) if key else None
    if key and content:
        with Path(directory, key).open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        del missing[key]


def _say(text: str) -> None:
    """Tell the user what is going on."""
    print(f"tools.kernels: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Return 0 if all that was asked for is in the cache."""
    parser = argparse.ArgumentParser(prog="python -m tools.kernels", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"one of: {', '.join(_KERNELS)} (default: all)")
    parser.add_argument("--list", action="store_true", help="only say what is in the cache, download nothing")
    parser.add_argument("--refresh", action="store_true", help="look for newer packages")
    parser.add_argument("--tools", action="store_true", help="also install the programs the tests need")
    options = parser.parse_args()
    try:
        if options.tools:
            ensure_tools()
        for name in options.names or known():
            print(
                _line(name, cached(name) if options.list else ensure(name, refresh=options.refresh)),
                flush=True,
            )
    except FetchError as error:
        _say(str(error))
        return 1
    return 0


def _line(name: str, kernel: Kernel | None) -> str:
    """Return how a kernel is listed."""
    return f"{name}: {kernel.package} {kernel.version} {kernel.vmlinux}" if kernel else f"{name}: not in the cache"


if __name__ == "__main__":
    sys.exit(main())
