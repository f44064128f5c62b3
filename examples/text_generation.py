"""Text in, text out: the shortest program, with callbacks for the text and the statistics.

Without arguments the model in the wheel is used. It talks about images, so it is shown one beforehand; with
a text model of your own (--model, --tokenizer) only the prompt counts.
"""

from __future__ import annotations

import argparse

from executorch_mm import GenerationConfig, MultimodalRunner, Stats
from executorch_mm.utils import make_image_input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", help="what to ask or to continue")
    parser.add_argument("--model", help="a .pte file")
    parser.add_argument("--tokenizer", help="its tokenizer file or folder")
    arguments = parser.parse_args()

    if arguments.model:
        runner = MultimodalRunner(model_path=arguments.model, tokenizer_path=arguments.tokenizer)
        prompt = arguments.prompt or "The capital of France is"
    else:
        from executorch_mm.demo import make_scene, render

        runner = MultimodalRunner.demo()
        runner.prefill([make_image_input(render(make_scene(seed=900_000_021)))])
        prompt = arguments.prompt or "How many shapes are there?"

    print(f"prompt: {prompt}")

    def show(piece: str) -> None:
        print(piece, end="", flush=True)

    def report(stats: Stats) -> None:
        print(f"\n{stats.num_generated_tokens} tokens, {stats.tokens_per_second:.0f} tokens/s")

    config = GenerationConfig(max_new_tokens=60, temperature=0.0)
    runner.generate(prompt, config, token_callback=show, stats_callback=report)


if __name__ == "__main__":
    main()
