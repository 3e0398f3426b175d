"""The snippets of docs/pipelines.md: their YAML is valid, and their shell and make lines do what is said of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import junitparser
import pytest
import yaml
from elfwriter import MINI

from ftpatch.report import FORMATS
from tools import kernels

ROOT = Path(__file__).parent.parent
SCHEMAS = ROOT / "testdata" / "schemas"
TEXT = (ROOT / "docs" / "pipelines.md").read_text()


def snippet(mark: str) -> str:
    """The fenced block that has a line."""
    (found,) = [block for block in re.findall(r"^```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) if mark in block]
    return str(found)


def loaded(mark: str, schema: str) -> Any:
    """The YAML of a block, if it is valid by a schema. YAML 1.1 reads the key `on` as true."""
    found = yaml.safe_load(snippet(mark))
    found = {("on" if key is True else key): value for key, value in found.items()}
    jsonschema.validate(found, json.loads((SCHEMAS / schema).read_text()))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A build directory with a kernel and a module, and `ftpatch` in its own bin."""
    shutil.copyfile(MINI / "vmlinux-pfe2", tmp_path / "vmlinux")
    shutil.copyfile(MINI / "mini.ko", tmp_path / "mini.ko")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ftpatch"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m ftpatch "$@"\n')
    program.chmod(0o755)
    return tmp_path


def ran(place: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    outside = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}  # `make test` runs this
    environment = {**outside, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", **variables}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120)


def shell(place: Path, lines: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return ran(place, "sh", "-e", "-c", lines, **variables)


def test_the_table_names_every_format() -> None:
    assert set(re.findall(r"^\| `(\w+)=FILE`", TEXT, re.MULTILINE)) | {"csv", "text"} == set(FORMATS)


def test_the_baseline_of_a_kernel_silences_it(place: Path) -> None:
    first, second = re.findall(r"^\$ (ftpatch .*)$", TEXT, re.MULTILINE)
    assert shell(place, f"{first} --fail-on warning").returncode == 0
    assert shell(place, "ftpatch check vmlinux --fail-on warning").returncode == 1
    assert shell(place, f"{second} --fail-on warning").returncode == 0


def test_the_kbuild_lines_hook_a_build(place: Path) -> None:
    """test_kbuild.py has GNU make go through the hook; here the page's command line has to be the program's."""
    written, built = snippet("kbuild --tree").splitlines()
    for name in ("scripts/Kbuild.include", "Kconfig", "arch/arm64/Kconfig", "Makefile"):
        (place / "linux" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "linux" / name).write_text("# ARCH_POSTLINK\n")
    done = shell(place, written)
    expected = built.replace("linux", f"{place}/linux").replace("$PWD", str(place)).replace(" MAKE", " ARCH=arm64 MAKE")
    assert done.stdout.splitlines() == [f"wrote {place}/ftpatch.mk", expected.removesuffix(" -j8")], done.stderr
    variables = set(re.findall(r"^\| `(\w+)=", TEXT.split("| variable of make")[1].split("\n\n")[0], re.MULTILINE))
    assert variables <= set(re.findall(r"make (\w+)=", (place / "ftpatch.mk").read_text()))


def test_the_gitlab_job_is_valid_and_writes_what_it_collects(place: Path) -> None:
    template = yaml.safe_load((ROOT / "ci/gitlab/ftpatch.yml").read_text())
    jsonschema.validate(template, json.loads((SCHEMAS / "gitlab-ci.json").read_text()))
    job, variables = template[".ftpatch"], template["variables"]
    rows = re.findall(r"^\| `(FTPATCH_\w+)` \|", TEXT, re.MULTILINE)
    assert set(rows) == set(variables) and template["ftpatch"] == {"extends": ".ftpatch"}
    assert set(loaded(".gitlab-ci.yml", "gitlab-ci.json")["ftpatch"]["variables"]) <= set(variables)
    variables |= {"FTPATCH_PACKAGE": "", "FTPATCH_FILES": "vmlinux mini.ko", "FTPATCH_OPTIONS": "--fail-on error"}
    assert [shell(place, line, **variables).returncode for line in job["script"]] == [0, 0]
    assert all((place / name).exists() for name in job["artifacts"]["paths"])
    assert len(list(junitparser.JUnitXml.fromfile(str(place / job["artifacts"]["reports"]["junit"])))) == 2


ACTION = yaml.safe_load((ROOT / "ci/github/action.yml").read_text())


def action(place: Path, name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
    """A step of the action, with inputs: run as the runner does, by bash, inputs in the environment alone."""
    (step,) = [step for step in ACTION["runs"]["steps"] if step["name"] == name]
    given = {name: each.get("default", "") for name, each in ACTION["inputs"].items()} | inputs
    variables = {key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: given[m[1]], text)
                 for key, text in step["env"].items()}  # fmt: skip
    assert "${{" not in step["run"] and step["shell"] == "bash"
    variables |= {"GITHUB_OUTPUT": str(place / "output"), "GITHUB_STEP_SUMMARY": str(place / "summary")}
    return ran(place, "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"], **variables)


def test_the_github_action_is_valid_and_writes_what_it_says(place: Path) -> None:
    assert set(ACTION) == {"name", "description", "branding", "inputs", "outputs", "runs"}
    assert ACTION["runs"]["using"] == "composite"
    rows = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", TEXT.split("| input |")[1].split("\n\n")[0], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set(ACTION["inputs"])
    done = action(place, "Check")
    assert (done.returncode, {line.split(" ")[0] for line in done.stdout.splitlines()}) == (0, {"::warning"})
    outputs = dict(line.split("=") for line in (place / "output").read_text().splitlines())
    assert set(outputs) == set(ACTION["outputs"])
    assert json.loads((place / outputs["sarif"]).read_text())["version"] == "2.1.0"
    assert json.loads((place / outputs["json"]).read_text())["command"] == "check"
    assert (place / "summary").read_text().startswith("### ftpatch check: 3 warnings")


@pytest.mark.parametrize(
    ("inputs", "code", "said"),
    [
        ({"fail-on": "warning"}, 1, "::warning"),
        ({"files": "mini.ko\nno such file; touch hacked", "options": "--select\nduplicate"}, 3,
         "no such file; touch hacked"),
        ({"files": "$(touch hacked)"}, 3, "$(touch hacked)"),
        ({"files": "--version"}, 3, "--version"),
        ({"config": "no.toml"}, 3, "no.toml"),
        ({"options": "--no-such"}, 2, "--no-such"),
        ({"reports": "a b/c", "files": "vmlinux\nmini.ko\n"}, 0, "::warning"),
    ],
)  # fmt: skip
def test_the_github_action_takes_its_inputs_as_they_are(
    place: Path, inputs: dict[str, str], code: int, said: str
) -> None:
    done = action(place, "Check", **inputs)
    assert done.returncode == code and said in done.stdout + done.stderr, done
    assert not (place / "hacked").exists()


def test_the_github_workflow_is_valid_and_uses_the_action_as_it_is() -> None:
    steps = loaded(".github/workflows/", "github-workflows.json")["jobs"]["check"]["steps"]
    (step,) = [step for step in steps if step.get("uses") == "./ci/github"]
    assert set(step["with"]) <= set(ACTION["inputs"])
    (upload,) = [step for step in steps if "upload-sarif" in step.get("uses", "")]
    assert upload["with"]["sarif_file"] == f"${{{{ steps.{step['id']}.outputs.sarif }}}}"


def test_the_debian_rule_stops_the_package(place: Path) -> None:
    (place / "rules").write_text(snippet("debian/rules"))
    call = ("make", "-f", "rules", "execute_after_dh_auto_build", "KERNEL=none")
    assert ran(place, *call).returncode == 0
    assert len(list(junitparser.JUnitXml.fromfile(str(place / "ftpatch.xml")))) == 2
    (place / "mini.ko").write_bytes(b"\x7fELF")
    assert ran(place, *call).returncode == 2


@pytest.mark.corpus
def test_the_fedora_check_reads_a_real_kernel_and_its_modules(
    kernel: Callable[[str], kernels.Kernel], place: Path
) -> None:
    path = kernel("arm64-6.12").vmlinux
    (place / "vmlinux").unlink()
    (place / "vmlinux").symlink_to(path)
    tree = place / "root/lib/modules/6.12"
    tree.mkdir(parents=True)
    for module in sorted((path.parent / "modules").rglob("*.ko*"))[:5]:
        shutil.copyfile(module, tree / module.name)
    lines = snippet("%check").split("%check\n")[1].replace("%{buildroot}", "root").replace("%{KVERREL}", "6.12")
    assert "%" not in lines
    done = shell(place, lines)
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(list(junitparser.JUnitXml.fromfile(str(place / "ftpatch-modules.xml")))) == 5
