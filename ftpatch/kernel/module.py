"""A kernel and a module as each meets the other: what one offers, and what the other brings and wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from ftpatch.arch import Arch
from ftpatch.arrays import Mask
from ftpatch.elf.image import Image
from ftpatch.kernel.exports import Exports, read_exports
from ftpatch.kernel.loader import Vermagic, signatures_enforced, vermagic, wanted_sections
from ftpatch.kernel.modinfo import ModInfo, Names, Versions, read_modinfo, read_versions, undefined_names
from ftpatch.sites.scan import Scan

Providers = Mapping[str, Exports]  # by module name, in the kernel's spelling
NOBODY: Providers = MappingProxyType({})


@dataclass(frozen=True)
class Kernel:
    """A kernel as its modules meet it; made once for many modules."""

    scan: Scan

    @property
    def image(self) -> Image:
        return self.scan.image

    @property
    def arch(self) -> Arch:
        return self.scan.arch

    @cached_property
    def exports(self) -> Exports:
        return read_exports(self.image)

    @cached_property
    def magic(self) -> Vermagic | None:
        return vermagic(self.image)

    @cached_property
    def enforced(self) -> bool | None:
        return signatures_enforced(self.image)

    @cached_property
    def sections(self) -> tuple[str, ...]:
        """The sections that its loader looks for in every module, by name."""
        return wanted_sections(self.image)


@dataclass(frozen=True)
class Module:
    """A module as the loader meets it."""

    scan: Scan

    @property
    def image(self) -> Image:
        return self.scan.image

    @property
    def arch(self) -> Arch:
        return self.scan.arch

    @cached_property
    def info(self) -> ModInfo:
        return read_modinfo(self.image)

    @cached_property
    def versions(self) -> Versions:
        return read_versions(self.image)

    @cached_property
    def undefined(self) -> tuple[Names, Mask]:
        """Names that the loader must find, and which of them are weak."""
        return undefined_names(self.image)
