"""Static calls of Debian's kernels and modules, set to other functions of equal type: all that there are, at once."""

from __future__ import annotations

import lzma
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from ftpatch import api
from ftpatch.elf.c_types import spelled
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.sites.place_names import names_of
from tools.kernels import Kernel

pytestmark = pytest.mark.corpus


def rotated(path: Path) -> list[tuple[str, str]]:
    """(key, function) with the function of the next key of that type, for each key with a function and such a next."""
    table = api.static_calls(str(path))
    names = names_of(table.image, table.keys.func)
    types = FunctionTypes(table.image).declared([f"__SCT__{key}" for key in table.keys.name])
    assert len(types) == len(table.keys)
    alike: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, name, return0 in zip(table.keys.name, names, table.is_return0().tolist(), strict=True):
        if name is not None and not return0:
            alike[spelled(types[f"__SCT__{key}"], "")].append((key, name))
    settings = []
    for rows in alike.values():
        functions = sorted({name for _, name in rows})
        following = dict(zip(functions, [*functions[1:], functions[0]], strict=True))
        settings += [(key, following[name]) for key, name in rows if following[name] != name]
    return settings


def test_every_static_call_of_a_kernel_is_set_at_once(kernel: Callable[[str], Kernel], tmp_path: Path) -> None:
    """6.1 keeps the relocations of its link: two for each key follow."""
    vmlinux, patched = kernel("x86_64-6.1").vmlinux, tmp_path / "vmlinux"
    settings = rotated(vmlinux)
    assert len(settings) == 415
    written = api.set_static_calls(str(vmlinux), api.Delivery(str(patched)), settings)
    assert len(written.plan.edits) == 4 * len(settings)
    proof = api.verify(str(vmlinux), str(patched))
    assert (proof.findings, proof.outcome.n, proof.outcome.skipped) == ((), 415, "")
    assert {key: to.name for key, to in proof.set_calls.items()} == dict(settings)


MODULE = [
    ("__traceiter_xfs_attr_list_sf_all", "__traceiter_xfs_attr_list_sf_all", 0),
    ("return0", "return0", 1),
    ("vprintk", "vprintk", 1),
    ("NULL", "NULL", 0),
]


@pytest.mark.parametrize(("to", "name", "imports"), MODULE, ids=[row[0] for row in MODULE])
def test_a_static_call_of_a_module_is_set(
    kernel: Callable[[str], Kernel], tmp_path: Path, to: str, name: str, imports: int
) -> None:
    """xfs.ko uses neither vprintk nor __static_call_return0: they are imported."""
    debian, key, old = kernel("x86_64-6.12"), "tp_func_xfs_attr_list_sf", "__traceiter_xfs_attr_list_sf"
    stock, patched, back = (tmp_path / one for one in ("xfs.ko", "patched.ko", "back.ko"))
    assert debian.modules is not None
    packed = next(debian.modules.rglob("xfs.ko.xz"))
    stock.write_bytes(lzma.decompress(packed.read_bytes()))
    against = [str(debian.vmlinux)]
    api.set_static_calls(
        str(stock), api.Delivery(str(patched), (f"json={patched}.json",)), [(key, to)], force_signature=True,
        against=against,
    )  # fmt: skip
    proof = api.verify(str(stock), str(patched), f"{patched}.json", against=against)
    assert (proof.findings, len(proof.imports), {key: callee.name for key, callee in proof.set_calls.items()}) == (
        (), imports, {key: name},
    )  # fmt: skip
    api.set_static_calls(str(patched), api.Delivery(str(back)), [(key, old)], force_signature=True, against=against)
    if not imports:  # what was appended for an import stays
        assert back.read_bytes() == stock.read_bytes()[: len(back.read_bytes())]
    api.restore(api.RestoreRequest(str(patched), f"{patched}.json", str(tmp_path / "restored.ko")))
    assert (tmp_path / "restored.ko").read_bytes() == stock.read_bytes()
