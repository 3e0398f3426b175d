"""Builds the Debian package from an sdist: python -m tools.debian dist/ftpatch-1.0.0.tar.gz [--out dist].

The sdist is the upstream source, byte for byte; packaging/debian becomes its debian/. Whatever is built is built by
debhelper from the sdist alone, without network, and lintian must have nothing to say of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tools.apt import FetchError
from tools.programs import ensure

PACKAGING = Path(__file__).resolve().parents[1] / "packaging" / "debian"
PROGRAMS = {
    "dpkg-buildpackage": ("dpkg-dev",),
    "dh": ("debhelper",),
    "dh_python3": ("dh-python",),
    "fakeroot": ("fakeroot",),
    "lintian": ("lintian",),
}
LINTIAN = ("lintian", "--allow-root", "--fail-on", "error,warning,info,pedantic", "--display-info", "--pedantic")


class BuildError(RuntimeError):
    """A package could not be built; the message is for the user."""


def build(sdist: Path, out: Path, lint: bool = True) -> Path:
    """The path of the package that is made in the directory `out`, with its source package beside it."""
    version = sdist.name.removeprefix("ftpatch-").removesuffix(".tar.gz")
    with tempfile.TemporaryDirectory(prefix="ftpatch-debian-") as folder:
        place = Path(folder)
        shutil.copy(sdist, place / f"ftpatch_{version}.orig.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(place, filter="data")
        source = place / f"ftpatch-{version}"
        shutil.copytree(PACKAGING, source / "debian")
        _run(["dpkg-buildpackage", "--unsigned-source", "--unsigned-changes"], source)
        (changes,) = place.glob("*.changes")
        if lint:
            _run([*LINTIAN, changes.name], place)
        out.mkdir(parents=True, exist_ok=True)
        for path in place.glob("ftpatch_*"):
            shutil.copy(path, out)
        (package,) = place.glob("*.deb")
        return out / package.name


def _run(command: list[str], place: Path) -> None:
    """Run a program of Debian's; its output is shown where it fails."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    environment.pop("SOURCE_DATE_EPOCH", None)  # the package's changelog has its own
    done = subprocess.run(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        umask=0o022,
    )  # fmt: skip
    if done.returncode:
        raise BuildError(f"{done.stdout}this failed with exit code {done.returncode}: {' '.join(command)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.debian", description=__doc__)
    parser.add_argument("sdist", type=Path)
    parser.add_argument("--out", type=Path, default=Path("dist"))
    options = parser.parse_args()
    try:
        ensure(PROGRAMS)
        print(build(options.sdist, options.out))
    except (BuildError, FetchError) as error:
        print(f"make deb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
