"""`ftpatch verify`: sound patches are found sound, and every kind of damage is found by its rule, at its place."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from elfedit import Elf as EditedElf

import ftpatch.report
from ftpatch.cli import run
from ftpatch.proof import lief_check, prove
from ftpatch.proof.emulate import ppc64le, qemu_sandbox
from ftpatch.proof.emulate.expectation import Outcome
from ftpatch.rules.register import help_of
from tools import kernels
from tools.sabotage import KINDS, Damage, Mutation, Victim, damaged, victim_of
from tools.sabotage.__main__ import quietly

ROOT = Path(__file__).parent.parent / "testdata"
ARM64, PPC64LE, X86_64, STUBS = (ROOT / name for name in ("mini", "mini-ppc64le", "x86_64", "stubs"))
SCHEMA = json.loads((Path(ftpatch.report.__file__).parent / "schema.json").read_text())
needs_qemu = pytest.mark.skipif(
    bool(qemu_sandbox.why_not(ppc64le.QEMU)), reason=f"{qemu_sandbox.why_not(ppc64le.QEMU)}: make kernels installs it"
)
TWO = ("--func", "row:8", "--func", "row:9")
ALL = ("--func", "*", "--skip-unpatchable")
HOOK = ("--func", "row:0", "--func", "row:1", "--hook", "_printk")


def enabled(before: Path, folder: Path, *options: str, out: str = "after", verb: str = "enable") -> tuple[Path, Path]:
    """A patched file and its journal."""
    after, journal = folder / out, folder / f"{out}.json"
    arguments = [verb, str(before), *options, "-o", str(after), "--report", f"json={journal}"]
    assert run(arguments) == 0
    return after, journal


def verify(before: Path, after: Path, *options: str, code: int = 0) -> dict[str, Any]:
    """The IMAGE object of one verify, which must end with this exit code."""
    found, text = quietly(["verify", str(before), str(after), "--format", "json", *options])
    document = json.loads(text)
    jsonschema.validate(document, SCHEMA)
    image: dict[str, Any] = document["images"][0]
    assert found == code, image["findings"]
    return image


def rules(image: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in image["findings"]}


def verify_sites(path: Path) -> list[dict[str, Any]]:
    """The sites of a file, by scan."""
    code, text = quietly(["scan", str(path), "--format", "json"])
    assert code == 0
    sites: list[dict[str, Any]] = json.loads(text)["images"][0]["sites"]
    return sites


# -- what is sound -----------------------------------------------------------------------------------------------------

SOUND = [
    *((ARM64 / f"vmlinux-{name}", options) for name in ("callops", "callops-bti", "exec", "kcfi", "pfe2", "pfe2-bti")
      for options in (TWO, ALL)),
    *((ARM64 / "vmlinux-callops", (*TWO, *more)) for more in (
        ("--ops", "nop"), ("--ops-via", "thunk"), ("--ops-via", "literal"), ("--records", "shrink"))),
    (ARM64 / "vmlinux-callops-bti", (*ALL, "--ops-via", "thunk", "--ops", "nop")),
    (ARM64 / "vmlinux-pfe2", (*TWO, "--records", "shrink")),
    (ARM64 / "vmlinux-pfe2", (*TWO, "--status", "ready", "--status", "weak-leftover")),
    (ARM64 / "vmlinux-kcfi", (*TWO, "--records", "null")),
    *((PPC64LE / f"vmlinux-{name}", options)
      for name in ("mprofile", "pfe2", "far", "ool", "ool-noops", "clang", "unreachable") for options in (TWO, ALL)),
    (PPC64LE / "vmlinux-ool", (*TWO, "--ops", "nop")),
    (PPC64LE / "vmlinux-pfe2", (*TWO, "--target", "ftrace_regs_caller")),
    *((ARM64 / "mini.ko", options) for options in (ALL, HOOK, ("--func", "mini_work", "--hook", "mini_util"))),
    *((PPC64LE / "mini.ko", options) for options in ((*ALL, "--hook", "_printk"), HOOK)),
]  # fmt: skip


@needs_qemu
@pytest.mark.parametrize(("before", "options"), SOUND, ids=lambda one: one.name if isinstance(one, Path) else one[-1])
def test_what_enable_makes_is_found_sound(before: Path, options: tuple[str, ...], tmp_path: Path) -> None:
    after, journal = enabled(before, tmp_path, *options)
    n = sum(1 for site in json.loads(journal.read_text())["images"][0]["sites"] if site["action"] != "keep")
    image = verify(before, after, "--journal", str(journal), "--require-emulation", "--deep")
    assert image["proof"]["sites"]["site enabled"] == image["proof"]["emulated"] == n > 0
    assert image["proof"]["reader"] == "lief"
    assert image["findings"] == []


def test_an_emptied_table_is_what_verify_accepts(tmp_path: Path) -> None:
    """enable wrote it and verify found four faults: a table without a slot was read as one that begins elsewhere."""
    rows = [option for row in range(19) for option in ("--func", f"row:{row}")]
    after, journal = enabled(ARM64 / "vmlinux-exec", tmp_path, *rows)
    image = verify(ARM64 / "vmlinux-exec", after, "--journal", str(journal))
    assert image["proof"]["records"]["slots"] == [19, 0]


def test_a_stub_slot_of_a_kept_record_is_not_taken(tmp_path: Path) -> None:
    """enable took the record for gone and its slot for free, and verify refused what was written: the kernel hands the
    slot out at boot."""
    arguments = ("enable", str(PPC64LE / "vmlinux-ool-noops"), "--func", "sys_getppid", "--records", "keep")
    assert quietly([*arguments, "-o", str(tmp_path / "after")])[0] == 5
    assert not (tmp_path / "after").exists()


@pytest.mark.parametrize("name", ["vmlinux-pfe2", "mini.ko"])
def test_a_forced_target_is_accepted_with_the_journal_that_says_so(name: str, tmp_path: Path) -> None:
    """The target was not shown to keep the contract of a site: only who asked for it can know."""
    options = ("--func", "row:13", "--target", "ftrace_stub")
    if name.endswith(".ko"):
        pytest.importorskip("keystone")
        (tmp_path / "f.S").write_text("mov x30, x9\nmov x0, #1\nb site+4\n")
        options = ("--func", "mini_work", "--stub-asm", str(tmp_path / "f.S"))
    after, journal = enabled(ARM64 / name, tmp_path, *options, "--force-target", out="after.ko")
    document = json.loads(journal.read_text())
    jsonschema.validate(document, SCHEMA)
    assert document["images"][0]["request"]["forced_target"] is True
    image = verify(ARM64 / name, after, "--journal", str(journal))
    assert [line.partition(": ")[2] for line in image["proof"]["unclaimed"]] == ["what it calls was taken by force"]
    assert (image["findings"], image["proof"]["emulated"]) == ([], 0)
    (finding,) = verify(ARM64 / name, after, code=1)["findings"]
    assert "was" in finding["message"] and "not shown to keep a site's contract" in finding["message"]


def fatal(path: Path, out: Path) -> Path:
    """A copy in which two functions have the name of one that never returns."""
    content = path.read_bytes().replace(b"\0_printk\0", b"\0do_exit\0")
    out.write_bytes(content.replace(b"\0ftrace_stub\0", b"\0do_exit\0\0\0\0\0"))
    return out


@pytest.mark.parametrize(
    ("name", "options"),
    [("mini.ko", ("--func", "mini_work", "--hook", "_printk")),
     ("vmlinux-pfe2", ("--func", "row:13", "--target", "ftrace_stub", "--force-target"))],
)  # fmt: skip
def test_a_call_of_a_function_that_never_returns_is_an_error(
    name: str, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever asked for it: verify finds it, and enable refuses it."""
    after, _ = enabled(ARM64 / name, tmp_path, *options)
    before = fatal(ARM64 / name, tmp_path / name)
    (finding,) = verify(before, fatal(after, tmp_path / "fatal"), code=1)["findings"]
    assert finding["rule"] == "verify-branch"
    assert finding["message"].endswith(" do_exit, which never returns")
    arguments = ["enable", str(before), *options[:3], "do_exit", *options[4:], "-o", str(tmp_path / "refused")]
    assert run(arguments) == 5
    assert "never returns: found do_exit" in capsys.readouterr().err


@needs_qemu
@pytest.mark.parametrize(("arch", "stub"), [(ARM64, "arm64.S"), (PPC64LE, "ppc64le.S")])
def test_a_stub_of_the_users_own_is_found_sound(arch: Path, stub: str, tmp_path: Path) -> None:
    pytest.importorskip("keystone")
    options = ("--stub-asm", str(STUBS / stub), "--hook", "_printk")
    after, journal = enabled(arch / "mini.ko", tmp_path, "--func", "row:0", "--func", "row:1", *options)
    image = verify(arch / "mini.ko", after, "--journal", str(journal), "--require-emulation")
    assert image["proof"]["edits"]["stub of another kind"] >= 1


@pytest.mark.parametrize("suffix", ["ko", "ko.xz", "ko.gz", "ko.zst"])
def test_a_packed_module_is_read_as_its_content(suffix: str, tmp_path: Path) -> None:
    after, journal = enabled(ARM64 / "mini.ko", tmp_path, "--func", "mini_work", out=f"after.{suffix}")
    verify(ARM64 / "mini.ko", after, "--journal", str(journal))
    packed, journal = enabled(after, tmp_path, "--func", "mini_step", out=f"again.{suffix}")
    verify(after, packed, "--journal", str(journal))
    assert verify(ARM64 / "mini.ko", packed)["proof"]["sites"]["site enabled"] == 2


@needs_qemu
@pytest.mark.parametrize("before", [
    ARM64 / "vmlinux-callops", ARM64 / "vmlinux-pfe2", ARM64 / "vmlinux-exec", PPC64LE / "vmlinux-ool",
    PPC64LE / "vmlinux-mprofile",
], ids=lambda one: one.name)  # fmt: skip
def test_two_patches_are_one_change(before: Path, tmp_path: Path) -> None:
    once, _ = enabled(before, tmp_path, "--func", "row:8", out="once")
    twice, journal = enabled(once, tmp_path, "--func", "row:10", out="twice")
    verify(once, twice, "--journal", str(journal))
    assert verify(before, twice)["proof"]["sites"]["site enabled"] == 2
    assert rules(verify(before, twice, "--journal", str(journal), code=1)) == {"verify-journal"}


@pytest.mark.parametrize(("before", "options"), [
    (ARM64 / "vmlinux-callops-bti", ALL), (ARM64 / "vmlinux-callops", TWO), (ARM64 / "vmlinux-exec", ALL),
    (ARM64 / "vmlinux-pfe2", ALL), (PPC64LE / "vmlinux-far", ALL), (PPC64LE / "vmlinux-ool", ALL),
    (PPC64LE / "vmlinux-mprofile", ALL), (PPC64LE / "vmlinux-clang", TWO),
], ids=lambda one: one.name if isinstance(one, Path) else one[-1])  # fmt: skip
def test_the_way_back_is_sound(before: Path, options: tuple[str, ...], tmp_path: Path) -> None:
    """What `restore` makes of a kernel, held against the patched one."""
    after, journal = enabled(before, tmp_path, *options)
    n = sum(1 for site in json.loads(journal.read_text())["images"][0]["sites"] if site["action"] != "keep")
    assert verify(after, before)["proof"]["sites"]["site disabled"] == n


def test_a_file_is_sound_against_itself() -> None:
    for before in (ARM64 / "vmlinux-callops", PPC64LE / "mini.ko", ARM64 / "vmlinux-notrace", ARM64 / "vmlinux-pg"):
        image = verify(before, before)
        assert image["proof"]["edits"] == {}
        assert image["proof"]["records"]["record taken out"] == 0


@needs_qemu
@pytest.mark.parametrize("before", [ARM64 / "vmlinux-callops", ARM64 / "vmlinux-pfe2", PPC64LE / "vmlinux-ool",
                                    PPC64LE / "vmlinux-mprofile", ARM64 / "mini.ko", PPC64LE / "mini.ko"],
                         ids=lambda one: f"{one.parent.name}-{one.name}")  # fmt: skip
def test_what_disable_makes_is_found_sound(before: Path, tmp_path: Path) -> None:
    more = ("--func", "row:2", "--func", "row:3", "--hook", "_printk") if before.suffix else ("--func", "row:9",
            "--func", "row:10")  # fmt: skip
    once, journal = enabled(before, tmp_path, *more, out="once")
    sites = json.loads(journal.read_text())["images"][0]["sites"]
    name = min((site["stub"] or "", site["function"]) for site in sites)[1]  # the slot that the kernel wants first
    back, journal = enabled(once, tmp_path, "--func", name, out="back", verb="disable")
    assert verify(once, back, "--journal", str(journal))["proof"]["sites"]["site disabled"] == 1
    verify(before, back)


@pytest.mark.parametrize("before", [ARM64 / "vmlinux-callops", ARM64 / "vmlinux-pfe2", ARM64 / "vmlinux-exec",
                                    PPC64LE / "vmlinux-ool", ARM64 / "mini.ko"],
                         ids=lambda one: f"{one.parent.name}-{one.name}")  # fmt: skip
def test_what_drop_makes_is_found_sound(before: Path, tmp_path: Path) -> None:
    after, journal = enabled(before, tmp_path, "--func", "row:4", "--func", "row:5", verb="drop")
    assert verify(before, after)["proof"]["sites"]["record dropped alone"] == 2
    verify(before, after, "--journal", str(journal))


# -- what is not -------------------------------------------------------------------------------------------------------

FORCED = ("--force-signature", "--assume-register-args")
REDIRECT = ("--map", "vfs_read=vfs_write", "--force-signature")
VICTIMS: dict[str, tuple[Path, tuple[str, ...]]] = {
    "callops": (ARM64 / "vmlinux-callops", TWO),
    "thunk": (ARM64 / "vmlinux-callops-bti", (*TWO, "--ops-via", "thunk")),
    "exec": (ARM64 / "vmlinux-exec", TWO),
    "pfe2": (ARM64 / "vmlinux-pfe2-bti", TWO),
    "kcfi": (ARM64 / "vmlinux-kcfi", TWO),
    "mprofile": (PPC64LE / "vmlinux-mprofile", TWO),
    "far": (PPC64LE / "vmlinux-far", ("--func", "*", "--func", "!row:8", "--skip-unpatchable")),
    "ool": (PPC64LE / "vmlinux-ool", TWO),
    "clang": (PPC64LE / "vmlinux-clang", TWO),
    "module": (ARM64 / "mini.ko", ("--func", "row:0", "--func", "row:1")),
    "hook": (ARM64 / "mini.ko", HOOK),
    "ppc64le-hook": (PPC64LE / "mini.ko", HOOK),
    "fentry": (X86_64 / "vmlinux-fentry", TWO),
    "fentry-rela": (X86_64 / "vmlinux-rela", TWO),
    "x86_64-hook": (X86_64 / "mini.ko", HOOK),
    "x86_64-told": (X86_64 / "told.ko", HOOK),
    "static-calls": (ROOT / "static_calls/vmlinux", ("--set", "clock=clock_fast", "--set", "idle=clock_slow")),
    "redirect-callops": (ARM64 / "vmlinux-callops", REDIRECT),
    **{f"redirect-{name}": (PPC64LE / f"vmlinux-{name}", (*REDIRECT, "--map", "slot_probe=vfs_write"))
       for name in ("mprofile", "ool")},
    "redirect-module": (ARM64 / "mini.ko", ("--map", "mini_work=mini_util", "--map", "mini_step=_printk", *FORCED)),
    "redirect-r12": (PPC64LE / "mini.ko", ("--map", "mini_util=mini_work", *FORCED)),
    "redirect-toc": (PPC64LE / "mini.ko", ("--map", "mini_util=_printk", "--map", "mini_step=mini_work", *FORCED)),
}  # fmt: skip


def made_of(before: Path, folder: Path, *options: str, out: str) -> tuple[Path, Path]:
    verb = {"--map": "redirect", "--set": "static-calls"}.get(options[0], "enable")
    return enabled(before, folder, *options, out=out, verb=verb)


@pytest.mark.parametrize("name", VICTIMS)
def test_damage_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind that applies, by its own rule, and without any help by the emulator."""
    before, options = VICTIMS[name]
    after, journal = made_of(before, tmp_path, *options, out="after.ko" if before.suffix else "after")
    patched = victim_of(before, after, journal)
    monkeypatch.setattr(prove, "emulate", lambda *_, **__: Outcome(0, skipped="not here"))
    made = {kind: kind.make(patched) for kind in KINDS}
    found = {kind.name: told(kind, damage, patched, before) for kind, damage in made.items() if damage is not None}
    assert len(found) >= 25
    assert {name: rules for name, rules in found.items() if rules} == {}


def told(kind: Mutation, damage: Damage, patched: Victim, before: Path) -> str:
    """What verify says of damage instead of what it should; empty where that is among it."""
    with damaged(patched, damage):
        code, text = quietly(["verify", str(before), str(patched.path), "--format", "json"])
    if code != 1:
        return f"exit code {code}"
    said = {one["rule"] for one in json.loads(text)["images"][0]["findings"]}
    return "" if said & kind.rules else ", ".join(sorted(said))


def test_every_kind_of_damage_applies_somewhere(tmp_path: Path) -> None:
    """CRCs, debug information and some tables are in real files only: `make sabotage` plants damage in those."""
    left = {kind.name for kind in KINDS}
    for name, (before, options) in VICTIMS.items():
        after, journal = made_of(before, tmp_path, *options, out=f"{name}.ko" if before.suffix else name)
        patched = victim_of(before, after, journal)
        left -= {kind.name for kind in KINDS if kind.make(patched) is not None}
    assert left == {"byte of debug information or comments", "CRC cut", "version row missing", "call of panic",
                    "byte of .retpoline_sites", "byte of .altinstructions", "byte of .ibt_endbr_seal"}  # fmt: skip
    assert len(KINDS) == len({kind.name for kind in KINDS})


def planted(tmp_path: Path, before: Path, options: tuple[str, ...], make: Callable[[Any], Damage]) -> dict[str, Any]:
    """What verify says of one patched file with damage."""
    after, journal = enabled(before, tmp_path, *options)
    patched = victim_of(before, after, journal)
    with damaged(patched, make(patched)):
        return verify(before, after, code=1)


def test_a_finding_says_what_and_where(tmp_path: Path) -> None:
    before = ARM64 / "vmlinux-callops"
    image = planted(tmp_path, before, ("--func", "row:8"), lambda one: one.flip(one.patched[0]["pos"]))
    site = verify_sites(before)[8]
    assert image["findings"][0] == {
        "rule": "verify-site", "severity": "error", "function": site["function"], "row": 8, "section": ".text",
        "message": f"{site['function']}: d503201f d503201f became aa1e03e8 {image_word(tmp_path, site['pos'] + 4)}, "
                   "expected mov x9, x30, bl, or the compiler's words back",
        "offset": site["offset"], "pos": site["pos"], "source": None, "help": help_of("verify-site"), "count": 1,
    }  # fmt: skip


def image_word(folder: Path, pos: int) -> str:
    return f"{int.from_bytes((folder / 'after').read_bytes()[pos : pos + 4], 'little'):08x}"


def test_a_stray_byte_is_listed_with_position_section_and_bytes(tmp_path: Path) -> None:
    before = ARM64 / "vmlinux-exec"
    after, _ = enabled(before, tmp_path, "--func", "row:8")
    data = bytearray(after.read_bytes())
    pos = data.index(b"BuildID") if b"BuildID" in data else data.index(b"GNU\0") + 6
    old = data[pos]
    data[pos] ^= 1
    after.write_bytes(data)
    (finding,) = verify(before, after, code=1)["findings"]
    assert (finding["rule"], finding["pos"], finding["count"]) == ("verify-byte", pos, 1)
    assert f": {old:02x} became {old ^ 1:02x}, which is no edit of any kind" in finding["message"]
    assert finding["section"] and finding["offset"]


def test_a_record_that_stays_is_told(tmp_path: Path) -> None:
    """Such a kernel switches ftrace off; only a journal shows that it was meant."""
    before = ARM64 / "vmlinux-callops"
    after, journal = enabled(before, tmp_path, "--func", "row:8", "--records", "keep")
    assert rules(verify(before, after, code=1)) == {"verify-record"}
    assert len(verify(before, after, "--journal", str(journal))["proof"]["notes"]) == 1


def test_the_text_counts_what_it_does_not_show(tmp_path: Path) -> None:
    before = ARM64 / "vmlinux-exec"
    after, _ = enabled(before, tmp_path, "--func", "row:8")
    data = bytearray(after.read_bytes())
    start = len(data) // 2
    for pos in range(start, start + 16 * 32, 32):
        data[pos] ^= 0x10
    after.write_bytes(data)
    code, text = quietly(["verify", str(before), str(after)])
    assert code == 1
    lines = [line.split(":")[0].strip() for line in text.splitlines() if line.startswith("    verify-")]
    assert all(lines.count(rule) <= 11 for rule in lines)
    assert " more\n" in text
    assert "findings\n" in text


def test_the_text_of_a_sound_file(tmp_path: Path) -> None:
    before = ARM64 / "vmlinux-exec"
    after, journal = enabled(before, tmp_path, "--func", "row:8")
    code, text = quietly(["verify", str(before), str(after), "--journal", str(journal)])
    assert code == 0
    assert text.splitlines()[1:] == [
        f"  result     {after}: every change is accounted for",
        "  sites      1 enabled",
        "  records    19 live in 19 slots, now 18 in 18; 1 taken out",
        "  callees    ftrace_caller 1",
        "  edits      end of the table 1, record 11, site words 1, symbol 1",
        "  readers    ftpatch; second reader: none (--deep reads a kernel a second time, by lief)",
        "  emulated   1 sites",
        f"  journal    {journal}: held against both files",
    ]


def test_csv_has_a_line_for_each_finding(tmp_path: Path) -> None:
    before = ARM64 / "vmlinux-exec"
    after, _ = enabled(before, tmp_path, "--func", "row:8", "--records", "keep")
    code, text = quietly(["verify", str(before), str(after), "--format", "csv"])
    assert (code, len(text.splitlines())) == (1, 2)
    assert text.startswith("file,rule,severity,message,function,row,section,offset,pos,source,help,count\n")


# -- the emulator, the second reader -----------------------------------------------------------------------------------


def test_without_an_emulator_verify_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = PPC64LE / "vmlinux-ool"
    after, _ = enabled(before, tmp_path, *TWO)
    monkeypatch.setattr(prove, "emulate", lambda *_, **__: Outcome(0, skipped="no qemu-ppc64le"))
    code, text = quietly(["verify", str(before), str(after)])
    assert code == 0
    assert "  emulated   not emulated: no qemu-ppc64le\n" in text
    first = f"  result     {after}: every change is accounted for; 2 sites not executed: no qemu-ppc64le"
    assert text.splitlines()[1] == first
    assert verify(before, after)["proof"]["missing"] == ["2 sites not executed: no qemu-ppc64le"]
    for required in (("--require", "emulation"), ("--require-emulation",)):
        assert rules(verify(before, after, *required, code=1)) == {"verify-emulation"}


def test_what_the_emulator_sees_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ARM64 / "vmlinux-exec"
    after, _ = enabled(before, tmp_path, "--func", "row:8")
    monkeypatch.setattr(prove, "emulate", lambda *_, **__: Outcome(1, ("f: x0 is lost",)))
    (finding,) = verify(before, after, code=1)["findings"]
    assert (finding["rule"], finding["function"], finding["message"]) == ("verify-emulation", "f", "f: x0 is lost")


def test_without_lief_there_is_no_second_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lief", None)
    after, _ = enabled(ARM64 / "mini.ko", tmp_path, "--func", "mini_work", out="after.ko")
    proof = verify(ARM64 / "mini.ko", after)["proof"]
    assert proof["reader"] == f"none ({lief_check.NOT_INSTALLED})"
    assert proof["missing"] == [f"no second reader: {lief_check.NOT_INSTALLED}"]
    assert quietly(["verify", str(ARM64 / "mini.ko"), str(after), "--deep"])[0] == 4


def test_a_plain_install_has_what_a_proof_needs() -> None:
    """Once the emulator was an extra: a default install executed nothing, and still said that all was well."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    found = {re.split(r"[><=; ]", one)[0]: one.partition("; ")[2] for one in project["dependencies"]}
    assert {"capstone", "pyelftools", "unicorn", "lief", "keystone-engine"} <= set(found)
    for name in ("unicorn", "lief"):
        assert all(f"'{machine}'" in found[name] for machine in ("x86_64", "AMD64", "aarch64", "arm64"))
    assert not any(project["optional-dependencies"][extra] for extra in ("asm", "emulate", "deep"))


# -- journals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "what"), [
    (lambda log: log["edits"].pop(), "is in no edit"),
    (lambda log: log["edits"][0].update(new="00" * (len(log["edits"][0]["old"]) // 2)), "the second file has"),
    (lambda log: log["edits"].insert(0, {"pos": 8, "old": "00", "new": "00", "owner": "x"}), "changes nothing"),
    (lambda log: log.update(size=log["size"] + 8), "the journal's file has"),
    (lambda log: log["sites"][0].update(action="keep"), "is enabled in the file, and not in the journal"),
    (lambda log: log.update(sha256="0" * 64), "another sha256"),
    (lambda log: log["output"].update(sha256="0" * 64), "another sha256"),
])  # fmt: skip
def test_a_journal_of_something_else_is_told(change: Callable[[Any], None], what: str, tmp_path: Path) -> None:
    before = ARM64 / "vmlinux-exec"
    after, journal = enabled(before, tmp_path, "--func", "row:8")
    document = json.loads(journal.read_text())
    change(document["images"][0])
    journal.write_text(json.dumps(document))
    image = verify(before, after, "--journal", str(journal), code=1)
    assert rules(image) == {"verify-journal"}
    assert any(what in finding["message"] for finding in image["findings"]), image["findings"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": []}', '{"schema": 1, "images": [{"edits": [{}]}]}'])
def test_what_is_no_journal_is_refused(text: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text(text)
    before = str(ARM64 / "vmlinux-exec")
    assert quietly(["verify", before, before, "--journal", str(journal)])[0] == 3


# -- signatures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, tuple[str, str]]:
    """A signed module, and what signs."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl: make kernels installs it")
    key, cert = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-subj",
                    "/CN=test", "-days", "2"], check=True, capture_output=True)  # fmt: skip
    made, _ = enabled(ARM64 / "mini.ko", tmp_path, "--func", "mini_step", "--sign", key, cert, out="signed.ko")
    return made, (key, cert)


def test_signatures_may_go_or_be_made_anew(signed: tuple[Path, tuple[str, str]], tmp_path: Path) -> None:
    before, key = signed
    cut, journal = enabled(before, tmp_path, "--func", "mini_work", out="cut.ko")
    assert verify(before, cut, "--journal", str(journal))["proof"]["edits"]["signature"] == 1
    new, journal = enabled(before, tmp_path, "--func", "mini_work", "--sign", *key, out="new.ko")
    verify(before, new, "--journal", str(journal))
    data = bytearray(new.read_bytes())
    data[-30] ^= 1  # in the length
    new.write_bytes(data)
    assert quietly(["verify", str(before), str(new)])[0] in (1, 3)


def test_the_old_signature_over_new_bytes_is_told(signed: tuple[Path, tuple[str, str]], tmp_path: Path) -> None:
    before, _ = signed
    cut, _ = enabled(before, tmp_path, "--func", "mini_work", out="cut.ko")
    whole = before.read_bytes()
    size = int.from_bytes(whole[-32:-28], "big") + 40
    cut.write_bytes(cut.read_bytes() + whole[-size:])
    assert rules(verify(before, cut, code=1)) == {"verify-signature"}


# -- files that are no pair --------------------------------------------------------------------------------------------


def test_files_of_two_kinds_are_refused() -> None:
    assert quietly(["verify", str(ARM64 / "vmlinux-exec"), str(PPC64LE / "vmlinux-ool")])[0] == 2
    assert quietly(["verify", str(ARM64 / "vmlinux-exec"), str(ARM64 / "mini.ko")])[0] == 2
    assert quietly(["verify", str(ARM64 / "vmlinux-exec"), "/nowhere"])[0] == 3


def test_another_build_is_full_of_findings() -> None:
    image = verify(ARM64 / "vmlinux-pfe2", ARM64 / "vmlinux-pfe2-bti", code=1)
    assert {"verify-section", "verify-byte"} <= rules(image)


@pytest.mark.parametrize(("before", "after", "message"), [
    (X86_64 / "vmlinux-rela", ROOT / "static_calls/vmlinux", "8 sections, there were 18"),
    (X86_64 / "mini.ko", X86_64 / "told.ko", "section 2 .text: sh_size was 0xef, is 0x4e"),
    (ROOT / "static_calls/calls.ko", X86_64 / "mini.ko", "section 1 .text: sh_name was 0x20, is 0x1b"),
])  # fmt: skip
def test_a_file_of_another_source_is_full_of_findings(before: Path, after: Path, message: str) -> None:
    """It has fewer sections, others under their numbers, or shorter tables."""
    messages = {finding["message"] for finding in verify(before, after, code=1)["findings"]}
    assert message in messages, messages


def test_a_static_calls_trampoline_that_is_nowhere_is_a_finding(tmp_path: Path) -> None:
    """It is looked at as its key's pointer has another relocation."""
    before, after = ROOT / "static_calls/calls.ko", tmp_path / "calls.ko"
    elf = EditedElf(before).sym("__SCT__own", st_value=(1 << 64) - 8).rela(".rela.data", 0, r_addend=8)
    after.write_bytes(elf.raw)
    found = {(finding["rule"], finding["message"]) for finding in verify(before, after, code=1)["findings"]}
    assert ("verify-static-call", "own: its trampoline is none that the kernel knows") in found


def test_a_table_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    before = PPC64LE / "vmlinux-mprofile"
    kind = next(one for one in KINDS if one.name == "live slot relocated twice")
    image = planted(tmp_path, before, TWO, lambda one: kind.make(one) or Damage())
    assert [finding["rule"] for finding in image["findings"]] == ["verify-record"]
    assert "a slot has two relocations" in image["findings"][0]["message"]


# -- real kernels ------------------------------------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid"])
def test_every_site_of_a_real_kernel_is_found_sound(
    name: str, kernel: Callable[[str], kernels.Kernel], tmp_path: Path
) -> None:
    before = kernel(name).vmlinux
    after, journal = enabled(before, tmp_path, *ALL)
    n = sum(1 for one in json.loads(journal.read_text())["images"][0]["sites"] if one["action"].startswith("call"))
    image = verify(before, after, "--journal", str(journal), "--require-emulation")
    assert image["proof"]["emulated"] == n > 30_000
