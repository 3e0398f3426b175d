"""x86_64: NOPs in front of a function's entry. A byte each, in front as behind, but for clang's long ones behind.

There are no switches here. One byte behind the entry holds no jump. Two would hold a short one, which leads back by 128
bytes at most; but gcc leaves two NOPs of a byte each, and a thread that stands between them when they become one jump
goes on in the middle of it. Programs have whole sites behind the entry with N − M = 5.
"""

from __future__ import annotations

from ftpatch.arch.fronts import PADDING
from ftpatch.arch.shape import Shape
from ftpatch.arch.x86_64_shapes import BEHIND_ENDBR64, CALL, ENDBR64, SHAPES, units

SHORT = (
    "fewer than the five bytes of NOPs behind the entry that a call takes, and no switch either: one byte holds no "
    "jump, and a thread may be between two NOPs that become one; "
    "-fpatchable-function-entry=N,M with N - M = 5 is enough"
)
NOTHING = "there are no NOPs behind the entry, so that nothing can lead to those in front of it"


def _in_front(shape: Shape) -> Shape:
    """A layout of NOPs at the entry, of functions that have others in front of it."""
    return shape._replace(
        name=f"{shape.name}-front", skip_at=0, refusal=SHORT if shape.refusal else "",
        text=f"{shape.text.partition(' (')[0]}, others in front of it (-fpatchable-function-entry=N,M)",
    )  # fmt: skip


FRONTS = (
    *(_in_front(shape) for shape in SHAPES if shape.program and not shape.called),
    Shape(
        PADDING, entry=0, start=0, old=(), new=(), branch=CALL, skips=(units(ENDBR64),), refusal=NOTHING, program=True,
        text="NOPs in front of the entry alone: padding, no sites (-fpatchable-function-entry=N,N)",
        skip_text=BEHIND_ENDBR64, source="gcc and clang -fpatchable-function-entry=N,N",
    ),
)  # fmt: skip
