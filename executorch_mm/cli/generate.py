"""`executorch-mm generate`: one prompt, one answer, streamed to stdout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from executorch_mm.cli.errors import UsageError
from executorch_mm.cli.progress import PromptProgress
from executorch_mm.cli.threads import add_threads, num_threads

if TYPE_CHECKING:
    from executorch_mm import GenerationConfig, MultimodalInput, MultimodalRunner

IMAGE_MARK = "<image>"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "generate",
        help="answer a prompt",
        description="Answer a prompt; the text goes to stdout while it comes.",
        epilog=f"Pictures stand before the prompt, or where {IMAGE_MARK} is written in it.",
    )
    parser.add_argument("prompt", help="the prompt; - reads it from standard input")
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="M.pte", help="the model (default: the small one in the wheel)")
    model.add_argument(
        "--tokenizer", metavar="T", help="tokenizer file or its folder (default: the model's folder)"
    )
    model.add_argument("--image", metavar="P", action="append", default=[], help="a picture; may be repeated")
    add_threads(model)
    chat = model.add_mutually_exclusive_group()
    chat.add_argument("--chat", action="store_true", help="use the chat template beside tokenizer or model")
    chat.add_argument(
        "--raw", action="store_true", help="use the prompt as it is (default when there is no chat template)"
    )
    model.add_argument("--system", metavar="TEXT", help="system message, with a chat template")
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--max-new-tokens", metavar="N", type=int, default=256, help="default: 256")
    sampling.add_argument(
        "--temperature", metavar="X", type=float, default=0.0, help="0 takes the likeliest token (default)"
    )
    sampling.add_argument(
        "--top-k", metavar="K", type=int, default=0, help="among the K likeliest; 0 for all"
    )
    sampling.add_argument(
        "--top-p", metavar="P", type=float, default=1.0, help="among those with probability P together"
    )
    sampling.add_argument("--seed", metavar="N", type=int, help="the same seed gives the same answer")
    sampling.add_argument(
        "--stop", metavar="TEXT", action="append", default=[], help="end before this text; may be repeated"
    )
    sampling.add_argument("--bos", action="store_true", help="begin with the beginning-of-text token")
    parser.add_argument("--stats", action="store_true", help="print counts and times to stderr")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: Options out of range or at odds with each other.
        ExecutorchMMError: A file cannot be read, the prompt does not fit, the model fails.
    """
    config = _config(arguments)
    text = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    parts = place_images(text, [_image(path) for path in arguments.image])
    with _runner(arguments) as runner:
        ends_line = True
        progress = PromptProgress(sys.stderr)
        for piece in _pieces(arguments, runner, parts, config, progress):
            sys.stdout.write(piece)
            sys.stdout.flush()
            ends_line = piece.endswith("\n")
        if not ends_line:
            print(flush=True)
        if arguments.stats:
            print(runner.stats, file=sys.stderr)
    return 0


def _config(arguments: argparse.Namespace) -> GenerationConfig:
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
        raise UsageError(f"generate: {error}") from error


def _image(path: str) -> MultimodalInput:
    from executorch_mm import make_image_input
    from executorch_mm.preprocess import open_image

    return make_image_input(open_image(path))


def _runner(arguments: argparse.Namespace) -> MultimodalRunner:
    from executorch_mm import MultimodalRunner

    threads = num_threads(arguments)
    if arguments.model is None:
        if arguments.tokenizer is not None:
            raise UsageError("generate: --tokenizer needs --model")
        return MultimodalRunner.demo(num_threads=threads)
    return MultimodalRunner(arguments.model, arguments.tokenizer, num_threads=threads)


def place_images(text: str, images: list[MultimodalInput]) -> list[str | MultimodalInput]:
    """Prompt parts in order: images before the text, or at the marks in it.

    Args:
        text: The prompt.
        images: In order of appearance.

    Raises:
        UsageError: There are marks, but not as many as images.
    """
    pieces = text.split(IMAGE_MARK)
    num_marks = len(pieces) - 1
    if not images or num_marks == 0:
        return [*images, text]
    if num_marks != len(images):
        raise UsageError(f"generate: {num_marks} {IMAGE_MARK} in the prompt, but {len(images)} --image")
    parts: list[str | MultimodalInput] = [pieces[0]]
    for image, piece in zip(images, pieces[1:], strict=True):
        parts += [image, piece]
    return [part for part in parts if part != ""]


def _pieces(
    arguments: argparse.Namespace,
    runner: MultimodalRunner,
    parts: list[str | MultimodalInput],
    config: GenerationConfig,
    progress: PromptProgress,
) -> Iterator[str]:
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
