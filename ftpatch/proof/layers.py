"""What boot loaders put around a kernel: in the second file it must be what it was, but for the kernel in it.

The kernels inside were held against each other already. Compressed data have nothing else in them; a signature for
Secure Boot goes with the bytes that it was made of.
"""

from __future__ import annotations

from ftpatch.container.layers import NAMES, Layer, inside
from ftpatch.container.wrappings import WRAPPINGS
from ftpatch.elf.image import Image
from ftpatch.errors import FtpatchError
from ftpatch.proof.case import Case


def check_layers(case: Case) -> None:
    """Findings for what changed around the kernel; notes on what cannot be compared."""
    before, after = case.before.image, case.after.image
    old, new = ([layer for layer in image.layers if not layer.leaves] for image in (before, after))
    if len(old) < len(before.layers) and len(new) == len(after.layers):
        case.kinds["signature"] += 1
    if len(new) < len(after.layers):
        case.notes.append("signed for Secure Boot: not checked, as the certificate is in neither file")
    if [layer.kind for layer in old] != [layer.kind for layer in new]:
        case.notes.append(f"packed in another way, so that only the kernels were compared: one {_form(before)}, "
                          f"now one {_form(after)}")  # fmt: skip
        return
    for at, (one, two) in enumerate(zip(old, new, strict=True)):
        if one.is_plain or one.frame is not None:
            content = new[at + 1].outer.tobytes() if at + 1 < len(new) else after.data.tobytes() + after.trailer
            _check(case, one, two, content)


def _form(image: Image) -> str:
    packed = "" if image.wrapping == "none" else f"inside {WRAPPINGS[image.wrapping].name}"
    return inside(image.layers).strip() or packed or "alone"


def _check(case: Case, one: Layer, two: Layer, content: bytes) -> None:
    """Two layers of one kind. content: what is in the second."""
    if one.frame is not None and two.frame is not None:
        same = one.frame() == two.frame()
    elif one.repack is None:
        case.notes.append(f"what is around the kernel in {NAMES[one.kind]} was not compared")
        return
    else:
        try:
            same = one.repack(content) == two.outer.tobytes()
        except FtpatchError:  # there is no room for it in the first file's
            same = False
    if not same:
        case.say("verify-byte", f"what is around the kernel in {NAMES[two.kind]} is not what it was in the first file",
                 pos=0)  # fmt: skip
