"""What several test files share: the fixtures in testdata, and the real kernels where they were asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftpatch.cli import run
from tools import kernels

MINI = Path(__file__).parent.parent / "testdata" / "mini"
WANTED = os.environ.get("CI") == "true" or os.environ.get("KERNELS") == "1"
HOW = "KERNELS=1 make test runs it (fetches 1 GB of Debian kernels and modules and QEMU once)"


@pytest.fixture
def mini() -> Path:
    """The folder of small kernels and objects of our own."""
    return MINI


@pytest.fixture(scope="session")
def kernel() -> Callable[[str], kernels.Kernel]:
    """A function: name of a Debian kernel → its files, fetched on first use. Skips unless kernels were asked for."""
    if not WANTED:
        pytest.skip(HOW)
    kernels.ensure_tools()
    return kernels.ensure


@pytest.fixture(scope="session")
def programs() -> None:
    """What tests marked `programs` need is there: installed on first use. Skips unless the kernels were asked for."""
    if not WANTED:
        pytest.skip(HOW)
    kernels.ensure_tools()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests, one for all workers."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture
def ftpatch(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run one command line that must succeed; its stdout."""

    def call(*arguments: object) -> str:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return call


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two workers take file after file: those that take long come first, so that both are busy to the end.

    A boot takes seconds and a test with a real kernel one; of the others, it is their number that counts.
    """
    weight = Counter[Path]()
    for item in items:
        slow = {"boot": 100, "programs": 40, "corpus": 20}
        weight[item.path] += next((seconds for mark, seconds in slow.items() if mark in item.keywords), 1)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: -weight[item.path])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where the real kernels were asked for, a skipped corpus, boot or programs test is a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    asked_for = WANTED and {"corpus", "boot", "programs"} & set(item.keywords)
    if asked_for and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but the kernels were asked for: {report.longrepr}"
