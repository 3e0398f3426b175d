"""From an image and a plan to a file: the only place where new bytes come into being.

    a file without a name ─ written, compared, checked, flushed ─> linked to a temporary name ─ renamed ─> OUT

A new file has no name at all until it is complete, so a run that is killed leaves nothing behind. Only a file that
replaces another needs a name to be renamed from, for the moment between two system calls; a kill in that moment leaves
one `.OUT.ftpatch-<16 hex digits>`. File systems that have no nameless files (NFS, FAT, old overlays) have that name all
along. The next run that writes OUT says so and removes it. Whatever goes wrong, OUT is the old file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import U8
from ftpatch.elf.image import Image
from ftpatch.errors import FtpatchError, InputError, UsageError
from ftpatch.plan.edits import Edits

COPY = 64 << 20  # bytes per copy call
GAP = 1 << 14  # edits closer than this are written in one piece
DIGITS = 16  # hex digits that make a temporary's name its own
PERMISSIONS = 0o777  # a set-id bit is its owner's to give: the result may have another owner

Note = Callable[[str], None]


def on_stderr(text: str) -> None:
    """Say it on stderr; where that is closed or full, not at all."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"ftpatch: {text}", file=sys.stderr, flush=True)


# -- where a file may go ---------------------------------------------------------------------------------------


def output_path(source: str, out: str) -> str:
    """Where `out` leads, symlinks followed. Raises UsageError where that is the input, or no place for a file, and
    InputError where the system cannot tell."""
    real = _place(out, "output")
    if os.path.exists(real) and os.path.exists(source) and os.path.samefile(real, source):
        raise UsageError("the output is the input", out, todo="name another output, or use --in-place")
    if not os.path.isdir(os.path.dirname(real)):
        raise UsageError("the output's directory does not exist", out)
    return real


def report_path(path: str) -> str:
    """Where a report file really lies. Raises UsageError where no file can be written there."""
    return _place(path, "report")


def _place(path: str, what: str) -> str:
    """Where a file of that name really lies, or would lie."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        status = None
    except NotADirectoryError:
        raise UsageError(f"the {what}'s directory is not a directory", path) from None
    except OSError as error:  # a loop of symlinks, a name too long, a directory that may not be entered
        raise InputError(f"cannot be written: {error.strerror}", path) from None
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise UsageError(f"the {what} is not a regular file", path)
    if os.path.basename(path) in ("", ".", ".."):
        raise UsageError(f"the {what} has the name of a directory", path)
    try:
        return os.path.realpath(path)
    except FileNotFoundError:
        raise UsageError("the current directory does not exist any more", path) from None


def require_distinct(reports: Sequence[str], files: Sequence[str]) -> None:
    """Refuse a report that would replace an input, the output, or another report."""
    taken = {_real(file) for file in files}
    for path in reports:
        real = _real(path)
        if real in taken or any(
            os.path.exists(real) and os.path.exists(t) and os.path.samefile(real, t) for t in taken
        ):
            raise UsageError("the report would replace another file of this run", path, todo="name another report file")
        taken.add(real)


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except FileNotFoundError:  # no current directory: _place says so
        return path


# -- new files -------------------------------------------------------------------------------------------------


@dataclass
class NewFile:
    """A file on its way to `path`, open as `fd`. temporary: the name that it has meanwhile, "" if none; `fd` is locked
    for as long as it is open, so that nobody takes that name for a leftover."""

    path: str
    mode: int
    fd: int
    temporary: str = ""
    published: bool = False

    @property
    def readable(self) -> str:
        """A path by which this process can read it."""
        return self.temporary or _by_descriptor(self.fd)

    def finish(self) -> None:
        """Nothing more is written: give it its mode, and have it on the disk."""
        with _told(self.path):
            os.fchmod(self.fd, self.mode & PERMISSIONS)
            os.fsync(self.fd)

    def publish(self) -> None:
        """Give it its name, in place of a file that has it. Raises InputError, and all is as it was."""
        with _told(self.path), uninterrupted():
            if not self.temporary and not self._link(self.path):
                temporary = _fresh(self.path)
                if not self._link(temporary):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))  # one of 2^64 names
                self.temporary = temporary
            if self.temporary:
                os.replace(self.temporary, self.path)
            self.temporary, self.published = "", True

    def _link(self, name: str) -> bool:
        """Name a nameless file; False where the name is taken."""
        try:  # a directory descriptor, meaningless here, makes Python call linkat(), which can follow the symlink
            os.link(_by_descriptor(self.fd), name, src_dir_fd=self.fd, follow_symlinks=True)
        except FileExistsError:
            return False
        return True

    def drop(self) -> None:
        """Close it; a temporary name goes away."""
        with uninterrupted(), contextlib.suppress(OSError):
            if self.temporary:
                os.unlink(self.temporary)
        _close(self.fd)


@contextlib.contextmanager
def whole_file(path: str, mode: int, note: Note = on_stderr) -> Iterator[NewFile]:
    """A new file, which the caller writes, finishes and publishes; nothing stays of one that is not published."""
    sweep(path, note)
    new = None
    try:
        with _told(path):
            with uninterrupted():  # a signal waits until `new` is known below
                new = _create(path, mode)
            yield new
        if new.published:
            with _told(path, "written, but its directory cannot be flushed"):
                _sync_folder(os.path.dirname(path))
    finally:
        if new:
            new.drop()


@contextlib.contextmanager
def named(files: Sequence[NewFile]) -> Iterator[None]:
    """Finished files under their names, taken back if what follows fails; signals wait until then.

    This is the order of a run's files: reports first, the output last and in one system call. For --in-place it must be
    so, since the journal alone can undo the patch: killed in between, a run leaves a journal whose patch was not made,
    which the sha256 of its output tells. With the output first, it would leave a patched kernel and no way back.
    """
    with uninterrupted(), contextlib.ExitStack() as stack:
        for file in files:
            stack.enter_context(_revocable(file))
        yield


@contextlib.contextmanager
def _revocable(file: NewFile) -> Iterator[None]:
    """The file under its name, durably; if the context ends badly, what was there before."""
    old = None
    with contextlib.suppress(OSError):
        old = open(file.path, "rb")  # noqa: SIM115 (outlives its name)
    fresh = not os.path.lexists(file.path)
    try:
        file.publish()
        with _told(file.path):
            _sync_folder(os.path.dirname(file.path))
        yield
    except BaseException:
        with contextlib.suppress(OSError, FtpatchError):
            ours = file.published and os.path.samestat(os.stat(file.path), os.fstat(file.fd))
            if ours and fresh:
                os.unlink(file.path)
            elif ours and old:
                with whole_file(file.path, stat.S_IMODE(os.fstat(old.fileno()).st_mode)) as back:
                    with open(back.fd, "wb", closefd=False) as copy:
                        shutil.copyfileobj(old, copy)
                    back.finish()
                    back.publish()
        raise
    finally:
        if old:
            old.close()


@contextlib.contextmanager
def own_input(image: Image, note: Note = on_stderr) -> Iterator[Callable[[], None]]:
    """For a run that replaces its own input: a function that raises InputError if that is not what was read any more.

    The input is locked, so of two such runs one is refused. What counts is the file that has the name now: its bytes
    against those that were read, and from here on its identity, size and time.
    """
    with _told(image.path, "cannot be read"):
        fd = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if _lock(fd, fcntl.LOCK_EX) is False:
            raise _changed(image.path, "another run that is replacing it")
        with _told(image.path, "cannot be read"):
            first = os.fstat(fd)
            if first.st_size != len(image.raw) or not _same_bytes(fd, image.raw):
                raise _changed(image.path, "other bytes")

        def check() -> None:
            try:
                now = os.stat(image.path)
            except OSError as error:
                raise _changed(image.path, error.strerror or str(error)) from None
            if _identity(now) != _identity(first):
                raise _changed(image.path, "another file, size or time")

        check()
        yield check
        if first.st_nlink > 1:
            note(f"{image.path}: had {first.st_nlink} names (hard links); the others keep the old bytes")
    finally:
        _close(fd)


def _changed(path: str, found: str) -> InputError:
    return InputError("changed while it was patched", path, found=found, todo="nothing was written; run again")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _same_bytes(fd: int, raw: U8) -> bool:
    done = 0
    while done < len(raw):
        piece = np.frombuffer(os.pread(fd, COPY, done), np.uint8)
        if not len(piece) or not np.array_equal(piece, raw[done : done + len(piece)]):
            return False
        done += len(piece)
    return True


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals wait: between a system call and the note of what it did, and between a run's files."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _told(path: str, what: str = "cannot be written") -> Iterator[None]:
    """What the system refuses is an InputError about `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {error.strerror}", path) from None


def _create(path: str, mode: int) -> NewFile:
    """A new file, locked: nameless where the file system can, and else under a temporary name."""
    while True:
        temporary = ""
        try:
            fd = os.open(os.path.dirname(path), os.O_RDWR | os.O_CLOEXEC | os.O_TMPFILE, 0o600)
        except OSError:
            fd = -1
        if fd >= 0 and not os.path.exists(_by_descriptor(fd)):  # no /proc: it could not get a name
            _close(fd)
            fd = -1
        if fd < 0:
            temporary = _fresh(path)
            fd = os.open(temporary, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        new = NewFile(path, mode, fd, temporary)
        if _lock(fd, fcntl.LOCK_EX) is not False and (not temporary or os.fstat(fd).st_nlink):
            return new
        new.drop()  # another run took it for a leftover before it was locked


def _close(fd: int) -> None:
    """close() may fail, and tells nothing then that fsync() did not."""
    with contextlib.suppress(OSError):
        os.close(fd)


def _by_descriptor(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _lock(fd: int, kind: int) -> bool | None:
    """Whether the lock was free and is ours now; None where the file system has no locks."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sync_folder(folder: str) -> None:
    """Have a folder's names on the disk; one that cannot be read, or knows no fsync, is left to the system."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        _close(fd)


# -- leftovers -------------------------------------------------------------------------------------------------


def _stem(path: str) -> str:
    """What the temporary names of a file begin with: its name, cut where the whole would be too long."""
    folder, name = os.path.split(path)
    limit = min(os.statvfs(folder).f_namemax, 255) - len("..ftpatch-") - DIGITS
    while len(os.fsencode(name)) > limit:
        name = name[:-1]
    return f".{name}.ftpatch-"


def _fresh(path: str) -> str:
    return os.path.join(os.path.dirname(path), _stem(path) + os.urandom(DIGITS // 2).hex())


def sweep(path: str, note: Note = on_stderr) -> None:
    """Remove, and name, the temporaries of runs that were killed while they wrote `path`."""
    folder = os.path.dirname(path)
    try:
        pattern = re.compile(re.escape(_stem(path)) + rf"[0-9a-f]{{{DIGITS}}}")
        found = [name for name in os.listdir(folder) if pattern.fullmatch(name)]
    except OSError:  # no such folder, or one that may not be listed
        return
    for name in sorted(found):
        _remove(os.path.join(folder, name), note)


def _remove(leftover: str, note: Note) -> None:
    """Remove a regular file of ours if nobody holds its lock: then its writer is gone."""
    fd = -1
    try:
        status = os.lstat(leftover)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return
        fd = os.open(leftover, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        free = _lock(fd, fcntl.LOCK_SH)  # enough against a writer's, and NFS grants no other to a reader
        if free is None:
            note(f"{leftover}: left alone: this file system has no locks, which tell whether its writer still runs")
        elif free and os.path.samestat(os.fstat(fd), os.lstat(leftover)):
            os.unlink(leftover)
            note(f"{leftover}: removed, left by an interrupted run")
    except FileNotFoundError:  # its writer was faster, or another run that sweeps
        return
    except OSError as error:
        note(f"{leftover}: left by an interrupted run, and cannot be removed: {error.strerror}")
    finally:
        if fd >= 0:
            _close(fd)


# -- contents --------------------------------------------------------------------------------------------------


def write(image: Image, edits: Edits, fd: int) -> None:
    """The whole ELF file with the edits in place, into an empty descriptor. Old bytes are compared first."""
    _copy(image, fd)
    for start, end in edits.runs(GAP):
        chunk = np.array(image.data[start:end])
        _patch(image, edits, start, chunk)
        _write_all(fd, chunk.data, start)
    if edits.tail:
        _write_all(fd, memoryview(edits.grown), len(image.data))


def assembled(image: Image, edits: Edits) -> bytearray:
    """The whole ELF file with the edits in place, in memory."""
    result = bytearray(image.data)
    _patch(image, edits, 0, np.frombuffer(result, dtype=np.uint8))
    return result + edits.grown


def _patch(image: Image, edits: Edits, start: int, chunk: U8) -> None:
    if not edits.patch(start, chunk):
        raise InputError("the input changed while it was read", image.path, found=f"other bytes near {start:#x}",
                         todo="nothing was written; run again on a file that nobody writes")  # fmt: skip


def _copy(image: Image, fd: int) -> None:
    """Copy by the kernel where the file systems can, else by hand; what is compressed on disk by hand alone."""
    size, done = len(image.data), 0
    if image.wrapping != "none":
        _write_all(fd, image.data.data, 0)
        return
    with _told(image.path, "cannot be read"):
        source = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while done < size:
            try:
                n = os.copy_file_range(source, fd, min(COPY, size - done), done, done)
            except OSError:
                n = 0
            if n == 0:
                break
            done += n
    finally:
        _close(source)
    while done < size:
        piece = image.data[done : done + COPY]
        _write_all(fd, np.ascontiguousarray(piece).data, done)
        done += len(piece)


def append(fd: int, piece: bytes) -> None:
    """Write all of `piece` at the end of what was written so far."""
    view = memoryview(piece)
    while len(view):
        view = view[os.write(fd, view) :]


def write_pieces(fd: int, pieces: Sequence[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]]) -> int:
    """Write pieces at their positions, ascending, into an empty descriptor, gaps zero; the file's size."""
    for pos, piece in pieces:
        _write_all(fd, np.ascontiguousarray(piece).data, pos)
    return pieces[-1][0] + len(pieces[-1][1])


def _write_all(fd: int, piece: memoryview, pos: int) -> None:
    while len(piece):
        n = os.pwrite(fd, piece, pos)
        piece, pos = piece[n:], pos + n
