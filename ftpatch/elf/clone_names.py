"""Names that compilers make of a function's own: `f.isra.0`, `f.constprop.0.cold`, `f.llvm.123`.

A clone is the function itself, with other parameters or under another name, unless one of its suffixes says that it
is only a part of it: then the rest stands in `f` or in its callers, and whoever traces the clone sees some calls only.
Source: gcc/cgraphclones.cc, gcc/lto/lto-partition.cc, gcc/ipa-split.cc; LLVM's ThinLTO, FunctionSpecialization,
UniqueInternalLinkageNames and argument promotion, BOLT and Propeller; Linux' cleanup_symbol_name() in kallsyms.c.
"""

from __future__ import annotations

import re

# What a suffix says of the function that has it.
WHOLE = {
    "isra": "with other parameters (.isra)", "constprop": "for constant arguments (.constprop)",
    "specialized": "for constant arguments (.specialized)", "argprom": "with other parameters (.argprom)",
    "argelim": "with other parameters (.argelim)", "retelim": "without its result (.retelim)",
    "sra": "with other parameters (.sra)", "clone": "a copy (.clone)", "simdclone": "for vectors (.simdclone)",
    "lto_priv": "by link-time optimisation (.lto_priv)", "llvm": "by link-time optimisation (.llvm)",
    "localalias": "by an alias (.localalias)", "__uniq": "with a name unique in the kernel (.__uniq)",
    "cfi": "the body behind its entry in a jump table (.cfi)",
}  # fmt: skip
PARTIAL = {
    "part": "a part of it, the rest is inlined (.part)", "__part": "a part of it (.__part)",
    "cold": "its unlikely code (.cold)", "warm": "its less likely code (.warm)",
    "cfi_jt": "its entry in a jump table (.cfi_jt)",
}  # fmt: skip
CLONE = re.compile(rf"(?:\.(?:{'|'.join([*WHOLE, *PARTIAL])})(?:\.[0-9a-fA-F]+)*)+$")
# Those of the whole function that is called as the source says.
SAME_PARAMETERS = frozenset({"lto_priv", "llvm", "localalias", "__uniq", "cfi"})


def base_name(name: str) -> str:
    """The name in the source, without what the compiler added."""
    return CLONE.sub("", name)


def meaning(name: str, clone: str) -> tuple[str, bool]:
    """What a clone of the function `name` is, and whether it is the function itself; "" where it is no clone."""
    suffixes = clone.removeprefix(name)
    if not clone.startswith(f"{name}.") or not CLONE.fullmatch(suffixes):
        return "", False
    kinds = [kind for kind in suffixes.split(".") if kind in WHOLE or kind in PARTIAL]
    # what says that it is a part says most, and comes first
    texts = [PARTIAL[kind] for kind in kinds if kind in PARTIAL] + [WHOLE[kind] for kind in kinds if kind in WHOLE]
    return ", ".join(dict.fromkeys(texts)), not any(kind in PARTIAL for kind in kinds)


def is_part(name: str) -> bool:
    """Whether a name says that its code is only a part of a function, as `.cold` does."""
    base = base_name(name)
    return base != name and not meaning(base, name)[1]


def other_parameters(name: str) -> str:
    """What the compiler made of a function so that it may have other parameters than in the source; empty where it did
    not. name: of its symbol."""
    text, _ = meaning(base_name(name), name)
    kinds = name.removeprefix(base_name(name)).split(".")
    return text if any(kind in (WHOLE | PARTIAL) and kind not in SAME_PARAMETERS for kind in kinds) else ""
