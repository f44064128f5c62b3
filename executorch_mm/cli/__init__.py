"""The command line: `executorch-mm demo | doctor | generate | transcribe | inspect | version`.

Exit codes: 0 done, 1 something failed while running, 2 wrong usage, 130 interrupted by Ctrl-C. Errors are one
line on stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from executorch_mm import ExecutorchMMError, __version__
from executorch_mm.cli import demo, doctor, generate, inspect, transcribe
from executorch_mm.cli.errors import UsageError

PROGRAM = "executorch-mm"
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Run multimodal language models exported to ExecuTorch .pte files."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    demo.add_parser(commands)
    doctor.add_parser(commands)
    generate.add_parser(commands)
    transcribe.add_parser(commands)
    inspect.add_parser(commands)
    version = commands.add_parser("version", help="print the version", description="Print the version.")
    version.set_defaults(run=_version)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The arguments without the program's name; None for the process's own.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show becomes a question mark, not an exception.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as done:  # argparse has printed help, version or a usage error
        return done.code if isinstance(done.code, int) else OK
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        code = run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except UsageError as error:
        return _complain(error, USAGE)
    except BrokenPipeError:
        # The reader of our output is gone: nothing to say, and nothing more to write at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ExecutorchMMError, OSError, MemoryError) as error:
        return _complain(error, FAILED)
    return code


def _complain(error: BaseException | str, code: int) -> int:
    text = " ".join(str(error).split()) or type(error).__name__
    sys.stdout.flush()
    print(f"{PROGRAM}: {text}", file=sys.stderr)
    return code


def _version(_arguments: argparse.Namespace) -> int:
    print(f"{PROGRAM} {__version__}")
    return OK
