"""New files: from bytes without a name to a complete file under its name.

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
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ftpatch.errors import FtpatchError
from ftpatch.signals import undone
from ftpatch.write import access
from ftpatch.write.leftovers import sweep, temporary_name
from ftpatch.write.system import (
    Note,
    as_input_error,
    by_descriptor,
    close,
    lock,
    on_stderr,
    sync_folder,
    turn,
    uninterrupted,
)

PLANTED = "replaces another user's file in a folder that is open to all; not kept: owner, mode and attributes"
COPY = 1 << 20  # bytes of a file that are copied at once
# What linkat() of a nameless file gives where that alone is refused: by a container, an overlay, protected_hardlinks.
NO_LINK = (errno.EPERM, errno.EACCES, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOENT)


@dataclass
class NewFile:
    """A file on its way to its name."""

    path: str  # where it goes; symlinks are followed already
    mode: int  # permission bits that are asked for, where it replaces no file
    sources: tuple[str, ...]  # the files that it is made of: it is no more open than these
    fd: int  # open for writing, and locked: so nobody takes a temporary name for a leftover
    temporary: str = ""  # the name that it has meanwhile, "" if none
    published: bool = False  # whether it has its name
    remarks: list[str] = field(default_factory=list)  # what to say of it once it has its name

    @property
    def readable(self) -> str:
        """A path by which this process can read it."""
        return self.temporary or by_descriptor(self.fd)

    def finish(self, like: int | None = None) -> None:
        """Nothing more is written: give it owner and mode, and have it on the disk.

        like: an open file that it takes after, instead of the one that has its name.
        """
        with as_input_error(self.path):
            replaced: int | str | None = like if like is not None else self.path if os.path.lexists(self.path) else None
            if replaced == self.path and access.is_planted(self.path, self.sources):
                self.remarks.append(f"warning: {self.path}: {PLANTED}")
                replaced = None
            wanted = access.access_for(self.fd, os.path.dirname(self.path), self.mode, replaced, self.sources)
            lost = access.give(self.fd, wanted, replaced)
            if replaced == self.path:
                self._remark(lost)
            os.fsync(self.fd)

    def _remark(self, lost: list[str]) -> None:
        """Have it said what of the file that it replaces is lost, or stays under other names."""
        status = os.stat(self.path)
        if lost:
            self.remarks.append(f"warning: {self.path}: not kept of the file it replaces: {', '.join(lost)}")
        if status.st_nlink > 1 and not any(map(self._is, self.sources)):
            self.remarks.append(other_names(self.path, status.st_nlink))

    def _is(self, source: str) -> bool:
        """Whether a source is the file that is replaced; then `own_input` tells of its other names."""
        return os.path.exists(source) and os.path.samefile(self.path, source)

    def publish(self) -> None:
        """Give it its name, in place of a file that has it. Raises InputError, and all is as it was."""
        with as_input_error(self.path), uninterrupted():
            if not self.temporary:
                try:
                    self._link_or_temporary()
                except OSError as error:
                    if error.errno not in NO_LINK:
                        raise
                    self._copy()
            if self.temporary:
                os.replace(self.temporary, self.path)
            self.temporary, self.published = "", True

    def _link_or_temporary(self) -> None:
        """Give a nameless file its name, or a temporary one where a file has that."""
        try:
            self._link(self.path)
        except FileExistsError:  # link() replaces no file, rename() does
            temporary = temporary_name(self.path)
            self._link(temporary)
            self.temporary = temporary

    def _copy(self) -> None:
        """Put a file with a temporary name in the place of a nameless one, to which the system gives none."""
        new = _named(self.path, self.mode, self.sources)
        try:
            with open(self.fd, "rb", closefd=False) as old, open(new.fd, "wb", closefd=False) as copy:
                old.seek(0)
                shutil.copyfileobj(old, copy, COPY)
            access.give(new.fd, access.access_of(self.fd), self.fd)
            os.fsync(new.fd)
            os.dup2(new.fd, self.fd, inheritable=False)
            self.temporary, new.temporary = new.temporary, ""
        finally:
            new.drop()

    def _link(self, name: str) -> None:
        """Name a nameless file."""
        # A directory descriptor, meaningless here, makes Python call linkat(), which can follow the symlink.
        os.link(by_descriptor(self.fd), name, src_dir_fd=self.fd, follow_symlinks=True)

    def drop(self) -> None:
        """Close it; a temporary name goes away."""
        with uninterrupted(), contextlib.suppress(OSError):
            if self.temporary:
                os.unlink(self.temporary)
        close(self.fd)


def other_names(path: str, n: int) -> str:
    """What to say of a file that is replaced under one of its names."""
    return f"{path}: had {n} names (hard links); the others keep the old bytes"


@contextlib.contextmanager
def whole_file(path: str, mode: int, sources: Sequence[str] = (), note: Note = on_stderr) -> Iterator[NewFile]:
    """A new file, which the caller writes, finishes and publishes; nothing stays of one that is not published.

    mode, sources: as NewFile has them.
    """
    sweep(path, note)
    with contextlib.ExitStack() as stack:
        with as_input_error(path):
            with uninterrupted():  # a signal waits until it is known below what is to be undone
                new = _create(path, mode, tuple(sources))
                stack.enter_context(undone(new.drop))
                stack.callback(new.drop)
            yield new
        if new.published:
            for remark in new.remarks:
                note(remark)
            with as_input_error(path, "written, but its directory cannot be flushed"):
                sync_folder(os.path.dirname(path))


@contextlib.contextmanager
def named(files: Sequence[NewFile]) -> Iterator[None]:
    """Finished files under their names, taken back if what follows fails; signals wait until then, and other runs that
    write files in these folders: whatever they have in common is all of one run.

    Reports first, the output last and in one system call. For --in-place it must be so, since the journal alone can
    undo the patch: killed in between, a run leaves a journal whose patch was not made, which the sha256 of its output
    shows. With the output first, it would leave a patched kernel and no way back.
    """
    with contextlib.ExitStack() as stack:
        for folder in sorted({os.path.dirname(file.path) for file in files}):  # in one order, or two runs wait for ever
            stack.enter_context(turn(folder))
        stack.enter_context(uninterrupted())
        for file in files:
            stack.enter_context(_revocable(file))
        yield


@contextlib.contextmanager
def _revocable(file: NewFile) -> Iterator[None]:
    """The file under its name, durably; if the context ends badly, what was there before."""
    old = None  # the file that is replaced, open: its bytes can be put back as long as this run lives
    with contextlib.suppress(OSError):
        old = open(file.path, "rb")  # noqa: SIM115 (outlives its name)
    was_absent = not os.path.lexists(file.path)
    try:
        file.publish()
        with as_input_error(file.path):
            sync_folder(os.path.dirname(file.path))
        yield
    except BaseException:
        with contextlib.suppress(OSError, FtpatchError):
            # Somebody may have replaced it in turn: that file is not taken away.
            is_new_file = file.published and os.path.samestat(os.stat(file.path), os.fstat(file.fd))
            if is_new_file and was_absent:
                os.unlink(file.path)
            elif is_new_file and old:
                with whole_file(file.path, 0o600) as back:
                    with open(back.fd, "wb", closefd=False) as copy:
                        shutil.copyfileobj(old, copy)
                    back.finish(like=old.fileno())
                    back.publish()
        raise
    finally:
        if old:
            old.close()


def _create(path: str, mode: int, sources: tuple[str, ...]) -> NewFile:
    """A new file, locked: nameless where the file system can, and else under a temporary name."""
    try:
        fd = os.open(os.path.dirname(path), os.O_RDWR | os.O_CLOEXEC | os.O_TMPFILE, 0o600)
    except OSError:
        return _named(path, mode, sources)
    if not os.path.exists(by_descriptor(fd)):  # no /proc: it could not get a name
        close(fd)
        return _named(path, mode, sources)
    lock(fd, fcntl.LOCK_EX)
    return NewFile(path, mode, sources, fd)


def _named(path: str, mode: int, sources: tuple[str, ...]) -> NewFile:
    """A new file under a temporary name, locked."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    while True:
        temporary = temporary_name(path)
        new = NewFile(path, mode, sources, os.open(temporary, flags, 0o600), temporary)
        if lock(new.fd, fcntl.LOCK_EX) is not False and os.fstat(new.fd).st_nlink:
            return new
        new.drop()  # another run took it for a leftover before it was locked
