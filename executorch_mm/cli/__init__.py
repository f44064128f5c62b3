"""The command line: `executorch-mm demo | generate | chat | transcribe | batch | serve | inspect | ...`.

Errors are one line on stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from executorch_mm import ExecutorchMMError, __version__
from executorch_mm.cli import (
    batch,
    bench,
    chat,
    completion,
    demo,
    doctor,
    generate,
    inspect,
    list_models,
    pack,
    pull,
    serve,
    transcribe,
)
from executorch_mm.cli.errors import PROGRAM, UsageError, complain
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.output import forget, use_streams

OK, FAILED, USAGE, INTERRUPTED, NO_READER = 0, 1, 2, 130, 141
EXIT_CODES = {
    OK: "done",
    FAILED: "a file, the model or a check failed",
    USAGE: "wrong usage",
    INTERRUPTED: "interrupted by Ctrl-C",
    NO_READER: "the reader of the output has gone away",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    codes = "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Run multimodal language models exported to ExecuTorch .pte files.",
        epilog=f"Exit codes: {codes}.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands: Commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND"
    )
    answering = (demo, generate, chat, transcribe, batch, serve)
    for module in (*answering, inspect, pack, pull, list_models, bench, doctor):
        module.add_parser(commands)
    completion.add_parser(commands, build_parser)
    version = add_command(commands, "version", "print the version", "Print the version.")
    version.set_defaults(run=_version)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: The arguments without the program's name; None for the process's own.

    Returns:
        The exit code, one of `EXIT_CODES`.
    """
    use_streams()
    try:
        code = _run(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except UsageError as error:
        return _complain(error, USAGE)
    except BrokenPipeError:
        forget(sys.stdout)
        return NO_READER
    except (ExecutorchMMError, OSError, MemoryError) as error:
        return _complain(error, FAILED)
    return code


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as done:  # argparse has printed help, version or a usage error
        return done.code if isinstance(done.code, int) else OK
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _complain(error: BaseException | str, code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError:  # a full disk, of which `error` speaks, or a reader that has gone
        forget(sys.stdout)
    complain(error)
    return code


def _version(_arguments: argparse.Namespace) -> int:
    print(f"{PROGRAM} {__version__}")
    return OK
