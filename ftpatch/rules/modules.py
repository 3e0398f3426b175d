"""Rules about a module and the kernel that will load it: what the loader would say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ftpatch.errors import EnvelopeError
from ftpatch.rules.case import Case, Hit


def _asks(name: str) -> Callable[[Case], Iterator[Hit]]:
    """A rule that passes on what one check of `preflight` says against a load."""

    def find(case: Case) -> Iterator[Hit]:
        from ftpatch.kernel import module_load

        check: module_load.Check = getattr(module_load, name)(case.module, case.kernel)
        if check.verdict == "refused":
            yield Hit(check.text)

    return find


module_layout, module_vermagic, module_versions, module_symbols = map(_asks, ("layout", "magic", "versions", "symbols"))


def module_machine(case: Case) -> Iterator[Hit]:
    """The kernel is another machine's."""
    kernel = case.context.kernel
    if kernel is not None and kernel.arch is not case.arch:
        yield Hit(f"the module is for {case.arch.name}, the kernel {kernel.arch.name}")


def loader_section(case: Case) -> Iterator[Hit]:
    """Sections that the loader grows, and that are not there."""
    loader, n = case.arch.loader, int(case.records.live.sum())
    # without a kernel: those of the tracer that every kernel with one has
    wanted = case.kernel.sections if case.kernel else (*loader.always, *loader.traced[:1])
    for name in wanted if n else ():
        if not case.image.sections_named(name):
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

    trailer = case.image.trailer
    if not trailer:
        return
    try:
        signature = parse(trailer)
    except EnvelopeError as error:
        yield Hit(f"the appended signature cannot be read: {error.what}")
        return
    if not signature.digest:
        yield Hit(f"the appended {len(trailer)} bytes are no signature that a kernel reads")
    elif text := wrong_signature(case.image, signature, case.context.certificates):
        yield Hit(text)
