"""How tokens are chosen and when an answer ends: the same arguments for every subcommand that generates."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from executorch_mm.cli.errors import UsageError

if TYPE_CHECKING:
    from executorch_mm import GenerationConfig


def add_sampling(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds them, in a group of their own, which is returned."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--max-new-tokens", metavar="N", type=int, default=256, help="of the answer, at most (default: 256)"
    )
    group.add_argument(
        "--temperature", metavar="X", type=float, default=0.0, help="0 takes the likeliest token (default)"
    )
    group.add_argument("--top-k", metavar="K", type=int, default=0, help="among the K likeliest; 0 for all")
    group.add_argument(
        "--top-p", metavar="P", type=float, default=1.0, help="among those with probability P together"
    )
    group.add_argument("--seed", metavar="N", type=int, help="the same seed gives the same answer")
    group.add_argument(
        "--stop", metavar="TEXT", action="append", default=[], help="end before this text; may be repeated"
    )
    group.add_argument("--bos", action="store_true", help="begin with the beginning-of-text token")
    return group


def sampling_config(arguments: argparse.Namespace) -> GenerationConfig:
    """What was asked for.

    Raises:
        UsageError: A value is out of range.
    """
    from executorch_mm import GenerationConfig, InputError

    try:
        return GenerationConfig(
            max_new_tokens=arguments.max_new_tokens,
            temperature=arguments.temperature,
            top_k=arguments.top_k,
            top_p=arguments.top_p,
            seed=arguments.seed,
            stop=tuple(arguments.stop),
            num_bos=int(arguments.bos),
        )
    except InputError as error:
        raise UsageError(f"{arguments.command}: {error}") from error
