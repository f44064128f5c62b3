"""`executorch-mm doctor`: does the installation work, does a model, and what to do if not."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from executorch_mm.cli.doctor.check import STATUSES, Check
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.model_arguments import add_model_argument, expect_no_model, find_files
from executorch_mm.cli.output import add_json, add_output, opened


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "doctor",
        "check the installation and a model",
        "Check the installation, and a model if one is named; say what to do about what is wrong. Nothing is "
        "downloaded but a model that is named as owner/name.",
    )
    add_output(parser)
    add_json(parser, "print everything as JSON, for a bug report")
    add_model_argument(parser, required=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; the exit code is 1 if a check failed.

    Raises:
        UsageError: Something is said of a model, but none is named.
        OSError: The findings cannot be written.
    """
    checks = list(_checks(arguments))
    num_failed = sum(check.status == "failed" for check in checks)
    if arguments.json:
        from executorch_mm.cli.doctor.installation import python_report

        report = {
            "ok": num_failed == 0,
            "checks": [asdict(check) for check in checks],
            "build": python_report(),
        }
        text = json.dumps(report, indent=2)
    else:
        text = "\n".join(_lines(checks))
    with opened(arguments.output) as file:
        print(text, file=file)
    return int(num_failed > 0)


def _checks(arguments: argparse.Namespace) -> Iterator[Check]:
    from executorch_mm.cli.doctor.installation import check_installation

    if arguments.model is None:
        expect_no_model(arguments)
    yield from check_installation()
    if arguments.model is not None:
        from executorch_mm.cli.doctor.model import check_model

        yield from check_model(lambda: find_files(arguments))


def _lines(checks: Sequence[Check]) -> Iterator[str]:
    for check in checks:
        mark = check.status.upper() if check.status in ("warning", "failed") else check.status
        yield f"{mark:<7} {check.name}: {check.detail}"
        if check.advice:
            yield f"{' ' * 8}-> {check.advice}"
    counts = Counter(check.status for check in checks)
    yield ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
