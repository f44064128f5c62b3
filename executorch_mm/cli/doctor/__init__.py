"""`executorch-mm doctor`: does the installation work, does a model, and what to do if not."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from executorch_mm.cli.doctor.check import STATUSES, Check


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="check the installation and a model",
        description="Check the installation, and a model if one is named; say what to do about what is "
        "wrong. Nothing is downloaded. The exit code is 1 if a check failed.",
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a .pte file, or the folder of one")
    parser.add_argument(
        "--tokenizer", metavar="T", help="tokenizer file or folder (default: the model's folder)"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for a bug report")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand."""
    checks = list(_checks(arguments.model, arguments.tokenizer))
    num_failed = sum(check.status == "failed" for check in checks)
    if arguments.json:
        from executorch_mm.cli.doctor.installation import python_report

        report = {
            "ok": num_failed == 0,
            "checks": [asdict(check) for check in checks],
            "build": python_report(),
        }
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(_lines(checks)))
    return int(num_failed > 0)


def _checks(model: str | None, tokenizer: str | None) -> Iterator[Check]:
    from executorch_mm.cli.doctor.installation import check_installation

    yield from check_installation()
    if model is not None:
        from executorch_mm.cli.doctor.model import check_model

        yield from check_model(Path(model), None if tokenizer is None else Path(tokenizer))


def _lines(checks: Sequence[Check]) -> Iterator[str]:
    for check in checks:
        mark = check.status.upper() if check.status in ("warning", "failed") else check.status
        yield f"{mark:<7} {check.name}: {check.detail}"
        if check.advice:
            yield f"{' ' * 8}-> {check.advice}"
    counts = Counter(check.status for check in checks)
    yield ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
