"""An image and a question in, an answer out; then a second question about the same image.

Without arguments a scene is rendered and the model in the wheel describes it.
"""

from __future__ import annotations

import argparse

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.preprocess import open_image
from executorch_mm.utils import make_image_input, make_text_input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", help="an image file")
    parser.add_argument("--model", help="a .pte file")
    parser.add_argument("--tokenizer", help="its tokenizer file or folder")
    parser.add_argument("--prompt", default="Describe this image:")
    arguments = parser.parse_args()

    if arguments.image:
        image = open_image(arguments.image)
    else:
        from executorch_mm.demo import make_scene, render

        image = render(make_scene(seed=900_000_001))

    config = GenerationConfig(max_new_tokens=100)
    if arguments.model:
        # Most models want their own chat format around this; see the model's card.
        runner = MultimodalRunner(model_path=arguments.model, tokenizer_path=arguments.tokenizer)
        inputs = [make_text_input(arguments.prompt), make_image_input(image)]
        print(runner.generate_text(inputs, config))
        return

    with MultimodalRunner.demo() as runner:
        # The format of the model in the wheel; plain strings are inputs too.
        answer = runner.generate_text(
            ["<|user|>", make_image_input(image), f"{arguments.prompt}<|end|><|assistant|>"], config
        )
        print(f"{arguments.prompt} {answer}")
        # The runner keeps the conversation, so the image need not be sent again.
        question = "How many shapes are there?"
        print(f"{question} {runner.generate_text(f'<|user|>{question}<|end|><|assistant|>', config)}")


if __name__ == "__main__":
    main()
