"""What a module's file says of itself, and which modules it needs: the facts that a boot with modules rests on."""

from __future__ import annotations

import gzip
import lzma
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from struct import Struct

__all__ = ["ModuleError", "dependencies", "modinfo", "module_name", "plain"]

_SECTION = Struct("<IIQQQQIIQQ")  # Elf64_Shdr
_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")


class ModuleError(ValueError):
    """A module's file cannot be read, or a module that is needed is not there."""


def plain(path: Path) -> bytes:
    """Return the ELF file in `path`, decompressed if it must be, with the signature that may follow it."""
    stored = path.read_bytes()
    for magic, decompress in _COMPRESSIONS.items():
        if stored.startswith(magic):
            return decompress(stored)
    return stored


def _zstd(stored: bytes) -> bytes:
    """Return what the program zstd makes of it: Python has no such module before 3.14."""
    return subprocess.run(["zstd", "-dcq"], input=stored, stdout=subprocess.PIPE, check=True).stdout


_COMPRESSIONS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"\xfd7zXZ\0": lzma.decompress,
    b"\x1f\x8b": gzip.decompress,
    b"\x28\xb5\x2f\xfd": _zstd,
}


def modinfo(elf: bytes) -> dict[str, str]:
    """Return what the section .modinfo of a module says, under each key (for a repeated one, the last)."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ModuleError("not a module: expected an ELF file of 64 bits, little-endian")
    e_shoff = int.from_bytes(elf[0x28:0x30], "little")
    e_shnum, e_shstrndx = (int.from_bytes(elf[pos : pos + 2], "little") for pos in (0x3C, 0x3E))
    rows = [_SECTION.unpack_from(elf, e_shoff + _SECTION.size * row) for row in range(e_shnum)]
    names = rows[e_shstrndx][4] if rows else 0
    for sh_name, _, _, _, sh_offset, sh_size, *_ in rows:
        if elf.startswith(b".modinfo\0", names + sh_name):
            entries = elf[sh_offset : sh_offset + sh_size].decode(errors="replace").split("\0")
            return dict((key, value) for key, _, value in (entry.partition("=") for entry in entries if entry))
    raise ModuleError("not a module: it has no section .modinfo")


def module_name(path: Path, elf: bytes) -> str:
    """Return what the kernel calls the module, which need not be what its file is called."""
    return modinfo(elf).get("name") or _name(path)


def dependencies(tree: Path, *names: str) -> list[Path]:
    """Return the modules `names` and all that they need, in the order of loading; nothing for what is built in.

    tree: what lies below lib/modules/VERSION, as tools.kernels.modules() gives it.  modules.dep says what is needed;
    where depmod has not been run, the modules themselves do.
    """
    paths = {_name(path): path for path in _files(tree)}
    builtin = {_name(Path(line)) for line in _lines(tree / "modules.builtin")}
    listed = _listed(tree)
    order: dict[str, Path] = {}

    def add(wanted: str, chain: tuple[str, ...]) -> None:
        if wanted in chain:
            raise ModuleError(f"modules need each other: {' '.join([*chain, wanted])}")
        if wanted not in paths and wanted not in builtin:
            raise ModuleError(f"{tree} has no module {wanted}" + (f", needed by {chain[-1]}" if chain else ""))
        if wanted in paths and wanted not in order:
            for needed in listed[wanted] if wanted in listed else _needed(paths[wanted]):
                add(needed, (*chain, wanted))
            order[wanted] = paths[wanted]

    for name in names:
        add(name.replace("-", "_"), ())
    return list(order.values())


def _files(tree: Path) -> Iterator[Path]:
    """Yield the modules below `tree`, in the order of their paths."""
    return (path for path in sorted(tree.rglob("*.ko*")) if path.name.endswith(_SUFFIXES))


def _name(path: Path) -> str:
    """Return the module name that goes with a file name."""
    return path.name.partition(".ko")[0].replace("-", "_")


def _needed(path: Path) -> list[str]:
    """Return the names of the modules that the module in `path` says it needs."""
    return [name.replace("-", "_") for name in modinfo(plain(path)).get("depends", "").split(",") if name]


def _listed(tree: Path) -> dict[str, list[str]]:
    """Return what each module needs by modules.dep, indirectly too; it has the last to load first."""
    pairs = (line.partition(":") for line in _lines(tree / "modules.dep") if ":" in line)
    return {_name(Path(path)): [_name(Path(one)) for one in reversed(rest.split())] for path, _, rest in pairs}


def _lines(path: Path) -> list[str]:
    """Return the lines of a file that need not be there."""
    return path.read_text().splitlines() if path.exists() else []
