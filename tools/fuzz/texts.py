"""What people write, as fuzz targets: settings, baselines, selectors, logs, a stub's assembly.

Each takes a text and holds the program to its promises, on a small kernel that is sound.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from random import Random

from ftpatch import api
from ftpatch.arch import architectures
from ftpatch.errors import FtpatchError
from ftpatch.plan import stubasm
from ftpatch.rules import gate
from ftpatch.rules.files import CheckOptions
from ftpatch.rules.register import known_rules
from ftpatch.sites.select import select
from tools.fuzz import mutate, seeds
from tools.fuzz.files import Seen, named
from tools.fuzz.mutate_text import language

KERNELS = (seeds.FOLDERS[0] / "vmlinux-callops", seeds.FOLDERS[1] / "vmlinux-pg")


# -- what mutation starts from -----------------------------------------------------------------------------------------


def settings_of(real: bool = True) -> tuple[bytes, ...]:
    """Configurations in TOML."""
    whole = b"""\
must-be-traceable = ["vfs_read", "no_such", "init_*"]
[check]
fail-on = "warning"
select = ["dead-weak", "unsorted", "must-trace"]
ignore = ['null-after-live']
[rules.dead-weak]
severity = "note"
[rules]
unsorted = { severity = "error" }
[[ignore]]
rule = "dead-weak"
function = "arch_*"
object = "vmlinux*"
reason = "upstream knows"
"""
    return (
        whole,
        b"must-be-traceable = []\n",
        b"[check]\n",
        b"ignore = [{rule = 'dead-weak', object = '*', reason='x'}]\n",
    )


def baselines_of(real: bool = True) -> tuple[bytes, ...]:
    """What --write-baseline writes."""
    keys = [("dead-weak", "vmlinux", "", f"after_{n}", 1 + n % 2) for n in range(4)]
    keys.append(("must-trace", "vmlinux-callops", "vfs_read", "", 1))
    live = {"mini.ko": 6, "vmlinux-callops": 16, "vmlinux-pg": 32}
    return gate.render_baseline(keys, live), gate.render_baseline([], {})


def kconfigs_of(real: bool = True) -> tuple[bytes, ...]:
    """Some lines of a .config each."""
    lines = (b"CONFIG_FUNCTION_TRACER=y", b"CONFIG_DYNAMIC_FTRACE=y", b"# CONFIG_CFI_CLANG is not set",
             b"CONFIG_FUNCTION_ALIGNMENT=8", b'CONFIG_LOCALVERSION="-mini"', b"CONFIG_MODULE_SIG=m",
             b"CONFIG_MODULE_SIG_FORCE=y", b"CONFIG_BUILDTIME_MCOUNT_SORT=y", b"")  # fmt: skip
    return b"\n".join(lines), lines[0], lines[3] + b"\r\n" + lines[1]


def selectors_of(real: bool = True) -> tuple[bytes, ...]:
    """Lists of selectors, one a line, of every form."""
    forms = (b"vfs_read", b"vfs_*", b"/^vfs_[rw].*$/", b"!init_once", b"0xffff8000800005b8", b".text+0x10", b"row:3",
             b"vfs_read@main.c", b"*", b"[a-z]*", b"/(init|vfs)/", b"row:999999999999999999", b"# no more",
             b"vfs_read [mini]", b"ffff8000800005b8 vfs_read", b"__ftrace_invalid_address___8")  # fmt: skip
    return (*forms[:12], b"\n".join(forms[:4]), b"\n".join(forms[4:]), b"!vfs_*\n!/x/", b"/(a|b)*[^c]{2,5}$/")


def splats_of(real: bool = True) -> tuple[bytes, ...]:
    """Messages of kernels."""
    made = b"""\
ftrace-powerpc: 0xc000000000167e98: expected (60000000) != found (7c0802a6)
------------[ ftrace bug ]------------
ftrace faulted on modifying
[<c000000000167e9c>] sys_getppid+0xc/0x50 [mini]
 actual:   4d:6b:f0:4b
 expected: 00:00:00:60
Setting ftrace call site to call ftrace function
ftrace record flags: 81100001
"""
    return (made, *(path.read_bytes()[:3000] for path in sorted((seeds.ROOT / "testdata" / "splats").glob("*.txt"))))


def stubs_of(real: bool = True) -> tuple[bytes, ...]:
    """Stubs in assembly, and the directives that those do not have."""
    made = b".equ A, 0x10\n.set A0, 1\n1: nop\n.balign 8\n.quad printk\n.long 1b-2f, A-2*A0\n2: b 1b\n b site+4\n"
    files = sorted((seeds.ROOT / "testdata" / "stubs").glob("*.S"))
    return (made, b"x: .inst 0xd503201f\n bl target; b x\n", *(path.read_bytes() for path in files))


RULES = tuple(name.encode() for name in known_rules()[:6])
TOML = language(b"[", b"]", b"[[", b"{", b"}", b"=", b".", b"a.", b"'''", b'"""', b'"', b"\\u0000", b"\\U00110000",
                b"1979-05-27T07:32:00Z", b"inf", b"true", b"severity", b"ignore", b"reason", b"[rules.",
                *RULES)  # fmt: skip
JSON = language(b"[", b"]", b"{", b"}", b'{"a":', b"[[", b",", b":", b'"', b"null", b"NaN", b"Infinity", b"\\ud800",
                b'"baseline"', b'"records"', b'"findings"', b'"ordinal"', b"true", *RULES)  # fmt: skip
KCONFIG = language(b"CONFIG_", b"=", b"y", b"#", b'"', b"FUNCTION_ALIGNMENT", b"MODULE_SIG", b"is not set")
SELECTOR = language(b"*", b"?", b"[", b"]", b"[!", b"/", b"(", b")", b"(\\w+)+", b"(a|a)*", b"{1,99}", b"\\", b"$",
                    b"^", b"!", b"@", b"row:", b"0x", b"+0x", b".text", b"vfs_", b"(?P<x>", b"(?=", b"\\1", b"(?i)",
                    b"|", b"\\p{L}", b"[[:alpha:]]", b"@-", b"@/dev/zero", b"@.")  # fmt: skip
LOG = language(b"ftrace", b"------------[ ftrace bug ]------------\n", b"[<ffff8000800005b8>] ", b"+0x8/0x20",
               b" actual:   82:e1:fd:97", b"ffffffe9:7b:f0:4b", b"expected", b"Initializing ftrace call sites\n",
               b"____ptrval____", b"ftrace record flags: ", b"Not tainted 6.1.0", b"ftrace-powerpc:")  # fmt: skip
ASSEMBLY = language(b"bl", b"b", b"ret", b"nop", b"site+4", b"target", b"1:", b"1b", b"2f", b".quad ", b".inst ",
                    b".long ", b".balign ", b".equ X, ", b".set ", b"X", b"#", b"//", b"/*", b"*/", b"(", b")", b"<<",
                    b"[sp, #-16]!", b"~", b"@ha", b";", b"mflr", b"r0", b"x30", b"rlwinm 3,3,0,0xff",
                    b"adrp x1, ")  # fmt: skip


def json_baseline(data: bytes, rng: Random) -> bytes:
    """A baseline with a value changed, or its text."""
    return mutate.document(data, rng) if rng.random() < 0.4 else JSON(data, rng)


# -- the targets -------------------------------------------------------------------------------------------------------


@cache
def _scans() -> tuple[api.Scan, ...]:
    return tuple(api.scan(str(path)) for path in KERNELS)


def fuzz_settings(data: bytes, seen: Seen) -> None:
    """An ftpatch.toml, read and gone by: `check` of a kernel."""
    with named(data) as path:
        settings = api.check_settings(CheckOptions(config=path))
    seen.deep = True
    with _no_refusal("what the program read, Python does not"):
        tomllib.loads(data.decode())
    assert set(settings.request.rules) <= set(known_rules()), "a rule that there is not"
    assert settings.fail_on in ("note", "warning", "error"), "no severity"
    found = api.check(str(KERNELS[0]), settings)
    assert all(finding.message for file in found.files for finding in file.findings), "a finding that says nothing"


def fuzz_baseline(data: bytes, seen: Seen) -> None:
    with named(data) as path:
        known = gate.read_baseline(path)
        seen.deep = True
        again = gate.render_baseline(known.keys, known.live)
        with named(again) as other:
            assert gate.read_baseline(other) == known, "a baseline that is not read back"
        api.check(str(KERNELS[1]), api.check_settings(CheckOptions(baseline=path)))


def fuzz_kconfig(data: bytes, seen: Seen) -> None:
    with named(data) as path:
        settings = api.check_settings(CheckOptions(kconfig=path))
    seen.deep = True
    assert all(f"CONFIG_{name}=".encode() in data for name in settings.request.kconfig or ()), "an option from nowhere"
    api.check(str(KERNELS[0]), settings)


def fuzz_selectors(data: bytes, seen: Seen) -> None:
    """Selectors one by one, all of them together, and as a list in a file."""
    texts = [line for line in data.decode("utf-8", "surrogateescape").split("\n")[:8] if "\0" not in line]
    for scan in _scans():
        for text in texts:
            if not text.lstrip("!").startswith("@"):
                _selected(scan, [text], seen)
        with named(data) as path:
            _selected(scan, [f"@{path}"], seen)
            _selected(scan, [f"!@{path}"], seen)


def _selected(scan: api.Scan, texts: list[str], seen: Seen) -> None:
    try:
        chosen = select(scan.sites, texts)
    except FtpatchError as error:
        assert str(error).isprintable() and error.exit_code in (2, 3, 5), repr(error)
        return
    seen.deep = True
    assert len(chosen.mask) == len(scan.sites) and chosen.mask.any(), "nothing is chosen, and nothing is said"
    if not any(text.startswith(("!", "@")) for text in texts):  # taken away, it leaves the others
        left = select(scan.sites, ["*", *(f"!{text}" for text in texts)], missing=set()).mask
        assert not (left & chosen.mask).any(), "a site that is chosen and taken away"
    for note in chosen.notes:
        assert "\n" not in note, "a note of several lines"


def fuzz_splat(data: bytes, seen: Seen) -> None:
    """A log alone, and against the kernels."""
    text = data.decode("utf-8", "replace")
    told = api.explain_log(text).told
    seen.deep = True
    assert told, "no message, and no refusal"
    for path in KERNELS:
        assert len(api.explain_log(text, str(path)).told) == len(told), "other messages with a file"


def fuzz_stub(data: bytes, seen: Seen) -> None:
    """A stub for each machine that takes one."""
    refusals = []
    for arch in architectures():
        if arch.assembly is None:
            continue
        try:
            stub = stubasm.assemble(data, "stub.S", arch)
        except FtpatchError as error:
            refusals.append(error)
            continue
        seen.deep = True
        n = len(stub.code.words)
        assert len(stub.lines) == n and 0 <= stub.code.entry < 4 * n, "an entry outside the stub"
        assert all(0 <= fixup.off < 4 * n for fixup in stub.code.fixups), "a fixup outside the stub"
        assert all(0 <= word < 1 << 32 for word in stub.code.words), "a word that is none"
    if refusals and not seen.deep:
        raise refusals[0]


@contextmanager
def _no_refusal(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise AssertionError(f"{what}: {error}") from error
