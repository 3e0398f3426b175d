"""Whether the signature of a module is of its bytes, by the signer's certificate where the kernel has it built in.

A kernel keeps the certificates it trusts as plain DER, one behind the other, at system_certificate_list.
Source: certs/system_keyring.c, certs/system_certificates.S.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.container.signature import Signature
from ftpatch.elf.image import Image

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

LIST, SIZE = "system_certificate_list", "system_certificate_list_size"
MAX_LIST = 1 << 20  # bytes
SEQUENCE, OCTETS, LONG = 0x30, 0x04, 0x82  # DER: two tags, and how a length of two bytes begins


def wrong_signature(image: Image, signature: Signature, known: tuple[Certificate, ...]) -> str:
    """What is wrong with the signature of a module; empty where it is right, or no certificate can say."""
    for certificate in known:
        if certificate.serial_number == signature.serial and not _verifies(image, signature, certificate):
            return f"the signature ({signature.digest}, {signature.issuer}) is not of these bytes"
    return ""


def certificates(kernel: Image) -> tuple[Certificate, ...]:
    """The certificates that are built into a kernel, as far as they can be read."""
    from cryptography.x509 import load_der_x509_certificate

    symbols = [kernel.symbols.value(name) for name in (LIST, SIZE)]
    first, at = (-1 if va is None else kernel.pos_of_va(va) for va in symbols)
    if min(first, at) < 0:
        return ()
    size = int.from_bytes(kernel.data[at : at + 8].tobytes(), "little")
    data, certificates = kernel.data[first : first + min(size, MAX_LIST)].tobytes(), []
    while len(data) > 4 and data[0] == SEQUENCE and data[1] == LONG:
        n = 4 + int.from_bytes(data[2:4], "big")
        with suppress(ValueError):  # the kernel skips what it cannot read, too
            certificates.append(load_der_x509_certificate(data[:n]))
        data = data[n:]
    return tuple(certificates)


def _verifies(image: Image, signature: Signature, certificate: Certificate) -> bool:
    """Whether the last OCTET STRING of the message, its signature, is of the module's bytes. True for unknown keys."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    digest = getattr(hashes, signature.digest.upper().replace("-", "_"), None)
    key, content = certificate.public_key(), image.data.tobytes()
    try:
        if digest is not None and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature.pkcs7[-key.key_size // 8 :], content, padding.PKCS1v15(), digest())
        elif digest is not None and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(_last_sequence(signature.pkcs7), content, ec.ECDSA(digest()))
    except InvalidSignature:
        return False
    return True


def _last_sequence(message: bytes) -> bytes:
    """The SEQUENCE that ends a message and stands in an OCTET STRING of just its length."""
    view = np.frombuffer(message, dtype=np.uint8)
    for at in np.flatnonzero(view[:-2] == SEQUENCE)[::-1].tolist():
        n, (first, second) = len(message) - at, message[at + 1 : at + 3]
        short = first < 0x80 and n == 2 + first and message[:at].endswith(bytes((OCTETS, n)))
        if short or (first == 0x81 and n == 3 + second and message[:at].endswith(bytes((OCTETS, 0x81, n & 0xFF)))):
            return message[at:]
    return b""
