"""Which chosen sites `disable` cannot switch off, as they call nothing of a patch's."""

from __future__ import annotations

import numpy as np

from ftpatch.elf.kind import PROGRAMS
from ftpatch.plan.refusals import NOT_ENABLED, OTHER, WHY_NOT
from ftpatch.plan.request import Draft
from ftpatch.sites.table import ENABLED, HALF, READY, UNRECORDED


def refuse_not_enabled(draft: Draft) -> None:
    """Sites that are not enabled; where the sites of a layout are calls in the file and become NOPs, those count as
    enabled, and with --unrecorded those that no record names."""
    become_nops = bool(draft.shape.called) and not draft.shape.straight
    lone = become_nops and draft.takes_unrecorded and draft.scan.image.kind not in PROGRAMS
    states = (ENABLED, HALF, *((READY,) if become_nops else ()), *((UNRECORDED,) if lone else ()))
    status, reasons = draft.scan.sites.status, {**WHY_NOT, READY: NOT_ENABLED}
    if draft.takes_unrecorded:
        reasons[UNRECORDED] = f"not enabled: it calls {draft.shape.called} as it was compiled"
    for i in np.flatnonzero(draft.request.chosen & ~np.isin(status, states)).tolist():
        draft.reasons[i] = reasons.get(int(status[i]), OTHER)
