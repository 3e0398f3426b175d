"""The house: imports go one way, and what is heavy or foreign lives in one room."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftpatch import __version__

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ftpatch"

# From the ground up. A floor uses the floors below it; rooms on one floor do not know each other; a folder is one room
# and may use itself.
HOUSE = [
    ("errors", "finding"),
    ("elf.tables", "signature", "xz", "gate"),
    ("envelope", "arch"),
    ("elf",),
    ("edits", "records", "kallsyms", "modinfo", "loader", "source", "stubasm", "inlined", "splat", "edit_class"),
    ("layout", "exports"),
    ("sites",),
    ("select", "targets", "dropping", "preflight", "why"),
    ("predict",),
    ("trampolines", "slots", "diagnosis"),
    ("draft", "notes", "outcome"),
    ("change", "obstacles", "returning"),
    ("undoing",),
    ("module",),
    ("plan",),
    ("apply", "verify", "bootimage", "summary"),
    ("proof",),
    ("module_check", "change_check"),
    ("api",),
    ("deliver", "explain"),
    ("report",),
    ("tree", "journal", "digest", "rules"),
    ("restoring", "diff"),
    ("cli",),
    ("__main__",),
]
FLOOR = {room: floor for floor, rooms in enumerate(HOUSE) for room in rooms}


def modules() -> dict[str, Path]:
    """Name below ftpatch → file; a package's __init__ has the package's name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")
        found[name] = path
    return found


MODULES = modules()


def imports(path: Path) -> set[str]:
    """Every module that the file imports anywhere, functions included; names below a package where they are modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = str(node.module)
            for alias in node.names:
                longer = f"{base}.{alias.name}"
                found.add(longer if longer.removeprefix("ftpatch.") in MODULES else base)
    return found


def room(module: str) -> str:
    return module if module in FLOOR else module.split(".")[0]


def test_every_module_has_a_room() -> None:
    assert sorted(name for name in MODULES if name and room(name) not in FLOOR) == []
    assert sorted(one for one in FLOOR if one not in MODULES) == []


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name))
def test_imports_go_one_way(name: str) -> None:
    own = [one.removeprefix("ftpatch.") for one in imports(MODULES[name]) if one.startswith("ftpatch.")]
    wrong = [one for one in own if room(one) != room(name) and one != name and FLOOR[room(one)] >= FLOOR[room(name)]]
    assert wrong == []


def test_the_package_itself_imports_nothing() -> None:
    assert imports(MODULES[""]) == set()


def users(foreign: str) -> set[str]:
    return {name for name, path in MODULES.items() if any(one.split(".")[0] == foreign for one in imports(path))}


def test_click_is_used_by_the_command_line_alone() -> None:
    assert {name.split(".")[0] for name in users("click")} == {"cli"}


def test_capstone_is_used_by_the_checks_alone() -> None:
    assert users("capstone") == {"explain", "proof.decoders", "stubasm", "verify"}


def test_keystone_is_used_by_stubasm_alone() -> None:
    assert users("keystone") == {"stubasm"}


def test_lief_is_the_proofs_second_reader() -> None:
    assert users("lief") == {"proof.second"}


@pytest.mark.parametrize("foreign", ["elftools", "pytest", "jsonschema", "hypothesis", "tools", "tests"])
def test_what_the_tests_use_is_not_used_by_the_package(foreign: str) -> None:
    assert users(foreign) == set()


@pytest.mark.parametrize("foreign", ["socket", "urllib", "http", "subprocess", "time", "datetime", "random"])
def test_the_package_has_no_network_no_clock_no_chance_and_starts_no_program(foreign: str) -> None:
    # QEMU's user mode runs ppc64le code for the proof; it is no part of Python.
    assert {room(name) for name in users(foreign)} == ({"proof"} if foreign == "subprocess" else set())


def test_unicorn_is_used_by_the_proof_alone() -> None:
    assert {room(name) for name in users("unicorn")} == {"proof"}


def test_the_proof_shares_nothing_with_what_plans_and_writes() -> None:
    rooms = {room(one.removeprefix("ftpatch.")) for name, path in MODULES.items() if room(name) == "proof"
             for one in imports(path) if one.startswith("ftpatch.")}  # fmt: skip
    assert rooms <= {"errors", "elf", "elf.tables", "arch", "records", "sites", "proof"}


def loaded(*arguments: str) -> set[str]:
    """Modules in memory after a command line ran to its end."""
    program = (
        "import sys\nfrom ftpatch.cli import run\n"
        "code = run(sys.argv[1:])\nprint('\\n' + ' '.join(sys.modules))\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, *arguments], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip
    return set(done.stdout.splitlines()[-1].split())


def test_version_loads_nothing_heavy() -> None:
    assert loaded("--version").isdisjoint({"numpy", "capstone", "json", "hashlib", "csv", "mmap", "ftpatch.api"})


def test_a_text_scan_loads_neither_capstone_nor_json_nor_other_formats() -> None:
    found = loaded("scan", str(ROOT / "testdata/mini/vmlinux-callops"))
    assert "ftpatch.sites" in found
    assert found.isdisjoint({"capstone", "json", "ftpatch.plan", "ftpatch.verify", "ftpatch.report.json"})


def test_the_version_is_the_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ftpatch", "--version"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == f"ftpatch, version {__version__}\n"
