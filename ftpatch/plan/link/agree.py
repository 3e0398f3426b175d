"""What an object and the module that it is linked into must agree in: machine, ABI, and how functions are entered."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.parts import Linking, Protection
from ftpatch.arrays import U32
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ArchError, ElfError, PolicyError
from ftpatch.kernel.kcfi import has_hashes, word_in_front
from ftpatch.kernel.modinfo import ModInfo, read_modinfo
from ftpatch.kernel.module import Module
from ftpatch.plan.link.relocations import named_places
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import read_records
from ftpatch.sites.scan import require_text
from ftpatch.sites.table import READY, STATUSES

PATCH = ".ftpatch"  # in the names of sections that patches made: their code may be called by pointer everywhere
MAX_WORDS = 1 << 16  # of a function that are looked at
PROLOGUE = 16  # words of a function in which it saves its return address
NO_RECORDS = "no function of {path} has a record: none of them can be traced"
NOT_COMPARED = "that {path} was compiled for the kernel of this module is not known: no file tells its configuration"


def require_agreement(module: Module, patch: Image, linking: Linking) -> list[str]:
    """Notes on what cannot be told. Raises ArchError, ElfError or PolicyError where the two do not fit together."""
    require_object(module, patch, linking)
    _require_same_modinfo(module.info, read_modinfo(patch), patch.path)
    _require_one_toc(patch)
    _require_protected(module.image, patch, linking)
    _require_hashes(module.image, patch)
    return [NOT_COMPARED.format(path=patch.path), *_require_same_sites(module, patch)]


def require_object(module: Module, patch: Image, linking: Linking) -> None:
    """Refuse what is no object of the module's machine."""
    if patch.arch.name != module.arch.name:
        raise ArchError("the object is for another machine than the module", patch.path, found=patch.arch.name,
                        expected=module.arch.name)  # fmt: skip
    if patch.linked:
        raise ElfError("not an object file", patch.path, found=f"a linked file (e_type {patch.e_type})",
                       expected="what gcc -c makes")  # fmt: skip
    code = patch.executable & (patch.shdr["sh_size"] > 0)
    if not code.any() and any(name.startswith(".gnu.lto_") for name in patch.names):
        raise ElfError("no machine code", patch.path, found="what link-time optimisation goes on from",
                       expected="an object with code", todo="compile it without -flto")  # fmt: skip
    require_text(patch)
    abi = int(patch.ehdr["e_flags"]) & linking.abi_mask
    if abi not in linking.abi:
        raise ArchError("the object is for another ABI than the module", patch.path, found=f"ABI version {abi}",
                        expected=" or ".join(map(str, linking.abi)))  # fmt: skip
    if not len(patch.symbols.rows):
        raise ElfError("no symbol table", patch.path, found="a stripped file", expected=".symtab",
                       todo="give the object as the compiler made it")  # fmt: skip


def _require_same_modinfo(module: ModInfo, patch: ModInfo, path: str) -> None:
    """Refuse what contradicts the module; the rest of an object's .modinfo is left out."""
    magic, licence = patch.first("vermagic"), patch.first("license")
    if magic is not None and magic != module.first("vermagic"):
        raise PolicyError("the object was built for another kernel than the module", path, found=f"vermagic {magic}",
                          expected=str(module.first("vermagic")))  # fmt: skip
    if licence is not None and patch.gpl_compatible != module.gpl_compatible:
        raise PolicyError("the object has another licence than the module", path, found=f"license {licence}",
                          expected=str(module.first("license")),
                          todo="the loader gives symbols by the module's licence alone")  # fmt: skip
    if lacking := [name for name in patch.all("import_ns") if name not in module.all("import_ns")]:
        raise PolicyError("the object imports a namespace that the module does not", path, found=lacking[0],
                          expected=", ".join(module.all("import_ns")) or "no namespace at all")  # fmt: skip


def _require_one_toc(patch: Image) -> None:
    """Refuse functions that lose the TOC pointer: their callers in the module go on with it."""
    symbols, loses = patch.symbols, patch.arch.loses_toc
    lost = (symbols.shndx > 0) & loses(symbols.rows["st_other"]) if loses is not None else np.zeros(1, dtype=bool)
    if lost.any():
        raise PolicyError("the object has functions of another TOC model", patch.path,
                          found=f"{symbols.name(int(np.argmax(lost)))}, which loses the TOC pointer",
                          expected="functions that keep it", todo="compile with -mno-pcrel")  # fmt: skip


def _functions(image: Image) -> Iterator[tuple[int, U32]]:
    """(symbol row, first words) of every function that has bytes."""
    symbols = image.symbols
    rows = np.flatnonzero((symbols.type == t.STT_FUNC) & (symbols.shndx > 0))
    for row in rows[image.executable[symbols.shndx[rows]]].tolist():
        sec, off = symbols.shndx[row : row + 1], symbols.rows["st_value"][row : row + 1].astype(np.int64)
        n = max(1, min(PROLOGUE, int(symbols.rows["st_size"][row]) // 4))
        yield row, image.words(sec, off, 0, n)[0]


def _saves(words: U32, linking: Linking) -> int:
    """Index of the first word that puts the return address on the stack; −1 where none does."""
    hits = np.zeros(len(words), dtype=bool)
    for bits, mask in linking.saves:
        hits |= (words & np.uint32(mask)) == np.uint32(bits)
    return int(np.argmax(hits)) if hits.any() else -1


def _require_protected(module: Image, patch: Image, linking: Linking) -> None:
    """Refuse an object without the protections that the code of the module has, told by the code of both."""
    theirs = [words for row, words in _functions(module) if PATCH not in module.names[module.symbols.shndx[row]]]
    if linking.pads is not None and any(int(words[0]) in linking.pads.words for words in theirs):
        _require_landings(patch, linking, linking.pads)
    for protection in linking.protections:
        saving = [_has(words, protection) for words in theirs if _saves(words, linking) >= 0]
        if 2 * sum(saving) <= len(saving):
            if protection.needs_kernel and saving and not any(saving):
                _refuse_protected(patch, protection)
            continue
        for row, words in _functions(patch):
            at = _saves(words, linking)
            if at >= 0 and not _has(words[:at], protection):
                _refuse_unprotected(patch, row, protection)


def _refuse_unprotected(patch: Image, row: int, protection: Protection) -> None:
    raise PolicyError(f"functions of the module {protection.what}, and one of the object does not", patch.path,
                      found=patch.symbols.name(row), expected="the same protection",
                      todo=f"compile with {protection.option}, as the kernel does")  # fmt: skip


def _refuse_protected(patch: Image, protection: Protection) -> None:
    """Refuse functions with what the module's kernel does not provide, as no function of the module relies on it."""
    for row, words in _functions(patch):
        if _has(words, protection):
            raise PolicyError(f"functions of the object {protection.what}, and none of the module does", patch.path,
                              found=patch.symbols.name(row), expected="functions that the module's kernel can run",
                              todo=f"compile without {protection.option}")  # fmt: skip


def user_registers_used(patch: Image, linking: Linking) -> list[str]:
    """A warning of functions that change registers which kernels neither save nor, on some machines, may touch."""
    used = []
    for row in np.flatnonzero((patch.symbols.type == t.STT_FUNC) & (patch.symbols.shndx > 0)).tolist():
        sec, off = patch.symbols.shndx[row : row + 1], patch.symbols.rows["st_value"][row : row + 1].astype(np.int64)
        n = min(int(patch.symbols.rows["st_size"][row]) // 4, MAX_WORDS)
        words = patch.words(sec, off, 0, n)[0] if n and patch.executable[sec[0]] else np.zeros(0, np.uint32)
        if any(((words & np.uint32(mask)) == np.uint32(bits)).any() for bits, mask in linking.user_registers):
            used.append(patch.symbols.name(row))
    if not used:
        return []
    return [f"{used[0]} of {patch.path} changes floating-point or vector registers, which are a user program's: "
            f"compile with {linking.integers_only}, as the kernel does, unless it asks for them"]  # fmt: skip


def _has(words: U32, protection: Protection) -> bool:
    return bool(np.isin(words, np.array(protection.words, dtype=np.uint32)).any())


def _require_landings(patch: Image, linking: Linking, pads: Protection) -> None:
    """Refuse functions that may be called by pointer and begin with no landing pad."""
    named, symbols = named_places(patch, linking), patch.symbols
    for row, words in _functions(patch):
        place = int(symbols.shndx[row]), int(symbols.rows["st_value"][row])
        called = symbols.bind[row] != t.STB_LOCAL or place in named
        if called and int(words[0]) not in linking.landing:
            _refuse_unprotected(patch, row, pads)


def _require_hashes(module: Image, patch: Image) -> None:
    """Refuse functions without a kCFI type hash, where those of the module have one: a call by pointer would stop the
    kernel. What is in front of a function that is not the first of its section may be the end of another."""
    if not has_hashes(module):
        return
    symbols = patch.symbols
    shared = (symbols.type == t.STT_FUNC) & (symbols.shndx > 0) & (symbols.bind != t.STB_LOCAL)
    for row in np.flatnonzero(shared).tolist():
        if word_in_front(patch, row) is None:
            raise PolicyError("functions of the module have kCFI type hashes, and one of the object has none",
                              patch.path, found=symbols.name(row), expected="a hash in front of it",
                              todo="compile with -fsanitize=kcfi, as the kernel does")  # fmt: skip


def _require_same_sites(module: Module, patch: Image) -> list[str]:
    """Refuse records that the loader's kernel would find other words at: it would switch ftrace off, machine-wide."""
    records, shape = read_records(patch), module.scan.sites.shape
    if not len(records):
        return [NO_RECORDS.format(path=patch.path)]
    if shape is None:
        return []
    if records.null.any():
        raise PolicyError("the object has a record without a relocation", patch.path,
                          found=f"slot {int(np.argmax(records.null))} of {len(records)}",
                          expected="one that names a site")  # fmt: skip
    sites = read_sites(patch, records, shape.name)
    wrong = np.flatnonzero(sites.status[: len(records)] != READY)
    if len(wrong):
        at = int(wrong[0])
        raise PolicyError("the object's patch sites have another layout than the module's", patch.path,
                          found=f"{sites.place_text(at)} is {STATUSES[int(sites.status[at])]}",
                          expected=f"sites of the layout {shape.name}, not enabled",
                          todo="compile with the kernel's own -fpatchable-function-entry")  # fmt: skip
    return []
