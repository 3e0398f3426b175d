"""One function per parser: it takes any bytes, lets an FtpatchError pass, and asserts what must hold of the result."""

from __future__ import annotations

import contextlib
from functools import cache

import numpy as np

from ftpatch import api
from ftpatch.container import envelope, signature
from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.peel import is_flat
from ftpatch.elf import btf, debug_lines, debug_names, function_types, identity
from ftpatch.elf import tables as t
from ftpatch.elf.c_types import NotKnown
from ftpatch.elf.headers import read_headers
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of, touched
from ftpatch.errors import ElfError, InputError
from ftpatch.journal import restore
from ftpatch.journal.read import read_journal
from ftpatch.kernel import exports, kallsyms, loader, modinfo, module, module_load
from ftpatch.sites import records
from tools.fuzz import seeds
from tools.fuzz.files import Seen, folder, named

MAX_SIZE = 1 << 20  # bytes that a compressed input may unpack to
PROTOTYPES = 8  # functions whose prototypes are asked for
PLACES = 64  # addresses that are asked for


def image_of(data: bytes, seen: Seen) -> Image:
    """The bytes as an uncompressed image, without a file."""
    raw = FileBytes.of(data)
    elf = raw.part(0, len(raw) - signature.size_of(raw))
    headers = read_headers("fuzz", elf)
    seen.deep = True
    return Image("fuzz", elf, raw, 0o644, "none", data[len(elf) :], *headers)


# -- parsers -----------------------------------------------------------------------------------------------------------


def fuzz_envelope(data: bytes, seen: Seen) -> None:
    with named(data) as path:
        found = envelope.open_file(path, MAX_SIZE)
    seen.deep = True
    size = len(found.data) + len(found.trailer)
    packed = found.wrapping != "none" or found.layers
    assert size <= (MAX_SIZE if packed else len(data)), "more was unpacked than allowed"
    assert found.data[:4].tobytes() == b"\x7fELF" or is_flat(found.data), "neither an ELF file nor a flat kernel"
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
            done = restore.restore(
                restore.RestoreRequest(name, path, folder() + "/out", dry_run=True, max_size=MAX_SIZE)
            )
        assert not done.same or done.sha256 == found.sha256, "another file than the journal names"


def fuzz_debug(data: bytes, seen: Seen) -> None:
    """DWARF: the source line of every function, and what it says of names."""
    image = image_of(data, seen)
    va = image.functions.va[:PLACES].tolist()
    lines = debug_lines.source_lines(image, va)
    assert len(lines) == len(va), "another number of lines than of addresses"
    assert all(line is None or ":" in line for line in lines), "a line that is not one"
    for name in ("one", "three", "begin"):
        debug_names.find(image, name)
    _ask_for_prototypes(image)


def _ask_for_prototypes(image: Image) -> None:
    types = function_types.FunctionTypes(image)
    for row in image.functions.row[:PROTOTYPES].tolist():
        told = types.prototype(row)
        assert isinstance(told, NotKnown) or len(told.parameters) <= len(image.data), "parameters of nothing"
        copies = types.inlined(row)
        assert copies.n_copies >= len(copies.functions), "functions without a copy"


def fuzz_notes(data: bytes, seen: Seen) -> None:
    image = image_of(data, seen)
    found = identity.build_id(image)
    assert found is None or (bytes.fromhex(found) and len(found) <= 2 * len(data)), "no build-id"


def fuzz_types(data: bytes, seen: Seen) -> None:
    """BTF: every question to some of the types."""
    image = image_of(data, seen)
    types = btf.read_btf(image)
    if types is None:
        return
    for number in range(types.first, min(types.end, types.first + PLACES)):
        for ask in (types.name, types.kind, types.plain, types.size, types.target, types.members, types.parameters):
            with contextlib.suppress(ElfError):
                ask(number)
    for name in ("int", "ops", "no_such"):
        types.variable(name)
        for kind in (btf.STRUCT, btf.TYPEDEF, btf.FUNC):
            place = types.find(kind, name)
            assert place is None or types.name(place) == name, "another type than was asked for"
    types.variables(".data")
    _ask_for_prototypes(image)
