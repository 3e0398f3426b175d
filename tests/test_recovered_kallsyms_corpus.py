"""Symbols out of the kallsyms of Debian's kernels, against nm of the same files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import numpy as np
import pytest
from test_recovered_kallsyms import listed

from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.recovered.image import open_image
from ftpatch.recovered.kallsyms import Addends, find_tables, kallsyms_of
from ftpatch.recovered.memory import Memory
from tools.kernels import Kernel

pytestmark = pytest.mark.corpus
NAMES = ["arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid", "x86_64-6.1", "x86_64-6.12"]
LEFT_OUT = ("$", ".L", "L0", "__efistub_", "__crc_", "__kstrtab", "kallsyms_", "__pi_.L", "__pi_$", "__kvm_nvhe_.L",
            "__kvm_nvhe_$")  # fmt: skip  # by scripts/mksysmap, scripts/kallsyms.c


def loaded(vmlinux: Image) -> Memory:
    """What the sections of a kernel load, without what lies behind in the file."""
    head = vmlinux.shdr
    rows = np.flatnonzero((head["sh_flags"] & t.SHF_ALLOC != 0) & vmlinux.has_bytes & (head["sh_addr"] > 0))
    rows = rows[np.argsort(head["sh_addr"][rows])]
    va, pos, size = (head[field][rows] for field in ("sh_addr", "sh_offset", "sh_size"))
    data = vmlinux.data.part(0, int((pos + size).max()))
    return Memory(data, va.astype(np.uint64), pos.astype(np.int64), size.astype(np.int64))


def addends_of(vmlinux: Image) -> Addends:
    """What the relocations of a kernel will write."""
    tables = [vmlinux.rows(sec, t.RELA) for sec in vmlinux.sections_named(".rela.dyn")]
    rows = np.concatenate([np.zeros(0, t.RELA), *tables])
    rows = rows[rows["r_info"] == np.uint64(vmlinux.arch.relative)]
    return Addends(rows["r_offset"].astype(np.uint64), rows["r_addend"].view(np.uint64))


def nm(path: str) -> list[list[str]]:
    """Address, letter and name of each symbol that has an address."""
    text = subprocess.run(["nm", path], check=True, capture_output=True, text=True, timeout=120).stdout
    return [line.split(maxsplit=2) for line in text.splitlines() if line[0] != " "]


@pytest.mark.parametrize("name", NAMES)
def test_kallsyms_of_a_kernel_are_its_symbols(kernel: Callable[[str], Kernel], name: str) -> None:
    """Each name at its address, as nm has it, and none that scripts/kallsyms keeps is left out; tables are where the
    symbols of the tables are."""
    path = str(kernel(name).vmlinux)
    vmlinux = open_image(path)
    memory = loaded(vmlinux)
    found = {(va, symbol) for _, symbol, va in listed(kallsyms_of(memory, addends_of(vmlinux)))}
    lines = nm(path)
    assert found <= {(int(va, 16), symbol) for va, _, symbol in lines}
    at = {symbol: int(va, 16) for va, _, symbol in lines}
    parts = [(at["_stext"], at["_etext"]), (at["_sinittext"], at["_einittext"])]
    everything = (at["linux_banner"], "linux_banner") in found
    kept = {(int(va, 16), symbol) for va, letter, symbol in lines
            if letter not in "UuNnAa" and not symbol.startswith(LEFT_OUT) and "_branch." not in symbol
            and not symbol.endswith("_veneer")}  # fmt: skip
    assert {one for one in kept - found if everything or any(low <= one[0] < high for low, high in parts)} == set()
    (tables,) = find_tables(memory.data)
    names, values = tables.names, tables.values
    places = {"num_syms": names.count_pos, "names": names.pos, "markers": names.markers_pos, "offsets": values.pos,
              "token_table": tables.tokens.pos, "token_index": tables.tokens.index_pos,
              "seqs_of_names": values.ranks_pos, "relative_base": values.base_pos}  # fmt: skip
    va = memory.va_of(np.array(list(places.values()))).tolist()
    assert dict(zip(places, va, strict=True)) == {table: at.get(f"kallsyms_{table}", 0) for table in places}


@pytest.mark.parametrize("name", ["arm64-6.1", "arm64-6.12"])
def test_kallsyms_of_a_flat_image(kernel: Callable[[str], Kernel], name: str) -> None:
    """One whose base is 0 in the file and in a relocation (RELA), and one whose base is in the file (RELR)."""
    vmlinux = open_image(str(kernel(name).vmlinux))
    memory, addends = loaded(vmlinux), addends_of(vmlinux)
    image = bytearray(int(memory.va[-1] - memory.va[0]) + int(memory.size[-1]))
    for va, pos, size in zip(memory.va - memory.va[0], memory.pos, memory.size, strict=True):
        image[int(va) : int(va) + int(size)] = memory.data[int(pos) : int(pos + size)].tobytes()
    flat = Memory(FileBytes.of(image), memory.va[:1], np.zeros(1, np.int64), np.array([len(image)]))
    assert listed(kallsyms_of(flat, addends)) == listed(kallsyms_of(memory, addends))
