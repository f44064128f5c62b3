"""The builds that cibuildwheel would make on each platform are the ones that the project promises.

    python tools/wheel/identifiers.py

Reads the configuration of cibuildwheel in pyproject.toml with cibuildwheel itself; builds nothing. The job
that publishes counts the same number of wheels.
"""

from __future__ import annotations

import re
import subprocess
import sys

from common import ROOT

PYTHONS = ("cp310", "cp311", "cp312", "cp314t", "cp315t")  # cp312 gives the abi3 wheel
WORKFLOW = ROOT / ".github" / "workflows" / "wheels.yml"
PLATFORMS = {
    ("linux", "x86_64"): "manylinux_x86_64",
    ("linux", "aarch64"): "manylinux_aarch64",
    ("macos", "arm64"): "macosx_arm64",
}


def build_identifiers(platform: str, machine: str) -> list[str]:
    """What cibuildwheel says it would build."""
    command = [sys.executable, "-m", "cibuildwheel", "--platform", platform, "--archs", machine]
    command += ["--print-build-identifiers", str(ROOT)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def main() -> int:
    """Compares the lists; 1 if one differs."""
    is_different = False
    for (platform, machine), suffix in PLATFORMS.items():
        found = build_identifiers(platform, machine)
        expected = [f"{python}-{suffix}" for python in PYTHONS]
        print(f"{platform} {machine}: {' '.join(found)}")
        if sorted(found) != sorted(expected):
            print(f"  expected: {' '.join(expected)}")
            is_different = True
    promised = len(PYTHONS) * len(PLATFORMS)
    counted = re.search(r"find dist -name '\*\.whl' \| wc -l\)\" -eq (\d+)", WORKFLOW.read_text("utf-8"))
    if counted is None or int(counted[1]) != promised:
        print(f"{WORKFLOW.name} publishes {counted and counted[1]} wheels, {promised} are promised")
        is_different = True
    return int(is_different)


if __name__ == "__main__":
    raise SystemExit(main())
