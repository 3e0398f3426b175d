"""Who may do what with a new file: owner, group, mode, ACL and attributes of what it replaces, and never more than with
what it is made of."""

from __future__ import annotations

import json
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from elfwriter import MINI

from ftpatch.cli import run

FIXTURE = (MINI / "vmlinux-callops").read_bytes()
ALICE, BOB, NOBODY = 1234, 1235, 65534  # user ids, and group ids
ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
ANY = 0xFFFF_FFFF  # the id of an entry that needs none
CAP_NET_RAW = struct.pack("<IIIII", 0x0200_0001, 1 << 13, 0, 0, 0)  # a struct vfs_cap_data, revision 2

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="run as root")


def acl(user: int, group: int, other: int, named: dict[int, int] | None = None, mask: int = 7) -> bytes:
    """An ACL as its attribute holds it; named: user id → permission bits."""
    entries = [(1, user, ANY), *((2, perm, uid) for uid, perm in (named or {}).items()), (4, group, ANY)]
    entries += [(16, mask, ANY), (32, other, ANY)] if named else [(32, other, ANY)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody may enter, with a kernel in it; the umask is 022."""
    before = os.umask(0o022)
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        monkeypatch.chdir(name)
        Path("vmlinux").write_bytes(FIXTURE)
        yield Path(name)
        monkeypatch.undo()
    os.umask(before)


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def access(path: str) -> tuple[int, int, str, dict[str, bytes]]:
    """Owner, group, mode, and extended attributes."""
    status = os.stat(path)
    attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return status.st_uid, status.st_gid, f"{stat.S_IMODE(status.st_mode):04o}", attributes


def mode(path: str) -> str:
    return access(path)[2]


def enable(*more: str) -> int:
    return run(["enable", "vmlinux", "--func", "vfs_read", *more])


def make(path: str, uid: int = 0, gid: int = 0, mode: int = 0o644, **attributes: bytes) -> None:
    """Give a file, made if need be, its access; attributes: by names whose first dot is two underscores."""
    Path(path).touch()
    os.chown(path, uid, gid)
    for name, value in attributes.items():
        os.setxattr(path, name.replace("__", "."), value)
    os.chmod(path, mode)


# -- what is replaced --------------------------------------------------------------------------------------------------

LABEL = b"system_u:object_r:boot_t:s0\0"
REPLACED: dict[str, Callable[[str], None]] = {
    "another owner": lambda path: make(path, ALICE, BOB, 0o640),
    "another owner, 0600": lambda path: make(path, ALICE, ALICE, 0o600),
    "a group": lambda path: make(path, 0, BOB, 0o664),
    "setuid": lambda path: make(path, ALICE, BOB, 0o4755),
    "setgid": lambda path: make(path, ALICE, BOB, 0o2755),
    "all set-id bits": lambda path: make(path, ALICE, BOB, 0o7755),
    "read-only": lambda path: make(path, 0, 0, 0o444),
    "no permissions": lambda path: make(path, ALICE, ALICE, 0),
    "user attributes": lambda path: make(path, ALICE, BOB, 0o640, user__a=b"1", user__b=b"", user__c=b"\0" * 200),
    "a trusted attribute": lambda path: make(path, 0, 0, 0o644, trusted__a=b"1"),
    "a label": lambda path: make(path, ALICE, BOB, 0o644, security__selinux=LABEL),
    "capabilities": lambda path: make(path, ALICE, BOB, 0o755, security__capability=CAP_NET_RAW),
    "an ACL": lambda path: make(path, ALICE, BOB, 0o640, system__posix_acl_access=acl(6, 4, 0, {NOBODY: 4})),
    "an ACL that forbids": lambda path: make(path, 0, 0, 0o644, system__posix_acl_access=acl(6, 4, 4, {NOBODY: 0})),
    "everything": lambda path: make(
        path, ALICE, BOB, 0o6750, user__a=b"1", security__selinux=LABEL, security__capability=CAP_NET_RAW,
        system__posix_acl_access=acl(7, 4, 0, {NOBODY: 5, ALICE: 0}, 5),
    ),
}  # fmt: skip


@needs_root
@pytest.mark.parametrize(
    ("name", "umask"), [*((name, 0o077) for name in REPLACED), ("everything", 0), ("a group", 0o027)]
)
def test_a_file_in_place_keeps_owner_mode_and_attributes(
    name: str, umask: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once it became root's, without its ACL, its label and its capabilities."""
    REPLACED[name]("vmlinux")
    before = access("vmlinux")
    os.umask(umask)
    assert enable("--in-place") == 0
    assert Path("vmlinux").read_bytes() != FIXTURE
    assert access("vmlinux") == before
    assert capsys.readouterr().err == ""
    assert run(["restore", "vmlinux", "--journal", "vmlinux.ftpatch.json", "--in-place"]) == 0
    assert Path("vmlinux").read_bytes() == FIXTURE
    assert access("vmlinux") == before


@needs_root
@pytest.mark.parametrize(
    ("name", "verb"), [*((name, "enable") for name in REPLACED),
                       *(("everything", verb) for verb in ("image", "restore", "report", "baseline"))]
)  # fmt: skip
def test_a_file_that_is_replaced_by_another_keeps_owner_mode_and_attributes(
    name: str, verb: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The input is open to everybody, and the output is to no more people than before."""
    os.chmod("vmlinux", 0o666)
    os.umask(0)
    REPLACED[name]("out")
    before = access("out")
    if verb == "restore":
        assert enable("-o", "patched", "--report", "json=journal") == 0
    capsys.readouterr()
    assert run({
        "enable": ["enable", "vmlinux", "--func", "vfs_read", "-o", "out"],
        "image": ["image", "vmlinux", "-o", "out"],
        "restore": ["restore", "patched", "--journal", "journal", "-o", "out"],
        "report": ["scan", "vmlinux", "--report", "json=out"],
        "baseline": ["check", "vmlinux", "--write-baseline", "out"],
    }[verb]) == 0  # fmt: skip
    assert Path("out").stat().st_size > 0
    assert capsys.readouterr().err == ""
    closed = f"{int(before[2], 8) & 0o7766:04o}"  # the input may be executed by nobody else
    assert access("out") == (*before[:2], closed, access("out")[3])
    assert access("out")[3].keys() == before[3].keys()
    assert all(access("out")[3][name] == value for name, value in before[3].items() if name != ACL)


@needs_root
@pytest.mark.parametrize("name", ["another owner", "an ACL", "a label"])
def test_a_report_that_is_taken_back_is_as_it_was(name: str, here: Path) -> None:
    REPLACED[name]("journal")
    Path("journal").write_bytes(b"old")
    before = access("journal")
    with pytest.MonkeyPatch.context() as patch:
        real = os.replace

        def refuse(old: str, new: str) -> None:
            if new == os.path.realpath("out"):
                raise OSError(28, "No space left on device")
            real(old, new)

        Path("out").write_bytes(b"old")
        patch.setattr(os, "replace", refuse)
        assert enable("-o", "out", "--report", "json=journal") == 3
    assert Path("journal").read_bytes() == b"old"
    assert access("journal") == before


@needs_root
def test_signatures_of_the_old_bytes_are_not_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """IMA's hash or signature is of the old bytes: on the new file it would be a lie."""
    make("vmlinux", security__ima=b"\x01" + bytes(20))
    assert enable("--in-place") == 0
    assert access("vmlinux")[3] == {}
    assert capsys.readouterr().err == (
        f"ftpatch: warning: {here}/vmlinux: not kept of the file it replaces: security.ima\n"
    )


# -- what a user may not keep ------------------------------------------------------------------------------------------

# what the file is like -> the mode that it has as a file of NOBODY, and what is told of it
LOST = {
    "another owner": (ALICE, ALICE, 0o644, "0644", f"group {ALICE}, owner {ALICE}"),
    "its group may read": (ALICE, BOB, 0o664, "0644", f"group {BOB}, owner {ALICE}"),
    "its group may not": (ALICE, BOB, 0o604, "0600", f"group {BOB}, owner {ALICE}"),
    "its group may write": (ALICE, NOBODY, 0o664, "0664", f"owner {ALICE}"),
    "setuid": (ALICE, NOBODY, 0o4755, "0755", f"owner {ALICE}, set-id bits"),
    "setgid": (NOBODY, BOB, 0o2755, "0755", f"group {BOB}, set-id bits"),
}


@needs_root
@pytest.mark.parametrize("name", LOST)
def test_what_a_user_may_not_keep_is_told_and_the_file_is_no_more_open(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uid, gid, bits, after, told = LOST[name]
    make("vmlinux", uid, gid, bits)
    os.chmod(here, 0o777)
    with as_user(NOBODY):
        assert enable("--in-place", "--report", "json=journal") == 0
    assert access("vmlinux") == (NOBODY, NOBODY if "group" in told else gid, after, {})
    found = capsys.readouterr().err.replace(" (Operation not permitted)", "")
    assert found == f"ftpatch: warning: {here}/vmlinux: not kept of the file it replaces: {told}\n"


@needs_root
def test_an_acl_and_capabilities_that_cannot_be_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The group of an ACL is the owning group: without that, the ACL speaks of other people."""
    make("vmlinux", NOBODY, BOB, 0o755, security__capability=CAP_NET_RAW, user__a=b"1")
    os.setxattr("vmlinux", ACL, acl(7, 5, 5, {ALICE: 0}))
    os.chmod(here, 0o777)
    with as_user(NOBODY):
        assert enable("--in-place", "--report", "json=journal") == 0
    assert access("vmlinux") == (NOBODY, NOBODY, "0700", {"user.a": b"1"})
    refused = "(Operation not permitted)"
    assert capsys.readouterr().err == (
        f"ftpatch: warning: {here}/vmlinux: not kept of the file it replaces: "
        f"group {BOB} {refused}, security.capability {refused}, access control list\n"
    )


@needs_root
def test_where_attributes_cannot_be_set_the_file_is_for_its_owner(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file system without ACLs may have the folder's other files from one that has them."""

    def refuse(fd: int, name: str, value: bytes) -> None:
        raise OSError(95, "Operation not supported")

    make("vmlinux", mode=0o644, user__a=b"1", system__posix_acl_access=acl(6, 4, 4, {ALICE: 0}))
    monkeypatch.setattr(os, "setxattr", refuse)
    assert enable("--in-place") == 0
    assert access("vmlinux")[2:] == ("0600", {})
    assert capsys.readouterr().err == (
        f"ftpatch: warning: {here}/vmlinux: not kept of the file it replaces: "
        "user.a (Operation not supported), access control list (Operation not supported)\n"
    )


# -- never more open than what it is made of ---------------------------------------------------------------------------

# umask, mode of the input, modes of the output and of the journal
NEW = [
    (0o022, 0o644, "0644", "0644"), (0o022, 0o600, "0600", "0600"), (0o022, 0o640, "0640", "0640"),
    (0o022, 0o755, "0755", "0644"), (0o022, 0o444, "0444", "0644"), (0o022, 0o400, "0400", "0600"),
    (0o022, 0o6755, "0755", "0644"), (0o022, 0o604, "0604", "0604"), (0o022, 0o606, "0604", "0604"),
    (0o000, 0o644, "0644", "0644"), (0o000, 0o666, "0666", "0666"), (0o000, 0o640, "0640", "0640"),
    (0o027, 0o644, "0640", "0640"), (0o027, 0o600, "0600", "0600"), (0o077, 0o644, "0600", "0600"),
    (0o077, 0o755, "0700", "0600"), (0o277, 0o644, "0400", "0400"),
]  # fmt: skip


@pytest.mark.parametrize(("umask", "bits", "output", "journal"), NEW, ids=[f"{n[0]:03o}-{n[1]:04o}" for n in NEW])
def test_a_new_file_is_no_more_open_than_its_input_and_the_umask(
    umask: int, bits: int, output: str, journal: str, here: Path
) -> None:
    """The journal holds pieces of the input. Once it was open to all, and the output did not ask for the umask."""
    os.chmod("vmlinux", bits)
    os.umask(umask)
    assert enable("-o", "out", "--report", "json=journal", "--report", "csv=table") == 0
    assert [mode(path) for path in ("out", "journal", "table", "vmlinux")] == [output, journal, journal, f"{bits:04o}"]


# modes of the input and of the output that is replaced -> of the new output and its journal
OVER = [
    (0o644, 0o600, "0600", "0600"), (0o600, 0o644, "0600", "0600"), (0o640, 0o604, "0600", "0600"),
    (0o644, 0o755, "0744", "0644"), (0o400, 0o600, "0600", "0600"), (0o666, 0o666, "0666", "0644"),
    (0o644, 0o444, "0444", "0644"), (0o755, 0o750, "0750", "0640"),
]  # fmt: skip


@pytest.mark.parametrize(("bits", "old", "output", "journal"), OVER, ids=[f"{n[0]:04o}-{n[1]:04o}" for n in OVER])
def test_an_output_that_replaces_a_file_is_no_more_open_than_both(
    bits: int, old: int, output: str, journal: str, here: Path
) -> None:
    """Once it had the mode of the input, whatever the file before it had."""
    os.chmod("vmlinux", bits)
    Path("out").write_bytes(b"old")
    os.chmod("out", old)
    assert enable("-o", "out", "--report", "json=journal") == 0
    assert [mode(path) for path in ("out", "journal")] == [output, journal]


@needs_root
@pytest.mark.parametrize(
    ("gid", "bits", "after"), [(BOB, 0o640, (0, BOB, "0640", {})), (BOB, 0o644, (0, 0, "0644", {})),
                               (BOB, 0o604, (0, 0, "0600", {})), (0, 0o640, (0, 0, "0640", {}))]
)  # fmt: skip
def test_a_new_file_is_for_the_input_s_group_where_the_input_is(
    gid: int, bits: int, after: tuple[int, int, str, dict[str, bytes]], here: Path
) -> None:
    """Mode 0640 means other people in another group."""
    make("vmlinux", ALICE, gid, bits)
    assert enable("-o", "out", "--report", "json=journal") == 0
    assert access("out") == after
    assert access("journal") == after


@needs_root
def test_a_user_who_cannot_give_the_group_gives_it_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("vmlinux", NOBODY, BOB, 0o640)
    os.chmod(here, 0o777)
    with as_user(NOBODY):
        assert enable("-o", "out", "--report", "json=journal") == 0
    assert access("out") == (NOBODY, NOBODY, "0600", {})
    assert access("journal") == (NOBODY, NOBODY, "0600", {})
    assert capsys.readouterr().err == ""


@needs_root
@pytest.mark.parametrize(
    ("rights", "after"),
    [(acl(6, 4, 4, {ALICE: 4}), "0644"), (acl(6, 4, 4, {ALICE: 0}), "0600"), (acl(6, 4, 0, {ALICE: 4}), "0600"),
     (acl(6, 0, 0, {ALICE: 6}), "0600"), (acl(6, 4, 4, {ALICE: 7}, mask=0), "0600")],
    ids=["more", "less", "group", "one", "mask"],
)  # fmt: skip
def test_a_new_file_is_no_more_open_than_the_acl_of_its_input(rights: bytes, after: str, here: Path) -> None:
    """Without the ACL, the mode's group bits mean the group, and not the ACL's mask."""
    os.setxattr("vmlinux", ACL, rights)
    assert enable("-o", "out", "--report", "json=journal") == 0
    assert access("out")[2:] == (after, {})
    assert access("journal")[2:] == (after, {})


@needs_root
@pytest.mark.parametrize(
    ("default", "bits", "after"),
    [(acl(7, 7, 7, {ALICE: 7}), 0o640, "0640"), (acl(7, 7, 7, {ALICE: 7}), 0o644, "0644"),
     (acl(6, 4, 0), 0o644, "0640"), (acl(6, 6, 0, {ALICE: 7}, mask=4), 0o664, "0640"), (acl(4, 0, 0), 0o644, "0400")],
    ids=["open", "open to all", "closed", "mask", "read-only"],
)  # fmt: skip
def test_the_acl_that_a_folder_gives_makes_no_file_more_open(default: bytes, bits: int, after: str, here: Path) -> None:
    """The system asks it instead of the umask, which is 077 here."""
    os.chmod("vmlinux", bits)
    Path("place").mkdir()
    os.setxattr("place", DEFAULT_ACL, default)
    os.umask(0o077)
    assert enable("-o", "place/out", "--report", "json=place/journal") == 0
    assert access("place/out")[2:] == (after, {})
    assert access("place/journal")[3] == {}
    assert int(mode("place/journal"), 8) & 0o077 & ~bits == 0


@needs_root
@pytest.mark.parametrize(("bits", "after"), [(0o640, (0, "0640")), (0o644, (BOB, "0644"))])
def test_a_folder_that_gives_its_group_makes_no_file_more_open(bits: int, after: tuple[int, str], here: Path) -> None:
    os.chmod("vmlinux", bits)
    Path("place").mkdir()
    os.chown("place", 0, BOB)
    os.chmod("place", 0o2775)
    assert enable("-o", "place/out") == 0
    assert access("place/out")[1:3] == after


def test_a_report_on_several_files_is_no_more_open_than_the_most_closed(here: Path) -> None:
    """Of a tree, too, and of files that are compared or verified."""
    assert enable("-o", "tree.ko", "--report", "json=journal") == 0
    Path("log").write_bytes((MINI.parent / "splats/arm64-6.12.txt").read_bytes())
    os.chmod("log", 0o600)
    os.chmod("journal", 0o600)
    Path("tree").mkdir()
    for name, bits in (("a.ko", 0o644), ("b.ko", 0o600)):
        Path("tree", name).write_bytes((MINI / "mini.ko").read_bytes())
        os.chmod(f"tree/{name}", bits)
    os.chmod("tree.ko", 0o640)
    for arguments, after in (
        (["scan", "vmlinux", "tree.ko"], "0640"), (["scan", "tree"], "0600"),
        (["diff", "vmlinux", "tree.ko"], "0640"), (["diff", "tree.ko", "vmlinux"], "0640"),
        (["verify", "vmlinux", "tree.ko"], "0640"), (["explain", "vfs_read", "tree.ko"], "0640"),
        (["check", "vmlinux"], "0644"), (["explain", "--splat", "log"], "0600"),
        (["verify", "vmlinux", "vmlinux", "--journal", "journal"], "0600"),
    ):  # fmt: skip
        run([*arguments, "--report", "json=r"])
        assert mode("r") == after, arguments
        os.unlink("r")


def test_a_restored_file_is_no_more_open_than_the_patched_one(here: Path) -> None:
    assert enable("-o", "patched", "--report", "json=journal") == 0
    os.chmod("patched", 0o600)
    assert run(["restore", "patched", "--journal", "journal", "-o", "back"]) == 0
    assert mode("back") == "0600"


@needs_root
@pytest.mark.parametrize(("owner", "how", "after"), [
    (ALICE, "-oout", (0, 0, "0644", {})), (0, "-oout", (0, 0, "0644", {"user.a": b"1"})),
    (ALICE, "--in-place", (ALICE, ALICE, "0666", {"user.a": b"1"})),
])  # fmt: skip
def test_nobody_gets_a_file_by_planting_its_name(
    owner: int, how: str, after: tuple[int, int, str, dict[str, bytes]], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In /tmp anybody can make a file of the name that root will write; it would be theirs to change."""
    os.chmod(here, 0o1777)
    file = "vmlinux" if how == "--in-place" else "out"
    make(file, owner, owner, 0o666, user__a=b"1")
    assert enable(how) == 0
    assert access(file) == after
    told = "replaces another user's file in a folder that is open to all; not kept: owner, mode and attributes"
    assert capsys.readouterr().err == ("" if after[3] else f"ftpatch: warning: {here}/out: {told}\n")


# -- names -------------------------------------------------------------------------------------------------------------


def test_other_names_of_a_file_that_is_replaced_keep_the_old_bytes(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").write_bytes(b"old")
    os.link("out", "other")
    assert enable("-o", "out") == 0
    assert Path("other").read_bytes() == b"old"
    assert capsys.readouterr().err == f"ftpatch: {here}/out: had 2 names (hard links); the others keep the old bytes\n"


@needs_root
def test_a_symlink_is_followed_and_its_file_keeps_its_access(here: Path) -> None:
    Path("place").mkdir()
    os.rename("vmlinux", "place/kernel")
    os.symlink("place/kernel", "vmlinux")
    REPLACED["everything"]("place/kernel")
    before = access("place/kernel")
    assert enable("--in-place") == 0
    assert os.readlink("vmlinux") == "place/kernel"
    assert access("place/kernel") == before
    assert [site["function"] for site in json.loads(Path("vmlinux.ftpatch.json").read_text())["images"][0]["sites"]]
    assert mode("vmlinux.ftpatch.json") == "0600"
