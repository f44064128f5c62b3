"""decide() over eight choices and answers in JSON that say the same, in turns over one model.

    python benchmarks/bench_decisions.py MODEL_FOLDER [--rounds 5]

MODEL_FOLDER holds model.pte, its tokenizer and a chat template. "one of them" is an answer in JSON that names
the choice, "all of them" one with a number for each, which is what decide() gives. "empty": every side
begins with an empty context and reads the prompt; "behind": the context holds it. Forced tokens of the format
are read together. Times are processor time of the whole process; the last column is beside decide().
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from executorch_mm import MultimodalRunner

TOPICS = [
    "billing",
    "delivery",
    "a refund",
    "an address",
    "a broken part",
    "praise",
    "a job",
    "something else",
]
LETTERS = [*"ABCDEFGH"]
MESSAGE = (
    "A customer writes: 'My parcel was said to come on Monday. It is Thursday now, and nobody could tell me "
    "on the phone where it is.' What is it about? "
)
SETS = {
    "letters": (
        MESSAGE + "\n".join(f"{letter}: {topic}" for letter, topic in zip(LETTERS, TOPICS, strict=True)),
        LETTERS,
    ),
    "topics": (MESSAGE + "Choose one of: " + ", ".join(TOPICS) + ".", TOPICS),
}
SHARE = {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.01}


def json_object(properties: dict[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def compare(runner: MultimodalRunner, question: str, choices: list[str], rounds: int) -> None:
    one, every = json_object({"choice": {"enum": choices}}), json_object(dict.fromkeys(choices, SHARE))
    sides: dict[str, Callable[[], object]] = {
        "decide()": lambda: runner.decide(question, choices),
        "one of them": lambda: runner.chat(question, response_format=one, temperature=0.0),
        "all of them": lambda: runner.chat(question, response_format=every, temperature=0.0),
    }
    for name, side in sides.items():
        print(f"  {name}: {side()}")
    for is_behind in (False, True):
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                if not is_behind:
                    runner.reset()
                begin = time.process_time()
                side()
                seconds[name].append(time.process_time() - begin)
        for name, times in seconds.items():
            ratio = median(a / b for a, b in zip(times, seconds["decide()"], strict=True))
            where = "behind" if is_behind else "empty "
            print(f"  {where} {name:12} {median(times) * 1e3:7.1f} ms {ratio:6.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with MultimodalRunner(arguments.folder / "model.pte", arguments.folder) as runner:
        for name, (question, choices) in SETS.items():
            print(name)
            compare(runner, question, choices, arguments.rounds)


if __name__ == "__main__":
    main()
