"""The list of what is inside the wheel, as CycloneDX JSON for its `.dist-info/sboms` (PEP 770).

CMake runs this with the libraries that it has just made; components.json says what is inside each of them,
under which licence. The same build gives the same bytes: no time stamps, no serial numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

# Run as a script by CMake, and imported as a part of the backend.
if __package__:
    from emm_build import sdk
else:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from emm_build import sdk

COMPONENTS_FILE = Path(__file__).with_name("components.json")
FILE_NAME = "executorch_mm.cdx.json"  # in .dist-info/sboms
ROOT_REF = "executorch_mm"

Json: TypeAlias = "dict[str, object]"


@dataclass(frozen=True)
class Component:
    """One project whose code is in the wheel.

    Attributes:
        name: As the project is called, in lower case.
        repository: Where its source code is.
        licence: An SPDX expression.
        text: The file in licences/ that holds the licence.
        inside: The components of ExecuTorch's SDK that carry it; none for what is in the module itself.
        platforms: Keys of the pinned SDKs that it is compiled for; none for all.
        version: A release or a commit; empty where the build knows it.
    """

    name: str
    repository: str
    licence: str
    text: str
    inside: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    version: str = ""

    def is_in_wheel(self, libraries: Collection[str], platform: str | None) -> bool:
        """Whether a wheel of this platform (None for an unknown one) with these libraries has the code."""
        is_linked = not self.inside or any(name in libraries for name in self.inside)
        return is_linked and (not self.platforms or platform is None or platform in self.platforms)


def read_components() -> list[Component]:
    """What components.json lists."""
    entries = json.loads(COMPONENTS_FILE.read_text(encoding="utf-8"))["components"]
    for entry in entries:
        entry.update({key: tuple(value) for key, value in entry.items() if isinstance(value, list)})
    return [Component(**entry) for entry in entries]


def licence_expression() -> str:
    """The SPDX expression of everything in a wheel, of any platform: what pyproject.toml has to say."""
    licences = {part for component in read_components() for part in component.licence.split(" AND ")}
    return " AND ".join(["BSD-3-Clause", *sorted(licences - {"BSD-3-Clause"})])


def make_sbom(
    version: str, versions: dict[str, str], libraries: dict[str, Path], platform: str | None
) -> Json:
    """The bill of materials of one wheel.

    Args:
        version: Of executorch_mm.
        versions: Of the components whose version the build knows, by name.
        libraries: The vendored library of each component of the SDK.
        platform: The key of the pinned SDK; None for an SDK of another origin.

    Returns:
        A CycloneDX 1.6 document.
    """
    parts = [part for part in read_components() if part.is_in_wheel(libraries, platform)]
    components = [_describe(part, versions.get(part.name) or part.version, platform) for part in parts]
    files = [_describe_library(path) for _, path in sorted(libraries.items())]
    names = {path.name for path in libraries.values()}
    depends: dict[str, set[str]] = {ROOT_REF: {"nanobind", "executorch", *names}, "nanobind": {"robin-map"}}
    for name, path in libraries.items():
        depends[path.name] = {"executorch", *(part.name for part in parts if name in part.inside)}
    root = {
        "type": "library",
        "bom-ref": ROOT_REF,
        "name": "executorch_mm",
        "version": version,
        "licenses": [{"expression": licence_expression()}],
        "purl": f"pkg:pypi/executorch-mm@{version}",
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": components + files,
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(others)} if others else {"ref": ref}
            for ref, others in sorted(depends.items())
        ],
    }


def _describe(part: Component, version: str, platform: str | None) -> Json:
    entry: Json = {
        "type": "library",
        "bom-ref": part.name,
        "name": part.name,
        "version": version,
        "licenses": [{"expression": part.licence}],
        "purl": _purl(part, version),
        "externalReferences": [{"type": "vcs", "url": part.repository}],
    }
    if part.name == "executorch" and platform is not None:
        pin = sdk.read_pin(platform)
        entry["hashes"] = [{"alg": "SHA-256", "content": pin.sha256}]  # of the wheel on the index
        origin = f"executorch {pin.version} for {pin.platform}"
        entry["properties"] = [{"name": "executorch_mm:wheel", "value": origin}]
    return entry


def _purl(part: Component, version: str) -> str:
    if part.name in ("executorch", "nanobind"):
        return f"pkg:pypi/{part.name}@{version}"
    match = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)", part.repository)
    if match:
        return f"pkg:github/{match[1].lower()}/{match[2].lower()}@{version}"
    return f"pkg:generic/{part.name}@{version}"


def _describe_library(path: Path) -> Json:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "type": "file",
        "bom-ref": path.name,
        "name": path.name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def _parse_pairs(pairs: list[str]) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in pairs)


def main() -> None:
    """Writes the file; CMake passes what it knows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", required=True, help="of executorch_mm")
    parser.add_argument("--known", nargs="*", default=[], metavar="COMPONENT=VERSION")
    parser.add_argument("--library", nargs="*", default=[], metavar="SDK_COMPONENT=FILE")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        platform = sdk.platform_key()
    except sdk.SdkError:  # the builder brought an SDK for a platform that we do not know
        platform = None
    libraries = {name: Path(path) for name, path in _parse_pairs(arguments.library).items()}
    sbom = make_sbom(arguments.version, _parse_pairs(arguments.known), libraries, platform)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(sbom, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
