"""What is installed is what the source says: versions, metadata, dependencies, files of sdist, wheel and .deb."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from ftpatch import __version__
from tools import changelog, debian, sbom

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEBIAN = ROOT / "packaging" / "debian"
ALL = {"capstone", "click", "cryptography", "jinja2", "numpy", "pyelftools", "rich", "zstandard"}
MACHINES = {  # (platform_machine, platform_system) → what comes along where wheels of it exist
    ("x86_64", "Linux"): ALL | {"lief", "unicorn", "keystone-engine"},
    ("AMD64", "Windows"): ALL | {"lief", "unicorn", "keystone-engine"},
    ("aarch64", "Linux"): ALL | {"lief", "unicorn"},
    ("arm64", "Darwin"): ALL | {"lief", "unicorn"},
    ("ppc64le", "Linux"): ALL,
    ("riscv64", "Linux"): ALL,
}


def test_the_version_stands_in_one_place_and_the_changelogs_begin_with_it() -> None:
    (newest, *older) = changelog.releases((ROOT / "CHANGELOG.md").read_text())
    assert newest.version == __version__
    assert all(one.date <= newest.date for one in older)
    assert PROJECT["dynamic"] == ["version"]
    first = (DEBIAN / "changelog").read_text()
    assert re.match(r"ftpatch \(([^)]+)-1\) unstable; urgency=medium\n", first)
    assert first.startswith(f"ftpatch ({__version__}-1) ")
    assert f"  {newest.date:%a, %d %b %Y %H:%M:%S} +0000\n" in first


@pytest.mark.parametrize(("machine", "system"), MACHINES)
def test_each_machine_gets_what_exists_for_it(machine: str, system: str) -> None:
    here = {"platform_machine": machine, "platform_system": system}
    wanted = [Requirement(text) for text in PROJECT["dependencies"]]
    names = {one.name for one in wanted if one.marker is None or one.marker.evaluate(here)}
    assert names == MACHINES[machine, system]


def test_every_dependency_has_a_lowest_version() -> None:
    wanted = [Requirement(text) for text in PROJECT["dependencies"]]
    assert [str(one) for one in wanted if [part.operator for part in one.specifier] != [">="]] == []


def test_debian_asks_for_the_same_versions_at_least() -> None:
    """But for lief and keystone, which are not in Debian, and unicorn, which is suggested."""
    control = (DEBIAN / "control").read_text()
    ours = {one.name: next(iter(one.specifier)).version for one in map(Requirement, PROJECT["dependencies"])}
    theirs = {name: version for name, version in re.findall(r"python3-([\w-]+) \(>= (?:1:)?([\d.]+)\)", control)}
    assert theirs == {name: version for name, version in ours.items() if name not in ("lief", "keystone-engine")}


def test_the_programs_own_test_in_debian_names_files_that_exist() -> None:
    text = (DEBIAN / "tests" / "small-kernel").read_text()
    assert [name for name in re.findall(r"\$PWD/(\S+)", text) if not (ROOT / name).exists()] == []


def test_a_wheels_list_of_parts_is_what_its_metadata_says(tmp_path: Path) -> None:
    wheel = tmp_path / "ftpatch-9.9-py3-none-any.whl"
    head = "Metadata-Version: 2.4\nName: ftpatch\nVersion: 9.9\nLicense-Expression: GPL-2.0-or-later\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(zipfile.ZipInfo("ftpatch-9.9.dist-info/METADATA"),
                         head + "Requires-Dist: jinja2>=3\nRequires-Dist: nothing; extra == 'x'\n")  # fmt: skip
    found = sbom.sbom(wheel)
    assert found == sbom.sbom(wheel)
    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.5", 1)
    plain = json.loads(json.dumps(found))
    assert [part["name"] for part in plain["components"]] == ["jinja2", "markupsafe"]
    product = plain["metadata"]["component"]
    assert (product["name"], product["version"], product["purl"]) == ("ftpatch", "9.9", "pkg:pypi/ftpatch@9.9")
    assert product["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    refs = {part["bom-ref"] for part in plain["components"]} | {product["bom-ref"]}
    assert {row["ref"] for row in plain["dependencies"]} == refs
    assert {ref for row in plain["dependencies"] for ref in row["dependsOn"]} == refs - {product["bom-ref"]}
    version = SchemaVersion.from_version(plain["specVersion"])
    assert JsonStrictValidator(version).validate_str(json.dumps(plain)) is None


# -- with programs: what is built ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def builder(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the build system, of the version that releases are made with."""
    folder = tmp_path_factory.mktemp("builder")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = ["-m", "pip", "install", "--quiet", "-c", str(ROOT / "packaging/build-constraints.txt"), "hatchling"]
    subprocess.run([folder / "bin/python", *install], check=True)
    return folder / "bin/python"


def built(builder: Path, source: Path, out: Path, umask: int) -> dict[str, bytes]:
    """Name → bytes of sdist and wheel."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(changelog.source_date())}
    subprocess.run([builder, "-m", "hatchling", "build", "-d", out], cwd=source, env=environment, check=True,
                   umask=umask, capture_output=True)  # fmt: skip
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module")
def dist(builder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    built(builder, ROOT, out, 0o022)
    return out


@pytest.mark.programs
def test_two_builds_are_the_same_bytes_and_an_sdist_makes_the_same_wheel(
    builder: Path, dist: Path, tmp_path: Path
) -> None:
    sdist = f"ftpatch-{__version__}.tar.gz"
    with tarfile.open(dist / sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = built(builder, tmp_path / f"ftpatch-{__version__}", tmp_path / "out", 0o077)
    assert {name: hashlib.sha256(content).digest() for name, content in again.items()} == {
        path.name: hashlib.sha256(path.read_bytes()).digest() for path in dist.iterdir()
    }


@pytest.mark.programs
def test_the_wheel_holds_the_package_and_nothing_of_the_tests(dist: Path) -> None:
    names = set(zipfile.ZipFile(dist / f"ftpatch-{__version__}-py3-none-any.whl").namelist())
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ftpatch").rglob("*") if path.is_file()}
    assert {name for name in names if name.startswith("ftpatch/")} == {
        name for name in package if "__pycache__" not in name
    }
    share = f"ftpatch-{__version__}.data/data/share"
    assert {f"{share}/man/man1/ftpatch.1", f"{share}/bash-completion/completions/ftpatch"} <= names
    assert f"ftpatch-{__version__}.dist-info/licenses/LICENSE" in names


@pytest.mark.programs
def test_the_wheel_works_in_a_clean_environment(dist: Path, tmp_path: Path) -> None:
    """Installed by pip with what it asks for, and nothing of this checkout on the path."""
    (wheel,) = dist.glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "pip", "install", "--quiet", wheel], check=True)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def told(*arguments: str) -> str:
        command = [str(venv / "bin" / "ftpatch"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=clean).stdout

    vmlinux = str(ROOT / "testdata" / "mini" / "vmlinux-callops")
    assert told("--version") == f"ftpatch, version {__version__}\n"
    assert "  records    19 slots, 3 null, 16 live\n" in told("scan", vmlinux, "--report", "html=scan.html")
    assert "1 enabled, calling ftrace_caller" in told("enable", vmlinux, "--func", "vfs_read", "-o", "new")
    assert "emulated   1 sites" in told("verify", vmlinux, "new", "--require", "emulation")
    assert "</html>" in (tmp_path / "scan.html").read_text()[-20:]
    assert (venv / "share" / "man" / "man1" / "ftpatch-enable.1").is_file()
    assert (venv / "share" / "bash-completion" / "completions" / "ftpatch").is_file()


@pytest.mark.programs
def test_the_debian_package_is_clean_and_the_same_twice(dist: Path, tmp_path: Path) -> None:
    """lintian, with all that it has to say but experiments, fails the build."""
    sdist = dist / f"ftpatch-{__version__}.tar.gz"
    first = debian.build(sdist, tmp_path / "one").read_bytes()
    second = debian.build(sdist, tmp_path / "two", lint=False).read_bytes()
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
