"""`--threads`, which several subcommands take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from executorch_mm.cli.errors import UsageError

if TYPE_CHECKING:
    from executorch_mm._loading.options import NumThreads


def add_threads(parser: argparse._ActionsContainer) -> None:
    """Adds the option."""
    parser.add_argument("--threads", metavar="N", type=int, help="threads to run on (default: by model size)")


def num_threads(arguments: argparse.Namespace) -> NumThreads:
    """What was asked for, as runners take it.

    Raises:
        UsageError: Less than one.
    """
    threads: int | None = arguments.threads
    if threads is None:
        return "auto"
    if threads < 1:
        raise UsageError(f"{arguments.command}: --threads: expected 1 or more, got {threads}")
    return threads
