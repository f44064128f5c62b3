"""`executorch-mm bench`: how fast a model runs here, by itself or beside another."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm.cli.errors import UsageError
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.model_arguments import add_model_argument, find_files
from executorch_mm.cli.output import add_json, add_output, opened

if TYPE_CHECKING:
    from executorch_mm._loading.pretrained import ModelFiles
    from executorch_mm.cli.bench.contender import Contender, Task


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "bench",
        "measure how fast a model runs",
        "Measure how fast a model reads, writes and begins to answer, with one conversation and several, and "
        "how much memory it takes. Two models, or several numbers of threads, take turns round by round, "
        "each in a process of its own, and are compared by ratios of the same round.",
        "Prompts are tokens at random. Numbers are medians of all rounds; one more round before them is not "
        "counted.",
    )
    parser.add_argument("--against", metavar="MODEL", help="another model to compare with")
    parser.add_argument(
        "--threads", metavar="N", default="", help="threads to run on (default: by model size); 1,2 compares"
    )
    parser.add_argument(
        "--prompt-tokens", metavar="N", type=int, help="of a prompt (default: 128, or half the context)"
    )
    parser.add_argument(
        "--new-tokens", metavar="N", type=int, help="of an answer (default: 32, or a quarter of the context)"
    )
    parser.add_argument("--rounds", metavar="N", type=int, default=5, help="that are counted (default: 5)")
    parser.add_argument(
        "--concurrency",
        metavar="N",
        type=int,
        default=4,
        help="conversations at the same time, 1 for none (default: 4)",
    )
    add_output(parser)
    add_json(parser, "print everything as JSON, each round too")
    parser.add_argument("--plot", metavar="PATH", help="draw the medians to this SVG file")
    add_model_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: Options out of range.
        ExecutorchMMError: A model cannot be loaded, or fails.
        OSError: The result cannot be written, or a process cannot be started.
    """
    from executorch_mm.cli.bench.contender import Contender, take_turns
    from executorch_mm.cli.bench.report import Report
    from executorch_mm.cli.bench.svg import draw

    _check(arguments)
    models = [(arguments.model, find_files(arguments))]
    if arguments.against is not None:
        models.append((arguments.against, _other(arguments)))
    threads = _threads(arguments.threads)
    with ExitStack() as stack:
        contenders: list[Contender] = [
            stack.enter_context(Contender(name, files, count)) for name, files in models for count in threads
        ]
        task = _task(arguments, contenders)
        take_turns(contenders, task, arguments.rounds, _progress(arguments.rounds))
        report = Report.of(contenders, task)
    text = json.dumps(report.to_dict(), indent=2) if arguments.json else report.table()
    if arguments.plot is not None:
        Path(arguments.plot).write_text(draw(report), encoding="utf-8")
    with opened(arguments.output) as file:
        print(text, file=file)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for name in ("prompt_tokens", "new_tokens", "rounds", "concurrency"):
        value = getattr(arguments, name)
        least = 2 if name == "new_tokens" else 1
        if value is not None and value < least:
            flag = name.replace("_", "-")
            raise UsageError(f"bench: --{flag}: expected {least} or more, got {value}")


def _threads(text: str) -> list[int | None]:
    counts: list[int | None] = []
    for word in text.split(",") if text else []:
        if not word.isdecimal() or int(word) < 1 or int(word) in counts:
            raise UsageError(f"bench: --threads: expected different numbers from 1 on, got {text}")
        counts.append(int(word))
    return counts or [None]


def _other(arguments: argparse.Namespace) -> ModelFiles:
    from executorch_mm._loading.pretrained import find_model

    return find_model(arguments.against, local_files_only=arguments.local_files_only)


def _task(arguments: argparse.Namespace, contenders: list[Contender]) -> Task:
    """What all of them can do."""
    from executorch_mm.cli.bench.contender import Task

    room = min(contender.capacity for contender in contenders)
    prompt = min(128, room // 2) if arguments.prompt_tokens is None else arguments.prompt_tokens
    new = max(2, min(32, room // 4)) if arguments.new_tokens is None else arguments.new_tokens
    if prompt + new > room:
        raise UsageError(f"bench: expected at most {room} tokens of prompt and answer, got {prompt + new}")
    several = all(contender.holds_several for contender in contenders)
    return Task(prompt, new, arguments.concurrency if several else 1)


def _progress(rounds: int) -> Callable[[int], None]:
    """Says on a terminal which round it is."""

    def show(number: int) -> None:
        if sys.stderr.isatty():
            text = "warming up" if number == 0 else f"round {number} of {rounds}"
            sys.stderr.write(f"\r\x1b[K{text if number <= rounds else ''}")
            sys.stderr.flush()

    return show
