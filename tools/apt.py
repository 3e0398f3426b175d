"""A private apt: which archives this machine knows, which of their packages fit, and the files in one.

apt does the downloading and checks the signatures.  It runs on a private configuration whose sources name the
same mirrors and the same keyring as this machine's own, for suites and an architecture of the caller's choice.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_SMALLEST_KIB = 1024  # a package that installs less than this is a meta package
_KEYRING = "debian-archive-keyring"
_RELEASES = frozenset({"bullseye", "bookworm", "trixie", "forky", "sid"})
_CHANNELS = frozenset({"oldoldstable", "oldstable", "stable", "testing", "unstable"})


class FetchError(RuntimeError):
    """Something could not be brought into the cache; the message is one line for the user."""


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


def of_version(packages: Sequence[str], version: str, offered: Iterable[Candidate]) -> list[Candidate]:
    """Return those of `packages` that are offered in exactly this version, in the order of `packages`."""
    exact = {candidate.package: candidate for candidate in offered if candidate.version == version}
    if present := [exact[package] for package in packages if package in exact]:
        return present
    raise FetchError(f"the apt sources offer {version} of none of: {', '.join(packages)}")


def newest_first(pattern: str, offered: Iterable[Candidate]) -> list[Candidate]:
    """Return the packages that match `pattern` and are large enough to hold a kernel, the newest first."""
    fitting = {
        candidate
        for candidate in offered
        if fnmatch.fnmatchcase(candidate.package, pattern) and candidate.installed_kib >= _SMALLEST_KIB
    }
    if not fitting:
        raise FetchError(f"the apt sources offer no package like {pattern}")
    return sorted(fitting, key=functools.cmp_to_key(_compare), reverse=True)


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
class Apt:
    """A private apt for one architecture, with its own lists and an empty package database."""

    environment: Mapping[str, str]

    @classmethod
    @functools.cache
    def prepare(cls, root: Path, arch: str, suites: tuple[str, ...]) -> Apt:
        """Return an apt that keeps its files below `root` and knows `suites` for `arch`, with fresh indexes."""
        for name in ("state/lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "status").touch()
        lines = source_lines(machine_sources(), suites, arch)
        (root / "sources.list").write_text("\n".join(lines) + "\n")
        (root / "apt.conf").write_text(_configuration(root.resolve(), arch))
        apt = cls({**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C"})
        apt._update()
        return apt

    def _update(self) -> None:
        """Fetch the indexes.  One that fails matters only if a package is then not found."""
        say("apt-get update")
        if self._run(["apt-get", "update", "--quiet"]).returncode:
            say("apt-get update failed in part, going on with the indexes at hand")

    def candidates(self, pattern: str) -> list[Candidate]:
        """Return the packages whose names match `pattern`, in all their versions."""
        names = self._run(["apt-cache", "pkgnames", pattern.partition("*")[0]], capture=True).stdout.split()
        fitting = sorted(fnmatch.filter(names, pattern))
        return candidates(self._run(["apt-cache", "show", *fitting], capture=True).stdout) if fitting else []

    def download(self, choices: Sequence[Candidate], directory: Path) -> tuple[Candidate, Path]:
        """Return the first of `choices` that comes, and the path of its .deb in `directory`.

        A mirror may list what it cannot send, so each one that fails is named and the next is tried.
        """
        for choice in choices:
            say(f"downloading {choice.package} {choice.version}")
            self._run(["apt-get", "download", "--quiet", f"{choice.package}={choice.version}"], cwd=directory)
            if debs := list(directory.glob("*.deb")):
                return choice, debs[0]
            say(f"{choice.package} {choice.version} is listed but does not come")
        names = ", ".join(f"{choice.package} {choice.version}" for choice in choices)
        raise FetchError(f"apt-get could download none of: {names}")

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


def extract(deb: Path, wanted: Mapping[str, str], directory: Path) -> None:
    """Write the member that matches each pattern to `directory`, under the key; stop once all are there."""
    missing = dict(wanted)
    for name, content in _members(deb):
        key = next((key for key, pattern in missing.items() if fnmatch.fnmatchcase(name, pattern)), None)
        if key:
            _write(content, Path(directory, key))
            del missing[key]
        if not missing:
            break


def extract_below(deb: Path, root: str, patterns: Sequence[str], directory: Path) -> int:
    """Write the members below `root` whose rest matches one of `patterns` to that rest in `directory`; their count.

    `root` is a regular expression of what a member's name begins with, up to and including a slash.
    """
    n_written = 0
    for name, content in _members(deb):
        begin = re.match(root, name)
        rest = name[begin.end() :] if begin else ""
        if ".." not in rest.split("/") and any(fnmatch.fnmatchcase(rest, pattern) for pattern in patterns):
            _write(content, Path(directory, rest))
            n_written += 1
    return n_written


def _members(deb: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of each regular file of the package; a content is read before the next is asked for."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as unpacker:
        try:
            with tarfile.open(fileobj=unpacker.stdout, mode="r|") as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.isreg() else None
                    if content:
                        yield member.name.removeprefix("./"), content
        except tarfile.TarError as error:
            raise FetchError(f"{deb.name} cannot be unpacked: {error}") from None
        finally:
            unpacker.kill()


def _write(content: IO[bytes], path: Path) -> None:
    """Copy `content` to `path`, whose folder need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def say(text: str) -> None:
    """Tell the user what is going on."""
    print(f"tools.kernels: {text}", file=sys.stderr, flush=True)
