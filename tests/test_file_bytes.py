"""Files that another program writes to while they are read: one line and exit code 3, or the answer of before.

Once files were mapped: a truncated one killed the process (SIGBUS), one that was rewritten gave an answer about no
state that the file ever had.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elfwriter import MINI
from hypothesis import given
from hypothesis import strategies as st

from ftpatch.cli import run
from ftpatch.container import file_bytes
from ftpatch.container.file_bytes import FileBytes
from ftpatch.errors import ChangedError, InputError
from ftpatch.inputs import open_regular

CONTENT = np.random.default_rng(13).integers(0, 256, 10_007, dtype=np.uint8).tobytes()
OCTETS = np.frombuffer(CONTENT, np.uint8)
CHANGED = "the file changed while it was read: found {} – run again when no other program writes it"


@pytest.fixture(autouse=True)
def in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read as large ones are, 512 bytes at once, so that a run has many reads to be disturbed at."""
    for name, value in (("CHUNK_BITS", 9), ("CHUNK", 512), ("WHOLE", 0)):
        monkeypatch.setattr(file_bytes, name, value)


def opened(path: Path, content: bytes = CONTENT) -> FileBytes:
    path.write_bytes(content)
    return FileBytes.of_file(str(path), *open_regular(str(path)))


# -- the bytes -----------------------------------------------------------------------------------------------------


positions = st.integers(0, len(CONTENT) - 40)


@given(st.lists(st.tuples(positions, st.integers(0, 3000)), max_size=6), st.lists(positions, max_size=30))
def test_every_way_in_gives_the_bytes_of_the_file(ranges: list[tuple[int, int]], places: list[int]) -> None:
    fd = os.memfd_create("file")
    os.write(fd, CONTENT)
    data = FileBytes.of_file("file", fd, os.fstat(fd))
    pos = np.array(places, dtype=np.int64)
    assert len(data) == len(CONTENT)
    for start, size in ranges:
        assert data.peek(start, start + size) == CONTENT[start : start + size]
        assert data[start : start + size].tobytes() == CONTENT[start : start + size]
        part = data.part(start, min(size, len(data) - start))
        assert b"".join(piece.tobytes() for piece in part.pieces(3)) == CONTENT[start + 3 : start + size]
        inside = pos % max(len(part), 1)
        assert not len(part) or (part[inside] == OCTETS[start:][inside]).all()
    assert (data[pos[:, None] + np.arange(3)] == OCTETS[pos[:, None] + np.arange(3)]).all()
    assert (data.rows(pos, 17) == OCTETS[pos[:, None] + np.arange(17)]).all()
    words = [int.from_bytes(CONTENT[at & ~3 : (at & ~3) + 8], "little") for at in places]
    assert data.words(pos & ~3, 2).astype(np.uint64) @ np.array([1, 1 << 32], np.uint64) == pytest.approx(words, abs=0)
    assert data.tobytes() == CONTENT


def test_rows_that_are_longer_than_chunks_are_read_whole(tmp_path: Path) -> None:
    data = opened(tmp_path / "file")
    pos = np.array([5, 4000, 1000], dtype=np.int64)
    assert (data.rows(pos, 2000) == OCTETS[pos[:, None] + np.arange(2000)]).all()


@pytest.mark.parametrize("unit", [1, 4])
def test_many_places_are_gathered_through_one_buffer(
    unit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order, across pieces, at both ends of the file and of a part; nothing of it is kept."""
    monkeypatch.setattr(file_bytes, "MANY", 1)
    monkeypatch.setattr(file_bytes, "GATHERED", 1024)
    data = opened(tmp_path / "file").part(8, len(CONTENT) - 11)
    pos = np.array([9984, 0, 1020, 4, 1024, 5000, 1020], dtype=np.int64)
    expected = OCTETS[8 + pos[:, None] + np.arange(12)]
    gathered = data.rows(pos, 12) if unit == 1 else data.words(pos, 3).view(np.uint8)
    assert (gathered == expected).all()
    assert data._source is not None and not data._source.loaded.any()
    for outside in (-4, 9988):
        with pytest.raises(IndexError):
            data.rows(np.array([0, outside]), 12)


def test_only_what_is_asked_for_is_read_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[int, int]] = []
    real = os.preadv

    def counted(fd: int, buffers: list[memoryview], pos: int) -> int:
        reads.append((pos, len(buffers[0])))
        return real(fd, buffers, pos)

    monkeypatch.setattr(os, "preadv", counted)
    data = opened(tmp_path / "file")
    _ = data[1000:1100], data[1023:1025], data[np.array([9999, 1100])], data.rows(np.array([600, 5110]), 20)
    assert reads == [(512, 1024), (9728, 279), (4608, 512), (5120, 512)]
    reads.clear()
    assert b"".join(piece.tobytes() for piece in data.pieces(size=4096)) == CONTENT
    assert reads == [(0, 4096), (4096, 4096), (8192, 1815)]
    assert data[512:1536].tobytes() == CONTENT[512:1536]  # what was kept is not read again
    assert len(reads) == 3


def test_positions_outside_are_refused(tmp_path: Path) -> None:
    data = opened(tmp_path / "file")
    for place in (-1, len(CONTENT)):
        with pytest.raises(IndexError):
            _ = data[np.array([3, place])]


def test_a_file_for_which_there_is_no_room_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 1 << 43)  # sparse; more than the addresses of some machines, and the memory of all
    with pytest.raises(InputError) as caught:
        opened_huge(path, 1 << 62)
    assert str(caught.value) == (
        f"{path}: there is not enough memory to read it: found {1 << 62} bytes – free memory, or raise its limit "
        "(ulimit -v)"
    )


def opened_huge(path: Path, size: int) -> FileBytes:
    """The file as if it had so many bytes."""
    fd, status = open_regular(str(path))
    return FileBytes.of_file(str(path), fd, os.stat_result((*status[:6], size, *status[7:])))


# -- the file changes ----------------------------------------------------------------------------------------------


def rewritten(path: Path) -> None:
    """Another build of the same size. Its time is another, too, however coarse the clock of the file system is."""
    path.write_bytes(bytes(octet ^ 0xFF for octet in path.read_bytes()))
    os.utime(path, ns=(1, 1))


def shortened(path: Path, by: int) -> None:
    os.truncate(path, max(path.stat().st_size - by, 0))


# how, and what the line says that was found, of a file of `{size}` bytes
CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "emptied": (lambda path: os.truncate(path, 0), "0 bytes, expected {size}"),
    "cut in half": (lambda path: os.truncate(path, path.stat().st_size // 2), "{half} bytes, expected {size}"),
    "a byte shorter": (lambda path: shortened(path, 1), "{less} bytes, expected {size}"),
    "a byte longer": (lambda path: shortened(path, -1), "{more} bytes, expected {size}"),
    "rewritten": (rewritten, "a write in between"),
}


def found(how: str, size: int) -> str:
    return CHANGES[how][1].format(size=size, half=size // 2, less=size - 1, more=size + 1)


WAYS_IN: dict[str, Callable[[FileBytes], object]] = {
    "range": lambda data: data[9000:9100],
    "places": lambda data: data[np.array([9000])],
    "rows": lambda data: data.rows(np.array([9000]), 4),
    "words": lambda data: data.words(np.array([9000])),
    "peek": lambda data: data.peek(9000, 9100),
    "pieces": lambda data: list(data.pieces()),
    "sha256": lambda data: data.sha256(),
    "after a copy": lambda data: data.require_unchanged(),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("way", WAYS_IN)
def test_bytes_of_a_file_that_changed_are_never_seen(way: str, how: str, tmp_path: Path) -> None:
    data = opened(tmp_path / "file")
    before = data[:600]
    CHANGES[how][0](tmp_path / "file")
    with pytest.raises(ChangedError) as caught:
        WAYS_IN[way](data)
    assert str(caught.value) == f"{tmp_path / 'file'}: " + CHANGED.format(found(how, len(CONTENT)))
    assert before.tobytes() == data[:600].tobytes() == CONTENT[:600]  # what was read stays as it was


def test_a_file_that_is_shorter_than_its_size_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated and grown again between a read and the look at its size, on a clock that did not tick."""
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, pos: real(fd, [buffers[0][:300]], pos) if pos < 512 else 0)
    with pytest.raises(ChangedError) as caught:
        _ = opened(tmp_path / "file")[:1024]
    assert str(caught.value) == f"{tmp_path / 'file'}: " + CHANGED.format("its end at 0x258, expected 10007 bytes")


def test_a_file_that_is_replaced_under_its_name_is_read_on(tmp_path: Path) -> None:
    data = opened(tmp_path / "file")
    (tmp_path / "new").write_bytes(b"another")
    os.replace(tmp_path / "new", tmp_path / "file")
    assert data.tobytes() == CONTENT


def test_a_read_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(tmp_path / "file")

    def fails(*args: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fails)
    monkeypatch.setattr(os, "pread", fails)
    for way in set(WAYS_IN) - {"after a copy"}:
        with pytest.raises(InputError) as caught:
            WAYS_IN[way](data)
        assert str(caught.value) == f"{tmp_path / 'file'}: cannot be read: Input/output error"


# -- every verb ----------------------------------------------------------------------------------------------------


VERBS = {  # {0}: the file that changes; what else they read is beside it
    "scan": ("scan", "{0}"),
    "scan json": ("scan", "{0}", "--format", "json"),
    "check": ("check", "{0}", "--sites"),
    "explain": ("explain", "vfs_read", "{0}"),
    "diff, old": ("diff", "{0}", "other"),
    "diff, new": ("diff", "other", "{0}"),
    "verify, before": ("verify", "{0}", "other"),
    "verify, after": ("verify", "other", "{0}"),
    "enable": ("enable", "{0}", "--func", "*", "--skip-unpatchable", "-o", "out", "--report", "json=J"),
    "enable in place": ("enable", "{0}", "--func", "vfs_read", "--in-place"),
    "restore": ("restore", "{0}", "--journal", "J.json", "-o", "out"),
    "image": ("image", "{0}", "-o", "out"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a kernel, its patched copy and the journal; it is the current directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(MINI / "vmlinux-callops", "vmlinux")
    assert run(["enable", "vmlinux", "--func", "vfs_read", "-o", "patched", "--report", "json=J.json"]) == 0
    return tmp_path


class Disturbed:
    """Another program that changes a file behind the at-th read of it, and how many reads there were."""

    def __init__(self, path: str, at: int, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.at, self.change, self.n = Path(path), at, change, 0
        self.inode = self.path.stat().st_ino
        for name in ("preadv", "pread"):
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def read(fd: int, *args: Any) -> Any:
            result = real(fd, *args)
            if os.fstat(fd).st_ino == self.inode:
                self.n += 1
                if self.n == self.at:
                    self.change(self.path)
            return result

        return read


def disturbed(verb: str, at: int, how: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, int, str]:
    """A run with a change behind the at-th read: how many reads there were, exit code, and what it said."""
    patched = verb in ("restore", "verify, after")
    for source, name in (("patched", "victim"), ("vmlinux", "other")) if patched else (
        ("vmlinux", "victim"), ("patched", "other"),
    ):  # fmt: skip
        shutil.copyfile(source, name)
    with pytest.MonkeyPatch.context() as patch:
        program = Disturbed("victim", at, CHANGES[how][0], patch)
        code = run([argument.format("victim") for argument in VERBS[verb]])
    out, err = capsys.readouterr()
    assert code != 3 or verb == "scan json" or out == ""  # which has an object for each error
    return program.n, code, err


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("how", CHANGES)
def test_a_change_at_any_read_ends_in_one_line(
    how: str, verb: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    size = Path("patched").stat().st_size
    n, code, _ = disturbed(verb, 0, how, capsys)
    assert code == (1 if "diff" in verb else 0) and n >= 10
    for name in ("out", "J", "victim.ftpatch.json"):
        Path(name).unlink(missing_ok=True)
    for at in range(1, n + 1):
        _, code, err = disturbed(verb, at, how, capsys)
        lines = {f"ftpatch: victim: {CHANGED.format(found(how, size))}\n"}
        if verb == "enable in place":  # which reads its input a last time to compare it
            lines |= {f"ftpatch: victim: changed while it was patched: found {what} – nothing was written; run again\n"
                      for what in ("other bytes", "another file, size or time")}  # fmt: skip
        assert code == 3 and err in lines, f"at read {at}: {err}"
        assert {path.name for path in here.iterdir()} == {"vmlinux", "patched", "victim", "other", "J.json"}


def test_a_module_that_changes_does_not_hide_the_others_of_a_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.ko", "b.ko", "c.ko"):
        shutil.copyfile(MINI / "mini.ko", name)
    size = Path("b.ko").stat().st_size
    Disturbed("b.ko", 2, CHANGES["cut in half"][0], monkeypatch)
    assert run(["scan", "."]) == 3
    out, err = capsys.readouterr()
    assert err == f"ftpatch: ./b.ko: {CHANGED.format(found('cut in half', size))}\n"
    assert "2 modules" in out
