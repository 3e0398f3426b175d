"""Appended signatures: read as the kernel does, and made byte for byte as scripts/sign-file makes them."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from conftest import HOW, WANTED
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.signature import DIGESTS, parse, sign, size_of, usual_digest
from ftpatch.container.wrappings import MARKER
from ftpatch.errors import EnvelopeError, FtpatchError, InputError, PolicyError, UnsupportedError
from tools import apt, kernels

ELF = b"\x7fELF" + bytes(range(256)) * 100
SERIAL = 0x9123456789ABCDEF0123456789ABCDEF012345  # the top bit is set: its DER begins with a zero
P = int(
    "e71dcd720a0dde5acf38187b1a7dad3bdd14bd4a0741ca631ed21e78c0c0387a9310abd4dd385d80b96537cd97c80ad4e44d1b203201e9c1"
    "415acb08f247731847d3cd30a853c833e0f5bbccd18bd85a4c97c1ff8030a90b39b6f75489ac7a4ba61e39f43175c029e3a0b5b6f7995ef4"
    "8b73fed34c24286fd523324c26d3465b", 16
)  # fmt: skip
Q = int(
    "bd56826bf0055ebcbb99d1aca3a34f286f537c367d86514188792349958ff2102f668b5b9f6f5a544126ad0eb91d5e684fd5ac684a93784b"
    "6dea72bdf94f1af1c74eb88bd51f0dcd942b8536faa97d14ba7d2060df731e6c1439056c1de5bb58945612c0bea2d36d9f9e204fa7c48e25"
    "0cf26ac2e414dc08ebbedbf173f05b5d", 16
)  # fmt: skip
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
# sha256 of what sign-file of Debian's linux-kbuild 6.12.117 appended to ELF for this key, with OpenSSL 3.0.19
GOLDEN = {
    "sha256": "03ef1176454f4b71719a1d070b7599bcd22c4b83996a4abe5e57500a2ae13fed",
    "sha384": "ccc4eeb6605eda6880d3b69ea2c3bb3424dd4d97d8d1e34005b5b319b02c8292",
    "sha512": "26f5ac9fa57ef3a93731b420974b74052901a4cb3ff80e47aa8470deb257b714",
    "sha224": "092c105bdeaef4e7bc517789952abf5142e6a5151e55bac5d86c00ca0144be69",
    "sha3-256": "66b665a78cce6bae117c52413e7577ac9589bd69b2cd6715b9374058cd04bc4d",
    "sha3-384": "98292011f2ac7049ed277c4f989eb001c9d56b0d6f0db8d7da46be758a406ac3",
    "sha3-512": "fbe56a3921cfa60a69e8899e2ab532567d2f0f4c1e7aa371a7a2add2c6355f6c",
    "sha1": "cb1b710aa1888b8686749c087d2a1c069f880ec239a67385df6ab07925434dc9",
}


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """A key that is the same every time, and no secret."""
    d = pow(65537, -1, (P - 1) * (Q - 1))
    public = rsa.RSAPublicNumbers(65537, P * Q)
    return rsa.RSAPrivateNumbers(
        P, Q, d, rsa.rsa_crt_dmp1(d, P), rsa.rsa_crt_dmq1(d, Q), rsa.rsa_crt_iqmp(P, Q), public
    ).private_key()


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(P % (1 << 380), ec.SECP384R1())


def certificate(key: PrivateKey) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Acme Kernels"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "Build time key Ü"),
            x509.NameAttribute(x509.NameOID.EMAIL_ADDRESS, "kernel@acme.example"),
        ]
    )
    begin = datetime.datetime(2000, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(SERIAL).not_valid_before(begin).not_valid_after(begin.replace(year=2100))
    return builder.sign(key, hashes.SHA256())


def pem(key: PrivateKey | ed25519.Ed25519PrivateKey, phrase: bytes = b"") -> bytes:
    locked: KeySerializationEncryption = BestAvailableEncryption(phrase) if phrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)


def files(folder: Path, key: PrivateKey) -> tuple[str, str]:
    """Key and certificate as two PEM files."""
    one, two = folder / "key.pem", folder / "cert.pem"
    one.write_bytes(pem(key))
    two.write_bytes(certificate(key).public_bytes(Encoding.PEM))
    return str(one), str(two)


def refusal(kind: type[FtpatchError], key: str, cert: str, digest: str = "sha256") -> str:
    with pytest.raises(kind) as caught:
        sign(ELF, key, cert, digest)
    assert type(caught.value) is kind and str(caught.value).isprintable()
    return str(caught.value)


# -- made ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", sorted(GOLDEN))
def test_signature_by_an_rsa_key_is_that_of_sign_file(digest: str, tmp_path: Path) -> None:
    made = sign(ELF, *files(tmp_path, rsa_key()), digest)
    assert hashlib.sha256(made).hexdigest() == GOLDEN[digest]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_file_may_be_any_kind_of_bytes(kind: type, tmp_path: Path) -> None:
    assert hashlib.sha256(sign(kind(ELF), *files(tmp_path, rsa_key()))).hexdigest() == GOLDEN["sha256"]


def test_key_and_certificate_may_be_one_file(tmp_path: Path) -> None:
    key, cert = files(tmp_path, rsa_key())
    for name, order in (("one", (key, cert)), ("two", (cert, key))):
        both = tmp_path / name
        both.write_bytes(b"".join(Path(path).read_bytes() for path in order))
        assert sign(ELF, str(both), str(both)) == sign(ELF, key, cert)


def test_certificate_may_be_der(tmp_path: Path) -> None:
    key, cert = files(tmp_path, rsa_key())
    der = tmp_path / "cert.der"
    der.write_bytes(certificate(rsa_key()).public_bytes(Encoding.DER))
    assert sign(ELF, key, str(der)) == sign(ELF, key, cert)


def test_key_may_be_of_the_older_kinds(tmp_path: Path) -> None:
    key, cert = files(tmp_path, rsa_key())
    old = tmp_path / "old.pem"
    old.write_bytes(rsa_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    assert sign(ELF, str(old), cert) == sign(ELF, key, cert)


def test_signature_by_an_ec_key_is_always_the_same(tmp_path: Path) -> None:
    """sign-file's never is; the number that it takes by chance follows from key and content here."""
    paths = files(tmp_path, ec_key())
    assert sign(ELF, *paths) == sign(ELF, *paths)
    assert sign(ELF, *paths) != sign(ELF + b"x", *paths)


def test_trailer_ends_as_the_kernel_wants_it(tmp_path: Path) -> None:
    made = sign(ELF, *files(tmp_path, rsa_key()))
    n = len(made) - 40
    assert made[n:] == bytes([0, 0, 2, 0, 0, 0, 0, 0, *n.to_bytes(4, "big")]) + MARKER
    assert size_of(FileBytes.of(ELF + made)) == len(made)


# -- encrypted keys --------------------------------------------------------------------------------------------


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.delenv("KBUILD_SIGN_PIN", raising=False)
    key, cert = files(tmp_path, rsa_key())
    Path(key).write_bytes(pem(rsa_key(), b"sesame"))
    return key, cert


def test_encrypted_key_without_passphrase_is_refused(locked: tuple[str, str]) -> None:
    line = f"{locked[0]}: the key is encrypted – set KBUILD_SIGN_PIN to its passphrase"
    assert refusal(PolicyError, *locked) == line


def test_encrypted_key_is_opened_with_the_passphrase(locked: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBUILD_SIGN_PIN", "sesame")
    assert hashlib.sha256(sign(ELF, *locked)).hexdigest() == GOLDEN["sha256"]


def test_empty_passphrase_is_none(locked: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBUILD_SIGN_PIN", "")
    line = f"{locked[0]}: the key is encrypted – set KBUILD_SIGN_PIN to its passphrase"
    assert refusal(PolicyError, *locked) == line


def test_wrong_passphrase_is_refused(locked: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBUILD_SIGN_PIN", "barley")
    line = "no private key can be read from it: expected a PEM file, and its passphrase in KBUILD_SIGN_PIN"
    assert refusal(InputError, *locked) == f"{locked[0]}: {line}"


def test_passphrase_for_an_open_key_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBUILD_SIGN_PIN", "sesame")
    assert hashlib.sha256(sign(ELF, *files(tmp_path, rsa_key()))).hexdigest() == GOLDEN["sha256"]


# -- files that cannot be used ---------------------------------------------------------------------------------


def test_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    key, _ = files(tmp_path, rsa_key())
    other = tmp_path / "other.pem"
    other.write_bytes(certificate(ec_key()).public_bytes(Encoding.PEM))
    assert (
        refusal(PolicyError, key, str(other)) == f"{other}: the certificate is of another key: expected one for {key}"
    )


def test_missing_files_are_named(tmp_path: Path) -> None:
    key, cert = files(tmp_path, rsa_key())
    gone = str(tmp_path / "gone")
    assert refusal(InputError, gone, cert) == f"{gone}: cannot be read: No such file or directory"
    assert refusal(InputError, key, gone) == f"{gone}: cannot be read: No such file or directory"
    assert refusal(InputError, key, str(tmp_path)) == f"{tmp_path}: is a directory, not a regular file – name a file"


def armoured(name: bytes) -> bytes:
    """A PEM file with three zeros in it."""
    return b"-----BEGIN " + name + b"-----\nAAAA\n-----END " + name + b"-----\n"


@pytest.mark.parametrize("content", [b"", b"hello", armoured(b"RSA PRIVATE KEY"), armoured(b"PRIVATE KEY")])
def test_what_is_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    key, cert = files(tmp_path, rsa_key())
    Path(key).write_bytes(content)
    assert refusal(InputError, key, cert) == f"{key}: no private key can be read from it: expected a PEM file"


@pytest.mark.parametrize("content", [b"", b"hello", b"0\x82\x01\x00", armoured(b"CERTIFICATE")])
def test_what_is_no_certificate_is_refused(content: bytes, tmp_path: Path) -> None:
    key, cert = files(tmp_path, rsa_key())
    Path(cert).write_bytes(content)
    line = "no certificate can be read from it: expected an X.509 file, PEM or DER"
    assert refusal(InputError, key, cert) == f"{cert}: {line}"
    assert refusal(InputError, key, key) == f"{key}: {line}"


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    key, cert = files(tmp_path, rsa_key())
    Path(key).write_bytes(pem(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))))
    assert refusal(UnsupportedError, key, cert) == f"{key}: key type not supported: expected an RSA or EC key"


def test_a_cryptography_without_deterministic_ecdsa_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before version 43, as in Debian 12: the option that it does not know was a traceback."""

    class OldEcdsa:
        def __init__(self, algorithm: object) -> None: ...

    monkeypatch.setattr(ec, "ECDSA", OldEcdsa)
    key, cert = files(tmp_path, ec_key())
    assert refusal(UnsupportedError, key, cert) == (
        f"{key}: the key cannot sign with sha256: "
        "found cryptography knows no deterministic ECDSA, which version 43 brought"
    )


def test_unknown_digest_is_refused(tmp_path: Path) -> None:
    assert refusal(UnsupportedError, *files(tmp_path, rsa_key()), "md5") == (
        "digest not supported: found md5, expected sha256, sha384, sha512, sha224, sha3-256, sha3-384, sha3-512, sha1"
    )


# -- read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [rsa_key, ec_key])
@pytest.mark.parametrize("digest", DIGESTS)
def test_what_was_signed_is_read(key: Callable[[], PrivateKey], digest: str, tmp_path: Path) -> None:
    made = sign(ELF, *files(tmp_path, key()), digest)
    found = parse(made)
    assert (found.algo, found.hash, found.id_type, found.signer, found.key_id) == (0, 0, 2, b"", b"")
    assert found.pkcs7 == made[:-40]
    assert (found.digest, found.serial) == (digest, SERIAL)
    assert found.issuer == "O=Acme Kernels, CN=Build time key Ü, emailAddress=kernel@acme.example"
    assert usual_digest(made) == digest


def old_style(signer: bytes, key_id: bytes, value: bytes, id_type: int = 1) -> bytes:
    sizes = struct.pack(">BBBBB3xI", 1, 4, id_type, len(signer), len(key_id), len(value))
    return signer + key_id + value + sizes + MARKER


def test_signature_of_a_kernel_before_4_3_is_read() -> None:
    found = parse(old_style(b"Magrathea", b"\x2c\xf2", b"value"))
    assert (found.algo, found.hash, found.id_type) == (1, 4, 1)
    assert (found.signer, found.key_id, found.pkcs7) == (b"Magrathea", b"\x2c\xf2", b"value")
    assert (found.digest, found.issuer, found.serial) == ("", "", None)


@given(message=st.binary())
def test_message_that_says_nothing_is_no_error(message: bytes) -> None:
    found = parse(old_style(b"", b"", message, id_type=2))
    assert (found.pkcs7, found.digest, found.issuer, found.serial) == (message, "", "", None)


def test_every_truncated_or_changed_message_is_read_somehow(tmp_path: Path) -> None:
    whole = sign(ELF, *files(tmp_path, rsa_key()))[:-40]
    for n in range(len(whole)):
        assert parse(old_style(b"", b"", whole[:n], id_type=2)).serial is None
    for n in range(200):
        for value in (0, 0x7F, 0x80, 0xFF):
            text = parse(old_style(b"", b"", whole[:n] + bytes([value]) + whole[n + 1 :], id_type=2)).issuer
            assert text.isprintable()


def test_usual_digest_is_that_of_the_old_signature_or_sha256(tmp_path: Path) -> None:
    assert usual_digest(b"") == "sha256"
    assert usual_digest(old_style(b"", b"", b"no message", id_type=2)) == "sha256"
    assert usual_digest(sign(ELF, *files(tmp_path, rsa_key()), "sha512")) == "sha512"


CONTRADICTION = "the appended signature's sizes contradict each other"


@pytest.mark.parametrize(
    "trailer,line",
    [(b"", "not an appended signature: found 0 bytes"),
     (MARKER, "not an appended signature: found 28 bytes"),
     (bytes(40), "not an appended signature: found 40 bytes"),
     (b"x" + old_style(b"", b"", b"value"), f"{CONTRADICTION}: found 46 bytes, expected 45"),
     (old_style(b"", b"", b"value")[1:], f"{CONTRADICTION}: found 44 bytes, expected 45")],
)  # fmt: skip
def test_what_is_no_whole_trailer_is_refused(trailer: bytes, line: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        parse(trailer)
    assert str(caught.value) == line


# -- what others make of it ------------------------------------------------------------------------------------


def openssl(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    return subprocess.run(["openssl", *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False)


def accepted(folder: Path) -> bool:
    """Whether openssl finds that the certificate's key has signed the file."""
    done = openssl(
        "cms", "-verify", "-inform", "DER", "-in", "message", "-content", "elf", "-binary", "-noverify", "-certfile",
        "cert.pem", "-out", "out", folder=folder,
    )  # fmt: skip
    return done.returncode == 0 and "CMS Verification successful" in done.stderr


@pytest.mark.parametrize("key", [rsa_key, ec_key])
@pytest.mark.parametrize("digest", DIGESTS)
def test_openssl_accepts_our_signature_and_no_other_content(
    key: Callable[[], PrivateKey], digest: str, tmp_path: Path
) -> None:
    made = sign(ELF, *files(tmp_path, key()), digest)[:-40]
    (tmp_path / "message").write_bytes(made)
    (tmp_path / "elf").write_bytes(ELF)
    assert accepted(tmp_path)
    (tmp_path / "elf").write_bytes(ELF[:-1] + b"\0")
    assert not accepted(tmp_path)
    (tmp_path / "elf").write_bytes(ELF)
    (tmp_path / "message").write_bytes(made[:-1] + bytes([made[-1] ^ 1]))
    assert not accepted(tmp_path)


@pytest.mark.parametrize("digest", ["sha1", "sha224", "sha256", "sha384", "sha512"])
def test_openssl_makes_the_same_message(digest: str, tmp_path: Path) -> None:
    made = sign(ELF, *files(tmp_path, rsa_key()), digest)[:-40]
    (tmp_path / "elf").write_bytes(ELF)
    done = openssl(
        "cms", "-sign", "-binary", "-noattr", "-nocerts", "-nosmimecap", "-outform", "DER", "-md", digest, "-in", "elf",
        "-signer", "cert.pem", "-inkey", "key.pem", "-out", "theirs", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "theirs").read_bytes() == made


SHAPE = """\
0 SEQUENCE
1 OBJECT:pkcs7-signedData
1 cont [ 0 ]
2 SEQUENCE
3 INTEGER:01
3 SET
4 SEQUENCE
5 OBJECT:sha256
3 SEQUENCE
4 OBJECT:pkcs7-data
3 SET
4 SEQUENCE
5 INTEGER:01
5 SEQUENCE
6 SEQUENCE
7 SET
8 SEQUENCE
9 OBJECT:organizationName
9 UTF8STRING:Acme Kernels
7 SET
8 SEQUENCE
9 OBJECT:commonName
9 UTF8STRING:Build time key Ü
7 SET
8 SEQUENCE
9 OBJECT:emailAddress
9 IA5STRING:kernel@acme.example
6 INTEGER:9123456789ABCDEF0123456789ABCDEF012345
5 SEQUENCE
6 OBJECT:sha256
5 SEQUENCE
"""
BY_KEY: dict[str, tuple[Callable[[], PrivateKey], str]] = {
    "rsa": (rsa_key, "6 OBJECT:rsaEncryption\n6 NULL\n"),
    "ec": (ec_key, "6 OBJECT:ecdsa-with-SHA256\n"),
}


def elements(folder: Path, message: bytes) -> str:
    """Depth, type and value of all elements but the last, which is the signature's value."""
    (folder / "message").write_bytes(message)
    lines = openssl("asn1parse", "-inform", "DER", "-in", "message", folder=folder).stdout.splitlines()
    found = []
    for line in lines:
        depth, rest = line.split("d=")[1].split(maxsplit=1)
        kind, _, value = rest.partition(": ")[2].partition(":")
        found.append(f"{depth} {kind.strip()}" + (f":{value}" if value else "") + "\n")
    assert found[-1].startswith("5 OCTET STRING")
    return "".join(found[:-1])


@pytest.mark.parametrize("kind", BY_KEY)
def test_openssl_reads_every_element_of_the_message(kind: str, tmp_path: Path) -> None:
    key, algorithm = BY_KEY[kind]
    assert elements(tmp_path, sign(ELF, *files(tmp_path, key()))[:-40]) == SHAPE + algorithm


# -- the original ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sign_file() -> Path:
    """Debian's build of scripts/sign-file for this machine; fetched into the cache where real kernels are wanted."""
    if not WANTED:
        pytest.skip(HOW)
    program = kernels.cache_directory() / "sign-file"
    if not program.exists():
        arch = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
        source = apt.Apt.prepare(program.parent / "apt" / arch, arch, ("trixie", "trixie-security"))
        choices = apt.newest_first("linux-kbuild-6.12*+deb13*", source.candidates("linux-kbuild-6.12*+deb13*"))
        with tempfile.TemporaryDirectory(dir=program.parent) as name:
            folder = Path(name)
            _, deb = source.download(choices, folder)
            apt.extract(deb, {"it": "usr/lib/linux-kbuild-*/scripts/sign-file"}, folder)
            (folder / "it").chmod(0o755)
            (folder / "it").rename(program)
    return program


def by_sign_file(program: Path, folder: Path, digest: str) -> bytes:
    """What it appends to ELF."""
    (folder / "elf").write_bytes(ELF)
    subprocess.run([program, digest, "key.pem", "cert.pem", "elf", "signed"], cwd=folder, check=True)
    signed = (folder / "signed").read_bytes()
    assert signed.startswith(ELF)
    return signed.removeprefix(ELF)


@pytest.mark.corpus
@pytest.mark.parametrize("digest", sorted(GOLDEN))
def test_sign_file_makes_the_same_bytes(digest: str, sign_file: Path, tmp_path: Path) -> None:
    made = sign(ELF, *files(tmp_path, rsa_key()), digest)
    assert by_sign_file(sign_file, tmp_path, digest) == made


@pytest.mark.corpus
def test_sign_file_makes_the_same_but_for_the_value_with_an_ec_key(sign_file: Path, tmp_path: Path) -> None:
    made = sign(ELF, *files(tmp_path, ec_key()))
    assert elements(tmp_path, by_sign_file(sign_file, tmp_path, "sha256")[:-40]) == elements(tmp_path, made[:-40])
