"""The house: imports go one way, and what is heavy or foreign lives in one room."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from ftpatch import __version__

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ftpatch"

# The rooms, the ground first: a room uses those in front of it, and itself. docs/architecture.md draws this.
HOUSE = [
    "errors", "finding", "arrays", "near_names", "progress", "signals", "memory", "inputs",
    "arch", "container", "elf", "recovered", "sites", "kernel", "plan",
    "document", "proof", "write", "trees", "journal", "rules", "explanation", "compare", "report",
    "kbuild", "api", "completion", "cli", "__main__",
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


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Everything in a file, its Module first."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that the file imports anywhere, functions included; names below a package where they are modules."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = str(node.module)
            for alias in node.names:
                longer = f"{base}.{alias.name}"
                found.add(longer if longer.removeprefix("ftpatch.") in MODULES else base)
    return frozenset(found)


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_a_room() -> None:
    assert sorted(name for name in MODULES if name and room(name) not in FLOOR) == []
    assert sorted(one for one in FLOOR if one not in MODULES) == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Imports for type checkers count, too: two files that need each other to be understood are one idea."""
    arrows = {name: {one.removeprefix("ftpatch.") for one in imports(path)} for name, path in MODULES.items() if name}
    arrows = {name: {one for one in to if one in arrows and one != name} for name, to in arrows.items()}
    while leaves := [name for name, to in arrows.items() if not to]:
        arrows = {name: to.difference(leaves) for name, to in arrows.items() if name not in leaves}
    assert sorted(arrows) == []


def test_the_page_about_the_house_maps_every_room_in_its_order() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| ((?:`[a-z_.]+/?` ?)+)\|", text.split("## The rooms")[1].split("##")[0], re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([a-z_]+)", row)]
    # The last row holds the three that everybody imports and that import nothing.
    assert named == [*[room for room in reversed(HOUSE[3:]) if room != "__main__"], "arrays", "finding", "errors"]


def test_every_file_that_the_page_about_the_house_names_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|toml))`", text))
    assert len(named) > 10
    assert [name for name in sorted(named) if not ((PACKAGE / name).exists() or (ROOT / name).exists())] == []


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name))
def test_imports_go_one_way(name: str) -> None:
    own = [one.removeprefix("ftpatch.") for one in imports(MODULES[name]) if one.startswith("ftpatch.")]
    wrong = [one for one in own if room(one) != room(name) and one != name and FLOOR[room(one)] > FLOOR[room(name)]]
    assert wrong == []


def test_the_package_itself_imports_nothing_until_a_journey_is_asked_for() -> None:
    assert imports(MODULES[""]) == {"__future__", "ftpatch.api", "warnings"}
    program = "import sys, ftpatch\nprint(sorted(name for name in sys.modules if name.startswith('ftpatch')))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip
    assert done.stdout == "['ftpatch']\n"


def users(foreign: str) -> set[str]:
    return {name for name, path in MODULES.items() if any(one.split(".")[0] == foreign for one in imports(path))}


def test_click_is_used_by_the_command_line_alone() -> None:
    assert {name.split(".")[0] for name in users("click")} == {"cli"}


def test_capstone_is_used_by_the_checks_alone() -> None:
    """And by the one reader of what instructions do to registers: no table of ours has all of a machine's."""
    assert users("capstone") == {"explanation.code", "proof.decoders", "plan.stubasm", "sites.register_reader"}


def test_keystone_is_used_by_stubasm_alone() -> None:
    assert users("keystone") == {"plan.stubasm"}


def test_pyelftools_is_used_by_the_debug_information_alone() -> None:
    assert users("elftools") == {"elf.debug_info"}


def test_jinja2_is_used_by_the_page_alone() -> None:
    assert users("jinja2") == {"report.html.page"}


def test_lief_is_the_proofs_second_reader() -> None:
    assert users("lief") == {"proof.lief_check"}


@pytest.mark.parametrize("foreign", ["pytest", "jsonschema", "hypothesis", "tools", "tests"])
def test_what_the_tests_use_is_not_used_by_the_package(foreign: str) -> None:
    assert users(foreign) == set()


@pytest.mark.parametrize("foreign", ["socket", "urllib", "http", "subprocess", "time", "datetime", "random"])
def test_the_package_has_no_network_no_clock_no_chance_and_starts_no_program(foreign: str) -> None:
    # QEMU's user mode runs ppc64le code for the proof; it is no part of Python. A pager is the user's own program, for
    # a report that is made already; the Ctrl-C that is for it would end this program under click's.
    rooms = {name if room(name) == "cli" else room(name) for name in users(foreign)}
    assert rooms == ({"proof", "cli.pager"} if foreign == "subprocess" else set())


def test_unicorn_is_used_by_the_proof_alone() -> None:
    assert {room(name) for name in users("unicorn")} == {"proof"}


def test_the_proof_shares_nothing_with_what_plans_and_writes() -> None:
    used = {one.removeprefix("ftpatch.") for name, path in MODULES.items() if room(name) == "proof"
            for one in imports(path) if one.startswith("ftpatch.")} - {"document.journal"}  # fmt: skip
    assert {room(one) for one in used} <= {
        "errors", "finding", "progress", "arrays", "container", "elf", "recovered", "arch", "sites", "kernel", "proof",
    }  # fmt: skip
    # layers are taken off, and laid side by side; that module alone makes them anew
    assert "container.remake" not in used


def test_json_of_others_is_parsed_in_one_place() -> None:
    """With limits; what is written is another matter."""
    users = {name for name, path in MODULES.items() for node in nodes(path)
             if isinstance(node, ast.Attribute) and node.attr in ("load", "loads") and isinstance(node.value, ast.Name)
             and node.value.id == "json"}  # fmt: skip
    assert users == {"document.json_input"}


def test_toml_of_others_is_parsed_in_one_place() -> None:
    """With limits; the register of rules is a file of the package."""
    assert users("tomllib") == {"document.toml_input", "rules.register"}


# Calls that open a file by its name.
OPENERS = {"open", "openat", "read_bytes", "read_text", "fromfile", "memmap", "loadtxt", "genfromtxt"}
MAY_OPEN = {
    "inputs",  # every file that is read
    "cli",  # /dev/null, in place of a closed stream
    "rules.register",  # a file of the package itself
    "kbuild.hook",  # likewise
}


def test_files_are_opened_in_one_place() -> None:
    """Regular files only, with limits; write/ opens its destinations, and Draft.open() is of another kind."""
    users = set()
    for name, path in MODULES.items():
        for node in nodes(path):
            match node:
                case ast.Call(ast.Name(called)) if called in OPENERS:
                    users.add(name)
                case ast.Call(ast.Attribute(ast.Name(owner), called)) if called in OPENERS and owner != "draft":
                    users.add(name)
                case ast.Call(ast.Attribute(ast.Call(), called)) if called in OPENERS:
                    users.add(name)
    assert {name for name in users if room(name) != "write"} == MAY_OPEN


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
        {
            "capstone",
            "json",
            "jinja2",
            "rich",
            "ftpatch.plan.plan",
            "ftpatch.write.comparison",
            "ftpatch.report.formats.json",
        }
    )


def test_the_version_is_the_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ftpatch", "--version"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == f"ftpatch, version {__version__}\n"


# -- what is a machine's fact stands in arch/ ------------------------------------------------------------------------

MACHINE = re.compile(
    r"\b(arm64|aarch64|ppc64|ppc64le|powerpc|x86_64|x86-64|amd64|riscv|s390x?|(EM|ARM64|PPC|PPC64|X86)_\w+)\b",
    re.IGNORECASE,
)
NAMED = re.compile(r"(?i)arm64|aarch64|ppc|powerpc|x86_64|riscv|s390")
INSTRUCTION = re.compile(r"\b(bl|blr|bctr|bcl|mflr|mtlr|mtctr|adrp|bti|addis|addi|ldur|endbr64|paciasp|ret|eret)\b")
# They execute code of one machine.
EMULATORS = {
    "proof.emulate.arm64", "proof.emulate.ppc64le", "proof.emulate.guest_ppc64le", "proof.emulate.process_ppc64le",
    "proof.emulate.reach_ppc64le", "proof.emulate.redirects_ppc64le", "proof.emulate.x86_64",
    "proof.emulate.programs_arm64", "proof.emulate.programs_x86_64", "proof.emulate.programs_ppc64le",
    "proof.emulate.guest_programs_ppc64le",
}  # fmt: skip


def looks_like_an_instruction(number: int) -> bool:
    """32 bits that are no power of two, no run of ones from either end, and none of their complements."""
    inverse = number ^ 0xFFFF_FFFF
    return (
        0x1000_0000 <= number <= 0xFFFF_FFFF
        and all(value & (value - 1) and value & (value + 1) for value in (number, inverse))
    )  # fmt: skip


def machine_facts(tree: Sequence[ast.AST]) -> list[str]:
    """What in the nodes of a module is a fact of one machine: its name, its ELF number asked for, its instructions."""
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    docstrings = {id(node.body[0].value) for node in tree
                  if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    found = []
    for node in tree:
        match node:
            case ast.Constant(str(text)) if id(node) not in docstrings and (
                MACHINE.search(text) or INSTRUCTION.search(text)
            ):
                found.append(f"{node.lineno}: {text}")
            case ast.Constant(int(number)) if looks_like_an_instruction(number):
                found.append(f"{node.lineno}: {number:#x}")
            case ast.Name(name) | ast.Attribute(_, name) if NAMED.search(name) or name == "e_machine":
                found.append(f"{node.lineno}: {name}")
            case ast.alias(name) if NAMED.search(name):
                found.append(f"import {name}")
            case ast.Subscript(_, ast.Attribute(ast.Name("arch") | ast.Attribute(_, "arch"), "name")):
                found.append(f"{node.lineno}: a table by the machine's name")
    return found


@pytest.mark.parametrize("name", sorted(name for name in MODULES if room(name) != "arch" and name not in EMULATORS))
def test_facts_of_a_machine_stand_in_arch(name: str) -> None:
    found = machine_facts(nodes(MODULES[name]))
    # the one place that asks which machine a file is for, and the one that says so of a file without a header
    if name in ("elf.image", "recovered.flat"):
        found.remove(next(one for one in found if one.endswith("e_machine")))
    assert found == []


@pytest.mark.parametrize(
    ("code", "n"),
    [
        ("if arch.name == 'arm64': pass", 1), ("x = 'a word about PPC64'", 1), ("PPC_NOP", 1), ("image.e_machine", 1),
        ("x = 'set PPC_FTRACE_OUT_OF_LINE'", 1),
        ("TABLE[arch.name]", 1), ("TABLE[case.arch.name]", 1), ("word == 0x6000_0000", 1), ("word == 0xD503_201F", 1),
        ("x = 'bl (the loader)'", 1), ("import arm64_things", 1), ("0xFFFF_FFFF", 0), ("0x8000_0000", 0),
        ("def f():\n 'arm64 is told here'", 0), ("TABLE[rule.name]", 0), ("x = 'blank'", 0), ("x & 0xFFFF_F000", 0),
    ],
)  # fmt: skip
def test_a_fact_of_a_machine_is_seen(code: str, n: int) -> None:
    assert len(machine_facts(list(ast.walk(ast.parse(code))))) == n
