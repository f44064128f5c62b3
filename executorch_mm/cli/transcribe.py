"""`executorch-mm transcribe`: a sound file in, text or subtitles out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm.cli.errors import UsageError
from executorch_mm.cli.progress import PromptProgress
from executorch_mm.cli.threads import add_threads, num_threads

if TYPE_CHECKING:
    from executorch_mm.speech import Segment, SpeechConfig, SpeechRunner


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "transcribe",
        help="write down what is said in a sound file",
        description="Write down what is said in a sound file; segments go to stdout as they come.",
    )
    parser.add_argument("audio", metavar="FILE", help="the sound file")
    parser.add_argument(
        "--model", metavar="M", required=True, help="a .pte file, its folder, or a Hugging Face repository"
    )
    parser.add_argument(
        "--tokenizer", metavar="T", help="tokenizer file or its folder (default: the model's folder)"
    )
    parser.add_argument(
        "--language", metavar="L", help="of what is said, as a code or name (default: the model tells)"
    )
    parser.add_argument(
        "--task", choices=("transcribe", "translate"), default="transcribe", help="translate writes English"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="names, spellings and style to go by")
    parser.add_argument("--format", choices=("txt", "srt", "vtt", "json"), default="txt", help="default: txt")
    parser.add_argument(
        "--temperature", metavar="X", type=float, help="use only this one; 0 takes the likeliest tokens"
    )
    parser.add_argument("--seed", metavar="N", type=int, help="the same seed gives the same text")
    add_threads(parser)
    parser.add_argument("--stats", action="store_true", help="print counts and times to stderr")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: Options out of range or at odds with each other.
        ExecutorchMMError: A file cannot be read, or the model fails.
    """
    config = _config(arguments)
    with _runner(arguments) as runner:
        progress = PromptProgress(sys.stderr)

        def show(done: float, total: float) -> None:
            progress(round(done), max(round(total), 1), "transcribe")

        if arguments.format == "json":
            result = runner.transcribe(arguments.audio, config, progress=show)
            progress.clear()
            print(result.to_json())
        else:
            from executorch_mm.speech.formats import write

            events = runner.stream_transcribe(arguments.audio, config, progress=show)
            for piece in write(arguments.format, _segments(events)):
                progress.clear()
                print(piece, end="", flush=True)
        progress.clear()
        if arguments.stats:
            print(runner.stats, file=sys.stderr)
    return 0


def _segments(events: Iterator[object]) -> Iterator[Segment]:
    from executorch_mm.speech import Segment

    return (event for event in events if isinstance(event, Segment))


def _config(arguments: argparse.Namespace) -> SpeechConfig:
    from executorch_mm import InputError
    from executorch_mm.speech import SpeechConfig

    try:
        config = SpeechConfig(
            language=arguments.language,
            task=arguments.task,
            prompt=arguments.prompt,
            timestamps=arguments.format != "txt",
            seed=arguments.seed,
        )
        return config if arguments.temperature is None else config.replace(temperature=arguments.temperature)
    except InputError as error:
        raise UsageError(f"transcribe: {error}") from error


def _runner(arguments: argparse.Namespace) -> SpeechRunner:
    from executorch_mm.speech import SpeechRunner

    threads = num_threads(arguments)
    if Path(arguments.model).suffix == ".pte":
        return SpeechRunner(arguments.model, arguments.tokenizer, num_threads=threads)
    if arguments.tokenizer is not None:
        raise UsageError("transcribe: --tokenizer needs a .pte file as --model")
    return SpeechRunner.from_pretrained(arguments.model, num_threads=threads)
