"""The signature behind a module: gone, or one that was made for the new bytes.

What a kernel takes is a PKCS#7 message of one signer over the bytes in front of it. Whether the signature itself is
right is not known without the certificate of the signer; but every other byte of the message is accounted for, so that
nothing hides in it, and a digest that the message states must be that of the file.
Source: include/linux/module_signature.h; crypto/asymmetric_keys/pkcs7_parser.c; RFC 5652.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ftpatch.elf.image import Image
from ftpatch.errors import printable
from ftpatch.proof.case import Case

MARKER = b"~Module signature appended~\n"
FIXED = 12 + len(MARKER)  # struct module_signature and the marker
PKCS7 = 2
INTEGER, OCTETS, OID, SEQUENCE, SET, KEY_ID, CONTEXT_0 = 0x02, 0x04, 0x06, 0x30, 0x31, 0x80, 0xA0
SIGNED_DATA, DATA, MESSAGE_DIGEST = (bytes.fromhex(f"2a864886f70d01{end}") for end in ("0702", "0701", "0904"))
SHA = bytes.fromhex("6086480165030402")
DIGESTS = {bytes.fromhex("2b0e03021a"): "sha1", **{SHA + bytes([number]): name for number, name in (
           (1, "sha256"), (2, "sha384"), (3, "sha512"), (4, "sha224"), (8, "sha3-256"), (9, "sha3-384"),
           (10, "sha3-512"))}}  # fmt: skip
COMMON_NAME = bytes.fromhex("550403")
MAX_NAMES, MAX_VALUE = 2048, 8192  # bytes that say who signed and how; of a signature, ML-DSA-87 has 4,627


class NotSigned(ValueError):
    """Why a message is no signature of a module."""


def check_trailer(case: Case, changed: bool) -> None:
    """Findings for a signature that cannot be one of the second file. changed: whether the ELF file is another."""
    old, new = case.before.image.trailer, case.after.image.trailer
    if old == new:
        if new and changed:
            case.say("verify-signature", "the appended signature is that of the first file, and the bytes are others")
        return
    case.kinds["signature"] += 1
    if not new:
        return
    if why := _wrong(new, case.after.image):
        case.say("verify-signature", f"the appended signature {why}", pos=len(case.after.image.data))
        return
    case.notes.append(f"signed {_signer(new[:-FIXED])}: not checked, as the certificate is in neither file")


def _wrong(trailer: bytes, elf: Image) -> str:
    """What is wrong with a signature; empty where nothing is but what only the signer's certificate tells."""
    head = trailer[-FIXED : -len(MARKER)]
    if len(head) != 12 or not trailer.endswith(MARKER):
        return "has no structure"
    if head[:2] != b"\0\0" or head[2] != PKCS7 or head[3:8] != bytes(5):
        return f"begins its structure with {head[:8].hex()}, expected 0000020000000000"
    message = trailer[:-FIXED]
    if int.from_bytes(head[8:], "big") != len(message):
        return f"says that it has {int.from_bytes(head[8:], 'big')} bytes of {len(message)}"
    try:
        _require_message(message, elf)
    except NotSigned as why:
        return f"is no PKCS#7 message as the kernel takes it: {why}"
    return ""


def _require_message(message: bytes, elf: Image) -> None:
    """Raise NotSigned where the message is anything but SignedData of one signer over `elf`."""
    kind, content = _fields(_one(SEQUENCE, message), (OID, CONTEXT_0))
    if kind != SIGNED_DATA:
        raise NotSigned("it is not signed data")
    _, digests, data, signers = _fields(_one(SEQUENCE, content), (INTEGER, SET, SEQUENCE, SET))
    if data != bytes([OID, len(DATA)]) + DATA:
        raise NotSigned("it has data of its own")
    signer = _parts_of_signer(signers)
    attributes = [body for tag, body in signer if tag == CONTEXT_0]
    tags = [tag for tag, _ in signer if tag != CONTEXT_0]
    if tags not in ([INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, OCTETS], [INTEGER, KEY_ID, SEQUENCE, SEQUENCE, OCTETS]) or (
        len(attributes) > 1 or sum(len(body) for _, body in signer[:-1]) > MAX_NAMES
    ):  # fmt: skip
        raise NotSigned("what it says of its signer is more, or less, than who and how")
    digest = DIGESTS.get(next((body for _, body in _elements(signer[2][1])), b""), "")
    if not digest or len(digests) > 64:
        raise NotSigned("it names no digest that the kernel knows")
    if not 0 < len(signer[-1][1]) <= MAX_VALUE:
        raise NotSigned(f"its signature has {len(signer[-1][1])} bytes")
    for body in attributes:
        summed = hashlib.new(digest.replace("-", "_"))
        for piece in elf.data.pieces():
            summed.update(piece.data)
        _require_digest(body, summed.digest())


def _parts_of_signer(signers: bytes) -> list[tuple[int, bytes]]:
    """What a message says of its only signer."""
    parts = [*_elements(_one(SEQUENCE, signers))]
    if len(parts) < 3:
        raise NotSigned("it does not say who signed")
    return parts


def _signer(message: bytes) -> str:
    """Who signed a sound message, for people: the digest, the common name of the issuer, the serial number."""
    signed = _fields(_one(SEQUENCE, message), (OID, CONTEXT_0))[1]
    _, who, digest, *_ = _parts_of_signer(_fields(_one(SEQUENCE, signed), (INTEGER, SET, SEQUENCE, SET))[3])
    text = f"with {DIGESTS[next(_elements(digest[1]))[1]]}"
    if who[0] == KEY_ID:
        return f"{text} by the key {who[1][:32].hex()}"
    (_, names), (_, serial) = [*_elements(who[1])][:2]
    common = [[*_elements(pair)] for _, group in _elements(names) for _, pair in _elements(group)]
    shown = [pair[1][1].decode("utf-8", "replace") for pair in common if pair[0] == (OID, COMMON_NAME)]
    return f"{text} by {printable(shown[-1]) if shown else 'somebody'}, serial {int.from_bytes(serial, 'big'):#x}"


def _require_digest(attributes: bytes, expected: bytes) -> None:
    """Raise NotSigned where signed attributes state another digest than that of the file, or none."""
    stated = [body for _, pair in _elements(attributes) for body in [[*_elements(pair)]]
              if len(body) == 2 and body[0] == (OID, MESSAGE_DIGEST)]  # fmt: skip
    if len(stated) != 1 or _one(OCTETS, stated[0][1][1]) != expected:
        raise NotSigned("the digest that it states is not that of the file")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of each DER element; NotSigned where they do not fill the data, or are not as DER writes them."""
    at = 0
    while at < len(data):
        start, size = at + 2, int.from_bytes(data[at + 1 : at + 2], "big")
        if size & 0x80:
            n = size & 0x7F
            size, start = int.from_bytes(data[start : start + n], "big"), start + n
            if not 1 <= n <= 4 or size < 128 or size >> 8 * (n - 1) == 0:
                raise NotSigned("a length in it is not as DER writes it")
        if start + size > len(data) or at + 1 >= len(data):
            raise NotSigned("it is cut off")
        yield data[at], data[start : start + size]
        at = start + size


def _fields(data: bytes, tags: tuple[int, ...]) -> list[bytes]:
    """The contents of elements of just these tags."""
    parts = [*_elements(data)]
    if tuple(tag for tag, _ in parts) != tags:
        raise NotSigned(f"it has the parts {', '.join(f'{tag:#x}' for tag, _ in parts[:8])}, expected "
                        f"{', '.join(f'{tag:#x}' for tag in tags)}")  # fmt: skip
    return [body for _, body in parts]


def _one(tag: int, data: bytes) -> bytes:
    return _fields(data, (tag,))[0]
