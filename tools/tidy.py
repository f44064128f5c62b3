"""clang-tidy, as .clang-tidy says, over the C++ rooms that include only ours and the standard library.

python tools/tidy.py      (a minute on two cores)
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("image", "model", "program", "runtime", "sampling")


def tidy(source: Path) -> subprocess.CompletedProcess[str]:
    """One file, and with it the headers that it includes."""
    command = ["clang-tidy", "--quiet", str(source), "--", "-std=c++17", "-I", str(ROOT / "cpp")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def main() -> int:
    """Prints what was found; 1 if there was something."""
    sources = sorted(path for room in ROOMS for path in (ROOT / "cpp" / room).glob("*.cpp"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = [run for run in pool.map(tidy, sources) if run.returncode != 0]
    for run in failed:
        print(run.stdout or run.stderr)
    return 1 if failed or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
