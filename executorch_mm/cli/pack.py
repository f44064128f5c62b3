"""`executorch-mm pack`: a model and what belongs to it in one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from executorch_mm.cli.errors import UsageError
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.inspect import shown_size
from executorch_mm.cli.model_arguments import add_model_argument, find_files


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "pack",
        "put a model into one file",
        "Put a model with its tokenizer, chat template, processor and .ptd file into one file, a bundle, "
        "which every command and class takes where it takes a folder.",
        "A bundle is a ZIP file without compression; weights are used where they lie in it.",
    )
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="of the bundle (default: by the model's name, NAME.bundle)"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    add_model_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: There is such a file already.
        ExecutorchMMError: A file of the model is missing or cannot be read.
        OSError: The bundle cannot be written.
    """
    from executorch_mm._loading.pack import pack

    files = find_files(arguments)
    target = Path(arguments.output or f"{_name(arguments.model)}.bundle")
    if target.exists() and not arguments.force:
        raise UsageError(f"pack: {target} is there already; --force replaces it")
    for name, size in pack(files, target):
        print(f"{shown_size(size):>10}  {name}", file=sys.stderr)
    print(target)
    return 0


def _name(model: str) -> str:
    """Of the folder, repository or file, without its ending."""
    return Path(model).resolve().name.removesuffix(".pte") or "model"
