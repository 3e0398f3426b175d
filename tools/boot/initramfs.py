"""A minimal initramfs: a cpio archive in the kernel's "newc" format, written without outside programs."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Member:
    """One entry of the archive; `mode` carries the file type bits, `rdev` is used for device nodes only."""

    name: str
    mode: int
    data: bytes = b""
    rdev: tuple[int, int] = (0, 0)


def directory(name: str) -> Member:
    """Return a directory entry that anyone may enter."""
    return Member(name, stat.S_IFDIR | 0o755)


def program(name: str, data: bytes) -> Member:
    """Return an executable regular file."""
    return Member(name, stat.S_IFREG | 0o755, data)


def file(name: str, data: bytes) -> Member:
    """Return a regular file that is only read."""
    return Member(name, stat.S_IFREG | 0o644, data)


def text(name: str, lines: Iterable[str]) -> Member:
    """Return a regular file that holds `lines`, each ended by a newline."""
    return file(name, "".join(f"{line}\n" for line in lines).encode())


def character_device(name: str, major: int, minor: int) -> Member:
    """Return a character device node (the kernel opens /dev/console from here for /init)."""
    return Member(name, stat.S_IFCHR | 0o600, rdev=(major, minor))


def archive(members: Iterable[Member]) -> bytes:
    """Return the newc archive of `members` in the given order, closed by the trailer the kernel looks for."""
    listed = [*members, Member(_TRAILER, 0)]
    return b"".join(_entry(inode, member) for inode, member in enumerate(listed, 1))


def _entry(inode: int, member: Member) -> bytes:
    """Return header, name and data of one member, each of them padded to four bytes."""
    links = 2 if stat.S_ISDIR(member.mode) else 1
    name = member.name.encode() + b"\0"
    fields = (inode, member.mode, 0, 0, links, 0, len(member.data), 0, 0, *member.rdev, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(member.data)


def _padded(blob: bytes) -> bytes:
    """Return `blob` with zero bytes up to the next multiple of four."""
    return blob + bytes(-len(blob) % 4)
