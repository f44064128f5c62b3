"""This server beside llama.cpp's, and beside openvino-genai without one: first piece and tokens a second.

    python benchmarks/bench_server_peers.py MODEL GGUF --python PYTHON [--clients 4] [--rounds 7]

MODEL is a folder with a .pte, GGUF the file with the same weights for the others, PYTHON an interpreter with
xllamacpp and openvino-genai. In each round all are asked in turns, in a random order: one request alone, and
by several clients at a time. Each prompt comes once. Ratios are those of the same round; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from bench_server import ask

from executorch_mm import MultimodalModel
from executorch_mm.server import BackgroundServer, ServerOptions

TEXT = (
    "Write a story about a lighthouse keeper and his {} cats on a cold island in the north. Say how the "
    "keeper spends the days, what the cats do at night when the storm comes, who visits the island in the "
    "spring, and why one of the cats leaves with the ship. Use short sentences and do not name the keeper. "
    "Story number {}."
)
OURS = "executorch-mm"
Seen: TypeAlias = list[tuple[float, float]]  # of each answer: seconds to the first piece, and in all
Way: TypeAlias = Callable[[list[str], int], Seen]


@contextmanager
def peer(kind: str, given: argparse.Namespace) -> Iterator[tuple[Any, Any]]:
    """A process with a peer: what it says of itself, and its pipes."""
    command = [given.python, str(Path(__file__).with_name("server_peer.py"))]
    command += [kind, given.gguf, str(given.threads), str(given.clients)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        while not line.startswith("{"):
            assert line, f"{kind} has not started"
            line = process.stdout.readline()
        try:
            yield json.loads(line), process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def over_http(url: str) -> Way:
    """A server that is asked by clients in a process of their own."""

    def run(prompts: list[str], tokens: int) -> Seen:
        answers = ask(url, len(prompts), 0, tokens, prompts)
        assert {status for _, _, status, _, _ in answers} == {200}
        return [(first, whole) for _, _, _, first, whole in answers]

    return run


def over_pipe(process: Any) -> Way:
    """A process that answers one prompt after the other."""

    def run(prompts: list[str], tokens: int) -> Seen:
        seen = []
        for prompt in prompts:
            process.stdin.write(json.dumps([prompt, tokens]) + "\n")
            process.stdin.flush()
            line = json.loads(process.stdout.readline())
            seen.append((line["first"], line["whole"]))
        return seen

    return run


def measured(seen: Seen, tokens: int) -> dict[str, float]:
    """Of one round."""
    first = statistics.median(each[0] for each in seen)
    if len(seen) == 1:
        return {"first piece, s": first, "tokens/s behind it": (tokens - 1) / (seen[0][1] - first)}
    whole = max(each[1] for each in seen)
    return {"first piece, s": first, "tokens/s in all": tokens * len(seen) / whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("gguf")
    parser.add_argument("--python", required=True)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(1)
    numbers = iter(range(10_000))
    found: dict[tuple[str, str, str], list[float]] = {}
    with ExitStack() as stack:
        model = MultimodalModel.from_pretrained(given.model, num_threads=given.threads)
        server = stack.enter_context(BackgroundServer({"m": lambda: model}, ServerOptions(port=0)))
        ways: dict[str, Way] = {OURS: over_http(server.url)}
        for kind in ("llama.cpp", "openvino"):
            about, process = stack.enter_context(peer(kind, given))
            print(kind, about["version"], about["system"])
            ways[kind] = over_http(about["url"]) if about["url"] else over_pipe(process)
        for number in range(given.rounds + 1):
            for name in chance.sample(sorted(ways), len(ways)):
                for count in (1, given.clients):
                    if name == "openvino" and count > 1:
                        continue
                    prompts = [TEXT.format(next(numbers), next(numbers)) for _ in range(count)]
                    values = measured(ways[name](prompts, given.tokens), given.tokens)
                    for key, value in values.items() if number else ():  # the first round warms up
                        found.setdefault((f"{count} at a time", key, name), []).append(value)
            print(f"round {number}, load {os.getloadavg()[0]:.1f}", flush=True)
    for (load, key, name), values in found.items():
        if name == OURS:
            print(f"{load}, {key}: {name} {statistics.median(values):.3f}")
            continue
        ratios = [ours / theirs for ours, theirs in zip(found[load, key, OURS], values, strict=True)]
        print(
            f"{load}, {key}: {name} {statistics.median(values):.3f}, {OURS} has "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) times that"
        )


if __name__ == "__main__":
    main()
