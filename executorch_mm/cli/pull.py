"""`executorch-mm pull`: a model of the Hugging Face Hub is downloaded."""

from __future__ import annotations

import argparse
from pathlib import Path

from executorch_mm.cli.errors import UsageError
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.model_arguments import find_files
from executorch_mm.cli.output import opened


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "pull",
        "download a model",
        "Download a model with its tokenizer, processor and chat template from the Hugging Face Hub to its "
        "cache, and print the path of the .pte file. What is there already is not downloaded again.",
        "Needs the extra hub. HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean to huggingface_hub. "
        "Other commands download a model by themselves.",
    )
    parser.add_argument("model", metavar="REPO", help="a Hugging Face repository as owner/name")
    parser.add_argument("--model-file", metavar="NAME", help="the .pte file in it, where it has several")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of the repository")
    parser.set_defaults(run=run, tokenizer=None, local_files_only=False)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: It is no repository but a file.
        ExecutorchMMError: There is no such repository, no connection, or the extra is missing.
    """
    if Path(arguments.model).exists():
        raise UsageError(f"pull: expected a repository as owner/name, {arguments.model} is here already")
    path = find_files(arguments).model
    with opened("-") as file:
        print(path, file=file)
    return 0
