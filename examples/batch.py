"""Many images, one question: one answer a line, with the time each took.

The model is loaded once; `reset()` between images forgets the one before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.preprocess import open_image
from executorch_mm.utils import make_image_input

if TYPE_CHECKING:
    from PIL.Image import Image


def images(paths: list[str], count: int) -> Iterator[tuple[str, Image]]:
    """The images of the command line, or `count` rendered ones, each with a name."""
    if paths:
        for path in paths:
            yield path, open_image(path)
        return
    from executorch_mm.demo import make_scene, render

    for seed in range(900_000_100, 900_000_100 + count):
        yield f"scene {seed}", render(make_scene(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", nargs="+", default=[], metavar="PATH", help="image files")
    parser.add_argument("--count", type=int, default=8, help="number of rendered images without --image")
    parser.add_argument("--question", default="Describe this picture.")
    parser.add_argument("--model", help="a .pte file; its prompt is then image, question")
    parser.add_argument("--tokenizer", help="its tokenizer file or folder")
    arguments = parser.parse_args()

    if arguments.model:
        runner = MultimodalRunner(model_path=arguments.model, tokenizer_path=arguments.tokenizer)
        before, after = "", arguments.question
    else:
        runner = MultimodalRunner.demo()
        before, after = "<|user|>", f"{arguments.question}<|end|><|assistant|>"

    config = GenerationConfig(max_new_tokens=60)
    seconds = []
    for name, image in images(arguments.image, arguments.count):
        start = time.perf_counter()
        runner.reset()
        answer = runner.generate_text([before, make_image_input(image), after], config)
        seconds.append(time.perf_counter() - start)
        print(f"{name}\t{answer}\t{seconds[-1] * 1000:.1f} ms")
    print(f"{len(seconds)} images, {len(seconds) / sum(seconds):.1f} a second")


if __name__ == "__main__":
    main()
