"""What an installation holds, as CycloneDX 1.5 has it: python -m tools.sbom WHEEL [-o FILE].

The wheel's own metadata tells name, version, licence and what it needs; versions are those of the environment that runs
this. Nothing of the time or place is in it, so that the same wheel in the same environment gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import uuid
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

NAMESPACE = uuid.UUID("6d9b6f4e-2f60-5c55-9a4b-0f6ad3ab8d11")  # of serial numbers that follow from a wheel's bytes


def metadata(wheel: Path) -> Message:
    """The METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def needed(requirements: list[str]) -> list[str]:
    """Names of what these need here, and what that needs in turn; without extras."""
    names: dict[str, None] = {}
    open_ = [Requirement(text) for text in requirements]
    while open_:
        one = open_.pop(0)
        name = one.name.lower().replace("_", "-")
        if name in names or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        names[name] = None
        try:
            open_ += [Requirement(text) for text in distribution(name).requires or []]
        except PackageNotFoundError:
            raise SystemExit(f"make sbom: {name} is not installed here, so that its version is not known") from None
    return sorted(names)


def sbom(wheel: Path) -> dict[str, object]:
    """The document of a wheel and of what it needs in this environment."""
    own = metadata(wheel)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    names = needed([str(text) for text in own.get_all("Requires-Dist", [])])
    parts = [_component(name, distribution(name).version) for name in names]
    product: dict[str, object] = {
        **_component(str(own["Name"]), str(own["Version"])), "type": "application",
        "licenses": [{"expression": str(own["License-Expression"])}],
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }  # fmt: skip
    depends = [
        {"ref": _purl(name, distribution(name).version),
         "dependsOn": [_purl(other, distribution(other).version) for other in _direct(name, names)]}
        for name in names
    ]  # fmt: skip
    first = {str(Requirement(str(text)).name).lower() for text in own.get_all("Requires-Dist", [])}
    root = {"ref": product["bom-ref"], "dependsOn": [str(part["bom-ref"]) for part in parts if part["name"] in first]}
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, digest)}",
        "version": 1, "metadata": {"component": product}, "components": parts, "dependencies": [root, *depends],
    }  # fmt: skip


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"


def _component(name: str, version: str) -> dict[str, object]:
    return {
        "type": "library", "bom-ref": _purl(name, version), "name": name, "version": version,
        "purl": _purl(name, version),
    }  # fmt: skip


def _direct(name: str, among: list[str]) -> list[str]:
    wanted = [Requirement(text) for text in distribution(name).requires or []]
    here = {
        one.name.lower().replace("_", "-") for one in wanted if not one.marker or one.marker.evaluate({"extra": ""})
    }
    return sorted(here.intersection(among))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.sbom", description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(sbom(options.wheel), indent=1) + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
