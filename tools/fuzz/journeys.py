"""Whole command lines as fuzz targets: every verb on a changed file. What it says is held against what all of them
promise, and what it wrote against the verbs that read it: `verify` accepts it, and `restore` gives the input back.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from ftpatch.errors import FtpatchError
from ftpatch.recovered.image import open_image
from tools.fuzz import seeds
from tools.fuzz.files import Seen, command, folder, named
from tools.fuzz.parsers import MAX_SIZE

FORMATS = ("text", "json", "csv", "sarif", "junit", "ktap", "markdown", "github", "html")
FUNCTIONS = ("vfs_read", "init_once", "mini_*", "*", "/^vfs/", "row:3", "no_such", "tiny_notrace", ".text+0x10")


def fuzz_scan(data: bytes, seen: Seen) -> None:
    with _file(data, seen) as path:
        command(seen, "scan", path, "--sites")
        command(seen, "scan", path, "--sites", "--format", "json", form="json")
        command(seen, "symbols", path)
        command(seen, "symbols", path, "--format", "json", form="json")


def fuzz_check(data: bytes, seen: Seen) -> None:
    """Every rule, in text and in another format."""
    form = Random(zlib.crc32(data)).choice(FORMATS)
    with _file(data, seen) as path:
        code = command(seen, "check", path, "--lines", "--predict")
        assert command(seen, "check", path, "--lines", "--format", form, form=form) == code, (
            "another format, other code"
        )


def fuzz_explain(data: bytes, seen: Seen) -> None:
    rng = Random(zlib.crc32(data))
    with _file(data, seen) as path:
        for func in rng.sample(FUNCTIONS, 2):
            command(seen, "explain", func, path)
        command(seen, "explain", func, path, "--format", "json", form="json")


def fuzz_diff(data: bytes, seen: Seen) -> None:
    """Against a sound file, either way round; against itself there is no difference."""
    rng = Random(zlib.crc32(data))
    with _file(data, seen) as path, named(rng.choice(seeds.kernels_of())) as other:
        pair = (path, other) if rng.random() < 0.5 else (other, path)
        command(seen, "diff", *pair, "--all")
        command(seen, "diff", *pair, "--format", "json", form="json")
        assert command(seen, "diff", path, path) != 1, "a file that differs from itself"


def fuzz_image(data: bytes, seen: Seen) -> None:
    out = Path(folder()) / "image"
    with _file(data, seen) as path:
        code = command(seen, "image", path, "-o", str(out))
    if code == 0:
        assert out.stat().st_size <= max(64 << 20, len(data)), "a boot image that is far larger than the file"
    out.unlink(missing_ok=True)


def fuzz_verify(data: bytes, seen: Seen) -> None:
    """A damaged result against its sound input, with its journal and without."""
    before, after, journal = min(seeds.results(), key=lambda result: _distance(result.after, data))
    with _file(data, seen) as path, named(before) as old, named(journal) as report:
        code = command(seen, "verify", old, path)
        with_journal = command(seen, "verify", old, path, "--journal", report, "--format", "json", form="json")
        assert not (code == 1 and with_journal == 0), "a journal takes a finding away"
        assert data == after or with_journal != 0, "other bytes than the journal's sha256 names were accepted"


def _distance(one: bytes, other: bytes) -> int:
    """Bytes in which two files differ, roughly: in length, and in every 64th."""
    return abs(len(one) - len(other)) + sum(a != b for a, b in zip(one[::64], other[::64], strict=False))


def fuzz_enable(data: bytes, seen: Seen) -> None:
    """`enable`, and `disable` of what it made; options by the input's checksum."""
    rng = Random(zlib.crc32(data))
    options = ["--func", rng.choice(("*", "*", *FUNCTIONS))]
    options += rng.choice(([], ["--skip-unpatchable"], ["--skip-unpatchable"]))
    options += ["--records", rng.choice(("auto", "auto", "auto", "null", "minus4", "shrink", "keep"))]
    options += ["--ops-via", rng.choice(("auto", "auto", "auto", "literal", "thunk"))]
    options += rng.choice(([], [], [], ["--force-early"]))
    options += rng.choice(([], [], ["--hook", "mini_untraced"], ["--hook", "_printk"], ["--target", "ftrace_caller"]))
    if _written(data, seen, "enable", options):
        again = ["--func", "*", "--status", "enabled", "--skip-unpatchable"]
        _written(Path(folder(), "out").read_bytes(), seen, "disable", again)


def fuzz_redirect(data: bytes, seen: Seen) -> None:
    """`redirect`, and `disable` of what it made; the pairs by the input's checksum."""
    rng = Random(zlib.crc32(data))
    others = ("vfs_write", "sys_getppid", "direct_only", "slot_probe", "mini_work", "_printk", "ftrace_caller")
    pairs = [f"{rng.choice(FUNCTIONS)}={rng.choice(others)}" for _ in range(rng.choice((1, 1, 2)))]
    options = [word for pair in pairs for word in ("--map", pair)]
    flags = ("--skip-unpatchable", "--force-signature", "--assume-register-args", "--force-early")
    options += [flag for flag in flags if rng.random() < 0.9]
    options += ["--records", rng.choice(("auto", "auto", "auto", "null", "minus4", "shrink"))]
    if _written(data, seen, "redirect", options):
        again = ["--func", "*", "--status", "enabled", "--skip-unpatchable"]
        _written(Path(folder(), "out").read_bytes(), seen, "disable", again)


def fuzz_static_calls(data: bytes, seen: Seen) -> None:
    """Keys and sites in text and as JSON; then one or two keys set, by the input's checksum."""
    rng = Random(zlib.crc32(data))
    with _file(data, seen) as path:
        command(seen, "static-calls", path, "--line-size", str(rng.choice((8, 64, 96, 4096))))
        command(seen, "static-calls", path, "--sites", "--format", "json", form="json")
    keys, others = ("reader", "prober", "zero", "nothing", "no_such"), ("NULL", "return0", *FUNCTIONS[:2], "vfs_write")
    pairs = [f"{rng.choice(keys)}={rng.choice(others)}" for _ in range(rng.choice((1, 1, 2)))]
    options = [word for pair in pairs for word in ("--set", pair)]
    _written(data, seen, "static-calls", [*options, "--force-signature", *rng.choice(([], ["--skip-unpatchable"]))])


def fuzz_record(data: bytes, seen: Seen) -> None:
    """`record` by the file's calls, or by the names of functions; options by the input's checksum."""
    rng = Random(zlib.crc32(data))
    ways: tuple[list[str], ...] = (
        [],
        ["--nop"],
        ["--func", "*"],
        ["--func", "*", "--skip-unpatchable"],
        ["--section", "__mcount_loc"],
    )
    _written(data, seen, "record", rng.choice(ways))


def fuzz_link(data: bytes, seen: Seen) -> None:
    """A damaged object that brings a replacement along for a sound module, as `--with` takes it."""
    module = seeds.linked_to(data)
    with _file(data, seen) as patch, named(module) as path:
        pairs = ["--map", "mini_step=fixed_step", "--force-signature", "--assume-register-args"]
        options = [*pairs, "--with", patch, "--keep-original", "old_step"]
        _undone(path, module, seen, "redirect", options)


def fuzz_undo(data: bytes, seen: Seen) -> None:
    """`drop` and `disable`, likewise."""
    rng = Random(zlib.crc32(data))
    options = ["--func", "*", *rng.choice(([], ["--skip-unpatchable"], ["--status", "weak-leftover"]))]
    if rng.random() < 0.5:
        _written(data, seen, "disable", options)
    else:
        _written(data, seen, "drop", [*options, "--records", rng.choice(("auto", "auto", "null", "minus4", "shrink"))])


def _written(data: bytes, seen: Seen, verb: str, options: list[str]) -> bool:
    """As `_undone`, of a file with this content."""
    with _file(data, seen) as path:
        return _undone(path, data, seen, verb, options)


def _undone(path: str, data: bytes, seen: Seen, verb: str, options: list[str]) -> bool:
    """A result that `verify` accepts and `restore` undoes; a refusal that leaves nothing, and gives False."""
    top = Path(folder())
    for name in top.iterdir():  # of a run that ended as a finding
        name.unlink()
    out, journal, back = (str(top / name) for name in ("out", "journal", "back"))
    if command(seen, verb, path, *options, "-o", out, "--report", f"json={journal}"):
        left = sorted(file.name for file in top.iterdir())
        assert not left, f"left behind by a refusal: {left}"
        return False
    assert command(seen, "verify", path, out, "--journal", journal) == 0, f"{verb}: not what verify accepts"
    assert command(seen, "restore", out, "--journal", journal, "-o", back) == 0, f"{verb}: cannot be undone"
    assert Path(back).read_bytes() == data, f"{verb}: restore gave other bytes back"
    return True


@contextmanager
def _file(data: bytes, seen: Seen) -> Iterator[str]:
    """The input as a file, which must be what it was when all is done."""
    with named(data) as path:
        try:
            open_image(path, MAX_SIZE)
            seen.deep = True
        except FtpatchError:
            seen.refused = True
        yield path
        assert Path(path).read_bytes() == data, "the input was changed"
