"""Why a function must not take another's place: redirects that lead nowhere good, and those that only seem to fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ftpatch.kernel.init_text import in_init_text
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.plan.redirect.replacement import Replacement
from ftpatch.plan.request import Draft, RedirectRequest


def refuse_wrong_replacements(
    draft: Draft, request: RedirectRequest, goals: Mapping[int, Replacement]
) -> dict[int, str]:
    """Sites whose replacement cannot be one; what is known of the two signatures, by site."""
    _refuse_loops(draft, goals)
    sites, image = draft.scan.sites, draft.scan.image
    for site, goal in goals.items():
        index = np.array([site])
        freed = in_init_text(image, np.array([goal.va, sites.va[site]], dtype=np.uint64))
        if freed[0] and not freed[1]:
            draft.refuse(index, f"{goal.name} is init text, which is freed after boot, and it is not")
        if goal.name in NORETURN:
            draft.refuse(index, f"{goal.name} never returns")
    return dict.fromkeys(goals, "not compared")


def _refuse_loops(draft: Draft, goals: Mapping[int, Replacement]) -> None:
    """Sites from which the way of redirects comes back to them."""
    sites = draft.scan.sites
    leads = {int(sites.entry_va[site]): goal.va for site, goal in goals.items()}
    for site, goal in goals.items():
        start, va, seen = int(sites.entry_va[site]), goal.va, set[int]()
        while va not in seen and va in leads:
            seen.add(va)
            va = leads[va]
        if start == goal.va:
            draft.refuse(np.array([site]), f"{goal.text} is the function itself")
        elif va == start or va in seen:
            draft.refuse(np.array([site]), f"{goal.name} is redirected in turn, and the way comes back")
