"""`executorch-mm demo`: the model in the wheel looks at pictures and answers."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm.cli.errors import UsageError
from executorch_mm.cli.report import summarise
from executorch_mm.cli.terminal import shows_colour, side_by_side

if TYPE_CHECKING:
    from PIL import Image

    from executorch_mm.demo import QA
    from executorch_mm.runner import MultimodalRunner
    from executorch_mm.stats import Stats

# Scenes from this seed on were kept out of training.
_FIRST_UNSEEN_SCENE = 900_000_000
_NUM_UNSEEN_SCENES = 1_000_000_000
_MAX_ANSWER_TOKENS = 40
_QUESTIONS = {
    1: ("Describe this picture.", "How many shapes are there?"),
    2: ("Describe the first picture.", "Describe the second picture.", "Which picture has more shapes?"),
}


@dataclass(frozen=True)
class Conversation:
    """Questions that are asked one after another about the same pictures.

    Attributes:
        title: What is shown above the pictures.
        pictures: With the path of the file each came from, None where it was rendered.
        questions: With the right answer, None where nobody knows it.
    """

    title: str
    pictures: list[tuple[Image.Image, str | None]]
    questions: list[tuple[str, str | None]]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand."""
    text = "Show pictures to the small model in the wheel and let it answer questions about them."
    parser = commands.add_parser("demo", help="let the model in the wheel look at pictures", description=text)
    parser.add_argument(
        "--image",
        metavar="PATH",
        action="append",
        default=[],
        help="a picture of coloured shapes to ask about, instead of rendered ones; up to two",
    )
    parser.add_argument(
        "--question", metavar="Q", action="append", default=[], help="a question to ask; may be repeated"
    )
    parser.add_argument(
        "--seed", metavar="N", type=_seed, help="choose the rendered pictures (default: new ones)"
    )
    parser.add_argument("--no-color", action="store_true", help="name the pictures' files, do not draw them")
    parser.set_defaults(run=run)


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < _NUM_UNSEEN_SCENES:
        raise argparse.ArgumentTypeError(f"expected 0 to {_NUM_UNSEEN_SCENES - 1}, got {seed}")
    return seed


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: More than two pictures.
        ExecutorchMMError: A picture cannot be read, or the runner fails.
    """
    start = time.perf_counter()
    seed = random.SystemRandom().randrange(_NUM_UNSEEN_SCENES) if arguments.seed is None else arguments.seed
    conversations = list(_conversations(arguments.image, arguments.question, seed))
    from executorch_mm import MultimodalRunner

    all_stats: list[Stats] = []
    draws = shows_colour(sys.stdout, wanted=not arguments.no_color)
    with MultimodalRunner.demo() as runner:
        for conversation in conversations:
            print(conversation.title)
            _show(conversation.pictures, draws=draws)
            all_stats += _hold(runner, conversation)
            print()
    if all_stats:
        print(f"{summarise(all_stats)}; {time.perf_counter() - start:.2f} s in all")
    return 0


def _conversations(paths: list[str], questions: list[str], seed: int) -> Iterator[Conversation]:
    """What to talk about: the user's pictures, or rendered ones with questions whose answers are known."""
    asked: list[tuple[str, str | None]] = [(question, None) for question in questions]
    if paths:
        from executorch_mm.preprocess import open_image

        if len(paths) > len(_QUESTIONS):
            raise UsageError(f"demo: the model looks at {len(_QUESTIONS)} pictures at most, got {len(paths)}")
        pictures: list[tuple[Image.Image, str | None]] = [(open_image(path), path) for path in paths]
        default: list[tuple[str, str | None]] = [(question, None) for question in _QUESTIONS[len(paths)]]
        yield Conversation("Your picture" + "s" * (len(paths) > 1), pictures, asked or default)
        return
    from executorch_mm.demo import ask, ask_pair, make_scene, render

    rng = random.Random(seed)  # noqa: S311 chooses questions, not secrets
    numbers = [_FIRST_UNSEEN_SCENE + (seed + i) % _NUM_UNSEEN_SCENES for i in range(3)]
    first, second, third = (make_scene(number) for number in numbers)
    one = [ask(first, rng, "describe"), ask(first, rng), ask(first, rng, "exists")]
    title = f"Scene {numbers[0]}, which the model has never seen"
    yield Conversation(title, [(render(first), None)], asked or _known(one))
    if asked:
        return
    two = [ask_pair(second, third, rng, "pair_more"), ask_pair(second, third, rng)]
    title = f"Scenes {numbers[1]} and {numbers[2]}, both in one prompt"
    yield Conversation(title, [(render(second), None), (render(third), None)], _known(two))


def _known(questions: list[QA]) -> list[tuple[str, str | None]]:
    return [(qa.question, qa.answer) for qa in questions]


def _show(pictures: list[tuple[Image.Image, str | None]], *, draws: bool) -> None:
    """Draws the pictures, or says where their files are."""
    if draws:
        print(side_by_side([picture for picture, _ in pictures], shutil.get_terminal_size().columns))
        return
    folder = None
    for number, (picture, path) in enumerate(pictures, start=1):
        if path is None:
            folder = folder or Path(tempfile.mkdtemp(prefix="executorch-mm-demo-"))
            path = str(folder / f"picture-{number}.png")
            picture.save(path)
        print(f"picture {number}: {path}")


def _hold(runner: MultimodalRunner, conversation: Conversation) -> list[Stats]:
    """Asks the questions in one context: the pictures come with the first question only."""
    from executorch_mm import GenerationConfig
    from executorch_mm.inputs import MultimodalInput, make_image_input

    config = GenerationConfig(max_new_tokens=_MAX_ANSWER_TOKENS)
    pictures: list[MultimodalInput] = [make_image_input(picture) for picture, _ in conversation.pictures]
    all_stats = []
    runner.reset()
    for question, expected in conversation.questions:
        print(f"> {question}\n  ", end="", flush=True)
        prompt: list[str | MultimodalInput] = ["<|user|>", *pictures, f"{question}<|end|><|assistant|>"]
        answer = ""
        for piece in runner.stream(prompt, config):
            print(piece, end="", flush=True)
            answer += piece
        if expected is not None:
            print("  (right)" if answer == expected else f"  (wrong: {expected})", end="")
        print(flush=True)
        all_stats.append(runner.stats)
        pictures = []
    return all_stats
