"""Plants damage in patched files, kind by kind, to see that `ftpatch verify` finds it: python -m tools.sabotage."""

from __future__ import annotations

from tools.sabotage import file, kernel, module, octets, redirects, sites, static_calls
from tools.sabotage.victim import Damage, Mutation, Victim, damaged, victim_of

__all__ = ["KINDS", "Damage", "Mutation", "Victim", "damaged", "victim_of"]

KINDS: tuple[Mutation, ...] = (
    *sites.KINDS, *kernel.KINDS, *file.KINDS, *module.KINDS, *octets.KINDS, *redirects.KINDS, *static_calls.KINDS,
)  # fmt: skip
