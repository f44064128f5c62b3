"""Everything that can be said of finished wheels without installing them.

    python tools/wheel/audit.py WHEEL...

check.py, the bill of materials against CycloneDX's schema, abi3audit for stable-ABI wheels, twine. Used by
`nox -s wheel` and by the workflow of a release; pyproject's group `release` has the tools.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from check import check_wheel
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def check_sbom_schema(wheel: Path) -> list[str]:
    """What CycloneDX's schema says against the files in the wheel's sboms folder, one line each."""
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    problems = []
    with zipfile.ZipFile(wheel) as archive:
        names = [
            name for name in archive.namelist() if ".dist-info/sboms/" in name and name.endswith(".json")
        ]
        for name in names:
            error = validator.validate_str(archive.read(name).decode("utf-8"))
            if error is not None:
                problems.append(f"{wheel.name}: {name}: {error.data}")
    if not names:
        problems.append(f"{wheel.name}: no bill of materials")
    print(f"  CycloneDX schema: {len(names)} files, {len(problems)} problems", flush=True)
    return problems


def audit(wheel: Path) -> None:
    """Runs everything on one wheel.

    Raises:
        SystemExit: Something is wrong; the text says what.
    """
    problems = [*check_wheel(wheel), *check_sbom_schema(wheel)]
    commands = [["twine", "check", "--strict"]]
    if "-abi3-" in wheel.name:
        commands.append(["abi3audit", "--strict", "--summary"])
    problems += [
        f"{wheel.name}: {command[0]} found faults"
        for command in commands
        if subprocess.run([sys.executable, "-m", *command, str(wheel)], check=False).returncode != 0
    ]
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        audit(Path(argument))
