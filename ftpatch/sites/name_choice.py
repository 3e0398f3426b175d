"""Names by selectors, for those tables of a file that are not of sites: static calls, symbols."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.errors import SelectionError
from ftpatch.sites.patterns import Patterns


def choose_names(
    names: Sequence[str], selectors: Sequence[str], nothing: Callable[[str], SelectionError],
    plain: Callable[[str], str] = str,
) -> Mask:  # fmt: skip
    """Which of the names are chosen by name, glob and /regex/, joined; `!` takes away, and only negative ones start
    from all. plain: from a name that a user writes to one as it is in `names`.

    Raises SelectionError where a selector matches nothing: what `nothing` makes of its text.
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    patterns = Patterns()
    chosen = np.zeros(len(names), dtype=bool)
    if all(selector.startswith("!") for selector in selectors):
        chosen[:] = True
    for selector in sorted(selectors, key=lambda text: text.startswith("!")):  # what is taken away comes last
        text = selector.removeprefix("!")
        hits = [row for name in _named(patterns, text, rows, plain) for row in rows[name]]
        if not hits:
            raise nothing(text)
        chosen[hits] = text == selector
    return chosen


def _named(patterns: Patterns, text: str, names: Iterable[str], plain: Callable[[str], str]) -> list[str]:
    """The names that a selector means."""
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        return patterns.regex(text[1:-1], names)
    name = plain(text)
    if any(char in name for char in "*?["):
        return patterns.glob(name, names)
    return [name] if name in names else []
