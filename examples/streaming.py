"""Text while it comes: an iterator, a loop that is left early, and a stop from another thread."""

from __future__ import annotations

import argparse
import threading

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.preprocess import open_image
from executorch_mm.utils import make_image_input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", help="an image file")
    parser.add_argument("--model", help="a .pte file; its prompt is then image, question")
    parser.add_argument("--tokenizer", help="its tokenizer file or folder")
    parser.add_argument("--question", default="Describe this picture.")
    parser.add_argument("--seconds", type=float, default=10.0, help="stop after this time")
    arguments = parser.parse_args()

    if arguments.image:
        image = open_image(arguments.image)
    else:
        from executorch_mm.demo import make_scene, render

        image = render(make_scene(seed=900_000_002))
    if arguments.model:
        runner = MultimodalRunner(model_path=arguments.model, tokenizer_path=arguments.tokenizer)
        inputs = [make_image_input(image), arguments.question]
    else:
        runner = MultimodalRunner.demo()
        inputs = ["<|user|>", make_image_input(image), f"{arguments.question}<|end|><|assistant|>"]

    config = GenerationConfig(max_new_tokens=200)
    print("whole answer: ", end="")
    # stop() works from any thread; here it is a limit on the time.
    limit = threading.Timer(arguments.seconds, runner.stop)
    limit.start()
    for piece in runner.stream(inputs, config):
        print(piece, end="", flush=True)
    limit.cancel()
    print(
        f"\nfirst piece after {runner.stats.time_to_first_token * 1000:.1f} ms, {runner.stats.finish_reason}"
    )

    runner.reset()
    print("first three pieces: ", end="")
    stream = runner.stream(inputs, config)
    for number, piece in enumerate(stream, start=1):
        print(piece, end="", flush=True)
        if number == 3:
            break
    stream.close()  # ends the request; the runner is free for the next one
    print(f"\nfinish reason: {runner.stats.finish_reason}")


if __name__ == "__main__":
    main()
