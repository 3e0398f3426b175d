"""Names that are like a wrong one: what a refusal proposes to somebody who mistyped.

Of few names, such as options and files, the letters are compared. A kernel has 60,000 functions and more: of these only
the ones are compared that share enough runs of three letters with the wrong one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

N_NEAR = 3  # names that are proposed
N_FEW, N_TRIED = 500, 60  # names that are all compared letter by letter; of more names, the best ones by their pieces
MAX_COMPARED = 1 << 20  # names that are looked at; a kernel has 60,000 functions
MAX_LENGTH = 128  # characters of a wrong name; a longer one was no typo
LIKENESS, SPREAD = 0.72, 0.1  # of 1: below it two names are not alike; so much below the best they are not meant


def near_names(wrong: str, names: Iterable[str], n: int = N_NEAR) -> list[str]:
    """Those of the names that are most like the wrong one, best first; none of a name that is no name."""
    if not wrong or len(wrong) > MAX_LENGTH:
        return []
    from difflib import SequenceMatcher  # a refusal alone needs it

    pool = [name for name in dict.fromkeys(islice(names, MAX_COMPARED)) if 0 < len(name) <= MAX_LENGTH]
    matcher = SequenceMatcher(None, b=wrong.lower())
    scored = []
    for name in pool if len(pool) <= N_FEW else _by_pieces(wrong, pool):
        matcher.set_seq1(name.lower())
        if matcher.quick_ratio() >= LIKENESS and (likeness := matcher.ratio()) >= LIKENESS:
            scored.append((-likeness, name))
    return [name for score, name in sorted(scored)[:n] if score <= min(scored)[0] + SPREAD]


def did_you_mean(wrong: str, names: Iterable[str], otherwise: str = "") -> str:
    """`did you mean scan?`, where there is a name like the wrong one; else what to do without."""
    near = near_names(wrong, names)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def _by_pieces(wrong: str, names: Sequence[str]) -> list[str]:
    """The names that share the most runs of three letters with the wrong one: a fifth of a second for a kernel."""
    wanted, ranked = _pieces(wrong), []
    for name in names:
        shared = len(wanted & _pieces(name))
        if shared * 2 >= len(wanted):
            ranked.append((0.3 * abs(len(name) - len(wrong)) - shared, name))
    return [name for _, name in sorted(ranked)[:N_TRIED]]


def _pieces(name: str) -> set[str]:
    return {name[i : i + 3] for i in range(max(1, len(name) - 2))}
