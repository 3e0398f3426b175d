"""The targets that read kernels without symbols: their layers, their kallsyms, and all that is made of both."""

from __future__ import annotations

import gzip
from functools import cache

import numpy as np

from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.peel import MAX_LAYERS, is_flat, peel
from ftpatch.recovered.image import open_image
from ftpatch.recovered.kallsyms import kallsyms_of
from ftpatch.recovered.memory import Memory
from tools.damage_images import kernels
from tools.fuzz.files import Seen, named

MAX_SIZE = 1 << 20  # bytes that layers may unpack to
LINK = 0xFFFF_8000_8000_0000  # where those kernels are
FEW = 40  # symbols of a small kernel: its tables are a larger part of it


@cache
def kernels_of(real: bool = True) -> tuple[bytes, ...]:
    """Flat kernels and stripped ELF files of some forms of kallsyms."""
    flat = [kernels.flat(form, relocations, n=FEW).data for form, relocations in
            (("4.4", "none"), ("6.1", "rela"), ("6.4", "relr"), ("7.0", "relr"))]  # fmt: skip
    elf = [kernels.stripped("x86_64", "6.2-x86", n=FEW), kernels.stripped("ppc64le", "6.4", "rela", n=FEW)]
    return (*flat, *(kernel.data for kernel in elf))


@cache
def layers_of(real: bool = True) -> tuple[bytes, ...]:
    """What boot loaders take, around a kernel."""
    kernel = kernels.flat("6.4", "relr", n=FEW).data
    packed = gzip.compress(kernel, mtime=0)
    boots = [kernels.boot_image(version, content) for version in (0, 2, 3, 4) for content in (kernel, packed)]
    return (*boots, packed, kernels.zboot(kernel, "gzip"), kernels.uimage(packed), kernels.bzimage(packed))


def fuzz_kallsyms(data: bytes, seen: Seen) -> None:
    link = np.array([LINK], np.uint64)
    memory = Memory(FileBytes.of(data), link, np.zeros(1, np.int64), np.array([len(data)]))
    found = kallsyms_of(memory)
    if found is None:
        return
    seen.deep = True
    assert len(found.va) == len(found.letter) == len(found.starts), "symbols of different numbers"
    assert np.all(found.va[1:] >= found.va[:-1]), "addresses that descend"
    strings = np.frombuffer(found.strings, np.uint8)
    assert np.all(strings[found.starts] > 0x20), "a name that is none"


def fuzz_layers(data: bytes, seen: Seen) -> None:
    content, layers = peel(FileBytes.of(data), "fuzz", MAX_SIZE)
    seen.deep = bool(layers)
    assert len(layers) <= MAX_LAYERS, "more layers than are opened"
    assert len(content) <= max(MAX_SIZE, len(data)), "more was unpacked than allowed"
    assert is_flat(content) or content[:4].tobytes() == b"\x7fELF", "no kernel"


def fuzz_flat(data: bytes, seen: Seen) -> None:
    with named(data) as path:
        image = open_image(path, MAX_SIZE)
    seen.deep = image.recovered is not None
    kept = image.shdr[image.has_bytes]
    assert np.all(kept["sh_offset"] + kept["sh_size"] <= len(image.data)), "a section outside the file"
    if image.recovered is not None and image.recovered.letters is not None:
        assert len(image.recovered.letters) <= len(image.own_symbols.rows), "letters of no symbols"
    va = image.functions.va
    assert np.all(va[1:] >= va[:-1]), "functions not in order"
