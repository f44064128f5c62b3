"""Which model, and how it is loaded: the same arguments for every subcommand that takes a model."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm.cli.errors import UsageError

if TYPE_CHECKING:
    from executorch_mm import MultimodalRunner
    from executorch_mm._loading.options import NumThreads
    from executorch_mm._loading.pretrained import ModelFiles

MODEL = "a .pte file, a folder with one, a bundle, or a Hugging Face repository as owner/name"


def add_model(parser: argparse.ArgumentParser, *, required: bool = True) -> argparse._ArgumentGroup:
    """Adds `--model` and what goes with it, for a subcommand that works on something else.

    Args:
        parser: The subcommand's.
        required: False where the small model in the wheel is taken otherwise.

    Returns:
        The group, for what only this subcommand has.
    """
    group = parser.add_argument_group("model")
    default = "" if required else " (default: the small one in the wheel)"
    group.add_argument("-m", "--model", metavar="MODEL", required=required, help=f"{MODEL}{default}")
    _add_files(group)
    return group


def add_model_argument(
    parser: argparse.ArgumentParser, *, required: bool = True, has_tokenizer: bool = True
) -> argparse._ArgumentGroup:
    """Adds MODEL and what goes with it, for a subcommand that works on the model itself.

    Args:
        parser: The subcommand's.
        required: False where it does something without one.
        has_tokenizer: False where it reads no tokenizer.

    Returns:
        The group, for what only this subcommand has.
    """
    group = parser.add_argument_group("model")
    group.add_argument("model", metavar="MODEL", nargs=None if required else "?", help=MODEL)
    _add_files(group, has_tokenizer=has_tokenizer)
    return group


def _add_files(group: argparse._ArgumentGroup, *, has_tokenizer: bool = True) -> None:
    group.add_argument(
        "--model-file", metavar="NAME", help="the .pte file in the folder or repository, where it has several"
    )
    if has_tokenizer:
        group.add_argument(
            "--tokenizer", metavar="PATH", help="tokenizer file or its folder (default: the model's folder)"
        )
    else:
        group.set_defaults(tokenizer=None)
    group.add_argument("--revision", metavar="R", help="branch, tag or commit of the repository")
    group.add_argument(
        "--local-files-only",
        action="store_true",
        help="download nothing: take the repository from the Hub's cache; HF_HUB_OFFLINE=1 does the same",
    )


def find_files(arguments: argparse.Namespace) -> ModelFiles:
    """The files of the model that is named, downloaded where they are not here.

    Raises:
        ModelLoadError: There is no such model, or several.
    """
    from executorch_mm._loading.pretrained import find_model

    files = find_model(
        arguments.model,
        arguments.model_file,
        arguments.revision,
        local_files_only=arguments.local_files_only,
    )
    return files if arguments.tokenizer is None else replace(files, tokenizer=Path(arguments.tokenizer))


def expect_no_model(arguments: argparse.Namespace) -> None:
    """For a subcommand that can do without a model, when none is named.

    Raises:
        UsageError: Something is said of one all the same.
    """
    for name in ("model_file", "tokenizer", "revision", "local_files_only", "draft_model"):
        if getattr(arguments, name, None):
            raise UsageError(f"{arguments.command}: --{name.replace('_', '-')} needs a model")


def add_threads(parser: argparse._ActionsContainer) -> None:
    """Adds `--threads`."""
    parser.add_argument("--threads", metavar="N", type=int, help="threads to run on (default: by model size)")


def add_draft_model(group: argparse._ActionsContainer) -> None:
    """Adds `--draft-model`."""
    group.add_argument(
        "--draft-model",
        metavar="PATH",
        help="a smaller model with the same tokenizer that drafts answers, which stay the same: a .pte file "
        "or a folder with one",
    )


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


def load_runner(arguments: argparse.Namespace) -> MultimodalRunner:
    """The model that is named, or the small one in the wheel.

    Raises:
        UsageError: As in `expect_no_model` and `num_threads`.
        ExecutorchMMError: It cannot be loaded.
    """
    from executorch_mm import MultimodalRunner

    threads = num_threads(arguments)
    if arguments.model is None:
        expect_no_model(arguments)
        return MultimodalRunner.demo(num_threads=threads)
    files = find_files(arguments)
    return MultimodalRunner(
        files.model,
        files.tokenizer,
        data_path=files.data,
        num_threads=threads,
        draft_model=arguments.draft_model,
    )
