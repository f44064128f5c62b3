"""`executorch-mm batch`: rows of a file in, a result for each in another file out."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from executorch_mm.cli.errors import UsageError, complain
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.model_arguments import add_model, add_threads, find_files, num_threads
from executorch_mm.cli.sampling_arguments import add_sampling
from executorch_mm.stats import counted

if TYPE_CHECKING:
    from executorch_mm.batch import BatchOptions, BatchProgress

_ENDPOINTS = ("chat", "embeddings", "transcriptions")
_LINE_SECONDS = 10.0  # between two lines where there is no terminal
_BAR = 20  # characters


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "batch",
        "answer the rows of a file",
        "Answer the rows of a file: chats, texts to embed, audio to write down. Each row has one result in "
        "the output file. Run again after whatever has ended it, the command goes on where it was.",
        'A row is a line of JSON: {"id": ..., "image": FILE, "prompt": ...}, or one of OpenAI\'s batches. '
        "Files that end in .csv and .parquet are tables with such columns (extra batch). Where rows have "
        "failed, the exit code is 1.",
    )
    parser.add_argument("rows", metavar="FILE", help="the rows; - reads lines of JSON from standard input")
    parser.add_argument(
        "-o", "--output", metavar="PATH", required=True, help="add the results to this file; - is stdout"
    )
    parser.add_argument(
        "--endpoint", choices=_ENDPOINTS, help="what the model does (default: what the first row asks for)"
    )
    parser.add_argument(
        "--media-folder", metavar="PATH", help="rows may name image and audio files in this folder"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="for rows without one; what was said, for speech")
    parser.add_argument("--system", metavar="TEXT", help="system message for rows without one")
    parser.add_argument("--language", metavar="L", help="of speech: de, German or german")
    parser.add_argument(
        "--unordered",
        action="store_true",
        help="write results as they are ready, not in the order of the rows",
    )
    parser.add_argument(
        "--max-errors", metavar="N", type=int, help="stop when more rows than this have failed"
    )
    parser.add_argument(
        "--retry-errors", action="store_true", help="try rows again that have failed in an earlier run"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        default="auto",
        help="processes (default: as many as cores, with one thread each, or one with all threads: whichever "
        "is faster in a trial)",
    )
    parser.add_argument("--quiet", action="store_true", help="do not say how far it has come")
    add_threads(add_model(parser))
    add_sampling(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: Options out of range or at odds with each other.
        ExecutorchMMError: A file is damaged, the model cannot be loaded, or too many rows have failed.
        OSError: A file cannot be read or written.
    """
    from executorch_mm.batch.run import Batch

    source = None if arguments.rows == "-" else Path(arguments.rows)
    target = None if arguments.output == "-" else Path(arguments.output)
    if source is not None and target is not None and target.exists() and source.samefile(target):
        raise UsageError(f"batch: --output: expected another file than that of the rows, got {target}")
    options = _options(arguments)
    shown = None if arguments.quiet else _Progress(sys.stderr)
    batch = Batch(source, target, find_files(arguments), options, shown)
    try:
        end = batch.run()
    finally:
        if shown is not None:
            shown.clear()
    if shown is not None:
        shown.finish(end)
    if end.num_repeated:
        complain(f"batch: {counted(end.num_repeated, 'row')} passed over: the id stands in a row before")
    return int(end.num_errors + end.num_repeated > 0)


def _options(arguments: argparse.Namespace) -> BatchOptions:
    from executorch_mm import InputError
    from executorch_mm.batch import BatchOptions

    workers = arguments.workers
    threads = num_threads(arguments)
    try:
        return BatchOptions(
            endpoint=arguments.endpoint,
            media_folder=arguments.media_folder,
            config=_config(arguments),
            prompt=arguments.prompt,
            system=arguments.system,
            workers=int(workers) if workers.isdecimal() else workers,
            num_threads=None if threads == "auto" else threads,
            keep_order=not arguments.unordered,
            max_errors=arguments.max_errors,
            retry_errors=arguments.retry_errors,
        )
    except InputError as error:
        raise UsageError(f"batch: {error}") from error


def _config(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is said of how to generate, and nothing that is not: endpoints have other options."""
    given = {
        "max_new_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature,
        "top_k": arguments.top_k,
        "top_p": arguments.top_p,
        "seed": arguments.seed,
        "stop": arguments.stop,
        "num_bos": int(arguments.bos),
        "language": arguments.language,
    }
    usual = {"max_new_tokens": 256, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop": [], "num_bos": 0}
    return {name: value for name, value in given.items() if value != usual.get(name)}


class _Progress:
    """How far a batch has come: one line that is written over on a terminal, a line now and then elsewhere.

    Args:
        stream: Where it is said.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._width = 0
        self._last = time.monotonic()
        self._processes = ""

    def __call__(self, progress: BatchProgress) -> None:
        """Says it, if it is time."""
        if progress.processes != self._processes:
            self._processes = progress.processes
            self._line(self._processes)
        text = _text(progress)
        if self._is_terminal:
            self._stream.write(f"\r{text:{self._width}}")
            self._width = len(text)
            self._stream.flush()
        elif time.monotonic() - self._last >= _LINE_SECONDS:
            self._last = time.monotonic()
            self._line(text)

    def finish(self, end: BatchProgress) -> None:
        """Says what has come of it."""
        before = f", {end.num_before} of them before" if end.num_before else ""
        self._line(
            f"{counted(end.num_done, 'row')} done{before}, {counted(end.num_errors, 'error')}, "
            f"{end.rows_per_second:.3g} rows/s"
        )

    def clear(self) -> None:
        """Removes the line that is written over."""
        if self._width:
            self._stream.write(f"\r{'':{self._width}}\r")
            self._stream.flush()
            self._width = 0

    def _line(self, text: str) -> None:
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()


def _text(progress: BatchProgress) -> str:
    done, total = progress.num_done, progress.total
    rate = f"{progress.rows_per_second:.3g} rows/s"
    errors = f", {counted(progress.num_errors, 'error')}" if progress.num_errors else ""
    if not total:
        return f"{counted(done, 'row')}, {rate}{errors}"
    bar = "#" * (_BAR * done // total)
    left = "" if progress.seconds_left is None else f", {_clock(progress.seconds_left)} left"
    return f"[{bar:-<{_BAR}}] {done} of {counted(total, 'row')}, {rate}{left}{errors}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
