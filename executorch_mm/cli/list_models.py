"""`executorch-mm list`: what has been downloaded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.inspect import shown_size
from executorch_mm.cli.output import add_json, add_output, opened

if TYPE_CHECKING:
    from executorch_mm._loading.hub_cache import CachedModel

_HEAD = ("MODEL", "REVISION", "SIZE", "DOWNLOADED", "FILES")


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "list",
        "list downloaded models",
        "List the models in the Hugging Face Hub's cache: what of a repository is here, with its branches "
        "and tags, or its commit.",
        "Needs the extra hub, and no connection. `hf cache rm` of huggingface_hub removes one.",
    )
    parser.add_argument("--cache-dir", metavar="PATH", help="another folder than the Hub's cache")
    add_output(parser)
    add_json(parser, "print everything as JSON, with the paths of the folders")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        ExecutorchMMError: The extra is missing, or the cache cannot be read.
        OSError: The list cannot be written.
    """
    from executorch_mm._loading.hub_cache import cached_models

    models = cached_models(arguments.cache_dir)
    if arguments.json:
        text = json.dumps([asdict(model) for model in models], indent=2)
    else:
        text = "\n".join(_table([_HEAD, *map(_row, models)])) if models else "no models have been downloaded"
    with opened(arguments.output) as file:
        print(text, file=file)
    return 0


def _row(model: CachedModel) -> tuple[str, ...]:
    day = datetime.fromtimestamp(model.modified).astimezone().strftime("%Y-%m-%d")
    version = ", ".join(model.refs) or model.revision[:12]
    return (model.repo, version, shown_size(model.bytes), day, ", ".join(model.programs))


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
