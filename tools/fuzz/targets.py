"""One function per thing that reads a file: it takes any bytes, lets an FtpatchError pass, and asserts what must hold.

Each marks the input as deep once it is past what a random file fails at: the headers of an ELF file, the frame of
anything else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from random import Random

import numpy as np

from ftpatch import api
from ftpatch.container import envelope, signature
from ftpatch.container.file_bytes import FileBytes
from ftpatch.document.rows import image_object
from ftpatch.elf import identity
from ftpatch.elf import tables as t
from ftpatch.elf.headers import read_headers
from ftpatch.elf.image import Image, open_image
from ftpatch.elf.relocations import relocations_of, touched
from ftpatch.errors import InputError
from ftpatch.journal import restore
from ftpatch.journal.read import read_journal
from ftpatch.kernel import exports, kallsyms, loader, modinfo, module, module_load
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import DisableRequest, DropRequest, EnableRequest
from ftpatch.report import Document
from ftpatch.report.formats import json as json_report
from ftpatch.sites import records
from ftpatch.sites.scan import Scan
from ftpatch.write import deliver
from tools.fuzz import mutate, seeds

MAX_SIZE = 1 << 20  # bytes that a compressed input may unpack to
PLACES = 64  # addresses that are asked for


@dataclass
class Seen:
    """What became of one input: whether it got past the headers."""

    deep: bool = False


@contextlib.contextmanager
def named(data: bytes) -> Iterator[str]:
    """A path of a file in memory with these bytes."""
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def image_of(data: bytes, seen: Seen) -> Image:
    """The bytes as an uncompressed image, without a file."""
    raw = FileBytes.of(data)
    elf = raw.part(0, len(raw) - signature.size_of(raw))
    headers = read_headers("fuzz", elf)
    seen.deep = True
    return Image("fuzz", elf, raw, 0o644, "none", data[len(elf) :], *headers)


def scanned(path: str, seen: Seen) -> Scan:
    """The scan of a file."""
    open_image(path, MAX_SIZE)
    seen.deep = True
    return api.scan(path, max_size=MAX_SIZE)


# -- parsers -----------------------------------------------------------------------------------------------------------


def fuzz_envelope(data: bytes, seen: Seen) -> None:
    with named(data) as path:
        found = envelope.open_elf(path, MAX_SIZE)
    seen.deep = True
    size = len(found.data) + len(found.trailer)
    assert size <= (len(data) if found.wrapping == "none" else MAX_SIZE), "more was unpacked than allowed"
    assert found.data[:4].tobytes() == b"\x7fELF", "no ELF file"
    assert len(found.raw) == len(data), "not the file on disk"
    if found.trailer:
        signature.parse(found.trailer)


def fuzz_headers(data: bytes, seen: Seen) -> None:
    image = image_of(data, seen)
    assert len(image.names) == len(image.shdr), "sections without a name"
    kept = [sec for sec in range(len(image.shdr)) if image.has_bytes[sec]]
    assert sum(len(image.content(sec)) for sec in kept) <= len(data), "sections share bytes"
    va = np.concatenate([image.base[:PLACES], image.base[:PLACES] + image.shdr["sh_size"][:PLACES] - np.uint64(1)])
    sec, off = image.place(va)
    pos = image.pos(sec, off)
    assert np.all((pos >= -1) & (pos < len(data))), "a place outside the file"
    assert np.array_equal(image.va(sec, off)[sec >= 0], va[sec >= 0]), "a place that is not its own address"
    image.words(sec, off, -2, 8)
    for one in va[:8].tolist():
        assert -1 <= image.pos_of_va(one) < len(data), "an address outside the file"
        image.code(one, 64)
    assert image.kind in ("vmlinux", "module", "object", "program", "shared-object"), image.kind
    assert len(identity.build_id(image) or "") <= 2 * len(data), "a build-id that is longer than the file"


def fuzz_relr(data: bytes, seen: Seen) -> None:
    words = np.frombuffer(data[: len(data) & ~7], dtype="<u8")
    if len(words) < 2:
        return
    low = int(words[0])
    high = min(low + (int(words[1]) - low) % (1 << 20), (1 << 64) - 1)
    n = 0
    for places in t.relr_places(words[2:], low, high, "fuzz"):
        seen.deep = True
        n += len(places)
        assert np.all((places >= np.uint64(low)) & (places < np.uint64(high))), "a place outside what was asked for"
    assert n <= (high - low) // 8 + 64, "more places than words"


def fuzz_relocations(data: bytes, seen: Seen) -> None:
    image = image_of(data, seen)
    targets = np.unique(image.shdr["sh_info"][image.shdr["sh_type"] == t.SHT_RELA])[:PLACES]
    for sec in targets[targets < len(image.shdr)].tolist():
        found = relocations_of(image, sec)
        assert np.all(found.off[1:] >= found.off[:-1]), "not in order"
        assert np.all((found.symbol >= 0) & (found.symbol < len(image.symbols.rows))), "a symbol that is not there"
        touched(found, np.arange(0, 4 * PLACES, 4, dtype=np.int64), 8)
    rows, pos = image.rela
    assert len(rows) == len(pos) and np.all((pos >= 0) & (pos + 24 <= len(data))), "a row outside the file"
    image.relocated(image.base[:PLACES], 8)


def fuzz_symbols(data: bytes, seen: Seen) -> None:
    image = image_of(data, seen)
    symbols, functions = image.symbols, image.functions
    assert np.all((symbols.shndx >= t.NO_SECTION) & (symbols.shndx < len(image.shdr))), "a section that is not there"
    for row in range(min(len(symbols.rows), PLACES)):
        name = symbols.name(row)
        assert len(name) <= 4 * t.MAX_NAME, "a name without end"
        ended = symbols.strtab.find(b"\0", int(symbols.rows["st_name"][row])) >= 0
        if name and row < 8 and ended and "\\" not in name and len(name) < t.MAX_NAME:
            assert row in symbols.rows_named(name), "a symbol that its name does not find"
        symbols.file_of(row)
    assert np.all(functions.va[1:] >= functions.va[:-1]), "not in order"
    va = np.concatenate([functions.va[:PLACES], functions.end[:PLACES], functions.local[:PLACES]])
    inside = functions.containing(va)
    held = inside[inside >= 0]
    assert np.all(functions.va[held] <= va[inside >= 0]), "a function that starts behind what it holds"
    for low, high in (functions.at(va), functions.at_local(va)):
        assert np.all((low <= high) & (high <= len(functions.va))), "a span outside the functions"
    identity.linker_stubs(image)
    kallsyms.listed_as(image, va[:8])


def fuzz_records(data: bytes, seen: Seen) -> None:
    image = image_of(data, seen)
    found = records.read_records(image)
    assert np.all((found.slot >= 0) & (found.slot + 8 <= len(data))), "a slot outside the file"
    assert np.all((found.sec >= -1) & (found.sec < len(image.shdr))), "a section that is not there"
    if image.linked:
        assert np.all(found.rela < len(image.rela[0])), "a relocation that is not there"
        placed = found.sec >= 0
        assert np.array_equal(image.va(found.sec, found.off)[placed], found.value[placed]), "another place"
    assert isinstance(found.carrier, str) and found.uniform in (True, False)


def fuzz_sites(data: bytes, seen: Seen) -> None:
    """The whole of `scan`, with its report."""
    with named(data) as path:
        found = scanned(path, seen)
        table = found.sites
        assert len(table) >= len(found.records), "a slot without a row"
        assert np.all((table.pos >= -1) & (table.pos < len(data))), "a site outside the file"
        document = Document("scan")
        document.images.append(image_object(found))
        json.loads("".join(json_report.render(document)))


def fuzz_strings(data: bytes, seen: Seen) -> None:
    """.modinfo and the versions' tables alone, read and made anew."""
    entries = modinfo.entries_of(data)
    seen.deep = bool(entries)
    for one in entries:
        assert data[one.start : one.end].count(b"\0") == 0 and b"=" in data[one.start : one.end], "not a string"
    made = modinfo.with_modinfo(data, ["a", "b"], ["SPACE"])
    again = modinfo.ModInfo(modinfo.entries_of(made))
    assert again.depends == ("a", "b"), "depends= that is not read back"
    assert "SPACE" in again.all("import_ns"), "a namespace that is not read back"
    rows = modinfo.with_versions(data, {"ftpatch_fuzz": 1})
    assert len(rows) % 64 == 0, "half a row"
    half = len(data) // 2
    modinfo.with_extended_versions(data[:half], data[half:], {"ftpatch_fuzz": 1})


@cache
def _kernel(machine: int) -> module.Kernel | None:
    """A small kernel of the machine, to hold modules against."""
    for data in seeds.offering():
        if int.from_bytes(data[18:20], "little") == machine:
            with named(data) as path:
                found = api.scan(path)
            return module.Kernel(found)
    return None


def fuzz_metadata(data: bytes, seen: Seen) -> None:
    """What a loader reads: .modinfo, versions, exports, vermagic, and a module held against a kernel."""
    image = image_of(data, seen)
    offered = None
    with contextlib.suppress(InputError):
        offered = exports.read_exports(image)
    if offered is not None:
        assert np.all(offered.name < len(data)), "a name outside the file"
        for row in range(min(len(offered), 8)):
            offered.row(row)
        offered.find("_printk")
    loader.vermagic(image)
    loader.signatures_enforced(image)
    loader.wanted_sections(image)
    loader.stub_demand(image)
    kernel = _kernel(image.e_machine)
    if image.kind == "module" and kernel is not None:
        with named(data) as path:
            found = api.scan(path)
        checks = module_load.preflight(module.Module(found), kernel)
        assert all(check.text.isprintable() for check in checks), "a line that is not one"


def fuzz_signature(data: bytes, seen: Seen) -> None:
    size = signature.size_of(FileBytes.of(b"\x7fELF" + data))
    assert 0 <= size < len(data) + 4, "a signature that is longer than the file"
    found = signature.parse(data)
    seen.deep = True
    n = len(found.signer) + len(found.key_id) + len(found.pkcs7)
    assert n + signature.FIXED == len(data), "parts that are lost"
    assert found.issuer.isprintable(), "a name that is not one line"
    assert signature.usual_digest(data) in signature.DIGESTS


def fuzz_journal(data: bytes, seen: Seen) -> None:
    """A journal on its own, and against the file that it names, or else some other."""
    with named(data) as path:
        found = read_journal(path)
        seen.deep = True
        assert len(found.edits) <= found.n_edits, "more edits than there are"
        files = seeds.patched()
        after = files.get(found.output.sha256) or next(iter(files.values()))
        with named(after) as name:
            done = restore.restore(restore.RestoreRequest(name, path, _out(), dry_run=True, max_size=MAX_SIZE))
        assert not done.same or done.sha256 == found.sha256, "another file than the journal names"


# -- journeys ----------------------------------------------------------------------------------------------------------


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ftpatch-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


def clean() -> None:
    """Remove what the journeys wrote; for a process that ends without saying so."""
    if _folder.cache_info().currsize:
        _folder().cleanup()


def _out() -> str:
    return os.path.join(_folder().name, "out")


def fuzz_enable(data: bytes, seen: Seen) -> None:
    """`enable`, to the written and checked file; options by the input's checksum."""
    rng = Random(zlib.crc32(data))
    with named(data) as path:
        found = scanned(path, seen)
        chosen = rng.random() < 0.7 or np.arange(len(found.sites)) % 2 == 0
        request = EnableRequest(
            np.broadcast_to(np.asarray(chosen), len(found.sites)).copy(),
            skip_unpatchable=rng.random() < 0.7,
            records=rng.choice(("auto", "auto", "auto", "null", "minus4", "shrink", "keep")),
            ops_via=rng.choice(("auto", "auto", "auto", "literal", "thunk")),
            force_early=rng.random() < 0.2,
        )
        hooked = replace(request, hook=rng.choice(("", "", "mini_hook", "printk")), ops_via="auto")
        plan = api.make_plan(found, hooked if found.image.kind == "module" else request)
        _delivered(plan)


def fuzz_undo(data: bytes, seen: Seen) -> None:
    """`drop` and `disable`, likewise."""
    rng = Random(zlib.crc32(data))
    with named(data) as path:
        found = scanned(path, seen)
        chosen, skip = np.ones(len(found.sites), dtype=bool), rng.random() < 0.8
        ways = ("auto", "auto", "null", "minus4", "shrink")
        drops = rng.random() < 0.5
        request = DropRequest(chosen, rng.choice(ways), skip) if drops else DisableRequest(chosen, skip)
        _delivered(api.make_plan(found, request))


def _delivered(plan: Plan) -> None:
    """The plan's result, written, checked by the program itself, and of the size that was planned."""
    written = deliver.write_result(plan, _out(), True, lambda output, sha256: contextlib.nullcontext())
    with open(written.path, "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == written.sha256, "another file than was checked"


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A function, what its inputs start from, how they change, and the files of the package that it is to explore."""

    run: Callable[[bytes, Seen], None]
    seeds: Callable[[bool], tuple[bytes, ...]]
    mutate: Callable[[bytes, Random], bytes]
    explores: tuple[str, ...]
    share: int  # of the executions of a whole run, in thousandths


def _linkable(real: bool = True) -> tuple[bytes, ...]:
    return seeds.kernels_of()


def _loadable(real: bool = True) -> tuple[bytes, ...]:
    return (*seeds.modules_of(real), *seeds.modules_of(real), *seeds.offering())


def _undoable(real: bool = True) -> tuple[bytes, ...]:
    return (*seeds.patched().values(), *seeds.kernels_of(), *seeds.modules_of(real))


TARGETS = {
    "envelope": Target(
        fuzz_envelope, seeds.packed_of, mutate.packed, ("container/envelope.py", "container/wrappings.py"), 50
    ),
    "headers": Target(fuzz_headers, seeds.all_elf, mutate.elf, ("elf/headers.py", "elf/image.py"), 120),
    "relr": Target(fuzz_relr, seeds.tables_of, mutate.plain, ("elf/tables.py",), 120),
    "relocations": Target(fuzz_relocations, seeds.all_elf, mutate.elf, ("elf/relocations.py", "elf/image.py"), 120),
    "symbols": Target(
        fuzz_symbols, seeds.all_elf, mutate.elf, ("elf/functions.py", "kernel/kallsyms.py", "elf/identity.py"), 100
    ),
    "records": Target(fuzz_records, seeds.all_elf, mutate.elf, ("sites/records.py",), 150),
    "sites": Target(
        fuzz_sites, seeds.all_elf, mutate.elf, ("sites/layout.py", "sites/table.py", "document/summary.py"), 60
    ),
    "strings": Target(fuzz_strings, seeds.strings_of, mutate.plain, ("kernel/modinfo.py",), 80),
    "metadata": Target(
        fuzz_metadata,
        _loadable,
        mutate.elf,
        ("kernel/modinfo.py", "kernel/exports.py", "kernel/loader.py", "kernel/module_load.py"),
        50,
    ),
    "signature": Target(fuzz_signature, seeds.trailers_of, mutate.plain, ("container/signature.py",), 80),
    "journal": Target(
        fuzz_journal,
        seeds.journals_of,
        mutate.document,
        ("document/json_input.py", "journal/read.py", "journal/restore.py"),
        40,
    ),
    "module": Target(fuzz_enable, seeds.modules_of, mutate.elf, ("plan/module/enable.py", "elf/editor.py"), 12),
    "vmlinux": Target(
        fuzz_enable, _linkable, mutate.elf, ("plan/enable.py", "plan/records_out.py", "plan/ool_slots.py"), 12
    ),
    "undo": Target(fuzz_undo, _undoable, mutate.elf, ("plan/disable.py", "plan/drop.py", "plan/records_back.py"), 6),
}
