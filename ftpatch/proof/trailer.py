"""The signature behind a module: gone, or one that was made for the new bytes.

Source: include/linux/module_signature.h; the message is PKCS#7, a DER sequence.
"""

from __future__ import annotations

from ftpatch.proof.case import Case

MARKER = b"~Module signature appended~\n"
FIXED = 12 + len(MARKER)  # struct module_signature and the marker
PKCS7 = 2


def check_trailer(case: Case, changed: bool) -> None:
    """Findings for a signature that cannot be one of the second file. changed: whether the ELF file is another."""
    old, new = case.before.image.trailer, case.after.image.trailer
    if old == new:
        if new and changed:
            case.say("verify-signature", "the appended signature is that of the first file, and the bytes are others")
        return
    case.kinds["signature"] += 1
    if new and (why := _wrong(new)):
        case.say("verify-signature", f"the appended signature {why}", pos=len(case.after.image.data))


def _wrong(trailer: bytes) -> str:
    """What is wrong with the outer form of a signature; its digest is not checked without a certificate."""
    head = trailer[-FIXED : -len(MARKER)]
    if len(head) != 12 or not trailer.endswith(MARKER):
        return "has no structure"
    if head[:2] != b"\0\0" or head[2] != PKCS7 or head[3:8] != bytes(5):
        return f"begins its structure with {head[:8].hex()}, expected 0000020000000000"
    message = trailer[:-FIXED]
    if int.from_bytes(head[8:], "big") != len(message):
        return f"says that it has {int.from_bytes(head[8:], 'big')} bytes of {len(message)}"
    size, n = message[1:2], message[1] & 0x7F if len(message) > 1 else 0
    long = bool(size and size[0] & 0x80)
    length = int.from_bytes(message[2 : 2 + n], "big") + 2 + n if long else (size[0] + 2 if size else 0)
    return "" if message[:1] == b"\x30" and length == len(message) else "is no PKCS#7 message"
