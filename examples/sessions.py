"""Several conversations over one load: questions in threads, a fork for a second opinion, a limit of time."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

from executorch_mm import GenerationConfig, MultimodalInput, MultimodalModel
from executorch_mm.preprocess import open_image
from executorch_mm.utils import make_image_input

QUESTIONS = ("How many shapes are there?", "Describe this picture.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", help="an image file")
    parser.add_argument("--model", help="a .pte file; its prompt is then image, question")
    parser.add_argument("--tokenizer", help="its tokenizer file or folder")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for each answer")
    arguments = parser.parse_args()

    if arguments.image:
        image = open_image(arguments.image)
    else:
        from executorch_mm.demo import make_scene, render

        image = render(make_scene(seed=900_000_002))
    if arguments.model:
        model = MultimodalModel(arguments.model, arguments.tokenizer)
        before, after = "", ""
    else:
        model = MultimodalModel.demo()
        before, after = "<|user|>", "<|end|><|assistant|>"

    def prompt(question: str) -> list[MultimodalInput | str]:
        return [before, make_image_input(image), question + after]

    config = GenerationConfig(max_new_tokens=40, timeout=arguments.timeout)

    def ask(question: str) -> str:
        # Each thread has a conversation of its own; the model works for them in turn.
        with model.session() as session:
            answer = session.generate_result(prompt(question), config)
            return f"{question} {answer.text.strip()} ({answer.finish_reason})"

    with model:
        with ThreadPoolExecutor(len(QUESTIONS)) as threads:
            for line in threads.map(ask, QUESTIONS):
                print(line)

        # A fork has read what its session has, and goes on independently.
        with model.session() as session:
            session.prefill(prompt(QUESTIONS[0]))
            with session.fork() as fork:
                likely = session.generate_text([], config, temperature=0.0)
                other = fork.generate_text([], config, temperature=1.0, seed=1)
        print(f"likeliest: {likely.strip()}")
        print(f"sampled: {other.strip()}")


if __name__ == "__main__":
    main()
