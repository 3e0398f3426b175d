"""The compressions that kernels and modules are shipped in, and the mark of an appended signature."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from ftpatch.errors import UnsupportedError

MARKER = b"~Module signature appended~\n"  # the end of a signed module. Source: include/linux/module_signature.h


@dataclass(frozen=True)
class Wrapping:
    """One compression."""

    magic: bytes  # the first bytes of such a file
    name: str  # for messages


WRAPPINGS = {
    "xz": Wrapping(b"\xfd7zXZ\0", "xz data"),
    "gz": Wrapping(b"\x1f\x8b", "gzip data"),
    "zst": Wrapping(b"\x28\xb5\x2f\xfd", "zstd data"),
}


def wrapping_for(out: str, otherwise: str) -> str:
    """How a file of this name is compressed, for the names that modules have; `otherwise` for any other name."""
    for wrapping in ("none", *WRAPPINGS):
        if out.endswith(".ko" if wrapping == "none" else f".ko.{wrapping}"):
            return wrapping
    return otherwise


def zstandard_package(path: str) -> ModuleType:
    """The package, which Python has none of its own for before 3.14."""
    try:
        import zstandard
    except ImportError:
        raise UnsupportedError("zstd data needs a Python package that is not there", path, expected="zstandard",
                               todo="pip install zstandard, or unpack the file first") from None  # fmt: skip
    return zstandard
