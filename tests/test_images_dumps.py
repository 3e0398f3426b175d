"""Dumps of running kernels: their words were moved, so they are read where they ran, and never patched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flat_kernels import flat_kernel

from ftpatch.cli import run
from ftpatch.document.files import file_object
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file
from ftpatch.write import bootimage, contents, deliver
from tools import kernels

MINI = Path(__file__).parents[1] / "testdata" / "mini"
SLIDE = 0x2B5_F3A0_0000


def dumped(image: Image, content: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
    """Relocate a flat kernel in place, as it does it itself; `image`: the same kernel."""
    base = np.uint64(image.shdr["sh_addr"][1:].min())
    rows = image.rela[0][image.rela[0]["r_info"] == image.arch.relative]
    places = np.concatenate([image.relr_places(0, t.LAST_VA), rows["r_offset"]]) - base
    octets = places.astype(np.int64)[:, None] + np.arange(8)
    words = content[octets].view("<u8").ravel()
    words[len(words) - len(rows) :] = rows["r_addend"].view(np.uint64)
    content[octets] = (words + np.uint64(SLIDE)).view(np.uint8).reshape(-1, 8)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["arm64-6.1", "arm64-6.12"])
def test_a_dump_is_read_where_it_ran(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vmlinux, path = open_image(str(kernels.ensure(name).vmlinux)), tmp_path / "dump"
    with path.open("wb") as file:
        contents.write_pieces(file.fileno(), bootimage.boot_image(vmlinux))
    stock = scan_file(str(path))
    content = np.fromfile(path, np.uint8)
    dumped(stock.image, content)
    path.write_bytes(content.tobytes())
    found = scan_file(str(path))
    assert file_object(found.image, None)["moved"] == f"{SLIDE:#x}"
    assert (found.records.null == stock.records.null).all()  # zeros were moved, too
    live = np.flatnonzero(stock.records.live)
    assert (found.sites.va[live] == stock.sites.va[live] + np.uint64(SLIDE)).all()
    assert (found.sites.status[live] == stock.sites.status[live]).all()
    assert [found.sites.name(site) for site in live.tolist()] == [stock.sites.name(site) for site in live.tolist()]
    assert run(["enable", str(path), "--func", "vfs_read", "-o", str(tmp_path / "out")]) == 5
    assert capsys.readouterr().err == (
        f"ftpatch: {path}: a dump of a running kernel is not patched: found words that were moved by {SLIDE:#x} – "
        "patch the file that was booted\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_dump_is_no_input_for_a_patch(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(flat_kernel(MINI / "vmlinux-callops"))
    image = open_image(str(tmp_path / "Image"))
    assert image.recovered is not None and "moved" not in file_object(image, None)
    moved = replace(image, recovered=image.recovered._replace(moved=0x4000))
    assert file_object(moved, None)["moved"] == "0x4000"
    assert deliver.packing_for(image, "out", "strip", None)[0] == deliver.Packing()
    with pytest.raises(PolicyError, match="found words that were moved by 0x4000 – patch the file that was booted"):
        deliver.packing_for(moved, "out", "strip", None)
