"""Examples of the rules: what ftpatch prints where each one's defect was planted, for docs/reference/rules.md.

    PYTHONPATH=. python tests/rule_examples.py      writes tools/reference/examples.json

Those of `check` come from tools.mutations and from the cases of test_program_rules.py, those of `verify` from
tools.sabotage, those of `diff` from pairs of small kernels. test_reference.py makes them again and compares.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from test_lost_sections import module as lost_sections
from test_program_rules import CASES, READING
from test_verify import VICTIMS

from ftpatch import api
from ftpatch.cli import run
from ftpatch.finding import Finding
from ftpatch.kernel.module import Kernel
from ftpatch.proof import prove
from ftpatch.proof.emulate.expectation import Outcome
from ftpatch.report.objects import finding_rows
from ftpatch.report.text.check import finding_text
from tools import mutations
from tools.defects_beside import DEFECTS
from tools.planting import Plant
from tools.reference.rules import EXAMPLES, Example
from tools.sabotage import KINDS, damaged, victim_of

ROOT = Path(__file__).parent.parent
DATA = ROOT / "testdata"
# Files of testdata that have what other fixtures have not: their defects are planted, or they are wrong as they are.
MORE = ("x86_64/vmlinux-static", "static_calls_arm64/kernel.o", "static_calls/vmlinux")
AS_BUILT = ("told/layouts-arm64", "told/program-arm64", "told/callops-arm64.o", "calls/arm64-far")
OF_MODULES = (
    "module-layout",
    "module-vermagic",
    "module-versions",
    "module-symbols",
    "signature-missing",
    "signature-stale",
)
Made = Iterator[tuple[str, Example]]


def examples() -> dict[str, Example]:
    """Rule → its example."""
    found: dict[str, Example] = {}
    with tempfile.TemporaryDirectory() as folder:
        for source in (
            planted,
            of_programs,
            as_built,
            of_lost_sections,
            of_verify,
            of_force,
            of_no_emulator,
            of_diff,
            of_a_kernel,
        ):
            for rule, example in source(Path(folder)):
                found.setdefault(rule, example)
    return found


def of_check(findings: Iterable[Finding], rule: str) -> str:
    """The first finding of a rule, as the text of check has it."""
    of_rule = [finding for finding in findings if finding.rule == rule]
    return finding_text(finding_rows(of_rule)[0])


def planted(folder: Path) -> Made:
    """Defects of `make mutations` in the small kernels, modules and objects."""
    left = list(DEFECTS)
    for name in (*mutations.FIXTURES, *MORE):
        for rule, example in of_bench(mutations.fixture(name, folder), f"testdata/{name}", left):
            left = [defect for defect in left if defect.partition("/")[0] != rule]
            yield rule, example


def of_bench(bench: mutations.Bench, file: str, defects: Iterable[str]) -> Made:
    """What is found in one file with each defect that can be in it, and is not without."""
    cache: dict[str, Kernel] = {}
    for defect in list(defects):
        rule = defect.partition("/")[0]
        if mutations.verdict(defect, bench, cache) != "found":
            continue
        plant = DEFECTS[defect](bench.subject)
        assert plant is not None
        sound = {found.finding for found in mutations.checked(bench, Plant(), cache)}
        with mutations.in_place(bench, plant):
            new = [found.finding for found in mutations.checked(bench, plant, cache) if found.finding not in sound]
        yield rule, Example(f"{file}, with the defect planted", of_check(new, rule).replace(str(bench.path), "FILE"))


def of_programs(folder: Path) -> Made:
    """The cases of the tests of programs."""
    for number, (name, change, expected) in enumerate(CASES):
        path = folder / f"{number}" / name
        path.parent.mkdir()
        data = bytearray((READING / name).read_bytes())
        change(api.scan(str(READING / name)), data)
        path.write_bytes(data)
        file = f"testdata/programs/{(READING / name).relative_to(DATA / 'programs')}"
        how = ", with the defect planted" if data != (READING / name).read_bytes() else ""
        for rule in dict.fromkeys(rule for rule, _ in expected):
            yield rule, Example(f"{file}{how}", line_of("check", "--units", path, rule=rule))


def as_built(folder: Path) -> Made:
    """Files that are as their compilers made them, and what an enabled program shows."""
    for name in AS_BUILT:
        _, text = quietly("check", "--units", DATA / name)
        for rule in re.findall(r"^  (?:error|warning|note) ([a-z-]+):", text, re.MULTILINE):
            yield rule, Example(f"testdata/{name}", line_of("check", "--units", DATA / name, rule=rule))
    program = folder / "hooked"
    source = DATA / "programs/small/arm64-pie"
    assert quietly("enable", source, "--func", "work", "--hook", "hook", "-o", program)[0] == 0
    said = line_of("check", program, rule="enabled-sites")
    yield "enabled-sites", Example("testdata/programs/small/arm64-pie, with work enabled", said)
    module = folder / "live.ko"
    module.write_bytes((DATA / "live/arm64.ko").read_bytes().replace(b"livepatch=Y", b"livepitch=Y"))
    said = line_of("check", module, rule="live-patch-form")
    yield "live-patch-form", Example("testdata/live/arm64.ko, with another word for livepatch=Y", said)


def of_lost_sections(folder: Path) -> Made:
    """An object of two source files, of which one has no records."""
    path = folder / "lost.o"
    path.write_bytes(lost_sections({"a.c": 3, "b.c": 12}, {"a.c": True, "b.c": False}))
    said = line_of("check", path, rule="unit-records-missing")
    yield "unit-records-missing", Example("an object of a.c and b.c, without the records of b.c", said)


def of_verify(folder: Path) -> Made:
    """Damage of `make sabotage` in patched files."""
    left = {rule for kind in KINDS for rule in kind.rules if rule.startswith("verify-")}
    for name, (before, options) in VICTIMS.items():
        verb = {"--map": "redirect", "--set": "static-calls"}.get(options[0], "enable")
        after, journal = folder / f"{name}{before.suffix}", folder / f"{name}.json"
        code, _ = quietly(verb, before, *options, "-o", after, "--report", f"json={journal}")
        assert code == 0, name
        victim = victim_of(before, after, journal)
        for kind in KINDS:
            damage = kind.make(victim) if left & kind.rules else None
            if damage is None:
                continue
            with damaged(victim, damage):
                code, text = quietly("verify", before, after)
            for rule, message in re.findall(r"^    (verify-[a-z-]+): (.*)$", text if code == 1 else "", re.MULTILINE):
                if rule in left & kind.rules:
                    left.discard(rule)
                    file = f"testdata/{before.relative_to(DATA)}"
                    yield rule, Example(f"{file}, patched and damaged ({kind.name})", message.replace(f"{folder}/", ""))
    kernel, other = DATA / "mini/vmlinux-callops", folder / "callops.json"
    text = quietly("verify", kernel, folder / "thunk", "--journal", other)[1]
    for message in re.findall(r"^    verify-journal: (.*)$", text, re.MULTILINE)[:1]:
        yield "verify-journal", Example("the journal of another file", message.replace(f"{folder}/", ""))


def of_force(folder: Path) -> Made:
    """Targets that do not keep what they must, taken by force."""
    for name, function, target in (
        ("told/program-arm64", "leaf", "changes"),
        ("programs/small/arm64-pie", "work", "structure"),
    ):
        forced = folder / f"forced-{function}"
        options = ("--func", function, "--target", target, "--force-target", "-o", forced)
        assert quietly("enable", DATA / name, *options)[0] == 0, name
        text = quietly("verify", DATA / name, forced)[1]
        for rule, message in re.findall(r"^    (verify-[a-z-]+): (.*)$", text, re.MULTILINE):
            yield rule, Example(f"testdata/{name}, enabled with --force-target", message.replace(f"{folder}/", ""))


def of_no_emulator(folder: Path) -> Made:
    """What verify says where the emulator that it was told to use is not there."""
    kernel, after = DATA / "mini-ppc64le/vmlinux-ool", folder / "ool"
    assert quietly("enable", kernel, "--func", "vfs_read", "-o", after)[0] == 0
    with patch.object(prove, "emulate", lambda *_, **__: Outcome(0, skipped="no qemu-ppc64le")):
        text = quietly("verify", kernel, after, "--require", "emulation")[1]
    for message in re.findall(r"^    verify-emulation: (.*)$", text, re.MULTILINE):
        yield "verify-emulation", Example("--require emulation without qemu-ppc64le", message)


def of_diff(folder: Path) -> Made:
    """What differs between small kernels, and between what was made of them."""
    kernel, static = DATA / "mini/vmlinux-callops", DATA / "static_calls/vmlinux"
    made: dict[str, tuple[Path, str, tuple[str, ...]]] = {
        "dropped": (kernel, "drop", ("--func", "vfs_read")),
        "redirected": (kernel, "redirect", ("--func", "vfs_read", "--to", "vfs_write")),
        "another": (kernel, "redirect", ("--func", "vfs_read", "--to", "sys_getppid")),
        "set": (static, "static-calls", ("--set", "clock=clock_fast")),
    }
    for name, (file, verb, options) in made.items():
        assert quietly(verb, file, *options, "-o", folder / name)[0] == 0, name
    for tree, module in (("old", "mini.ko"), ("new", "other.ko")):
        (folder / tree).mkdir()
        shutil.copyfile(DATA / "mini/mini.ko", folder / tree / module)
    renamed = (
        kernel.read_bytes()
        .replace(b"\0vfs_read\0", b"\0vfs_raed\0")
        .replace(b"\0arch_hook_early\0", b"\0vfs_read.isra.0\0")
    )
    (folder / "renamed").write_bytes(renamed)
    pairs = [
        (kernel, folder / "renamed"),
        (kernel, folder / "dropped"), (folder / "dropped", kernel), (folder / "redirected", folder / "another"),
        (static, folder / "set"), (folder / "old", folder / "new"), (kernel, DATA / "mini/vmlinux-pfe2"),
        (kernel, DATA / "mini/vmlinux-notrace"), (DATA / "mini/vmlinux-notrace", kernel),
        (static, DATA / "x86_64/vmlinux-static"), (DATA / "x86_64/vmlinux-static", static),
        (DATA / "mini/callops.o", DATA / "mini/clang-sections.o"),
        (DATA / "told/units4-arm64", DATA / "told/program-arm64"),
    ]  # fmt: skip
    for old, new in pairs:
        text = quietly("diff", old, new, "--format", "json")[1]
        rows = [row for image in json.loads(text)["images"] for row in image["findings"]]
        for row in rows:
            names = [str(path).replace(f"{ROOT}/", "").replace(f"{folder}/", "") for path in (old, new)]
            yield row["rule"], Example(f"{names[0]} and {names[1]}", row["message"])


def of_a_kernel(folder: Path) -> Made:
    """What only a module of a real kernel shows, with defects planted in one of Debian's."""
    columns = mutations.benches(["arm64-6.12"], folder)
    next(columns)  # the kernel itself
    for bench in next(columns)[:1]:
        yield from of_bench(bench, "tun.ko of Debian 13", [defect for defect in DEFECTS if defect in OF_MODULES])


def line_of(*arguments: object, rule: str) -> str:
    """The first line that a command prints below the headline of a rule."""
    _, text = quietly(*arguments)
    found = re.search(rf"^  (?:error|warning|note) {rule}: .*\n +(.*)$", text, re.MULTILINE)
    assert found, (arguments, rule, text)
    return found[1]


def quietly(*arguments: object) -> tuple[int, str]:
    """Exit code and stdout of a command line."""
    stdout = io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(io.StringIO()):
        code = run([str(argument) for argument in arguments])
    return code, stdout.getvalue()


def text(found: dict[str, Example]) -> str:
    """The file of the examples."""
    return json.dumps({rule: list(found[rule]) for rule in sorted(found)}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    EXAMPLES.write_text(text(examples()), "utf-8")
    print(EXAMPLES, file=sys.stderr)
