"""`executorch-mm generate`: one prompt, one answer, streamed to stdout."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from executorch_mm.cli.errors import UsageError
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.media_arguments import MARKS, add_media, place_media, read_media
from executorch_mm.cli.model_arguments import add_draft_model, add_model, add_threads, load_runner
from executorch_mm.cli.output import add_json, add_output, opened
from executorch_mm.cli.progress import PromptProgress
from executorch_mm.cli.sampling_arguments import add_sampling, sampling_config

if TYPE_CHECKING:
    from executorch_mm import GenerationConfig, GenerationResult, MultimodalInput, MultimodalRunner, Stream


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "generate",
        "answer a prompt",
        "Answer a prompt; the text goes to stdout while it comes.",
        "Images and audio stand before the prompt in the order in which they are given, or where "
        f"{' and '.join(MARKS.values())} are written in it.",
    )
    parser.add_argument("prompt", metavar="PROMPT", help="the prompt; - reads it from standard input")
    add_media(parser)
    add_output(parser, "write the answer to this file")
    add_json(parser, "write one JSON object: the answer, its tokens, why it ended, what it cost")
    parser.add_argument("--stats", action="store_true", help="print counts and times to stderr")
    model = add_model(parser, required=False)
    add_threads(model)
    add_draft_model(model)
    chat = model.add_mutually_exclusive_group()
    chat.add_argument("--chat", action="store_true", help="use the chat template beside tokenizer or model")
    chat.add_argument(
        "--raw", action="store_true", help="use the prompt as it is (default when there is no chat template)"
    )
    model.add_argument("--system", metavar="TEXT", help="system message, with a chat template")
    add_sampling(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: Options out of range or at odds with each other.
        ExecutorchMMError: A file cannot be read, the prompt does not fit, the model fails.
        OSError: The answer cannot be written.
    """
    config = sampling_config(arguments)
    if [arguments.prompt, *(path for _, path in arguments.media)].count("-") > 1:
        raise UsageError("generate: standard input can be read once only, got - more than once")
    text = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    parts = place_media(text, read_media(arguments))
    with load_runner(arguments) as runner:
        progress = PromptProgress(sys.stderr)
        with closing(_stream(arguments, runner, parts, config, progress)) as stream:
            first = next(stream, "")  # no file is made where the prompt cannot be read
            if arguments.json:
                pieces: Iterable[str] = _json_line(stream)
            else:
                pieces = _ending_in_a_line_break(itertools.chain([first], stream))
            with opened(arguments.output) as file:
                for piece in pieces:
                    file.write(piece)
                    file.flush()
        if arguments.stats:
            print(runner.stats, file=sys.stderr)
    return 0


def _json_line(stream: Stream[str, GenerationResult]) -> Iterator[str]:
    for _ in stream:
        pass
    if stream.result is not None:
        yield stream.result.to_json() + "\n"


def _ending_in_a_line_break(pieces: Iterable[str]) -> Iterator[str]:
    last = ""
    for piece in pieces:
        yield piece
        last = piece or last
    if last and not last.endswith("\n"):
        yield "\n"


def _stream(
    arguments: argparse.Namespace,
    runner: MultimodalRunner,
    parts: list[str | MultimodalInput],
    config: GenerationConfig,
    progress: PromptProgress,
) -> Stream[str, GenerationResult]:
    """The answer, to the parts as a chat where the model has a template for it."""
    if not arguments.raw and runner.has_chat_template:
        system = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]
        content = parts[0] if len(parts) == 1 else parts
        messages = [*system, {"role": "user", "content": content}]
        return runner.stream_chat(messages, config, progress=progress)
    if arguments.chat:
        raise UsageError("generate: --chat: no chat template beside tokenizer or model")
    if arguments.system is not None:
        raise UsageError("generate: --system needs a chat template")
    return runner.stream(parts, config, progress=progress)
