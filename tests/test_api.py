"""The Python interface: what `import ftpatch` offers, verb by verb, with values instead of reports."""

from __future__ import annotations

import doctest
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import ftpatch
from ftpatch import api
from ftpatch.cli import VERBS
from ftpatch.document.rows import image_object
from ftpatch.errors import InputError, SelectionError, UsageError
from ftpatch.sites.columns import COLUMNS
from ftpatch.sites.table import ENABLED, READY
from tools import api_names

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


# -- names, and values as columns -----------------------------------------------------------------------------------


def test_the_page_about_the_interface_lists_its_names() -> None:
    assert api_names.PAGE.read_text() == api_names.page(api_names.PAGE.read_text()), "run python -m tools.api_names"


def test_the_page_describes_every_column() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+?) \| ?(.*?) ?\|$", api_names.PAGE.read_text(), re.MULTILINE)
    assert rows == [column[:4] for column in COLUMNS]


def test_the_examples_of_the_page_give_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(FILE, tmp_path / "vmlinux")
    (tmp_path / "modules").mkdir()
    shutil.copy(MINI / "mini.ko", tmp_path / "modules")
    monkeypatch.chdir(tmp_path)
    text = "\n".join(re.findall(r"^```python\n(.*?)^```$", api_names.PAGE.read_text(), re.MULTILINE | re.DOTALL))
    text = text.replace(": …\n", ": ...\n")
    test = doctest.DocTestParser().get_doctest(text, {}, "api.md", "docs/api.md", 0)
    assert len(test.examples) > 30
    told: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=told.append)
    assert told == [], "".join(told)


def test_an_old_name_goes_on_working_and_says_its_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ftpatch.DEPRECATED, "sites_of", "scan")
    with pytest.warns(DeprecationWarning, match=r"^ftpatch\.sites_of is called ftpatch\.scan now$") as warned:
        assert ftpatch.sites_of is ftpatch.scan
    assert warned[0].filename == __file__


def test_every_deprecated_name_stands_for_one_that_stays() -> None:
    assert set(ftpatch.DEPRECATED.values()) <= set(ftpatch.__all__)
    assert set(ftpatch.DEPRECATED).isdisjoint(ftpatch.__all__)


FIXTURES = sorted(
    str(path.relative_to(MINI.parent)) for path in (*MINI.iterdir(), *(MINI.parent / "x86_64").iterdir(),
                                                     *(MINI.parent / "mini-ppc64le").iterdir())
    if (path.suffix in (".ko", ".o") and path.name != "debug-only.ko") or path.name.startswith("vmlinux")
)  # fmt: skip


@pytest.mark.parametrize("name", FIXTURES)
def test_columns_hold_what_the_report_says(name: str) -> None:
    """Every value of every column, as Arrow has it, against the JSON report's."""
    scan = ftpatch.scan(MINI.parent / name)
    rows = image_object(scan)["sites"]
    table = scan.table.to_arrow().to_pylist()
    assert len(table) == len(rows) == len(scan.table)
    numbers = ("record", "entry", "local_entry", "site", "branch", "offset")
    for row, columns in zip(rows, table, strict=True):
        told = {key: row.get(key) for key in columns}
        told |= {key: int(str(told[key]), 16) for key in numbers if told[key] is not None}
        told["record"] = told["record"] if row["section"] is not None else None
        assert columns == told


def test_columns_have_the_types_that_the_page_says_and_cannot_be_changed() -> None:
    sites = ftpatch.scan(FILE).table
    assert [str(sites[column.name].dtype) for column in COLUMNS] == [column.dtype for column in COLUMNS]
    with pytest.raises(ValueError, match="read-only"):
        sites["row"][0] = 7
    assert int(sites["row"][0]) == 0


def test_rows_are_chosen_by_masks_and_by_selectors() -> None:
    sites = ftpatch.scan(FILE).table
    late = sites.where(sites["section"] == ".init.text")
    assert late["function"].tolist() == ["b_setup", "b_late", "start_kernel", "a_setup"]
    assert late.select("b_*")["row"].tolist() == [15, 16]
    assert late.select("vfs_read")["row"].tolist() == []
    assert sites.select(status=["null"])["row"].tolist() == [0, 1, 2]
    with pytest.raises(SelectionError, match="nothing of that name"):
        sites.select("no_such_function")
    with pytest.raises(UsageError, match=r"no mask over the sites: found int64 of shape \(2,\), expected bool of"):
        sites.where([1, 2])  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        sites["no_such_column"]


def test_without_pyarrow_the_columns_are_numpys_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftpatch.sites.columns.find_spec", lambda name: None)
    sites = ftpatch.scan(FILE).table
    with pytest.raises(UsageError, match=r"^pyarrow is not installed – pip install 'ftpatch\[arrow\]'$"):
        sites.to_arrow()
    assert len(sites["function"]) == 19


def test_files_may_be_paths_and_choices_plain_selectors(tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = ftpatch.enable(Path(FILE), out, "vfs_read")
    assert written.output is not None and written.output.path == str(out)
    assert written.sites["function"].tolist() == ["vfs_read"] and written.sites["status"].tolist() == ["ready"]
    assert ftpatch.verify(Path(FILE), out).findings == ()
    assert ftpatch.drop(Path(FILE), None, ["vfs_read", "vfs_write"]).sites["function"].tolist() == [
        "vfs_read", "vfs_write",
    ]  # fmt: skip
    assert len(ftpatch.diff(Path(FILE), out).compared) == 1
    assert ftpatch.check(out).failed is False
    assert ftpatch.symbols(out).source == "symtab"
    assert ftpatch.image(Path(FILE), tmp_path / "Image").path == str(tmp_path / "Image")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Image", "out"]
