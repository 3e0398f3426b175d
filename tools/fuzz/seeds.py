"""The files that mutation starts from: small, and of as many kinds as there are.

The ELF files are those of testdata and, where `make kernels` has fetched them, one small module of every kernel.
Everything else is made of these: compressed files, signed ones, journals of real patches.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tools import kernels

ROOT = Path(__file__).parents[2]
FOLDERS = tuple(ROOT / "testdata" / name for name in ("mini", "mini-ppc64le", "x86_64"))
REAL = "modules/kernel/drivers/net/dummy.ko*"
MARKER = b"~Module signature appended~\n"


@cache
def kernels_of() -> tuple[bytes, ...]:
    """Every small vmlinux."""
    return tuple(path.read_bytes() for folder in FOLDERS for path in sorted(folder.glob("vmlinux-*")))


@cache
def offering() -> tuple[bytes, ...]:
    """A kernel of each machine that exports something and says which release it is: the others have no room for it."""
    return tuple(_offering((folder / name).read_bytes()) for folder, name in zip(FOLDERS, KERNELS, strict=True))


KERNELS = ("vmlinux-callops", "vmlinux-pfe2", "vmlinux-fentry")


def _offering(kernel: bytes) -> bytes:
    """A vmlinux with one row of relative addresses in __ksymtab; its strings stand in .rodata."""
    from tools.fuzz.mutate import named_sections

    raw, found = bytearray(kernel), named_sections(kernel)
    table, strings = found["__ksymtab"], found[".rodata"]
    said = b"_printk\0\x006.1.0-mini SMP preempt mod_unload modversions aarch64\0"
    raw[strings.offset : strings.offset + len(said)] = said
    start, name = (struct.unpack_from("<Q", raw, sec.pos + 16)[0] for sec in (table, strings))
    aims = (name, name, name + 7)
    struct.pack_into("<3i", raw, table.offset, *(aim - (start + 4 * n) for n, aim in enumerate(aims)))
    struct.pack_into("<Q", raw, table.pos + 32, 12)
    return bytes(raw)


@cache
def static_calls_of(real: bool = True) -> tuple[bytes, ...]:
    """Kernels and a module with static calls, of every machine that has them."""
    paths = (FOLDERS[2] / "vmlinux-static", *sorted((ROOT / "testdata" / "static_calls_arm64").glob("*")))
    contents = (path.read_bytes() for path in (paths[0], *paths))  # the first machine's have all kinds
    return tuple(content for content in contents if content[:4] == b"\x7fELF")


@cache
def recorded_of(real: bool = True) -> tuple[bytes, ...]:
    """Objects with records and without."""
    return tuple(path.read_bytes() for path in sorted((ROOT / "testdata" / "record").glob("*.o")))


@cache
def modules_of(real: bool = True) -> tuple[bytes, ...]:
    """Every small module; real: also the real ones that are there."""
    from ftpatch.container import envelope

    found = [path.read_bytes() for folder in FOLDERS for path in sorted(folder.glob("*.ko"))]
    for path in sorted(kernels.cache_directory().glob(f"kernels/*/{REAL}")) if real else ():
        contents = envelope.open_file(str(path))
        found.append(contents.data.tobytes())
    return tuple(found)


@cache
def patches_of(real: bool = True) -> tuple[bytes, ...]:
    """Objects that bring replacements along for the small modules, and name nothing that a kernel would have to tell:
    what only one exports is a function of the module's instead."""
    objects = [ROOT / "testdata" / "link" / f"{name}.o" for name in ("arm64", "ppc64le")]
    return tuple(_renamed(path.read_bytes(), (b"ktime_get", b"maybe"), b"mini_util") for path in objects)


def _renamed(raw: bytes, names: tuple[bytes, ...], new: bytes) -> bytes:
    """An object whose symbols of some names have the name of another."""
    from tools.fuzz.mutate import named_sections

    found, file = named_sections(raw), bytearray(raw)
    table, strings = found[".symtab"], found[".strtab"]
    text = raw[strings.offset : strings.offset + strings.size]
    wanted = {text.index(b"\0" + name + b"\0") + 1 for name in names}
    for pos in range(table.offset, table.offset + table.size, 24):
        if int.from_bytes(file[pos : pos + 4], "little") in wanted:
            file[pos : pos + 4] = struct.pack("<I", text.index(b"\0" + new + b"\0") + 1)
    return bytes(file)


def linked_to(patch: bytes) -> bytes:
    """The module for an object, by the machine in its header."""
    return (FOLDERS[0 if patch[18:20] == b"\xb7\0" else 1] / "mini.ko").read_bytes()


@cache
def objects_of() -> tuple[bytes, ...]:
    """Relocatable files that are no modules, and files that are refused early."""
    names = ("program", "headers-vmlinux")
    paths = [path for folder in FOLDERS for path in sorted((*folder.glob("*.o"), *map(folder.joinpath, names)))]
    return tuple(path.read_bytes() for path in paths if path.is_file())


def all_elf(real: bool = True) -> tuple[bytes, ...]:
    return (*kernels_of(), *modules_of(real), *objects_of())


@cache
def packed_of(real: bool = True) -> tuple[bytes, ...]:
    """Files as they are shipped: plain, compressed in every way, with a signature, and other things than ELF files."""
    from ftpatch.container import foreign
    from ftpatch.container.pack import encoders, wrap
    from ftpatch.container.wrappings import WRAPPINGS

    plain = modules_of(False)[0]
    signed = plain + trailers_of()[0]
    found = [plain, signed, objects_of()[0]]
    for wrapping in WRAPPINGS:
        found += [wrap(wrapping, data, way) for data in (plain, signed) for way in encoders(wrapping)]
    found.append(wrap("gz", bytes(3 << 20)))
    found += [bytes(kind.pos) + kind.magic + bytes(64) for kind in foreign.FOREIGN]
    return tuple(found)


@cache
def trailers_of(real: bool = True) -> tuple[bytes, ...]:
    """Appended signatures: a message as sign-file makes it, and a few that are hollow."""
    found = [_trailer(_message()), _trailer(b""), _trailer(b"\x30\x80" + bytes(16), 1, 2)]
    return (*found, _trailer(_message()[:40]), b"x" * 8 + MARKER)


def _trailer(message: bytes, signer: int = 0, key_id: int = 0) -> bytes:
    head = struct.pack(">BBBBB3xI", 0, 0, 2, signer, key_id, len(message))
    return bytes(signer + key_id) + message + head + MARKER


def _message() -> bytes:
    """A PKCS#7 message in the form that the kernel reads; its signature is noise."""

    def der(tag: int, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return bytes([tag, len(body)] if len(body) < 128 else [tag, 0x82, *divmod(len(body), 256)]) + body

    digest = der(0x30, bytes.fromhex("0609608648016503040201"))
    name = der(0x30, der(0x31, der(0x30, bytes.fromhex("0603550403"), der(0x0C, b"build key"))))
    signer = der(0x30, der(2, b"\1"), der(0x30, name, der(2, b"\x01\x02")), digest, digest, der(4, bytes(range(64))))
    data = der(0x30, bytes.fromhex("06092a864886f70d010701"))
    signed = der(0x30, der(2, b"\1"), der(0x31, digest), data, der(0x31, signer))
    return der(0x30, bytes.fromhex("06092a864886f70d010702"), der(0xA0, signed))


@cache
def tables_of(real: bool = True) -> tuple[bytes, ...]:
    """RELR tables, each behind the two addresses that are asked for."""
    base = 0xFFFF_8000_8000_0000
    bitmaps, addresses = [base, 3, (1 << 64) - 1], [base + 8 * n for n in range(0, 64, 4)]
    tables = (bitmaps, addresses, [base, 0x5555_5555_5555_5555, base + 512])
    return tuple(struct.pack(f"<{2 + len(words)}Q", base, base + 4096, *words) for words in tables)


@cache
def strings_of(real: bool = True) -> tuple[bytes, ...]:
    """Contents of .modinfo."""
    usual = b"license=GPL\0depends=a,b-c\0name=mini\0vermagic=6.1.0 SMP mod_unload aarch64\0\0alias=x\0"
    return usual, b"depends=\0", b"=\0x\0k=\0import_ns=A\0import_ns=A", b"vermagic=6.12.1 SMP preempt modversions"


@cache
def debug_of(real: bool = True) -> tuple[bytes, ...]:
    """Files with debug information of several compilers and versions of DWARF, whole and one object each."""
    folder = ROOT / "testdata" / "dwarf"
    return tuple((folder / name).read_bytes() for name in DEBUG)


DEBUG = ("gcc4.o", "gcc5.o", "clang5.o", "ppc64le.o", "beside.o", "types.o", "types-ppc64le.o", "clang4", "clang5")


@cache
def typed_of(real: bool = True) -> tuple[bytes, ...]:
    """Files with BTF: what a headers package ships, and one with types of every kind."""
    from tools.fuzz.mutate import named_sections

    raw = (FOLDERS[1] / "headers-vmlinux").read_bytes()
    section, types = named_sections(raw)[".BTF"], _types()
    made = bytearray(raw + bytes(-len(raw) % 8))
    struct.pack_into("<2Q", made, section.pos + 24, len(made), len(types))
    struct.pack_into("<H", made, 56, 0)  # no segments, which would want the section where it was
    return raw, bytes(made + types)


def _types() -> bytes:
    """A section .BTF: each kind once, in the order of their numbers (include/uapi/linux/btf.h)."""
    strings = b"\0int\0ops\0.data\0func\0"
    names = {name: strings.index(name) for name in (b"int", b"ops", b".data", b"func")}
    kinds = (
        (b"int", 1, 0, 4, 1 << 24 | 32), (b"", 2, 0, 1), (b"", 3, 0, 0, 1, 1, 4),
        (b"ops", 4, 1, 8, names[b"int"], 1, 0),
        (b"ops", 5, 1, 8, names[b"int"], 2, 0), (b"int", 6, 1, 4, names[b"int"], 7), (b"ops", 7, 0, 0),
        (b"int", 8, 0, 1), (b"", 9, 0, 8), (b"", 10, 0, 9), (b"", 11, 0, 2), (b"func", 12, 1, 13),
        (b"", 13, 1, 1, names[b"ops"], 2), (b"ops", 14, 0, 4, 1), (b".data", 15, 1, 8, 14, 0, 8), (b"int", 16, 0, 8),
        (b"int", 17, 0, 4, 0), (b"int", 18, 0, 1), (b"int", 19, 1, 8, names[b"int"], 1, 2),
    )  # fmt: skip
    words = [word for name, kind, n, *more in kinds for word in (names.get(name, 0), kind << 24 | n, *more)]
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 4 * len(words), 4 * len(words), len(strings))
    return head + struct.pack(f"<{len(words)}I", *words) + strings


@cache
def noted_of(real: bool = True) -> tuple[bytes, ...]:
    """Files with notes: build-ids and others."""
    return (*kernels_of()[:2], *modules_of(False))


# -- results and their journals ----------------------------------------------------------------------------------------


class Result(NamedTuple):
    """A patch that the program made."""

    before: bytes
    after: bytes
    journal: bytes  # as it was written


@cache
def journals_of(real: bool = True) -> tuple[bytes, ...]:
    """Journals of patches, each with the patched file that belongs to it: see `patched`. What their reader ignores is
    left out."""
    from ftpatch.journal.read import READ

    def used(value: object) -> object:
        if isinstance(value, dict):
            return {key: used(inner) for key, inner in value.items() if key in READ}
        return [used(inner) for inner in value] if isinstance(value, list) else value

    return tuple(json.dumps(used(json.loads(result.journal))).encode() for result in results())


@cache
def patched() -> dict[str, bytes]:
    """Patched files by the sha256 that their journals name."""
    return {json.loads(result.journal)["images"][0]["output"]["sha256"]: result.after for result in results()}


def patched_of(real: bool = True) -> tuple[bytes, ...]:
    """Patched files alone."""
    return tuple(result.after for result in results())


PATCHES = (  # verb, file, name of the result, more options
    ("enable", FOLDERS[0] / "vmlinux-pfe2", "out"),
    ("enable", FOLDERS[1] / "mini.ko", "out.ko.xz", "--hook", "_printk"),
    ("drop", FOLDERS[1] / "vmlinux-ool", "out"),
    ("enable", FOLDERS[1] / "vmlinux-pfe2", "out"),
    ("enable", FOLDERS[0] / "vmlinux-callops", "out"),
    ("enable", FOLDERS[0] / "mini.ko", "out.ko"),
    ("enable", FOLDERS[0] / "mini.ko", "out.ko", "--hook", "_printk"),
    ("enable", FOLDERS[2] / "vmlinux-fentry", "out", "--func", "!vfs_write"),
    ("enable", FOLDERS[2] / "vmlinux-rela", "out", "--func", "!vfs_write"),
    ("drop", FOLDERS[2] / "vmlinux-nop", "out", "--func", "!vfs_write"),
)


@cache
def results() -> tuple[Result, ...]:
    """Patches of kernels and modules of every machine, by several verbs."""
    from ftpatch.cli import run

    found = []
    with tempfile.TemporaryDirectory() as folder:
        journal = os.path.join(folder, "journal")
        for verb, path, name, *more in PATCHES:
            name, options = os.path.join(folder, name), ("--func", "*", "--skip-unpatchable", *more)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                code = run([verb, str(path), "-o", name, *options, "--report", f"json={journal}"])
            assert code == 0, f"{verb} {path}: {code}"
            found.append(Result(path.read_bytes(), Path(name).read_bytes(), Path(journal).read_bytes()))
    return tuple(found)
