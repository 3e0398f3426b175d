"""The Python interface: what `import ftpatch` offers, verb by verb, with values instead of reports."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import ftpatch
from ftpatch import api
from ftpatch.cli import VERBS
from ftpatch.errors import InputError, SelectionError, UsageError
from ftpatch.sites.table import ENABLED, READY

MINI = Path(__file__).resolve().parents[1] / "testdata" / "mini"
FILE = str(MINI / "vmlinux-callops")


def test_the_package_offers_every_verb() -> None:
    assert {verb.replace("-", "_") for verb in VERBS} <= set(ftpatch.__all__) <= {*dir(api), "__version__"}
    assert [name for name in ftpatch.__all__ if name != "__version__" and name not in api.__all__] == []
    assert ftpatch.explain is api.explain
    with pytest.raises(AttributeError, match="module 'ftpatch' has no attribute 'guess'"):
        _ = ftpatch.guess


def test_every_journey_is_documented() -> None:
    assert [name for name in VERBS if not getattr(ftpatch, name.replace("-", "_")).__doc__] == []
    assert [name for name in VERBS if name not in (api.__doc__ or "")] == []


def test_scan_gives_image_records_and_sites() -> None:
    scan = ftpatch.scan(FILE)
    assert (scan.arch.name, scan.image.kind, len(scan.records)) == ("arm64", "vmlinux", len(scan.sites))
    assert "vfs_read" in [scan.sites.name(row) for row in range(len(scan.sites))]
    with pytest.raises(InputError):
        ftpatch.scan(__file__)


def test_check_gives_findings_by_rule_and_place(tmp_path: Path) -> None:
    assert ftpatch.check(FILE).files[0].findings == ()
    path = str(tmp_path / "kept")
    ftpatch.enable(FILE, ftpatch.Delivery(path), ftpatch.by_selectors(["vfs_read"]), records="keep")
    result = ftpatch.check(path)
    (finding,) = result.files[0].findings
    assert (finding.rule, finding.severity, finding.function, result.failed) == (
        "site-enabled", "error", "vfs_read", True,
    )  # fmt: skip
    assert (
        ftpatch.check(path, ftpatch.check_settings(ftpatch.CheckOptions(ignore=["site-enabled"]))).files[0].findings
        == ()
    )


def test_check_of_a_tree_has_each_module_and_each_bad_file(tmp_path: Path) -> None:
    shutil.copy(MINI / "mini.ko", tmp_path / "good.ko")
    (tmp_path / "bad.ko").write_bytes(b"no module")
    result = ftpatch.check(str(tmp_path))
    assert [Path(file.path).name for file in result.files] == ["good.ko"]
    assert [(Path(path).name, type(error)) for path, error in result.errors] == [("bad.ko", InputError)]


def test_enable_verify_diff_and_restore_are_one_way_there_and_back(tmp_path: Path) -> None:
    patched, journal, back = (str(tmp_path / name) for name in ("patched", "journal", "back"))
    delivery = ftpatch.Delivery(patched, reports=(f"json={journal}",))
    written = ftpatch.enable(FILE, delivery, ftpatch.by_selectors(["vfs_read"]))
    assert written.output is not None and written.output.path == patched
    assert [written.plan.scan.sites.name(row) for row in written.plan.index.tolist()] == ["vfs_read"]
    scan = ftpatch.scan(patched)
    named = {scan.sites.name(row): int(scan.sites.status[row]) for row in range(len(scan.sites))}
    assert (named["vfs_read"], named["vfs_write"]) == (ENABLED, READY)

    proof = ftpatch.verify(FILE, patched, journal)
    assert (proof.findings, proof.kinds["site enabled"]) == ((), 1)
    (compared,) = ftpatch.diff(FILE, patched).compared
    assert "diff-lost" in [finding.rule for finding in compared.findings]
    restored = ftpatch.restore(ftpatch.RestoreRequest(patched, journal, back))
    assert restored.same and Path(back).read_bytes() == Path(FILE).read_bytes()


def test_disable_and_drop_give_their_plans_and_write_nothing_when_told_so(tmp_path: Path) -> None:
    patched = str(tmp_path / "patched")
    ftpatch.enable(FILE, ftpatch.Delivery(patched), ftpatch.by_selectors(["vfs_read"]))
    undone = ftpatch.disable(patched, ftpatch.Delivery(None), ftpatch.by_selectors(["vfs_read"]))
    dropped = ftpatch.drop(FILE, ftpatch.Delivery(None), ftpatch.by_selectors(["vfs_write"]))
    assert (undone.output, len(undone.plan.index), dropped.output, len(dropped.plan.index)) == (None, 1, None, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["patched"]
    with pytest.raises(SelectionError):
        ftpatch.drop(FILE, ftpatch.Delivery(None), ftpatch.by_selectors(["no_such_function"]))
    with pytest.raises(UsageError, match="nothing is chosen"):
        ftpatch.drop(FILE, ftpatch.Delivery(None), ftpatch.by_selectors([]))


def test_whoever_watches_hears_of_files_and_progress(tmp_path: Path) -> None:
    for name in ("a.ko", "b.ko"):
        shutil.copy(MINI / "mini.ko", tmp_path / name)
    listed: list[str] = []
    done: list[int] = []

    @contextmanager
    def progress(n: int) -> Iterator[Callable[[int], object]]:
        assert n == 2
        yield done.append

    watch = ftpatch.Watch(listed=listed.extend, progress=progress)
    ftpatch.check(str(tmp_path), watch=watch)
    assert ([Path(file).name for file in listed], sum(done)) == (["a.ko", "b.ko"], 2)


def test_what_a_watcher_raises_ends_the_journey(tmp_path: Path) -> None:
    shutil.copy(MINI / "mini.ko", tmp_path / "a.ko")

    def refuse(files: Sequence[str]) -> None:
        raise UsageError("not these")

    with pytest.raises(UsageError, match="not these"):
        ftpatch.diff(str(tmp_path), str(tmp_path), watch=ftpatch.Watch(listed=refuse))


def test_explain_tells_of_a_site_and_of_a_name_without_one() -> None:
    told = ftpatch.explain(FILE, "vfs_read")
    (site,) = told.sites
    assert site["verdict"].startswith("traceable")
    assert site["patch"] is not None and site["patch"]["target"] == "ftrace_caller"
    absent = ftpatch.explain(FILE, "no_such_function")
    assert absent.sites == [] and absent.absence is not None and absent.absence["text"] == "nothing of that name"


def test_explain_log_takes_a_message_apart() -> None:
    log = next((MINI.parent / "splats").iterdir()).read_text(errors="replace")
    assert ftpatch.explain_log(log).told[0].cause.text


def test_image_writes_what_boots(tmp_path: Path) -> None:
    made = ftpatch.image(FILE, str(tmp_path / "Image"))
    assert (made.size, made.arch.name) == ((tmp_path / "Image").stat().st_size, "arm64")


def test_a_scan_of_a_tree_is_in_the_order_of_its_names(tmp_path: Path) -> None:
    from ftpatch.trees import Request

    for name in ("b.ko", "a.ko"):
        shutil.copy(MINI / "mini.ko", tmp_path / name)
    found = ftpatch.scan_tree(str(tmp_path), Request())
    assert [Path(one.path).name for one in found] == ["a.ko", "b.ko"]
    assert [one.image and one.image["summary"]["live"] for one in found] == [6, 6]
