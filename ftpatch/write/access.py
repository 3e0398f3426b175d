"""Who may do what with a new file: as with the file that it replaces, and never more than with what it is made of.

    replaces a file      that file's owner, group, mode, ACL and extended attributes
    has a new name       the runner's; the mode that is asked for, less the umask or the folder's default ACL
    in both cases        group and others get nothing that they do not have with each source

What the system refuses to give is told, and then the file is less open, not more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

ACL = "system.posix_acl_access"
DEFAULT_ACL = "system.posix_acl_default"  # of a folder: what new files in it get, instead of by the umask
# An ACL as its attribute holds it: include/uapi/linux/posix_acl_xattr.h, posix_acl.h.
VERSION_SIZE = 4
ENTRY = struct.Struct("<HHI")  # e_tag, e_perm, e_id
ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER = 0x01, 0x04, 0x10, 0x20
# Signatures of the old file: of its bytes, and of its inode. On another file they are wrong.
SIGNATURES = ("security.ima", "security.evm")
# How the system says that this file or user cannot have it, now or later.
REFUSALS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.E2BIG, errno.ERANGE)
SET_IDS = stat.S_ISUID | stat.S_ISGID
File = str | int  # a path, whose symlinks are followed, or a descriptor


@dataclass(frozen=True)
class Access:
    """Who may do what with a file."""

    uid: int
    gid: int
    mode: int  # permission and set-id bits; the group's are the mask of the ACL, if there is one
    acl: bytes = b""  # as its attribute holds it
    file: tuple[int, int] = (0, 0)  # its device and inode

    def entries(self) -> Iterator[tuple[int, int]]:
        """Tag and permission bits of every entry of the ACL."""
        for tag, perm, _ in ENTRY.iter_unpack(self.acl[VERSION_SIZE:]):
            yield tag, perm

    @property
    def anybody(self) -> int:
        """Permission bits that everybody has, whoever it is."""
        least = self.mode >> 3 & self.mode & 7
        for tag, perm in self.entries():
            least &= 7 if tag in (ACL_USER_OBJ, ACL_MASK) else perm
        return least

    def closed_as(self, source: Access) -> Access:
        """No more open to group and others than `source` is to them."""
        alike = self.gid == source.gid and not self.acl and not source.acl
        allowed = source.mode & 0o077 if alike else source.anybody * 0o011
        return replace(self, mode=self.mode & (0o7700 | allowed))


def access_of(file: File) -> Access:
    """Who may do what with it."""
    status = os.stat(file)
    mode, file_id = stat.S_IMODE(status.st_mode), (status.st_dev, status.st_ino)
    return Access(status.st_uid, status.st_gid, mode, _attribute(file, ACL) or b"", file_id)


def access_for(fd: int, folder: str, mode: int, replaced: File | None, sources: Sequence[str]) -> Access:
    """Who shall do what with the new file `fd` in `folder`, which is made of `sources`.

    mode: permission bits that are asked for, if it replaces no file.
    """
    made_of = [_of_source(source) for source in sources]
    if replaced is None:
        access = replace(access_of(fd), mode=mode & 0o777 & _creation_mask(folder), acl=b"")
        # A source that is for the members of a group is, with their group, for the same people in the new file.
        if made_of and not made_of[0].acl and made_of[0].mode >> 3 & 7 & ~made_of[0].anybody:
            access = replace(access, gid=made_of[0].gid)
    else:
        access = access_of(replaced)
    for source in made_of:
        if replaced is None or access.file != source.file:  # a file that replaces its source is as open as that
            access = access.closed_as(source)
    return access


def is_planted(path: str, sources: Sequence[str]) -> bool:
    """Whether a file, which is no source, may be there so that its owner gets the new one: what fs.protected_regular
    keeps the system's own open() from."""
    status, folder = os.lstat(path), os.stat(os.path.dirname(path))
    open_to_all = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
    known = (os.geteuid(), folder.st_uid)
    return bool(open_to_all) and status.st_uid not in known and access_of(path).file not in map(_file_of, sources)


def _file_of(path: str) -> tuple[int, int]:
    return _of_source(path).file


def _of_source(path: str) -> Access:
    """Who may do what with a source; where it is gone meanwhile, its owner alone."""
    try:
        return access_of(path)
    except OSError:
        return Access(-1, -1, 0)


def give(fd: int, access: Access, attributes_of: File | None = None) -> list[str]:
    """Give a new file its owner, group, mode and ACL, and the extended attributes of another; what was not possible."""
    lost: list[str] = []
    made = os.fstat(fd)
    # The owner last: who gives a file away may do nothing more with it. Both clear set-id bits and capabilities.
    for what, own, wanted, ids in (
        ("group", made.st_gid, access.gid, (-1, access.gid)), ("owner", made.st_uid, access.uid, (access.uid, -1)),
    ):  # fmt: skip
        if own != wanted:
            with _noted(lost, f"{what} {wanted}"):
                os.fchown(fd, *ids)
    made = os.fstat(fd)
    if attributes_of is not None:
        lost += _copy_attributes(fd, attributes_of)
    mode = access.mode if made.st_uid == access.uid else access.mode & ~SET_IDS
    if not _give_acl(fd, access, made.st_gid, lost):
        mode &= 0o1700 | access.anybody * 0o011
    os.fchmod(fd, mode)
    if os.fstat(fd).st_mode & SET_IDS != access.mode & SET_IDS:
        lost.append("set-id bits")
    return lost


def _give_acl(fd: int, access: Access, gid: int, lost: list[str]) -> bool:
    """Give a new file its ACL, or none; whether its group, `gid`, and its ACL are what they should be."""
    if access.acl and gid == access.gid:
        with _noted(lost, "access control list"):
            os.setxattr(fd, ACL, access.acl)
            return True
    elif access.acl:  # its group is the owning group: it would speak of other people
        lost.append("access control list")
    with contextlib.suppress(OSError):  # one that the folder gave; most have none, and some file systems no ACLs
        os.removexattr(fd, ACL)
    return not access.acl and gid == access.gid and _attribute(fd, ACL) is None


def _copy_attributes(fd: int, source: File) -> list[str]:
    """Give a file the extended attributes of another; the names of those that it could not get."""
    lost: list[str] = []
    names: list[str] = []
    with contextlib.suppress(OSError):  # a file system without any
        names = os.listxattr(source)
    for name in sorted(names):
        if name in SIGNATURES:
            lost.append(name)
        elif name != ACL:
            with _noted(lost, name):
                value = os.getxattr(source, name)
                if _attribute(fd, name) != value:
                    os.setxattr(fd, name, value)
    return lost


@contextlib.contextmanager
def _noted(lost: list[str], what: str) -> Iterator[None]:
    """A context in which what the system refuses is added to a list. What only fails, for want of space, is raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        lost.append(f"{what} ({error.strerror})")


def _attribute(file: File, name: str) -> bytes | None:
    """The value of an extended attribute; None where there is none."""
    try:
        return os.getxattr(file, name)
    except OSError:
        return None


def _creation_mask(folder: str) -> int:
    """Permission bits that a new file in a folder may have."""
    bits = {ACL_USER_OBJ: 7, ACL_GROUP_OBJ: 7, ACL_MASK: 7, ACL_OTHER: 7}
    default = Access(0, 0, 0, _attribute(folder, DEFAULT_ACL) or b"")
    if not default.acl:
        return 0o777 & ~_umask()
    bits.update(entry for entry in default.entries() if entry[0] in bits)
    return bits[ACL_USER_OBJ] << 6 | (bits[ACL_GROUP_OBJ] & bits[ACL_MASK]) << 3 | bits[ACL_OTHER]


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    return mask
