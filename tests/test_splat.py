"""Messages of ftrace taken apart: real ones from booted kernels, and their variants by the kernels' sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from elfwriter import MINI

from ftpatch import api
from ftpatch.cli import run
from ftpatch.errors import InputError
from ftpatch.explanation.causes import CAUSES
from ftpatch.explanation.diagnosis import diagnose, diagnose_in
from ftpatch.explanation.message import Splat, patterns
from ftpatch.explanation.splat import parse
from ftpatch.rules.register import rules_for

SPLATS = Path(__file__).parent.parent / "testdata" / "splats"
MINI_PPC = MINI.parent / "mini-ppc64le"
BUG = """\
------------[ ftrace bug ]------------
ftrace failed to modify
[<ffff800080000834>] {name}+{offset:#x}/0x40
 actual:   {actual}
{phase}
ftrace record flags: 0
 (0)
 expected tramp: ffffc35c37c2c898
pstate: 600000c5 (nZCv daIF -PAN -UAO -TCO -DIT -SSBS BTYPE=--)
"""
PHASE = "Initializing ftrace call sites"


def verify(line: int, off: str) -> tuple[tuple[str, str], ...]:
    """What x86 says before the message."""
    said = f"at arch/x86/kernel/ftrace.c:{line} ftrace_verify_code+0x{off}/0x90"
    return ((said, "the five bytes at a site are not those that ftrace wants to find there"),)


def only(text: str) -> Splat:
    (found,) = parse(text)
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("arm64-6.1", Splat("failed to modify", "arm64", "6.1.0-56-cloud-arm64", "__arm64_sys_getppid", 4, 0x40, None,
                            0xFFFFB84A2A6B4564, "init", 0, bytes.fromhex("82e1fd97"), users=0,
                            tramp=0xFFFFB84A2A62CB6C, warned=True)),
        ("arm64-6.12", Splat("failed to modify", "arm64", "6.12.117+deb13-cloud-arm64", "__arm64_sys_getppid", 4, 0x40,
                             None, 0xFFFFC35C37CC8B2C, "init", 0, bytes.fromhex("5b8ffd97"), users=0,
                             tramp=0xFFFFC35C37C2C898, warned=True)),
        ("ppc64le-6.1", Splat("failed to modify", "ppc64le", "6.1.0-50-powerpc64le", "sys_getppid", 12, 0x50, None,
                              0xC00000000015DD8C, "init", 0, bytes.fromhex("e504f14b"), None, 0x4BF0ED11,
                              0x4BF104E5, users=0, tramp=0xC00000000006E270, warned=True)),
        ("ppc64le-6.12", Splat("failed to modify", "ppc64le", "6.12.107+deb13-powerpc64le", "sys_getppid", 12, 0x50,
                               None, 0xC000000000167E9C, "init", 0, bytes.fromhex("4d6bf04b"), None, 0x60000000,
                               0x7C0802A6, 0xC000000000167E98, users=0, tramp=0xC00000000006E9E8, warned=True)),
        ("x86_64-6.1", Splat("failed to modify", "x86-64", "6.1.0-57-cloud-amd64", "vfs_read", 0, 0x310, None,
                             0xFFFFFFFF8134CC50, "init", 0, bytes.fromhex("e8ebead1ff"), bytes.fromhex("e8dbead1ff"),
                             users=0, tramp=0xFFFFFFFF8106B740, warned=True, remarks=verify(95, "4b"))),
        ("x86_64-6.12", Splat("failed to modify", "x86-64", "6.12.118+deb13-cloud-amd64", "vfs_read", 4, 0x370, None,
                              0xFFFFFFFF81435614, "init", 0, bytes.fromhex("e8c76ec5ff"), bytes.fromhex("e8976ec5ff"),
                              users=0, tramp=0xFFFFFFFF8108C4E0, warned=True, remarks=verify(100, "4c"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_real_message_is_read_to_the_last_field(name: str, expected: Splat) -> None:
    """Printed by Debian kernels whose patched site was still listed (--records keep)."""
    assert only((SPLATS / f"{name}.txt").read_text()) == expected


@pytest.mark.parametrize(
    "name", ["arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "x86_64-6.1", "x86_64-6.12"]
)
def test_the_words_alone_tell_the_cause_of_a_real_message(name: str) -> None:
    assert diagnose(only((SPLATS / f"{name}.txt").read_text())).cause is CAUSES["enabled"]


@pytest.mark.parametrize(
    "prefix",
    [
        "[    0.000000] ",
        "[    0.000000][    T0] ",
        "<6>[   12.345678] ",
        "Nov 20 17:00:01 box kernel: ",
        "> > ",
        "\t\t",
    ],
)
def test_what_stands_in_front_of_the_lines_does_not_matter(prefix: str) -> None:
    text = (SPLATS / "ppc64le-6.12.txt").read_text()
    lines = [line.partition("] ")[2] for line in text.splitlines()]
    assert only("".join(f"{prefix}{line}\r\n" for line in lines)) == only(text)


def test_two_messages_are_two_and_share_what_one_of_them_tells() -> None:
    first, second = parse((SPLATS / "arm64-6.12.txt").read_text() + BUG.format(
        name="vfs_read", offset=4, actual="1f:20:03:d5", phase="Setting ftrace call site to call ftrace function"
    ))  # fmt: skip
    assert (first.function, second.function) == ("__arm64_sys_getppid", "vfs_read")
    assert (second.phase, second.actual, second.release) == (
        "on",
        bytes.fromhex("1f2003d5"),
        "6.12.117+deb13-cloud-arm64",
    )


def test_bytes_with_their_sign_extended_and_a_hashed_address_are_read() -> None:
    text = "ftrace failed to modify\n[<(____ptrval____)>] f+0x4/0x8 [mod]\n actual:   ffffffe9:ffffffdb:11:97\n"
    assert only(text) == Splat(
        "failed to modify", function="f", offset=4, size=8, module="mod", actual=bytes.fromhex("e9db1197")
    )


def test_a_fault_names_an_address_and_no_function() -> None:
    found = only("ftrace faulted on modifying \n[<0000000000000004>] 0x4\nInitializing ftrace call sites\n")
    assert (found.what, found.function, found.ip) == ("faulted on modifying", None, 4)
    assert diagnose(found).cause is CAUSES["null"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("ftrace faulted on writing\n[<ffff800080000834>] f+0x4/0x8\n", "protected"),
        ("ftrace faulted on modifying\n[<ffff800080000834>] f+0x4/0x8\n", "gone"),
        (BUG.format(name="f", offset=4, actual="1f:20:03:d5", phase=PHASE), "half"),
        (BUG.format(name="f", offset=4, actual="12:34:56:78", phase=PHASE), "other"),
        (BUG.format(name="f", offset=4, actual="5b:8f:fd:97", phase="Setting ftrace call site to NOP"), "moved"),
        ("ftrace-powerpc: 0xc000000000002000: expected (60000000) != found (48c0df40)\n", "enabled"),
        ("ftrace-powerpc: 0xc000000000002000: expected (bl) != found (60000000)\n", "off-already"),
        ("ftrace failed to modify\n", "unknown"),
    ],
)
def test_each_cause_is_told_from_its_words(text: str, cause: str) -> None:
    assert diagnose(only(text)).cause is CAUSES[cause]


@pytest.mark.parametrize(
    "line",
    [
        "Misaligned patch-site f+0x4/0x8",
        "unexpected insn in patch-site f+0x0/0x8: 0xd503233f",
        "ftrace: no module PLT for ftrace_caller",
        "ftrace-powerpc: No ftrace trampolines reachable from f",
        "ftrace-powerpc: No ftrace stubs reachable from f",
        "ftrace-powerpc: No ftrace trampoline",
        "ftrace-powerpc: Not expected bl: opcode is 60000000",
        "ftrace-powerpc: Unexpected call sequence at (____ptrval____): 48000001",
        "ftrace-powerpc: No module loaded addr=c00000000006e270",
        "ftrace-powerpc: addr c000000000000000 does not match expected c00000000006e270",
        "ftrace-powerpc: 0xc000000000167e98: fetching instruction failed",
        "ftrace: FAILED to allocate memory for functions",
    ],
)
def test_what_the_machines_code_says_is_explained(line: str) -> None:
    ((message, text),) = only(f"[    1.000000] {line}\n").remarks
    assert message in line
    assert text in {meaning for _, meaning in patterns().remarks}


def test_a_text_without_a_message_is_refused() -> None:
    with pytest.raises(InputError, match="no ftrace message in this text: found 1 lines"):
        parse("Linux version 6.12\n")


def test_every_rule_of_a_cause_is_one_of_the_linters() -> None:
    assert {cause.rule for cause in CAUSES.values()} - {""} <= {rule.id for rule in rules_for()}


# -- with the file -------------------------------------------------------------------------------------------------


def patched(path: Path, folder: Path, *options: str) -> Path:
    assert run(["enable", str(path), "--func", "vfs_read", *options, "-o", str(folder / "patched")]) == 0
    return folder / "patched"


def message_of(path: Path, name: str = "vfs_read") -> str:
    """What a kernel would print at boot about this function of a file."""
    one = api.scan(str(path))
    at = next(i for i in range(len(one.sites)) if one.sites.name(i) == name)
    actual = ":".join(f"{byte:02x}" for byte in int(one.sites.body()[at, -1]).to_bytes(4, "little"))
    return BUG.format(
        name=name, offset=int(one.sites.branch_va[at] - one.sites.entry_va[at]), actual=actual, phase=PHASE
    )


@pytest.mark.parametrize("name", ["vmlinux-callops", "vmlinux-pfe2-bti", "vmlinux-exec"])
def test_the_file_that_booted_foretells_its_message(tmp_path: Path, name: str) -> None:
    out = patched(MINI / name, tmp_path, "--records", "keep")
    one = api.scan(str(out))
    told = diagnose_in(only(message_of(out)), one)
    assert told.cause is CAUSES["enabled"]
    assert told.foretold
    assert [one.sites.name(i) for i in told.index] == ["vfs_read"]
    assert (told.expected, told.found) == (0xD503201F, 0xAA1E03E9)
    assert "the file holds the very word there that the kernel found" in told.notes


def test_another_file_than_the_one_that_booted_is_told(tmp_path: Path) -> None:
    out = patched(MINI / "vmlinux-callops", tmp_path, "--records", "keep")
    one = api.scan(str(MINI / "vmlinux-callops"))
    told = diagnose_in(only(message_of(out)), one)
    assert told.cause is CAUSES["enabled"]
    assert not told.foretold
    assert "in this file the site is as the compiler left it: it is not the file that booted" in told.notes


def test_equal_names_are_told_apart_where_only_one_can_be_meant(tmp_path: Path) -> None:
    """`init_once` is in a.c and b.c; the kernel's message does not say which, the file's words do."""
    out = tmp_path / "patched"
    source = str(MINI / "vmlinux-callops")
    assert run(["enable", source, "--func", "init_once@b.c", "--records", "keep", "-o", str(out)]) == 0
    one = api.scan(str(out))
    told = diagnose_in(only(message_of(out, "init_once")), one)
    assert [one.image.symbols.file_of(int(one.image.functions.row[one.sites.func[i]])) for i in told.index] == ["b.c"]
    assert "2 functions of this file have that name; the kernel's message does not tell which" in told.notes


def test_a_function_that_the_file_has_not_is_elsewhere() -> None:
    one = api.scan(str(MINI / "vmlinux-callops"))
    text = BUG.format(name="mini_xmit", offset=4, actual="5b:8f:fd:97", phase=PHASE)
    assert diagnose_in(only(text), one).cause is CAUSES["elsewhere"]


def test_the_command_reads_a_log_from_stdin_or_a_file_and_needs_no_kernel(
    ftpatch: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ftpatch("explain", "--splat", SPLATS / "ppc64le-6.12.txt") == (
        "sys_getppid+0xc: ftrace failed to modify, at boot or load\n"
        "  kernel     ppc64le, 6.12.107+deb13-powerpc64le\n"
        "  expected   0x60000000\n"
        "  found      0x7c0802a6\n"
        "  actual     0x4bf06b4d at the call: bl 0xc00000000006e9e8\n"
        "  cause      likely: the site is enabled on disk and its record is still in the table (site-enabled)\n"
        "  to do      drop the record (ftpatch enable does unless told --records keep), or ftpatch disable "
        "restores the\n             NOPs\n"
        "  note       the call there leads to where ftrace wants it to lead\n"
    )


def test_the_json_of_a_message_has_its_site(ftpatch: Callable[..., str], tmp_path: Path) -> None:
    out = patched(MINI / "vmlinux-callops", tmp_path, "--records", "keep")
    (tmp_path / "log").write_text(message_of(out))
    found = json.loads(ftpatch("explain", "--splat", tmp_path / "log", out, "--format", "json"))
    (splat,) = found["splats"]
    assert (splat["rule"], splat["foretold"], splat["sites"][0]["row"]) == ("site-enabled", True, 12)
    assert [site["function"] for site in found["images"][0]["sites"]] == ["vfs_read"]


def test_what_other_code_says_in_such_words_is_no_message_of_ftrace() -> None:
    """The BPF compiler of powerpc compares words, too, and module loading fails in many ways."""
    other = "[ 1.0] 0xc008000000167e98: expected (60000000) != found (7c0802a6)\n[ 1.1] foo: No module loaded\n"
    with pytest.raises(InputError):
        parse(other)
    text = (SPLATS / "arm64-6.12.txt").read_text()
    assert parse(other + text) == parse(text)


def test_a_long_log_is_read_in_no_time() -> None:
    line = "[   12.345678] systemd[1]: Started some service of a name, and another of a name that is not shorter.\n"
    text = (SPLATS / "arm64-6.12.txt").read_text()
    assert parse(line * 50_000 + text + line * 50_000) == parse(text)
