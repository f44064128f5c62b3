"""The one error that the command line adds, and how errors are said."""

from __future__ import annotations

import sys

from executorch_mm.cli.output import forget, shown_text

PROGRAM = "executorch-mm"


class UsageError(Exception):
    """Arguments that are fine one by one do not go together, or a value is out of range. Exit code 2."""


def complain(error: BaseException | str) -> None:
    """Says what is wrong, in one line on stderr."""
    text = shown_text(" ".join(str(error).split())) or type(error).__name__
    try:
        print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads that either
        forget(sys.stderr)
