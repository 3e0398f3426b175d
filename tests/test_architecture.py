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

# The rooms, the ground first: a room uses those in front of it, and itself. docs/architecture.md draws this.
HOUSE = [
    "errors", "finding", "arrays", "arch", "container", "elf", "sites", "kernel", "plan", "document", "proof", "write",
    "trees", "journal", "rules", "explain", "compare", "report", "api", "cli", "__main__",
]  # fmt: skip
FLOOR = {room: floor for floor, room in enumerate(HOUSE)}


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
    return module.split(".")[0]


def test_every_module_has_a_room() -> None:
    assert sorted(name for name in MODULES if name and room(name) not in FLOOR) == []
    assert sorted(one for one in FLOOR if one not in MODULES) == []


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name))
def test_imports_go_one_way(name: str) -> None:
    own = [one.removeprefix("ftpatch.") for one in imports(MODULES[name]) if one.startswith("ftpatch.")]
    wrong = [one for one in own if room(one) != room(name) and one != name and FLOOR[room(one)] > FLOOR[room(name)]]
    assert wrong == []


def test_the_package_itself_imports_nothing() -> None:
    assert imports(MODULES[""]) == set()


def users(foreign: str) -> set[str]:
    return {name for name, path in MODULES.items() if any(one.split(".")[0] == foreign for one in imports(path))}


def test_click_is_used_by_the_command_line_alone() -> None:
    assert {name.split(".")[0] for name in users("click")} == {"cli"}


def test_capstone_is_used_by_the_checks_alone() -> None:
    assert users("capstone") == {"explain.code", "proof.decoders", "plan.stubasm", "write.verify"}


def test_keystone_is_used_by_stubasm_alone() -> None:
    assert users("keystone") == {"plan.stubasm"}


def test_pyelftools_is_used_by_the_debug_information_alone() -> None:
    assert users("elftools") == {"elf.debug_info"}


def test_lief_is_the_proofs_second_reader() -> None:
    assert users("lief") == {"proof.lief_check"}


@pytest.mark.parametrize("foreign", ["pytest", "jsonschema", "hypothesis", "tools", "tests"])
def test_what_the_tests_use_is_not_used_by_the_package(foreign: str) -> None:
    assert users(foreign) == set()


@pytest.mark.parametrize("foreign", ["socket", "urllib", "http", "subprocess", "time", "datetime", "random"])
def test_the_package_has_no_network_no_clock_no_chance_and_starts_no_program(foreign: str) -> None:
    # QEMU's user mode runs ppc64le code for the proof; it is no part of Python.
    assert {room(name) for name in users(foreign)} == ({"proof"} if foreign == "subprocess" else set())


def test_unicorn_is_used_by_the_proof_alone() -> None:
    assert {room(name) for name in users("unicorn")} == {"proof"}


def test_the_proof_shares_nothing_with_what_plans_and_writes() -> None:
    used = {one.removeprefix("ftpatch.") for name, path in MODULES.items() if room(name) == "proof"
            for one in imports(path) if one.startswith("ftpatch.")} - {"document.journal"}  # fmt: skip
    assert {room(one) for one in used} <= {"errors", "arrays", "elf", "arch", "sites", "kernel", "proof"}


def test_json_of_others_is_parsed_in_one_place() -> None:
    """With limits; what is written is another matter."""
    users = {name for name, path in MODULES.items() for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Attribute) and node.attr in ("load", "loads") and isinstance(node.value, ast.Name)
             and node.value.id == "json"}  # fmt: skip
    assert users == {"document.json_input"}


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
    assert "ftpatch.sites.table" in found
    assert found.isdisjoint(
        {"capstone", "json", "ftpatch.plan.plan", "ftpatch.write.verify", "ftpatch.report.formats.json"}
    )


def test_the_version_is_the_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ftpatch", "--version"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == f"ftpatch, version {__version__}\n"
