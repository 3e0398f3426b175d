"""drop and disable: what leaves, what returns, what is refused; disable takes enable back to the byte in a kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from corrupt_cases import text_moved_to_the_end
from elfedit import Elf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftpatch import api
from ftpatch.cli import run
from ftpatch.sites.table import ENABLED, LEFTOVER, NULL, READY

ROOT = Path(__file__).parent.parent / "testdata"
MINI, MINI_PPC, X86_64 = ROOT / "mini", ROOT / "mini-ppc64le", ROOT / "x86_64"
KERNELS = [
    MINI / "vmlinux-callops", MINI / "vmlinux-callops-bti", MINI / "vmlinux-kcfi", MINI / "vmlinux-pfe2",
    MINI / "vmlinux-pfe2-bti", MINI / "vmlinux-exec", MINI_PPC / "vmlinux-pfe2", MINI_PPC / "vmlinux-ool",
    MINI_PPC / "vmlinux-ool-noops", MINI_PPC / "vmlinux-clang", MINI_PPC / "vmlinux-far",
    X86_64 / "vmlinux-fentry", X86_64 / "vmlinux-rela",
]  # fmt: skip
MODULES = [MINI / "mini.ko", MINI_PPC / "mini.ko"]
Run = Callable[..., str]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = run([str(argument) for argument in arguments])
    return code, capsys.readouterr().err.strip()


def live(path: Path) -> set[tuple[int, int]]:
    """(section, offset) of every live record."""
    records = api.scan(str(path)).records
    return set(zip(records.sec[records.live].tolist(), records.off[records.live].tolist(), strict=True))


def ready(path: Path) -> list[str]:
    """Rows of the sites that may be enabled one at a time."""
    table = api.scan(str(path)).sites
    return [f"row:{row}" for row, status in zip(table.row, table.status, strict=True) if status in (READY, LEFTOVER)]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda path: f"{path.parent.name}/{path.name}")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_disabling_what_was_enabled_gives_the_same_bytes(kernel: Path, tmp_path: Path, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.sampled_from(ready(kernel)), min_size=1, max_size=4, unique=True))
    records = data.draw(st.sampled_from(["auto", "auto", "minus4"]) if "pfe2" in kernel.name else st.just("auto"))
    chosen = [word for row in rows for word in ("--func", row)]
    there, back = tmp_path / "there", tmp_path / "back"
    options = ["--records", records, "--skip-unpatchable", "--force-early"]
    if run(["enable", str(kernel), *chosen, "-o", str(there), *options, "--report", f"json={tmp_path / 'j'}"]) != 0:
        return  # this way of dropping does not suit the kernel
    way = json.loads((tmp_path / "j").read_text())["images"][0]["request"]["records"]
    sites = api.scan(str(there)).sites
    n_lone = int(((sites.row < 0) & (sites.status == ENABLED)).sum())
    if n_lone < len(rows):
        return  # a dead function has no name by which its site could be found again
    code = run(["disable", str(there), "--status", "enabled", "-o", str(back)])
    if way == "shrink":
        assert code == 5  # the table was cut: no slot is left
        return
    assert code == 0
    if len(rows) == 1 or records == "auto":
        assert live(back) == live(kernel)
    if len(rows) == 1 and kernel.name != "vmlinux-far":  # a trampoline that several sites may share stays
        assert back.read_bytes() == kernel.read_bytes()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.parent.name)
def test_a_module_has_its_sites_and_records_back(module: Path, tmp_path: Path, ftpatch: Run) -> None:
    there, back = tmp_path / "there.ko", tmp_path / "back.ko"
    hook = ["--hook", "_printk"]
    ftpatch("enable", module, "--func", "*", "-o", there, *hook)
    assert live(there) == set()
    text = ftpatch("disable", there, "--status", "enabled", "-o", back)
    assert " (no record, .text+0x" in text and "(row -" not in text
    before, after = api.scan(str(module)), api.scan(str(back))
    assert live(back) == live(module)
    assert (after.sites.row >= 0).all()
    assert set(after.sites.status.tolist()) == {READY}
    for sec in range(len(before.image.shdr)):  # code is as it was, and so are its relocations
        if before.image.executable[sec]:
            assert before.image.content(sec).tobytes() == after.image.content(sec).tobytes()


@pytest.mark.parametrize("path", [*KERNELS, *MODULES], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_dropped_record_leaves_and_nothing_else_changes(path: Path, tmp_path: Path, ftpatch: Run) -> None:
    row = ready(path)[1]
    out, journal = tmp_path / "out", tmp_path / "journal.json"
    ftpatch("drop", path, "--func", row, "-o", out, "--report", f"json={journal}")
    before = api.scan(str(path))
    at = int(row[4:])
    gone = (int(before.records.sec[at]), int(before.records.off[at]))
    assert live(path) - live(out) == {gone}
    assert live(out) <= live(path)
    image = json.loads(journal.read_text())["images"][0]
    site = image["sites"][0]
    assert (site["action"], site["new_words"]) == ("drop", [])
    assert site["record_fate"] in ("null", "minus4", "cut")
    after = api.scan(str(out))
    for sec in range(len(before.image.shdr)):
        if before.image.executable[sec] and before.image.names[sec] != ".init.text":  # where ftrace_init's end stands
            assert before.image.content(sec).tobytes() == after.image.content(sec).tobytes()


def test_all_but_drops_every_other_record(tmp_path: Path, ftpatch: Run) -> None:
    kernel, out = MINI / "vmlinux-callops", tmp_path / "out"
    ftpatch("drop", kernel, "--all-but", "vfs_*", "-o", out)
    table = api.scan(str(out)).sites
    names = {table.name(i) for i in range(len(table)) if table.row[i] >= 0 and table.status[i] != NULL}
    assert names
    assert all(name is not None and name.startswith("vfs_") for name in names)


def test_the_text_of_a_drop(tmp_path: Path, ftpatch: Run) -> None:
    kernel, out = MINI / "vmlinux-callops", tmp_path / "out"
    lines = ftpatch("drop", kernel, "--func", "vfs_read", "-o", out).splitlines()
    assert lines[1] == "  sites      1 dropped from the record table"
    assert lines[3].startswith("    vfs_read (row ")
    assert lines[3].endswith("): record null")
    assert lines[5] == "  live       no: only what is read when the file boots or is loaded changes"
    assert lines[6] == (
        "  note       what has no record is not in ftrace's list: it can no longer be traced by name, kprobed through "
        "ftrace or live-patched"
    )


@pytest.mark.parametrize("verb", ["drop", "disable"])
def test_doing_it_twice_is_refused_and_skipping_changes_nothing(
    verb: str, tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel, once, twice = MINI / "vmlinux-callops", tmp_path / "once", tmp_path / "twice"
    if verb == "disable":
        ftpatch("enable", kernel, "--func", "vfs_read", "--func", "vfs_write", "-o", tmp_path / "enabled")
        kernel = tmp_path / "enabled"
    ftpatch(verb, kernel, "--func", "vfs_read", "-o", once)
    code, line = refused(capsys, verb, once, "--func", "vfs_read", "-o", twice)
    assert code == 5
    if verb == "disable":
        assert "not enabled" in line
        ftpatch(verb, once, "--func", "vfs_read", "--skip-unpatchable", "-o", twice)
        assert twice.read_bytes() == once.read_bytes()
    else:
        assert "vfs_read" in line


def test_enabling_twice_is_refused_and_skipping_changes_nothing(
    tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in (MINI / "vmlinux-callops", *MODULES):
        once, twice = tmp_path / "once", tmp_path / "twice"
        name = "vfs_read" if source.name.startswith("vmlinux") else "mini_work"
        more = [] if source.name.startswith("vmlinux") else ["--hook", "_printk"]
        ftpatch("enable", source, "--func", name, "-o", once, *more)
        code, line = refused(capsys, "enable", once, "--func", name, "-o", twice, *more)
        assert code == 5
        assert "already enabled" in line
        ftpatch("enable", once, "--func", name, "--skip-unpatchable", "-o", twice, *more)
        assert twice.read_bytes() == once.read_bytes()


def test_a_shrunk_table_takes_no_record_back(tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str]) -> None:
    kernel, out = MINI / "vmlinux-pfe2", tmp_path / "out"
    ftpatch("enable", kernel, "--func", "vfs_read", "--records", "shrink", "-o", out)
    code, line = refused(capsys, "disable", out, "--func", "vfs_read", "-o", tmp_path / "back")
    assert code == 5
    assert "no free slot for a record to return to" in line
    assert "restore" in line
    assert not (tmp_path / "back").exists()


def test_a_call_of_mcount_becomes_a_nop_without_a_record(tmp_path: Path, ftpatch: Run) -> None:
    kernel, out = MINI_PPC / "vmlinux-mprofile", tmp_path / "out"
    text = ftpatch("disable", kernel, "--func", "vfs_read", "-o", out)
    assert "a call of _mcount becomes a NOP and its record leaves" in text
    before = api.scan(str(kernel))
    at = next(i for i in range(len(before.sites)) if before.sites.name(i) == "vfs_read")
    assert (int(before.records.sec[at]), int(before.records.off[at])) not in live(out)
    pos = int(before.sites.pos[at])
    assert out.read_bytes()[pos : pos + 4] == (0x6000_0000).to_bytes(4, "little")


def test_all_but_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = refused(capsys, "drop", MINI / "vmlinux-callops", "--all-but", "vfs_*", "--func", "x")
    assert code == 2
    assert "--all-but stands alone" in line


@pytest.mark.parametrize(
    "path", [MINI / "vmlinux-callops", *MODULES], ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_the_bytes_do_not_depend_on_the_hash_seed(path: Path, tmp_path: Path) -> None:
    names = ["mini_work", "mini_util"] if path.suffix == ".ko" else ["vfs_read", "vfs_write"]
    hook = ["--hook", "_printk"] if path.suffix == ".ko" else []
    made = []
    for seed in ("0", "1", "4711"):
        out = tmp_path / f"{seed}.ko.xz"
        chosen = [word for name in names for word in ("--func", name)]
        command = [sys.executable, "-m", "ftpatch", "enable", str(path), *chosen, *hook, "-o", str(out)]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT.parent)}
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
        made.append(out.read_bytes())
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("path", [MINI / "vmlinux-callops", MINI_PPC / "vmlinux-mprofile", *MODULES],
                         ids=lambda path: f"{path.parent.name}/{path.name}")  # fmt: skip
def test_the_journals_are_valid_under_the_schema(path: Path, tmp_path: Path, ftpatch: Run) -> None:
    schema = json.loads((ROOT.parent / "ftpatch/report/schema.json").read_text())
    name = "mini_work" if path.suffix == ".ko" else "vfs_read"
    hook = ["--hook", "_printk"] if path.suffix == ".ko" else []
    steps: list[tuple[str, str | Path, str, list[str]]] = [
        ("enable", path, "enabled", hook),
        ("disable", "enabled", "disabled", []),
        ("drop", path, "dropped", []),
    ]
    for verb, source, out, more in steps:
        journal = tmp_path / "journal.json"
        options = ["--func", name, *more, "--report", f"json={journal}", "-o", tmp_path / out]
        ftpatch(verb, tmp_path / source, *options)
        document = json.loads(journal.read_text())
        assert document["command"] == verb
        jsonschema.validate(document, schema)


def test_a_returning_record_does_not_take_the_stub_slot_of_a_site_that_stays_enabled(
    tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel hands out a slot per record, in order: one record more takes the first of the slots behind them, which
    the patch gave to one of its sites. Found by verify."""
    kernel, enabled = MINI_PPC / "vmlinux-ool", tmp_path / "enabled"
    ftpatch("enable", kernel, "--func", "row:9", "--func", "row:10", "-o", enabled)
    table = api.scan(str(enabled)).sites
    names = {str(table.name(i)) for i in range(len(table)) if table.row[i] < 0}
    assert len(names) == 2
    codes = {}
    for name in names:
        out = tmp_path / name
        codes[name] = refused(capsys, "disable", enabled, "--func", name, "-o", out)
        assert run(["verify", str(enabled), str(out)]) == 0 if codes[name][0] == 0 else not out.exists()
    assert sorted(code for code, _ in codes.values()) == [0, 5]
    line = next(text for code, text in codes.values() if code)
    assert "a stub slot that the kernel will hand out is not empty" in line
    assert "disable the later patched sites as well" in line
    ftpatch("disable", enabled, "--status", "enabled", "-o", tmp_path / "both")
    assert (tmp_path / "both").read_bytes() == kernel.read_bytes()


def test_sections_may_lie_in_the_file_in_another_order_than_their_numbers(tmp_path: Path, ftpatch: Run) -> None:
    """The sites that a plan changes were compared with those that the proof saw in two orders: exit code 70. Found by
    fuzzing."""
    elf, module, enabled = Elf("mini.ko"), tmp_path / "mini.ko", tmp_path / "enabled.ko"
    module.write_bytes(text_moved_to_the_end(elf).raw)
    ftpatch("enable", module, "--func", "*", "--hook", "_printk", "-o", enabled)
    ftpatch("disable", enabled, "--func", "*", "-o", tmp_path / "disabled.ko")
    assert run(["verify", str(module), str(enabled)]) == 0
