"""Trees of modules: what belongs to one, what comes out whoever finishes first, and how a scan of one ends early."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
from elfwriter import MINI

import ftpatch.report
from ftpatch import trees
from ftpatch.cli import run
from ftpatch.document.types import ImageObject
from ftpatch.errors import SelectionError
from ftpatch.signals import INTERRUPTED

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((Path(ftpatch.report.__file__).parent / "schema.json").read_text())
ARM64, PPC64LE = MINI / "mini.ko", ROOT / "testdata" / "mini-ppc64le" / "mini.ko"
FTPATCH = [sys.executable, "-B", "-m", "ftpatch"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tree of every kind of file, good and bad, beside things outside of it."""
    monkeypatch.chdir(tmp_path)
    kernel = tmp_path / "modules" / "kernel"
    (kernel / "fs").mkdir(parents=True)
    (tmp_path / "modules" / "extra").mkdir()
    (tmp_path / "sources").mkdir()
    shutil.copyfile(ARM64, tmp_path / "sources" / "outside.ko")
    shutil.copyfile(ARM64, kernel / "arm.ko")
    shutil.copyfile(ARM64, kernel / "fs" / "other.ko")
    shutil.copyfile(PPC64LE, kernel / "fs" / "power.ko")
    shutil.copyfile(ARM64, kernel / "näme.ko")
    content = ARM64.read_bytes()
    (kernel / "corrupt.ko").write_bytes(content[:0x28] + b"\xff" * 8 + content[0x30:])  # e_shoff
    (kernel / "truncated.ko").write_bytes(content[: len(content) // 2])
    (kernel / "text.ko").write_text("not a module\n")
    (kernel / "empty.ko.xz").touch()
    os.mkfifo(kernel / "fifo.ko")
    (kernel / "folder.ko").mkdir()
    shutil.copyfile(MINI / "pfe2.o", kernel / "object.o")
    shutil.copyfile(MINI / "vmlinux-pfe2", tmp_path / "modules" / "vmlinux")
    (tmp_path / "modules" / "build").symlink_to(tmp_path / "sources")
    (kernel / "loop").symlink_to("..")
    (kernel / "self.ko").symlink_to("self.ko")
    (kernel / "link.ko").symlink_to("arm.ko")
    return tmp_path


GOOD = ["kernel/arm.ko", "kernel/fs/other.ko", "kernel/fs/power.ko", "kernel/näme.ko"]
BAD = ["kernel/corrupt.ko", "kernel/empty.ko.xz", "kernel/text.ko", "kernel/truncated.ko"]


@pytest.fixture
def sound(here: Path) -> Path:
    """The same without its bad files."""
    for name in BAD:
        (here / "modules" / name).unlink()
    return here


def output(capsys: Capture, *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert run(list(arguments)) == code
    return capsys.readouterr().out


def document(capsys: Capture, *arguments: str, code: int = 0) -> Any:
    found = json.loads(output(capsys, *arguments, "--format", "json", code=code))
    jsonschema.validate(found, SCHEMA)
    return found


def rows(text: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(text))


# -- what belongs to a tree ------------------------------------------------------------------------------------


def test_regular_files_named_like_modules_make_the_tree_and_links_do_not(here: Path, capsys: Capture) -> None:
    listing = trees.walk("modules")
    assert list(listing.files) == sorted((f"modules/{name}" for name in GOOD + BAD), key=os.fsencode)
    assert listing.errors == ()


def test_the_tree_itself_may_be_named_by_a_link(sound: Path, capsys: Capture) -> None:
    (sound / "current").symlink_to("modules")
    found = document(capsys, "scan", "current")
    assert [image["file"] for image in found["images"]] == [f"current/{name}" for name in GOOD]


@pytest.mark.parametrize(
    ("links", "found"), [(0, ""), (2, "found 2 symbolic links, which are not followed, ")], ids=["nothing", "links"]
)
def test_a_tree_without_modules_is_refused(links: int, found: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "object.o").touch()
    for i in range(links):
        (tmp_path / f"{i}.ko").symlink_to(ARM64)
    assert run(["scan", str(tmp_path)]) == 3
    out, err = capsys.readouterr()
    expected = f"{found}expected .ko, .ko.xz, .ko.gz, .ko.zst – name a vmlinux, an object or a program inside it"
    assert (out, err) == ("", f"ftpatch: {tmp_path}: no module in this tree: {expected}\n")


def test_a_folder_that_cannot_be_read_is_a_bad_row(
    sound: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refused(folder: str) -> Any:
        if folder.endswith("fs"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    found = document(capsys, "scan", "modules", code=3)
    message = "modules/kernel/fs: cannot be read: Permission denied"
    assert found["errors"] == [{"file": "modules/kernel/fs", "code": 3, "message": message, "tree": "modules"}]
    assert [image["file"] for image in found["images"]] == ["modules/kernel/arm.ko", "modules/kernel/näme.ko"]


def test_a_file_that_cannot_be_read_is_a_bad_row(sound: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refused(path: str, *more: Any, **named: Any) -> int:
        if str(path).endswith("other.ko"):
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", refused)
    text = output(capsys, "scan", "modules", code=3)
    row = "     -     -  bad file     kernel/fs/other.ko  ! cannot be read: Permission denied"
    assert f"{row} – use sudo, or a copy that you may read\n" in text


# -- reports ---------------------------------------------------------------------------------------------------


def test_text_has_totals_and_a_row_per_file(here: Path, capsys: Capture) -> None:
    lines = output(capsys, "scan", "modules", code=3).splitlines()
    assert lines[:7] == [
        "modules: 8 modules (arm64 3, ppc64le 1)",
        "  sites      in 4 modules, none in 0; 4 bad files",
        "  records    26 slots, 0 null, 26 live",
        "  layouts    callops 3, ool 1",
        "  sections   .init.text 13, .text 12, .text.unlikely 1",
        "  status     ready 26",
        "  live  null  layout       module",
    ]
    assert [line.split("  !")[0] for line in lines[7:]] == [
        "     6     0  callops      kernel/arm.ko",
        "     -     -  bad file     kernel/corrupt.ko",
        "     -     -  bad file     kernel/empty.ko.xz",
        "     6     0  callops      kernel/fs/other.ko",
        "     8     0  ool          kernel/fs/power.ko",
        "     6     0  callops      kernel/näme.ko",
        "     -     -  bad file     kernel/text.ko",
        "     -     -  bad file     kernel/truncated.ko",
    ]
    assert lines[13].split("  !")[1].startswith(' not an ELF file: found text that begins "not a module"')


def test_rows_say_what_deviates(sound: Path, capsys: Capture) -> None:
    """A layout that is rare on its machine, and a site that is not as it should be."""
    shutil.copyfile(MINI / "pfe2.o", sound / "modules" / "kernel" / "odd.ko")
    content = bytearray(ARM64.read_bytes())
    site = document(capsys, "scan", str(ARM64))["images"][0]["sites"][0]
    content[site["pos"] : site["pos"] + 4] = b"\0\0\0\0"
    (sound / "modules" / "kernel" / "arm.ko").write_bytes(content)
    remarks = dict(line.split("  ! ") for line in output(capsys, "scan", "modules").splitlines() if "!" in line)
    assert {key.split()[-1]: value for key, value in remarks.items()} == {
        "kernel/arm.ko": "unexpected 1",
        "kernel/odd.ko": "layout pfe2, most have callops",
    }


def test_json_has_an_image_per_module_and_the_totals(here: Path, capsys: Capture) -> None:
    found = document(capsys, "scan", "modules", code=3)
    assert list(found) == ["schema", "command", "images", "trees", "errors"]
    assert [(one["file"], one["tree"], one["sites"]) for one in found["images"]] == [
        (f"modules/{name}", "modules", []) for name in GOOD
    ]
    assert all(one["sha256"] for one in found["images"])
    assert [(one["file"], one["tree"], one["code"]) for one in found["errors"]] == [
        (f"modules/{name}", "modules", 3) for name in BAD
    ]
    totals = {
        "modules": 8, "bad": 4, "with_sites": 4, "without_sites": 0, "slots": 26, "null": 0, "live": 26,
        "by_section": {".init.text": 13, ".text": 12, ".text.unlikely": 1}, "by_status": {"ready": 26},
        "by_layout": {"callops": 3, "ool": 1}, "by_arch": {"arm64": 3, "ppc64le": 1},
    }  # fmt: skip
    assert found["trees"] == [{"tree": "modules", "totals": totals}]


def test_the_sites_of_a_tree_are_those_of_its_files(sound: Path, capsys: Capture) -> None:
    of_tree = document(capsys, "scan", "modules", "--sites")["images"]
    of_files = document(capsys, "scan", *(f"modules/{name}" for name in GOOD))["images"]
    assert of_tree == [{**image, "tree": "modules"} for image in of_files]
    csv_of_tree = output(capsys, "scan", "modules", "--format", "csv")
    assert csv_of_tree == output(capsys, "scan", *(f"modules/{name}" for name in GOOD), "--format", "csv")
    assert len(list(rows(csv_of_tree))) == 26


def test_a_csv_report_beside_json_does_not_change_json(sound: Path, capsys: Capture) -> None:
    alone = output(capsys, "scan", "modules", "--format", "json")
    assert output(capsys, "scan", "modules", "--format", "json", "--report", "csv=sites.csv") == alone
    assert len(list(rows((sound / "sites.csv").read_text()))) == 26


def test_text_shows_the_sites_module_by_module(sound: Path, capsys: Capture) -> None:
    text = output(capsys, "scan", "modules", "--sites")
    table, *modules = text.split("\n\n")
    assert table == output(capsys, "scan", "modules").rstrip("\n")
    assert [part.split(":")[0] for part in modules] == [
        "modules/kernel/arm.ko", "modules/kernel/fs/other.ko", "modules/kernel/fs/power.ko",
        "modules/kernel/näme.ko",
    ]  # fmt: skip
    alone = output(capsys, "scan", "modules/kernel/arm.ko", "--sites")
    assert modules[0].splitlines()[1:] == alone[alone.index("   row") :].splitlines()


def test_files_and_trees_may_be_mixed_and_a_tree_counts_once(sound: Path, capsys: Capture) -> None:
    found = document(capsys, "scan", "sources", "modules/vmlinux", "modules", "modules", "sources/nothing.ko", code=3)
    names = ["sources/outside.ko", "modules/vmlinux", *(f"modules/{name}" for name in GOOD)]
    assert [image["file"] for image in found["images"]] == names
    assert [one["tree"] for one in found["trees"]] == ["sources", "modules"]
    assert [one["file"] for one in found["errors"]] == ["sources/nothing.ko"]
    assert "tree" not in found["images"][1]
    assert len(found["images"][1]["sites"]) == found["images"][1]["summary"]["slots"] > 0


@pytest.mark.parametrize("arguments", [[], ["--sites"], ["--func", "*init*"]], ids=["plain", "sites", "func"])
@pytest.mark.parametrize("format_", ["text", "json", "csv"])
def test_every_number_of_jobs_gives_the_same_bytes(
    format_: str, arguments: list[str], here: Path, capsys: Capture
) -> None:
    found = set()
    for jobs in ([], [], ["--jobs", "1"], ["--jobs", "2"], ["--jobs", "5"]):
        assert run(["scan", "modules", "--format", format_, *arguments, *jobs]) == 3
        found.add(capsys.readouterr())
    assert len(found) == 1


@pytest.mark.parametrize(
    ("format_", "shown"),
    [
        ("text", b"     6     0  callops      n\\xdce4me.ko\n"),
        ("json", b'"file": "n\\udce4me.ko"'),
        ("csv", b"n\\udce4me.ko,0,"),
    ],
    ids=["text", "json", "csv"],
)
def test_a_file_name_need_not_be_text(format_: str, shown: bytes, tmp_path: Path) -> None:
    for name in (b"n\xe4me.ko", b"z.ko"):
        shutil.copyfile(ARM64, os.fsencode(tmp_path) + b"/" + name)
    command = [*FTPATCH, "scan", ".", "--jobs", "2", "--format", format_, "--report", f"{format_}=report"]
    done = subprocess.run(command, env=ENV, cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert shown in done.stdout.replace(b"./", b"")
    assert (tmp_path / "report").read_bytes() == done.stdout


def test_compressed_modules_are_like_the_others(tmp_path: Path, capsys: Capture) -> None:
    content = ARM64.read_bytes()
    (tmp_path / "0.ko").write_bytes(content)
    (tmp_path / "1.ko.gz").write_bytes(gzip.compress(content))
    (tmp_path / "2.ko.xz").write_bytes(lzma.compress(content))
    images = document(capsys, "scan", str(tmp_path), "--sites")["images"]
    assert [image.pop("file").rpartition("/")[2] for image in images] == ["0.ko", "1.ko.gz", "2.ko.xz"]
    assert len({image.pop("sha256") for image in images}) == 3
    assert images[0] == images[1] == images[2]


def test_a_report_may_not_replace_a_module_of_the_tree(sound: Path, capsys: Capture) -> None:
    before = (sound / "modules/kernel/arm.ko").read_bytes()
    assert run(["scan", "modules", "--report", "json=modules/kernel/arm.ko"]) == 2
    out, err = capsys.readouterr()
    assert (out, "the report would replace another file of this run" in err) == ("", True)
    assert (sound / "modules/kernel/arm.ko").read_bytes() == before


# -- exit codes and selectors ----------------------------------------------------------------------------------


def test_the_exit_code_is_the_greatest_of_the_files(sound: Path, capsys: Capture) -> None:
    kernel = sound / "modules" / "kernel"
    (kernel / "text.ko").write_text("not a module\n")
    assert run(["scan", "modules"]) == 3
    foreign = bytearray(ARM64.read_bytes())
    foreign[18:20] = (22).to_bytes(2, "little")
    (kernel / "foreign.ko").write_bytes(foreign)
    assert run(["scan", "modules"]) == 4
    assert "machine not supported: found e_machine 22 (s390)" in capsys.readouterr().err


def test_a_selector_need_only_match_in_some_module(sound: Path, capsys: Capture) -> None:
    name = next(site["function"] for site in document(capsys, "scan", str(PPC64LE))["images"][0]["sites"])
    only = [image for image in document(capsys, "scan", "modules", "--func", name)["images"] if image["sites"]]
    expected = {image["file"] for image in document(capsys, "scan", "modules", "--sites")["images"]
                if any(name in (site["function"], *site["aliases"]) for site in image["sites"])}  # fmt: skip
    assert {image["file"] for image in only} == expected
    assert all(site["function"] == name for image in only for site in image["sites"])
    assert {
        row["file"] for row in rows(output(capsys, "scan", "modules", "--func", name, "--format", "csv"))
    } == expected


def test_text_shows_the_modules_that_have_what_was_asked_for(sound: Path, capsys: Capture) -> None:
    text = output(capsys, "scan", "modules", "--section", ".text.unlikely")
    table = text[text.index("  live  null") : text.index("\n\n")].splitlines()
    assert table[1:] == ["     8     0  ool          kernel/fs/power.ko"]
    assert text.count("weak-leftover") + text.count("  ready ") == 1 + 1  # the totals' line, and the one site


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--func", "init_module", "--func", "nosuch"], "nothing of that name in any module: found nosuch"),
        (["--func", "!nosuch"], "nothing of that name in any module: found nosuch"),
        (["--section", ".nosuch"], "nothing of that name in any module: found .nosuch"),
        (
            ["--status", "enabled"],
            "the selection is empty: found no site matches all of --func, --status and --section",
        ),
    ],
)
def test_a_selector_that_matches_in_no_module_is_an_error(
    arguments: list[str], message: str, here: Path, capsys: Capture
) -> None:
    assert run(["scan", "modules", "--jobs", "2", *arguments]) == 5
    assert capsys.readouterr().err.splitlines()[-1] == f"ftpatch: modules: {message}"


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("/(/", "not a regular expression"),
        ("0x1234", "addresses have no meaning in an unlinked file"),
        ("@nosuch", "the list cannot be read: No such file or directory"),
    ],
)
def test_a_selector_that_is_none_is_said_once(selector: str, message: str, here: Path, capsys: Capture) -> None:
    code = 3 if selector.startswith("@") else 5
    for jobs in ("1", "2"):
        assert run(["scan", "modules", "--func", selector, "--jobs", jobs]) == code
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), message in err) == ("", 1, True)


def test_a_list_on_stdin_is_read_once_for_all_modules(
    sound: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"init_module\n")))
    found = document(capsys, "scan", "modules", "sources", "--func", "@-", "--jobs", "2")
    named = {image["file"] for image in found["images"] if image["sites"]}
    assert {"modules/kernel/arm.ko", "modules/kernel/fs/other.ko", "sources/outside.ko"} <= named


def test_what_is_asked_of_no_readable_module_is_no_error_of_the_selector() -> None:
    trees.require_chosen("modules", [])
    with pytest.raises(SelectionError, match="the selection is empty"):
        trees.require_chosen("modules", [trees.ModuleScan("x.ko", cast(ImageObject, {"file": "x.ko"}))])


# -- processes -------------------------------------------------------------------------------------------------


def test_nothing_is_shown_on_a_stderr_that_is_no_terminal(sound: Path, capsys: Capture) -> None:
    assert run(["scan", "modules", "--jobs", "2"]) == 0
    assert capsys.readouterr().err == ""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """So many modules that a scan of them takes a while."""
    shutil.copyfile(ARM64, tmp_path / "0.ko")
    for i in range(1, 6000):
        os.link(tmp_path / "0.ko", tmp_path / f"{i}.ko")
    return tmp_path


def started(large: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A scan in a session of its own, and its workers, once they are at work."""
    child = subprocess.Popen(
        [*FTPATCH, "scan", "--jobs", "2", str(large)], env=ENV,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    deadline = time.monotonic() + 60
    while len(workers := [int(pid) for pid in children.read_text().split()]) < 2:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.1)
    return child, workers


def gone(pids: list[int]) -> bool:
    """Whether the processes end soon, or have ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if all(state(pid) in ("", "Z") for pid in pids):
            return True
        time.sleep(0.02)
    return False


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.parametrize("to", ["the process", "its group"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_the_scan_and_its_workers(number: int, to: str, large: Path) -> None:
    """A terminal sends them to all of its group. Workers once wrote tracebacks, or lived on for a while."""
    child, workers = started(large)
    if to == "its group":
        os.killpg(child.pid, number)
    else:
        child.send_signal(number)
    child.wait(60)
    assert [state(pid) for pid in workers] == ["", ""]
    assert child.communicate() == ("", f"{INTERRUPTED}\n" if number == signal.SIGINT else "")
    assert child.returncode == 128 + number


def test_a_killed_worker_is_an_internal_error(large: Path) -> None:
    child, workers = started(large)
    os.kill(workers[0], signal.SIGKILL)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (70, "")
    assert err == "ftpatch: a worker process died – out of memory? --jobs 1 needs the least\n"
    assert gone(workers)


def test_workers_do_not_outlive_a_killed_scan(large: Path) -> None:
    child, workers = started(large)
    child.kill()
    child.communicate(timeout=60)
    assert gone(workers)


def test_an_unexpected_exception_says_which_file(sound: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ftpatch.trees.scan_file", broken)
    for jobs in ("1", "2"):
        assert run(["scan", "modules", "--jobs", jobs]) == 70
        assert "while reading modules/kernel/" in capsys.readouterr().err


def test_what_unpacks_to_more_than_allowed_is_a_bad_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / "tree" / "mini.ko.xz"
    packed.parent.mkdir()
    packed.write_bytes(lzma.compress((MINI / "mini.ko").read_bytes(), check=lzma.CHECK_CRC32))
    assert run(["scan", str(packed)]) == 0
    for path in (packed, packed.parent):
        capsys.readouterr()
        assert run(["scan", str(path), "--max-size", "4096"]) == 3
        assert "4096" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_system_without_semaphores_reads_with_one_process(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes share semaphores in /dev/shm; without it this ended in a traceback."""

    def refuse(*args: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("a.ko", "b.ko"):
        (tmp_path / name).write_bytes((MINI / "mini.ko").read_bytes())
    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", refuse)
    assert run(["scan", str(tmp_path), "--jobs", "2"]) == 0
    out, err = capsys.readouterr()
    why = f"no semaphore for more can be made in /dev/shm ({os.strerror(number)})"
    assert err == f"ftpatch: one process reads all files: {why}\n"
    assert "a.ko" in out and "b.ko" in out
