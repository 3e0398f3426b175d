"""The signature that Linux appends to a module: read, and made as scripts/sign-file makes it.

    ELF file │ signer │ key id │ PKCS#7 │ struct module_signature │ "~Module signature appended~\\n"
               └ lengths are in the structure ┘                     28 bytes, the end of the file

Since v4.3 the first two are empty and the PKCS#7 message says who signed: SignedData over the bytes in front of it,
without the certificate and without signed attributes. The message is put together by hand, because what the package
cryptography makes has NULL parameters behind each digest's name, and sign-file's has none.
Source: include/linux/module_signature.h, kernel/module_signature.c, scripts/sign-file.c; RFC 5652 (CMS), RFC 5754.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.wrappings import MARKER
from ftpatch.errors import EnvelopeError, InputError, PolicyError, UnsupportedError, printable
from ftpatch.inputs import read_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

    PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey

MAX_KEY = 1 << 20  # bytes of a file with a key or a certificate

# struct module_signature; a kernel accepts nothing but zeros in all fields but id_type and sig_len.
STRUCT = struct.Struct(">BBBBB3xI")  # algo, hash, id_type, signer_len, key_id_len, sig_len
FIXED = STRUCT.size + len(MARKER)
PKEY_ID_PKCS7 = 2
NOBODY = "", "", None  # digest, issuer and serial number, where a message does not say them

SEQUENCE, SET, INTEGER, OCTETS, NULL, OID, CONTEXT_0 = 0x30, 0x31, 0x02, 0x04, 0x05, 0x06, 0xA0
DATA, SIGNED_DATA, RSA_ENCRYPTION = "1.2.840.113549.1.7.1", "1.2.840.113549.1.7.2", "1.2.840.113549.1.1.1"
DIGESTS = {  # name: the digest, and ECDSA with it; RSA has one name for all
    "sha256": ("2.16.840.1.101.3.4.2.1", "1.2.840.10045.4.3.2"),
    "sha384": ("2.16.840.1.101.3.4.2.2", "1.2.840.10045.4.3.3"),
    "sha512": ("2.16.840.1.101.3.4.2.3", "1.2.840.10045.4.3.4"),
    "sha224": ("2.16.840.1.101.3.4.2.4", "1.2.840.10045.4.3.1"),
    "sha3-256": ("2.16.840.1.101.3.4.2.8", "2.16.840.1.101.3.4.3.10"),
    "sha3-384": ("2.16.840.1.101.3.4.2.9", "2.16.840.1.101.3.4.3.11"),
    "sha3-512": ("2.16.840.1.101.3.4.2.10", "2.16.840.1.101.3.4.3.12"),
    "sha1": ("1.3.14.3.2.26", "1.2.840.10045.4.1"),
}
NAMES = {  # attribute types of a distinguished name, RFC 4519
    "2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU",
    "1.2.840.113549.1.9.1": "emailAddress",
}  # fmt: skip
BMP_STRING, WIDE_STRING = 0x1E, 0x1C  # tags of strings in UTF-16 and UTF-32


@dataclass(frozen=True)
class Signature:
    """An appended signature: fields of struct module_signature, the message, and what the message says."""

    algo: int  # this and the next are 0 for PKCS#7, which names both itself
    hash: int
    id_type: int  # PKEY_ID_PKCS7; before v4.3 also 0 (PGP) and 1 (X.509)
    signer: bytes
    key_id: bytes
    pkcs7: bytes  # the message
    digest: str = ""  # a key of DIGESTS; "" where it is another, or not said as the kernel would read it
    issuer: str = ""  # of the signer's certificate, as the next
    serial: int | None = None


def size_of(data: FileBytes, path: str = "") -> int:
    """Bytes of the signature at the end of a file; 0 where it does not end in the marker, as the kernel decides.

    Raises EnvelopeError where the sizes do not fit in the file.
    """
    end = data[-FIXED:].tobytes()
    if not end.endswith(MARKER):
        return 0
    size = FIXED
    if len(end) == FIXED:
        size += sum(STRUCT.unpack(end[: -len(MARKER)])[3:])
    if size >= len(data):
        raise EnvelopeError("the appended signature does not fit in the file", path, found=f"{size} bytes",
                            expected=f"fewer than {len(data)}", todo="the file is corrupt")  # fmt: skip
    return size


def parse(trailer: bytes) -> Signature:
    """The parts of an appended signature, given from its first byte to the end of the marker."""
    if len(trailer) < FIXED or not trailer.endswith(MARKER):
        raise EnvelopeError("not an appended signature", found=f"{len(trailer)} bytes")
    algo, hash_, id_type, signer_len, key_id_len, sig_len = STRUCT.unpack(trailer[-FIXED : -len(MARKER)])
    if signer_len + key_id_len + sig_len + FIXED != len(trailer):
        raise EnvelopeError("the appended signature's sizes contradict each other", found=f"{len(trailer)} bytes",
                            expected=str(signer_len + key_id_len + sig_len + FIXED))  # fmt: skip
    key_at, pkcs7_at = signer_len, signer_len + key_id_len
    pkcs7 = trailer[pkcs7_at:-FIXED]
    named = _signer_named(pkcs7) if id_type == PKEY_ID_PKCS7 else NOBODY
    return Signature(algo, hash_, id_type, trailer[:key_at], trailer[key_at:pkcs7_at], pkcs7, *named)


def usual_digest(trailer: bytes) -> str:
    """The digest to sign with anew: that of the signature that a file had, else sha256."""
    return (parse(trailer).digest if trailer else "") or "sha256"


def sign(elf: bytes | bytearray | memoryview, key: str, cert: str, digest: str = "sha256") -> bytes:
    """What to append to an ELF file, so that the kernel finds it signed.

    key: a PEM file with an RSA or EC key, which may be encrypted if the environment has KBUILD_SIGN_PIN; cert: a PEM
    or DER file, possibly the same. For an RSA key, the bytes are those that sign-file appends. A signature by an EC key
    rests on a number that sign-file takes by chance; here it follows from key and file as in RFC 6979.
    Raises InputError for files that cannot be used, PolicyError where key and certificate do not fit each other,
    UnsupportedError for other keys and digests.
    """
    import hashlib

    if digest not in DIGESTS:
        raise UnsupportedError("digest not supported", found=digest, expected=", ".join(DIGESTS))
    private = _private_key(key)
    issuer, serial = _signer(private, key, cert)
    algorithm, value = _signature(private, hashlib.new(digest.replace("-", "_"), elf).digest(), digest, key)
    named = _der(SEQUENCE, _oid(DIGESTS[digest][0]))
    signer = _der(SEQUENCE, _der(INTEGER, b"\1"), _der(SEQUENCE, issuer, serial), named, algorithm, _der(OCTETS, value))
    content = _der(SEQUENCE, _oid(DATA))
    signed = _der(SEQUENCE, _der(INTEGER, b"\1"), _der(SET, named), content, _der(SET, signer))
    message = _der(SEQUENCE, _oid(SIGNED_DATA), _der(CONTEXT_0, signed))
    return message + STRUCT.pack(0, 0, PKEY_ID_PKCS7, 0, 0, len(message)) + MARKER


# -- keys ------------------------------------------------------------------------------------------------------


def _private_key(path: str) -> PrivateKey:
    """The RSA or EC key in a PEM file."""
    content = read_file(path, MAX_KEY)
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise UnsupportedError("signing needs a Python package that is not there", expected="cryptography",
                               todo="pip install cryptography") from None  # fmt: skip
    pin = os.environ.get("KBUILD_SIGN_PIN")
    try:
        try:
            key = load_pem_private_key(content, None)
        except TypeError:  # how the package says that the key is encrypted
            if not pin:
                raise PolicyError("the key is encrypted", path, todo="set KBUILD_SIGN_PIN to its passphrase") from None
            key = load_pem_private_key(content, os.fsencode(pin))
    except ValueError:
        passphrase = ", and its passphrase in KBUILD_SIGN_PIN" if pin else ""
        raise InputError("no private key can be read from it", path, expected=f"a PEM file{passphrase}") from None
    except UnsupportedAlgorithm:
        key = None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise UnsupportedError("key type not supported", path, expected="an RSA or EC key")
    return key


def _signer(private: PrivateKey, key: str, cert: str) -> tuple[bytes, bytes]:
    """How the message names a certificate: its issuer and its serial number, the very bytes that are in it."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    content = read_file(cert, MAX_KEY)
    try:
        load = x509.load_pem_x509_certificate if b"-----BEGIN" in content else x509.load_der_x509_certificate
        certificate = load(content)
        public = certificate.public_key()
        parts = _elements(_only(SEQUENCE, certificate.tbs_certificate_bytes))
        # A version in [0], where there is one, comes first (RFC 5280, 4.1).
        serial, _, issuer = [whole for tag, whole, _ in parts if tag != CONTEXT_0][:3]
    except (ValueError, UnsupportedAlgorithm):
        raise InputError("no certificate can be read from it", cert, expected="an X.509 file, PEM or DER") from None
    # Numbers, since keys themselves are compared from version 40 of cryptography on.
    if _numbers(public) != _numbers(private.public_key()):
        raise PolicyError("the certificate is of another key", cert, expected=f"one for {key}")
    return issuer, serial


def _numbers(public: object) -> object:
    """The numbers that make a public key; None for kinds of key that have none."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    return public.public_numbers() if isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) else None


def _signature(private: PrivateKey, hashed: bytes, digest: str, key: str) -> tuple[bytes, bytes]:
    """How the message names the way of signing, and the signature; RSA has a NULL parameter there, ECDSA has none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

    kind = Prehashed(getattr(hashes, digest.upper().replace("-", "_"))())
    try:
        if isinstance(private, rsa.RSAPrivateKey):
            return _der(SEQUENCE, _oid(RSA_ENCRYPTION), _der(NULL)), private.sign(hashed, padding.PKCS1v15(), kind)
        value = private.sign(hashed, _without_chance(kind))
        return _der(SEQUENCE, _oid(DIGESTS[digest][1])), value
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnsupportedError(f"the key cannot sign with {digest}", key, found=str(error).rstrip(".")) from None


def _without_chance(kind: Prehashed) -> ECDSA:
    """ECDSA as in RFC 6979. Raises UnsupportedAlgorithm where cryptography has none: before 43, or on OpenSSL < 3.2."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        return ec.ECDSA(kind, deterministic_signing=True)
    except TypeError:  # an option that it does not know
        raise UnsupportedAlgorithm("cryptography knows no deterministic ECDSA, which version 43 brought") from None


# -- DER -------------------------------------------------------------------------------------------------------


def _der(tag: int, *parts: bytes) -> bytes:
    """One element around others."""
    body = b"".join(parts)
    if len(body) < 128:  # the short form of a length
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 128 | len(length)]) + length + body


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    body = b""
    for number in (40 * first + second, *rest):
        digits = [number & 127]
        while number := number >> 7:
            digits.insert(0, number & 127 | 128)
        body += bytes(digits)
    return _der(OID, body)


def _elements(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(tag, the whole element, what is in it) of each; ValueError where they do not fill the data."""
    at = 0
    while at < len(data):
        start, size = at + 2, int.from_bytes(data[at + 1 : at + 2])
        if size > 127:
            start, size = start + size - 128, int.from_bytes(data[start : start + size - 128])
        if start + size > len(data):
            raise ValueError("truncated DER")
        yield data[at], data[at : start + size], data[start : start + size]
        at = start + size


def _only(tag: int, data: bytes) -> bytes:
    """What is in the one element of the data."""
    [(actual, _, body)] = _elements(data)
    if actual != tag:
        raise ValueError("another DER tag")
    return body


def _signer_named(message: bytes) -> tuple[str, str, int | None]:
    """Digest, issuer and serial number by which a PKCS#7 message names its first signer."""
    try:
        (_, kind, _), (_, content, _) = _elements(_only(SEQUENCE, message))
        if kind != _oid(SIGNED_DATA):
            return NOBODY
        signed = list(_elements(_only(SEQUENCE, _only(CONTEXT_0, content))))
        _, signer, _ = next(_elements(signed[-1][2]))
        _, named, algorithm, *_ = _elements(_only(SEQUENCE, signer))
        digest = next((name for name, ids in DIGESTS.items() if algorithm[2].startswith(_oid(ids[0]))), "")
        if named[0] != SEQUENCE:  # by key identifier
            return digest, "", None
        (_, _, names), (_, _, serial) = _elements(named[2])
        return digest, _issuer(names), int.from_bytes(serial, signed=True)
    except (ValueError, StopIteration, IndexError):
        return NOBODY


def _issuer(names: bytes) -> str:
    """A distinguished name as text: CN=…, O=…"""
    parts = []
    for _, _, group in _elements(names):
        for _, _, pair in _elements(group):
            (_, kind, _), (tag, _, value) = _elements(pair)
            name = next((short for dotted, short in NAMES.items() if kind == _oid(dotted)), "?")
            coding = {BMP_STRING: "utf-16-be", WIDE_STRING: "utf-32-be"}.get(tag, "utf-8")
            parts.append(f"{name}={value.decode(coding, 'replace')}")
    return printable(", ".join(parts))
