"""What is known before a module is loaded: would this kernel take it, and would it after sites were enabled?

Every check looks at one thing, reads files only, and says in one line what it found, in numbers. Its verdict:

    ok        the loader has no reason here to refuse the module
    warning   it loads, with a word in the log or with something lost
    refused   the loader turns it away, or it would jump to the wrong place
    unknown   the files do not say, for example symbols of modules that were not given

Source: kernel/module/main.c, version.c, signing.c (Linux 6.1, 6.12, 7.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ftpatch.arrays import I64, U8, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import Relocations, relocations_of
from ftpatch.errors import printable
from ftpatch.kernel.exports import MODULE_NAMESPACE, Exports
from ftpatch.kernel.loader import Vermagic, stub_bytes, stub_demand
from ftpatch.kernel.modinfo import ModInfo, Names, kernel_spelling
from ftpatch.kernel.module import NOBODY, Kernel, Module, Providers

FEW = 3  # places that are shown
Verdict = Literal["ok", "warning", "refused", "unknown"]


class Check(NamedTuple):
    """One finding."""

    id: str  # stable
    verdict: Verdict
    text: str  # a line for people


def preflight(module: Module, kernel: Kernel, providers: Providers = NOBODY) -> tuple[Check, ...]:
    """Every check of a module against a kernel, in a fixed order.

    providers: what other modules export, those that it depends on or more.
    """
    if module.arch is not kernel.arch:
        return (Check("machine", "refused", f"the module is for {module.arch.name}, the kernel {kernel.arch.name}"),)
    checks = [layout(module, kernel), magic(module, kernel)]
    checks += [versions(module, kernel, providers), symbols(module, kernel, providers)]
    checks += [signature(module, kernel), sections(module, kernel), stubs(module), reach(module), literals(module)]
    checks += relocations(module)
    return tuple(check._replace(text=printable(check.text)) for check in checks)  # strings of files that anybody made


def refusals(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Those that speak against the module."""
    return tuple(check for check in checks if check.verdict == "refused")


def layout(module: Module, kernel: Kernel) -> Check:
    """Whether the kernel would find the module's sites laid out as its own."""
    mine, own = module.scan.sites.shape, kernel.scan.sites.shape
    n = int(module.scan.records.live.sum())
    if mine is None or not n:
        return Check("layout", "ok", "the module has no sites")
    if own is None:
        return Check("layout", "unknown", f"{n} sites of layout {mine.name}; the kernel has no sites to compare")
    if mine.name != own.name:
        return Check("layout", "refused", f"{n} sites of layout {mine.name}, the kernel's are {own.name}")
    return Check("layout", "ok", f"{n} sites of layout {mine.name}, as the kernel's")


def magic(module: Module, kernel: Kernel) -> Check:
    """Whether `vermagic=` is the kernel's. Source: check_modinfo(), same_magic()."""
    text, own = module.info.first("vermagic"), kernel.magic
    if own is None:
        return Check("vermagic", "unknown", f"the kernel's is not known, the module's is '{text}'")
    if text is None:
        return Check("vermagic", "refused", "the module has none: it loads only by force")
    mine = Vermagic(text)
    loose = own.modversions and module.versions.basic  # the CRCs stand for the release
    if (mine.rest != own.rest) if loose else (mine != own):
        return Check("vermagic", "refused", f"'{text}', the kernel's is '{own.text}'")
    if mine.release != own.release:
        return Check("vermagic", "warning", f"equal but for the release: {mine.release}, kernel {own.release}")
    return Check("vermagic", "ok", f"'{text}', as the kernel's")


def _find(names: Names, sources: Sequence[Exports]) -> tuple[I64, I64]:
    """Where each name is exported: index of the source, row in it; −1 for nowhere."""
    source, row = np.full(len(names), -1, dtype=np.int64), np.full(len(names), -1, dtype=np.int64)
    for index, exports in enumerate(sources):
        here = exports.rows(names)
        new = (source < 0) & (here >= 0)
        source[new], row[new] = index, here[new]
    return source, row


def versions(module: Module, kernel: Kernel, providers: Providers = NOBODY) -> Check:
    """Whether the module was built against these symbols. Source: kernel/module/version.c check_version().

    A symbol without a row is let go with a warning upstream, and refused by Debian's kernels: it counts as refused.
    """
    sources = (kernel.exports, *providers.values())
    names = np.concatenate((module.undefined[0], np.array([b"module_layout"])))
    source, row = _find(names, sources)
    crc = np.full(len(names), -1, dtype=np.int64)
    for index, exports in enumerate(sources):
        mine = np.flatnonzero(source == index)
        crc[mine] = np.where(exports.has_crc[row[mine]], exports.crc[row[mine]].astype(np.int64), -1)
    checked = crc >= 0
    n = int(checked.sum())
    if not n or (kernel.magic is not None and not kernel.magic.modversions):
        return Check("versions", "ok", "the kernel's symbols have no CRCs, none is compared")
    if not (module.versions.basic or module.versions.extended):
        return Check("versions", "refused", f"no versions at all, the kernel wants {n}: it loads only by force")
    version = module.versions.rows(names)
    missing = names[checked & (version < 0)]
    known = checked & (version >= 0)
    wrong = names[known][module.versions.crc[version[known]] != crc[known].view(np.uint64)]
    if len(wrong):
        return Check("versions", "refused", f"{len(wrong)} of {n} CRCs are not the kernel's: {_some(wrong)}")
    if len(missing):
        return Check("versions", "refused", f"{len(missing)} of {n} symbols have no version: {_some(missing)}")
    rest = int((source < 0).sum())
    return Check("versions", "ok", f"{n} CRCs equal, {rest} of other modules' symbols not checked")


def symbols(module: Module, kernel: Kernel, providers: Providers = NOBODY) -> Check:
    """Whether every undefined symbol is there for this module. Source: resolve_symbol(), simplify_symbols()."""
    names, weak = module.undefined
    sources = (kernel.exports, *providers.values())
    source, row = _find(names, sources)
    shut, foreign = [], []
    for index, exports in enumerate(sources):
        mine = np.flatnonzero(source == index)
        if not module.info.gpl_compatible:
            shut += names[mine][exports.gpl_only[row[mine]]].tolist()
        spaces = exports.namespaces[row[mine]]
        for at in np.flatnonzero(spaces != b""):  # a few symbols of a few modules have one
            if not may_import(module.info, spaces[at].decode("utf-8", "replace")):
                foreign.append(names[mine[at]])
    absent = names[(source < 0) & ~weak]
    if shut:
        bar = f"licence '{module.info.first('license')}' bars {len(shut)} GPL-only symbols"
        return Check("symbols", "refused", f"{bar}: {_some(shut)}")
    if foreign:
        return Check("symbols", "refused", f"{len(foreign)} symbols of namespaces not imported: {_some(foreign)}")
    n = int((source >= 0).sum())
    of_others = int((source != 0).sum())  # each name in depends= has to provide one at the least
    if len(kernel.exports) and len(module.info.depends) > of_others:
        named = ",".join(module.info.depends)
        text = (
            f"depends={named}, and {of_others} symbols are left to other modules: modprobe fails without one of these"
        )
        return Check("symbols", "refused", text)
    if not len(absent):
        rest = f", {len(names) - n} weak ones are missing" if n < len(names) else ""
        return Check("symbols", "ok", f"all {n} undefined symbols are exported{rest}")
    if not len(kernel.exports):
        text = f"{len(absent)} undefined symbols; the kernel's file has no table of exports"
        return Check("symbols", "unknown", text)
    left = ",".join(name for name in module.info.depends if kernel_spelling(name) not in providers)
    if not left:
        return Check("symbols", "refused", f"{len(absent)} symbols that nothing exports: {_some(absent)}")
    return Check("symbols", "unknown", f"{n} symbols are exported, {len(absent)} are left to {left}")


def may_import(info: ModInfo, namespace: str) -> bool:
    """Whether the module may use a namespace: it imports it, or is on its list, which cannot be imported.

    Source: verify_namespace_is_imported(), verify_module_namespace() (Linux 6.16).
    """
    if not namespace.startswith(MODULE_NAMESPACE):
        return namespace in info.all("import_ns")
    for pattern in namespace.removeprefix(MODULE_NAMESPACE).split(","):
        plain = kernel_spelling(pattern.removesuffix("*"))
        if info.name == plain or (pattern.endswith("*") and info.name.startswith(plain)):
            return True
    return False


def signature(module: Module, kernel: Kernel) -> Check:
    """Whether the file is signed, which a changed one no longer can be. Source: module_sig_check()."""
    if kernel.enforced:
        text = "the kernel enforces signatures: sign the result with a key that it trusts"
        return Check("signature", "warning", text)
    trailer = module.image.trailer
    what = f"signed ({len(trailer)} bytes)" if trailer else "not signed"
    return Check("signature", "ok", f"{what}; a changed module is written without one, and taints the kernel")


def sections(module: Module, kernel: Kernel) -> Check:
    """Whether the sections are there that the loader makes room in."""
    missing = [name for name in kernel.sections if not module.image.sections_named(name)]
    if missing:
        return Check("sections", "refused", f"no section {', '.join(missing)}: the loader has nowhere to put stubs")
    return Check("sections", "ok", f"{', '.join(kernel.sections)} present")


def stubs(module: Module) -> Check:
    """How many stubs the loader will reserve, and that calls added later are among them."""
    core, init = stub_demand(module.image)
    n = f"{core} for calls from text, {init} from init text" if module.arch.loader.init_apart else f"{core} for calls"
    return Check("stubs", "ok", f"{n}; the loader counts relocations, those of calls added later too")


def reach(module: Module) -> Check:
    """Whether a call reaches its stub from everywhere: text, stubs and what lies between them."""
    shape = module.scan.sites.shape
    branch = shape.branch if shape is not None else module.arch.call
    size = module.image.shdr["sh_size"][module.image.executable]
    code = int(np.minimum(size, np.uint64(1 << 40)).sum())  # a header may claim anything
    added = stub_bytes(module.image, len(module.scan.records), shape is not None and shape.out_of_line)
    far = branch.high - code - added
    text = f"{code} bytes of code and {added} of stubs, a call reaches {-branch.low >> 20} MiB"
    return Check("reach", "ok" if far >= 0 else "refused", text)


def literals(module: Module) -> Check:
    """Whether every ops pointer in front of a function is 8-byte aligned wherever the module lands."""
    table, shape = module.scan.sites, module.scan.sites.shape
    if shape is None or shape.literal is None:
        return Check("literals", "ok", "no pointers in front of functions")
    used = np.flatnonzero(table.sec >= 0)
    align = module.image.shdr["sh_addralign"][table.sec[used]].astype(np.int64)
    bad = used[((table.off[used] + shape.literal) % 8 != 0) | (align % 8 != 0)]
    if len(bad):
        places = ", ".join(table.place_text(int(index)) for index in bad[:3])
        return Check("literals", "refused", f"{len(bad)} of {len(used)} pointers not 8-byte aligned: {places}")
    return Check("literals", "ok", f"{len(used)} pointers 8-byte aligned")


def relocations(module: Module) -> tuple[Check, ...]:
    """Whether the loader knows every relocation, on machines where that is known, and finds its place empty where it
    wants that. Source: arch/x86/kernel/module.c __write_relocate_add()."""
    image = module.image
    if not module.arch.loader.applied:
        return ()
    loaded = image.shdr["sh_flags"] & t.SHF_ALLOC != 0
    tables = {
        sec: relocations_of(image, sec) for sec in sorted(image.rela_tables) if 0 < sec < len(loaded) and loaded[sec]
    }
    wrong = [why for sec, rows in tables.items() for why in _refused_rows(image, sec, rows)]
    if wrong:
        return (Check("relocations", "refused", f"the loader refuses {'; '.join(wrong[:FEW])}"),)
    n = sum(len(rows.off) for rows in tables.values())
    return (Check("relocations", "ok", f"{n} relocations of types that the loader knows"),)


def _refused_rows(image: Image, sec: int, rows: Relocations) -> list[str]:
    """What the loader would not apply to one section, the first few of each kind."""
    loader, size = image.arch.loader, int(image.shdr["sh_size"][sec])
    unknown = np.flatnonzero(~is_in(rows.kind, loader.applied))[:FEW].tolist()
    places = [f"type {int(rows.kind[row])} at {image.names[sec]}+{int(rows.off[row]):#x}" for row in unknown]
    inside = (rows.off >= 0) & (rows.off + rows.size <= size)
    full = np.flatnonzero((rows.kind != image.arch.none) & inside)
    if loader.empty and image.has_bytes[sec]:
        full = full[_not_empty(image.content(sec), rows.off[full], rows.size[full])]
        places += [f"a place that is not zero, {image.names[sec]}+{off:#x}" for off in rows.off[full][:FEW].tolist()]
    return places


def _not_empty(content: U8, off: I64, size: I64) -> Mask:
    """Whether something else than zeros is in the `size` bytes at each place."""
    filled = np.concatenate(([0], np.cumsum(content != 0)))
    return np.asarray(filled[off + size] != filled[off])


def _some(names: Names | Sequence[bytes]) -> str:
    """The first three of many names."""
    shown = ", ".join(bytes(name).decode("utf-8", "replace") for name in names[:3])
    return shown + (", …" if len(names) > 3 else "")
