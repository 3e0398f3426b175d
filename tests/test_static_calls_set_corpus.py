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
from ftpatch.errors import FtpatchError
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


REFUSED = [
    ("x86_64-6.12", "pv_sched_clock=read_tsc", False,
     "its type is not that of read_tsc: 0 parameters, but 1 (--force-signature overrides)"),
    ("x86_64-6.12", "cond_resched=NULL", False,
     "its callers use what it returns (int), which NULL leaves as it happens to be (--force-signature overrides)"),
    ("x86_64-6.12", "irqentry_exit_cond_resched=return0", False,
     "it returns nothing (void): NULL is what such a static call is set to (--force-signature overrides)"),
    ("x86_64-6.12", "x86_idle=NULL", False, "it is NULL already"),
    ("x86_64-6.12", "pv_sched_clock=start_kernel", True,
     "start_kernel is init text, which is freed after boot, and not all of its sites are"),
    ("x86_64-6.12", "pv_sched_clock=panic", True, "panic never returns"),
    ("x86_64-6.12", "pv_sched_clock=asm_exc_page_fault", True,
     "asm_exc_page_fault is code of exception entries (noinstr), and what it calls now is not"),
    ("x86_64-6.12", "pv_sched_clock=__x86_indirect_thunk_rax", True,
     "__x86_indirect_thunk_rax goes on to where a register says, and is no function"),
    ("x86_64-6.12", "pv_sched_clock=__fentry__", True,
     "__fentry__ is called from patch sites alone, which are no function calls"),
    ("x86_64-6.1", "x86_pmu_disable=x86_pmu_disable_event", True,
     "its key has no relocation, and those that the link kept leave no room for one: a bzImage made from this file "
     "would not move the address (objcopy --remove-section='.rela*' makes a copy that boots directly and not as a "
     "bzImage)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "setting", "forced", "why"), REFUSED, ids=[row[1] for row in REFUSED])
def test_what_a_kernel_cannot_call_is_refused(
    kernel: Callable[[str], Kernel], name: str, setting: str, forced: bool, why: str
) -> None:
    vmlinux = str(kernel(name).vmlinux)
    key, to = setting.split("=")
    with pytest.raises(FtpatchError) as refusal:
        api.set_static_calls(vmlinux, api.Delivery(None), [(key, to)], force_signature=forced)
    assert str(refusal.value) == (
        f"{vmlinux}: 1 of 1 static calls cannot be set: found {key}: {why}, expected all of them, or nothing is "
        "written – --skip-unpatchable sets the others"
    )


WARNED = {
    ("x86_idle=default_idle", "apic_call_eoi=native_apic_mem_eoi", "lsm_static_call_file_open_0=apparmor_file_open"): [
        "x86_idle is set again while the kernel runs, by xen_set_default_idle, select_idle_routine (init)",
        "apic_call_eoi is set again when the kernel boots, by hv_apic_init (init), update_static_calls (init), "
        "kvm_guest_init (init)",
        "native_apic_mem_eoi may be traced or trap, and apic_call_eoi is called where nothing may (noinstr): "
        ".text+0xcbb563, .text+0xcbb663, .text+0xcbde33",
        "lsm_static_call_file_open_0 may be set again: static_calls_table points to it, and tracepoint_add_func, "
        "tracepoint_probe_unregister, bpf_dispatcher_change_prog and 1 more set static calls by pointers",
    ],
    ("cond_resched=__cond_resched", "x86_pmu_read=x86_pmu_read"): [
        "__cond_resched may come back to the static call cond_resched, which is __cond_resched from now "
        "on: __cond_resched → __schedule → panic → … → console_flush_all calls it",
        "x86_pmu_read calls the static call x86_pmu_read, which is x86_pmu_read from now on: it never returns, unless "
        "a condition ends that",
    ],
}


@pytest.mark.parametrize("settings", WARNED, ids=lambda settings: settings[0])
def test_what_may_go_wrong_is_told(kernel: Callable[[str], Kernel], settings: tuple[str, ...]) -> None:
    pairs = [(text.split("=")[0], text.split("=")[1]) for text in settings]
    written = api.set_static_calls(str(kernel("x86_64-6.12").vmlinux), api.Delivery(None), pairs)
    assert [text for text in WARNED[settings] if text not in written.plan.warnings] == []
