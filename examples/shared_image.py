"""Several people ask about one image, each in a conversation of their own: it is encoded and read once.

    python examples/shared_image.py [--model FOLDER] [--image IMAGE] [--question TEXT]

Without --model the small model in the wheel answers questions about an image of coloured shapes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from executorch_mm import GenerationConfig, MultimodalModel
from executorch_mm.demo import make_scene, render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="a folder with .pte, tokenizer and template, or a Hub repository")
    parser.add_argument("--image", help="an image file")
    parser.add_argument("--question", action="append", help="may be repeated")
    arguments = parser.parse_args()
    image = Path(arguments.image) if arguments.image else render(make_scene(seed=900_000_001))
    questions = arguments.question or ["how many shapes are there?", "describe the picture"]
    config = GenerationConfig(max_new_tokens=60)

    loaded = MultimodalModel.from_pretrained(arguments.model) if arguments.model else MultimodalModel.demo()
    with loaded as model:
        for question in questions:
            content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
            with model.session() as session:
                answer = session.chat([{"role": "user", "content": content}], config)
                stats = session.stats
            print(f"{question} {answer.text}")
            print(
                f"  {stats.num_cached_tokens} of {stats.num_prompt_tokens} positions were there, "
                f"first token after {stats.time_to_first_token * 1000:.1f} ms"
            )
        info = model.cache_info()
        print(f"{info.prefix_hits} of {len(questions)} prompts went on from another")


if __name__ == "__main__":
    main()
