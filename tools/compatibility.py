"""Writes docs/compatibility.md from the manifests of tests/models and from the tests of these models.

    python tools/compatibility.py            (no torch; runs tests/python/models, about a minute)

A model counts as working when every test that names it passes. tests/python/docs/test_compatibility_page.py
holds the page to the manifests; that the models work is held by their own tests, in the same run of CI.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from executorch_mm import inspect_model

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "tests" / "models"
PAGE = ROOT / "docs" / "compatibility.md"
SETS = {  # folder of tests/models -> test file
    "export_llm": "test_export_llm",
    "lora": "test_lora",
    "gemma4": "test_gemma4",
    "optimum": "test_optimum",
    "multimodal": "test_multimodal",
    "exports": "test_exports",
    "export_folders": "test_export_folders",
    "kvcache": "test_outer_cache",
    "seq2seq": "test_seq2seq",
    "clip": "test_clip",
}
INTRODUCTION = """# Which models run

<!-- Written by tools/compatibility.py from the manifests in tests/models and the results of their tests. -->

Each line is a tiny model with random weights that the named exporter made with the named flags. It *works*
when it gives the eager torch model's greedy tokens (CLIP: its embeddings) over two turns, again after
`reset()`, and for a prompt longer than one decoder call; T5 with each of several texts. Real weights differ
in size; what the runner needs to know it reads from the program. `executorch-mm inspect M.pte` shows the
same facts for a file of yours.

*Chunk* is the most positions that one decoder call takes, *cache* how the decoder remembers
([architecture](architecture.md#what-a-decoder-remembers)).

Look for who made your file; each part ends with what to change in exports that fail.
"""


# Who makes files and how to tell, what to change in those that fail, and the models of makers' scripts that
# write no manifest.
WRITTEN = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def plain(model: dict[str, str]) -> dict[str, Any]:
    """A model that is described by hand, as a manifest has it."""
    rest = {"flags": "", "notes": "", "file": f"{model['name']}.pte", "status": "works", "error": ""}
    return {**rest, **model}


def manifests() -> dict[str, dict[str, Any]]:
    found = {}
    for name in SETS:
        by_hand = WRITTEN["sets"].get(name)
        found[name] = (
            {**by_hand, "models": [plain(model) for model in by_hand["models"]]}
            if by_hand
            else json.loads((MODELS / name / "manifest.json").read_text())
        )
    return found


def run_tests() -> dict[str, dict[str, bool]]:
    """For each set, by test name: whether it passed."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        tests = str(ROOT / "tests" / "python" / "models")
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", tests]
        subprocess.run(command, check=False, cwd=ROOT)
        results: dict[str, dict[str, bool]] = {name: {} for name in SETS}
        for case in ET.parse(report).iter("testcase"):
            for name, file in SETS.items():
                if str(case.get("classname")).endswith(file):
                    results[name][str(case.get("name"))] = not any(
                        child.tag in {"failure", "error", "skipped"} for child in case
                    )
        return results


def outcome(model: dict[str, Any], results: dict[str, bool]) -> str:
    """What the table says of a model, given the tests of its set."""
    if model["status"] != "works":
        return str(model["status"]).replace("_", " ")
    named = [
        passed
        for test, passed in results.items()
        if model["name"] in test.partition("[")[2].rstrip("]").split("-")
    ]
    tests = named or list(results.values())
    return "works" if tests and all(tests) else "FAILS"


def page(results: dict[str, dict[str, bool]]) -> str:
    lines = [INTRODUCTION]
    known = manifests()
    for maker in WRITTEN["makers"]:
        lines += [f"## {maker['heading']}", "", maker["signs"], ""]
        failing: list[dict[str, Any]] = []
        for name in maker["sets"]:
            manifest = known[name]
            models = [
                model for model in manifest["models"] if model["exporter"].startswith(maker["exporter"])
            ]
            versions = ", ".join(" ".join(pair) for pair in manifest["versions"].items())
            lines += [f"`{manifest['generator']}`; {versions}.", ""]
            lines += [
                "| model | exporter and flags | methods | cache | chunk | status | notes |",
                "|---|---|---|---|---|---|---|",
            ]
            lines += [row(MODELS / name, model, outcome(model, results[name])) for model in models]
            lines.append("")
            failing += [model for model in models if model["error"]]
        lines += ["What to change:", ""]
        lines += [f"- {change}" for change in maker["changes"]]
        lines += [
            f"- `{model['name']}`: {WRITTEN['changes'][model['name']]} The exporter says: "
            f"{shorten(model['error'])}"
            for model in failing
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def row(folder: Path, model: dict[str, Any], status: str) -> str:
    methods, cache, chunk = "", "", ""
    if model["status"] == "works":
        report = inspect_model(folder / model["file"])
        methods = ", ".join(method.name for method in report.methods)
        cache = (
            ", ".join(sorted({method.cache for method in report.methods if method.cache != "none"})) or "none"
        )
        chunk = "" if report.max_chunk is None else str(report.max_chunk)
    flags = model["flags"] if isinstance(model["flags"], str) else " ".join(model["flags"])
    exporter = str(model["exporter"]) + (f"<br>`{flags}`" if flags else "")
    cells = [
        f"{model['family']}<br>`{model['name']}`",
        exporter,
        methods,
        cache,
        chunk,
        status,
        model["notes"],
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def shorten(error: str, most: int = 240) -> str:
    text = " ".join(error.split()).replace("<", "&lt;")
    return text if len(text) <= most else text[: most - 3] + "..."


def main() -> None:
    text = page(run_tests())
    PAGE.write_text(text, encoding="utf-8")
    counts = [text.count(f"| {status} |") for status in ("works", "exporter fails", "FAILS")]
    print("{}: {} work, {} not exported, {} fail".format(PAGE.name, *counts))


if __name__ == "__main__":
    main()
