"""Eight conversations decoded in one call of a model each step, against one after the other.

    python benchmarks/bench_batch.py MODEL.pte [--sessions] [--conversations 8] [--tokens 24] [--rounds 5]

With --sessions by those of a `MultimodalModel`, each in a thread of its own; else by one caller of the core.

MODEL.pte has its cache outside of the graph, ids (1, n), positions (n) and logits for each token, such as
`python tools/fixtures/kvcache/make_big_model.py FOLDER` makes. In each round both ways decode the same tokens
from the same prompts, in turns; the ratio is tokens/s together over tokens/s one at a time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python" / "support"))

from executorch_mm import GenerationResult, MultimodalModel, Session, make_token_input
from executorch_mm._engine.batch import Conversation, step_together
from number_tokenizer import NumberTokenizer


def decode(groups: list[list[Conversation]], tokens: int) -> list[list[int]]:
    """The tokens of each conversation, group by group at each step."""
    rows = [[token for group in groups for token in step_together(group)] for _ in range(tokens)]
    return [list(answer) for answer in zip(*rows, strict=True)]


def answer(session: Session, tokens: int) -> GenerationResult:
    return session.generate_result([], max_new_tokens=tokens, temperature=0.0, ignore_eos=True)


def compare_sessions(arguments: argparse.Namespace) -> None:
    """Whole answers by public sessions: in threads, and one after the other in one thread."""
    model = MultimodalModel.load(arguments.model, NumberTokenizer(), num_threads=arguments.threads)
    rng = np.random.default_rng(0)
    trunks = [model.session() for _ in range(arguments.conversations)]
    for trunk in trunks:
        trunk.prefill(make_token_input(rng.integers(0, model.contract.vocab_size, arguments.prompt).tolist()))
    ratios = []
    with ThreadPoolExecutor(len(trunks)) as pool:
        for round_number in range(arguments.rounds + 1):
            seconds: dict[str, float] = {}
            answers: dict[str, Sequence[GenerationResult]] = {}
            ways = ["together", "alone"] if round_number % 2 else ["alone", "together"]
            for way in ways:
                forks = [trunk.fork() for trunk in trunks]
                start = time.perf_counter()
                counts = [arguments.tokens] * len(forks)
                answers[way] = list((pool.map if way == "together" else map)(answer, forks, counts))
                seconds[way] = time.perf_counter() - start
                for fork in forks:
                    fork.close()
            if round_number == 0:
                continue  # warming up
            pairs = zip(answers["together"], answers["alone"], strict=True)
            same = sum(one.token_ids == other.token_ids for one, other in pairs)
            steps = sum(one.stats.num_decode_steps for one in answers["together"])
            shared = sum(one.stats.num_shared_steps for one in answers["together"])
            total = arguments.tokens * len(trunks)
            ratios.append(seconds["alone"] / seconds["together"])
            print(
                f"alone {total / seconds['alone']:7.1f} tokens/s  together {total / seconds['together']:7.1f}"
                f"  ratio {ratios[-1]:.2f}  shared {shared} of {steps}  same answers {same} of {len(trunks)}"
            )
    print(f"ratio: median {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--conversations", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sessions", action="store_true")
    arguments = parser.parse_args()
    if arguments.sessions:
        compare_sessions(arguments)
        return
    first = Conversation.load(arguments.model, num_threads=arguments.threads)
    vocab = first.session.contract.vocab_size
    rng = np.random.default_rng(0)
    trunks = [first, *(first.another() for _ in range(arguments.conversations - 1))]
    for trunk in trunks:
        trunk.read(rng.integers(0, vocab, arguments.prompt).tolist())
    ratios, rates = [], []
    for round_number in range(arguments.rounds + 1):
        seconds, answers = {}, {}
        ways = ["together", "alone"] if round_number % 2 else ["alone", "together"]
        for way in ways:
            forks = [trunk.fork() for trunk in trunks]
            groups = [forks] if way == "together" else [[fork] for fork in forks]
            decode(groups, 2)
            start = time.perf_counter()
            answers[way] = decode(groups, arguments.tokens)
            seconds[way] = time.perf_counter() - start
        same = sum(a == b for a, b in zip(answers["together"], answers["alone"], strict=True))
        if round_number == 0:
            continue  # warming up
        total = arguments.tokens * arguments.conversations
        ratios.append(seconds["alone"] / seconds["together"])
        rates.append({way: total / seconds[way] for way in ways})
        print(
            f"alone {rates[-1]['alone']:7.1f} tokens/s  together {rates[-1]['together']:7.1f}  "
            f"ratio {ratios[-1]:.2f}  same answers {same} of {arguments.conversations}"
        )
    print(f"ratio: median {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


if __name__ == "__main__":
    main()
