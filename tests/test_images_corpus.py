"""Images of Debian's kernels without symbols or headers, and its own boot files: they give what the vmlinux gives."""

from __future__ import annotations

import gc
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftpatch import api
from ftpatch.compare.diff import compare_files
from ftpatch.compare.digest import Digest, functions
from ftpatch.compare.static_calls import NO_STATIC_CALLS, static_calls
from ftpatch.document.rows import image_object
from ftpatch.document.static_call_rows import Asked, static_calls_object
from ftpatch.document.types import ImageObject
from ftpatch.elf import tables as t
from ftpatch.explanation.function import explain_function
from ftpatch.recovered.image import open_image
from ftpatch.report.explain import explanation_object
from ftpatch.rules import check
from ftpatch.rules.case import Case
from ftpatch.rules.register import rules_for
from ftpatch.rules.run import longer_layout
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import read_records
from ftpatch.sites.scan import Scan, scan_file
from ftpatch.sites.static_calls import read_static_calls
from tools import kernels

pytestmark = pytest.mark.corpus
Get = Callable[[str], kernels.Kernel]
HEADS = slice(40, 48), slice(60, 64)  # of an ELF header: e_shoff; e_shnum and e_shstrndx
# what an image has beside what its vmlinux has, and what lies elsewhere in its file, or has another number there
FORM = {"file", "sha256", "container", "layers", "symbols_from", "pos", "shndx", "text_sections"}
# what only debug information and the symbol table have: sizes, source files, and what a function was compiled with
TOLD = {"size", "file", "source", "source_unknown", "unit", "inlined", "relocation_pos"}
# kernels whose kallsyms name code alone: the kernel's trampolines in init text cannot be found
CODE_ALONE = {"arm64-6.1", "ppc64le-6.1", "x86_64-6.1"}
# how the names begin of code that is no part of the kernel at run time, and that kallsyms leaves out
BARE = "no section headers"  # what is told by sections is compared, but not all over again
LEFT_OUT = ("__efistub_", "__pi_", "__kvm_nvhe_")
SHOWN = ("vfs_read", "start_kernel")


@dataclass(frozen=True)
class Reading:
    """One file, read once."""

    scan: Scan

    @cached_property
    def image(self) -> ImageObject:
        """The IMAGE object, with every 40th site."""
        some = np.zeros(len(self.scan.sites), dtype=bool)
        some[::40] = True
        return image_object(self.scan, some)

    @cached_property
    def names(self) -> list[tuple[str | None, list[str]]]:
        """The name of each site, and its other names."""
        sites = self.scan.sites
        return [(sites.name(site), sites.aliases(site)) for site in range(len(sites))]

    @cached_property
    def findings(self) -> Counter[tuple[object, ...]]:
        table, odd = longer_layout(self.scan)
        case = Case(self.scan.image, self.scan.records, table, odd=odd)
        found = (keyed.finding for keyed in check(case, rules_for()))
        return Counter((one.rule, one.message, one.function, one.row, one.section, one.offset) for one in found)

    @cached_property
    def calls(self) -> dict[str, Any]:
        if self.scan.arch.static_calls is None:
            return {"calls": [], "entries": []}
        return {**static_calls_object(read_static_calls(self.scan.image), Asked(None, None, True, (), False))}

    @cached_property
    def digest(self) -> Digest:
        image = self.scan.image
        calls = static_calls(image) if self.scan.arch.static_calls else NO_STATIC_CALLS
        return Digest(image.path, self.image, functions(self.scan), None, 0, calls, image.recovered is None)

    @cached_property
    def symbols(self) -> dict[tuple[str, int], tuple[int, bool]]:
        """(name, value) of every symbol → its second entry, and whether it is a function."""
        symbols, image = self.scan.image.symbols, self.scan.image
        rows = np.flatnonzero((symbols.shndx != t.SHN_UNDEF) & (symbols.type <= t.STT_FUNC))
        local = image.arch.local_entry
        more = local(symbols.rows["st_other"][rows]).tolist() if local else [0] * len(rows)
        kinds = (symbols.type[rows] == t.STT_FUNC).tolist()
        names = zip(map(symbols.name, rows.tolist()), symbols.rows["st_value"][rows].tolist(), strict=True)
        return dict(zip(names, zip(more, kinds, strict=True), strict=True))


def stripped(vmlinux: Path, out: Path, headers: bool) -> Path:
    """The file up to the last byte that is loaded, with the headers of what is loaded, or without any."""
    image = open_image(str(vmlinux))
    loaded = np.flatnonzero((image.shdr["sh_flags"] & t.SHF_ALLOC != 0) & image.has_bytes)
    end = int((image.shdr["sh_offset"] + image.shdr["sh_size"])[loaded].max())
    kept = np.concatenate(([0], np.flatnonzero(image.shdr["sh_flags"] & t.SHF_ALLOC != 0)))
    names = [image.names[sec].encode() + b"\0" for sec in kept.tolist()] + [b".shstrtab\0"]
    rows = np.concatenate([image.shdr[kept], np.zeros(1, t.SHDR)])
    rows["sh_name"] = np.cumsum([0, *map(len, names[:-1])])
    strings = b"".join(names)
    rows[-1]["sh_type"], rows[-1]["sh_offset"], rows[-1]["sh_size"] = t.SHT_STRTAB, end, len(strings)
    data = bytearray(image.data[:end].tobytes())
    at = end + len(strings) if headers else 0
    data[HEADS[0]] = at.to_bytes(8, "little")
    data[HEADS[1]] = (len(rows) | (len(rows) - 1) << 16 if headers else 0).to_bytes(4, "little")
    out.write_bytes(data + strings + rows.tobytes() if headers else data)
    return out


def images_of(name: str, vmlinux: Path, folder: Path) -> Mapping[str, Path]:
    """The images of a kernel, by what they are."""
    if name.startswith("arm64"):
        api.image(str(vmlinux), str(folder / "Image"))
        return {"Image": folder / "Image", "boot file": kernels.boot_file(name)}
    made = {
        "stripped": stripped(vmlinux, folder / "stripped", True),
        BARE: stripped(vmlinux, folder / "bare", False),
    }
    return made if name.startswith("ppc64le") else {**made, "boot file": kernels.boot_file(name)}


@pytest.fixture(scope="module", params=kernels.known())
def kernel_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def readings(
    kernel_name: str, kernel: Get, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Reading, dict[str, Reading]]]:
    """The vmlinux, as if it had no debug information, and its images."""
    kernels.boot_file(kernel_name)  # where it comes with another build, this takes the kernel's place
    vmlinux = kernel(kernel_name).vmlinux
    folder = tmp_path_factory.mktemp(kernel_name)
    paths = images_of(kernel_name, vmlinux, folder)
    image = open_image(str(vmlinux))
    image = replace(image, names=tuple("" if name.startswith(".debug") else name for name in image.names))
    records = read_records(image)
    known = Scan(image, records, read_sites(image, records))
    yield Reading(known), {kind: Reading(api.scan(str(path))) for kind, path in paths.items()}
    gc.collect()
    shutil.rmtree(folder)  # 100 MB and more, of seven kernels


def without(row: object, names: set[str]) -> object:
    """A JSON value without the fields of some names, and without the name of the place that an instruction names: it is
    of a function alone in a vmlinux, of a label of assembly too where kallsyms is all that there is."""
    if isinstance(row, Mapping):
        return {key: without(value, names) for key, value in row.items() if key not in names}
    if isinstance(row, list | tuple):
        return [without(value, names) for value in row]
    return row.partition(" <")[0] if isinstance(row, str) else row


COLUMNS = ("row", "va", "off", "body_va", "branch_va", "entry_va", "local_va", "status", "site", "redirected")


def test_sites_and_figures_are_those_of_the_vmlinux(
    kernel_name: str, readings: tuple[Reading, dict[str, Reading]]
) -> None:
    vmlinux, images = readings
    sites = vmlinux.scan.sites
    for kind, reading in images.items():
        for column in COLUMNS:
            assert np.array_equal(getattr(reading.scan.sites, column), getattr(sites, column)), (kind, column)
        assert reading.names == vmlinux.names, kind
        expected, found = (without(one.image, FORM | {"build_id", "summary"}) for one in (vmlinux, reading))
        assert found == expected, kind
        leave = {"reach"} if kernel_name in CODE_ALONE else set()
        assert without(reading.image["summary"], leave) == without(vmlinux.image["summary"], leave), kind
        assert reading.image["build_id"] in (vmlinux.image["build_id"], None), kind
        assert reading.image["symbols_from"] == "kallsyms", kind


def test_findings_are_those_of_the_vmlinux(readings: tuple[Reading, dict[str, Reading]]) -> None:
    vmlinux, images = readings
    for kind, reading in images.items():
        assert reading.findings - vmlinux.findings == Counter(), kind
        assert vmlinux.findings - reading.findings == Counter(), kind


def test_symbols_are_those_of_the_vmlinux_and_every_function_of_its_text_is_there(
    readings: tuple[Reading, dict[str, Reading]],
) -> None:
    vmlinux, images = readings[0], {kind: one for kind, one in readings[1].items() if kind != BARE}
    known = vmlinux.symbols
    text = {
        key for key, (_, function) in known.items() if function and not key[0].startswith((*LEFT_OUT, ".L", "$", "L0"))
    }
    for kind, reading in images.items():
        assert reading.symbols.keys() <= known.keys(), kind
        missing = text - reading.symbols.keys()
        exit_text = {key for key in missing if _section(vmlinux.scan, key[1]) in (".exit.text", ".init.text")}
        assert missing <= exit_text, (kind, sorted(missing - exit_text)[:5])
        both = [key for key in text if key in reading.symbols]
        assert [key for key in both if reading.symbols[key] != known[key]] == [], kind
        assert len(both) > 0.99 * len(text), kind


def _section(scan: Scan, va: int) -> str:
    sec = int(scan.image.place(np.array([va], dtype=np.uint64))[0][0])
    return scan.image.names[sec] if sec >= 0 else ""


def test_functions_are_explained_as_by_the_vmlinux(readings: tuple[Reading, dict[str, Reading]]) -> None:
    vmlinux, images = readings[0], {kind: one for kind, one in readings[1].items() if kind != BARE}
    names = [vmlinux.scan.sites.name(at) for at in np.linspace(9, len(vmlinux.scan.sites) - 9, 5).astype(int).tolist()]
    for name in (*filter(None, names), *SHOWN):
        expected = explanation_object(explain_function(vmlinux.scan, name), False)
        for kind, reading in images.items():
            found = explanation_object(explain_function(reading.scan, name), False)
            sizes = {symbol["size"] for one in found.get("explained") or () for symbol in one["symbols"]}
            assert sizes == {None}, (kind, name)
            for field in ("sites", "explained", "others", "clones", "traceable_as"):
                leave = FORM | TOLD
                assert without(found.get(field), leave) == without(expected.get(field), leave), (kind, name, field)


def test_no_build_differs_from_its_own_image(kernel_name: str, readings: tuple[Reading, dict[str, Reading]]) -> None:
    """But for how far calls reach, where kallsyms has no trampoline, and static calls in code that has no name."""
    vmlinux, images = readings[0], {kind: one for kind, one in readings[1].items() if kind != BARE}
    for kind, reading in images.items():
        for old, new in ((vmlinux, reading), (reading, vmlinux)):
            left = [one.message for one in compare_files(old.digest, new.digest).findings]
            nameless = [text for text in left if " of static call " in text]
            assert len(nameless) in (0, 2), (kind, nameless)
            reach = [one for one in left if one not in nameless]
            assert not reach or (kernel_name in CODE_ALONE and all("reach" in text for text in reach)), (kind, reach)


def test_static_calls_are_those_of_the_vmlinux(readings: tuple[Reading, dict[str, Reading]]) -> None:
    vmlinux, images = readings[0], {kind: one for kind, one in readings[1].items() if kind != BARE}
    for kind, reading in images.items():
        for column in ("calls", "entries"):
            expected, found = (
                sorted(one.calls[column], key=lambda row: (row["address"], row["key"])) for one in (vmlinux, reading)
            )
            named = [
                (was, now) for was, now in zip(expected, found, strict=True)
                if was != now and {**was, "function": None} == {**now, "function": None} and was["function"] is None
            ]  # fmt: skip
            assert len(named) <= 1, kind  # what is left of a weak function has no name but that in front of it
            assert [one for one in found if one not in [now for _, now in named]] == [
                one for one in expected if one not in [was for was, _ in named]
            ], kind


@pytest.mark.parametrize("rows", [2, 10])
def test_a_few_symbols_that_are_left_hide_no_kallsyms(rows: int, tmp_path: Path) -> None:
    """As strip -K NAME and objcopy --add-symbol leave a kernel: it was read as one without a tracer."""
    vmlinux = scan_file(str(kernels.ensure("ppc64le-6.12").vmlinux))
    image, file = vmlinux.image, bytearray(vmlinux.image.data.tobytes())
    (table,) = np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB).tolist()
    at = int(image.ehdr["e_shoff"]) + t.SHDR.itemsize * table
    head = np.frombuffer(file, t.SHDR, 1, at).copy()
    head["sh_size"], head["sh_info"] = t.SYM.itemsize * rows, rows
    file[at : at + t.SHDR.itemsize] = head.tobytes()
    (tmp_path / "few").write_bytes(file)
    few = scan_file(str(tmp_path / "few"))
    assert few.image.recovered is not None and few.image.recovered.source == "kallsyms"
    assert (few.sites.status == vmlinux.sites.status).all() and (few.sites.va == vmlinux.sites.va).all()
