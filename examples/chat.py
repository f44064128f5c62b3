"""A chat about an image, in the messages that OpenAI's API and Hugging Face use.

    python examples/chat.py [--model FOLDER] [--image IMAGE] [--question TEXT]

Without --model the small model in the wheel answers questions about an image of coloured shapes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from executorch_mm import GenerationConfig, MultimodalRunner
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

    model = MultimodalRunner.from_pretrained(arguments.model) if arguments.model else MultimodalRunner.demo()
    with model as runner:
        messages: list[dict[str, object]] = []
        for question in questions:
            content: list[object] = [{"type": "text", "text": question}]
            if not messages:
                content.insert(0, {"type": "image", "image": image})
            messages.append({"role": "user", "content": content})
            print(f"user: {question}\nassistant: ", end="")
            answer = ""
            for piece in runner.stream_chat(messages, config):
                print(piece, end="", flush=True)
                answer += piece
            stats = runner.stats
            print(f"\n(prompt of {stats.num_prompt_tokens} positions, {stats.num_cached_tokens} cached)")
            messages.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    main()
