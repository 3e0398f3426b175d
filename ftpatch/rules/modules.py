"""Rules about a module and the kernel that will load it: what the loader would say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ftpatch.errors import EnvelopeError
from ftpatch.rules import Rule
from ftpatch.rules.case import Case, Hit

LOADED = ("module", "kernel")
CORE = 1  # of the sections of the tracer, those that every kernel with one has


def _asks(name: str) -> Callable[[Case], Iterator[Hit]]:
    """A rule that passes on what one check of `preflight` says against a load."""

    def find(case: Case) -> Iterator[Hit]:
        from ftpatch.kernel import module_load

        verdict: module_load.Check = getattr(module_load, name)(case.module, case.kernel)
        if verdict.verdict == "refused":
            yield Hit(verdict.text)

    return find


def machine(case: Case) -> Iterator[Hit]:
    """The kernel is another machine's."""
    kernel = case.context.kernel
    if kernel is not None and kernel.arch is not case.arch:
        yield Hit(f"the module is for {case.arch.name}, the kernel {kernel.arch.name}")


def loader_section(case: Case) -> Iterator[Hit]:
    """Sections that the loader grows, and that are not there."""
    records, image = case.slots(), case.image
    from ftpatch.kernel.loader import LOADERS

    loader = LOADERS[case.arch.name]
    wanted = case.kernel.sections if case.kernel else (*loader.always, *loader.traced[:CORE])
    n = int(records.live.sum())
    if n:
        for name in wanted:
            if not image.sections_named(name):
                yield Hit(f"no section {name}: the loader has nowhere to put the jumps of {n} sites", section=name)


def signature_missing(case: Case) -> Iterator[Hit]:
    """An unsigned module for a kernel that wants signatures."""
    if case.image.trailer:
        return
    if case.kconfig.get("MODULE_SIG_FORCE") == "y" or (case.kernel and case.kernel.enforced):
        yield Hit("not signed, and the kernel refuses unsigned modules")
    elif case.kconfig.get("MODULE_SIG") == "y":
        yield Hit("not signed: it loads where signatures are not enforced, and taints the kernel")


def signature_stale(case: Case) -> Iterator[Hit]:
    """A signature that is not of these bytes."""
    from ftpatch.container.signature import parse
    from ftpatch.rules.signed import wrong_signature

    if not case.image.trailer:
        return
    try:
        signature = parse(case.image.trailer)
    except EnvelopeError as error:
        yield Hit(f"the appended signature cannot be read: {error.what}")
        return
    if not signature.digest:
        yield Hit(f"the appended {len(case.image.trailer)} bytes are no signature that a kernel reads")
    elif text := wrong_signature(case.image, signature, case.context.certificates):
        yield Hit(text)


RULES = (
    Rule("module-machine", "error", "a module of another machine", machine,
         "The loader refuses it.", "Give the kernel that it was built for.",
         "kernel/module/main.c elf_validity_check()",
         kinds=("module",), needs=()),
    Rule("module-layout", "error", "a module with another layout than its kernel", _asks("layout"),
         "The kernel looks for its own layout in the module's sites: an ftrace bug at load, and tracing is off.",
         "Build the module with the compiler and the flags of the kernel.",
         "arch/*/kernel/ftrace.c ftrace_init_nop()", kinds=("module",), needs=LOADED),
    Rule("module-vermagic", "error", "vermagic is not the kernel's", _asks("magic"),
         "The loader compares the string and refuses the module.", "Build it against this kernel.",
         "kernel/module/main.c check_modinfo()", kinds=("module",), needs=LOADED),
    Rule("module-versions", "error", "symbol versions are not the kernel's", _asks("versions"),
         "Every used symbol has a CRC of its type; the loader refuses a module where one differs.",
         "Build it against this kernel.", "kernel/module/version.c check_version()", kinds=("module",), needs=LOADED),
    Rule("module-symbols", "error", "symbols that the kernel does not offer", _asks("symbols"),
         "The loader refuses a module with an undefined symbol, a foreign namespace or a GPL-only one.",
         "Build it against this kernel, or see which module exports it.", "kernel/module/main.c simplify_symbols()",
         kinds=("module",), needs=LOADED),
    Rule("loader-section", "error", "a section of the loader is missing", loader_section,
         "The loader puts its jumps to the tracer into .text.ftrace_trampoline, those of init text into "
         ".init.text.ftrace_trampoline; without them a far site gets a BRK, or the load fails.",
         "Link the module with the kernel's scripts/module.lds.",
         "Linux commit a7ed7b9d0ebb; module_frob_arch_sections()",
         kinds=("module",), needs=("records",)),
    Rule("signature-missing", "warning", "a module without a signature", signature_missing,
         "With signatures enforced (MODULE_SIG_FORCE, Secure Boot) it does not load; else it taints the kernel.",
         "Sign it with a key that the kernel trusts (ftpatch enable --sign, scripts/sign-file).",
         "kernel/module/signing.c", kinds=("module",), needs=()),
    Rule("signature-stale", "error", "a signature of other bytes", signature_stale,
         "A wrong signature is refused even where none is accepted.",
         "Take it off (ftpatch enable --signature strip), or sign again.",
         "kernel/module/signing.c mod_verify_sig()", kinds=("module",), needs=()),
)  # fmt: skip
