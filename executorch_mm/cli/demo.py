"""`executorch-mm demo`: the model in the wheel looks at images, listens, and answers."""

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
from executorch_mm.cli.grammar import Commands, add_command
from executorch_mm.cli.report import summarise
from executorch_mm.cli.terminal import shows_colour, side_by_side

if TYPE_CHECKING:
    from PIL import Image

    from executorch_mm import MultimodalRunner, Stats
    from executorch_mm.demo import QA, Scene

# Scenes from this seed on were kept out of training.
_FIRST_UNSEEN_SCENE = 900_000_000
_NUM_UNSEEN_SCENES = 1_000_000_000
_MAX_ANSWER_TOKENS = 40
_QUESTIONS = {
    1: ("Describe this picture.", "How many shapes are there?"),
    2: ("Describe the first picture.", "Describe the second picture.", "Which picture has more shapes?"),
}


@dataclass(frozen=True)
class ShownImage:
    """An image and its file: where it came from, or the name to save it under."""

    image: Image.Image
    file: str
    is_rendered: bool


@dataclass(frozen=True)
class Conversation:
    """Questions that are asked one after another about the same images or the same audio clip.

    Attributes:
        title: What is shown above the images.
        images: In the order of the prompt.
        questions: With the right answer, None where nobody knows it.
        audio: An audio file.
    """

    title: str
    images: list[ShownImage]
    questions: list[tuple[str, str | None]]
    audio: Path | None = None


def add_parser(commands: Commands) -> None:
    """Adds the subcommand."""
    text = "Let the small model in the wheel answer questions about images and about an audio clip."
    parser = add_command(commands, "demo", "let the model in the wheel look and listen", text)
    parser.add_argument(
        "--image",
        metavar="FILE",
        action="append",
        default=[],
        help="an image of coloured shapes to ask about, instead of rendered ones; up to two",
    )
    parser.add_argument(
        "--question", metavar="Q", action="append", default=[], help="a question to ask; may be repeated"
    )
    parser.add_argument(
        "--seed", metavar="N", type=_seed, help="choose the rendered images (default: new ones)"
    )
    parser.add_argument("--no-color", action="store_true", help="name the images' files, do not draw them")
    parser.set_defaults(run=run)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= _NUM_UNSEEN_SCENES:
        raise argparse.ArgumentTypeError(f"expected 0 to {_NUM_UNSEEN_SCENES - 1}, got {text}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand.

    Raises:
        UsageError: More than two images.
        ExecutorchMMError: An image cannot be read, or the runner fails.
    """
    start = time.perf_counter()
    seed = random.SystemRandom().randrange(_NUM_UNSEEN_SCENES) if arguments.seed is None else arguments.seed
    conversations = list(_conversations(arguments.image, arguments.question, seed))
    draws = shows_colour(sys.stdout, wanted=not arguments.no_color)
    folder = None if draws or arguments.image else Path(tempfile.mkdtemp(prefix="executorch-mm-demo-"))
    from executorch_mm import MultimodalRunner

    all_stats: list[Stats] = []
    with MultimodalRunner.demo() as runner:
        for conversation in conversations:
            print(conversation.title)
            if draws and conversation.images:
                images = [shown.image for shown in conversation.images]
                print(side_by_side(images, shutil.get_terminal_size().columns))
            else:
                _name(conversation.images, folder)
            all_stats += _hold(runner, conversation)
            print()
    if all_stats:
        print(f"{summarise(all_stats)}; {time.perf_counter() - start:.2f} s in all")
    return 0


def _conversations(paths: list[str], questions: list[str], seed: int) -> Iterator[Conversation]:
    """What to talk about: the user's images, or rendered ones with questions whose answers are known."""
    asked: list[tuple[str, str | None]] = [(question, None) for question in questions]
    if paths:
        from executorch_mm.preprocess import open_image

        if len(paths) > len(_QUESTIONS):
            raise UsageError(f"demo: the model looks at {len(_QUESTIONS)} images at most, got {len(paths)}")
        images = [ShownImage(open_image(path), path, is_rendered=False) for path in paths]
        default: list[tuple[str, str | None]] = [(question, None) for question in _QUESTIONS[len(paths)]]
        yield Conversation("Your image" + "s" * (len(paths) > 1), images, asked or default)
        return
    from executorch_mm.demo import SPOKEN_FILE, SPOKEN_WORDS, ask_pair, make_scene, render

    rng = random.Random(seed)  # noqa: S311 chooses questions, not secrets
    numbers = [_FIRST_UNSEEN_SCENE + (seed + i) % _NUM_UNSEEN_SCENES for i in range(3)]
    scenes = [make_scene(number) for number in numbers]
    first, second, third = (
        ShownImage(render(scene), f"scene-{scene.seed}.png", is_rendered=True) for scene in scenes
    )
    title = f"Scene {numbers[0]}, which the model has never seen"
    yield Conversation(title, [first], asked or _known(_different_questions(scenes[0], rng, 3)))
    if asked:
        return
    two = [ask_pair(scenes[1], scenes[2], rng, kind) for kind in ("pair_more", "pair_which")]
    title = f"Scenes {numbers[1]} and {numbers[2]}, both in one prompt"
    yield Conversation(title, [second, third], _known(two))
    title = f"A voice that the model has never heard: {SPOKEN_FILE}"
    yield Conversation(title, [], [("What do you hear?", SPOKEN_WORDS)], SPOKEN_FILE)


def _different_questions(scene: Scene, rng: random.Random, count: int) -> list[QA]:
    """A description first, then questions of other types."""
    from executorch_mm.demo import ask

    questions = [ask(scene, rng, "describe")]
    while len(questions) < count:
        question = ask(scene, rng)
        if question.type not in {asked.type for asked in questions}:
            questions.append(question)
    return questions


def _known(questions: list[QA]) -> list[tuple[str, str | None]]:
    return [(qa.question, qa.answer) for qa in questions]


def _name(images: list[ShownImage], folder: Path | None) -> None:
    """Says where the images' files are; rendered ones are saved in `folder` first."""
    for number, shown in enumerate(images, start=1):
        file = shown.file
        if shown.is_rendered and folder is not None:
            file = str(folder / file)
            shown.image.save(file)
        print(f"image {number}: {file}")


def _hold(runner: MultimodalRunner, conversation: Conversation) -> list[Stats]:
    """Asks the questions in one context: images and audio come with the first question only."""
    from executorch_mm import GenerationConfig, MultimodalInput, make_audio_input, make_image_input

    config = GenerationConfig(max_new_tokens=_MAX_ANSWER_TOKENS)
    media: list[MultimodalInput] = [make_image_input(shown.image) for shown in conversation.images]
    if conversation.audio is not None:
        media.append(make_audio_input(conversation.audio))
    all_stats = []
    runner.reset()
    for question, expected in conversation.questions:
        print(f"> {question}\n  ", end="", flush=True)
        prompt: list[str | MultimodalInput] = ["<|user|>", *media, f"{question}<|end|><|assistant|>"]
        answer = ""
        for piece in runner.stream(prompt, config):
            print(piece, end="", flush=True)
            answer += piece
        if expected is not None:
            print("  (right)" if answer == expected else f"  (wrong: {expected})", end="")
        print(flush=True)
        all_stats.append(runner.stats)
        media = []
    return all_stats
