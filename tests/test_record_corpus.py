"""record against Debian's modules, whose records were taken out first, and against the kernel's own recordmcount."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recorded_files import FIXTURES, places, without_records

from ftpatch import api
from ftpatch.elf import tables as t
from ftpatch.recovered.image import open_image
from tools import kernels
from tools.apt import Apt, extract, newest_first
from tools.kernels import Kernel, cache_directory

pytestmark = pytest.mark.corpus
FULL = os.environ.get("CORPUS") == "full"
# modules of each kernel: a hundred of each machine
SAMPLES = {"arm64-6.1": 50, "arm64-6.12": 50, "ppc64le-6.1": 40, "ppc64le-6.12": 30, "ppc64le-sid": 30,
           "x86_64-6.1": 50, "x86_64-6.12": 50}  # fmt: skip
CALLS = (
    "ppc64le-6.1",
    "x86_64-6.1",
    "x86_64-6.12",
)  # sites that are calls with relocations: nothing but the file is needed


@pytest.mark.parametrize("name", SAMPLES)
def test_a_module_without_its_records_gets_the_very_same_back(
    kernel: Callable[[str], Kernel], tmp_path: Path, name: str
) -> None:
    """By the file alone, by a list of names, and by the shipped module, in turn."""
    kernel(name)
    everything = sorted(kernels.modules(name).rglob("*.ko*"))
    step = 1 if FULL else max(len(everything) // (SAMPLES[name] + 12), 1)
    n, bare, out, names = 0, tmp_path / "bare.ko", tmp_path / "out.ko", tmp_path / "list"
    for path in everything[::step]:
        shipped = api.scan(str(path))
        if not shipped.records.live.any():
            continue
        bare.write_bytes(without_records(shipped.image.data.tobytes()))
        assert not len(api.scan(str(bare)).records)
        functions = [shipped.sites.name(row) for row in range(len(shipped.records))]
        names.write_text("\n".join(sorted({function for function in functions if function})))
        ways: list[dict[str, object]] = [
            {"func": [f"@{names}"]},
            {"other": str(path)},
            *([{}] if name in CALLS else []),
        ]
        way = ways[n % len(ways)]
        api.record(str(bare), api.Delivery(str(out), hashed=False), **way)  # type: ignore[arg-type]
        got, was = api.scan(str(out)).records, shipped.records
        # by name there is none for the code of overridden weak functions
        wanted = [place for place, function in zip(zip(was.sec.tolist(), was.off.tolist(), strict=True), functions,
                  strict=True) if function or "func" not in way]  # fmt: skip
        assert sorted(zip(got.sec.tolist(), got.off.tolist(), strict=True)) == sorted(wanted), path
        n += 1
    assert n >= SAMPLES[name]


# -- the kernel's own tool ---------------------------------------------------------------------------------------------

OBJECTS = ["arm64-pg.o", "ppc64le-mprofile.o", "x86_64-fentry.o"]


@pytest.fixture(scope="module")
def recordmcount(kernel: Callable[[str], Kernel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scripts/recordmcount of Linux 6.1, as Debian builds it for modules of other people."""
    tool = cache_directory() / "recordmcount-6.1"
    if not tool.exists():
        folder = tmp_path_factory.mktemp("kbuild")
        apt = Apt.prepare(cache_directory() / "apt" / "source", "amd64", ("bookworm", "bookworm-security"))
        _, deb = apt.download(newest_first("linux-kbuild-6.1", apt.candidates("linux-kbuild-6.1")), folder)
        extract(deb, {"recordmcount": "usr/lib/linux-kbuild-6.1/scripts/recordmcount"}, folder)
        (folder / "recordmcount").chmod(0o755)
        shutil.move(folder / "recordmcount", tool)
    return tool


Relocation = tuple[str, int, int, int]


def effect(path: Path) -> tuple[dict[str, bytes], set[Relocation]]:
    """The code of a file, and the relocations that do something to it."""
    image = open_image(str(path))
    code = {image.names[sec]: image.content(sec).tobytes() for sec in np.flatnonzero(image.executable).tolist()}
    rows = {
        (image.names[int(image.shdr["sh_info"][table])], int(row["r_offset"]), int(row["r_info"]), int(row["r_addend"]))
        for table in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA).tolist()
        for row in image.rows(table, t.RELA)
        if int(row["r_info"]) & 0xFFFF_FFFF and image.executable[int(image.shdr["sh_info"][table])]
    }
    return code, rows


@pytest.mark.parametrize("name", OBJECTS)
def test_records_and_nops_are_those_of_recordmcount(recordmcount: Path, tmp_path: Path, name: str) -> None:
    theirs, ours = tmp_path / "theirs.o", tmp_path / "ours.o"
    shutil.copy(FIXTURES / name, theirs)
    subprocess.run([recordmcount, theirs], check=True)
    api.record(str(FIXTURES / name), api.Delivery(str(ours)), nop=True)
    assert places(ours.read_bytes()) == places(theirs.read_bytes())
    assert len(places(ours.read_bytes())) == 5
    (code, rows), (their_code, their_rows) = effect(ours), effect(theirs)
    if name.startswith("ppc64le"):  # for which recordmcount has no NOP: what nobody records stays a call there
        untraced = (".exit.text", ".noinstr.text")
        for section in untraced:
            assert code.pop(section) != their_code.pop(section)
        their_rows = {row for row in their_rows if row[0] not in untraced}
        rows = {row for row in rows if row[0] not in untraced}
    assert (code, rows) == (their_code, their_rows)
